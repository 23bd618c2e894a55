"""Counts what a worker answers, at next to no cost per request: numbers are put aside, and counted many at a time."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import psutil

from holdfast.core.answerer import Answerer
from holdfast.core.clock import Clock
from holdfast.observe.tallies import (
    CELLS,
    EDGES_US,
    EXACT_ROWS,
    Answered,
    Cached,
    Recording,
    Runs,
    Snapshot,
    Tally,
    Worker,
)

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Times = Sequence[float] | FloatArray
"""Microseconds, finite."""

_EDGES = np.array(EDGES_US)
_MOST_ASIDE = 512
"""Requests that are put aside before they are counted: counting them takes some 50 us then."""
_MOST_PAIRED = 2048
"""The same of two versions that are run together, which are told apart then."""
_MOST_VERSIONS = 16
"""Versions and stages of one system that are told apart; the one that answered longest ago is forgotten."""
_MOST_KNOWN = 256
_SIZES = EXACT_ROWS + 1 + 32
"""Places of batch sizes: 0 to EXACT_ROWS exactly, then one per power of two."""


class _Times:
    """Times that are put aside, and their tally so far."""

    __slots__ = ("aside", "counts", "total_ns")

    def __init__(self) -> None:
        self.aside: list[Times] = []
        self.counts: IntArray = np.zeros(CELLS, dtype=np.int64)
        self.total_ns = 0

    def count(self) -> None:
        if not self.aside:
            return
        values = _joined(self.aside)
        self.aside = []
        self.counts += np.bincount(_EDGES.searchsorted(values), minlength=CELLS)
        self.total_ns += int(_nanoseconds(values).sum())

    def tally(self) -> Tally:
        return Tally(counts=tuple(self.counts.tolist()), total_ns=self.total_ns)


class _Version:
    """What one version answered in one stage."""

    __slots__ = (
        "aside",
        "failed",
        "failed_ns",
        "last_ms",
        "queue",
        "requests",
        "rows",
        "run",
        "run_us",
        "seen_rows",
        "shared_run_ns",
        "sizes",
        "sizes_ns",
        "total",
        "total_rows",
    )

    def __init__(self) -> None:
        self.aside = 0
        self.queue, self.total, self.run = _Times(), _Times(), _Times()
        self.requests: list[int] = []
        self.rows: list[int] = []
        self.run_us: list[float] = []
        self.sizes: IntArray = np.zeros(_SIZES, dtype=np.int64)
        self.sizes_ns: IntArray = np.zeros(_SIZES, dtype=np.int64)
        self.total_rows = self.seen_rows = 0
        self.shared_run_ns = 0
        self.failed: Counter[int] = Counter()
        self.failed_ns = 0
        self.last_ms = 0

    def count(self) -> None:
        """Count what was put aside."""
        self.queue.count()
        self.total.count()
        self.aside = 0
        if not self.run_us:
            return
        rows, requests, run_us = np.array(self.rows), np.array(self.requests), np.array(self.run_us)
        self.run.aside.append(run_us)
        self.run.count()
        run_ns, places = _nanoseconds(run_us), _places_of(rows)
        self.shared_run_ns += int((run_ns * requests).sum())
        self.total_rows += int(rows.sum())
        np.add.at(self.sizes, places, 1)
        np.add.at(self.sizes_ns, places, run_ns)
        self.requests, self.rows, self.run_us = [], [], []


class _Both:
    """What two versions answered that are run together, put aside until it is told apart."""

    __slots__ = ("aside", "by", "queue", "run_us", "total", "which")

    def __init__(self, by: tuple[Answerer, Answerer]) -> None:
        self.by = by
        self.aside = 0
        self.which: list[Bools] = []
        self.queue: list[Times] = []
        self.total: list[Times] = []
        self.run_us: list[float] = []

    def tell_apart(self, versions: tuple[_Version, _Version]) -> None:
        """Hand each version its own."""
        starts = np.cumsum([0, *map(len, self.which[:-1])])
        is_second, queue, total = np.concatenate(self.which), _joined(self.queue), _joined(self.total)
        for version, chosen in zip(versions, (~is_second, is_second), strict=True):
            rows = np.add.reduceat(chosen, starts, dtype=np.int64)
            ran = np.flatnonzero(rows).tolist()
            version.queue.aside.append(queue[chosen])
            version.total.aside.append(total[chosen])
            version.rows += rows[ran].tolist()
            version.requests += rows[ran].tolist()
            version.run_us += [self.run_us[i] for i in ran]
            version.aside += int(rows.sum())
            if version.aside >= _MOST_ASIDE:
                version.count()


class Metrics:
    """What one worker counted since it started. Owned by the thread of the event loop.

    `refresh` is called before each snapshot: it says how things stand, by `follows`, `waiting`, `recording` and
    `cached`. Sequences that are handed over are kept for a while: they must not be changed afterwards.
    """

    def __init__(self, worker: str, clock: Clock, refresh: "Callable[[Metrics], None] | None" = None) -> None:
        self._clock = clock
        self._refresh = refresh
        self._worker = Worker(name=worker, pid=os.getpid(), started_s=psutil.Process().create_time())
        self._known: dict[int, tuple[Answerer, _Version]] = {}
        self._versions: dict[tuple[str, str, str], _Version] = {}
        self._both: dict[tuple[int, int], _Both] = {}
        self._refused: dict[str, Counter[int]] = {}
        self._systems: frozenset[str] | None = None
        self._waiting: Mapping[str, int] = {}
        self._recording = Recording()
        self._caches: Mapping[str, Cached] = {}
        self._general: Mapping[str, int] = {}

    @property
    def worker(self) -> str:
        """Name of the worker."""
        return self._worker.name

    # On the path of a request

    def ran(self, by: Answerer, rows: int, requests: int, queue_us: Times, run_us: float, total_us: Times) -> None:
        """A version answered a batch: its rows and requests, the time that running it took, and per request the time
        it waited for the run and the time from parsing to the answer. A request of two versions counts for both.
        """
        known = self._known.get(id(by))
        version = known[1] if known is not None else self._version(by)
        version.queue.aside.append(queue_us)
        version.total.aside.append(total_us)
        version.rows.append(rows)
        version.requests.append(requests)
        version.run_us.append(run_us)
        version.aside += requests
        if version.aside >= _MOST_ASIDE:
            version.count()

    def ran_both(
        self, by: tuple[Answerer, Answerer], is_second: Bools, queue_us: Times, run_us: float, total_us: Times
    ) -> None:
        """Two versions answered requests of one row in one run, the second one those of `is_second` (n,).

        To each version it counts as a run of its own rows that took the whole time.
        """
        key = (id(by[0]), id(by[1]))
        both = self._both.get(key)
        if both is None:
            both = self._both[key] = _Both(by)
        both.which.append(is_second)
        both.queue.append(queue_us)
        both.total.append(total_us)
        both.run_us.append(run_us)
        both.aside += len(is_second)
        if both.aside >= _MOST_PAIRED:
            self._tell_apart()

    def failed(self, by: Answerer, requests: int, *, status: int = 500, total_us: float = 0.0) -> None:
        """A version was asked and these requests have no answer, after so much time in all."""
        version = self._version(by)
        version.failed[status] += requests
        version.failed_ns += round(total_us * 1000)

    def refused(self, system: str, status: int) -> None:
        """A request was turned away before a version was asked, or could not be recorded.

        A system that is not routed counts as no system.
        """
        if self._systems is not None and system not in self._systems:
            system = ""  # the name came from outside: it must not make series
        self._refused.setdefault(system, Counter())[status] += 1

    # How things stand

    def follows(
        self, *, generation: int, systems: Iterable[str], held: Iterable[str] = (), connections: int = 0
    ) -> None:
        """The routes in force, the systems they name, those that still follow older ones, and open connections."""
        self._systems = frozenset(systems)
        self._worker = msgspec.structs.replace(
            self._worker, generation=generation, held=tuple(sorted(held)), connections=connections
        )

    def waiting(self, requests: Mapping[str, int]) -> None:
        """Requests that are accepted and not answered yet, by system."""
        self._waiting = {system: count for system, count in requests.items() if count}

    def general(self, requests: Mapping[str, int]) -> None:
        """Requests in another form than the usual ones, by system, since the worker started."""
        self._general = dict(requests)

    def recording(self, *, sent: int, written: int, shed: int, lost: int, lag_s: float) -> None:
        """Rows on their way into the lake, since the worker started; age of the oldest that waits."""
        self._recording = Recording(sent=sent, written=written, shed=shed, lost=lost, lag_s=lag_s)

    def cached(self, caches: Mapping[str, Cached]) -> None:
        """The answer caches by system, since the worker started."""
        self._caches = dict(caches)

    def snapshot(self) -> Snapshot:
        """Everything so far. Costs some 30 us per version."""
        if self._refresh is not None:
            self._refresh(self)
        self._tell_apart()
        now_ms = int(self._clock.now().timestamp() * 1000)
        return Snapshot(
            workers=(self._worker,),
            answered=tuple(self._answered(key, now_ms) for key in sorted(self._versions)),
            refused={system: dict(sorted(self._refused[system].items())) for system in sorted(self._refused)},
            waiting=dict(sorted(self._waiting.items())),
            general=dict(sorted(self._general.items())),
            caches=dict(sorted(self._caches.items())),
            recording=self._recording,
        )

    def _answered(self, key: tuple[str, str, str], now_ms: int) -> Answered:
        version = self._versions[key]
        version.count()
        if version.total_rows != version.seen_rows:
            version.last_ms, version.seen_rows = now_ms, version.total_rows
        places = np.flatnonzero(version.sizes).tolist()
        system, name, stage = key
        return Answered(
            system=system,
            version=name,
            stage=stage,
            rows=version.total_rows,
            request=version.total.tally(),
            queue=version.queue.tally(),
            run=version.run.tally(),
            shared_run_ns=version.shared_run_ns,
            batches={
                _rows_of(place): Runs(count=int(version.sizes[place]), ns=int(version.sizes_ns[place]))
                for place in places
            },
            failed=dict(sorted(version.failed.items())),
            failed_ns=version.failed_ns,
            last_ms=version.last_ms,
        )

    def _tell_apart(self) -> None:
        for both in self._both.values():
            both.tell_apart((self._version(both.by[0]), self._version(both.by[1])))
        self._both.clear()

    def _version(self, by: Answerer) -> _Version:
        """The counts of a version, found by the identity of its description: hashing one takes longer than counting."""
        known = self._known.get(id(by))
        if known is not None:
            return known[1]
        key = (by.system, by.version, by.stage)
        version = self._versions.pop(key, None) or _Version()
        self._versions[key] = version
        self._forget(by.system)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        # The description is kept as well, so that no other one can get its identity.
        self._known[id(by)] = (by, version)
        return version

    def _forget(self, system: str) -> None:
        """Versions that went longest without a new description: with every change of routes the served ones get one."""
        of_system = [key for key in self._versions if key[0] == system]
        for key in of_system[:-_MOST_VERSIONS]:
            gone = self._versions.pop(key)
            self._known = {id: known for id, known in self._known.items() if known[1] is not gone}


def _joined(parts: list[Times]) -> FloatArray:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return np.array([*chain.from_iterable(parts)], dtype=np.float64)


def _nanoseconds(us: FloatArray) -> IntArray:
    return np.rint(us * 1000.0).astype(np.int64)


def _places_of(rows: "np.ndarray[Any, np.dtype[np.integer[Any]]]") -> IntArray:
    """Places of batch sizes among those that are told apart (n,)."""
    powers = np.ceil(np.log2(np.maximum(rows, 1))).astype(np.int64)
    exact_powers = EXACT_ROWS.bit_length() - 1
    return np.where(rows <= EXACT_ROWS, rows, np.minimum(EXACT_ROWS + powers - exact_powers, _SIZES - 1))


def _rows_of(place: int) -> int:
    return place if place <= EXACT_ROWS else EXACT_ROWS << (place - EXACT_ROWS)
