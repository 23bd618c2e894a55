import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from scipy.spatial.distance import jensenshannon

from holdfast.stats.distance import coarsen, jensen_shannon, ks, psi, total_variation
from holdfast.stats.histogram import count, edges_of

counts = st.lists(st.integers(0, 500), min_size=5, max_size=5).map(np.array).filter(lambda c: c.sum() > 0)


@given(counts, counts)
def test_jensen_shannon_is_scipys_distance_in_base_two(p, q):
    # scipy takes a root of a difference: equal shares come out as up to 1e-8 there.
    assert jensen_shannon(p, q) == pytest.approx(np.nan_to_num(jensenshannon(p, q, base=2)), abs=2e-8)


@given(counts, counts)
def test_psi_is_symmetric_finite_and_zero_only_for_equal_shares(p, q):
    assert psi(p, q) == pytest.approx(psi(q, p))
    assert 0 <= psi(p, q) < math.inf
    assert psi(p, p) == 0
    assert psi(p, 2 * p) == pytest.approx(0, abs=0.05)  # empty cells stand for half a row of either size


def test_psi_without_empty_cells_is_the_textbook_sum():
    p, q = np.array([120, 380, 300, 200]), np.array([200, 300, 250, 250])
    a, b = p / p.sum(), q / q.sum()
    by_hand = sum((x - y) * math.log(x / y) for x, y in zip(a, b, strict=True))
    assert psi(p, q) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3, 1.0])
def test_ks_from_counts_is_scipys_statistic_within_a_cells_mass(shift):
    random = np.random.default_rng(1)
    reference, current = random.normal(size=20_000), random.normal(shift, size=900)
    edges = edges_of(reference)
    p, q = count(reference, edges).present, count(current, edges).present
    exact = scipy_stats.ks_2samp(reference, current).statistic
    assert exact - max((p / p.sum()).max(), (q / q.sum()).max()) <= ks(p, q) <= exact + 1e-12
    assert ks(p, q) == pytest.approx(exact, abs=0.01)


def test_ks_of_few_distinct_values_is_exact():
    random = np.random.default_rng(2)
    reference, current = random.poisson(2, 5000).astype(float), random.poisson(2.3, 900).astype(float)
    edges = edges_of(reference)
    exact = scipy_stats.ks_2samp(reference, current).statistic
    assert ks(count(reference, edges).present, count(current, edges).present) == pytest.approx(exact, abs=1e-12)


@given(counts, counts, st.permutations(range(5)))
def test_total_variation_does_not_depend_on_the_order_of_categories(p, q, order):
    assert total_variation(p, q) == pytest.approx(total_variation(p[order], q[order]))
    assert ks(p, q) <= total_variation(p, q) + 1e-12


@pytest.mark.parametrize("distance", [psi, ks, jensen_shannon, total_variation])
def test_a_side_that_counted_nothing_is_undefined(distance):
    assert math.isnan(distance(np.zeros(3, dtype=int), np.array([1, 2, 3])))
    assert math.isnan(distance(np.array([1, 2, 3]), np.zeros(3, dtype=int)))


@given(st.lists(st.integers(0, 50), min_size=30, max_size=30), st.lists(st.integers(0, 50), min_size=30, max_size=30))
def test_coarser_cells_hold_the_same_rows_and_keep_the_outside_apart(p, q):
    reference, current = coarsen(np.array(p), np.array(q), cells=8)
    assert reference.sum() == sum(p)
    assert current.sum() == sum(q)
    assert (reference[0], reference[-1], current[0], current[-1]) == (p[0], p[-1], q[0], q[-1])
    if sum(p) and sum(q):
        assert jensen_shannon(reference, current) <= jensen_shannon(np.array(p), np.array(q)) + 1e-7
