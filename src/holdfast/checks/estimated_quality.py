"""Estimated quality: how good answers are whose labels have not come, if the concept holds."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.checks.estimators import DIRECT, Estimator, Refused, both_known, class_confidence, confidence, direct_loss
from holdfast.checks.labelled import FloatArray, are_finite, numbers, pairs
from holdfast.checks.sequence import mixed, overlap
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.core.meaning import many
from holdfast.core.protocols import Task
from holdfast.errors import UnknownKind
from holdfast.stats.estimate import HIGHER_IS_BETTER
from holdfast.stats.estimateclasses import HIGHER_IS_BETTER as OF_CLASSES
from holdfast.stats.trust import Matured, Trust, trusted

WORSE = "_worse"
DIRECTION = {**HIGHER_IS_BETTER, **OF_CLASSES}
"""Whether more is better; losses of regressions are not in it, and less is."""
LEAST_ROWS = 30
"""With fewer answers the interval is as wide as what is asked."""
ASSUMED = "if the concept holds"


class EstimatedQuality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric of answers without labels, with an interval at 95 %; or how much worse it is than on the reference."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.OUTPUT})
    facts: ClassVar[frozenset[str]] = frozenset({"task", "earlier"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "window"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "reference"

    metric: str = ""
    """A metric of the task (`roc_auc`, `brier`, `mae`); empty means its first loss."""
    worse: bool | None = None
    """Read how much worse the metric is than on the reference, above 0 when worse, instead of the metric itself; when
    not given, true where no metric is named."""
    seed: int = 0
    """Seed of the bootstrap."""

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        """One reading, named like the metric; blocks of the window are left out of the reference.

        No value where nothing can be estimated, and where estimates of earlier windows (the fact ``earlier``: windows
        with their labels, as long as this one, disjoint, in time order) miss the truth more often than they may.
        Raises UnknownKind for a metric that cannot be estimated.
        """
        task: Task = window.facts["task"]
        metric, is_worse = self._metric(task), self.worse or (self.worse is None and not self.metric)
        inside = set(window.blocks)
        name, known = metric + WORSE * is_worse, baseline.blocks if baseline else ()
        if DIRECTION.get(metric) and not is_worse and inside <= set(known):
            why = f"a fall of {metric} cannot be calibrated: state at_least, or set worse: true"
            return [Reading(name=name, value=None, note=why)]
        rest = [block for block in known if block not in inside]
        if twice := overlap(window, baseline):
            return [Reading(name=name, value=None, note=twice)]
        if not window.blocks:
            return [Reading(name=name, value=None, note="the window has no day")]
        try:
            return [self._reading(task, metric, is_worse, window, rest)]
        except Refused as refused:
            return [Reading(name=name, value=None, note=str(refused))]

    def _reading(self, task: Task, metric: str, is_worse: bool, window: Window, rest: Sequence[Block]) -> Reading:
        output = window.columns(Role.OUTPUT)[0]
        frames = [_answered(block, output) for block in window.blocks]
        if why := mixed(frames):
            raise Refused(why)
        rows = pl.concat([frame for frame in frames if frame.height] or frames, how="diagonal_relaxed")
        answers = _values(rows, output)
        _refuse(task, answers)
        estimator = self._estimator(task, metric, window, rest)
        trust = trusted(_matured(estimator, metric, window))
        if not trust.usable:
            raise Refused(trust.why)
        value, (low, high) = estimator.of(metric, rows, answers)
        if not math.isfinite(value):
            raise Refused(f"{metric} is undefined for these answers")
        note = _note(estimator, metric, window, trust)
        if is_worse:
            level = estimator.level(metric)
            note = f"estimated {value:.4g} against {level:.4g} on the reference; {note}"
            value, low, high = value - level, low - level, high - level
            if DIRECTION.get(metric):
                value, low, high = -value, -high, -low
        name = metric + WORSE * is_worse
        return Reading(name=name, value=value, low=_known(low), high=_known(high), rows=len(answers), note=note)

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Worse: fails where twice the interval lies above 0, warns where the interval does. A level is unknown."""
        if reading.value is None:
            return Grade.UNKNOWN, reading.note
        if not reading.name.endswith(WORSE):
            return Grade.UNKNOWN, (
                f"{reading.name} is estimated at {reading.value:.4g}, but nothing was promised: state at_least or "
                "at_most, or set worse: true"
            )
        if reading.low is None:
            return Grade.UNKNOWN, f"the reference is too short to say how far an estimate errs; {reading.note}"
        said = f"{reading.name} {reading.value:+.4g}, at least {reading.low:+.4g} at 95 %; {reading.note}"
        if 2 * reading.low - reading.value > 0:
            return Grade.FAIL, said
        return (Grade.WARN if reading.low > 0 else Grade.PASS), said

    def _metric(self, task: Task) -> str:
        metric = self.metric or task.losses[0]
        of_one = HIGHER_IS_BETTER if task.name == "classification" else DIRECT
        available = tuple(OF_CLASSES if task.classes else of_one)
        if metric not in available:
            raise UnknownKind("estimated metrics", metric, available)
        return metric

    def _estimator(self, task: Task, metric: str, window: Window, rest: Sequence[Block]) -> Estimator:
        """Made from the labelled rows of the reference; remembered there, because it costs some fits."""
        labels, output = window.columns(Role.LABEL), window.columns(Role.OUTPUT)[0]
        found = [(block, pairs(block, output, labels[0])) for block in rest] if labels else []
        found = [(block, pair) for block, pair in found if pair[0].size]
        if not found:
            raise Refused("no reference row has both a label and an answer: train a version with a hold-out")
        blocks, both = [block for block, _ in found], [pair for _, pair in found]
        days, key = len(window.blocks), tuple(block.day for block in blocks)

        def make(_: pl.DataFrame) -> Estimator | Refused:
            try:
                if task.name == "classification":
                    return confidence(both, window=days, seed=self.seed)
                if task.classes:
                    return class_confidence(metric, both, window=days, seed=self.seed)
                frames = [block.rows().filter(pl.Series(both_known(block, output, labels[0]))) for block in blocks]
                frames = [frame.select(c for c in window.columns(Role.INPUT) if c in frame.columns) for frame in frames]
                return direct_loss(metric, frames, both, window=days, seed=self.seed)
            except Refused as refused:
                return refused

        of = "" if task.name == "classification" else metric
        made = blocks[0].remember(("estimator", task.name, of, output, days, self.seed, key), make)
        if isinstance(made, Refused):
            raise Refused(str(made))
        return made


def _note(estimator: Estimator, metric: str, window: Window, trust: Trust) -> str:
    """What the estimate assumes, how far estimates like it were off, and what the labels say that came by now."""
    errors = estimator.past.by_metric[metric if metric in estimator.past.by_metric else DIRECT[metric]]
    errors = np.abs(errors[np.isfinite(errors)])
    parts = [ASSUMED]
    if errors.size:
        parts.append(f"on windows of the reference it was off by {errors.mean():.2g} on average")
    parts += [trust.why] if trust.windows else []
    y, s, _ = _came(window, window)
    if y.size >= LEAST_ROWS:
        parts.append(f"{y.size:,} rows have their label by now, and on them it is {estimator.truth(metric, y, s):.4g}")
    return "; ".join(parts)


def _matured(estimator: Estimator, metric: str, window: Window) -> list[Matured]:
    """What is estimated of earlier windows, beside what their labels say; on the rows that have a label."""
    found = []
    for earlier in window.facts.get("earlier", ()):
        y, s, rows = _came(earlier, window)
        if y.size < LEAST_ROWS:
            continue
        value, (low, high) = estimator.of(metric, rows, s)
        truth = estimator.truth(metric, y, s)
        if math.isfinite(low) and math.isfinite(truth):
            found.append(Matured(value, low, high, truth))
    return found


def _came(window: Window, now: Window) -> tuple[FloatArray, FloatArray, pl.DataFrame]:
    """Labels, answers and rows of a window whose labels came, by the roles of the window that is measured."""
    label, output = now.columns(Role.LABEL), now.columns(Role.OUTPUT)[0]
    came = [(block, pairs(block, output, label[0])) for block in window.blocks] if label else []
    came = [(block, pair) for block, pair in came if pair[0].size]
    if not came:
        return np.empty(0), np.empty(0), pl.DataFrame()
    y, s = (np.concatenate(part) for part in zip(*(pair for _, pair in came), strict=True))
    rows = [block.rows().filter(pl.Series(both_known(block, output, label[0]))) for block, _ in came]
    return y, s, pl.concat(rows, how="diagonal_relaxed")


def _refuse(task: Task, answers: FloatArray) -> None:
    """Raise Refused for answers that say nothing."""
    if len(answers) < LEAST_ROWS:
        raise Refused(f"{many(len(answers), 'answer')} in the window, {LEAST_ROWS} are needed")
    low, high = answers.min(), answers.max()
    if not np.ptp(answers, axis=0).any():
        same = f"{low:g}" if answers.ndim == 1 else "the same"
        raise Refused(f"every answer in the window is {same}, so they say nothing about which rows are wrong")
    if (task.name == "classification" or task.classes) and (low < 0 or high > 1):
        raise Refused("an answer in the window lies outside [0, 1], so answers are no probabilities")


def _answered(block: Block, output: str) -> pl.DataFrame:
    """The rows of a block that were answered; none where the column is absent."""
    rows = block.rows()
    if output not in rows.columns:
        return rows.clear()
    if isinstance(rows[output].dtype, pl.Array):
        return rows.filter(pl.Series(are_finite(numbers(rows, output))))
    values = rows[output].cast(pl.Float64)
    return rows.filter(values.is_finite() & values.is_not_null())


def _values(rows: pl.DataFrame, output: str) -> FloatArray:
    return numbers(rows, output) if output in rows.columns else np.empty(0)


def _known(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
