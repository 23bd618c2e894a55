"""Quality: one metric of the task on rows whose labels have come."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.checks.labelled import FloatArray, Pairs, coverage, labelled
from holdfast.checks.sequence import overlap
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.core.protocols import Task
from holdfast.core.targets import end_to_end, labels_of, mean_loss
from holdfast.errors import DataError
from holdfast.stats.bootstrap import UNKNOWN, Interval, block_bootstrap_mean, block_bootstrap_metric


class Quality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric of the task over the window, with a block-bootstrap interval at 95 %."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.OUTPUT, Role.LABEL})
    facts: ClassVar[frozenset[str]] = frozenset({"task"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "stream"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "nothing"

    metric: str
    """A loss of the task (``log_loss``, ``brier``) or any other of its metrics (``roc_auc``, ``mae``)."""
    seed: int = 0
    """Seed of the bootstrap."""

    def measure(self, window: Window, baseline: Window | None = None) -> Sequence[Reading]:
        """The metric, with the rows it rests on; no value where no label came or the metric is undefined."""
        task: Task = window.facts["task"]
        if why := overlap(window):
            return [Reading(name=self.metric, value=None, note=why)]
        blocks = labelled(window)
        rows, note = coverage(window, blocks)
        if not rows:
            return [Reading(name=self.metric, value=None, note=f"no labelled row: {note}")]
        try:
            task.target(pl.Series(window.columns(Role.LABEL)[0], np.concatenate([labels_of(y) for y, _ in blocks])))
        except DataError as refused:
            return [Reading(name=self.metric, value=None, rows=rows, note=str(refused))]
        if self.metric in task.losses:
            value, (low, high) = self._mean_loss(task, window.blocks, blocks)
        else:
            value, (low, high) = self._metric(task, blocks)
        if not math.isfinite(value):
            return [Reading(name=self.metric, value=None, rows=rows, note=f"undefined on these labels; {note}")]
        return [
            Reading(name=self.metric, value=value, rows=rows, low=_known(low), high=_known(high), note=note),
        ]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Always unknown: what is good enough is the system's to promise, not this check's."""
        return Grade.UNKNOWN, reading.note if reading.value is None else (
            f"{reading.name} is {reading.value:.4g}, but nothing was promised: state at_least, at_most or no_worse_than"
        )

    def _mean_loss(self, task: Task, blocks: Sequence[Block], pairs: Sequence[Pairs]) -> tuple[float, Interval]:
        found = [self._block_loss(task, block, *pair) for block, pair in zip(blocks, pairs, strict=True)]
        means, weights = np.array([mean for mean, _ in found]), np.array([float(rows) for _, rows in found])
        used = weights > 0
        if not used.any():
            return math.nan, UNKNOWN
        value = float(np.average(means[used], weights=weights[used]))
        return value, block_bootstrap_mean(means[used], weights[used], seed=self.seed)

    def _block_loss(self, task: Task, block: Block, y: FloatArray, p: FloatArray) -> tuple[float, int]:
        """The mean loss of a block, and the rows that can be judged."""

        def compute(_: pl.DataFrame) -> tuple[float, int]:
            losses = task.loss(self.metric, y, p)
            return mean_loss(losses), int((~np.isnan(losses)).sum())

        return block.remember(("mean loss", task.name, self.metric), compute)

    def _metric(self, task: Task, pairs: Sequence[Pairs]) -> tuple[float, Interval]:
        def measured(y: FloatArray, p: FloatArray) -> float:
            return float(task.metrics(y, p)[self.metric])

        used = [pair for pair in pairs if len(pair[0])]
        task.higher_is_better(self.metric)  # raises with the near miss where the task has no such metric
        value = measured(end_to_end([y for y, _ in used]), np.concatenate([p for _, p in used]))
        interval = (
            UNKNOWN if math.isnan(value) else block_bootstrap_metric(used, measured, seed=self.seed, join=end_to_end)
        )
        return value, interval


def _known(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
