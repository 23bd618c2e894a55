"""The Open Inference Protocol through the whole application: what is sent over HTTP, answered and recorded."""

import asyncio
import json
import struct

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.routes import TokenHash
from holdfast.core.signature import Column, Signature
from holdfast.security.identity import new_token
from holdfast.wire.http import DataPlaneApp

NUMBERS = Signature(
    columns=(
        Column(name="dep_hour", type="integer", low=0, high=23, outside="refuse", nullable=False),
        Column(name="distance", type="number", low=80, high=5000),
        Column(name="is_holiday", type="boolean"),
    ),
    task="classification",
    output="probability",
)
INFER = "/v2/models/flights/infer"
ROWS = [[8, 1000.5, 0], [9, 100.25, 1]]


@pytest.fixture(autouse=True)
def loop():
    """One event loop for all requests of a test, as a worker has."""
    with asyncio.Runner() as runner:
        Caller.loop = runner
        yield runner


class Caller:
    def __init__(self, world):
        self.app = DataPlaneApp(world.plane, world.clock, lambda: "generated")

    def __call__(self, method, path, body=b"", **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def send():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://holdfast") as client:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(method, path, content=content, headers=named)

        return self.loop.run(send())

    def binary(self, head, behind, path=INFER):
        text = json.dumps(head).encode()
        return self("POST", path, text + behind, inference_header_content_length=str(len(text)))


@pytest.fixture
def numbers(world):
    """A model of numbers only."""
    world.load(world.version("v1")).signature = NUMBERS
    world.serve()
    return world


@pytest.fixture
def call(numbers):
    return Caller(numbers)


def named(dtype=float):
    table = np.array(ROWS, dtype=dtype)
    return [
        {"name": column.name, "shape": [2], "datatype": "FP64", "data": table[:, j].tolist()}
        for j, column in enumerate(NUMBERS.columns)
    ]


def packed(**more):
    return {"name": "all", "shape": [2, 3], "datatype": "FP64"} | more


def test_named_packed_nested_and_binary_inputs_are_answered_and_recorded_alike(numbers, call):
    flat = [number for row in ROWS for number in row]
    raw = np.array(ROWS, dtype=np.float64).tobytes()
    answers = [
        call("POST", INFER, {"id": "a", "inputs": named()}),
        call("POST", INFER, {"id": "b", "inputs": [packed(data=flat)]}),
        call("POST", INFER, {"id": "c", "inputs": [packed(data=ROWS)]}),
        call.binary({"id": "d", "inputs": [packed(parameters={"binary_data_size": len(raw)})]}, raw),
    ]
    assert [answer.json()["outputs"][0]["data"] for answer in answers] == [[1.08, 1.09]] * 4
    recorded = numbers.recorded().select("request_id", "^in.*$").sort("request_id")
    rows = [tuple(row[1:]) for row in recorded.rows()]
    assert [row[0] for row in recorded.rows()] == [id for id in "abcd" for _ in range(2)]
    assert rows == [tuple(map(float, row)) for row in ROWS] * 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int16, np.uint64])
def test_a_packed_tensor_of_any_number_is_read_exactly(numbers, call, dtype):
    table = np.array([[8, 1000.5, 1]]).astype(dtype)
    datatype = {"f": "FP", "i": "INT", "u": "UINT"}[table.dtype.kind] + str(8 * table.itemsize)
    head = packed(shape=[1, 3], datatype=datatype, parameters={"binary_data_size": table.nbytes})
    assert call.binary({"inputs": [head]}, table.tobytes()).status_code == 200
    assert list(numbers.recorded().select("^in.*$").rows()[0]) == table.astype(float)[0].tolist()


def test_nan_in_bytes_and_null_in_json_are_missing(numbers, call):
    raw = np.array([[8, np.nan, np.nan]], dtype=np.float32).tobytes()
    head = packed(shape=[1, 3], datatype="FP32", parameters={"binary_data_size": 12})
    assert call.binary({"id": "a", "inputs": [head]}, raw).status_code == 200
    assert call("POST", INFER, {"id": "b", "inputs": [packed(shape=[1, 3], data=[8, None, None])]}).status_code == 200
    recorded = numbers.recorded()["in.distance"].fill_null(np.nan)
    assert (len(recorded), recorded.is_nan().all()) == (2, True)


@pytest.mark.parametrize(
    ("values", "row", "column", "message"),
    [
        ([[8, 100, 0], [24, 100, 0]], 1, "dep_hour", "24.0 is outside what the model was trained on"),
        ([[8, 100, 0], [8.5, 100, 0]], 1, "dep_hour", "8.5 is not a whole number"),
        ([[8, np.inf, 0], [8, 100, 0]], 0, "distance", "inf is not a finite number"),
        ([[8, 100, 0], [8, 100, 0.5]], 1, "is_holiday", "0.5 is not true or false"),
        ([[8, 100, 0], [np.nan, 100, 0]], 1, "dep_hour", "is missing; expected a whole number"),
    ],
)
def test_a_packed_value_that_does_not_fit_is_named_by_row_and_column(call, values, row, column, message):
    raw = np.array(values, dtype=np.float64).tobytes()
    answer = call.binary({"inputs": [packed(parameters={"binary_data_size": len(raw)})]}, raw)
    said = answer.json()
    assert (answer.status_code, said["row"], said["column"]) == (422, row, column)
    assert message in said["error"]
    assert said["expected"]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_packed_tensor_of_another_width_is_told_the_columns(call, k):
    answer = call("POST", INFER, {"inputs": [packed(shape=[1, k], data=[1] * k)]})
    assert answer.status_code == 422
    assert "dep_hour" in answer.json()["error"]


def test_columns_of_text_do_not_fit_into_one_tensor(served):
    body = {"inputs": [{"name": "all", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]}]}
    answer = Caller(served)("POST", INFER, body)
    assert (answer.status_code, answer.json()["column"]) == (422, "carrier")
    assert "give one tensor per column" in answer.json()["error"]


def test_text_that_is_not_utf8_is_refused_by_row_and_column(served):
    raw = b"".join(struct.pack("<I", len(text)) + text for text in (b"AA", b"\xff"))
    head = {"name": "carrier", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    answer = Caller(served).binary({"inputs": [head]}, raw)
    assert (answer.status_code, answer.json()["row"], answer.json()["column"]) == (422, 1, "carrier")


def test_an_answer_in_bytes_says_where_its_json_ends(call):
    answer = call("POST", INFER, {"inputs": named(), "parameters": {"binary_data_output": True}})
    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert json.loads(answer.content[:length])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(answer.content[length:]).tolist() == [1.08, 1.09]


def test_keys_too_large_for_a_float_are_recorded_as_they_are(numbers, call):
    key = {"name": "id", "shape": [2], "datatype": "INT64", "data": [2**63 - 1, 2**53 + 1]}
    assert call("POST", INFER, {"inputs": [*named(), key]}).status_code == 200
    assert numbers.recorded()["key"].to_list() == ["9223372036854775807", "9007199254740993"]


def test_a_version_is_asked_for_by_its_path(call):
    assert call("POST", "/v2/models/flights/versions/1/infer", {"inputs": named()}).json()["model_version"] == "1"
    assert call("POST", "/v2/models/flights/versions/2/infer", {"inputs": named()}).status_code == 404


def test_metadata_of_a_model_of_numbers_tell_of_the_packed_input(call):
    for path in ("/v2/models/flights", "/v2/models/flights/versions/1"):
        told = call("GET", path).json()
        assert told["parameters"]["packed_input"]["columns"] == ["dep_hour", "distance", "is_holiday"]
    assert call("GET", "/v2").json()["extensions"] == ["binary_tensor_data", "model_repository(index)", "statistics"]


def test_what_is_sent_back_as_metadata_say_is_answered(call):
    """A client that knows nothing but the metadata can ask."""
    told = call("GET", "/v2/models/flights").json()
    inputs = [
        {"name": each["name"], "datatype": each["datatype"], "shape": [1], "data": [each["parameters"].get("low", 0)]}
        for each in told["inputs"]
    ]
    assert call("POST", INFER, {"inputs": inputs}).status_code == 200
    datatypes = told["parameters"]["packed_input"]["datatypes"]
    one = [{"name": "x", "datatype": datatype, "shape": [1, 3], "data": [1, 0, 1]} for datatype in datatypes]
    assert {call("POST", INFER, {"inputs": [each]}).status_code for each in one} == {200}


# The repository


def test_the_index_lists_what_answers(world):
    world.follow(flights=world.system("v1", canary="v2", share=0.1), trains=world.system())
    call = Caller(world)
    states = [(e["name"], e["version"], e["state"]) for e in call("POST", "/v2/repository/index").json()]
    assert states == [("flights", "1", "READY"), ("flights", "2", "READY"), ("trains", "", "UNAVAILABLE")]
    assert len(call("POST", "/v2/repository/index", {"ready": True}).json()) == 2
    assert len(call("POST", "/v2/repository/index", {}).json()) == 3
    assert call("POST", "/v2/repository/index", {"ready": "yes"}).status_code == 422
    assert call("GET", "/v2/repository/index").headers["allow"] == "POST"


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_a_client_that_would_load_a_model_is_told_how_releases_are_made(call, verb):
    answer = call("POST", f"/v2/repository/models/flights/{verb}")
    assert answer.status_code == 400
    assert "`holdfast train`" in answer.json()["error"]


# Around it


def test_a_compressed_body_is_refused_as_such(call):
    answer = call("POST", INFER, b"\x1f\x8b", content_encoding="gzip")
    assert (answer.status_code, "Content-Encoding gzip" in answer.json()["error"]) == (415, True)


def test_the_caller_is_the_name_of_the_token(numbers):
    secret, sha256 = new_token()
    numbers.follow(flights=numbers.system("v1"), tokens=(TokenHash(sha256=sha256, role="client", name="shop"),))
    call, callers = Caller(numbers), []
    accept = numbers.plane.accept

    def noted(system, request):
        callers.append(request.caller)
        return accept(system, request)

    numbers.plane.accept = noted
    call("POST", INFER, {"inputs": named()}, authorization=f"Bearer {secret}")
    call("POST", "/predict/flights", {"dep_hour": 8}, authorization=f"Bearer {secret}")
    assert callers == ["shop", "shop"]
    for method, path in (("POST", "/v2/repository/index"), ("GET", "/openapi.json"), ("GET", "/v2")):
        assert call(method, path).status_code == 401


fuzzed = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
names = st.sampled_from(["dep_hour", "distance", "is_holiday", "id", "x", ""])
json_values = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=2)
shapes = st.lists(st.integers(-1, 3) | st.sampled_from([2**31, 2**62, 10**30]), max_size=3)
sizes = st.none() | st.integers(-1, 40) | st.sampled_from([2**63, "8", True])
datatypes = st.sampled_from(["FP32", "FP64", "INT64", "BOOL", "BYTES", "FP16", "BF16", "UINT8"])
some_inputs = st.lists(
    st.fixed_dictionaries(
        {"name": names, "shape": shapes, "datatype": datatypes},
        optional={
            "data": st.lists(json_values),
            "parameters": st.fixed_dictionaries({"binary_data_size": sizes}),
        },
    ),
    max_size=4,
)  # fmt: skip


@pytest.mark.slow
@fuzzed
@given(inputs=some_inputs, behind=st.binary(max_size=50), cut=st.integers(-3, 3))
def test_no_tensors_at_all_break_the_worker(call, inputs, behind, cut):
    text = json.dumps({"inputs": inputs}).encode()
    for length in (len(text), max(0, len(text) + cut)):
        answer = call("POST", INFER, text + behind, inference_header_content_length=str(length))
        assert answer.status_code in (200, 400, 422)
