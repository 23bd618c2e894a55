"""LightGBM: deterministic, stops early, and goes to ONNX branch by branch."""

from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from holdfast.core import kinds
from holdfast.errors import HoldfastError, ParityFailed
from holdfast.runtimes.lightgbm import LightGBMRuntime
from holdfast.runtimes.onnx import OnnxRuntime
from holdfast.tasks.classification import Classification
from holdfast.tasks.regression import Regression
from holdfast.trainers import lightgbm as trainers
from holdfast.trainers.lightgbm import Boosted, LightGBM, float32_below, to_onnx

SMALL = LightGBM(trees=12, leaves=7, min_rows_per_leaf=10, early_stopping=3)


def rows(n: int = 600, columns: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns)).astype(np.float32)
    x[:, 1] = rng.integers(0, 9, n)
    x[rng.random(x.shape) < 0.15] = np.nan
    signal = np.nan_to_num(x[:, 0], nan=1.5) + np.nan_to_num(x[:, 1], nan=-2) / 4
    y = (signal + rng.normal(size=n) > 1).astype(np.float64)
    return x, y


def fit(trainer: LightGBM = SMALL, task: Any = None, **kwargs: Any) -> Boosted:
    x, y = rows()
    options = {"valid": None, "categories": [0] * 5, "seed": 7} | kwargs
    return trainer.fit(x, y, task=task or Classification(), **options)


def booster(x: np.ndarray, y: np.ndarray, **params: Any) -> lgb.Booster:
    options = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    return lgb.train(options | params, lgb.Dataset(x, y), num_boost_round=params.pop("rounds", 8))


def at_thresholds(text: str, columns: int) -> np.ndarray:
    """Rows that sit on every threshold of the model and on the float32 values beside it, and on nothing at all."""
    found = [np.float64(t) for line in text.split("\n") if line.startswith("threshold=") for t in line[10:].split()]
    on = np.array(found).astype(np.float32)
    beside = [np.nextafter(on, np.float32(towards)) for towards in (-np.inf, np.inf)]
    values = np.concatenate([on, *beside, np.array([0, -0.0, 1e-36, -1e-36, 3e38, -3e38, np.nan], dtype=np.float32)])
    rng = np.random.default_rng(3)
    return rng.choice(values, size=(1500, columns)).astype(np.float32)


def onnx_of(text: str, directory: Path) -> OnnxRuntime:
    (directory / "model.onnx").write_bytes(to_onnx(text))
    return OnnxRuntime.load(directory)


@pytest.mark.parametrize("missing", [{}, {"use_missing": False}, {"zero_as_missing": False, "seed": 5}])
def test_onnx_takes_every_branch_that_lightgbm_takes(tmp_path: Path, missing: dict[str, Any]) -> None:
    x, y = rows()
    model = booster(x, y, **missing)
    text = model.model_to_string()
    asked = at_thresholds(text, 5)
    np.testing.assert_allclose(onnx_of(text, tmp_path).run(asked), model.predict(asked), atol=1e-6)


def test_a_threshold_that_a_plain_cast_would_round_up_is_rounded_down() -> None:
    above = np.float64(np.float32(0.1)) - 1e-10  # the cast gives float32(0.1), which lies above it
    assert np.float32(above) > above
    assert float32_below(np.array([above]))[0] < above
    assert float32_below(np.array([0.5]))[0] == np.float32(0.5)
    assert np.isfinite(float32_below(np.array([1e308]))[0])


def test_trees_without_a_split_are_constants(tmp_path: Path) -> None:
    x, y = rows(60)
    model = booster(x, y, min_data_in_leaf=1000, rounds=2)
    np.testing.assert_allclose(onnx_of(model.model_to_string(), tmp_path).run(x), model.predict(x), atol=1e-7)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"categorical_feature": [1]}, "sets of categories"),
        ({"zero_as_missing": True}, "zero as missing"),
        ({"linear_tree": True}, "linear leaves"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "averaged trees"),
        ({"objective": "poisson"}, "objective 'poisson'"),
    ],
)
def test_what_onnx_cannot_say_is_refused(params: dict[str, Any], said: str) -> None:
    x, y = np.nan_to_num(rows()[0]), rows()[1]
    categorical = params.pop("categorical_feature", "auto")
    options = {"objective": "binary", "num_leaves": 7, "min_data_per_group": 1, "verbosity": -1, "num_threads": 1}
    model = lgb.train(options | params, lgb.Dataset(x, y, categorical_feature=categorical), num_boost_round=8)
    with pytest.raises(ParityFailed, match=said):
        to_onnx(model.model_to_string())


@pytest.mark.parametrize("task", [Classification(), Regression()])
def test_exports_answer_what_was_fitted(tmp_path: Path, task: Any) -> None:
    fitted = fit(task=task)
    x, _ = rows(seed=9)
    assert fitted.export(tmp_path) == "onnx"
    assert fitted.export_native(tmp_path) == "lightgbm"
    np.testing.assert_allclose(OnnxRuntime.load(tmp_path).run(x), fitted.predict(x), atol=1e-6)
    np.testing.assert_array_equal(LightGBMRuntime.load(tmp_path).run(x), fitted.predict(x))


def test_the_number_of_threads_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for threads in (1, 2):
        monkeypatch.setattr(trainers, "THREADS", threads)
        fitted = fit()
        fitted.export(tmp_path)
        fitted.export_native(tmp_path)
        written.append(((tmp_path / "model.onnx").read_bytes(), (tmp_path / "model.txt").read_bytes()))
    assert written[0] == written[1]
    assert b"num_threads" not in written[0][1]


def test_the_seed_changes_what_is_drawn() -> None:
    x, _ = rows(seed=9)
    assert np.array_equal(fit(seed=1).predict(x), fit(seed=1).predict(x))
    assert not np.array_equal(fit(seed=1).predict(x), fit(seed=2).predict(x))


def test_it_stops_when_validation_no_longer_improves_and_says_after_how_many_trees(tmp_path: Path) -> None:
    x, y = rows()
    noise = np.random.default_rng(1).integers(0, 2, len(y)).astype(np.float64)
    fitted = LightGBM(trees=200, leaves=31, min_rows_per_leaf=5, early_stopping=5).fit(
        x, noise, valid=(x, 1 - noise), task=Classification(), categories=[0] * 5, seed=7
    )
    assert fitted.params["trees"] < 200
    assert fitted.params["early_stopping"] == 0
    assert len(fitted.curves["train"]) == len(fitted.curves["valid"])
    fitted.export_native(tmp_path)
    np.testing.assert_array_equal(LightGBMRuntime.load(tmp_path).run(x), fitted.predict(x))


def test_its_parameters_fit_the_same_model_again() -> None:
    x, y = rows()
    first = LightGBM(trees=9).fit(x, y, valid=None, task=Classification(), categories=[0] * 5, seed=7)
    again = LightGBM(**first.params).fit(x, y, valid=None, task=Classification(), categories=[0] * 5, seed=7)
    assert first.params["min_rows_per_leaf"] == 20
    np.testing.assert_array_equal(first.predict(x), again.predict(x))


def test_a_row_counts_as_much_as_its_weight() -> None:
    x, y = rows()
    half = len(y) // 2
    turned = np.where(np.arange(len(y)) < half, 1 - y, y)
    weights = np.where(np.arange(len(y)) < half, 1e-3, 1.0)
    options: dict[str, Any] = {"valid": None, "task": Classification(), "categories": [0] * 5, "seed": 7}
    alike, weighted = (SMALL.fit(x, turned, weights=w, **options).predict(x) for w in (None, weights))
    brier = [float(np.mean((p[half:] - y[half:]) ** 2)) for p in (alike, weighted)]
    assert brier[1] < 0.8 * brier[0]
    ones = SMALL.fit(x, turned, weights=np.ones(len(y)), **options).predict(x)
    np.testing.assert_allclose(ones, alike, atol=1e-6)


def test_a_task_with_another_loss_is_refused() -> None:
    class Ranking:
        name = "ranking"
        losses = ("pairwise",)

    with pytest.raises(HoldfastError, match="cannot fit the loss 'pairwise' of task 'ranking'"):
        fit(task=Ranking())


def test_it_is_found_by_name() -> None:
    assert kinds.load("trainers", "lightgbm") is LightGBM
