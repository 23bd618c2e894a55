"""Where do two models differ? Parts of single columns, judged by days, corrected for the search."""

from collections.abc import Iterator
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.stats.bootstrap import run_length
from holdfast.stats.slices import Part

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

CELLS = 8
"""Cells of equal mass of a column of numbers."""
MOST = 16
"""Texts of a column, the commonest."""
LEAST_ROWS = 30
LEAST_DAYS = 5
FLIPS = 999


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Rows in which b differs from a by more or less than in the others."""

    name: str
    rows: int
    difference: float
    """Mean loss of b less that of a in it."""
    elsewhere: float
    """The same of all other rows."""
    p_value: float
    """How often the most unusual of all segments is so unusual when none differs from the rest. In (0, 1]."""

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.difference:+.4g} on {self.rows:,} rows, elsewhere {self.elsewhere:+.4g}, "
            f"p {self.p_value:.2g}"
        )


def segments(
    columns: pl.DataFrame, difference: FloatArray, day: IntArray, *, most: int = 5, seed: int = 0
) -> list[Segment]:
    """The `most` segments whose difference (n,) is surest apart from that of the other rows of the same days.

    Numbers are cut at eight quantiles, of texts the commonest 16 are taken. A segment needs 30 rows inside and outside,
    on five days. Its score is the sum over days of the contrast inside less outside, weighted by rows, over the root of
    the sum of squares. Where no segment differs, contrasts are taken to be symmetric around 0: their signs are turned
    at random, for runs of neighbouring days together, and the largest score of all segments is compared (Westfall and
    Young 1993; Romano 1990 for signs). Equally sure ones stand in the order of that sum, what they are worth together.
    Empty where nothing is large enough.
    """
    sums: FloatArray = np.bincount(day, weights=difference).astype(np.float64)
    total = np.bincount(day).astype(np.int64), sums
    found: list[tuple[Part, BoolArray]] = []
    contrasts = []
    for part, inside in _parts(columns):
        contrast = _contrast(inside, difference, day, total)
        if contrast is not None:
            found.append((part, inside))
            contrasts.append(contrast)
    if not contrasts:
        return []
    weighted = np.array(contrasts)
    spread = np.sqrt(np.square(weighted).sum(axis=1))
    worth = np.abs(weighted.sum(axis=1))
    scores = worth / spread
    highest = np.abs(_signs(weighted.shape[1], seed) @ weighted.T / spread).max(axis=1)
    p = (1 + (highest[:, None] >= scores - 1e-9).sum(axis=0)) / (FLIPS + 1)
    order = np.lexsort((-worth, p))[:most]
    return [_segment(found[i], difference, float(p[i])) for i in order.tolist()]


def _segment(of: tuple[Part, BoolArray], difference: FloatArray, p_value: float) -> Segment:
    part, inside = of
    return Segment(
        name=str(part),
        rows=int(inside.sum()),
        difference=float(difference[inside].mean()),
        elsewhere=float(difference[~inside].mean()),
        p_value=p_value,
    )


def _contrast(
    inside: BoolArray, difference: FloatArray, day: IntArray, total: tuple[IntArray, FloatArray]
) -> FloatArray | None:
    """Per day the mean inside less that outside, weighted by rows; None where the segment is too small or even."""
    rows, sums = total
    counted = np.bincount(day[inside], minlength=rows.size)
    summed = np.bincount(day[inside], weights=difference[inside], minlength=rows.size)
    outside = rows - counted
    both = (counted > 0) & (outside > 0)
    if min(counted.sum(), outside.sum()) < LEAST_ROWS or both.sum() < LEAST_DAYS:
        return None
    apart = np.zeros(rows.size)
    apart[both] = summed[both] / counted[both] - (sums - summed)[both] / outside[both]
    weighted: FloatArray = apart * counted * outside / rows
    return weighted if np.square(weighted).sum() > 1e-24 else None


def _signs(days: int, seed: int) -> FloatArray:
    """Signs (999, days), the same for runs of neighbouring days."""
    length = run_length(days)
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(FLIPS, -(-days // length)))
    return np.repeat(drawn, length, axis=1)[:, :days]


def _parts(columns: pl.DataFrame) -> Iterator[tuple[Part, BoolArray]]:
    for values in columns.get_columns():
        if values.dtype.is_numeric() or values.dtype == pl.Boolean:
            yield from _of_numbers(values.name, values.cast(pl.Float64).to_numpy())
        elif values.dtype in (pl.String, pl.Categorical, pl.Enum):
            yield from _of_texts(values.name, values.cast(pl.String))
        missing = values.is_null().to_numpy()
        if missing.any():
            yield Part(column=values.name, is_missing=True), missing


def _of_numbers(name: str, values: FloatArray) -> Iterator[tuple[Part, BoolArray]]:
    known = values[np.isfinite(values)]
    distinct = np.unique(known)
    if distinct.size < 2:
        return
    if distinct.size <= CELLS:
        cuts = distinct[1:]
    else:
        cuts = np.unique(np.quantile(known, np.arange(1, CELLS) / CELLS, method="higher"))
    bounds = [-np.inf, *cuts[cuts > distinct[0]].tolist(), np.inf]
    for low, high in pairwise(bounds):
        yield Part(column=name, low=low, high=high), (values >= low) & (values < high)


def _of_texts(name: str, values: pl.Series) -> Iterator[tuple[Part, BoolArray]]:
    tally = values.drop_nulls().value_counts(name="times").sort("times", name, descending=[True, False])
    for category in tally[name].head(MOST).to_list():
        yield Part(column=name, values=(category,)), (values == category).fill_null(False).to_numpy()
