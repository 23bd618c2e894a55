"""Answers of one probability per class on their way: run, split, recorded, told in each protocol; labels that come."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.classes import make_task
from holdfast.core.inputs import read_json
from holdfast.core.signature import Rows, Signature
from holdfast.errors import HoldfastError, InvalidInput
from holdfast.scoring.stream import _answers, _recorded
from holdfast.serve.recording import RowMeta, prediction_fields
from holdfast.serve.requests import PredictAnswer, PredictRequest
from holdfast.testing.serving import World
from holdfast.wire.grpcinfer import infer_response
from holdfast.wire.plain import predict_answer, take_labels
from holdfast.wire.protocol import model_metadata, output_tensors

CLASSES = ("a", "b", "c")
PARTS = [f"out.probability.{name}" for name in CLASSES]


class Shares:
    """Answers class b surer by the hour; nothing at hour 0, one number at hour 13."""

    def __init__(self, signature: Signature, plus: float) -> None:
        self.signature, self.plus = signature, plus

    def predict(self, rows: Rows) -> np.ndarray:
        hours = rows.columns["dep_hour"]
        if (hours == 13).any():
            return hours
        b = hours / 24 * self.plus
        told = np.stack([(1 - b) * 0.6, b, (1 - b) * 0.4], axis=1)
        told[hours == 0, 0] = np.nan
        return told


@pytest.fixture
def served(world: World, signature: Signature, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose version 1 answers classes, and whose canary for half of the units is less sure of b."""
    several = replace(signature, task="multiclass", classes=CLASSES)
    plus = {"v1": 1.0, "v2": 0.5}
    monkeypatch.setattr(world, "load", lambda version: Shares(several, plus[version.artifact]))
    world.plane._load = world.load
    routed = replace(world.system("v1", canary="v2", share=0.5), task="multiclass", classes=CLASSES)
    assert world.follow(flights=routed).held == {}
    return world


def ask(world: World, row: dict[str, Any], hours: list[int], **more: Any) -> PredictAnswer:
    rows = [row | {"dep_hour": hour, "tailnum": f"N{i}"} for i, hour in enumerate(hours)]
    return world.plane.predict("flights", PredictRequest(request_id="q", rows=rows, **more))


def test_each_row_is_answered_by_its_version_and_recorded_with_all_its_numbers(served: World, row) -> None:
    answer = ask(served, row, [12] * 40)
    assert answer.outputs.shape == (40, 3)
    assert set(answer.versions) == {"1", "2"}
    expected = {"1": [0.3, 0.5, 0.2], "2": [0.45, 0.25, 0.3]}
    for output, version in zip(answer.outputs, answer.versions, strict=True):
        assert output == pytest.approx(expected[version])
    recorded = served.recorded().sort("row")
    assert recorded["version"].to_list() == list(answer.versions)
    assert recorded.select(PARTS).to_numpy() == pytest.approx(answer.outputs)


def test_a_row_that_fails_in_one_number_failed(served: World, row) -> None:
    answer = ask(served, row, [0, 12], version="1")
    assert answer.likeliest == [None, "b"]
    recorded = served.recorded().sort("row")
    assert recorded["status"].to_list() == ["failed", "ok"]
    assert recorded.select(PARTS).row(0) == (None, None, None)
    told = msgspec.json.decode(msgspec.json.encode(predict_answer(answer)))["predictions"][0]
    assert told["class"] is None
    assert told["probability"] == {"a": None, "b": None, "c": None}
    assert np.isnan(output_tensors(answer)[0].data[:3]).all()


def test_a_model_that_answers_one_number_instead_fails_its_request_alone(served: World, row) -> None:
    with pytest.raises(HoldfastError, match="version 1 of 'flights' failed"):
        ask(served, row, [13], version="1")
    [failed] = served.recorded().to_dicts()
    assert failed["status"] == "failed"
    assert "outputs of shape (1,) for 1 rows" in failed["error"]


def test_many_rows_at_once_are_answered_like_single_ones(served: World, row) -> None:
    lane = served.plane.lanes("flights").lane()
    rows = read_json(lane.signature, [row | {"dep_hour": hour} for hour in range(1, 13)])
    ids = [f"q{i}" for i in range(12)]
    meta = RowMeta(request_id=ids, unit=ids, predicted_at=np.zeros(12, dtype=np.int64))
    outputs = served.plane.predict_rows("flights", rows, meta)
    assert outputs.shape == (12, 3)
    assert outputs.sum(axis=1) == pytest.approx(np.ones(12))
    assert served.recorded().height == 12


def test_a_canary_is_run_apart(served: World) -> None:
    lanes = served.plane.lanes("flights")
    assert lanes.reading is not None
    assert lanes.pair is None


def test_the_record_has_a_column_per_class_behind_the_inputs(signature: Signature) -> None:
    several = replace(signature, classes=CLASSES)
    assert [field.name for field in prediction_fields(several)][-3:] == PARTS
    assert [field.name for field in prediction_fields(signature)][-1] == "out.probability"


def test_the_protocol_tells_probabilities_and_class(served: World, row) -> None:
    answer = ask(served, row, [12, 23], version="1")
    probability, named = output_tensors(answer)
    assert (probability.shape, named.shape, named.data) == ((2, 3), (2,), ["b", "b"])
    assert [tensor.name for tensor in output_tensors(answer, ["class"])] == ["class"]
    for is_raw in (False, True):
        response = infer_response(answer, is_raw=is_raw)
        assert [(each.name, list(each.shape), each.datatype) for each in response.outputs] == [
            ("probability", [2, 3], "FP64"),
            ("class", [2], "BYTES"),
        ]
    assert response.raw_output_contents[1] == b"\x01\0\0\0b\x01\0\0\0b"
    assert list(infer_response(answer, is_raw=False, wanted=["class"]).outputs[0].contents.bytes_contents) == [b"b"] * 2
    about = model_metadata("flights", ["1"], served.plane.signature("flights"))
    assert [(each.name, each.shape) for each in about.outputs] == [("probability", (-1, 3)), ("class", (-1,))]


@pytest.fixture
def deliver(served: World) -> Callable[..., dict[str, Any]]:
    def made(*labels: Any) -> dict[str, Any]:
        body = msgspec.json.encode({"labels": [{"key": f"k{i}", "label": label} for i, label in enumerate(labels)]})
        task = make_task("multiclass", CLASSES)
        return asyncio.run(take_labels(body, "flights", task, served.plane.recorder, served.clock))

    return made


def test_labels_are_recorded_by_name_and_place(served: World, deliver) -> None:
    taken = deliver("c", "a", "z", "z", 7)
    assert (taken["recorded"], taken["unknown_classes"]) == (5, ["7", "z"])
    kept = served.lake.scan("labels", "flights").sort("key")
    assert kept.select("class", "value").rows() == [("c", 2.0), ("a", 0.0), ("z", -1.0), ("z", -1.0), ("7", -1.0)]
    assert "unknown_classes" not in deliver("b")


@pytest.mark.parametrize("label", [True, 1.5, " "])
def test_a_label_that_is_no_class_is_refused_with_its_row(served: World, deliver, label: Any) -> None:
    with pytest.raises(InvalidInput, match="row 1") as refused:
        deliver("a", label)
    assert refused.value.expected == "a class: text or a whole number"
    assert served.lake.scan("labels", "flights").is_empty()


def test_a_stream_sends_the_probability_of_each_class(served: World, row) -> None:
    lane = served.plane.lanes("flights").lane()
    meta = RowMeta(request_id=["q", "r"], key=["k", None], predicted_at=np.zeros(2, dtype=np.int64))
    outputs = np.array([[0.2, 0.5, 0.3], [np.nan, 0.5, 0.3]])
    sent = [each.output for each in _answers(lane, meta, outputs, np.zeros(2, dtype=np.int64))]
    assert sent == [{"a": 0.2, "b": 0.5, "c": 0.3}, None]
    ask(served, row, [12], version="1")
    parts = dict(zip(PARTS, CLASSES, strict=True))
    [(place, again)] = _recorded(served.recorded(), {"q:0": 4}, "flights", parts)
    assert (place, again.output) == (4, {"a": 0.3, "b": 0.5, "c": 0.2})
    assert list(_recorded(pl.DataFrame(), {}, "flights", parts)) == []
