"""A catalog in an SQL database, through SQLAlchemy Core: nothing here is any one database's own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Lock, get_ident
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from holdfast.core.clock import Clock
from holdfast.core.protocols import Transaction
from holdfast.core.records import AuditEntry, Record
from holdfast.engines import bodies
from holdfast.engines.counting import next_unused
from holdfast.engines.manifest import Contents, LakeFile, Swap
from holdfast.engines.schema import AUDIT, LAKE_FILES, LAKE_ROLLED, LAKE_TABLES, TABLES
from holdfast.errors import StateError
from holdfast.security import audit

R = TypeVar("R", bound=Record)


class SqlCatalog:
    """What was decided, in a database. Processes and threads may share it.

    The engine begins a transaction for writing, one at a time over all processes, where a connection has the
    execution option `is_writing`; otherwise one that reads from a snapshot.
    """

    def __init__(self, engine: sa.Engine, where: str, clock: Clock) -> None:
        self._engine = engine
        self._where = where
        self._clock = clock
        self._writing = Lock()
        self._writer = 0
        self._is_closed = False
        self.manifest = SqlManifest(self)
        """The manifest of a lake, kept in this catalog."""

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction that commits at the end of the block. Raises StateError inside another one of this thread."""
        with self.connection(is_writing=True) as connection:
            yield _SqlTransaction(connection, self._clock, is_writable=True)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent view for reading only; does not wait for writers."""
        with self.connection(is_writing=False) as connection:
            yield _SqlTransaction(connection, self._clock, is_writable=False)

    def close(self) -> None:
        """Let go of the database; further use is refused."""
        self._is_closed = True
        self._engine.dispose()

    @contextmanager
    def connection(self, *, is_writing: bool) -> Iterator[sa.Connection]:
        """A connection inside a transaction. Raises StateError where the database fails."""
        if self._is_closed:
            raise StateError(f"the catalog {self._where} is closed; open it again")
        if is_writing:
            if self._writer == get_ident():
                raise StateError("a transaction is already open in this thread; use it, or end it first")
            self._writing.acquire()  # threads queue here; between processes the database decides
            self._writer = get_ident()
        try:
            options = self._engine.connect().execution_options(is_writing=is_writing)
            with options as connection, connection.begin():
                yield connection
        except sa.exc.DBAPIError as failure:
            raise self._failed(failure) from failure
        finally:
            if is_writing:
                self._writer = 0
                self._writing.release()

    def _failed(self, failure: sa.exc.DBAPIError) -> StateError:
        said = str(failure.orig)
        if "locked" in said:
            todo = "another process holds it for writing; end that process if it hangs, then try again"
        elif "full" in said:
            todo = "free space on this disk, then try again"
        else:
            todo = "check the file and its disk, or restore it from a backup"
        return StateError(f"the catalog {self._where} failed: {said}; {todo}. Nothing of this transaction was recorded")


class _SqlTransaction:
    """One transaction over one connection."""

    def __init__(self, connection: sa.Connection, clock: Clock, *, is_writable: bool) -> None:
        self._connection = connection
        self._clock = clock
        self._is_writable = is_writable

    def get(self, kind: type[R], system: str, id: str) -> R | None:
        table = TABLES[kind]
        query = sa.select(table.c.body).where(table.c.system == system, table.c.id == id)
        body = self._connection.execute(query).scalar()
        return None if body is None else self._decoded(kind, body)

    def find(
        self, kind: type[R], system: str | None = None, *, state: Iterable[str] | None = None, newest: int | None = None
    ) -> list[R]:
        table = TABLES[kind]
        query = sa.select(table.c.body).order_by(table.c.seq.desc()).limit(newest)
        if system is not None:
            query = query.where(table.c.system == system)
        if state is not None:
            query = query.where(table.c.state.in_(tuple(state)))
        found = [self._decoded(kind, body) for body in self._connection.execute(query).scalars()]
        found.reverse()
        return found

    def put(self, record: Record) -> None:
        self._must_be_writable()
        table = TABLES[type(record)]
        values = {
            "state": record.state,
            "body": bodies.encode(record),
            "updated_at": self._clock.now().isoformat(timespec="microseconds"),
        }
        key = (table.c.system == record.system, table.c.id == record.id)
        if self._connection.execute(sa.update(table).where(*key).values(values)).rowcount == 0:
            self._connection.execute(sa.insert(table).values(system=record.system, id=record.id, **values))

    def next_id(self, kind: type[Record], system: str, prefix: str = "") -> str:
        table = TABLES[kind]

        def is_used(id: str) -> bool:
            query = sa.select(table.c.seq).where(table.c.system == system, table.c.id == id)
            return self._connection.execute(query).first() is not None

        return next_unused(prefix, is_used)

    def audit(
        self, *, at: datetime, actor: str, action: str, system: str, subject: str, detail: Mapping[str, Any]
    ) -> AuditEntry:
        self._must_be_writable()
        newest = self.audit_log(newest=1)
        entry = audit.entry(
            newest[0] if newest else None,
            at=at,
            actor=actor,
            action=action,
            system=system,
            subject=subject,
            detail=detail,
        )
        body = msgspec.json.encode(entry).decode()
        self._connection.execute(sa.insert(AUDIT).values(seq=entry.seq, system=system, body=body))
        return entry

    def audit_log(self, system: str | None = None, newest: int | None = None) -> list[AuditEntry]:
        query = sa.select(AUDIT.c.seq, AUDIT.c.body).order_by(AUDIT.c.seq.desc())
        if system is None:
            query = query.limit(newest)
        entries = [_entry(seq, body) for seq, body in self._connection.execute(query)]
        # Chosen by what the hash covers, not by the column beside it: that could be changed to hide an entry.
        chosen = [entry for entry in entries if system in (None, entry.system)][:newest]
        chosen.reverse()
        return chosen

    def _decoded(self, kind: type[R], body: str) -> R:
        try:
            return bodies.decode(kind, body)
        except (msgspec.DecodeError, ValueError) as failure:
            raise StateError(
                f"a record in table '{kind.table}' of the catalog cannot be read ({failure}): {body[:200]}; "
                "restore the catalog from a backup"
            ) from failure

    def _must_be_writable(self) -> None:
        if not self._is_writable:
            raise StateError("this view of the catalog is for reading only; write inside `begin()`")


def _entry(seq: int, body: str) -> AuditEntry:
    try:
        return msgspec.json.decode(body, type=AuditEntry)
    except msgspec.DecodeError as failure:
        raise StateError(
            f"audit entry {seq} cannot be read ({failure}); restore the catalog from a backup"
        ) from failure


class SqlManifest:
    """The manifest of a lake, in the tables of a catalog."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog

    def contents(self, system: str, table: str) -> Contents:
        """The table as of now, all of it from one moment."""
        with self._catalog.connection(is_writing=False) as connection:
            generation = _generation(connection, system, table)
            asked = {"of_system": system, "of_name": table}
            files = connection.execute(_FILES, asked)
            rolled = connection.execute(_ROLLED, asked)
            return Contents(
                generation=generation,
                files=tuple(
                    LakeFile(
                        system=system,
                        table=table,
                        path=row.path,
                        rows=row.rows,
                        low=row.low,
                        high=row.high,
                        size_bytes=row.size_bytes,
                    )
                    for row in files
                ),
                rolled=frozenset(rolled.scalars()),
            )

    def generation(self, system: str, table: str) -> int:
        """The table's generation as of now, 0 for a table never swapped."""
        with self._catalog.connection(is_writing=False) as connection:
            return _generation(connection, system, table)

    def swap(self, changes: Sequence[Swap]) -> None:
        """Make all changes or none, in one transaction."""
        with self._catalog.connection(is_writing=True) as connection:
            for change in changes:
                _swap(connection, change)


def _of(table: sa.Table, system: str, name: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return table.c.system == system, table.c.name == name


def _generation(connection: sa.Connection, system: str, name: str) -> int:
    return connection.execute(_GENERATION, {"of_system": system, "of_name": name}).scalar() or 0


def _swap(connection: sa.Connection, change: Swap) -> None:
    key = {"system": change.system, "name": change.table}
    generation = _generation(connection, change.system, change.table)
    if generation == 0:
        connection.execute(sa.insert(LAKE_TABLES).values(**key, generation=1))
    else:
        counted = sa.update(LAKE_TABLES).where(*_of(LAKE_TABLES, change.system, change.table))
        connection.execute(counted.values(generation=generation + 1))
    for path in change.remove:
        connection.execute(sa.delete(LAKE_FILES).where(LAKE_FILES.c.path == path))
    for file in change.add:
        values = msgspec.structs.asdict(file)
        values["name"] = values.pop("table")
        connection.execute(sa.insert(LAKE_FILES).values(values))
    for segment in change.rolled:
        connection.execute(sa.insert(LAKE_ROLLED).values(**key, segment=segment))
    for segment in change.forget:
        rolled = _of(LAKE_ROLLED, change.system, change.table)
        connection.execute(sa.delete(LAKE_ROLLED).where(*rolled, LAKE_ROLLED.c.segment == segment))


def _asked(table: sa.Table) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return table.c.system == sa.bindparam("of_system"), table.c.name == sa.bindparam("of_name")


_GENERATION = sa.select(LAKE_TABLES.c.generation).where(*_asked(LAKE_TABLES))
_FILES = sa.select(LAKE_FILES).where(*_asked(LAKE_FILES)).order_by("seq")
_ROLLED = sa.select(LAKE_ROLLED.c.segment).where(*_asked(LAKE_ROLLED))
"""Built once: to build a statement takes longer than to run it."""
