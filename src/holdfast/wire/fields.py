"""What is said of a body that is not what its endpoint takes: the field that was meant, and how a body looks."""

import re
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from holdfast.core.times import read_time
from holdfast.errors import InvalidInput, did_you_mean
from holdfast.serve.lanes import Lanes
from holdfast.serve.paths import Kind
from holdfast.serve.requests import PredictRequest
from holdfast.wire.arrivals import PlainPrediction, PlainPredictions
from holdfast.wire.plain import PlainLabel, PlainLabels, PlainRequest
from holdfast.wire.rest import InferRequest, RequestInput
from holdfast.wire.tensors import Datatype


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How a body looks: an example, its fields, and those of each entry of its list."""

    example: str
    body: type[msgspec.Struct]
    entry: type[msgspec.Struct] | None = None
    """None where an entry is a row, whose fields are those of the system."""


SHAPES: Mapping[Kind, Shape] = {
    "predict": Shape(example='{"rows": [{...}, ...]} or one row {...}', body=PlainRequest),
    "labels": Shape(example='{"labels": [{"key": ..., "label": ...}]}', body=PlainLabels, entry=PlainLabel),
    "predictions": Shape(
        example='{"predictions": [{"id": ..., "score": ..., "inputs": {...}}]}',
        body=PlainPredictions,
        entry=PlainPrediction,
    ),
    "infer": Shape(
        example='{"inputs": [{"name": ..., "shape": [...], "datatype": ..., "data": [...]}]}',
        body=InferRequest,
        entry=RequestInput,
    ),
}
_UNKNOWN_FIELD = re.compile(r"unknown field `(.+?)`(?: - at `\$(.*)`)?$")
_ABOUT_FORM = ("Object ", "Expected `object`", "Expected `array`")


def hint(said: str, kind: Kind | None) -> str:
    """What may have been meant by a body that msgspec refused in these words; empty where that says it all."""
    if "enum value" in said and ".datatype" in said:
        return f"; datatypes are {', '.join(get_args(Datatype))}"
    shape = SHAPES.get(kind) if kind else None
    if shape is None or not said.startswith(_ABOUT_FORM):
        return ""
    found = _UNKNOWN_FIELD.search(said)
    meant = _meant(found[1], found[2] or "", shape) if found else ""
    return f"{meant}; send {shape.example}"


def _meant(name: str, path: str, shape: Shape) -> str:
    """The near miss among the fields of the level that `path` names, or the level that has this field."""
    above = shape.body.__struct_fields__
    below = () if shape.entry is None else shape.entry.__struct_fields__
    if not path and name in below:
        return f"; '{name}' stands in each entry of '{above[0]}'"
    if path and name in above:
        return f"; '{name}' stands beside, not within"
    return did_you_mean(name, below if path else above)


def unknown_column(error: InvalidInput, request: PredictRequest, lanes: Lanes) -> InvalidInput:
    """The error with what may stand beside the columns, where it is about one that the signature does not name."""
    if request.rows is None or error.expected != "a column of the signature":
        return error
    routed, name, row = lanes.routed, error.column, request.rows[error.row]
    beside = {each: what for each, what in ((routed.key, "key"), (routed.unit, "unit")) if each}
    said = str(error)
    if "; known: " in said:
        said += "".join(f", '{each}' as its {what}" for each, what in beside.items())
    if _is_time(row.get(name)):
        said += (
            f"; is '{name}' when the row happened, send it as `event_at` beside `rows`, is it when the inputs were "
            f'known, as `features_known_at`: {{"rows": [{{...}}], "event_at": ["{row[name][:40]}"]}}'
        )
    return InvalidInput(said, row=error.row, column=name, expected=error.expected)


def _is_time(value: Any) -> bool:
    """True for text that says a time with its offset, as the lists beside the rows take it."""
    if not isinstance(value, str):
        return False
    try:
        read_time(value)
    except ValueError:
        return False
    return True
