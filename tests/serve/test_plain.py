import pytest

from holdfast.errors import InvalidInput
from holdfast.serve.plain import predict_answer, read_predict
from holdfast.serve.requests import PredictRequest


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
