"""How fast one worker answers single rows, each recorded before its answer is sent, at every durability.

LightGBM, 200 trees of 31 leaves, 13 numbers a row; each connection sends its next request when it has its answer.
The load comes from one process on the same machine, so on few cores the two compete; the worker's processor time per
request does not depend on that. Rows rotate over thousands, or the processor would learn them by heart.
"""

import asyncio
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httptools
import numpy as np
import psutil
import uvloop

from parts.figures import options, report
from parts.small import FEATURES, Running, make, up, write_file

CONNECTIONS = (1, 16, 64)
RECORDS = ("process", "disk", "memory")
ROWS = 4096


class Client(asyncio.Protocol):
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
        self.failed += self._parser.get_status_code() != 200
        self._parser = httptools.HttpResponseParser(self)
        if now < self._until_s:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1


def requests_of(running: Running, path: str = "/predict/small") -> list[bytes]:
    """Whole requests, ready to send."""
    rows = np.random.default_rng(1).normal(size=(ROWS, FEATURES)).round(4).tolist()
    host = running.url.removeprefix("http://")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {running.token}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: "
    bodies = [json.dumps({f"x{k}": value for k, value in enumerate(row)}) for row in rows]
    return [f"{head}{len(body)}\r\n\r\n{body}".encode() for body in bodies]


async def load(running: Running, requests: list[bytes], connections: int, seconds: float) -> list[Client]:
    """Send for some seconds over so many connections."""
    host, port = running.url.removeprefix("http://").split(":")
    loop, until_s = asyncio.get_running_loop(), time.perf_counter() + seconds
    clients = []
    for k in range(connections):
        start = k * (ROWS // connections)
        _, client = await loop.create_connection(lambda s=start: Client(requests, s, until_s), host, int(port))
        clients.append(client)
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), seconds + 30)
    return clients


def worker_of(running: Running) -> psutil.Process:
    """The process that answers."""
    children = psutil.Process(running.process.pid).children(recursive=True)
    return next(child for child in children if "holdfast.processes.worker" in child.cmdline())


def measured(running: Running, connections: int, seconds: float) -> dict[str, Any]:
    """Requests a second, latencies, and the worker's processor time per request."""
    worker, requests = worker_of(running), requests_of(running)
    uvloop.run(load(running, requests, connections, 0.5))
    before, began_s = sum(worker.cpu_times()[:2]), time.perf_counter()
    clients = uvloop.run(load(running, requests, connections, seconds))
    took_s, cpu_s = time.perf_counter() - began_s, sum(worker.cpu_times()[:2]) - before
    latencies = np.concatenate([client.latencies_s for client in clients]) * 1e3
    failed = sum(client.failed for client in clients)
    if failed:
        raise SystemExit(f"{failed} of {len(latencies)} requests were not answered with 200")
    p50, p99 = np.percentile(latencies, [50, 99])
    return {
        "connections": connections,
        "requests_per_s": len(latencies) / took_s,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "cpu_us_per_request": cpu_s / len(latencies) * 1e6,
    }


def main() -> None:
    """Measure and report."""
    given = options(__doc__, seconds=3.0)
    figures = []
    with TemporaryDirectory() as name:
        directory = Path(name)
        make(directory)
        for record in RECORDS:
            write_file(directory, record)
            with up(directory) as running:
                running.first_answer_s()
                for connections in CONNECTIONS:
                    figures.append({"record": record, **measured(running, connections, given.seconds)})
    report("serving", figures, given.json)


if __name__ == "__main__":
    main()
