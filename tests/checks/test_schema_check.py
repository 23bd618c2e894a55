import polars as pl
import pytest

from holdfast.checks.schema import Schema
from holdfast.core.evidence import Grade
from holdfast.core.signature import Column, Signature

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
