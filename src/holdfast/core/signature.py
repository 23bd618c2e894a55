"""What a version takes and answers: its columns by type, and what happens outside what training saw."""

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    import numpy as np

ColumnType = Literal["number", "integer", "category", "boolean", "time"]
Outside = Literal["refuse", "flag", "missing"]
"""A value outside range or categories: refuse the request, answer and count it, or treat it as missing."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One input column. Ranges and categories are what training saw; `low` and `high` are inclusive.

    A time has no range: what is asked about lies in the future of what training saw.
    """

    name: str
    type: ColumnType
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()
    outside: Outside = "flag"
    nullable: bool = True


class Rows(msgspec.Struct, frozen=True, kw_only=True, eq=False, dict=True):
    """Input rows that passed a signature.

    `numbers` is a float64 matrix (n, k), C-contiguous: numbers, integers, booleans and times (microseconds since 1970
    UTC) in the order of the signature, NaN for missing; `names` are its k columns. `texts` holds the categories as
    lists of str | None. `outside[i]` counts the values of row i that lie outside what training saw.
    """

    names: tuple[str, ...]
    numbers: "np.ndarray[Any, np.dtype[np.float64]]"
    texts: "dict[str, list[str | None]]"
    outside: "np.ndarray[Any, np.dtype[np.int64]]"

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.outside)

    @cached_property
    def columns(self) -> "dict[str, Any]":
        """Every column by name: views of `numbers` (n,), and the lists of `texts`."""
        numbers = {name: self.numbers[:, j] for j, name in enumerate(self.names)}
        return numbers | self.texts

    def take(self, index: "np.ndarray[Any, np.dtype[np.int64]]") -> "Rows":
        """The rows at these places."""
        chosen = index.tolist() if self.texts else ()
        return Rows(
            names=self.names,
            numbers=self.numbers[index],
            texts={name: [values[i] for i in chosen] for name, values in self.texts.items()},
            outside=self.outside[index],
        )


class Signature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The typed inputs and the output of a version."""

    columns: tuple[Column, ...]
    task: str
    output: str
    classes: tuple[str, ...] = ()
    """Where an answer is one number per class: the classes, in the order of its numbers. Empty: it is one number."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the numbers of an answer are called, in order: the output, or ``<output>.<class>`` for each class."""
        return tuple(f"{self.output}.{name}" for name in self.classes) or (self.output,)

    def shape(self, rows: int) -> tuple[int, ...]:
        """Shape of the answers to so many rows: (n,), or (n, classes)."""
        return (rows, len(self.classes)) if self.classes else (rows,)

    def hash(self) -> str:
        """16 hexadecimal digits that change when any column, type, range, the output or a class changes."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]
