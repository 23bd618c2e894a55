import json

import numpy as np
import pytest

from holdfast.core.inputs import reader_of
from holdfast.core.signature import Column, Signature
from holdfast.serve.paths import Place
from holdfast.serve.quick import Known, Quick, meta_of, rows_of, stuck_to, write_answers
from holdfast.serve.reading import Given

NUMBERS = Signature(
    columns=(Column(name="a", type="number", low=0, high=10), Column(name="b", type="number", nullable=False)),
    task="regression",
    output="minutes",
)


@pytest.fixture
def call(served):
    """Makes a call with these values; `kind` is how it was asked."""

    def make(values, count=1, kind="infer", request_id="r", keys=None, units=None, wants_bytes=False, caller=""):
        known = Known(
            place=Place(kind, "flights"),
            lanes=served.plane.lanes("flights"),
            length=0,
            caller=caller,
            headers=(),
            request_id="",
            is_readable=True,
        )
        return Quick(None, known, b"", Given(values, count, "", keys, units, wants_bytes), request_id, 0.0)

    return make


def test_rows_of_several_calls_stand_one_after_the_other(call, signature):
    calls = [call([8.0, 500.0, "AA", True]), call([9.0, None, None, False, 10.0, 90.0, "new", None], 2)]
    rows = rows_of(reader_of(signature), calls)
    np.testing.assert_array_equal(rows.numbers, [[8, 500, 1], [9, np.nan, 0], [10, 90, np.nan]])
    assert rows.texts == {"carrier": ["AA", None, "new"]}
    assert rows.outside.tolist() == [0, 0, 1]


def test_rows_that_came_as_bytes_and_as_text_stand_together(call):
    calls = [call([1.0, 2.0]), call(np.array([[3.0, np.nan + 4], [5.0, 6.0]]), 2), call([None, 8.0])]
    calls[1].values = np.array([[3.0, 4.0], [5.0, 6.0]])
    rows = rows_of(reader_of(NUMBERS), calls)
    np.testing.assert_array_equal(rows.numbers, [[1, 2], [3, 4], [5, 6], [np.nan, 8]])


@pytest.mark.parametrize("values", [[1.0, None], [float("inf"), 1.0], [1.0, float("-inf")]])
def test_one_odd_value_asks_for_a_closer_look_at_all(call, values):
    assert rows_of(reader_of(NUMBERS), [call([1.0, 2.0]), call(values)]) is None


def test_what_is_known_about_rows_says_whose_they_are(call):
    calls = [call([1], request_id="p", keys=["k"], caller="me"), call([1, 2], 2, request_id="q", units=["u", None])]
    meta = meta_of(calls, 5)
    assert (meta.request_id, meta.row.tolist()) == (["p", "q", "q"], [0, 0, 1])
    assert (meta.key, meta.unit) == (["k", None, None], [None, "u", None])
    assert (meta.caller, meta.predicted_at.tolist()) == (["me", "", ""], [5, 5, 5])


def test_single_rows_of_one_caller_say_only_what_differs(call):
    meta = meta_of([call([1], request_id="p", caller="me"), call([1], request_id="q", caller="me")], 5)
    assert (meta.row, meta.key, meta.unit, meta.caller) == (None, None, None, "me")


@pytest.mark.parametrize(
    ("keys", "units", "sticks"), [(["k"], ["u"], "u"), (["k"], [None], "k"), (["k"], [""], "k"), (None, None, "r")]
)
def test_a_call_sticks_to_its_unit_or_key_or_name(call, keys, units, sticks):
    assert stuck_to([call([1], keys=keys, units=units)]) == [sticks]


def test_every_call_gets_the_outputs_of_its_own_rows(call, served):
    calls = [
        call([1], request_id="a"),
        call([1, 2], 2, "predict", request_id="b"),
        call([1], request_id="c", wants_bytes=True),
    ]
    for each in calls:
        each.lane = served.plane.lanes("flights").live
    write_answers(calls, np.array([0.5, 1.5, np.nan, 2.5]), [0, 1, 0, 2])
    assert json.loads(calls[0].payload)["outputs"][0]["data"] == [0.5]
    predictions = json.loads(calls[1].payload)["predictions"]
    assert [(each["probability"], each["prediction_id"], each["outside"]) for each in predictions] == [
        (1.5, "b:0", 1),
        (None, "b:1", 0),
    ]
    head, raw = calls[2].payload[: calls[2].json_length], calls[2].payload[calls[2].json_length :]
    assert np.frombuffer(raw).tolist() == [2.5]
    assert json.loads(head)["parameters"] == {"stage": "live", "outside": 2}


def test_an_origin_that_breaks_keeps_no_other_from_its_answer(call, served, caplog):
    class Breaking:
        def answered(self, call):
            raise RuntimeError("gone")

    class Remembering:
        payload = b""

        def answered(self, call):
            Remembering.payload = call.payload

    first, second = call([8.0, 500.0, "AA", True], request_id="a"), call([9.0, 500.0, "AA", True], request_id="b")
    first.origin, second.origin = Breaking(), Remembering()
    served.plane.run_quick(served.plane.lanes("flights"), [first, second])
    assert b'"id":"b"' in Remembering.payload
    assert "an answer could not be given" in caplog.text
