"""Live windows: which answer a label scores, which labels count, and what is read only once."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.core.evidence import Role
from holdfast.core.spec import SystemSpec
from holdfast.engines.memory import MemoryLake
from holdfast.flow.predictions import KEPT_BLOCKS, LivePredictions, with_delivered_labels
from holdfast.testing import START, hours

DAY = timedelta(days=1)
FIRST = START.date()
NOON = START + hours(12)


@pytest.fixture
def live(a_spec: Callable[..., SystemSpec], lake: MemoryLake) -> LivePredictions:
    return LivePredictions(a_spec(), lake, "probability")


def rows_of(live: LivePredictions, day: date = FIRST) -> dict[str, list[Any]]:
    return live.labelled_block(day).rows().select("key", "probability", "label").to_dict(as_series=False)


def test_answers_come_back_under_their_own_names_with_their_roles(live: LivePredictions, traffic) -> None:
    traffic.answer([NOON], [0.3], x=[1.5])
    rows = live.labelled_block(FIRST).rows()
    assert rows.select("x", "probability", "latency_ms", "version").row(0) == (1.5, 0.3, 1.5, "1")
    roles = live.roles()
    assert set(roles) <= set(rows.columns)
    assert {roles["x"], roles["probability"], roles["label"]} == {Role.INPUT, Role.OUTPUT, Role.LABEL}


def test_rows_without_a_label_stay_with_none(live: LivePredictions, traffic) -> None:
    keys = traffic.answer([NOON, NOON], [0.3, 0.6])
    traffic.label([keys[1]], [1.0], NOON + hours(1))
    assert rows_of(live) == {"key": keys, "probability": [0.3, 0.6], "label": [None, 1.0]}


def test_rows_without_a_key_are_kept_each_for_itself(live: LivePredictions, traffic) -> None:
    traffic.answer([NOON] * 4, [0.1, 0.2, 0.3, 0.4], keys=[None, None, "a", "a"])
    assert rows_of(live)["probability"] == [0.1, 0.2, 0.4]


def test_a_label_that_the_task_cannot_take_is_missing_and_the_others_stand(live: LivePredictions, traffic) -> None:
    keys = traffic.answer([NOON] * 3, [0.3, 0.6, 0.9])
    traffic.label(keys, [0.5, 1.0, -1.0], NOON + hours(1))
    assert rows_of(live)["label"] == [None, 1.0, None]


def test_a_label_known_after_maturity_does_not_enter_the_block(live: LivePredictions, traffic) -> None:
    keys = traffic.answer([NOON] * 2, [0.3, 0.6])
    mature = START + 2 * DAY
    traffic.label([keys[0]], [1.0], mature)
    traffic.label([keys[1]], [1.0], mature - timedelta(microseconds=1))
    assert rows_of(live)["label"] == [None, 1.0]


def test_a_label_scores_the_last_answer_before_it_was_known(live: LivePredictions, traffic) -> None:
    at = [NOON - hours(2), NOON - hours(1), NOON + hours(2)]
    traffic.answer([NOON] * 3, [0.1, 0.2, 0.9], keys=["a"] * 3, predicted_at=at)
    traffic.label(["a"], [1.0], NOON)
    assert rows_of(live) == {"key": ["a"], "probability": [0.2], "label": [1.0]}


def test_without_a_label_the_last_answer_stands_for_its_key(live: LivePredictions, traffic) -> None:
    traffic.answer([NOON] * 2, [0.1, 0.2], keys=["a", "a"], predicted_at=[NOON - hours(1), NOON - hours(2)])
    assert rows_of(live) == {"key": ["a"], "probability": [0.1], "label": [None]}


def test_a_corrected_label_counts_as_corrected(live: LivePredictions, traffic) -> None:
    [key] = traffic.answer([NOON], [0.3])
    traffic.label([key], [0.0], NOON + hours(2), revision=1)
    traffic.label([key], [1.0], NOON + hours(1), revision=0)
    assert rows_of(live)["label"] == [0.0]


def test_rows_of_a_file_that_was_scored_are_not_live_traffic(live: LivePredictions, traffic) -> None:
    traffic.answer([NOON], [0.4])
    traffic.answer([NOON] * 2, [0.8, 0.9], stage="batch")
    assert rows_of(live)["probability"] == [0.4]


def test_a_failed_answer_is_left_out(live: LivePredictions, traffic) -> None:
    traffic.answer([NOON] * 2, [np.nan, 0.4])
    assert rows_of(live)["probability"] == [0.4]
    traffic.answer([NOON + DAY], [np.nan])
    assert rows_of(live, FIRST + DAY)["probability"] == []


def test_a_day_without_answers_is_a_block_without_rows(live: LivePredictions) -> None:
    rows = live.labelled_block(FIRST).rows()
    assert rows.height == 0
    assert set(live.roles()) <= set(rows.columns)


class CountingLake(MemoryLake):
    """A lake that counts its scans."""

    def __init__(self) -> None:
        super().__init__()
        self.scans = 0

    def scan(self, *args: Any, **kwargs: Any) -> pl.DataFrame:
        self.scans += 1
        return super().scan(*args, **kwargs)


def test_days_are_read_once_for_all_windows(a_spec: Callable[..., SystemSpec]) -> None:
    lake = CountingLake()
    live = LivePredictions(a_spec(), lake, "probability")
    now = START + 10 * DAY
    live.window(FIRST, FIRST + 8 * DAY, {}, now).rows()
    before = lake.scans
    window = live.window(FIRST + DAY, FIRST + 8 * DAY, {}, now)
    window.rows()
    assert lake.scans == before
    assert window.blocks[0] is live.labelled_block(FIRST + DAY)


def test_no_more_days_are_kept_than_stated(a_spec: Callable[..., SystemSpec], lake: MemoryLake) -> None:
    live = LivePredictions(a_spec(), lake, "probability")
    first = live.labelled_block(FIRST)
    for day in range(1, KEPT_BLOCKS + 1):
        live.labelled_block(FIRST + day * DAY)
    assert live.labelled_block(FIRST) is not first


def test_a_window_has_labels_on_its_mature_days_only(live: LivePredictions, traffic) -> None:
    for day in range(3):
        traffic.day(day, [0.5], [1.0])
    now = START + 3 * DAY
    assert (live.last_complete_day(now), live.last_mature_day(now)) == (FIRST + 2 * DAY, FIRST + DAY)
    window = live.window(FIRST, FIRST + 2 * DAY, {}, now)
    assert window.rows()["label"].to_list() == [1.0, 1.0, None]


def test_a_day_becomes_mature_exactly_at_its_end_plus_the_time_labels_take(live: LivePredictions) -> None:
    mature = START + 2 * DAY
    assert live.last_mature_day(mature - timedelta(microseconds=1)) == FIRST - DAY
    assert live.last_mature_day(mature) == FIRST


def test_only_the_answers_of_a_version_can_be_asked_for(live: LivePredictions, traffic) -> None:
    traffic.day(0, [0.1, 0.2], [0.0, 0.0], version="1")
    traffic.day(0, [0.7], [1.0], version="2")
    traffic.day(1, [0.8], [1.0], version="2")
    assert live.answered_by("2", FIRST, {}).rows()["probability"].to_list() == [0.7]
    assert live.answered_by("2", FIRST + DAY, {}).blocks[0] is live.labelled_block(FIRST + DAY)
    assert live.answered_by("1", FIRST + DAY, {}).blocks == ()


@pytest.mark.parametrize(
    ("day", "start", "end"),
    [
        (date(2013, 3, 10), datetime(2013, 3, 10, 5, tzinfo=UTC), datetime(2013, 3, 11, 4, tzinfo=UTC)),
        (date(2013, 11, 3), datetime(2013, 11, 3, 4, tzinfo=UTC), datetime(2013, 11, 4, 5, tzinfo=UTC)),
    ],
)
def test_days_on_which_the_clocks_change_are_23_or_25_hours(
    a_spec: Callable[..., SystemSpec], lake: MemoryLake, traffic, day: date, start: datetime, end: datetime
) -> None:
    live = LivePredictions(a_spec(timezone="America/New_York"), lake, "probability")
    edge = timedelta(microseconds=1)
    traffic.answer([start - edge, start, end - edge, end], [0.1, 0.2, 0.3, 0.4])
    assert rows_of(live, day)["probability"] == [0.2, 0.3]
    assert (live.day_of(start), live.day_of(end - edge), live.day_of(end)) == (day, day, day + DAY)
    assert live.last_complete_day(end) == day
    assert live.last_mature_day(end + DAY) == day


# Labels for training


def assembled(*keys: str, label: float | None = None) -> pl.DataFrame:
    known = None if label is None else NOON + hours(1)
    columns = {"key": list(keys), "label": [label] * len(keys), "label_known_at": [known] * len(keys)}
    times = {"label": pl.Float64, "label_known_at": pl.Datetime("us", "UTC")}
    return pl.DataFrame(columns, schema_overrides=times)


def trained_on(spec: SystemSpec, lake: MemoryLake, rows: pl.DataFrame, now: datetime) -> dict[str, float | None]:
    made = with_delivered_labels(spec, lake, rows, now)
    assert made.schema == rows.schema
    return dict(made.select("key", "label").iter_rows())


def test_a_label_that_was_delivered_is_trained_on(a_spec, lake: MemoryLake, traffic) -> None:
    traffic.label(["a"], [1.0], NOON + hours(2))
    made = with_delivered_labels(a_spec(), lake, assembled("b", "a"), START + DAY)
    assert made.rows() == [("b", None, None), ("a", 1.0, NOON + hours(2))]
    assert trained_on(a_spec(), lake, assembled("a", label=0.0), START + DAY) == {"a": 1.0}


def test_the_newest_revision_of_a_delivered_label_is_trained_on(a_spec, lake: MemoryLake, traffic) -> None:
    traffic.label(["a"], [0.0], NOON + hours(2), revision=1)
    traffic.label(["a"], [1.0], NOON + hours(3), revision=0)
    assert trained_on(a_spec(), lake, assembled("a"), START + DAY) == {"a": 0.0}


def test_a_label_delivered_later_is_not_yet_trained_on(a_spec, lake: MemoryLake, traffic) -> None:
    traffic.label(["a"], [0.0], NOON + hours(1))
    traffic.label(["a", "b"], [1.0, 1.0], NOON + hours(3), revision=1)
    assert trained_on(a_spec(), lake, assembled("a", "b"), NOON + hours(2)) == {"a": 0.0, "b": None}


def test_labels_of_the_feed_come_with_the_rows_and_not_from_the_record(a_spec, lake: MemoryLake, traffic) -> None:
    rows = assembled("a", label=1.0)
    assert with_delivered_labels(a_spec(), lake, rows, START + DAY) is rows
    at = np.array([0], dtype=np.int64)
    traffic.recorder.record_labels(
        "orders",
        output="probability",
        keys=["a"],
        values=np.zeros(1),
        known_at=at,
        ingested_at=at,
        source=a_spec().data.label.feed,
    )
    assert with_delivered_labels(a_spec(), lake, rows, START + DAY) is rows


def test_rows_that_were_asked_for_and_failed_are_counted_and_those_of_files_are_not(
    live: LivePredictions, traffic
) -> None:
    def failures(day: int) -> int:
        [block] = live.window(FIRST + day * DAY, FIRST + day * DAY, {}, NOON + 9 * DAY).blocks
        return live.failures(block)

    traffic.answer([NOON] * 3, [np.nan, 0.4, np.nan])
    traffic.answer([NOON + DAY] * 2, [np.nan, np.nan], stage="batch")
    assert [failures(day) for day in (0, 1, 2)] == [2, 0, 0]
