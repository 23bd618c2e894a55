"""How much a daily mean rose, with an interval: days after against days before."""

import numpy as np
import numpy.typing as npt

from holdfast.stats.bootstrap import UNKNOWN, Interval, resample, widening

FloatArray = npt.NDArray[np.float64]


def rise(
    before: FloatArray,
    after: FloatArray,
    before_rows: FloatArray,
    after_rows: FloatArray,
    *,
    seed: int = 0,
    replicates: int = 1000,
) -> tuple[float, Interval]:
    """Weighted mean of `after` (m,) less that of `before` (n,), in their unit, and its interval at 95 %.

    Each is one number per day, without NaN, weighed by the rows it rests on, (n,) and (m,) above 0. Both sides are
    resampled in runs of neighbouring days (circular blocks: Politis and Romano 1992) and independently of each other;
    the percentiles are widened for the smaller number of days. (NaN, NaN) as the interval where a side has one day.
    Raises ValueError where a side has none.

    >>> value, (low, high) = rise(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]), np.ones(3), np.ones(3))
    >>> value, low < 3 < high
    (3.0, True)
    """
    if not before.size or not after.size:
        raise ValueError("a rise needs at least one day before and one after")
    value = float(np.average(after, weights=after_rows) - np.average(before, weights=before_rows))
    if min(before.size, after.size) < 2:
        return value, UNKNOWN
    drawn = _means(after, after_rows, seed + 1, replicates) - _means(before, before_rows, seed, replicates)
    low, high = np.quantile(drawn, [0.025, 0.975])
    wider = widening(min(before.size, after.size), 0.95)
    return value, (float(value + (low - value) * wider), float(value + (high - value) * wider))


def _means(means: FloatArray, rows: FloatArray, seed: int, replicates: int) -> FloatArray:
    drawn = resample(means.size, seed=seed, replicates=replicates)
    weights = rows[drawn]
    return np.asarray((means[drawn] * weights).sum(axis=1) / weights.sum(axis=1), dtype=np.float64)
