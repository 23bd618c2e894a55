"""A lake in memory: columns as they were appended, frames made of them on first reading."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.protocols import EMPTY, Columns, Field, Part, Writer
from holdfast.core.times import MISSING_TIME, microseconds
from holdfast.engines.tables import (
    LakeStats,
    checked_schema,
    cut,
    merged,
    missing_time,
    numbers,
    rules_of,
    series,
    spread,
    text,
    wrong_names,
)
from holdfast.errors import NotFound, StateError

if TYPE_CHECKING:
    import polars as pl

    from holdfast.core.protocols import Matrix

SMALL_ROWS = 256
"""Appends below this many rows are gathered into chunks of about this size, so that scans touch few chunks."""


class MemoryLake:
    """What was observed, in memory. Threads may share it; each writer belongs to one thread."""

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, str], list[_Chunk]] = {}
        self._appending = Lock()
        self._open = 0
        self._sealed = 0
        self._rolled = 0
        self._rows_written = 0
        self._is_closed = False

    def writer(self, table: str, system: str, schema: Sequence[Field]) -> Writer:
        """A writer for one table. Raises NotFound for no such table, StateError for a schema that does not fit it."""
        self._must_be_open()
        fields = checked_schema(table, schema)
        self._open += 1
        return _MemoryWriter(self, table, system, fields)

    def scan(
        self, table: str, system: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> "pl.DataFrame":
        """Rows with since <= time < until, ordered by time and then by writing."""
        self._must_be_open()
        rules = rules_of(table)
        low = None if since is None else microseconds(since)
        high = None if until is None else microseconds(until)
        with self._appending:
            chunks = [
                chunk
                for chunk in self._chunks.get((system, table), ())
                if (low is None or chunk.high >= low) and (high is None or chunk.low < high)
            ]
            built = [(chunk.frame(), chunk.times) for chunk in chunks]
        return merged(rules, [cut(frame, times, low, high) for frame, times in built])

    def parts(
        self, table: str, system: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> "tuple[Sequence[Part], Callable[[], pl.DataFrame]]":
        """No parts: every row is in none."""
        self._must_be_open()
        rules_of(table)
        return (), partial(self.scan, table, system, since=since, until=until)

    def read_part(self, part: Part, columns: Sequence[str]) -> "Iterator[pl.DataFrame]":
        """Nothing: there are no parts. Raises NotFound."""
        raise NotFound("part of the lake", part.name)

    def keep(self, part: Part, name: str, data: bytes) -> None:
        """Nothing: there are no parts."""

    def kept(self, part: Part, name: str) -> bytes | None:
        """Nothing: there are no parts."""
        return None

    def roll(self) -> int:
        """Count the segments sealed since the last roll; in memory there is nothing to turn them into."""
        self._must_be_open()
        rolled, self._sealed = self._sealed, 0
        self._rolled += rolled
        return rolled

    def stats(self) -> LakeStats:
        """Rows and segments so far."""
        return LakeStats(
            rows_written=self._rows_written,
            segments_open=self._open,
            segments_sealed=self._sealed,
            segments_rolled=self._rolled,
            files=0,
        )

    def close(self) -> None:
        """Refuse further use. The rows go with the object."""
        self._is_closed = True

    def _must_be_open(self) -> None:
        if self._is_closed:
            raise StateError("this lake is closed; open it again to read or write")


class _MemoryWriter:
    """Keeps a copy of each append."""

    def __init__(self, lake: MemoryLake, table: str, system: str, schema: tuple[Field, ...]) -> None:
        self._lake = lake
        self._table = table
        self._schema = schema
        self._time = rules_of(table).time
        self._chunks = lake._chunks.setdefault((system, table), [])
        self._is_closed = False

    def append(
        self, columns: Columns, rows: int, *, constants: Mapping[str, Any] = EMPTY, matrix: "Matrix | None" = None
    ) -> None:
        self._lake._must_be_open()
        if self._is_closed:
            raise StateError(f"this writer of lake table '{self._table}' is closed; open another one")
        kept = self._copied(spread(self._table, self._schema, columns, rows, constants, matrix), rows)
        if rows == 0:
            return
        times = kept[self._time]
        low, high = int(times.min()), int(times.max())
        if low == MISSING_TIME:
            raise missing_time(self._table)
        with self._lake._appending:
            newest = self._chunks[-1] if self._chunks else None
            if newest is None or not newest.takes(self._schema, rows):
                newest = _Chunk(self._schema, self._time)
                self._chunks.append(newest)
            newest.add(kept, rows, low, high)
            self._lake._rows_written += rows

    def _copied(self, columns: Columns, rows: int) -> dict[str, Any]:
        if len(columns) != len(self._schema):
            raise wrong_names(self._table, self._schema, columns)
        kept: dict[str, Any] = {}
        for field in self._schema:
            if field.name not in columns:
                raise wrong_names(self._table, self._schema, columns)
            values = columns[field.name]
            if field.type == "text":
                kept[field.name], _ = text(self._table, field, values, rows)
            else:
                array = numbers(self._table, field, values, rows)
                kept[field.name] = array.copy() if array is values or array.base is not None else array
        return kept

    def sync(self) -> None:
        """Nothing: what is in memory survives no power cut, and is as safe as it will be."""

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._lake._open -= 1
            self._lake._sealed += 1


class _Chunk:
    """Consecutive appends with the same schema; becomes a frame on first reading and is never added to after."""

    def __init__(self, schema: tuple[Field, ...], time: str) -> None:
        self.schema = schema
        self.low = 0
        self.high = 0
        self.times: Any = None
        self._time = time
        self._rows = 0
        self._parts: list[dict[str, Any]] = []
        self._frame: pl.DataFrame | None = None

    def takes(self, schema: tuple[Field, ...], rows: int) -> bool:
        return self._frame is None and self._rows + rows <= SMALL_ROWS and self.schema == schema

    def add(self, columns: dict[str, Any], rows: int, low: int, high: int) -> None:
        self.low = min(self.low, low) if self._rows else low
        self.high = max(self.high, high) if self._rows else high
        self._rows += rows
        self._parts.append(columns)

    def frame(self) -> "pl.DataFrame":
        import polars as pl  # heavy; a process that only writes never needs it

        if self._frame is None:
            whole = self._parts[0] if len(self._parts) == 1 else {f.name: self._joined(f) for f in self.schema}
            self.times = whole[self._time]
            self._frame = pl.DataFrame([series(field, whole[field.name]) for field in self.schema])
            self._parts = []
        return self._frame

    def _joined(self, field: Field) -> Any:
        values = [part[field.name] for part in self._parts]
        return list(chain.from_iterable(values)) if field.type == "text" else np.concatenate(values)
