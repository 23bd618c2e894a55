import time

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.checks.drift import MISSING, RESIDUAL, STATED, STATED_MISSING, Drift
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
    return {reading.subject: reading for reading in readings if reading.name != MISSING}


def missing(readings):
    return {reading.subject: reading for reading in readings if reading.name == MISSING}


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


def test_null_rows_change_the_missing_share_and_nothing_else(window, day, reference, facts):
    nulls = pl.DataFrame({name: [None] * 50 for name in COLUMNS}, schema=day().select(COLUMNS).schema)
    padded = pl.concat([day(3), nulls], how="diagonal_relaxed")
    before, after = (Drift().measure(window([rows], facts), reference) for rows in (day(3), padded))
    assert by_column(before) == by_column(after)
    assert {name: reading.value for name, reading in missing(before).items()} == dict.fromkeys(COLUMNS[:3], 0.0)
    assert {name: reading.value for name, reading in missing(after).items()} == dict.fromkeys(COLUMNS[:3], 50 / 350)
    assert missing(after)["wind"].note == "14.3% of it are missing, usually 0.0%"


def test_a_missing_share_is_compared_both_ways_and_fails_by_itself_only_where_most_is_missing(window, day, facts):
    half = [day(k).with_columns(wind=pl.when(pl.int_range(pl.len()) % 2 == 0).then("wind")) for k in range(20)]
    reference = window(half, facts)
    full = missing(Drift().measure(window([day(30)], facts), reference))["wind"]
    assert full.value == pytest.approx(0.5)
    gone = day(30).drop("wind")
    dead = missing(Drift().measure(window([gone], facts), window([day(k) for k in range(20)], facts)))["wind"]
    assert (dead.value, Drift().grade(dead)[0], Drift().grade(full)[0]) == (1.0, Grade.FAIL, Grade.PASS)
    assert STATED_MISSING == 0.5


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
    start = time.process_time()
    for k in range(5):
        check.measure(window([days[k]], facts, roles=roles), reference)
    assert (time.process_time() - start) / 5 < 0.05  # about 0.002 alone on a core


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


def with_label(window, days, *, first=0, complete=30, **changes):
    """Days whose labels are complete up to day `complete`, edges for the label among the facts."""
    rows = pl.concat(days)
    label = rows["label"].to_list() if rows["label"].dtype == pl.String else rows["label"].to_numpy()
    until = window([rows], first=complete).blocks[0].start
    return window(
        days, {"edges": {**edges(rows), "label": edges_of(label)}, "mature_until": until, **changes}, first=first
    )


@pytest.mark.parametrize("kind", ["classes", "numbers", "names"])
def test_labels_that_moved_are_seen_when_asked_for(window, day, kind):
    def labels(k, shift=0.0):
        random = np.random.default_rng(k)
        share = random.random(300) < 0.2 + shift
        if kind == "names":
            return day(k).with_columns(label=pl.Series(np.where(share, "late", "on time")))
        return day(k).with_columns(
            label=pl.Series(random.normal(shift * 9, 3, 300) if kind == "numbers" else share * 1.0)
        )

    reference = with_label(window, [labels(k) for k in range(20)])
    check = Drift(columns=("label",))
    [still] = check.measure(window([labels(25)], reference.facts, first=25), reference)
    [moved] = check.measure(window([labels(25, 0.3)], reference.facts, first=25), reference)
    assert (still.subject, moved.subject) == ("label", "label")
    assert moved.value > 5 * still.value
    assert "label" not in by_column(Drift().measure(window([labels(25)], reference.facts), reference))


def test_only_days_with_complete_labels_count_for_the_label(window, day):
    reference = with_label(window, [day(k) for k in range(20)], complete=25)
    strange = day(25).with_columns(label=pl.lit(1.0))
    check = Drift(columns=("temp", "label"))
    both = check.measure(window([day(24), strange], reference.facts, first=24), reference)
    alone = check.measure(window([day(24)], reference.facts, first=24), reference)
    assert by_column(both)["label"] == by_column(alone)["label"]
    assert by_column(both)["temp"].rows == 600
    none = by_column(check.measure(window([strange], reference.facts, first=25), reference))["label"]
    assert none.value is None
    assert "on no day of the window are labels complete" in none.note


def test_without_knowing_which_labels_are_complete_or_what_they_were_the_label_is_unknown(
    window, day, reference, facts
):
    [uncounted] = Drift(columns=("label",)).measure(window([day(1)], facts, first=25), reference)
    known = with_label(window, [day(k) for k in range(20)])
    unsaid = {name: fact for name, fact in known.facts.items() if name != "mature_until"}
    [unknown] = Drift(columns=("label",)).measure(window([day(1)], unsaid, first=25), known)
    for reading, why in ((uncounted, "no edges"), (unknown, "up to when labels are complete")):
        assert reading.value is None
        assert why in reading.note


INPUTS = dict.fromkeys(("temp", "dew", "wind"), Role.INPUT)


def residual(readings):
    return {reading.subject: reading for reading in readings if reading.name == RESIDUAL}


@pytest.fixture
def hand_in_hand(window):
    """40 days of three numbers of which two follow the day, and what makes more of them."""

    def make(k, **moved):
        random = np.random.default_rng(k)
        level = random.normal() * 5
        temp, dew = (level + random.normal(size=60) for _ in "ab")
        rows = pl.DataFrame({"temp": temp, "dew": dew, "wind": random.normal(size=60)})
        return rows.with_columns(pl.col(name) + by for name, by in moved.items())

    days = [make(k) for k in range(40)]
    facts = {"edges": {name: edges_of(pl.concat(days)[name].to_numpy()) for name in ("temp", "dew", "wind")}}
    return make, facts, window(days, facts, roles=INPUTS)


def test_a_number_that_leaves_those_it_goes_with_is_told_though_its_values_are_usual(window, hand_in_hand):
    make, facts, reference = hand_in_hand
    usual, moved = (
        residual(Drift().measure(window([make(50, temp=by)], facts, roles=INPUTS, first=50), reference))
        for by in (0.0, 3.0)
    )
    assert list(usual) == ["temp", "dew", "wind"]
    assert moved["temp"].value > 3 * max(reading.value for reading in usual.values())
    assert moved["temp"].value > moved["dew"].value > moved["wind"].value
    assert "the other columns lead to expect" in moved["temp"].note
    assert 0 <= moved["temp"].value <= 1
    assert Drift().grade(moved["temp"])[0] is Grade.PASS


def test_missing_values_and_too_short_a_reference_are_no_residual(window, hand_in_hand):
    make, facts, reference = hand_in_hand
    gone = make(50).with_columns(pl.lit(None, pl.Float64).alias("temp"))
    found = residual(Drift().measure(window([gone], facts, roles=INPUTS, first=50), reference))
    assert list(found) == ["dew", "wind"]
    short = window([make(k) for k in range(29)], facts, roles=INPUTS)
    assert not residual(Drift().measure(window([make(50)], facts, roles=INPUTS, first=50), short))


def test_the_windows_own_days_are_left_out_of_what_is_expected(window, hand_in_hand):
    _, facts, reference = hand_in_hand
    own = type(reference)(reference.blocks[3:5], reference.roles, facts)
    rest = type(reference)([b for b in reference.blocks if b not in own.blocks], reference.roles, facts)
    inside, outside = (residual(Drift().measure(own, base)) for base in (reference, rest))
    for name in inside:
        assert inside[name].value == pytest.approx(outside[name].value, abs=0.02)  # ranks are of all days
