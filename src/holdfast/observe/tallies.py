"""What workers counted, as records that merge: the sum of two workers equals one that counted everything.

Times are whole nanoseconds, so that sums are exact in whatever order they are added.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

K = TypeVar("K")

_MANTISSAS = (10, 11.2, 12.5, 14, 16, 18, 20, 22.4, 25, 28, 31.5, 35.5, 40, 45, 50, 56, 63, 71, 80, 90)
"""The preferred numbers R20 of ISO 3 (1973): 20 steps of 11 to 14 % per decade that hit 1, 2, 2.5 and 5."""

EDGES_US: tuple[float, ...] = (*(m * 10**d / 10 for d in range(7) for m in _MANTISSAS), 1e7)
"""Upper edges of the cells, 1 us to 10 s. A time belongs to the first cell whose edge it does not exceed."""

CELLS = len(EDGES_US) + 1
"""Cells of a tally: one per edge, and one for what took longer."""

EXACT_ROWS = 256
"""Batches up to so many rows are counted by their size; larger ones by the next power of two."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How long something took, counted in cells."""

    counts: tuple[int, ...] = (0,) * CELLS
    """(CELLS,) counts by the edges of `EDGES_US`."""
    total_ns: int = 0

    @property
    def count(self) -> int:
        """How often it was measured."""
        return sum(self.counts)

    @property
    def mean_us(self) -> float:
        """Mean in microseconds; 0 where nothing was measured."""
        count = self.count
        return self.total_ns / 1e3 / count if count else 0.0

    def quantile_us(self, share: float) -> float:
        """The time in microseconds that a share in (0, 1] did not exceed, to within a cell (14 %); 0 for nothing.

        Linear inside a cell. What took longer than the last edge is reported as that edge.
        """
        sought, below = share * self.count, 0
        for place, count in enumerate(self.counts[:-1]):
            if count and below + count >= sought:
                low = EDGES_US[place - 1] if place else 0.0
                return low + (EDGES_US[place] - low) * (sought - below) / count
            below += count
        return EDGES_US[-1] if below < self.count else 0.0

    def __add__(self, other: "Tally") -> "Tally":
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Tally(counts=counts, total_ns=self.total_ns + other.total_ns)


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one batch size."""

    count: int = 0
    ns: int = 0

    def __add__(self, other: "Runs") -> "Runs":
        return Runs(count=self.count + other.count, ns=self.ns + other.ns)


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What one version answered in one stage."""

    system: str
    version: str
    stage: str
    rows: int = 0
    """Rows that were answered, from the cache too."""
    request: Tally = Tally()
    """From the parsed request to its answer, once per answered request."""
    queue: Tally = Tally()
    """Waiting for the run, once per answered request."""
    run: Tally = Tally()
    """Running the model, looking up in the cache included, once per batch."""
    shared_run_ns: int = 0
    """The time of each run counted for every request in it."""
    batches: Mapping[int, Runs] = {}
    """Runs by rows: exactly up to 256, above by the next power of two."""
    failed: Mapping[int, int] = {}
    """Requests that the version failed, by status."""
    failed_ns: int = 0
    last_ms: int = 0
    """When it answered last, in milliseconds since 1970 UTC, to within half a second; 0 for never."""

    @property
    def key(self) -> tuple[str, str, str]:
        """System, version, stage."""
        return self.system, self.version, self.stage

    def __add__(self, other: "Answered") -> "Answered":
        return Answered(
            system=self.system,
            version=self.version,
            stage=self.stage,
            rows=self.rows + other.rows,
            request=self.request + other.request,
            queue=self.queue + other.queue,
            run=self.run + other.run,
            shared_run_ns=self.shared_run_ns + other.shared_run_ns,
            batches={
                rows: self.batches.get(rows, Runs()) + other.batches.get(rows, Runs())
                for rows in _names(self.batches, other.batches)
            },
            failed=summed(self.failed, other.failed),
            failed_ns=self.failed_ns + other.failed_ns,
            last_ms=max(self.last_ms, other.last_ms),
        )


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """Rows on their way into the lake, since the worker started."""

    sent: int = 0
    """Rows handed over for writing."""
    written: int = 0
    shed: int = 0
    """Rows that were answered without being recorded, as `serve.unrecorded` allows."""
    lost: int = 0
    """Rows that could not be written; their requests were not acknowledged."""
    lag_s: float = 0.0
    """Age of the oldest row that waits to be written."""

    def __add__(self, other: "Recording") -> "Recording":
        return Recording(
            sent=self.sent + other.sent,
            written=self.written + other.written,
            shed=self.shed + other.shed,
            lost=self.lost + other.lost,
            lag_s=max(self.lag_s, other.lag_s),
        )


class LookUps(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one version that were looked up in the answer cache, since the worker started."""

    hits: int = 0
    misses: int = 0

    def __add__(self, other: "LookUps") -> "LookUps":
        return LookUps(hits=self.hits + other.hits, misses=self.misses + other.misses)


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """The answer cache of one system."""

    versions: Mapping[str, LookUps] = {}
    """Every version that was ever behind it."""
    entries: int = 0

    @property
    def hits(self) -> int:
        """Rows answered without running a model."""
        return sum(each.hits for each in self.versions.values())

    @property
    def misses(self) -> int:
        """Rows that a model was run for."""
        return sum(each.misses for each in self.versions.values())

    def __add__(self, other: "Cached") -> "Cached":
        return Cached(
            versions={
                version: self.versions.get(version, LookUps()) + other.versions.get(version, LookUps())
                for version in _names(self.versions, other.versions)
            },
            entries=self.entries + other.entries,
        )


class Worker(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Who counted, and how it stands now."""

    name: str
    pid: int = 0
    started_s: float = 0.0
    """When its process began, in seconds since 1970 UTC, as the operating system says."""
    generation: int = 0
    """Of the routes that it follows."""
    held: tuple[str, ...] = ()
    """Systems that still follow older routes."""
    connections: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one worker counted, or several together. Lists are sorted, so equal counts are equal records."""

    workers: tuple[Worker, ...] = ()
    answered: tuple[Answered, ...] = ()
    refused: Mapping[str, Mapping[int, int]] = {}
    """Requests turned away before a version was asked, or not recorded: system (empty if not routed), status, count."""
    waiting: Mapping[str, int] = {}
    """Requests that are accepted and not answered yet, by system."""
    general: Mapping[str, int] = {}
    """Requests that came in another form than the usual ones, by system."""
    caches: Mapping[str, Cached] = {}
    recording: Recording = Recording()

    def __add__(self, other: "Snapshot") -> "Snapshot":
        return Snapshot(
            workers=tuple(sorted((*self.workers, *other.workers))),
            answered=_answered_sum(self.answered, other.answered),
            refused={
                system: summed(self.refused.get(system, {}), other.refused.get(system, {}))
                for system in _names(self.refused, other.refused)
            },
            waiting=summed(self.waiting, other.waiting),
            general=summed(self.general, other.general),
            caches={
                system: self.caches.get(system, Cached()) + other.caches.get(system, Cached())
                for system in _names(self.caches, other.caches)
            },
            recording=self.recording + other.recording,
        )


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a system's requests goes: one part of the path. Times in microseconds."""

    phase: str
    count: int
    mean_us: float
    p50_us: float
    p99_us: float


def spent(snapshot: Snapshot, system: str) -> list[Spent]:
    """The parts of the path of a system's requests in their order, all versions together; what was measured only.

    ``run`` is measured once per batch, ``queue`` and ``request`` (the whole, from the parsed request on) once per
    request.
    """
    versions = [each for each in snapshot.answered if each.system == system]
    tallies: dict[str, Tally] = {
        "queue": sum((each.queue for each in versions), Tally()),
        "run": sum((each.run for each in versions), Tally()),
        "request": sum((each.request for each in versions), Tally()),
    }
    return [
        Spent(
            phase=phase,
            count=tally.count,
            mean_us=tally.mean_us,
            p50_us=tally.quantile_us(0.5),
            p99_us=tally.quantile_us(0.99),
        )
        for phase, tally in tallies.items()
        if tally.count
    ]


def by_version(answered: Iterable[Answered]) -> Iterator[Answered]:
    """Versions with their stages taken together (`stage` is empty), sorted by system and version."""
    found: dict[tuple[str, str], Answered] = {}
    for each in answered:
        plain = msgspec.structs.replace(each, stage="")
        before = found.get((each.system, each.version))
        found[each.system, each.version] = plain if before is None else before + plain
    yield from (found[key] for key in sorted(found))


def summed(one: Mapping[K, int], other: Mapping[K, int]) -> dict[K, int]:
    """Counts of both, by key, in the order of the keys."""
    return {key: one.get(key, 0) + other.get(key, 0) for key in _names(one, other)}


def _names(one: Mapping[K, object], other: Mapping[K, object]) -> list[K]:
    return sorted({*one, *other})  # type: ignore[type-var]  # texts or whole numbers


def _answered_sum(one: tuple[Answered, ...], other: tuple[Answered, ...]) -> tuple[Answered, ...]:
    found = {each.key: each for each in one}
    for each in other:
        found[each.key] = found[each.key] + each if each.key in found else each
    return tuple(found[key] for key in sorted(found))
