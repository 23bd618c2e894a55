"""One data-plane process: serves an inherited socket, follows the routes file, says that it is alive."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import uvicorn
import uvloop

from holdfast.core import routes as routing
from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.protocols import Field, Writer
from holdfast.core.spec import Serve
from holdfast.errors import StateError
from holdfast.observe.metrics import Metrics
from holdfast.observe.metricsboard import MetricsBoard
from holdfast.observe.statistics import Statistics
from holdfast.observe.tracing import tracing
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.heartbeat import Heartbeat, write_heartbeat
from holdfast.serve.ids import request_ids
from holdfast.serve.lanes import LoadModel
from holdfast.serve.lastgood import keep, kept
from holdfast.serve.observing import Observing
from holdfast.serve.recording import Recorder
from holdfast.wire.bodies import LIMIT_BYTES, Bodies
from holdfast.wire.fastlane import fast_lane
from holdfast.wire.heads import Heads
from holdfast.wire.http import DataPlaneApp
from holdfast.wire.tls import Tls, server_context

if TYPE_CHECKING:
    from holdfast.wire.grpcserver import GrpcServer

log = logging.getLogger(__name__)

Durability = Literal["process", "memory"]

SWEEP_S = 1.0
"""How often connections are looked at that take too long."""

OpenWriter = Callable[[Durability, str, str, Sequence[Field]], Writer]
"""Opens a segment of the lake: durability (``serve.record``), table, system and schema to a writer."""


class WorkerSetup(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker is made of; whoever starts it composes this."""

    name: str
    """Also the name of its acknowledgement file, ``<run_dir>/<name>.json``."""
    socket_fd: int
    """The inherited listening socket."""
    grpc_fd: int | None = None
    """The one for gRPC; None where that is not served."""
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
    tls: Tls | None = None
    """None where the sockets are not encrypted."""
    bodies_bytes: int = LIMIT_BYTES
    """Most bytes of requests that it holds, not answered yet."""
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

    # Syncing to the disk is the recorder's: several answers share one.
    writer_for, kept_writer_for = partial(setup.open_writer, "process"), partial(setup.open_writer, "memory")

    def serve_of(system: str) -> Serve:
        return plane.lanes(system).routed.serve

    async def serve() -> None:
        soon = asyncio.get_running_loop().call_soon_threadsafe
        plane.recorder = Recorder(writer_for, serve_of, soon, kept_writer_for)
        try:
            await _serve(setup, plane, stopping)
        finally:
            plane.recorder.close()
            plane.observing.tracing.close()

    plane = DataPlane(setup.load_model, Recorder(writer_for, serve_of), setup.clock)
    uvloop.run(serve())


async def _serve(setup: WorkerSetup, plane: DataPlane, stopping: Event) -> None:
    new_id = request_ids(setup.clock, os.urandom)
    app = DataPlaneApp(plane, setup.clock, new_id, Bodies(setup.bodies_bytes))
    connections: set[Any] = set()

    def stands(metrics: Metrics) -> None:
        """How the worker stands, told to its metrics."""
        counts = plane.recorder.counts
        metrics.follows(
            generation=plane.routes.generation,
            systems=plane.in_force.systems,
            held=plane.in_force.held,
            connections=len(connections),
        )
        metrics.waiting(app.batcher.in_flight)
        metrics.general(app.batcher.general)
        metrics.cached(plane.in_force.caches())
        metrics.recording(
            sent=counts.sent, written=counts.written, shed=counts.shed, lost=counts.lost, lag_s=plane.recorder.lag_s
        )

    metrics = Metrics(setup.name, setup.clock, stands)
    plane.observing = Observing(metrics, tracing(setup.name, setup.clock, later=asyncio.get_running_loop().call_soon))
    app.board = MetricsBoard(metrics, setup.run_dir)
    follower = Follower(setup, plane, app)
    await follower.start()
    # Models and modules live as long as the process: the collector need not look at them again.
    gc.collect()
    gc.freeze()
    tls = setup.tls
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ssl_context_factory=None if tls is None else lambda config, usual: server_context(tls, ["http/1.1"]),
            loop="uvloop",
            http=fast_lane(Heads(plane, app, new_id)),
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
    connections = server.server_state.connections
    grpc = follower.grpc = await _grpc(setup, plane, app, new_id)
    watching = asyncio.create_task(_watch(setup, follower, server, grpc, stopping))
    try:
        await server.serve(sockets=[socket.socket(fileno=setup.socket_fd)])
        if grpc is not None:
            await grpc.stop(within_s=setup.stop_s)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _grpc(
    setup: WorkerSetup, plane: DataPlane, app: DataPlaneApp, new_id: Callable[[], str]
) -> "GrpcServer | None":
    """Begin to serve gRPC, where it is served: only then its libraries are loaded."""

    def statistics(system: str, version: str) -> Statistics:
        assert app.board is not None
        return app.board.statistics(plane.in_force.versions(), system, version)

    if setup.grpc_fd is None:
        return None
    serving = import_module("holdfast.wire.grpcserver")
    grpc: GrpcServer = serving.grpc_server(plane, app.batcher, app.access, new_id, statistics, app.bodies)
    encrypted = None if setup.tls is None else server_context(setup.tls, ["h2"])
    await grpc.start(socket.socket(fileno=setup.grpc_fd), encrypted)
    return grpc


async def _watch(
    setup: WorkerSetup, follower: "Follower", server: uvicorn.Server, grpc: "GrpcServer | None", stopping: Event
) -> None:
    """Follow and beat until cancelled, while the last requests are answered too."""
    parent, swept_s = os.getppid(), stopwatch_s()
    while True:
        await asyncio.sleep(setup.watch_s)
        follower.look()
        follower.plane.recorder.look()
        now_s = stopwatch_s()
        if now_s - swept_s >= SWEEP_S:
            swept_s = now_s
            for connection in tuple(server.server_state.connections):
                connection.close_if_overdue(now_s)  # type: ignore[union-attr]
        if os.getppid() != parent and not server.should_exit:
            log.error("the supervisor is gone; %s stops", setup.name)
            stopping.set()
        if stopping.is_set():
            server.should_exit = True
            if grpc is not None:
                grpc.begin_stop()


class Follower:
    """Keeps a data plane on the newest good routes and writes what came of it."""

    def __init__(self, setup: WorkerSetup, plane: DataPlane, app: DataPlaneApp) -> None:
        self._setup = setup
        self.plane = plane
        self._app = app
        self._seen: tuple[int, int, int] | None = None
        self._followed_s = 0.0
        self._beat_s = 0.0
        self._error = ""
        self._is_silent = False
        self.grpc: GrpcServer | None = None
        self.following: asyncio.Task[None] | None = None
        """The change of routes that is under way, or the last one."""

    async def start(self) -> None:
        """Follow what a worker served last, then the routes that there are, and beat for the first time."""
        good = kept(self._setup.run_dir)
        if good is not None:
            self.plane.switch(await asyncio.to_thread(self.plane.prepare, good))
        await self._follow()

    def look(self) -> None:
        """Follow the routes file if it changed, or if a version could not be loaded a while ago; beat if it is time."""
        now_s = stopwatch_s()
        if self.following is None or self.following.done():
            is_retry = bool(self.plane.acknowledgement().held) and now_s - self._followed_s >= self._setup.retry_s
            if is_retry or _stamp(self._setup.routes) != self._seen:
                # A task of its own: loading takes its time, and this process must be seen to live meanwhile.
                self.following = asyncio.create_task(self._follow())
        if now_s - self._beat_s >= self._setup.beat_s:
            self.plane.recorder.rotate(self._setup.seal_s)
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
        prepared = await asyncio.to_thread(self.plane.prepare, routes)
        held = self.plane.switch(prepared).held
        if _stamp(self._setup.routes) == self._seen:  # else newer ones are followed next, and those are kept
            try:
                keep(self._setup.run_dir, prepared)
            except OSError as error:
                log.warning("%s could not keep its routes for others to start with: %s", self._setup.name, error)
        return "; ".join(f"{system}: {why}" for system, why in held.items())

    def _beat(self) -> None:
        self._beat_s = stopwatch_s()
        acknowledged, counts = self.plane.acknowledgement(), self.plane.recorder.counts
        beat = Heartbeat(
            pid=os.getpid(),
            generation=acknowledged.generation,
            at=self._setup.clock.now().isoformat(),
            error=self._error,
            held=dict(acknowledged.held),
            recorded=counts.written,
            lost=counts.lost,
            shed=counts.shed,
            refused=self._app.refused + (0 if self.grpc is None else self.grpc.service.refused),
        )
        if self._app.board is not None:
            self._app.board.publish()
        try:
            write_heartbeat(self._setup.run_dir, self._setup.name, beat)
        except OSError as error:  # a full disk must not stop the serving; the supervisor sees the silence
            if not self._is_silent:  # said once: it beats twice a second
                log.warning("%s could not write its heartbeat: %s", self._setup.name, error)
            self._is_silent = True
        else:
            if self._is_silent:
                log.warning("%s writes its heartbeat again", self._setup.name)
            self._is_silent = False


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or written; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
