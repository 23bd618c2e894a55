"""Days of a time zone: the blocks in which evidence accrues, and up to where their labels are complete."""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from holdfast.core.spec import Data


def day_of(timezone: str, at: datetime) -> date:
    """The day that an aware time falls on in a time zone.

    >>> day_of("America/New_York", datetime(2013, 4, 1, 3, 0, tzinfo=UTC))
    datetime.date(2013, 3, 31)
    """
    return at.astimezone(ZoneInfo(timezone)).date()


@lru_cache(maxsize=4096)
def block_bounds(timezone: str, day: date) -> tuple[datetime, datetime]:
    """Start and end of a day in UTC, the end exclusive; 23 or 25 hours long when the clocks change.

    >>> [str(bound) for bound in block_bounds("America/New_York", date(2013, 3, 10))]
    ['2013-03-10 05:00:00+00:00', '2013-03-11 04:00:00+00:00']
    """
    zone = ZoneInfo(timezone)
    start = datetime.combine(day, time(), tzinfo=zone)
    end = datetime.combine(day + timedelta(days=1), time(), tzinfo=zone)
    return start.astimezone(UTC), end.astimezone(UTC)


def mature_until(data: Data, now: datetime) -> datetime:
    """End (exclusive, UTC) of the newest day whose labels count as complete at `now`.

    A day is mature when its end plus `label.mature_after` is not later than `now`.
    """
    day = day_of(data.timezone, now - data.label.mature_after)
    start, end = block_bounds(data.timezone, day)
    return end if end + data.label.mature_after <= now else start
