import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import ndcg_score

from holdfast.checks.attribution import MOVED, SHARE, Attribution
from holdfast.core.evidence import Grade, Role, Window
from holdfast.errors import InvalidInput

ROLES = dict.fromkeys(("x", "y", "z"), Role.INPUT)


def a_day(seed, *, x=4.0, y=2.0, z=1.0, rows=150):
    random = np.random.default_rng(seed)
    return pl.DataFrame({name: random.normal(0, size, rows) for name, size in (("x", x), ("y", y), ("z", z))})


def linear(rows):
    return {name: rows[name].to_numpy() for name in rows.columns}


@pytest.fixture
def reference(window):
    return window([a_day(k) for k in range(20)], {"influence": linear}, roles=ROLES)


def measured(window, reference, *days, check=None):
    check = check or Attribution()
    return {r.subject: r for r in check.measure(window(days, reference.facts, first=30, roles=ROLES), reference)}


def test_the_same_model_on_the_same_rows_has_hardly_moved_and_on_others_has(window, reference):
    still = measured(window, reference, a_day(40))
    assert list(still) == ["all columns", "x", "y", "z"]
    assert still["all columns"].value < 0.05
    moved = measured(window, reference, a_day(40, x=0.5, z=8.0))
    assert moved["all columns"].value > 5 * still["all columns"].value
    assert moved["z"].value > 0.5
    assert "z is 7" in moved["z"].note
    assert "usually 14%; rank 1 instead of 3" in moved["z"].note


def test_the_distances_are_those_of_scipy_and_scikit_learn(window, reference):
    def shares(days):
        sizes = np.mean([np.abs(day.to_numpy()).mean(axis=0) for day in days], axis=0)
        return sizes / sizes.sum()

    moved = a_day(40, x=1.0, z=3.0)
    before, now = shares([block.rows() for block in reference.blocks]), shares([moved])
    found = measured(window, reference, moved)["all columns"].value
    assert found == pytest.approx(jensenshannon(before, now, base=2), abs=1e-4)
    ranked = measured(window, reference, moved, check=Attribution(distance="rank"))["all columns"].value
    assert ranked == pytest.approx(1 - ndcg_score([before], [now]))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100))
def test_the_order_of_rows_changes_nothing_although_only_some_are_explained(window, reference, seed):
    rows = a_day(50, rows=900)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=seed)
    one, other = (measured(window, reference, frame)["all columns"] for frame in (rows, shuffled))
    assert one.value == pytest.approx(other.value, rel=1e-9)
    assert one.rows == 200


def test_a_block_of_the_reference_is_compared_with_the_rest(window, reference):
    first = Window(reference.blocks[:1], ROLES, reference.facts)
    rest = Window(reference.blocks[1:], ROLES, reference.facts)
    assert Attribution().measure(first, reference) == Attribution().measure(first, rest)


def test_what_is_explained_is_remembered(window):
    asked = []

    def counting(rows):
        asked.append(rows.height)
        return linear(rows)

    before = window([a_day(k) for k in range(5)], {"influence": counting}, roles=ROLES)
    for k in range(3):
        measured(window, before, a_day(60 + k))
    assert len(asked) == 5 + 3


def test_a_column_whose_influence_cannot_be_told_has_none(window):
    def partly(rows):
        return {**linear(rows), "z": np.full(rows.height, np.nan)}

    before = window([a_day(k) for k in range(5)], {"influence": partly}, roles=ROLES)
    assert measured(window, before, a_day(9))["z"].value == 0.0


def test_it_is_unknown_where_nothing_can_be_shared_out(window, reference):
    few = measured(window, reference, a_day(1, rows=29))["all columns"]
    dead = measured(window, reference, a_day(1, x=0.0, y=0.0, z=0.0))["all columns"]
    alone = {r.subject: r for r in Attribution().measure(reference, reference)}["all columns"]
    for reading, why in ((few, "29 rows to explain"), (dead, "no column moves any answer"), (alone, "has 0 rows")):
        assert reading.value is None
        assert why in reading.note
        assert Attribution().grade(reading)[0] is Grade.UNKNOWN


def test_rows_that_the_model_refuses_are_unknown(window, reference):
    def refusing(rows):
        raise InvalidInput("x must be a number")

    facts = {"influence": refusing}
    [reading] = Attribution().measure(window([a_day(1)], facts, roles=ROLES), reference)
    assert reading.value is None
    assert "x must be a number" in reading.note


def test_only_a_model_that_rests_on_something_else_fails_uncalibrated(window, reference):
    check = Attribution()
    for frame, grade in ((a_day(1, x=2.0), Grade.PASS), (a_day(1, x=0.0, y=0.0, z=9.0), Grade.FAIL)):
        found = measured(window, reference, frame)
        assert {check.grade(r)[0] for r in found.values() if r.name == MOVED} == {grade}
    assert {r.name for r in found.values()} == {MOVED, SHARE}
