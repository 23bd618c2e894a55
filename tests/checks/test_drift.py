import time

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.checks.drift import STATED, Drift
from holdfast.core.evidence import Grade, Role
from holdfast.core.signature import Column, Signature
from holdfast.stats.histogram import edges_of

COLUMNS = ["temp", "wind", "carrier", "probability"]


def edges(rows):
    return {
        name: edges_of(rows[name].to_list() if rows[name].dtype == pl.String else rows[name].to_numpy())
        for name in COLUMNS
    }


@pytest.fixture
def reference(window, day):
    days = [day(k) for k in range(20)]
    return window(days, {"edges": edges(pl.concat(days))})


@pytest.fixture
def facts(reference):
    return reference.facts


def by_column(readings):
    return {reading.subject: reading for reading in readings}


@pytest.mark.parametrize("distance", list(STATED))
def test_a_moved_column_is_farther_than_it_was_and_the_others_are_not(window, day, reference, facts, distance):
    check = Drift(distance=distance)
    before = by_column(check.measure(window([day(30)], facts), reference))
    moved = day(30).with_columns(pl.col("wind") * 3, carrier=pl.lit("B6"))
    after = by_column(check.measure(window([moved], facts), reference))
    assert list(after) == COLUMNS
    assert after["wind"].value > 2 * before["wind"].value
    assert after["carrier"].value > 2 * before["carrier"].value
    assert after["temp"] == before["temp"]


def test_a_column_of_another_planet_fails_even_uncalibrated(window, day, reference, facts):
    kelvin = by_column(Drift().measure(window([day(30).with_columns(pl.col("temp") + 5000)], facts), reference))
    assert Drift().grade(kelvin["temp"])[0] is Grade.FAIL
    assert Drift().grade(kelvin["wind"])[0] is Grade.PASS
    assert "100.0% lie outside" in kelvin["temp"].note


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 299), seed=st.integers(0, 5))
def test_cutting_and_permuting_rows_changes_nothing(window, day, reference, facts, cut, seed):
    rows = day(40)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=seed)
    whole = Drift().measure(window([rows], facts), reference)
    assert Drift().measure(window([shuffled[:cut], shuffled[cut:]], facts), reference) == whole


def test_null_rows_change_no_distance(window, day, reference, facts):
    nulls = pl.DataFrame({name: [None] * 50 for name in COLUMNS}, schema=day().select(COLUMNS).schema)
    padded = pl.concat([day(3), nulls], how="diagonal_relaxed")
    before, after = (Drift().measure(window([rows], facts), reference) for rows in (day(3), padded))
    assert before == after


def test_a_block_of_the_reference_is_measured_against_the_rest(window, reference):
    first = reference.blocks[0]
    inside = type(reference)([first], reference.roles, reference.facts)
    rest = type(reference)(reference.blocks[1:], reference.roles, reference.facts)
    assert Drift().measure(inside, reference) == Drift().measure(inside, rest)


@pytest.mark.parametrize("rows", [0, 1, 29])
def test_too_few_rows_are_unknown(window, day, reference, facts, rows):
    readings = Drift().measure(window([day(3)[:rows]], facts), reference)
    assert [reading.value for reading in readings] == [None] * 4
    assert all(Drift().grade(reading)[0] is Grade.UNKNOWN for reading in readings)


def test_what_cannot_be_compared_is_unknown_and_says_why(window, day, reference, facts):
    odd = day(3).drop("wind").with_columns(pl.col("temp").cast(pl.String), carrier=pl.lit(None, dtype=pl.String))
    readings = by_column(Drift().measure(window([odd], facts), reference))
    assert "type of temp changed" in readings["temp"].note
    assert "0 values present" in readings["wind"].note
    assert "0 values present" in readings["carrier"].note
    assert [readings[name].value for name in ("temp", "wind", "carrier")] == [None] * 3
    assert readings["probability"].value is not None
    assert all(r.value is None for r in Drift().measure(window([day(3)], facts), None))
    assert "no edges" in Drift(columns=("nope",)).measure(window([day(3)], facts), reference)[0].note


def test_a_category_never_seen_counts_as_moved(window, day, reference, facts):
    renamed = day(3).with_columns(carrier=pl.lit("XX"))
    readings = by_column(Drift(distance="jensen_shannon").measure(window([renamed], facts), reference))
    assert readings["carrier"].value == pytest.approx(1.0)


def test_a_day_against_ninety_costs_milliseconds(window):
    random = np.random.default_rng(0)
    names = [f"x{k}" for k in range(20)]
    days = [pl.DataFrame({name: random.normal(size=900) for name in names}) for _ in range(10)]
    roles = dict.fromkeys(names, Role.INPUT)
    facts = {"edges": {name: edges_of(random.normal(size=20_000)) for name in names}}
    reference = window(days * 9, facts, roles=roles)
    check = Drift()
    check.measure(window(days[:1], facts, roles=roles), reference)
    start = time.perf_counter()
    for k in range(5):
        check.measure(window([days[k]], facts, roles=roles), reference)
    assert (time.perf_counter() - start) / 5 < 0.05  # about 0.002 alone on a core


def test_times_are_left_out_because_they_move_on_by_themselves(window, day, facts):
    signature = Signature(
        columns=(Column(name="temp", type="number"), Column(name="wind", type="time")),
        task="classification",
        output="probability",
    )
    known = {**facts, "signature": signature}
    reference = window([day(k) for k in range(20)], known)
    moved = window([day(30).with_columns(pl.col("wind") + 1e15)], known)
    assert list(by_column(Drift().measure(moved, reference))) == ["temp", "carrier", "probability"]
    [asked] = Drift(columns=("wind",)).measure(moved, reference)
    assert asked.value is None
    assert "wind is a time, which moves on by itself" in asked.note
