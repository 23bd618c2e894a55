"""Binary classification: answers the probability of the positive class."""

from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.errors import DataError, UnknownKind

if TYPE_CHECKING:
    import polars as pl

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

BINS = 10
"""Bins of equal width that the calibration error is taken over."""
CLIP = 1e-6
"""Log loss takes probabilities no closer to 0 or 1 than this, so that a row's loss is at most 13.8."""

METRICS = {
    "accuracy": True,
    "balanced_accuracy": True,
    "precision": True,
    "recall": True,
    "specificity": True,
    "f1": True,
    "mcc": True,
    "roc_auc": True,
    "average_precision": True,
    "log_loss": False,
    "brier": False,
    "calibration_error": False,
    "bias": False,
    "rate": False,
}
"""Metrics and whether higher is better. `bias` and `rate` have no direction: a limit on them says what is meant."""


class Classification:
    """Two classes; the label is 0 or 1, the output the probability of 1.

    Losses: `brier`, (p - y)², in [0, 1] (Brier 1950), and `log_loss`, in [0, 13.8]: p is clipped to
    [1e-6, 1 - 1e-6]. Both are proper: the true probability has the smallest expected loss.
    """

    name = "classification"
    output = "probability"
    classes: tuple[str, ...] = ()
    losses = ("brier", "log_loss")
    errors = ()
    is_listwise = False

    def target(self, label: "pl.Series") -> FloatArray:
        """Labels 0 and 1 as float64 (n,), NaN where missing. Raises DataError for any other value."""
        if not (label.dtype.is_numeric() or str(label.dtype) in ("Boolean", "Null")):
            raise DataError(
                f"label '{label.name}' is {label.dtype}; classification takes true/false or 0/1: make such a column, "
                "for example from a comparison with the positive class"
            )
        y: FloatArray = label.cast(float).to_numpy().astype(np.float64, copy=False)
        wrong = ~((y == 0) | (y == 1) | np.isnan(y))
        if wrong.any():
            raise DataError(
                f"label '{label.name}' has the value {y[wrong][0]:g}; classification takes 0 and 1. "
                "For any number use `task: regression`"
            )
        return y

    def refuses_label(self, value: float | str) -> str:
        """Anything but 0 and 1 (or false and true) is refused."""
        return "" if value in (0, 1) else "0 or 1"

    def loss(self, name: str, y: FloatArray, output: FloatArray) -> FloatArray:
        """Loss per row (n,), NaN where the label is. Raises UnknownKind for a loss it has not."""
        if name == "brier":
            return np.square(output - y)
        if name == "log_loss":
            p = np.clip(output, CLIP, 1 - CLIP)
            return -(y * np.log(p) + (1 - y) * np.log1p(-p))
        raise UnknownKind("losses", name, self.losses)

    def loss_bounds(
        self, name: str, candidate: FloatArray, live: FloatArray, of: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest difference loss(candidate) - loss(live) per row (n,): those of y = 0 and y = 1, sorted."""
        zeros = np.zeros_like(candidate)
        negative = self.loss(name, zeros, candidate) - self.loss(name, zeros, live)
        positive = self.loss(name, zeros + 1, candidate) - self.loss(name, zeros + 1, live)
        return np.minimum(negative, positive), np.maximum(negative, positive)

    def metrics(self, y: FloatArray, output: FloatArray) -> dict[str, float]:
        """All metrics on labelled rows; NaN where one is undefined.

        The classes of all that counts classes are cut at 0.5. `bias` is mean output - mean label, `rate` the share of
        positives.
        """
        if not len(y):
            return dict.fromkeys(METRICS, float("nan"))
        answered = output >= 0.5
        true = float((answered & (y == 1)).sum())
        positives, claimed = float(y.sum()), float(answered.sum())
        negatives = len(y) - positives
        recall, specificity = _ratio(true, positives), _ratio(negatives - claimed + true, negatives)
        steps = _steps(y, output)
        return {
            "accuracy": float((answered == (y == 1)).mean()),
            "balanced_accuracy": (recall + specificity) / 2,
            "precision": _ratio(true, claimed),
            "recall": recall,
            "specificity": specificity,
            "f1": _ratio(2 * true, positives + claimed),
            "mcc": _mcc(true, positives, claimed, float(len(y))),
            "roc_auc": _area(*steps),
            "average_precision": _average_precision(*steps),
            "log_loss": float(self.loss("log_loss", y, output).mean()),
            "brier": float(self.loss("brier", y, output).mean()),
            "calibration_error": _calibration_error(y, output),
            "bias": float(output.mean() - y.mean()),
            "rate": float(y.mean()),
        }

    def higher_is_better(self, metric: str) -> bool:
        """Direction of a metric. Raises UnknownKind with the near miss."""
        if metric not in METRICS:
            raise UnknownKind("metrics", metric, METRICS)
        return METRICS[metric]

    def trivial(self, y: FloatArray) -> float:
        """The share of positives: the best constant under both losses."""
        return float(np.mean(y))


def roc_auc(y: FloatArray, output: FloatArray) -> float:
    """Area under the ROC curve: the chance that a positive row is answered higher than a negative one.

    Ties count half (Mann and Whitney 1947, through mid-ranks); NaN when a class never occurs. O(n log n).

    >>> roc_auc(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    return _area(*_steps(y, output))


def average_precision(y: FloatArray, output: FloatArray) -> float:
    """Average precision: the precision at each recall that is reached, weighted by the recall that it adds.

    Rows with the same answer are one step. NaN when the positive class never occurs. O(n log n).

    >>> round(average_precision(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8])), 4)
    0.8333
    """
    return _average_precision(*_steps(y, output))


def _steps(y: FloatArray, output: FloatArray) -> tuple[FloatArray, FloatArray]:
    """True and false positives (k,) when everything down to the i-th highest distinct answer is claimed."""
    order = np.argsort(-output, kind="stable")
    ranked, hits = output[order], np.cumsum(y[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.empty(0, dtype=np.int64)
    return hits[ends], ends + 1.0 - hits[ends]


def _area(true: FloatArray, false: FloatArray) -> float:
    if not true.size or not true[-1] or not false[-1]:
        return float("nan")
    heights = true - np.diff(true, prepend=0.0) / 2
    return float(heights @ np.diff(false, prepend=0.0)) / (float(true[-1]) * float(false[-1]))


def _average_precision(true: FloatArray, false: FloatArray) -> float:
    if not true.size or not true[-1]:
        return float("nan")
    return float((true / (true + false)) @ np.diff(true, prepend=0.0)) / float(true[-1])


def _mcc(true: float, positives: float, claimed: float, rows: float) -> float:
    """Matthews correlation of claimed and true classes (1975); NaN where either never varies."""
    spread = positives * (rows - positives) * claimed * (rows - claimed)
    return (true * rows - positives * claimed) / float(np.sqrt(spread)) if spread > 0 else float("nan")


def _calibration_error(y: FloatArray, output: FloatArray) -> float:
    """Mean |answer - outcome| over bins, by rows; NaN for answers that are no probabilities. As the check calibration
    measures it, without what that loads."""
    if not (output.min() >= 0.0 and output.max() <= 1.0):
        return float("nan")
    cell = np.minimum((output * BINS).astype(np.int64), BINS - 1)
    return float(np.abs(np.bincount(cell, weights=output - y, minlength=BINS)).sum() / len(y))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
