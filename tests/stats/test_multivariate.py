import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from holdfast.stats.multivariate import correlation_shift, rank_correlations


def test_ranks_correlate_as_scipy_says_ties_among_them() -> None:
    random = np.random.default_rng(0)
    values = np.round(random.normal(size=(200, 5)) @ random.normal(size=(5, 5)), 1)
    expected = spearmanr(values)[0]
    np.fill_diagonal(expected, np.nan)
    np.testing.assert_allclose(rank_correlations(values), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), missing=st.floats(0.0, 0.6))
def test_correlations_are_symmetric_in_range_and_heed_neither_order_nor_unit(seed: int, missing: float) -> None:
    random = np.random.default_rng(seed)
    values = np.where(random.random((60, 4)) < missing, np.nan, random.normal(size=(60, 4)))
    found = rank_correlations(values)
    np.testing.assert_allclose(found, found.T)
    assert np.nanmax(np.abs(found), initial=0.0) <= 1.0
    np.testing.assert_allclose(rank_correlations(random.permutation(values)), found, atol=1e-12)
    np.testing.assert_allclose(rank_correlations(np.exp(3 * values) + 7), found, atol=1e-12)


def test_a_row_of_missing_values_changes_nothing() -> None:
    values = np.random.default_rng(1).normal(size=(50, 3))
    padded = np.vstack([values, np.full((10, 3), np.nan)])
    np.testing.assert_allclose(rank_correlations(padded), rank_correlations(values))


@pytest.mark.parametrize("rows", [0, 1, 19])
def test_too_few_rows_say_nothing(rows: int) -> None:
    assert np.isnan(rank_correlations(np.random.default_rng(0).normal(size=(rows, 3)))).all()


def test_a_dead_column_hangs_together_with_nothing() -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    values[:, 1] = 4.0
    found = rank_correlations(values)
    assert np.isnan(found[1]).all()
    assert not np.isnan(found[0, 2])


def test_a_shift_is_measured_in_deviations_of_days() -> None:
    random = np.random.default_rng(2)
    before = np.clip(0.3 + random.normal(0, 0.2, (400, 2, 2)), -1, 1)
    moved, was, now = correlation_shift(before, np.full((4, 2, 2), 0.7))
    assert moved[0, 1] == pytest.approx(0.4 / (0.2 * np.sqrt(1 / 4 + 1 / 400)), rel=0.1)
    assert (was[0, 1], now[0, 1]) == (pytest.approx(0.3, abs=0.05), pytest.approx(0.7))


def test_pairs_that_have_no_day_are_not_a_number() -> None:
    before, now = np.full((20, 2, 2), 0.5), np.full((3, 2, 2), 0.5)
    before[1:, 0, 1], now[:, 1, 0] = np.nan, np.nan
    moved, was, _ = correlation_shift(before, now)
    assert np.isnan(moved).tolist() == [[False, True], [True, False]]
    assert np.isnan(was).tolist() == [[False, True], [True, False]]
    assert np.isnan(correlation_shift(before[:0], now)[0]).all()
