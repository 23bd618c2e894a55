"""The data plane over gRPC: the Open Inference Protocol with Triton's extensions, the standard health check, and server
reflection."""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from holdfast.errors import HoldfastError, StateError
from holdfast.observe.statistics import Statistics
from holdfast.observe.tracing import context_of
from holdfast.serve.access import Access
from holdfast.serve.batching import Batcher
from holdfast.serve.dataplane import DataPlane
from holdfast.wire.bodies import Bodies
from holdfast.wire.grpccalls import Asker, CallHead, Guard, Method, Turned, refused_of
from holdfast.wire.grpcconversation import Conversation
from holdfast.wire.grpcinfer import infer_response, inference_of
from holdfast.wire.grpcmessages import DATA_TYPES, HEALTH, INFERENCE, SERVING_STATUS, Message
from holdfast.wire.grpcquick import QuickCalls, field_head
from holdfast.wire.grpcreflection import SERVICES, answers
from holdfast.wire.grpcunary import Unary
from holdfast.wire.grpcwatch import Watch
from holdfast.wire.grpcwire import ENCODINGS, Refused, StatusCode, no_grpc, timeout_s
from holdfast.wire.http import LOADING, error_of
from holdfast.wire.http2headers import Head
from holdfast.wire.http2stream import Receiver, Stream
from holdfast.wire.protocol import ModelMetadata, ServerMetadata, index_entries, model_metadata, predict_request

SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"
EXTENSIONS = ("model_repository(index)", "model_configuration", "statistics")

_ACCEPTED = (b"grpc-accept-encoding", b",".join(ENCODINGS))
_CONTEXT = (b"traceparent", b"tracestate")
_NOT_HERE = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})


class InferenceService:
    """Answers the calls of all connections of a worker. Owned by one event loop.

    `new_id` names requests that bring no id; `statistics` are those of a model and a version, empty for all.
    """

    def __init__(
        self,
        plane: DataPlane,
        batcher: Batcher,
        access: Access,
        new_id: Callable[[], str],
        statistics: Callable[[str, str], Statistics] | None = None,
        bodies: Bodies | None = None,
    ) -> None:
        self._plane = plane
        self._batcher = batcher
        self._access = access
        self._new_id = new_id
        self._statistics = statistics
        self._guard = Guard(self._enter, Bodies() if bodies is None else bodies)
        self._quick = QuickCalls(plane, batcher, new_id, self._note)
        self._methods = self._table()
        self.is_stopping = False

    @property
    def refused(self) -> int:
        """Calls that ended with another status than OK."""
        return self._guard.refused

    def look(self) -> None:
        """Tell those who watch the health of something that changed; to be called about once a second."""
        for watch in list(self._guard.watchers):
            watch.look()

    # The application of the connections

    def prepare(self, head: Head) -> CallHead:
        """Read the head of a call."""
        if head.method != b"POST":
            return CallHead(method=None, block=no_grpc(405))
        kind = head.first(b"content-type")
        if not (kind == b"application/grpc" or kind.startswith((b"application/grpc+proto", b"application/grpc;"))):
            return CallHead(method=None, block=no_grpc(415))
        path = head.path.decode("latin-1")
        method = self._methods.get(path)
        if method is None:
            return CallHead(method=None, refused=_unknown(path))
        encoding, timeout = head.first(b"grpc-encoding") or ENCODINGS[0], head.first(b"grpc-timeout")
        if encoding not in ENCODINGS:
            message = (
                f"messages with grpc-encoding {encoding[:20].decode('latin-1')} are not read; send identity or gzip"
            )
            return CallHead(method=None, refused=Refused(StatusCode.UNIMPLEMENTED, message, [_ACCEPTED]))
        left_s = timeout_s(timeout) if timeout else None
        if timeout and left_s is None:
            message = f"grpc-timeout is {timeout[:20].decode('latin-1')!r}; give up to 8 digits and one of HMSmun"
            return CallHead(method=None, refused=Refused(StatusCode.INVALID_ARGUMENT, message))
        return CallHead(
            method=method,
            timeout_s=left_s,
            encoding=encoding,
            authorization=head.first(b"authorization").decode("latin-1"),
            request_id=head.first(b"x-request-id").decode("latin-1"),
            context=tuple(field for field in head.fields if field[0] in _CONTEXT),
        )

    def opened(self, stream: Stream, prepared: CallHead) -> Receiver:
        """Take a call."""
        method = prepared.method
        if method is None:
            return Turned(self._guard, stream, prepared)
        kind = Conversation if method.converse is not None else Watch if method.watch is not None else Unary
        return kind(self._guard, stream, prepared, method)

    def _enter(self, head: CallHead) -> str:
        token = self._access.token(self._plane.routes, head.authorization)
        if token is None:
            raise Refused(StatusCode.UNAUTHENTICATED, "a valid token is needed: metadata authorization: Bearer hf_...")
        return token.name

    def _table(self) -> dict[str, Method]:
        def method(name: str, **how: Any) -> tuple[str, Method]:
            return f"/{SERVICE}/{name}", Method(request=INFERENCE[f"{name}Request"], **how)

        def health(name: str, **how: Any) -> tuple[str, Method]:
            return f"/{HEALTH_SERVICE}/{name}", Method(request=HEALTH["HealthCheckRequest"], is_open=True, **how)

        converse = Method(
            request=INFERENCE["ModelInferRequest"],
            converse=self._converse,
            quick=self._infer_quickly,
            worded=lambda body: field_head(2, len(body)) + body,
            failed=self._told,
        )
        return dict(
            [
                method("ServerLive", answer=self._server_live, is_open=True),
                method("ServerReady", answer=self._server_ready, is_open=True),
                method("ServerMetadata", answer=self._server_metadata),
                method("ModelReady", answer=self._model_ready),
                method("ModelMetadata", answer=self._model_metadata),
                method("ModelConfig", answer=self._model_config),
                method("ModelStatistics", answer=self._model_statistics),
                method("RepositoryIndex", answer=self._repository_index),
                method("ModelInfer", infer=self._infer, quick=self._infer_quickly),
                (f"/{SERVICE}/ModelStreamInfer", converse),
                health("Check", answer=self._check),
                health("Watch", watch=self._watched),
                *(
                    (path, Method(request=taken, converse=_at_once(answer)))
                    for path, (taken, answer) in answers().items()
                ),
            ]
        )

    # Inference

    def _infer_quickly(self, call: Asker, data: bytes, head: CallHead, caller: str) -> bool:
        return self._quick.take(call, data, head, caller)

    async def _infer(self, request: Message, head: CallHead, caller: str) -> Message:
        try:
            return await self._inferred(request, head, caller)
        except Exception as error:
            self._note(request.model_name, error)
            raise

    def _note(self, system: str, error: Exception) -> None:
        """Count a request that was refused, by the status that it has over HTTP."""
        metrics = self._plane.observing.metrics
        # A model that failed was counted with its version.
        if metrics is not None and isinstance(error, HoldfastError) and (status := error_of(error).status) != 500:
            metrics.refused(system, status)

    async def _inferred(self, request: Message, head: CallHead, caller: str) -> Message:
        name = request.model_name
        lanes = self._plane.lanes(name)
        columns = [column.name for column in lanes.lane(request.model_version).signature.columns]
        inference = inference_of(request, columns=columns, most_rows=lanes.routed.serve.max_rows)
        request_id = head.request_id or self._new_id()
        asked = predict_request(inference, lanes, request_id=request_id, caller=caller)
        tracing = self._plane.observing.tracing
        if tracing.is_on:
            asked = msgspec.structs.replace(asked, trace=tracing.begin(*context_of(head.context)))
        is_raw = bool(request.raw_input_contents)
        answer = await self._batcher.predict(name, asked)
        return infer_response(answer, is_raw=is_raw, wanted=inference.outputs)

    async def _converse(self, request: Message, head: CallHead, caller: str) -> Message:
        """One message of a stream. What is wrong with it is told in its place: the stream goes on."""
        try:
            return INFERENCE["ModelStreamInferResponse"](infer_response=await self._infer(request, head, caller))
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            return self._told(request, error)

    def _told(self, request: Message, error: BaseException) -> Message:
        """What a stream is told of a message that cannot be answered."""
        self._guard.refused += 1
        refused = refused_of(error)
        response = INFERENCE["ModelStreamInferResponse"](error_message=str(refused))
        response.infer_response.id = request.id
        response.infer_response.model_name = request.model_name
        response.infer_response.parameters["grpc_status"].string_param = refused.code.name
        return response

    # Looking

    def _server_live(self, request: Message) -> Message:
        return INFERENCE["ServerLiveResponse"](live=True)

    def _server_ready(self, request: Message) -> Message:
        return INFERENCE["ServerReadyResponse"](ready=self._is_ready())

    def _server_metadata(self, request: Message) -> Message:
        server = ServerMetadata()
        return INFERENCE["ServerMetadataResponse"](name=server.name, version=server.version, extensions=EXTENSIONS)

    def _model_ready(self, request: Message) -> Message:
        lanes = self._plane.lanes(request.name)
        try:
            lanes.lane(request.version)
        except StateError:
            return INFERENCE["ModelReadyResponse"](ready=False)
        return INFERENCE["ModelReadyResponse"](ready=True)

    def _metadata(self, request: Message) -> ModelMetadata:
        lanes = self._plane.lanes(request.name)
        versions = [each.by.version for each in lanes.all()]
        return model_metadata(request.name, versions, lanes.lane(request.version).signature)

    def _model_metadata(self, request: Message) -> Message:
        model = self._metadata(request)
        response = INFERENCE["ModelMetadataResponse"](name=model.name, versions=model.versions, platform=model.platform)
        for tensors, given in ((response.inputs, model.inputs), (response.outputs, model.outputs)):
            for each in given:
                tensors.add(name=each.name, datatype=each.datatype, shape=each.shape)
        return response

    def _model_config(self, request: Message) -> Message:
        model = self._metadata(request)
        response = INFERENCE["ModelConfigResponse"]()
        config = response.config
        config.name, config.platform, config.backend = model.name, model.platform, "holdfast"
        for tensors, given in ((config.input, model.inputs), (config.output, model.outputs)):
            for each in given:
                tensors.add(name=each.name, data_type=DATA_TYPES[each.datatype], dims=each.shape)
        return response

    def _model_statistics(self, request: Message) -> Message:
        if self._statistics is None:
            raise Refused(StatusCode.UNIMPLEMENTED, "this worker keeps no statistics")
        if request.name:
            self._plane.lanes(request.name).lane(request.version)
        response = INFERENCE["ModelStatisticsResponse"]()
        for each in self._statistics(request.name, request.version).model_stats:
            _fill(response.model_stats.add(), msgspec.to_builtins(each))
        return response

    def _repository_index(self, request: Message) -> Message:
        response = INFERENCE["RepositoryIndexResponse"]()
        for name, routed in sorted(self._plane.routes.systems.items()):
            for entry in index_entries(routed, self._plane.lanes(name)):
                if entry.state == "READY" or not request.ready:
                    response.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return response

    # Health

    def _is_ready(self) -> bool:
        return self._plane.routes.generation > 0 and not self.is_stopping

    def _status(self, service: str) -> str:
        if service in ("", SERVICE):
            return "SERVING" if self._is_ready() else "NOT_SERVING"
        try:
            self._plane.lanes(service).lane()
        except StateError:
            return "NOT_SERVING"
        except HoldfastError:
            return "SERVICE_UNKNOWN"
        return "SERVING" if self._is_ready() else "NOT_SERVING"

    def _check(self, request: Message) -> Message:
        status = self._status(request.service)
        if status == "SERVICE_UNKNOWN":
            raise Refused(StatusCode.NOT_FOUND, f"no service or model '{request.service[:100]}'")
        return HEALTH["HealthCheckResponse"](status=SERVING_STATUS[status])

    def _watched(self, request: Message) -> Message:
        return HEALTH["HealthCheckResponse"](status=SERVING_STATUS[self._status(request.service)])


def _unknown(path: str) -> Refused:
    name = path.rpartition("/")[2]
    if path == f"/{SERVICE}/{name}" and name in _NOT_HERE:
        return Refused(StatusCode.UNIMPLEMENTED, LOADING)
    return Refused(StatusCode.UNIMPLEMENTED, f"no method {path[:200]}; the services are {', '.join(SERVICES)}")


def _at_once(answer: Callable[[Message], Message]) -> Callable[[Message, CallHead, str], Coroutine[Any, Any, Message]]:
    """How each message of a stream is answered that waits for nothing."""

    async def converse(request: Message, head: CallHead, caller: str) -> Message:
        return answer(request)

    return converse


def _fill(message: Message, values: dict[str, Any]) -> None:
    """Set the fields of a message, and of those in it, from plain values of the same names."""
    for name, value in values.items():
        if isinstance(value, dict):
            field = getattr(message, name)
            field.SetInParent()
            _fill(field, value)
        elif isinstance(value, list | tuple):
            for each in value:
                _fill(getattr(message, name).add(), each)
        else:
            setattr(message, name, value)
