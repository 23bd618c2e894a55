"""Slices: the segments of the rows in which the loss got worse most."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.checks.instants import times_of
from holdfast.checks.labelled import pairs, takes
from holdfast.checks.sequence import mixed, overlap
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.core.protocols import Task
from holdfast.errors import UnknownKind
from holdfast.stats.slices import Column, Search, Slice, find_slices

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Few = Annotated[int, msgspec.Meta(ge=1, le=20)]
Paired = Annotated[int, msgspec.Meta(ge=0, le=100)]
NAME = "slice_rise"


class Slices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Segments of one column or two whose mean loss rose beyond that of the other rows of the same days.

    Searched on labelled rows of the window against those of the reference, corrected for having searched.
    """

    needs: ClassVar[frozenset[Role]] = frozenset({Role.INPUT, Role.OUTPUT, Role.LABEL})
    facts: ClassVar[frozenset[str]] = frozenset({"task"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "stated"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "reference"

    loss: str = ""
    """A loss of the task; empty is its first."""
    columns: tuple[str, ...] = ()
    """Columns to search; empty means all inputs but times."""
    level: Share = 0.01
    """How often one look at days without a change may find a segment, whatever the number of columns."""
    paired: Paired = 40
    """So many of the columns, the first ones, are searched two by two; 0 searches each by itself. Time grows with the
    square of it."""
    most: Few = 3
    """How many segments are said at most."""
    seed: int = 0
    """Seed of the dealing."""

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        """One reading per segment that got worse, or one of 0 for none; its subject says which rows it is about."""
        task: Task = window.facts["task"]
        if self.loss and self.loss not in task.losses:
            raise UnknownKind("losses", self.loss, task.losses)
        if twice := overlap(window, baseline):
            return [_unknown(twice, 0)]
        times = times_of(window)
        columns = [name for name in self.columns or window.columns(Role.INPUT) if name not in times]
        if changed_type := mixed(
            [block.rows().select(c for c in columns if c in block.rows().columns) for block in window.blocks]
        ):
            return [_unknown(changed_type, 0)]
        inside = {block.day for block in window.blocks}
        rest = [block for block in baseline.blocks if block.day not in inside] if baseline else []
        old = _gathered(rest, window, task, self.loss or task.losses[0], columns)
        new = _gathered(window.blocks, window, task, self.loss or task.losses[0], columns)
        rows = int(new.loss.size)
        changed = [name for name in columns if _is_number(old.columns[name]) != _is_number(new.columns[name])]
        if rows and old.loss.size and changed:
            return [_unknown(f"the type of {', '.join(changed)} is not that of the reference", rows)]
        found = find_slices(
            old.columns,
            old.loss,
            old.day,
            new.columns,
            new.loss,
            new.day,
            paired=self.paired,
            most=self.most,
            seed=self.seed,
        )
        return self._readings(found, rows)

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails for a segment that was found: it is said only where it stands out at the `level`."""
        if reading.value is None:
            return Grade.UNKNOWN, reading.note
        if reading.subject:
            return Grade.FAIL, f"the loss rose by {reading.value:.3g} where {reading.subject}: {reading.note}"
        return Grade.PASS, reading.note

    def _readings(self, found: Search, rows: int) -> list[Reading]:
        if found.why:
            return [_unknown(found.why, rows)]
        if found.least_p > self.level:
            why = f"so few days can show p = {found.least_p:.2g} at best, and the level is {self.level:g}"
            return [_unknown(why, rows)]
        worst = [_said(each) for each in found.slices if each.p_value <= self.level]
        if worst:
            return worst
        nearest = f"; nearest is {found.slices[0]}, p = {found.slices[0].p_value:.2g}" if found.slices else ""
        note = f"none of {found.searched:,} segments got worse than the rest{nearest}"
        return [Reading(name=NAME, value=0.0, rows=rows, note=note)]


class _Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled rows of several blocks end to end."""

    columns: Mapping[str, Column]
    loss: np.ndarray[Any, np.dtype[np.float64]]
    day: np.ndarray[Any, np.dtype[np.int64]]


def _gathered(blocks: Sequence[Block], window: Window, task: Task, loss: str, columns: Sequence[str]) -> _Gathered:
    output, label = window.columns(Role.OUTPUT)[0], window.columns(Role.LABEL)[0]
    frames, losses, days = [], [], []
    for block in blocks:
        y, p = pairs(block, output, label)
        if len(y):
            rows, loss_of = block.rows(), np.asarray(task.loss(loss, y, p), dtype=np.float64)
            known = ~np.isnan(loss_of)
            present = [name for name in columns if name in rows.columns]
            frames.append(rows.filter(pl.Series(takes(rows, output, label))).select(present).filter(pl.Series(known)))
            losses.append(loss_of[known])
            days.append(np.full(int(known.sum()), block.day.toordinal(), dtype=np.int64))
    if not frames:
        return _Gathered(columns=dict.fromkeys(columns, np.empty(0)), loss=np.empty(0), day=np.empty(0, dtype=np.int64))
    table = pl.concat(frames, how="diagonal_relaxed")
    values = {name: _column(table, name) for name in columns}
    return _Gathered(columns=values, loss=np.concatenate(losses), day=np.concatenate(days))


def _column(table: pl.DataFrame, name: str) -> Column:
    if name not in table.columns:
        return np.full(table.height, np.nan)
    series = table[name]
    if series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null):
        return series.cast(pl.Float64).to_numpy()
    if series.dtype.is_nested():  # no segment can be said of it
        return np.full(table.height, np.nan)
    return series.cast(pl.String).to_list()


def _is_number(values: Column) -> bool:
    return isinstance(values, np.ndarray)


def _said(found: Slice) -> Reading:
    low, high = found.rise
    note = (
        f"{found.before:.3g} before, {found.after:.3g} now on {found.rows:,} rows ({found.share:.1%}), "
        f"{found.beyond:.3g} beyond the rest; p = {found.p_value:.2g} after the search"
    )
    known = np.isfinite(low)
    return Reading(
        name=NAME,
        value=found.after - found.before,
        rows=found.rows,
        low=float(low) if known else None,
        high=float(high) if known else None,
        subject=str(found),
        note=note,
    )


def _unknown(why: str, rows: int) -> Reading:
    return Reading(name=NAME, value=None, rows=rows, note=why)
