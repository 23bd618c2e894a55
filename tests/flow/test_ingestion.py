"""Taking files in: once each, nothing lost, what cannot be used in quarantine with its reason."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.protocols import Batch
from holdfast.core.records import FileRef, Mark
from holdfast.core.signature import Column
from holdfast.core.spec import Data, Decide, Feed, Gate, Label, Model, ReleasePlan, Step, SystemSpec
from holdfast.engines.memory import MemoryCatalog, MemoryLake
from holdfast.errors import SourceError
from holdfast.flow.ingestion import Ingested, feed_tables, forget, ingest, intake, lineage, quarantine_reasons
from holdfast.flow.joins import assemble
from holdfast.flow.rows import row_ids

NOW = datetime(2020, 6, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)


SPEC = SystemSpec(
    system="trips",
    data=Data(
        feeds={
            "trips": Feed(from_="trips.csv", event_at="planned_at", known_at="listed_at", key=("id",)),
            "weather": Feed(
                from_="weather.csv",
                known_at="published_at",
                key=("station", "published_at"),
                by=("station",),
                take=("temp",),
            ),
            "stations": Feed(from_="stations.csv", key=("station",), by=("station",), take=("town",)),
            "ends": Feed(from_="ends.csv", known_at="ended_at", key=("id",)),
        },
        rows="trips",
        key="id",
        label=Label(feed="ends", column="late", known_at="ended_at"),
        columns={
            column.name: column
            for column in (
                Column(name="station", type="category"),
                Column(name="length", type="number"),
                Column(name="weather_temp", type="number"),
                Column(name="stations_town", type="category"),
            )
        },
    ),
    model=Model(task="classification"),
    gates=(Gate(check="schema"),),
    release=ReleasePlan(steps=(Step(stage="live"),), decide=Decide(loss="brier", margin=0.01)),
)


class Given:
    """A source of frames, each a batch whose hash is that of its rows."""

    def __init__(self, **frames: pl.DataFrame) -> None:
        self.frames = frames
        self.reads = 0

    def batches(self) -> list[Batch]:
        return [
            Batch(name=name, sha256=hashlib.sha256(frame.write_json().encode()).hexdigest(), size_bytes=1)
            for name, frame in sorted(self.frames.items())
        ]

    def read(self, batch: Batch) -> pl.DataFrame:
        self.reads += 1
        return self.frames[batch.name]


class Broken:
    def batches(self) -> list[Batch]:
        raise SourceError("weather.csv: no file of that name")

    def read(self, batch: Batch) -> pl.DataFrame:
        raise AssertionError("never asked")


TRIPS = pl.DataFrame({"id": [1, 2], "listed_at": [at(0), at(10)], "planned_at": [at(60), at(70)], "station": ["a", "b"], "length": [5, 6]})  # fmt: skip # noqa: E501
WEATHER = pl.DataFrame({"station": ["a", "b"], "published_at": [at(0), at(1)], "temp": [1.5, None]})
STATIONS = pl.DataFrame({"station": ["a", "b"], "town": ["north", "south"], "open": [True, None]})
ENDS = pl.DataFrame({"id": [1], "ended_at": [at(90)], "late": [1]})


class Place:
    """A lake, a catalog and the sources of every feed."""

    def __init__(self) -> None:
        self.lake = MemoryLake()
        self.catalog = MemoryCatalog()
        self.sources = {
            "trips": Given(a=TRIPS),
            "weather": Given(a=WEATHER),
            "stations": Given(a=STATIONS),
            "ends": Given(a=ENDS),
        }

    def ingest(self, spec: SystemSpec = SPEC) -> Ingested:
        return ingest(spec, self.sources, self.lake, self.catalog, now=NOW)

    def add(self, feed: str, name: str, frame: pl.DataFrame) -> None:
        self.sources[feed].frames[name] = frame

    def tables(self, **options: datetime) -> dict[str, pl.DataFrame]:
        return feed_tables(SPEC, self.lake, self.catalog, **options)

    def quarantine(self, feed: str) -> pl.DataFrame:
        return self.lake.scan(f"quarantine/{feed}", "trips")


@pytest.fixture
def place() -> Place:
    return Place()


def test_feeds_come_back_as_they_were_read(place):
    place.ingest()
    tables = place.tables()
    utc = {name: pl.col(name).cast(pl.Datetime("us", "UTC")) for name in ("listed_at", "planned_at")}
    assert tables["trips"].equals(TRIPS.with_columns(**utc))
    assert tables["stations"].equals(STATIONS)
    assert tables["weather"]["temp"].to_list() == [1.5, None]
    assert assemble(SPEC.data, tables)["stations_town"].to_list() == ["north", "south"]


def test_what_was_taken_in_is_reported_by_feed(place):
    done = place.ingest().feeds["trips"]
    assert (done.files, done.rows_read, done.rows_kept, done.rows_quarantined, done.newest) == (1, 2, 2, 0, at(10))
    again = place.ingest().feeds["trips"]
    assert (again.files, again.rows_read, again.newest) == (0, 0, at(10))


def test_the_same_file_twice_adds_nothing_and_is_not_read_again(place):
    place.ingest()
    before = place.tables()
    place.ingest()
    assert place.sources["trips"].reads == 1
    assert all(place.tables()[name].equals(frame) for name, frame in before.items())


def test_late_rows_are_taken_up(place):
    place.ingest()
    place.add("trips", "b", TRIPS.with_columns(pl.col("id") + 10, listed_at=at(-5)).head(1))
    assert place.ingest().rows_kept == 1
    assert place.tables()["trips"]["id"].to_list() == [11, 1, 2]


def test_a_changed_file_is_read_again_and_each_row_stays_one(place):
    place.ingest()
    place.add("trips", "a", TRIPS.with_columns(length=pl.Series([5, 60])))
    assert place.ingest().feeds["trips"].rows_read == 2
    assert place.tables()["trips"].select("id", "length").rows() == [(1, 5), (2, 60)]


def test_a_feed_without_key_keeps_equal_rows_once(place):
    feeds = {**SPEC.data.feeds, "weather": replace(SPEC.data.feeds["weather"], key=())}
    spec = replace(SPEC, data=replace(SPEC.data, feeds=feeds))
    place.add("weather", "b", WEATHER)
    place.add("weather", "c", WEATHER.with_columns(temp=pl.lit(9.0)))
    assert place.ingest(spec).feeds["weather"].rows_kept == 6
    assert sorted(place.tables()["weather"]["temp"].fill_null(-1.0).to_list()) == [-1.0, 1.5, 9.0, 9.0]


def test_rows_that_cannot_be_used_are_kept_apart_with_their_reason(place):
    bad = pl.DataFrame(
        {
            "id": [3, None, 5, 6],
            "listed_at": [None, at(1), at(1), at(1)],
            "planned_at": [at(60)] * 4,
            "station": ["a"] * 4,
            "length": ["1", "1", "long", "7.5"],
        }
    )
    place.add("trips", "b", bad)
    done = place.ingest().feeds["trips"]
    assert (done.rows_read, done.rows_kept, done.rows_quarantined) == (6, 3, 3)
    kept_apart = place.quarantine("trips").sort("row")
    assert kept_apart["reason"].to_list() == ["listed_at is missing", "id is missing", "length is not a number: long"]
    assert kept_apart["row"].to_list() == [0, 1, 2]
    assert set(kept_apart["file"]) == {"b"}
    assert json.loads(kept_apart["raw"][2])["length"] == "long"
    assert place.tables()["trips"].select("id", "length").rows() == [(1, 5.0), (6, 7.5), (2, 6.0)]


def test_rows_without_the_value_to_join_on_are_kept_apart(place):
    place.add("weather", "b", WEATHER.with_columns(station=pl.lit(None, pl.String)))
    assert place.ingest().feeds["weather"].rows_quarantined == 2
    assert set(place.quarantine("weather")["reason"]) == {"station is missing"}


def test_a_time_that_is_none_is_kept_apart(place):
    place.add("weather", "b", pl.DataFrame({"station": ["a", "a"], "published_at": ["2020-01-02T00:00:00Z", "soon"], "temp": [1.0, 2.0]}))  # fmt: skip # noqa: E501
    place.ingest()
    assert place.quarantine("weather")["reason"].to_list() == ["published_at is not a time: soon"]
    assert place.tables()["weather"]["published_at"].to_list() == [at(0), at(1), at(24 * 60)]


def test_a_feature_that_is_a_time_is_read_as_one_and_may_be_missing(place):
    data = replace(SPEC.data, columns={"booked_at": Column(name="booked_at", type="time")})
    booked = pl.Series("booked_at", ["2020-01-01T02:30:00+02:00", None, "soon", "2019-12-31"])
    place.sources["trips"] = Given(a=pl.concat([TRIPS] * 4)[:4].with_columns(booked, id=pl.Series([1, 2, 3, 4])))
    place.ingest(replace(SPEC, data=data))
    assert place.quarantine("trips")["reason"].to_list() == ["booked_at is not a time: soon"]
    tables = feed_tables(replace(SPEC, data=data), place.lake, place.catalog)
    found = dict(zip(tables["trips"]["id"].to_list(), tables["trips"]["booked_at"].to_list(), strict=True))
    assert found == {1: at(30), 2: None, 4: at(-24 * 60)}
    assembled = assemble(data, tables)
    assert set(assembled["booked_at"]) == {at(30).timestamp() * 1e6, None, at(-24 * 60).timestamp() * 1e6}


def test_a_row_without_a_label_is_no_bad_row(place):
    place.add("ends", "b", pl.DataFrame({"id": [2], "ended_at": [at(95)], "late": [None]}))
    assert place.ingest().feeds["ends"].rows_quarantined == 0


def test_quarantine_keeps_one_of_a_row_that_is_read_twice(place):
    place.add("weather", "b", WEATHER.with_columns(station=pl.lit(None, pl.String)))
    place.ingest()
    place.catalog = MemoryCatalog()  # as if the process had died before it remembered the files
    place.ingest()
    assert place.quarantine("weather").height == 2
    assert place.tables()["trips"].height == 2


def test_a_column_may_begin_empty_and_grow_from_integers_to_numbers(place):
    place.sources["weather"] = Given(
        a=WEATHER.with_columns(temp=pl.lit(None), wind=pl.lit(None)),
        b=WEATHER.with_columns(temp=pl.lit(2), published_at=at(5)),
        c=WEATHER.with_columns(temp=pl.lit(2.5), published_at=at(6), wind=pl.lit("n")),
    )
    place.ingest()
    weather = place.tables()["weather"]
    assert weather["temp"].to_list() == [None, None, 2.0, 2.0, 2.5, 2.5]
    assert weather["wind"].to_list() == [None] * 4 + ["n"] * 2


def test_large_identifiers_keep_every_digit(place):
    place.sources["stations"] = Given(a=STATIONS.with_columns(town=pl.Series([2**60 + 1, 2**60 + 3])))
    place.ingest()
    assert place.tables()["stations"]["town"].to_list() == [str(2**60 + 1), str(2**60 + 3)]


def test_columns_named_like_the_lakes_own_come_back(place):
    place.add("stations", "a", STATIONS.with_columns(row_id=pl.lit("x"), known_at=pl.lit(at(3))))
    place.ingest()
    stations = place.tables()["stations"]
    assert stations["row_id"].to_list() == ["x", "x"]
    assert stations["known_at"].to_list() == [at(3), at(3)]


def test_until_gives_what_was_known_then_and_lookups_always(place):
    place.ingest()
    tables = place.tables(until=at(0))
    assert [tables[name].height for name in ("trips", "weather", "stations", "ends")] == [1, 1, 2, 0]
    assert tables["ends"].columns == ["id", "ended_at", "late"]
    assert tables["ends"].schema["ended_at"] == pl.Datetime("us", "UTC")


def test_a_feed_without_rows_has_the_columns_that_the_file_names(place):
    place.sources["ends"] = Given()
    place.ingest()
    assert place.tables()["ends"].schema == {"ended_at": pl.Datetime("us", "UTC"), "id": pl.String, "late": pl.Float64}
    assert assemble(SPEC.data, place.tables())["label"].to_list() == [None, None]


def test_a_broken_feed_does_not_stop_the_others(place):
    place.sources["trips"] = Broken()
    with pytest.raises(SourceError, match=r"feed 'trips': weather\.csv: no file of that name"):
        place.ingest()
    assert place.tables()["weather"].height == 2


def test_a_missing_column_is_an_error_with_file_and_near_miss(place):
    place.add("weather", "b", WEATHER.rename({"temp": "tmp"}).with_columns(x=1))
    with pytest.raises(SourceError, match=r"b: has no column 'temp'; did you mean 'tmp'\?"):
        place.ingest()
    assert place.tables()["weather"].height == 2  # the whole file before it was kept


def test_lineage_names_every_file_with_its_hash_and_rows(place):
    place.ingest()
    with place.catalog.read() as tx:
        files = lineage(tx, SPEC)
        taken = intake(tx, "trips", "trips")
    batch = place.sources["trips"].batches()[0]
    assert files[0] == FileRef(feed="trips", name="a", sha256=batch.sha256, rows=2)
    assert [file.feed for file in files] == list(SPEC.data.feeds)
    assert taken.kinds["length"] == "integer"


WORDS = st.text(st.sampled_from("a|\\"), max_size=3)


@given(rows=st.lists(st.tuples(WORDS, WORDS), unique=True, min_size=1))
def test_no_two_keys_look_alike(rows):
    frame = pl.DataFrame(rows, schema=["a", "b"], orient="row")
    assert row_ids(frame, ("a", "b")).n_unique() == len(rows)


@given(
    lengths=st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3)), min_size=1, max_size=8),
    data=st.data(),
)
@pytest.mark.slow
@settings(max_examples=60, deadline=None)
def test_no_row_is_lost_whatever_is_read(lengths, data):
    count = len(lengths)
    times = st.one_of(st.none(), st.just("soon"), st.just("2020-01-01T00:00:00Z"))
    frame = pl.DataFrame(
        {
            "id": data.draw(st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=count, max_size=count)),
            "listed_at": data.draw(st.lists(times, min_size=count, max_size=count)),
            "planned_at": data.draw(st.lists(times, min_size=count, max_size=count)),
            "station": ["a"] * count,
            "length": [None if value is None else str(value) for value in lengths],
        },
        schema_overrides={"id": pl.Int64, "listed_at": pl.String, "planned_at": pl.String, "length": pl.String},
    )
    place = Place()
    place.sources["trips"] = Given(a=frame)
    done = place.ingest().feeds["trips"]
    assert done.rows_read == count == done.rows_kept + done.rows_quarantined
    assert place.quarantine("trips").height == done.rows_quarantined
    kept = place.tables()["trips"]
    assert kept.height <= done.rows_kept
    assert not kept.height or kept.select("id", "listed_at", "planned_at").null_count().row(0) == (0, 0, 0)


def test_rows_that_were_lost_come_back_when_the_files_are_forgotten(place):
    place.ingest()
    before = place.tables()
    place.lake = MemoryLake()
    assert place.ingest().rows_kept == 0
    forget(place.catalog, SPEC)
    assert place.ingest().rows_kept == 7
    assert all(place.tables()[name].equals(frame) for name, frame in before.items())


def test_files_that_are_read_again_leave_each_row_one(place):
    place.ingest()
    before = place.tables()
    forget(place.catalog, SPEC)
    assert place.ingest().feeds["trips"].newest == at(10)
    assert all(place.tables()[name].equals(frame) for name, frame in before.items())
    with place.catalog.read() as tx:
        assert [file.name for file in lineage(tx, SPEC)] == ["a"] * 4


def test_a_system_that_took_in_nothing_has_nothing_to_forget(place):
    forget(place.catalog, SPEC)
    with place.catalog.read() as tx:
        assert lineage(tx, SPEC) == ()


def changed(**settings: object) -> SystemSpec:
    feeds = {**SPEC.data.feeds, "trips": replace(SPEC.data.feeds["trips"], **settings)}
    return replace(SPEC, data=replace(SPEC.data, feeds=feeds))


CHOSEN_WRONG = TRIPS.with_columns(since=pl.Series([at(-1000), None]), id=pl.Series(["x", "y"]))


def test_files_are_read_again_once_what_decides_quarantine_changed(place):
    place.sources["trips"] = Given(a=CHOSEN_WRONG)
    assert place.ingest(changed(event_at="since")).feeds["trips"].rows_quarantined == 1
    assert quarantine_reasons(place.lake, "trips", "trips") == {"since is missing": 1}
    done = place.ingest().feeds["trips"]
    assert (done.rows_read, done.rows_kept, done.rows_quarantined) == (2, 2, 0)
    assert quarantine_reasons(place.lake, "trips", "trips") == {}
    assert place.tables()["trips"]["id"].to_list() == ["x", "y"]
    with place.catalog.read() as tx:
        assert [file.quarantined for file in intake(tx, "trips", "trips").files] == [0]
    assert place.ingest().feeds["trips"].rows_read == 0
    assert place.sources["ends"].reads == 1


def test_rows_that_were_kept_go_to_quarantine_when_a_worse_column_is_chosen(place):
    place.sources["trips"] = Given(a=CHOSEN_WRONG)
    place.ingest()
    worse = changed(event_at="since")
    assert place.ingest(worse).feeds["trips"].rows_quarantined == 1
    assert assemble(worse.data, place.tables())["key"].to_list() == ["x"]


def test_another_known_at_is_read_again_and_each_row_stays_one(place):
    place.ingest(changed(known_at="planned_at"))
    place.ingest()
    assert place.tables(until=at(10))["trips"]["id"].to_list() == [1, 2]
    assert place.tables()["trips"]["id"].to_list() == [1, 2]
    with place.catalog.read() as tx:
        assert intake(tx, "trips", "trips").newest == at(10)


def test_a_file_that_is_gone_is_not_forgotten_when_the_others_are_read_again(place):
    place.add("trips", "b", TRIPS.with_columns(pl.col("id") + 10))
    place.ingest(changed(event_at="listed_at"))
    del place.sources["trips"].frames["a"]
    assert place.ingest().feeds["trips"].rows_read == 2
    assert sorted(place.tables()["trips"]["id"].to_list()) == [1, 2, 11, 12]
    with place.catalog.read() as tx:
        assert [file.name for file in intake(tx, "trips", "trips").files] == ["a", "b"]


def test_another_key_is_refused_while_rows_keep_the_old_identity(place):
    place.ingest()
    with pytest.raises(
        SourceError, match=r"feed 'trips': its key was id .* and is id, listed_at now.*--state DIRECTORY"
    ):
        place.ingest(changed(key=("id", "listed_at")))
    assert place.ingest().feeds["trips"].rows_read == 0


def test_another_key_is_read_again_while_no_row_was_kept(place):
    place.sources["trips"] = Given(a=TRIPS.with_columns(ticket=pl.lit(None, pl.String)))
    assert place.ingest(changed(key=("ticket",))).feeds["trips"].rows_kept == 0
    assert place.ingest().feeds["trips"].rows_kept == 2


def test_what_was_read_before_settings_were_written_down_is_not_read_again(place):
    place.ingest()
    with place.catalog.begin() as tx:
        mark = tx.get(Mark, "trips", "ingest/trips")
        tx.put(replace(mark, memory={**mark.memory, "deciding": None}))
    assert place.ingest().feeds["trips"].rows_read == 0
    assert place.ingest(changed(event_at="listed_at")).feeds["trips"].rows_read == 2
