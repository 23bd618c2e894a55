"""Calls in their usual form are answered as the general way answers them, whatever came before on the same worker."""

import asyncio
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.signature import Column, Signature
from holdfast.serve.batching import Batcher
from holdfast.testing.serving import HourModel
from holdfast.wire.grpccalls import CallHead, refused_of
from holdfast.wire.grpcinfer import infer_response, inference_of
from holdfast.wire.grpcmessages import INFERENCE
from holdfast.wire.grpcquick import QuickCalls, field_head, parse
from holdfast.wire.protocol import predict_request

NUMBERS = Signature(
    columns=(
        Column(name="dep_hour", type="number", low=0, high=23, outside="refuse", nullable=False),
        Column(name="distance", type="number", low=80, high=5000),
    ),
    task="classification",
    output="probability",
)
WHOLE = Signature(
    columns=(
        Column(name="dep_hour", type="integer", low=0, high=23, outside="refuse", nullable=False),
        Column(name="is_holiday", type="boolean"),
        Column(name="distance", type="number"),
    ),
    task="classification",
    output="probability",
)
SEVERAL = replace(NUMBERS, task="multiclass", classes=("calm", "", "Öl"))
SEVERAL_WHOLE = replace(WHOLE, task="multiclass", classes=("calm", "storm", "x" * 200))
FORMATS = {"FP64": "d", "FP32": "f", "INT64": "q", "BOOL": "B", "FP16": "e", "UINT8": "B"}


class Shares(HourModel):
    """Answers shares of the classes by the hour; at hour 9 one of them is no number, at hour 13 it raises."""

    def predict(self, rows):
        hours = super().predict(rows)
        parts = np.abs(np.sin(np.nan_to_num(hours)[:, None] * 100 + np.arange(len(self.signature.classes)))) + 0.1
        parts[rows.columns["dep_hour"] == 9, 2] = np.nan
        return parts / np.nansum(parts, axis=1, keepdims=True)


class Asker:
    """Takes the answer to one call, as the message that the general way would give, or its status."""

    def __init__(self, service):
        self.service = service
        self.answer = None

    def reply(self, body):
        self.answer = INFERENCE["ModelInferResponse"].FromString(body)

    def refuse(self, error):
        self.answer = refused_of(error).code.name

    def generally(self, data, caller):
        self.answer = "generally"


class Service:
    """Both ways to the same world."""

    def __init__(self, world, signature=None):
        self.world = world
        if signature is not None:
            world.models["v1"] = (Shares if signature.classes else HourModel)(1.0, signature)
        world.serve()
        self.calls = QuickCalls(world.plane, Batcher(world.plane), lambda: "generated")

    def quickly(self, *messages, request_id="", caller="shop"):
        """The answers to calls of one tick; None for each that was not taken."""

        self.calls.batcher = Batcher(self.world.plane)  # it stays with one event loop

        async def call():
            askers = []
            for data in messages:
                asker = Asker(self)
                asker.answer = (
                    "waiting"
                    if self.calls.take(asker, data, CallHead(method=None, request_id=request_id), caller)
                    else None
                )
                askers.append(asker)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return [asker.answer for asker in askers]

        return asyncio.run(call())

    def generally(self, data):
        """The answer of the general way, or its status."""
        request = parse(data)
        try:
            lanes = self.world.plane.lanes(request.model_name)
            names = [column.name for column in lanes.lane(request.model_version).signature.columns]
            asked = predict_request(
                inference_of(request, columns=names, most_rows=lanes.routed.serve.max_rows),
                lanes,
                request_id="generated",
                caller="shop",
            )
            return infer_response(
                self.world.plane.predict(request.model_name, asked), is_raw=bool(request.raw_input_contents)
            )
        except Exception as error:
            return refused_of(error).code.name


def raw_request(tensors, **more):
    """A request of raw tensors: name, datatype, shape, values."""
    request = INFERENCE["ModelInferRequest"](**({"model_name": "flights"} | more))
    for name, datatype, shape, values in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(struct.pack(f"<{len(values)}{FORMATS[datatype]}", *values))
    return request


def one(hour, distance=500.0, **more):
    return raw_request([("dep_hour", "FP64", [1], [hour]), ("distance", "FP32", [1], [distance])], **more)


def packed(*rows, datatype="FP32", **more):
    values = [value for row in rows for value in row]
    return raw_request([("all", datatype, [len(rows), 2], values)], **more)


@pytest.fixture
def numbers(world):
    return Service(world, NUMBERS)


@pytest.fixture
def several(world):
    return Service(world, SEVERAL)


@pytest.fixture
def whole(world):
    return Service(world, WHOLE)


def bytes_of(request):
    return request.SerializeToString(deterministic=True)


USUAL = {
    "named": one(8.0),
    "packed": packed((8, 500)),
    "packed rows": packed((8, 500), (9, 40), (10, 600), datatype="FP64"),
    "with an id": one(8.0, id="mine"),
    "columns in another order": raw_request([("distance", "FP64", [1, 1], [500]), ("dep_hour", "FP64", [1], [7])]),
    "a column missing": raw_request([("dep_hour", "FP64", [1], [7])]),
    "rows by column": raw_request(
        [("dep_hour", "FP64", [3], [1, 2, 3]), ("distance", "FP64", [3], [1, 2, float("nan")])]
    ),
    "a long id": one(8.0, id="i" * 199),
    "an id that is the version": one(8.0, id="1"),
    "an id that is the system": one(8.0, id="flights"),
    "an id that is a word of the answer": one(8.0, id="model_name"),
    "an id that is another": one(8.0, id="model_version"),
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_calls_get_the_answer_of_the_general_way(numbers, name):
    data = bytes_of(USUAL[name])
    expected = numbers.generally(data)
    assert not isinstance(expected, str)
    for _ in range(3):  # the second is read by the layout of the first
        assert numbers.quickly(data) == [expected]


@pytest.mark.parametrize("name", USUAL)
def test_usual_calls_get_the_classes_of_the_general_way(several, name):
    data = bytes_of(USUAL[name])
    expected = several.generally(data)
    assert [each.datatype for each in expected.outputs] == ["FP64", "BYTES"]
    for _ in range(3):
        assert str(several.quickly(data)) == str([expected])  # as text, so that NaN is NaN


def test_classes_are_told_as_values_to_who_sends_values(several):
    request = INFERENCE["ModelInferRequest"](model_name="flights", id="i")
    for name, values in (("dep_hour", [8.0, 9.0, 10.0]), ("distance", [500.0, 90.0, 1.0])):
        tensor = request.inputs.add(name=name, datatype="FP64", shape=[3])
        tensor.contents.fp64_contents.extend(values)
    data = bytes_of(request)
    expected = several.generally(data)
    assert b"" in expected.outputs[1].contents.bytes_contents
    assert str(several.quickly(data)) == str([expected])


def all_in_one(*rows, datatype="FP64", **more):
    return raw_request([("all", datatype, [len(rows), 3], [value for row in rows for value in row])], **more)


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT64"])
@pytest.mark.parametrize("rows", [[(8, 1, 500)], [(8, 1, 500), (9, 0, -40), (23, 1, 2**20)], [(8, 0, 3)] * 300])
def test_whole_numbers_and_booleans_may_stand_in_one_tensor(whole, datatype, rows):
    request = all_in_one(*rows, datatype=datatype)
    data = bytes_of(request)
    expected = whole.generally(data)
    for _ in range(2):  # the second is read by the layout of the first
        assert whole.quickly(data) == [expected]
    spelled = INFERENCE["ModelInferRequest"](model_name="flights")
    contents = spelled.inputs.add(name="all", datatype=datatype, shape=[len(rows), 3]).contents
    values = [value for row in rows for value in row]
    getattr(contents, f"{datatype.lower()}_contents").extend(values)
    assert whole.quickly(bytes_of(spelled)) == [whole.generally(bytes_of(spelled))]


@pytest.mark.parametrize("row", [(8.5, 1, 500), (8, 2, 500), (99, 1, 500), (float("nan"), 1, 500)])
def test_a_value_in_one_tensor_that_does_not_fit_its_column_goes_the_general_way(whole, row):
    assert whole.quickly(bytes_of(all_in_one((8, 1, 500)))) != [None]
    assert whole.quickly(bytes_of(all_in_one(row))) == ["generally"]
    assert whole.generally(bytes_of(all_in_one(row))) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("value", [2**53 + 1, -(2**63)])
def test_a_whole_number_that_no_float_holds_is_not_taken(whole, value):
    assert whole.quickly(bytes_of(all_in_one((8, 1, 500), datatype="INT64"))) != [None]
    assert whole.quickly(bytes_of(all_in_one((8, 1, value), datatype="INT64"))) == [None]


def test_values_give_what_raw_contents_give(numbers):
    request = INFERENCE["ModelInferRequest"](model_name="flights")
    request.inputs.add(name="dep_hour", datatype="FP64", shape=[2]).contents.fp64_contents.extend([8, 9])
    request.inputs.add(name="distance", datatype="FP32", shape=[2]).contents.fp32_contents.extend([500, 40])
    data = bytes_of(request)
    expected = numbers.generally(data)
    assert list(expected.outputs[0].contents.fp64_contents) == [1.08, 1.09]
    assert expected.parameters["outside"].int64_param == 1
    assert numbers.quickly(data) == [expected]


def test_text_is_read(served, row):
    service = Service(served)
    request = INFERENCE["ModelInferRequest"](model_name="flights")
    for name, datatype, raw in (
        ("dep_hour", "INT64", struct.pack("<2q", 8, 9)),
        ("distance", "FP64", struct.pack("<2d", 500, 600)),
        ("carrier", "BYTES", b"\2\0\0\0AA\2\0\0\0XY"),
        ("is_holiday", "BOOL", b"\0\1"),
    ):
        request.inputs.add(name=name, datatype=datatype, shape=[2])
        request.raw_input_contents.append(raw)
    data = bytes_of(request)
    assert service.quickly(data) == [service.generally(data)]
    assert service.quickly(data)[0].parameters["outside"].int64_param == 1


def test_many_calls_of_a_tick_are_one_run_and_each_gets_its_own_answer(numbers):
    hours = [hour % 12 for hour in range(60)]
    answers = numbers.quickly(*[bytes_of(one(float(hour))) for hour in hours])
    assert [np.frombuffer(a.raw_output_contents[0]).tolist() for a in answers] == [[1 + hour / 100] for hour in hours]
    assert numbers.world.models["v1"].batches == [60]


def test_calls_are_recorded_with_their_ids_and_their_caller(numbers):
    numbers.quickly(bytes_of(one(1.0, id="a")), bytes_of(packed((2, 90), (3, 90))), request_id="b", caller="shop")
    recorded = numbers.world.recorded()
    assert recorded["request_id"].to_list() == ["a", "b", "b"]
    assert recorded["caller"].to_list() == ["shop"] * 3
    assert recorded["in.distance"].to_list() == [500.0, 90.0, 90.0]


UNUSUAL = {
    "a version": one(8.0, model_version="1"),
    "a model that is none": one(8.0, model_name="other"),
    "no inputs": raw_request([]),
    "an integer for a number": raw_request([("dep_hour", "INT64", [1], [8]), ("distance", "FP64", [1], [500])]),
    "a column twice": raw_request([("dep_hour", "FP64", [1], [8]), ("dep_hour", "FP64", [1], [9])]),
    "an unknown column": raw_request([("dep_hour", "FP64", [1], [8]), ("tailnum", "FP64", [1], [9])]),
    "another count": raw_request([("dep_hour", "FP64", [1], [8]), ("distance", "FP64", [2], [500, 600])]),
    "too few values": raw_request([("dep_hour", "FP64", [2], [8])]),
    "no rows": raw_request([("dep_hour", "FP64", [0], [])]),
    "a negative count": raw_request([("dep_hour", "FP64", [-1], [8])]),
    "too many dimensions": raw_request([("dep_hour", "FP64", [1, 1, 1], [8])]),
    "packed with another width": raw_request([("all", "FP64", [1, 3], [8, 500, 1])]),
    "an id that is not printable": one(8.0, id="a\nb"),
    "an id that is too long": one(8.0, id="i" * 201),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_calls_are_not_taken(numbers, name):
    assert numbers.quickly(bytes_of(UNUSUAL[name])) == [None]


def test_calls_with_parameters_or_outputs_are_not_taken(numbers):
    request = one(8.0)
    request.parameters["key"].string_param = "7"
    tensor = one(8.0)
    tensor.inputs[0].parameters["content_type"].string_param = "np"
    output = one(8.0)
    output.outputs.add(name="probability")
    assert numbers.quickly(*map(bytes_of, (request, tensor, output))) == [None] * 3
    assert numbers.quickly(b"\xff") == [None]


def test_a_value_that_is_refused_sends_its_tick_the_general_way(numbers):
    assert numbers.quickly(bytes_of(one(8.0)), bytes_of(one(99.0))) == ["generally", "generally"]
    assert numbers.calls.batcher._in_flight["flights"] == 0


def test_more_rows_than_may_be_sent_go_the_general_way(world):
    world.models["v1"] = type(world.load(world.version("v1")))(1.0, NUMBERS)
    service = Service(world)
    world.serve(max_rows=2)
    assert service.quickly(bytes_of(packed((1, 90), (2, 90), (3, 90)))) == [None]


def test_new_routes_forget_what_was_read_for_the_old_ones(numbers):
    data = bytes_of(one(8.0))
    assert numbers.quickly(data)[0].model_version == "1"
    numbers.world.models["v2"] = type(numbers.world.models["v1"])(2.0, WHOLE)
    numbers.world.serve("v2")
    assert numbers.quickly(data) == [None]  # dep_hour is an integer now


def test_a_model_that_fails_refuses_the_call(numbers):
    assert numbers.quickly(bytes_of(one(13.0))) == ["INTERNAL"]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 20_000, 3_000_000])
def test_heads_of_fields_are_those_of_the_library(size):
    written = INFERENCE["ModelInferRequest"](raw_input_contents=[b"x" * size]).SerializeToString()
    assert written == field_head(7, size) + b"x" * size


# Whatever came before


_VALUES = st.sampled_from([0.0, 1.0, 8.0, 13.0, 23.0, 500.0, -1.0, float("nan"), float("inf"), 1e300])
_WHOLES = st.sampled_from([0, 1, 8, 13, 23, 24, -1, 2**53 + 1, -(2**63)])


@st.composite
def _calls(draw):
    """A request near the usual form, as bytes, sometimes with a few of them changed."""
    datatypes = {"dep_hour": ["INT64", "FP64"], "is_holiday": ["BOOL", "UINT8"], "distance": ["FP64"]}
    names = draw(st.permutations(["dep_hour", "distance", "is_holiday"]))[: draw(st.integers(1, 3))]
    rows = draw(st.sampled_from([1, 1, 1, 2]))
    tensors = []
    for name in names:
        datatype = draw(st.sampled_from(datatypes[name]))
        each = {"INT64": _WHOLES, "BOOL": st.integers(0, 2), "UINT8": st.integers(0, 2)}.get(datatype, _VALUES)
        tensors.append((name, datatype, [rows], draw(st.lists(each, min_size=rows, max_size=rows))))
    if draw(st.booleans()):
        datatype = draw(st.sampled_from(["FP64", "FP64", "FP16", "INT64"]))
        each = {"INT64": _WHOLES, "FP16": st.sampled_from([0.0, 1.0, 8.0, 23.0, float("nan")])}.get(datatype, _VALUES)
        tensors = [("all", datatype, [rows, 3], draw(st.lists(each, min_size=3 * rows, max_size=3 * rows)))]
    data = bytearray(bytes_of(raw_request(tensors, id=draw(st.sampled_from(["", "", "", "mine"])))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 9)) == 0:
        data += draw(st.sampled_from([b"\x3a\x00", b"\x1a\x01x", b"\xa2\x06\x02ab", b"\x0a\x07flights"]))
    return bytes(data)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_calls(), min_size=1, max_size=6), st.sampled_from([NUMBERS, WHOLE, SEVERAL_WHOLE]))
def test_any_calls_get_the_answer_of_the_general_way(world, messages, signature):
    world.models.clear()
    service = Service(world, signature)
    for data in messages * 2:
        [quick] = service.quickly(data)
        if quick not in (None, "generally"):
            assert str(quick) == str(service.generally(data))
