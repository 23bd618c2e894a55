"""Looking back in time: groups of times in; the latest row before a time, and sums over a trailing window, out."""

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl

Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


class Span(msgspec.Struct, frozen=True):
    """For each question, the consecutive rows `first` .. `last` (inclusive) that answer it; none if first > last."""

    first: Integers
    last: Integers
    known: Integers
    """Which questions could be asked at all: those with a group, be it one without rows."""
    length: timedelta


class Timeline:
    """Rows sorted by group, then time; each question is a group and a time. Groups count from 0 without a hole.

    A question about group -1 is about one without rows; about a null group it cannot be answered.

    Times become ranks, so that group and time make one integer and a whole frame is answered by one binary search.
    """

    def __init__(self, group: pl.Series, time: pl.Series) -> None:
        self.group: Integers = group.to_numpy().astype(np.int64)
        self.time = _micros(time)
        self._ranks = np.unique(self.time)
        self._place = self.group * len(self._ranks) + np.searchsorted(self._ranks, self.time)
        self._starts = np.searchsorted(self.group, np.arange(self.group[-1] + 1 if len(self.group) else 0))

    def latest(self, group: pl.Series, time: pl.Series | None) -> pl.Series:
        """Index of the last row of that group at or before that time (of all rows for None); null where none is."""
        asked = _groups(group)
        at = np.full(len(asked), np.iinfo(np.int64).max) if time is None else _micros(time)
        place = self._until(asked, at)
        found = pl.DataFrame({"place": place, "is_none": (asked < 0) | (place < self._start(asked))})
        return found.select(pl.when(~pl.col("is_none")).then("place")).to_series()

    def window(self, group: pl.Series, time: pl.Series, length: timedelta) -> Span:
        """The rows of that group with a time in (time - length, time]."""
        asked, at = _groups(group), _micros(time)
        start = self._start(asked)
        first = np.maximum(self._until(asked, at - length // timedelta(microseconds=1)) + 1, start)
        last = np.where(asked < 0, start - 1, self._until(asked, at))
        return Span(first, last, np.flatnonzero(group.is_not_null().to_numpy()), length)

    def _until(self, group: Integers, at: Integers) -> Integers:
        rank = np.searchsorted(self._ranks, at, side="right") - 1
        return np.searchsorted(self._place, group * len(self._ranks) + rank, side="right") - 1

    def _start(self, group: Integers) -> Integers:
        return self._starts[np.maximum(group, 0)] if len(self._starts) else np.zeros(len(group), np.int64)


def counts(timeline: Timeline, span: Span, values: pl.Series) -> pl.Series:
    """How many finite values lie in each span, as Float64; null where the group is null."""
    return _total(timeline, span, np.isfinite(_floats(values)).astype(np.float64))


def sums(timeline: Timeline, span: Span, values: pl.Series) -> pl.Series:
    """Sum of the finite values in each span; 0 where there is none, null where the group is null."""
    floats = _floats(values)
    return _total(timeline, span, np.where(np.isfinite(floats), floats, 0.0))


def extremes(span: Span, values: pl.Series, *, largest: bool) -> pl.Series:
    """Smallest or largest finite value in each span; null where there is none.

    Answered from a sparse table: two overlapping runs of a power of two cover any span.
    """
    floats = _floats(values)
    sign = 1.0 if largest else -1.0
    level = np.where(np.isfinite(floats), sign * floats, -np.inf)
    length = span.last - span.first + 1
    found = np.full(len(length), -np.inf)
    power = 1
    while len(level) and power <= length.max(initial=0):
        now = np.flatnonzero((length >= power) & (length < 2 * power))
        found[now] = np.maximum(level[span.first[now]], level[span.last[now] - power + 1])
        level = np.maximum(level[:-power], level[power:]) if power < len(level) else level[:0]
        power *= 2
    return pl.Series(np.where(np.isfinite(found), sign * found, np.nan)).fill_nan(None)


def _total(timeline: Timeline, span: Span, values: Floats) -> pl.Series:
    """Sums by differences of running totals.

    The totals start afresh at every multiple of the window's length, so that a span crosses at most one restart:
    rounding never grows with the length of history, and a sum is the same whatever came before or after.
    """
    found = np.full(len(span.first), np.nan)
    found[span.known] = 0.0
    some = np.flatnonzero(span.first <= span.last)
    if len(some):
        cycle = timeline.time // (span.length // timedelta(microseconds=1))
        fresh = np.append(True, (np.diff(cycle) != 0) | (np.diff(timeline.group) != 0))
        stretch = np.cumsum(fresh) - 1
        totals = pl.DataFrame({"value": values, "stretch": stretch}).select(pl.col("value").cum_sum().over("stretch"))
        running = totals["value"].to_numpy()
        ends = np.append(np.flatnonzero(fresh)[1:], len(values)) - 1
        first, last = span.first[some], span.last[some]
        before = np.where(fresh[first], 0.0, running[np.maximum(first - 1, 0)])
        crosses = stretch[first] != stretch[last]
        found[some] = np.where(crosses, running[ends[stretch[first]]] - before + running[last], running[last] - before)
    return pl.Series(found).fill_nan(None)


def _groups(group: pl.Series) -> Integers:
    found: Integers = group.fill_null(-1).to_numpy().astype(np.int64)
    return found


def _micros(time: pl.Series) -> Integers:
    found: Integers = time.dt.epoch("us").to_numpy().astype(np.int64)
    return found


def _floats(values: pl.Series) -> Floats:
    found: Floats = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return found
