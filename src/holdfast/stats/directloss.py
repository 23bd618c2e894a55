"""How large are the errors of a regression whose labels have not come? A second model estimates each row's loss.

On reference rows with labels the loss of each row is known; a learner fits it on the features and the answer, and its
predictions on new rows, averaged, are the estimate. It assumes that the concept holds: the same features still mean
the same error. The learner is given, so this file needs none.
Source: Direct Loss Estimation (NannyML 2022); the same idea for uncertainty in Lahlou et al., DEUP (2023).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from holdfast.stats.bootstrap import FloatArray, IntArray
from holdfast.stats.estimate import LEAST_BLOCKS, REPLICATES, PastErrors, draw_runs, run

Predict = Callable[[FloatArray], FloatArray]
Learn = Callable[[FloatArray, FloatArray], Predict]
"""Fits a matrix (n, columns) to targets (n,) and gives what predicts rows (m, columns)."""

ROOTS = ("rmse", "rmsle")
METRICS = ("mae", "mape", "mse", "rmse", "msle", "rmsle")
"""What can be estimated; lower is better for all."""
FOLDS = 5


def row_losses(metric: str, y: FloatArray, output: FloatArray) -> FloatArray:
    """The loss of each row (n,) whose mean, or the root of it, is the metric.

    For `msle` and `rmsle` neither may be negative; `mape` is a share of |y| and huge where y is 0. Raises ValueError.

    >>> row_losses("rmse", np.array([1.0, 2.0]), np.array([1.0, 5.0])).tolist()
    [0.0, 9.0]
    """
    if metric == "mae":
        distances: FloatArray = np.abs(y - output)
        return distances
    if metric == "mape":
        shares: FloatArray = np.abs(y - output) / np.maximum(np.abs(y), np.finfo(np.float64).eps)
        return shares
    if metric in ("mse", "rmse"):
        squares: FloatArray = np.square(y - output)
        return squares
    if metric in ("msle", "rmsle"):
        if (y < 0).any() or (output < 0).any():
            raise ValueError(f"{metric} needs labels and answers of at least 0")
        apart: FloatArray = np.square(np.log1p(y) - np.log1p(output))
        return apart
    raise ValueError(f"no estimate of {metric}; there are {', '.join(METRICS)}")


def metric_of(metric: str, losses: FloatArray, starts: Sequence[int] | IntArray = (0,)) -> FloatArray:
    """The metric per chunk (chunks,) from losses of rows (n,), known or estimated; chunk i begins at starts[i].

    A mean that was estimated below 0 counts as 0 under a root. Raises ValueError for an empty chunk.

    >>> metric_of("rmse", np.array([1.0, 7.0, 9.0]), [0, 2]).tolist()
    [2.0, 3.0]
    """
    first = np.asarray(starts, dtype=np.int64)
    rows = np.diff(np.append(first, losses.size))
    if not (rows > 0).all():
        raise ValueError("every chunk needs a row, and starts must rise")
    return finished(metric, np.add.reduceat(losses, first) / rows)


def finished(metric: str, means: FloatArray) -> FloatArray:
    """The metric from mean losses: their root for `rmse` and `rmsle`, else themselves."""
    return np.sqrt(np.maximum(means, 0.0)) if metric in ROOTS else means


def held_out(learn: Learn, x: FloatArray, losses: FloatArray, block: IntArray) -> FloatArray:
    """Each row's loss (n,) as estimated by a learner that saw none of its fold; folds are runs of blocks.

    `block` (n,) numbers the block of each row in time order, rising. Costs one fit per fold. All NaN where there is
    one block only.
    """
    numbers = np.unique(block)
    folds = np.array_split(numbers, min(FOLDS, numbers.size))
    found = np.full(losses.size, np.nan)
    if len(folds) < 2:
        return found
    for fold in folds:
        inside = (block >= fold[0]) & (block <= fold[-1])
        found[inside] = learn(x[~inside], losses[~inside])(x[inside])
    return found


def past_loss_errors(
    metric: str,
    losses: FloatArray,
    estimates: FloatArray,
    block: IntArray,
    *,
    blocks: int,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> PastErrors:
    """Errors of estimates of windows of so many blocks in the metric's unit, resampled from those of `held_out`.

    `losses` and `estimates` (n,) are of reference rows. Windows are runs of neighbouring blocks. The learner is not
    fitted anew for each of them, which would cost minutes: its folds are the refits. Nothing is known with fewer than
    4 blocks.
    """
    numbers, cell = np.unique(block, return_inverse=True)
    n = numbers.size
    if n < LEAST_BLOCKS:
        return PastErrors({metric: np.empty(0)}, np.empty(0), 0.0)
    sums = np.stack([np.bincount(cell, weights=w) for w in (losses, estimates, np.ones(losses.size))])
    length = run(n, blocks)
    drawn = draw_runs(np.random.default_rng(seed), n, length, min(blocks, n // 2), replicates)
    truth, estimate, rows = sums[:, drawn].sum(axis=2)
    found = finished(metric, truth / rows) - finished(metric, estimate / rows)
    return PastErrors({metric: found}, _noise(metric, estimate / rows, rows), n / length)


def loss_noise(metric: str, estimates: FloatArray) -> float:
    """How noisy the metric of rows with these estimated losses (n,) is, for `PastErrors.interval`: level / sqrt(n)."""
    return float(_noise(metric, estimates.mean(), np.float64(estimates.size))) if estimates.size else 0.0


def _noise(metric: str, means: FloatArray | np.floating[Any], rows: FloatArray | np.floating[Any]) -> FloatArray:
    level: FloatArray = finished(metric, np.maximum(means, 0.0))
    return level / np.sqrt(rows)
