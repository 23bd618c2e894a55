"""Rank sums against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from holdfast.stats.ranks import RankSum, rank_sum

values = st.lists(st.sampled_from([0.0, 0.5, 1.0]) | st.floats(-9, 9), min_size=1, max_size=30)


@given(values, values)
def test_wins_are_the_statistic_of_mann_and_whitney(one: list[float], other: list[float]) -> None:
    found = rank_sum(np.array(one), np.array(other))
    assert found.wins == pytest.approx(mannwhitneyu(one, other).statistic)
    assert found.pairs == len(one) * len(other)
    assert found.wins == pytest.approx(found.pairs - rank_sum(np.array(other), np.array(one)).wins)


@given(values, values)
def test_the_variance_is_that_of_the_asymptotic_test(one: list[float], other: list[float]) -> None:
    found = rank_sum(np.array(one), np.array(other))
    if found.variance > 1e-9:
        z = (found.wins - found.pairs / 2) / np.sqrt(found.variance)
        result = mannwhitneyu(one, other, method="asymptotic", use_continuity=False, alternative="greater")
        normal = 0.5 * math.erfc(z / math.sqrt(2))
        assert result.pvalue == pytest.approx(normal, abs=1e-9)


@pytest.mark.slow
def test_the_variance_is_that_of_all_ways_to_deal_the_rows() -> None:
    random = np.random.default_rng(1)
    rows = np.array([1.0, 2.0, 2.0, 3.0, 5.0, 5.0, 5.0, 8.0])
    dealt = [random.permutation(rows) for _ in range(20_000)]
    wins = [rank_sum(each[:3], each[3:]).wins for each in dealt]
    assert np.var(wins) == pytest.approx(rank_sum(rows[:3], rows[3:]).variance, rel=0.05)


def test_without_a_pair_there_is_nothing_to_add() -> None:
    assert rank_sum(np.empty(0), np.array([1.0, 2.0])) == RankSum(0.0, 0.0, 0.0, 0, 2, 0.0, 3.0)
