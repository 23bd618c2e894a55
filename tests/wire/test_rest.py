import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidInput
from holdfast.serve.requests import PredictRequest
from holdfast.wire.rest import read_infer, write_infer


def tensor(name="distance", data=(1.5,), datatype="FP64", shape=None, **more):
    return {
        "name": name,
        "shape": [len(data)] if shape is None else shape,
        "datatype": datatype,
        "data": list(data),
    } | more


def raw_input(raw, name="distance", datatype="FP64", shape=(1,), size=None):
    parameters = {"binary_data_size": len(raw) if size is None else size}
    return {"name": name, "shape": list(shape), "datatype": datatype, "parameters": parameters}


def read(*inputs, behind=b"", length=None, columns=("a", "b", "c"), **more):
    head = json.dumps({"inputs": list(inputs)} | more).encode()
    said = str(len(head)) if length is None and behind else (length or "")
    return read_infer(head + behind, columns=columns, most_rows=9, header_length=said, version="3")


ONE, TWO = np.array([1.5]).tobytes(), np.array([7, 9], dtype=np.int32).tobytes()


def test_json_and_bytes_say_the_same_and_may_be_mixed():
    inference = read(
        raw_input(ONE),
        tensor("carrier", ["AA"], "BYTES"),
        raw_input(TWO, "hour", "INT32", (2, 1)),
        behind=ONE + TWO,
        id="mine",
    ).inference
    assert [each.name for each in inference.tensors] == ["distance", "carrier", "hour"]
    assert [list(each.data) for each in inference.tensors] == [[1.5], ["AA"], [7, 9]]
    assert (inference.id, inference.version) == ("mine", "3")


def test_a_header_that_covers_the_whole_body_is_no_contradiction():
    body = json.dumps({"inputs": [tensor()]}).encode()
    assert read_infer(body, columns=[], most_rows=9, header_length=str(len(body))).inference.tensors[
        0
    ].data.tolist() == [1.5]


def test_what_clients_leave_empty_may_be_null():
    asked = read(tensor(parameters=None), id=None, outputs=None, parameters=None)
    assert (asked.inference.id, asked.inference.outputs, asked.all_binary) == ("", [], False)


@pytest.mark.parametrize("length", ["0", "-1", "x", "1e3", "99999", "9" * 30, "٣", " 5"])
def test_a_header_length_that_cannot_be_is_refused(length):
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length is"):
        read(tensor(), length=length)


def test_a_header_that_cuts_the_json_is_no_json():
    with pytest.raises(msgspec.DecodeError):
        read(raw_input(ONE), behind=ONE, length="20")


@pytest.mark.parametrize("size", [-1, 9, 2**70, "8", 8.0, True, [8], {}])
def test_a_binary_size_that_cannot_be_is_refused(size):
    with pytest.raises(InvalidInput, match=r"has a binary_data_size of .*; give the header") as refused:
        read(raw_input(ONE, size=size), behind=ONE)
    assert refused.value.column == "distance"


def test_binary_data_without_the_header_are_refused_with_its_name():
    body = json.dumps({"inputs": [raw_input(ONE)]}).encode()
    with pytest.raises(InvalidInput, match="give the header Inference-Header-Content-Length"):
        read_infer(body, columns=[], most_rows=9)


def test_bytes_that_belong_to_no_input_are_refused():
    with pytest.raises(InvalidInput, match="3 bytes behind the JSON belong to no input"):
        read(raw_input(ONE), behind=ONE + b"abc")
    with pytest.raises(InvalidInput, match="8 bytes behind the JSON belong to no input"):
        read(tensor(), behind=ONE)


def test_an_input_has_data_in_one_way():
    with pytest.raises(InvalidInput, match="has no data"):
        read({"name": "distance", "shape": [1], "datatype": "FP64"})
    with pytest.raises(InvalidInput, match="both 'data' and 'binary_data_size'"):
        read(raw_input(ONE) | {"data": [1.5]}, behind=ONE)


def test_a_value_in_packed_bytes_is_named_by_its_column():
    with pytest.raises(InvalidInput, match="row 1, column 'b': the byte 7 is not BOOL"):
        read(raw_input(b"\0\1\1\7", "all", "BOOL", (2, 2)), behind=b"\0\1\1\7", columns=["a", "b"])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([10], "more than 9 rows"),
        ([10**30, 1], "more than 9 rows"),
        ([1, 3], r"has 3 values a row; .* or one of shape \[n, 2\] with all of them: a, b"),
        ([0, 10**30], r"has more than 10\^20 values a row"),
    ],
)
def test_a_tensor_is_refused_by_its_shape_before_its_values_are_read(shape, message):
    with pytest.raises(InvalidInput, match=message):
        read(tensor(shape=shape, data=["not looked at"]), columns=["a", "b"])


def test_more_inputs_than_a_model_can_have_are_refused_before_they_are_read():
    with pytest.raises(InvalidInput, match="has 5 inputs, the model takes 2: a, b"):
        read(*[tensor(data=["not looked at"])] * 5, columns=["a", "b"])


@pytest.mark.parametrize("name", ["shared_memory_region", "classification"])
def test_parameters_of_tensors_that_cannot_take_effect_are_refused(name):
    with pytest.raises(InvalidInput, match=f"parameter '{name}' of input 'distance' cannot take effect"):
        read(tensor(parameters={name: 3}))
    with pytest.raises(InvalidInput, match=f"parameter '{name}' of output 'p' cannot take effect"):
        read(tensor(), outputs=[{"name": "p", "parameters": {name: 3}}])


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"inputs": 3}', b'{"inputs": [{"name": "a"}]}', b"null"])
def test_a_body_that_is_no_inference_request_is_refused(body):
    with pytest.raises(msgspec.ValidationError):
        read_infer(body, columns=[], most_rows=9)


def test_an_unknown_datatype_is_refused_with_its_place():
    with pytest.raises(msgspec.ValidationError, match=r"Invalid enum value 'FP8' - at `\$.inputs\[0\].datatype`"):
        read(tensor(datatype="FP8"))


@given(
    st.binary(max_size=60),
    st.integers(-2, 70).map(str),
    st.integers(-1, 70),
    st.sampled_from(["FP32", "BYTES", "BOOL"]),
)
def test_whatever_lies_behind_the_json_is_read_or_refused(behind, length, size, datatype):
    for said in (None, length):
        try:
            asked = read(raw_input(b"", datatype=datatype, shape=(2, 1), size=size), behind=behind, length=said)
        except (InvalidInput, msgspec.DecodeError):
            continue
        assert len(asked.inference.tensors[0].data) == 2


# Answers


@pytest.fixture
def answer(served, row):
    return served.plane.predict("flights", PredictRequest(request_id="q", rows=[row, row]))


def test_an_answer_names_model_version_id_and_output(answer):
    json_, raw = write_infer(answer, read(tensor()))
    assert raw == b""
    assert json.loads(json_) == {
        "model_name": "flights",
        "model_version": "1",
        "id": "q",
        "parameters": {"stage": "live", "outside": 0},
        "outputs": [{"name": "probability", "shape": [2], "datatype": "FP64", "data": [1.08, 1.08]}],
    }


@pytest.mark.parametrize(
    ("all_binary", "output", "is_binary"),
    [(True, None, True), (True, False, False), (False, True, True), (None, True, True), (None, None, False)],
)
def test_an_output_is_bytes_where_the_request_wants_it(answer, all_binary, output, is_binary):
    parameters = {} if output is None else {"binary_data": output}
    asked = read(
        tensor(),
        parameters={"binary_data_output": all_binary},
        outputs=[{"name": "probability", "parameters": parameters}],
    )
    json_, raw = write_infer(answer, asked)
    [said] = json.loads(json_)["outputs"]
    assert raw == (np.array([1.08, 1.08]).tobytes() if is_binary else b"")
    assert said.get("parameters") == ({"binary_data_size": 16} if is_binary else None)
    assert ("data" in said) is not is_binary


@pytest.mark.parametrize(
    "more",
    [{"parameters": {"binary_data_output": 1}}, {"outputs": [{"name": "p", "parameters": {"binary_data": "yes"}}]}],
)
def test_a_wish_for_bytes_is_true_or_false(more):
    with pytest.raises(InvalidInput, match="parameter 'binary_data"):
        read(tensor(), **more)


def test_an_output_that_is_not_a_number_is_null(answer):
    strange = msgspec.structs.replace(answer, outputs=np.array([np.nan, 0.5]))
    assert json.loads(write_infer(strange, read(tensor()))[0])["outputs"][0]["data"] == [None, 0.5]
