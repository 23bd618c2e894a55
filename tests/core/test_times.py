"""Times among the inputs: the same instant gives the same number, whichever way it came; what is no time is named."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import times
from holdfast.core.inputs import Reader, describe, read_columns, read_frame, read_json, read_matrix, reader_of
from holdfast.core.signature import Column, Signature
from holdfast.errors import InvalidInput

AT = datetime(2013, 1, 5, 10, tzinfo=UTC)
AT_US = 1_357_380_000_000_000
EXPECTED = "a time with an offset, for example 2013-01-05T10:00:00Z, or null"


def signature(**more: Any) -> Signature:
    columns = (Column(name="x", type="number"), Column(name="at", type="time", **more))
    return Signature(columns=columns, task="classification", output="probability")


SIGNATURE = signature()

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 28), timezones=zones)


def read(values: Any, of: Signature = SIGNATURE) -> list[float | None]:
    found = read_columns(of, {"at": values}).columns["at"].tolist()
    return [None if value != value else value for value in found]


@given(st.lists(st.none() | instants, max_size=20))
def test_json_columns_arrays_and_frames_give_the_same_instants(given_times: list[datetime | None]) -> None:
    texts = [None if each is None else each.isoformat() for each in given_times]
    epoch, microsecond = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
    exact = [times.MISSING_TIME if each is None else (each - epoch) // microsecond for each in given_times]
    expected = [None if each == times.MISSING_TIME else float(each) for each in exact]
    rows = read_json(SIGNATURE, [{"at": text} for text in texts]).columns["at"].tolist()
    assert [None if value != value else value for value in rows] == expected
    assert read(texts) == expected
    assert read(given_times) == expected
    assert read(np.array(exact, dtype=np.int64)) == expected
    utc = pl.Series("at", given_times, dtype=pl.Datetime("us", "UTC"))
    for series in (utc, utc.dt.convert_time_zone("Asia/Kolkata"), utc.dt.replace_time_zone(None), pl.Series(texts)):
        frame = read_frame(SIGNATURE, pl.DataFrame({"at": series})).columns["at"].tolist()
        assert [None if value != value else value for value in frame] == expected


@given(st.lists(st.none() | instants, min_size=1, max_size=20))
def test_what_the_lake_has_of_a_time_reads_as_what_was_sent(given_times: list[datetime | None]) -> None:
    rows = read_columns(SIGNATURE, {"at": given_times})
    again = read_frame(SIGNATURE, pl.DataFrame(rows.columns))
    np.testing.assert_array_equal(rows.numbers, again.numbers)


@given(st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1), timezones=st.just(UTC)))
def test_a_time_is_shown_as_the_text_that_says_it(time: datetime) -> None:
    assert times.read_time(times.as_text(times.microseconds(time))) == times.microseconds(time)
    assert datetime.fromisoformat(times.as_text(times.microseconds(time))) == time


def test_every_unit_of_a_frame_and_a_date_are_the_same_instant() -> None:
    series = pl.Series("at", [AT]).cast(pl.Datetime("us", "UTC"))
    for unit in ("ms", "us", "ns"):
        assert read_frame(SIGNATURE, pl.DataFrame({"at": series.cast(pl.Datetime(unit, "UTC"))})).numbers[0, 1] == AT_US
    day = read_frame(SIGNATURE, pl.DataFrame({"at": [AT.date()]})).numbers[0, 1]
    assert times.as_text(day) == "2013-01-05T00:00:00Z"


@pytest.mark.parametrize(
    "text",
    ["2013-01-05T10:00:00Z", "2013-01-05 10:00:00z", "2013-01-05T12:00:00+02:00", "2013-01-05T12:00+02:00",
     "2013-01-05T05:00:00.000000-0500", "20130105T100000Z"],
)  # fmt: skip
def test_an_instant_may_be_written_in_many_ways(text: str) -> None:
    assert read([text]) == read_json(SIGNATURE, [{"at": text}]).columns["at"].tolist() == [AT_US]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2013-01-05T10:00:00", "'2013-01-05T10:00:00' has no offset from UTC, so it says no time"),
        ("2013-01-05", "has no offset"),
        (datetime(2013, 1, 5), "has no offset"),
        ("soon", "'soon' is not a time"),
        ("", "'' is not a time"),
        ("2013-02-30T10:00:00Z", "is not a time"),
        (AT_US, "1357380000000000 is not a time"),
        (1.5, "1.5 is not a time"),
        (True, "True is not a time"),
        (["2013-01-05T10:00:00Z"], "is not a time"),
    ],
)
@pytest.mark.parametrize("count", [1, 30])
def test_what_is_no_time_is_refused_with_its_place(value: Any, words: str, count: int) -> None:
    rows = [{"at": "2013-01-05T10:00:00Z"}, {"at": value}, *[{"at": None}] * count]
    with pytest.raises(InvalidInput) as refused:
        read_json(SIGNATURE, rows)
    assert words in str(refused.value)
    assert str(refused.value).startswith("row 1, column 'at': ")
    assert str(refused.value).endswith(f"; expected {EXPECTED}")
    assert (refused.value.row, refused.value.column, refused.value.expected) == (1, "at", EXPECTED)


def test_a_time_that_may_not_be_missing_is_asked_for() -> None:
    required = signature(nullable=False)
    for missing in ([None], np.array([times.MISSING_TIME]), np.array([np.nan])):
        with pytest.raises(InvalidInput, match="row 0, column 'at': is missing; expected a time with an offset"):
            read(missing, required)
    assert describe(required.columns[1]) == "a time with an offset, for example 2013-01-05T10:00:00Z"


def test_numbers_of_an_array_must_lie_within_the_calendar() -> None:
    with pytest.raises(InvalidInput, match=r"row 1, column 'at': .* is not between the years 1 and 9999"):
        read(np.array([AT_US, 2**62]))
    with pytest.raises(InvalidInput, match="row 0, column 'at'"):
        read(np.array([np.inf]))
    # What a canary's split makes of an array is a list of its elements.
    assert read([np.int64(AT_US), np.int64(times.MISSING_TIME), np.float64(np.nan)]) == [AT_US, None, None]


def test_times_beyond_what_a_float_holds_exactly_are_taken() -> None:
    [far] = read(["9999-12-31T23:59:59.999999Z"])
    assert far == pytest.approx(253_402_300_799_999_999, abs=32)
    assert read_columns(SIGNATURE, {"at": np.array([far])}).numbers[0, 1] == far
    assert times.as_text(far) == "253402300800000000 microseconds since 1970"


def test_a_time_has_no_range_and_counts_as_nothing_outside() -> None:
    assert read_json(SIGNATURE, [{"at": "0001-01-05T10:00:00Z"}, {"at": "9999-01-05T10:00:00Z"}]).outside.sum() == 0


def test_a_signature_with_a_time_is_no_matrix() -> None:
    with pytest.raises(InvalidInput, match="column 'at' is a time, so the columns do not fit into one tensor"):
        read_matrix(SIGNATURE, np.zeros((1, 2)))


def test_a_signature_without_times_is_read_as_before() -> None:
    plain = Signature(columns=(Column(name="x", type="number"),), task="classification", output="probability")
    assert type(reader_of(plain)) is Reader
    assert reader_of(plain).times == frozenset()
    assert reader_of(SIGNATURE).times == {"at"}
