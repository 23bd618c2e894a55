"""The path of a request in this process: all that a worker is made of but its sockets, over a lake of its own."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import uvicorn
from uvicorn.server import ServerState

from holdfast.core import kinds
from holdfast.core.clock import Clock, cpu_s, stopwatch_s
from holdfast.core.model import Model
from holdfast.core.protocols import Field, Lake, Writer
from holdfast.core.routes import RoutedSystem, Routes, TokenHash
from holdfast.core.transform import Transform
from holdfast.engines.manifest import MemoryManifest
from holdfast.errors import StateError
from holdfast.observe.metrics import Metrics
from holdfast.profiling.stages import Plain, Stopwatches, Taken
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.ids import request_ids
from holdfast.serve.observing import Observing
from holdfast.serve.recording import Recorder
from holdfast.wire.fastlane import FastLane, fast_lane
from holdfast.wire.heads import Heads
from holdfast.wire.http import DataPlaneApp

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

CONNECTIONS = 64
_DATE = (b"date", b"Fri, 20 Nov 2026 11:30:00 GMT")
"""A server writes it anew once a second."""


class Lakes:
    """A lake of its own in a directory, opened once per durability, as a worker does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.syncs_s: list[float] = []
        """How long each sync to the disk took."""
        self._open: dict[str, Lake] = {}

    def opener(self, record: str) -> Callable[[str, str, Sequence[Field]], Writer]:
        """Opens segments for a system that records in this way."""
        durability = "memory" if record == "memory" else "process"
        lake = self._open.get(durability)
        if lake is None:
            make = kinds.load("engines", "lake+files")
            lake = self._open[durability] = make(self.directory, MemoryManifest(), record=durability)
        lake_of_one = lake

        def writer(table: str, system: str, schema: Sequence[Field]) -> Writer:
            opened = lake_of_one.writer(table, system, schema)
            vars(opened)["sync"] = self._timed(opened.sync)
            return opened

        return writer

    def _timed(self, sync: Callable[[], None]) -> Callable[[], None]:
        def within() -> None:
            began_s = stopwatch_s()
            sync()
            self.syncs_s.append(stopwatch_s() - began_s)

        return within

    def close(self) -> None:
        """Seal everything."""
        for lake in self._open.values():
            lake.close()


class ServingPath:
    """Connections without sockets to one version of one system. Owned by the event loop that runs when it is made.

    With `watches` its parts tell which stage they are. Their own instances are wrapped: a worker has none of this.
    """

    def __init__(
        self,
        system: str,
        routed: RoutedSystem,
        model: Model,
        lakes: Lakes,
        clock: Clock,
        token: TokenHash,
        watches: Stopwatches | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._watches = watches
        self._answers = _Answers(loop)
        serve = routed.serve
        recorder = Recorder(lakes.opener(serve.record), lambda _: serve, loop.call_soon_threadsafe)
        self._plane = plane = DataPlane(
            lambda _: model if watches is None else watched(model, watches), recorder, clock
        )
        plane.observing = Observing(Metrics("profile", clock))
        if watches is not None:
            _watch(plane, watches)
        plane.follow(Routes(generation=1, systems={system: routed}, tokens=(token,)))
        plane.lanes(system).lane()  # raises what keeps the version from being served
        new_id = request_ids(clock, os.urandom)
        app = DataPlaneApp(plane, clock, new_id)
        connection = fast_lane(Heads(plane, app, new_id))
        config = uvicorn.Config(app, http=connection, ws="none", lifespan="off", access_log=False, log_config=None)
        config.load()
        state = ServerState()
        state.default_headers = [_DATE]
        self._connections = [self._connected(connection, config, state, loop) for _ in range(CONNECTIONS)]

    def _connected(
        self, kind: type[FastLane], config: uvicorn.Config, state: ServerState, loop: asyncio.AbstractEventLoop
    ) -> FastLane:
        made = kind(config=config, server_state=state, app_state={}, _loop=loop)
        made.connection_made(_Transport(self._answers))
        return made

    @property
    def recorded(self) -> int:
        """Rows that were written."""
        return self._plane.recorder.counts.written

    async def answer(self, requests: Sequence[bytes]) -> None:
        """Answer requests that come in one tick, each on a connection of its own. Raises StateError for a refusal."""
        answers, watches = self._answers, self._watches
        answers.wanted = answers.count + len(requests)
        before = watches.switch("decode") if watches is not None else ""
        for connection, request in zip(self._connections, requests, strict=False):
            connection.data_received(request)
        if watches is not None:
            watches.switch(before)
        await answers.all()
        if answers.refusal:
            raise StateError(f"a request could not be answered while measuring: {_body(answers.refusal)}")

    async def plain(self, ticks: Sequence[Sequence[bytes]]) -> Plain:
        """What ticks of requests take."""
        began_cpu_s, began_s = cpu_s(), stopwatch_s()
        for requests in ticks:
            await self.answer(requests)
        spent_s, wall_s = cpu_s() - began_cpu_s, stopwatch_s() - began_s
        return Plain(requests=sum(map(len, ticks)), cpu_s=spent_s, wall_s=wall_s)

    async def timed(self, ticks: Sequence[Sequence[bytes]]) -> Taken:
        """What ticks of requests take by stage. Only of a path with stopwatches."""
        assert self._watches is not None
        began_cpu_s = cpu_s()
        self._watches.begin()
        for requests in ticks:
            await self.answer(requests)
        return self._watches.taken(sum(map(len, ticks)), cpu_s() - began_cpu_s)

    def close(self) -> None:
        """Let go of the connections and seal the segments."""
        for connection in self._connections:
            connection.connection_lost(None)
        self._plane.recorder.close()


class _Answers:
    """Counts answers until as many came as are wanted."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: asyncio.Future[None] | None = None
        self.count = 0
        self.wanted = 0
        self.refusal = b""
        """The last answer that was no good one."""

    def take(self, answer: bytes) -> None:
        self.count += 1
        if answer[9:12] != b"200":
            self.refusal = answer
        if self.count == self.wanted and self._done is not None:
            self._done.set_result(None)

    async def all(self) -> None:
        if self.count < self.wanted:
            self._done = self._loop.create_future()
            await self._done
            self._done = None


class _Transport:
    """What a connection writes to: no socket behind it."""

    def __init__(self, answers: _Answers) -> None:
        self.write = answers.take

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass


def watched(model: Model, watches: Stopwatches) -> Model:
    """The same model, whose transform and runtime tell that they are at work."""
    transform = SimpleNamespace(matrix=watches.timed("transform", model.transform.matrix))
    runtime: Any = SimpleNamespace(run=watches.timed("run", model.runtime.run))
    return Model(model.signature, cast(Transform, transform), runtime, model.facts)


def _watch(plane: DataPlane, watches: Stopwatches) -> None:
    """Have a data plane of one's own tell what it is at: typing and checking is what `run_quick` does by itself."""
    record = watches.timed("record", plane.recorder.record_predictions)

    def recorded(*args: Any, done: Any, **options: Any) -> None:
        record(*args, done=watches.timed("encode", done), **options)

    vars(plane)["run_quick"] = watches.timed("check", plane.run_quick)
    vars(plane.recorder)["record_predictions"] = recorded
    vars(plane.observing)["settled"] = watches.timed("rest", plane.observing.settled)


def _body(answer: bytes) -> str:
    return answer.partition(b"\r\n\r\n")[2].decode(errors="replace")[:300]
