"""Do answered probabilities come true? Sums per bin that merge over blocks, and what follows from them."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.stats.bootstrap import UNKNOWN, Interval, block_bootstrap_mean, block_bootstrap_metric

FloatArray = npt.NDArray[np.float64]


def reliability(y: FloatArray, p: FloatArray, *, bins: int = 10) -> FloatArray:
    """Sums per bin of equal width, (3, bins): rows, sum of answers, sum of outcomes. Sums of blocks add up.

    `y` (n,) in [0, 1] and `p` (n,) in [0, 1], both without NaN; p = 1 falls into the last bin. Divided by the
    rows they are the points of a reliability diagram (DeGroot and Fienberg 1983). Raises ValueError for an
    answer outside [0, 1]: it is no probability.

    >>> reliability(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.3, 0.9]), bins=2).tolist()
    [[2.0, 1.0], [0.4, 0.9], [1.0, 1.0]]
    """
    if p.size and not (p.min() >= 0.0 and p.max() <= 1.0):
        raise ValueError("calibration needs probabilities: an answer lies outside [0, 1]")
    cell = np.minimum((p * bins).astype(np.int64), bins - 1)
    return np.stack(
        [
            np.bincount(cell, minlength=bins).astype(np.float64),
            np.bincount(cell, weights=p, minlength=bins),
            np.bincount(cell, weights=y, minlength=bins),
        ]
    )


def calibration_error(sums: FloatArray) -> float:
    """Expected calibration error from `reliability` sums (3, bins): mean |answer - outcome| over bins, by rows.

    In [0, 1]; NaN without rows. With few rows it is above 0 even for a perfect model, by about
    sum over bins of sqrt(2 share p (1 - p) / (pi rows)): 0.04 for 900 rows in 10 filled bins at p = 0.25.
    Source: Naeini, Cooper, Hauskrecht (2015).

    >>> round(calibration_error(reliability(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.3, 0.9]), bins=2)), 4)
    0.2333
    """
    rows = float(sums[0].sum())
    return float(np.abs(sums[1] - sums[2]).sum() / rows) if rows else math.nan


def bias(sums: FloatArray) -> float:
    """Mean answer minus mean outcome, from `reliability` sums (3, bins). In [-1, 1]; above 0 answers too high.

    >>> round(bias(reliability(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.3, 0.9]))), 4)
    -0.2333
    """
    rows = float(sums[0].sum())
    return float((sums[1].sum() - sums[2].sum()) / rows) if rows else math.nan


def bias_interval(blocks: Sequence[FloatArray], *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Block-bootstrap interval of `bias` over the `reliability` sums of several blocks."""
    return block_bootstrap_mean(
        np.array([bias(sums) for sums in blocks]),
        np.array([float(sums[0].sum()) for sums in blocks]),
        confidence,
        seed=seed,
    )


def error_interval(blocks: Sequence[FloatArray], *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Block-bootstrap interval of `calibration_error` over the `reliability` sums of several blocks.

    Resampling adds noise that the error counts as error, so both ends lean up; the low end is at least 0.
    """
    bins = blocks[0].shape[1] if blocks else 0
    low, high = block_bootstrap_metric(
        [(sums.reshape(1, 3, bins),) for sums in blocks],
        lambda drawn: calibration_error(drawn.sum(axis=0)),
        confidence,
        seed=seed,
    )
    return UNKNOWN if math.isnan(low) else (max(0.0, low), high)
