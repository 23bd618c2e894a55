"""How far two distributions are apart, from counts of the same cells.

All take counts (k,) of the reference and of the current window, for example `Histogram.present`; nulls are not
part of them, so missing values never move a distance. All are NaN when one side has counted nothing, and raise
ValueError when the two have different numbers of cells or a negative count.

P-values take every row for an independent observation. Rows of one day are not (docs/why/evidence.md), so these say
what the peers' say; alarms come from the calibrated history of a distance instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from holdfast.stats.histogram import Edges

Counts = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def psi(reference: Counts, current: Counts) -> float:
    """Population stability index: sum of (p - q) ln(p / q). In [0, inf), symmetric, 0 when shares are equal.

    A cell that one side lacks counts as half a row there, so the index stays finite; with no empty cell it is
    the textbook number. Meant for about ten cells (`coarsen`): with many it measures noise.
    Source: Siddiqi, Credit Risk Scorecards (2006).

    >>> round(psi(np.array([50, 50]), np.array([60, 40])), 4)
    0.0405
    """
    if _nothing(reference, current):
        return float("nan")
    used = (reference > 0) | (current > 0)
    p = np.maximum(reference[used], 0.5) / reference.sum()
    q = np.maximum(current[used], 0.5) / current.sum()
    return float(np.sum((p - q) * np.log(p / q)))


def ks(reference: Counts, current: Counts) -> float:
    """Kolmogorov-Smirnov statistic: the largest gap between the two cumulative shares. In [0, 1].

    Cells must be in the order of their values. Seen at the cuts only, so it is never above the statistic of
    the raw values and at most the largest share that either side has in one cell below it.
    Source: Smirnov (1948).

    >>> ks(np.array([1, 1, 2]), np.array([0, 0, 4]))
    0.5
    """
    if _nothing(reference, current):
        return float("nan")
    gap = np.cumsum(reference) / reference.sum() - np.cumsum(current) / current.sum()
    return float(np.abs(gap).max())


def total_variation(reference: Counts, current: Counts) -> float:
    """Half the sum of |p - q|: the largest gap in probability over any set of cells. In [0, 1], order-free.

    What `ks` becomes for categories, which have no order.

    >>> round(total_variation(np.array([1, 1]), np.array([4, 1])), 4)
    0.3
    """
    if _nothing(reference, current):
        return float("nan")
    return float(0.5 * np.abs(reference / reference.sum() - current / current.sum()).sum())


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """Jensen-Shannon distance: the square root of the divergence in base 2. In [0, 1]; 1 when nothing is shared.

    The distance, not the divergence: a metric, and the number that scipy, Evidently and NannyML give.
    Sources: Lin (1991); Endres and Schindelin (2003).

    >>> round(jensen_shannon(np.array([50, 50]), np.array([60, 40])), 4)
    0.0854
    >>> jensen_shannon(np.array([1, 0]), np.array([0, 1]))
    1.0
    """
    if _nothing(reference, current):
        return float("nan")
    p = reference / reference.sum()
    q = current / current.sum()
    middle = (p + q) / 2
    # Rounding can leave a divergence of equal shares a little below zero.
    return float(np.sqrt(max(0.0, (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)))


def hellinger(reference: Counts, current: Counts) -> float:
    """Hellinger distance: the square root of one minus the sum of sqrt(p q). In [0, 1]; 1 when nothing is shared.

    A metric, order-free. With t for total variation its square lies between t^2 / 2 and t.
    Source: Hellinger (1909), in the form of Le Cam (1986).

    >>> round(hellinger(np.array([50, 50]), np.array([60, 40])), 4)
    0.0712
    """
    if _nothing(reference, current):
        return float("nan")
    shared = np.sum(np.sqrt(reference / reference.sum()) * np.sqrt(current / current.sum()))
    return float(np.sqrt(max(0.0, 1.0 - float(shared))))


def wasserstein(reference: Counts, current: Counts, edges: Edges) -> float:
    """Wasserstein-1 distance: the area between the two distribution functions. In [0, inf), in the column's unit.

    Takes `Histogram.present` (k + 2,) of both and the edges (k cells) they were counted on. The values of a cell are
    taken to lie evenly in it, or at its left cut where edges are discrete; then the distance is exact as long as no
    value is new. What lies below or above all cuts is taken to lie at the nearest cut: with such rows the distance is
    a lower bound. Raises ValueError for edges of categories, which have no unit, or of other cells.
    Sources: Vallender (1974) for the area; Kantorovich (1942).

    >>> wasserstein(np.array([0, 4, 0, 0]), np.array([0, 0, 4, 0]), Edges(cuts=(0.0, 1.0, 2.0)))
    1.0
    """
    if edges.is_category or reference.size != edges.cells + 2:
        raise ValueError("a Wasserstein distance needs the numeric edges that both sides were counted on")
    if _nothing(reference, current):
        return float("nan")
    widths = np.diff(np.asarray(edges.cuts, dtype=np.float64))
    gap = (np.cumsum(reference) / reference.sum() - np.cumsum(current) / current.sum())[:-1]
    left, right = gap[:-1], gap[1:]
    if edges.is_discrete:
        return float(np.sum(np.abs(right) * widths))
    size = np.abs(left) + np.abs(right)
    # Where the gap changes its sign within a cell, the area is that of two triangles.
    crossing = (left * right < 0) & (size > 0)
    area = np.where(crossing, (left**2 + right**2) / np.where(crossing, size, 1.0), size) / 2
    return float(np.sum(area * widths))


@dataclass(frozen=True, kw_only=True)
class ChiSquare:
    """Pearson's test of two counts for one distribution."""

    statistic: float
    """In [0, inf)."""
    degrees: int
    """Cells that either side has filled, less one."""
    p_value: float
    """In [0, 1]; NaN with fewer than two filled cells, where there is nothing to tell apart."""
    thin: float
    """Share of the cells, of either side, that expect fewer than 5 rows. Above 0.2 the p-value is not to be trusted
    (Cochran 1954): join rare cells first, with `coarsen` or a smaller `most` of categories."""


def chi_square(reference: Counts, current: Counts) -> ChiSquare:
    """Pearson's chi-square test of homogeneity of the two counts, (k,) each, without continuity correction.

    Order-free. The statistic grows with the rows, unlike a distance. Source: Pearson (1900).

    >>> found = chi_square(np.array([50, 50]), np.array([60, 40]))
    >>> round(found.statistic, 4), found.degrees, round(found.p_value, 4), found.thin
    (2.0202, 1, 0.1552, 0.0)
    """
    if _nothing(reference, current):
        return ChiSquare(statistic=float("nan"), degrees=0, p_value=float("nan"), thin=float("nan"))
    used = (reference > 0) | (current > 0)
    observed = np.stack([reference[used], current[used]]).astype(np.float64)
    expected = observed.sum(axis=1, keepdims=True) * observed.sum(axis=0) / observed.sum()
    statistic, degrees = float((np.square(observed - expected) / expected).sum()), int(used.sum()) - 1
    p_value = float(special.chdtrc(degrees, statistic)) if degrees else float("nan")
    return ChiSquare(statistic=statistic, degrees=degrees, p_value=p_value, thin=float((expected < 5).mean()))


def ks_p_value(statistic: float, reference_rows: int, current_rows: int) -> float:
    """How likely so large a `ks` is when both sides come from one continuous distribution. In [0, 1].

    Asymptotic in n m / (n + m), with a correction that leaves 0.001 of error from 20 on and 0.0001 from 500. Ties and
    cells make a statistic smaller, and so the p-value larger, than it would be: it errs towards no difference. NaN for
    a NaN statistic or a side without rows. Raises ValueError for a statistic outside [0, 1].
    Sources: Smirnov (1948); Vrbik (2018) for the correction.

    >>> round(ks_p_value(0.05, 1000, 1000), 4)
    0.1586
    """
    if np.isnan(statistic) or reference_rows <= 0 or current_rows <= 0:
        return float("nan")
    if not 0 <= statistic <= 1:
        raise ValueError(f"a Kolmogorov-Smirnov statistic lies in [0, 1], not at {statistic:g}")
    effective = reference_rows * current_rows / (reference_rows + current_rows)
    z = statistic * np.sqrt(effective)
    corrected = z + 1 / (6 * np.sqrt(effective)) + (z - 1) / (4 * effective)
    return float(special.kolmogorov(max(0.0, corrected)))


def coarsen(reference: Counts, current: Counts, *, cells: int = 10) -> tuple[Counts, Counts]:
    """Both counts on fewer cells: neighbours joined until each holds about 1 / `cells` of the reference.

    Takes `Histogram.present` of numeric edges; the first and the last cell (below and above everything the
    reference had) stay apart. Fine cells suit KS; PSI and Jensen-Shannon of a small window on fine cells
    measure its size more than its shift. A reference that has counted nothing is returned as it is.

    >>> coarsen(np.array([0, 5, 5, 5, 5, 0]), np.array([1, 2, 2, 2, 2, 3]), cells=2)
    (array([ 0, 10, 10,  0]), array([1, 4, 4, 3]))
    """
    inner = reference[1:-1]
    total = int(inner.sum())
    if not total or inner.size <= cells:
        return reference, current
    middle = np.cumsum(inner) - inner / 2
    group = np.minimum((middle / total * cells).astype(np.int64), cells - 1)
    return _joined(reference, group, cells), _joined(current, group, cells)


DISTANCES: dict[str, Callable[[Counts, Counts], float]] = {
    "psi": psi,
    "ks": ks,
    "jensen_shannon": jensen_shannon,
}
"""Distances by the name a system file gives them."""


def _nothing(reference: Counts, current: Counts) -> bool:
    if reference.shape != current.shape:
        raise ValueError(f"{reference.size} and {current.size} cells cannot be compared: count both on the same edges")
    if reference.size and min(reference.min(), current.min()) < 0:
        raise ValueError("a count is negative: these are no counts")
    return not reference.sum() or not current.sum()


def _joined(counts: Counts, group: Counts, cells: int) -> Counts:
    inner = np.bincount(group, weights=counts[1:-1].astype(np.float64), minlength=cells).astype(np.int64)
    return np.concatenate([counts[:1], inner, counts[-1:]])


def _relative_entropy(p: FloatArray, q: FloatArray) -> float:
    used = p > 0
    return float(np.sum(p[used] * np.log2(p[used] / q[used])))
