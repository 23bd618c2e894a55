"""Schema: do the rows still look as the model's signature says?"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.checks.sequence import overlap
from holdfast.checks.stated import within
from holdfast.checks.strays import strays
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.core.meaning import many
from holdfast.core.signature import Column, Signature
from holdfast.stats.batches import tally_of
from holdfast.stats.histogram import Edges

NUMBERS = 0.05
"""Share of a number column's values outside its range above which it is a warning: seasons leave ranges."""
CATEGORIES = 0.5
"""Share of a category column's values that training never saw above which it is a failure: renamed codes."""
LEAST_ROWS = 30
ROWS, ROWS_OUTSIDE = "\0 rows", "\0 rows outside"
"""Keys beside the names of columns, none that a table would have: how many rows, and how many have any outside."""

Flags = npt.NDArray[np.bool_]


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Share of rows and of each column's values that lie outside what training saw, and columns that changed type."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.INPUT})
    facts: ClassVar[frozenset[str]] = frozenset({"signature"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "stated"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "nothing"

    def measure(self, window: Window, baseline: Window | None = None) -> Sequence[Reading]:
        """`rows_outside` over all rows, then per column `wrong_type`, `nulls` or `outside`, the gravest one.

        Where counts on the window's `edges` tell the same as the rows of a block, its rows are not read.
        """
        signature: Signature = window.facts["signature"]
        edges: Mapping[str, Edges] = window.facts.get("edges", {})
        if why := overlap(window):
            return [Reading(name="rows_outside", value=None, note=why)]
        key = ("schema", signature.hash())
        counted = [
            block.remember(key, lambda rows: _count(rows, signature), partial(_counted_before, block, signature, edges))
            for block in window.blocks
        ]
        rows = sum(int(one[ROWS]) for one in counted)
        if not rows:
            return [Reading(name="rows_outside", value=None, note="the window has no rows")]
        outside = sum(int(one[ROWS_OUTSIDE]) for one in counted)
        note = f"{outside:,} of {many(rows, 'row')} with a value that training never saw"
        first = Reading(name="rows_outside", value=outside / rows, rows=rows, high=1.0, note=note)
        return [first, *(_column(column, counted, rows) for column in signature.columns)]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails for a changed type, a forbidden null, or more than half of a column's categories unseen.

        A number outside its range at most warns: training that ended in March has seen no July.
        """
        grade, why = within(reading)
        if grade is Grade.PASS and reading.name == "outside" and (reading.value or 0.0) > NUMBERS:
            return Grade.WARN, f"{reading.value:.1%} of {reading.subject}: {reading.note}"
        return grade, why


def _column(column: Column, counted: Sequence[dict[str, Any]], rows: int) -> Reading:
    wrong, nulls, outside = (sum(one[column.name][k] for one in counted) for k in range(3))
    present = rows - nulls - wrong
    if wrong:
        said = next(one[column.name][3] for one in counted if one[column.name][3])
        return Reading(name="wrong_type", value=wrong / rows, rows=rows, high=0.0, subject=column.name, note=said)
    if nulls and not column.nullable:
        note = f"{many(nulls, 'row')} without {column.name}, which training always had"
        return Reading(name="nulls", value=nulls / rows, rows=rows, high=0.0, subject=column.name, note=note)
    if present < LEAST_ROWS:
        note = f"{many(present, 'value')} present, {LEAST_ROWS} are needed"
        return Reading(name="outside", value=None, rows=present, subject=column.name, note=note)
    bound = CATEGORIES if column.categories else 1.0
    what = "its categories" if column.categories else f"[{column.low}, {column.high}]"
    note = f"{outside:,} of {many(present, 'value')} outside {what}" if outside else ""
    return Reading(name="outside", value=outside / present, rows=present, high=bound, subject=column.name, note=note)


def _count(rows: pl.DataFrame, signature: Signature) -> dict[str, Any]:
    """Per column (wrongly typed, nulls, outside, what is wrong), and how many rows there are and have any outside."""
    found: dict[str, Any] = {ROWS: rows.height}
    types, anywhere = rows.schema, np.zeros(rows.height, dtype=np.bool_)
    right = []
    for column in signature.columns:
        wrong = _wrong_type(types.get(column.name), column)
        if wrong:
            found[column.name] = (rows.height, 0, 0, wrong)
        else:
            right.append(column)
    numbers = [column for column in right if column.type != "category"]
    if numbers:
        found |= _numbers(rows, numbers, anywhere)
    for column in right:
        if column.type == "category":
            series = rows[column.name]
            unseen = _unseen(series, column)
            anywhere |= unseen
            found[column.name] = (0, series.null_count(), int(unseen.sum()), "")
    is_wrong = any(found[column.name][0] for column in signature.columns)
    found[ROWS_OUTSIDE] = rows.height if is_wrong else int(anywhere.sum())
    return found


def _counted_before(block: Block, signature: Signature, edges: Mapping[str, Edges]) -> dict[str, Any] | None:
    """What `_count` finds, from counts; None where only rows tell: which of them have two values outside, above all."""
    names = [column.name for column in signature.columns]
    counts = block.counts(edges) if names and all(name in edges for name in names) else None
    if counts is None or not all(name in counts for name in names):
        return None
    found: dict[str, Any] = {ROWS: int(counts[names[0]].sum())}
    for column in signature.columns:
        cells = counts[column.name]
        outside = strays(column, edges[column.name], cells)
        if outside is None:
            return None
        found[column.name] = (0, int(cells[-1]), outside, "")
    strayed = [found[name][2] for name in names if found[name][2]]
    if len(strayed) > 1:
        return None
    return {**found, ROWS_OUTSIDE: sum(strayed)}


def _numbers(rows: pl.DataFrame, numbers: Sequence[Column], anywhere: Flags) -> dict[str, Any]:
    """Counts of all number columns at once; rows with a value outside are marked in `anywhere`."""
    values = np.stack([rows[column.name].cast(pl.Float64).to_numpy() for column in numbers])
    low = np.array([-np.inf if column.low is None else column.low for column in numbers])
    high = np.array([np.inf if column.high is None else column.high for column in numbers])
    outside = (values < low[:, None]) | (values > high[:, None])
    anywhere |= outside.any(axis=0)
    counts = zip(np.isnan(values).sum(axis=1).tolist(), outside.sum(axis=1).tolist(), strict=True)
    return {column.name: (0, *count, "") for column, count in zip(numbers, counts, strict=True)}


def _unseen(series: pl.Series, column: Column) -> Flags:
    known = {None, *column.categories}
    if not column.categories or all(name in known for name, _ in tally_of(series)):
        return np.zeros(len(series), dtype=np.bool_)
    return (~series.cast(pl.String).is_in(list(column.categories))).fill_null(False).to_numpy()


def _wrong_type(kind: pl.DataType | None, column: Column) -> str:
    if kind is None:
        return f"the rows have no column {column.name}"
    is_text = not (kind.is_numeric() or kind in (pl.Boolean, pl.Null))
    if kind == pl.Null or is_text == (column.type == "category"):
        return ""
    return f"{column.name} is {kind} where a {column.type} is expected"
