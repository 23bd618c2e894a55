"""A catalog in memory: records that never change on shelves that never change, so a view costs nothing."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, islice
from threading import Lock, get_ident
from typing import Any, TypeVar

from holdfast.core.protocols import Transaction
from holdfast.core.records import AuditEntry, Record
from holdfast.engines.counting import next_unused
from holdfast.errors import StateError
from holdfast.security import audit

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
