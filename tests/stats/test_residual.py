import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats.residual import LEAST_DAYS, middle_ranks, residuals


def tied(days=120, seed=0, noise=0.1):
    """Two columns that follow the same weather, and one that follows nothing."""
    random = np.random.default_rng(seed)
    weather = random.normal(size=(days, 1))
    return np.hstack([weather, weather + noise * random.normal(size=(days, 1)), random.normal(size=(days, 1))])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_middle_ranks_rise_within_their_range_and_average_a_half(counts):
    counts = np.array(counts)
    ranks = middle_ranks(counts)
    assert (np.diff(ranks) >= 0).all()
    assert (ranks >= 0).all()
    assert (ranks <= 1).all()
    if counts.sum():
        assert counts @ ranks / counts.sum() == pytest.approx(0.5)


def test_a_column_that_leaves_the_one_it_followed_is_far_from_what_is_expected_and_a_warm_day_is_not():
    days = tied()
    warm, _ = residuals(days, np.array([2.5, 2.5, 0.0]))
    apart, expected = residuals(days, np.array([2.5, 0.0, 0.0]))
    assert np.abs(warm).max() < 0.5
    assert apart[0] > 1.5
    assert expected[0] == pytest.approx(2.5 - apart[0])
    assert abs(apart[2]) < 0.5


def test_a_column_that_follows_nothing_is_expected_at_its_mean():
    days = tied()
    beyond, expected = residuals(days, np.array([0.0, 0.0, 3.0]))
    assert beyond[2] == pytest.approx(3.0 - days[:, 2].mean(), abs=0.2)
    assert expected[2] == pytest.approx(days[:, 2].mean(), abs=0.2)


@given(st.integers(0, 1000), st.permutations(range(3)), st.permutations(range(60)))
def test_the_order_of_columns_and_of_days_changes_nothing(seed, columns, order):
    days, now = tied(60, seed), np.array([1.0, -1.0, 0.5])
    beyond, _ = residuals(days, now)
    again, _ = residuals(days[order][:, columns], now[columns])
    assert again == pytest.approx(beyond[columns])


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-100, 100))
def test_a_columns_unit_is_the_unit_of_its_residual_and_concerns_no_other(seed, scale, offset):
    days, now = tied(60, seed), np.array([1.0, -1.0, 0.5])
    beyond, expected = residuals(days, now)
    other = np.array([scale, 1.0, 1.0]), np.array([offset, 0.0, 0.0])
    again, expected_again = residuals(days * other[0] + other[1], now * other[0] + other[1])
    assert again == pytest.approx(beyond * other[0], rel=1e-6, abs=1e-9)
    assert expected_again == pytest.approx(expected * other[0] + other[1], rel=1e-6, abs=1e-6)


def test_nothing_is_said_of_what_is_missing_stood_still_or_was_seldom_measured():
    days = np.hstack([tied(40), np.full((40, 1), 0.5), np.full((40, 1), np.nan)])
    days[: 40 - LEAST_DAYS + 1, 2] = np.nan
    beyond, expected = residuals(days, np.array([np.nan, 1.0, 1.0, 9.0, 1.0]))
    assert np.isnan(beyond).tolist() == [True, False, True, True, True]
    assert np.isnan(expected).tolist() == np.isnan(beyond).tolist()
    assert np.isnan(residuals(days[:5], np.ones(5))[0]).all()


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_a_column_that_broke_says_nothing_about_those_that_went_with_it(noise):
    days = tied(180, noise=noise)
    usual = [residuals(np.delete(days, k, axis=0), days[k])[0] for k in range(180)]
    most = np.abs(usual).max(axis=0)
    for broken in (-20.0, 20.0, np.nan):
        beyond, _ = residuals(days[1:], np.array([broken, *days[0, 1:]]))
        assert (np.abs(beyond[1:]) <= most[1:]).all()
        assert np.isnan(broken) or abs(beyond[0]) > 2 * most[0]


def test_what_is_expected_of_a_column_is_told_by_those_that_are_heeded():
    random = np.random.default_rng(2)
    weather = random.normal(size=(120, 1))
    days = weather + 0.1 * random.normal(size=(120, 3))
    beyond, expected = residuals(days, np.array([-50.0, 1.0, 1.0]))
    assert expected[:2] == pytest.approx([1.0, 1.0], abs=0.2)
    assert np.abs(beyond[1:]).max() < 0.2
    assert beyond[0] == pytest.approx(-51.0, abs=1.0)
    # With the broken one alone to go by nothing is expected but the mean, which a day may be far from.
    lone, expected = residuals(days[:, :2], np.array([-50.0, 1.0]))
    assert expected[1] == pytest.approx(days[:, 1].mean())
    assert abs(lone[1]) < 0.3


def test_more_columns_than_days_are_no_trouble():
    random = np.random.default_rng(1)
    beyond, _ = residuals(random.normal(size=(40, 80)), random.normal(size=80))
    assert np.isfinite(beyond).all()
