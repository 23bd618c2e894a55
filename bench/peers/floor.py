"""What a server cannot be faster than here: bare HTTP, and decoding, running and encoding by themselves.

``floor.py bare`` answers every request with the same bytes; ``whole`` does the work of an answer and
nothing else; ``parts`` measures that work without HTTP. None of them checks, records, routes or asks for a token.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httptools
import msgspec
import numpy as np
import onnxruntime as ort
import uvloop

Run = Callable[[Any], Any]


class Input(msgspec.Struct):
    """The packed tensor of a request."""

    name: str
    shape: tuple[int, int]
    datatype: str
    data: list[float]


class Request(msgspec.Struct):
    """Body of a request."""

    inputs: list[Input]


class Output(msgspec.Struct):
    """The tensor of an answer."""

    name: str
    shape: tuple[int, int]
    datatype: str
    data: list[float]


class Answer(msgspec.Struct):
    """Body of an answer."""

    model_name: str
    outputs: list[Output]


class BinaryInput(msgspec.Struct):
    """The head of a tensor whose bytes follow."""

    name: str
    shape: tuple[int, int]
    datatype: str
    parameters: dict[str, int]


class BinaryRequest(msgspec.Struct):
    """The JSON head of a binary request."""

    inputs: list[BinaryInput]


_decode = msgspec.json.Decoder(Request).decode
_decode_binary = msgspec.json.Decoder(BinaryRequest).decode
_encode = msgspec.json.Encoder().encode


def session(model: str) -> tuple[Run, str]:
    """One session on one thread, and the name of its input."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    found = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = found.get_inputs()[0].name
    run = found.run
    return lambda x: run(None, {name: x})[0], name


def decode(body: bytes) -> Any:
    """The tensor of a body as float32 (rows, columns)."""
    tensor = _decode(body).inputs[0]
    return np.array(tensor.data, dtype=np.float32).reshape(tensor.shape)


def encode(y: Any) -> bytes:
    """The answer for outputs (rows, 1)."""
    return _encode(Answer("flights", [Output("probability", y.shape, "FP32", y.ravel().tolist())]))


def decode_binary(body: bytes, head: int) -> Any:
    """The tensor behind a JSON head of so many bytes."""
    tensor = _decode_binary(body[:head]).inputs[0]
    return np.frombuffer(body, dtype=np.float32, offset=head).reshape(tensor.shape)


def encode_binary(y: Any) -> tuple[bytes, int]:
    """The answer, and the length of its JSON head."""
    data = y.tobytes()
    output = {"name": "probability", "shape": y.shape, "datatype": "FP32"}
    output["parameters"] = {"binary_data_size": len(data)}
    head = _encode({"model_name": "flights", "outputs": [output]})
    return head + data, len(head)


class Bare(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and no more."""

    answer: Callable[[bytes, int], tuple[bytes, int]]

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._head = 0

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 31 and name.lower() == b"inference-header-content-length":
            self._head = int(value)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        said, head = self.answer(body, self._head)
        lines = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(said)
        if head:
            lines += b"Inference-Header-Content-Length: %d\r\n" % head
        self._transport.write(lines + b"\r\n" + said)
        self._head = 0


def answering(kind: str, model: str) -> Callable[[bytes, int], tuple[bytes, int]]:
    """What a server of a kind does with a body, given the length of its JSON head where it has one."""
    if kind == "bare":
        fixed = encode(np.full((1, 1), 0.123456, dtype=np.float32))
        return lambda body, head: (fixed, 0)
    run, _ = session(model)

    def whole(body: bytes, head: int) -> tuple[bytes, int]:
        if head:
            return encode_binary(run(decode_binary(body, head)))
        return encode(run(decode(body))), 0

    return whole


async def serve(kind: str, model: str, port: int) -> None:
    """Serve until the process is ended."""
    protocol = type("Protocol", (Bare,), {"answer": staticmethod(answering(kind, model))})
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


def parts(model: str, matrix: Any, seconds: float) -> dict[str, float]:
    """Processor microseconds per request of each part, over all rows in rotation."""
    run, _ = session(model)
    found: dict[str, float] = {}
    for rows in (1, 32):
        cut = [np.ascontiguousarray(matrix[i : i + rows]) for i in range(0, len(matrix) - rows + 1, rows)]
        tensor = {"name": "input", "shape": [rows, matrix.shape[1]], "datatype": "FP32"}
        # Through float64 with four digits: what is sent are numbers as people write them.
        bodies = [
            json.dumps({"inputs": [{**tensor, "data": x.astype(float).round(4).ravel().tolist()}]}).encode()
            for x in cut
        ]
        heads = [
            json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": x.nbytes}}]}).encode() for x in cut
        ]
        binary = [(head + x.tobytes(), len(head)) for head, x in zip(heads, cut, strict=True)]
        for name, work, given in (
            ("decode", decode, bodies),
            ("run", run, cut),
            ("encode", encode, [run(x) for x in cut]),
            ("all", lambda body: encode(run(decode(body))), bodies),
            ("binary_all", lambda each: encode_binary(run(decode_binary(*each))), binary),
        ):
            found[f"{name}_{rows}_us"] = _each_us(work, given, seconds)
    return found


def _each_us(work: Callable[[Any], Any], given: list[Any], seconds: float) -> float:
    """Processor microseconds of one call, over whole rounds of what is given."""
    for each in given:
        work(each)
    count, began, until = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        for each in given:
            work(each)
        count += len(given)
    return (time.process_time() - began) / count * 1e6


def main() -> None:
    """Serve or measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["bare", "whole", "parts"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rows", type=Path, help="float32 matrix as .npy")
    parser.add_argument("--seconds", type=float, default=0.5)
    given = parser.parse_args()
    if given.what == "parts":
        print(json.dumps(parts(given.model, np.load(given.rows), given.seconds)))
    else:
        uvloop.run(serve(given.what, given.model, given.port))


if __name__ == "__main__":
    main()
