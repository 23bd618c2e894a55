"""Rows of a query of a real PostgreSQL, which these tests start themselves."""

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from holdfast.core.specfile import parse_spec
from holdfast.engines.memory import MemoryCatalog, MemoryLake
from holdfast.errors import SourceError
from holdfast.flow.ingestion import feed_tables
from holdfast.sources.sql import Sql
from holdfast.world import LakeFeeds

DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
INITDB = shutil.which("initdb") or (str(DEBIAN[-1]) if DEBIAN else None)
START = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = itertools.count()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        INITDB is None or find_spec("psycopg") is None,
        reason="PostgreSQL or its driver is absent: apt-get install postgresql; pip install 'psycopg[binary]'",
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """The folder of the socket of a server that nobody else reaches. A session of it is in Kolkata by default."""
    assert INITDB is not None
    bin = Path(INITDB).resolve().parent
    # It does not run as root, and another user has no way into the folders of pytest; a socket needs a short path too.
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="holdfast-postgres-") as made:
        folder = Path(made)
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        argv = [bin / "initdb", "-D", data, "-U", "holdfast", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(argv, check=True, capture_output=True, user=user, cwd=folder)
        settings = ("listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "timezone=Asia/Kolkata")
        argv = [bin / "postgres", "-D", data, *(part for each in settings for part in ("-c", each))]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, user=user, cwd=folder)
        try:
            deadline = time.monotonic() + 60
            while subprocess.run([bin / "pg_isready", "-q", "-h", folder], check=False).returncode:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "it does not answer"
                time.sleep(0.05)
            yield folder
        finally:
            process.terminate()
            process.wait(30)


class Database:
    """A database of its own on the server, with a table ``log``."""

    def __init__(self, server: Path, name: str, columns: str) -> None:
        self._url = sa.URL.create("postgresql+psycopg", "holdfast", database="postgres", query={"host": str(server)})
        self._do(f"create database {name}")
        self._url = self._url.set(database=name)
        self.url = self._url.render_as_string()
        self._do(f"create table log (id bigint, at timestamptz, {columns})")

    def _do(self, statement: str, rows: Any = None) -> None:
        engine = sa.create_engine(self._url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(statement), rows)

    def add(self, *minutes: int, **values: Any) -> None:
        """A row for each of these minutes; its id is its minute."""
        names = ["id", "at", *values]
        statement = f"insert into log ({', '.join(names)}) values ({', '.join(':' + name for name in names)})"
        self._do(statement, [{"id": m, "at": START + timedelta(minutes=m)} | values for m in minutes])

    def source(self, **changes: Any) -> Sql:
        return Sql(**{"url": self.url, "query": "select * from log", "watermark": "at"} | changes)

    def read(self, **changes: Any) -> pl.DataFrame:
        """The rows of all batches."""
        source = self.source(**changes)
        return pl.concat([source.read(batch) for batch in source.batches()])


@pytest.fixture
def database(server: Path) -> Database:
    return Database(server, f"number_{next(NUMBERS)}", "amount numeric(12, 2), is_new boolean, kind text")


def test_every_type_becomes_what_a_feed_may_hold(server: Path) -> None:
    columns = {
        "amount": ("numeric(30, 4)", "12345.6789", 12345.6789),
        "no_number": ("numeric", "NaN", None),
        "small": ("real", "0.5", 0.5),
        "count": ("integer", "-7", -7),
        "is_new": ("boolean", "true", True),
        "kind": ("text", "'Zürich': 100 %", "'Zürich': 100 %"),
        "day": ("date", "2026-01-05", date(2026, 1, 5)),
        "local": ("timestamp", "2026-01-05 10:00:00.123456", datetime(2026, 1, 5, 10, 0, 0, 123456)),
        "seen": ("timestamptz", "2026-01-05 10:00:00+01", datetime(2026, 1, 5, 9, tzinfo=UTC)),
        "code": ("uuid", "00000000-0000-0000-0000-000000000005", "00000000-0000-0000-0000-000000000005"),
        "facts": ("jsonb", '{"a": [1, null]}', '{"a": [1, null]}'),
        "labels": ("text[]", "{a,b}", '["a", "b"]'),
        "bytes": ("bytea", "\\x636172", "car"),
        "took": ("interval", "01:00:00", "1:00:00"),
    }
    written = ", ".join(f"{name} {kind}" for name, (kind, _, _) in columns.items())
    database = Database(server, "types", written)
    database._do(
        "insert into log values "
        + ", ".join(
            f"({m}, '{(START + timedelta(minutes=m)).isoformat()}', "
            + ", ".join("null" if m == 6 else "$$" + text + "$$" for _, text, _ in columns.values())
            + ")"
            for m in (5, 6, 61)
        ).replace(":", r"\:")
    )
    first, empty = database.read().sort("id").to_dicts()
    for name, (kind, _, expected) in columns.items():
        if name == "no_number":
            assert first[name] != first[name], "NaN"
        else:
            assert first[name] == expected, kind
    assert first["at"] == START + timedelta(minutes=5)
    assert {name: empty[name] for name in columns} == dict.fromkeys(columns)


def test_only_hours_that_are_over_are_read_and_reading_goes_on(database: Database) -> None:
    database.add(5, 59, 60, 61, amount=1.5, is_new=True, kind="a")
    assert database.read()["id"].to_list() == [5, 59]
    database.add(121, amount=2, is_new=False, kind=None)
    after = START + timedelta(minutes=59)
    frame = database.read(after=after)
    assert frame["id"].to_list() == [60, 61]
    assert frame["at"].to_list() == [START + timedelta(minutes=60), START + timedelta(minutes=61)]
    assert list(database.source(after=START + timedelta(minutes=61)).batches()) == []


def test_a_filter_with_casts_and_comments_is_asked_as_it_stands(database: Database) -> None:
    database.add(5, 6, 61, amount=1.5, is_new=True, kind="a:b")
    query = "select id, at, amount::float8 as x from log where kind = 'a:b' and at::date >= '2026-01-01'::date -- all"
    assert database.read(query=query).columns == ["id", "at", "x"]


def test_a_date_in_the_future_is_said_and_not_read(database: Database) -> None:
    database.add(5, 61, 10 * 24 * 60, amount=1, is_new=True, kind="a")
    source = database.source(now=START + timedelta(days=1))
    assert [id for batch in source.batches() for id in source.read(batch)["id"]] == [5]
    assert "1 rows lie ahead" in source.ahead()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"query": "select * from lgo"}, 'relation "lgo" does not exist'),
        ({"query": "select id from log"}, 'column "at" does not exist'),
        ({"query": "selct 1"}, "syntax error"),
        ({"query": "delete from log returning at"}, "syntax error"),
        ({"query": "with gone as (delete from log returning *) select * from gone"}, "must be at the top level"),
        ({"query": "select at, pg_sleep(0), nextval('numbers') from log"}, "read-only transaction"),
        ({"watermark": "kind"}, "must be a time"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(database: Database, changes: dict[str, Any], said: str) -> None:
    database.add(5, 61, amount=1, is_new=True, kind="a")
    database._do("create sequence numbers")
    with pytest.raises(SourceError, match=said) as caught:
        database.read(**changes)
    assert "\n" not in str(caught.value)
    assert database.read()["id"].to_list() == [5], "nothing was written"


def test_a_database_that_is_not_there_is_said(server: Path, tmp_path: Path) -> None:
    there = f"postgresql+psycopg://holdfast@/nothing?host={server}"
    with pytest.raises(SourceError, match='database "nothing" does not exist'):
        list(Sql(url=there, query="select 1", watermark="at").batches())
    with pytest.raises(SourceError, match="does not answer"):
        list(Sql(url=f"postgresql+psycopg://holdfast@/x?host={tmp_path}", query="select 1", watermark="at").batches())


FILE = """\
system: loans
data:
  feeds:
    answers:
      from: $HOLDFAST_TEST_POSTGRES
      query: select id, at, amount, is_new, kind, 0.5 as proba, 1 as y from log
      event_at: at
      known_at: at
      key: id
  rows: answers
  key: id
  label: {feed: answers, column: y, known_at: at}
  columns: {amount: number, is_new: boolean, kind: category}
predictions: {task: classification, score: proba, reference: {first: 60d}}
"""


def test_a_feed_of_a_growing_table_goes_on_where_it_ended(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_TEST_POSTGRES", database.url)
    spec, lake, catalog = parse_spec(FILE), MemoryLake(), MemoryCatalog()
    now = START + timedelta(hours=5)
    database.add(5, 61, amount="1.25", is_new=True, kind="a")
    assert LakeFeeds(spec, tmp_path, lake, catalog).ingest(now).rows_kept == 1
    database.add(125, amount=None, is_new=None, kind=None)
    feeds = LakeFeeds(spec, tmp_path, lake, catalog)
    assert [feeds.ingest(now).rows_kept for _ in range(2)] == [1, 0]
    database.add(185, amount=2, is_new=False, kind="b")
    assert feeds.ingest(now).rows_kept == 1
    rows = feed_tables(spec, lake, catalog)["answers"].sort("at").to_dicts()
    assert [(row["at"] - START) // timedelta(minutes=1) for row in rows] == [5, 61, 125]
    assert [(row["amount"], row["is_new"], row["kind"]) for row in rows] == [
        (1.25, True, "a"), (1.25, True, "a"), (None, None, None),
    ]  # fmt: skip
