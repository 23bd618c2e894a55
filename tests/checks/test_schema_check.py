from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.checks.schema import Schema
from holdfast.core.evidence import Block, Grade, Role, Window
from holdfast.core.signature import Column, Signature
from holdfast.stats.counting import count_rows
from holdfast.stats.histogram import Edges, edges_of

FACTS = {
    "signature": Signature(
        columns=(
            Column(name="temp", type="number", low=0.0, high=110.0),
            Column(name="wind", type="number", low=0.0, high=1000.0, nullable=False),
            Column(name="carrier", type="category", categories=("AA", "B6", "UA")),
        ),
        task="classification",
        output="probability",
    )
}


def graded(window, frames):
    readings = Schema().measure(window(frames, FACTS))
    return {r.subject: (r.name, r.value, Schema().grade(r)[0]) for r in readings}


def test_rows_as_training_had_them_pass(window, day):
    found = graded(window, [day(0), day(1)])
    assert {grade for _, _, grade in found.values()} == {Grade.PASS}
    assert found["temp"] == ("outside", 0.0, Grade.PASS)


def test_a_hot_july_is_a_warning_and_not_a_failure(window, day):
    assert graded(window, [day().with_columns(pl.col("temp") + 200)])["temp"] == ("outside", 1.0, Grade.WARN)


def test_renamed_categories_fail_and_a_new_one_does_not(window, day):
    renamed = day().with_columns(pl.col("carrier").str.to_lowercase())
    assert graded(window, [renamed])["carrier"] == ("outside", 1.0, Grade.FAIL)
    one_new = day().with_columns(carrier=pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("XX")).otherwise("carrier"))
    name, share, grade = graded(window, [one_new])["carrier"]
    assert (name, share, grade) == ("outside", pytest.approx(0.01), Grade.PASS)


def test_a_column_that_vanished_or_changed_its_type_fails(window, day):
    odd = day().drop("wind").with_columns(pl.col("temp").cast(pl.String), carrier=pl.lit(7))
    found = graded(window, [odd])
    assert {found[name] for name in ("temp", "wind", "carrier")} == {("wrong_type", 1.0, Grade.FAIL)}
    assert found[""][1] == 1.0


def test_a_null_where_none_was_allowed_fails(window, day):
    holed = day().with_columns(wind=pl.when(pl.int_range(pl.len()) < 30).then(None).otherwise("wind"))
    assert graded(window, [holed])["wind"] == ("nulls", pytest.approx(0.1), Grade.FAIL)
    temp_holed = day().with_columns(temp=pl.when(pl.int_range(pl.len()) < 30).then(None).otherwise("temp"))
    assert graded(window, [temp_holed])["temp"][2] is Grade.PASS


@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_any_rows_are_unknown(window, day, rows):
    grades = {subject: grade for subject, (_, _, grade) in graded(window, [day()[:rows]]).items()}
    assert grades.pop("", Grade.UNKNOWN) in (Grade.UNKNOWN, Grade.PASS)
    assert set(grades.values()) <= {Grade.UNKNOWN}


def test_a_column_that_is_all_null_is_unknown(window, day):
    assert graded(window, [day().with_columns(temp=pl.lit(None, dtype=pl.Float64))])["temp"][1] is None
    assert graded(window, [day().with_columns(temp=pl.lit(None))])["temp"][1] is None


def test_blocks_together_count_as_all_their_rows(window, day):
    mixed = [day(0).with_columns(pl.col("temp") + 200), day(1)[:100]]
    assert graded(window, mixed) == graded(window, [pl.concat(mixed)])
    assert graded(window, mixed)[""][1] == pytest.approx(0.75)


def test_a_time_may_lie_anywhere_but_must_be_one(window, day):
    facts = {"signature": Signature(columns=(Column(name="temp", type="time"),), task="regression", output="value")}
    for frame, found in (
        (day().with_columns(temp=pl.lit(1e18)), ("outside", Grade.PASS)),
        (day().with_columns(temp=pl.lit("2013-01-05T10:00:00Z")), ("wrong_type", Grade.FAIL)),
    ):
        _, reading = Schema().measure(window([frame], facts))
        assert (reading.name, Schema().grade(reading)[0]) == found


BOUNDS = st.sampled_from([None, 0.0, 1.0, 2.0, 3.0])
NUMBERS = st.sampled_from([None, np.nan, -np.inf, np.inf, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5])
TEXTS = st.sampled_from([None, "a", "b", "c", "d"])
CUTS = st.sets(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0]), min_size=2).map(lambda cuts: tuple(sorted(cuts)))
NUMBER_EDGES = st.one_of(
    st.builds(lambda cuts: Edges(cuts=cuts), CUTS),
    st.builds(lambda values: edges_of(np.array(sorted(values))), st.sets(st.sampled_from([0.0, 1.0, 2.0, 3.0]))),
    st.just(Edges()),
)
CATEGORIES = st.lists(st.sampled_from("abcd"), unique=True).map(tuple)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, TEXTS), max_size=40)


def counted_window(frames, facts, *, is_read=None):
    """The window of these frames whose blocks have counts too; without `is_read` their rows must not be read."""

    def block(k, frame):
        def rows():
            if is_read is None:
                raise AssertionError("the rows were read")
            is_read.append(k)
            return frame

        def counts(edges):
            return {name: each.counted for name, each in count_rows(frame, edges).histograms.items()}

        start = datetime(2013, 4, 1 + k, tzinfo=UTC)
        return Block(start.date(), start, start + timedelta(days=1), rows, counts)

    roles = {"x": Role.INPUT, "y": Role.INPUT, "c": Role.INPUT}
    return Window([block(k, frame) for k, frame in enumerate(frames)], roles, facts)


def rows_of(values, *, y="y"):
    x, other, c = zip(*values, strict=True) if values else ((), (), ())
    kinds = {"x": pl.Float64, y: pl.Float64, "c": pl.String}
    return pl.DataFrame({"x": list(x), y: list(other), "c": list(c)}, schema=kinds)


@settings(max_examples=300, deadline=None)
@given(
    days=st.lists(ROWS, min_size=1, max_size=3),
    ends=st.tuples(BOUNDS, BOUNDS, BOUNDS, BOUNDS),
    known=CATEGORIES,
    counted=CATEGORIES,
    cuts=st.tuples(NUMBER_EDGES, NUMBER_EDGES),
    nullable=st.booleans(),
    here=st.sampled_from(["y", "gone"]),
)
def test_counts_tell_what_the_rows_tell_or_leave_it_to_them(days, ends, known, counted, cuts, nullable, here):
    signature = Signature(
        columns=(
            Column(name="x", type="number", low=ends[0], high=ends[1], nullable=nullable),
            Column(name="y", type="integer", low=ends[2], high=ends[3]),
            Column(name="c", type="category", categories=known),
        ),
        task="classification",
        output="probability",
    )
    frames = [rows_of(values, y=here) for values in days]
    edges = {"x": cuts[0], "y": cuts[1], "c": Edges(categories=counted)}
    by_counts = Schema().measure(counted_window(frames, {"signature": signature, "edges": edges}, is_read=[]))
    assert by_counts == Schema().measure(counted_window(frames, {"signature": signature}, is_read=[]))


def test_rows_are_not_read_where_counts_tell_it():
    columns = (
        Column(name="x", type="number", low=0.0, high=3.0, nullable=False),
        Column(name="y", type="integer", low=0.0, high=3.0),
        Column(name="c", type="category", categories=("a", "b")),
    )
    edges = {name: edges_of(np.array([0.0, 1.0, 2.0, 3.0])) for name in "xy"} | {"c": Edges(categories=("b", "a"))}
    facts = {"signature": Signature(columns=columns, task="classification", output="probability"), "edges": edges}
    plain, odd = [(1.0, 3.0, "a")] * 40, [(None, 1.0, "b"), (2.0, 9.0, "a")]
    found = Schema().measure(counted_window([rows_of(plain), rows_of(plain + odd)], facts))
    assert [(r.name, r.subject, r.value) for r in found] == [
        ("rows_outside", "", 1 / 82),
        ("nulls", "x", 1 / 82),
        ("outside", "y", 1 / 82),
        ("outside", "c", 0.0),
    ]
    read = []
    Schema().measure(counted_window([rows_of(plain), rows_of([*plain, (-1.0, 9.0, "a")])], facts, is_read=read))
    assert set(read) == {1}  # which rows have two values outside no count of a column tells
