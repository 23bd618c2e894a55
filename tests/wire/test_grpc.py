"""The gRPC service over a connection without a socket, called by a small client made of h2."""

import asyncio
import functools
import gzip
import socket
import struct

import h2.config
import h2.connection
import h2.events
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.routes import TokenHash
from holdfast.errors import HoldfastError, Overloaded, StateError
from holdfast.observe.statistics import statistics
from holdfast.security.identity import new_token
from holdfast.serve.access import Access
from holdfast.serve.batching import Batcher
from holdfast.serve.observing import Observing
from holdfast.wire import grpcconversation
from holdfast.wire.grpc import HEALTH_SERVICE, SERVICE, InferenceService
from holdfast.wire.grpccalls import STOPPING, refused_of
from holdfast.wire.grpcmessages import HEALTH, INFERENCE
from holdfast.wire.grpcquick import field_head
from holdfast.wire.grpcserver import GrpcServer
from holdfast.wire.grpcwire import MESSAGE_LIMIT_BYTES, Messages, StatusCode, prefixed, timeout_s
from holdfast.wire.http2 import Connection
from holdfast.wire.http2limits import Limits
from holdfast.wire.http2wire import GOAWAY

DATATYPES = {"dep_hour": "INT64", "distance": "FP64", "carrier": "BYTES", "is_holiday": "BOOL"}
MEBIBYTE = 2**20
FIELDS = {"INT64": "int64_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents", "BOOL": "bool_contents"}


def in_loop(test):
    """Run a test of coroutines in an event loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


class Never:
    """A batcher that answers when it is told, and knows who gave up."""

    def __init__(self):
        self.waiting, self.given_up = [], 0

    def submit(self, call):
        return False

    async def predict(self, system, request):
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((request, future))
        try:
            return await future
        except asyncio.CancelledError:
            self.given_up += 1
            raise


class Stuck(Batcher):
    """A batcher whose tick never ends."""

    def _flush(self):
        pass


class Later(Batcher):
    """A batcher whose tick ends when it is told."""

    def __init__(self, plane):
        super().__init__(plane)
        self.is_due = False

    def _flush(self):
        if self.is_due:
            super()._flush()

    def end(self):
        self.is_due = True
        self._flush()


class Noted:
    """Metrics and tracing that remember what they are told."""

    is_on = True

    def __init__(self):
        self.refusals, self.rows, self.parents = [], 0, []

    def refused(self, system, status):
        self.refusals.append((system, status))

    def ran(self, by, rows, *times):
        self.rows += rows

    def failed(self, by, requests, *, total_us):
        pass

    def begin(self, traceparent, tracestate=""):
        return traceparent

    def answered(self, trace, outcome):
        self.parents.append(trace)


class Ended:
    """How a call ended."""

    def __init__(self, status, message, bodies, metadata, http):
        self.status, self.message, self.bodies, self.metadata, self.http = status, message, bodies, metadata, http


def read(client, data):
    """The events in whole frames. h2 takes the first GOAWAY for the end, which it is not."""
    events = []
    while data:
        size = 9 + int.from_bytes(data[:3], "big")
        events += client.receive_data(data[:size])
        if data[3] == GOAWAY:
            client.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
        data = data[size:]
    return events


def whole_frames(data):
    """How many bytes in front are whole frames."""
    end = 0
    while len(data) - end >= 9 and end + 9 + int.from_bytes(data[end : end + 3], "big") <= len(data):
        end += 9 + int.from_bytes(data[end : end + 3], "big")
    return end


class Caller:
    """One connection to a service. Make it in a running loop."""

    def __init__(self, world, batcher=None, statistics=None, **limits):
        self.service = InferenceService(
            world.plane, batcher or Batcher(world.plane), Access(), lambda: "generated", statistics
        )
        self.server = Connection(self.service, Limits(**limits), 0.0)
        self.out, self.is_closed = bytearray(), False
        self.server.connection_made(self)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events = []

    # The transport

    def set_write_buffer_limits(self, high):
        pass

    def write(self, data):
        self.out += data

    def close(self):
        self.is_closed = True

    # The client

    def start(
        self, method, *, service="inference.GRPCInferenceService", end=False, kind="application/grpc", **metadata
    ):
        stream_id = self.h2.get_next_available_stream_id()
        fields = [(":method", metadata.pop("http", "POST")), (":scheme", "http"), (":path", f"/{service}/{method}")]
        fields += [(":authority", "here"), ("te", "trailers"), ("content-type", kind)]
        fields += [(name.replace("_", "-"), value) for name, value in metadata.items()]
        self.h2.send_headers(stream_id, fields)
        return stream_id

    async def send(self, stream_id, body, *, end=False):
        while body:
            size = min(len(body), self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            if size:
                self.h2.send_data(stream_id, body[:size])
                body = body[size:]
            await self.exchange()
            if not size and (
                self.of(stream_id, h2.events.StreamEnded) or not self.h2.local_flow_control_window(stream_id)
            ):
                break
        if end and not self.of(stream_id, h2.events.StreamEnded):
            self.h2.end_stream(stream_id)
        await self.exchange()
        return len(body)

    async def exchange(self):
        """Carry bytes both ways until nothing moves."""
        still = 0
        while still < 16:
            sent, received = self.h2.data_to_send(), bytes(self.out)
            self.out.clear()
            if sent:
                self.server.data_received(sent)
            if received:
                for event in read(self.h2, received):
                    self.events.append(event)
                    if isinstance(event, h2.events.DataReceived):
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            still = 0 if sent or received else still + 1
            await asyncio.sleep(0)

    def of(self, stream_id, kind):
        return [event for event in self.events if isinstance(event, kind) and event.stream_id == stream_id]

    def ended(self, stream_id):
        """How a call ended; None while it has not."""
        if not self.of(stream_id, h2.events.StreamEnded):
            return None
        heads = [*self.of(stream_id, h2.events.ResponseReceived), *self.of(stream_id, h2.events.TrailersReceived)]
        fields = dict(pair for head in heads for pair in head.headers)
        return Ended(
            StatusCode(int(fields["grpc-status"])).name,
            fields.get("grpc-message", ""),
            self.bodies(stream_id),
            fields,
            fields[":status"],
        )

    def bodies(self, stream_id):
        messages = Messages(b"")
        messages.add(b"".join(event.data for event in self.of(stream_id, h2.events.DataReceived)))
        return list(iter(messages.next, None))

    async def raw(self, method, body, **metadata):
        """Call with these bytes as the whole body."""
        stream_id = self.start(method, **metadata)
        await self.send(stream_id, body, end=True)
        return self.ended(stream_id)

    async def __call__(self, method, message=None, **metadata):
        """Call and give the answer; the end where that is no answer."""
        message = INFERENCE[f"{method}Request"]() if message is None else message
        ended = await self.raw(method, prefixed(message.SerializeToString()), **metadata)
        if ended.status != "OK":
            return ended
        [body] = ended.bodies
        return INFERENCE[f"{method}Response"].FromString(body)

    async def health(self, service=""):
        body = prefixed(HEALTH["HealthCheckRequest"](service=service).SerializeToString())
        ended = await self.raw("Check", body, service="grpc.health.v1.Health")
        return HEALTH["HealthCheckResponse"].FromString(ended.bodies[0]).status if ended.bodies else ended.status


def infer_request(row, n=1, *, is_raw=False, **more):
    request = INFERENCE["ModelInferRequest"](**({"model_name": "flights"} | more))
    for name, value in row.items():
        datatype = DATATYPES[name]
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[n])
        if not is_raw:
            getattr(tensor.contents, FIELDS[datatype]).extend([value.encode() if datatype == "BYTES" else value] * n)
        elif datatype == "BYTES":
            request.raw_input_contents.append((struct.pack("<I", len(value)) + value.encode()) * n)
        else:
            kind = {"INT64": "<i8", "FP64": "<f8", "BOOL": "?"}[datatype]
            request.raw_input_contents.append(np.full(n, value, dtype=kind).tobytes())
    return request


def large_message(row, id=""):
    """A usual request of a mebibyte and a few bytes, most of them in a field that nobody knows."""
    return infer_request(row, id=id).SerializeToString() + field_head(15, MEBIBYTE) + bytes(MEBIBYTE)


def zipped(message):
    packed = gzip.compress(message)
    return b"\1" + struct.pack(">I", len(packed)) + packed


def data_of(response):
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], dtype="<f8").tolist()
    return list(response.outputs[0].contents.fp64_contents)


# Looking


@in_loop
async def test_health_and_metadata_are_there(served):
    call = Caller(served)
    assert (await call("ServerLive")).live
    assert (await call("ServerReady")).ready
    assert (await call("ServerMetadata")).name == "holdfast"
    asked = INFERENCE["ModelReadyRequest"](name="flights")
    assert (await call("ModelReady", asked)).ready
    model = await call("ModelMetadata", INFERENCE["ModelMetadataRequest"](name="flights", version="1"))
    assert (model.name, list(model.versions), model.platform) == ("flights", ["1"], "holdfast_classification")
    assert {tensor.name: tensor.datatype for tensor in model.inputs} == DATATYPES
    assert [list(tensor.shape) for tensor in model.outputs] == [[-1]]
    config = (await call("ModelConfig", INFERENCE["ModelConfigRequest"](name="flights"))).config
    assert [tensor.data_type for tensor in config.input] == [9, 12, 13, 1]
    assert config.max_batch_size == 0


@in_loop
async def test_a_worker_without_routes_lives_but_is_not_ready(world):
    call = Caller(world)
    assert (await call("ServerLive")).live
    assert not (await call("ServerReady")).ready
    assert await call.health() == 2


@in_loop
async def test_a_model_without_a_live_version_is_not_ready(world):
    world.follow(flights=world.system())
    call = Caller(world)
    assert not (await call("ModelReady", INFERENCE["ModelReadyRequest"](name="flights"))).ready
    assert (await call("ModelReady", INFERENCE["ModelReadyRequest"](name="flight"))).status == "NOT_FOUND"
    assert await call.health("flights") == 2


@in_loop
async def test_the_repository_lists_what_answers_and_what_should(world):
    world.serve()
    world.follow(flights=world.system("v1", canary="bad", share=0.5), empty=world.system())
    call = Caller(world)
    models = (await call("RepositoryIndex")).models
    assert [(model.name, model.version, model.state) for model in models] == [
        ("empty", "", "UNAVAILABLE"),
        ("flights", "1", "READY"),
        ("flights", "bad", "UNAVAILABLE"),
    ]
    ready = (await call("RepositoryIndex", INFERENCE["RepositoryIndexRequest"](ready=True))).models
    assert [(model.name, model.version) for model in ready] == [("flights", "1")]


@in_loop
async def test_models_are_not_loaded_by_clients(served):
    ended = await Caller(served).raw("RepositoryModelLoad", prefixed(b""))
    assert (ended.status, "holdfast train" in ended.message) == ("UNIMPLEMENTED", True)


@in_loop
async def test_statistics_are_told_where_they_are_kept(served):
    def counted(system, version):
        return statistics([], [("flights", "1")], system, version)

    assert (await Caller(served)("ModelStatistics")).status == "UNIMPLEMENTED"
    call = Caller(served, statistics=counted)
    [model] = (await call("ModelStatistics", INFERENCE["ModelStatisticsRequest"](name="flights"))).model_stats
    assert (model.name, model.version, model.inference_count) == ("flights", "1", 0)
    assert model.inference_stats.HasField("success")
    asked = INFERENCE["ModelStatisticsRequest"](name="flights", version="7")
    assert (await call("ModelStatistics", asked)).status == "NOT_FOUND"


@in_loop
async def test_health_tells_of_models_too(served):
    call = Caller(served)
    assert [await call.health(name) for name in ("", "inference.GRPCInferenceService", "flights")] == [1, 1, 1]
    assert await call.health("nobody") == "NOT_FOUND"


@in_loop
async def test_who_watches_is_told_of_changes_and_of_nothing_else(world):
    call = Caller(world)
    stream_id = call.start("Watch", service="grpc.health.v1.Health")
    await call.send(stream_id, prefixed(HEALTH["HealthCheckRequest"](service="flights").SerializeToString()), end=True)
    call.service.look()
    world.serve()
    for _ in range(3):
        call.service.look()
        await call.exchange()
    told = [HEALTH["HealthCheckResponse"].FromString(body).status for body in call.bodies(stream_id)]
    assert told == [2, 1]
    call.server.stop()
    await call.exchange()
    assert call.ended(stream_id).status == "UNAVAILABLE"
    call.service.look()


# Answering


@pytest.mark.parametrize("is_raw", [True, False])
@in_loop
async def test_tensors_are_answered_as_they_were_asked(served, row, is_raw):
    answer = await Caller(served)("ModelInfer", infer_request(row, 3, is_raw=is_raw, id="mine"))
    assert data_of(answer) == [1.08] * 3
    assert bool(answer.raw_output_contents) == is_raw
    assert (answer.model_name, answer.model_version, answer.id) == ("flights", "1", "mine")
    assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [("probability", "FP64", [3])]
    assert answer.parameters["stage"].string_param == "live"
    assert served.recorded()["request_id"].to_list() == ["mine"] * 3


@in_loop
async def test_the_request_id_comes_from_message_metadata_or_worker(served, row):
    call = Caller(served)
    assert (await call("ModelInfer", infer_request(row, id="m"), x_request_id="h")).id == "m"
    assert (await call("ModelInfer", infer_request(row), x_request_id="h")).id == "h"
    assert (await call("ModelInfer", infer_request(row))).id == "generated"
    assert (await call("ModelInfer", infer_request(row, id="x" * 300))).status == "INVALID_ARGUMENT"


@in_loop
async def test_keys_come_as_parameters_or_tensors(served, row):
    call = Caller(served)
    request = infer_request(row, id="a")
    request.parameters["key"].int64_param = 77
    await call("ModelInfer", request)
    request = infer_request(row, 2, id="b")
    request.inputs.add(name="id", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"x", b"y"])
    await call("ModelInfer", request)
    assert served.recorded()["key"].to_list() == ["77", "x", "y"]


@in_loop
async def test_requests_of_one_tick_are_run_together(served, row):
    call = Caller(served)
    body = prefixed(infer_request(row).SerializeToString())
    ids = [call.start("ModelInfer") for _ in range(20)]
    for stream_id in ids:
        call.h2.send_data(stream_id, body, end_stream=True)
    await call.exchange()
    assert [call.ended(stream_id).status for stream_id in ids] == ["OK"] * 20
    assert served.models["v1"].batches == [20]


@in_loop
async def test_rows_of_two_versions_are_told_apart(world, row):
    world.follow(flights=world.system("v1", canary="v2", share=0.5))
    request = infer_request(row, 40)
    units = request.inputs.add(name="tailnum", datatype="BYTES", shape=[40])
    units.contents.bytes_contents.extend(b"N%d" % i for i in range(40))
    answer = await Caller(world)("ModelInfer", request)
    versions = answer.parameters["versions"].string_param.split(",")
    assert answer.parameters["stage"].string_param == "split"
    assert [round(value) for value in data_of(answer)] == [int(version) for version in versions]


@in_loop
async def test_large_requests_and_answers_pass(served, row):
    answer = await Caller(served)("ModelInfer", infer_request(row, 10_000, is_raw=True))
    assert data_of(answer) == [1.08] * 10_000


@in_loop
async def test_packed_messages_are_read(served, row):
    data = gzip.compress(infer_request(row, 100).SerializeToString())
    call = Caller(served)
    body = b"\1" + struct.pack(">I", len(data)) + data
    assert (await call.raw("ModelInfer", body, grpc_encoding="gzip")).status == "OK"
    body = prefixed(infer_request(row).SerializeToString())
    assert (await call.raw("ModelInfer", body, grpc_encoding="gzip")).status == "OK"


@in_loop
async def test_only_those_with_a_token_may_ask(world, row):
    secret, sha256 = new_token()
    world.follow(tokens=(TokenHash(sha256=sha256, role="client", name="shop"),), flights=world.system("v1"))
    call = Caller(world)
    assert (await call("ServerLive")).live
    assert (await call("ServerReady")).ready
    assert await call.health() == 1
    for method in ("ServerMetadata", "ModelMetadata", "RepositoryIndex", "ModelInfer"):
        assert (await call(method)).status == "UNAUTHENTICATED"
    answer = await call("ModelInfer", infer_request(row), authorization=f"Bearer {secret}")
    assert data_of(answer) == [1.08]
    assert served_caller(world) == ["shop"]
    assert (await call("ServerMetadata", authorization="Bearer hf_wrong")).status == "UNAUTHENTICATED"
    assert call.service.refused == 5


@in_loop
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
async def test_nothing_is_kept_for_those_who_may_not_enter(world, method):
    world.follow(tokens=(TokenHash(sha256="0" * 64, role="client"),), flights=world.system("v1"))
    call = Caller(world)
    stream_id = call.start(method)
    await call.send(stream_id, b"\0" + struct.pack(">I", 2**20) + bytes(1000))
    assert call.ended(stream_id).status == "UNAUTHENTICATED"


def served_caller(world):
    return world.recorded()["caller"].to_list()


@in_loop
async def test_calls_are_counted_and_belong_to_the_trace_of_the_caller(served, row):
    noted = Noted()
    served.plane.observing = Observing(noted, noted)
    call = Caller(served)
    general = infer_request(row)
    general.parameters["key"].string_param = "7"
    assert data_of(await call("ModelInfer", infer_request(row), traceparent="00-a")) == [1.08]
    assert data_of(await call("ModelInfer", general, traceparent="00-b")) == [1.08]
    await call("ModelInfer", infer_request(row | {"dep_hour": 99}))
    await call("ModelInfer", infer_request(row, model_name="other"))
    await call("ModelInfer", infer_request(row | {"dep_hour": 13}))
    assert noted.rows == 2
    assert noted.parents[:2] == ["00-a", "00-b"]
    assert noted.refusals == [("flights", 422), ("other", 404)]


# What is wrong


def _wrong(row):
    typed = infer_request(row)
    both = infer_request(row, is_raw=True)
    both.inputs[0].contents.int64_contents.append(8)
    few = infer_request(row, is_raw=True)
    few.raw_input_contents.pop()
    other = infer_request(row)
    other.inputs[1].datatype = "FP32"
    half = infer_request(row)
    half.inputs[1].datatype = "FP16"
    unknown = infer_request(row)
    unknown.inputs[1].datatype = "FLOAT"
    shared = infer_request(row)
    shared.inputs[0].parameters["shared_memory_region"].string_param = "here"
    output = infer_request(row)
    output.outputs.add(name="probabilty")
    version = infer_request(row, model_version="9")
    return {
        "an hour that is none": (infer_request(row | {"dep_hour": 99}), "INVALID_ARGUMENT", "from 0 to 23"),
        "a model that is none": (infer_request(row, model_name="flight"), "NOT_FOUND", "did you mean 'flights'"),
        "a version that is none": (version, "NOT_FOUND", "version"),
        "contents and raw": (both, "INVALID_ARGUMENT", "one of the two"),
        "too few raw contents": (few, "INVALID_ARGUMENT", "give one for each"),
        "contents of another type": (other, "INVALID_ARGUMENT", "stands in fp32_contents; the request has fp64"),
        "FP16 that is not raw": (half, "INVALID_ARGUMENT", "must stand in raw_input_contents"),
        "a datatype that is none": (unknown, "INVALID_ARGUMENT", "no datatype 'FLOAT'"),
        "shared memory": (shared, "INVALID_ARGUMENT", "cannot take effect"),
        "an output that is none": (output, "INVALID_ARGUMENT", "did you mean 'probability'"),
        "a model that fails": (infer_request(row | {"dep_hour": 13}), "INTERNAL", "ArithmeticError"),
        "no inputs": (INFERENCE["ModelInferRequest"](model_name="flights"), "INVALID_ARGUMENT", "no input"),
        "nothing": (INFERENCE["ModelInferRequest"](), "NOT_FOUND", "no model ''"),
        "no columns": (infer_request({"distance": typed.inputs[1].contents.fp64_contents[0]}), "INVALID_ARGUMENT", ""),
    }


@in_loop
async def test_what_is_wrong_is_said_with_a_status(served, row):
    call = Caller(served)
    for name, (request, status, said) in _wrong(row).items():
        ended = await call("ModelInfer", request)
        assert (name, ended.status, ended.bodies) == (name, status, [])
        assert said in ended.message, name
    assert call.service.refused == len(_wrong(row))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Overloaded("full", retry_after_s=2.5), StatusCode.UNAVAILABLE),
        (StateError("no live version"), StatusCode.UNAVAILABLE),
        (HoldfastError("other"), StatusCode.INTERNAL),
        (ZeroDivisionError("inside"), StatusCode.INTERNAL),
    ],
)
def test_errors_have_their_codes(error, code):
    refused = refused_of(error)
    assert refused.code == code
    assert "Division" not in str(refused)


def test_a_full_queue_says_when_to_come_again():
    assert refused_of(Overloaded("full", retry_after_s=2.5)).metadata == ((b"grpc-retry-pushback-ms", b"2500"),)


@in_loop
async def test_a_full_queue_refuses_and_says_when_to_come_again(world, row):
    world.serve(queue=2)
    call = Caller(world, Stuck(world.plane))
    body = prefixed(infer_request(row).SerializeToString())
    ids = [call.start("ModelInfer") for _ in range(5)]
    for stream_id in ids:
        call.h2.send_data(stream_id, body, end_stream=True)
    await call.exchange()
    ends = [ended for stream_id in ids if (ended := call.ended(stream_id))]
    assert [ended.status for ended in ends] == ["UNAVAILABLE"] * 3
    assert {ended.metadata["grpc-retry-pushback-ms"] for ended in ends} == {"1000"}


@in_loop
async def test_what_is_no_call_is_refused_at_once(served):
    call = Caller(served)
    ended = await call.raw("Nothing", b"", service="some.Service")
    assert (ended.status, "inference.GRPCInferenceService" in ended.message) == ("UNIMPLEMENTED", True)
    assert (await call.raw("ServerLive", b"", http="GET")).http == "405"
    assert (await call.raw("ServerLive", b"", kind="application/json")).http == "415"
    assert (await call.raw("ServerLive", prefixed(b""), kind="application/grpc+proto")).status == "OK"
    ended = await call.raw("ServerLive", prefixed(b""), grpc_encoding="snappy")
    assert (ended.status, ended.metadata["grpc-accept-encoding"]) == ("UNIMPLEMENTED", "identity,gzip")
    assert (await call.raw("ServerLive", prefixed(b""), grpc_timeout="soon")).status == "INVALID_ARGUMENT"


BOMB = gzip.compress(b"\0" * (MESSAGE_LIMIT_BYTES + 1))


@pytest.mark.parametrize(
    ("body", "metadata", "status"),
    [
        (b"", {}, "INTERNAL"),
        (b"\0\0\0", {}, "INTERNAL"),
        (prefixed(b"abc")[:-1], {}, "INTERNAL"),
        (prefixed(b"abc") + b"d", {}, "INTERNAL"),
        (prefixed(b"") * 2, {}, "INTERNAL"),
        (prefixed(b"\xff\xff"), {}, "INVALID_ARGUMENT"),
        (prefixed(b"\x0a\x02\xff\xfe"), {}, "INVALID_ARGUMENT"),
        (b"\1\0\0\0\0", {}, "INTERNAL"),
        (b"\2\0\0\0\0", {"grpc_encoding": "gzip"}, "INTERNAL"),
        (b"\1\0\0\0\3abc", {"grpc_encoding": "gzip"}, "INTERNAL"),
        (b"\1" + struct.pack(">I", len(BOMB)) + BOMB, {"grpc_encoding": "gzip"}, "RESOURCE_EXHAUSTED"),
        (b"\1" + struct.pack(">I", len(BOMB) - 9) + BOMB[:-9], {"grpc_encoding": "gzip"}, "INTERNAL"),
        (b"\0\xff\xff\xff\xff", {}, "RESOURCE_EXHAUSTED"),
    ],
)
@in_loop
async def test_bytes_that_are_no_message_are_refused(served, body, metadata, status):
    call = Caller(served)
    assert (await call.raw("ModelInfer", body, **metadata)).status == status
    assert (await call("ServerLive")).live


@in_loop
async def test_a_message_that_is_too_large_is_refused_before_it_has_come(served):
    call = Caller(served)
    stream_id = call.start("ModelInfer")
    await call.send(stream_id, struct.pack(">BI", 0, MESSAGE_LIMIT_BYTES + 1) + b"x")
    assert call.ended(stream_id).status == "RESOURCE_EXHAUSTED"


@in_loop
async def test_what_all_connections_hold_is_bounded(served, row):
    call = Caller(served)
    call.service._guard.bodies.limit_bytes = 100_000
    half = struct.pack(">BI", 0, 90_000) + b"\0" * 60_000
    first, second = call.start("ModelInfer"), call.start("ModelInfer")
    await call.send(first, half)
    await call.send(second, half)
    assert call.ended(second).status == "RESOURCE_EXHAUSTED"
    await call.send(first, b"\0" * 30_000, end=True)
    assert call.ended(first).status == "INVALID_ARGUMENT"
    assert call.service._guard.bodies.held_bytes == 0


@in_loop
async def test_compressed_messages_that_cannot_be_read_leave_nothing_held(served):
    call = Caller(served)
    broken = b"\1" + struct.pack(">I", 50_000) + b"x" * 50_000
    for method in ("ModelInfer", "ModelStreamInfer"):
        assert (await call.raw(method, broken, grpc_encoding="gzip")).status == "INTERNAL"
        assert call.service._guard.bodies.held_bytes == 0


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@in_loop
async def test_a_compressed_message_is_held_as_large_as_it_is_unpacked(served, row, method):
    batcher = Later(served.plane)
    call = Caller(served, batcher)
    bodies = call.service._guard.bodies
    message = large_message(row)
    bodies.limit_bytes = 3 * MEBIBYTE
    calls = [call.start(method, grpc_encoding="gzip") for _ in range(4)]
    for stream_id in calls:
        await call.send(stream_id, zipped(message), end=True)
    assert len(message) * 2 <= bodies.held_bytes <= bodies.limit_bytes
    refused = [call.ended(stream_id).status for stream_id in calls if call.ended(stream_id)]
    assert refused == ["RESOURCE_EXHAUSTED"] * 2
    batcher.end()
    await call.exchange()
    assert [call.ended(stream_id).status for stream_id in calls[:2]] == ["OK", "OK"]
    assert bodies.held_bytes == 0


@in_loop
async def test_nothing_is_unpacked_for_those_who_may_not_enter(world):
    world.follow(tokens=(TokenHash(sha256="0" * 64, role="client"),), flights=world.system("v1"))
    call = Caller(world)
    stream_id = call.start("ModelInfer", grpc_encoding="gzip")
    call.h2.send_data(stream_id, b"\1" + struct.pack(">I", 3) + b"xxx", end_stream=True)
    await call.exchange()
    assert call.ended(stream_id).status == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("method", "service"), [("ServerLive", SERVICE), ("Check", HEALTH_SERVICE), ("Watch", HEALTH_SERVICE)]
)
@in_loop
async def test_a_method_that_needs_no_token_takes_no_room_from_the_others(served, method, service):
    call = Caller(served)
    whole = b"\0" + struct.pack(">I", 8 * MEBIBYTE) + bytes(9_000)
    stream_id = call.start(method, service=service)
    await call.send(stream_id, whole[:2_000])
    assert call.service._guard.bodies.held_bytes == 0
    assert call.ended(stream_id) is None
    await call.send(stream_id, whole[2_000:5_000])
    assert call.ended(stream_id).status == "RESOURCE_EXHAUSTED"
    assert "larger than 4 KiB" in call.ended(stream_id).message


@in_loop
async def test_a_short_message_without_a_token_may_come_in_pieces(served):
    call = Caller(served)
    stream_id = call.start("Check", service=HEALTH_SERVICE)
    body = prefixed(HEALTH["HealthCheckRequest"](service="flights").SerializeToString())
    for at in range(len(body)):
        await call.send(stream_id, body[at : at + 1], end=at + 1 == len(body))
    assert HEALTH["HealthCheckResponse"].FromString(call.ended(stream_id).bodies[0]).status == 1


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@pytest.mark.parametrize("end", ["stay", "reset", "lose"])
@in_loop
async def test_what_the_tick_still_holds_is_counted_though_nobody_waits_for_it(served, row, method, end):
    batcher = Later(served.plane)
    call = Caller(served, batcher)
    bodies = call.service._guard.bodies
    for i in range(5):
        stream_id = call.start(method)
        await call.send(stream_id, prefixed(large_message(row, f"r{i}")), end=True)
        if end == "reset":
            call.h2.reset_stream(stream_id)
            await call.exchange()
    if end == "lose":
        call.server.connection_lost(None)
    assert bodies.held_bytes >= 5 * MEBIBYTE
    batcher.end()
    if end != "lose":
        await call.exchange()
    assert bodies.held_bytes == 0
    assert served.recorded().height == 5, "what was accepted is recorded all the same"


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@in_loop
async def test_no_work_is_begun_for_a_call_that_was_given_up(served, row, method):
    call = Caller(served, Stuck(served.plane))
    for _ in range(3):
        stream_id = call.start(method)
        await call.send(stream_id, prefixed(large_message(row)), end=True)
        call.h2.reset_stream(stream_id)
        await call.exchange()
    unusual, failed, answered = call.service._batcher._waiting
    failed.error = StateError("the disk is full")
    tasks, refused = asyncio.all_tasks(), call.service.refused
    unusual.origin.unusual(unusual)
    failed.origin.answered(failed)
    assert (asyncio.all_tasks(), call.service.refused) == (tasks, refused)
    assert MEBIBYTE <= call.service._guard.bodies.held_bytes < 2 * MEBIBYTE, "of the third one"
    answered.error = StateError("it is told to nobody")
    answered.origin.answered(answered)
    assert call.service._guard.bodies.held_bytes == 0


# Time


@in_loop
async def test_a_stream_that_stops_within_a_message_gives_its_room_back(served, row):
    call = Caller(served)
    partial, calm = call.start("ModelStreamInfer"), call.start("ModelStreamInfer")
    await call.send(partial, struct.pack(">BI", 0, 90_000) + bytes(50_000))
    await call.send(calm, prefixed(infer_request(row).SerializeToString()))
    assert call.service._guard.bodies.held_bytes > 50_000
    for now_s in range(1, 120):
        call.server.sweep(float(now_s))
        if now_s % 50 == 0:
            await call.exchange()
    assert call.service._guard.bodies.held_bytes == 0
    await call.exchange()
    assert call.of(partial, h2.events.StreamReset)
    assert not call.of(calm, h2.events.StreamReset), "it may stay open between two messages"


@in_loop
async def test_a_message_that_waits_for_answers_before_it_is_not_late(served, row):
    batcher = Never()
    call = Caller(served, batcher)
    stream_id = call.start("ModelStreamInfer")
    message = prefixed(infer_request(row).SerializeToString())
    await call.send(stream_id, message * grpcconversation.MOST_IN_FLIGHT + message[:-1])
    for now_s in range(1, 120):
        call.server.sweep(float(now_s))
        if now_s % 50 == 0:
            await call.exchange()
    assert not call.of(stream_id, h2.events.StreamReset)
    assert batcher.given_up == 0


@in_loop
async def test_who_watches_must_say_what(served):
    call = Caller(served)
    silent = call.start("Watch", service=HEALTH_SERVICE)
    watching = call.start("Watch", service=HEALTH_SERVICE)
    await call.send(watching, prefixed(b""), end=True)
    for now_s in range(1, 120):
        call.server.sweep(float(now_s))
        if now_s % 50 == 0:
            await call.exchange()
    await call.exchange()
    assert call.of(silent, h2.events.StreamReset)
    assert not call.of(watching, h2.events.StreamReset)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"5S", 5), (b"250m", 0.25), (b"10u", 1e-5), (b"8n", 8e-9)],
)
def test_timeouts_are_read(text, seconds):
    assert timeout_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1 S", b"1s"])
def test_what_is_no_timeout_is_none(text):
    assert timeout_s(text) is None


@in_loop
async def test_a_call_that_takes_too_long_ends_and_is_given_up(served, row):
    batcher = Never()
    call = Caller(served, batcher)
    stream_id = call.start("ModelInfer", grpc_timeout="50m")
    await call.send(stream_id, prefixed(infer_request(row).SerializeToString()), end=True)
    for _ in range(1000):
        if call.ended(stream_id):
            break
        await asyncio.sleep(0.001)
        await call.exchange()
    assert call.ended(stream_id).status == "DEADLINE_EXCEEDED"
    assert batcher.given_up == 1


@in_loop
async def test_a_cancelled_call_is_given_up(served, row):
    batcher = Never()
    call = Caller(served, batcher)
    stream_id = call.start("ModelInfer")
    await call.send(stream_id, prefixed(infer_request(row).SerializeToString()), end=True)
    assert len(batcher.waiting) == 1
    call.h2.reset_stream(stream_id)
    await call.exchange()
    assert batcher.given_up == 1


# Streams


def read_stream(bodies):
    return [INFERENCE["ModelStreamInferResponse"].FromString(body) for body in bodies]


@in_loop
async def test_messages_of_a_stream_are_answered_in_order_and_errors_in_their_place(served, row):
    call = Caller(served)
    stream_id = call.start("ModelStreamInfer")
    hours = [hour % 24 for hour in range(300)]
    requests = [
        infer_request(row | {"dep_hour": 99 if hour == 13 else hour}, is_raw=True, id=str(i))
        for i, hour in enumerate(hours)
    ]
    await call.send(stream_id, b"".join(prefixed(each.SerializeToString()) for each in requests), end=True)
    ended = call.ended(stream_id)
    answers = read_stream(ended.bodies)
    assert ended.status == "OK"
    assert [answer.infer_response.id for answer in answers] == [str(i) for i in range(300)]
    for hour, answer in zip(hours, answers, strict=True):
        if hour == 13:
            assert "from 0 to 23" in answer.error_message
        else:
            assert data_of(answer.infer_response) == [1 + hour / 100]
    assert max(served.models["v1"].batches) > 16


@in_loop
async def test_usual_messages_of_a_stream_are_answered_like_calls_of_their_own(served, row):
    batcher = Batcher(served.plane)
    call = Caller(served, batcher)
    requests = [infer_request(row | {"dep_hour": hour}, is_raw=hour % 2 == 0) for hour in range(12)]
    stream_id = call.start("ModelStreamInfer", x_request_id="of the stream")
    await call.send(stream_id, b"".join(prefixed(each.SerializeToString()) for each in requests), end=True)
    assert not batcher.general, "none needed a closer look"
    answers = [each.infer_response for each in read_stream(call.ended(stream_id).bodies)]
    assert answers == [await call("ModelInfer", each) for each in requests]
    assert set(served.recorded()["request_id"].to_list()) == {"generated"}


@in_loop
async def test_a_model_that_fails_is_told_in_its_place(served, row):
    call = Caller(served)
    stream_id = call.start("ModelStreamInfer")
    requests = [infer_request(row | {"dep_hour": hour}, id=f"r{hour}") for hour in (8, 13, 9)]
    for request in requests:
        await call.send(stream_id, prefixed(request.SerializeToString()))
    await call.send(stream_id, b"", end=True)
    ended = call.ended(stream_id)
    eight, thirteen, nine = read_stream(ended.bodies)
    assert (ended.status, data_of(eight.infer_response), data_of(nine.infer_response)) == ("OK", [1.08], [1.09])
    assert thirteen.error_message
    failed = thirteen.infer_response
    assert (failed.id, failed.model_name) == ("r13", "flights")
    assert failed.parameters["grpc_status"].string_param == "INTERNAL"
    assert call.service.refused == 1


@in_loop
async def test_what_is_no_message_ends_a_stream_behind_the_answers_before_it(served, row):
    call = Caller(served)
    good = prefixed(infer_request(row).SerializeToString())
    ended = await call.raw("ModelStreamInfer", good * 3 + prefixed(b"\xff") * 100 + good)
    assert (ended.status, len(ended.bodies)) == ("INVALID_ARGUMENT", 3)
    assert call.service._guard.bodies.held_bytes == 0


@in_loop
async def test_messages_of_a_stream_are_held_until_they_are_answered(served, row):
    call = Caller(served, Never())
    stream_id = call.start("ModelStreamInfer")
    message = prefixed(infer_request(row).SerializeToString())
    await call.send(stream_id, message * 10 + b"\0")
    bodies = call.service._guard.bodies
    assert bodies.held_bytes == 10 * len(message) + 1
    bodies.limit_bytes = 11 * len(message)
    await call.send(stream_id, message * 2)
    assert call.ended(stream_id).status == "RESOURCE_EXHAUSTED"
    assert bodies.held_bytes == 0


@in_loop
async def test_a_stream_answers_while_it_is_open(served, row):
    call = Caller(served)
    stream_id = call.start("ModelStreamInfer")
    for n in range(1, 4):
        await call.send(stream_id, prefixed(infer_request(row).SerializeToString()))
        assert len(call.bodies(stream_id)) == n
    assert call.ended(stream_id) is None
    await call.send(stream_id, b"", end=True)
    assert call.ended(stream_id).status == "OK"


@in_loop
async def test_a_stream_without_messages_ends_well(served):
    call = Caller(served)
    assert (await call.raw("ModelStreamInfer", b"")).status == "OK"
    assert (await call.raw("ModelStreamInfer", b"\0\0\0\0\5abc")).status == "INTERNAL"
    assert (await call.raw("ModelStreamInfer", prefixed(b"\xff"))).status == "INVALID_ARGUMENT"
    assert (await call.raw("ModelStreamInfer", b"\0\xff\xff\xff\xff")).status == "RESOURCE_EXHAUSTED"
    assert call.service._guard.bodies.held_bytes == 0


@in_loop
async def test_a_stream_that_sends_faster_than_it_is_answered_waits(served, row):
    batcher = Never()
    call = Caller(served, batcher, stream_window_bytes=65_535)
    stream_id = call.start("ModelStreamInfer")
    message = prefixed(infer_request(row).SerializeToString())
    left = await call.send(stream_id, message * 2000)
    assert len(batcher.waiting) == grpcconversation.MOST_IN_FLIGHT
    assert 2000 * len(message) - left <= 65_535 + len(message)
    call.h2.reset_stream(stream_id)
    await call.exchange()
    assert batcher.given_up == grpcconversation.MOST_IN_FLIGHT
    assert call.service._guard.bodies.held_bytes == 0


@in_loop
async def test_a_stop_answers_what_a_stream_has_asked(served, row):
    batcher = Never()
    call = Caller(served, batcher)
    stream_id = call.start("ModelStreamInfer")
    await call.send(stream_id, prefixed(infer_request(row).SerializeToString()) + b"\0\0")
    call.server.stop()
    await call.exchange()
    assert call.ended(stream_id) is None
    request, future = batcher.waiting[0]
    future.set_result(served.plane.predict("flights", request))
    await call.exchange()
    ended = call.ended(stream_id)
    assert (ended.status, ended.message, len(ended.bodies)) == ("UNAVAILABLE", STOPPING, 1)


@in_loop
async def test_a_stream_needs_a_token(world, row):
    secret, sha256 = new_token()
    world.follow(tokens=(TokenHash(sha256=sha256, role="client", name="shop"),), flights=world.system("v1"))
    call = Caller(world)
    message = prefixed(infer_request(row).SerializeToString())
    assert (await call.raw("ModelStreamInfer", message)).status == "UNAUTHENTICATED"
    reflection = {"service": "grpc.reflection.v1.ServerReflection"}
    asked = prefixed(b"\x3a\x00")
    assert (await call.raw("ServerReflectionInfo", asked, **reflection)).status == "UNAUTHENTICATED"
    ended = await call.raw("ServerReflectionInfo", asked, authorization=f"Bearer {secret}", **reflection)
    assert (ended.status, SERVICE.encode() in ended.bodies[0]) == ("OK", True)
    stream_id = call.start("ModelStreamInfer", authorization=f"Bearer {secret}")
    await call.send(stream_id, message)
    world.follow(tokens=(TokenHash(sha256="0" * 64, role="client"),), flights=world.system("v1"))
    await call.send(stream_id, message)
    ended = call.ended(stream_id)
    assert (ended.status, len(ended.bodies)) == ("UNAUTHENTICATED", 1)


# Anything


@st.composite
def _requests(draw):
    request = INFERENCE["ModelInferRequest"](
        model_name=draw(st.sampled_from(["flights", "flights", "flights", "other"])),
        model_version=draw(st.sampled_from(["", "", "1", "9"])),
        id=draw(st.text(max_size=5)),
    )
    numbers = st.integers(-3, 3)
    for name in draw(st.lists(st.sampled_from([*DATATYPES, "id", "tailnum", "x"]), max_size=5)):
        tensor = request.inputs.add(
            name=name,
            datatype=draw(
                st.sampled_from(["INT64", "FP64", "BYTES", "BOOL", "FP32", "UINT8", "FP16", "BF16", "", "X"])
            ),
            shape=draw(st.lists(st.sampled_from([-1, 0, 1, 1, 2, 2**62]), max_size=3)),
        )
        contents = tensor.contents
        for field in draw(st.lists(st.sampled_from([*FIELDS.values(), "fp32_contents", "uint_contents"]), max_size=2)):
            if field == "bytes_contents":
                contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=4), max_size=3)))
            elif field == "uint_contents":
                contents.uint_contents.extend(draw(st.lists(st.integers(0, 300), max_size=3)))
            else:
                getattr(contents, field).extend(draw(st.lists(st.sampled_from([0, 1, 8]), max_size=3)))
        if draw(st.booleans()):
            request.raw_input_contents.append(draw(st.binary(max_size=16)))
    if draw(st.booleans()):
        request.parameters[draw(st.sampled_from(["key", "unit", "event_at", "sequence_id"]))].int64_param = draw(
            numbers
        )
    return request


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=_requests())
def test_no_request_breaks_the_service(served, request):
    @in_loop
    async def call():
        answer = await Caller(served)("ModelInfer", request)
        if isinstance(answer, Ended):
            assert answer.status in ("INVALID_ARGUMENT", "NOT_FOUND"), answer.message

    call()


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=60), method=st.sampled_from(["ModelInfer", "ModelStreamInfer", "ModelMetadata"]))
def test_no_bytes_break_the_service(served, body, method):
    @in_loop
    async def call():
        for each in (body, prefixed(body)):
            ended = await Caller(served).raw(method, each)
            assert "inside Holdfast" not in ended.message

    call()


# A socket


class Remote:
    """A server on a socket, and h2 on the other side of it."""

    async def __aenter__(self):
        await self.server.start(self.listening)
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.listening.getsockname()[1])
        return self

    def __init__(self, world, batcher):
        self.server = GrpcServer(InferenceService(world.plane, batcher, Access(), lambda: "generated"))
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events, self.rest = [], b""

    async def __aexit__(self, *_):
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)

    def ask(self, request):
        path = f"/{SERVICE}/ModelInfer"
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "here")]
        fields += [("content-type", "application/grpc")]
        self.h2.send_headers(1, fields)
        self.h2.send_data(1, prefixed(request.SerializeToString()), end_stream=True)

    async def read_until(self, is_enough):
        while not is_enough():
            self.writer.write(self.h2.data_to_send())
            self.rest += await asyncio.wait_for(self.reader.read(65_536), 10)
            whole = whole_frames(self.rest)
            self.events += read(self.h2, self.rest[:whole])
            self.rest = self.rest[whole:]

    def has(self, kind):
        return any(isinstance(event, kind) for event in self.events)


@in_loop
async def test_a_server_takes_connections_answers_and_stops(served, row):
    async with Remote(served, Batcher(served.plane)) as remote:
        remote.ask(infer_request(row))
        await remote.read_until(lambda: remote.has(h2.events.StreamEnded))
        assert remote.server.connections == 1
        stopping = asyncio.create_task(remote.server.stop(10))
        await remote.read_until(remote.reader.at_eof)
        await stopping
        assert remote.has(h2.events.ConnectionTerminated)
        assert remote.server.connections == 0


@in_loop
async def test_a_stop_does_not_wait_for_ever(served, row):
    never = Never()
    async with Remote(served, never) as remote:
        remote.ask(infer_request(row))
        await remote.read_until(lambda: never.waiting)
        await remote.server.stop(0.01)
        for _ in range(5):
            await asyncio.sleep(0)
        assert remote.server.connections == 0
        assert never.given_up == 1
