"""How far columns are from what the other columns lead one to expect, on daily numbers that add up from counts.

A warm day is no fault, and neither is its dew point; a warm day with the dew point of a cold one is. Each column is
held against its regression on all others, fitted on the days of history: Hawkins (1991) showed that such
regression-adjusted variables see a shift of one column soonest, where columns hang together.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

LEAST_DAYS = 30
"""Fewer days do not say how columns hang together from day to day."""
RIDGE = 0.03
"""Added to the diagonal of the correlations (Hoerl and Kennard 1970), so that as many columns as days can be fitted."""


def middle_ranks(counts: IntArray) -> FloatArray:
    """The share of all values (cells,) below each cell's middle, in [0, 1]; 0.5 everywhere where there are no values.

    A column of counts becomes one number a day, its mean rank, that no single large value can move far.

    >>> middle_ranks(np.array([1, 0, 3])).tolist()
    [0.125, 0.25, 0.625]
    """
    total = float(counts.sum())
    if not total:
        return np.full(counts.size, 0.5)
    return np.asarray((np.cumsum(counts) - counts / 2) / total, dtype=np.float64)


def residuals(days: FloatArray, now: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How far each column of `now` (columns,) is from what the others lead to expect, and what that is, (columns,).

    `days` (n, columns) are the days of history, both in any unit of their own; NaN where not measured. Each column is
    regressed on the others with a ridge, all at once by the inverse of their correlations. A column that is as it was
    on no day of history, both by itself and beside the others, is not heeded for the rest, nor is one that is not
    measured: what broke would say of all that go with it that they did. Who is left says less, and the first number is
    smaller in proportion to what is usual where all are heeded. NaN for a column that is not measured now, that stood
    still in history, or was measured on fewer than 30 of its days. O(n columns² + columns³).

    >>> random = np.random.default_rng(0)
    >>> warm = random.normal(size=(60, 1))
    >>> days = np.hstack([warm, warm + 0.1 * random.normal(size=(60, 1))])
    >>> beyond, expected = residuals(days, np.array([2.0, 2.0]))
    >>> bool(np.abs(beyond).max() < 0.5), bool(np.abs(residuals(days, np.array([2.0, -2.0]))[0]).max() > 3)
    (True, True)
    """
    known = ~np.isnan(days)
    seen = known.sum(axis=0)
    mean = np.where(known, days, 0.0).sum(axis=0) / np.maximum(seen, 1)
    centred = np.where(known, days - mean, 0.0)
    deviation = np.sqrt(np.square(centred).sum(axis=0) / np.maximum(seen, 1))
    usable = (seen >= LEAST_DAYS) & (deviation > 1e-9)
    beyond, expected = np.full(now.size, np.nan), np.full(now.size, np.nan)
    if not usable.any():
        return beyond, expected
    z = centred[:, usable] / deviation[usable]
    correlations = z.T @ z / len(z) + RIDGE * np.eye(z.shape[1])
    inverse = np.linalg.inv(correlations)
    moved = (now - mean)[usable] / deviation[usable]
    beside = inverse @ np.nan_to_num(moved)
    heeded = _is_within(moved, z) | (_is_within(beside, z @ inverse) & ~np.isnan(moved))
    left, scale = beside / np.diag(inverse), np.ones(moved.size)
    if not heeded.all():
        of_heeded = np.linalg.inv(correlations[np.ix_(heeded, heeded)])
        left[heeded] = of_heeded @ moved[heeded] / np.diag(of_heeded)
        scale[heeded] = np.sqrt(np.diag(of_heeded) / np.diag(inverse)[heeded])
        left[np.isnan(moved)] = np.nan
    beyond[usable] = left * scale * deviation[usable]
    expected[usable] = now[usable] - left * deviation[usable]
    return beyond, expected


def _is_within(now: FloatArray, days: FloatArray) -> BoolArray:
    """Whether some day (n, columns) was at least as low, and some as high, as each of `now` (columns,)."""
    return np.asarray((now >= days.min(axis=0)) & (now <= days.max(axis=0)), dtype=np.bool_)
