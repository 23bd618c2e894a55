"""Estimators of a window's quality, made from reference blocks with labels: one for classification, one for regression.

Each is made once per reference and remembered by the check. What stops one from being made is a `Refused` that says
what is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from holdfast.checks.labelled import FloatArray, takes
from holdfast.core import kinds
from holdfast.core.evidence import Block
from holdfast.stats import directloss
from holdfast.stats.bootstrap import Interval
from holdfast.stats.calibration import FITS, Calibrator, choose_calibration
from holdfast.stats.directloss import Predict
from holdfast.stats.estimate import BoolArray, PastErrors, count, estimate, noise, past_errors
from holdfast.stats.estimateclasses import (
    ClassCalibrators,
    calibrate_classes,
    class_noise,
    estimate_classes,
    one_hot,
    past_class_errors,
)

DIRECT = {"absolute_error": "mae", "squared_error": "mse"} | {name: name for name in directloss.METRICS}
"""Metrics of a regression by what they are called in a system file."""
TREES = {"trees": 100, "early_stopping": 0, "feature_fraction": 1.0}


class Refused(Exception):
    """Why nothing can be estimated, as a sentence for the reading."""


class _MeanLoss:
    """What the learner of losses is fitted for: their mean, so squared error, whatever the system's own task minds."""

    name = "regression"
    is_listwise = False
    losses = ("squared_error",)
    classes = ()


@dataclass(frozen=True)
class Confidence:
    """Estimates from calibrated answers (Kivimäki et al. 2025)."""

    curve: Calibrator
    past: PastErrors
    labels: FloatArray
    answers: FloatArray

    def level(self, metric: str) -> float:
        """The metric on the reference, with its labels."""
        return float(estimate(self.answers, self.labels, metrics=(metric,))[metric][0])

    def of(self, metric: str, rows: pl.DataFrame, answers: FloatArray) -> tuple[float, Interval]:
        """The estimate of answers (n,) that are given, and where the truth lies at 95 %."""
        p = self.curve(answers)
        value = float(estimate(answers, p, metrics=(metric,))[metric][0])
        return value, self.past.interval(metric, value, noise(p))

    def truth(self, metric: str, labels: FloatArray, answers: FloatArray) -> float:
        """The metric of rows whose labels came."""
        return float(estimate(answers, labels, metrics=(metric,))[metric][0])


@dataclass(frozen=True)
class DirectLoss:
    """Estimates from a second model, which was fitted to the losses of the reference."""

    predict: Predict
    columns: "Columns"
    past: PastErrors
    losses: FloatArray

    def level(self, metric: str) -> float:
        """The metric on the reference, with its labels."""
        return float(directloss.metric_of(DIRECT[metric], self.losses)[0])

    def of(self, metric: str, rows: pl.DataFrame, answers: FloatArray) -> tuple[float, Interval]:
        """The estimate of rows and their answers (n,), and where the truth lies at 95 %."""
        guessed = self.predict(self.columns.matrix(rows, answers))
        name = DIRECT[metric]
        value = float(directloss.metric_of(name, guessed)[0])
        return value, self.past.interval(name, value, directloss.loss_noise(name, guessed))

    def truth(self, metric: str, labels: FloatArray, answers: FloatArray) -> float:
        """The metric of rows whose labels came."""
        losses = directloss.row_losses(DIRECT[metric], labels, answers)
        return float(directloss.metric_of(DIRECT[metric], losses)[0])


@dataclass(frozen=True)
class ClassConfidence:
    """Estimates from calibrated answers of one probability per class."""

    curves: ClassCalibrators
    past: PastErrors
    labels: FloatArray
    answers: FloatArray

    def level(self, metric: str) -> float:
        """The metric on the reference, with its labels."""
        return self.truth(metric, self.labels, self.answers)

    def of(self, metric: str, rows: pl.DataFrame, answers: FloatArray) -> tuple[float, Interval]:
        """The estimate of answers (n, classes) that are given, and where the truth lies at 95 %."""
        truth = self.curves(answers)
        value = float(estimate_classes(answers, truth, metrics=(metric,))[metric][0])
        return value, self.past.interval(metric, value, class_noise(answers, truth))

    def truth(self, metric: str, labels: FloatArray, answers: FloatArray) -> float:
        """The metric of rows whose labels came."""
        hot = one_hot(labels, answers.shape[1])
        return float(estimate_classes(answers, hot, metrics=(metric,))[metric][0])


Estimator = Confidence | ClassConfidence | DirectLoss


@dataclass(frozen=True)
class Columns:
    """Inputs as numbers: categories by their place among those of the reference, missing where they are new."""

    codes: Mapping[str, Mapping[str, int]]
    """Columns in order; without codes for numbers."""

    def matrix(self, rows: pl.DataFrame, answers: FloatArray) -> FloatArray:
        """(n, columns + 1): the inputs, then the answer. A column that is absent is missing in every row."""
        parts = [self._column(rows, name) for name in self.codes]
        return np.column_stack([*parts, answers])

    def _column(self, rows: pl.DataFrame, name: str) -> FloatArray:
        if name not in rows.columns:
            return np.full(rows.height, np.nan)
        values, codes = rows[name], self.codes[name]
        if codes:
            values = values.cast(pl.String).replace_strict(codes, default=None, return_dtype=pl.Float64)
        return values.cast(pl.Float64, strict=False).to_numpy()


def confidence(blocks: Sequence[tuple[FloatArray, FloatArray]], *, window: int, seed: int) -> Confidence:
    """From labels and answers of reference blocks, for windows of so many blocks. Raises Refused."""
    labels, answers = (np.concatenate(part) for part in zip(*blocks, strict=True))
    if answers.min() < 0 or answers.max() > 1:
        raise Refused("an answer of the reference lies outside [0, 1], so answers are no probabilities")
    if np.ptp(answers) == 0:
        raise Refused(
            f"every answer of the reference is {answers[0]:g}, so they say nothing about which rows are wrong"
        )
    if np.ptp(labels) == 0:
        raise Refused(f"every label of the reference is {labels[0]:g}: the other class never occurs")
    counts = count(blocks)
    fit = FITS[choose_calibration(counts.scores, counts.rows, counts.positives)]
    curve = fit(counts.scores, counts.rows.sum(axis=0), counts.positives.sum(axis=0))
    return Confidence(curve, past_errors(counts, fit, blocks=window, seed=seed), labels, answers)


def class_confidence(
    metric: str, blocks: Sequence[tuple[FloatArray, FloatArray]], *, window: int, seed: int
) -> ClassConfidence:
    """From labels and answers of reference blocks, for windows of so many blocks. Raises Refused."""
    labels, answers = (np.concatenate(part) for part in zip(*blocks, strict=True))
    if answers.min() < 0 or answers.max() > 1:
        raise Refused("an answer of the reference lies outside [0, 1], so answers are no probabilities")
    if not np.ptp(answers, axis=0).any():
        raise Refused("every answer of the reference is the same, so they say nothing about which rows are wrong")
    if np.ptp(labels) == 0:
        raise Refused("every label of the reference is of one class: the others never occur")
    past = past_class_errors(blocks, window=window, metrics=(metric,), seed=seed)
    return ClassConfidence(calibrate_classes(blocks), past, labels, answers)


def direct_loss(
    metric: str,
    frames: Sequence[pl.DataFrame],
    pairs: Sequence[tuple[FloatArray, FloatArray]],
    *,
    window: int,
    seed: int,
) -> DirectLoss:
    """From inputs, and labels and answers, of the labelled rows of each reference block.

    Costs six fits of a hundred small trees. Raises Refused.
    """
    rows = pl.concat(frames, how="diagonal_relaxed")
    labels, answers = (np.concatenate(part) for part in zip(*pairs, strict=True))
    try:
        losses = directloss.row_losses(DIRECT[metric], labels, answers)
    except ValueError as refused:
        raise Refused(str(refused)) from None
    columns = _columns(rows)
    x, place = columns.matrix(rows, answers), np.repeat(np.arange(len(pairs)), [y.size for y, _ in pairs])
    trainer = kinds.load("trainers", "lightgbm")(**TREES)

    def learn(matrix: FloatArray, target: FloatArray) -> Predict:
        fitted = trainer.fit(
            matrix.astype(np.float32), target, valid=None, task=_MeanLoss(), categories=[0] * matrix.shape[1], seed=seed
        )
        return lambda new: np.asarray(fitted.predict(new.astype(np.float32)), dtype=np.float64)

    guessed = directloss.held_out(learn, x, losses, place)
    past = directloss.past_loss_errors(DIRECT[metric], losses, guessed, place, blocks=window, seed=seed)
    return DirectLoss(learn(x, losses), columns, past, losses)


def both_known(block: Block, output: str, label: str) -> BoolArray:
    """Which rows of a block `labelled.pairs` takes, (n,)."""
    return takes(block.rows(), output, label)


def _columns(rows: pl.DataFrame) -> Columns:
    codes: dict[str, Mapping[str, int]] = {}
    for name, dtype in rows.schema.items():
        if dtype.is_temporal():
            continue
        texts = [] if _is_number(dtype) else rows[name].cast(pl.String).unique().drop_nulls().sort().to_list()
        codes[name] = {text: i for i, text in enumerate(texts)}
    return Columns(codes)


def _is_number(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype == pl.Boolean or dtype == pl.Null
