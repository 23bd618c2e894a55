"""Reads the usual bodies of one system in a single pass, straight into values.

What is unusual (parameters, named outputs, nested data, another datatype, anything wrong) is None here and goes the
general way, which accepts more and explains. So this may be strict, but must never accept what that refuses, nor read
it as anything else.
"""

import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from holdfast.core.signature import Column, Signature
from holdfast.core.times import AwareTime, microseconds, read_times
from holdfast.serve.ids import usable_id

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

_DATATYPES = {
    "number": frozenset({"FP64", "FP32"}),
    "integer": frozenset({"INT64"}),
    "boolean": frozenset({"BOOL"}),
    "category": frozenset({"BYTES"}),
    "time": frozenset({"BYTES"}),
}
_FIELD_TYPES: dict[str, Any] = {
    "number": float | None,
    "integer": float | None,
    "boolean": bool | None,
    "category": str | None,
    "time": AwareTime | None,
}
_ELEMENTS = {
    "number": frozenset({float, type(None)}),
    "integer": frozenset({float, type(None)}),
    "boolean": frozenset({bool, type(None)}),
    "category": frozenset({str, type(None)}),
    "time": frozenset({str, type(None)}),
}
_BINARY: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
_FP32 = Annotated[float, msgspec.Meta(ge=-float(np.finfo(np.float32).max), le=float(np.finfo(np.float32).max))]
"""Every number that each of the datatypes read here holds."""
_EXACT = Annotated[float, msgspec.Meta(gt=-(2.0**53), lt=2.0**53)]
"""Where integers are among the columns: what lies beyond may have been rounded on its way into a float."""
_REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Size(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    binary_data_size: int


class _BinaryTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: _Size


class _AsBytes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    binary_data: bool | None = None


class _Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    name: str
    parameters: _AsBytes = _AsBytes()


class _AllAsBytes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    binary_data_output: bool = False


class _BinaryInfer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    inputs: list[_BinaryTensor]
    id: str = ""
    outputs: list[_Output] = []
    parameters: _AllAsBytes = _AllAsBytes()


_decode_binary = msgspec.json.Decoder(_BinaryInfer).decode
_MOST_HEADS = 64
"""Most JSON heads of binary bodies that are remembered: they are the same as long as shapes are."""
_LONGEST_HEAD = 1024
_FEW_VALUES = 256
"""Up to here values are unpacked faster one by one than numpy is called."""


class _Layout(msgspec.Struct, frozen=True, gc=False):
    """What the JSON head of a body says of the bytes behind it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int
    """Bytes."""
    unpack: Callable[[bytes, int], tuple[float, ...]]
    request_id: str
    wants_bytes: bool


class Given(msgspec.Struct, frozen=True, gc=False):
    """What a body says: `count` rows of values one after the other, in the order of the signature.

    `values` is a float64 matrix (count, columns) where many of them came as bytes.
    """

    values: list[Any] | FloatArray
    count: int
    request_id: str = ""
    keys: list[str | None] | None = None
    units: list[str | None] | None = None
    wants_bytes: bool = False
    """Whether the answer is to come as bytes."""


class Reading:
    """Decoders of one signature. `key` and `unit` are columns of the system that may stand among the inputs."""

    def __init__(self, signature: Signature, key: str, unit: str) -> None:
        self.width = len(signature.columns)
        self._output = signature.output
        self._has_classes = bool(signature.classes)
        self._columns = signature.columns
        self._place = {column.name: j for j, column in enumerate(signature.columns)}
        beside = [name for name in dict.fromkeys((key, unit)) if name and name not in self._place]
        self._key = _where(key, signature.columns, beside)
        self._unit = _where(unit, signature.columns, beside)
        row = _row_type(signature.columns, beside)
        self._decode_row: Callable[[bytes], Any] = msgspec.json.Decoder(row).decode
        self._decode_rows: Callable[[bytes], Any] = msgspec.json.Decoder(_rows_type(row)).decode
        # A column that identifies rows and is no text is written out by the general way.
        self._reads_rows = "rows" not in self._place and -1 not in (self._key, self._unit)
        is_numeric = all(column.type in ("number", "integer") for column in signature.columns)
        self._is_packable = self.width > 1 and all(column.type == "number" for column in signature.columns)
        self._takes_bytes = self.width > 1 and all(
            column.type in ("number", "integer", "boolean") for column in signature.columns
        )
        number: Any = _EXACT if any(column.type == "integer" for column in signature.columns) else _FP32
        self._decode_infer: Callable[[bytes], Any] = msgspec.json.Decoder(
            _infer_type(number | None if is_numeric else number | str | bool | None)
        ).decode
        self._is_numeric = is_numeric
        self._times = tuple(j for j, column in enumerate(signature.columns) if column.type == "time")
        self._reads_tensors = -1 not in (self._key, self._unit)
        self._layouts: dict[bytes, _Layout] = {}

    def rows(self, body: bytes) -> Given | None:
        """A plain body: one row as an object, or ``{"rows": [...]}``."""
        if not self._reads_rows:
            return None
        try:
            if body.find(b'"rows"', 0, 16) < 0:
                return self._given([self._decode_row(body)], "", None, None)
            many = self._decode_rows(body)
        except _REFUSED:
            return None
        if not many.rows or (many.id and not usable_id(many.id)):
            return None
        if any(given is not None and len(given) != len(many.rows) for given in (many.keys, many.units)):
            return None
        return self._given(many.rows, many.id, many.keys, many.units)

    def _given(self, rows: Sequence[Any], id: str, keys: list[Any] | None, units: list[Any] | None) -> Given:
        width = self.width
        values: list[Any] = []
        found_keys: list[str | None] = []
        found_units: list[str | None] = []
        for row in rows:
            fields = msgspec.structs.astuple(row)
            values += fields[:width]
            if self._key is not None:
                found_keys.append(_text(fields[self._key]))
            if self._unit is not None:
                found_units.append(_text(fields[self._unit]))
        for j in self._times:
            values[j::width] = [None if time is None else microseconds(time) for time in values[j::width]]
        return Given(
            values,
            len(rows),
            id,
            [_text(key) for key in keys] if keys is not None else found_keys or None,
            [_text(unit) for unit in units] if units is not None else found_units or None,
        )

    def tensors(self, body: bytes) -> Given | None:
        """A body of the Open Inference Protocol: one tensor with all columns, or one per column."""
        try:
            infer = self._decode_infer(body)
        except _REFUSED:
            return None
        if (infer.id and not usable_id(infer.id)) or not self._reads_tensors:
            return None
        inputs = infer.inputs
        if len(inputs) == 1 and self._is_packable:
            return self._packed(inputs[0], infer.id)
        return self._named(inputs, infer.id)

    def _packed(self, tensor: Any, id: str) -> Given | None:
        shape = tensor.shape
        if tensor.datatype not in ("FP32", "FP64") or len(shape) != 2 or shape[1] != self.width:
            return None
        count = shape[0]
        return Given(tensor.data, count, id) if count > 0 and len(tensor.data) == count * self.width else None

    def _named(self, inputs: Sequence[Any], id: str) -> Given | None:
        if not inputs:
            return None
        count = inputs[0].shape[0] if inputs[0].shape else 0
        columns: list[Any] = [None] * self.width
        for tensor in inputs:
            place = self._place.get(tensor.name)
            if place is None or columns[place] is not None or count < 1:
                return None
            if tensor.shape != (count,) and tensor.shape != (count, 1):
                return None
            column = self._columns[place]
            if tensor.datatype not in _DATATYPES[column.type] or len(tensor.data) != count:
                return None
            if not self._is_numeric and not _ELEMENTS[column.type].issuperset(map(type, tensor.data)):
                return None
            columns[place] = tensor.data
        for j in self._times:
            if columns[j] is not None:
                instants = read_times(columns[j])
                if instants is None:
                    return None
                columns[j] = instants.tolist()
        keys, units = self._among(columns, self._key), self._among(columns, self._unit)
        if count == 1:
            return Given([None if data is None else data[0] for data in columns], 1, id, keys, units)
        missing = [None] * count
        by_row = itertools.chain.from_iterable(zip(*(data or missing for data in columns), strict=True))
        return Given(list(by_row), count, id, keys, units)

    def _among(self, columns: Sequence[Any], place: int | None) -> list[str | None] | None:
        """Keys or units, where they are a column of the signature."""
        return columns[place] if place is not None and place < self.width else None

    def binary(self, body: bytes, json_length: int) -> Given | None:
        """A body of the Open Inference Protocol whose one tensor, with all columns, follows its JSON as bytes."""
        if not self._takes_bytes or not self._reads_tensors:
            return None
        head = body[:json_length]
        layout = self._layouts.get(head)
        if layout is None:
            layout = self._layout(head)
            if layout is None:
                return None
            if not layout.request_id and json_length <= _LONGEST_HEAD:
                if len(self._layouts) >= _MOST_HEADS:
                    self._layouts.clear()
                self._layouts[head] = layout
        if len(body) != json_length + layout.size:
            return None
        count, width = layout.shape
        values: list[Any] | FloatArray
        if count * width <= _FEW_VALUES:
            values = list(layout.unpack(body, json_length))
        else:
            values = np.frombuffer(body, layout.dtype, offset=json_length).reshape(layout.shape).astype(np.float64)
        return Given(values, count, layout.request_id, wants_bytes=layout.wants_bytes)

    def _layout(self, head: bytes) -> _Layout | None:
        try:
            infer = _decode_binary(head)
        except _REFUSED:
            return None
        wanted = infer.outputs
        if len(infer.inputs) != 1 or len(wanted) > 1 or (infer.id and not usable_id(infer.id)):
            return None
        if wanted and (self._has_classes or wanted[0].name != self._output):
            return None  # of several classes there are two outputs: the general way looks which are wanted
        tensor = infer.inputs[0]
        dtype, shape = _BINARY.get(tensor.datatype), tensor.shape
        if dtype is None or len(shape) != 2 or shape[1] != self.width or shape[0] < 1:
            return None
        size = shape[0] * shape[1] * dtype.itemsize
        if tensor.parameters.binary_data_size != size:
            return None
        wants_bytes = wanted[0].parameters.binary_data if wanted else None
        if wants_bytes is None:
            wants_bytes = infer.parameters.binary_data_output
        count = min(shape[0] * shape[1], _FEW_VALUES + 1)
        return _Layout(
            dtype, shape, size, struct.Struct(f"<{count}{dtype.char}").unpack_from, infer.id, bool(wants_bytes)
        )


def _where(name: str, columns: Sequence[Column], beside: Sequence[str]) -> int | None:
    """The field that holds the key or unit: None where there is none, -1 where it cannot be read here."""
    if not name:
        return None
    if name in beside:
        return len(columns) + beside.index(name)
    place = next(j for j, column in enumerate(columns) if column.name == name)
    return place if columns[place].type == "category" else -1


def _row_type(columns: Sequence[Column], beside: Sequence[str]) -> type[msgspec.Struct]:
    names = [column.name for column in columns]
    fields: list[Any] = [(f"c{j}", _FIELD_TYPES[column.type], None) for j, column in enumerate(columns)]
    fields += [(f"c{len(columns) + i}", str | int | None, None) for i in range(len(beside))]
    called = {f"c{j}": name for j, name in enumerate([*names, *beside])}
    return msgspec.defstruct("Row", fields, rename=called, forbid_unknown_fields=True, gc=False)


def _rows_type(row: type[msgspec.Struct]) -> type[msgspec.Struct]:
    named = list[str | int | None] | None
    fields: list[Any] = [("rows", list[row]), ("id", str, ""), ("keys", named, None), ("units", named, None)]  # type: ignore[valid-type]
    return msgspec.defstruct("Rows", fields, forbid_unknown_fields=True, gc=False)


def _infer_type(element: Any) -> type[msgspec.Struct]:
    tensor = msgspec.defstruct(
        "Tensor",
        [("name", str), ("shape", tuple[int, ...]), ("datatype", str), ("data", list[element])],
        forbid_unknown_fields=True,
        gc=False,
    )
    fields: list[Any] = [("inputs", list[tensor]), ("id", str, "")]  # type: ignore[valid-type]
    return msgspec.defstruct("Infer", fields, forbid_unknown_fields=True, gc=False)


def _text(value: str | int | None) -> str | None:
    return value if value is None or type(value) is str else str(value)
