"""Multi-class classification: answers one probability per class."""

from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.classes import UNKNOWN
from holdfast.errors import DataError, UnknownKind

if TYPE_CHECKING:
    import polars as pl

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

BINS = 10
"""Bins of equal width that the calibration error is taken over."""
CLIP = 1e-6
"""Log loss takes no probability below this, so that a row's loss is at most 13.8."""

METRICS = {
    "accuracy": True,
    "balanced_accuracy": True,
    "top_2_accuracy": True,
    "precision_macro": True,
    "recall_macro": True,
    "f1_macro": True,
    "f1_weighted": True,
    "mcc": True,
    "roc_auc": True,
    "log_loss": False,
    "brier": False,
    "calibration_error": False,
    "bias": False,
    "unknown_labels": False,
}
"""Metrics and whether higher is better. `bias` has no direction: a limit on it says what is meant."""


class Multiclass:
    """Three classes or more, text or whole numbers; the output is one probability per class, in the order of classes.

    Losses: `brier`, the sum of (p - y)² over the classes, in [0, 2] (Brier 1950), and `log_loss`, in [0, 13.8]: the
    probability of the true class is clipped to [1e-6, 1]. Both are proper. A label that is none of the classes counts
    as one that was answered 0.
    """

    name = "multiclass"
    output = "probability"
    losses = ("brier", "log_loss")
    errors = ()
    is_listwise = False
    least_classes = 3
    """Fewer need no such task."""

    def __init__(self, classes: tuple[str, ...] = ()) -> None:
        self.classes = classes

    def target(self, label: "pl.Series") -> FloatArray:
        """Places of classes as float64 (n,), -1 for a label that is none of them, NaN where missing.

        Raises DataError for anything else: texts become places where feeds are joined.
        """
        if not (label.dtype.is_numeric() or str(label.dtype) == "Null"):
            raise DataError(f"label '{label.name}' is {label.dtype}; multiclass takes the places of classes")
        y: FloatArray = label.cast(float).to_numpy().astype(np.float64, copy=False)
        most = len(self.classes) - 1 if self.classes else np.inf
        known = y[~np.isnan(y)]
        wrong = known[(known != np.floor(known)) | (known < UNKNOWN) | (known > most)]
        if wrong.size:
            raise DataError(f"label '{label.name}' has the value {wrong[0]:g}; there are {len(self.classes)} classes")
        return y

    def refuses_label(self, value: float | str) -> str:
        """A fraction, an empty text and true or false are refused; a class that is not known counts as wrong."""
        is_text, is_bool = isinstance(value, str), isinstance(value, bool)
        is_class = bool(str(value).strip()) if is_text else not is_bool and float(value).is_integer()
        return "" if is_class else "a class: text or a whole number"

    def loss(self, name: str, y: FloatArray, output: FloatArray) -> FloatArray:
        """Loss per row (n,) of outputs (n, classes), NaN where the label is. Raises UnknownKind for one it has not."""
        if name not in self.losses:
            raise UnknownKind("losses", name, self.losses)
        true = _true(y, output)
        is_brier = name == "brier"
        found = np.square(output).sum(axis=1) - 2 * true + 1 if is_brier else -np.log(np.clip(true, CLIP, 1.0))
        return np.where(np.isnan(y), np.nan, found)

    def loss_bounds(
        self, name: str, candidate: FloatArray, live: FloatArray, of: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest difference loss(candidate) - loss(live) per row (n,), over what the label may be."""
        if name == "brier":
            each = -2 * (candidate - live)
            none: Any = np.square(candidate).sum(axis=1) - np.square(live).sum(axis=1)
            each += none[:, None]
        elif name == "log_loss":
            each = np.log(np.clip(live, CLIP, 1.0)) - np.log(np.clip(candidate, CLIP, 1.0))
            none = 0.0
        else:
            raise UnknownKind("losses", name, self.losses)
        return np.minimum(each.min(axis=1), none), np.maximum(each.max(axis=1), none)

    def metrics(self, y: FloatArray, output: FloatArray) -> dict[str, float]:
        """All metrics on labelled rows; NaN where one is undefined.

        A row's answer is its most likely class, the first of equal ones. Macro means are over the classes that occur
        or are answered, a share without rows counting as 0; balanced accuracy and ROC AUC (one against the rest) over
        those that occur. `bias` is the mean probability of what was answered less the accuracy.
        """
        if not len(y):
            return dict.fromkeys(METRICS, float("nan"))
        classes = output.shape[1]
        answered, place = output.argmax(axis=1), np.where(y < 0, classes, y).astype(np.int64)
        hit = answered == place
        most = output.max(axis=1)
        counts = _Counts(place, answered, classes + 1)
        return {
            "accuracy": float(hit.mean()),
            "balanced_accuracy": float(counts.recall[counts.occurs > 0].mean()),
            "top_2_accuracy": float((_before(place, output) < 2).mean()),
            "precision_macro": counts.mean(counts.precision),
            "recall_macro": counts.mean(counts.recall),
            "f1_macro": counts.mean(counts.f1),
            "f1_weighted": float(np.average(counts.f1, weights=counts.occurs)),
            "mcc": counts.mcc(),
            "roc_auc": roc_auc(y, output),
            "log_loss": float(self.loss("log_loss", y, output).mean()),
            "brier": float(self.loss("brier", y, output).mean()),
            "calibration_error": _calibration_error(hit, most),
            "bias": float(most.mean() - hit.mean()),
            "unknown_labels": float((y < 0).mean()),
        }

    def higher_is_better(self, metric: str) -> bool:
        """Direction of a metric. Raises UnknownKind with the near miss."""
        if metric not in METRICS:
            raise UnknownKind("metrics", metric, METRICS)
        return METRICS[metric]

    def trivial(self, y: FloatArray) -> FloatArray:
        """The share of each class (classes,): the best constant under both losses. Equal shares without a label."""
        known = y[y >= 0].astype(np.int64)
        counts = np.bincount(known, minlength=max(1, len(self.classes))).astype(np.float64)
        return counts / counts.sum() if known.size else np.full(len(counts), 1 / len(counts))


def roc_auc(y: FloatArray, output: FloatArray) -> float:
    """Mean area under the ROC curve of each class against the rest, over the classes that occur (Provost, Domingos
    2000, unweighted); NaN where none does, or one is all there is. O(k n log n).

    >>> p = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])
    >>> roc_auc(np.array([0.0, 1.0, 2.0]), p)
    1.0
    """
    areas = [_area(y == c, output[:, c]) for c in range(output.shape[1])]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def _area(is_class: Any, score: FloatArray) -> float:
    """Chance that a row of the class is answered higher than another one, ties half, by mid-ranks."""
    positives = int(is_class.sum())
    negatives = len(is_class) - positives
    if not positives or not negatives:
        return float("nan")
    _, group, sizes = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]
    return float((ranks[is_class].sum() - positives * (positives + 1) / 2) / (positives * negatives))


class _Counts:
    """How often each class occurs, is answered, and both; one place beyond the classes is for labels of none."""

    def __init__(self, place: IntArray, answered: IntArray, size: int) -> None:
        self.rows = float(len(place))
        self.occurs = np.bincount(place, minlength=size).astype(np.float64)
        self.claimed = np.bincount(answered, minlength=size).astype(np.float64)
        self.both = np.bincount(place[place == answered], minlength=size).astype(np.float64)
        self.recall = _share(self.both, self.occurs)
        self.precision = _share(self.both, self.claimed)
        self.f1 = _share(2 * self.both, self.occurs + self.claimed)

    def mean(self, values: FloatArray) -> float:
        """Over the classes that occur or are answered."""
        return float(values[(self.occurs + self.claimed) > 0].mean())

    def mcc(self) -> float:
        """Matthews correlation for several classes (Gorodkin 2004); NaN where labels or answers never vary."""
        covaries = self.both.sum() * self.rows - self.occurs @ self.claimed
        spread = (self.rows**2 - self.occurs @ self.occurs) * (self.rows**2 - self.claimed @ self.claimed)
        return float(covaries / np.sqrt(spread)) if spread > 0 else float("nan")


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _true(y: FloatArray, output: FloatArray) -> FloatArray:
    """What was answered to the true class (n,); 0 for a label that is none of the classes."""
    known = y >= 0
    place = np.where(known, y, 0).astype(np.int64)
    return np.where(known, np.take_along_axis(output, place[:, None], axis=1)[:, 0], 0.0)


def _before(place: IntArray, output: FloatArray) -> IntArray:
    """How many classes stand before the true one by probability, equal ones in order; all for a label of none."""
    classes = output.shape[1]
    known = place < classes
    own = np.where(known, place, 0)
    mine = np.take_along_axis(output, own[:, None], axis=1)
    first = np.arange(classes)[None, :] < own[:, None]
    before = ((output > mine) | ((output == mine) & first)).sum(axis=1)
    found: IntArray = np.where(known, before, classes)
    return found


def _calibration_error(hit: Any, most: FloatArray) -> float:
    """Mean |probability of what was answered - how often that is right| over bins, by rows; NaN for answers that are no
    probabilities (Guo et al. 2017)."""
    if not (most.min() >= 0.0 and most.max() <= 1.0 + CLIP):
        return float("nan")
    cell = np.minimum((most * BINS).astype(np.int64), BINS - 1)
    return float(np.abs(np.bincount(cell, weights=most - hit, minlength=BINS)).sum() / len(hit))
