"""The supervisor itself: hung workers, many restarts, storms of them, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from holdfast.serve.supervisor import Patience

from .deployments import until
from .load import Load, Reconciled, under_load

pytestmark = pytest.mark.slow


def test_no_new_connection_waits_for_a_worker_that_hangs(serve):
    hung_after_s = 1.0
    deployment = serve(workers=2, patience=Patience(hung_after_s=hung_after_s))
    load, slowest_s = Load(deployment.port, rest_s=0.01), []

    async def ask(number: int) -> None:
        since_s = time.monotonic()
        async with httpx.AsyncClient(timeout=20) as http:
            url = f"http://127.0.0.1:{load.port}/v2/health/live"
            assert (await http.get(url)).status_code == 200
        slowest_s.append(time.monotonic() - since_s)

    async def story():
        await load.more(200)
        for name in deployment.names:
            pid = deployment.pid(name)
            os.kill(pid, signal.SIGSTOP)
            while not deployment.is_replaced(name, pid):
                await ask(len(slowest_s))
            await load.more(100)

    under_load(load, story)
    assert load.statuses.keys() == {200}
    assert load.turned_away == 0
    assert max(slowest_s) < hung_after_s
    assert load.slowest_s < hung_after_s + 5  # on connections that the hung one had accepted too
    assert Reconciled(load, deployment.recorded()).problems == []
    print(
        f"{len(slowest_s)} new connections while a worker hung, the slowest answered in {max(slowest_s) * 1e3:.0f} ms"
    )


def test_one_worker_that_hangs_keeps_new_connections_waiting_only_until_it_is_replaced(serve):
    deployment = serve(workers=1, patience=Patience(hung_after_s=1.0))
    pid = deployment.pid("worker-0")
    os.kill(pid, signal.SIGSTOP)
    since_s = time.monotonic()
    assert deployment.predict("q").status_code == 200  # it waited in the queue of the socket
    assert time.monotonic() - since_s < 20
    assert deployment.pid("worker-0") != pid


def test_when_the_whole_machine_was_paused_no_worker_is_taken_for_hung(serve):
    hung_after_s = 1.0
    deployment = serve(workers=2, patience=Patience(hung_after_s=hung_after_s))
    before = {name: deployment.pid(name) for name in deployment.names}
    paused = (deployment.process.pid, *before.values())
    for pid in paused:
        os.kill(pid, signal.SIGSTOP)
    since_s = time.monotonic()
    until(lambda: time.monotonic() - since_s > 2 * hung_after_s, "a long pause")
    said = {name: deployment.beat(name).at for name in deployment.names}
    os.kill(deployment.process.pid, signal.SIGCONT)
    supervisor = psutil.Process(deployment.process.pid)
    looks = supervisor.num_ctx_switches().voluntary
    until(lambda: supervisor.num_ctx_switches().voluntary > looks + 5, "some looks of the supervisor, which goes first")
    for pid in before.values():
        os.kill(pid, signal.SIGCONT)
    until(lambda: all((beat := deployment.beat(name)) and beat.at != said[name] for name in said), "signs of life")
    assert {name: deployment.pid(name) for name in deployment.names} == before
    assert "is killed and replaced" not in deployment.log


SIGNALLED = """
import random, signal, time
from holdfast.serve.supervisor import Supervisor

chance, end = random.Random(3), time.monotonic() + 4
while time.monotonic() < end:
    supervisor = Supervisor([], look_s=0.00001)
    signal.signal(signal.SIGALRM, lambda *_: supervisor.stop())
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00001, 0.0004))
    supervisor.run()
"""


def test_a_signal_ends_the_supervisor_whatever_it_interrupts():
    assert subprocess.run([sys.executable, "-c", SIGNALLED], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("restarts", [6, pytest.param(100, marks=pytest.mark.long)])
def test_restarts_leave_neither_descriptors_nor_processes_behind(serve, restarts):
    deployment = serve(workers=4, patience=Patience(fast_s=0.0))
    supervisor = psutil.Process(deployment.process.pid)
    descriptors, memory = supervisor.num_fds(), supervisor.memory_info().rss
    for _ in range(restarts // 2):
        before = {name: deployment.pid(name) for name in deployment.names[:2]}
        os.kill(before["worker-0"], signal.SIGKILL)
        os.kill(before["worker-1"], signal.SIGTERM)
        for name, pid in before.items():
            until(lambda name=name, pid=pid: deployment.is_replaced(name, pid), f"a new {name}")
    assert supervisor.num_fds() == descriptors
    children = supervisor.children(recursive=True)
    assert sorted(child.pid for child in children) == sorted(deployment.pid(name) for name in deployment.names)
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert supervisor.memory_info().rss < memory + 8 * 2**20
    print(f"{restarts} restarts, {descriptors} descriptors before and after")


def test_a_worker_that_always_dies_is_started_ever_more_rarely_and_its_siblings_serve_on(serve):
    deployment = serve(workers=2, patience=Patience(fast_s=30.0, fast_deaths=2, first_wait_s=0.4, longest_wait_s=60.0))
    load, waits_s = Load(deployment.port, rest_s=0.02), []

    async def story():
        for _ in range(5):
            pid = deployment.pid("worker-0")
            os.kill(pid, signal.SIGKILL)
            since_s = time.monotonic()
            await load.until(lambda: deployment.beat("worker-0") is None, "a start")
            waits_s.append(time.monotonic() - since_s)
            await load.until(lambda pid=pid: deployment.is_replaced("worker-0", pid), "a new worker-0")

    under_load(load, story)
    assert load.statuses.keys() == {200}
    assert all(wait_s < 0.4 for wait_s in waits_s[:2])
    assert [wait_s >= least_s for wait_s, least_s in zip(waits_s[2:], (0.4, 0.8, 1.6), strict=True)] == [True] * 3
    print("waits before each start: " + ", ".join(f"{wait_s:.2f} s" for wait_s in waits_s))


def test_a_sign_of_life_that_cannot_be_taken_away_does_not_stop_the_supervisor(serve):
    deployment = serve(workers=2)
    beat, pid = deployment.run_dir / "worker-0.json", deployment.pid("worker-0")
    os.kill(pid, signal.SIGKILL)
    beat.unlink(missing_ok=True)
    beat.mkdir()
    try:
        until(lambda: "worker-0 could not write its heartbeat" in deployment.log, "a new worker-0")
        assert deployment.predict("q").status_code == 200
        assert deployment.process.poll() is None
    finally:
        beat.rmdir()
    until(lambda: deployment.is_replaced("worker-0", pid), "a sign of life")
