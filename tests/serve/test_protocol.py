import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidInput
from holdfast.serve.protocol import infer_answer, model_metadata, read_infer
from holdfast.serve.requests import PredictRequest


def tensor(name="distance", data=(1.5,), datatype="FP64", shape=None):
    return {"name": name, "shape": [len(data)] if shape is None else shape, "datatype": datatype, "data": list(data)}


def read(*inputs, **more):
    body = json.dumps({"inputs": list(inputs)} | more).encode()
    return read_infer(body, output="probability", version="", request_id="generated")


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
def test_a_flat_and_a_nested_tensor_say_the_same(values):
    flat = read(tensor(data=values))
    nested = read(tensor(data=[[v] for v in values], shape=[len(values), 1]))
    flat_column = read(tensor(data=values, shape=[len(values), 1]))
    assert flat.columns == nested.columns == flat_column.columns == {"distance": values}


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("FP64", [1.5, None]), ("FP32", [1]), ("INT64", [3]), ("INT32", [-3]), ("UINT8", [3]), ("BOOL", [True, False]),
     ("BYTES", ["AA", None])],
)  # fmt: skip
def test_each_datatype_carries_its_values(datatype, data):
    assert read(tensor(data=data, datatype=datatype)).columns == {"distance": data}


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("FP64", ["1.5"]), ("FP32", [True]), ("INT64", [1.5]), ("BOOL", [1]), ("BYTES", [7]), ("INT32", ["3"])],
)
def test_data_that_is_not_of_its_datatype_is_refused(datatype, data):
    with pytest.raises(InvalidInput, match=f"'distance' is not {datatype} as it says"):
        read(tensor(data=data, datatype=datatype))


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        ([3], [1.0], r"has 1 values, its shape \[3\] says 3"),
        ([-1], [1.0], r"says -1"),
        ([], [1.0], r"shape \[\]; give one tensor of shape \[n\]"),
        ([1, 2], [1.0, 2.0], r"shape \[1, 2\]"),
        ([2, 1], [[1.0], [2.0, 3.0]], "nested data does not have shape"),
        ([2, 1], [[1.0], 2.0], "nested data does not have shape"),
        ([1], [[1.0]], "is not FP64"),
    ],
)
def test_a_tensor_that_contradicts_its_shape_is_refused(shape, data, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        read(tensor(data=data, shape=shape))
    assert caught.value.column == "distance"


def test_an_input_given_twice_is_refused():
    with pytest.raises(InvalidInput, match="'distance' is given twice"):
        read(tensor(), tensor())


def test_an_output_that_there_is_not_is_refused():
    with pytest.raises(InvalidInput, match="no output 'probabilty'; did you mean 'probability'"):
        read(tensor(), outputs=[{"name": "probabilty"}])
    assert read(tensor(), outputs=[{"name": "probability"}]).count == 1


def test_the_id_of_the_body_names_the_request():
    assert read(tensor(), id="mine").request_id == "mine"
    assert read(tensor()).request_id == "generated"


def test_parameters_carry_key_unit_and_times():
    request = read(
        tensor(data=[1, 2]),
        parameters={"key": ["a", "b"], "unit": ["N1", "N1"], "event_at": ["2013-01-05T10:00:00Z", None], "other": 1},
    )
    assert (request.keys, request.units) == (["a", "b"], ["N1", "N1"])
    assert request.event_at[0].isoformat() == "2013-01-05T10:00:00+00:00"
    assert read(tensor(), parameters={"key": "a"}).keys == ["a"]


@pytest.mark.parametrize("time", ["2013-01-05T10:00:00", "yesterday", 7])
def test_a_time_without_an_offset_is_refused(time):
    with pytest.raises(InvalidInput, match=r"parameter 'event_at'.*with an offset"):
        read(tensor(), parameters={"event_at": time})


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"inputs": 3}', b'{"inputs": [{"name": "a"}]}'])
def test_a_body_that_is_no_inference_request_is_refused(body):
    with pytest.raises(msgspec.ValidationError):
        read_infer(body, output="probability", version="", request_id="q")


def test_an_answer_names_model_version_id_and_output(served, row):
    answer = served.plane.predict("flights", PredictRequest(request_id="q", rows=[row, row]))
    assert json.loads(msgspec.json.encode(infer_answer(answer))) == {
        "model_name": "flights",
        "model_version": "1",
        "id": "q",
        "parameters": {"stage": "live", "outside": 0},
        "outputs": [{"name": "probability", "shape": [2], "datatype": "FP64", "data": [1.08, 1.08]}],
    }


def test_an_answer_of_two_versions_says_which_row_is_whose(world, row):
    world.serve(canary="v2", share=0.5)
    rows = [row | {"tailnum": f"N{i}"} for i in range(20)]
    answer = infer_answer(world.plane.predict("flights", PredictRequest(request_id="q", rows=rows)))
    assert answer.model_version == "1"
    assert answer.parameters["stage"] == "split"
    assert [int(version) for version in answer.parameters["versions"]] == [int(o) for o in answer.outputs[0].data]


def test_metadata_types_every_column(signature):
    metadata = msgspec.to_builtins(model_metadata("flights", ["1", "2"], signature))
    assert metadata["versions"] == ("1", "2")
    assert [(i["name"], i["datatype"], i["shape"]) for i in metadata["inputs"]] == [
        ("dep_hour", "INT64", (-1,)),
        ("distance", "FP64", (-1,)),
        ("carrier", "BYTES", (-1,)),
        ("is_holiday", "BOOL", (-1,)),
    ]
    assert [output["name"] for output in metadata["outputs"]] == ["probability"]
