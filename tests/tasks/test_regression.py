"""Regression, its numbers against scikit-learn."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from holdfast.errors import DataError, UnknownKind
from holdfast.tasks.regression import METRICS, Regression

TASK = Regression()
values = st.floats(-1e6, 1e6)
triples = st.lists(st.tuples(values, values, values), min_size=2)


@pytest.mark.slow
@given(triples)
def test_metrics_equal_scikit_learns(rows: list[tuple[float, float, float]]) -> None:
    y, output, _ = np.array(rows).T
    got = TASK.metrics(y, output)
    assert got["mae"] == pytest.approx(reference.mean_absolute_error(y, output))
    assert got["rmse"] == pytest.approx(reference.root_mean_squared_error(y, output))
    assert got["bias"] == pytest.approx(output.mean() - y.mean(), abs=1e-6)
    assert got["mse"] == pytest.approx(reference.mean_squared_error(y, output))
    assert got["median_absolute_error"] == pytest.approx(reference.median_absolute_error(y, output))
    assert got["max_error"] == pytest.approx(reference.max_error(y, output))
    for name, q in (("pinball_10", 0.1), ("pinball_90", 0.9)):
        assert got[name] == pytest.approx(reference.mean_pinball_loss(y, output, alpha=q))
    if np.ptp(y) > 1e-3:
        assert got["r2"] == pytest.approx(reference.r2_score(y, output), rel=1e-6)
        explained = reference.explained_variance_score(y, output)
        assert got["explained_variance"] == pytest.approx(explained, rel=1e-6, abs=1e-9)


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(0.01, 1e6), st.floats(0, 1e6)), min_size=1))
def test_relative_errors_equal_scikit_learns(rows: list[tuple[float, float]]) -> None:
    y, output = np.array(rows).T
    got = TASK.metrics(y, output)
    assert got["mape"] == pytest.approx(reference.mean_absolute_percentage_error(y, output))
    assert got["msle"] == pytest.approx(reference.mean_squared_log_error(y, output))
    assert got["rmsle"] == pytest.approx(reference.root_mean_squared_log_error(y, output))


def test_relative_errors_are_undefined_where_scikit_learn_answers_huge_numbers_or_refuses() -> None:
    zero = TASK.metrics(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    assert np.isnan(zero["mape"])
    assert zero["msle"] == pytest.approx(np.log(2) ** 2 / 2)
    for y, output in (([-1.0, 1.0], [1.0, 1.0]), ([1.0, 1.0], [-2.0, 1.0])):
        got = TASK.metrics(np.array(y), np.array(output))
        assert np.isnan(got["msle"])
        assert np.isnan(got["rmsle"])


@given(triples)
def test_absolute_errors_differ_by_no_more_than_the_answers(rows: list[tuple[float, float, float]]) -> None:
    y, candidate, live = np.array(rows).T
    low, high = TASK.loss_bounds("absolute_error", candidate, live)
    difference = TASK.loss("absolute_error", y, candidate) - TASK.loss("absolute_error", y, live)
    assert (low - 1e-6 <= difference).all()
    assert (difference <= high + 1e-6).all()


def test_squared_errors_have_no_bound_unless_the_answers_are_equal() -> None:
    low, high = TASK.loss_bounds("squared_error", np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    assert low.tolist() == [0, -np.inf]
    assert high.tolist() == [0, np.inf]


def test_undefined_metrics_are_nan() -> None:
    assert all(np.isnan(value) for value in TASK.metrics(np.zeros(0), np.zeros(0)).values())
    constant = TASK.metrics(np.ones(3), np.zeros(3))
    assert np.isnan(constant["r2"])
    assert np.isnan(constant["explained_variance"])


def test_labels_are_numbers() -> None:
    np.testing.assert_array_equal(TASK.target(pl.Series("delay", [1, None, 3])), [1, np.nan, 3])
    with pytest.raises(DataError, match="takes numbers"):
        TASK.target(pl.Series("delay", ["late"]))
    with pytest.raises(DataError, match="infinite in row 1"):
        TASK.target(pl.Series("delay", [1.0, float("inf")]))


def test_directions_and_near_misses() -> None:
    assert {name: TASK.higher_is_better(name) for name in METRICS} == METRICS
    with pytest.raises(UnknownKind, match="did you mean 'rmse'"):
        TASK.higher_is_better("rsme")
    for ask in (TASK.loss, TASK.loss_bounds):
        with pytest.raises(UnknownKind, match="did you mean 'squared_error'"):
            ask("square_error", np.zeros(1), np.zeros(1))


def test_the_trivial_answer_is_the_best_constant() -> None:
    y = np.array([0.0, 1, 2, 50, 90])
    best = TASK.loss("absolute_error", y, np.full(5, TASK.trivial(y))).mean()
    assert all(best <= TASK.loss("absolute_error", y, np.full(5, c)).mean() for c in np.linspace(0, 90, 91))


def test_labels_are_finite() -> None:
    assert [TASK.refuses_label(value) for value in (0, -3.5, 1e300)] == [""] * 3
    assert [TASK.refuses_label(value) for value in (np.nan, np.inf, -np.inf)] == ["a finite number"] * 3


def test_its_errors_are_metrics_of_which_less_is_better() -> None:
    assert TASK.errors == ("mae", "rmse")
    assert set(TASK.errors) <= set(METRICS)
    assert not any(TASK.higher_is_better(name) for name in TASK.errors)
