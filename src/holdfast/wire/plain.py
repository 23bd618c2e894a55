"""Plain JSON for people: rows as objects in, predictions as objects out; and labels."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np

from holdfast.core.classes import class_name, class_of
from holdfast.core.clock import Clock
from holdfast.core.protocols import Task
from holdfast.core.times import AwareTime, microseconds
from holdfast.errors import InvalidInput
from holdfast.serve.recording import Recorder
from holdfast.serve.requests import CLASS, PredictAnswer, PredictRequest

AHEAD = timedelta(minutes=10)
"""How far the clock of whoever delivers labels may run ahead of this one."""


class PlainRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several rows, with what may be known about each. A body without `rows` is one row by itself."""

    rows: list[dict[str, Any]]
    id: str = ""
    version: str = ""
    keys: list[Any] | None = None
    units: list[Any] | None = None
    event_at: list[AwareTime | None] | None = None
    features_known_at: list[AwareTime | None] | None = None


class PlainLabel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The truth for one key: true or false, a number, or a class. `known_at` is when it became known, now by default; a
    higher `revision` corrects."""

    key: str | int
    label: bool | float | str
    known_at: AwareTime | None = None
    source: str = ""
    revision: int = 0


class PlainLabels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a label delivery."""

    labels: list[PlainLabel]


_decode_any = msgspec.json.Decoder().decode
_decode_labels = msgspec.json.Decoder(PlainLabels).decode


def read_predict(body: bytes, *, request_id: str, caller: str = "") -> PredictRequest:
    """A plain request. `request_id` counts where the body has no id; `caller` is the name of its token.

    Raises msgspec.DecodeError for malformed JSON or fields of the wrong type, InvalidInput for what is no object.
    """
    decoded = _decode_any(body)
    if not isinstance(decoded, dict):
        raise InvalidInput(
            f"the body is {type(decoded).__name__}, not an object", expected='{"rows": [{...}, ...]} or one row {...}'
        )
    if "rows" not in decoded:
        return PredictRequest(request_id=request_id, rows=[decoded], caller=caller)
    plain = msgspec.convert(decoded, PlainRequest)
    return PredictRequest(
        request_id=plain.id or request_id,
        rows=plain.rows,
        version=plain.version,
        keys=plain.keys,
        units=plain.units,
        event_at=plain.event_at,
        features_known_at=plain.features_known_at,
        caller=caller,
    )


def predict_answer(answer: PredictAnswer) -> dict[str, Any]:
    """An answer as plain JSON values: one object per row; an output that is not finite is null."""
    rows = zip(_said(answer), answer.versions, answer.stages, answer.outside.tolist(), strict=True)
    return {
        "request_id": answer.request_id,
        "predictions": [
            {
                **output,
                "prediction_id": f"{answer.request_id}:{i}",
                "version": version,
                "stage": stage,
                "outside": outside,
            }
            for i, (output, version, stage, outside) in enumerate(rows)
        ],
    }


def _said(answer: PredictAnswer) -> list[dict[str, Any]]:
    """What was answered, row by row: the output, or the most likely class and the probability of each."""
    if not answer.classes:
        return [{answer.output: output} for output in answer.outputs.tolist()]
    return [
        {CLASS: name, answer.output: dict(zip(answer.classes, row, strict=True))}
        for name, row in zip(answer.likeliest, answer.outputs.tolist(), strict=True)
    ]


async def take_labels(body: bytes, system: str, task: Task, recorder: Recorder, clock: Clock) -> dict[str, Any]:
    """Record a delivery of labels and say under which ids; all of it or nothing.

    Raises msgspec.DecodeError or InvalidInput for what is no such body, StateError when it cannot be recorded.
    """
    labels = _decode_labels(body).labels
    if not labels:
        raise InvalidInput("the delivery has no labels", expected="at least one label")
    latest = clock.now() + AHEAD
    for row, label in enumerate(labels):
        given = label.label if task.classes or isinstance(label.label, str) else float(label.label)
        if expected := task.refuses_label(given):
            raise InvalidInput(
                f"row {row}: {label.label} is no label of this system", row=row, column="label", expected=expected
            )
        if label.known_at is not None and label.known_at > latest:
            raise InvalidInput(
                f"row {row}: a label cannot be known at {label.known_at.isoformat()}, which has not come yet",
                row=row,
                column="known_at",
                expected="a time that is not in the future",
            )
    names = [class_name(label.label) for label in labels] if task.classes else None
    values = [class_of(name, task.classes) for name in names] if names else [float(label.label) for label in labels]
    now = microseconds(clock.now())
    known_at = [now if label.known_at is None else microseconds(label.known_at) for label in labels]
    recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ids = recorder.record_labels(
        system,
        output=task.output,
        keys=[str(label.key) for label in labels],
        values=np.array(values, dtype=np.float64),
        classes=names,
        known_at=np.array(known_at, dtype=np.int64),
        ingested_at=np.full(len(labels), now, dtype=np.int64),
        source=[label.source for label in labels],
        revisions=np.array([label.revision for label in labels], dtype=np.int64),
        done=lambda error: recorded.set_exception(error) if error else recorded.set_result(None),
    )
    await recorded
    unknown = sorted({name for name in names or () if name not in task.classes})
    # Recorded all the same, as a class that no version could have answered: left out, quality would look better.
    return {"recorded": len(ids), "label_ids": ids} | ({"unknown_classes": unknown} if unknown else {})
