"""Answers that were given elsewhere, handed in over HTTP: plain JSON, and the payloads of a model server's logger.

Payloads come as CloudEvents 1.0 (github.com/cloudevents/spec), in binary, structured or batched mode, of the types that
KServe's logger sends: the request when it came, the response when it went, the same ``id`` on both. Their data are
bodies of the Open Inference Protocol, version 2, or of version 1 (``instances`` and ``predictions``).
"""

import asyncio
import base64
import binascii
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

import msgspec
import numpy as np

from holdfast.core.clock import Clock
from holdfast.core.inputs import read_columns, read_json, read_matrix, reader_of
from holdfast.core.routes import RoutedSystem, ServedElsewhere
from holdfast.core.signature import Rows
from holdfast.core.specelsewhere import ROUNDING, TOLERANCE
from holdfast.core.times import AwareTime, microseconds
from holdfast.errors import InvalidInput, NotFound, did_you_mean
from holdfast.serve.recording import Arrival, FloatArray, Recorder
from holdfast.serve.requests import texts_of
from holdfast.wire.plain import AHEAD
from holdfast.wire.protocol import typed_request, usable
from holdfast.wire.rest import RequestInput, read_infer
from holdfast.wire.tensors import Tensor, floats, from_bytes, from_values

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
LONG_AGO = timedelta(days=400)
"""An answer of before then is refused: more likely its time is wrong. A longer history is read as a log."""
LONGEST_VERSION = 200
"""Most characters of what an answer calls its version: it is recorded with every row."""
PROBABILITY = "probability"
"""The output of a task of classes, which lies in [0, 1]."""


class PlainPrediction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer that was given elsewhere: what it was made from and what it was.

    `score` is a number, or the probability of each class by its name. `at` is when it was given, now by default; `key`
    is what a label is matched on, `id` by default.
    """

    id: str | int
    score: float | dict[str, float]
    inputs: dict[str, Any]
    key: str | int | None = None
    version: str = ""
    at: AwareTime | None = None


class PlainPredictions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a delivery of answers that were given elsewhere."""

    predictions: list[PlainPrediction]


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event: its context attributes, as text, and its data."""

    attributes: Mapping[str, str]
    data: bytes


class _Structured(msgspec.Struct, frozen=True, kw_only=True):
    specversion: str
    id: str
    type: str
    source: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | None = ""
    datacontenttype: str | None = "application/json"


class _Outputs(msgspec.Struct, frozen=True, kw_only=True):
    outputs: list[RequestInput]
    model_version: str | None = None


_DATA = frozenset({"data", "data_base64"})
"""What an event has beside its attributes."""

_decode_predictions = msgspec.json.Decoder(PlainPredictions).decode
_decode_any = msgspec.json.Decoder().decode
_decode_outputs = msgspec.json.Decoder(_Outputs).decode
_decode_structured = msgspec.json.Decoder(_Structured).decode
_to_time = msgspec.json.Decoder(AwareTime).decode


def told(system: str, routed: RoutedSystem) -> ServedElsewhere:
    """What answers of a system must look like. Raises NotFound where the system answers here itself."""
    if routed.elsewhere is None:
        raise NotFound(f"system served elsewhere ('{system}' is answered here, and records what it answers)", system)
    return routed.elsewhere


async def take_predictions(
    body: bytes, system: str, routed: RoutedSystem, recorder: Recorder, clock: Clock, *, caller: str
) -> dict[str, Any]:
    """Record answers that were given elsewhere and say under which ids; all of them or none.

    Raises msgspec.DecodeError or InvalidInput for what is no such body, StateError when it cannot be recorded.
    """
    elsewhere = told(system, routed)
    given = _decode_predictions(body).predictions
    _check_count(len(given), system, routed)
    ids = [usable(_named(each.id, row, "id")) for row, each in enumerate(given)]
    now = clock.now()
    for row, each in enumerate(given):
        if each.at is not None and each.at > now + AHEAD:
            raise InvalidInput(
                f"row {row}, column 'at': nothing was answered at {each.at.isoformat()}, which has not come yet",
                row=row,
                column="at",
                expected="a time that is not in the future",
            )
        if each.at is not None and each.at < now - LONG_AGO:
            raise InvalidInput(
                f"row {row}, column 'at': {_long_ago(each.at)}",
                row=row,
                column="at",
                expected=f"a time of the last {LONG_AGO.days} days",
            )
        _check_version(each.version, row)
    outputs = _said([each.score for each in given], "score", elsewhere, routed)
    outputs = _checked_scores(outputs, "score", elsewhere, routed)
    rows, keys = _plain_rows([each.inputs for each in given], elsewhere, routed)
    beside = [each.key if each.key is not None else key for each, key in zip(given, keys, strict=True)]
    arrival = Arrival(
        part="whole",
        request_id=ids,
        row=np.zeros(len(given), dtype=np.int64),
        key=[id if key is None else str(key) for id, key in zip(ids, beside, strict=True)],
        predicted_at=np.array([microseconds(each.at or now) for each in given], dtype=np.int64),
        version=[each.version for each in given],
        arrived_at=microseconds(now),
        caller=caller,
        inputs=rows,
        outputs=outputs,
    )
    recorded = await _recorded(system, elsewhere, arrival, recorder)
    return {"recorded": len(recorded), "prediction_ids": recorded}


async def take_events(
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    system: str,
    routed: RoutedSystem,
    recorder: Recorder,
    clock: Clock,
    *,
    caller: str,
) -> dict[str, Any]:
    """Record the payloads of CloudEvents and say how many rows they had; all of them or none.

    Raises msgspec.DecodeError or InvalidInput for what is no such event, StateError when it cannot be recorded.
    """
    elsewhere = told(system, routed)
    arrivals: list[Arrival] = []
    count = 0
    for event in read_events(body, headers, most=routed.serve.max_rows):
        arrivals.append(_arrival(event, elsewhere, routed, system, clock, caller))
        count += len(arrivals[-1].request_id)
        _check_count(count, system, routed)
    recorded = await asyncio.gather(*(_recorded(system, elsewhere, each, recorder) for each in arrivals))
    return {"recorded": sum(len(ids) for ids in recorded), "events": len(arrivals)}


def read_events(body: bytes, headers: Iterable[tuple[bytes, bytes]], *, most: int = sys.maxsize) -> list[CloudEvent]:
    """The events of a request: one, or those of a batch, which are `most` at most.

    Raises msgspec.DecodeError, or InvalidInput.
    """
    texts = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    kind = texts.get("content-type", "").partition(";")[0].strip().lower()
    if kind == BATCHED:
        every = msgspec.json.decode(body, type=list[msgspec.Raw])
        if len(every) > most:
            raise InvalidInput(
                f"{len(every)} events in one batch, {most} rows are taken at most; send smaller batches or raise "
                "serve.max_rows",
                row=most,
                expected=f"at most {most} events, each of which has a row at least",
            )
        return [_structured(bytes(each)) for each in every]
    if kind == STRUCTURED:
        return [_structured(body)]
    attributes = {name[3:]: unquote(value) for name, value in texts.items() if name.startswith("ce-")}
    _check_attributes(attributes, "header ce-")
    return [CloudEvent(attributes=attributes, data=body)]


def _structured(body: bytes) -> CloudEvent:
    event, every = _decode_structured(body), _decode_any(body)
    attributes = {
        name: _attribute(name, value) for name, value in every.items() if name not in _DATA and value is not None
    }
    _check_attributes(attributes, "attribute ")
    if event.data_base64:
        try:
            data = base64.b64decode(event.data_base64, validate=True)
        except binascii.Error as error:
            raise InvalidInput(f"data_base64 is not base64: {error}", column="data_base64") from error
    elif event.data is msgspec.UNSET:
        raise InvalidInput("the event has neither 'data' nor 'data_base64'", column="data", expected="its payload")
    else:
        data = bytes(event.data)
        if data[:1] == b'"':  # a payload that is written as text
            data = msgspec.json.decode(data, type=str).encode()
    return CloudEvent(attributes=attributes, data=data)


def _attribute(name: str, value: Any) -> str:
    """An attribute as text, which is what it is in a header."""
    if isinstance(value, list | dict):
        raise InvalidInput(
            f"attribute '{name[:80]}' is {'an object' if isinstance(value, dict) else 'a list'}; the attributes of a "
            "CloudEvent are single values",
            column=name,
            expected="text, a number, or true or false",
        )
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_attributes(attributes: Mapping[str, str], where: str) -> None:
    if "id" not in attributes or "type" not in attributes:
        lacking = "id" if "id" not in attributes else "type"
        raise InvalidInput(
            f"this is no CloudEvent: there is no {where}{lacking}; send CloudEvents 1.0, as the logger of KServe does",
            column=f"{where}{lacking}".removeprefix("header ").removeprefix("attribute "),
            expected=f"headers ce-id, ce-type and so on, or a body of type {STRUCTURED}",
        )
    version = attributes.get("specversion", "1.0")
    if version != "1.0":
        raise InvalidInput(f"CloudEvents {version[:20]} are not read", column="specversion", expected="1.0")
    if attributes["type"] not in (REQUEST, RESPONSE):
        near = did_you_mean(attributes["type"], (REQUEST, RESPONSE))
        raise InvalidInput(
            f"an event of type '{attributes['type'][:80]}' says nothing about an answer{near}",
            column="type",
            expected=f"{REQUEST} or {RESPONSE}",
        )


def _arrival(
    event: CloudEvent, elsewhere: ServedElsewhere, routed: RoutedSystem, system: str, clock: Clock, caller: str
) -> Arrival:
    """What one event tells."""
    id, now = usable(event.attributes["id"]), clock.now()
    at = _time(event.attributes.get("time", ""))
    if at is not None and at < now - LONG_AGO:
        message = f"the time of the event: {_long_ago(at)}"
        raise InvalidInput(message, column="time", expected=f"a time of the last {LONG_AGO.days} days")
    predicted_at = microseconds(now if at is None else min(at, now))
    rows: Rows | None = None
    outputs: FloatArray | None = None
    keys: Sequence[str | None] = ()
    version = event.attributes.get(elsewhere.version, "") if elsewhere.version else ""
    if event.attributes["type"] == REQUEST:
        rows, keys = _request(event.data, elsewhere, routed)
        count = rows.count
    else:
        outputs, said = _response(event.data, elsewhere, routed)
        version, count = version or said, len(outputs)
    _check_count(count, system, routed)
    _check_version(version, 0)
    return Arrival(
        part="request" if outputs is None else "response",
        request_id=[id] * count,
        row=np.arange(count, dtype=np.int64),
        key=[key or f"{id}:{row}" for row, key in enumerate(keys or [None] * count)],
        predicted_at=np.full(count, predicted_at, dtype=np.int64),
        version=[version] * count,
        arrived_at=microseconds(now),
        caller=caller,
        inputs=rows,
        outputs=outputs,
    )


def _request(data: bytes, elsewhere: ServedElsewhere, routed: RoutedSystem) -> tuple[Rows, Sequence[str | None]]:
    """Inputs and keys of a request's payload."""
    signature = elsewhere.signature
    length = _json_length(data)
    decoded = _decode_any(data[:length])
    if isinstance(decoded, dict) and "instances" in decoded:
        return _plain_rows(_instances(decoded["instances"], elsewhere), elsewhere, routed)
    names = [column.name for column in signature.columns]
    header = "" if length == len(data) else str(length)
    asked = read_infer(data, columns=names, most_rows=routed.serve.max_rows, header_length=header).inference
    request = typed_request(asked, routed, reader_of(signature), request_id="")
    keys = texts_of(request.keys, "keys", routed.key, request.count)
    if request.matrix is not None:
        return read_matrix(signature, request.matrix), keys
    given = request.columns or {}
    return read_columns(signature, {n: v for n, v in given.items() if n in names or n != routed.key}), keys


def _instances(given: Any, elsewhere: ServedElsewhere) -> list[Any]:
    """Rows of version 1 of the protocol: objects, or lists of values in the order of the system file."""
    names = [column.name for column in elsewhere.signature.columns]
    if not isinstance(given, list):
        raise InvalidInput("'instances' is no list", column="instances", expected="a list of rows")
    rows: list[Any] = []
    for row, each in enumerate(given):
        values = each if isinstance(each, dict | list) else [each]
        if isinstance(values, list):
            if len(values) != len(names):
                raise InvalidInput(
                    f"row {row} has {len(values)} values, the system file names {len(names)} columns: "
                    f"{', '.join(names)}",
                    row=row,
                    column="instances",
                    expected=f"{len(names)} values in that order, or an object",
                )
            values = dict(zip(names, values, strict=True))
        rows.append(values)
    return rows


def _response(data: bytes, elsewhere: ServedElsewhere, routed: RoutedSystem) -> tuple[FloatArray, str]:
    """Outputs (n,), or (n, classes), of a response's payload, and what it calls its version."""
    length = _json_length(data)
    decoded = _decode_any(data[:length])
    if isinstance(decoded, dict) and "predictions" in decoded:
        outputs, version = _version1(decoded["predictions"], elsewhere, routed), ""
    else:
        response = _decode_outputs(data[:length])
        found, version = _chosen(response.outputs, memoryview(data)[length:], elsewhere), response.model_version or ""
        outputs = _scores(found, elsewhere, routed)
    return _checked_scores(outputs, elsewhere.score, elsewhere, routed), version


def _said(
    given: Sequence[float | Mapping[str, Any]], column: str, elsewhere: ServedElsewhere, routed: RoutedSystem
) -> FloatArray:
    """Outputs (n,) of numbers, or (n, classes) of probabilities by the names of the classes.

    A class that is not named was answered 0, by a version that does not know it.
    """
    classes = elsewhere.signature.classes
    outputs = np.zeros(elsewhere.signature.shape(len(given)))
    for row, each in enumerate(given):
        if isinstance(each, Mapping) != bool(classes):
            expected = _expected(elsewhere, routed)
            said = "by class" if isinstance(each, Mapping) else "a single number"
            message = f"row {row}, column '{column}': an answer of '{routed.task}' is not {said}; expected {expected}"
            raise InvalidInput(message, row=row, column=column, expected=expected)
        if not isinstance(each, Mapping):
            outputs[row] = each
            continue
        for name, value in each.items():
            if name not in classes:
                near = did_you_mean(name, classes)
                message = f"row {row}, column '{column}': no class '{name[:80]}'{near}; there are {', '.join(classes)}"
                raise InvalidInput(message, row=row, column=column, expected=_expected(elsewhere, routed))
            if isinstance(value, bool) or not isinstance(value, int | float) or not _is_probability(value):
                message = f"row {row}, column '{column}.{name}': this is no probability"
                raise InvalidInput(message, row=row, column=column, expected=_expected(elsewhere, routed))
            outputs[row, classes.index(name)] = value
    return outputs


def _is_probability(value: float) -> bool:
    return -TOLERANCE <= value <= 1 + TOLERANCE


def _version1(given: Any, elsewhere: ServedElsewhere, routed: RoutedSystem) -> FloatArray:
    """Answers as numbers, as lists, or as objects: of what an answer is called, or of the classes themselves."""
    name, classes = elsewhere.score, elsewhere.signature.classes
    if isinstance(given, list) and given and all(isinstance(each, dict) for each in given):
        told = set().union(*given)
        if name not in told and not told.isdisjoint(classes):
            return _said(given, name, elsewhere, routed)
        given = [each.get(name) for each in given]
        if classes and any(isinstance(each, dict) for each in given):
            return _said(given, name, elsewhere, routed)
    if not isinstance(given, list) or not given:
        raise InvalidInput("'predictions' is no list of answers", column="predictions", expected="one answer per row")
    width = len(given[0]) if isinstance(given[0], list) else 0
    tensor = from_values(name, "FP64", (len(given), width) if width else (len(given),), given)
    return _scores(tensor, elsewhere, routed)


def _chosen(outputs: Sequence[RequestInput], raw: memoryview, elsewhere: ServedElsewhere) -> Tensor:
    """The output that holds the answer: the one of its name, or the only one there is."""
    names = [output.name for output in outputs]
    if elsewhere.score not in names and len(outputs) != 1:
        raise InvalidInput(
            f"no output is called '{elsewhere.score}'{did_you_mean(elsewhere.score, names)}; the payload has "
            f"{', '.join(names) or 'none'}",
            column=elsewhere.score,
            expected="that output; `predictions.score` of the system file names it",
        )
    at = 0
    for output in outputs:
        size = (output.parameters or {}).get("binary_data_size")
        is_it = output.name == elsewhere.score or len(outputs) == 1
        if size is None:
            if is_it:
                return from_values(output.name, output.datatype, output.shape, output.data or [])
            continue
        if type(size) is not int or not 0 <= size <= len(raw) - at:
            message = (
                f"output '{output.name}' has a binary_data_size of {str(size)[:20]}, {len(raw) - at} bytes are left"
            )
            raise InvalidInput(message, column=output.name, expected="the number of its bytes")
        if is_it:
            return from_bytes(output.name, output.datatype, output.shape, raw[at : at + size])
        at += size
    raise AssertionError("one of them is it")


def _scores(tensor: Tensor, elsewhere: ServedElsewhere, routed: RoutedSystem) -> FloatArray:
    """One number per row, or one per class. Of two probabilities the second is that of the positive class."""
    values = floats(tensor).reshape(tensor.shape)
    if classes := elsewhere.signature.classes:
        if tensor.width == len(classes) and values.ndim == 2:
            return values
        raise InvalidInput(
            f"'{tensor.name}' has {tensor.width} values a row; an answer of '{routed.task}' is one probability for "
            f"each of {len(classes)} classes, in this order: {', '.join(classes)}",
            column=tensor.name,
            expected=f"shape [n, {len(classes)}]",
        )
    if tensor.width == 1:
        return values.reshape(-1)
    if tensor.width == 2 and routed.output == PROBABILITY:
        return values[:, 1].copy()
    raise InvalidInput(
        f"'{tensor.name}' has {tensor.width} values a row; an answer of '{routed.task}' is one number",
        column=tensor.name,
        expected="one number per row" + (", or two probabilities" if routed.output == PROBABILITY else ""),
    )


def _checked_scores(outputs: FloatArray, column: str, elsewhere: ServedElsewhere, routed: RoutedSystem) -> FloatArray:
    """The outputs, those that are a rounding error outside of [0, 1] as its end. Raises InvalidInput."""
    low, high = (0.0, 1.0) if routed.output == PROBABILITY else (-math.inf, math.inf)
    wrong = ~np.isfinite(outputs) | (outputs < low - TOLERANCE) | (outputs > high + TOLERANCE)
    expected = _expected(elsewhere, routed)
    if wrong.any():
        at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        row, where = int(at[0]), f"{column}.{elsewhere.signature.classes[at[1]]}" if wrong.ndim > 1 else column
        said = f"row {row}, column '{where}': {outputs[at]:.9g} is no answer of '{routed.task}'; expected {expected}"
        raise InvalidInput(said, row=row, column=column, expected=expected)
    outputs = np.clip(outputs, low, high)
    if outputs.ndim == 1:
        return outputs
    totals = outputs.sum(axis=1)
    wrong = np.abs(totals - 1) > ROUNDING
    if wrong.any():
        row = int(np.argmax(wrong))
        said = f"row {row}, column '{column}': the probabilities add up to {totals[row]:.9g}; expected {expected}"
        raise InvalidInput(said, row=row, column=column, expected=expected)
    return outputs


def _expected(elsewhere: ServedElsewhere, routed: RoutedSystem) -> str:
    if classes := elsewhere.signature.classes:
        return f"the probability of each class ({', '.join(classes)}), which add up to 1"
    return "a probability, from 0 to 1" if routed.output == PROBABILITY else "a finite number"


def _plain_rows(
    given: Sequence[Any], elsewhere: ServedElsewhere, routed: RoutedSystem
) -> tuple[Rows, Sequence[str | None]]:
    """Typed inputs, and the keys that stand among them."""
    names = {column.name for column in elsewhere.signature.columns}
    keys = [each.get(routed.key) if isinstance(each, dict) else None for each in given]
    if routed.key not in names:
        given = [
            {name: value for name, value in each.items() if name != routed.key} if isinstance(each, dict) else each
            for each in given
        ]
    return read_json(elsewhere.signature, given), texts_of(keys, "keys", routed.key, len(given))


def _check_count(count: int, system: str, routed: RoutedSystem) -> None:
    if not count:
        raise InvalidInput("there is no answer in it", expected="at least one row")
    if count > routed.serve.max_rows:
        most = routed.serve.max_rows
        message = (
            f"{count} rows at a time, '{system}' takes {most} at most; send several requests or raise serve.max_rows"
        )
        raise InvalidInput(message, row=most, expected=f"at most {most} rows")


def _check_version(version: str, row: int) -> None:
    if len(version) > LONGEST_VERSION:
        raise InvalidInput(
            f"row {row}: the version '{version[:40]}...' has {len(version)} characters",
            row=row,
            column="version",
            expected=f"at most {LONGEST_VERSION} characters",
        )


def _named(id: str | int, row: int, column: str) -> str:
    text = str(id)
    if not text:
        raise InvalidInput(f"row {row}: the {column} is empty", row=row, column=column, expected="text or a number")
    return text


def _long_ago(at: datetime) -> str:
    return (
        f"{at.isoformat()} is more than {LONG_AGO.days} days ago, which is taken for a mistake; answers of so long ago "
        "are read from a log, with `from` of the feed"
    )


def _time(text: str) -> Any:
    if not text:
        return None
    try:
        return _to_time(msgspec.json.encode(text))
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"the time of the event is '{text[:40]}', which is none", column="time", expected="RFC 3339"
        ) from error


def _json_length(data: bytes) -> int:
    """How long the JSON is that a payload begins with: the logger leaves out the header that says so."""
    try:
        _decode_any(data)
    except msgspec.DecodeError:
        try:
            # In Latin-1 a character is a byte, so places are those of the bytes.
            return json.JSONDecoder().raw_decode(data.decode("latin-1"))[1]
        except (ValueError, RecursionError):
            return len(data)
    return len(data)


async def _recorded(system: str, elsewhere: ServedElsewhere, arrival: Arrival, recorder: Recorder) -> list[str]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ids = recorder.record_arrival(
        system,
        elsewhere.signature,
        arrival,
        done=lambda error: done.set_exception(error) if error else done.set_result(None),
    )
    await done
    return ids
