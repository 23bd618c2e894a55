"""Histograms on fixed edges: counted once per block, merged by adding, never needing the rows again.

Fixed edges make counts of any two windows comparable and mergeable: the histogram of a week is the sum of
seven days. Quantile edges resolve where the reference has its mass, uniform edges resolve where it has none.
What that costs in accuracy was measured on real columns: docs/why/drift-speed.md.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from holdfast.stats.grid import Grid, grid_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Where a column is cut into cells, fixed for a model version. Either `cuts` or `categories` are filled.

    `cuts` (m,), strictly increasing and finite, make m - 1 cells ``[cuts[i], cuts[i+1])``, the last one closed.
    `categories` make one cell each, in their order. Plain tuples, so that edges are hashed, compared and stored.
    """

    cuts: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    is_discrete: bool = False
    """The column had few distinct numbers: every cell begins at one of them and held nothing else."""

    @property
    def is_category(self) -> bool:
        return not self.cuts

    @property
    def cells(self) -> int:
        """How many inner cells there are, without below, above and nulls."""
        return len(self.categories) if self.is_category else len(self.cuts) - 1

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that name these edges by content: the cheap key to remember counts under."""
        return hashlib.sha256(repr((self.cuts, self.categories)).encode()).hexdigest()[:16]

    @cached_property
    def grid(self) -> Grid:
        """How numbers find their cell, built at first use. Raises ValueError for cuts that make no cells."""
        cuts = np.asarray(self.cuts, dtype=np.float64)
        if cuts.size < 2 or not np.isfinite(cuts).all() or not (np.diff(cuts) > 0).all():
            raise ValueError("cuts must be two or more finite numbers in strictly increasing order")
        return grid_of(cuts)

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.categories, start=1)}


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of one column on some edges. `counted` (k + 3,) is: below, k inner cells, above or unseen, nulls.

    For categories `below` is always 0 and `above` holds values that are none of the categories.
    """

    counted: IntArray

    @property
    def inner(self) -> IntArray:
        """Counts of the inner cells, (k,)."""
        return self.counted[1:-2]

    @property
    def present(self) -> IntArray:
        """Counts of all that is not null, (k + 2,): below, inner cells, above or unseen. What distances take."""
        return self.counted[:-1]

    @property
    def below(self) -> int:
        return int(self.counted[0])

    @property
    def above(self) -> int:
        return int(self.counted[-2])

    @property
    def nulls(self) -> int:
        return int(self.counted[-1])

    @property
    def rows(self) -> int:
        """All rows, nulls among them."""
        return int(self.counted.sum())

    def __add__(self, other: "Histogram") -> "Histogram":
        """Both together. Raises ValueError when they were counted on edges with different numbers of cells."""
        _same_cells(self, other)
        return Histogram(self.counted + other.counted)

    def __sub__(self, other: "Histogram") -> "Histogram":
        """This one without a part of it. Raises ValueError when `other` is no part of it."""
        _same_cells(self, other)
        left = self.counted - other.counted
        if left.min() < 0:
            raise ValueError("cannot take away a histogram that is not part of this one: a count would be negative")
        return Histogram(left)


def edges_of(
    values: FloatArray | Sequence[str | None], *, quantiles: int = 64, uniform: int = 64, most: int = 64
) -> Edges:
    """Edges that suit a column as the reference has it.

    Numbers come as a float array (n,) with NaN for missing; infinities are left out. Up to `quantiles` + `uniform`
    distinct values get a cell each, which makes distances exact (more than 64 of them get the `uniform` cuts too, for
    values between them); otherwise there are `quantiles` cells of about equal mass, cut again at the deciles
    and at `uniform` equal widths, and a value that fills a quantile cell alone gets a cell of its own.
    Text comes as a sequence of str or None: the `most` frequent values, ties in alphabetical order.
    Nothing but missing values gives one cell that nothing falls into for numbers, no cell for text.
    The order of the values changes nothing. O(n log n), 10 ns a number.

    >>> edges_of(np.array([3.0, 1.0, 2.0, 2.0, np.nan])).cells
    3
    >>> edges_of(["b", "a", "b", None]).categories
    ('b', 'a')
    """
    if not isinstance(values, np.ndarray):
        return category_edges(Counter(value for value in values if value is not None), most=most)
    finite = np.asarray(values, dtype=np.float64)
    finite = np.sort(finite[np.isfinite(finite)])
    if not finite.size:
        return Edges(cuts=(0.0, math.nextafter(0.0, 1.0)))
    starts = np.flatnonzero(finite[1:] != finite[:-1]) + 1
    if starts.size < quantiles + uniform:
        return discrete_edges(finite[np.append(0, starts)], quantiles=quantiles, uniform=uniform)
    return number_edges(finite, quantiles=quantiles, uniform=uniform)


def category_edges(tally: Mapping[str, int], *, most: int = 64) -> Edges:
    """Edges of the `most` frequent categories of a tally, ties in alphabetical order."""
    common = sorted(tally.items(), key=lambda item: (-item[1], item[0]))[:most]
    return Edges(categories=tuple(name for name, _ in common))


def discrete_edges(distinct: FloatArray, *, quantiles: int = 64, uniform: int = 64) -> Edges:
    """Edges of a column with few distinct numbers, given in increasing order (k,), finite: a cell for each.

    With more than `quantiles`, or 64, of them the range is cut at `uniform` equal widths too: new ones may lie between.
    """
    *_, last = distinct.tolist()
    end = math.nextafter(last, math.inf)
    # There is no float after the largest one: its cell then begins just before it.
    closing = [last, end] if math.isfinite(end) else [math.nextafter(last, -math.inf), last]
    even = _even(distinct[0], last, uniform) if distinct.size > min(quantiles, 64) else distinct[:0]
    return Edges(cuts=tuple(np.unique(np.concatenate([distinct[:-1], even, closing])).tolist()), is_discrete=True)


def number_edges(
    ordered: FloatArray, *, quantiles: int = 64, uniform: int = 64, low: float | None = None, high: float | None = None
) -> Edges:
    """Edges of a column with many distinct numbers, from them or from a sample of them, in increasing order (n,).

    `low` and `high` are the least and the most of the whole column, where a sample was taken. All are finite.
    """
    low, high = float(ordered[0]) if low is None else low, float(ordered[-1]) if high is None else high
    # Rank ceil(k n / parts) inverts the empirical distribution at k / parts; in integers it is never off by one.
    at, tenths = (
        ordered[np.maximum((np.arange(parts + 1) * ordered.size + parts - 1) // parts - 1, 0)]
        for parts in (quantiles, 10)
    )
    heavy = [math.nextafter(value, math.inf) for value in at[1:][at[1:] == at[:-1]].tolist()]
    cuts = np.unique(np.concatenate([at[1:-1], tenths[1:-1], heavy, _even(low, high, uniform), [low, high]]))
    return Edges(cuts=tuple(cuts[np.isfinite(cuts)].tolist()))


def count(values: FloatArray | Sequence[str | None], edges: Edges) -> Histogram:
    """Counts of a column on edges: numbers (n,) with NaN for missing, or str and None.

    -inf counts as below, inf as above. About 6 ns a number, 100 ns a text (`holdfast.stats.counting` counts whole
    frames, and text in 15 ns). Raises ValueError when numbers meet category edges or text meets cuts: a column that
    changed its type cannot be counted.

    >>> edges = Edges(cuts=(0.0, 1.0, 2.0))
    >>> count(np.array([-1.0, 0.0, 0.5, 2.0, 9.0, np.nan]), edges).counted.tolist()
    [1, 2, 1, 1, 1]
    >>> count(["a", "x", None], Edges(categories=("a", "b"))).counted.tolist()
    [0, 1, 0, 1, 1]
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        if edges.is_category and edges.categories:
            raise ValueError("numbers cannot be counted on category edges")
        return count_numbers(np.asarray(values, dtype=np.float64), edges)
    return count_categories(Counter(values).items(), edges)


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """The histogram of all rows together. Raises ValueError for none at all, or for different edges.

    >>> edges = Edges(cuts=(0.0, 1.0, 2.0))
    >>> merge([count(np.array([0.5]), edges), count(np.array([1.5]), edges)]).inner.tolist()
    [1, 1]
    """
    several = list(histograms)
    if not several:
        raise ValueError("nothing to merge: an empty histogram needs its edges, use count([], edges)")
    for other in several[1:]:
        _same_cells(several[0], other)
    return Histogram(np.sum([h.counted for h in several], axis=0, dtype=np.int64))


def count_numbers(values: FloatArray, edges: Edges) -> Histogram:
    """Counts of numbers (n,), NaN for missing, on cuts; on edges without anything in them all of them are unseen."""
    if edges.is_category:
        nulls = int(np.isnan(values).sum())
        return Histogram(np.array([0, values.size - nulls, nulls], dtype=np.int64))
    cells, nulls = edges.grid.count(values)
    return Histogram(np.append(cells, nulls))


def count_categories(tally: Iterable[tuple[str | None, int]], edges: Edges) -> Histogram:
    """Counts of categories from how often each occurs, None for missing, on categories. Raises ValueError on cuts."""
    if not edges.is_category:
        raise ValueError("text cannot be counted on numeric edges")
    counted = np.zeros(edges.cells + 3, dtype=np.int64)
    codes = edges._codes
    for name, times in tally:
        counted[-1 if name is None else codes.get(name, -2)] += times
    return Histogram(counted)


def _even(low: float, high: float, cells: int) -> FloatArray:
    # In halves, because the width between the least and the largest float is no float.
    return np.linspace(low / 2, high / 2, cells + 1)[1:-1] * 2


def _same_cells(one: Histogram, other: Histogram) -> None:
    if one.counted.shape != other.counted.shape:
        raise ValueError(
            f"histograms of {one.counted.size - 3} and {other.counted.size - 3} cells do not merge: "
            "count both on the same edges"
        )
