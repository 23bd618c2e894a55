"""Trainers of lists: what they order by, what they refuse, and that what is exported answers the same."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from holdfast.errors import HoldfastError
from holdfast.flow.parity import export_proved
from holdfast.runtimes.lightgbm import LightGBMRuntime
from holdfast.runtimes.linear import LinearRuntime
from holdfast.runtimes.onnx import OnnxRuntime
from holdfast.runtimes.trees import TreesRuntime
from holdfast.tasks.ranking import Ranking
from holdfast.tasks.regression import Regression
from holdfast.trainers.lightgbm import LONGEST, MOST_GRADES, LightGBM
from holdfast.trainers.linear import Linear

TASK = Ranking()
TREES = LightGBM(trees=24, leaves=7, min_rows_per_leaf=10, early_stopping=3)
TRAINERS = [TREES, Linear()]


def rows(lists: int = 120, size: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four numbers and a category of three codes, missing values in all; the best of a list has relevance 2, the next
    two have 1. Rows of a list do not stand together."""
    random = np.random.default_rng(seed)
    n = lists * size
    x = random.normal(size=(n, 5)).astype(np.float32)
    x[:, 4] = random.integers(0, 3, n)
    gain = 2 * x[:, 0] + (x[:, 4] == 2) + random.gumbel(scale=0.5, size=n)
    of = random.permutation(np.repeat(np.arange(1.0, lists + 1), size))
    relevance = np.zeros(n)
    for number in np.unique(of):
        best = np.flatnonzero(of == number)[np.argsort(-gain[of == number])]
        relevance[best[:3]] = [2, 1, 1]
    x[random.random(x.shape) < 0.05] = np.nan
    return x, np.column_stack([relevance, of])


def misleading(lists: int = 300, size: int = 6, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """One number. Of two lists the one with larger numbers is the more relevant; within a list it is the other way
    round, which is all that an order needs."""
    random = np.random.default_rng(seed)
    level = np.repeat(random.uniform(0, 3, lists), size)
    within = random.normal(scale=0.3, size=lists * size)
    x = (level + within).astype(np.float32)[:, None]
    relevance = np.where(within < -0.15, 1.0, 0.0) + np.floor(2 * level)
    return x, np.column_stack([relevance, np.repeat(np.arange(1.0, lists + 1), size)])


def fit(trainer: Any, x: np.ndarray, y: np.ndarray, task: Any = TASK, **kwargs: Any) -> Any:
    options = {"valid": None, "categories": [0] * x.shape[1], "seed": 7} | kwargs
    return trainer.fit(x, y, task=task, **options)


def ndcg(y: np.ndarray, scores: np.ndarray) -> float:
    return TASK.metrics(y, scores)["ndcg"]


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda each: type(each).__name__)
def test_scores_order_lists_that_were_not_fitted(trainer: Any) -> None:
    (x, y), (others, truth) = rows(), rows(seed=5)
    fitted = fit(trainer, x, y, categories=[0] * 4 + [3])
    scores = fitted.predict(others)
    assert scores.shape == (len(others),)
    assert ndcg(truth, scores) > 0.85 > 0.7 > ndcg(truth, np.zeros(len(others)))


def test_what_only_tells_lists_apart_misleads_single_rows_and_not_lists() -> None:
    (x, y), (others, truth) = misleading(), misleading(seed=2)
    nothing = ndcg(truth, np.zeros(len(others)))
    by_list = ndcg(truth, fit(TREES, x, y).predict(others))
    by_row = [fit(TREES, x, y[:, 0], Regression()), fit(Linear(), x, y)]
    assert by_list > nothing + 0.05
    assert max(ndcg(truth, each.predict(others)) for each in by_row) < nothing


def test_rows_may_stand_in_any_order() -> None:
    x, y = rows()
    order = np.argsort(y[:, 1], kind="stable")
    together = fit(TREES, x[order], y[order]).predict(x)
    assert fit(TREES, x, y).predict(x) == pytest.approx(together, abs=1e-9)


def test_the_same_rows_under_another_number_are_the_same_list() -> None:
    x, y = rows()
    renamed = np.column_stack([y[:, 0], y[:, 1] * 7 + 100])
    assert (fit(TREES, x, renamed).predict(x) == fit(TREES, x, y).predict(x)).all()


def test_rows_that_count_for_nothing_change_little() -> None:
    (x, y), (strange, turned) = rows(), misleading()
    strange = np.column_stack([strange, np.zeros((len(strange), 4), dtype=np.float32)])
    both, targets = np.concatenate([x, strange]), np.concatenate([y, turned + np.array([0, 1000])])
    weights = np.concatenate([np.ones(len(x)), np.full(len(strange), 1e-9)])
    assert ndcg(y, fit(TREES, both, targets, weights=weights).predict(x)) > 0.85
    lines = [fit(Linear(), both, targets, weights=each).predict(x) for each in (weights, None)]
    assert ndcg(y, lines[0]) > ndcg(y, lines[1])


def test_trees_are_fitted_again_with_the_rounds_that_the_newest_lists_gave() -> None:
    x, y = rows()
    inside = y[:, 1] <= 90
    fitted = fit(TREES, x[inside], y[inside], valid=(x[~inside], y[~inside]))
    assert 1 <= fitted.params["trees"] <= 24
    assert set(fitted.curves) == {"train", "valid"}
    assert all(0 <= loss <= 1 for curve in fitted.curves.values() for loss in curve)
    last = fitted.curves["valid"][fitted.params["trees"] - 1]
    found = TASK.metrics(y[~inside], fitted.predict(x[~inside]))["ndcg_10"]
    assert last == pytest.approx(1 - found, abs=5e-3), "rows with one score stand in their order there"
    assert last == min(fitted.curves["valid"])
    again = fit(msgspec.convert(dict(fitted.params), LightGBM), x[inside], y[inside])
    assert again.predict(x) == pytest.approx(fitted.predict(x))


def test_a_list_in_which_nothing_is_relevant_teaches_nothing_and_stops_nothing() -> None:
    x, y = rows()
    y[y[:, 1] <= 10, 0] = 0.0
    fitted = fit(TREES, x, y, valid=(x[:160], np.column_stack([np.zeros(160), y[:160, 1]])))
    assert np.isfinite(fitted.predict(x)).all()


@pytest.mark.parametrize(
    ("relevance", "said"),
    [
        (-1.0, "relevance of at least 0, and the label is -1 in one row or more; mend it in its feed"),
        (np.inf, "the label is inf in"),
    ],
)
@pytest.mark.parametrize("where", ["fitted", "valid"])
def test_relevance_that_trees_cannot_fit_is_refused_with_what_to_do(relevance: float, said: str, where: str) -> None:
    x, y = rows(20)
    wrong = y.copy()
    wrong[3, 0] = relevance
    both = (wrong, y) if where == "fitted" else (y, wrong)
    with pytest.raises(HoldfastError, match=said):
        fit(TREES, x, both[0], valid=(x, both[1]))


@pytest.mark.parametrize("scale", [0.5, 0.25, 2.0, 0.1, 1e6, 1e-6, 1e300, 1e-300])
def test_relevance_has_no_unit(scale: float) -> None:
    x, y = rows()
    inside = y[:, 1] <= 90

    def made(y: np.ndarray) -> np.ndarray:
        return fit(TREES, x[inside], y[inside], valid=(x[~inside], y[~inside])).predict(x)

    scaled = y * [scale, 1]
    assert np.ptp(made(y)) > 0.5
    if np.log2(scale).is_integer():
        assert (made(scaled) == made(y)).all()
    assert made(scaled) == pytest.approx(made(y), abs=1e-6)


def test_relevance_counts_by_its_value_and_not_by_its_place() -> None:
    x, y = rows()
    apart = y.copy()
    apart[y[:, 0] == 2, 0] = 50.5
    assert np.abs(fit(TREES, x, apart).predict(x) - fit(TREES, x, y).predict(x)).max() > 0.01


def test_values_that_only_the_newest_lists_have_are_graded_too() -> None:
    x, y = rows()
    inside = y[:, 1] <= 90
    y[~inside, 0] *= 1.7
    fitted = fit(TREES, x[inside], y[inside], valid=(x[~inside], y[~inside]))
    last = fitted.curves["valid"][fitted.params["trees"] - 1]
    found = TASK.metrics(y[~inside], fitted.predict(x[~inside]))["ndcg_10"]
    assert last == pytest.approx(1 - found, abs=5e-3)


@pytest.mark.slow
def test_amounts_with_more_values_than_grades_are_ordered_as_well() -> None:
    x, y = rows(lists=2000)
    amounts = y * [1, 1]
    amounts[:, 0] *= np.random.default_rng(0).lognormal(size=len(y))
    amounts[:, 0] += np.random.default_rng(1).uniform(0, 0.01, size=len(y))
    assert len(np.unique(amounts[:, 0])) > MOST_GRADES
    scores = fit(TREES, x, amounts).predict(x)
    assert ndcg(amounts, scores) > ndcg(amounts, np.zeros(len(y))) + 0.15
    assert (fit(TREES, x, amounts).predict(x) == scores).all()


def test_fractions_are_ordered_by_the_linear_model() -> None:
    x, y = rows()
    assert ndcg(y, fit(Linear(), np.nan_to_num(x), y * [0.25, 1]).predict(np.nan_to_num(x))) > 0.85


def test_a_list_of_more_rows_than_trees_take_is_refused_with_what_to_do() -> None:
    n = LONGEST + 1
    x, y = np.zeros((n, 1), dtype=np.float32), np.column_stack([np.arange(n) % 2, np.ones(n)])
    with pytest.raises(HoldfastError, match=r"10,000 rows at most, and one has 10,001: let data.unit name"):
        fit(TREES, x, y)
    x[:, 0] = np.arange(n)
    assert np.isfinite(fit(LightGBM(trees=1), x[:LONGEST], y[:LONGEST]).predict(x[:5])).all()


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda each: type(each).__name__)
def test_what_is_exported_answers_what_was_trained(trainer: Any, tmp_path: Path) -> None:
    x, y = rows()
    fitted = fit(trainer, x, y, categories=[0] * 4 + [3])
    proof = export_proved(fitted, x, tmp_path)
    assert proof.runtime == {"LightGBM": "trees", "Linear": "onnx"}[type(trainer).__name__], proof.text
    asked = np.concatenate([x, np.full((1, 5), np.nan, dtype=np.float32)])
    assert OnnxRuntime.load(tmp_path).run(asked) == pytest.approx(fitted.predict(asked), abs=1e-5)
    native = {"lightgbm": LightGBMRuntime, "linear": LinearRuntime}[fitted.export_native(tmp_path)].load(tmp_path)
    assert native.run(asked) == pytest.approx(fitted.predict(asked), abs=1e-12)


def test_tables_answer_as_the_trees_do_whose_order_is_the_same(tmp_path: Path) -> None:
    x, y = rows()
    fitted = fit(TREES, x, y)
    fitted.export(tmp_path)
    scores = TreesRuntime.load(tmp_path).run(x)
    assert scores == pytest.approx(fitted.predict(x), abs=1e-5)
    assert ndcg(y, scores) == pytest.approx(ndcg(y, fitted.predict(x)), abs=1e-9)
    assert TreesRuntime.load(tmp_path).run(x[:1]).shape == (1,)


def test_the_same_fit_gives_the_same_file(tmp_path: Path) -> None:
    x, y = rows()
    for trainer in TRAINERS:
        written = []
        for _ in range(2):
            fit(trainer, x, y).export(tmp_path)
            written.append((tmp_path / "model.onnx").read_bytes())
        assert written[0] == written[1]
