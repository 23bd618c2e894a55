"""JSON lines in chunks: each value is read as one of a request would be."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from holdfast.core.inputs import read_columns
from holdfast.core.signature import Rows, Signature
from holdfast.scoring.chunks import Chunk, IntArray, TextBlocks, Unreadable

_DECODER = msgspec.json.Decoder()
_TYPES: Mapping[str, type] = {"category": str, "boolean": bool, "time": str}
"""What JSON holds in a column of a type; a float in all others, which takes whole numbers too."""


class JsonLinesFile:
    """Rows of a file with one JSON object per line; an empty line is no row."""

    columns = None

    def __init__(self, path: Path, signature: Signature, beside: Sequence[str]) -> None:
        self.path = path
        self._lines = Lines(signature, beside)
        self._blocks = TextBlocks(path, quoted=False)
        self.size = self._blocks.size

    def chunks(self, start: int) -> Iterator[Callable[[], Chunk]]:
        """Blocks of whole lines."""
        for data, end in self._blocks.blocks(start):
            yield lambda data=data, end=end: self._lines.chunk(data, end)  # type: ignore[misc]


class Lines:
    """Reads blocks of JSON lines: straight into arrays where every value has the type that its column asks for."""

    def __init__(self, signature: Signature, beside: Sequence[str]) -> None:
        self._columns = signature.columns
        inputs = {column.name for column in signature.columns}
        self._beside = [name for name in dict.fromkeys(beside) if name not in inputs]
        # Fields are numbered: a column may be called what no attribute can be.
        fields: list[tuple[str, Any, Any]] = [
            (f"f{i}", _TYPES.get(column.type, float) | None, None) for i, column in enumerate(signature.columns)
        ]
        fields += [(f"b{i}", Any, None) for i in range(len(self._beside))]
        names = [*(column.name for column in signature.columns), *self._beside]
        record = msgspec.defstruct(
            "Record", fields, rename=dict(zip((f[0] for f in fields), names, strict=True)), gc=False
        )
        self._decoder = msgspec.json.Decoder(record)

    def chunk(self, data: bytes, end: int) -> Chunk:
        """The rows of a block; object by object where one of them is not what it should be."""
        try:
            records = self._decoder.decode_lines(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ObjectChunk(objects_in(data), end)
        columns: dict[str, Any] = {}
        for i, column in enumerate(self._columns):
            values = list(map(attrgetter(f"f{i}"), records))
            # An array says with NaN what a list says with null; JSON has no NaN that could be meant.
            columns[column.name] = values if column.type in _TYPES else np.array(values, dtype=np.float64)
        for i, name in enumerate(self._beside):
            columns[name] = list(map(attrgetter(f"b{i}"), records))
        return ColumnChunk(columns, len(records), end)


class ColumnChunk:
    """Rows column by column, all of the right type."""

    def __init__(self, columns: Mapping[str, Any], count: int, end: int) -> None:
        self.end = end
        self._columns, self._count = columns, count

    def __len__(self) -> int:
        return self._count

    def typed(self, signature: Signature, where: IntArray) -> Rows:
        return read_columns(signature, {c.name: self._at(c.name, where) for c in signature.columns})

    def column(self, name: str, where: IntArray) -> pl.Series:
        return pl.Series(name, [_text(value) for value in _listed(self._at(name, where))], dtype=pl.String)

    def values(self, place: int) -> dict[str, Any]:
        return {name: _listed(self._at(name, np.array([place])))[0] for name in self._columns}

    def _at(self, name: str, where: IntArray) -> Any:
        values = self._columns.get(name)
        if values is None:
            return [None] * len(where)
        if len(where) == self._count:
            return values
        return values[where] if isinstance(values, np.ndarray) else [values[i] for i in where.tolist()]


def _listed(values: Any) -> list[Any]:
    if not isinstance(values, np.ndarray):
        return list(values)
    return [None if value != value else value for value in values.tolist()]


class ObjectChunk:
    """Rows that are objects of column: value, or the error of one that could not be read."""

    def __init__(self, rows: Sequence[Any], end: int) -> None:
        self.end = end
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def typed(self, signature: Signature, where: IntArray) -> Rows:
        rows = self._at(where)
        for row in rows:
            if type(row) is not dict:
                raise row if isinstance(row, Unreadable) else Unreadable(f"{_shown(row)} is no object of column: value")
        return read_columns(signature, {c.name: [row.get(c.name) for row in rows] for c in signature.columns})

    def column(self, name: str, where: IntArray) -> pl.Series:
        values = [row.get(name) if isinstance(row, Mapping) else None for row in self._at(where)]
        return pl.Series(name, [_text(value) for value in values], dtype=pl.String)

    def values(self, place: int) -> dict[str, Any]:
        row = self._rows[place]
        return dict(row) if isinstance(row, Mapping) else {"record": str(row)}

    def part(self, where: IntArray) -> "ObjectChunk":
        """The rows at these places, as a chunk of their own."""
        return ObjectChunk(self._at(where), self.end)

    def _at(self, where: IntArray) -> Sequence[Any]:
        return self._rows if len(where) == len(self._rows) else [self._rows[i] for i in where.tolist()]


def objects_in(data: bytes) -> list[Any]:
    """What the lines of a block hold, in order; `Unreadable` for a line that is no JSON."""
    try:
        return _DECODER.decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [object_in(line) for line in data.split(b"\n") if line.strip()]


def object_in(line: bytes) -> Any:
    """What a line holds; `Unreadable` where it is no JSON."""
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Unreadable(f"{_shown(line.decode(errors='replace'))} is no JSON ({error})")


def _text(value: Any) -> str | None:
    """A key or a time as text: numbers are written out, so that 7 and "7" are the same."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)


def _shown(value: Any) -> str:
    shown = value if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
