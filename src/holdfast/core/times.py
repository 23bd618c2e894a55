"""Times among the inputs: from text, arrays and frames to microseconds since 1970 UTC as float64, and back to text.

A float64 holds every microsecond until the year 2255; after that a time is kept to 32 microseconds or better.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    import polars as pl

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its offset from UTC."""

EXPECTED = "a time with an offset, for example 2013-01-05T10:00:00Z"
MISSING_TIME = int(np.iinfo(np.int64).min)
"""What stands for a missing time among whole numbers."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FARTHEST = 253_402_387_200_000_000
"""The end of the year 9999 wherever it comes last: no time that text can say is farther from 1970."""


def microseconds(time: datetime) -> int:
    """Microseconds since 1970 UTC of an aware time.

    >>> microseconds(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return (time - _EPOCH) // _MICROSECOND


def as_text(value: float) -> str:
    """ISO 8601 text of microseconds since 1970 UTC; what no calendar of the years 1 to 9999 holds is said in words.

    >>> as_text(1357380000000000.0)
    '2013-01-05T10:00:00Z'
    """
    try:
        time = _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        return f"{value:.0f} microseconds since 1970"
    return time.isoformat().removesuffix("+00:00") + "Z"


def read_times(values: Any) -> FloatArray | None:
    """Values (n,) as microseconds, NaN for missing; None when one of them is no time, which `read_time` explains.

    A list holds text with an offset, aware datetimes or None. An array holds microseconds; `MISSING_TIME` is missing
    in whole numbers, NaN in floats.
    """
    if isinstance(values, np.ndarray):
        return _from_array(values)
    try:
        times = msgspec.convert(values, list[AwareTime | None])
    except (msgspec.ValidationError, RecursionError):
        return None
    return np.array([np.nan if time is None else (time - _EPOCH) / _MICROSECOND for time in times], dtype=np.float64)


def read_time(value: Any) -> float:
    """One value that is not None as microseconds; NaN for the missing time of an array.

    Raises ValueError that says what is wrong with it, without naming it.
    """
    if isinstance(value, np.integer | np.floating):
        read = _from_array(np.array([value]))
        if read is None:
            raise ValueError("is not between the years 1 and 9999")
        return float(read[0])
    if not isinstance(value, str | datetime):
        raise ValueError("is not a time")
    time = _parsed(value) if isinstance(value, str) else value
    if time is None:
        raise ValueError("is not a time")
    if time.utcoffset() is None:
        raise ValueError("has no offset from UTC, so it says no time")
    return microseconds(time)


def _parsed(text: str) -> datetime | None:
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        pass
    try:
        return datetime.fromisoformat(text)  # also takes what leaves out the seconds
    except ValueError:
        return None


def _from_array(values: "np.ndarray[Any, Any]") -> FloatArray | None:
    if values.dtype.kind not in "iuf":
        return None
    read = values.astype(np.float64)
    if values.dtype.kind == "i":
        read[values == MISSING_TIME] = np.nan
    return None if (np.abs(read) > _FARTHEST).any() else read


def from_series(series: "pl.Series") -> "np.ndarray[Any, Any] | Sequence[Any]":
    """A column of a frame as `read_times` takes it: dates and times of any unit and zone, those without one in UTC,
    numbers as microseconds since 1970 UTC, as the lake has them; anything else as a list."""
    dtype = str(series.dtype)
    if dtype.startswith("Datetime"):
        aware = series.dt.replace_time_zone("UTC") if "time_zone=None" in dtype else series
        return aware.dt.epoch("us").fill_null(MISSING_TIME).to_numpy()
    if dtype == "Date":
        return series.dt.epoch("us").fill_null(MISSING_TIME).to_numpy()
    return series.cast(float).to_numpy() if series.dtype.is_numeric() else series.to_list()
