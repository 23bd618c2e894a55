"""The same values give the same rows, whichever way they come; what does not fit is named."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import inputs
from holdfast.core.inputs import read_columns, read_frame, read_json
from holdfast.core.signature import Column, Rows, Signature
from holdfast.errors import InvalidInput

SIGNATURE = Signature(
    columns=(
        Column(name="temp", type="number", low=-10, high=40),
        Column(name="hour", type="integer", low=0, high=23, outside="missing"),
        Column(name="carrier", type="category", categories=("AA", "B6", "UA")),
        Column(name="origin", type="category", categories=("EWR", "JFK"), outside="missing"),
        Column(name="late", type="boolean"),
    ),
    task="classification",
    output="probability",
)
ROW = {"temp": 5.5, "hour": 7, "carrier": "AA", "origin": "JFK", "late": True}


def signature(**column: Any) -> Signature:
    return Signature(columns=(Column(name="a", **column),), task="classification", output="probability")


def same(left: Rows, right: Rows) -> bool:
    numbers = [c.name for c in SIGNATURE.columns if c.type != "category"]
    texts = [c.name for c in SIGNATURE.columns if c.type == "category"]
    return (
        left.count == right.count
        and left.outside.tolist() == right.outside.tolist()
        and all(np.array_equal(left.columns[n], right.columns[n], equal_nan=True) for n in numbers)
        and all(left.columns[n] == right.columns[n] for n in texts)
    )


def outcome(read: Any, *args: Any) -> Any:
    try:
        return read(*args)
    except InvalidInput as error:
        return (str(error), error.row, error.column, error.expected)


good_rows = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "temp": st.none() | st.floats(-50, 50),
            "hour": st.none() | st.integers(-5, 30),
            "carrier": st.none() | st.sampled_from(["AA", "B6", "UA", "ZZ"]),
            "origin": st.none() | st.sampled_from(["EWR", "JFK", "LGA"]),
            "late": st.none() | st.booleans(),
        },
    ),
    max_size=20,
)
any_value = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 30), st.floats(), st.text(max_size=2), st.lists(st.none(), max_size=1)
)
any_rows = st.lists(st.fixed_dictionaries(dict.fromkeys(ROW, any_value)), min_size=1, max_size=4)


@given(good_rows)
def test_json_columns_and_frames_give_the_same_rows(rows: list[dict[str, Any]]) -> None:
    read = read_json(SIGNATURE, rows)
    by_column = {name: [row.get(name) for row in rows] for name in ROW}
    types = {"temp": pl.Float64, "hour": pl.Int64, "carrier": pl.String, "origin": pl.String, "late": pl.Boolean}
    assert same(read, read_columns(SIGNATURE, by_column))
    assert same(read, read_frame(SIGNATURE, pl.DataFrame(by_column, schema=types)))


@given(good_rows)
def test_what_was_recorded_reads_as_what_was_sent(rows: list[dict[str, Any]]) -> None:
    read = read_json(SIGNATURE, rows)
    again = read_frame(SIGNATURE, pl.DataFrame(read.columns, strict=False))
    for name, values in read.columns.items():
        assert np.array_equal(
            np.array(values), np.array(again.columns[name]), equal_nan=name in ("temp", "hour", "late")
        )


@given(any_rows)
def test_reading_by_value_and_by_column_agree_on_answers_and_on_errors(rows: list[dict[str, Any]]) -> None:
    reader = inputs.reader_of(SIGNATURE)
    by_value = outcome(reader.by_value, {name: [row[name] for row in rows] for name in ROW}, len(rows))
    by_column = outcome(reader.columns, {name: [row[name] for row in rows] for name in ROW}, len(rows))
    assert by_value == by_column if isinstance(by_value, tuple) else same(by_value, by_column)


def test_a_row_becomes_columns() -> None:
    rows = read_json(SIGNATURE, [ROW])
    assert rows.count == 1
    assert rows.columns["temp"].tolist() == [5.5]
    assert rows.columns["hour"].dtype == np.float64
    assert rows.columns["carrier"] == ["AA"]
    assert rows.columns["late"].tolist() == [1.0]
    assert rows.outside.tolist() == [0]


def test_whole_numbers_that_a_float_holds_exactly_are_taken_however_large() -> None:
    for value in (2**53, -(2**53), 2**60, 1e20):
        assert read_json(signature(type="integer"), [{"a": value}]).columns["a"].tolist() == [float(value)]
        assert read_columns(signature(type="integer"), {"a": [value]}).columns["a"].tolist() == [float(value)]


def test_absent_nullable_columns_are_missing() -> None:
    rows = read_json(SIGNATURE, [{}])
    assert math.isnan(rows.columns["temp"][0])
    assert rows.columns["carrier"] == [None]


def test_values_outside_are_counted_per_row_and_set_missing_where_the_column_says_so() -> None:
    rows = read_json(SIGNATURE, [ROW, ROW | {"temp": 99, "hour": 25, "carrier": "ZZ", "origin": "LGA"}])
    assert rows.outside.tolist() == [0, 4]
    assert rows.columns["temp"][1] == 99
    assert rows.columns["carrier"][1] == "ZZ"
    assert math.isnan(rows.columns["hour"][1])
    assert rows.columns["origin"][1] is None


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ({"type": "number"}, "1.5", "'1.5' is not a number; expected a number or null"),
        ({"type": "number"}, True, "True is not a number"),
        ({"type": "number"}, math.nan, "send null for a missing value"),
        ({"type": "number"}, math.inf, "inf is not a finite number"),
        ({"type": "number"}, 10**400, "is not a finite number"),
        ({"type": "number", "nullable": False}, None, "is missing; expected a number"),
        ({"type": "number", "low": 0, "high": 1, "outside": "refuse"}, 2, "expected a number from 0 to 1 or null"),
        ({"type": "number", "low": 0, "outside": "refuse"}, -1, "a number of at least 0"),
        ({"type": "number", "high": 0, "outside": "refuse"}, 1, "a number of at most 0"),
        ({"type": "integer"}, 1.5, "1.5 is not a whole number"),
        ({"type": "integer"}, 2**53 + 1, "9007199254740993 is more than a float64 holds exactly"),
        ({"type": "category"}, 5, "5 is not text"),
        ({"type": "category", "categories": ("blue",), "outside": "refuse"}, "bleu", "did you mean 'blue'?"),
        ({"type": "boolean"}, 1, "1 is not true or false"),
        ({"type": "boolean"}, "yes", "expected true or false or null"),
        ({"type": "number"}, [1] * 99, "..."),
    ],
)
@pytest.mark.parametrize("before", [0, 30])
def test_a_value_that_does_not_fit_is_named(column: dict[str, Any], value: Any, said: str, before: int) -> None:
    fitting = {"category": "blue", "boolean": True}.get(column["type"], 1)
    rows = [{"a": 0 if column.get("high") == 0 else fitting}] * before + [{"a": value}]
    with pytest.raises(InvalidInput) as caught:
        read_json(signature(**column), rows)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"row {before}, column 'a': ")
    assert (caught.value.row, caught.value.column) == (before, "a")
    assert caught.value.expected


def test_an_unknown_column_is_refused_with_the_near_miss() -> None:
    with pytest.raises(InvalidInput, match=r"row 1: unknown column 'carier'; did you mean 'carrier'\?"):
        read_json(SIGNATURE, [ROW, {"carier": "AA"}])
    with pytest.raises(InvalidInput, match="unknown column 'carier'"):
        read_columns(SIGNATURE, {"carier": ["AA"]})


def test_a_row_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"row 0 is \[1\]; expected an object"):
        read_json(SIGNATURE, [[1]])  # type: ignore[list-item]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidInput, match="column 'hour' has 1 values, 'temp' has 2"):
        read_columns(SIGNATURE, {"temp": [1, 2], "hour": [1]})


def test_in_arrays_and_frames_nan_is_missing() -> None:
    rows = read_columns(SIGNATURE, {"temp": np.array([1.0, np.nan]), "late": np.array([1.0, np.nan])})
    assert np.isnan(rows.columns["temp"]).tolist() == [False, True]
    assert rows.columns["late"][0] == 1.0
    frame = pl.DataFrame({"temp": [1.0, float("nan"), None], "key": ["a", "b", "c"]})
    assert np.isnan(read_frame(SIGNATURE, frame).columns["temp"]).tolist() == [False, True, True]


def test_arrays_are_checked_like_lists() -> None:
    with pytest.raises(InvalidInput, match=r"row 1, column 'a': 0.5 is not a whole number"):
        read_columns(signature(type="integer"), {"a": np.array([1.0, 0.5])})
    with pytest.raises(InvalidInput, match=r"row 0, column 'a': 2.0 is not true or false"):
        read_columns(signature(type="boolean"), {"a": np.array([2.0])})
    with pytest.raises(InvalidInput, match="not a number"):
        read_columns(signature(type="number"), {"a": np.array([True])})
    with pytest.raises(InvalidInput, match="is missing"):
        read_columns(signature(type="number", nullable=False), {"a": np.array([1, np.nan])})
    with pytest.raises(InvalidInput, match="not text"):
        read_frame(signature(type="category"), pl.DataFrame({"a": [1]}))
    with pytest.raises(InvalidInput, match="not a number"):
        read_frame(signature(type="number"), pl.DataFrame({"a": ["x"]}))


def test_a_missing_column_that_must_be_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="row 0, column 'a': is missing"):
        read_frame(signature(type="number", nullable=False), pl.DataFrame({"b": [1]}))


def test_no_rows_are_no_rows() -> None:
    for rows in (read_json(SIGNATURE, []), read_columns(SIGNATURE, {}), read_frame(SIGNATURE, pl.DataFrame())):
        assert rows.count == 0
        assert len(rows.columns["temp"]) == 0
        assert rows.columns["carrier"] == []
