"""The data plane over HTTP: a plain ASGI application. Chooses status codes; knows no model."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Literal

import msgspec

from holdfast.core import kinds
from holdfast.core.clock import Clock
from holdfast.core.protocols import Task
from holdfast.core.routes import Routes, TokenHash
from holdfast.errors import HoldfastError, InvalidInput, NotFound, Overloaded, StateError
from holdfast.security.identity import matches
from holdfast.serve.batching import Batcher
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.plain import predict_answer, read_predict, take_labels
from holdfast.serve.protocol import ServerMetadata, infer_answer, model_metadata, read_infer

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_LIMIT_BYTES = 8 * 1024 * 1024
ID_LIMIT = 200
"""Most characters of a request id."""

Kind = Literal["live", "ready", "server", "model", "model_ready", "infer", "predict", "labels"]
_POSTED: frozenset[Kind] = frozenset({"infer", "predict", "labels"})


class Place(msgspec.Struct, frozen=True):
    """What a path names: a kind of resource, a system and a version where there is one."""

    kind: Kind
    system: str = ""
    version: str = ""


class Answer(msgspec.Struct, frozen=True):
    """A response: status, JSON body and further headers."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def place_of(path: str) -> Place | None:
    """The place that a path names; None when there is none."""
    match path.strip("/").split("/"):
        case ["v2"]:
            return Place("server")
        case ["v2", "health", "live"]:
            return Place("live")
        case ["v2", "health", "ready"]:
            return Place("ready")
        case ["predict", system]:
            return Place("predict", system)
        case ["labels", system]:
            return Place("labels", system)
        case ["v2", "models", system, *rest]:
            return _model_place(system, rest)
    return None


def _model_place(system: str, rest: list[str]) -> Place | None:
    version = ""
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    match rest:
        case []:
            return Place("model", system, version)
        case ["ready"]:
            return Place("model_ready", system, version)
        case ["infer"]:
            return Place("infer", system, version)
    return None


class DataPlaneApp:
    """The ASGI application of one worker. `new_id` names requests that bring no id."""

    def __init__(self, plane: DataPlane, clock: Clock, new_id: Callable[[], str]) -> None:
        self._plane = plane
        self._clock = clock
        self._new_id = new_id
        self._batcher = Batcher(plane)
        self._known: tuple[Routes | None, dict[str, TokenHash]] = (None, {})
        self._refused = 0

    @property
    def refused(self) -> int:
        """Requests answered with a status of 400 or more."""
        return self._refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        answer = await self._answer(scope, receive)
        if answer is None:  # the client went away
            return
        if answer.status >= 400:
            self._refused += 1
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": [*headers, *answer.headers]})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | None:
        place = place_of(scope["path"])
        if place is None:
            return _error(404, f"nothing is at {scope['path']}; see GET /v2, POST /predict/<system>, /labels/<system>")
        method = scope["method"]
        if place.kind not in ("live", "ready") and not self._may_enter(scope["headers"]):
            message = "a valid token is needed: Authorization: Bearer hf_..."
            return _error(401, message, headers=((b"www-authenticate", b"Bearer"),))
        if method not in (("POST",) if place.kind in _POSTED else ("GET", "HEAD")):
            allowed = "POST" if place.kind in _POSTED else "GET, HEAD"
            return _error(
                405, f"{scope['path']} takes {allowed}, not {method}", headers=((b"allow", allowed.encode()),)
            )
        if place.kind not in _POSTED:
            return self._guarded(lambda: self._look(place))
        body = await _body(scope["headers"], receive)
        if body is None or isinstance(body, Answer):
            return body
        return await self._take(place, body, scope["headers"])

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
        lanes = self._plane.lanes(place.system)
        lane = lanes.lane(place.version)
        if place.kind == "model_ready":
            return _json(200, {"name": place.system, "ready": True})
        versions = [each.by.version for each in lanes.all()]
        return _json(200, model_metadata(place.system, versions, lane.signature))

    def _guarded(self, work: Callable[[], Answer]) -> Answer:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            return _error_of(error)

    # Answering

    async def _take(self, place: Place, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Answer:
        try:
            if place.kind == "labels":
                task: Task = kinds.load("tasks", self._plane.lanes(place.system).routed.task)()
                return _json(200, take_labels(body, place.system, task, self._plane.recorder, self._clock))
            request_id = _request_id(headers) or self._new_id()
            if place.kind == "predict":
                request = read_predict(body, request_id=request_id)
                _check_id(request.request_id)
                return _json(200, predict_answer(await self._batcher.predict(place.system, request)))
            output = self._plane.lanes(place.system).routed.output
            request = read_infer(body, output=output, version=place.version, request_id=request_id)
            _check_id(request.request_id)
            return _json(200, infer_answer(await self._batcher.predict(place.system, request)))
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            return _error_of(error, body)

    def _may_enter(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """True when the routes carry no tokens, or the request brings one of them."""
        routes = self._plane.routes
        if not routes.tokens:
            return True
        if self._known[0] is not routes:  # tokens may have been revoked
            self._known = (routes, {})
        known = self._known[1]
        scheme, _, secret = _header(headers, b"authorization").partition(" ")
        if scheme.lower() != "bearer":
            return False
        if secret not in known:
            # Every hash is compared, so the time taken does not tell which one is near.
            found = [token for token in routes.tokens if matches(secret, token.sha256)]
            if not found:
                return False
            known[secret] = found[0]
        return True


def new_request_id(clock: Clock, random_bytes: Callable[[int], bytes]) -> str:
    """A fresh request id in the form of a UUID version 7 (RFC 9562, 2024): ids sort by the time they were made."""
    milliseconds = int(clock.now().timestamp() * 1000)
    value = milliseconds << 80 | int.from_bytes(random_bytes(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return _header(headers, b"x-request-id")


def _check_id(request_id: str) -> None:
    if len(request_id) > ID_LIMIT or not request_id.isprintable():
        raise InvalidInput(
            f"the request id {request_id[:40]!r} is not usable",
            column="id",
            expected=f"at most {ID_LIMIT} printable characters",
        )


async def _body(headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes | Answer | None:
    """The whole body, the answer to one that is too large, or None when the client went away."""
    length = _header(headers, b"content-length")
    if length.isdigit() and int(length) > BODY_LIMIT_BYTES:
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
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large() -> Answer:
    # The rest of the body is not read, so the connection cannot be used again.
    message = f"the body is larger than {BODY_LIMIT_BYTES // 1024 // 1024} MiB; send several requests"
    return _error(413, message, headers=((b"connection", b"close"),))


def _json(status: int, body: Any) -> Answer:
    return Answer(status, msgspec.json.encode(body))


def _error(
    status: int, message: str, facts: Mapping[str, Any] | None = None, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Answer:
    return Answer(status, msgspec.json.encode({"error": message, **(facts or {})}), headers)


def _error_of(error: Exception, body: bytes = b"") -> Answer:
    """The answer to what went wrong with a request."""
    match error:
        case InvalidInput():
            return _error(422, str(error), {"row": error.row, "column": error.column, "expected": error.expected})
        case NotFound():
            return _error(404, str(error))
        case Overloaded():
            return _error(429, str(error), headers=((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),))
        case StateError():
            return _error(503, str(error))
        case msgspec.ValidationError():
            return _error(422, f"the body is not what is expected here: {error}")
        case msgspec.DecodeError() | UnicodeDecodeError() | RecursionError():
            return _error(400, _malformed(error, body))
        case HoldfastError():
            return _error(500, str(error))
    log.error("a request failed", exc_info=error)
    return _error(500, "the request failed inside Holdfast; the worker's log has the details")


def _malformed(error: Exception, body: bytes) -> str:
    if b"NaN" in body or b"Infinity" in body:
        return f"the body is not JSON: {error}. JSON has no NaN or Infinity; send null for a missing value"
    return f"the body is not JSON: {error}"
