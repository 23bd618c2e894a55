"""Wall clocks of whole columns, against the standard library's zones one instant at a time."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.core.zones import Zone, part_of, wall_clock, zone_of

ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca",
         "America/St_Johns", "Pacific/Apia", "Asia/Tehran", "Africa/Monrovia")  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)


def micros(time: datetime) -> float:
    return float((time - EPOCH) // US)


def expected(zone: str, time: datetime) -> tuple[float, int, int]:
    local = time.astimezone(ZoneInfo(zone))
    since = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return since / timedelta(hours=1), local.weekday(), local.timetuple().tm_yday


def found(zone: str, times: list[datetime]) -> list[tuple[float, ...]]:
    clock = wall_clock(zone, np.array([micros(time) for time in times]))
    return list(zip(*(part_of(part, clock).tolist() for part in ("hour", "weekday", "day_of_year")), strict=True))


@pytest.mark.parametrize("zone", ZONES)
@settings(max_examples=40)
@given(times=st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)), min_size=1))
@example(times=[datetime(2013, 3, 10, 6, 59, 59, 999999, UTC), datetime(2013, 3, 10, 7, tzinfo=UTC)])
@example(times=[datetime(2013, 11, 3, 5, 30, tzinfo=UTC), datetime(2013, 11, 3, 6, 30, tzinfo=UTC)])
@example(times=[datetime(2011, 12, 30, 9, 59, tzinfo=UTC), datetime(2011, 12, 30, 10, tzinfo=UTC)])
@example(times=[datetime(1969, 12, 31, 23, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)])
def test_parts_are_those_of_the_standard_library(zone: str, times: list[datetime]) -> None:
    times = [time for time in times if time.year > 1 or zone == "UTC"]
    for got, wanted in zip(found(zone, times), [expected(zone, time) for time in times], strict=True):
        assert got[1:] == wanted[1:]
        assert got[0] == pytest.approx(wanted[0], abs=1e-9)


@pytest.mark.parametrize("zone", ZONES)
@settings(max_examples=40)
@given(time=st.datetimes(datetime(1850, 1, 1), datetime(2400, 1, 1), timezones=st.just(UTC)))
def test_times_beyond_the_table_are_right_too(zone: str, time: datetime) -> None:
    assert found(zone, [time])[0] == pytest.approx(expected(zone, time), abs=1e-9)


@pytest.mark.parametrize("zone", ["America/New_York", "Africa/Casablanca"])
def test_every_change_of_offset_is_known_to_the_second(zone: str) -> None:
    """Around each local midnight and change: 130 years, a probe an hour, and each second beside a change."""
    hours = np.arange(0, 47_482 * 24) * 3_600_000_000
    offsets = zone_of(zone).wall_clock(hours) - hours
    changed = np.flatnonzero(np.diff(offsets))
    assert len(changed) > 150
    for place in changed.tolist()[::7]:
        at = EPOCH + timedelta(hours=place + 1)
        for second in (-1, 0, 1):
            time = at + timedelta(seconds=second)
            assert found(zone, [time])[0] == pytest.approx(expected(zone, time), abs=1e-9)


def test_missing_and_none_give_missing_and_none() -> None:
    clock = wall_clock("America/New_York", np.array([np.nan, 0.0]))
    for part in ("hour", "weekday", "day_of_year"):
        assert np.isnan(part_of(part, clock)).tolist() == [True, False]
        assert part_of(part, wall_clock("UTC", np.array([]))).shape == (0,)


def test_instants_that_no_calendar_holds_do_not_stop_the_others() -> None:
    far = np.array([253_402_387_200_000_000.0, -253_402_387_200_000_000.0, 0.0])
    assert found("UTC", [EPOCH]) == [(0.0, 3, 1)]
    assert np.isfinite(part_of("day_of_year", wall_clock("America/New_York", far))).all()


def test_a_zone_that_nobody_knows_is_named() -> None:
    for name in ("Mars/Olympus", "America", "../etc/passwd"):
        with pytest.raises(ValueError, match="knows no time zone"):
            Zone(name)
