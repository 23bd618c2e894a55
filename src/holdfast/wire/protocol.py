"""The Open Inference Protocol, version 2, without any transport: what is asked, answered and told about models.

Source: the protocol's public specification (github.com/kserve/open-inference-protocol), and Triton's extension for the
repository index. In: tensors. Out: a request of the data plane; and from its answer, tensors.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from holdfast import __version__
from holdfast.core.inputs import Reader
from holdfast.core.routes import RoutedSystem
from holdfast.core.signature import Column, Signature
from holdfast.core.times import AwareTime
from holdfast.errors import InvalidInput, did_you_mean
from holdfast.serve.ids import ID_LIMIT, usable_id
from holdfast.serve.lanes import Lanes
from holdfast.serve.requests import CLASS, PredictAnswer, PredictRequest
from holdfast.wire.tensors import Datatype, Tensor, column, floats, instants, said, values

MOST_CATEGORIES = 100
"""Most categories of a column that its metadata list."""

_COLUMN_DATATYPES: dict[str, Datatype] = {
    "number": "FP64",
    "integer": "INT64",
    "category": "BYTES",
    "boolean": "BOOL",
    "time": "BYTES",
}
_TIME_DATATYPES: tuple[Datatype, ...] = ("BYTES", "INT64")
_PACKED_DATATYPES = ("FP64", "FP32", "FP16", "BF16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16",
                     "UINT8", "BOOL")  # fmt: skip
_WITHOUT_EFFECT = {
    "sequence_id": "models here keep nothing between requests",
    "shared_memory_region": "this server reads no shared memory; send the data",
    "classification": "the answer holds the output itself; choose the best classes in the client",
}
"""Parameters of Triton's that change what an answer means, and cannot be obeyed."""


class Inference(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An inference request, whichever transport brought it.

    `parameters` may hold key, unit, event_at and features_known_at: a list with one value per row, or one value, which
    for all but the key holds for every row.
    """

    tensors: Sequence[Tensor]
    version: str = ""
    id: str = ""
    parameters: Mapping[str, Any] = {}
    outputs: Sequence[str] = ()
    """Outputs that are wanted; none means all."""


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Name, type and shape of a tensor; -1 stands for any number of rows. `parameters` say what its column accepts."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}


class PackedInput(msgspec.Struct, frozen=True, kw_only=True):
    """All columns in one tensor, which may take the place of the named ones: any name, columns in this order."""

    shape: tuple[int, ...]
    datatypes: tuple[str, ...]
    columns: tuple[str, ...]


class ModelParameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the protocol has no field for. `packed_input` is absent where a column is text or a time."""

    packed_input: PackedInput | None = None


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and answers."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    parameters: ModelParameters = ModelParameters()


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers."""

    name: str = "holdfast"
    version: str = __version__
    extensions: tuple[str, ...] = ("binary_tensor_data", "model_repository(index)", "statistics")


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One version in the repository index. `version` is empty where a model has none that answers."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


def predict_request(asked: Inference, lanes: Lanes, *, request_id: str, caller: str = "") -> PredictRequest:
    """What the data plane is asked. `request_id` counts where the request has no id.

    A lone tensor of shape [n, columns] holds all columns in the order of the signature; otherwise each tensor is the
    column that it is named after. Raises InvalidInput, and NotFound or StateError for a version that does not answer.
    """
    lane = lanes.lane(asked.version)
    check_parameters(asked.parameters, "the request")
    _refuse_outputs(asked.outputs, (lanes.routed.output, *((CLASS,) if lanes.routed.classes else ())))
    return typed_request(asked, lanes.routed, lane.reader, request_id=request_id, caller=caller)


def typed_request(
    asked: Inference, routed: RoutedSystem, reader: Reader, *, request_id: str, caller: str = ""
) -> PredictRequest:
    """The inputs of a request, for the signature of `reader`, and what stands beside them. Raises InvalidInput."""
    names = [each.name for each in reader.signature.columns]
    beside, inputs = _beside(asked.tensors, routed, names)
    rows = inputs[0].shape[0]
    keys, units = (_listed(asked.parameters, name, count) for name, count in (("key", 1), ("unit", rows)))
    request = PredictRequest(
        request_id=usable(asked.id or request_id),
        version=asked.version,
        keys=beside.get(routed.key) if keys is None else keys,
        units=beside.get(routed.unit) if units is None else units,
        event_at=_times(asked.parameters, "event_at", rows),
        features_known_at=_times(asked.parameters, "features_known_at", rows),
        caller=caller,
    )
    if len(inputs) == 1 and _is_packed(inputs[0], names):
        matrix = floats(inputs[0], names).reshape(inputs[0].shape)
        return msgspec.structs.replace(request, matrix=matrix)
    times = reader.times
    columns = {each.name: instants(each) if each.name in times else column(each) for each in inputs}
    return msgspec.structs.replace(request, columns=columns)


def usable(request_id: str) -> str:
    """The id itself. Raises InvalidInput for one that is too long or not printable."""
    if not usable_id(request_id):
        raise InvalidInput(
            f"the request id {request_id[:40]!r} is not usable",
            column="id",
            expected=f"at most {ID_LIMIT} printable characters",
        )
    return request_id


def check_parameters(parameters: Mapping[str, Any], what: str) -> None:
    """Refuse the parameters that would change what an answer means and cannot be obeyed. Raises InvalidInput."""
    for name, why in _WITHOUT_EFFECT.items():
        if parameters.get(name):
            raise InvalidInput(
                f"parameter '{name}' of {what} cannot take effect: {why}", column=name, expected=f"no '{name}'"
            )


def check_count(inputs: int, columns: Sequence[str]) -> None:
    """Refuse more inputs than a model of these columns can have with its key and unit, before any is read."""
    if inputs > len(columns) + 2:
        raise InvalidInput(
            f"the request has {inputs} inputs, the model takes {len(columns)}: {', '.join(columns)}",
            expected=f"inputs named {', '.join(columns)}",
        )


def check_shape(name: str, shape: Sequence[int], columns: Sequence[str], most_rows: int) -> None:
    """Refuse a tensor by its claimed shape, before anything of it is read: too many rows, or neither one nor all
    `columns`. Raises InvalidInput."""
    if shape and shape[0] > most_rows:
        raise InvalidInput(
            f"input '{name}' has more than {most_rows} rows; send several requests or raise serve.max_rows",
            row=most_rows,
            column=name,
            expected=f"at most {most_rows} rows",
        )
    if len(shape) == 2 and shape[1] not in (1, len(columns)):
        raise InvalidInput(
            f"input '{name}' has {said(shape[1])} values a row; give one tensor of shape [n] or [n, 1] per column, or "
            f"one of shape [n, {len(columns)}] with all of them: {', '.join(columns)}",
            column=name,
            expected=f"shape [n], [n, 1] or [n, {len(columns)}]",
        )


def output_tensors(answer: PredictAnswer, wanted: Sequence[str] = ()) -> tuple[Tensor, ...]:
    """The outputs of an answer: one tensor (n,) of FP64, NaN where the output is not a number; or (n, classes), and one
    of BYTES (n,) with the most likely class, empty where there are no probabilities. `wanted` names those that are."""
    if not answer.classes:
        return (Tensor(name=answer.output, datatype="FP64", shape=answer.outputs.shape, data=answer.outputs),)
    numbers = answer.outputs.reshape(-1)
    likeliest = [name or "" for name in answer.likeliest]
    tensors = (
        Tensor(name=answer.output, datatype="FP64", shape=answer.outputs.shape, data=numbers),
        Tensor(name=CLASS, datatype="BYTES", shape=(len(likeliest),), data=likeliest),
    )
    return tuple(tensor for tensor in tensors if not wanted or tensor.name in wanted)


def answer_version(answer: PredictAnswer) -> str:
    """The version that answered; the live one where two answered rows of the same request."""
    version = answer.versions[0]
    return answer.versions[answer.stages.index("live")] if len(set(answer.versions)) > 1 else version


def answer_parameters(answer: PredictAnswer) -> dict[str, Any]:
    """The stage that answered, and how many values lie outside what training saw.

    Rows of one request that different versions answered are told apart by the lists `versions` and `stages`.
    """
    parameters: dict[str, Any] = {"stage": answer.stages[0], "outside": int(answer.outside.sum())}
    if len(set(answer.versions)) > 1:
        parameters |= {"stage": "split", "versions": answer.versions, "stages": answer.stages}
    return parameters


def model_metadata(name: str, versions: Sequence[str], signature: Signature) -> ModelMetadata:
    """What versions of one signature take and answer."""
    columns = signature.columns
    packed = None
    if all(each.type not in ("category", "time") for each in columns):
        packed = PackedInput(
            shape=(-1, len(columns)), datatypes=_PACKED_DATATYPES, columns=tuple(each.name for each in columns)
        )
    return ModelMetadata(
        name=name,
        versions=tuple(versions),
        platform=f"holdfast_{signature.task}",
        inputs=tuple(map(_input_metadata, columns)),
        outputs=_output_metadata(signature),
        parameters=ModelParameters(packed_input=packed),
    )


def _output_metadata(signature: Signature) -> tuple[TensorMetadata, ...]:
    if not signature.classes:
        return (TensorMetadata(name=signature.output, datatype="FP64", shape=(-1,)),)
    shape, classes = (-1, len(signature.classes)), {"classes": signature.classes}
    return (
        TensorMetadata(name=signature.output, datatype="FP64", shape=shape, parameters=classes),
        TensorMetadata(name=CLASS, datatype="BYTES", shape=(-1,), parameters=classes),
    )


def index_entries(routed: RoutedSystem, lanes: Lanes) -> list[IndexEntry]:
    """What the repository index says about one model: `routed` is what should answer, `lanes` what does."""
    name = lanes.name
    loaded = [lane.by.version for lane in lanes.all()]
    entries = [IndexEntry(name=name, version=version, state="READY") for version in loaded]
    wanted = [version.version for version in (routed.live, routed.canary) if version is not None]
    # The reason may name files of this machine: it is for its operator.
    why = f"it could not be loaded; `holdfast status` on its machine says why, '{name}' is answered as before"
    entries += [
        IndexEntry(name=name, version=version, state="UNAVAILABLE", reason=why)
        for version in wanted
        if version not in loaded
    ]
    if entries:
        return entries
    return [IndexEntry(name=name, version="", state="UNAVAILABLE", reason="no version is live; release one")]


def _input_metadata(given: Column) -> TensorMetadata:
    parameters: dict[str, Any] = {"type": given.type, "nullable": given.nullable, "outside": given.outside}
    if given.type == "time":
        del parameters["outside"]  # it has no range
        parameters["datatypes"] = _TIME_DATATYPES
    parameters |= {name: limit for name, limit in (("low", given.low), ("high", given.high)) if limit is not None}
    if given.categories and len(given.categories) <= MOST_CATEGORIES:
        parameters["categories"] = given.categories
    return TensorMetadata(name=given.name, datatype=_COLUMN_DATATYPES[given.type], shape=(-1,), parameters=parameters)


def _beside(
    tensors: Sequence[Tensor], routed: RoutedSystem, names: Sequence[str]
) -> tuple[dict[str, list[Any]], list[Tensor]]:
    """Keys and units by the name of their column, and the tensors that are inputs of the model."""
    identifying: dict[str, list[Any]] = {}
    inputs: dict[str, Tensor] = {}
    for tensor in tensors:
        name = tensor.name
        if name in inputs or name in identifying:
            raise InvalidInput(
                f"input '{name}' is given twice; give each column once", column=name, expected="one tensor"
            )
        is_identifying = bool(name) and name in (routed.key, routed.unit) and tensor.width == 1
        if is_identifying:
            identifying[name] = values(tensor)
        if not is_identifying or name in names:
            inputs[name] = tensor
    if not inputs:
        message = f"the request has no input; give one tensor per column: {', '.join(names)}"
        raise InvalidInput(message, expected=f"inputs named {', '.join(names)}")
    return identifying, list(inputs.values())


def _is_packed(tensor: Tensor, names: Sequence[str]) -> bool:
    """True for a tensor of all columns. One of a single column is that column where it has its name."""
    return tensor.width > 1 or (len(names) == 1 and len(tensor.shape) == 2 and tensor.name not in names)


def _refuse_outputs(wanted: Sequence[str], outputs: Sequence[str]) -> None:
    for name in wanted:
        if name not in outputs:
            raise InvalidInput(
                f"no output '{name}'{did_you_mean(name, outputs)}", column=name, expected=" or ".join(outputs)
            )
        if list(wanted).count(name) > 1:
            raise InvalidInput(f"output '{name}' is asked for twice; ask once", column=name, expected="one output")


def _listed(parameters: Mapping[str, Any], name: str, count: int) -> list[Any] | None:
    """A parameter as one value per row; the protocol itself only knows single values, which hold for `count` rows."""
    value = parameters.get(name)
    return value if value is None or isinstance(value, list) else [value] * count


def _times(parameters: Mapping[str, Any], name: str, count: int) -> Sequence[datetime | None] | None:
    given = _listed(parameters, name, count)
    if given is None:
        return None
    try:
        return msgspec.convert(given, list[AwareTime | None])
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"parameter '{name}': {error}; give times with an offset, for example 2013-01-05T10:00:00Z",
            column=name,
            expected="ISO 8601 times with an offset",
        ) from error
