"""Estimates of multi-class quality without labels, and how far they err: `stats.estimate` for answers of one
probability per class.

Each class's probability is calibrated on its own, against all other classes, and each row's are then made to add up
to one; every metric is computed with these in place of the label. The assumption is the same: the concept holds.
Sources: Kivimäki, Białek, Kuberski, Nurminen (2025); Zadrozny and Elkan (2002) for one against the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.stats.bootstrap import FloatArray, IntArray
from holdfast.stats.calibration import FITS, Calibrator, Fit, choose_calibration
from holdfast.stats.estimate import CLIP, LEAST_BLOCKS, Counts, PastErrors, count, curve_areas, draw_runs, noise, run

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "precision_macro": True,
    "recall_macro": True,
    "f1_macro": True,
    "f1_weighted": True,
    "roc_auc": True,
    "brier": False,
    "log_loss": False,
}
"""What can be estimated, and its direction; each as the task defines it."""

REPLICATES = 100


def one_hot(labels: FloatArray, classes: int) -> FloatArray:
    """Places of classes (n,) as (n, classes) of 0 and 1; a label of none of them is 0 in all.

    >>> one_hot(np.array([1.0, -1.0]), 3).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    hot: FloatArray = (labels[:, None] == np.arange(classes)[None, :]).astype(np.float64)
    return hot


def confusion(truth: FloatArray, answered: IntArray) -> FloatArray:
    """Rows by true class and answered class, (classes, classes): counted where `truth` (n, classes) is of 0 and 1,
    expected where it holds probabilities. `answered` (n,) are places of classes.

    >>> confusion(np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([0, 1])).tolist()
    [[0.8, 0.3], [0.2, 0.7]]
    """
    classes = truth.shape[1]
    cells = [np.bincount(answered, weights=truth[:, c], minlength=classes) for c in range(classes)]
    return np.array(cells, dtype=np.float64)


def estimate_classes(
    scores: FloatArray,
    truth: FloatArray,
    starts: Sequence[int] | IntArray = (0,),
    *,
    metrics: Sequence[str] = tuple(HIGHER_IS_BETTER),
    answered: IntArray | None = None,
    merge_ties: bool = True,
) -> dict[str, FloatArray]:
    """Each metric per chunk, (chunks,): realised where `truth` (n, classes) is `one_hot`, expected where probabilities.

    `scores` (n, classes) in [0, 1] are the answers as given; chunk i are the rows from starts[i] to the next start.
    `answered` (n,) are the places of the classes that were answered, by default the likeliest. NaN where a metric is
    undefined. `merge_ties` as in `stats.estimate`. Neither array may hold NaN. Raises ValueError for empty chunks and
    for metrics that it does not know.

    >>> scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.2, 0.2, 0.6]])
    >>> found = estimate_classes(scores, scores, metrics=("accuracy", "f1_macro"))
    >>> {name: round(float(values[0]), 4) for name, values in found.items()}
    {'accuracy': 0.7, 'f1_macro': 0.698}
    """
    unknown = [name for name in metrics if name not in HIGHER_IS_BETTER]
    if unknown:
        raise ValueError(f"no estimate of {unknown[0]}; there are {', '.join(HIGHER_IS_BETTER)}")
    first = np.asarray(starts, dtype=np.int64)
    ends = np.append(first[1:], len(scores))
    if not (ends > first).all():
        raise ValueError("every chunk needs a row, and starts must rise")
    says = scores.argmax(axis=1) if answered is None else answered
    chunks = [slice(a, b) for a, b in zip(first, ends, strict=True)]
    found = [_measured(scores[at], truth[at], says[at], metrics, merge_ties=merge_ties) for at in chunks]
    return {name: np.array([each[name] for each in found]) for name in metrics}


def _measured(
    scores: FloatArray, truth: FloatArray, answered: IntArray, metrics: Sequence[str], *, merge_ties: bool
) -> dict[str, float]:
    claimed = np.bincount(answered, minlength=scores.shape[1]).astype(np.float64)
    found = _of_confusion(confusion(truth, answered), claimed)
    if "brier" in metrics:
        found["brier"] = float((np.square(scores).sum(axis=1) - 2 * (scores * truth).sum(axis=1)).mean() + 1)
    if "log_loss" in metrics:
        # What is left of the truth is of none of the classes, and was answered 0.
        logs = (truth * np.log(np.clip(scores, CLIP, 1.0))).sum(axis=1) + (1 - truth.sum(axis=1)) * np.log(CLIP)
        found["log_loss"] = -float(logs.mean())
    if "roc_auc" in metrics:
        each = [curve_areas(scores[:, c], truth[:, c], merge_ties=merge_ties)[0] for c in range(scores.shape[1])]
        known = [area for area in each if np.isfinite(area)]
        found["roc_auc"] = float(np.mean(known)) if known else float("nan")
    return found


def _of_confusion(table: FloatArray, claimed: FloatArray) -> dict[str, float]:
    """Metrics of rows by true and answered class and of the rows that each class was answered to (classes,); macro
    means are over the classes that occur or are answered. Labels of none of the classes count as one more class."""
    rows, both, occurs = float(claimed.sum()), np.diag(table), table.sum(axis=1)
    of_none = rows - float(table.sum())
    extra = int(of_none > 1e-9 * rows)
    recall, precision, f1 = _share(both, occurs), _share(both, claimed), _share(2 * both, occurs + claimed)
    there = int(((occurs + claimed) > 0).sum()) + extra
    return {
        "accuracy": float(both.sum() / rows),
        "balanced_accuracy": float(recall.sum() / (int((occurs > 0).sum()) + extra)),
        "precision_macro": float(precision.sum() / there),
        "recall_macro": float(recall.sum() / there),
        "f1_macro": float(f1.sum() / there),
        "f1_weighted": float((f1 * occurs).sum() / rows),
    }


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


@dataclass(frozen=True)
class ClassCalibrators:
    """A curve per class, from its probability as answered to how often it is true, and all of them made to add up."""

    curves: tuple[Calibrator, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """How each class is calibrated, by a name in `stats.calibration.FITS`."""
        return tuple(curve.method for curve in self.curves)

    def __call__(self, scores: FloatArray) -> FloatArray:
        """Calibrated probabilities (n, classes); equal shares where all curves say 0."""
        each = np.column_stack([curve(scores[:, c]) for c, curve in enumerate(self.curves)])
        total = each.sum(axis=1, keepdims=True)
        shares: FloatArray = np.divide(each, total, out=np.full_like(each, 1 / each.shape[1]), where=total > 0)
        return shares


Blocks = Sequence[tuple[FloatArray, FloatArray]]
"""Labels (n,) as places of classes and answers (n, classes) of each reference block."""


def calibrate_classes(blocks: Blocks) -> ClassCalibrators:
    """Each class by the fit that does best on blocks it was not fitted on. Raises ValueError without rows."""
    return _fitted([(FITS[choose_calibration(c.scores, c.rows, c.positives)], c) for c in _counts(blocks)])


def _counts(blocks: Blocks) -> list[Counts]:
    """One class against the rest."""
    classes = blocks[0][1].shape[1] if blocks else 0
    return [count([((y == c).astype(np.float64), p[:, c]) for y, p in blocks]) for c in range(classes)]


def _fitted(each: Sequence[tuple[Fit, Counts]], times: FloatArray | None = None) -> ClassCalibrators:
    """Curves of blocks (n,) that count so many times each; once by default."""
    curves = []
    for fit, counts in each:
        drawn = np.ones(len(counts.rows)) if times is None else times
        curves.append(fit(counts.scores, drawn @ counts.rows, drawn @ counts.positives))
    return ClassCalibrators(tuple(curves))


def past_class_errors(
    blocks: Blocks, *, window: int, metrics: Sequence[str], seed: int = 0, replicates: int = REPLICATES
) -> PastErrors:
    """Errors of estimates of windows of so many blocks, made on the reference by resampling, as `stats.past_errors`
    makes them. Costs one fit of all curves and one estimate per replicate."""
    n = len(blocks)
    if n < LEAST_BLOCKS:
        return PastErrors({name: np.empty(0) for name in metrics}, np.empty(0), 0.0)
    counted = _counts(blocks)
    each = [(FITS[choose_calibration(c.scores, c.rows, c.positives)], c) for c in counted]
    random, length, classes = np.random.default_rng(seed), run(n, window), len(counted)
    errors: dict[str, list[float]] = {name: [] for name in metrics}
    noises = []
    for drawn in draw_runs(random, n, length, min(window, n // 2), replicates):
        outside = np.setdiff1d(np.arange(n), drawn)
        again = outside[draw_runs(random, outside.size, min(length, outside.size), outside.size, 1)[0]]
        curves = _fitted(each, np.bincount(again, minlength=n).astype(np.float64))
        labels, scores = (np.concatenate([blocks[i][part] for i in drawn]) for part in (0, 1))
        truth = curves(scores)
        expected = estimate_classes(scores, truth, metrics=metrics)
        realised = estimate_classes(scores, one_hot(labels, classes), metrics=metrics)
        for name in metrics:
            errors[name].append(float(realised[name][0] - expected[name][0]))
        noises.append(class_noise(scores, truth))
    return PastErrors({name: np.array(found) for name, found in errors.items()}, np.array(noises), n / length)


def class_noise(scores: FloatArray, truth: FloatArray) -> float:
    """Standard deviation of the accuracy if rows were independent: that of how often the likeliest class is right."""
    answered = scores.argmax(axis=1)
    return noise(np.take_along_axis(truth, answered[:, None], axis=1)[:, 0])
