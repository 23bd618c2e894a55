"""A load of gRPC calls without a gRPC client in its way: frames are made beforehand, and sent again and again."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import uvloop
from hpack import Encoder

from holdfast.wire import http2wire as wire
from holdfast.wire.grpcmessages import INFERENCE
from holdfast.wire.grpcwire import prefixed
from parts.load import Load

PATH = "/inference.GRPCInferenceService/ModelInfer"


def calls(system: str, rows: "np.ndarray[Any, Any]", form: str) -> list[bytes]:
    """One call per row: ``packed`` in one FP32 tensor, or ``named`` with one tensor per column."""
    made = []
    for row in np.asarray(rows, dtype="<f4"):
        request = INFERENCE["ModelInferRequest"](model_name=system)
        if form == "packed":
            request.inputs.add(name="x", datatype="FP32", shape=[1, len(row)])
            request.raw_input_contents.append(row.tobytes())
        else:
            for k, value in enumerate(row):
                request.inputs.add(name=f"x{k}", datatype="FP32", shape=[1])
                request.raw_input_contents.append(value.tobytes())
        made.append(prefixed(request.SerializeToString()))
    return made


class Caller(asyncio.Protocol):
    """One connection with so many calls open at a time, until the time is over."""

    def __init__(self, blocks: Sequence[bytes], bodies: Sequence[bytes], start: int, streams: int, until_s: float):
        self.latencies_s: list[float] = []
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()
        self._blocks, self._bodies, self._next = blocks, bodies, start
        self._streams, self._until_s = streams, until_s
        self._id = -1
        self._sent_s: dict[int, float] = {}
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        window = wire.window_update(0, wire.LARGEST_WINDOW - wire.DEFAULT_WINDOW)
        first = self._call(self._blocks[0])
        others = b"".join(self._call(self._blocks[1]) for _ in range(self._streams - 1))
        transport.write(wire.PREFACE + wire.settings_frame({}) + window + first + others)

    def _call(self, block: bytes) -> bytes:
        self._id += 2
        body = self._bodies[self._next % len(self._bodies)]
        self._next += 1
        self._sent_s[self._id] = time.perf_counter()
        head = wire.frame(wire.HEADERS, wire.END_HEADERS, self._id, block)
        return head + wire.frame(wire.DATA, wire.END_STREAM, self._id, body)

    def data_received(self, data: bytes) -> None:
        data, at, now, out = self._rest + data, 0, time.perf_counter(), []
        while len(data) - at >= 9:
            high, low, kind, flags, stream_id = wire.unpack_head(data, at)
            end = at + 9 + (high << 16 | low)
            if end > len(data):
                break
            if kind == wire.SETTINGS and not flags:
                out.append(wire.frame(wire.SETTINGS, wire.ACK, 0))
            elif kind == wire.PING and not flags:
                out.append(wire.frame(wire.PING, wire.ACK, 0, data[at + 9 : end]))
            elif kind in (wire.RST_STREAM, wire.GOAWAY):
                self.failed += 1
            elif kind == wire.HEADERS and flags & wire.END_STREAM:
                self.latencies_s.append(now - self._sent_s.pop(stream_id))
                # A call that is refused has its status in its only head.
                self.failed += data[at + 9] == 0x88
                if now < self._until_s:
                    out.append(self._call(self._blocks[1]))
            at = end
        self._rest = data[at:]
        if out:
            self._transport.write(b"".join(out))
        elif not self._sent_s:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _drive(
    port: int, token: str, bodies: Sequence[bytes], connections: int, streams: int, seconds: float
) -> Load:
    encoder, until_s = Encoder(), time.perf_counter() + seconds
    fields = [(":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", f"127.0.0.1:{port}")]
    fields += [("te", "trailers"), ("content-type", "application/grpc"), ("authorization", f"Bearer {token}")]
    blocks = encoder.encode(fields), encoder.encode(fields)
    callers: list[Caller] = []
    for k in range(connections):
        _, caller = await asyncio.get_running_loop().create_connection(
            lambda k=k: Caller(blocks, bodies, k * 97, streams, until_s),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        callers.append(caller)
    await asyncio.gather(*[caller.done for caller in callers])
    latencies_ms = np.concatenate([caller.latencies_s for caller in callers]) * 1e3
    return Load(
        requests=len(latencies_ms),
        failed=sum(caller.failed for caller in callers),
        seconds=seconds,
        p50_ms=float(np.percentile(latencies_ms, 50)),
        p99_ms=float(np.percentile(latencies_ms, 99)),
    )


def drive_calls(
    port: int, token: str, bodies: Sequence[bytes], *, connections: int, streams: int, seconds: float
) -> Load:
    """Call for some seconds; each answer is followed by the next call."""
    return uvloop.run(_drive(port, token, bodies, connections, streams, seconds))
