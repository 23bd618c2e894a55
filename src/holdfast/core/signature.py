"""What a version takes and answers: its columns by type, and what happens outside what training saw."""

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    import numpy as np

ColumnType = Literal["number", "integer", "category", "boolean"]
Outside = Literal["refuse", "flag", "missing"]
"""A value outside range or categories: refuse the request, answer and count it, or treat it as missing."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One input column. Ranges and categories are what training saw; `low` and `high` are inclusive."""

    name: str
    type: ColumnType
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()
    outside: Outside = "flag"
    nullable: bool = True


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Input rows that passed a signature, column by column.

    Numbers, integers and booleans are float64 arrays (n,) with NaN for missing; categories are lists of
    str | None. `outside[i]` counts the values of row i that lie outside what training saw.
    """

    columns: "dict[str, Any]"
    count: int
    outside: "np.ndarray[Any, np.dtype[np.int64]]"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """The typed inputs and the output of a version."""

    columns: tuple[Column, ...]
    task: str
    output: str

    def hash(self) -> str:
        """16 hexadecimal digits that change when any column, type, range or the output changes."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]
