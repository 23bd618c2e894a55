"""What text means: any time that is written out is read back, in whatever way it is written."""

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from holdfast.sources.texttypes import parse_times, typed

ZONES = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=ZONES)


@given(times=st.lists(TIMES, min_size=1, max_size=5), separator=st.sampled_from("T "))
def test_any_iso_time_is_read_exactly(times, separator):
    text = pl.Series([time.isoformat(separator) for time in times])
    assert parse_times(text).to_list() == [time.astimezone(UTC) for time in times]


@given(values=st.lists(st.one_of(st.none(), st.integers(-(10**17), 10**17)), min_size=1))
def test_any_integers_are_read_exactly(values):
    found = typed(pl.Series([None if value is None else str(value) for value in values], dtype=pl.String))
    assert found.to_list() == values


@given(values=st.lists(st.floats(allow_nan=False), min_size=1))
def test_any_numbers_are_read_exactly(values):
    found = typed(pl.Series([repr(value) for value in values]))
    assert [float(value) for value in found.to_list()] == values


@given(text=st.lists(st.text(max_size=12), min_size=1))
def test_no_text_is_an_error(text):
    assert len(typed(pl.Series(text))) == len(text)


def test_times_that_do_not_exist_are_none():
    texts = ["2013-02-30", "2013-01-01T24:00", "2013-01-01T10:60", "10:00", "2013-1-1", "2013-01-01T10:00:00+99:00"]
    assert parse_times(pl.Series(texts)).to_list() == [None] * len(texts)


def test_signs_and_points_are_numbers():
    assert typed(pl.Series(["+5", "-0"])).to_list() == [5, 0]
    assert typed(pl.Series([".5", "5.", "-1e3"])).to_list() == [0.5, 5.0, -1000.0]
