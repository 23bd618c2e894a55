"""How far columns are from what the other columns lead one to expect, on daily numbers that add up from counts.

A warm day is no fault, and neither is its dew point; a warm day with the dew point of a cold one is. Each column is
held against its regression on all others, fitted on the days of history: Hawkins (1991) showed that such
regression-adjusted variables see a shift of one column soonest, where columns hang together.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

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
    """What each column of `now` (columns,) is beyond what the others lead to expect, and what was expected, (columns,).

    `days` (n, columns) are the days of history, both in any unit of their own; NaN where not measured. Each column is
    regressed on the others with a ridge, all at once by the inverse of their correlations; one that is not measured
    counts as usual for the others. NaN for a column that is not measured now, that stood still in history, or was
    measured on fewer than 30 of its days. O(n columns² + columns³).

    >>> random = np.random.default_rng(0)
    >>> warm = random.normal(size=(60, 1))
    >>> days = np.hstack([warm, warm + 0.1 * random.normal(size=(60, 1))])
    >>> beyond, expected = residuals(days, np.array([2.0, 2.0]))
    >>> bool(np.abs(beyond).max() < 0.5), bool(residuals(days, np.array([2.0, -2.0]))[0].min() < -3)
    (True, True)
    """
    known = ~np.isnan(days)
    seen = known.sum(axis=0)
    mean = np.where(known, days, 0.0).sum(axis=0) / np.maximum(seen, 1)
    centred = np.where(known, days - mean, 0.0)
    deviation = np.sqrt(np.square(centred).sum(axis=0) / np.maximum(seen, 1))
    usable = (seen >= LEAST_DAYS) & (deviation > 1e-9)
    beyond = np.full(now.size, np.nan)
    if not usable.any():
        return beyond, beyond.copy()
    z = centred[:, usable] / deviation[usable]
    inverse = np.linalg.inv(z.T @ z / len(z) + RIDGE * np.eye(z.shape[1]))
    moved = np.where(np.isnan(now), 0.0, now - mean)[usable] / deviation[usable]
    beyond[usable] = inverse @ moved / np.diag(inverse) * deviation[usable]
    beyond[np.isnan(now)] = np.nan
    return beyond, now - beyond
