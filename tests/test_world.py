"""The world: what is known of the feeds at a time, and nothing more."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.specfile import read_spec
from holdfast.engines.memory import MemoryCatalog, MemoryLake
from holdfast.testing import START, hours, micros
from holdfast.world import EPOCH, NEVER, FixedFeeds, LakeFeeds, World, microseconds, to_us

TIME = pl.Datetime("us", "UTC")


def a_world(known: Sequence[float], labelled: Sequence[float | None]) -> World:
    """Rows known at these hours, their labels known at those."""
    n = len(known)
    columns = {
        "key": [f"k{i}" for i in range(n)],
        "known_at": [START + hours(at) for at in known],
        "event_at": [START + hours(at + 2) for at in known],
        "label": [None if at is None else 1.0 for at in labelled],
        "label_known_at": [None if at is None else START + hours(at) for at in labelled],
    }
    types = {"known_at": TIME, "event_at": TIME, "label": pl.Float64, "label_known_at": TIME}
    times = {"orders": np.sort(np.array([micros(START + hours(at)) for at in known], dtype=np.int64))}
    return World(pl.DataFrame(columns, schema_overrides=types), times)


def test_rows_are_those_known_by_then_with_the_labels_known_by_then() -> None:
    world = a_world([3, 1, 2], [9, None, 4])
    rows = world.rows(START + hours(4))
    assert rows.select("key", "label").rows() == [("k1", None), ("k2", 1.0), ("k0", None)]
    assert world.rows(START + hours(2))["key"].to_list() == ["k1", "k2"]
    assert world.rows(START).height == 0


def test_rows_between_two_times_include_the_first_and_labels_the_last() -> None:
    world = a_world([1, 2, 3], [5, 4, None])
    assert world.rows_between(START + hours(1), START + hours(3))["key"].to_list() == ["k0", "k1"]
    assert world.labels_between(START + hours(4), START + hours(5))["key"].to_list() == ["k0"]
    assert [world.labels_known(START + hours(at)) for at in (3, 4, 5, 99)] == [0, 1, 2, 2]


def test_the_newest_row_of_a_feed_is_the_newest_that_was_known() -> None:
    world = a_world([1, 2], [None, None])
    assert world.newest(START + hours(1.5)) == {"orders": START + hours(1)}
    assert world.newest(START) == {"orders": None}


TIMES = st.lists(st.tuples(st.integers(0, 20), st.none() | st.integers(0, 30)), min_size=1, max_size=15)


@settings(deadline=None)
@given(TIMES, st.integers(0, 32), st.integers(0, 32))
def test_looking_in_steps_finds_every_row_and_label_once(
    rows: list[tuple[int, int | None]], one: int, other: int
) -> None:
    world = a_world([known for known, _ in rows], [label for _, label in rows])
    cuts = [EPOCH, *(START + hours(at) for at in sorted((one, other))), START + hours(40)]
    steps = list(pairwise(cuts))
    keys = [key for a, b in steps for key in world.rows_between(a, b)["key"]]
    labels = [key for a, b in steps for key in world.labels_between(a, b)["key"]]
    assert sorted(keys) == sorted(f"k{i}" for i in range(len(rows)))
    assert sorted(labels) == sorted(f"k{i}" for i, (_, label) in enumerate(rows) if label is not None)


def test_times_are_microseconds_and_a_missing_one_never_comes() -> None:
    assert to_us(START) == micros(START)
    assert microseconds(pl.Series([START, None], dtype=TIME)).tolist() == [micros(START), NEVER]


def test_fixed_feeds_give_the_same_world_at_any_time() -> None:
    world = a_world([1], [None])
    assert FixedFeeds(world).world(START) is world


@pytest.fixture
def feeds(small, tmp_path: Path) -> LakeFeeds:
    small.write_feeds(tmp_path)
    spec = read_spec(small.write_file(tmp_path))
    return LakeFeeds(spec, tmp_path, MemoryLake(), MemoryCatalog())


def newest(directory: Path) -> datetime:
    last: datetime = pl.read_parquet(directory / "orders.parquet")["at"].max()  # type: ignore[assignment]
    return last


@pytest.mark.slow
def test_feeds_are_looked_at_again_after_a_while_and_what_is_new_is_taken_up(feeds: LakeFeeds, tmp_path: Path) -> None:
    now = newest(tmp_path)
    world = feeds.world(now)
    rows = world.rows(now)
    assert rows.height == 60 * 40
    more = pl.read_parquet(tmp_path / "orders.parquet").head(1).with_columns(id=pl.lit("new"))
    more.write_parquet(tmp_path / "orders-more.parquet")
    assert feeds.world(now + timedelta(seconds=59)) is world
    again = feeds.world(now + timedelta(minutes=1))
    assert again.rows(now).height == rows.height + 1
    assert feeds.world(now + timedelta(minutes=2)) is again


@pytest.mark.slow
def test_rows_that_ingestion_sets_aside_are_counted_in_the_world(feeds: LakeFeeds, tmp_path: Path) -> None:
    now = newest(tmp_path)
    frame = pl.read_parquet(tmp_path / "orders.parquet").head(3)
    undated = frame.with_columns(pl.lit(None, frame.schema["at"]).alias("at"))
    undated.write_parquet(tmp_path / "orders-undated.parquet")
    assert feeds.world(now).quarantined == 3


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_told_and_stops_nothing(feeds: LakeFeeds, tmp_path: Path) -> None:
    now = newest(tmp_path)
    (tmp_path / "ends.parquet").write_bytes(b"PAR1 torn")
    world = feeds.world(now)
    assert "ends.parquet" in feeds.problem
    assert (world.rows(now).height, world.labels_known(now + timedelta(days=9))) == (60 * 40, 0)
