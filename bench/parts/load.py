"""The load: wrk where it is installed, else a client of our own that drives the same requests."""

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec
import numpy as np
import uvloop

WRK = Path(__file__).with_name("rotate.lua")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a load saw. `failed` counts what was not answered with 2xx, and connections that broke."""

    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float


def generator() -> str:
    """Name and version of the load generator that is used."""
    found = shutil.which("wrk")
    if found is None:
        return "bundled client (wrk is not installed)"
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"wrk (\S+)", said.stdout + said.stderr)
    return f"wrk {version[1] if version else ''}, one thread".replace(" ,", ",")


def write_requests(file: Path, requests: Sequence[bytes]) -> None:
    """One after the other, each behind its length as eight digits."""
    file.write_bytes(b"".join(b"%08d" % len(request) + request for request in requests))


def drive(url: str, file: Path, connections: int, seconds: float) -> Load:
    """Send the requests of a file in rotation for some seconds; each connection waits for its answer, then goes on."""
    found = shutil.which("wrk")
    return _bundled(url, file, connections, seconds) if found is None else _wrk(found, url, file, connections, seconds)


def _wrk(found: str, url: str, file: Path, connections: int, seconds: float) -> Load:
    argv = [
        found,
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "30s",
        "-s",
        str(WRK),
        url,
        "--",
        str(file),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    told = re.search(r"^LOAD (.*)$", done.stdout, re.MULTILINE)
    if told is None:
        raise RuntimeError(f"wrk said: {done.stdout}{done.stderr}")
    return msgspec.json.decode(told[1], type=Load)


def _read_requests(file: Path) -> list[bytes]:
    data, at, found = file.read_bytes(), 0, []
    while at < len(data):
        length = int(data[at : at + 8])
        found.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return found


def _bundled(url: str, file: Path, connections: int, seconds: float) -> Load:
    began_s = time.perf_counter()
    clients = uvloop.run(_drive(url, _read_requests(file), connections, seconds))
    latencies = np.concatenate([client.latencies_s for client in clients]) * 1e3
    p50, p99 = np.percentile(latencies, [50, 99]) if len(latencies) else (0.0, 0.0)
    return Load(
        requests=len(latencies),
        failed=sum(client.failed for client in clients),
        seconds=time.perf_counter() - began_s,
        p50_ms=float(p50),
        p99_ms=float(p99),
    )


async def _drive(url: str, requests: list[bytes], connections: int, seconds: float) -> "list[_Client]":
    place = urlsplit(url)
    loop, until_s = asyncio.get_running_loop(), time.perf_counter() + seconds
    clients = []
    for k in range(connections):
        start = k * (len(requests) // connections)
        made = loop.create_connection(lambda s=start: _Client(requests, s, until_s), place.hostname, place.port)
        clients.append((await made)[1])
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), seconds + 30)
    return clients


class _Client(asyncio.Protocol):
    """One connection: sends a request, waits for the answer, sends the next, until the time is over."""

    def __init__(self, requests: list[bytes], start: int, until_s: float) -> None:
        self.latencies_s: list[float] = []
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()
        self._requests, self._next, self._until_s = requests, start, until_s
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self.latencies_s.append(now - self._sent_s)
        self.failed += not 200 <= self._parser.get_status_code() < 300
        self._parser = httptools.HttpResponseParser(self)
        if now < self._until_s:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.failed += time.perf_counter() < self._until_s
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1
