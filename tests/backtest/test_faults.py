"""Faults change exactly the rows of their days, in every entry that reads the file, and say when they cannot."""

from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from holdfast.backtest.faults import Fault, broken, check_faults, read_faults, swapped, touched_feeds
from holdfast.errors import DataError, HoldfastError, NotFound
from holdfast.testing import refused

DAY = timedelta(days=1)
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
KINDS = {
    "unit_change": {"feed": "weather", "columns": ("temp",), "scale": 5 / 9, "offset": -160 / 9},
    "stale": {"feed": "weather"},
    "constant": {"feed": "weather", "columns": ("temp",), "value": 7.0},
    "labels_stop": {},
}


def a_fault(kind: str = "stale", start: int = 10, end: int = 14, **changes) -> Fault:
    fields = {
        "name": kind,
        "fault": kind,
        "start": FIRST + start * DAY,
        "end": FIRST + end * DAY,
        **KINDS.get(kind, {}),
    }
    return Fault(**(fields | changes))


@pytest.fixture(scope="module")
def feeds(parcels):
    return parcels.feeds(days=30, rows_a_day=4)


@pytest.fixture(scope="module")
def data(parcels):
    return parcels.spec().data


def rows_during(rows: pl.DataFrame, known_at: str, fault: Fault) -> pl.Series:
    return (rows[known_at] >= fault.start) & (rows[known_at] < fault.end)


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(list(KINDS)),
    start=st.floats(-5, 35),
    length=st.floats(0.01, 20),
)
def test_a_fault_changes_the_rows_of_its_days_and_no_other(parcels, kind, start, length):
    feeds, data = parcels.feeds(days=30, rows_a_day=4), parcels.spec().data
    fault = a_fault(kind, start=start, end=start + length)
    after = broken(data, feeds, [fault])
    reached = {"ends"} if kind == "labels_stop" else {"weather", "weather_seen"}
    assert touched_feeds(data, fault) == reached
    for name, rows in feeds.items():
        known = "ended_at" if name == "ends" else data.feeds[name].known_at
        during = rows_during(rows, known, fault)
        assert_frame_equal(after[name].filter(~during), rows.filter(~during))
        if name not in reached:
            assert_frame_equal(after[name], rows)
            continue
        now, before = after[name].filter(during), rows.filter(during)
        if kind in ("stale", "labels_stop"):
            assert (now[known] == fault.end).all()
            assert_frame_equal(now.drop(known), before.drop(known))
        else:
            expected = (
                before["temp"] * fault.scale + fault.offset if kind == "unit_change" else before["temp"] * 0 + 7.0
            )
            assert now["temp"].to_list() == expected.to_list()
            assert_frame_equal(now.drop("temp"), before.drop("temp"))


@pytest.mark.parametrize("kind", ["unit_change", "constant"])
def test_what_is_missing_stays_missing(data, feeds, kind):
    hollow = {**feeds, "weather": feeds["weather"].with_columns(temp=pl.lit(None, dtype=pl.Float64))}
    assert broken(data, hollow, [a_fault(kind)])["weather"]["temp"].null_count() == feeds["weather"].height


def test_after_a_stale_feed_has_come_the_newest_value_is_joined(parcels, data, feeds):
    fault = a_fault("stale")
    whole, stale = parcels.world(feeds).assembled, parcels.world(broken(data, feeds, [fault])).assembled
    both = whole.select("key", "known_at", "weather_temp").join(stale.select("key", now="weather_temp"), on="key")
    during = (both["known_at"] >= fault.start + 3 * DAY) & (both["known_at"] < fault.end)
    assert both.filter(during)["now"].null_count() == during.sum() > 0
    outside = both.filter((pl.col("known_at") < fault.start) | (pl.col("known_at") >= fault.end))
    assert outside["now"].equals(outside["weather_temp"].alias("now"))


def test_swapping_twice_changes_nothing(feeds):
    fault = a_fault("swapped_columns", columns=("load", "distance"))
    once = swapped(feeds["parcels"], fault)
    assert once["load"].equals(feeds["parcels"]["distance"].alias("load"))
    assert swapped(once, fault).equals(feeds["parcels"])


def test_a_swap_breaks_no_feed(data, feeds):
    fault = a_fault("swapped_columns", columns=("load", "distance"))
    after = broken(data, feeds, [fault])
    assert all(after[name] is feeds[name] for name in feeds)


def test_faults_are_read_from_what_they_are_written_as():
    faults = [a_fault(kind) for kind in KINDS]
    assert read_faults(msgspec.yaml.encode(faults), "faults.yaml") == tuple(faults)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x", "Expected `array`"),
        ("- {name: x, fault: stale, start: 2024-01-01T00:00:00, end: 2024-01-02T00:00:00Z, feed: a}", "timezone"),
        ("- {name: x, fault: stal, start: 2024-01-01T00:00:00Z, end: 2024-01-02T00:00:00Z}", "stal"),
        ("- {name: x, fault: stale, start: 2024-01-01T00:00:00Z, end: 2024-01-02T00:00:00Z, fed: a}", "fed"),
        ("- {name: x, fault: stale", "expected"),
        ("- {name: x, fault: stale, start: soon, end: later}", "start"),
    ],
)
def test_a_wrong_faults_file_gets_one_message_with_its_name(text, said):
    with refused(DataError, "faults.yaml is not a list of faults", said):
        read_faults(text.encode(), "faults.yaml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "stale", "feed": "wether"}, "did you mean 'weather'"),
        ({"kind": "stale", "columns": ("temp",)}, "`columns` has no effect on stale"),
        ({"kind": "stale", "feed": ""}, "needs `feed`"),
        ({"kind": "constant", "columns": ()}, "needs `columns`"),
        ({"kind": "unit_change", "scale": 1.0, "offset": 0.0}, "changes nothing"),
        ({"kind": "labels_stop", "feed": "ends"}, "`feed` has no effect"),
        ({"kind": "stale", "start": 5, "end": 5}, "before it starts"),
        ({"kind": "swapped_columns", "columns": ("load",)}, "two features are swapped, and 1"),
        ({"kind": "swapped_columns", "columns": ("load", "load")}, "two features"),
        ({"kind": "swapped_columns", "columns": ("load", "distanc")}, "did you mean 'distance'"),
        ({"kind": "swapped_columns", "columns": ("load", "depot")}, "category cannot be swapped"),
    ],
)
def test_a_fault_that_would_not_do_what_it_says_is_refused(data, changes, said):
    fault = a_fault(**changes)
    with refused(HoldfastError, said, fault.name):
        check_faults(data, [fault])


def test_two_faults_of_one_name_are_refused(data):
    with refused(DataError, "two faults are called 'stale'"):
        check_faults(data, [a_fault(), a_fault(start=20, end=21)])


def test_faults_in_order_are_accepted(data):
    check_faults(data, [a_fault(kind) for kind in KINDS])


def test_a_column_that_cannot_break_is_named(data, feeds):
    with refused(NotFound, "tempp", "did you mean 'temp'"):
        broken(data, feeds, [a_fault("constant", columns=("tempp",))])
    with refused(DataError, "weather.depot is String", "only numbers"):
        broken(data, feeds, [a_fault("constant", columns=("depot",))])


def test_a_lookup_has_no_day_to_break_on(data, feeds):
    always = msgspec.structs.replace(data.feeds["weather"], known_at=None)
    lookup = msgspec.structs.replace(data, feeds={**data.feeds, "weather": always})
    with refused(DataError, "has no known_at"):
        broken(lookup, feeds, [a_fault("stale")])
