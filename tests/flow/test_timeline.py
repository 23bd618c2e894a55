"""Looking back: spans of a trailing window and sums over them, against sums done one by one."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from holdfast.flow.timeline import Timeline, extremes, sums

START = datetime(2020, 1, 1, tzinfo=UTC)


def times(minutes: list[float]) -> pl.Series:
    return pl.Series([START + timedelta(minutes=m) for m in minutes], dtype=pl.Datetime("us", "UTC"))


def test_the_latest_row_of_a_group_is_found_and_nothing_of_another_one():
    timeline = Timeline(pl.Series([0, 0, 1]), times([1, 5, 3]))
    asked = timeline.latest(pl.Series([0, 0, 0, 1, None, 1]), times([0, 1, 9, 2, 9, 3]))
    assert asked.to_list() == [None, 0, 1, None, None, 2]


def test_a_timeline_without_rows_answers_nothing():
    timeline = Timeline(pl.Series([], dtype=pl.Int64), times([]))
    span = timeline.window(pl.Series([None], dtype=pl.Int64), times([1]), timedelta(minutes=5))
    assert timeline.latest(pl.Series([None], dtype=pl.Int64), times([1])).to_list() == [None]
    assert sums(timeline, span, pl.Series([], dtype=pl.Float64)).to_list() == [None]
    assert extremes(span, pl.Series([], dtype=pl.Float64), largest=True).to_list() == [None]


def test_a_huge_value_leaves_no_trace_after_two_windows():
    minutes = list(range(100))
    values = pl.Series([1e18 if m == 5 else 0.1 for m in minutes])
    timeline = Timeline(pl.Series([0] * 100), times(minutes))
    span = timeline.window(pl.Series([0]), times([60]), timedelta(minutes=10))
    np.testing.assert_allclose(sums(timeline, span, values).to_numpy(), [1.0], rtol=1e-12)


def test_extremes_of_any_length_are_exact():
    rng = np.random.default_rng(7)
    values = rng.normal(size=200)
    timeline = Timeline(pl.Series([0] * 200), times(list(range(200))))
    for length in (1, 2, 3, 64, 100, 200):
        span = timeline.window(pl.Series([0] * 200), times(list(range(200))), timedelta(minutes=length))
        expected = [values[max(0, i - length + 1) : i + 1].min() for i in range(200)]
        assert extremes(span, pl.Series(values), largest=False).to_list() == expected
