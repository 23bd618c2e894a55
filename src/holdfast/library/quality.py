"""`estimate_quality`: how good answers are whose labels have not come, beside what labels say that have."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.checks.estimators import (
    DIRECT,
    ClassConfidence,
    DirectLoss,
    Estimator,
    Refused,
    class_confidence,
    confidence,
    direct_loss,
)
from holdfast.checks.labelled import are_finite
from holdfast.errors import DataError, NotFound
from holdfast.library.answered import MULTICLASS, Answered, Score, TaskName, answered_by
from holdfast.library.pictures import Line, Picture, lines, page, table, text
from holdfast.library.tables import days_of, frame_of, has_columns, names_of
from holdfast.stats.estimate import HIGHER_IS_BETTER, LEAST_BLOCKS
from holdfast.stats.estimateclasses import HIGHER_IS_BETTER as OF_CLASSES
from holdfast.stats.trust import Matured, trusted

FloatArray = npt.NDArray[np.float64]

LEAST_ROWS = 30
"""With fewer answers the interval is as wide as what is asked."""
PIECES = 40
"""Into so many pieces of random rows the reference is cut where no time is given."""
WEEK = 7
DIRECTION = {**HIGHER_IS_BETTER, **OF_CLASSES}
"""Whether more is better; errors of regressions are not in it, and less is."""

Verdict = Literal["worse", "better", "no evidence", "unknown"]


class QualityPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A run of days: what is estimated, and what labels say. None where nothing is known."""

    first: str
    last: str
    side: Literal["reference", "current"]
    rows: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    realised: float | None = None
    labelled: int = 0


@dataclass(frozen=True, kw_only=True)
class QualityEstimate:
    """An estimate with its interval and its assumption. In a notebook it shows itself; `str` gives a few lines."""

    metric: str
    task: str
    verdict: Verdict
    """`worse` and `better` where the interval leaves out what the metric is on the reference; where labels of the
    current rows lie outside the interval, what they say."""
    why: str
    value: float | None
    """The metric of all current answers, estimated; None where nothing can be said, and `why`."""
    low: float | None
    high: float | None
    """Where the truth lies at 95 %; None where the reference is too short to say how far an estimate errs."""
    reference: float | None
    """The metric on the reference, with its labels."""
    realised: float | None
    """The metric on the current rows that have a label."""
    rows: int
    """Current rows with an answer."""
    labelled: int
    """How many of them have a label."""
    usual_error: float | None
    """How far estimates of windows of the reference were off, on average."""
    method: str
    assumes: str
    trust: str
    """How earlier estimates fared against labels that came since; empty where none has."""
    is_usable: bool
    """False where intervals missed the truth more often than they may (`holdfast.stats.trust`)."""
    points: tuple[QualityPoint, ...]
    """By runs of days, in order; empty without `time`."""

    def to_frame(self) -> pl.DataFrame:
        """One row per run of days."""
        figures = ("value", "low", "high", "realised")
        schema = {name: pl.String() for name in ("first", "last", "side")}
        return pl.DataFrame(
            [msgspec.to_builtins(point) for point in self.points],
            schema=schema | {"rows": pl.Int64()} | dict.fromkeys(figures, pl.Float64()) | {"labelled": pl.Int64()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain types, None for what is not known."""
        names = [name for name in self.__dataclass_fields__ if name != "points"]
        return {name: getattr(self, name) for name in names} | {"points": msgspec.to_builtins(list(self.points))}

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def plot(self) -> Picture:
        """The estimate with its interval by runs of days, labels beside it. Raises DataError without `time`."""
        if not self.points:
            raise DataError("a plot needs days: give time=, the column of the rows' times")
        columns = {
            name: np.array([_nan(getattr(point, name)) for point in self.points])
            for name in ("value", "low", "high", "realised")
        }
        return lines(
            f"estimated {self.metric}",
            f"at 95 %, {self.assumes}",
            [point.first for point in self.points],
            [
                Line("estimated", columns["value"], "current"),
                Line("from labels", columns["realised"], "truth", dots=True),
            ],
            band=(columns["low"], columns["high"]),
            rules=[] if self.reference is None else [(self.reference, "reference")],
        )

    def __str__(self) -> str:
        return "\n".join([self._headline(), *(f"  {name}: {value}" for name, value in self._facts())])

    def _repr_html_(self) -> str:
        rows = [(text(name), text(value)) for name, value in self._facts()]
        parts = [table(self._headline(), (), rows)]
        if self.points:
            parts.append(self.plot().svg)
        return page(f"Estimated {self.metric}", f"{self.verdict}: {self.why}", parts)

    def _headline(self) -> str:
        if self.value is None:
            return f"{self.metric}: unknown, {self.why}"
        interval = "no interval" if self.low is None else f"{self.low:.4g} to {self.high:.4g} at 95 %"
        return f"{self.metric} is estimated at {self.value:.4g} ({interval})"

    def _facts(self) -> list[tuple[str, str]]:
        found = [("verdict", f"{self.verdict}, {self.why}")]
        if self.reference is not None:
            found.append(("on the reference", f"{self.reference:.4g}"))
        if self.realised is not None:
            found.append(("from labels", f"{self.realised:.4g} on {self.labelled:,} of {self.rows:,} rows"))
        if self.usual_error is not None:
            found.append(("usual error", f"{self.usual_error:.2g} on windows of the reference"))
        found += [("assumes", self.assumes)] if self.assumes else []
        return [*found, ("trust", self.trust)] if self.trust else found


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Rows that have an answer, as blocks in order."""

    frames: tuple[pl.DataFrame, ...]
    labels: tuple[FloatArray, ...]
    """NaN where a label has not come."""
    answers: tuple[FloatArray, ...]
    names: tuple[str, ...]
    """The day of each block; empty without days."""

    @property
    def size(self) -> int:
        return sum(len(block) for block in self.answers)


def estimate_quality(
    reference: Any,
    current: Any,
    *,
    score: Score,
    label: str,
    metric: str | None = None,
    task: TaskName = "classification",
    features: str | Sequence[str] | None = None,
    time: str | None = None,
    timezone: str = "UTC",
    window: int | None = None,
    seed: int = 0,
) -> QualityEstimate:
    """How good the answers of `current` (m rows) are, learnt from `reference` (n rows), which has labels.

    Classification: `score` holds the probability of label 1. Scores are calibrated on the reference, by what does best
    on blocks that it was not fitted on, and the metric is computed with the calibrated probability in place of the
    label (CBPE; Kivimäki et al. 2025). Several classes, which labels name: `score` maps each to the column of its
    probability; each is calibrated against the others, and the task is multiclass. Regression: a second model learns
    the size of each row's error from `features` and the answer (direct loss estimation), which takes seconds. `metric`
    is ``mae`` for a regression and else ``roc_auc`` when not given; others are in
    `holdfast.stats.estimate.HIGHER_IS_BETTER`, for several classes in `holdfast.stats.estimateclasses`, and in
    `holdfast.stats.directloss`.

    Take as the reference rows that the model was **not** fitted on. It is assumed that the concept holds: the same
    answer means what it meant on the reference. No method sees otherwise without labels (docs/why/without-labels.md).

    The interval says where the truth lies at 95 %, by resampling blocks of the reference, the calibration fitted anew
    each time: days in `timezone` where `time` names the rows' times, which also gives the series over runs of `window`
    days (a week where there are two, else a day). Without it 40 pieces of random rows: then the interval takes
    rows for independent, and is too narrow where they are not. Where `current` has labels, what they say stands
    beside the estimate; the verdict follows them where they lie outside the interval, and once intervals miss them too
    often, `is_usable` is False.
    Raises DataError and NotFound for what was asked wrongly; what the data do not allow to say is `unknown`, and why.

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> p = random.random(4000)
    >>> rows = {"p": p, "y": (random.random(4000) < p).astype(int)}
    >>> estimate = estimate_quality(rows, {"p": np.clip(0.5 + (p - 0.5) / 2, 0, 1)}, score="p", label="y")
    >>> round(estimate.value, 1), estimate.low < estimate.value < estimate.high, estimate.verdict
    (0.7, True, 'worse')
    """
    by = answered_by(score, task)
    chosen = _metric(metric, by.task.name)
    before, now = frame_of(reference, "the reference"), frame_of(current, "the current table")
    inputs = names_of(features)
    has_columns(before, [*by.columns, label, *inputs, *([time] if time else [])], "the reference")
    has_columns(now, [*by.columns, *inputs, *([time] if time else [])], "the current table")
    if by.task.name == "regression" and not inputs:
        raise DataError("a regression is estimated from features: name them with features=[...], or give task=...")
    if by.task.name != "regression" and inputs:
        raise DataError("features= are for task='regression'; a classification is estimated from its scores alone")
    if time is None and (window is not None or timezone != "UTC"):
        what = "window" if window is not None else "timezone"
        raise DataError(f"{what}= counts days, which need time=, the column of the rows' times")
    if window is not None and window < 1:
        raise DataError(f"a window has at least one day, not {window}")
    asked = _Asked(by=by, label=label, inputs=inputs, metric=chosen, seed=seed)
    old = _blocks(before, asked, time, timezone, "the reference", labelled=True)
    new = _blocks(now, asked, time, timezone, "the current table", labelled=False)
    return _estimated(asked, old, new, window if time else 0)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    by: Answered
    label: str
    inputs: list[str]
    metric: str
    seed: int

    @property
    def task(self) -> str:
        return self.by.task.name

    def estimator(self, rows: _Rows, window: int) -> Estimator:
        """Raises Refused."""
        pairs = list(zip(rows.labels, rows.answers, strict=True))
        if not pairs:
            raise Refused("no reference row has both a label and an answer")
        if self.task == "classification":
            return confidence(pairs, window=window, seed=self.seed)
        if self.by.task.classes:
            return class_confidence(self.metric, pairs, window=window, seed=self.seed)
        return direct_loss(self.metric, rows.frames, pairs, window=window, seed=self.seed)


def _estimated(asked: _Asked, old: _Rows, new: _Rows, window: int | None) -> QualityEstimate:
    answers = np.concatenate(new.answers) if new.answers else np.empty(0)
    labels = np.concatenate(new.labels) if new.labels else np.empty(0)
    try:
        _refuse(asked, answers)
        estimator = asked.estimator(old, _like(old, new))
    except Refused as refused:
        return _unknown(asked, str(refused), new.size, int(np.isfinite(labels).sum()))
    rows = pl.concat(new.frames, how="diagonal_relaxed")
    value, (low, high) = estimator.of(asked.metric, rows, answers)
    if not math.isfinite(value):
        return _unknown(asked, f"{asked.metric} is undefined for these answers", new.size, 0)
    came = np.isfinite(labels)
    level = estimator.level(asked.metric)
    points = _points(asked, old, new, window) if window != 0 else ()
    trust = trusted(_matured(points))
    realised = estimator.truth(asked.metric, labels[came], answers[came]) if came.any() else math.nan
    verdict, why = _verdict(asked, level, low, high)
    if not trust.usable:
        verdict, why = "unknown", trust.why
    if came.sum() >= LEAST_ROWS:
        theirs = rows.filter(pl.Series(came)) if rows.width else rows
        labelled = (low, high) if came.all() else estimator.of(asked.metric, theirs, answers[came])[1]
        verdict, why = _by_labels(asked, level, labelled, realised, int(came.sum())) or (verdict, why)
    errors = estimator.past.by_metric[DIRECT[asked.metric] if asked.task == "regression" else asked.metric]
    errors = np.abs(errors[np.isfinite(errors)])
    return QualityEstimate(
        metric=asked.metric,
        task=asked.task,
        verdict=verdict,
        why=why,
        value=value,
        low=_known(low),
        high=_known(high),
        reference=_known(level),
        realised=_known(realised),
        rows=new.size,
        labelled=int(came.sum()),
        usual_error=float(errors.mean()) if errors.size else None,
        method=_method(estimator),
        assumes=_assumes(old),
        trust=trust.why if trust.windows else "",
        is_usable=trust.usable,
        points=points,
    )


def _points(asked: _Asked, old: _Rows, new: _Rows, window: int | None) -> tuple[QualityPoint, ...]:
    """Runs of days of both sides; those of the reference have labels and no estimate."""
    days = len(new.names)
    length = window or (WEEK if days >= 2 * WEEK else 1)
    estimator = asked.estimator(old, length)
    return (*_runs(asked, estimator, old, length, "reference"), *_runs(asked, estimator, new, length, "current"))


def _matured(points: Sequence[QualityPoint]) -> list[Matured]:
    """The runs of days whose labels have come, with what was estimated of them."""
    found = [(point.value, point.low, point.high, point.realised) for point in points if point.side == "current"]
    return [
        Matured(value, low, high, truth)
        for value, low, high, truth in found
        if value is not None and low is not None and high is not None and truth is not None
    ]


def _runs(
    asked: _Asked, estimator: Estimator, rows: _Rows, length: int, side: Literal["reference", "current"]
) -> list[QualityPoint]:
    found = []
    for start in range(0, len(rows.names), length):
        part = slice(start, start + length)
        answers, labels = np.concatenate(rows.answers[part]), np.concatenate(rows.labels[part])
        came = np.isfinite(labels)
        value, low, high = math.nan, math.nan, math.nan
        if side == "current" and len(answers) >= LEAST_ROWS:
            frame = pl.concat(rows.frames[part], how="diagonal_relaxed")
            value, (low, high) = estimator.of(asked.metric, frame, answers)
        truth = estimator.truth(asked.metric, labels[came], answers[came]) if came.sum() >= LEAST_ROWS else math.nan
        found.append(
            QualityPoint(
                first=rows.names[part][0],
                last=rows.names[part][-1],
                side=side,
                rows=len(answers),
                value=_known(value),
                low=_known(low),
                high=_known(high),
                realised=_known(truth),
                labelled=int(came.sum()),
            )
        )
    return found


def _blocks(rows: pl.DataFrame, asked: _Asked, time: str | None, timezone: str, side: str, *, labelled: bool) -> _Rows:
    """Rows with an answer, and a label where it is asked, by day or in pieces of random rows."""
    answers, labels = asked.by.answers(rows, side), asked.by.labels(rows, asked.label)
    kept = are_finite(answers) & (np.isfinite(labels) if labelled else True)
    names: list[str] = []
    if time:
        days = days_of(rows, time, timezone, side)
        kept &= days.is_not_null().to_numpy()
        codes = days.to_physical().cast(pl.Int64).fill_null(0).to_numpy()[kept]
        names = [str(day) for day in days.filter(pl.Series(kept)).unique().sort().to_list()]
    else:
        codes = _dealt(rows, asked, kept)
    frame = rows.select(asked.inputs).filter(pl.Series(kept)) if asked.inputs else pl.DataFrame()
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=np.nan if codes.size else 0.0))
    parts = np.split(order, starts[1:]) if order.size else []
    return _Rows(
        frames=tuple(frame[part] if asked.inputs else pl.DataFrame() for part in parts),
        labels=tuple(labels[kept][part] for part in parts),
        answers=tuple(answers[kept][part] for part in parts),
        names=tuple(names),
    )


def _dealt(rows: pl.DataFrame, asked: _Asked, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Which piece of random rows each kept row is in (n,): rows that are equal may change places, others do not."""
    names = [name for name in (*asked.by.columns, asked.label, *asked.inputs) if name in rows.columns]
    order = rows.select(names).filter(pl.Series(kept)).select(pl.arg_sort_by(*names)).to_series().to_numpy()
    pieces = max(1, min(PIECES, order.size // LEAST_ROWS))
    codes = np.empty(order.size, dtype=np.int64)
    codes[order] = np.random.default_rng(asked.seed).permutation(np.arange(order.size) % pieces)
    return codes


def _like(old: _Rows, new: _Rows) -> int:
    """How many blocks of the reference a window like the current table has."""
    if old.names:
        return max(1, len(new.names))
    return max(1, round(new.size / max(1.0, old.size / max(1, len(old.answers)))))


def _refuse(asked: _Asked, answers: FloatArray) -> None:
    """Raise Refused for answers that say nothing."""
    if len(answers) < LEAST_ROWS:
        raise Refused(f"the current table has {len(answers)} answers, {LEAST_ROWS} are needed")
    low, high = float(answers.min()), float(answers.max())
    if not np.ptp(answers, axis=0).any():
        same = "the same" if asked.by.task.classes else f"{low:g}"
        raise Refused(f"every current answer is {same}, so they say nothing about which rows are wrong")
    if asked.task != "regression" and (low < 0 or high > 1):
        raise Refused(f"current answers reach from {low:g} to {high:g}: they are no probabilities")


def _metric(metric: str | None, task: str) -> str:
    known = tuple({"classification": HIGHER_IS_BETTER, MULTICLASS: OF_CLASSES, "regression": DIRECT}[task])
    chosen = metric or ("mae" if task == "regression" else "roc_auc")
    if chosen not in known:
        raise NotFound("estimated metric", chosen, known)
    return chosen


def _verdict(asked: _Asked, level: float, low: float, high: float) -> tuple[Verdict, str]:
    if not math.isfinite(low):
        return "unknown", "the reference is too short to say how far an estimate errs"
    against = f"{level:.4g} on the reference"
    if low <= level <= high:
        return "no evidence", f"the interval holds {against}"
    is_lower = high < level
    verdict: Verdict = "worse" if is_lower == DIRECTION.get(asked.metric, False) else "better"
    return verdict, f"the interval lies {'below' if is_lower else 'above'} {against}"


def _by_labels(
    asked: _Asked, level: float, interval: tuple[float, float], realised: float, labelled: int
) -> tuple[Verdict, str] | None:
    """The verdict of labels that lie outside the interval of their own rows; None where they do not.

    Labels of a few rows scatter as estimates do, so they are held against the reference with the interval's width.
    """
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(realised)) or low <= realised <= high:
        return None
    half = (high - low) / 2
    verdict, _ = _verdict(asked, level, realised - half, realised + half)
    return verdict, (
        f"the labels say otherwise: {realised:.4g} on {labelled:,} rows, outside {low:.4g} to {high:.4g}, which was "
        f"estimated for them; it is {level:.4g} on the reference"
    )


def _unknown(asked: _Asked, why: str, rows: int, labelled: int) -> QualityEstimate:
    return QualityEstimate(
        metric=asked.metric,
        task=asked.task,
        verdict="unknown",
        why=why,
        value=None,
        low=None,
        high=None,
        reference=None,
        realised=None,
        rows=rows,
        labelled=labelled,
        usual_error=None,
        method="",
        assumes="",
        trust="",
        is_usable=False,
        points=(),
    )


def _method(estimator: Estimator) -> str:
    if isinstance(estimator, DirectLoss):
        return "direct loss estimation"
    if isinstance(estimator, ClassConfidence):
        return f"CBPE by class, calibration: {', '.join(estimator.curves.methods)}"
    return f"CBPE, calibration: {estimator.curve.method}"


def _assumes(old: _Rows) -> str:
    if len(old.answers) < LEAST_BLOCKS:
        return "if the concept holds"
    if old.names:
        return "if the concept holds; days are the unit of the interval"
    return "if the concept holds, and rows are independent: name their time with time= if they are not"


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
