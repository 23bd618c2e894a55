"""Training: one artifact from one snapshot, scored on what nothing was fitted on, the same every time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from holdfast.core.inputs import read_columns, read_frame, read_json
from holdfast.core.signature import Column
from holdfast.core.spans import AUTO, Choice, Span
from holdfast.core.spec import Data, Decide, Label, Model, ReleasePlan, SystemSpec, Validate
from holdfast.errors import DataError, HoldfastError, InvalidInput, JobFailed, UnknownKind
from holdfast.flow import training
from holdfast.flow.child import start
from holdfast.flow.training import TrainingRequest, read_result, train
from holdfast.security.artifacts import load_model, open_model
from holdfast.security.signing import create_keys, sign
from holdfast.tasks.classification import Classification
from holdfast.trainers.lightgbm import Boosted, LightGBM

START = datetime(2013, 3, 1, tzinfo=UTC)
DAYS = 40
NOW = START + timedelta(days=DAYS + 2)
COLUMNS = {
    "x": Column(name="x", type="number"),
    "hour": Column(name="hour", type="integer", low=0, high=23, outside="refuse"),
    "c": Column(name="c", type="category"),
    "b": Column(name="b", type="boolean"),
}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,920 rows of 40 days whose label depends on all columns but `b`; x is missing now and then."""
    rng = np.random.default_rng(0)
    n = DAYS * 48
    x, hour, c = rng.normal(size=n), np.arange(n) // 2 % 24, rng.integers(0, 4, n)
    score = np.where(rng.random(n) < 0.1, 0, x) + (hour > 15) + np.array([0, -1, 1, 0.3])[c] - 1
    times = [START + timedelta(minutes=30 * i) for i in range(n)]
    frame = pl.DataFrame(
        {
            "key": [f"k{i}" for i in range(n)],
            "unit": [f"u{i % 90}" for i in range(n)],
            "event_at": times,
            "known_at": [at - timedelta(hours=2) for at in times],
            "x": np.where(rng.random(n) < 0.1, np.nan, x),
            "hour": hour.astype(np.float64),
            "c": [["p", "q", "r", "s"][i] for i in c],
            "b": (rng.random(n) < 0.5).astype(np.float64),
            "label": (score + rng.logistic(size=n) > 0).astype(np.float64),
            "value": 100 * score + rng.normal(size=n),
            "label_known_at": [at + timedelta(hours=3) for at in times],
        }
    ).with_columns(pl.col("x").fill_nan(None))
    path = tmp_path_factory.mktemp("snapshot") / "snapshot.parquet"
    frame.write_parquet(path)
    return path


@pytest.fixture
def request_of(snapshot: Path, tmp_path: Path) -> Callable[..., TrainingRequest]:
    def make(
        *, now: datetime = NOW, seed: int = 7, out: str = "out", path: Path = snapshot, **model: Any
    ) -> TrainingRequest:
        model = {"task": "classification", "params": {"trees": 12}, "validate": Validate(folds=2)} | model
        spec = SystemSpec(
            system="s",
            data=Data(feeds={}, rows="f", key="id", label=Label(feed="f", column="y", known_at="at"), columns=COLUMNS),
            model=Model(**model),
            gates=(),
            release=ReleasePlan(steps=(), decide=Decide(loss="brier", margin=0.01)),
        )
        return TrainingRequest(spec=spec, snapshot=path, seed=seed, now=now, out=tmp_path / out)

    return make


Make = Callable[..., TrainingRequest]


def test_a_training_gives_everything_that_a_run_records(request_of: Make) -> None:
    request = request_of()
    stages: list[tuple[str, float]] = []
    result = train(request, lambda stage, share: stages.append((stage, share)))
    assert result == read_result(request.out)
    assert result.holdout == (START + timedelta(days=DAYS - 14), START + timedelta(days=DAYS))
    assert (result.trained_from, result.trained_until) == (START, result.holdout[0])
    assert result.rows == 26 * 48 - 5  # labels that came after the hold-out began are not fitted
    assert result.holdout_rows == 14 * 48
    assert len(result.folds) == 2
    assert len(result.curves["train"]) == len(result.curves["valid"]) == 12
    assert [baseline.name for baseline in result.baselines] == ["trivial", "linear"]
    trivial, linear = (baseline.metrics["log_loss"] for baseline in result.baselines)
    assert linear < trivial
    assert result.metrics["log_loss"] < trivial
    assert "precision" not in result.baselines[0].metrics  # undefined: the constant never answers "yes"
    assert result.params == msgspec.structs.asdict(LightGBM(trees=12, min_rows_per_leaf=20, early_stopping=0))
    assert result.environment["numpy"] == np.__version__
    assert result.took_s > 0
    assert result.window == Choice(window="all", why="the default")
    assert [stage for stage, _ in stages] == ["read", "folds", "fit", "baselines", "prove", "write"]
    assert [share for _, share in stages] == sorted(share for _, share in stages)


def test_what_the_folds_answered_is_kept_and_lies_after_all_that_was_fitted_for_it(request_of: Make) -> None:
    request = request_of()
    result = train(request)
    kept = pl.read_parquet(request.out / "validated.parquet")
    assert kept.columns == ["key", "event_at", "label", "candidate"]
    assert kept["key"].n_unique() == kept.height
    assert START + timedelta(days=8) <= kept["event_at"].min() <= kept["event_at"].max() < result.holdout[0]
    first, second = (kept[: kept.height // 2], kept[kept.height // 2 :])
    for part, fold in ((first, result.folds[0]), (second, result.folds[1])):
        found = Classification().metrics(part["label"].to_numpy(), part["candidate"].to_numpy())
        assert found["brier"] == pytest.approx(fold["brier"], rel=0.05)
    again = request_of(out="again")
    train(again)
    assert (again.out / "validated.parquet").read_bytes() == (request.out / "validated.parquet").read_bytes()


def test_the_served_model_is_the_one_that_was_scored(request_of: Make, tmp_path: Path) -> None:
    request = request_of()
    result = train(request)
    assert result.parity.startswith("onnx: ")
    keys = create_keys(tmp_path / "keys")
    artifact = request.out / "artifact"
    model = load_model(artifact, sign(artifact, keys.private), keys.public)
    held = pl.read_parquet(request.out / "holdout.parquet")
    output = model.predict_frame(held)
    np.testing.assert_array_equal(output, held["candidate"].to_numpy())  # bit for bit
    assert Classification().metrics(held["label"].to_numpy(), output)["brier"] == pytest.approx(result.metrics["brier"])
    assert model.signature.hash() == result.signature_hash
    assert set(held.columns) >= {"key", "unit", "event_at", "label", "candidate", "linear", "trivial", *COLUMNS}


def test_training_and_serving_read_a_row_alike(request_of: Make) -> None:
    request = request_of()
    train(request)
    model = open_model(request.out / "artifact")
    held = pl.read_parquet(request.out / "holdout.parquet").head(300).select(*COLUMNS)
    asked = [{**row, "b": bool(row["b"]), "hour": int(row["hour"])} for row in held.to_dicts()]
    as_frame = model.predict(read_frame(model.signature, held))
    as_json = model.predict(read_json(model.signature, asked))
    as_columns = model.predict(read_columns(model.signature, {name: [row[name] for row in asked] for name in COLUMNS}))
    np.testing.assert_array_equal(as_frame, as_json)
    np.testing.assert_array_equal(as_frame, as_columns)
    one_by_one = np.concatenate([model.predict(read_json(model.signature, [row])) for row in asked[:50]])
    np.testing.assert_allclose(one_by_one, as_frame[:50], atol=1e-6)  # float32 sums may differ in the last bits


def test_what_the_file_leaves_open_is_what_training_saw(request_of: Make) -> None:
    request = request_of()
    train(request)
    x, hour, c, b = open_model(request.out / "artifact").signature.columns
    assert -5 < x.low < -2 < 2 < x.high < 5  # type: ignore[operator]
    assert (hour.low, hour.high) == (0, 23)
    assert c.categories == ("p", "q", "r", "s")
    assert (b.low, b.high) == (None, None)


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 days of 48 rows; on day 30 the effect of x turns round."""
    rng = np.random.default_rng(1)
    n = 90 * 48
    x, day = rng.normal(size=n), np.arange(n) // 48
    times = [START + timedelta(minutes=30 * i) for i in range(n)]
    frame = pl.DataFrame(
        {
            "key": [f"k{i}" for i in range(n)],
            "event_at": times,
            "x": x,
            "hour": (np.arange(n) // 2 % 24).astype(np.float64),
            "c": ["p"] * n,
            "b": np.zeros(n),
            "label": (np.where(day < 30, -2, 2) * x + rng.logistic(size=n) > 0).astype(np.float64),
            "label_known_at": [at + timedelta(hours=3) for at in times],
        }
    )
    path = tmp_path_factory.mktemp("turned") / "snapshot.parquet"
    frame.write_parquet(path)
    return path


@pytest.mark.slow
def test_the_window_is_chosen_before_the_hold_out_and_what_is_fitted_is_that(request_of: Make, turned: Path) -> None:
    stages: list[tuple[str, float]] = []
    request = request_of(path=turned, now=START + timedelta(days=92), window=AUTO)
    result = train(request, lambda stage, share: stages.append((stage, share)))
    assert result.window is not None
    assert result.window.window in ("30d", "half-life 30d")
    assert result.window.until == result.holdout[0]
    assert result.window == read_result(request.out).window
    assert result.metrics["brier"] < train(request_of(path=turned, now=request.now, out="all")).metrics["brier"]
    told = [share for stage, share in stages if stage == "window"]
    assert len(told) == result.window.fits == 15
    assert told == sorted(told)
    again = train(request_of(path=turned, now=request.now, window=AUTO, out="again"))
    assert (again.artifact, again.window) == (result.artifact, result.window)


@pytest.mark.parametrize("trainer", ["lightgbm", "linear"])
def test_rows_can_be_weighted_by_their_age(request_of: Make, turned: Path, trainer: str) -> None:
    asked: dict[str, Any] = {"path": turned, "now": START + timedelta(days=70), "trainer": trainer, "params": {}}
    alike = train(request_of(**asked))
    weighted = train(request_of(**asked, window=Span(half_life=timedelta(days=5)), out="weighted"))
    assert weighted.metrics["brier"] < alike.metrics["brier"]
    assert "onnx: " in weighted.parity
    assert "native" not in weighted.parity
    assert weighted.trained_from == weighted.holdout[0] - timedelta(days=30)  # six half-lives


ANOTHER_PROCESS = """
import sys, msgspec
from pathlib import Path
from holdfast.flow.training import TrainingRequest, train
hook = lambda kind, value: Path(value)
print(train(msgspec.json.decode(sys.stdin.buffer.read(), type=TrainingRequest, dec_hook=hook)).artifact)
"""


@pytest.mark.slow
def test_the_same_snapshot_spec_and_seed_give_the_same_artifact_in_any_process(request_of: Make) -> None:
    here = train(request_of()).artifact
    asked = msgspec.json.encode(request_of(out="there"), enc_hook=str)
    there = subprocess.run([sys.executable, "-c", ANOTHER_PROCESS], input=asked, capture_output=True, check=True)
    assert there.stdout.decode().strip() == here
    assert train(request_of(out="other", seed=8)).artifact != here


def test_training_twice_into_one_place_leaves_one_artifact(request_of: Make) -> None:
    train(request_of(trainer="linear", params={}))
    request = request_of()
    (request.out / "artifact" / "left over").write_bytes(b"")
    result = train(request)
    names = {path.name for path in (request.out / "artifact").iterdir()}
    assert names == {"model.onnx", "signature.json", "transform.json", "facts.json"}
    assert result.trainer == "lightgbm"


def test_a_linear_model_is_trained_like_any_other(request_of: Make) -> None:
    result = train(request_of(trainer="linear", params={"l2": 3.0}))
    assert result.params["l2"] == 3.0
    assert result.curves == {}
    assert result.runtime == "onnx"


def test_values_are_trained_like_classes(request_of: Make, snapshot: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(snapshot).with_columns(label=pl.col("value"))
    frame.write_parquet(tmp_path / "values.parquet")
    result = train(request_of(task="regression", path=tmp_path / "values.parquet"))
    assert result.metrics["mae"] < result.baselines[0].metrics["mae"]
    assert result.runtime == "onnx"


def test_where_the_conversion_fails_the_native_form_is_served(
    request_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Boosted, "export", lambda self, directory: self.export_native(directory) and "linear")
    request = request_of()
    result = train(request)
    assert result.runtime == "lightgbm"
    assert result.parity.startswith("native lightgbm: ")
    model = open_model(request.out / "artifact")
    held = pl.read_parquet(request.out / "holdout.parquet")
    np.testing.assert_array_equal(model.predict_frame(held), held["candidate"].to_numpy())


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        ({"params": {"tres": 5}}, HoldfastError, "model.params of trainer lightgbm: .*did you mean 'trees'"),
        ({"params": {"trees": "many"}}, HoldfastError, r"Expected `int`, got `str` - at `\$.trees`"),
        ({"params": {"learning_rate": 0}}, HoldfastError, r"Expected `float` > 0.0 - at `\$.learning_rate`"),
        ({"trainer": "lightgmb"}, UnknownKind, "did you mean 'lightgbm'"),
        ({"task": "clasification"}, UnknownKind, "did you mean 'classification'"),
        ({"now": START + timedelta(days=9)}, DataError, "too few labelled rows"),
    ],
)
def test_what_cannot_be_trained_is_named(
    request_of: Make, model: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        train(request_of(**model))


def test_a_row_that_does_not_fit_the_file_is_named(request_of: Make, snapshot: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(snapshot).with_columns(hour=pl.when(pl.col("key") == "k7").then(99.0).otherwise("hour"))
    frame.write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(InvalidInput, match=r"row 7, column 'hour': 99\.0 is outside"):
        train(request_of(path=tmp_path / "bad.parquet"))


@pytest.mark.slow
def test_a_child_trains_what_this_process_would_train(request_of: Make) -> None:
    child = start(request_of(out="child"))
    result = child.wait(60)
    assert result is not None
    assert result.artifact == train(request_of()).artifact
    assert child.poll() == result


@pytest.mark.slow
def test_a_child_that_is_killed_is_a_failed_job(request_of: Make) -> None:
    request = request_of(params={"trees": 100_000, "early_stopping": 0})
    child = start(request)
    deadline = time.monotonic() + 30
    while not (request.out / "training.log").exists() and time.monotonic() < deadline:
        assert child.wait(0.01) is None
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(JobFailed, match=r"killed \(SIGKILL, exit -9\); most often the machine ran out of memory"):
        child.wait(30)
    assert not (request.out / "result.json").exists()


@pytest.mark.slow
def test_a_child_says_which_error_ended_it_and_forgets_the_attempt_before(request_of: Make) -> None:
    good = request_of()
    train(good)
    child = start(request_of(now=START))
    with pytest.raises(JobFailed, match=r"training failed: too few labelled rows"):
        child.wait(30)
    assert not (good.out / "result.json").exists()


@pytest.mark.slow
def test_a_child_that_asks_for_more_memory_than_it_may_is_a_failed_job(request_of: Make) -> None:
    child = start(request_of(), memory_limit_mb=1)
    with pytest.raises(JobFailed, match=r"limit was 1 MB|out of memory"):
        child.wait(30)


@pytest.mark.slow
def test_a_child_can_be_stopped(request_of: Make) -> None:
    child = start(request_of(params={"trees": 100_000, "early_stopping": 0}))
    child.kill()
    with pytest.raises(JobFailed):
        child.poll()


def test_a_result_is_plain_json(request_of: Make) -> None:
    request = request_of()
    result = train(request)
    assert msgspec.json.decode((request.out / training.RESULT).read_bytes())["artifact"] == result.artifact
