"""How far two distributions are apart, from counts of the same cells.

All take counts (k,) of the reference and of the current window, for example `Histogram.present`; nulls are not
part of them, so missing values never move a distance. All are NaN when one side has counted nothing.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

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
    if not reference.sum() or not current.sum():
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
    if not reference.sum() or not current.sum():
        return float("nan")
    gap = np.cumsum(reference) / reference.sum() - np.cumsum(current) / current.sum()
    return float(np.abs(gap).max())


def total_variation(reference: Counts, current: Counts) -> float:
    """Half the sum of |p - q|: the largest gap in probability over any set of cells. In [0, 1], order-free.

    What `ks` becomes for categories, which have no order.

    >>> round(total_variation(np.array([1, 1]), np.array([4, 1])), 4)
    0.3
    """
    if not reference.sum() or not current.sum():
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
    if not reference.sum() or not current.sum():
        return float("nan")
    p = reference / reference.sum()
    q = current / current.sum()
    middle = (p + q) / 2
    # Rounding can leave a divergence of equal shares a little below zero.
    return float(np.sqrt(max(0.0, (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)))


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


def _joined(counts: Counts, group: Counts, cells: int) -> Counts:
    inner = np.bincount(group, weights=counts[1:-1].astype(np.float64), minlength=cells).astype(np.int64)
    return np.concatenate([counts[:1], inner, counts[-1:]])


def _relative_entropy(p: FloatArray, q: FloatArray) -> float:
    used = p > 0
    return float(np.sum(p[used] * np.log2(p[used] / q[used])))
