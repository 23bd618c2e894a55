"""The clock: moved by the environment, or refusing to be."""

from datetime import UTC, datetime, timedelta

import pytest

from holdfast.core.clock import LARGEST_OFFSET_S, OFFSET, SystemClock
from holdfast.errors import StateError
from holdfast.testing import refused


def ahead_s() -> float:
    return (SystemClock().now() - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(("given", "moved_s"), [("", 0), ("0", 0), ("172800", 172_800), ("-1e6", -1e6), (" 5 ", 5)])
def test_the_environment_moves_the_clock_by_seconds(
    monkeypatch: pytest.MonkeyPatch, given: str, moved_s: float
) -> None:
    monkeypatch.setenv(OFFSET, given)
    assert ahead_s() == pytest.approx(moved_s, abs=60)


def test_without_the_variable_the_clock_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OFFSET, raising=False)
    assert ahead_s() == pytest.approx(0, abs=60)


@pytest.mark.parametrize("given", ["abc", "nan", "inf", "-inf", "1e400", "1e12", "2 days", str(-LARGEST_OFFSET_S - 1)])
def test_what_is_no_number_of_seconds_in_reach_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(OFFSET, given)
    with refused(StateError, OFFSET, given, "unset it"):
        SystemClock()


def test_a_clock_that_is_moved_by_hand_does_not_ask_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFFSET, "abc")
    moved = SystemClock(offset_s=3600).now() - datetime.now(UTC)
    assert moved > timedelta(minutes=59)
