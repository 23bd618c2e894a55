"""The data plane over HTTP: a plain ASGI application. Chooses status codes; knows no model."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

import msgspec

from holdfast.core.classes import make_task
from holdfast.core.clock import Clock
from holdfast.errors import HoldfastError, InvalidInput, NotFound, Overloaded, StateError
from holdfast.observe.metricsboard import MetricsBoard
from holdfast.observe.metricspage import CONTENT_TYPE
from holdfast.observe.tracing import context_of
from holdfast.serve.access import Access, bearer
from holdfast.serve.batching import Batcher
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.paths import OPEN, POSTED, Kind, Place, place_of
from holdfast.serve.requests import PredictRequest
from holdfast.wire.arrivals import take_events, take_predictions
from holdfast.wire.bodies import Bodies, Held
from holdfast.wire.fields import hint, unknown_column
from holdfast.wire.openapi import description
from holdfast.wire.plain import predict_answer, read_predict, take_labels
from holdfast.wire.protocol import ServerMetadata, index_entries, model_metadata, predict_request, usable
from holdfast.wire.rest import HEADER_LENGTH, IndexRequest, read_infer, write_infer

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_LIMIT_BYTES = 8 * 1024 * 1024
_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
_JSON, _BYTES = b"application/json", b"application/octet-stream"
LOADING = (
    "models are not loaded or unloaded by clients: on the machine of the system, `holdfast train` makes a version and "
    "begins its release, `holdfast rollback` goes back"
)
_decode_index = msgspec.json.Decoder(IndexRequest).decode


class Answer(msgspec.Struct, frozen=True):
    """A response: status, body, which is JSON unless `content_type` says otherwise, and further headers."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = _JSON


class DataPlaneApp:
    """The ASGI application of one worker. `new_id` names requests that bring no id."""

    def __init__(self, plane: DataPlane, clock: Clock, new_id: Callable[[], str], bodies: Bodies | None = None) -> None:
        self._plane = plane
        self._clock = clock
        self._new_id = new_id
        self.board: MetricsBoard | None = None
        self.batcher = Batcher(plane)
        self.access = Access()
        self.bodies = Bodies() if bodies is None else bodies
        self._refused = 0

    @property
    def refused(self) -> int:
        """Requests answered with a status of 400 or more."""
        return self._refused

    def count(self, answer: Answer, place: Place | None) -> None:
        """Take note of an answer that goes out."""
        if answer.status < 400:
            return
        self._refused += 1
        # A model that failed was counted with its version.
        metrics = self._plane.observing.metrics
        if metrics is not None and place is not None and place.kind in ("predict", "infer") and answer.status != 500:
            metrics.refused(place.system, answer.status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        answer = await self._answer(scope, receive)
        if answer is None:  # the client went away
            return
        self.count(answer, place_of(scope["path"]))
        headers = [(b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": [*headers, *answer.headers]})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | None:
        place = place_of(scope["path"])
        if place is None:
            return _error(404, f"nothing is at {scope['path']}; GET /openapi.json describes what there is")
        method, headers, caller = scope["method"], scope["headers"], ""
        if place.kind not in OPEN:
            authorization = _header(headers, b"authorization")
            if place.kind == "events":
                authorization = bearer(authorization)
            token = self.access.token(self._plane.routes, authorization)
            if token is None:
                message = "a valid token is needed: Authorization: Bearer hf_..."
                return _error(401, message, headers=((b"www-authenticate", b"Bearer"),))
            caller = token.name
        if method not in place.methods:
            allowed = ", ".join(place.methods)
            return _error(
                405, f"{scope['path']} takes {allowed}, not {method}", headers=((b"allow", allowed.encode()),)
            )
        if place.kind in ("metrics", "stats") and self.board is None:
            return _error(404, "this process counts nothing")
        if place.kind == "metrics" and self.board is not None:
            return Answer(200, await self.board.page(), content_type=CONTENT_TYPE)
        if place.kind == "stats":
            return self._guarded(lambda: self._stats(place))
        if place.kind not in POSTED:
            return self._guarded(lambda: self._look(place))
        if encoding := _header(headers, b"content-encoding"):
            return _error(415, f"a body with Content-Encoding {encoding[:40]} is not read; send it as it is")
        held = Held(self.bodies)
        try:
            body = await self._body(headers, receive, held)
            if body is None or isinstance(body, Answer):
                return body
            return await self.take(place, body, headers, caller)
        finally:
            held.release()

    async def _body(
        self, headers: Iterable[tuple[bytes, bytes]], receive: Receive, held: Held
    ) -> bytes | Answer | None:
        """The whole body, the answer to one that is too large, or None when the client went away."""
        length = _header(headers, b"content-length")
        if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > BODY_LIMIT_BYTES):
            return _too_large()
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > BODY_LIMIT_BYTES:
                return _too_large()
            if not held.add(len(chunk)):
                return too_many(self.bodies)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    # Looking

    def _look(self, place: Place) -> Answer:
        match place.kind:
            case "live":
                return _json(200, {"live": True})
            case "ready":
                is_ready = self._plane.routes.generation > 0
                return _json(200 if is_ready else 503, {"ready": is_ready})
            case "server":
                return _json(200, ServerMetadata())
            case "openapi":
                return Answer(200, description())
        lanes = self._plane.lanes(place.system)
        lane = lanes.lane(place.version)
        if place.kind == "model_ready":
            return _json(200, {"name": place.system, "ready": True})
        versions = [each.by.version for each in lanes.all()]
        return _json(200, model_metadata(place.system, versions, lane.signature))

    def _stats(self, place: Place) -> Answer:
        assert self.board is not None
        if place.system:
            self._plane.lanes(place.system).lane(place.version)
        return _json(200, self.board.statistics(self._plane.in_force.versions(), place.system, place.version))

    def _guarded(self, work: Callable[[], Answer]) -> Answer:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            return error_of(error)

    # Answering

    async def take(self, place: Place, body: bytes, headers: Iterable[tuple[bytes, bytes]], caller: str) -> Answer:
        """The answer to a whole request that may enter; what is wrong with it is an answer too."""
        try:
            match place.kind:
                case "infer":
                    return await self._infer(place, body, headers, caller)
                case "predict":
                    return await self._predict(place, body, headers, caller)
                case "labels":
                    routed = self._plane.lanes(place.system).routed
                    task = make_task(routed.task, routed.classes)
                    return _json(200, await take_labels(body, place.system, task, self._plane.recorder, self._clock))
                case "predictions":
                    routed = self._plane.lanes(place.system).routed
                    recorder, clock = self._plane.recorder, self._clock
                    return _json(
                        200, await take_predictions(body, place.system, routed, recorder, clock, caller=caller)
                    )
                case "events":
                    routed = self._plane.lanes(place.system).routed
                    recorder, clock = self._plane.recorder, self._clock
                    return _json(
                        200, await take_events(body, headers, place.system, routed, recorder, clock, caller=caller)
                    )
                case "index":
                    return self._index(body)
            return _error(400, LOADING)
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            return error_of(error, body, place.kind)

    async def _predict(self, place: Place, body: bytes, headers: Iterable[tuple[bytes, bytes]], caller: str) -> Answer:
        request = read_predict(body, request_id=self._id(headers), caller=caller)
        request = self._traced(request, headers)
        usable(request.request_id)
        try:
            return _json(200, predict_answer(await self.batcher.predict(place.system, request)))
        except InvalidInput as error:
            raise unknown_column(error, request, self._plane.lanes(place.system)) from error

    async def _infer(self, place: Place, body: bytes, headers: Iterable[tuple[bytes, bytes]], caller: str) -> Answer:
        lanes = self._plane.lanes(place.system)
        columns = [column.name for column in lanes.lane(place.version).signature.columns]
        asked = read_infer(
            body,
            columns=columns,
            most_rows=lanes.routed.serve.max_rows,
            header_length=_header(headers, _HEADER_LENGTH),
            version=place.version,
        )
        request = predict_request(asked.inference, lanes, request_id=self._id(headers), caller=caller)
        request = self._traced(request, headers)
        json, raw = write_infer(await self.batcher.predict(place.system, request), asked)
        if not raw:
            return Answer(200, json)
        return with_bytes(json + raw, len(json))

    def _index(self, body: bytes) -> Answer:
        only_ready = bool(body) and _decode_index(body).ready
        entries = [
            entry
            for name, routed in sorted(self._plane.routes.systems.items())
            for entry in index_entries(routed, self._plane.lanes(name))
            if entry.state == "READY" or not only_ready
        ]
        return _json(200, entries)

    def _traced(self, request: PredictRequest, headers: Iterable[tuple[bytes, bytes]]) -> PredictRequest:
        tracing = self._plane.observing.tracing
        if not tracing.is_on:
            return request
        return msgspec.structs.replace(request, trace=tracing.begin(*context_of(headers)))

    def _id(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        return _header(headers, b"x-request-id") or self._new_id()


def with_bytes(body: bytes, json_length: int) -> Answer:
    """An answer of JSON, so many bytes long, and tensors as bytes behind it."""
    return Answer(200, body, ((_HEADER_LENGTH, b"%d" % json_length),), _BYTES)


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


def _too_large() -> Answer:
    # The rest of the body is not read, so the connection cannot be used again.
    message = f"the body is larger than {BODY_LIMIT_BYTES // 1024 // 1024} MiB; send several requests"
    return _error(413, message, headers=((b"connection", b"close"),))


def too_many(bodies: Bodies) -> Answer:
    """The answer to a request for which a worker has no room. Its connection cannot be used again."""
    message = (
        f"this worker holds {bodies.limit_bytes // 1024 // 1024} MiB of requests that are not answered yet; send it "
        "again later"
    )
    return _error(503, message, headers=((b"retry-after", b"1"), (b"connection", b"close")))


def _json(status: int, body: Any) -> Answer:
    return Answer(status, msgspec.json.encode(body))


def _error(
    status: int, message: str, facts: Mapping[str, Any] | None = None, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Answer:
    return Answer(status, msgspec.json.encode({"error": message, **(facts or {})}), headers)


def error_of(error: Exception, body: bytes = b"", kind: Kind | None = None) -> Answer:
    """The answer to what went wrong with a request for a place of that kind."""
    match error:
        case InvalidInput():
            return _error(422, str(error), {"row": error.row, "column": error.column, "expected": error.expected})
        case NotFound():
            return _error(404, str(error))
        case Overloaded():
            return _error(429, str(error), headers=((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),))
        case StateError():
            return _error(503, str(error), headers=((b"retry-after", b"1"),))  # the disk is tried again as soon
        case msgspec.ValidationError():
            return _error(422, f"the body is not what is expected here: {error}{hint(str(error), kind)}")
        case RecursionError():
            return _error(400, "the body is nested too deeply to be read; rows are objects of plain values")
        case msgspec.DecodeError() | UnicodeDecodeError():
            return _error(400, _malformed(error, body))
        case HoldfastError():
            return _error(500, str(error))
    log.error("a request failed", exc_info=error)
    return _error(500, "the request failed inside Holdfast; the worker's log has the details")


def _malformed(error: Exception, body: bytes) -> str:
    if b"NaN" in body or b"Infinity" in body:
        return f"the body is not JSON: {error}. JSON has no NaN or Infinity; send null for a missing value"
    return f"the body is not JSON: {error}"
