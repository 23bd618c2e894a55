"""May this candidate be released? In: the hold-out scored by candidate, live and baselines. Out: verdicts."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl

from holdfast.core import kinds
from holdfast.core.evidence import Block, Grade, Reading, Role, Verdict, Window
from holdfast.core.protocols import Check, Task, Transaction
from holdfast.core.records import Job, Release, Run, Version
from holdfast.core.signature import Signature
from holdfast.core.spec import Gate, SystemSpec
from holdfast.core.targets import end_to_end, mean_loss, target_of
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
MOST_REPLICATES = 100_000
"""Of the bootstrap; its quantiles are exact enough down to a level of 0.0005."""
MONTH = timedelta(days=30)
"""Over any so many days the attempts to be better share one level."""
PART = 0.5
"""Share of the level left that an attempt spends."""
LEAST_LEVEL = 0.0005
"""What is left below this is not spent: no bootstrap of a few days can tell so rare a chance."""
BETTER = "better"
"""Check and name of the verdict on whether a candidate is worth having."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate must show to be released, because who asked for its training said so."""

    cost: float
    """Mean loss a row that it must earn beyond what live has, in the loss of `release.decide`."""
    level: float
    """Probability with which a candidate that does not earn it may pass, in [0, 0.5); 0 where none is left."""
    unseen_from: datetime | None = None
    """From here on live was fitted on nothing: days before say too much good of it, and are left out."""
    attempts: int = 0
    """How many others were judged on such terms in the 30 days before."""


def terms(tx: Transaction, spec: SystemSpec, release: Release) -> Terms | None:
    """The terms on which a candidate was asked for; None where there are none, or nothing is live to compare with.

    Whoever tries often enough finds a candidate that seems better. So all attempts of any 30 days together have the
    level 1 - `release.decide.confidence`: each spends half of what those of the 30 days before it left (error
    spending under any dependence, by the union bound). Rare attempts have nearly half each; weekly ones a sixth.
    """
    run = tx.get(Run, release.system, release.run)
    job = tx.get(Job, release.system, run.job) if run is not None and run.job else None
    if job is None or job.payload.get("if") != BETTER or not release.against:
        return None
    since = release.at - MONTH
    spent = [
        verdict.level or 0.0
        for other in tx.find(Release, release.system)
        if other.id != release.id and other.at > since
        for verdict in other.evidence
        if verdict.check == BETTER
    ]
    level = PART * (1 - spec.release.decide.confidence - math.fsum(spent))
    spendable = level if level >= LEAST_LEVEL else 0.0
    live = tx.get(Version, release.system, release.against)
    fitted = tx.get(Run, release.system, live.run) if live is not None else None
    return Terms(
        cost=float(job.payload.get("cost", 0.0)),
        level=spendable,
        unseen_from=fitted.trained_until if fitted is not None else None,
        attempts=len(spent),
    )


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
    Where the window's facts have `terms`, it must also be better than live on these.

    `served` are the recorded inputs of the hold-out's days, with ``key``; a frame without rows at a first release.
    """
    if not spec.gates:
        raise GateRefused("no gates are stated, and nothing is released without one; add at least one under 'gates:'")
    verdicts = list(_beats_baselines(spec, task, window))
    asked: Terms | None = window.facts.get("terms")
    if asked is not None:
        verdicts.append(_is_worth_it(spec, task, window, asked))
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


def has_compared(verdicts: Sequence[Verdict]) -> bool:
    """Whether a refusal says anything of the candidate: not where all that refused it could not be measured, or was
    not for want of a level. Without any verdict on record it is taken to."""
    refused = [verdict for verdict in verdicts if verdict.grade in (Grade.FAIL, Grade.UNKNOWN)]
    return not refused or any(v.grade is Grade.FAIL and v.reading.value is not None for v in refused)


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


def _is_worth_it(spec: SystemSpec, task: Task, window: Window, asked: Terms) -> Verdict:
    """Whether the candidate's loss is lower than live's by more than the cost, for sure, on days neither has seen."""
    loss = spec.release.decide.loss
    if not asked.level:
        reading = Reading(name=f"{loss}_gain", value=None, note="no level is left")
        why = f"{asked.attempts} candidates of these 30 days were tried for being better; wait, or retrain less often"
        return Verdict(grade=Grade.FAIL, check=BETTER, reading=reading, why=why, monitor=BETTER, level=0.0)
    unseen = [block for block in window.blocks if asked.unseen_from is None or block.start >= asked.unseen_from]
    days = Window(unseen, window.roles, window.facts)
    worse, low, high, rows = compare(task, days, loss, task.output, "live", confidence=1 - 2 * asked.level)
    known = not math.isnan(high)
    gain, least, most = -worse, -high, -low
    reading = Reading(
        name=f"{loss}_gain",
        value=gain if known else None,
        low=least if known else None,
        high=most if known else None,
        rows=rows,
    )
    again = f"; attempt {asked.attempts + 1} of these 30 days, at a level of {asked.level:.3g}"
    if not known:
        grade, why = (
            Grade.UNKNOWN,
            f"{loss} could not be compared with that of live on two days that it was not fitted on",
        )
    else:
        grade = Grade.PASS if least > asked.cost else Grade.FAIL
        word = "covers" if grade is Grade.PASS else "does not cover"
        why = (
            f"a new version {word} its cost: its gain over live in {loss} is {gain:+z.4f} a row, at least "
            f"{least:+z.4f}, on {rows:,} rows of {len(unseen)} days; more than {asked.cost:g} is needed{again}"
        )
    return Verdict(grade=grade, check=BETTER, reading=reading, why=why, monitor=BETTER, level=asked.level)


def _level(task: Task, window: Window, metric: str, output: str) -> float:
    """How large a metric is on the labelled rows, whatever its sign."""
    rows = window.rows().filter(pl.col("label").is_not_null())
    y, answers = target_of(task, rows), rows[output].to_numpy()
    value = mean_loss(task.loss(metric, y, answers)) if metric in task.losses else task.metrics(y, answers)[metric]
    return abs(float(value))


def _by(worse: float, low: float, high: float) -> str:
    """How much worse or better, with the interval in the same direction."""
    if worse < 0:
        return f"better by {-worse:z.4f} [{-high:z.4f}, {-low:z.4f}]"
    return f"worse by {worse:z.4f} [{low:z.4f}, {high:z.4f}]"


def compare(
    task: Task, window: Window, metric: str, output: str, other: str, *, confidence: float = CONFIDENCE
) -> tuple[float, float, float, int]:
    """How much worse `output` is than `other` in a metric, its interval by block bootstrap, and the rows.

    Positive is worse, whatever the metric's direction. Both are scored on the same labelled rows; days are resampled
    in blocks (Künsch 1989), since losses cluster by day.
    """
    days = [
        (target_of(task, rows), rows[output].to_numpy(), rows[other].to_numpy())
        for rows in (block.rows().filter(pl.col("label").is_not_null()) for block in window.blocks)
        if rows.height
    ]
    rows = sum(len(y) for y, _, _ in days)
    if not days:
        return float("nan"), float("nan"), float("nan"), 0
    if metric in task.losses:
        means = np.array([mean_loss(task.loss(metric, y, a) - task.loss(metric, y, b)) for y, a, b in days])
        weights = np.array([len(y) for y, _, _ in days], dtype=np.float64)
        means, weights = means[~np.isnan(means)], weights[~np.isnan(means)]
        if not means.size:
            return float("nan"), float("nan"), float("nan"), rows
        # An end of the interval must lie well within what was resampled, however small the level.
        replicates = max(1000, min(MOST_REPLICATES, math.ceil(50 / (1 - confidence))))
        low, high = bootstrap.block_bootstrap_mean(means, weights, confidence, seed=0, replicates=replicates)
        return float(np.average(means, weights=weights)), low, high, rows
    sign = -1.0 if task.higher_is_better(metric) else 1.0

    def difference(*scored: Any) -> float:
        y, a, b = scored
        return sign * (task.metrics(y, a)[metric] - task.metrics(y, b)[metric])

    low, high = bootstrap.block_bootstrap_metric(days, difference, confidence, seed=0, join=end_to_end)
    y, *answers = zip(*days, strict=True)
    return difference(end_to_end(y), *map(np.concatenate, answers)), low, high, rows
