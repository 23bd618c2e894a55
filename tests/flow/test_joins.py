"""What a predicted row may know: checked against a reading of the rules row by row, and by cutting the world short."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from polars.testing import assert_frame_equal

from holdfast.core.signature import Column
from holdfast.core.spec import Data, Feed, Label
from holdfast.errors import DataError
from holdfast.flow.joins import assemble, joined_names

START = datetime(2020, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
FUNCTIONS = ("mean", "min", "max", "sum", "count")
STATIONS = ("a", "b", "c")


def minute(count: int) -> datetime:
    return START + timedelta(minutes=count)


def table(schema: dict[str, pl.DataType | type[pl.DataType]], rows: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")


def trips(*rows: tuple) -> pl.DataFrame:
    """Rows of (id, listed_at, planned_at, station)."""
    return table({"id": pl.Int64, "listed_at": TIME, "planned_at": TIME, "station": pl.String}, list(rows))


def weather(*rows: tuple) -> pl.DataFrame:
    """Rows of (station, observed_at, published_at, temp)."""
    return table({"station": pl.String, "observed_at": TIME, "published_at": TIME, "temp": pl.Float64}, list(rows))


def delays(*rows: tuple) -> pl.DataFrame:
    """Rows of (station, at, minutes)."""
    return table({"station": pl.String, "at": TIME, "minutes": pl.Float64}, list(rows))


def ends(*rows: tuple) -> pl.DataFrame:
    """Rows of (id, ended_at, late)."""
    return table({"id": pl.Int64, "ended_at": TIME, "late": pl.Int64}, list(rows))


SIZES = pl.DataFrame({"station": ["a", "b"], "size": [10, 20], "town": ["north", None]})

DATA = Data(
    feeds={
        "trips": Feed(from_="trips.csv", event_at="planned_at", known_at="listed_at", key=("id",)),
        "weather": Feed(
            from_="weather.csv",
            event_at="observed_at",
            known_at="published_at",
            by=("station",),
            take=("temp",),
            within=timedelta(minutes=30),
        ),
        "delays": Feed(
            from_="delays.csv",
            event_at="at",
            known_at="at",
            by=("station",),
            aggregate={"minutes": FUNCTIONS},
            last=timedelta(minutes=20),
        ),
        "sizes": Feed(from_="sizes.csv", by=("station",), take=("size", "town")),
        "ends": Feed(from_="ends.csv", known_at="ended_at"),
    },
    rows="trips",
    key="id",
    unit="station",
    label=Label(feed="ends", column="late", known_at="ended_at"),
    columns={
        column.name: column
        for column in (
            Column(name="station", type="category"),
            Column(name="weather_temp", type="number"),
            *(Column(name=f"delays_minutes_{function}", type="number") for function in FUNCTIONS),
            Column(name="sizes_size", type="integer"),
            Column(name="sizes_town", type="category"),
        )
    },
)

ONE_TRIP = trips((1, minute(100), minute(160), "a"))


def one(**feeds: pl.DataFrame) -> dict[str, object]:
    """The assembled row of one trip, listed at minute 100 for minute 160 at station a."""
    return assemble(DATA, {"trips": ONE_TRIP, "sizes": SIZES, **feeds}).row(0, named=True)


def test_a_row_has_its_identity_times_and_features_in_the_order_of_the_file():
    frame = assemble(DATA, {"trips": ONE_TRIP, "sizes": SIZES, "ends": ends((1, minute(170), 1))})
    assert frame.columns == ["key", "unit", "event_at", "known_at", *DATA.columns, "label", "label_known_at"]
    row = frame.row(0, named=True)
    assert (row["key"], row["unit"]) == ("1", "a")
    assert (row["event_at"], row["known_at"]) == (minute(160), minute(100))
    assert (row["sizes_size"], row["sizes_town"]) == (10.0, "north")
    assert (row["label"], row["label_known_at"]) == (1.0, minute(170))
    types = frame.schema
    assert types["sizes_town"] == pl.String
    assert types["sizes_size"] == types["label"] == pl.Float64
    assert types["event_at"] == types["label_known_at"] == TIME


def test_the_latest_known_observation_is_taken():
    seen = weather(
        ("a", minute(80), minute(85), 1.0),
        ("a", minute(90), minute(95), 2.0),
        ("b", minute(99), minute(99), 9.0),
    )
    assert one(weather=seen)["weather_temp"] == 2.0


def test_an_observation_is_not_seen_before_it_was_published():
    assert one(weather=weather(("a", minute(90), minute(101), 2.0)))["weather_temp"] is None


def test_an_observation_published_at_that_very_time_is_seen():
    assert one(weather=weather(("a", minute(90), minute(100), 2.0)))["weather_temp"] == 2.0


def test_a_late_observation_never_hides_a_newer_one():
    seen = weather(("a", minute(90), minute(91), 2.0), ("a", minute(80), minute(99), 1.0))
    assert one(weather=seen)["weather_temp"] == 2.0


def test_a_corrected_observation_replaces_the_first_one():
    seen = weather(("a", minute(90), minute(91), 2.0), ("a", minute(90), minute(99), 3.0))
    assert one(weather=seen)["weather_temp"] == 3.0


def test_an_observation_older_than_within_is_missing():
    assert one(weather=weather(("a", minute(70), minute(99), 2.0)))["weather_temp"] == 2.0
    assert one(weather=weather(("a", minute(69), minute(99), 2.0)))["weather_temp"] is None


def test_a_feed_without_by_is_the_same_for_all_rows():
    feeds = {**DATA.feeds, "weather": replace(DATA.feeds["weather"], by=())}
    seen = weather(("b", minute(90), minute(91), 2.0))
    assert assemble(replace(DATA, feeds=feeds), {"trips": ONE_TRIP, "weather": seen})["weather_temp"][0] == 2.0


def test_an_aggregate_looks_at_the_open_window_before_the_row():
    past = delays(
        ("a", minute(80), 100.0),  # the window is open here
        ("a", minute(81), 1.0),
        ("a", minute(100), 4.0),
        ("a", minute(101), 100.0),
        ("b", minute(90), 100.0),
    )
    row = one(delays=past)
    found = [row[f"delays_minutes_{function}"] for function in FUNCTIONS]
    assert found == [2.5, 1.0, 4.0, 5.0, 2.0]


def test_an_empty_window_has_count_and_sum_zero_and_no_mean():
    row = one(delays=delays(("a", minute(10), 3.0)))
    assert [row[f"delays_minutes_{function}"] for function in FUNCTIONS] == [None, None, None, 0.0, 0.0]


def test_missing_and_infinite_values_do_not_count():
    past = delays(*(("a", minute(90), value) for value in (None, float("nan"), float("inf"), 7.0)))
    row = one(delays=past)
    assert [row[f"delays_minutes_{function}"] for function in FUNCTIONS] == [7.0, 7.0, 7.0, 7.0, 1.0]


def test_a_group_that_no_event_has_yet_has_count_zero():
    row = one(delays=delays(("b", minute(90), 3.0)), weather=weather(("b", minute(90), minute(91), 1.0)))
    assert [row[f"delays_minutes_{function}"] for function in FUNCTIONS] == [None, None, None, 0.0, 0.0]
    assert row["weather_temp"] is None


def test_a_row_without_the_value_to_join_on_has_missing_values():
    frame = assemble(
        DATA,
        {"trips": trips((1, minute(100), minute(160), None)), "sizes": SIZES, "delays": delays(("a", minute(90), 3.0))},
    )
    assert frame.select("sizes_size", "delays_minutes_count", "delays_minutes_mean").row(0) == (None, None, None)


def test_a_feed_without_rows_gives_missing_values_and_zero_counts():
    row = one()
    assert row["weather_temp"] is None
    assert [row[f"delays_minutes_{function}"] for function in FUNCTIONS] == [None, None, None, 0.0, 0.0]
    assert (row["label"], row["label_known_at"]) == (None, None)


def test_a_world_without_rows_is_an_empty_frame_of_the_same_columns():
    assert assemble(DATA, {}).schema == assemble(DATA, {"trips": ONE_TRIP, "sizes": SIZES}).schema


def test_a_label_counts_from_the_time_it_was_known():
    feeds = {"trips": ONE_TRIP, "ends": ends((1, minute(170), 0), (1, minute(180), 1))}
    known = {at: assemble(DATA, feeds | {"sizes": SIZES}, until=minute(at))["label"][0] for at in (169, 170, 179, 180)}
    assert known == {169: None, 170: 0.0, 179: 0.0, 180: 1.0}


def test_rows_are_those_known_after_since_and_up_to_until():
    feeds = {"trips": trips(*((i, minute(i), minute(i + 60), "a") for i in (3, 1, 2, 4))), "sizes": SIZES}
    assert assemble(DATA, feeds, since=minute(1), until=minute(3))["key"].to_list() == ["2", "3"]


def test_rows_without_a_time_are_left_out():
    feeds = {"trips": trips((1, None, minute(1), "a"), (2, minute(1), None, "a"), (3, minute(1), minute(1), "a"))}
    assert assemble(DATA, feeds | {"sizes": SIZES})["key"].to_list() == ["3"]


def test_keys_to_join_on_may_be_stored_as_another_type():
    data = replace(DATA, feeds={**DATA.feeds, "sizes": replace(DATA.feeds["sizes"], by=("id",))})
    sizes = pl.DataFrame({"id": ["1", "2"], "size": [5, 6], "town": ["x", "y"]})
    assert assemble(data, {"trips": ONE_TRIP, "sizes": sizes})["sizes_size"].to_list() == [5.0]


def test_features_are_named_after_feed_column_and_function():
    assert list(joined_names("weather", DATA.feeds["weather"])) == ["weather_temp"]
    assert list(joined_names("delays", DATA.feeds["delays"]))[:2] == ["delays_minutes_mean", "delays_minutes_min"]


def test_a_column_that_no_feed_gives_is_an_error_with_the_near_miss():
    columns = {"wether_temp": Column(name="wether_temp", type="number")}
    with pytest.raises(DataError, match=r"data.columns.wether_temp: no feed gives .* did you mean 'weather_temp'"):
        assemble(replace(DATA, columns=columns), {"trips": ONE_TRIP})


def test_a_feed_that_lacks_a_column_is_an_error_with_the_near_miss():
    with pytest.raises(DataError, match=r"feed 'weather' has no column 'temp'; did you mean 'temq'"):
        one(weather=weather(("a", minute(90), minute(91), 1.0)).rename({"temp": "temq"}))


def test_text_in_a_number_is_an_error_with_the_value():
    with pytest.raises(DataError, match=r"column 'sizes_size' must hold numbers but has 'big'"):
        one(sizes=SIZES.with_columns(size=pl.lit("big")))


def test_a_time_that_is_no_time_is_an_error():
    with pytest.raises(DataError, match=r"feed 'ends': column 'ended_at' is Int64, not a time"):
        one(ends=pl.DataFrame({"id": [1], "ended_at": [5], "late": [1]}))


def test_a_name_that_the_frame_has_itself_is_refused():
    columns = {"unit": Column(name="unit", type="category")}
    with pytest.raises(DataError, match=r"data.columns.unit: the assembled frame has a column of that name"):
        assemble(replace(DATA, columns=columns), {"trips": ONE_TRIP.with_columns(unit=pl.lit("x"))})


# Generated worlds

MINUTES = st.integers(0, 120)
STATION = st.sampled_from(STATIONS)
VALUE = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32))


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, pl.DataFrame]:
    listed = draw(st.lists(st.tuples(MINUTES, MINUTES, st.one_of(st.none(), STATION)), min_size=1, max_size=15))
    seen = draw(st.lists(st.tuples(STATION, MINUTES, MINUTES, VALUE), max_size=25))
    past = draw(st.lists(st.tuples(STATION, MINUTES, VALUE), max_size=40))
    known = draw(st.lists(st.tuples(st.integers(0, 14), MINUTES, st.integers(0, 1)), max_size=15))
    return {
        "trips": trips(*((i, minute(at), minute(at + ahead), where) for i, (at, ahead, where) in enumerate(listed))),
        "weather": weather(*((where, minute(at), minute(at + late), temp) for where, at, late, temp in seen)),
        "delays": delays(*((where, minute(at), value) for where, at, value in past)),
        "sizes": SIZES,
        "ends": ends(*((i, minute(at), late) for i, at, late in known)),
    }


def truncated(feeds: dict[str, pl.DataFrame], at: datetime) -> dict[str, pl.DataFrame]:
    known = {"trips": "listed_at", "weather": "published_at", "delays": "at", "ends": "ended_at"}
    return {name: frame.filter(pl.col(known[name]) <= at) if name in known else frame for name, frame in feeds.items()}


@given(feeds=worlds(), cut=st.integers(0, 240))
@pytest.mark.slow
@settings(max_examples=50, deadline=None)
def test_truncating_the_world_changes_no_row_from_before(feeds, cut):
    at = minute(cut)
    whole = assemble(DATA, feeds)
    before = whole.filter(pl.col("known_at") <= at)
    short = assemble(DATA, truncated(feeds, at))
    features = ["key", "unit", "event_at", "known_at", *DATA.columns]
    assert_frame_equal(short.select(features), before.select(features), check_exact=True)
    assert_frame_equal(short, assemble(DATA, feeds, until=at), check_exact=True)


@given(feeds=worlds(), cut=st.integers(0, 120))
@pytest.mark.slow
@settings(max_examples=25, deadline=None)
def test_a_part_of_the_rows_is_assembled_like_the_whole(feeds, cut):
    whole = assemble(DATA, feeds).filter(pl.col("known_at") > minute(cut))
    assert_frame_equal(assemble(DATA, feeds, since=minute(cut)), whole, check_exact=True)


@given(feeds=worlds())
@pytest.mark.slow
@settings(max_examples=50, deadline=None)
def test_every_feature_is_what_the_rules_say_row_by_row(feeds):
    for row in assemble(DATA, feeds).iter_rows(named=True):
        expected = by_hand(feeds, row["known_at"], row["unit"])
        for name, value in expected.items():
            if value is None:
                assert row[name] is None, name
            else:
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-6), name


def by_hand(feeds: dict[str, pl.DataFrame], at: datetime, station: str | None) -> dict[str, float | None]:
    """What a row at a station may know, read off the feeds one by one."""
    seen = [r for r in feeds["weather"].rows(named=True) if r["station"] == station and r["published_at"] <= at]
    newest = max(seen, key=lambda r: (r["observed_at"], r["published_at"]), default=None)
    if newest is not None and at - newest["observed_at"] > timedelta(minutes=30):
        newest = None
    # Of equal times the one that stands last in the feed counts.
    ties = [r for r in seen if newest and (r["observed_at"], r["published_at"]) == (newest["observed_at"], newest["published_at"])]  # fmt: skip # noqa: E501
    rows = [r for r in feeds["delays"].rows(named=True) if r["station"] == station]
    window = [r["minutes"] for r in rows if at - timedelta(minutes=20) < r["at"] <= at and r["minutes"] is not None]
    zero = None if station is None else 0.0
    return {
        "weather_temp": ties[-1]["temp"] if ties else None,
        "delays_minutes_mean": sum(window) / len(window) if window else None,
        "delays_minutes_min": min(window, default=None),
        "delays_minutes_max": max(window, default=None),
        "delays_minutes_sum": float(sum(window)) if window else zero,
        "delays_minutes_count": float(len(window)) if window else zero,
    }


def test_times_of_the_rows_and_of_a_joined_feed_are_microseconds() -> None:
    columns = {name: Column(name=name, type="time") for name in ("planned_at", "weather_checked_at")}
    feeds = DATA.feeds | {"weather": replace(DATA.feeds["weather"], take=("checked_at",))}
    data = replace(DATA, feeds=feeds, columns=columns)
    checked = weather(("a", minute(0), minute(1), 20.0)).with_columns(checked_at=pl.lit(minute(-5)).cast(TIME))
    rows = trips((1, minute(2), minute(9), "a"), (2, minute(2), minute(9), "c"))
    frame = assemble(data, {"trips": rows, "weather": checked})
    assert frame.schema["weather_checked_at"] == pl.Float64
    assert frame["planned_at"].to_list() == [minute(9).timestamp() * 1e6] * 2
    assert frame["weather_checked_at"].to_list() == [minute(-5).timestamp() * 1e6, None]
    naive = rows.with_columns(pl.col("planned_at").dt.replace_time_zone(None).alias("made_at"))
    read = replace(data, columns={"made_at": Column(name="made_at", type="time")})
    assert assemble(read, {"trips": naive})["made_at"].to_list() == [minute(9).timestamp() * 1e6] * 2
    assert assemble(data, {"trips": rows})["weather_checked_at"].to_list() == [None, None]
    assert assemble(data, {}).schema["weather_checked_at"] == pl.Float64


def test_a_time_that_is_stored_as_something_else_is_an_error() -> None:
    data = replace(DATA, columns={"station": Column(name="station", type="time")})
    with pytest.raises(DataError, match="column 'station' must hold times but is String"):
        assemble(data, {"trips": trips((1, minute(2), minute(9), "a"))})
