"""Real rows are sent as clients send them, in forms that the fast lane takes in one pass, but for the unusual one."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.inputs import read_columns
from holdfast.core.signature import Column, Signature
from holdfast.profiling.inputs import Inputs
from holdfast.profiling.measured import InputFacts
from holdfast.profiling.requests import MOST_ROWS, Requests
from holdfast.serve.reading import Reading

MIXED = Signature(
    columns=(
        Column(name="hour", type="integer"),
        Column(name="distance", type="number"),
        Column(name="carrier", type="category"),
        Column(name="holiday", type="boolean"),
    ),
    task="classification",
    output="probability",
)
NUMBERS = Signature(
    columns=(Column(name="a", type="number"), Column(name="b", type="number")), task="regression", output="value"
)


def inputs(signature: Signature, columns, keys=None) -> Inputs:
    rows = read_columns(signature, columns)
    nothing = [None] * rows.count
    facts = InputFacts(origin="hold-out", rows=rows.count)
    return Inputs(facts=facts, rows=rows, keys=keys or nothing, units=nothing)


def mixed(n: int = 3) -> Inputs:
    columns = {
        "hour": [8, None, 3] * n,
        "distance": [1000.5, 7.0, None] * n,
        "carrier": ["AA", None, "UA"] * n,
        "holiday": [True, False, None] * n,
    }
    return inputs(MIXED, columns, keys=[f"k{i}" for i in range(3 * n)])


def made(signature: Signature, of: Inputs) -> Requests:
    return Requests("late", signature, of, key="id", unit="", token="hf_x")


def body(request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Authorization: Bearer hf_x" in head
    return body


def test_a_plain_row_holds_what_was_recorded_and_its_key() -> None:
    first, second, _ = made(MIXED, mixed(1)).of("object", 1)
    assert first.startswith(b"POST /predict/late HTTP/1.1\r\n")
    assert json.loads(body(first)) == {"hour": 8, "distance": 1000.5, "carrier": "AA", "holiday": True, "id": "k0"}
    assert json.loads(body(second)) == {"hour": None, "distance": 7, "carrier": None, "holiday": False, "id": "k1"}


def test_several_rows_go_into_one_body() -> None:
    requests = made(MIXED, mixed(2)).of("object", 4)
    assert [len(json.loads(body(request))["rows"]) for request in requests] == [4]


def test_fewer_rows_than_a_request_takes_come_round_again() -> None:
    (request,) = made(MIXED, mixed(1)).of("object", 32)
    rows = json.loads(body(request))["rows"]
    assert [row["id"] for row in rows[:4]] == ["k0", "k1", "k2", "k0"]
    assert len(rows) == 32


def test_one_tensor_is_a_form_of_numbers_only() -> None:
    assert made(MIXED, mixed()).forms == ("object", "named", "general")
    assert made(NUMBERS, inputs(NUMBERS, {"a": [1.0], "b": [2.0]})).forms == ("object", "packed", "named", "general")


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("signature", [MIXED, NUMBERS])
def test_the_fast_lane_reads_every_form_but_the_unusual_one(signature: Signature, rows: int) -> None:
    of = mixed(2) if signature is MIXED else inputs(NUMBERS, {"a": [1.0, None] * 3, "b": [2.5, 3.0] * 3})
    requests, reading = made(signature, of), Reading(signature, "id", "")
    for form in requests.forms:
        for request in requests.of(form, rows):
            read = reading.rows(body(request)) if form == "object" else reading.tensors(body(request))
            assert (read is None) == (form == "general"), form
            assert requests.is_usual(form) == (read is not None)
            assert read is None or read.count == rows


def test_rows_with_a_time_are_usual_and_fit_into_no_one_tensor() -> None:
    signature = Signature(
        columns=(Column(name="at", type="time"), Column(name="a", type="number")), task="regression", output="value"
    )
    requests = made(signature, inputs(signature, {"at": ["2013-01-05T10:00:00Z", None], "a": [1.5, 2.5]}))
    assert requests.is_usual("object")
    assert "packed" not in requests.forms


def test_a_key_that_is_a_number_makes_no_request_usual() -> None:
    of = inputs(NUMBERS, {"a": [1.0], "b": [2.0]})
    requests = Requests("late", NUMBERS, of, key="a", unit="", token="hf_x")
    assert not any(requests.is_usual(form) for form in requests.forms)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_any_number_goes_there_and_back(values: list[float]) -> None:
    requests = made(NUMBERS, inputs(NUMBERS, {"a": values, "b": values})).of("object", 1)
    assert [float(json.loads(body(request))["a"]) for request in requests] == values


def test_so_many_rows_are_sent_and_the_newest_of_them() -> None:
    n = MOST_ROWS + 5
    values = np.arange(n, dtype=np.float64)
    requests = made(NUMBERS, inputs(NUMBERS, {"a": values, "b": values})).of("object", 1)
    assert len(requests) == MOST_ROWS
    assert json.loads(body(requests[0]))["a"] == 5


def test_times_are_sent_as_text() -> None:
    timed = Signature(columns=(Column(name="at", type="time"),), task="regression", output="value")
    asked = made(timed, inputs(timed, {"at": ["2013-01-05T10:00:00Z", None]}))
    assert json.loads(body(asked.of("object", 1)[0])) == {"at": "2013-01-05T10:00:00Z"}
    [named] = json.loads(body(asked.of("named", 2)[0]))["inputs"]
    assert (named["datatype"], named["data"]) == ("BYTES", ["2013-01-05T10:00:00Z", None])
