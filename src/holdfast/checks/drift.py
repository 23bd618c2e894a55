"""Drift: how far each input and the answers have moved from what the model was trained on."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.checks.instants import times_of
from holdfast.checks.stated import at_most
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.stats.distance import DISTANCES, coarsen, total_variation
from holdfast.stats.histogram import Edges, IntArray, count

LEAST_ROWS = 30
"""With fewer values present in the window a distance measures the window's size, not a shift."""

STATED = {"psi": 12.0, "ks": 0.99, "jensen_shannon": 0.97}
"""Limits while history is too short to calibrate: what only a column reaches that shares next to nothing with
the reference. A day of weather is at 0.7 (Jensen-Shannon) from its quarter without anything being wrong."""


class Drift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Distance of every input column, and of the output, from the reference. Missing values do not count in it.

    Times are left out: they move on by themselves.
    """

    needs: ClassVar[frozenset[Role]] = frozenset({Role.INPUT})
    facts: ClassVar[frozenset[str]] = frozenset({"edges"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "window"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "reference"

    distance: Literal["psi", "jensen_shannon", "ks"] = "psi"
    """Jensen-Shannon distance (base 2) and PSI on ten cells of equal mass, KS on all cells; for categories, which
    have no order, KS is the total variation distance."""
    columns: tuple[str, ...] = ()
    """Columns to look at; empty means all inputs but times, and the output."""

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        """One reading per column. Blocks of the window that are in the baseline are left out of the baseline."""
        times = times_of(window)
        every = [*window.columns(Role.INPUT), *window.columns(Role.OUTPUT)]
        columns = list(self.columns) or [column for column in every if column not in times]
        edges: Mapping[str, Edges] = window.facts["edges"]
        known = [column for column in columns if column in edges and column not in times]
        inside = set(window.blocks)
        rest = [block for block in baseline.blocks if block not in inside] if baseline else []
        current, changed = _total(window.blocks, known, edges)
        reference, _ = _total(rest, known, edges)
        readings, start = {}, 0
        for column in known:
            end = start + edges[column].cells + 3
            readings[column] = self._reading(column, edges[column], reference[start:end], current[start:end])
            start = end
        for column in columns:
            if column in times:
                readings[column] = self._unknown(column, f"{column} is a time, which moves on by itself; leave it out")
            elif column not in edges:
                readings[column] = self._unknown(column, "no edges: the reference has not counted this column")
            elif column in changed:
                readings[column] = self._unknown(column, f"the type of {column} changed: {changed[column]}")
        return [readings[column] for column in columns]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails above a fixed distance that only a broken column reaches; see the check's page."""
        return at_most(reading, STATED[self.distance])

    def _reading(self, column: str, edges: Edges, reference: IntArray, current: IntArray) -> Reading:
        before, now = reference[:-1], current[:-1]
        rows = int(now.sum())
        if not before.sum():
            return self._unknown(column, "the reference has no value of it")
        if rows < LEAST_ROWS:
            return self._unknown(column, f"{rows} values present, {LEAST_ROWS} are needed", rows)
        outside = int(now[0] + max(0, now[-1] - (before[-1] if edges.is_category else 0))) / rows
        note = f"{outside:.1%} lie outside what the reference had" if outside >= 0.001 else ""
        if edges.is_category and self.distance == "ks":
            value = total_variation(before, now)
        elif edges.is_category or self.distance == "ks":
            value = DISTANCES[self.distance](before, now)
        else:
            value = DISTANCES[self.distance](*coarsen(before, now))
        if math.isnan(value):
            return self._unknown(column, "the distance is undefined on these counts", rows)
        return Reading(name=self.distance, value=value, rows=rows, subject=column, note=note)

    def _unknown(self, column: str, why: str, rows: int = 0) -> Reading:
        return Reading(name=self.distance, value=None, rows=rows, subject=column, note=why)


Counted = tuple[IntArray, dict[str, str]]


def _total(blocks: Sequence[Block], columns: Sequence[str], edges: Mapping[str, Edges]) -> Counted:
    """Counts of all columns end to end over all blocks, and the columns whose type does not fit their edges."""
    key = ("histograms", tuple((column, edges[column].digest) for column in columns))
    counted = [block.remember(key, lambda rows: _count(rows, columns, edges)) for block in blocks]
    if not counted:
        return np.zeros(sum(edges[column].cells + 3 for column in columns), dtype=np.int64), {}
    changed: dict[str, str] = {}
    for _, wrong in counted:
        changed.update(wrong)
    return np.sum([cells for cells, _ in counted], axis=0, dtype=np.int64), changed


def _count(rows: pl.DataFrame, columns: Sequence[str], edges: Mapping[str, Edges]) -> Counted:
    cells, changed = [], {}
    for column in columns:
        edge = edges[column]
        if column not in rows.columns:
            cells.append(np.append(np.zeros(edge.cells + 2, dtype=np.int64), rows.height))
            continue
        series = rows[column]
        fits = edge.is_category != (series.dtype.is_numeric() or series.dtype == pl.Boolean)
        if not fits and series.null_count() < rows.height:
            changed[column] = f"{series.dtype} where the reference had {'text' if edge.is_category else 'numbers'}"
            cells.append(np.zeros(edge.cells + 3, dtype=np.int64))
        elif edge.is_category:
            cells.append(count(series.cast(pl.String).to_list(), edge).counted)
        else:
            cells.append(count(series.cast(pl.Float64).to_numpy(), edge).counted)
    return (np.concatenate(cells) if cells else np.zeros(0, dtype=np.int64)), changed
