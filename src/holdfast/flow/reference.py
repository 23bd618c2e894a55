"""What a version was promised to be like. In: the rows it was made from and its scored hold-out. Out: a reference."""

import io
import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from holdfast.core.evidence import Block
from holdfast.core.protocols import Task
from holdfast.core.signature import Signature
from holdfast.core.spec import SystemSpec
from holdfast.core.targets import mean_loss, taken, target_of, with_lists
from holdfast.flow.classes import parted
from holdfast.flow.days import blocks_of, day_expr
from holdfast.flow.monitors import Reference
from holdfast.stats import bootstrap, histogram

REFERENCE_DAYS = 180
"""How many of the newest days that a version was made from are its reference; enough for 25 disjoint weeks."""
PROMISE_CONFIDENCE = 0.9
"""Confidence of the two-sided interval around a loss on the hold-out days, whose upper end is promised."""


def read_holdout(data: bytes) -> pl.DataFrame:
    """The scored hold-out of a run."""
    return pl.read_parquet(io.BytesIO(data))


def make_reference(
    spec: SystemSpec,
    task: Task,
    version: str,
    signature: Signature,
    rows: pl.DataFrame,
    holdout: pl.DataFrame,
    folds: Sequence[Mapping[str, float]],
    *,
    validated: pl.DataFrame | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Reference:
    """The reference of a version.

    `rows` are the rows of its snapshot up to the end of the hold-out, `holdout` the scored hold-out with the columns
    ``key``, ``event_at``, ``label`` and ``candidate``; `folds` are the metrics of its validation folds, `validated`
    the rows that these scored, with ``key`` and ``candidate``; runs of before they were kept have none. `facts` are
    what else a check may ask about the version.
    """
    day = day_expr(spec.data.timezone)
    dated = with_lists(task, rows.filter(day > day.max() - pl.duration(days=REFERENCE_DAYS)))
    dated = dated.with_columns(taken(task, dated["label"]))
    # Answers to rows that were fitted on are better than live ones can be: only those to later rows are a reference,
    # the version's own on the hold-out and, before it, those of the models of its validation folds.
    scored = [holdout, *([] if validated is None else [validated])]
    answers = pl.concat([frame.select("key", pl.col("candidate").alias(task.output)) for frame in scored])
    answers = answers.unique("key", keep="first", maintain_order=True)
    dated = parted(dated.join(answers, on="key", how="left", maintain_order="left"), task.output, task.classes)
    # The version's own columns: the file may have gained some since.
    names = [*(column.name for column in signature.columns), *signature.outputs, "label"]
    edges = {name: histogram.edges_of(_values(dated[name])) for name in names if name in dated.columns}
    return Reference(
        version=version,
        blocks=tuple(blocks_of(spec.data.timezone, dated)),
        facts={**(facts or {}), "edges": edges, "signature": signature},
        promised=promised_losses(spec, task, holdout, folds),
    )


def reference_of_answers(
    spec: SystemSpec, task: Task, version: str, signature: Signature, days: Sequence[Block], end: date, *, awaited: str
) -> Reference:
    """The reference of a version that is served elsewhere: answers of the days that it is held to, up to `end`.

    `awaited` says why labels are not complete yet, or is empty: then the days carry their labels.
    """
    blocks = tuple(block for block in days if block.rows().height)
    if not blocks:
        nothing = f"no answer lies in the days of the reference, which ended on {end}"
        facts = {"edges": {}, "signature": signature}
        return Reference(version=version, blocks=(), facts=facts, promised={}, short=nothing)
    rows = pl.concat([block.rows() for block in blocks], how="diagonal_relaxed")
    names = [*(column.name for column in signature.columns), *signature.outputs, "label"]
    edges = {name: histogram.edges_of(_values(rows[name])) for name in names if name in rows.columns}
    labelled = rows.filter(pl.col("label").is_not_null())
    if not awaited and labelled.is_empty():
        awaited = f"no label has come for the answers of the reference, which ended on {end}"
    answered = labelled.rename({task.output: "candidate"})
    return Reference(
        version=version,
        blocks=blocks,
        facts={"edges": edges, "signature": signature},
        promised={} if awaited else promised_losses(spec, task, answered),
        unlabelled=awaited,
        until=end,
    )


def promised_losses(
    spec: SystemSpec, task: Task, holdout: pl.DataFrame, folds: Sequence[Mapping[str, float]] = ()
) -> Mapping[str, float]:
    """What each loss and error of the task was promised to stay under.

    It is the upper end of its interval over hold-out days, resampled in blocks, or the worst of its validation folds
    where that is higher: the hold-out alone is two weeks, which may have been easy ones, and the folds show how far
    the loss moves when nothing is wrong. NaN where neither says anything: a hold-out of one day has no interval.
    """
    labelled = holdout.filter(pl.col("label").is_not_null())
    days = [block.rows() for block in blocks_of(spec.data.timezone, labelled)]
    promised: dict[str, float] = {}
    weights = np.array([rows.height for rows in days], dtype=np.float64)
    for loss in (*task.losses, *task.errors):
        means = np.array([_mean(task, loss, rows) for rows in days])
        _, high = bootstrap.block_bootstrap_mean(means, weights, confidence=PROMISE_CONFIDENCE, seed=0)
        ends = [value for value in (high, *(fold.get(loss, math.nan) for fold in folds)) if math.isfinite(value)]
        promised[loss] = max(ends, default=math.nan)
    return promised


def _mean(task: Task, loss: str, rows: pl.DataFrame) -> float:
    y, output = target_of(task, rows), rows["candidate"].to_numpy()
    return mean_loss(task.loss(loss, y, output)) if loss in task.losses else task.metrics(y, output)[loss]


def _values(column: pl.Series) -> Any:
    return column.to_list() if column.dtype == pl.String else column.to_numpy()
