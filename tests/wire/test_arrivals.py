"""Answers that were given elsewhere, handed in over HTTP: plain, and as a model server's logger sends its payloads."""

import asyncio
import base64
import json
import struct
from datetime import timedelta

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.routes import RoutedSystem, ServedElsewhere, TokenHash
from holdfast.core.spec import Serve
from holdfast.security.identity import new_token
from holdfast.testing.serving import NOW, ROW, SIGNATURE
from holdfast.wire.http import DataPlaneApp

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"


class Sender:
    """Sends to a worker that is told of the answers of ``loans``, whose model is served elsewhere."""

    def __init__(self, world, tokens=(), serve=None):
        elsewhere = ServedElsewhere(signature=SIGNATURE, score="proba", version="revision")
        routed = RoutedSystem(
            task="classification", output="probability", key="id", elsewhere=elsewhere, serve=serve or Serve()
        )
        world.follow(tokens, loans=routed, flights=world.system("v1"))
        self.world = world
        self.app = DataPlaneApp(world.plane, world.clock, lambda: "generated")

    def __call__(self, path, body, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return asyncio.run(self._send(path, content, named))

    async def _send(self, path, content, headers):
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://holdfast") as client:
            return await client.post(path, content=content, headers=headers)

    def event(self, kind, body, id="e1", **attributes):
        """One event, as the logger sends it: binary mode, its attributes in headers, the content type the client's."""
        headers = {
            "ce_specversion": "1.0",
            "ce_id": id,
            "ce_type": kind,
            "ce_source": "http://localhost:9081/",
            "ce_time": NOW.isoformat().replace("+00:00", "Z"),
            "ce_inferenceservicename": "loans",
            "ce_namespace": "default",
            "ce_component": "predictor",
            "ce_endpoint": "",
            "content_type": "application/json",
        }
        return self("/events/loans", body, **headers | {f"ce_{name}": text for name, text in attributes.items()})

    def rows(self):
        found = self.world.lake.scan("arrivals", "loans")
        return found.sort("request_id", "row", "part").to_dicts() if found.height else []


@pytest.fixture
def send(world):
    return Sender(world)


def one(**changes):
    return {"id": "a1", "score": 0.25, "inputs": ROW, "version": "v7", "at": NOW.isoformat()} | changes


def v2(**columns):
    kinds = {"dep_hour": "INT64", "distance": "FP64", "carrier": "BYTES", "is_holiday": "BOOL", "id": "BYTES"}
    inputs = [
        {"name": name, "shape": [len(values)], "datatype": kinds[name], "data": values}
        for name, values in columns.items()
    ]
    return {"inputs": inputs}


def two_rows(**more):
    return v2(dep_hour=[8, 9], distance=[100.0, None], carrier=["AA", "UA"], is_holiday=[True, False], **more)


def scores(*values, name="proba", **more):
    return {"outputs": [{"name": name, "shape": [len(values)], "datatype": "FP64", "data": list(values)}], **more}


def test_answers_are_recorded_whole_and_named(send):
    answer = send("/predictions/loans", {"predictions": [one(), one(id=7, key="k7", version="")]})
    assert answer.json() == {"recorded": 2, "prediction_ids": ["a1:0", "7:0"]}
    seven, first = send.rows()
    assert (first["part"], first["key"], first["version"]) == ("whole", "a1", "v7")
    assert (first["in.dep_hour"], first["in.carrier"], first["out.probability"]) == (8.0, "AA", 0.25)
    assert first["predicted_at"] == NOW
    assert (seven["key"], seven["version"]) == ("k7", "")


def test_the_same_answer_again_is_recorded_once_as_it_came_first(send):
    send("/predictions/loans", {"predictions": [one()]})
    send("/predictions/loans", {"predictions": [one(score=0.9)]})
    assert [row["out.probability"] for row in send.rows()] == [0.25]


def test_a_key_among_the_inputs_is_the_key(send):
    send("/predictions/loans", {"predictions": [one(inputs=ROW | {"id": "loan 5"})]})
    assert send.rows()[0]["key"] == "loan 5"


@pytest.mark.parametrize(
    ("wrong", "row", "column", "said"),
    [
        ({"inputs": ROW | {"dep_hour": "eight"}}, 1, "dep_hour", "eight"),
        ({"inputs": ROW | {"distnace": 5}}, 1, "distnace", "did you mean 'distance'?"),
        ({"score": 1.5}, 1, "score", "1.5"),
        ({"at": (NOW + timedelta(days=1)).isoformat()}, 1, "at", "not come yet"),
        ({"at": (NOW - timedelta(days=401)).isoformat()}, 1, "at", "more than 400 days ago"),
        ({"id": ""}, 1, "id", "empty"),
    ],
)
def test_a_value_that_does_not_fit_refuses_the_whole_delivery(send, wrong, row, column, said):
    answer = send("/predictions/loans", {"predictions": [one(id="good"), one(**wrong)]})
    assert answer.status_code == 422
    assert (answer.json()["row"], answer.json()["column"]) == (row, column)
    assert said in answer.json()["error"]
    assert send.rows() == []


@pytest.mark.parametrize("body", [{"predictions": []}, {"predictions": [{"id": "x"}]}, {"rows": []}, [], b"{"])
def test_what_is_no_delivery_is_refused(send, body):
    assert send("/predictions/loans", body).status_code in (400, 422)
    assert send.rows() == []


def test_a_system_that_answers_here_takes_no_answers_from_elsewhere(send):
    answer = send("/predictions/flights", {"predictions": [one()]})
    assert answer.status_code == 404
    assert "answered here" in answer.json()["error"]


def test_a_system_that_is_served_elsewhere_answers_nothing(send):
    answer = send("/predict/loans", ROW)
    assert answer.status_code == 503
    assert "POST /predictions/loans" in answer.json()["error"]


def test_request_and_response_are_recorded_apart_under_one_id(send):
    assert send.event(REQUEST, two_rows(id=["k1", "k2"])).json() == {"recorded": 2, "events": 1}
    assert send.event(RESPONSE, scores(0.5, 0.75, model_version="3")).json()["recorded"] == 2
    rows = send.rows()
    assert [(r["request_id"], r["row"], r["part"]) for r in rows] == [
        ("e1", 0, "request"), ("e1", 0, "response"), ("e1", 1, "request"), ("e1", 1, "response"),
    ]  # fmt: skip
    assert [r["key"] for r in rows if r["part"] == "request"] == ["k1", "k2"]
    assert [r["in.distance"] for r in rows if r["part"] == "request"] == [100.0, None]
    assert [(r["out.probability"], r["version"]) for r in rows if r["part"] == "response"] == [(0.5, "3"), (0.75, "3")]


def test_version_1_bodies_are_read_as_objects_and_as_lists(send):
    send.event(REQUEST, {"instances": [ROW, ROW | {"dep_hour": 9}]}, id="objects")
    send.event(REQUEST, {"instances": [[7, 100.0, "AA", True]]}, id="lists")
    send.event(RESPONSE, {"predictions": [0.5, 0.25]}, id="objects")
    send.event(RESPONSE, {"predictions": [[0.9, 0.1]]}, id="lists")
    rows = send.rows()
    assert [r["in.dep_hour"] for r in rows if r["part"] == "request"] == [7.0, 8.0, 9.0]
    assert [r["out.probability"] for r in rows if r["part"] == "response"] == [0.1, 0.5, 0.25]


def test_bytes_behind_the_json_are_read_without_the_header_that_the_logger_leaves_out(send):
    inputs = [
        {"name": "dep_hour", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}},
        {"name": "carrier", "shape": [2], "datatype": "BYTES", "data": ["AA", "Ü"]},
        {"name": "distance", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
    ]
    request = json.dumps({"inputs": inputs}, ensure_ascii=False).encode() + struct.pack("<qqff", 8, 9, 100.0, 200.0)
    assert send.event(REQUEST, request).status_code == 200
    outputs = [
        {"name": "other", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}},
        {"name": "proba", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
    ]
    response = json.dumps({"outputs": outputs}).encode() + struct.pack("<dff", 9.0, 0.5, 0.25)
    assert send.event(RESPONSE, response).status_code == 200
    rows = send.rows()
    assert [(r["in.dep_hour"], r["in.distance"], r["in.carrier"]) for r in rows if r["part"] == "request"] == [
        (8.0, 100.0, "AA"), (9.0, 200.0, "Ü"),
    ]  # fmt: skip
    assert [r["out.probability"] for r in rows if r["part"] == "response"] == [0.5, 0.25]


def structured(kind, **more):
    return {"specversion": "1.0", "id": "s1", "source": "here", "type": kind, "time": NOW.isoformat(), **more}


def test_structured_and_batched_events_say_the_same_as_binary_ones(send):
    whole = structured(REQUEST, datacontenttype="application/json", data=two_rows())
    data = base64.b64encode(json.dumps(scores(0.5, 0.75)).encode()).decode()
    coded = structured(RESPONSE, revision="r5", data_base64=data)
    one_by_one = send("/events/loans", whole, content_type="application/cloudevents+json; charset=utf-8")
    assert one_by_one.json() == {"recorded": 2, "events": 1}
    both = [coded, whole | {"id": "s2"}]
    batch = send("/events/loans", both, content_type="application/cloudevents-batch+json")
    assert batch.json() == {"recorded": 4, "events": 2}
    rows = send.rows()
    assert {(r["request_id"], r["part"]) for r in rows} == {("s1", "request"), ("s1", "response"), ("s2", "request")}
    assert {r["version"] for r in rows if r["part"] == "response"} == {"r5"}, "the attribute that the file names"


@pytest.mark.parametrize(
    ("kind", "body", "attributes", "column"),
    [
        ("org.kubeflow.serving.inference.requests", {"instances": []}, {}, "type"),
        (REQUEST, {"instances": [ROW | {"dep_hour": 99}]}, {}, "dep_hour"),
        (REQUEST, {"instances": [[1, 2]]}, {}, "instances"),
        (REQUEST, {"instances": []}, {}, ""),
        (REQUEST, {"instances": [ROW]}, {"id": "x" * 201}, "id"),
        (REQUEST, {"instances": [ROW]}, {"time": "yesterday"}, "time"),
        (REQUEST, {"instances": [ROW]}, {"specversion": "0.3"}, "specversion"),
        (RESPONSE, {"predictions": [2.0]}, {}, "proba"),
        (RESPONSE, {"predictions": [[0.1, 0.2, 0.7]]}, {}, "proba"),
        (RESPONSE, {"outputs": [scores(0.1, name=n)["outputs"][0] for n in ("prob", "label")]}, {}, "proba"),
    ],
)
def test_an_event_that_does_not_fit_is_refused_with_its_place(send, kind, body, attributes, column):
    id = attributes.pop("id", "e1")
    headers = {f"ce_{name}": text for name, text in attributes.items()}
    base = {"ce_specversion": "1.0", "ce_id": id, "ce_type": kind, "content_type": "application/json"}
    answer = send("/events/loans", body, **(base | headers))
    assert answer.status_code == 422
    assert answer.json()["column"] == column
    assert send.rows() == []


def test_what_is_no_event_is_refused_with_what_one_is(send):
    answer = send("/events/loans", {"instances": [ROW]})
    assert answer.status_code == 422
    assert "ce-id" in answer.json()["error"]


def test_a_logger_brings_its_token_in_its_url(world):
    secret, sha256 = new_token()
    send = Sender(world, (TokenHash(sha256=sha256, role="client", name="kserve"),))
    body = {"instances": [ROW]}
    assert send.event(REQUEST, body).status_code == 401
    basic = base64.b64encode(f"holdfast:{secret}".encode()).decode()
    headers = {"ce_id": "e1", "ce_type": REQUEST, "authorization": f"Basic {basic}"}
    assert send("/events/loans", body, **headers).status_code == 200
    assert send.rows()[0]["caller"] == "kserve"
    assert send("/events/loans", body, **(headers | {"authorization": "Basic !!"})).status_code == 401
    assert send("/predictions/loans", {"predictions": [one()]}, authorization=f"Basic {basic}").status_code == 401


def nested(depth, inner=b"", is_list=True):
    """JSON of so many levels."""
    return (b"[" if is_list else b'{"a":') * depth + (inner or b"1") + (b"]" if is_list else b"}") * depth


STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
DEEP = [
    (b'{"predictions":[{"id":"x","score":0.5,"inputs":{"dep_hour":%b}}]}', {}),
    (b'{"predictions":[{"id":"x","score":0.5,"inputs":{"id":%b}}]}', {}),
    (b'{"predictions":[{"id":"x","score":0.5,"inputs":%b}]}', {}),
    (b"%b", {}),
    (b'{"instances":[{"dep_hour":%b}]}', {"ce_id": "e", "ce_type": REQUEST}),
    (b'{"inputs":[{"name":"dep_hour","shape":[1],"datatype":"INT64","data":%b}]}', {"ce_id": "e", "ce_type": REQUEST}),
    (b'{"predictions":%b}', {"ce_id": "e", "ce_type": RESPONSE}),
    (b'{"outputs":[{"name":"proba","shape":[1],"datatype":"FP64","data":%b}]}', {"ce_id": "e", "ce_type": RESPONSE}),
    (b'{"id":"e","type":"t","source":"s","specversion":"1.0","data":%b}', {"content_type": STRUCTURED}),
    (b'{"id":"e","type":"t","source":"s","specversion":"1.0","x":%b,"data":1}', {"content_type": STRUCTURED}),
    (b'[{"id":"e","type":"t","source":"s","specversion":"1.0","data":%b}]', {"content_type": BATCHED}),
]


@pytest.mark.parametrize("is_list", [True, False])
@pytest.mark.parametrize(("body", "headers"), DEEP)
def test_what_is_nested_too_deeply_is_the_clients_fault(send, caplog, body, headers, is_list):
    path = "/events/loans" if headers else "/predictions/loans"
    for depth in (500, 900, 950, 980, 1_000, 1_050, 2_000, 300_000):
        answer = send(path, body.replace(b"%b", nested(depth, is_list=is_list)), **headers)
        assert answer.status_code in (400, 422), answer.text
        if answer.status_code == 400:
            assert answer.json()["error"].startswith("the body is nested too deeply")
    assert not caplog.records
    assert send.rows() == []


@pytest.mark.parametrize(("value", "version"), [(None, ""), (True, "true"), (False, "false"), (5, "5"), ("r5", "r5")])
def test_an_attribute_reads_as_it_would_in_a_header_and_null_is_none(send, value, version):
    unset = dict.fromkeys(("time", "data_base64", "datacontenttype"))
    event = structured(RESPONSE, revision=value, data=scores(0.5)) | unset
    assert send("/events/loans", event, content_type=STRUCTURED).status_code == 200
    assert [row["version"] for row in send.rows()] == [version]


@pytest.mark.parametrize("value", [["r5"], {"is": "r5"}])
def test_an_attribute_of_an_event_is_one_value(send, value):
    event = structured(RESPONSE, revision=value, data=scores(0.5))
    answer = send("/events/loans", event, content_type=STRUCTURED)
    assert (answer.status_code, answer.json()["column"]) == (422, "revision")
    assert send.rows() == []


def test_a_version_that_every_row_would_repeat_is_short(send):
    long, short = "v" * 201, "v" * 200
    for version, status in ((long, 422), (short, 200)):
        assert send("/predictions/loans", {"predictions": [one(version=version)]}).status_code == status
        assert send.event(RESPONSE, scores(0.5), id=version[:9], revision=version).status_code == status
        assert send.event(RESPONSE, scores(0.5, model_version=version), id=version[:8]).status_code == status
    assert {row["version"] for row in send.rows()} == {short}


NAMES = ["instances", "predictions", "inputs", "outputs", "dep_hour", "data", "name", "shape", "datatype", "id",
         "parameters", "binary_data_size", "score", "version", "at", "key", "type", "source", "specversion", "time",
         "data_base64", "revision", "proba"]  # fmt: skip
TEXTS = ["", "proba", "dep_hour", "FP64", "BYTES", "INT64", REQUEST, RESPONSE, "1.0", NOW.isoformat(),
         "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "e1", "AA", "eyJwcmVkaWN0aW9ucyI6WzAuNV19",
         "\ud800", "\0"]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=10,
)
WHOLE = {
    "predictions": {"predictions": [one(), one(id="a2")]},
    "instances": {"instances": [ROW]},
    "request": two_rows(id=["k1", "k2"]),
    "scores": {"predictions": [0.5, [0.25, 0.75]]},
    "response": scores(0.5, 0.75, model_version="3"),
    "event": structured(RESPONSE, revision="r5", data=scores(0.5)),
    "batch": [structured(REQUEST, data=two_rows()), structured(RESPONSE, data_base64="e30=")],
}


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places(inner, (*path, name))


def put(value, path, new):
    """A copy of a JSON value with another one at a place."""
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = put(value[path[0]], path[1:], new)
    return copied


@st.composite
def bodies(draw):
    """Bytes; JSON of any shape; or a good body with something else in it, cut off, or with more behind."""
    shape = draw(st.sampled_from(["bytes", "value", "changed", "changed", "changed", "cut", "longer", "deep"]))
    if shape == "bytes":
        return draw(st.binary(max_size=60))
    if shape == "value":
        return json.dumps(draw(VALUES)).encode()
    whole = draw(st.sampled_from(sorted(WHOLE)))
    path = draw(st.sampled_from(list(places(WHOLE[whole]))))
    if shape == "deep":
        changed = json.dumps(put(WHOLE[whole], path, "DEEP")).encode()
        return changed.replace(b'"DEEP"', nested(draw(st.integers(1, 1_200)), is_list=draw(st.booleans())))
    changed = json.dumps(put(WHOLE[whole], path, draw(VALUES))).encode()
    return (
        changed[: draw(st.integers(0, len(changed)))]
        if shape == "cut"
        else changed + draw(st.binary(max_size=20)) * (shape == "longer")
    )


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content_type": st.sampled_from([STRUCTURED, BATCHED, "application/json", ""]),
        "ce_id": st.sampled_from(["e1", "", "x" * 201, "%00"]),
        "ce_type": st.sampled_from([REQUEST, RESPONSE, RESPONSE, "other"]),
        "ce_time": st.sampled_from([*filter(str.isprintable, TEXTS[8:12]), "x", "2013-05-01"]),
        "ce_specversion": st.sampled_from(["1.0", "0.3"]),
        "ce_revision": st.sampled_from(["r5", "%ff%fe", "x" * 300]),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=400)
@given(bodies(), HEADERS, st.sampled_from(["/predictions/loans", "/events/loans", "/events/loans"]))
@pytest.mark.slow
def test_any_delivery_is_recorded_whole_or_refused_as_the_clients_fault(send, body, headers, path):
    before = len(send.rows())
    answer = send(path, body, **headers)
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]
        assert len(send.rows()) == before


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_scores_come_back_as_they_were_sent(send, given):
    send.event(RESPONSE, scores(*given), id=f"n{len(given)}-{hash(tuple(given))}")
    id = f"n{len(given)}-{hash(tuple(given))}"
    found = [row["out.probability"] for row in send.rows() if row["request_id"] == id]
    assert np.array_equal(found, given)


def batch(count, rows=1):
    data = json.dumps(scores(*[0.5] * rows))
    event = '{"specversion":"1.0","id":"e%d","type":"' + RESPONSE + '","source":"x","data":' + data + "}"
    return ("[" + ",".join(event.replace("%d", str(n)) for n in range(count)) + "]").encode()


@pytest.mark.parametrize(("events", "rows"), [(5, 1), (3, 2), (1, 5)])
def test_a_batch_of_events_has_as_many_rows_as_a_request_may_have(world, events, rows):
    send = Sender(world, serve=Serve(max_rows=4))
    kind = "application/cloudevents-batch+json"
    answer = send("/events/loans", batch(events, rows), content_type=kind)
    assert answer.status_code == 422
    assert "serve.max_rows" in answer.json()["error"]
    assert send.rows() == []
    assert send("/events/loans", batch(2, 2), content_type=kind).json() == {"recorded": 4, "events": 2}


def test_an_event_of_long_ago_is_refused(send):
    answer = send.event(RESPONSE, scores(0.5), time="1970-01-01T00:00:01Z")
    assert answer.status_code == 422
    assert (answer.json()["column"], send.rows()) == ("time", [])


@pytest.mark.parametrize("authorization", ["Basic \xe9\xe9\xe9\xe9", "Basic a", "Basic !!!!", "Basic w6nDqQ=="])
def test_a_basic_authorization_that_is_none_is_refused(world, authorization):
    _, known = new_token()
    send = Sender(world, tokens=(TokenHash(sha256=known, role="client", name="logger"),))
    answer = send("/events/loans", scores(0.5), authorization=authorization.encode("latin-1"))
    assert answer.status_code == 401
