import asyncio
import json
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.routes import TokenHash
from holdfast.security.identity import new_token
from holdfast.serve.paths import place_of
from holdfast.serve.recording import Recorder
from holdfast.wire.http import BODY_LIMIT_BYTES, DataPlaneApp


@pytest.fixture(autouse=True)
def loop():
    """One event loop for all requests of a test, as a worker has."""
    with asyncio.Runner() as runner:
        Caller.loop = runner
        yield runner


class Caller:
    """Sends requests to the application of a world."""

    def __init__(self, world):
        self.app = DataPlaneApp(world.plane, world.clock, lambda: "generated")

    def __call__(self, method, path, body=None, **headers):
        [answer] = self.all([(method, path, body)], **headers)
        return answer

    def all(self, requests, **headers):
        async def send():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://holdfast") as client:
                tasks = [
                    client.request(
                        method, path, content=_bytes(body), headers={k.replace("_", "-"): v for k, v in headers.items()}
                    )
                    for method, path, body in requests
                ]
                return await asyncio.gather(*tasks)

        return self.loop.run(send())


def _bytes(body):
    return body if body is None or isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture
def call(served):
    return Caller(served)


def infer_body(row, n=1, **more):
    datatypes = {"dep_hour": "INT64", "distance": "FP64", "carrier": "BYTES", "is_holiday": "BOOL"}
    inputs = [
        {"name": name, "shape": [n], "datatype": datatypes[name], "data": [value] * n} for name, value in row.items()
    ]
    return {"inputs": inputs} | more


# Looking


def test_health_and_metadata_are_there(call):
    assert call("GET", "/v2/health/live").json() == {"live": True}
    assert call("GET", "/v2/health/ready").json() == {"ready": True}
    assert call("GET", "/v2").json()["name"] == "holdfast"
    assert call("GET", "/v2/models/flights/ready").json() == {"name": "flights", "ready": True}
    assert call("GET", "/v2/models/flights").json()["versions"] == ["1"]
    assert call("GET", "/v2/models/flights/versions/1").json()["platform"] == "holdfast_classification"
    assert call("GET", "/v2/models/flights/versions/1/ready").status_code == 200
    assert call("HEAD", "/v2/health/live").status_code == 200


def test_a_worker_without_routes_lives_but_is_not_ready(world):
    call = Caller(world)
    assert call("GET", "/v2/health/live").status_code == 200
    assert call("GET", "/v2/health/ready").status_code == 503


def test_a_model_without_a_live_version_is_not_ready(world):
    world.follow(flights=world.system())
    answer = Caller(world)("GET", "/v2/models/flights/ready")
    assert (answer.status_code, "is live" in answer.json()["error"]) == (503, True)


@given(
    st.lists(
        st.sampled_from(
            [
                "v2",
                "models",
                "a",
                "versions",
                "1",
                "infer",
                "ready",
                "health",
                "live",
                "predict",
                "labels",
                "repository",
                "index",
                "load",
                "",
                "openapi.json",
            ]
        ),
        max_size=7,
    ).map("/".join)
)
def test_any_path_has_one_place_or_none(path):
    place = place_of(path)
    known = ("v2", "predict", "labels", "openapi.json")
    assert place is None or path.strip("/").split("/")[0] in known


# Answering


def test_rows_are_answered_and_recorded(call, served, row):
    answer = call("POST", "/predict/flights", {"rows": [row | {"id": 1}, row | {"id": 2, "dep_hour": 9}]})
    assert answer.status_code == 200
    assert answer.json() == {
        "request_id": "generated",
        "predictions": [
            {"probability": 1.08, "prediction_id": "generated:0", "version": "1", "stage": "live", "outside": 0},
            {"probability": 1.09, "prediction_id": "generated:1", "version": "1", "stage": "live", "outside": 0},
        ],
    }
    assert served.recorded()["key"].to_list() == ["1", "2"]


def test_one_object_is_one_row(call, row):
    assert call("POST", "/predict/flights", row).json()["predictions"][0]["probability"] == 1.08


def test_an_inference_request_is_answered(call, row):
    answer = call("POST", "/v2/models/flights/infer", infer_body(row, 2, id="mine"))
    assert answer.json()["id"] == "mine"
    assert answer.json()["outputs"][0]["data"] == [1.08, 1.08]
    assert call("POST", "/v2/models/flights/versions/1/infer", infer_body(row)).json()["model_version"] == "1"


def test_the_request_id_comes_from_body_header_or_worker(call, row):
    assert call("POST", "/predict/flights", row, x_request_id="h").json()["request_id"] == "h"
    assert call("POST", "/predict/flights", {"rows": [row], "id": "b"}, x_request_id="h").json()["request_id"] == "b"
    assert call("POST", "/v2/models/flights/infer", infer_body(row), x_request_id="h").json()["id"] == "h"


def test_plain_and_protocol_requests_give_the_same_answer(call, row):
    plain = call("POST", "/predict/flights", {"rows": [row], "keys": [7], "event_at": ["2013-01-05T10:00:00Z"]})
    infer = call("POST", "/v2/models/flights/infer", infer_body(row, parameters={"key": 7}))
    assert plain.json()["predictions"][0]["probability"] == infer.json()["outputs"][0]["data"][0]


def test_requests_of_one_tick_are_run_together(call, served, row):
    answers = call.all([("POST", "/predict/flights", row | {"dep_hour": hour}) for hour in range(8)])
    assert [answer.json()["predictions"][0]["probability"] for answer in answers] == [1 + h / 100 for h in range(8)]
    assert served.models["v1"].batches == [8]


def test_a_bad_request_does_not_touch_its_neighbours(call, row):
    bodies = [row, row | {"dep_hour": "x"}, row | {"dep_hour": 13}, row]
    statuses = [a.status_code for a in call.all([("POST", "/predict/flights", body) for body in bodies])]
    assert statuses == [200, 422, 500, 200]


# Labels


def test_labels_are_recorded_with_their_times(call, served):
    answer = call(
        "POST",
        "/labels/flights",
        {"labels": [{"key": 7, "label": True, "known_at": "2013-05-01T10:00:00+02:00"}, {"key": "b", "label": 0}]},
    )
    assert answer.json()["recorded"] == 2
    found = {r["key"]: r for r in served.lake.scan("labels", "flights").to_dicts()}
    assert (found["7"]["value"], found["7"]["label_known_at"]) == (1.0, datetime(2013, 5, 1, 8, tzinfo=UTC))
    assert (found["b"]["value"], found["b"]["label_known_at"]) == (0.0, served.clock.now())
    assert {r["output"] for r in found.values()} == {"probability"}
    assert set(answer.json()["label_ids"]) == {r["label_id"] for r in found.values()}


def test_labels_of_several_sources_keep_their_order(call):
    labels = [{"key": k, "label": 1, "source": s} for k, s in (("a", "x"), ("b", "y"), ("c", "x"))]
    ids = call("POST", "/labels/flights", {"labels": labels}).json()["label_ids"]
    assert [id.split(":")[0] for id in ids] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"labels": [{"key": "a", "label": "late"}]}, "row 0: late is no label"),
        ({"labels": [{"key": "a"}]}, "missing required field `label`"),
        ({"labels": [{"key": "a", "label": None}]}, r"$.labels[0].label"),
        ({"labels": [{"key": "a", "label": 1, "known_at": "2013-05-01T10:00:00"}]}, "timezone"),
        ({"labels": [{"key": "a", "label": 1, "when": 3}]}, "unknown field `when`"),
        ({"labels": []}, "no labels"),
        ([], "Expected `object`"),
    ],
)
def test_a_bad_label_is_refused_with_its_place(call, body, message):
    answer = call("POST", "/labels/flights", body)
    assert answer.status_code == 422
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("label", "column", "expected"),
    [
        ({"label": 3}, "label", "0 or 1"),
        ({"label": 1, "known_at": "2999-01-01T00:00:00Z"}, "known_at", "a time that is not in the future"),
    ],
)
def test_a_label_that_cannot_be_is_422_with_its_row_and_none_is_recorded(call, served, label, column, expected):
    answer = call("POST", "/labels/flights", {"labels": [{"key": "a", "label": 1}, {"key": "b", **label}]})
    said = answer.json()
    assert (answer.status_code, said["row"], said["column"], said["expected"]) == (422, 1, column, expected)
    assert served.lake.scan("labels", "flights").is_empty()


# What is refused


@pytest.mark.parametrize(
    ("change", "row_number", "column", "message"),
    [
        ({"dep_hour": "eight"}, 0, "dep_hour", "'eight' is not a number; expected a whole number from 0 to 23"),
        ({"dep_hour": 8.5}, 0, "dep_hour", "8.5 is not a whole number"),
        ({"dep_hour": 24}, 0, "dep_hour", "24 is outside what the model was trained on"),
        ({"dep_hour": None}, 0, "dep_hour", "is missing"),
        ({"is_holiday": 1}, 0, "is_holiday", "1 is not true or false"),
        ({"carrier": 7}, 0, "carrier", "7 is not text"),
        ({"distanse": 3}, 0, "distanse", "unknown column 'distanse'; did you mean 'distance'?"),
    ],
)
def test_a_value_that_does_not_fit_is_named(call, row, change, row_number, column, message):
    answer = call("POST", "/predict/flights", row | change)
    error = answer.json()
    assert (answer.status_code, error["row"], error["column"]) == (422, row_number, column)
    assert message in error["error"]
    assert error["expected"]


NO_JSON = [b"", b"{", b"\xff\xfe", b'"\xff"', b"[" * 20_000, b'{"a": 1} x', b'{"a": "\\ud800"}', b"\x00"]
POSTED = ["/predict/flights", "/labels/flights", "/v2/models/flights/infer"]


@pytest.mark.parametrize("body", NO_JSON)
def test_a_body_that_is_no_json_is_refused(call, body):
    answer = call("POST", "/predict/flights", body)
    assert answer.status_code == 400
    assert ("the body is nested too deeply" if body[:2] == b"[[" else "the body is not JSON") in answer.json()["error"]
    # Where the fields are typed, a wrong one may be met before the end of the JSON is missed.
    assert {call("POST", path, body).status_code for path in POSTED} <= {400, 422}


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_nan_literal_is_refused_and_says_what_to_send(call, word):
    answer = call("POST", "/predict/flights", b'{"dep_hour": 8, "distance": %s}' % word.encode())
    assert answer.status_code == 400
    assert "send null for a missing value" in answer.json()["error"]


def test_a_number_beyond_every_float_is_refused(call):
    assert call("POST", "/predict/flights", b'{"dep_hour": 8, "distance": 1e999}').status_code == 422
    assert call("POST", "/predict/flights", b'{"dep_hour": 1%s}' % (b"0" * 400)).status_code == 422


@pytest.mark.parametrize(
    "body", [[], 3, "x", None, {"rows": 3}, {"rows": [3]}, {"rows": [], "id": "a"}, {"rows": [], "id": 3}]
)
def test_a_body_that_is_no_request_is_refused(call, body):
    answer = call("POST", "/predict/flights", json.dumps(body).encode())
    assert (answer.status_code, bool(answer.json()["error"])) == (422, True)


def test_unknown_models_versions_and_paths_are_not_found(call, row):
    answer = call("POST", "/predict/flihgts", row)
    assert (answer.status_code, answer.json()["error"]) == (404, "no model 'flihgts'; did you mean 'flights'?")
    assert call("POST", "/v2/models/flights/versions/9/infer", infer_body(row)).status_code == 404
    assert "known: 1" in call("GET", "/v2/models/flights/versions/9").json()["error"]
    assert call("GET", "/v1/models").status_code == 404
    assert call("POST", "/labels/trains", {"labels": []}).status_code == 404


def test_a_wrong_method_names_the_right_one(call):
    answer = call("GET", "/predict/flights")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert call("POST", "/v2").headers["allow"] == "GET, HEAD"


def test_a_body_over_the_limit_is_refused_and_the_connection_closed(call):
    answer = call("POST", "/predict/flights", b" " * (BODY_LIMIT_BYTES + 1))
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert "8 MiB" in answer.json()["error"]


def test_a_body_over_the_limit_is_noticed_without_its_length(call):
    async def send():
        async def chunks():
            for _ in range(9):
                yield b" " * (BODY_LIMIT_BYTES // 8)

        transport = httpx.ASGITransport(app=call.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://holdfast") as client:
            return await client.post("/predict/flights", content=chunks())

    assert call.loop.run(send()).status_code == 413


def test_a_full_queue_is_answered_with_when_to_come_back(world, row):
    world.serve(queue=2)
    call = Caller(world)
    answers = call.all([("POST", "/predict/flights", row)] * 5)
    assert sorted(a.status_code for a in answers) == [200, 200, 429, 429, 429]
    refused = next(a for a in answers if a.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert call("POST", "/predict/flights", row).status_code == 200


def test_what_cannot_be_recorded_is_unavailable_not_answered(world, row, full_disk):
    world.plane.recorder = Recorder(full_disk.writer)
    world.serve()
    call = Caller(world)
    assert call("POST", "/predict/flights", row).status_code == 503
    assert call("POST", "/labels/flights", {"labels": [{"key": "a", "label": 1}]}).status_code == 503


@pytest.mark.parametrize("length", ["9" * 5000, str(BODY_LIMIT_BYTES + 1)])
def test_a_length_over_the_limit_is_refused_before_the_body_comes(call, length):
    assert call("POST", "/predict/flights", b"{}", content_length=length).status_code == 413


@pytest.mark.parametrize("id", ["x" * 201, "two\nlines"])
def test_a_request_id_that_is_not_usable_is_refused(call, row, id):
    assert call("POST", "/predict/flights", {"rows": [row], "id": id}).status_code == 422


fuzzed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(
    body=st.binary(max_size=200),
    path=st.sampled_from(POSTED),
)
def test_no_bytes_at_all_break_the_worker(call, body, path):
    assert call("POST", path, body).status_code in (400, 422)


NAMES = ["rows", "dep_hour", "id", "labels", "inputs", "key", "a"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rows", "dep_hour", "id", "a"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@fuzzed
@given(body=json_values, path=st.sampled_from(POSTED))
def test_no_json_at_all_breaks_the_worker(call, body, path):
    assert call("POST", path, json.dumps(body).encode()).status_code in (200, 400, 422)


# Tokens


def test_with_tokens_every_route_but_health_needs_one(world, row):
    secret, sha256 = new_token()
    world.follow(flights=world.system("v1"), tokens=(TokenHash(sha256=sha256, role="client", name="shop"),))
    call = Caller(world)
    assert call("GET", "/v2/health/live").status_code == 200
    for headers in ({}, {"authorization": "Bearer hf_wrong"}, {"authorization": f"Basic {secret}"}):
        answer = call("POST", "/predict/flights", row, **headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert call("GET", "/v2/models/flights", **headers).status_code == 401
    for _ in range(2):  # known the second time
        assert call("POST", "/predict/flights", row, authorization=f"Bearer {secret}").status_code == 200


def test_a_revoked_token_is_refused_from_the_next_routes_on(world, row):
    secret, sha256 = new_token()
    token = TokenHash(sha256=sha256, role="admin")
    world.follow(flights=world.system("v1"), tokens=(token,))
    call = Caller(world)
    assert call("POST", "/predict/flights", row, authorization=f"Bearer {secret}").status_code == 200
    world.follow(flights=world.system("v1"), tokens=(TokenHash(sha256=new_token()[1], role="admin"),))
    assert call("POST", "/predict/flights", row, authorization=f"Bearer {secret}").status_code == 401


def test_refused_requests_are_counted(call, row):
    call("POST", "/predict/flights", row)
    call("POST", "/predict/flights", {"dep_hour": "x"})
    call("GET", "/nowhere")
    assert call.app.refused == 2


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/predict/flights", b'{"rows": [{}], "key": ["a"]}', "did you mean 'keys'?"),
        (
            "/v2/models/flights/infer",
            b'{"inputs": [{"name": "distance", "shape": [1], "datatype": "STRING", "data": ["a"]}]}',
            "datatypes are BOOL, INT8",
        ),
    ],
)
def test_what_is_no_word_of_a_body_is_named_with_what_may_be_meant(call, path, body, said):
    answer = call("POST", path, body)
    assert answer.status_code == 422
    assert said in answer.json()["error"]
