import time

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats.histogram import Edges, Histogram, count, edges_of, merge

numbers = st.lists(st.one_of(st.floats(-50, 50), st.just(float("nan")), st.just(float("inf"))), max_size=60)
words = st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=60)
EDGES = Edges(cuts=(-10.0, -1.0, 0.0, 2.5, 30.0))
NAMES = Edges(categories=("a", "b"))


def array(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)


@given(numbers, numbers)
def test_merging_two_histograms_equals_counting_all_rows(one, other):
    together = count(array(one + other), EDGES)
    assert merge([count(array(one), EDGES), count(array(other), EDGES)]).counted.tolist() == together.counted.tolist()
    assert (together - count(array(other), EDGES)).counted.tolist() == count(array(one), EDGES).counted.tolist()


@given(words, words)
def test_merging_categories_equals_counting_all_rows(one, other):
    assert (count(one, NAMES) + count(other, NAMES)).counted.tolist() == count(one + other, NAMES).counted.tolist()


@given(numbers, st.randoms())
def test_the_order_of_rows_changes_nothing(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert count(array(shuffled), EDGES).counted.tolist() == count(array(values), EDGES).counted.tolist()


@given(numbers)
def test_a_null_row_changes_only_the_nulls(values):
    before, after = count(array(values), EDGES), count(array([*values, float("nan")]), EDGES)
    assert after.nulls == before.nulls + 1
    assert after.present.tolist() == before.present.tolist()


@given(numbers)
def test_counts_are_those_of_an_independent_count(values):
    cuts = EDGES.cuts
    inside = [v for v in values if cuts[0] <= v <= cuts[-1]]
    counted = count(array(values), EDGES)
    assert counted.inner.tolist() == np.histogram(inside, bins=cuts)[0].tolist()
    assert counted.below == sum(v < cuts[0] for v in values)
    assert counted.above == sum(v > cuts[-1] for v in values)
    assert counted.rows == len(values)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_nothing_that_edges_were_made_of_lies_outside_them(values):
    counted = count(array(values), edges_of(array(values)))
    assert counted.below == counted.above == counted.nulls == 0


def test_few_distinct_values_get_a_cell_each():
    values = array([0.0] * 90 + [1.0] * 5 + [7.0] * 5)
    assert count(values, edges_of(values)).inner.tolist() == [90, 5, 5]


def test_a_value_that_fills_quantiles_alone_gets_a_cell_of_its_own():
    values = np.concatenate([np.zeros(5000), np.random.default_rng(0).gamma(1.0, size=5000)])
    edges = edges_of(values)
    assert count(np.zeros(10), edges).inner.max() == 10
    assert count(array([1e-4] * 10), edges).inner[0] == 0


def test_edges_of_nothing_but_nulls_count_without_a_wrong_number():
    edges = edges_of(array([float("nan")] * 3))
    assert count(array([float("nan"), 5.0, -5.0]), edges).counted.tolist() == [1, 0, 1, 1]
    assert count([None, "x"], edges_of([None])).counted.tolist() == [0, 1, 1]


def test_wide_categories_keep_the_most_frequent_and_count_the_rest():
    names = [f"n{i}" for i in range(1000)] + ["often"] * 50
    edges = edges_of(names, most=10)
    assert edges.categories[0] == "often"
    assert count(names, edges).above == 991


def test_a_column_that_changed_its_type_is_refused():
    with pytest.raises(ValueError, match="text cannot be counted"):
        count(["a"], EDGES)
    with pytest.raises(ValueError, match="numbers cannot be counted"):
        count(array([1.0]), NAMES)


def test_different_edges_do_not_merge():
    with pytest.raises(ValueError, match="count both on the same edges"):
        merge([count(array([1.0]), EDGES), count([], NAMES)])
    with pytest.raises(ValueError, match="not part of this one"):
        Histogram(np.array([0, 1, 0, 0])) - Histogram(np.array([0, 2, 0, 0]))


def test_edges_survive_storage_and_are_named_by_content():
    for edges in (EDGES, NAMES):
        again = msgspec.json.decode(msgspec.json.encode(edges), type=Edges)
        assert again == edges
        assert again.digest == edges.digest
    assert EDGES.digest != NAMES.digest


def test_a_day_of_twenty_columns_is_counted_within_milliseconds():
    random = np.random.default_rng(0)
    day = random.normal(size=(20, 900))
    edges = edges_of(random.normal(size=20_000))
    took_s = min(_timed(lambda: [count(column, edges) for column in day]) for _ in range(5))
    assert took_s < 0.03  # about 0.001 alone on a core; ten times the stated 3 ms, for machines that are busy


def _timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
