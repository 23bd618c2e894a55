"""A system's newest days as daily numbers and as samples of rows. In: live windows, a reference. Out: what dates and
prices an incident."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.core.evidence import Block
from holdfast.core.protocols import Task
from holdfast.core.signature import Column, Signature
from holdfast.core.targets import labels_of, target_of
from holdfast.flow.classes import outputs_of
from holdfast.flow.monitors import Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.stats.distance import coarsen, psi
from holdfast.stats.histogram import Edges, count
from holdfast.stats.impact import Values

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DAYS = 60
"""How far back is looked."""
MOST_READ = 1_000_000
"""Days are read newest first until they have so many rows; older ones then count as not there."""
LEAST_ROWS = 20
"""With fewer rows a day's number says more about its size than about the day."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of several days, oldest first: the model's columns, and for each row its day, label and loss, (n,)."""

    columns: dict[str, Values]
    day: IntArray
    """Ordinals of days."""
    label: FloatArray
    """NaN where it has not come."""
    loss: FloatArray
    """NaN where the label or the answer lacks."""
    retyped: tuple[str, ...] = ()
    """Columns whose type is not the signature's on one of the days: missing in all rows."""

    def without(self, names: Sequence[str]) -> dict[str, Values]:
        """All columns, these ones missing in every row."""
        gone = {name: self.columns[name].copy() for name in names}
        for values in gone.values():
            values.fill(None if values.dtype.kind == "O" else np.nan)
        return {**self.columns, **gone}

    def labelled(self) -> "Sample":
        """Only the rows that have a loss."""
        known = ~np.isnan(self.loss)
        return Sample(
            columns={name: values[known] for name, values in self.columns.items()},
            day=self.day[known],
            label=self.label[known],
            loss=self.loss[known],
            retyped=self.retyped,
        )


class Dailies:
    """The days up to the newest complete one: as answered live, before that as the version's reference has them.

    `days` are those with rows, oldest first. Nothing is read twice; a day's counts are remembered on its block.
    """

    def __init__(self, task: Task, reference: Reference, live: LivePredictions, loss: str, now: datetime) -> None:
        self.loss = loss
        self.mature = live.last_mature_day(now)
        self._task = task
        self._reference = reference
        signature: Signature = reference.facts["signature"]
        self.columns = {column.name: column for column in signature.columns}
        self._outputs = signature.outputs
        self._edges = reference.facts["edges"]
        self._blocks, self.is_cut = _read(reference, live, now)
        self.days = sorted(self._blocks)

    def moves(self, column: str) -> bool:
        """Whether a distance can be told of a column: it was counted for the reference, and is no time."""
        return column in self._edges and not (column in self.columns and self.columns[column].type == "time")

    def distances(self, column: str, days: Sequence[date], before: Sequence[date] = ()) -> FloatArray:
        """How far a column was on each of these days (n,) from what it was on the days `before`, or in the version's
        reference where none are given.

        PSI on ten cells, with missing values as one more; NaN on days with too few rows or another type. Measured on
        flights, a step in it is found sooner than one in the bounded distances: on days that share next to nothing
        with the days before, as one of Celsius has with Fahrenheit, it still grows.
        """
        blocks = [self._blocks[day] for day in before] or self._reference.blocks
        base = self._total(column, blocks)
        return np.array([self._apart(column, base, self._counts(column, self._blocks[day])) for day in days])

    def apart(self, column: str, before: Sequence[date], after: Sequence[date]) -> float:
        """The same distance between two groups of days; NaN where it cannot be told."""
        old, new = (self._total(column, [self._blocks[day] for day in days]) for days in (before, after))
        return self._apart(column, old, new)

    def losses(self) -> tuple[FloatArray, FloatArray]:
        """Mean loss and labelled rows of each of `days`, (n,) and (n,); NaN and 0 where labels are not complete."""
        found = [self._loss(day) for day in self.days]
        return np.array([mean for mean, _ in found]), np.array([rows for _, rows in found], dtype=np.float64)

    def block(self, day: date) -> Block:
        """One of `days`."""
        return self._blocks[day]

    def sample(self, days: Sequence[date], *, most: int, seed: int) -> Sample:
        """At most about so many rows of these days, the same share of each."""
        total = sum(self._blocks[day].rows().height for day in days)
        share = min(1.0, most / total) if total else 1.0
        random = np.random.default_rng(seed)
        parts: list[pl.DataFrame] = []
        ordinals: list[IntArray] = []
        truth: list[tuple[FloatArray, FloatArray]] = []
        for day in days:
            rows = self._blocks[day].rows()
            label, loss = self._truth(rows)  # of all rows: a list is judged whole
            if share < 1.0:
                chosen = np.sort(random.choice(rows.height, round(share * rows.height), replace=False))
                rows, label, loss = rows[chosen], label[chosen], loss[chosen]
            parts.append(rows)
            truth.append((label, loss))
            ordinals.append(np.full(rows.height, day.toordinal(), dtype=np.int64))
        values = {name: [_values(rows, column) for rows in parts] for name, column in self.columns.items()}
        retyped = tuple(name for name, each in values.items() if any(part is None for part in each))
        for name in retyped:
            values[name] = [_missing(rows, self.columns[name]) for rows in parts]
        return Sample(
            columns={name: _joined([part for part in each if part is not None]) for name, each in values.items()},
            day=np.concatenate(ordinals) if ordinals else np.empty(0, dtype=np.int64),
            label=np.concatenate([label for label, _ in truth]) if truth else np.empty(0),
            loss=np.concatenate([loss for _, loss in truth]) if truth else np.empty(0),
            retyped=retyped,
        )

    def _truth(self, rows: pl.DataFrame) -> tuple[FloatArray, FloatArray]:
        nothing = np.full(rows.height, np.nan)
        if "label" not in rows.columns:
            return nothing, nothing
        target = np.asarray(target_of(self._task, rows), dtype=np.float64)
        label = labels_of(target)
        if self._task.output not in rows.columns:
            return label, nothing
        output = outputs_of(rows[self._task.output])
        known = np.isfinite(label) & (np.isfinite(output) if output.ndim == 1 else np.isfinite(output).all(axis=1))
        loss = nothing.copy()
        loss[known] = self._task.loss(self.loss, target[known], output[known])
        return label, loss

    def _loss(self, day: date) -> tuple[float, int]:
        block = self._blocks[day]
        is_of_reference = any(block is each for each in self._reference.blocks)
        if day > self.mature and not is_of_reference:
            return np.nan, 0

        def compute(rows: pl.DataFrame) -> tuple[float, int]:
            _, loss = self._truth(rows)
            known = loss[~np.isnan(loss)]
            return (float(known.mean()), known.size) if known.size >= LEAST_ROWS else (np.nan, 0)

        return block.remember(("mean loss of a day", self._task.name, self.loss), compute)

    def _total(self, column: str, blocks: Sequence[Block]) -> IntArray:
        total = np.zeros(self._edges[column].cells + 3, dtype=np.int64)
        for block in blocks:
            counted = self._counts(column, block)
            total += 0 if counted is None else counted
        return total

    def _counts(self, column: str, block: Block) -> IntArray | None:
        edges: Edges = self._edges[column]
        counted = block.remember(("counted", column, edges.digest), lambda rows: _counted(rows, column, edges))
        if counted is not None and column in self._outputs:
            return np.append(counted[:-1], 0)  # a row that was fitted on has no answer that may count; it lacks none
        return counted

    def _apart(self, column: str, before: IntArray, after: IntArray | None) -> float:
        if after is None or after.sum() < LEAST_ROWS or not before.sum():
            return np.nan
        old, new = before[:-1], after[:-1]
        if not self._edges[column].is_category:
            old, new = coarsen(old, new)
        return psi(np.append(old, before[-1]), np.append(new, after[-1]))


def _read(reference: Reference, live: LivePredictions, now: datetime) -> tuple[dict[date, Block], bool]:
    """The blocks with rows, and whether older ones were left out for their size."""
    last = live.last_complete_day(now)
    known = {block.day: block for block in reference.blocks}
    found: dict[date, Block] = {}
    read = 0
    for block in reversed(live.window(last - timedelta(days=DAYS - 1), last, {}, now).blocks):
        if read >= MOST_READ:
            return found, True
        used = block if block.rows().height else known.get(block.day, block)
        if used.rows().height:
            found[block.day] = used
            read += used.rows().height
    return found, False


def _counted(rows: pl.DataFrame, column: str, edges: Edges) -> IntArray | None:
    """Counts of all cells, missing values last; None for a column of another type."""
    if column not in rows.columns:
        return np.append(np.zeros(edges.cells + 2, dtype=np.int64), rows.height)
    series = rows[column]
    is_number = series.dtype.is_numeric() or series.dtype == pl.Boolean
    if edges.is_category == is_number and series.null_count() < rows.height:
        return None
    if edges.is_category:
        return np.asarray(count(series.cast(pl.String).to_list(), edges).counted)
    return np.asarray(count(series.cast(pl.Float64).to_numpy(), edges).counted)


def _joined(parts: Sequence[Values]) -> Values:
    if not parts:
        return np.empty(0)
    joined: Values = np.concatenate(parts)  # type: ignore[assignment]  # all parts are of one type
    return joined


def _values(rows: pl.DataFrame, column: Column) -> Values | None:
    """A column as the model is asked with it: texts, else floats with NaN for missing (times in microseconds since
    1970 UTC); None where its type is not the signature's."""
    if column.name not in rows.columns or rows[column.name].null_count() == rows.height:
        return _missing(rows, column)
    series = rows[column.name]
    if column.type == "category":
        return np.array(series.cast(pl.String).to_list(), dtype=object)
    if series.dtype.is_temporal() and column.type == "time":
        series = series.dt.epoch("us")
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        return None
    return np.asarray(series.cast(pl.Float64).to_numpy(), dtype=np.float64)


def _missing(rows: pl.DataFrame, column: Column) -> Values:
    empty: Any = np.full(rows.height, None, dtype=object)
    return empty if column.type == "category" else np.full(rows.height, np.nan)
