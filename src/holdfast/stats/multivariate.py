"""Do columns still hang together as they did? Rank correlations within a day, and how far they moved.

What no look at single columns can see: values that were shuffled, joined to the wrong row or to the wrong hour have
the histogram that they always had. Correlations are taken within each day, so that a warm day is no evidence, and
compared day by day, so that the reference says how much they vary. Measured against a classifier that tells the
reference from the window and against the error of a principal-component reconstruction, on the same days at the same
level, it found most (docs/checks/dependence.md); those two are not here for that reason.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEAST_ROWS = 20
"""With fewer rows that have both values a day says nothing about a pair."""
FLOOR = 0.1
"""No pair counts as steadier than this from day to day, in units of correlation: an exact relation that one odd day
breaks would drown all others."""


def rank_correlations(values: FloatArray) -> FloatArray:
    """Rank correlations of all pairs of columns of one block: (n, k) with NaN for missing -> (k, k), in [-1, 1].

    Spearman's (1904), ties at their middle rank; ranks are those among a column's present values, and a pair is taken
    over the rows that have both. NaN where fewer than 20 rows have both, or where a column does not vary among them.
    The diagonal is NaN: nothing is said of a column alone. O(k n log n + k² n).

    >>> x = np.arange(30.0)
    >>> rank_correlations(np.column_stack([x, -(x**3), np.ones(30)])).round(2).tolist()
    [[nan, -1.0, nan], [-1.0, nan, nan], [nan, nan, nan]]
    """
    present = ~np.isnan(values)
    ranks = np.zeros(values.shape, dtype=np.float64)
    for j in range(values.shape[1]):
        ranks[present[:, j], j] = _ranks(values[present[:, j], j])
    seen = present.astype(np.float64)
    both = seen.T @ seen
    squares = np.square(ranks).T @ seen
    scale = np.sqrt(squares * squares.T)
    defined = (both >= LEAST_ROWS) & (scale > 1e-9)
    np.fill_diagonal(defined, False)
    correlations = np.divide(ranks.T @ ranks, scale, out=np.full(scale.shape, np.nan), where=defined)
    return np.asarray(np.clip(correlations, -1.0, 1.0), dtype=np.float64)


def correlation_shift(reference: FloatArray, current: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """How far each pair moved, its mean before and its mean now: (days, k, k) twice -> three times (k, k).

    The first is |mean now - mean before| over the deviation from day to day in the reference (at least 0.1) times
    sqrt(1/days now + 1/days before): about the size of a normal deviate while days are independent, which they are
    not quite, so judge it by history. NaN where a pair has no value now or fewer than two before.

    >>> before = np.full((20, 2, 2), 0.9)
    >>> moved, was, now = correlation_shift(before, np.full((5, 2, 2), 0.4))
    >>> moved[0, 1].round(2), was[0, 1].round(2), now[0, 1].round(2)
    (np.float64(10.0), np.float64(0.9), np.float64(0.4))
    """
    days_before, was, deviation = _over_days(reference)
    days_now, now, _ = _over_days(current)
    defined = (days_before >= 2) & (days_now >= 1)
    per_day = np.divide(1.0, days_before, out=np.zeros_like(was), where=defined)
    per_day += np.divide(1.0, days_now, out=np.zeros_like(was), where=defined)
    error = np.maximum(deviation, FLOOR) * np.sqrt(per_day)
    moved = np.divide(np.abs(now - was), error, out=np.full(was.shape, np.nan), where=defined)
    return moved, np.where(defined, was, np.nan), np.where(defined, now, np.nan)


def _ranks(values: FloatArray) -> FloatArray:
    """Middle ranks less their mean, over their number: in (-0.5, 0.5)."""
    if not values.size:
        return np.empty(0)
    _, code, times = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(times) - (times + 1) / 2
    return np.asarray((middle[code] - (values.size - 1) / 2) / values.size, dtype=np.float64)


def _over_days(correlations: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Days with a value, mean and deviation over them, (k, k) each; means without a day are 0."""
    known = ~np.isnan(correlations)
    days = known.sum(axis=0).astype(np.float64)
    filled = np.where(known, correlations, 0.0)
    mean = np.divide(filled.sum(axis=0), days, out=np.zeros(days.shape), where=days > 0)
    squares = np.where(known, np.square(correlations - mean), 0.0).sum(axis=0)
    deviation = np.sqrt(np.divide(squares, days - 1, out=np.zeros(days.shape), where=days > 1))
    return days, mean, np.asarray(deviation, dtype=np.float64)
