"""Binary classification, its numbers against scikit-learn."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from holdfast.errors import DataError, UnknownKind
from holdfast.stats.calibration import calibration_error, reliability
from holdfast.tasks.classification import BINS, METRICS, Classification, roc_auc

TASK = Classification()
cases = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]) | st.floats(0, 1)), min_size=1)


def split(rows: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([y for y, _ in rows], dtype=np.float64), np.array([p for _, p in rows])


@pytest.mark.slow
@given(cases)
def test_metrics_equal_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    y, p = split(rows)
    got = TASK.metrics(y, p)
    answered = p >= 0.5
    assert got["accuracy"] == pytest.approx(reference.accuracy_score(y, answered))
    assert got["brier"] == pytest.approx(reference.brier_score_loss(y, p))
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    assert got["log_loss"] == pytest.approx(reference.log_loss(y, clipped, labels=[0, 1]))
    for name, score in (
        ("precision", reference.precision_score),
        ("recall", reference.recall_score),
        ("f1", reference.f1_score),
    ):
        expected = score(y, answered, zero_division=np.nan)
        assert got[name] == pytest.approx(expected, nan_ok=True), name
    specificity = reference.recall_score(y, answered, pos_label=0, zero_division=np.nan)
    assert got["specificity"] == pytest.approx(specificity, nan_ok=True)
    if 0 < y.sum() < len(y):
        assert got["roc_auc"] == pytest.approx(reference.roc_auc_score(y, p))
        assert got["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(y, answered))
    else:
        assert np.isnan(got["roc_auc"])
        assert np.isnan(got["balanced_accuracy"])
    if y.sum():
        assert got["average_precision"] == pytest.approx(reference.average_precision_score(y, p))
    else:
        assert np.isnan(got["average_precision"])
    assert got["bias"] == pytest.approx(p.mean() - y.mean())
    assert got["rate"] == y.mean()


@pytest.mark.slow
@given(cases)
def test_the_matthews_correlation_is_scikit_learns_or_undefined(rows: list[tuple[bool, float]]) -> None:
    y, p = split(rows)
    got = TASK.metrics(y, p)["mcc"]
    if 0 < y.sum() < len(y) and 0 < (p >= 0.5).sum() < len(y):
        assert got == pytest.approx(reference.matthews_corrcoef(y, p >= 0.5))
    else:
        assert np.isnan(got), "scikit-learn answers 0, as if the two were unrelated"


@pytest.mark.slow
@given(cases)
def test_the_calibration_error_is_that_of_the_check(rows: list[tuple[bool, float]]) -> None:
    y, p = split(rows)
    expected = 0.0
    for k in range(BINS):
        inside = (p >= k / BINS) & ((p < (k + 1) / BINS) | (k == BINS - 1))
        expected += abs(float((p[inside] - y[inside]).sum())) / len(y)
    counted = [calibration_error(reliability(y, p, bins=BINS)), TASK.metrics(y, p)["calibration_error"]]
    assert counted[0] == pytest.approx(counted[1])
    if not any((value * BINS).is_integer() for value in p.tolist()):  # on an edge rounding decides
        assert counted[1] == pytest.approx(expected)


def test_answers_that_are_no_probabilities_have_no_calibration_error() -> None:
    got = TASK.metrics(np.array([0.0, 1.0]), np.array([-3.0, 7.0]))
    assert np.isnan(got["calibration_error"])
    assert got["roc_auc"] == 1.0


@given(cases, st.data())
def test_loss_bounds_hold_whatever_the_label_and_are_reached(
    rows: list[tuple[bool, float]], data: st.DataObject
) -> None:
    y, candidate = split(rows)
    live = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(y), max_size=len(y))))
    for name in TASK.losses:
        low, high = TASK.loss_bounds(name, candidate, live)
        differences = [TASK.loss(name, y_, candidate) - TASK.loss(name, y_, live) for y_ in (y, 1 - y)]
        np.testing.assert_array_equal(low, np.minimum(*differences))
        np.testing.assert_array_equal(high, np.maximum(*differences))


def test_log_loss_is_clipped() -> None:
    assert TASK.loss("log_loss", np.array([1.0]), np.array([0.0]))[0] == pytest.approx(-np.log(1e-6))


def test_a_tie_counts_half() -> None:
    assert roc_auc(np.array([0.0, 1.0]), np.array([0.3, 0.3])) == 0.5


def test_no_rows_have_no_metrics() -> None:
    got = TASK.metrics(np.zeros(0), np.zeros(0))
    assert set(got) == set(METRICS)
    assert all(np.isnan(value) for value in got.values())


@pytest.mark.parametrize("values", [[True, False, None], [1, 0, None], [1.0, 0.0, float("nan")]])
def test_labels_may_be_booleans_or_zeros_and_ones(values: list[object]) -> None:
    y = TASK.target(pl.Series("late", values))
    np.testing.assert_array_equal(y, [1, 0, np.nan])
    assert y.dtype == np.float64


def test_other_labels_are_refused_with_advice() -> None:
    with pytest.raises(DataError, match=r"label 'late' has the value 2.*task: regression"):
        TASK.target(pl.Series("late", [0, 2]))
    with pytest.raises(DataError, match="takes true/false or 0/1"):
        TASK.target(pl.Series("late", ["yes"]))


def test_directions_and_near_misses() -> None:
    assert TASK.higher_is_better("roc_auc")
    assert not TASK.higher_is_better("brier")
    with pytest.raises(UnknownKind, match="no metric of kind 'roc_acu'; did you mean 'roc_auc'"):
        TASK.higher_is_better("roc_acu")
    with pytest.raises(UnknownKind, match="brier"):
        TASK.loss("briar", np.zeros(1), np.zeros(1))


def test_the_trivial_answer_is_the_best_constant() -> None:
    y = np.array([0.0, 0, 0, 1, 1])
    best = TASK.trivial(y)
    for name in TASK.losses:
        at_best = TASK.loss(name, y, np.full(5, best)).mean()
        assert all(at_best <= TASK.loss(name, y, np.full(5, p)).mean() for p in np.linspace(0, 1, 101))


def test_labels_are_zero_or_one() -> None:
    assert [TASK.refuses_label(value) for value in (0, 1, 0.0, 1.0, True)] == [""] * 5
    assert [TASK.refuses_label(value) for value in (3, -1, 0.5, np.nan, np.inf)] == ["0 or 1"] * 5


def test_no_error_beside_the_losses_is_watched() -> None:
    assert TASK.errors == ()
