"""The Open Inference Protocol, version 2, as JSON: what its bodies say, without any transport.

Source: the protocol's public specification (github.com/kserve/open-inference-protocol). Each input column is one named
tensor of shape [n] or [n, 1].
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from holdfast import __version__
from holdfast.core.signature import Signature
from holdfast.errors import InvalidInput, did_you_mean
from holdfast.serve.requests import PredictAnswer, PredictRequest

Datatype = Literal[
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]

AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its offset; one without says nothing."""

_COLUMN_DATATYPES = {"number": "FP64", "integer": "INT64", "category": "BYTES", "boolean": "BOOL"}


class RequestInput(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor: a column of n values. `data` is flat, or nested as `shape` says; null stands for missing."""

    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    data: list[Any]
    parameters: dict[str, Any] = {}


class RequestedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """An output that the caller wants."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of an inference request. `parameters` may hold key, unit, event_at and features_known_at."""

    inputs: list[RequestInput]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[RequestedOutput] = []


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """An output tensor of an answer."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[float]


class InferAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Body of an inference answer."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Any]
    outputs: tuple[Tensor, ...]


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Name, type and shape of a tensor; -1 stands for any number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and answers."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers."""

    name: str = "holdfast"
    version: str = __version__
    extensions: tuple[str, ...] = ()


_decode_infer = msgspec.json.Decoder(InferRequest).decode


def read_infer(body: bytes, *, output: str, version: str, request_id: str) -> PredictRequest:
    """An inference request. `request_id` counts where the body has no id.

    Raises msgspec.DecodeError for what is no such body, InvalidInput for tensors that contradict themselves.
    """
    infer = _decode_infer(body)
    for wanted in infer.outputs:
        if wanted.name != output:
            raise InvalidInput(
                f"no output '{wanted.name}'{did_you_mean(wanted.name, [output])}", column=wanted.name, expected=output
            )
    return PredictRequest(
        request_id=infer.id or request_id,
        columns=_columns(infer.inputs),
        version=version,
        keys=_listed(infer.parameters, "key"),
        units=_listed(infer.parameters, "unit"),
        event_at=_times(infer.parameters, "event_at"),
        features_known_at=_times(infer.parameters, "features_known_at"),
    )


def infer_answer(answer: PredictAnswer) -> InferAnswer:
    """An answer as the protocol says it.

    `parameters` tells the stage and how many values lie outside what training saw. Rows of one request that different
    versions answered are told apart by the lists `versions` and `stages`; `model_version` is the live one then.
    """
    parameters: dict[str, Any] = {"stage": answer.stages[0], "outside": int(answer.outside.sum())}
    version = answer.versions[0]
    if len(set(answer.versions)) > 1:
        version = answer.versions[answer.stages.index("live")]
        parameters |= {"stage": "split", "versions": answer.versions, "stages": answer.stages}
    outputs = answer.outputs.tolist()
    return InferAnswer(
        model_name=answer.system,
        model_version=version,
        id=answer.request_id,
        parameters=parameters,
        outputs=(Tensor(name=answer.output, shape=(len(outputs),), datatype="FP64", data=outputs),),
    )


def model_metadata(name: str, versions: Sequence[str], signature: Signature) -> ModelMetadata:
    """What versions of one signature take and answer."""
    inputs = [TensorMetadata(name=c.name, datatype=_COLUMN_DATATYPES[c.type]) for c in signature.columns]
    return ModelMetadata(
        name=name,
        versions=tuple(versions),
        platform=f"holdfast_{signature.task}",
        inputs=tuple(inputs),
        outputs=(TensorMetadata(name=signature.output, datatype="FP64"),),
    )


def _columns(inputs: Sequence[RequestInput]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for tensor in inputs:
        if tensor.name in columns:
            message = f"input '{tensor.name}' is given twice; give each column once"
            raise InvalidInput(message, column=tensor.name, expected="one tensor")
        columns[tensor.name] = _values(tensor)
    return columns


def _values(tensor: RequestInput) -> list[Any]:
    """The values of a tensor, flat, checked against its shape and datatype."""
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ((), (1,)):
        raise InvalidInput(
            f"input '{tensor.name}' has shape {list(tensor.shape)}; give one tensor of shape [n] or [n, 1] per column",
            column=tensor.name,
            expected="shape [n] or [n, 1]",
        )
    data = tensor.data
    if len(tensor.shape) == 2 and any(type(value) is list for value in data):
        if any(type(value) is not list or len(value) != 1 for value in data):
            raise InvalidInput(
                f"input '{tensor.name}': its nested data does not have shape {list(tensor.shape)}",
                column=tensor.name,
                expected="one value in each inner list",
            )
        data = [value[0] for value in data]
    if len(data) != tensor.shape[0]:
        raise InvalidInput(
            f"input '{tensor.name}' has {len(data)} values, its shape {list(tensor.shape)} says {tensor.shape[0]}",
            row=max(0, min(len(data), tensor.shape[0])),
            column=tensor.name,
            expected=f"{tensor.shape[0]} values",
        )
    try:
        values: list[Any] = msgspec.convert(data, _element_type(tensor.datatype))
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"input '{tensor.name}' is not {tensor.datatype} as it says: {error}",
            column=tensor.name,
            expected=f"{tensor.datatype} values or null",
        ) from error
    return values


def _element_type(datatype: Datatype) -> Any:
    if datatype == "BYTES":
        return list[str | None]
    if datatype == "BOOL":
        return list[bool | None]
    return list[float | None] if datatype.startswith("FP") else list[int | None]


def _listed(parameters: dict[str, Any], name: str) -> list[Any] | None:
    """A parameter as one value per row; the protocol itself only knows single values."""
    value = parameters.get(name)
    return value if value is None or isinstance(value, list) else [value]


def _times(parameters: dict[str, Any], name: str) -> Sequence[datetime | None] | None:
    try:
        return msgspec.convert(_listed(parameters, name), list[AwareTime | None] | None)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"parameter '{name}': {error}; give times with an offset, for example 2013-01-05T10:00:00Z",
            column=name,
            expected="ISO 8601 times with an offset",
        ) from error
