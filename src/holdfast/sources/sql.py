"""SQL: the rows of a query, as far as a column that only grows has come. By SQLAlchemy."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import polars as pl
import sqlalchemy as sa

from holdfast.core.protocols import Batch
from holdfast.errors import SourceError

HOUR = timedelta(hours=1)
MOST = timedelta(days=30)
"""Longest time that one batch covers."""
MOST_ROWS = 200_000
"""Most rows of one batch, but for rows that all have the same time."""
CONNECT_S = 10
"""How long a database may take to answer at all."""
STATEMENT_S = 600
"""How long PostgreSQL may work on one statement."""

_INSTANT = timedelta(microseconds=1)
_CONNECT: Mapping[str, Mapping[str, int]] = {
    "psycopg": {"connect_timeout": CONNECT_S},
    "psycopg2": {"connect_timeout": CONNECT_S},
    "pymysql": {"connect_timeout": CONNECT_S, "read_timeout": STATEMENT_S},
    "mysqldb": {"connect_timeout": CONNECT_S, "read_timeout": STATEMENT_S},
    "pg8000": {"timeout": CONNECT_S},
    "pyodbc": {"timeout": CONNECT_S},
    "pymssql": {"login_timeout": CONNECT_S},
}
"""How the driver is told, where it takes a bound; what the URL says itself goes first."""
_BEFORE: Mapping[str, Sequence[str]] = {
    "postgresql": ("SET TRANSACTION READ ONLY", f"SET LOCAL statement_timeout = {STATEMENT_S * 1000}"),
    "mysql": ("START TRANSACTION READ ONLY",),
    "mariadb": ("START TRANSACTION READ ONLY",),
    "sqlite": ("PRAGMA query_only = ON",),
}
"""What is said first, so that nothing can be written, and nothing lasts for ever."""


class Sql(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a query whose `watermark` is later than `after`, up to the last full hour that is over.

    An hour is over when a row of a later one is there, so nothing is read while it may still grow. A row that is
    written with a time of an hour that was read is not found. Text in place of times (SQLite has no others) is taken as
    UTC and must be written as ISO 8601, all in one way.
    """

    url: str
    """An SQLAlchemy URL, or ``$NAME``: the environment variable that holds it, since it has a password in it."""
    query: str
    """What is selected; one of its columns is the watermark."""
    watermark: str
    """A column of times that new rows have later than old ones."""
    after: datetime | None = None
    """Rows up to this time were read before."""
    now: datetime | None = None
    """Rows of later times are not looked at, so that one with a wrong date does not end the feed; None: all are."""

    def batches(self) -> Iterable[Batch]:
        """Spans of full hours that have rows and were not read yet. Raises SourceError for a database or a query that
        fails."""
        least, most = self._ends()
        if least is None or most is None:
            return []
        start = least - _INSTANT if self.after is None else self.after
        end = most.replace(minute=0, second=0, microsecond=0) - _INSTANT
        return list(self._spans(start, end))

    def ahead(self) -> str:
        """What is said of rows whose time has not come yet; empty where there are none. Raises SourceError."""
        if self.now is None:
            return ""
        column: sa.ColumnClause[Any] = sa.column(self.watermark)
        [bound] = self._bounds(self.now)
        late = column > bound
        [(count, most)] = self._all(
            sa.select(sa.func.count(), sa.func.max(column)).select_from(self._rows()).where(late)
        )
        if not count:
            return ""
        return (
            f"{count} rows lie ahead: '{self.watermark}' is as late as {most}, and it is {self.now.isoformat()}; they "
            "are not read before their time has come; correct them where they are written"
        )

    def read(self, batch: Batch) -> pl.DataFrame:
        """All rows of a span. Raises SourceError where the database does not give them."""
        start, end = (datetime.fromisoformat(text) for text in batch.name.split(" to "))
        within = self._within(start, end)
        rows = self._all(sa.select(sa.text("*")).select_from(self._rows()).where(within))
        names = list(rows[0]._fields) if rows else []
        return frame_of(names, [tuple(row) for row in rows])

    def _spans(self, start: datetime, end: datetime) -> Iterator[Batch]:
        while start < end:
            until = min(end, start + MOST)
            yield from self._parts(start, until)
            start = until

    def _parts(self, start: datetime, end: datetime) -> Iterator[Batch]:
        """A span in equal parts until none has too many rows."""
        [(count,)] = self._all(sa.select(sa.func.count()).select_from(self._rows()).where(self._within(start, end)))
        if not count:
            return
        step = max((end - start) // -(-count // MOST_ROWS), _INSTANT)
        if step >= end - start:
            name = f"{start.isoformat()} to {end.isoformat()}"
            digest = hashlib.sha256(f"{self.query}\n{name}".encode()).hexdigest()
            yield Batch(name=name, sha256=digest, size_bytes=0)
            return
        while start < end:
            # What a division leaves over goes to the last part.
            until = end if end - start < 2 * step else start + step
            yield from self._parts(start, until)
            start = until

    def _ends(self) -> tuple[datetime | None, datetime | None]:
        column: sa.ColumnClause[Any] = sa.column(self.watermark)
        asked = sa.select(sa.func.min(column), sa.func.max(column)).select_from(self._rows())
        if self.now is not None:
            [bound] = self._bounds(self.now)
            asked = asked.where(column <= bound)
        [(least, most)] = self._all(asked)
        return self._time(least), self._time(most)

    def _time(self, value: Any) -> datetime | None:
        """A watermark as an aware time."""
        try:
            time = datetime.fromisoformat(value) if isinstance(value, str) else value
        except ValueError:
            time = value
        if time is None:
            return None
        if not isinstance(time, datetime) or (isinstance(value, str) and time.utcoffset()):
            raise SourceError(
                f"column '{self.watermark}' holds {value!r}; it must be a time, or text of one in UTC such as "
                "2026-03-01 10:00:00"
            )
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)

    def _within(self, start: datetime, end: datetime) -> Any:
        column: sa.ColumnClause[Any] = sa.column(self.watermark)
        low, high = self._bounds(start, end)
        return sa.and_(column > low, column <= high)

    def _bounds(self, *times: datetime) -> list[Any]:
        """Times as the column has them, so that they can be compared with it."""
        column: sa.ColumnClause[Any] = sa.column(self.watermark)
        found = self._all(sa.select(column).select_from(self._rows()).where(column.is_not(None)).limit(1))
        sample = found[0][0] if found else None
        self._time(sample)
        if isinstance(sample, str):
            return [time.replace(tzinfo=None).isoformat(sep="T" if "T" in sample else " ") for time in times]
        if isinstance(sample, datetime) and sample.tzinfo is None:
            return [time.replace(tzinfo=None) for time in times]
        return list(times)

    def _rows(self) -> Any:
        # A colon is the query's own and no parameter; the line may end in a comment.
        query = self.query.strip().rstrip(";").replace(":", r"\:")
        return sa.text(f"({query}\n) AS holdfast_rows")

    def _all(self, select: Any) -> list[Any]:
        url = _parsed(self.url)
        try:
            bounds = {
                name: value for name, value in _CONNECT.get(url.get_driver_name(), {}).items() if name not in url.query
            }
            engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=bounds)
            with engine.connect() as connection:
                for statement in _BEFORE.get(engine.dialect.name, ()):
                    connection.exec_driver_sql(statement)
                return list(connection.execute(select))
        except Exception as error:  # drivers are foreign code, and raise what they like
            cause = str(getattr(error, "orig", None) or error).strip().partition("\n")[0] or type(error).__name__
            if url.password:
                cause = cause.replace(str(url.password), "***")
            raise SourceError(f"the database does not answer the query: {cause}") from error


def _parsed(text: str) -> sa.URL:
    """The URL, taken from the environment where that is what it says. No password is ever in what is raised."""
    named, url = "", text
    if text.startswith("$"):
        named, url = text[1:], os.environ.get(text[1:], "")
        if not url:
            raise SourceError(f"the environment variable {named}, which `from` names, is not set")
    try:
        return sa.make_url(url)
    except Exception:  # noqa: BLE001 - it raises ValueError too; its cause is left out, since it may hold the password
        shown = (
            f"the environment variable {named}, which `from` names," if named else f"`from`, {_without_secret(url)},"
        )
        raise SourceError(
            f"the database does not answer: {shown} is no SQLAlchemy URL, such as "
            "postgresql+psycopg://user:password@host:5432/name; write what is special in a password as %40 and so on"
        ) from None


def _without_secret(url: str) -> str:
    """What may be shown of something that was meant as a URL."""
    scheme, there, rest = url.partition("?")[0].partition("://")
    if not there:
        scheme, rest = "", scheme
    before, at, after = rest.rpartition("@")
    return f"{scheme}{there}{'***' if before else ''}{at}{after}"


def frame_of(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    """Rows of a database; what Polars has no type for becomes text, a decimal a number, and bytes that are no text
    null. Raises SourceError naming the column whose values do not go together."""
    try:
        plain = [tuple(_plain(value) for value in row) for row in rows]
    except RecursionError as error:
        raise SourceError(
            "a value of the query is nested too deeply to be read; leave its column out of the query"
        ) from error
    try:
        return _framed(names, plain)
    except Exception as error:  # Polars raises several kinds, of Python and its own
        for place, name in enumerate(names):
            column = [(row[place],) for row in plain]
            try:
                _framed([name], column)
            except Exception as cause:
                kinds = " and ".join(sorted({type(value).__name__ for (value,) in column if value is not None}))
                raise SourceError(
                    f"column '{name}' of the query cannot be read as one type, it holds {kinds}; cast it in the query"
                ) from cause
        raise SourceError(f"the rows of the query cannot be read: {str(error).partition(chr(10))[0]}") from error


def _framed(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=list(names), orient="row", infer_schema_length=None)
    for place, (name, kind) in enumerate(frame.schema.items()):
        # Polars makes times beside numbers numbers.
        if kind.is_numeric() and any(isinstance(row[place], date) for row in rows):
            raise TypeError(f"times and numbers in column '{name}'")
    return frame


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | datetime | date):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=str)
    return str(value)
