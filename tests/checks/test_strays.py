"""Values outside what training saw: from counts as from the values, or not at all."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.checks.strays import strays
from holdfast.core.signature import Column
from holdfast.stats.histogram import Edges, count, edges_of

NUMBERS = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, math.inf, math.nan])
CUTS = st.sets(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0]), min_size=2).map(lambda cuts: tuple(sorted(cuts)))
DISCRETE = st.sets(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=1).map(lambda seen: edges_of(np.array(sorted(seen))))
BOUNDS = st.sampled_from([None, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
CATEGORIES = st.lists(st.sampled_from("abcd"), unique=True).map(tuple)


@settings(max_examples=500)
@given(
    values=st.lists(NUMBERS, max_size=6),
    edges=st.one_of(CUTS.map(lambda cuts: Edges(cuts=cuts)), DISCRETE),
    low=BOUNDS,
    high=BOUNDS,
)
def test_numbers_outside_are_counted_or_not_told(values, edges, low, high):
    column = Column(name="x", type="number", low=low, high=high)
    told = strays(column, edges, count(np.array(values), edges).counted)
    outside = sum((low is not None and x < low) or (high is not None and x > high) for x in values)
    assert told in (None, outside)


@settings(max_examples=300)
@given(values=st.lists(st.sampled_from([None, *"abcde"]), max_size=6), counted=CATEGORIES, known=CATEGORIES)
def test_texts_outside_are_counted_or_not_told(values, counted, known):
    edges = Edges(categories=counted)
    told = strays(Column(name="c", type="category", categories=known), edges, count(values, edges).counted)
    assert told in (None, sum(x is not None and x not in known for x in values) if known else 0)


@pytest.mark.parametrize(
    ("values", "low", "high", "told"),
    [
        ([0.0, 1.0, 2.0], 0.0, 2.0, 0),
        ([-0.5, 2.5], 0.0, 2.0, 2),
        ([-0.5], -1.0, 2.0, None),
        ([0.5], 0.5, 2.0, None),
        ([0.5], 1.0, 2.0, 1),
        ([9.0], None, None, 0),
        ([math.nan], 0.0, 2.0, None),
        ([], 0.0, 2.0, 0),
    ],
)
def test_a_cell_on_a_bound_that_is_not_empty_tells_nothing(values, low, high, told):
    edges = Edges(cuts=(0.0, 1.0, 2.0))
    counted = count(np.array(values, dtype=np.float64), edges).counted
    assert strays(Column(name="x", type="number", low=low, high=high), edges, counted) == told


def test_the_largest_of_few_numbers_is_not_outside():
    hours = edges_of(np.arange(24.0))
    counted = count(np.array([0.0, 23.0, 24.0]), hours).counted
    assert strays(Column(name="hour", type="integer", low=0, high=23), hours, counted) == 1
    assert strays(Column(name="hour", type="integer", low=0, high=22), hours, counted) == 2


@pytest.mark.parametrize(("known", "told"), [(("a", "b"), 1), (("b",), 2), (("a", "b", "c"), None), ((), 0)])
def test_what_fell_into_no_cell_is_outside_only_where_every_category_has_a_cell(known, told):
    edges = Edges(categories=("a", "b"))
    counted = count(["a", "b", "z"], edges).counted
    assert strays(Column(name="c", type="category", categories=known), edges, counted) == told


def test_counts_of_another_kind_tell_nothing():
    cuts, texts = Edges(cuts=(0.0, 1.0)), Edges(categories=("a",))
    assert strays(Column(name="c", type="category"), cuts, np.array([0, 1, 0, 0])) is None
    assert strays(Column(name="x", type="number"), texts, np.array([0, 1, 0, 0])) is None
    assert strays(Column(name="x", type="number"), Edges(), np.array([0, 1, 0])) is None
