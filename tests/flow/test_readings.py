"""Readings on record: one row per reading and evaluation, what is missing as missing."""

import math
from collections.abc import Callable
from datetime import timedelta

from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.protocols import READINGS
from holdfast.engines.memory import MemoryLake
from holdfast.flow.readings import record_readings
from holdfast.testing import START

WHOLE = Verdict(
    grade=Grade.PASS,
    check="drift",
    monitor="weekly",
    reading=Reading(name="psi", value=0.1, subject="x", low=0.05, high=0.2, rows=90),
    why="as before",
    p_value=0.4,
)


def test_each_reading_is_one_row(lake: MemoryLake, graded: Callable[..., Verdict]) -> None:
    record_readings(lake, "orders", [WHOLE, graded(Grade.FAIL, "y")], version="3", at=START)
    found = lake.scan(READINGS.name, "orders").sort("subject")
    names = ("at", "monitor", "check", "name", "subject", "grade", "version", "value", "low", "high", "rows", "p_value")
    first = (START, "weekly", "drift", "psi", "x", "pass", "3", 0.1, 0.05, 0.2, 90, 0.4)
    assert found.select(names).row(0) == first
    assert found.select("monitor", "subject", "grade", "value").row(1) == ("m", "y", "fail", 1.0)


def test_what_was_not_measured_is_missing(lake: MemoryLake, graded: Callable[..., Verdict]) -> None:
    record_readings(lake, "orders", [graded(Grade.UNKNOWN)], version="1", at=START)
    row = lake.scan(READINGS.name, "orders").row(0, named=True)
    values = [row[name] for name in ("value", "low", "high", "p_value")]
    assert all(value is None or math.isnan(value) for value in values)
    assert row["grade"] == "unknown"


def test_an_evaluation_that_is_recorded_again_stays_one(lake: MemoryLake) -> None:
    for at in (START, START, START + timedelta(days=1)):
        record_readings(lake, "orders", [WHOLE], version="1", at=at)
    assert lake.scan(READINGS.name, "orders")["at"].sort().to_list() == [START, START + timedelta(days=1)]


def test_an_evaluation_without_readings_leaves_nothing(lake: MemoryLake) -> None:
    record_readings(lake, "orders", [], version="1", at=START)
    assert lake.scan(READINGS.name, "orders").is_empty()
