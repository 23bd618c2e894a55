"""No model is scored on rows from before the end of what it was fitted on, nor fitted on labels from after it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from holdfast.core.signature import Column
from holdfast.core.spans import ALL, Span
from holdfast.core.spec import Data, Decide, Label, Model, ReleasePlan, SystemSpec, Validate
from holdfast.errors import DataError
from holdfast.flow.splits import folds_of, narrowed, split_rows

START = datetime(2013, 3, 1, 5, tzinfo=UTC)  # midnight in New York
NOW = START + timedelta(days=42)
HOUR = timedelta(hours=1)


def spec(*, holdout: int = 7, folds: int = 3, window: Span = ALL) -> SystemSpec:
    return SystemSpec(
        system="s",
        data=Data(
            feeds={},
            rows="f",
            key="id",
            timezone="America/New_York",
            label=Label(feed="f", column="y", known_at="at", mature_after=timedelta(days=2)),
            columns={"x": Column(name="x", type="number")},
        ),
        model=Model(
            task="classification", window=window, validate=Validate(folds=folds, holdout=timedelta(days=holdout))
        ),
        gates=(),
        release=ReleasePlan(steps=(), decide=Decide(loss="brier", margin=0.01)),
    )


@pytest.fixture
def snapshot(tmp_path: Path) -> Callable[..., Path]:
    """A file with one row an hour for 42 days, the label known six hours later."""

    def write(**columns: Any) -> Path:
        times = [START + i * HOUR for i in range(24 * 42)]
        frame = pl.DataFrame(
            {
                "key": [f"{i:05d}" for i in range(len(times))],
                "event_at": times,
                "x": [float(i) for i in range(len(times))],
                "label": [float(i % 2) for i in range(len(times))],
                "label_known_at": [at + 6 * HOUR for at in times],
            }
        ).with_columns(**columns)
        frame.write_parquet(tmp_path / "snapshot.parquet")
        return tmp_path / "snapshot.parquet"

    return write


def test_the_newest_mature_days_are_held_out(snapshot: Callable[..., Path]) -> None:
    split = split_rows(spec(), snapshot(), NOW)
    assert split.end == datetime(2013, 4, 10, 4, tzinfo=UTC)  # two days before now, midnight in New York
    assert split.start == datetime(2013, 4, 3, 4, tzinfo=UTC)
    assert split.holdout["event_at"].min() == split.start
    assert split.holdout["event_at"].max() == split.end - HOUR
    assert split.fit_from == START


def test_nothing_is_fitted_whose_label_came_after_the_hold_out_began(snapshot: Callable[..., Path]) -> None:
    split = split_rows(spec(), snapshot(), NOW)
    assert split.fit["label_known_at"].max() == split.start
    assert split.fit["event_at"].max() == split.start - 6 * HOUR


def test_a_hold_out_over_a_change_of_clocks_still_begins_at_midnight(snapshot: Callable[..., Path]) -> None:
    split = split_rows(spec(holdout=31), snapshot(), NOW)
    assert split.start == datetime(2013, 3, 10, 5, tzinfo=UTC)


def test_rows_without_a_label_or_with_one_not_yet_known_are_left_out(snapshot: Callable[..., Path]) -> None:
    late = pl.when(pl.col("x") % 3 == 0).then(NOW + HOUR).otherwise(pl.col("label_known_at"))
    unlabelled = pl.when(pl.col("x") % 5 == 0).then(None).otherwise(pl.col("label"))
    split = split_rows(spec(), snapshot(label_known_at=late, label=unlabelled), NOW)
    left = pl.concat([split.fit, split.holdout])["x"]
    assert not ((left % 3 == 0) | (left % 5 == 0)).any()


def test_a_window_limits_what_is_fitted(snapshot: Callable[..., Path]) -> None:
    split = split_rows(spec(window=Span(recent=timedelta(days=10))), snapshot(), NOW)
    assert split.fit["event_at"].min() == split.start - timedelta(days=10)


def test_each_fold_is_scored_by_what_came_before_it(snapshot: Callable[..., Path]) -> None:
    split = split_rows(spec(), snapshot(), NOW)
    folds = folds_of(spec(), split, ALL)
    assert len(folds) == 3
    for fit, test in folds:
        assert fit["event_at"].min() == START
        assert fit["label_known_at"].max() <= test["event_at"].min()
    starts = [test["event_at"].min() for _, test in folds]
    ends = [test["event_at"].max() for _, test in folds]
    assert starts == sorted(starts)
    assert all(end == start - HOUR for end, start in zip(ends, starts[1:], strict=False))
    assert ends[-1] == split.fit["event_at"].max()


def test_folds_without_enough_rows_are_left_out(snapshot: Callable[..., Path]) -> None:
    split = split_rows(spec(), snapshot(), NOW)
    assert folds_of(spec(folds=40), split, Span(recent=timedelta(days=2))) == []  # 48 rows are fitted
    assert folds_of(spec(folds=0), split, ALL) == []


def test_each_fold_is_fitted_on_the_window_that_the_model_is(snapshot: Callable[..., Path]) -> None:
    window = Span(recent=timedelta(days=5))
    split = split_rows(spec(window=window), snapshot(), NOW)
    folds = folds_of(spec(), split, window)
    assert len(folds) == 3  # they reach back beyond the window
    for fit, test in folds:
        assert fit["event_at"].min() == test["event_at"].min() - timedelta(days=5)


def test_too_few_rows_are_refused_with_their_numbers(snapshot: Callable[..., Path]) -> None:
    with pytest.raises(
        DataError, match=r"0 before 2013-02-21 to fit on \(at least 50\), 24 from there to 2013-02-28|wait"
    ):
        split_rows(spec(), snapshot(), START + timedelta(days=3))


def test_a_window_chosen_since_that_leaves_too_few_rows_is_refused_with_their_numbers(
    snapshot: Callable[..., Path],
) -> None:
    split = split_rows(spec(), snapshot(), START + timedelta(days=60))
    for length, rows in ((timedelta(days=1), 19), (timedelta(hours=2), 0)):
        with pytest.raises(DataError, match=rf"too few labelled rows to train: {rows} before .* \(at least 50\)"):
            narrowed(spec(), split, Span(recent=length))


def test_a_snapshot_that_lacks_a_column_or_is_none_is_named(snapshot: Callable[..., Path], tmp_path: Path) -> None:
    pl.read_parquet(snapshot()).drop("x", "label").write_parquet(tmp_path / "less.parquet")
    with pytest.raises(DataError, match="has no column label, x"):
        split_rows(spec(), tmp_path / "less.parquet", NOW)
    with pytest.raises(DataError, match="cannot be read"):
        split_rows(spec(), tmp_path / "none.parquet", NOW)
    whole = snapshot().read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        split_rows(spec(), tmp_path / "cut.parquet", NOW)


def test_data_that_ended_long_ago_holds_out_its_newest_labelled_days(snapshot: Callable[..., Path]) -> None:
    split = split_rows(spec(), snapshot(), NOW + timedelta(days=4000))
    newest = START + (24 * 42 - 1) * HOUR
    assert split.holdout["event_at"].max() == newest == datetime(2013, 4, 12, 4, tzinfo=UTC)
    assert split.start == datetime(2013, 4, 6, 4, tzinfo=UTC)  # seven days, the newest row's among them
    assert split.end == datetime(2013, 4, 13, 4, tzinfo=UTC)


def test_where_labels_stopped_the_hold_out_is_the_newest_days_that_have_some(snapshot: Callable[..., Path]) -> None:
    stopped = pl.when(pl.col("x") < 24 * 20 - 1).then("label")  # to the end of 20 March
    split = split_rows(spec(), snapshot(label=stopped), NOW)
    assert split.end == datetime(2013, 3, 21, 4, tzinfo=UTC)
    assert split.end - split.start == timedelta(days=7)
    assert len(split.holdout) == 7 * 24
