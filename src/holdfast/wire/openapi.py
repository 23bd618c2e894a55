"""The data plane as OpenAPI 3.1 (OpenAPI Initiative, 2021), made from the types that it reads and writes."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from holdfast import __version__
from holdfast.observe.statistics import Statistics
from holdfast.wire.arrivals import BATCHED, REQUEST, RESPONSE, STRUCTURED, PlainPredictions
from holdfast.wire.plain import PlainLabels, PlainRequest
from holdfast.wire.protocol import IndexEntry, ModelMetadata, ServerMetadata
from holdfast.wire.rest import HEADER_LENGTH, IndexRequest, InferAnswer, InferRequest

_REF = "#/components/schemas/{name}"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What was wrong, where, and what to do. Row (from 0), column and expected are there for a value that does not
    fit."""

    error: str
    row: int | msgspec.UnsetType = msgspec.UNSET
    column: str | msgspec.UnsetType = msgspec.UNSET
    expected: str | msgspec.UnsetType = msgspec.UNSET


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    live: bool


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Routes are followed."""

    ready: bool


class ModelReady(msgspec.Struct, frozen=True, kw_only=True):
    """A version answers."""

    name: str
    ready: bool


class PlainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One object per row: the output under its name, and prediction_id, version, stage and outside. Of several classes
    the output is an object with the number of each, beside the likeliest class."""

    request_id: str
    predictions: list[dict[str, str | int | float | dict[str, float | None] | None]]


class LabelsTaken(msgspec.Struct, frozen=True, kw_only=True):
    """The ids under which the labels were recorded, and the classes among them that the system does not know."""

    recorded: int
    label_ids: list[str]
    unknown_classes: list[str] | msgspec.UnsetType = msgspec.UNSET


class PredictionsTaken(msgspec.Struct, frozen=True, kw_only=True):
    """The ids under which answers that were given elsewhere were recorded."""

    recorded: int
    prediction_ids: list[str]


class EventsTaken(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows the payloads of how many events had."""

    recorded: int
    events: int


_BODIES: dict[str, Any] = {
    "infer": InferRequest,
    "index": IndexRequest,
    "rows": PlainRequest,
    "labels": PlainLabels,
    "predictions": PlainPredictions,
}
_TYPES = (
    *_BODIES.values(),
    InferAnswer,
    list[IndexEntry],
    ModelMetadata,
    ServerMetadata,
    Statistics,
    Refusal,
    Live,
    Ready,
    ModelReady,
    PlainAnswer,
    LabelsTaken,
    PredictionsTaken,
    EventsTaken,
)

_REFUSALS = {
    "400": "The body is not JSON.",
    "401": "No token, or one that is not valid.",
    "404": "No such model or version.",
    "405": "A wrong method.",
    "413": "The body is too large.",
    "415": "The body has a Content-Encoding.",
    "422": "A body of another shape, or a value that does not fit.",
    "429": "The queue is full; Retry-After says when to come back.",
    "500": "The model failed; the request was recorded as failed.",
    "503": "No version is live, or what was asked could not be recorded; Retry-After says when to come back.",
}
_LOOKED = ("401", "405")
_MODEL = (*_LOOKED, "404", "503")
_TAKEN = ("400", *_LOOKED, "413", "415", "422")
_ANSWERED = (*_TAKEN, "404", "429", "500", "503")


@cache
def description() -> bytes:
    """The document as JSON."""
    schemas, components = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    known = dict(zip(map(str, _TYPES), schemas, strict=True))
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast data plane",
            "version": __version__,
            "description": "Predictions and labels: the Open Inference Protocol, version 2, and plain JSON.",
        },
        "paths": _paths(known),
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }
    return msgspec.json.encode(document)


def _paths(known: Mapping[str, Any]) -> dict[str, Any]:
    model, version = "/v2/models/{system}", "/v2/models/{system}/versions/{version}"
    infer = {"application/json": known[str(InferRequest)], "application/octet-stream": {}}
    inferred = {"application/json": known[str(InferAnswer)], "application/octet-stream": {}}
    row = {"type": "object", "description": _ROW}
    plain = {"application/json": {"anyOf": [known[str(PlainRequest)], row]}}
    paths: dict[str, Any] = {
        "/v2/health/live": {"get": _open("live", "Does the process answer?", {"200": known[str(Live)]})},
        "/v2/health/ready": {
            "get": _open("ready", "Are routes followed?", {"200": known[str(Ready)], "503": known[str(Ready)]})
        },
        "/v2": {"get": _get("server", "Name, version and extensions", known[str(ServerMetadata)], _LOOKED)},
        "/openapi.json": {"get": _get("description", "This document", {"type": "object"}, _LOOKED)},
        "/metrics": {"get": _metrics()},
        "/v2/models/stats": {"get": _get("all_stats", "Counts and times by version", known[str(Statistics)], _LOOKED)},
        "/v2/repository/index": {
            "post": _post(
                "index",
                "Models and versions",
                {"application/json": known[str(IndexRequest)]},
                {"application/json": known[str(list[IndexEntry])]},
                _TAKEN,
                is_required=False,
            )
        },
        "/predict/{system}": {
            "post": _post("predict", "Predictions for plain rows", plain, _json(known, PlainAnswer), _ANSWERED)
        },
        "/labels/{system}": {
            "post": _post(
                "labels",
                "Takes labels",
                {"application/json": known[str(PlainLabels)]},
                _json(known, LabelsTaken),
                (*_TAKEN, "404", "503"),
            )
        },
    }
    paths["/predictions/{system}"] = {
        "post": _post(
            "predictions",
            "Takes answers that were given elsewhere",
            {"application/json": known[str(PlainPredictions)]},
            _json(known, PredictionsTaken),
            (*_TAKEN, "404", "503"),
        )
    }
    event = {"type": "object", "description": _EVENT}
    paths["/events/{system}"] = {
        "post": _post(
            "events",
            "Takes payloads of a model that is served elsewhere, as CloudEvents",
            {"application/json": event, STRUCTURED: event, BATCHED: {"type": "array", "items": event}},
            _json(known, EventsTaken),
            (*_TAKEN, "404", "503"),
        )
    }
    for path, of in ((model, ""), (version, "_version")):
        metadata, ready = known[str(ModelMetadata)], known[str(ModelReady)]
        paths[path] = {"get": _get(f"model{of}", "Inputs, outputs and versions", metadata, _MODEL)}
        paths[f"{path}/ready"] = {"get": _get(f"ready{of}", "Does it answer?", ready, _MODEL)}
        paths[f"{path}/stats"] = {"get": _get(f"stats{of}", "Counts and times", known[str(Statistics)], _MODEL)}
        paths[f"{path}/infer"] = {"post": _post(f"infer{of}", "Predictions", infer, inferred, _ANSWERED)}
        paths[f"{path}/infer"]["post"]["parameters"] = [_HEADER]
    for path, operations in paths.items():
        named = [each[1:-1] for each in path.split("/") if each.startswith("{")]
        if named:
            operations["parameters"] = [_in_path(name) for name in named]
    return paths


_EVENT = (
    "A request or response of the Open Inference Protocol, with the attributes of a CloudEvent 1.0 of type "
    f"{REQUEST} or {RESPONSE} in headers (ce-id, ce-type, ce-time ...) or around it."
)
_ROW = (
    "One row: a value for each column, null where it is missing. A time is ISO 8601 text with its offset from UTC; the "
    "model's metadata say which columns are times."
)
_HEADER = {
    "name": HEADER_LENGTH,
    "in": "header",
    "required": False,
    "description": "Length of the JSON that the body begins with; the bytes of the tensors follow it.",
    "schema": {"type": "string", "pattern": "^[0-9]+$"},
}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _json(known: Mapping[str, Any], answer: type) -> dict[str, Any]:
    return {"application/json": known[str(answer)]}


def _open(name: str, summary: str, answers: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked without a token."""
    responses = {status: _response(summary, {"application/json": schema}) for status, schema in answers.items()}
    return {"operationId": name, "summary": summary, "responses": responses | _refusals(("405",)), "security": []}


def _get(name: str, summary: str, answer: Any, refused: tuple[str, ...]) -> dict[str, Any]:
    responses = {"200": _response(summary, {"application/json": answer})}
    return {"operationId": name, "summary": summary, "responses": responses | _refusals(refused)}


def _metrics() -> dict[str, Any]:
    summary = "Metrics of all workers, for Prometheus"
    responses = {"200": _response(summary, {"text/plain": {"type": "string"}})}
    return {"operationId": "metrics", "summary": summary, "responses": responses | _refusals(_LOOKED)}


def _post(
    name: str,
    summary: str,
    body: Mapping[str, Any],
    answer: Mapping[str, Any],
    refused: tuple[str, ...],
    *,
    is_required: bool = True,
) -> dict[str, Any]:
    content = {kind: {"schema": schema} for kind, schema in body.items()}
    responses = {"200": _response(summary, answer)}
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": is_required, "content": content},
        "responses": responses | _refusals(refused),
    }


def _response(summary: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": summary, "content": {kind: {"schema": schema} for kind, schema in content.items()}}


def _refusals(statuses: tuple[str, ...]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=Refusal.__name__)}
    return {status: _response(_REFUSALS[status], {"application/json": schema}) for status in sorted(statuses)}
