"""Trainers of several classes: what they answer, and that what is exported answers the same."""

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from holdfast.flow.parity import export_proved
from holdfast.runtimes.lightgbm import LightGBMRuntime
from holdfast.runtimes.linear import LinearRuntime
from holdfast.runtimes.onnx import OnnxRuntime
from holdfast.tasks.multiclass import Multiclass
from holdfast.trainers.lightgbm import LightGBM
from holdfast.trainers.linear import Linear

DATA = Path(os.environ.get("HOLDFAST_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
KDD = DATA / "nsl_kdd" / "nsl_kdd_train20.parquet"
CLASSES = ("a", "b", "c")
TREES = LightGBM(trees=12, leaves=7, min_rows_per_leaf=10, early_stopping=3)
TRAINERS = [TREES, Linear()]


def rows(n: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four numbers and a category of three codes; missing values in all."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 5)).astype(np.float32)
    x[:, 4] = random.integers(0, 3, n)
    scores = np.stack([2 * x[:, 0], 2 * x[:, 1] + (x[:, 4] == 2), np.zeros(n)], axis=1) + random.gumbel(size=(n, 3))
    x[random.random(x.shape) < 0.05] = np.nan
    return x, scores.argmax(axis=1).astype(np.float64)


def fit(trainer: Any, x: np.ndarray, y: np.ndarray, classes: tuple[str, ...] = CLASSES, **kwargs: Any) -> Any:
    options = {"valid": None, "categories": [0] * 4 + [3], "seed": 7} | kwargs
    return trainer.fit(x, y, task=Multiclass(classes), **options)


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda each: type(each).__name__)
def test_probabilities_add_up_and_find_the_classes(trainer: Any) -> None:
    x, y = rows()
    fitted = fit(trainer, x[:600], y[:600], valid=(x[600:], y[600:]))
    p = fitted.predict(x[600:])
    assert p.shape == (300, 3)
    assert p.sum(axis=1) == pytest.approx(np.ones(300))
    assert (p.argmax(axis=1) == y[600:]).mean() > 0.6


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("kept", [(0, 1), (0, 2), (1,)], ids=str)
def test_a_class_that_never_occurs_is_answered_hardly_any_probability(trainer: Any, kept: tuple[int, ...]) -> None:
    x, y = rows()
    inside = np.isin(y, kept)
    p = fit(trainer, x[inside], y[inside]).predict(x)
    assert np.isfinite(p).all()
    gone = [c for c in range(3) if c not in kept]
    assert 0 <= p[:, gone].mean() < 0.01
    assert p.sum(axis=1) == pytest.approx(np.ones(len(x)))


def test_rows_that_count_for_little_change_little() -> None:
    x, y = rows()
    weights = np.where(np.arange(len(y)) < 450, 1e-6, 1.0)
    wrong = np.where(np.arange(len(y)) < 450, (y + 1) % 3, y)
    right = fit(Linear(), x[450:], y[450:]).predict(x)
    assert fit(Linear(), x, wrong, weights=weights).predict(x) == pytest.approx(right, abs=0.05)
    assert np.abs(fit(Linear(), x, wrong).predict(x) - right).max() > 0.3


def test_the_linear_model_is_scikit_learns_multinomial_regression() -> None:
    x, y = rows()
    x = np.nan_to_num(x[:, :4])
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = LogisticRegression(C=1.0, max_iter=500, tol=1e-6).fit(standard, y).predict_proba(standard)
    found = Linear(rounds=500).fit(x, y, valid=None, task=Multiclass(CLASSES), categories=[0] * 4, seed=0)
    assert found.predict(x) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda each: type(each).__name__)
def test_what_is_exported_answers_what_was_trained(trainer: Any, tmp_path: Path) -> None:
    x, y = rows()
    fitted = fit(trainer, x, y)
    proof = export_proved(fitted, x, tmp_path)
    assert proof.text.split(":")[0] == proof.runtime
    asked = np.concatenate([x, np.full((1, 5), np.nan, dtype=np.float32)])
    assert OnnxRuntime.load(tmp_path).run(asked) == pytest.approx(fitted.predict(asked), abs=1e-6)
    native = {"lightgbm": LightGBMRuntime, "linear": LinearRuntime}[fitted.export_native(tmp_path)].load(tmp_path)
    assert native.run(asked) == pytest.approx(fitted.predict(asked), abs=1e-12)
    assert native.run(asked[:1]).shape == (1, 3)


def test_the_same_fit_gives_the_same_file(tmp_path: Path) -> None:
    x, y = rows()
    for trainer in TRAINERS:
        written = []
        for _ in range(2):
            fit(trainer, x, y).export(tmp_path)
            written.append((tmp_path / "model.onnx").read_bytes())
        assert written[0] == written[1]


def test_trees_are_fitted_again_with_the_rounds_that_were_found() -> None:
    x, y = rows()
    fitted = fit(TREES, x[:600], y[:600], valid=(x[600:], y[600:]))
    assert 1 <= fitted.params["trees"] <= 12
    assert set(fitted.curves) == {"train", "valid"}
    again = fit(msgspec.convert(dict(fitted.params), LightGBM), x[:600], y[:600])
    assert again.predict(x) == pytest.approx(fitted.predict(x))


@pytest.mark.slow
@pytest.mark.skipif(not KDD.is_file(), reason="the shared data set nsl_kdd is not here")
def test_the_exports_of_a_real_model_are_proved_on_real_rows(tmp_path: Path) -> None:
    frame = pl.read_parquet(KDD).gather_every(4)
    names = sorted(frame["category"].unique())
    texts = ("protocol_type", "service", "flag")
    numbers = frame.select(name for name, kind in frame.schema.items() if kind.is_numeric() and name != "difficulty")
    coded = [frame[name].cast(pl.String).rank("dense").to_numpy() - 1 for name in texts]
    x = np.column_stack([numbers.to_numpy(), *coded]).astype(np.float32)
    y = frame["category"].replace_strict({name: i for i, name in enumerate(names)}).to_numpy().astype(np.float64)
    sizes = [0] * numbers.width + [int(each.max()) + 1 for each in coded]
    for trainer in (LightGBM(trees=30), Linear()):
        fitted = trainer.fit(x, y, valid=None, task=Multiclass(tuple(names)), categories=sizes, seed=0)
        directory = tmp_path / type(trainer).__name__
        directory.mkdir()
        proof = export_proved(fitted, x, directory)
        assert not proof.text.startswith("native")
        assert (fitted.predict(x).argmax(axis=1) == y).mean() > 0.95
