"""Answers of several classes that were given elsewhere: one probability for each, by name or in order."""

import asyncio
import json
import struct
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.routes import RoutedSystem, ServedElsewhere
from holdfast.testing.serving import NOW, ROW, SIGNATURE, World
from holdfast.wire.http import DataPlaneApp

RESPONSE = "org.kubeflow.serving.inference.response"
CLASSES = ("calm", "rain", "storm")
PARTS = [f"out.probability.{name}" for name in CLASSES]
EXPECTED = "the probability of each class (calm, rain, storm), which add up to 1"


class Sender:
    """Sends to a worker that is told of the answers of ``weather``."""

    def __init__(self, world: World) -> None:
        signature = replace(SIGNATURE, task="multiclass", classes=CLASSES)
        elsewhere = ServedElsewhere(signature=signature, score="shares")
        routed = RoutedSystem(
            task="multiclass", output="probability", classes=CLASSES, key="id", elsewhere=elsewhere
        )  # fmt: skip
        world.follow(weather=routed)
        self.world = world
        self.app = DataPlaneApp(world.plane, world.clock, lambda: "generated")

    def __call__(self, path: str, body: Any, **headers: str) -> httpx.Response:
        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://holdfast") as client:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                return await client.post(path, content=content, headers=headers)

        return asyncio.run(sent())

    def told(self, *scores: Any) -> httpx.Response:
        """Plain predictions with these scores."""
        each = [{"id": f"a{i}", "score": score, "inputs": ROW} for i, score in enumerate(scores)]
        return self("/predictions/weather", {"predictions": each})

    def answered(self, body: Any) -> httpx.Response:
        """A response as KServe's logger sends it."""
        attributes = {"specversion": "1.0", "id": "e1", "type": RESPONSE, "source": "/", "time": NOW.isoformat()}
        return self("/events/weather", body, **{f"ce-{name}": text for name, text in attributes.items()})

    def rows(self) -> list[tuple[float, ...]]:
        found = self.world.lake.scan("arrivals", "weather")
        return found.sort("request_id", "row").select(PARTS).rows() if found.height else []


@pytest.fixture
def send(world: World) -> Sender:
    return Sender(world)


def test_a_plain_score_names_the_probability_of_each_class(send: Sender) -> None:
    answer = send.told({"storm": 0.7, "calm": 0.1, "rain": 0.2}, {"calm": 1, "rain": 0, "storm": 0})
    assert (answer.status_code, answer.json()["prediction_ids"]) == (200, ["a0:0", "a1:0"])
    assert send.rows() == [(0.1, 0.2, 0.7), (1.0, 0.0, 0.0)]


def test_a_version_that_does_not_know_a_class_answered_0_to_it(send: Sender) -> None:
    assert send.told({"calm": 0.25, "rain": 0.75}).status_code == 200
    assert send.rows() == [(0.25, 0.75, 0.0)]


def test_a_rounding_error_outside_of_0_to_1_is_the_end_of_it(send: Sender) -> None:
    assert send.told({"calm": 1.0000001}, {"calm": -1e-9, "rain": 1}).status_code == 200
    assert send.answered({"outputs": [tensor(1.0000001192092896, -1e-7, 0.0)]}).status_code == 200
    assert send.rows() == [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (0.5, "an answer of 'multiclass' is not a single number"),
        ({"calm": 0.5, "rein": 0.5}, "no class 'rein'; did you mean 'rain'?"),
        ({"calm": 0.5, "rain": 0.3}, "the probabilities add up to 0.8"),
        ({"calm": -0.5, "rain": 1.5}, "column 'score.calm': this is no probability"),
        ({}, "the probabilities add up to 0"),
    ],
)
def test_a_score_that_is_no_answer_refuses_the_whole_delivery(send: Sender, score: Any, said: str) -> None:
    refused = send.told({"calm": 1.0}, score)
    assert (refused.status_code, refused.json()["row"], refused.json()["expected"]) == (422, 1, EXPECTED)
    assert said in refused.json()["error"]
    assert send.rows() == []


def test_a_score_by_class_is_no_answer_of_one_number(world: World) -> None:
    elsewhere = ServedElsewhere(signature=SIGNATURE, score="proba")
    world.follow(weather=RoutedSystem(task="classification", output="probability", elsewhere=elsewhere))
    send = object.__new__(Sender)
    send.world, send.app = world, DataPlaneApp(world.plane, world.clock, lambda: "generated")
    refused = send.told({"calm": 1.0})
    assert refused.status_code == 422
    assert "is not by class; expected a probability, from 0 to 1" in refused.json()["error"]


def tensor(*values: float, shape: tuple[int, ...] = (1, 3), name: str = "shares", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": "FP64", "data": list(values)} | more


def test_a_tensor_of_a_response_has_the_classes_in_their_order(send: Sender) -> None:
    named = {"name": "class", "shape": [2], "datatype": "BYTES", "data": ["rain", "calm"]}
    answer = send.answered({"outputs": [tensor(0.2, 0.5, 0.3, 1, 0, 0, shape=(2, 3)), named], "model_version": "7"})
    assert answer.status_code == 200, answer.text
    assert send.rows() == [(0.2, 0.5, 0.3), (1.0, 0.0, 0.0)]


def test_probabilities_behind_the_json_are_read(send: Sender) -> None:
    raw = struct.pack("<3d", 0.25, 0.25, 0.5)
    output = {"name": "shares", "shape": [1, 3], "datatype": "FP64", "parameters": {"binary_data_size": len(raw)}}
    assert send.answered(json.dumps({"outputs": [output]}).encode() + raw).status_code == 200
    assert send.rows() == [(0.25, 0.25, 0.5)]


@pytest.mark.parametrize(
    "predictions",
    [
        [[0.2, 0.5, 0.3], [0, 0, 1]],
        [{"calm": 0.2, "rain": 0.5, "storm": 0.3}, {"storm": 1}],
        [{"shares": [0.2, 0.5, 0.3]}, {"shares": [0, 0, 1]}],
        [{"class": "rain", "shares": {"calm": 0.2, "rain": 0.5, "storm": 0.3}}, {"shares": {"storm": 1}}],
    ],
)
def test_version_1_answers_are_lists_or_name_their_classes(send: Sender, predictions: Any) -> None:
    assert send.answered({"predictions": predictions}).status_code == 200
    assert send.rows() == [(0.2, 0.5, 0.3), (0.0, 0.0, 1.0)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"outputs": [tensor(0.5, 0.5, shape=(1, 2))]}, "has 2 values a row"),
        ({"outputs": [tensor(0.2, 0.5, 0.3, shape=(3,))]}, "in this order: calm, rain, storm"),
        ({"outputs": [tensor(0.2, 0.5, 0.3, shape=(3, 1))]}, "has 1 values a row"),
        ({"outputs": [tensor(0.9, 0.5, 0.3)]}, "the probabilities add up to 1.7"),
        ({"outputs": [tensor(-2.0, 2.5, 0.5)]}, "column 'shares.calm': -2 is no answer"),
        ({"outputs": [tensor(1.000002, 0, 0)]}, "column 'shares.calm': 1.000002 is no answer"),
        ({"outputs": [tensor(0.5, 0.5, 0.0100001)]}, "the probabilities add up to 1.0100001;"),
        ({"predictions": [{"calm": 0.5, "rein": 0.5}]}, "no class 'rein'; did you mean 'rain'?"),
        ({"predictions": [{"calm": 1}, {"shares": {"calm": 1}}]}, "is not a single number"),
        ({"predictions": [0, 2]}, "has 1 values a row"),
        ({"predictions": [{"shares": {"calm": 1}}, {"shares": 2}]}, "is not a single number"),
        ({"predictions": [{"shares": {"calm": True}}]}, "this is no probability"),
        ({"predictions": [{"shares": {"calm": int("9" * 400)}}]}, "this is no probability"),
    ],
)
def test_a_payload_that_is_no_answer_of_these_classes_is_refused(send: Sender, body: Any, said: str) -> None:
    refused = send.answered(body)
    assert refused.status_code == 422, refused.text
    assert said in refused.json()["error"]
    assert send.rows() == []


NUMBERS = st.one_of(st.floats(0, 1), st.sampled_from([0, 1, 0.5, -1, 2, True, None, "x", 10**30]))
SCORES = st.one_of(
    NUMBERS, st.lists(NUMBERS, max_size=4), st.dictionaries(st.sampled_from([*CLASSES, "other"]), NUMBERS, max_size=4)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(SCORES, st.fixed_dictionaries({"shares": SCORES})), min_size=1, max_size=3))
@pytest.mark.slow
def test_any_answers_are_recorded_whole_or_refused_as_the_clients_fault(send: Sender, given: list[Any]) -> None:
    before = len(send.rows())
    for answer in (send.told(*given), send.answered({"predictions": given})):
        assert answer.status_code in (200, 422, 400), answer.text
    for row in send.rows()[before:]:
        assert abs(sum(row) - 1) <= 0.01
