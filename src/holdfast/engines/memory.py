"""State in memory, for backtests and tests: the same promises as on disk, kept until the process ends."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, islice
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from holdfast.core.protocols import Columns, Field, Transaction, Writer
from holdfast.core.records import AuditEntry, Record
from holdfast.engines.counting import next_unused
from holdfast.engines.tables import (
    MISSING_TIME,
    LakeStats,
    checked_schema,
    cut,
    merged,
    microseconds,
    missing_time,
    numbers,
    rules_of,
    series,
    text,
    wrong_names,
)
from holdfast.errors import NotFound, StateError, Tampered
from holdfast.security import audit

if TYPE_CHECKING:
    import polars as pl

R = TypeVar("R", bound=Record)

Shelf = dict[str, tuple[int, Record]]
"""Records of one kind and system by id, in the order of first put, each with its place in the order of all systems."""

Shelves = Mapping[tuple[type[Record], str], Shelf]


class MemoryCatalog:
    """What was decided, in memory. Threads may share it; a read sees the state at its begin, whatever is written."""

    def __init__(self) -> None:
        self._shelves: Shelves = {}
        self._audit: list[AuditEntry] = []
        self._puts = 0
        self._writing = Lock()
        self._writer = 0
        self._is_closed = False

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction that commits at the end of the block. Raises StateError inside another one of this thread."""
        self._must_be_open()
        if self._writer == get_ident():
            raise StateError("a transaction is already open in this thread; use it, or end it first")
        with self._writing:
            self._writer = get_ident()
            try:
                transaction = _MemoryTransaction(self._shelves, self._audit, self._puts, is_writable=True)
                yield transaction
                self._shelves, self._audit, self._puts = transaction.outcome()
            finally:
                self._writer = 0

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """The state as it is now; it does not change while it is read."""
        self._must_be_open()
        yield _MemoryTransaction(self._shelves, self._audit, self._puts, is_writable=False)

    def close(self) -> None:
        """Refuse further use. The records go with the object."""
        self._is_closed = True

    def _must_be_open(self) -> None:
        if self._is_closed:
            raise StateError("this catalog is closed; open it again")


class _MemoryTransaction:
    """Reads shelves that never change and copies those it writes to, so that rolling back is forgetting the copies."""

    def __init__(self, shelves: Shelves, log: list[AuditEntry], puts: int, *, is_writable: bool) -> None:
        self._shelves = shelves
        self._changed: dict[tuple[type[Record], str], Shelf] = {}
        self._log = log
        self._entries: list[AuditEntry] = []
        self._puts = puts
        self._is_writable = is_writable

    def outcome(self) -> tuple[Shelves, list[AuditEntry], int]:
        shelves = {**self._shelves, **self._changed} if self._changed else self._shelves
        log = self._log + self._entries if self._entries else self._log
        return shelves, log, self._puts

    def get(self, kind: type[R], system: str, id: str) -> R | None:
        held = self._shelf(kind, system).get(id)
        return held[1] if held else None  # type: ignore[return-value]

    def find(
        self, kind: type[R], system: str | None = None, *, state: Iterable[str] | None = None, newest: int | None = None
    ) -> list[R]:
        found: Iterable[tuple[int, Record]]
        if system is None:
            held = [self._shelf(kind, each) for each in self._systems(kind)]
            found = sorted(chain.from_iterable(shelf.values() for shelf in held), key=lambda pair: -pair[0])
        else:
            found = reversed(self._shelf(kind, system).values())
        states = None if state is None else frozenset(state)
        matching = (record for _, record in found if states is None or record.state in states)
        records = list(islice(matching, newest))
        records.reverse()
        return records  # type: ignore[return-value]

    def put(self, record: Record) -> None:
        self._must_be_writable()
        key = (type(record), record.system)
        shelf = self._changed.get(key)
        if shelf is None:
            shelf = self._changed[key] = dict(self._shelves.get(key, ()))
        held = shelf.get(record.id)
        if held is None:
            self._puts += 1
        shelf[record.id] = (held[0] if held else self._puts, record)

    def next_id(self, kind: type[Record], system: str, prefix: str = "") -> str:
        return next_unused(prefix, self._shelf(kind, system).__contains__)

    def audit(
        self, *, at: datetime, actor: str, action: str, system: str, subject: str, detail: Mapping[str, Any]
    ) -> AuditEntry:
        self._must_be_writable()
        newest = self._entries or self._log
        entry = audit.entry(
            newest[-1] if newest else None,
            at=at,
            actor=actor,
            action=action,
            system=system,
            subject=subject,
            detail=detail,
        )
        self._entries.append(entry)
        return entry

    def audit_log(self, system: str | None = None, newest: int | None = None) -> list[AuditEntry]:
        backwards = chain(reversed(self._entries), reversed(self._log))
        matching = (entry for entry in backwards if system is None or entry.system == system)
        entries = list(islice(matching, newest))
        entries.reverse()
        return entries

    def _shelf(self, kind: type[Record], system: str) -> Shelf:
        key = (kind, system)
        return self._changed.get(key) or self._shelves.get(key) or {}

    def _systems(self, kind: type[Record]) -> set[str]:
        return {system for held, system in chain(self._shelves, self._changed) if held is kind}

    def _must_be_writable(self) -> None:
        if not self._is_writable:
            raise StateError("this view of the catalog is for reading only; write inside `begin()`")


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

    def append(self, columns: Columns, rows: int) -> None:
        self._lake._must_be_open()
        if self._is_closed:
            raise StateError(f"this writer of lake table '{self._table}' is closed; open another one")
        kept = self._copied(columns, rows)
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


class MemoryBlobs:
    """Artifacts by content hash, in memory."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Keep bytes under the sha256 of their content."""
        key = hashlib.sha256(data).hexdigest()
        self._held.setdefault(key, bytes(data))
        return key

    def get(self, key: str) -> bytes:
        """The bytes. Raises NotFound, or Tampered when they are not what was put."""
        if key not in self._held:
            raise NotFound("blob", key)
        data = self._held[key]
        if hashlib.sha256(data).hexdigest() != key:
            raise Tampered(f"blob {key} in memory does not hash to its key; make it again from its source")
        return data

    def has(self, key: str) -> bool:
        """Whether these bytes were put."""
        return key in self._held

    def keys(self) -> Iterator[str]:
        """All keys, sorted."""
        return iter(sorted(self._held))
