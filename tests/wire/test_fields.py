"""What is said of a body with a field that its endpoint does not have, or rows with a column that is none."""

import asyncio
import json

import httpx
import msgspec
import pytest

from holdfast.wire.fields import SHAPES, hint
from holdfast.wire.http import DataPlaneApp


def refused(kind, body):
    """What msgspec and the hint say of a body."""
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.json.decode(body, type=SHAPES[kind].body)
    return f"{error.value}{hint(str(error.value), kind)}"


@pytest.mark.parametrize(
    ("kind", "body", "meant"),
    [
        ("labels", b'{"key": 24000, "label": 1}', "'key' stands in each entry of 'labels'"),
        ("labels", b'{"label": 1, "key": 24000}', "'label' stands in each entry of 'labels'"),
        ("labels", b'{"keys": [24000], "labels": [1]}', "known: labels"),
        ("labels", b'{"labels": [{"keys": 24000, "label": 1}]}', "did you mean 'key'?"),
        ("labels", b'{"labels": [{"key": 24000, "value": 1}]}', "known: key, known_at, label, revision, source"),
        ("predictions", b'{"id": "req-1", "score": 0.5}', "'id' stands in each entry of 'predictions'"),
        ("predictions", b'{"predictions": [{"id": "a", "scores": 0.5}]}', "did you mean 'score'?"),
        ("predict", b'{"rows": [{}], "key": ["a"]}', "did you mean 'keys'?"),
    ],
)
def test_a_field_is_held_against_those_of_its_endpoint_and_level(kind, body, meant):
    said = refused(kind, body)
    assert meant in said
    assert said.endswith(f"send {SHAPES[kind].example}")


@pytest.mark.parametrize(
    ("kind", "body"), [("labels", b"[]"), ("labels", b"{}"), ("predictions", b"{}"), ("infer", b'{"input": []}')]
)
def test_a_body_of_another_form_is_told_the_form(kind, body):
    assert refused(kind, body).endswith(f"; send {SHAPES[kind].example}")


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_the_example_of_a_body_has_the_fields_that_it_needs(kind):
    shape = SHAPES[kind]
    required = [
        f.name for each in (shape.body, shape.entry) if each for f in msgspec.structs.fields(each) if f.required
    ]
    assert all(f'"{name}": ' in shape.example for name in required)


def test_what_is_wrong_with_a_value_needs_no_form():
    assert refused("labels", b'{"labels": [{"key": 1.5, "label": 1}]}').endswith("`$.labels[0].key`")


@pytest.fixture
def predict(served):
    """Sends a body to be predicted and gives the status and the error."""

    async def send(body):
        transport = httpx.ASGITransport(app=DataPlaneApp(served.plane, served.clock, lambda: "generated"))
        async with httpx.AsyncClient(transport=transport, base_url="http://holdfast") as client:
            return await client.post("/predict/flights", content=json.dumps(body).encode())

    def sent(body):
        answer = asyncio.run(send(body))
        return answer.status_code, answer.json().get("error", "")

    return sent


def test_a_row_as_its_feed_has_it_is_told_where_its_times_go(predict, row):
    status, said = predict(row | {"id": "a", "booked_at": "2013-01-05T10:00:00Z"})
    assert status == 422
    assert "unknown column 'booked_at'" in said
    assert "send it as `event_at` beside `rows`" in said
    example = json.loads(said.partition("`features_known_at`: ")[2].replace("...", ""))
    assert predict(example | {"rows": [row | {"id": "a"}]}) == (200, "")


def test_key_and_unit_are_among_the_known_columns(predict, row):
    assert predict({"zzz": 1} | row)[1].endswith("'id' as its key, 'tailnum' as its unit")
    assert "as its key" not in predict(row | {"distanse": 1})[1]
