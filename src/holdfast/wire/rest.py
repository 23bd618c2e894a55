"""The Open Inference Protocol as HTTP bodies: JSON, with tensors as bytes behind it where either side wants that.

Source: Triton's binary tensor data extension. A body is a JSON object, whose length the header
``Inference-Header-Content-Length`` says, and then the bytes of the tensors in the order of the JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from holdfast.errors import InvalidInput
from holdfast.serve.requests import PredictAnswer
from holdfast.wire.contents import decoded
from holdfast.wire.protocol import (
    Inference,
    answer_parameters,
    answer_version,
    check_count,
    check_parameters,
    check_shape,
    output_tensors,
)
from holdfast.wire.tensors import Datatype, Tensor, from_bytes, from_values, to_bytes

HEADER_LENGTH = "Inference-Header-Content-Length"

Data = list[Any]
"""Values, flat or nested as the shape says; null is missing."""


class RequestInput(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor: its values as `data`, or as bytes of which the parameter `binary_data_size` says how many."""

    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    data: Data | None = None
    parameters: dict[str, Any] | None = None


class RequestedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """An output that the caller wants. The parameter `binary_data` asks for bytes."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of an inference request. `parameters` may hold key, unit, event_at, features_known_at and
    binary_data_output."""

    inputs: list[RequestInput]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


class IndexRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a request for the repository index, which may be empty. `ready`: only versions that answer."""

    ready: bool = False


class ResponseOutput(msgspec.Struct, frozen=True, kw_only=True):
    """An output tensor of an answer: `data`, or bytes of which the parameter `binary_data_size` says how many.

    An output that is not a number is null.
    """

    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    data: list[float | None] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


class InferAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Body of an inference answer."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Any]
    outputs: tuple[ResponseOutput, ...]


class Asked(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An inference request and how its answer is to be written."""

    inference: Inference
    all_binary: bool
    binary: Mapping[str, bool]
    """Outputs for which the request says otherwise."""


_decode_infer = msgspec.json.Decoder(InferRequest).decode


def read_infer(
    body: bytes, *, columns: Sequence[str], most_rows: int, header_length: str = "", version: str = ""
) -> Asked:
    """An inference request for a model of these columns. `header_length` is what that header says.

    Raises msgspec.DecodeError for what is no such JSON, InvalidInput for what contradicts itself.
    """
    json, raw = _split(body, header_length)
    infer = _decode_infer(json)
    parameters = infer.parameters or {}
    outputs = infer.outputs or []
    binary: dict[str, bool] = {}
    check_count(len(infer.inputs), columns)
    for output in outputs[:3]:  # there are two at most; further ones are refused
        given = output.parameters or {}
        check_parameters(given, f"output '{output.name}'")
        if (wanted := _flag(given, "binary_data", f"output '{output.name}'")) is not None:
            binary[output.name] = wanted
    return Asked(
        inference=Inference(
            tensors=_tensors(infer.inputs, raw, columns, most_rows),
            version=version,
            id=infer.id or "",
            parameters=parameters,
            outputs=[output.name for output in outputs],
        ),
        all_binary=bool(_flag(parameters, "binary_data_output", "the request")),
        binary=binary,
    )


def write_infer(answer: PredictAnswer, asked: Asked) -> tuple[bytes, bytes]:
    """The JSON of an answer and the bytes behind it, empty where every output is JSON."""
    outputs: list[ResponseOutput] = []
    chunks: list[bytes] = []
    for tensor in output_tensors(answer, asked.inference.outputs):
        data: Any = msgspec.UNSET
        parameters: Any = msgspec.UNSET
        if asked.binary.get(tensor.name, asked.all_binary):
            chunks.append(to_bytes(tensor))
            parameters = {"binary_data_size": len(chunks[-1])}
        else:
            data = tensor.data if isinstance(tensor.data, list) else tensor.data.tolist()
        outputs.append(
            ResponseOutput(
                name=tensor.name, shape=tensor.shape, datatype=tensor.datatype, data=data, parameters=parameters
            )
        )
    said = InferAnswer(
        model_name=answer.system,
        model_version=answer_version(answer),
        id=answer.request_id,
        parameters=answer_parameters(answer),
        outputs=tuple(outputs),
    )
    return msgspec.json.encode(said), b"".join(chunks)


def _split(body: bytes, header_length: str) -> tuple[bytes | memoryview, memoryview]:
    """The JSON of a body and what lies behind it."""
    if not header_length:
        return body, memoryview(b"")
    is_number = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
    length = int(header_length) if is_number else 0
    if not 0 < length <= len(body):
        raise InvalidInput(
            f"{HEADER_LENGTH} is '{header_length[:40]}', the body has {len(body)} bytes; give the length of the JSON "
            "that it begins with",
            column=HEADER_LENGTH,
            expected=f"a whole number from 1 to {len(body)}",
        )
    view = memoryview(body)
    return view[:length], view[length:]


def _tensors(inputs: Sequence[RequestInput], raw: memoryview, columns: Sequence[str], most_rows: int) -> list[Tensor]:
    tensors: list[Tensor] = []
    at = 0
    for given in inputs:
        check_shape(given.name, given.shape, columns, most_rows)
        parameters = given.parameters or {}
        if parameters:
            check_parameters(parameters, f"input '{given.name}'")
        size = parameters.get("binary_data_size")
        if size is None:
            if given.data is None:
                _refuse(given.name, "has no data", f"'data', or 'binary_data_size' and the header {HEADER_LENGTH}")
            tensor = from_values(given.name, given.datatype, given.shape, given.data, columns)
            tensors.append(decoded(tensor, parameters.get("content_type")) if parameters else tensor)
            continue
        if given.data is not None:
            _refuse(given.name, "has both 'data' and 'binary_data_size'", "one of the two")
        if type(size) is not int or not 0 <= size <= len(raw) - at:
            _refuse(
                given.name,
                f"has a binary_data_size of {str(size)[:40]}, {len(raw) - at} bytes are left behind the JSON",
                f"the header {HEADER_LENGTH}, and a whole number from 0 to {len(raw) - at}",
            )
        tensor = from_bytes(given.name, given.datatype, given.shape, raw[at : at + size], columns)
        tensors.append(decoded(tensor, parameters.get("content_type")))
        at += size
    if at != len(raw):
        raise InvalidInput(
            f"{len(raw) - at} bytes behind the JSON belong to no input; give each its 'binary_data_size'",
            column=HEADER_LENGTH,
            expected=f"{at} bytes behind the JSON",
        )
    return tensors


def _refuse(name: str, what: str, expected: str) -> NoReturn:
    raise InvalidInput(f"input '{name}' {what}; give {expected}", column=name, expected=expected)


def _flag(parameters: Mapping[str, Any], name: str, what: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(
            f"parameter '{name}' of {what} is {str(value)[:40]!r}", column=name, expected="true or false"
        )
    return value
