"""Backtests a system under several policies at once, each in a process of its own."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from holdfast.backtest.faults import Fault, broken, check_faults
from holdfast.backtest.replay import POLICIES, replay, with_policy
from holdfast.backtest.scoring import Detection, Outcome
from holdfast.core.blocks import block_bounds, day_of, mature_until
from holdfast.core.clock import stopwatch_s
from holdfast.core.spec import SystemSpec
from holdfast.core.specelsewhere import must_have_model
from holdfast.errors import DataError, HoldfastError
from holdfast.flow import child
from holdfast.flow.ingestion import feed_tables
from holdfast.state import memory_state
from holdfast.world import LakeFeeds, World, make_world

FAULTED = "faults"
"""Name of the run that the faults are injected into; it follows the last policy."""
THREADS = "POLARS_MAX_THREADS"


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
        """Predictions per second of CPU through the whole loop, over all runs; trainings run in processes of their own
        and are left out. CPU and not the clock, because runs and trainings share the cores."""
        outcomes = [*self.policies.values(), *([self.faulted] if self.faulted else [])]
        used_s = sum(outcome.cpu_s for outcome in outcomes)
        return sum(outcome.predictions for outcome in outcomes) / used_s if used_s > 0 else 0.0


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
    default after the first quarter of the history), `end` by default the end of the history. The run with faults is
    under the last of `policies`. Raises SourceError and DataError for data and faults that cannot be used, NotFound
    for names that are not known, and HoldfastError when a run could not be finished.
    """
    began = stopwatch_s()
    must_have_model(spec, "its answers cannot be given again under another policy")
    check_faults(spec.data, faults)
    if not policies:
        raise HoldfastError(f"a backtest needs a policy: {', '.join(POLICIES)}")
    for policy in policies:
        with_policy(spec, policy)  # raises for one that is not known
    policies = tuple(dict.fromkeys(policies))
    worlds = _worlds(spec, root, faults)
    first, last = _bounds(spec, worlds[0], start, end)
    _check_days(faults, first, last)
    tasks = [_Task(run=policy, policy=policy) for policy in policies]
    if faults:
        tasks.append(_Task(run=FAULTED, policy=policies[-1], faults=tuple(faults)))
    # Spawned, not forked: a process forked after polars has started its threads waits for them for ever.
    context = get_context("spawn")
    link = _Link(context.SimpleQueue(), context.Event())
    processes = min(processes, len(tasks))
    with (
        _one_thread_each(),
        ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_process, initargs=(link,)) as pool,
    ):
        futures = {t.run: pool.submit(_run, spec, worlds[1 if t.faults else 0], t, first, last) for t in tasks}
        for event in _events_until_done(link, list(futures.values())):
            on_event(event)
    outcomes = _outcomes(futures)
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


def _check_days(faults: Sequence[Fault], first: datetime, last: datetime) -> None:
    for fault in faults:
        if fault.end <= first or fault.start >= last:
            raise DataError(
                f"fault '{fault.name}' lasts from {fault.start:%Y-%m-%d} to {fault.end:%Y-%m-%d}, which the backtest "
                f"from {first:%Y-%m-%d} to {last:%Y-%m-%d} never sees; move one of them"
            )


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


class _Stopped(Exception):
    """This run ended early because another one failed."""


class _Link(msgspec.Struct, frozen=True):
    """What joins a run's process to the one that started it."""

    events: Any
    """Queue of Event."""
    stop: Any
    """Set when a run has failed, so that the others need not go on."""


_link: _Link | None = None


def _begin_process(link: _Link) -> None:
    global _link
    _link = link
    child.warm_up()  # what trains is imported while the world is still being read


def _run(spec: SystemSpec, world: World, task: _Task, start: datetime, end: datetime) -> Outcome:
    link = _link
    assert link is not None

    def tell(at: datetime, what: str) -> None:
        if link.stop.is_set():
            raise _Stopped
        link.events.put(Event(run=task.run, at=at, share=(at - start) / (end - start), what=what))

    try:
        return replay(spec, world, policy=task.policy, start=start, end=end, faults=task.faults, progress=tell)
    except HoldfastError as error:
        # Errors with arguments of their own do not survive the way between processes.
        plain = HoldfastError(f"run '{task.run}': {error}")
        plain.exit_code = error.exit_code
        raise plain from None


def _events_until_done(link: _Link, futures: Sequence[Future[Outcome]]) -> Iterator[Event]:
    """Events as they come until every run has ended, failed, or its process died without a word. After a failure the
    others are told to stop, and what they still say is read, or they would wait for a reader."""
    while True:
        ended = all(future.done() for future in futures)  # looked at first: what a run said is in the queue by then
        while not link.events.empty():
            yield link.events.get()
        if ended:
            return
        if any(future.done() and future.exception() for future in futures):
            link.stop.set()
        wait([future for future in futures if not future.done()], timeout=0.05, return_when=FIRST_EXCEPTION)


def _outcomes(futures: Mapping[str, Future[Outcome]]) -> dict[str, Outcome]:
    """The outcomes by run. Raises what went wrong first, not what stopped because of it."""
    for error in filter(None, [future.exception() for future in futures.values()]):
        if isinstance(error, BrokenProcessPool):
            raise HoldfastError(
                "the process of a run died without a word; most often the machine ran out of memory: "
                "run one at a time with --processes 1, or fewer --policies"
            ) from error
        if not isinstance(error, _Stopped):
            raise error
    return {run: future.result() for run, future in futures.items()}


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start meanwhile leave out polars' threads: handing a day's few rows to others costs more than it
    saves. A number that the environment gives is kept."""
    if THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[THREADS]
