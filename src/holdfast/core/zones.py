"""Wall clocks of a time zone for whole columns of instants, and the parts of them that a model sees."""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

Part = Literal["hour", "weekday", "day_of_year"]

SECOND_US = 1_000_000
DAY_S = 86_400
DAY_US = DAY_S * SECOND_US
_FIRST_S, _LAST_S = 0, 47_482 * DAY_S
"""1970 to the end of 2099: offsets in between are looked up in a table, earlier and later ones one by one."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_THURSDAY = 3


class Zone:
    """A time zone: its changes of offset as a table. Safe to share between threads."""

    def __init__(self, name: str) -> None:
        """Raises ValueError where this machine knows no zone of that name."""
        try:
            self._zone = ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:  # OSError: the name is a directory, such as America
            raise ValueError(f"this machine knows no time zone '{name}'; install tzdata, or upgrade it") from error
        changes = self._changes()
        self._instants: IntArray = np.array([second * SECOND_US for second, _ in changes[1:]], dtype=np.int64)
        self._offsets: IntArray = np.array([offset // _MICROSECOND for _, offset in changes], dtype=np.int64)

    def wall_clock(self, instants: IntArray) -> IntArray:
        """Microseconds since 1970 UTC (n,) as what a clock in the zone showed, in microseconds since 1970 there."""
        local: IntArray = instants + self._offsets[np.searchsorted(self._instants, instants, side="right")]
        beyond = (instants < _FIRST_S * SECOND_US) | (instants >= _LAST_S * SECOND_US)
        if beyond.any():
            rare, places = np.unique(instants[beyond], return_inverse=True)
            offsets = [self._offset_beyond(instant) for instant in rare.tolist()]
            local[beyond] = instants[beyond] + np.array(offsets, dtype=np.int64)[places]
        return local

    def _changes(self) -> list[tuple[int, timedelta]]:
        """Seconds since 1970 from which each offset holds, and the offset.

        Each day is asked for its offset; where two differ, the second is found between them. No zone has changed its
        offset twice within a day since 1970.
        """
        days = range(_FIRST_S, _LAST_S + 1, DAY_S)
        offsets = [datetime.fromtimestamp(second, self._zone).utcoffset() for second in days]
        found = [(_FIRST_S, _known(offsets[0]))]
        for day, (before, after) in enumerate(pairwise(offsets)):
            if before != after:
                second = self._first_with(_known(after), days[day], days[day + 1])
                found.append((second, _known(after)))
        return found

    def _first_with(self, offset: timedelta, before: int, after: int) -> int:
        while after - before > 1:
            middle = (before + after) // 2
            is_after = datetime.fromtimestamp(middle, self._zone).utcoffset() == offset
            before, after = (before, middle) if is_after else (middle, after)
        return after

    def _offset_beyond(self, instant: int) -> int:
        """The offset at an instant outside the table; the nearest that the calendar knows where it knows none."""
        room = timedelta(days=2)
        least, most = datetime.min.replace(tzinfo=UTC) + room, datetime.max.replace(tzinfo=UTC) - room
        try:
            at = min(max(_EPOCH + timedelta(microseconds=instant), least), most)
        except OverflowError:
            at = most if instant > 0 else least
        return _known(at.astimezone(self._zone).utcoffset()) // _MICROSECOND


def _known(offset: timedelta | None) -> timedelta:
    assert offset is not None  # a ZoneInfo has one at every instant
    return offset


@cache
def zone_of(name: str) -> Zone:
    """The zone of an IANA name, made once: that takes a few hundredths of a second."""
    return Zone(name)


def wall_clock(zone: str, instants: FloatArray) -> FloatArray:
    """Instants (n,) in microseconds since 1970 UTC as the wall clock of a zone shows them, whole; NaN where missing."""
    missing = np.isnan(instants)
    local = zone_of(zone).wall_clock(np.where(missing, 0.0, instants).astype(np.int64)).astype(np.float64)
    local[missing] = np.nan
    return local


def part_of(part: Part, clock: FloatArray) -> FloatArray:
    """A part of wall-clock times (n,), NaN where missing.

    `hour` is the hour of the day with its fraction, in [0, 24); `weekday` 0 for Monday to 6; `day_of_year` 1 to 366.
    """
    days = np.floor(clock / DAY_US)
    if part == "hour":
        hours: FloatArray = (clock - days * DAY_US) / (3600.0 * SECOND_US)
        return hours
    if part == "weekday":
        weekdays: FloatArray = np.mod(days + _THURSDAY, 7)
        return weekdays
    missing = np.isnan(days)
    dates = np.where(missing, 0, days).astype(np.int64).astype("datetime64[D]")
    place: FloatArray = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.float64) + 1
    place[missing] = np.nan
    return place
