"""May this candidate be released? In: the hold-out scored by candidate, live and baselines. Out: verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from holdfast.core import kinds
from holdfast.core.evidence import Block, Grade, Reading, Role, Verdict, Window
from holdfast.core.protocols import Check, Task
from holdfast.core.signature import Signature
from holdfast.core.spec import Gate, SystemSpec
from holdfast.errors import GateRefused
from holdfast.flow import evaluation
from holdfast.flow.days import blocks_of
from holdfast.stats import bootstrap, histogram

LEAST_ANSWERED = 30
"""Fewer recorded answers than this say nothing about skew."""
ROUNDING = 1e-6
"""Served answers are 32 bits wide: a difference of at most this share of a metric is none."""
CONFIDENCE = 0.9
"""Confidence of the two-sided interval on how much worse a candidate is."""


def holdout_window(spec: SystemSpec, task: Task, holdout: pl.DataFrame, facts: Mapping[str, Any]) -> Window:
    """The hold-out as a window of days, the candidate's output in the task's output column.

    `holdout` has ``key``, ``event_at``, ``label``, the inputs, and one column of outputs per model: ``candidate``,
    ``linear``, ``trivial`` and, where there is one, ``live``.
    """
    blocks = blocks_of(spec.data.timezone, holdout.rename({"candidate": task.output}))
    roles = dict.fromkeys(spec.data.columns, Role.INPUT) | {
        task.output: Role.OUTPUT,
        "label": Role.LABEL,
        "key": Role.KEY,
        "event_at": Role.TIME,
    }
    return Window(blocks, roles, facts)


def judge(spec: SystemSpec, task: Task, window: Window, served: pl.DataFrame) -> tuple[Verdict, ...]:
    """Verdicts of all gates. The first are always there: the candidate must beat the trivial and the linear model.

    `served` are the recorded inputs of the hold-out's days, with ``key``; a frame without rows at a first release.
    """
    if not spec.gates:
        raise GateRefused("no gates are stated, and nothing is released without one; add at least one under 'gates:'")
    verdicts = list(_beats_baselines(spec, task, window))
    for gate in spec.gates:
        verdicts.extend(_judge_gate(gate, task, window, served))
    return tuple(verdicts)


def comparable(candidate: Signature, live: Signature) -> Verdict:
    """Whether live's recorded inputs have every column of the candidate, so that both can be scored on them."""
    new = sorted({column.name for column in candidate.columns} - {column.name for column in live.columns})
    reading = Reading(name="new_columns", value=float(len(new)), unit="columns")
    if not new:
        return Verdict(
            grade=Grade.PASS, check="signature", reading=reading, why="every column of the candidate is answered live"
        )
    why = (
        f"{', '.join(new)}: what is live does not take it, so the two cannot be compared on what is answered; give the "
        "changed system a name of its own, and move the callers when it has proved itself"
    )
    return Verdict(grade=Grade.FAIL, check="signature", reading=reading, why=why)


def refusal(verdicts: Sequence[Verdict]) -> str:
    """Why these verdicts refuse a candidate, or an empty string. Unknown refuses too."""
    return "; ".join(v.why for v in verdicts if v.grade in (Grade.FAIL, Grade.UNKNOWN))


def _judge_gate(gate: Gate, task: Task, window: Window, served: pl.DataFrame) -> Sequence[Verdict]:
    check: Check = kinds.load("checks", gate.check)(**gate.options)
    if check.against == "reference":
        return _judge_skew(gate, check, window, served)
    if gate.limit.no_worse_than is not None:
        metric = str(gate.options.get("metric", task.losses[0]))
        return [_no_worse(gate, task, window, metric)]
    readings = evaluation.measure(check, window, None)
    if gate.limit.is_stated:
        return evaluation.judge_limit(gate.check, readings, gate.limit, name=gate.name).verdicts
    return evaluation.judge_stated(check, gate.check, readings, name=gate.name).verdicts


def _judge_skew(gate: Gate, check: Check, window: Window, served: pl.DataFrame) -> Sequence[Verdict]:
    """Train-serve skew: a candidate's own rows against the inputs that were answered for the same keys.

    They are the same rows, so any distance between them was made on the way to the training or to the answer.
    """
    rows = window.rows()
    # A column that no answer was ever given with is new in the file: there is nothing to compare it with.
    names = [name for name in window.columns(Role.INPUT) if name in served.columns]
    answered = served.join(rows.select("key"), on="key", how="semi") if served.height else served
    if answered.height < LEAST_ANSWERED:
        reading = Reading(name=gate.check, value=None, rows=answered.height, note="too few answers to compare with")
        why = (
            f"{answered.height} answers are on record for the rows of the hold-out, {LEAST_ANSWERED} are needed to "
            "compare the two"
        )
        return [Verdict(grade=Grade.NOT_APPLICABLE, check=gate.check, reading=reading, why=why, monitor=gate.name)]
    trained = rows.join(answered.select("key"), on="key", how="semi")
    edges = {name: histogram.edges_of(_values(answered[name])) for name in names}
    roles = dict.fromkeys(names, Role.INPUT)
    facts = {**window.facts, "edges": edges}
    first, last = window.blocks[0], window.blocks[-1]
    candidate = Window([Block(first.day, first.start, last.end, lambda: trained)], roles, facts)
    baseline = Window([Block(first.day, first.start, last.end, lambda: answered)], roles, facts)
    # Hardly ever there on either side: nothing that a distance could be taken of, and no skew.
    sparse = {name for name in names if max(trained[name].count(), answered[name].count()) < LEAST_ANSWERED}
    readings = [r for r in evaluation.measure(check, candidate, baseline) if r.subject not in sparse]
    if gate.limit.is_stated:
        return evaluation.judge_limit(gate.check, readings, gate.limit, name=gate.name).verdicts
    return evaluation.judge_stated(check, gate.check, readings, name=gate.name).verdicts


def _values(column: pl.Series) -> Any:
    return column.to_list() if column.dtype == pl.String else column.to_numpy()


def _beats_baselines(spec: SystemSpec, task: Task, window: Window) -> list[Verdict]:
    loss = spec.release.decide.loss
    verdicts = []
    for name in ("trivial", "linear"):
        if name == spec.model.trainer:
            continue
        worse, low, high, rows = compare(task, window, loss, task.output, name)
        reading = Reading(name=f"{loss}_over_{name}", value=worse, low=low, high=high, rows=rows)
        if np.isnan(worse):
            grade, why = Grade.UNKNOWN, f"{loss} could not be compared with that of the {name} model"
        else:
            grade, word = (Grade.PASS, "beats") if worse < 0 else (Grade.FAIL, "does not beat")
            why = f"the candidate {word} the {name} model: {loss} is {_by(worse, low, high)} on {rows:,} rows"
        verdicts.append(Verdict(grade=grade, check="baseline", reading=reading, why=why, monitor=name))
    return verdicts


def _no_worse(gate: Gate, task: Task, window: Window, metric: str) -> Verdict:
    other = "live" if gate.limit.no_worse_than == "live" else "linear"
    if other == "live" and "live" not in window.rows().columns:
        reading = Reading(name=metric, value=None, note="nothing is live yet")
        why = "first release: there is no live version to compare with"
        return Verdict(grade=Grade.NOT_APPLICABLE, check=gate.check, reading=reading, why=why, monitor=gate.name)
    worse, low, high, rows = compare(task, window, metric, task.output, other)
    reading = Reading(name=f"{metric}_worse_than_{other}", value=worse, low=low, high=high, rows=rows)
    if np.isnan(worse):
        why = f"{metric} could not be compared with {gate.limit.no_worse_than}"
        return Verdict(grade=Grade.UNKNOWN, check=gate.check, reading=reading, why=why, monitor=gate.name)
    passed = worse <= gate.limit.margin + ROUNDING * _level(task, window, metric, other)
    why = (
        f"{metric} is {_by(worse, low, high)} than that of {gate.limit.no_worse_than} on the same {rows:,} rows; "
        f"worse by up to {gate.limit.margin:g} is accepted"
    )
    grade = Grade.PASS if passed else Grade.FAIL
    return Verdict(grade=grade, check=gate.check, reading=reading, why=why, monitor=gate.name)


def _level(task: Task, window: Window, metric: str, output: str) -> float:
    """How large a metric is on the labelled rows, whatever its sign."""
    rows = window.rows().filter(pl.col("label").is_not_null())
    y, answers = rows["label"].to_numpy(), rows[output].to_numpy()
    value = task.loss(metric, y, answers).mean() if metric in task.losses else task.metrics(y, answers)[metric]
    return abs(float(value))


def _by(worse: float, low: float, high: float) -> str:
    """How much worse or better, with the interval in the same direction."""
    if worse < 0:
        return f"better by {-worse:z.4f} [{-high:z.4f}, {-low:z.4f}]"
    return f"worse by {worse:z.4f} [{low:z.4f}, {high:z.4f}]"


def compare(task: Task, window: Window, metric: str, output: str, other: str) -> tuple[float, float, float, int]:
    """How much worse `output` is than `other` in a metric, its interval by block bootstrap, and the rows.

    Positive is worse, whatever the metric's direction. Both are scored on the same labelled rows; days are resampled
    in blocks (Künsch 1989), since losses cluster by day.
    """
    days = [
        (rows["label"].to_numpy(), rows[output].to_numpy(), rows[other].to_numpy())
        for rows in (block.rows().filter(pl.col("label").is_not_null()) for block in window.blocks)
        if rows.height
    ]
    rows = sum(len(y) for y, _, _ in days)
    if not days:
        return float("nan"), float("nan"), float("nan"), 0
    if metric in task.losses:
        means = np.array([(task.loss(metric, y, a) - task.loss(metric, y, b)).mean() for y, a, b in days])
        weights = np.array([len(y) for y, _, _ in days], dtype=np.float64)
        low, high = bootstrap.block_bootstrap_mean(means, weights, confidence=CONFIDENCE, seed=0)
        return float(np.average(means, weights=weights)), low, high, rows
    sign = -1.0 if task.higher_is_better(metric) else 1.0

    def difference(*scored: Any) -> float:
        y, a, b = scored
        return sign * (task.metrics(y, a)[metric] - task.metrics(y, b)[metric])

    low, high = bootstrap.block_bootstrap_metric(days, difference, CONFIDENCE, seed=0)
    return difference(*(np.concatenate(part) for part in zip(*days, strict=True))), low, high, rows
