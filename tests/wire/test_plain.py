import asyncio
from datetime import timedelta

import msgspec
import pytest

from holdfast.errors import InvalidInput
from holdfast.serve.requests import PredictRequest
from holdfast.tasks.classification import Classification
from holdfast.tasks.regression import Regression
from holdfast.wire.plain import AHEAD, predict_answer, read_predict, take_labels


def test_an_object_without_rows_is_one_row():
    request = read_predict(b'{"distance": 3}', request_id="q")
    assert (request.rows, request.request_id) == ([{"distance": 3}], "q")


def test_what_is_known_about_rows_stands_beside_them():
    request = read_predict(
        b'{"rows": [{}, {}], "keys": [1, "b"], "units": ["N1", null], "version": "2", "id": "mine",'
        b' "features_known_at": ["2013-01-05T10:00:00+01:00", null]}',
        request_id="q",
    )
    assert (request.keys, request.units, request.version, request.request_id) == ([1, "b"], ["N1", None], "2", "mine")
    assert request.features_known_at[0].isoformat() == "2013-01-05T10:00:00+01:00"


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'"x"'])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(InvalidInput, match="not an object"):
        read_predict(body, request_id="q")


def test_each_row_of_an_answer_has_its_own_id_version_and_stage(world, row):
    world.serve(canary="v2", share=1.0)
    answer = world.plane.predict("flights", PredictRequest(request_id="q", rows=[row, row]))
    assert predict_answer(answer)["predictions"][1] == {
        "probability": 2.08,
        "prediction_id": "q:1",
        "version": "2",
        "stage": "canary",
        "outside": 0,
    }


# Labels


def deliver(world, *labels, task=None):
    body = msgspec.json.encode({"labels": [{"key": "a", "label": 1}, *labels]})
    return asyncio.run(take_labels(body, "flights", task or Classification(), world.plane.recorder, world.clock))


@pytest.mark.parametrize("label", [3, -1, 0.5])
def test_a_label_that_the_task_does_not_take_is_refused_with_its_row_and_nothing_is_recorded(world, label):
    with pytest.raises(InvalidInput, match=r"row 1: .* is no label of this system") as refused:
        deliver(world, {"key": "b", "label": label})
    assert (refused.value.row, refused.value.column, refused.value.expected) == (1, "label", "0 or 1")
    assert world.lake.scan("labels", "flights").is_empty()
    assert deliver(world, {"key": "b", "label": label}, task=Regression())["recorded"] == 2


def test_a_number_too_large_to_be_one_is_refused_as_the_label_of_a_regression(world):
    body = b'{"labels": [{"key": "a", "label": 1}, {"key": "b", "label": 1e999}]}'
    with pytest.raises((InvalidInput, msgspec.DecodeError), match=r"finite|out of range"):
        asyncio.run(take_labels(body, "flights", Regression(), world.plane.recorder, world.clock))
    assert world.lake.scan("labels", "flights").is_empty()


def test_a_label_cannot_have_become_known_in_the_future(world):
    late = {"key": "b", "label": 0, "known_at": world.clock.now() + AHEAD + timedelta(seconds=1)}
    with pytest.raises(InvalidInput, match="row 1: a label cannot be known at 2013-05-01T12:10:01") as refused:
        deliver(world, late)
    assert (refused.value.row, refused.value.column) == (1, "known_at")
    assert world.lake.scan("labels", "flights").is_empty()


def test_a_clock_that_runs_a_little_ahead_is_borne_with(world):
    assert deliver(world, {"key": "b", "label": 0, "known_at": world.clock.now() + AHEAD})["recorded"] == 2
