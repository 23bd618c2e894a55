"""Inference requests and answers as messages of gRPC: tensors in, tensors out."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast, get_args

from holdfast.errors import InvalidInput, did_you_mean
from holdfast.serve.requests import PredictAnswer
from holdfast.wire.contents import decoded
from holdfast.wire.grpcmessages import INFERENCE, Message
from holdfast.wire.protocol import (
    Inference,
    answer_parameters,
    answer_version,
    check_parameters,
    check_shape,
    output_tensors,
)
from holdfast.wire.tensors import Datatype, Tensor, from_bytes, from_values, to_bytes

_CONTENTS: dict[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where the values of a datatype stand when they are not raw; FP16 and BF16 must be raw."""
_DATATYPES = frozenset(get_args(Datatype))
_Response = INFERENCE["ModelInferResponse"]


def inference_of(request: Message, *, columns: Sequence[str], most_rows: int) -> Inference:
    """What a `ModelInferRequest` asks of a model of these columns. Raises InvalidInput."""
    inputs, raw = request.inputs, request.raw_input_contents
    if raw and len(raw) != len(inputs):
        raise InvalidInput(
            f"the request has {len(inputs)} inputs and {len(raw)} raw_input_contents; give one for each, or none",
            column="raw_input_contents",
            expected=f"{len(inputs)} raw_input_contents",
        )
    tensors = [_tensor(given, raw[i] if raw else None, columns, most_rows) for i, given in enumerate(inputs)]
    outputs: list[str] = []
    for wanted in request.outputs:
        if wanted.parameters:
            check_parameters(_parameters(wanted.parameters), f"output '{wanted.name}'")
        outputs.append(wanted.name)
    return Inference(
        tensors=tensors,
        version=request.model_version,
        id=request.id,
        parameters=_parameters(request.parameters) if request.parameters else {},
        outputs=outputs,
    )


def infer_response(answer: PredictAnswer, *, is_raw: bool, wanted: Sequence[str] = ()) -> Message:
    """A `ModelInferResponse`: its tensors, those `wanted` where any are named; as raw bytes where the request had them
    so, else as values.

    Versions and stages of single rows, where two versions answered one request, stand in parameters, separated by
    commas.
    """
    response = _Response(model_name=answer.system, model_version=answer_version(answer), id=answer.request_id)
    for name, value in answer_parameters(answer).items():
        parameter = response.parameters[name]
        if isinstance(value, int):
            parameter.int64_param = value
        else:
            parameter.string_param = value if isinstance(value, str) else ",".join(value)
    for tensor in output_tensors(answer, wanted):
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if is_raw:
            response.raw_output_contents.append(to_bytes(tensor))
        else:
            data = [each.encode() for each in tensor.data] if tensor.datatype == "BYTES" else list(tensor.data)
            getattr(output.contents, _CONTENTS[tensor.datatype]).extend(data)
    return response


def _tensor(given: Message, raw: bytes | None, columns: Sequence[str], most_rows: int) -> Tensor:
    name, datatype, shape = given.name, given.datatype, tuple(given.shape)
    check_shape(name, shape, columns, most_rows)
    if datatype not in _DATATYPES:
        near = did_you_mean(datatype[:40], sorted(_DATATYPES))
        _refuse(name, f"has no datatype '{datatype[:40]}'{near}", "a datatype of the protocol")
    parameters = _parameters(given.parameters) if given.parameters else {}
    if parameters:
        check_parameters(parameters, f"input '{name}'")
    tensor = _data(given, cast(Datatype, datatype), shape, raw, columns)
    return decoded(tensor, parameters.get("content_type")) if parameters else tensor


def _data(
    given: Message, datatype: Datatype, shape: tuple[int, ...], raw: bytes | None, columns: Sequence[str]
) -> Tensor:
    name = given.name
    if raw is not None:
        if given.HasField("contents"):
            _refuse(name, "has contents, and the request raw_input_contents; give one of the two", "one of the two")
        return from_bytes(name, datatype, shape, raw, columns)
    field = _CONTENTS.get(datatype)
    if field is None:
        _refuse(name, f"is {datatype}, which must stand in raw_input_contents", "raw_input_contents")
    values = list(getattr(given.contents, field))
    if not values and (others := given.contents.ListFields()):
        message = f"is {datatype}, which stands in {field}; the request has {others[0][0].name}"
        _refuse(name, message, field)
    return from_values(name, datatype, shape, values, columns)


def _parameters(given: Mapping[str, Message]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name, value in given.items():
        chosen = value.WhichOneof("parameter_choice")
        parameters[name] = None if chosen is None else getattr(value, chosen)
    return parameters


def _refuse(name: str, what: str, expected: str) -> NoReturn:
    raise InvalidInput(f"input '{name}' {what}", column=name, expected=expected)
