import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from scipy.spatial.distance import jensenshannon

from holdfast.stats.distance import (
    chi_square,
    coarsen,
    hellinger,
    jensen_shannon,
    ks,
    ks_p_value,
    psi,
    total_variation,
    wasserstein,
)
from holdfast.stats.histogram import Edges, count, discrete_edges, edges_of

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


@pytest.mark.parametrize("distance", [psi, ks, jensen_shannon, total_variation, hellinger])
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


@given(counts, counts)
def test_hellinger_is_a_symmetric_distance_bounded_by_total_variation(p, q):
    apart, distance = total_variation(p, q), hellinger(p, q)
    assert distance == pytest.approx(hellinger(q, p))
    assert apart**2 / 2 - 1e-12 <= distance**2 <= apart + 1e-7
    assert hellinger(p, p) == pytest.approx(0, abs=1e-7)


def test_hellinger_of_two_coins_is_the_closed_form():
    by_hand = math.sqrt(1 - math.sqrt(0.3 * 0.6) - math.sqrt(0.7 * 0.4))
    assert hellinger(np.array([30, 70]), np.array([600, 400])) == pytest.approx(by_hand, rel=1e-12)


@given(counts, counts)
def test_wasserstein_of_few_distinct_values_is_scipys(p, q):
    places = np.array([-3.0, 0.0, 0.5, 10.0, 11.0])
    edges = discrete_edges(places)
    before, now = (np.concatenate([[0], side, [0]]) for side in (p, q))
    exact = scipy_stats.wasserstein_distance(places, places, p, q)
    assert wasserstein(before, now, edges) == pytest.approx(exact, abs=1e-12)


@given(counts, counts)
def test_wasserstein_of_values_even_within_cells_is_the_area_between_their_distributions(p, q):
    cuts = np.array([-3.0, 0.0, 0.5, 10.0, 11.0, 30.0])
    before, now = (np.concatenate([[0], side, [0]]) for side in (p, q))
    fine = np.linspace(-3, 30, 200_001)
    ends = [np.append(0, np.cumsum(side)) / side.sum() for side in (p, q)]
    gap = np.interp(fine, cuts, ends[0]) - np.interp(fine, cuts, ends[1])
    assert wasserstein(before, now, Edges(cuts=tuple(cuts))) == pytest.approx(np.abs(gap).mean() * 33, abs=1e-4)


@pytest.mark.parametrize("shift", [0.05, 0.3, 1.0])
def test_wasserstein_from_counts_is_scipys_within_one_percent(shift):
    random = np.random.default_rng(4)
    reference, current = random.normal(size=20_000), random.normal(shift, size=5_000)
    edges = edges_of(reference)
    p, q = count(reference, edges).present, count(current, edges).present
    inside = np.clip(current, reference.min(), reference.max())
    exact = scipy_stats.wasserstein_distance(reference, inside)
    assert wasserstein(p, q, edges) == pytest.approx(exact, rel=0.01)
    assert wasserstein(p, q, edges) <= scipy_stats.wasserstein_distance(reference, current) * 1.01


def test_wasserstein_needs_the_numeric_edges_of_the_counts():
    for edges in (Edges(categories=("a", "b", "c")), Edges(cuts=(0.0, 1.0))):
        with pytest.raises(ValueError, match="numeric edges that both sides were counted on"):
            wasserstein(np.ones(5, dtype=int), np.ones(5, dtype=int), edges)


@given(counts, counts)
def test_chi_square_is_scipys_test_of_homogeneity(p, q):
    found = chi_square(p, q)
    table = np.stack([p, q])[:, (p + q) > 0]
    if table.shape[1] < 2:
        assert (found.degrees, found.statistic) == (0, pytest.approx(0))
        assert math.isnan(found.p_value)
        return
    exact = scipy_stats.chi2_contingency(table, correction=False)
    assert found.degrees == exact.dof
    assert found.statistic == pytest.approx(exact.statistic, rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(exact.pvalue, rel=1e-9)
    assert found.thin == (exact.expected_freq < 5).mean()


@pytest.mark.parametrize(("rows", "within"), [(20, 1e-3), (500, 1e-4), (50_000, 1e-5)])
def test_ks_p_value_is_scipys_exact_one_within_what_it_says(rows, within):
    for statistic in np.linspace(0, 1, 201):
        exact = scipy_stats.kstwo.sf(statistic, rows)
        assert ks_p_value(float(statistic), 2 * rows, 2 * rows) == pytest.approx(exact, abs=within)


def test_ks_p_value_from_counts_errs_towards_no_difference():
    random = np.random.default_rng(5)
    reference, current = random.normal(size=4_000), random.normal(0.08, size=1_500)
    edges = edges_of(reference, quantiles=512, uniform=512)
    statistic = ks(count(reference, edges).present, count(current, edges).present)
    exact = scipy_stats.ks_2samp(reference, current, method="asymp")
    # Cells hide the last bit of the largest gap, so the p-value is a little larger, never smaller.
    assert 0.99 * exact.pvalue <= ks_p_value(statistic, 4_000, 1_500) <= exact.pvalue + 0.01


def test_what_is_no_statistic_has_no_p_value():
    assert math.isnan(ks_p_value(math.nan, 5, 5))
    assert math.isnan(ks_p_value(0.1, 0, 5))
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        ks_p_value(1.5, 5, 5)


@pytest.mark.parametrize("distance", [psi, ks, jensen_shannon, total_variation, hellinger, chi_square])
def test_what_are_no_counts_of_the_same_cells_is_refused(distance):
    with pytest.raises(ValueError, match="3 and 4 cells cannot be compared"):
        distance(np.ones(3, dtype=int), np.ones(4, dtype=int))
    with pytest.raises(ValueError, match="negative"):
        distance(np.array([2, -1, 3]), np.array([1, 2, 3]))


def test_a_chi_square_of_nothing_is_undefined():
    found = chi_square(np.zeros(3, dtype=int), np.array([1, 2, 3]))
    assert math.isnan(found.statistic)
    assert math.isnan(found.p_value)
    assert math.isnan(wasserstein(np.zeros(3, dtype=int), np.array([1, 2, 3]), Edges(cuts=(0.0, 1.0))))
