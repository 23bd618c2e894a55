"""The linear model: against scikit-learn on a plain design, and its two exports against it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from holdfast.core import kinds
from holdfast.errors import HoldfastError
from holdfast.runtimes.linear import LinearRuntime
from holdfast.runtimes.onnx import OnnxRuntime
from holdfast.tasks.classification import Classification
from holdfast.tasks.regression import Regression
from holdfast.trainers.linear import SCORE_LIMIT, Linear

CATEGORIES = (0, 4, 0)


def rows(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.stack([rng.normal(1e4, 3, n), rng.integers(0, 4, n), rng.normal(size=n)], axis=1).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    score = np.nan_to_num((x[:, 0] - 1e4) / 3) + 0.7 * np.nan_to_num(x[:, 1]) - 1
    return x, (score + rng.logistic(size=n) > 0).astype(np.float64)


def fit(task: Any = None, categories: tuple[int, ...] = CATEGORIES, x: Any = None, y: Any = None, **params: Any) -> Any:
    own_x, own_y = rows()
    x, y = (own_x if x is None else x), (own_y if y is None else y)
    options = {"weights": params.pop("weights", None), "categories": categories, "seed": 7}
    return Linear(**params).fit(x, y, valid=None, task=task or Classification(), **options)


def design(x: np.ndarray) -> np.ndarray:
    """The same design by hand, dense."""
    columns = []
    for j in (0, 2):
        missing = np.isnan(x[:, j])
        z = (x[:, j] - np.nanmean(x[:, j].astype(np.float64))) / np.nanstd(x[:, j].astype(np.float64))
        columns += [np.where(missing, 0, z), missing]
    codes = np.where(np.isnan(x[:, 1]), 4, x[:, 1])
    return np.stack([*columns, *(codes == k for k in range(5))], axis=1).astype(np.float64)


def test_it_is_logistic_regression_on_one_hot_codes_and_standardised_numbers() -> None:
    x, y = rows()
    expected = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(design(x), y).predict_proba(design(x))[:, 1]
    np.testing.assert_allclose(fit(rounds=500).predict(x), expected, atol=2e-3)  # solvers stop at different places


def test_it_is_ridge_regression_for_values() -> None:
    x, y = rows()
    expected = Ridge(alpha=1.0).fit(design(x), y).predict(design(x))
    np.testing.assert_allclose(fit(Regression()).predict(x), expected, atol=1e-3)


def test_weights_are_those_of_the_regressions() -> None:
    x, y = rows()
    weights = np.linspace(0.1, 1, len(y))
    expected = Ridge(alpha=1.0).fit(design(x), y, sample_weight=weights).predict(design(x))
    np.testing.assert_allclose(fit(Regression(), weights=weights).predict(x), expected, atol=1e-3)
    logistic = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(design(x), y, sample_weight=weights)
    found = fit(rounds=500, weights=weights).predict(x)
    np.testing.assert_allclose(found, logistic.predict_proba(design(x))[:, 1], atol=2e-3)
    assert np.abs(found - fit(rounds=500).predict(x)).max() > 0.01
    newest = fit(max_rows=100, weights=weights).predict(x)
    np.testing.assert_array_equal(newest, fit(x=x[-100:], y=y[-100:], weights=weights[-100:]).predict(x))


@pytest.mark.parametrize("task", [Classification(), Regression()])
@pytest.mark.parametrize("categories", [CATEGORIES, (0, 0, 0), (5, 4, 3)])
def test_exports_answer_what_was_fitted(tmp_path: Path, task: Any, categories: tuple[int, ...]) -> None:
    x, y = rows()
    for j, size in enumerate(categories):
        x[:, j] = np.floor(np.abs(x[:, j])) % size if size else x[:, j]
    fitted = fit(task, categories, x, y)
    assert fitted.export(tmp_path) == "onnx"
    assert fitted.export_native(tmp_path) == "linear"
    x = np.concatenate([x, np.full((1, 3), np.nan, dtype=np.float32)])
    x[0, [j for j, size in enumerate(categories) if not size]] = 3e38
    for runtime in (OnnxRuntime.load(tmp_path), LinearRuntime.load(tmp_path)):
        np.testing.assert_allclose(runtime.run(x), fitted.predict(x), rtol=1e-12)
        np.testing.assert_allclose(runtime.run(x[5:6]), fitted.predict(x[5:6]), rtol=1e-12)


def test_the_same_rows_give_the_same_files(tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        fitted = fit()
        fitted.export(tmp_path)
        fitted.export_native(tmp_path)
        written.append([path.read_bytes() for path in sorted(tmp_path.iterdir())])
    assert written[0] == written[1]


def test_one_wild_value_does_not_rule_the_answer() -> None:
    fitted = fit()
    wild = np.array([[3e38, 1, 0], [1e4 + 3 * SCORE_LIMIT * 1.5, 1, 0]], dtype=np.float32)
    answers = fitted.predict(wild)
    assert answers[0] == answers[1]


def test_only_the_newest_rows_are_fitted() -> None:
    x, y = rows()
    some = fit(max_rows=100)
    np.testing.assert_array_equal(some.predict(x), fit(x=x[-100:], y=y[-100:]).predict(x))


def test_labels_of_one_class_give_a_constant_near_it() -> None:
    x, _ = rows()
    answers = fit(y=np.ones(len(x))).predict(x)
    assert answers.min() == answers.max() > 0.99


def test_a_column_that_never_varies_or_is_never_there_does_no_harm() -> None:
    x, _ = rows()
    x[:, 0], x[:, 2] = 5, np.nan
    assert np.isfinite(fit(x=x).predict(x)).all()


def test_a_task_with_another_loss_is_refused() -> None:
    class Ranking:
        name = "ranking"
        losses = ("pairwise",)

    with pytest.raises(HoldfastError, match="cannot fit the loss 'pairwise'"):
        fit(Ranking())


def test_it_is_found_by_name() -> None:
    assert kinds.load("trainers", "linear") is Linear
