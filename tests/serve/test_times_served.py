"""A column of times on its way from a request to the lake, over each way in; what is no time is a 422."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.inputs import read_frame, read_json, reader_of
from holdfast.core.signature import Column, Rows, Signature
from holdfast.core.times import MISSING_TIME
from holdfast.errors import InvalidInput
from holdfast.serve.reading import Reading
from holdfast.wire.http import DataPlaneApp
from holdfast.wire.openapi import description
from holdfast.wire.protocol import model_metadata
from holdfast.wire.tensors import from_bytes, instants

SIGNATURE = Signature(
    columns=(
        Column(name="booked_at", type="time"),
        Column(name="distance", type="number", low=0, high=10),
        Column(name="paid_at", type="time", nullable=False),
    ),
    task="classification",
    output="probability",
)
AT = "2013-01-05T10:00:00Z"
AT_US = 1_357_380_000_000_000
ROW = {"booked_at": AT, "distance": 1.5, "paid_at": "2013-01-05T11:30:00+01:00"}


class Hours:
    """Answers the hour of `paid_at`, UTC."""

    signature = SIGNATURE

    def predict(self, rows: Rows) -> Any:
        return rows.columns["paid_at"] / 3.6e9 % 24


@pytest.fixture
def ask(world) -> Iterator[Callable[..., httpx.Response]]:
    """Sends requests, in one event loop, to a system whose model takes times."""
    world.models["v1"] = Hours()
    world.models["v2"] = Hours()
    world.serve()
    ids = itertools.count()
    app = DataPlaneApp(world.plane, world.clock, lambda: f"r{next(ids)}")

    def send(path: str, body: Any = None, **headers: str) -> httpx.Response:
        async def once() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://h") as client:
                content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
                return await client.request("GET" if body is None else "POST", path, content=content, headers=headers)

        return runner.run(once())

    with asyncio.Runner() as runner:
        yield send


def tensors(booked: Any, paid: Any, datatype: str, count: int = 1) -> dict[str, Any]:
    named = {"booked_at": (datatype, booked), "distance": ("FP64", [1.5] * count), "paid_at": (datatype, paid)}
    return {
        "inputs": [
            {"name": name, "shape": [count], "datatype": kind, "data": data} for name, (kind, data) in named.items()
        ]
    }


def test_plain_rows_and_tensors_of_text_and_of_numbers_are_the_same_to_the_model_and_in_the_lake(world, ask) -> None:
    answers = [
        ask("/predict/flights", ROW).json()["predictions"][0]["probability"],
        ask("/predict/flights", {"rows": [ROW] * 20}).json()["predictions"][19]["probability"],
    ]
    half = AT_US + 1_800_000_000
    for body in (
        tensors([AT], [ROW["paid_at"]], "BYTES"),
        tensors([AT_US], [half], "INT64"),
        tensors([AT_US, None], [half, half], "INT64", 2),
    ):
        answered = ask("/v2/models/flights/infer", body)
        assert answered.status_code == 200, answered.text
        answers.append(answered.json()["outputs"][0]["data"][0])
    assert answers == [10.5] * 5
    recorded = world.recorded()
    assert set(recorded["in.paid_at"]) == {float(half)}
    assert set(recorded["in.booked_at"]) == {float(AT_US), None}
    assert set(recorded["outside"]) == {0}
    again = read_frame(SIGNATURE, recorded.rename(lambda name: name.removeprefix("in.")))
    sent = read_json(SIGNATURE, [ROW])
    np.testing.assert_array_equal(again.numbers[0], sent.numbers[0])


def test_numbers_as_bytes_say_missing_by_their_least(world, ask) -> None:
    header = {
        "inputs": [
            {"name": name, "shape": [1], "datatype": datatype, "parameters": {"binary_data_size": 8}}
            for name, datatype in (("booked_at", "INT64"), ("distance", "FP64"), ("paid_at", "INT64"))
        ]
    }
    head = json.dumps(header).encode()
    raw = np.array([MISSING_TIME], "<i8").tobytes() + np.array([1.5]).tobytes() + np.array([AT_US], "<i8").tobytes()
    answered = ask("/v2/models/flights/infer", head + raw, **{"inference-header-content-length": str(len(head))})
    assert answered.status_code == 200, answered.text
    assert world.recorded()["in.booked_at"].to_list() == [None]


def test_a_canary_takes_the_same_tensors(world, ask) -> None:
    world.serve(canary="v2", share=0.5)
    count = 40
    body = tensors([MISSING_TIME] * count, [AT_US] * count, "INT64", count)
    body["parameters"] = {"unit": [f"u{i}" for i in range(count)]}
    answered = ask("/v2/models/flights/infer", body)
    assert answered.status_code == 200, answered.text
    assert set(answered.json()["outputs"][0]["data"]) == {10.0}
    assert set(answered.json()["parameters"]["versions"]) == {"1", "2"}


@pytest.mark.parametrize(
    ("change", "column", "words"),
    [
        ({"booked_at": "2013-01-05T10:00:00"}, "booked_at", "has no offset from UTC, so it says no time"),
        ({"booked_at": 5}, "booked_at", "5 is not a time"),
        ({"booked_at": "soon"}, "booked_at", "'soon' is not a time"),
        ({"paid_at": None}, "paid_at", "is missing"),
    ],
)
def test_what_is_no_time_is_a_422_that_names_it(ask, change, column, words) -> None:
    optional = ", or null" if column == "booked_at" else ""
    expected = f"a time with an offset, for example 2013-01-05T10:00:00Z{optional}"
    refused = ask("/predict/flights", {"rows": [ROW, ROW | change]})
    assert (refused.status_code, refused.json()["row"], refused.json()["column"]) == (422, 1, column)
    assert words in refused.json()["error"]
    assert refused.json()["expected"] == expected


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT32", "UINT64"])
def test_a_tensor_of_another_datatype_says_no_time(ask, datatype) -> None:
    refused = ask("/v2/models/flights/infer", tensors([1], [1], datatype))
    assert refused.status_code == 422
    assert refused.json()["error"].startswith(f"input 'booked_at' is {datatype}, which says no time; send BYTES")
    assert (refused.json()["column"], refused.json()["expected"]) == ("booked_at", "BYTES or INT64")


def test_one_tensor_of_all_columns_is_refused(ask) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "INT64", "data": [AT_US, 1, AT_US]}]}
    refused = ask("/v2/models/flights/infer", body)
    assert refused.status_code == 422
    assert "column 'booked_at' is a time, so the columns do not fit into one tensor" in refused.json()["error"]


def test_metadata_say_the_datatypes_of_a_time_and_offer_no_packed_tensor(ask) -> None:
    booked, _, paid = ask("/v2/models/flights").json()["inputs"]
    assert booked == {
        "name": "booked_at",
        "datatype": "BYTES",
        "shape": [-1],
        "parameters": {"type": "time", "nullable": True, "datatypes": ["BYTES", "INT64"]},
    }
    assert paid["parameters"]["nullable"] is False
    assert model_metadata("flights", ["1"], SIGNATURE).parameters.packed_input is None
    assert b"A time is ISO 8601 text with its offset" in description()


values = st.one_of(
    st.none(),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.datetimes().map(lambda time: f"{time.isoformat()}+0530"),
    st.datetimes().map(datetime.isoformat),
    st.sampled_from([AT, "2013-01-05T10:00Z", "2013-01-05", "2013-01-05 10:00:00.1234567z", "", 5, 1.5, True, [AT]]),
)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=4))
def test_the_single_pass_reads_what_the_general_way_reads_or_leaves_it(rows: list[tuple[Any, Any]]) -> None:
    sent = [{"booked_at": booked, "distance": 1.5, "paid_at": paid} for booked, paid in rows]
    reading = Reading(SIGNATURE, "id", "")
    named = tensors([booked for booked, _ in rows], [paid for _, paid in rows], "BYTES", len(rows))
    for read, general in (
        (reading.rows(json.dumps({"rows": sent}).encode()), sent),
        (reading.rows(json.dumps(sent[0]).encode()), sent[:1]),
        (reading.tensors(json.dumps(named).encode()), sent),
    ):
        if read is None:
            continue
        matrix = np.array(read.values, dtype=np.float64).reshape(read.count, 3)
        quick = reader_of(SIGNATURE).checked(matrix, {})
        try:
            expected = read_json(SIGNATURE, general)
        except InvalidInput:
            assert quick is None
            continue
        assert quick is not None
        np.testing.assert_array_equal(quick.numbers, expected.numbers)


def test_the_single_pass_takes_rows_and_text_and_leaves_numbers() -> None:
    reading = Reading(SIGNATURE, "id", "")
    read = reading.rows(json.dumps(ROW | {"id": "a"}).encode())
    assert read is not None
    assert (read.values, read.keys) == ([AT_US, 1.5, AT_US + 1_800_000_000], ["a"])
    read = reading.tensors(json.dumps(tensors([AT], [ROW["paid_at"]], "BYTES")).encode())
    assert read is not None
    assert read.values == [AT_US, 1.5, AT_US + 1_800_000_000]
    assert reading.tensors(json.dumps(tensors([AT_US], [AT_US], "INT64")).encode()) is None


def test_text_in_bytes_is_a_time_too() -> None:
    raw = len(AT).to_bytes(4, "little") + AT.encode()
    assert instants(from_bytes("booked_at", "BYTES", [1], raw)) == [AT]
