"""Schema: do the rows still look as the model's signature says?"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.checks.sequence import overlap
from holdfast.checks.stated import within
from holdfast.core.evidence import Grade, Reading, Role, Window
from holdfast.core.meaning import many
from holdfast.core.signature import Column, Signature

NUMBERS = 0.05
"""Share of a number column's values outside its range above which it is a warning: seasons leave ranges."""
CATEGORIES = 0.5
"""Share of a category column's values that training never saw above which it is a failure: renamed codes."""
LEAST_ROWS = 30


Flags = npt.NDArray[np.bool_]


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Share of rows and of each column's values that lie outside what training saw, and columns that changed type."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.INPUT})
    facts: ClassVar[frozenset[str]] = frozenset({"signature"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "stated"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "nothing"

    def measure(self, window: Window, baseline: Window | None = None) -> Sequence[Reading]:
        """`rows_outside` over all rows, then per column `wrong_type`, `nulls` or `outside`, the gravest one."""
        signature: Signature = window.facts["signature"]
        if why := overlap(window):
            return [Reading(name="rows_outside", value=None, note=why)]
        key = ("schema", signature.hash())
        counted = [block.remember(key, lambda rows: _count(rows, signature)) for block in window.blocks]
        rows = sum(block.rows().height for block in window.blocks)
        if not rows:
            return [Reading(name="rows_outside", value=None, note="the window has no rows")]
        outside = sum(int(one["rows"]) for one in counted)
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
    """Per column (wrongly typed, nulls, outside, what is wrong), and under ``rows`` how many rows have any outside."""
    found: dict[str, Any] = {}
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
    found["rows"] = rows.height if any(one[0] for one in found.values()) else int(anywhere.sum())
    return found


def _numbers(rows: pl.DataFrame, numbers: Sequence[Column], anywhere: Flags) -> dict[str, Any]:
    """Counts of all number columns at once; rows with a value outside are marked in `anywhere`."""
    values = rows.select([pl.col(column.name).cast(pl.Float64) for column in numbers]).to_numpy()
    low = np.array([-np.inf if column.low is None else column.low for column in numbers])
    high = np.array([np.inf if column.high is None else column.high for column in numbers])
    outside = (values < low) | (values > high)
    anywhere |= outside.any(axis=1)
    counts = zip(np.isnan(values).sum(axis=0).tolist(), outside.sum(axis=0).tolist(), strict=True)
    return {column.name: (0, *count, "") for column, count in zip(numbers, counts, strict=True)}


def _unseen(series: pl.Series, column: Column) -> Flags:
    if not column.categories:
        return np.zeros(len(series), dtype=np.bool_)
    return (~series.cast(pl.String).is_in(list(column.categories))).fill_null(False).to_numpy()


def _wrong_type(kind: pl.DataType | None, column: Column) -> str:
    if kind is None:
        return f"the rows have no column {column.name}"
    is_text = not (kind.is_numeric() or kind in (pl.Boolean, pl.Null))
    if kind == pl.Null or is_text == (column.type == "category"):
        return ""
    return f"{column.name} is {kind} where a {column.type} is expected"
