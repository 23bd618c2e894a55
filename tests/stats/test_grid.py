import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.stats.grid import BLOCK, FEW, grid_of

floats = st.floats(allow_nan=False, allow_infinity=False)
several = st.lists(floats, min_size=2, max_size=40, unique=True).map(lambda cuts: np.unique(np.array(cuts)))
BIG = float(np.finfo(float).max)


def searched(cuts: np.ndarray, values: np.ndarray) -> list[int]:
    """The same counts by a binary search for every number."""
    present = values[~np.isnan(values)]
    cell = np.searchsorted(cuts, present, side="right")
    cell[present == cuts[-1]] = cuts.size - 1
    return np.bincount(cell, minlength=cuts.size + 1).tolist()


def around(cuts: np.ndarray) -> np.ndarray:
    """Each cut and the floats next to it, where a look-up would be wrong first; and what lies far outside."""
    ends = np.array([-np.inf, np.inf, np.nan, -np.nan, 0.0, -0.0, BIG, -BIG, 5e-324])
    with np.errstate(over="ignore"):
        return np.concatenate([cuts, np.nextafter(cuts, np.inf), np.nextafter(cuts, -np.inf), ends])


def check(cuts: np.ndarray, values: np.ndarray) -> None:
    values = np.tile(values, FEW // values.size + 1)
    cells, nans = grid_of(cuts).count(values)
    assert cells.tolist() == searched(cuts, values)
    assert nans == np.isnan(values).sum()


@given(several.filter(lambda cuts: cuts.size > 1))
@example(np.array([0.0, 5e-324]))
@example(np.array([-BIG, BIG]))
@example(np.array([1.0, BIG]))
@example(np.array([1.0, np.nextafter(1.0, 2.0)]))
@example(np.array([-1e300, -1.0, 0.0, 1e-300, 1.0, 1e300]))
def test_the_floats_at_every_cut_fall_where_a_search_puts_them(cuts):
    check(cuts, around(cuts))


@given(several.filter(lambda cuts: cuts.size > 1), hnp.arrays(np.float64, st.integers(1, 200)))
def test_any_floats_fall_where_a_search_puts_them(cuts, values):
    check(cuts, values)


SHAPES = {
    "even": lambda random, n: random.random(n),
    "bell": lambda random, n: random.normal(size=n),
    "skewed": lambda random, n: random.lognormal(size=n),
    "one heavy tail": lambda random, n: random.pareto(0.5, n),
    "two heavy tails": lambda random, n: random.standard_cauchy(n),
    "two scales": lambda random, n: np.concatenate([random.normal(0, 1e-3, n // 2), random.normal(1e3, 1, n // 2)]),
    "far from zero": lambda random, n: 1e15 + random.normal(size=n),
}


@pytest.mark.parametrize("uniform", [0, 64, 512])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_of_data_makes_a_difference(shape, uniform):
    values = SHAPES[shape](np.random.default_rng(0), 2 * BLOCK + 17)
    parts = [np.quantile(values, np.linspace(0, 1, 65)), np.linspace(values.min(), values.max(), uniform + 2)]
    cuts = np.unique(np.concatenate(parts))
    check(cuts, values)
    check(cuts, around(cuts))


def test_missing_numbers_in_every_block_are_counted_apart():
    values = np.random.default_rng(0).normal(size=3 * BLOCK)
    values[:: BLOCK // 2] = np.nan
    cells, nans = grid_of(np.array([-1.0, 0.0, 1.0])).count(values)
    assert (nans, int(cells.sum())) == (6, 3 * BLOCK - 6)
