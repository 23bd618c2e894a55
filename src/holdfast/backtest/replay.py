"""Plays a stretch of history through the real loop on a replayed clock: traffic, labels, ticks."""

import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from holdfast.backtest.faults import Fault, swapped
from holdfast.backtest.scoring import Outcome, score_replay
from holdfast.core.blocks import block_bounds, day_of
from holdfast.core.clock import ManualClock, cpu_s, stopwatch_s
from holdfast.core.inputs import read_frame
from holdfast.core.protocols import Transaction
from holdfast.core.records import Job, Release
from holdfast.core.spec import Response, SystemSpec
from holdfast.errors import HoldfastError, InvalidInput, NotFound
from holdfast.flow import releases
from holdfast.flow.registry import current_route
from holdfast.flow.training import TrainingRequest
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder, RowMeta
from holdfast.state import State, memory_state
from holdfast.system import System
from holdfast.world import FixedFeeds, World, microseconds

POLICIES = ("never", "monthly", "evidence")
MONTH = timedelta(days=30)

Progress = Callable[[datetime, str], None]
"""Told after each replayed day: the time and, where something happened, what."""


def with_policy(spec: SystemSpec, policy: str) -> SystemSpec:
    """The system as it would be run under a policy: `never` retrains, `monthly` every 30 days, `evidence` as the file
    says when something it watches went bad. Raises NotFound."""
    if policy not in POLICIES:
        raise NotFound("policy", policy, POLICIES)
    others = tuple(r for r in spec.responses if r.do != "retrain")
    if policy == "never":
        return msgspec.structs.replace(spec, responses=others)
    if policy == "monthly":
        return msgspec.structs.replace(spec, responses=(*others, Response(do="retrain", every=MONTH)))
    return spec


def replay(
    spec: SystemSpec,
    world: World,
    *,
    policy: str,
    start: datetime,
    end: datetime,
    faults: Sequence[Fault] = (),
    progress: Progress = lambda at, event: None,
) -> Outcome:
    """Run a system from `start` (a first training on what is known then) to `end` and score what it did.

    Raises HoldfastError when the first training leads to no live version: then nothing would answer.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-backtest-") as directory:
        began, cpu_before = stopwatch_s(), cpu_s()
        run = _Replay(with_policy(spec, policy), world, memory_state(Path(directory)), start, faults, progress)
        run.to(end)
        took_s, used_s = stopwatch_s() - began, cpu_s() - cpu_before
        run.system.close()
        scored = score_replay(run.system, world.assembled, faults, start=start, end=end, took_s=took_s)
        return msgspec.structs.replace(scored, refused=run.refused, cpu_s=used_s)


class _Replay:
    def __init__(
        self,
        spec: SystemSpec,
        world: World,
        state: State,
        start: datetime,
        faults: Sequence[Fault],
        progress: Progress,
    ) -> None:
        self._world = world
        self._state = state
        self._clock = ManualClock(start)
        self._progress = progress
        swaps = [fault for fault in faults if fault.fault == "swapped_columns"]
        self._bad = sorted(swaps, key=lambda fault: fault.start)
        self._breaks: Fault | None = None
        self.refused = 0
        """Rows that did not fit the signature, so that a live system would have answered 422."""
        feeds = FixedFeeds(world)
        self.system = System(
            spec, state, self._clock, feeds, waits=True, prepare=self._prepare, tell=lambda text: None, explains=False
        )
        self._plane = DataPlane(state.load_model, Recorder(state.lake.writer), self._clock)
        self._generation = -1
        self.system.put_in_force()
        self._tick()
        self._must_be_live()

    def to(self, end: datetime) -> None:
        """Day by day: the traffic and labels of the day, then what is due at its end."""
        zone = self.system.spec.data.timezone
        while self._clock.now() < end:
            before = self._clock.now()
            until = min(block_bounds(zone, day_of(zone, before))[1], end)
            self._answer(before, until)
            self._clock.move_to(until)
            self._force_bad_release(until)
            self._tick()

    def _answer(self, after: datetime, until: datetime) -> None:
        name = self.system.spec.system
        traffic = self._world.rows_between(after, until)
        while traffic.height:
            try:
                rows = read_frame(self._plane.signature(name), traffic)
            except InvalidInput as error:
                accepted = _without(traffic, error)
                self.refused += traffic.height - accepted.height
                traffic = accepted
            else:
                self._plane.predict_rows(name, rows, _meta(traffic))
                return

    def _tick(self) -> None:
        """Tick until nothing more happens, then let the data plane follow the routes."""
        for _ in range(20):
            done = self.system.tick()
            for event in done:
                self._progress(self._clock.now(), event)
            if not done:
                break
        self._progress(self._clock.now(), "")
        with self._state.catalog.read() as tx:
            generation = current_route(tx, self.system.spec.system).generation
            if generation != self._generation:
                self._plane.follow(self._state.routes(tx))
                self._generation = generation

    def _must_be_live(self) -> None:
        name = self.system.spec.system
        with self._state.catalog.read() as tx:
            if current_route(tx, name).live:
                return
            failed = [job.message for job in tx.find(Job, name) if job.state == "failed"]
            refused = [release.why for release in tx.find(Release, name)]
        self.system.close()
        raise HoldfastError(
            f"the first training, on what was known by {self._clock.now():%Y-%m-%d}, led to no live version, so there "
            f"is nothing to replay: {'; '.join([*failed, *refused])}"
        )

    def _force_bad_release(self, now: datetime) -> None:
        """Start the training whose data is broken, on the first day from its `start` that no release is under way."""
        if not self._bad or now < self._bad[0].start:
            return
        with self._state.catalog.read() as tx:
            busy = _is_busy(tx, self.system.spec.system)
        if not busy:
            self._breaks = self._bad.pop(0)
            self.system.submit_training(f"fault: {self._breaks.name}")

    def _prepare(self, request: TrainingRequest, cause: str) -> TrainingRequest:
        """Break the data of the training that a fault asked for, and of no other."""
        fault = self._breaks
        if fault is None or cause != f"fault: {fault.name}":
            return request
        self._breaks = None
        path = Path(request.snapshot).with_name("broken.parquet")
        swapped(pl.read_parquet(request.snapshot), fault).write_parquet(path)
        return msgspec.structs.replace(request, snapshot=path)


def _is_busy(tx: Transaction, system: str) -> bool:
    return releases.open_release(tx, system) is not None or bool(tx.find(Job, system, state=("queued", "running")))


def _without(traffic: pl.DataFrame, error: InvalidInput) -> pl.DataFrame:
    """The rows without the one that was refused and those that have the same value there."""
    if error.column not in traffic.columns:
        raise error  # nothing about a single row: the whole signature does not fit
    return traffic.filter(pl.col(error.column).ne_missing(traffic[error.column][error.row]))


def _meta(traffic: pl.DataFrame) -> RowMeta:
    keys = traffic["key"].to_list()
    known_at = microseconds(traffic["known_at"])
    return RowMeta(
        request_id=keys,
        row=np.zeros(len(keys), dtype=np.int64),
        key=keys,
        unit=traffic["unit"].to_list(),
        event_at=microseconds(traffic["event_at"]),
        features_known_at=known_at,
        predicted_at=known_at,
    )
