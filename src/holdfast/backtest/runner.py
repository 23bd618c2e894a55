"""Backtests a system under several policies at once, each in a process of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from datetime import datetime, timedelta
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from holdfast.backtest.faults import Fault, broken
from holdfast.backtest.replay import POLICIES, replay
from holdfast.backtest.scoring import Detection, Outcome
from holdfast.core.blocks import block_bounds, day_of, mature_until
from holdfast.core.clock import stopwatch_s
from holdfast.core.spec import SystemSpec
from holdfast.errors import DataError
from holdfast.flow.ingestion import feed_tables
from holdfast.state import memory_state
from holdfast.world import LakeFeeds, World, make_world

FAULTED = "faults"
"""Name of the run that the faults are injected into; it follows the last policy."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of one run: how far its clock is, in [0, 1], and what happened then, if anything."""

    run: str
    at: datetime
    share: float
    what: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a backtest found."""

    system: str
    start: datetime
    end: datetime
    policies: dict[str, Outcome]
    faulted: Outcome | None
    took_s: float
    """Wall time of everything: reading the feeds, joining them, all replays."""

    @property
    def faults(self) -> tuple[Detection, ...]:
        return self.faulted.detections if self.faulted else ()

    @property
    def predictions_per_s(self) -> float:
        """Predictions per second of one process through the whole loop, waiting for training jobs left out."""
        outcomes = [*self.policies.values(), *([self.faulted] if self.faulted else [])]
        looped_s = sum(outcome.took_s - outcome.training_s for outcome in outcomes)
        return sum(outcome.predictions for outcome in outcomes) / looped_s if looped_s > 0 else 0.0


class _Task(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    policy: str
    faults: tuple[Fault, ...] = ()


def run_backtest(
    spec: SystemSpec,
    root: Path,
    *,
    policies: Sequence[str] = POLICIES,
    faults: Sequence[Fault] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    processes: int = 2,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Report:
    """Play history through the real loop, once per policy without faults and once more with them.

    `root` is the folder that the system file's paths start from. `start` is when the first training happens (by
    default after the first quarter of the history), `end` by default the end of the history. Raises SourceError and
    DataError for data that cannot be used.
    """
    began = stopwatch_s()
    worlds = _worlds(spec, root, faults)
    first, last = _bounds(spec, worlds[0], start, end)
    tasks = [_Task(run=policy, policy=policy) for policy in policies]
    if faults:
        tasks.append(_Task(run=FAULTED, policy=policies[-1], faults=tuple(faults)))
    # Spawned, not forked: a process forked after polars has started its threads waits for them for ever.
    context = get_context("spawn")
    events: SimpleQueue[Any] = context.SimpleQueue()
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_use_queue, initargs=(events,)) as pool:
        futures = {t.run: pool.submit(_run, spec, worlds[1 if t.faults else 0], t, first, last) for t in tasks}
        for event in _events_until_done(events, list(futures.values())):
            on_event(event)
        outcomes = {run: future.result() for run, future in futures.items()}
    return Report(
        system=spec.system,
        start=first,
        end=last,
        policies={policy: outcomes[policy] for policy in policies},
        faulted=outcomes.get(FAULTED),
        took_s=stopwatch_s() - began,
    )


def _worlds(spec: SystemSpec, root: Path, faults: Sequence[Fault]) -> list[World]:
    """The world as it was, and as it would have been with the faults."""
    with TemporaryDirectory(prefix="holdfast-backtest-") as directory:
        state = memory_state(Path(directory))
        LakeFeeds(spec, root, state.lake, state.catalog).ingest(_EPOCH)
        tables = feed_tables(spec, state.lake, state.catalog)
    worlds = [make_world(spec, tables)]
    if faults:
        worlds.append(make_world(spec, broken(spec.data, tables, faults)))
    return worlds


def _bounds(spec: SystemSpec, world: World, start: datetime | None, end: datetime | None) -> tuple[datetime, datetime]:
    if world.assembled.is_empty():
        raise DataError(f"feed '{spec.data.rows}' has no rows, so there is nothing to replay")
    zone, known = spec.data.timezone, world.assembled["known_at"]
    oldest, newest = known[0], known[-1]
    first = start or block_bounds(zone, day_of(zone, oldest + (newest - oldest) / 4))[0]
    last = end or block_bounds(zone, day_of(zone, newest))[1]
    holdout = spec.model.validate.holdout
    if mature_until(spec.data, first) - holdout <= oldest:
        least = oldest + holdout + spec.data.label.mature_after + timedelta(days=2)
        raise DataError(
            f"a backtest from {first:%Y-%m-%d} has no history to train on before its hold-out of {holdout.days} days; "
            f"the data begins on {oldest:%Y-%m-%d}: start on {least:%Y-%m-%d} or later"
        )
    if last <= first:
        raise DataError(f"the backtest would end ({last:%Y-%m-%d}) before it begins ({first:%Y-%m-%d})")
    return first, last


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_queue: "SimpleQueue[Any] | None" = None


def _use_queue(queue: "SimpleQueue[Any]") -> None:
    global _queue
    _queue = queue


def _run(spec: SystemSpec, world: World, task: _Task, start: datetime, end: datetime) -> Outcome:
    queue = _queue
    assert queue is not None

    def tell(at: datetime, what: str) -> None:
        queue.put(Event(run=task.run, at=at, share=(at - start) / (end - start), what=what))

    try:
        return replay(spec, world, policy=task.policy, start=start, end=end, faults=task.faults, progress=tell)
    finally:
        queue.put(None)


def _events_until_done(events: "SimpleQueue[Any]", futures: Sequence[Future[Outcome]]) -> Iterator[Event]:
    """Events as they come until every run has said that it ended, or its process died without a word."""
    ended = 0
    while ended < len(futures):
        if events.empty():
            if any(future.done() and future.exception() for future in futures):
                return
            wait([future for future in futures if not future.done()], timeout=0.05, return_when=FIRST_EXCEPTION)
            continue
        event = events.get()
        if event is None:
            ended += 1
        else:
            yield event
