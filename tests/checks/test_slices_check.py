import polars as pl
import pytest

from holdfast.checks.slices import Slices
from holdfast.core.evidence import Grade, Role
from holdfast.core.signature import Column, Signature
from holdfast.errors import UnknownKind
from holdfast.flow import evaluation
from holdfast.tasks.classification import Classification

FACTS = {"task": Classification()}


@pytest.fixture
def reference(window, day):
    return window([day(k) for k in range(30)], FACTS)


def wrong_for(rows, inside):
    """Labels turned round where `inside` holds."""
    flipped = 1 - (pl.col("probability") > 0.3).cast(pl.Float64)
    return rows.with_columns(pl.when(inside).then(flipped).otherwise("label").alias("label"))


def test_the_segment_that_got_worse_is_named_with_its_cost(window, day, reference):
    hit = pl.col("carrier") == "UA"
    now = window([wrong_for(day(40 + k), hit) for k in range(7)], FACTS, first=40)
    readings = Slices().measure(now, reference)
    assert readings[0].subject == "carrier=UA"
    assert readings[0].low < readings[0].value < readings[0].high
    assert readings[0].rows == sum(block.rows().filter(hit).height for block in now.blocks)
    grade, why = Slices().grade(readings[0])
    assert grade is Grade.FAIL
    assert why.startswith("the loss rose by")
    assert "carrier=UA" in why


def test_two_columns_together_are_named(window, day, reference):
    hit = (pl.col("carrier") == "UA") & (pl.col("wind") > 10)
    now = window([wrong_for(day(40 + k), hit) for k in range(7)], FACTS, first=40)
    subject = Slices().measure(now, reference)[0].subject
    assert subject.startswith("wind >= ")
    assert subject.endswith(" & carrier=UA")


def test_days_like_those_before_pass_and_say_what_was_searched(window, day, reference):
    [reading] = Slices().measure(window([day(40 + k) for k in range(7)], FACTS, first=40), reference)
    assert (reading.value, reading.subject) == (0.0, "")
    assert "segments got worse" in reading.note
    assert Slices().grade(reading)[0] is Grade.PASS


def test_too_few_days_for_the_level_are_unknown(window, day):
    reference = window([day(k) for k in range(30)], FACTS)
    [reading] = Slices().measure(window([day(40)], FACTS, first=40), reference)
    assert reading.value is None
    assert "p = 0.032 at best, and the level is 0.01" in reading.note
    [reading] = Slices().measure(window([day(40)], FACTS, first=40), None)
    assert "the reference has no row" in reading.note
    assert Slices().grade(reading)[0] is Grade.UNKNOWN


@pytest.mark.parametrize("column", ["label", "probability"])
def test_rows_without_label_or_answer_are_unknown(window, day, reference, column):
    blank = [day(40 + k).with_columns(pl.lit(None, pl.Float64).alias(column)) for k in range(7)]
    [reading] = Slices().measure(window(blank, FACTS, first=40), reference)
    assert reading.value is None
    assert "the current window has no row with a loss" in reading.note


def test_a_column_whose_type_changed_is_said(window, day, reference):
    odd = [day(40 + k).with_columns(pl.col("temp").cast(pl.String)) for k in range(7)]
    [reading] = Slices().measure(window(odd, FACTS, first=40), reference)
    assert "the type of temp is not that of the reference" in reading.note


def test_a_column_that_vanished_is_missing_everywhere_and_stops_nothing(window, day, reference):
    hit = pl.col("carrier") == "UA"
    now = window([wrong_for(day(40 + k), hit).drop("temp") for k in range(7)], FACTS, first=40)
    assert Slices().measure(now, reference)[0].subject == "carrier=UA"


def test_times_and_columns_left_out_are_not_searched(window, day, reference):
    signature = Signature(
        columns=(Column(name="temp", type="time"), Column(name="wind", type="number")),
        task="classification",
        output="probability",
    )
    hit = pl.col("carrier") == "UA"
    now = window([wrong_for(day(40 + k), hit) for k in range(7)], {**FACTS, "signature": signature}, first=40)
    [reading] = Slices(columns=("temp", "wind")).measure(now, reference)
    assert reading.value == 0.0


def test_an_unknown_loss_names_the_near_miss(window, day, reference):
    with pytest.raises(UnknownKind, match="log_loss"):
        Slices(loss="logloss").measure(window([day(40)], FACTS, first=40), reference)


def test_without_labels_it_is_not_asked(window, day, reference):
    roles = {"temp": Role.INPUT, "probability": Role.OUTPUT}
    [reading] = evaluation.measure(Slices(), window([day(1)], FACTS, roles=roles), reference)
    assert "the window has no label" in reading.note
