import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from holdfast.stats.calibration import bias, bias_interval, calibration_error, error_interval, reliability

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
