"""Metrics of orders, against scikit-learn and against a count by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from holdfast.stats import ranking
from holdfast.stats.ranking import AT_K, WHOLE, lists

row = st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.5, 0.9]) | st.floats(-5, 5, width=32), st.integers(0, 4))
many = st.lists(row, min_size=1, max_size=40)


def split(rows: list[tuple[int, float, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    relevance, scores, groups = zip(*rows, strict=True)
    return np.array(relevance, dtype=float), np.array(scores), np.array(groups)


def by_list(rows: list[tuple[int, float, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    relevance, scores, groups = split(rows)
    return [(relevance[groups == g], scores[groups == g]) for g in np.unique(groups)]


@pytest.mark.slow
@given(many, st.integers(1, 6) | st.none())
def test_ndcg_is_scikit_learns_list_by_list_with_ties(rows: list[tuple[int, float, int]], k: int | None) -> None:
    found = ranking.ndcg(lists(*split(rows)), k)
    for value, (relevance, scores) in zip(found, by_list(rows), strict=True):
        if not relevance.any():
            assert np.isnan(value)
        elif relevance.size > 1:  # scikit-learn refuses lists of one
            assert value == pytest.approx(ndcg_score([relevance], [scores], k=k))
        else:
            assert value == 1.0


@pytest.mark.slow
@given(many)
def test_average_precision_is_scikit_learns_with_ties(rows: list[tuple[int, float, int]]) -> None:
    found = ranking.average_precision(lists(*split(rows)))
    for value, (relevance, scores) in zip(found, by_list(rows), strict=True):
        if relevance.any():
            assert value == pytest.approx(average_precision_score(relevance > 0, scores))
        else:
            assert np.isnan(value)


few = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9]), st.integers(0, 1)), min_size=1, max_size=8
)


def orders(relevance: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    """What is relevant, in every order that the answers allow."""
    found = itertools.permutations(range(len(scores)))
    return [relevance[list(one)] > 0 for one in found if (np.diff(scores[list(one)]) <= 0).all()]


@pytest.mark.slow
@settings(deadline=None)
@given(few.filter(lambda rows: max(sum(row[2] == g for row in rows) for g in (0, 1)) <= 6), st.integers(1, 6))
def test_what_counts_the_first_k_is_a_count_by_hand_over_all_orders(rows: list[tuple[int, float, int]], k: int) -> None:
    ordered = lists(*split(rows))
    found = [ranking.precision_at(ordered, k), ranking.recall_at(ordered, k), ranking.hit_at(ordered, k)]
    found.append(ranking.reciprocal_rank(ordered))
    for at, (relevance, scores) in enumerate(by_list(rows)):
        if relevance.any():
            each = [
                [hit[:k].sum() / k, hit[:k].sum() / hit.sum(), float(hit[:k].any()), 1 / (hit.argmax() + 1)]
                for hit in orders(relevance, scores)
            ]
            assert [float(values[at]) for values in found] == pytest.approx(np.mean(each, axis=0).tolist())
        else:
            assert all(np.isnan(values[at]) for values in found)


@pytest.mark.slow
@given(many, st.integers(0, 9))
def test_the_order_in_which_rows_come_changes_nothing(rows: list[tuple[int, float, int]], seed: int) -> None:
    mixed = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    for metric in WHOLE.values():
        np.testing.assert_allclose(metric(lists(*split(rows))), metric(lists(*split(mixed))), rtol=1e-12)
    for at_k in AT_K.values():
        np.testing.assert_allclose(at_k(lists(*split(rows)), 3), at_k(lists(*split(mixed)), 3), rtol=1e-12)


@given(many)
def test_all_are_one_for_the_best_order_and_lie_between_nought_and_one(rows: list[tuple[int, float, int]]) -> None:
    relevance, scores, groups = split(rows)
    assume(relevance.any())
    best = lists(relevance, relevance, groups)
    for name, metric in WHOLE.items():
        assert ranking.mean(metric(best)).value == pytest.approx(1.0), name
    assert ranking.mean(ranking.ndcg(best)).value == pytest.approx(1.0)
    for values in (metric(lists(relevance, scores, groups)) for metric in WHOLE.values()):
        assert np.nanmin(values) >= 0
        assert np.nanmax(values) <= 1


def test_answers_that_are_all_alike_are_an_order_by_chance() -> None:
    alike = lists(np.array([1.0, 0, 0, 0]), np.full(4, 0.5), np.zeros(4))
    assert ranking.reciprocal_rank(alike) == pytest.approx([(1 + 1 / 2 + 1 / 3 + 1 / 4) / 4])
    assert ranking.hit_at(alike, 3) == pytest.approx([0.75])
    assert ranking.precision_at(alike, 2) == pytest.approx([0.25])


def test_long_runs_of_ties_are_counted_exactly() -> None:
    """The chance that none of 30 relevant rows of 5,000 stands among the first 10."""
    relevance = np.zeros(5000)
    relevance[:30] = 1.0
    found = ranking.hit_at(lists(relevance, np.zeros(5000), np.zeros(5000)), 10)
    none = np.prod([(4970 - i) / (5000 - i) for i in range(10)])
    assert found == pytest.approx([1 - none], rel=1e-9)


def test_lists_without_anything_relevant_are_left_out_and_said() -> None:
    found = lists(np.array([1.0, 0, 0, 0]), np.array([0.9, 0.1, 0.9, 0.1]), np.array(["a", "a", "b", "b"]))
    for name, metric in WHOLE.items():
        mean = ranking.mean(metric(found))
        assert (mean.value, mean.lists, mean.undefined) == (1.0, 1, 1), name
    nothing = ranking.mean(ranking.ndcg(lists(np.zeros(2), np.ones(2), np.zeros(2))))
    assert np.isnan(nothing.value)
    assert (nothing.lists, nothing.undefined) == (0, 1)


def test_no_rows_are_no_lists() -> None:
    none = lists(np.empty(0), np.empty(0), np.empty(0))
    for values in (*(metric(none) for metric in WHOLE.values()), *(metric(none, 3) for metric in AT_K.values())):
        assert values.shape == (0,)
        assert np.isnan(ranking.mean(values).value)


def test_what_cannot_be_ordered_is_refused() -> None:
    one = np.ones(2)
    for relevance, scores in ((one, np.array([1.0, np.nan])), (np.array([1.0, -1.0]), one), (one, np.ones(3))):
        with pytest.raises(ValueError, match=r"row each|must"):
            lists(relevance, scores, np.zeros(2))
    with pytest.raises(ValueError, match="at least 1"):
        ranking.precision_at(lists(one, one, np.zeros(2)), 0)
