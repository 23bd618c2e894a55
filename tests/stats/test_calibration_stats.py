import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from holdfast.stats.calibration import (
    FITS,
    bias,
    bias_interval,
    calibration_error,
    choose_calibration,
    error_interval,
    isotonic,
    reliability,
    sigmoid,
)

pairs = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=80)


def split(rows):
    return np.array([float(y) for y, _ in rows]), np.array([p for _, p in rows])


@given(pairs, pairs)
def test_sums_of_blocks_add_up_to_the_sums_of_all_rows(one, other):
    assert np.allclose(reliability(*split(one)) + reliability(*split(other)), reliability(*split(one + other)))


def test_bins_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    p = random.random(2000)
    y = (random.random(2000) < p**1.3).astype(float)
    observed, answered = calibration_curve(y, p, n_bins=10)
    rows, answers, outcomes = reliability(y, p)
    assert np.allclose(outcomes / rows, observed)
    assert np.allclose(answers / rows, answered)
    assert calibration_error(reliability(y, p)) == pytest.approx(np.average(np.abs(observed - answered), weights=rows))


@given(pairs)
def test_bias_is_the_difference_of_means_and_the_error_is_no_smaller(rows):
    y, p = split(rows)
    assert bias(reliability(y, p)) == pytest.approx(p.mean() - y.mean(), abs=1e-12)
    assert calibration_error(reliability(y, p)) >= abs(bias(reliability(y, p))) - 1e-12


def test_the_noise_of_a_perfect_model_is_about_what_the_page_says():
    random = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        p = random.beta(1.5, 4.5, 900)  # mean 0.25, most bins filled
        errors.append(calibration_error(reliability((random.random(900) < p).astype(float), p)))
    assert 0.02 < np.mean(errors) < 0.045


def test_intervals_come_from_blocks():
    random = np.random.default_rng(1)
    blocks = []
    for _ in range(14):
        p = random.random(300)
        blocks.append(reliability((random.random(300) < np.clip(p - 0.1, 0, 1)).astype(float), p))
    low, high = bias_interval(blocks)
    assert 0.05 < low < 0.1 < high < 0.15
    low, high = error_interval(blocks)
    assert 0.05 < low < calibration_error(np.sum(blocks, axis=0)) < high


def test_nothing_to_measure_is_undefined_and_no_probability_is_refused():
    empty = reliability(np.array([]), np.array([]))
    assert math.isnan(calibration_error(empty))
    assert math.isnan(bias(empty))
    assert all(math.isnan(bound) for bound in error_interval([]))
    with pytest.raises(ValueError, match="outside"):
        reliability(np.array([1.0]), np.array([1.5]))


def counted(seed, rows=3000, blocks=10, bend=1.0):
    """Scores in hundredths with labels at score ** bend: scores, rows and positives per block."""
    random = np.random.default_rng(seed)
    p = random.integers(1, 100, (blocks, rows // blocks)) / 100
    y = random.random(p.shape) < p**bend
    scores = np.arange(1, 100) / 100
    cell = np.rint(p * 100).astype(int) - 1
    return (
        scores,
        np.array([np.bincount(c, minlength=99) for c in cell], dtype=float),
        np.array([np.bincount(c, weights=w, minlength=99) for c, w in zip(cell, y, strict=True)]),
    )


def test_the_isotonic_curve_is_that_of_scikit_learn():
    scores, rows, positives = counted(0)
    n, hits = rows.sum(axis=0), positives.sum(axis=0)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(scores, hits / n, sample_weight=n)
    at = np.linspace(0, 1, 501)
    assert isotonic(scores, n, hits)(at) == pytest.approx(theirs.predict(at))


def test_the_sigmoid_curve_is_the_logistic_regression_of_the_log_odds():
    scores, rows, positives = counted(1, rows=20_000, bend=2.0)
    n, hits = rows.sum(axis=0), positives.sum(axis=0)
    z = np.log(scores / (1 - scores))[:, None]
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(
        np.concatenate([z, z]), np.repeat([1, 0], 99), sample_weight=np.concatenate([hits, n - hits])
    )
    assert sigmoid(scores, n, hits)(scores) == pytest.approx(theirs.predict_proba(z)[:, 1], abs=2e-4)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1)), min_size=2, max_size=12))
def test_a_calibrated_curve_is_a_probability_and_never_falls(cells):
    rows = np.array([float(n) for n, _ in cells]) + np.eye(1, len(cells))[0]
    positives = np.floor(rows * np.array([share for _, share in cells]))
    scores = np.linspace(0, 1, len(cells))
    at = np.linspace(0, 1, 51)
    for fit in FITS.values():
        p = fit(scores, rows, positives)(at)
        assert (np.diff(p) >= -1e-9).all()
        assert p.min() >= 0
        assert p.max() <= 1


def test_calibration_is_chosen_by_what_it_does_for_other_days():
    assert choose_calibration(*counted(2, rows=30_000)) == "as answered"
    assert choose_calibration(*counted(3, rows=3000, bend=3.0)) != "as answered"
    scores, rows, _ = counted(4, rows=60_000)
    steps = np.where(scores > 0.7, 0.9, np.where(scores > 0.4, 0.5, 0.05))
    assert choose_calibration(scores, rows, rows * steps) == "isotonic"
    assert choose_calibration(scores, rows[:1], rows[:1] * steps) == "as answered"


@pytest.mark.parametrize("fit", [isotonic, sigmoid])
def test_nothing_to_calibrate_on_is_refused(fit):
    with pytest.raises(ValueError, match="nothing to calibrate"):
        fit(np.array([0.2, 0.8]), np.zeros(2), np.zeros(2))


def test_classes_that_scores_separate_keep_the_sigmoid_finite():
    curve = sigmoid(np.array([0.1, 0.9]), np.array([50.0, 50.0]), np.array([0.0, 50.0]))
    assert np.isfinite(curve(np.linspace(0, 1, 11))).all()
    alone = sigmoid(np.array([0.4]), np.array([1000.0]), np.array([700.0]))
    assert float(alone(np.array([0.4]))[0]) == pytest.approx(0.7, abs=1e-3)
