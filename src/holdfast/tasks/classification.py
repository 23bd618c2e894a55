"""Binary classification: answers the probability of the positive class."""

from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.errors import DataError, UnknownKind

if TYPE_CHECKING:
    import polars as pl

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

CLIP = 1e-6
"""Log loss takes probabilities no closer to 0 or 1 than this, so that a row's loss is at most 13.8."""

METRICS = {
    "accuracy": True,
    "precision": True,
    "recall": True,
    "f1": True,
    "roc_auc": True,
    "log_loss": False,
    "brier": False,
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
    losses = ("brier", "log_loss")
    errors = ()

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

    def refuses_label(self, value: float) -> str:
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

    def loss_bounds(self, name: str, candidate: FloatArray, live: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest difference loss(candidate) - loss(live) per row (n,): those of y = 0 and y = 1, sorted."""
        zeros = np.zeros_like(candidate)
        negative = self.loss(name, zeros, candidate) - self.loss(name, zeros, live)
        positive = self.loss(name, zeros + 1, candidate) - self.loss(name, zeros + 1, live)
        return np.minimum(negative, positive), np.maximum(negative, positive)

    def metrics(self, y: FloatArray, output: FloatArray) -> dict[str, float]:
        """All metrics on labelled rows; NaN where one is undefined.

        The classes of accuracy, precision, recall and F1 are cut at 0.5. `bias` is mean output - mean label,
        `rate` the share of positives.
        """
        if not len(y):
            return dict.fromkeys(METRICS, float("nan"))
        answered = output >= 0.5
        true = float((answered & (y == 1)).sum())
        positives, claimed = float(y.sum()), float(answered.sum())
        return {
            "accuracy": float((answered == (y == 1)).mean()),
            "precision": _ratio(true, claimed),
            "recall": _ratio(true, positives),
            "f1": _ratio(2 * true, positives + claimed),
            "roc_auc": roc_auc(y, output),
            "log_loss": float(self.loss("log_loss", y, output).mean()),
            "brier": float(self.loss("brier", y, output).mean()),
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
    positives = float(y.sum())
    negatives = len(y) - positives
    if not positives or not negatives:
        return float("nan")
    order = np.argsort(output, kind="stable")
    ranked = output[order]
    starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
    ends = np.append(starts[1:], len(ranked))
    midranks = np.repeat((starts + ends + 1) / 2, ends - starts)
    above = float(midranks[y[order] == 1].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
