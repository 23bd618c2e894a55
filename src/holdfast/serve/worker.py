"""One data-plane process: serves an inherited socket, follows the routes file, says that it is alive."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Literal

import msgspec
import uvicorn
import uvloop

from holdfast.core import routes as routing
from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.protocols import Field, Writer
from holdfast.errors import StateError
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.heartbeat import Heartbeat, write_heartbeat
from holdfast.serve.http import DataPlaneApp, new_request_id
from holdfast.serve.lanes import LoadModel
from holdfast.serve.recording import Recorder

log = logging.getLogger(__name__)

Durability = Literal["process", "disk", "memory"]


OpenWriter = Callable[[Durability, str, str, Sequence[Field]], Writer]
"""Opens a segment of the lake: durability (``serve.record``), table, system and schema to a writer."""


class WorkerSetup(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker is made of; whoever starts it composes this."""

    name: str
    """Also the name of its acknowledgement file, ``<run_dir>/<name>.json``."""
    socket_fd: int
    """The inherited listening socket."""
    routes: Path
    run_dir: Path
    load_model: LoadModel
    open_writer: OpenWriter
    clock: Clock
    watch_s: float = 0.05
    """How often the routes file is looked at."""
    beat_s: float = 0.5
    """Longest time between two acknowledgements."""
    retry_s: float = 2.0
    """How long after a version could not be loaded it is tried again."""
    seal_s: float = 60.0
    """How old a segment of the lake becomes before it is sealed."""
    stop_s: float = 5.0
    """How long accepted requests may take once the worker is told to stop."""


def run_worker(setup: WorkerSetup) -> None:
    """Serve until SIGTERM, SIGINT or the death of the parent; requests accepted before are still answered."""
    # Told to stop before the server listens, or by the server again after it has shut down: the rest is still done.
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    # A thread that loads a model must not hold up the event loop for the default 5 ms.
    sys.setswitchinterval(0.0005)

    def writer_for(table: str, system: str, schema: Sequence[Field]) -> Writer:
        return setup.open_writer(plane.lanes(system).routed.serve.record, table, system, schema)

    plane = DataPlane(setup.load_model, Recorder(writer_for), setup.clock)
    try:
        uvloop.run(_serve(setup, plane, stopping))
    finally:
        plane.recorder.close()


async def _serve(setup: WorkerSetup, plane: DataPlane, stopping: Event) -> None:
    app = DataPlaneApp(plane, setup.clock, lambda: new_request_id(setup.clock, os.urandom))
    follower = Follower(setup, plane, app)
    await follower.start()
    # Models and modules live as long as the process: the collector need not look at them again.
    gc.collect()
    gc.freeze()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(setup.stop_s)),
        )
    )
    watching = asyncio.create_task(_watch(setup, follower, server, stopping))
    try:
        await server.serve(sockets=[socket.socket(fileno=setup.socket_fd)])
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(setup: WorkerSetup, follower: "Follower", server: uvicorn.Server, stopping: Event) -> None:
    """Follow and beat until cancelled, while the last requests are answered too."""
    parent = os.getppid()
    while True:
        await asyncio.sleep(setup.watch_s)
        follower.look()
        if os.getppid() != parent and not server.should_exit:
            log.error("the supervisor is gone; %s stops", setup.name)
            stopping.set()
        if stopping.is_set():
            server.should_exit = True


class Follower:
    """Keeps a data plane on the newest good routes and writes what came of it."""

    def __init__(self, setup: WorkerSetup, plane: DataPlane, app: DataPlaneApp) -> None:
        self._setup = setup
        self._plane = plane
        self._app = app
        self._seen: tuple[int, int, int] | None = None
        self._followed_s = 0.0
        self._beat_s = 0.0
        self._error = ""
        self.following: asyncio.Task[None] | None = None
        """The change of routes that is under way, or the last one."""

    async def start(self) -> None:
        """Follow the routes that there are, and beat for the first time."""
        await self._follow()

    def look(self) -> None:
        """Follow the routes file if it changed, or if a version could not be loaded a while ago; beat if it is time."""
        now_s = stopwatch_s()
        if self.following is None or self.following.done():
            is_retry = bool(self._plane.acknowledgement().held) and now_s - self._followed_s >= self._setup.retry_s
            if is_retry or _stamp(self._setup.routes) != self._seen:
                # A task of its own: loading takes its time, and this process must be seen to live meanwhile.
                self.following = asyncio.create_task(self._follow())
        if now_s - self._beat_s >= self._setup.beat_s:
            self._plane.recorder.rotate(self._setup.seal_s)
            self._beat()

    async def _follow(self) -> None:
        self._seen, self._followed_s = _stamp(self._setup.routes), stopwatch_s()
        self._error = await self._followed()
        self._beat()

    async def _followed(self) -> str:
        """Switch to the routes in the file; returns why that failed. The old ones stay in force then."""
        try:
            routes = routing.decode(self._setup.routes.read_bytes())
        except (OSError, StateError) as error:
            return f"{self._setup.routes}: {error}"
        prepared = await asyncio.to_thread(self._plane.prepare, routes)
        held = self._plane.switch(prepared).held
        return "; ".join(f"{system}: {why}" for system, why in held.items())

    def _beat(self) -> None:
        self._beat_s = stopwatch_s()
        acknowledged, recorder = self._plane.acknowledgement(), self._plane.recorder
        beat = Heartbeat(
            pid=os.getpid(),
            generation=acknowledged.generation,
            at=self._setup.clock.now().isoformat(),
            error=self._error,
            held=dict(acknowledged.held),
            recorded=recorder.recorded,
            lost=recorder.lost,
            refused=self._app.refused,
        )
        try:
            write_heartbeat(self._setup.run_dir, self._setup.name, beat)
        except OSError as error:  # a full disk must not stop the serving; the supervisor sees the silence
            log.warning("%s could not write its heartbeat: %s", self._setup.name, error)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or written; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
