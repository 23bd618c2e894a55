"""What breaks in the demonstration's faulted run, and when."""

from datetime import datetime
from zoneinfo import ZoneInfo

from holdfast.backtest.faults import Fault

ZONE = ZoneInfo("America/New_York")


def _day(month: int, day: int) -> datetime:
    return datetime(2013, month, day, tzinfo=ZONE)


FAULTS = (
    Fault(
        name="weather in Celsius",
        fault="unit_change",
        feed="weather",
        columns=("temp", "dewp"),
        scale=5 / 9,
        offset=-160 / 9,
        start=_day(5, 14),
        end=_day(5, 21),
    ),
    Fault(name="weather feed goes stale", fault="stale", feed="weather", start=_day(6, 18), end=_day(6, 23)),
    Fault(
        name="delay stuck at zero",
        fault="constant",
        feed="departures_by_origin",
        columns=("dep_delay",),
        value=0.0,
        start=_day(8, 13),
        end=_day(8, 20),
    ),
    Fault(name="labels stop", fault="labels_stop", start=_day(9, 17), end=_day(9, 27)),
    Fault(
        name="bad release: columns swapped",
        fault="swapped_columns",
        columns=("departures_by_carrier_dep_delay_mean", "weather_temp"),
        start=_day(10, 15),
        end=_day(11, 30),
    ),
)
"""Each is whole again some days later, so that one does not hide the next."""
