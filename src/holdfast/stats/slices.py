"""Where did it get worse? Segments of one column or two, searched for the largest rise of the loss beyond the rest.

A segment is judged by days, never by rows: on each day its mean loss is set against that of all other rows of the
same day, so that a bad day for everybody (a storm) is no evidence about anybody. What was searched is corrected for:
the largest score of all segments is compared with the largest score when the days are dealt out anew, in runs of
neighbouring days (max-statistic permutation: Westfall and Young 1993; runs as in Künsch 1989).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.stats.bootstrap import UNKNOWN, Interval, resample, run_length, widening

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Column = npt.NDArray[Any] | Sequence[str | None]

FINE = 8
"""Cells of a column that is searched alone."""
COARSE = 4
"""Cells of a column that is searched together with another."""
CANDIDATES = 200
"""How many of the best segments are looked at for ones that do not overlap."""
PAIRED = 40
"""How many columns are searched two by two, the first ones; 40 make 780 pairs."""
LEAST_ROWS = 30
"""Fewest rows of a segment in the reference and in the current window."""
SIMPLER = 0.9
"""A segment of two columns must score more than that of one of them by this factor, or it says no more."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A range of one column: numbers in [low, high), texts among `values`, or missing values."""

    column: str
    low: float = -math.inf
    high: float = math.inf
    values: tuple[str, ...] = ()
    is_missing: bool = False

    def __str__(self) -> str:
        if self.is_missing:
            return f"{self.column} missing"
        if self.values:
            return f"{self.column}={'|'.join(self.values)}"
        if math.isinf(self.low):
            return f"{self.column} < {self.high:.6g}"
        return (
            f"{self.column} >= {self.low:.6g}"
            if math.isinf(self.high)
            else (f"{self.column} {self.low:.6g} to {self.high:.6g}")
        )


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A segment whose loss rose, and how much."""

    parts: tuple[Part, ...]
    rows: int
    """Rows of the current window in it."""
    share: float
    """The same as a share of all current rows, in (0, 1]."""
    before: float
    after: float
    """Mean loss of its rows in the reference and in the current window."""
    rise: Interval
    """Interval of after - before at 95 %, from a block bootstrap over days; not corrected for the search."""
    beyond: float
    """How much more its loss rose than that of the other rows of the same days, in units of the loss."""
    score: float
    """`beyond` over its standard error, from the deviation between the days of each side or that of rows."""
    p_value: float
    """How often the best of all segments scores as much when nothing changed: corrected for the whole search."""

    def __str__(self) -> str:
        return " & ".join(str(part) for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found."""

    slices: tuple[Slice, ...]
    """The worst segments that overlap by less than half, the worst first and each of the others told without the rows
    of those before it; also those that are not significant."""
    searched: int
    """How many segments were compared."""
    least_p: float
    """The smallest p-value that so few days can give."""
    why: str = ""
    """Why nothing could be searched; empty when something was."""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """All rows, reference first: loss (n,), day codes (n,) with the reference's days first, and how many of each."""

    loss: FloatArray
    day: IntArray
    before: int
    days: int
    days_before: int

    @cached_property
    def totals(self) -> tuple[FloatArray, FloatArray]:
        """Rows and summed loss of each day, (days,) each."""
        return _sums(self.day, self.loss, self.days)

    @cached_property
    def deviation(self) -> float:
        """Of the loss from the mean of its day, over all rows."""
        counts, sums = self.totals
        squares = float(np.square(self.loss).sum() - (sums**2 / np.maximum(counts, 1)).sum())
        return math.sqrt(max(0.0, squares) / max(1, self.loss.size - self.days))


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """One column cut into cells: a code per row, and every range of cells with the part it stands for."""

    codes: npt.NDArray[np.int16]
    ranges: BoolArray
    """(ranges, cells): which cells a range holds."""
    parts: tuple[Part, ...]


def find_slices(
    reference: Mapping[str, Column],
    reference_loss: FloatArray,
    reference_day: IntArray,
    current: Mapping[str, Column],
    current_loss: FloatArray,
    current_day: IntArray,
    *,
    most: int = 3,
    seed: int = 0,
    replicates: int = 499,
    paired: int = PAIRED,
) -> Search:
    """The segments in which the loss rose most beyond the rest, from the reference to the current window.

    Columns are float arrays (n,) with NaN for missing, or sequences of str and None; the same names on both sides. A
    loss is one number per row (n,) without NaN, a day any integer per row that grows with time. Searched are, per
    column, all ranges of up to eight cells of equal mass in the reference (or single categories, the commonest
    sixteen), and for every two of the first `paired` columns all pairs of ranges of four cells (categories: the
    commonest ten). A segment needs 30 rows and 3 days on both sides (1 day where the current window is shorter) and
    as much outside of it.

    A segment's score is the weighted mean over days of (mean loss inside - mean loss outside), current less
    reference, over its standard error: from the deviation between the days of each side (Student's t), or from that
    between the rows of a day where this is larger; a day weighs 1 / (1/inside + 1/outside) rows. Under no change the
    smallest p-value is at or below a with probability at most a when runs of the cube root of n days are
    exchangeable; seasons and trends that move segments apart count as change, because they are one.
    Cost: 100,000 rows of 20 columns take about a second on one core.

    >>> random = np.random.default_rng(0)
    >>> day, hour = np.repeat(np.arange(40), 50), random.integers(0, 24, 2000).astype(float)
    >>> loss = random.random(2000) + 0.5 * ((day >= 33) & (hour >= 18))
    >>> old = day < 33
    >>> found = find_slices({"hour": hour[old]}, loss[old], day[old], {"hour": hour[~old]}, loss[~old], day[~old])
    >>> str(found.slices[0]), found.slices[0].p_value < 0.01
    ('hour >= 18', True)
    """
    if not reference_loss.size or not current_loss.size:
        side = "current window" if reference_loss.size else "reference"
        return Search(slices=(), searched=0, least_p=1.0, why=f"the {side} has no row with a loss")
    rows = _joined(reference_loss, reference_day, current_loss, current_day)
    after = rows.days - rows.days_before
    if rows.days_before < 2 * after or rows.days_before < 5:
        why = f"{rows.days_before} days of reference for {after} current ones: {max(5, 2 * after)} are needed"
        return Search(slices=(), searched=0, least_p=1.0, why=why)
    labels = _dealt_anew(rows.days, after, seed=seed, replicates=replicates)
    best = np.full(len(labels), -np.inf)
    kept: list[tuple[float, float, tuple[Part, ...]]] = []
    searched = 0
    for parts, counts, sums in _segments(rows, reference, current, paired):
        scores, beyond, used = _scores(rows, counts, sums, labels)
        searched += int(used.sum())
        if not used.any():
            continue
        best = np.maximum(best, scores.max(axis=1, where=used[None, :], initial=-np.inf))
        leading = np.argsort(-np.where(used, scores[0], -np.inf), kind="stable")[:20]
        kept += [(float(scores[0, i]), float(beyond[i]), parts[i]) for i in leading if used[i] and scores[0, i] > 0]
    least_p = 1 / len(labels)
    if not searched:
        why = f"no segment has {LEAST_ROWS} rows before and after, inside and outside of it"
        return Search(slices=(), searched=0, least_p=least_p, why=why)
    described = _worst(rows, {**reference}, {**current}, kept, best, labels[:1], most=most, seed=seed)
    return Search(slices=tuple(described), searched=searched, least_p=least_p)


def _joined(
    reference_loss: FloatArray, reference_day: IntArray, current_loss: FloatArray, current_day: IntArray
) -> _Rows:
    days_before, codes_before = np.unique(reference_day, return_inverse=True)
    days_after, codes_after = np.unique(current_day, return_inverse=True)
    return _Rows(
        loss=np.concatenate([reference_loss, current_loss]).astype(np.float64),
        day=np.concatenate([codes_before, codes_after + days_before.size]).astype(np.int64),
        before=reference_loss.size,
        days=days_before.size + days_after.size,
        days_before=days_before.size,
    )


def _dealt_anew(days: int, after: int, *, seed: int, replicates: int) -> npt.NDArray[np.float32]:
    """Which days count as current, (1 + replicates, days) of 0 and 1; the first row is the truth.

    The days stand in a ring. Runs of neighbouring days are cut out of it at random places, none over another, until
    as many are current as truly are. A single run has only as many places as there are days: each is taken once.
    """
    truth = np.zeros(days, dtype=np.float32)
    truth[days - after :] = 1
    length = min(after, run_length(days))
    runs = [length] * (after // length) + ([after % length] if after % length else [])
    if len(runs) == 1:
        return np.stack([np.roll(truth, shift) for shift in range(days)])
    random = np.random.default_rng(seed)
    drawn = np.zeros((replicates, days), dtype=np.float32)
    for row in drawn:
        items = random.permutation([*runs, *([0] * (days - after))])
        ring = np.concatenate([np.ones(run) if run else np.zeros(1) for run in items])
        row[:] = np.roll(ring, int(random.integers(days)))
    return np.vstack([truth[None, :], drawn])


def _scores(
    rows: _Rows, counts: FloatArray, sums: FloatArray, labels: npt.NDArray[np.float32]
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Scores (labels, segments), the rise beyond the rest (segments,), and which segments are large enough."""
    all_rows, all_loss = rows.totals
    outside = all_rows[:, None] - counts
    both = (counts > 0) & (outside > 0)
    weight = np.divide(counts * outside, all_rows[:, None], out=np.zeros_like(counts), where=both)
    inner = np.divide(sums, counts, out=np.zeros_like(sums), where=both)
    outer = np.divide(all_loss[:, None] - sums, outside, out=np.zeros_like(sums), where=both)
    apart = inner - outer
    total = weight.sum(axis=0)
    mean = np.divide((weight * apart).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    centred = np.where(both, apart - mean, 0.0)
    freedom = np.maximum(both.sum(axis=0) - 1, 2).astype(np.float64)
    spread = np.sqrt((weight * centred**2).sum(axis=0) / freedom)
    used = _large_enough(rows, counts, outside, both) & (spread > 1e-12 * (1 + np.abs(mean)))
    now = labels @ weight.astype(np.float32)
    moved = labels @ (weight * centred).astype(np.float32)
    then = total.astype(np.float32) - now
    # Weighted deviations add up to 0 over all days, so the reference's are those of the current days with their sign
    # turned: current mean less reference mean is moved / now + moved / then.
    defined = used[None, :] & (now > 0) & (then > 0)
    rise = np.divide(moved, now, out=np.zeros_like(moved), where=defined)
    rise += np.divide(moved, then, out=np.zeros_like(moved), where=defined)
    error = np.sqrt(
        np.divide(1.0, now, out=np.zeros_like(now), where=defined)
        + np.divide(1.0, then, out=np.zeros_like(now), where=defined)
    )
    error *= np.where(used, spread, 1.0)
    known = defined & (error > 0)
    ratio = np.divide(rise, error, out=np.zeros_like(rise), where=known)
    # That deviation is about one mean of all days, so the rise is part of it and the ratio never passes the root of
    # the days: a grave rise scores hardly more than one that overlaps it by half. About a mean of each side it is t.
    # No days count as steadier than independent rows are, or of the segments of one grave rise the one whose days
    # happen to be alike would be named, not the one that holds its rows.
    within = np.sqrt(freedom / (freedom - 1) * np.maximum(1 - ratio**2 / freedom, 1e-4)) * spread
    scores = np.where(known, ratio * (spread / np.maximum(within, max(rows.deviation, 1e-300))), -np.inf)
    return scores.astype(np.float64), rise[0].astype(np.float64), used


def _large_enough(rows: _Rows, counts: FloatArray, outside: FloatArray, both: BoolArray) -> BoolArray:
    after = rows.days - rows.days_before
    least_days = min(3, after)
    enough = np.ones(counts.shape[1], dtype=np.bool_)
    for side in (slice(0, rows.days_before), slice(rows.days_before, None)):
        enough &= counts[side].sum(axis=0) >= LEAST_ROWS
        enough &= outside[side].sum(axis=0) >= LEAST_ROWS
        enough &= both[side].sum(axis=0) >= least_days
    return enough


def _segments(
    rows: _Rows, reference: Mapping[str, Column], current: Mapping[str, Column], paired: int
) -> Iterator[tuple[list[tuple[Part, ...]], FloatArray, FloatArray]]:
    """Batches of segments: their parts, and rows and summed loss per day (days, segments)."""
    fine = {name: _cut(name, reference[name], current[name], FINE, 16) for name in reference}
    coarse = {name: _cut(name, reference[name], current[name], COARSE, 10) for name in [*reference][:paired]}
    for cells in fine.values():
        if cells.parts:
            table = _tables(rows, cells.codes, cells.ranges.shape[1])
            chosen = cells.ranges.T.astype(np.float64)
            yield [(part,) for part in cells.parts], table[0] @ chosen, table[1] @ chosen
    for one, other in combinations([name for name in coarse if coarse[name].parts], 2):
        first, second = coarse[one], coarse[other]
        width, height = first.ranges.shape[1], second.ranges.shape[1]
        codes = first.codes * np.int16(height) + second.codes
        table = _tables(rows, codes, width * height)
        chosen = np.einsum("ri,sj->ijrs", first.ranges.astype(np.float64), second.ranges.astype(np.float64))
        chosen = chosen.reshape(width * height, -1)
        yield [(a, b) for a in first.parts for b in second.parts], table[0] @ chosen, table[1] @ chosen


def _tables(rows: _Rows, codes: npt.NDArray[np.int16], cells: int) -> tuple[FloatArray, FloatArray]:
    """Rows and summed loss per day and cell, (days, cells) each."""
    at = rows.day * cells + codes
    size = rows.days * cells
    counts, sums = _sums(at, rows.loss, size)
    return counts.reshape(rows.days, cells), sums.reshape(rows.days, cells)


def _sums(code: IntArray, loss: FloatArray, codes: int) -> tuple[FloatArray, FloatArray]:
    """Rows and summed loss of each code 0 .. codes - 1, (codes,) each."""
    counts = np.bincount(code, minlength=codes).astype(np.float64)
    return counts, np.asarray(np.bincount(code, weights=loss, minlength=codes), dtype=np.float64)


def _cut(name: str, reference: Column, current: Column, cells: int, most: int) -> _Cells:
    if isinstance(reference, np.ndarray) and reference.dtype.kind in "fiub":
        return _cut_numbers(name, np.asarray(reference, np.float64), np.asarray(current, np.float64), cells)
    return _cut_texts(name, [*reference, *current], most)


def _cut_numbers(name: str, reference: FloatArray, current: FloatArray, cells: int) -> _Cells:
    """Cells of about equal mass in the reference; the last cell holds missing values and belongs to no range."""
    values = np.concatenate([reference, current])
    missing = np.isnan(values)
    known = reference[~np.isnan(reference)]
    cuts = np.empty(0)
    if known.size:
        cuts = np.unique(np.quantile(known, np.linspace(0, 1, cells + 1)[1:-1], method="inverted_cdf"))
        cuts = cuts[cuts > known.min()]
    codes = np.searchsorted(cuts, values, side="right").astype(np.int16)
    codes[missing] = cuts.size + 1
    bounds = [-math.inf, *cuts.tolist(), math.inf]
    spans = [(i, j) for i in range(cuts.size + 1) for j in range(i + 1, cuts.size + 2) if j - i <= cuts.size]
    ranges = np.zeros((len(spans) + bool(missing.any()), cuts.size + 2), dtype=np.bool_)
    parts = []
    for k, (i, j) in enumerate(spans):
        ranges[k, i:j] = True
        parts.append(Part(column=name, low=bounds[i], high=bounds[j]))
    if missing.any():
        ranges[-1, -1] = True
        parts.append(Part(column=name, is_missing=True))
    return _Cells(codes=codes, ranges=ranges, parts=tuple(parts))


def _cut_texts(name: str, values: list[str | None], most: int) -> _Cells:
    """A cell per common category of both sides together; the last cell holds all others and belongs to no range."""
    seen: dict[str | None, int] = {None: 0}
    codes_of = np.array([seen.setdefault(value, len(seen)) for value in values], dtype=np.int64)
    texts = [str(value) for value in seen]
    tally = np.bincount(codes_of, minlength=len(texts))
    frequent = sorted(range(1, len(texts)), key=lambda i: (-tally[i], texts[i]))[:most]
    common = [i for i in frequent if tally[i] >= 2 * LEAST_ROWS]
    recode = np.full(len(texts), len(common) + 1, dtype=np.int16)
    recode[common] = np.arange(len(common), dtype=np.int16)
    recode[0] = len(common)
    parts = [Part(column=name, values=(texts[i],)) for i in common]
    if tally[0]:
        parts.append(Part(column=name, is_missing=True))
    ranges = np.eye(len(common) + 2, dtype=np.bool_)[: len(parts)]
    return _Cells(codes=recode[codes_of], ranges=ranges, parts=tuple(parts))


def _worst(
    rows: _Rows,
    reference: Mapping[str, Column],
    current: Mapping[str, Column],
    kept: Sequence[tuple[float, float, tuple[Part, ...]]],
    best: FloatArray,
    truth: npt.NDArray[np.float32],
    *,
    most: int,
    seed: int,
) -> Iterator[Slice]:
    """The best segments that rose, said as simply as can be, none of which overlaps an earlier one by half or more.

    Every segment that cuts across one that got worse holds some of its rows. So a later one is scored, and has its
    p-value, without the rows of those before it.
    """
    single = {parts[0]: score for score, _, parts in kept if len(parts) == 1}
    masks: dict[Part, BoolArray] = {}
    chosen: list[BoolArray] = []
    for score, beyond, parts in sorted(kept, key=_simpler_first)[:CANDIDATES]:
        if len(chosen) == most:
            return
        if len(parts) == 2 and any(SIMPLER * score <= single.get(part, -math.inf) for part in parts):
            continue
        for part in parts:
            if part not in masks:
                masks[part] = _inside(part, reference[part.column], current[part.column])
        inside = np.logical_and.reduce([masks[part] for part in parts])
        if any(2 * int((inside & other).sum()) >= min(int(inside.sum()), int(other.sum())) for other in chosen):
            continue
        if chosen:
            alone = _alone(rows, inside, np.logical_or.reduce(chosen), truth)
            if alone is None:
                continue
            score, beyond = alone
        found = _described(rows, inside, parts, score, beyond, best, seed)
        if found.after > found.before:
            chosen.append(inside)
            yield found


def _alone(
    rows: _Rows, inside: BoolArray, taken: BoolArray, truth: npt.NDArray[np.float32]
) -> tuple[float, float] | None:
    """Score of a segment and its rise beyond the rest, both without the rows that are taken; None for one that did
    not get worse or has too few others."""
    left = ~taken
    others = _Rows(
        loss=rows.loss[left],
        day=rows.day[left],
        before=int(left[: rows.before].sum()),
        days=rows.days,
        days_before=rows.days_before,
    )
    counts, sums = _sums(rows.day[left & inside], rows.loss[left & inside], rows.days)
    scores, beyond, used = _scores(others, counts[:, None], sums[:, None], truth)
    return (float(scores[0, 0]), float(beyond[0])) if used[0] and scores[0, 0] > 0 else None


def _simpler_first(candidate: tuple[float, float, tuple[Part, ...]]) -> tuple[float, int]:
    """Sorts the best score to the front, a segment of two columns at a discount."""
    score, _, parts = candidate
    return -score * (SIMPLER if len(parts) == 2 else 1.0), len(parts)


def _inside(part: Part, reference: Column, current: Column) -> BoolArray:
    """Which of all rows, reference first, lie in a part."""
    if isinstance(reference, np.ndarray) and reference.dtype.kind in "fiub":
        numbers = np.concatenate([np.asarray(reference, np.float64), np.asarray(current, np.float64)])
        return np.isnan(numbers) if part.is_missing else (numbers >= part.low) & (numbers < part.high)
    values = [*reference, *current]
    if part.is_missing:
        return np.array([value is None for value in values], dtype=np.bool_)
    return np.array([value in part.values for value in values], dtype=np.bool_)


def _described(
    rows: _Rows, inside: BoolArray, parts: tuple[Part, ...], score: float, beyond: float, best: FloatArray, seed: int
) -> Slice:
    counts, sums = _sums(rows.day[inside], rows.loss[inside], rows.days)
    old, new = slice(0, rows.days_before), slice(rows.days_before, None)
    size = int(counts[new].sum())
    return Slice(
        parts=parts,
        rows=size,
        share=size / (rows.loss.size - rows.before),
        before=float(sums[old].sum() / counts[old].sum()),
        after=float(sums[new].sum() / counts[new].sum()),
        rise=_rise((sums[old], counts[old]), (sums[new], counts[new]), seed=seed),
        beyond=beyond,
        score=score,
        p_value=int(np.count_nonzero(best >= score - 1e-6 * abs(score))) / best.size,
    )


def _rise(
    before: tuple[FloatArray, FloatArray], after: tuple[FloatArray, FloatArray], *, seed: int, replicates: int = 1000
) -> Interval:
    """Interval at 95 % of the rise of a mean, from sums and rows per day; days of both sides are drawn anew."""
    sides = []
    for k, (sums, counts) in enumerate((before, after)):
        used = counts > 0
        if used.sum() < 2:
            return UNKNOWN
        drawn = resample(int(used.sum()), seed=seed + k, replicates=replicates)
        sides.append(sums[used][drawn].sum(axis=1) / counts[used][drawn].sum(axis=1))
    estimate = float(after[0].sum() / after[1].sum() - before[0].sum() / before[1].sum())
    low, high = np.quantile(sides[1] - sides[0], [0.025, 0.975])
    wider = widening(int((after[1] > 0).sum()), 0.95)
    return float(estimate + (low - estimate) * wider), float(estimate + (high - estimate) * wider)
