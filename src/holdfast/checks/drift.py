"""Drift: how far inputs, answers and labels have moved from what the model was trained on."""

import hashlib
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
from holdfast.stats.residual import LEAST_DAYS, FloatArray, middle_ranks, residuals

LEAST_ROWS = 30
"""With fewer values present in the window a distance measures the window's size, not a shift."""

MISSING = "missing"
"""Reading of how far the share of missing values is from that of the reference."""
RESIDUAL = "residual"
"""Reading of how far a number is from what the other numbers lead to expect."""
LEAST_RANKED = 10
"""A mean of so many ranks says something: unlike a distance it is not larger for being of few."""
MOST_NUMBERS = 100
"""With more number columns none is held against the others: the cost grows with the cube of their number."""
STATED = {"psi": 12.0, "ks": 0.99, "jensen_shannon": 0.97}
"""Limits while history is too short to calibrate: what only a column reaches that shares next to nothing with
the reference. A day of weather is at 0.7 (Jensen-Shannon) from its quarter without anything being wrong."""
STATED_MISSING = 0.5
"""The same for the missing share: half of the rows lack what they had, or have what they lacked."""
STATED_RESIDUAL = 0.6
"""The same for the residual, in mean ranks: a column without any tie to others, all of it beyond the reference, is at
0.5."""


class Drift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Distance of every input column, and of the output, from the reference, how far the share of missing values of
    every input is from the reference's, and how far every number among the inputs is from what the other numbers lead
    to expect. Missing values count in the share of them only.

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
        """One distance per column, then `missing` of each input that has rows enough, then `residual` of each number
        among the inputs where the baseline has 30 days; each in the order of the columns.

        Blocks of the window that are in the baseline are left out of the baseline.
        """
        times, labels = times_of(window), window.columns(Role.LABEL)
        every = [*window.columns(Role.INPUT), *window.answered()]
        columns = list(self.columns) or [column for column in every if column not in times]
        edges: Mapping[str, Edges] = window.facts["edges"]
        if why := overlap(window, baseline):
            return [self._unknown(column, why) for column in columns]
        known = [column for column in columns if column in edges and column not in times]
        past = baseline.blocks if baseline else ()
        counted = [column for column in known if column not in labels]
        readings, missing, changed = self._readings(counted, window.blocks, past, edges)
        if asked := [column for column in known if column in labels]:
            mature, why = _mature(window)
            of_labels, _, changed_labels = self._readings(asked, mature, past, edges, without=window.blocks)
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
        about = [column for column in columns if column in missing and column in inputs]
        numbers = [c for c in counted if c in inputs and not edges[c].is_category]
        expected = _residuals(numbers, counted, window.blocks, baseline, edges)
        return [*(readings[column] for column in columns), *(missing[column] for column in about), *expected]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails above a fixed distance that only a broken column reaches; see the check's page."""
        return at_most(reading, {MISSING: STATED_MISSING, RESIDUAL: STATED_RESIDUAL, **STATED}[reading.name])

    def _readings(
        self,
        columns: Sequence[str],
        blocks: Sequence[Block],
        past: Sequence[Block],
        edges: Mapping[str, Edges],
        *,
        without: Sequence[Block] | None = None,
    ) -> tuple[dict[str, Reading], dict[str, Reading], dict[str, str]]:
        """By column how far it moved, how far its missing share did, and of those whose type changed in which way.

        Of the `past` blocks those that are `without` (else `blocks`) are left out.
        """
        current, changed = _total(blocks, columns, edges)
        inside = set(blocks if without is None else without)
        own = [block for block in past if block in inside]
        reference = _total_once(past, columns, edges) - _total(own, columns, edges)[0]
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


def _residuals(
    columns: Sequence[str],
    counted: Sequence[str],
    blocks: Sequence[Block],
    baseline: Window | None,
    edges: Mapping[str, Edges],
) -> list[Reading]:
    """How far the mean rank of each of these numbers is from what those of the others lead to expect, in [0, 1].

    Ranks are those among all values of the baseline; one day of it is one observation. Only counts are needed: those of
    all `counted` columns, as they are remembered.
    """
    before = baseline.blocks if baseline else ()
    if not 2 <= len(columns) <= MOST_NUMBERS or len(before) < LEAST_DAYS:
        return []
    inside, places = set(blocks), _places(counted, edges)
    total = _total_once(before, counted, edges)
    middles = {column: middle_ranks(total[places[column]]) for column in columns}
    named = hashlib.blake2b(b"".join(each.tobytes() for each in middles.values()), digest_size=16).digest()

    def of_block(block: Block) -> FloatArray:
        cells, _ = _counts(block, counted, edges)
        key = ("mean ranks", tuple(columns), named)
        return block.remember(key, lambda _: np.empty(0), lambda: _mean_ranks(cells, middles, places))

    days = np.array([of_block(block) for block in before if block not in inside])
    if len(days) < LEAST_DAYS:
        return []
    cells, _ = _total(blocks, counted, edges)
    beyond, expected = residuals(days, _mean_ranks(cells, middles, places))
    return [
        Reading(
            name=RESIDUAL,
            value=abs(float(by)),
            rows=int(cells[places[column]].sum()),
            subject=column,
            note=f"its mean rank is {by + usual:.2f}, the other columns lead to expect {usual:.2f}",
        )
        for column, by, usual in zip(columns, beyond, expected, strict=True)
        if not math.isnan(by)
    ]


def _places(columns: Sequence[str], edges: Mapping[str, Edges]) -> dict[str, slice]:
    """Where the cells of present values of each column lie in counts that stand end to end."""
    ends = np.cumsum([edges[column].cells + 3 for column in columns]).tolist()
    return {column: slice(end - edges[column].cells - 3, end - 1) for column, end in zip(columns, ends, strict=True)}


def _mean_ranks(cells: IntArray, middles: Mapping[str, FloatArray], places: Mapping[str, slice]) -> FloatArray:
    """The mean rank of each column of `middles`, NaN with too few values."""
    found = []
    for column, ranks in middles.items():
        values = cells[places[column]]
        present = int(values.sum())
        found.append(float(values @ ranks) / present if present >= LEAST_RANKED else math.nan)
    return np.array(found)


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
    counted = [_counts(block, columns, edges) for block in blocks]
    if not counted:
        return np.zeros(sum(edges[column].cells + 3 for column in columns), dtype=np.int64), {}
    changed: dict[str, str] = {}
    for _, wrong in counted:
        changed.update(wrong)
    return np.sum([cells for cells, _ in counted], axis=0, dtype=np.int64), changed


def _total_once(blocks: Sequence[Block], columns: Sequence[str], edges: Mapping[str, Edges]) -> IntArray:
    """The same counts of blocks that are asked about again and again: added up once, remembered on the first."""
    if not blocks:
        return _total(blocks, columns, edges)[0]
    key = ("total", tuple(id(block) for block in blocks), _named(columns, edges))

    def add_up() -> tuple[Sequence[Block], IntArray]:
        return blocks, _total(blocks, columns, edges)[0]  # what keeps the blocks keeps their ids from being given again

    _, total = blocks[0].remember(key, lambda _: add_up(), add_up)
    return total


def _counts(block: Block, columns: Sequence[str], edges: Mapping[str, Edges]) -> Counted:
    key = ("histograms", _named(columns, edges))
    return block.remember(
        key, lambda rows: _count(rows, columns, edges), partial(_counted_before, block, columns, edges)
    )


def _named(columns: Sequence[str], edges: Mapping[str, Edges]) -> tuple[tuple[str, str], ...]:
    return tuple((column, edges[column].digest) for column in columns)


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
