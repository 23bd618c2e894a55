"""Recorded answers counted by hour, once for each part of the lake and each reference. In: parts, edges. Out: counts.

The counts of a part are a function of its rows, which never change, and of the edges: they are kept with the part under
a name that the edges give, and go with it. So nothing can be counted twice or left out: a part that has no counts yet,
or damaged ones, is counted when it is looked at, and those of parts that were rolled into others are never asked for.
"""

import hashlib
import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import polars as pl

from holdfast.core.blocks import block_bounds, day_of
from holdfast.core.protocols import PREDICTIONS, Lake, Part
from holdfast.core.times import microseconds
from holdfast.errors import NotFound
from holdfast.stats.counting import count_rows
from holdfast.stats.histogram import Edges, IntArray

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORMAT = 1
HOUR_US = 3_600_000_000
KEPT_TALLIES = 256
"""How many parts' counts are kept in memory."""
KEPT_IDS = 8_000_000
"""How many ids of rows are kept in memory, as hashes of 8 bytes, to find those that were recorded twice."""
NEAR = timedelta(hours=26)
"""Rows of one day are never farther apart: a day is at most 25 hours long."""
ATTEMPTS = 10
_SIZES = ("<u1", "<u2", "<u4", "<i8")

Ids = np.ndarray[Any, np.dtype[np.uint64]]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One part was counted: how many of how many are done, and the rows of this one."""

    done: int
    of: int
    rows: int


class Buckets:
    """The counts of one system's answers.

    A bucket is an hour of UTC, or a quarter of one where the time zone is not whole hours from it, so that days are
    whole buckets. `served` gives the rows that count, out of those that are recorded; `kind` names it.
    """

    def __init__(
        self, system: str, lake: Lake, timezone: str, served: Callable[[pl.DataFrame], pl.DataFrame], kind: str
    ) -> None:
        self._system = system
        self._lake = lake
        self._timezone = timezone
        self._step = step_us(timezone)
        self._served = served
        self._kind = kind
        self._tallies: OrderedDict[tuple[str, str], _Tally] = OrderedDict()
        self._ids: OrderedDict[str, Ids] = OrderedDict()
        self._planned: tuple[Mapping[str, Edges], _Plan] | None = None

    def counts(self, start: datetime, end: datetime, edges: Mapping[str, Edges]) -> dict[str, IntArray] | None:
        """Counts by column (cells + 3,) of the answers with start <= event time < end.

        They are equal to those of the rows that a scan of this range gives. A column whose type does not fit its edges
        is missing. None where only the rows will tell: the lake has no parts, the range is not made of whole buckets,
        or an id stands in two parts, of which a scan gives one.
        """
        low, high = microseconds(start), microseconds(end)
        if low % self._step or high % self._step:
            return None
        plan = self._plan(edges)
        for _ in range(ATTEMPTS):
            try:
                return self._sum(plan, start, end)
            except NotFound:  # a part was rolled into another one meanwhile
                continue
        return None

    def counting(
        self, edges: Mapping[str, Edges], since: datetime | None = None, *, again: bool = False
    ) -> Iterator[Progress]:
        """Count the parts with rows after `since` that are not counted yet, or all of them `again`; one a step."""
        plan = self._plan(edges)
        # From a day before, so that every part of the same days is among them.
        before = None if since is None else since - NEAR
        near, _ = self._lake.parts(PREDICTIONS.name, self._system, since=before)
        parts = near if since is None else [part for part in near if part.high >= microseconds(since)]
        waiting = [part for part in parts if again or self._known(part, plan) is None]
        for done, part in enumerate(waiting, start=1):
            with suppress(NotFound):  # rolled into another one, which is counted when it is looked for
                self._count(part, plan, near)
            yield Progress(done=done, of=len(waiting), rows=part.rows)

    def of_rows(self, rows: pl.DataFrame, edges: Mapping[str, Edges]) -> dict[str, IntArray]:
        """Counts by column of rows whose columns have their own names."""
        counted = count_rows(rows, edges)
        return {name: histogram.counted for name, histogram in counted.histograms.items()}

    def _plan(self, edges: Mapping[str, Edges]) -> "_Plan":
        if self._planned is None or self._planned[0] is not edges:
            ordered = {name: edges[name] for name in sorted(edges)}
            content = (FORMAT, self._step, self._kind, [(name, edge.digest) for name, edge in ordered.items()])
            plan = _Plan(ordered, f"counts-{hashlib.sha256(repr(content).encode()).hexdigest()[:16]}")
            self._planned = edges, plan
        return self._planned[1]

    def _sum(self, plan: "_Plan", start: datetime, end: datetime) -> dict[str, IntArray] | None:
        parts, rest = self._lake.parts(PREDICTIONS.name, self._system, since=start, until=end)
        if not parts:
            return None
        low, high = microseconds(start) // self._step, microseconds(end) // self._step
        total, changed = np.zeros(plan.width, dtype=np.int64), set[str]()
        for part in parts:
            tally = self._known(part, plan) or self._count(part, plan, self._near(part))
            if tally.repeats(low, high):
                return None
            total += tally.between(low, high)
            changed.update(tally.changed)
        left = rest()
        if left.height:
            ids = _sorted_ids([left])
            if any(_are_in(ids, self._ids_of(part)).any() for part in parts):
                return None
            counted = count_rows(_own_names(self._served(left)), plan.edges)
            total += plan.joined({name: each.counted for name, each in counted.histograms.items()})
            changed.update(counted.changed)
        return {name: cells for name, cells in plan.split(total).items() if name not in changed}

    def _known(self, part: Part, plan: "_Plan") -> "_Tally | None":
        """The counts of a part, if it was counted."""
        key = (part.name, plan.name)
        if key not in self._tallies:
            data = self._lake.kept(part, plan.name)
            tally = _read(data, plan.width) if data is not None else None
            if tally is None:
                return None
            self._remember(key, tally)
        self._tallies.move_to_end(key)
        return self._tallies[key]

    def _remember(self, key: tuple[str, str], tally: "_Tally") -> None:
        self._tallies[key] = tally
        if len(self._tallies) > KEPT_TALLIES:
            self._tallies.popitem(last=False)

    def _count(self, part: Part, plan: "_Plan", near: Sequence[Part]) -> "_Tally":
        """Count a part and keep that with it, given all parts of its days. Raises NotFound when it is gone."""
        first = part.low // self._step
        cells = np.zeros((part.high // self._step - first + 1, plan.width), dtype=np.int64)
        ids, steps, changed = [], [], set[str]()
        for frame in self._lake.read_part(part, plan.columns):
            ids.append(_hashed(frame))
            steps.append(self._steps(frame))
            served = self._served(frame)
            of_served = steps[-1] if served.height == frame.height else self._steps(served)
            for step, rows in _by_step(of_served, _own_names(served)):
                counted = count_rows(rows, plan.edges)
                cells[step - first] += plan.joined({n: each.counted for n, each in counted.histograms.items()})
                changed.update(counted.changed)
        repeated = self._repeated(part, near, np.concatenate(ids), np.concatenate(steps))
        size = next(size for size in _SIZES if cells.max(initial=0) <= np.iinfo(size).max)
        tally = _Tally(first, cells.astype(size), tuple(sorted(changed)), tuple(repeated))
        self._lake.keep(part, plan.name, _written(tally))
        self._remember((part.name, plan.name), tally)
        return tally

    def _steps(self, frame: pl.DataFrame) -> IntArray:
        at = frame[PREDICTIONS.time].to_numpy()  # as datetime64, whose integers are what the column holds
        steps: IntArray = at.astype("datetime64[us]", copy=False).view(np.int64) // self._step
        return steps

    def _near(self, part: Part) -> Sequence[Part]:
        """All parts of the days that a part has rows of."""
        bounds: dict[str, datetime] = {}
        with suppress(OverflowError):  # no calendar has these days
            first, last = (EPOCH + timedelta(microseconds=at) for at in (part.low, part.high))
            bounds = {"since": first - NEAR, "until": last + NEAR}
        parts, _ = self._lake.parts(PREDICTIONS.name, self._system, **bounds)
        return parts

    def _repeated(self, part: Part, near: Sequence[Part], ids: Ids, steps: IntArray) -> list[int]:
        """The buckets of rows whose id is there twice: in this part, or in another one that has rows of the same days.

        Of two parts the one that came later was counted when the other was there already, so that one of them knows.
        """
        order = np.argsort(ids, kind="stable")
        ids, steps = ids[order], steps[order]
        twice = np.append(False, ids[1:] == ids[:-1])
        self._keep_ids(part, ids)
        low, high = self._days_of(part)
        for other in near:
            with suppress(NotFound):  # what took its place came after this part, and is compared with it
                if other.name != part.name and other.high >= low and other.low < high:
                    twice |= _are_in(ids, self._ids_of(other))
        return [int(step) for step in np.unique(steps[twice])]

    def _days_of(self, part: Part) -> tuple[float, float]:
        """Start and end of the days that a part has rows of, in microseconds; no bounds where no calendar has them."""
        try:
            first, last = (EPOCH + timedelta(microseconds=at) for at in (part.low, part.high))
            start, _ = block_bounds(self._timezone, day_of(self._timezone, first))
            _, end = block_bounds(self._timezone, day_of(self._timezone, last))
        except OverflowError:
            return -math.inf, math.inf
        return microseconds(start), microseconds(end)

    def _ids_of(self, part: Part) -> Ids:
        if part.name not in self._ids:
            self._keep_ids(part, _sorted_ids(self._lake.read_part(part, (PREDICTIONS.identity,))))
        self._ids.move_to_end(part.name)
        return self._ids[part.name]

    def _keep_ids(self, part: Part, ids: Ids) -> None:
        self._ids[part.name] = ids
        while len(self._ids) > 1 and sum(map(len, self._ids.values())) > KEPT_IDS:
            self._ids.popitem(last=False)


@dataclass(frozen=True)
class _Plan:
    """Which columns are counted on what, in the order in which their cells lie end to end."""

    edges: Mapping[str, Edges]
    name: str
    """Under which the counts are kept."""

    @cached_property
    def ends(self) -> list[int]:
        """Where the cells of each column end."""
        return list(accumulate(edge.cells + 3 for edge in self.edges.values()))

    @property
    def width(self) -> int:
        return self.ends[-1] if self.ends else 0

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the lake that are read."""
        of_values = [f"{kind}.{name}" for name in self.edges for kind in ("in", "out")]
        return [PREDICTIONS.time, PREDICTIONS.identity, "status", "stage", *of_values]

    def joined(self, counts: Mapping[str, IntArray]) -> IntArray:
        """Counts end to end, nothing where a column has none."""
        cells = [counts.get(name, np.zeros(edge.cells + 3, dtype=np.int64)) for name, edge in self.edges.items()]
        return np.concatenate(cells) if cells else np.zeros(0, dtype=np.int64)

    def split(self, cells: IntArray) -> dict[str, IntArray]:
        """Counts by column."""
        starts = [0, *self.ends[:-1]]
        return {name: cells[start:end] for name, start, end in zip(self.edges, starts, self.ends, strict=False)}


@dataclass(frozen=True, eq=False)
class _Tally:
    """The counts of one part: cells (buckets, width) from the bucket `first` on."""

    first: int
    cells: np.ndarray[Any, np.dtype[Any]]
    changed: tuple[str, ...]
    """Columns whose type does not fit their edges."""
    repeated: tuple[int, ...]
    """Buckets of rows that are recorded twice."""

    def between(self, low: int, high: int) -> IntArray:
        """Counts (width,) of the buckets low <= bucket < high."""
        if low <= self.first and self.first + len(self.cells) <= high:
            return self.total
        found: IntArray = self.cells[max(low - self.first, 0) : max(high - self.first, 0)].sum(axis=0, dtype=np.int64)
        return found

    @cached_property
    def total(self) -> IntArray:
        """Counts (width,) of all buckets."""
        found: IntArray = self.cells.sum(axis=0, dtype=np.int64)
        return found

    def repeats(self, low: int, high: int) -> bool:
        """Whether a row of these buckets is recorded twice."""
        return any(low <= bucket < high for bucket in self.repeated)


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """How a tally is kept. `crc` is of `cells`, which are compressed where that saves most of them."""

    first: int
    buckets: int
    size: str
    is_compressed: bool
    cells: bytes
    crc: int
    changed: tuple[str, ...] = ()
    repeated: tuple[int, ...] = ()


def _written(tally: _Tally) -> bytes:
    raw = tally.cells.tobytes()
    packed = zlib.compress(raw, 1)
    is_compressed = 4 * len(packed) < len(raw)  # otherwise reading it takes longer than it is worth
    cells = packed if is_compressed else raw
    stored = _Stored(
        first=tally.first,
        buckets=len(tally.cells),
        size=tally.cells.dtype.str if tally.cells.dtype.itemsize > 1 else "<u1",
        is_compressed=is_compressed,
        cells=cells,
        crc=zlib.crc32(cells),
        changed=tally.changed,
        repeated=tally.repeated,
    )
    return msgspec.msgpack.encode(stored)


def _read(data: bytes, width: int) -> _Tally | None:
    """A tally as it was kept; None for one that is damaged, which is then made again."""
    try:
        stored = msgspec.msgpack.decode(data, type=_Stored)
        if stored.size not in _SIZES or zlib.crc32(stored.cells) != stored.crc:
            return None
        raw = zlib.decompress(stored.cells) if stored.is_compressed else stored.cells
        cells = np.frombuffer(raw, dtype=stored.size).reshape(stored.buckets, width)
    except (msgspec.DecodeError, zlib.error, ValueError):
        return None
    return _Tally(stored.first, cells, stored.changed, stored.repeated)


@lru_cache(maxsize=64)
def step_us(timezone: str) -> int:
    """Length of a bucket in microseconds: an hour, or a quarter of one where the zone's clocks need it.

    >>> step_us("America/New_York") // 60_000_000, step_us("Asia/Kathmandu") // 60_000_000
    (60, 15)
    """
    zone = ZoneInfo(timezone)
    months = [datetime(year, month, 1, tzinfo=UTC) for year in range(2000, 2040) for month in range(1, 13)]
    offsets = {month.astimezone(zone).utcoffset() or timedelta() for month in months}
    return HOUR_US if all(offset % timedelta(hours=1) == timedelta() for offset in offsets) else HOUR_US // 4


def _by_step(steps: IntArray, rows: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """Rows in the order of time, cut where the bucket changes."""
    if not steps.size:
        return
    starts = np.append(0, np.flatnonzero(steps[1:] != steps[:-1]) + 1)
    for start, end in zip(starts, np.append(starts[1:], steps.size), strict=True):
        yield int(steps[start]), rows.slice(int(start), int(end - start))


def _own_names(rows: pl.DataFrame) -> pl.DataFrame:
    """Inputs and outputs under their own names, nothing else."""
    own = {name.split(".", 1)[1]: name for name in rows.columns if name.startswith(("in.", "out."))}
    return pl.DataFrame([rows[name].alias(alias) for alias, name in own.items()])


def _hashed(frame: pl.DataFrame) -> Ids:
    hashed: Ids = frame[[PREDICTIONS.identity]].hash_rows().to_numpy()
    return hashed


def _sorted_ids(frames: Iterable[pl.DataFrame]) -> Ids:
    return np.sort(np.concatenate([np.zeros(0, dtype=np.uint64), *(_hashed(frame) for frame in frames)]))


def _are_in(ids: Ids, others: Ids) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which of some sorted ids (n,) are among other sorted ones; of equal ones at least the first."""
    among = np.zeros(ids.size, dtype=bool)
    if not ids.size or not others.size:
        return among
    if others.size < ids.size:
        at = np.minimum(np.searchsorted(ids, others), ids.size - 1)
        among[at[ids[at] == others]] = True
        return among
    at = np.minimum(np.searchsorted(others, ids), others.size - 1)
    return np.equal(others[at], ids, out=among)
