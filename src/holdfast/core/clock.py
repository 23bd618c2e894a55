"""The only place that reads the system clock."""

import math
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from holdfast.errors import StateError


class Clock(Protocol):
    """Says what time it is. Every time in Holdfast is an aware UTC datetime."""

    def now(self) -> datetime:
        """The current time, aware, in UTC; never earlier than an answer given before."""


OFFSET = "HOLDFAST_CLOCK_OFFSET_S"
"""Environment variable: seconds that are added to the machine's clock, to rehearse a system on days gone by."""


LARGEST_OFFSET_S = 100 * 366 * 86_400


class SystemClock:
    """The machine's clock, moved by `HOLDFAST_CLOCK_OFFSET_S` seconds where the environment says so."""

    def __init__(self, *, offset_s: float | None = None) -> None:
        self._offset = timedelta(seconds=_environment_s() if offset_s is None else offset_s)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset


def _environment_s() -> float:
    """The offset that the environment names. Raises StateError when it is no number of seconds in sensible reach."""
    given = os.environ.get(OFFSET) or "0"
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not abs(seconds) <= LARGEST_OFFSET_S:
        raise StateError(f"{OFFSET} is '{given}'; give seconds, at most a century either way, or unset it")
    return seconds


class ManualClock:
    """A clock that moves only when told to: for backtests, tests and replays."""

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError("a clock needs an aware start time, for example datetime(2013, 4, 1, tzinfo=UTC)")
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move forward by a duration that is not negative."""
        self.move_to(self._now + by)

    def move_to(self, to: datetime) -> None:
        """Move forward to a time; going back is refused."""
        if to < self._now:
            raise ValueError(f"a clock does not go back: it is {self._now}, asked for {to}")
        self._now = to


def stopwatch_s() -> float:
    """Seconds on a monotonic timer, for measuring how long work took, never for dates."""
    return time.perf_counter()


def cpu_s() -> float:
    """CPU seconds used by this process so far."""
    return time.process_time()
