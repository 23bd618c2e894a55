"""Do answered probabilities come true? Sums per bin that merge over blocks, what follows, and how to put it right."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

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


@dataclass(frozen=True)
class Calibrator:
    """Turns an answer in [0, 1] into the probability that was seen at such answers; never falling."""

    method: str
    x: FloatArray
    """Answers (k,), rising; for ``sigmoid`` intercept and slope."""
    y: FloatArray
    """Probabilities at `x` (k,), between them by straight lines, beyond them constant."""

    def __call__(self, scores: FloatArray) -> FloatArray:
        """Probabilities (n,) for answers (n,) in [0, 1]."""
        if self.method == "as answered":
            return scores
        if self.method == "sigmoid":
            return _logistic(self.x[0] + self.x[1] * _logit(scores))
        return np.interp(scores, self.x, self.y)


def as_answered(scores: FloatArray, rows: FloatArray, positives: FloatArray) -> Calibrator:
    """No calibration: the answers are believed."""
    return Calibrator("as answered", np.empty(0), np.empty(0))


def isotonic(scores: FloatArray, rows: FloatArray, positives: FloatArray) -> Calibrator:
    """The best curve that never falls, from `rows` and `positives` (k,) at rising, distinct `scores` (k,).

    Pools adjacent violators (Barlow et al. 1972; Zadrozny and Elkan 2002). Needs about a thousand rows to beat
    `sigmoid` (Niculescu-Mizil and Caruana 2005). Raises ValueError without a row.

    >>> curve = isotonic(np.array([0.1, 0.5, 0.9]), np.array([4.0, 4.0, 4.0]), np.array([1.0, 0.0, 4.0]))
    >>> curve(np.array([0.0, 0.3, 0.7, 1.0])).round(4).tolist()
    [0.125, 0.125, 0.5625, 1.0]
    """
    seen = rows > 0
    if not seen.any():
        raise ValueError("nothing to calibrate on")
    x, y = scores[seen], isotonic_regression(positives[seen] / rows[seen], weights=rows[seen]).x
    rises = np.concatenate(([True], y[1:] > y[:-1]))
    corners = rises | np.append(rises[1:], True)  # between the ends of a flat piece nothing has to be kept
    return Calibrator("isotonic", x[corners], np.clip(y[corners], 0.0, 1.0))


def sigmoid(scores: FloatArray, rows: FloatArray, positives: FloatArray) -> Calibrator:
    """A logistic curve of the answer's log odds, from `rows` and `positives` (k,) at `scores` (k,).

    Two numbers only, so it is steady on few rows, and the identity is one of its curves (Platt 1999; Cox 1958). A row
    split in half between the classes keeps the curve finite where they separate. Raises ValueError without a row.

    >>> curve = sigmoid(np.array([0.2, 0.8]), np.array([1000.0, 1000.0]), np.array([400.0, 600.0]))
    >>> curve(np.array([0.2, 0.5])).round(3).tolist()
    [0.4, 0.5]
    """
    if not rows.sum() > 0:
        raise ValueError("nothing to calibrate on")
    z = _logit(scores)
    prior = rows / rows.sum()
    weight, hits = rows + prior, positives + prior * _logistic(z)
    a, b = 0.0, 1.0
    for _ in range(25):
        p = _logistic(a + b * z)
        off, w = hits - weight * p, weight * p * (1 - p) + 1e-12
        g0, g1, h00, h01, h11 = off.sum(), off @ z, w.sum(), w @ z, w @ (z * z)
        decided = h00 * h11 - h01 * h01
        if decided <= 1e-9 * h00 * h11:  # one score only: the slope cannot be told
            da, db = g0 / h00, 0.0
        else:
            da, db = (h11 * g0 - h01 * g1) / decided, (h00 * g1 - h01 * g0) / decided
        step = min(1.0, 4.0 / max(abs(da), abs(db), 1e-12))
        a, b = a + step * da, max(0.0, b + step * db)
        if max(abs(da), abs(db)) < 1e-8:
            break
    return Calibrator("sigmoid", np.array([a, b]), np.empty(0))


Fit = Callable[[FloatArray, FloatArray, FloatArray], Calibrator]
FITS: dict[str, Fit] = {"as answered": as_answered, "sigmoid": sigmoid, "isotonic": isotonic}
FOLDS = 5


def choose_calibration(scores: FloatArray, rows: FloatArray, positives: FloatArray) -> str:
    """Name of the fit in `FITS` with the smallest log loss on blocks it was not fitted on.

    `rows` and `positives` (blocks, k) at rising `scores` (k,). Up to five folds of neighbouring blocks; on a tie the
    simpler one. ``as answered`` for one block: nothing can be held out.

    >>> scores, rows = np.array([0.2, 0.8]), np.full((6, 2), 500.0)
    >>> choose_calibration(scores, rows, np.tile([100.0, 400.0], (6, 1)))
    'as answered'
    >>> choose_calibration(scores, rows, np.tile([250.0, 300.0], (6, 1)))
    'sigmoid'
    """
    folds = np.array_split(np.arange(len(rows)), min(FOLDS, len(rows)))
    if len(folds) < 2:
        return "as answered"
    losses = {}
    for name, fit in FITS.items():
        losses[name] = sum(
            _log_loss(
                fit(scores, np.delete(rows, fold, axis=0).sum(axis=0), np.delete(positives, fold, axis=0).sum(axis=0)),
                scores,
                rows[fold].sum(axis=0),
                positives[fold].sum(axis=0),
            )
            for fold in folds
            if np.delete(rows, fold, axis=0).any()
        )
    best = "as answered"
    for name in ("sigmoid", "isotonic"):
        if losses[name] < losses[best] * (1 - 1e-4):
            best = name
    return best


def _log_loss(curve: Calibrator, scores: FloatArray, rows: FloatArray, positives: FloatArray) -> float:
    p = np.clip(curve(scores), 1e-3, 1 - 1e-3)  # a curve that reaches 0 or 1 is not ruled out by a single row
    return -float(positives @ np.log(p) + (rows - positives) @ np.log1p(-p))


def _logit(scores: FloatArray) -> FloatArray:
    p = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.log(p) - np.log1p(-p)


def _logistic(z: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-z))
