"""The window is chosen on days before the hold-out, as it would have been used, and not by noise."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.protocols import Trainer
from holdfast.core.signature import Column
from holdfast.core.spans import ALL, AUTO, Choice, Span
from holdfast.core.spec import Data, Decide, Label, Model, ReleasePlan, SystemSpec
from holdfast.core.specwords import write_span
from holdfast.flow import windows
from holdfast.flow.splits import HALF_LIVES, LEAST_FITTED, FloatArray, weights_of, within
from holdfast.tasks.regression import Regression
from holdfast.trainers.lightgbm import LightGBM

START = datetime(2012, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MONTH = Span(recent=30 * DAY)
LATE = timedelta(hours=30)

SPEC = SystemSpec(
    system="s",
    data=Data(
        feeds={},
        rows="f",
        key="id",
        label=Label(feed="f", column="y", known_at="at"),
        columns={"x": Column(name="x", type="number")},
    ),
    model=Model(task="regression", window=AUTO),
    gates=(),
    release=ReleasePlan(steps=(), decide=Decide(loss="absolute_error", margin=1.0)),
)


def history(days: int, level: Callable[[Any], Any], *, seed: int = 0, noise: float = 1.0) -> pl.DataFrame:
    """Eight rows a day about a level that is a function of the day; the days differ too. Labels come 30 hours later."""
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), 8)
    y = level(day) + rng.normal(0, noise, days)[day] + rng.normal(0, noise, len(day))
    times = [START + i * DAY / 8 for i in range(len(day))]
    return pl.DataFrame({"event_at": times, "label": y, "label_known_at": [at + LATE for at in times]})


class Means:
    """Answers with the mean of the labels it is given, weighted as the window says; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[pl.DataFrame, Span, pl.DataFrame]] = []
        self.settled: list[tuple[pl.DataFrame, Span]] = []

    def settle(self, fitted: pl.DataFrame, span: Span) -> Trainer:
        self.settled.append((fitted, span))
        return LightGBM()

    def answer(self, trainer: Trainer, fitted: pl.DataFrame, span: Span, test: pl.DataFrame) -> FloatArray:
        self.asked.append((fitted, span, test))
        mean = np.average(fitted["label"].to_numpy(), weights=weights_of(fitted, span))
        return np.full(test.height, mean)


def chosen(
    rows: pl.DataFrame, days: int, *, present: Span = ALL, weighted: bool = True, means: Means | None = None
) -> tuple[Span, Choice]:
    means = means or Means()
    return windows.choose(
        SPEC,
        Regression(),
        rows,
        START + days * DAY,
        means.settle,
        means.answer,
        present=present,
        weighted=weighted,
        tell=lambda share: None,
    )


def steady(day: Any) -> Any:
    return 0.0 * day


def rising(day: Any) -> Any:
    return day / 10


def test_what_moves_is_fitted_on_the_newest() -> None:
    span, choice = chosen(history(300, rising), 300)
    assert span == Span(half_life=30 * DAY) or span == MONTH
    assert choice.window == write_span(span)
    best = min(choice.contenders, key=lambda each: each.loss)
    assert best.window == choice.window
    assert best.low is not None
    assert 0 < best.low < best.gain
    assert choice.why.startswith("absolute_error is lower by")


def test_where_nothing_moves_all_of_the_history_stays() -> None:
    span, choice = chosen(history(300, steady, seed=1), 300)
    assert span == ALL
    assert [each.window for each in choice.contenders] == ["all", "30d", "90d", "half-life 30d", "half-life 90d"]


@pytest.mark.slow
def test_noise_does_not_move_the_window_in_use_whatever_it_is() -> None:
    kept = 0
    for seed in range(20):
        rows = history(200, steady, seed=seed)
        for present in (ALL, Span(recent=90 * DAY)):
            kept += chosen(rows, 200, present=present)[0] == present
    assert kept >= 36  # of 40; at most one in twenty may move, and 90 days lose to all where that is told apart


def test_nothing_is_fitted_on_labels_from_after_what_it_is_scored_on() -> None:
    means = Means()
    rows = history(260, steady)
    chosen(rows, 260, means=means)
    for fitted, span, test in means.asked:
        begins = test["event_at"].min()
        assert fitted["label_known_at"].max() <= begins  # type: ignore[operator]
        assert fitted["event_at"].max() < begins  # type: ignore[operator]
        if span.recent is not None:
            assert fitted["event_at"].min() >= begins - span.recent  # type: ignore[operator]


def test_a_window_is_settled_once_on_what_was_known_first() -> None:
    means = Means()
    chosen(history(260, steady), 260, means=means)
    first = min(test["event_at"].min() for _, _, test in means.asked)  # type: ignore[type-var]
    assert [span for _, span in means.settled] == list(dict.fromkeys(span for _, span, _ in means.asked))
    assert all(fitted["label_known_at"].max() <= first for fitted, _ in means.settled)  # type: ignore[operator]


def test_every_window_is_scored_on_the_same_newest_days() -> None:
    means = Means()
    _, choice = chosen(history(300, steady), 300, means=means)
    assert (choice.since, choice.until) == (START + 180 * DAY, START + 300 * DAY)
    assert (choice.blocks, choice.rows) == (120, 960)
    by_span: dict[Span, int] = {}
    for _, span, test in means.asked:
        by_span[span] = by_span.get(span, 0) + test.height
    assert set(by_span.values()) == {960}


@given(days=st.integers(0, 2000), weighted=st.booleans())
def test_the_number_of_windows_is_bounded_and_none_is_more_than_half_the_history(days: int, weighted: bool) -> None:
    spans = windows.contenders(days, weighted=weighted)
    assert spans[0] == ALL
    assert len(spans) <= 7
    assert len(set(spans)) == len(spans)
    lengths = [span.recent or span.half_life for span in spans[1:]]
    assert all(length is not None and length <= days * DAY / 2 for length in lengths)
    assert weighted or not any(span.half_life for span in spans)


def test_it_fits_as_often_as_it_says_and_tells_each() -> None:
    means, told = Means(), list[float]()
    _, choice = windows.choose(
        SPEC,
        Regression(),
        history(1500, steady),
        START + 1500 * DAY,
        means.settle,
        means.answer,
        present=ALL,
        weighted=True,
        tell=told.append,
    )
    assert len(means.asked) + len(means.settled) == choice.fits == len(told) == 35
    assert told == sorted(told)
    assert 0 <= told[0] < told[-1] < 1


def test_the_same_rows_give_the_same_choice() -> None:
    rows = history(300, rising)
    assert chosen(rows, 300) == chosen(rows, 300)


def test_too_short_a_history_is_fitted_whole_and_that_is_said() -> None:
    span, choice = chosen(history(50, rising), 50)
    assert span == ALL
    assert choice.why == "50 days of history are too few to compare windows on; at least 60 are needed"
    assert choice.contenders == ()


def test_a_window_without_rows_to_fit_is_left_out() -> None:
    rows = history(300, steady).filter(pl.col("event_at") < START + 130 * DAY, pl.col("event_at") >= START)
    later = history(300, steady).filter(pl.col("event_at") >= START + 215 * DAY)
    _, choice = chosen(pl.concat([rows, later]), 300)
    assert "30d" not in [each.window for each in choice.contenders]
    assert "all" in [each.window for each in choice.contenders]


def test_a_window_that_a_gap_leaves_too_few_rows_gives_way_to_all_of_the_history() -> None:
    rows = history(240, steady).filter(pl.col("event_at") < START + 200 * DAY)
    for present in (MONTH, Span(half_life=30 * DAY)):
        span, choice = chosen(rows, 240, present=present)
        assert len(within(rows, span, START + 240 * DAY)) >= LEAST_FITTED
        assert choice.window == write_span(span)
        assert (span == ALL and "30d before 2012-08-28 holds 0 rows, at least 50 are fitted" in choice.why) or (
            present != MONTH
        )


def test_a_trainer_that_cannot_weight_rows_is_given_no_half_lives() -> None:
    class Plain:
        def fit(self, x: Any, y: Any, *, valid: Any, task: Any, categories: Any, seed: int) -> Any: ...

    assert windows.can_weigh(LightGBM())
    assert not windows.can_weigh(Plain())  # type: ignore[arg-type]
    _, choice = chosen(history(300, steady), 300, weighted=False)
    assert [each.window for each in choice.contenders] == ["all", "30d", "90d"]


def test_a_present_window_that_cannot_be_tried_is_replaced_by_all() -> None:
    _, choice = chosen(history(200, steady), 200, present=Span(recent=17 * DAY))
    assert choice.contenders[0].window == "all"


@pytest.mark.slow
@given(days=st.integers(1, 400), length=st.integers(1, 4000))
def test_weights_halve_with_each_half_life_and_what_hardly_counts_is_left_out(days: int, length: int) -> None:
    times = [START + i * DAY for i in range(days)]
    frame, span = pl.DataFrame({"event_at": times}), Span(half_life=length * DAY / 10)
    assert span.half_life is not None
    kept = within(frame, span, times[-1])
    weights = weights_of(kept, span)
    assert weights is not None
    age = np.array([(times[-1] - at) / span.half_life for at in kept["event_at"]])
    np.testing.assert_allclose(weights, 0.5**age, rtol=1e-6)
    assert len(kept) == sum((times[-1] - at) <= span.half_life * HALF_LIVES for at in times)


@pytest.mark.parametrize("span", [ALL, AUTO, Span(recent=timedelta.max), Span(half_life=timedelta.max)])
def test_a_window_longer_than_the_history_lets_all_of_it_in(span: Span) -> None:
    rows = history(20, steady)
    assert within(rows, span, START + 20 * DAY).equals(rows)
    assert within(rows.clear(), span, START).is_empty()
