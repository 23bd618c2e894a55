"""Days of a time zone, also where the clocks change, and up to where labels are complete."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.blocks import block_bounds, day_of, mature_until
from holdfast.core.spec import Data, Label

NEW_YORK = "America/New_York"


def data(mature_after: timedelta, timezone: str = NEW_YORK) -> Data:
    label = Label(feed="f", column="late", known_at="at", mature_after=mature_after)
    return Data(feeds={}, rows="f", key="id", timezone=timezone, label=label, columns={})


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),
    st.sampled_from([NEW_YORK, "America/Sao_Paulo", "Atlantic/Azores", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]),
)
def test_every_time_lies_in_the_bounds_of_its_day(at: datetime, timezone: str) -> None:
    start, end = block_bounds(timezone, day_of(timezone, at))
    assert start <= at < end


@pytest.mark.parametrize(("day", "hours"), [((3, 9), 24), ((3, 10), 23), ((11, 3), 25)])
def test_days_on_which_the_clocks_change_are_shorter_or_longer(day: tuple[int, int], hours: int) -> None:
    start, end = block_bounds(NEW_YORK, date(2013, *day))
    assert end - start == timedelta(hours=hours)


def test_a_day_is_mature_once_its_end_lies_back_far_enough() -> None:
    end_of_march = datetime(2013, 4, 1, 4, tzinfo=UTC)
    two_days = timedelta(days=2)
    assert mature_until(data(two_days), end_of_march + two_days) == end_of_march
    assert mature_until(data(two_days), end_of_march + two_days - timedelta(seconds=1)) == end_of_march - timedelta(
        days=1
    )


@given(
    st.datetimes(datetime(2012, 1, 1), datetime(2015, 1, 1), timezones=st.just(UTC)),
    st.integers(0, 100).map(lambda hours: timedelta(hours=hours)),
)
def test_the_watermark_is_the_newest_day_end_that_is_old_enough(now: datetime, mature_after: timedelta) -> None:
    until = mature_until(data(mature_after), now)
    assert until + mature_after <= now
    _, following = block_bounds(NEW_YORK, day_of(NEW_YORK, until))
    assert following + mature_after > now
