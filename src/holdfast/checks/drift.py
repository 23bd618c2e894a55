"""Drift: how far inputs, answers and labels have moved from what the model was trained on."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.checks.instants import times_of
from holdfast.checks.sequence import overlap
from holdfast.checks.stated import at_most
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.stats.counting import count_rows
from holdfast.stats.distance import DISTANCES, coarsen, total_variation
from holdfast.stats.histogram import Edges, IntArray

LEAST_ROWS = 30
"""With fewer values present in the window a distance measures the window's size, not a shift."""

MISSING = "missing"
"""Reading of how far the share of missing values is from that of the reference."""
STATED = {"psi": 12.0, "ks": 0.99, "jensen_shannon": 0.97}
"""Limits while history is too short to calibrate: what only a column reaches that shares next to nothing with
the reference. A day of weather is at 0.7 (Jensen-Shannon) from its quarter without anything being wrong."""
STATED_MISSING = 0.5
"""The same for the missing share: half of the rows lack what they had, or have what they lacked."""


class Drift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Distance of every input column, and of the output, from the reference, and how far the share of missing values of
    every input is from the reference's. Missing values do not count in a distance.

    Times are left out: they move on by themselves. The label is compared when it is asked for, on the days whose
    labels are complete.
    """

    needs: ClassVar[frozenset[Role]] = frozenset({Role.INPUT})
    facts: ClassVar[frozenset[str]] = frozenset({"edges"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "window"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "reference"

    distance: Literal["psi", "jensen_shannon", "ks"] = "psi"
    """Jensen-Shannon distance (base 2) and PSI on ten cells of equal mass, KS on all cells; for categories, which
    have no order, KS is the total variation distance."""
    columns: tuple[str, ...] = ()
    """Columns to look at, `label` for the labels; empty means all inputs but times, and the output."""

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        """One distance per column, then `missing` of each input that has rows enough; both in the order of the columns.

        Blocks of the window that are in the baseline are left out of the baseline.
        """
        times, labels = times_of(window), window.columns(Role.LABEL)
        every = [*window.columns(Role.INPUT), *window.columns(Role.OUTPUT)]
        columns = list(self.columns) or [column for column in every if column not in times]
        edges: Mapping[str, Edges] = window.facts["edges"]
        if why := overlap(window, baseline):
            return [self._unknown(column, why) for column in columns]
        known = [column for column in columns if column in edges and column not in times]
        inside = set(window.blocks)
        rest = [block for block in baseline.blocks if block not in inside] if baseline else []
        readings, missing, changed = self._readings([c for c in known if c not in labels], window.blocks, rest, edges)
        if asked := [column for column in known if column in labels]:
            mature, why = _mature(window)
            of_labels, _, changed_labels = self._readings(asked, mature, rest, edges)
            readings |= {column: self._unknown(column, why) for column in asked} if why else of_labels
            changed |= changed_labels
        for column in columns:
            if column in times:
                readings[column] = self._unknown(column, f"{column} is a time, which moves on by itself; leave it out")
            elif column not in edges:
                readings[column] = self._unknown(column, "no edges: the reference has not counted this column")
            elif column in changed:
                readings[column] = self._unknown(column, f"the type of {column} changed: {changed[column]}")
        inputs = set(window.columns(Role.INPUT)).difference(times, changed)
        return [readings[column] for column in columns] + [missing[c] for c in columns if c in missing and c in inputs]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails above a fixed distance that only a broken column reaches; see the check's page."""
        return at_most(reading, STATED_MISSING if reading.name == MISSING else STATED[self.distance])

    def _readings(
        self, columns: Sequence[str], blocks: Sequence[Block], rest: Sequence[Block], edges: Mapping[str, Edges]
    ) -> tuple[dict[str, Reading], dict[str, Reading], dict[str, str]]:
        """By column how far it moved, how far its missing share did, and of those whose type changed in which way."""
        current, changed = _total(blocks, columns, edges)
        reference, _ = _total(rest, columns, edges)
        readings, missing, start = {}, {}, 0
        for column in columns:
            end = start + edges[column].cells + 3
            before, now = reference[start:end], current[start:end]
            readings[column] = self._reading(column, edges[column], before, now)
            if before.sum() and now.sum() >= LEAST_ROWS:
                missing[column] = _missing(column, before, now)
            start = end
        return readings, missing, changed

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


def _missing(column: str, before: IntArray, now: IntArray) -> Reading:
    """How far the share of missing values, the last cell, is from the reference's; in [0, 1]."""
    usual, share = float(before[-1] / before.sum()), float(now[-1] / now.sum())
    note = f"{share:.1%} of it are missing, usually {usual:.1%}"
    return Reading(name=MISSING, value=abs(share - usual), rows=int(now.sum()), subject=column, note=note)


def _mature(window: Window) -> tuple[list[Block], str]:
    """The blocks whose labels are complete, and why there are none."""
    until = window.facts.get("mature_until")
    if until is None:
        return [], "nothing says up to when labels are complete"
    mature = [block for block in window.blocks if block.end <= until]
    why = f"on no day of the window are labels complete (they are until {until:%Y-%m-%d}): watch a longer window"
    return mature, "" if mature else why


Counted = tuple[IntArray, dict[str, str]]


def _total(blocks: Sequence[Block], columns: Sequence[str], edges: Mapping[str, Edges]) -> Counted:
    """Counts of all columns end to end over all blocks, and the columns whose type does not fit their edges."""
    key = ("histograms", tuple((column, edges[column].digest) for column in columns))
    counted = [
        block.remember(key, lambda rows: _count(rows, columns, edges), partial(_counted_before, block, columns, edges))
        for block in blocks
    ]
    if not counted:
        return np.zeros(sum(edges[column].cells + 3 for column in columns), dtype=np.int64), {}
    changed: dict[str, str] = {}
    for _, wrong in counted:
        changed.update(wrong)
    return np.sum([cells for cells, _ in counted], axis=0, dtype=np.int64), changed


def _counted_before(block: Block, columns: Sequence[str], edges: Mapping[str, Edges]) -> Counted | None:
    """Counts that a block has without its rows; None where it lacks those of a column."""
    found = block.counts(edges)
    if found is None or not columns or any(column not in found for column in columns):
        return None
    return np.concatenate([found[column] for column in columns]), {}


def _count(rows: pl.DataFrame, columns: Sequence[str], edges: Mapping[str, Edges]) -> Counted:
    counted = count_rows(rows, {column: edges[column] for column in columns})
    found = counted.histograms
    cells = [
        found[column].counted if column in found else np.zeros(edges[column].cells + 3, dtype=np.int64)
        for column in columns
    ]
    return (np.concatenate(cells) if cells else np.zeros(0, dtype=np.int64)), dict(counted.changed)
