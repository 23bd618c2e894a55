"""Orderly and disorderly ends under load: answers are whole or absent, and the lake has all that were given."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest

from .deployments import ROW, until
from .load import Load, Reconciled, under_load

pytestmark = pytest.mark.slow


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_is_told_to_stop_gives_whole_answers_or_none(serve):
    deployment = serve(workers=2)
    load, told, stops = Load(deployment.port), set(), 6

    async def story():
        for number in range(stops):
            await load.more(200)
            name = deployment.names[number % 2]
            pid = deployment.pid(name)
            os.kill(pid, signal.SIGSTOP)
            await load.until(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "a standstill")
            told.update(deployment.ports_of(pid))
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
            await load.until(lambda name=name, pid=pid: deployment.is_replaced(name, pid), f"a new {name}")

    under_load(load, story)
    assert load.torn == 0
    assert load.turned_away == 0
    assert load.statuses.keys() == {200}
    assert told
    assert deployment.log.count("ended with code 0") == stops
    reconciled = Reconciled(load, deployment.recorded())
    assert reconciled.problems == []
    assert reconciled.acknowledged == len(load.asked)
    print(
        f"{stops} workers stopped, {reconciled.acknowledged} acknowledged, {len(told)} connections at the stopped; "
        f"before an answer {load.closed} were closed and {load.reset} reset, {load.unheard} before any answer at all"
    )


@pytest.mark.parametrize("cut", [30, -5])
def test_a_request_that_is_half_sent_when_its_worker_is_told_to_stop_is_answered(serve, cut):
    deployment = serve(workers=1)
    pid, body = deployment.pid("worker-0"), json.dumps(ROW).encode()
    request = b"POST /predict/flights HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=20) as client:
        client.sendall(request)
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        client.sendall(request[:cut])
        until(lambda: is_read(deployment.port, client.getsockname()[1]), "the worker to take the first half")
        os.kill(pid, signal.SIGTERM)
        until(lambda: not listens(pid, deployment.port), "the worker to stop listening")
        client.sendall(request[cut:])
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        assert client.recv(65_536) == b""  # closed, and in order
    until(lambda: deployment.is_replaced("worker-0", pid), "a new worker")
    assert deployment.recorded().height == 2


def test_a_client_that_never_ends_its_request_does_not_keep_a_worker_from_stopping(serve):
    deployment = serve(workers=1)
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=20) as client:
        client.sendall(b"POST /predict/flights HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n{")
        until(lambda: is_read(deployment.port, client.getsockname()[1]), "the worker to take the first half")
        assert deployment.stop() == 0
        assert client.recv(65_536) == b""
    assert "it is killed" not in deployment.log


def is_read(port: int, peer: int) -> bool:
    """Whether nothing waits in the receive queue of the server's end of a connection."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, _, queues = line.split()[1:5]
        if int(local.partition(":")[2], 16) == port and int(remote.partition(":")[2], 16) == peer:
            return int(queues.partition(":")[2], 16) == 0
    return False


def listens(pid: int, port: int) -> bool:
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(each.laddr.port == port and each.status == psutil.CONN_LISTEN for each in found)


def test_a_supervisor_that_is_told_to_stop_ends_in_order_and_everything_is_sealed(serve):
    deployment = serve(workers=2)
    load = Load(deployment.port)

    async def story():
        await load.more(500)
        pids = [deployment.pid(name) for name in deployment.names]
        assert await asyncio.to_thread(deployment.stop) == 0
        assert not any(map(lives, pids))
        assert load.torn == 0
        stats = FileLake(deployment.lake, MemoryManifest()).stats()
        assert (stats.segments_open, stats.segments_sealed > 0) == (0, True)
        await asyncio.to_thread(deployment.start)
        load.port = deployment.port
        await load.more(500)

    under_load(load, story)
    assert load.statuses.keys() == {200}
    reconciled = Reconciled(load, deployment.recorded())
    assert reconciled.problems == []
    assert reconciled.acknowledged == len(load.asked)


def test_the_workers_of_a_killed_supervisor_end_and_a_restart_finds_all_that_was_acknowledged(serve):
    deployment = serve(workers=2)
    load = Load(deployment.port)

    async def story():
        for _ in range(3):
            await load.more(300)
            pids = [deployment.pid(name) for name in deployment.names]
            assert await asyncio.to_thread(deployment.stop, signal.SIGKILL) == -signal.SIGKILL
            await load.until(lambda pids=pids: not any(map(lives, pids)), "the end of the workers")
            await asyncio.to_thread(deployment.start)
            load.port = deployment.port
        await load.more(300)

    under_load(load, story)
    assert load.statuses.keys() == {200}
    reconciled = Reconciled(load, deployment.recorded())
    assert reconciled.problems == []
    assert reconciled.acknowledged == len(load.asked)
    manifest = MemoryManifest()
    FileLake(deployment.lake, manifest).roll()
    assert Reconciled(load, deployment.recorded(manifest)).problems == []
    assert open_segments(deployment.lake) <= len(deployment.names)


def open_segments(lake: Path) -> int:
    return len(list(lake.rglob("*.seg.open")))
