"""Rows of a query, as far as its watermark has come."""

import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.specfile import parse_spec
from holdfast.engines.memory import MemoryCatalog, MemoryLake
from holdfast.errors import SourceError, SpecError
from holdfast.flow.ingestion import feed_tables
from holdfast.sources import sql
from holdfast.sources.sql import MOST, Sql, frame_of
from holdfast.world import LakeFeeds

START = datetime(2026, 1, 1, tzinfo=UTC)


class Database:
    def __init__(self, path: Path, form: str = "%Y-%m-%d %H:%M:%S") -> None:
        self.url, self.form = f"sqlite:///{path}", form
        self.connection = sqlite3.connect(path)
        self.connection.execute("create table log (id integer, at text, x real)")

    def add(self, *minutes: float) -> None:
        times = [(START + timedelta(minutes=minute)).strftime(self.form) for minute in minutes]
        self.connection.executemany(
            "insert into log values (?, ?, ?)", [(m, at, m / 2) for m, at in zip(minutes, times, strict=True)]
        )
        self.connection.commit()

    def source(self, **changes: Any) -> Sql:
        return Sql(**{"url": self.url, "query": "select * from log", "watermark": "at"} | changes)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "log.db")


def ids(source: Sql) -> list[int]:
    return [id for batch in source.batches() for id in source.read(batch)["id"].to_list()]


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f"])
def test_only_hours_that_are_over_are_read(tmp_path: Path, form: str) -> None:
    database = Database(tmp_path / "log.db", form)
    database.add(5, 59, 60, 61)
    assert ids(database.source()) == [5, 59]
    database.add(121)
    assert ids(database.source()) == [5, 59, 60, 61]


def test_what_was_read_before_is_not_read_again(database: Database) -> None:
    database.add(5, 61, 121, 181)
    assert ids(database.source(after=START + timedelta(minutes=61))) == [121]
    assert ids(database.source(after=START + timedelta(hours=3))) == []


def test_a_long_history_comes_in_spans(database: Database) -> None:
    day = 24 * 60
    database.add(*(n * day for n in range(100)))
    batches = list(database.source().batches())
    assert len(batches) == 100 * timedelta(days=1) // MOST + 1
    assert ids(database.source()) == [n * day for n in range(99)]
    assert [batch.sha256 for batch in database.source().batches()] == [batch.sha256 for batch in batches]


def test_an_empty_table_has_nothing_to_read(database: Database) -> None:
    assert list(database.source().batches()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"query": "select * from lgo"}, "no such table"),
        ({"watermark": "answered"}, "no such column"),
        ({"url": "$HOLDFAST_TEST_NO_SUCH_VARIABLE"}, "is not set"),
        ({"url": "nonsense"}, "does not answer"),
        ({"watermark": "x"}, "must be a time"),
        ({"query": "delete from log"}, "does not answer"),
    ],
)
def test_what_cannot_be_read_is_said(database: Database, changes: dict[str, Any], said: str) -> None:
    database.add(5, 61)
    with pytest.raises(SourceError, match=said):
        list(database.source(**changes).batches())


def test_an_url_may_lie_in_the_environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.add(5, 61)
    monkeypatch.setenv("LOANS_DB", database.url)
    assert ids(database.source(url="$LOANS_DB")) == [5]


FILE = """\
system: loans
data:
  feeds:
    answers: {from: "URL", query: "select id, at, x, 0.5 as proba from log", event_at: at, known_at: at, key: id}
  rows: answers
  key: id
  label: {feed: answers, column: proba, known_at: at}
  columns: {x: number}
predictions: {task: classification, score: proba, reference: {first: 60d}}
"""


def test_a_feed_goes_on_where_it_ended_after_a_restart(database: Database, tmp_path: Path) -> None:
    spec = parse_spec(
        FILE.replace("URL", database.url)
        .replace("column: proba", "column: y")
        .replace("0.5 as proba", "0.5 as proba, 1 as y")
    )
    lake, catalog = MemoryLake(), MemoryCatalog()
    database.add(5, 61)
    now = START + timedelta(hours=5)
    assert LakeFeeds(spec, tmp_path, lake, catalog).ingest(now).rows_kept == 1
    database.add(125)
    feeds = LakeFeeds(spec, tmp_path, lake, catalog)
    assert feeds.ingest(now).rows_kept == 1
    assert feeds.ingest(now).rows_kept == 0
    table: pl.DataFrame = feed_tables(spec, lake, catalog)["answers"]
    assert table["id"].to_list() == [5, 61]
    assert table["at"].to_list() == [START + timedelta(minutes=minute) for minute in (5, 61)]


def test_a_query_needs_what_says_which_rows_are_new() -> None:
    with pytest.raises(SpecError, match="needs 'known_at'"):
        parse_spec(FILE.replace("known_at: at, ", ""))


NOW = START + timedelta(days=1)


def test_a_row_dated_in_the_future_neither_ends_the_feed_nor_makes_batches(database: Database) -> None:
    database.add(5, 61, 73 * 365 * 24 * 60)
    source = database.source(now=NOW)
    assert len(list(source.batches())) == 1
    assert ids(source) == [5]
    database.add(125)
    assert ids(database.source(now=NOW, after=START + timedelta(minutes=59))) == [61]
    assert "1 rows lie ahead: 'at' is as late as 2098" in source.ahead()
    assert len(list(database.source().batches())) == 1, "spans without rows are none"


def test_where_nothing_lies_ahead_nothing_is_said(database: Database) -> None:
    assert database.source(now=NOW).ahead() == ""
    database.add(5, 61)
    assert database.source(now=NOW).ahead() == ""


def test_what_lies_ahead_is_a_problem_of_the_feed_and_the_rest_is_read(database: Database, tmp_path: Path) -> None:
    spec = parse_spec(
        FILE.replace("URL", database.url)
        .replace("column: proba", "column: y")
        .replace("0.5 as proba", "0.5 as proba, 1 as y")
    )
    database.add(5, 61, 10 * 24 * 60)
    feeds = LakeFeeds(spec, tmp_path, MemoryLake(), MemoryCatalog())
    assert feeds.world(NOW).rows_known(NOW) == 1
    assert "feed 'answers': 1 rows lie ahead" in feeds.problem
    feeds.world(NOW + timedelta(days=20))
    assert feeds.problem == ""


@pytest.mark.parametrize("most", [1, 7, 50, 1000])
def test_a_batch_has_so_many_rows_at_most(database: Database, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(sql, "MOST_ROWS", most)
    minutes = [*range(100), *(5000 + n / 10 for n in range(100)), 6000]
    database = Database(Path(database.url.removeprefix("sqlite:///")).with_name("fine.db"), "%Y-%m-%d %H:%M:%S.%f")
    database.add(*minutes)
    batches = list(database.source().batches())
    read = [database.source().read(batch)["id"].to_list() for batch in batches]
    assert [id for batch in read for id in batch] == minutes[:-1]
    assert 0 < max(map(len, read)) <= most
    assert len(batches) <= 4 * (200 / most + 1)


def test_rows_of_one_time_stay_together_however_many_there_are(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "MOST_ROWS", 3)
    database.add(*[5] * 10, 61)
    assert ids(database.source()) == [5] * 10


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("1.50"), 1.5),
        (b"car", "car"),
        (memoryview(b"car"), "car"),
        (b"\xff\xfe", None),
        ({"a": 1}, '{"a": 1}'),
        ([1, 2], "[1, 2]"),
        (timedelta(hours=1), "1:00:00"),
        (7, 7),
        (None, None),
    ],
)
def test_what_a_driver_gives_becomes_what_a_feed_may_hold(given: Any, kept: Any) -> None:
    assert frame_of(["id", "x"], [(1, given), (2, None)])["x"].to_list() == [kept, None]


def test_a_column_whose_values_do_not_go_together_is_named() -> None:
    with pytest.raises(SourceError, match=r"column 'x' of the query .* holds datetime and float"):
        frame_of(["id", "x"], [(1, START), (2, 2.5)])


def test_a_value_that_is_nested_too_deeply_is_said() -> None:
    nested: list[Any] = []
    for _ in range(10_000):
        nested = [nested]
    with pytest.raises(SourceError, match="nested too deeply"):
        frame_of(["id", "x"], [(1, nested)])


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:S3cret@host:notaport/db",
        "postgresql://user:S3cret/x:w@host/db",
        "postgresql://user:S3cret@x@host:p/db",
        "postgresqlX://user:S3cret@host/db",
        "postgres//user:S3cret@host/db",
        "user:S3cret@host/db",
    ],
)
def test_an_url_that_is_none_is_said_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOANS_DB", url)
    for named in (url, "$LOANS_DB"):
        with pytest.raises(SourceError) as caught:
            list(Sql(url=named, query="select 1", watermark="at").batches())
        assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("end", ["", ";", " ; ", " -- all of them", "\n-- the last line"])
def test_a_query_may_end_in_a_comment(database: Database, end: str) -> None:
    database.add(5, 61)
    assert ids(database.source(query=f"select * from log{end}")) == [5]


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.sampled_from([":word", r"C\:a"])
)
def test_text_in_a_query_stays_what_it_is(text: str) -> None:
    quoted = text.replace("'", "''")
    query = f"select '{quoted}' as x, '2026-01-01 10:00:00' as at union all select 'last', '2026-01-01 11:00:00'"
    source = Sql(url="sqlite://", query=query, watermark="at")
    [batch] = source.batches()
    assert source.read(batch)["x"].to_list() == [text]


def test_a_query_cannot_write(database: Database) -> None:
    with pytest.raises(SourceError, match="readonly"):
        database.source()._all(sa.text("delete from log"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:S3cret@db/x",
        "postgresql://u:pa/ss@db/x",
        "u:S3cret@db/x",
        "mysql+pymysql://db/x?password=S3cret",
        "mssql+pyodbc:///?odbc_connect=SERVER%3Ddb%3BPWD%3DS3cret",
    ],
)
def test_a_password_is_refused_in_a_system_file(url: str) -> None:
    with pytest.raises(SpecError, match=r"data\.feeds\.answers\.from: .*environment variable: \$NAME") as caught:
        parse_spec(FILE.replace("URL", url))
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["$LOANS_DB", "sqlite:////data/a:b@c.db", "postgresql://user@host:5432/db", "postgresql://host/db"]
)
def test_a_database_without_a_password_may_be_named(url: str) -> None:
    file = FILE.replace("URL", url).replace("column: proba", "column: y")
    assert parse_spec(file).data.feeds["answers"].from_ == url
