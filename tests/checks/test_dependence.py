import numpy as np
import polars as pl
import pytest

from holdfast.checks.dependence import NAME, STATED, Dependence
from holdfast.checks.drift import Drift
from holdfast.core.evidence import Grade
from holdfast.stats.histogram import edges_of

COLUMNS = ["temp", "wind", "carrier"]


def linked(day, seed):
    """A day on which `wind` follows `temp`, and the carrier the wind a little."""
    rows, random = day(seed), np.random.default_rng(seed)
    wind = (rows["temp"] - rows["temp"].mean()) + random.normal(0, 2, rows.height)
    carrier = np.where(wind + random.normal(0, 5, rows.height) > 3, "UA", rows["carrier"].to_numpy())
    return rows.with_columns(pl.Series("wind", wind), pl.Series("carrier", carrier))


@pytest.fixture
def facts(day):
    rows = pl.concat([linked(day, k) for k in range(20)])
    return {
        "edges": {
            name: edges_of(rows[name].to_list() if rows[name].dtype == pl.String else rows[name].to_numpy())
            for name in COLUMNS
        }
    }


@pytest.fixture
def reference(window, day, facts):
    return window([linked(day, k) for k in range(20)], facts)


def shuffled(rows, column, seed=0):
    return rows.with_columns(rows[column].sample(fraction=1.0, shuffle=True, seed=seed).alias(column))


def by_column(readings):
    return {reading.subject: reading for reading in readings}


def test_shuffled_values_are_seen_where_no_distance_sees_them(window, day, reference, facts):
    good = [linked(day, 40 + k) for k in range(5)]
    bad = [shuffled(rows, "wind") for rows in good]
    before, after = (Dependence().measure(window(days, facts, first=40), reference) for days in (good, bad))
    assert by_column(before)["wind"].value < 5
    assert by_column(after)["wind"].value > STATED
    assert Dependence().grade(by_column(after)["wind"])[0] is Grade.FAIL
    assert "rank correlation with temp went from 0.9" in by_column(after)["wind"].note
    drift = [Drift(columns=("wind",)).measure(window(days, facts, first=40), reference) for days in (good, bad)]
    assert drift[0] == drift[1]


def test_a_category_takes_part(window, day, reference, facts):
    bad = [shuffled(linked(day, 40 + k), "carrier") for k in range(5)]
    moved = by_column(Dependence().measure(window(bad, facts, first=40), reference))
    assert moved["carrier"].value > 5
    assert "went from" in moved["carrier"].note


def test_a_unit_change_is_no_change_of_dependence(window, day, reference, facts):
    good = [linked(day, 40 + k) for k in range(3)]
    celsius = [rows.with_columns((pl.col("temp") - 32) / 1.8) for rows in good]
    one, other = (by_column(Dependence().measure(window(days, facts, first=40), reference)) for days in (good, celsius))
    assert one["wind"].value == pytest.approx(other["wind"].value)


def test_a_block_of_the_reference_is_measured_against_the_rest(window, reference):
    inside = type(reference)(reference.blocks[:1], reference.roles, reference.facts)
    rest = type(reference)(reference.blocks[1:], reference.roles, reference.facts)
    assert Dependence().measure(inside, reference) == Dependence().measure(inside, rest)


def test_what_cannot_be_compared_is_unknown_and_says_why(window, day, reference, facts):
    dead = [linked(day, 40).with_columns(pl.lit(3.0).alias("temp"))]
    readings = by_column(Dependence().measure(window(dead, facts, first=40), reference))
    assert readings["temp"].value is None
    assert "does not vary" in readings["temp"].note
    assert readings["wind"].value is not None
    text = [linked(day, 40).with_columns(pl.col("temp").cast(pl.String))]
    assert by_column(Dependence().measure(window(text, facts, first=40), reference))["temp"].value is None


@pytest.mark.parametrize("rows", [0, 1, 19])
def test_too_few_rows_or_days_are_unknown(window, day, reference, facts, rows):
    readings = Dependence().measure(window([linked(day, 40)[:rows]], facts, first=40), reference)
    assert [(r.name, r.subject, r.value) for r in readings] == [(NAME, name, None) for name in COLUMNS]
    assert "no day of the window has 20 rows" in readings[0].note
    assert Dependence().grade(readings[0])[0] is Grade.UNKNOWN
    short = type(reference)(reference.blocks[:9], reference.roles, facts)
    readings = Dependence().measure(window([linked(day, 40)], facts, first=40), short)
    assert "9 days of reference with 20 rows, 10 are needed" in readings[0].note
    assert Dependence().measure(window([linked(day, 40)], facts, first=40), None)[0].value is None


def test_a_column_without_edges_or_company_is_unknown(window, day, reference, facts):
    now = window([linked(day, 40)], facts, first=40)
    assert "no edges" in by_column(Dependence(columns=("temp", "wind", "nope")).measure(now, reference))["nope"].note
    assert "a column alone" in Dependence(columns=("temp",)).measure(now, reference)[0].note
