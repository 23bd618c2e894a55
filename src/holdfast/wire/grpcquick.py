"""Inference calls in their usual form, read in a single pass and answered many at a time, as over HTTP.

What is unusual (parameters, named outputs, another datatype, anything wrong) goes the general way, which accepts more
and explains. So this may be strict, but must never accept what that refuses, nor read it as anything else.
"""

import itertools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from holdfast.core.clock import stopwatch_s
from holdfast.serve.batching import Batcher
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.ids import usable_id
from holdfast.serve.lanes import Lanes, Prepared
from holdfast.serve.paths import Place
from holdfast.serve.quick import Known, Quick
from holdfast.serve.reading import Given
from holdfast.wire.grpccalls import Asker, CallHead
from holdfast.wire.grpcmessages import INFERENCE, Message

_FIELDS = {
    ("number", "FP64"): ("d", "fp64_contents"),
    ("number", "FP32"): ("f", "fp32_contents"),
    ("integer", "INT64"): ("q", "int64_contents"),
    ("boolean", "BOOL"): ("?", "bool_contents"),
    ("category", "BYTES"): ("", "bytes_contents"),
}
"""Column type and datatype: the format of a raw value, and where the others stand."""
_PACKED = {"FP64": "d", "FP32": "f", "INT64": "q"}
"""Datatypes of all columns in one tensor, where those are numbers, whole numbers and booleans; and their formats."""
_EXACT = 2**53
"""Up to here every whole number is a float64."""
_MANY_VALUES = 512
_MOST_HEADS = 4_096
_MOST_LAYOUTS = 256
_MOST_ALIKE = 4
_MOST_LAID_OUT_BYTES = 4_096
_BOUNDS = {"integer": (-_EXACT, _EXACT), "boolean": (0, 1)}
_Request = INFERENCE["ModelInferRequest"]
_Response = INFERENCE["ModelInferResponse"]
_Output = INFERENCE["ModelInferResponse.InferOutputTensor"]


class QuickCalls:
    """Takes the usual calls of a worker; what a system takes and how it answers is prepared once."""

    def __init__(
        self,
        plane: DataPlane,
        batcher: Batcher,
        new_id: Callable[[], str],
        refused: Callable[[str, Exception], None] = lambda system, error: None,
    ) -> None:
        """`refused` hears of calls that end with an error, and of which system."""
        self.batcher = batcher
        self.refused = refused
        self._plane = plane
        self._new_id = new_id
        self._in_force: Prepared | None = None
        self._readings: dict[str, _Reading | None] = {}
        self._known: dict[tuple[str, str], Known] = {}
        self._heads: dict[bytes, _Written] = {}
        self._layouts: dict[int, list[_Layout]] = {}
        """By the length of the message."""

    def take(self, asker: Asker, data: bytes, head: CallHead, caller: str) -> bool:
        """Take a call that may enter; its asker hears of the answer. False where it must go the general way."""
        in_force = self._plane.in_force
        if in_force is not self._in_force:
            self._in_force = in_force
            for memory in (self._readings, self._known, self._heads, self._layouts):
                memory.clear()
        is_raw = True
        name, given = self._by_layout(data)
        if given is None:
            request = parse(data)
            if request is None:
                return False
            name, is_raw = request.model_name, bool(request.raw_input_contents)
            reading = self._readings.get(name) or self._reading(name)
            given = None if reading is None else reading.read(request)
            if given is None:
                return False
            self._learn(data, request)
        known = self._known.get((name, caller)) or self._new_known(name, caller)
        if head.context and self._plane.observing.tracing.is_on:
            known = msgspec.structs.replace(known, headers=head.context)
        origin = _Origin(self, asker, caller, is_raw)
        id = given.request_id or head.request_id or self._new_id()
        return usable_id(id) and self.batcher.submit(Quick(origin, known, data, given, id, stopwatch_s()))

    def _by_layout(self, data: bytes) -> "tuple[str, Given | None]":
        for layout in self._layouts.get(len(data), ()):
            if data.startswith(layout.prefix) and (given := layout.read(data)) is not None:
                return layout.name, given
        return "", None

    def _learn(self, data: bytes, request: Message) -> None:
        """Remember how a request that was read is laid out, if the next one may well be laid out the same."""
        reading = self._readings[request.model_name]
        assert reading is not None
        layout = reading.layout(data, request)
        if layout is None:
            return
        if len(self._layouts) >= _MOST_LAYOUTS:
            self._layouts.clear()
        alike = self._layouts.setdefault(len(data), [])
        alike.insert(0, layout)
        del alike[_MOST_ALIKE:]

    def body(self, call: Quick, *, is_raw: bool) -> bytes:
        """The message of an answer: the one of the protocol's binary answer over HTTP, in other clothes."""
        head, raw = call.payload[: call.json_length], call.payload[call.json_length :]
        id = call.request_id.encode()
        # The head tells version, stage and how many values lie outside; without the id there are few of them.
        assert call.lane is not None
        start = len(call.lane.phrases.before_id)
        key = head[:start] + b'""' + head[start + len(msgspec.json.encode(call.request_id)) :]
        known = self._heads.get(key)
        if known is None:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            known = self._heads[key] = _written(key)
        before, output, named, size = known
        if named:
            return before + _field(3, id) + _two_outputs(output, named, raw[:size], raw[size:], is_raw=is_raw)
        if is_raw:
            return before + _field(3, id) + _field(5, output) + _field(6, raw)
        return before + _field(3, id) + _field(5, output + _field(5, _field(7, raw)))

    def _reading(self, name: str) -> "_Reading | None":
        lanes = self._plane.in_force.systems.get(name)
        if lanes is None or lanes.live is None or lanes.reading is None:
            return None
        names = {column.name for column in lanes.live.signature.columns}
        if not names.isdisjoint((lanes.routed.key, lanes.routed.unit)):
            return None
        reading = self._readings[name] = _Reading(lanes)
        return reading

    def _new_known(self, name: str, caller: str) -> Known:
        known = self._known[name, caller] = Known(
            place=Place("infer", name),
            lanes=self._plane.in_force.systems[name],
            length=0,
            caller=caller,
            headers=(),
            request_id="",
            is_readable=True,
        )
        return known


class _Origin:
    """Where a call came from."""

    __slots__ = ("_asker", "_caller", "_calls", "_is_raw")

    def __init__(self, calls: QuickCalls, asker: Asker, caller: str, is_raw: bool) -> None:
        self._calls, self._asker, self._caller, self._is_raw = calls, asker, caller, is_raw

    def answered(self, call: Quick) -> None:
        """Send the answer."""
        call.is_answered = True
        self._calls.batcher.answered(call)
        try:
            if call.error is None:
                self._asker.reply(self._calls.body(call, is_raw=self._is_raw))
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            call.error = error
        self._calls.refused(call.lanes.name, call.error)
        self._asker.refuse(call.error)

    def unusual(self, call: Quick) -> None:
        """Answer the general way."""
        call.is_answered = True
        self._calls.batcher.answered(call)
        self._asker.generally(call.body, self._caller)


class _Layout:
    """Where the numbers of a request stand, by one that was read: the next one of its kind need not be taken apart.

    Clients write raw contents last. What stands before them is the same for all requests of one client, and numbers
    have the same size each time.
    """

    def __init__(
        self,
        name: str,
        prefix: bytes,
        heads: Sequence[bytes],
        letters: Sequence[str],
        order: Sequence[int],
        bounds: Mapping[int, tuple[int, int]],
        *,
        rows: int,
    ) -> None:
        """`heads` stand before the raw contents, `letters` are their formats. `order` says for each column of the
        signature which of them it is, -1 for none; it is empty where one holds all of them. `bounds` are the least
        and the largest value of some of them; of the one that holds all, of whole numbers."""
        self.name = name
        self.prefix = prefix
        self._start = len(prefix)
        each = "".join(f"{len(head)}s{letter.replace('?', 'B')}" for head, letter in zip(heads, letters, strict=True))
        self._unpack = struct.Struct(f"<{each}").unpack_from
        self._heads = tuple(heads)
        self._order = order if order != list(range(len(heads))) else None
        self._bounds = tuple(bounds.items())
        self._rows = rows

    def read(self, data: bytes) -> Given | None:
        """The values of a request of the same length and beginning; None where it is not laid out the same."""
        fields = self._unpack(data, self._start)
        if self._order == ():
            if fields[0] != self._heads[0]:
                return None
            if self._bounds and not all(-_EXACT <= value <= _EXACT for value in fields[1:]):
                return None
            return Given(list(fields[1:]), self._rows, wants_bytes=True)
        if fields[0::2] != self._heads:
            return None
        values = fields[1::2]
        for place, (least, most) in self._bounds:
            if not least <= values[place] <= most:
                return None
        if self._order is None:
            return Given(list(values), 1, wants_bytes=True)
        return Given([None if place < 0 else values[place] for place in self._order], 1, wants_bytes=True)


class _Reading:
    """Reads the usual requests of one system."""

    def __init__(self, lanes: Lanes) -> None:
        assert lanes.live is not None
        columns = lanes.live.signature.columns
        self._width = len(columns)
        self._place = {column.name: j for j, column in enumerate(columns)}
        self._types = [column.type for column in columns]
        # Whether a value fits its column is looked at when the rows of all calls are put together.
        self._is_packable = self._width > 1 and set(self._types) <= {"number", "integer", "boolean"}
        self._most_rows = lanes.routed.serve.max_rows

    def read(self, request: Message) -> Given | None:
        """The values of a request, row by row; None where it is not of the usual form."""
        inputs, raw = request.inputs, request.raw_input_contents
        count = len(inputs)
        if not count or request.model_version or request.outputs or request.parameters:
            return None
        if raw and len(raw) != count:
            return None
        if self._is_packed(inputs):
            return self._packed(inputs[0], raw[0] if raw else None, request.id)
        return self._named(inputs, raw, request.id)

    def layout(self, data: bytes, request: Message) -> _Layout | None:
        """How a request that was read is laid out; None where the next one need not be laid out the same."""
        inputs, raw = request.inputs, request.raw_input_contents
        shape = inputs[0].shape
        is_packed = self._is_packed(inputs)
        if not raw or request.id or (shape[0] != 1 and not is_packed) or len(raw[0]) > _MOST_LAID_OUT_BYTES:
            return None
        heads = [field_head(7, len(each)) for each in raw]
        section = sum(map(len, heads)) + sum(map(len, raw))
        prefix = data[: len(data) - section]
        before = parse(prefix)
        if before is None or len(before.inputs) != len(inputs) or before.raw_input_contents:
            return None
        if data[len(prefix) :] != b"".join(itertools.chain.from_iterable(zip(heads, raw, strict=True))):
            return None
        if is_packed:
            letter = _PACKED[inputs[0].datatype]
            bounds = {0: _BOUNDS["integer"]} if letter == "q" else {}
            letters = [f"{shape[0] * self._width}{letter}"]
            return _Layout(request.model_name, prefix, heads, letters, (), bounds, rows=shape[0])
        places = [self._place[tensor.name] for tensor in inputs]
        types = [self._types[place] for place in places]
        if "category" in types:
            return None
        letters = [_FIELDS[kind, tensor.datatype][0] for kind, tensor in zip(types, inputs, strict=True)]
        order = [places.index(j) if j in places else -1 for j in range(self._width)]
        bounds = {i: _BOUNDS[kind] for i, kind in enumerate(types) if kind in _BOUNDS}
        return _Layout(request.model_name, prefix, heads, letters, order, bounds, rows=1)

    def _is_packed(self, inputs: Sequence[Message]) -> bool:
        return self._is_packable and len(inputs) == 1 and inputs[0].shape[1:] == [self._width]

    def _packed(self, tensor: Message, raw: bytes | None, id: str) -> Given | None:
        """All columns in one tensor."""
        shape = tensor.shape
        if not 0 < shape[0] <= self._most_rows:
            return None
        kind = "integer" if tensor.datatype == "INT64" else "number"
        values = _values(kind, tensor, raw, shape[0] * self._width)
        if values is None:
            return None
        if len(values) > _MANY_VALUES:
            matrix = np.array(values, dtype=np.float64).reshape(shape[0], self._width)
            return Given(matrix, shape[0], id, wants_bytes=True)
        return Given(list(values), shape[0], id, wants_bytes=True)

    def _named(self, inputs: Sequence[Message], raw: Sequence[bytes], id: str) -> Given | None:
        """One tensor for each column."""
        shape = inputs[0].shape
        rows = shape[0] if shape else 0
        if not 0 < rows <= self._most_rows:
            return None
        columns: list[Sequence[Any] | None] = [None] * self._width
        for i, tensor in enumerate(inputs):
            place = self._place.get(tensor.name)
            if place is None or columns[place] is not None:
                return None
            shape = tensor.shape
            if shape[:1] != [rows] or len(shape) > 2 or shape[1:] not in ([], [1]):
                return None
            values = _values(self._types[place], tensor, raw[i] if raw else None, rows)
            if values is None:
                return None
            columns[place] = values
        if rows == 1:
            return Given([None if each is None else each[0] for each in columns], 1, id, wants_bytes=True)
        missing = [None] * rows
        by_row = itertools.chain.from_iterable(zip(*(each or missing for each in columns), strict=True))
        return Given(list(by_row), rows, id, wants_bytes=True)


def _values(kind: str, tensor: Message, raw: bytes | None, count: int) -> Sequence[Any] | None:
    """So many values of a tensor for a column of this type; None where it needs a closer look."""
    found = _FIELDS.get((kind, tensor.datatype))
    if found is None or tensor.parameters or (raw is not None and tensor.HasField("contents")):
        return None
    letter, field = found
    values: Sequence[Any]
    if raw is None:
        values = list(getattr(tensor.contents, field))
        if len(values) != count:
            return None
        if kind == "category":
            return _texts(values)
    elif kind == "category":
        return _raw_texts(raw, count)
    elif struct.calcsize(letter) * count != len(raw) or (letter == "?" and raw.strip(b"\0\1")):
        return None
    else:
        values = struct.unpack(f"<{count}{letter}", raw)
    if kind == "integer" and not all(-_EXACT <= value <= _EXACT for value in values):
        return None
    return values


def _raw_texts(raw: bytes, count: int) -> list[str] | None:
    texts: list[bytes] = []
    at = 0
    for _ in range(count):
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or at > len(raw):
            return None
        texts.append(raw[start:at])
    return _texts(texts) if at == len(raw) else None


def _texts(values: Sequence[bytes]) -> list[str] | None:
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        return None


class _Parameters(msgspec.Struct, frozen=True):
    stage: str
    outside: int


class _Size(msgspec.Struct, frozen=True):
    binary_data_size: int


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _Size


class _Head(msgspec.Struct, frozen=True):
    """What is read of the head of a binary answer."""

    model_name: str
    model_version: str
    parameters: _Parameters
    outputs: tuple[_Tensor, ...]


_decode_head = msgspec.json.Decoder(_Head).decode


_Written = tuple[bytes, bytes, bytes, int]
"""A response without its id and its outputs; its outputs without their data, the second empty where there is one; and
how many bytes the data of the first are."""


def _written(head: bytes) -> _Written:
    said = _decode_head(head)
    response = _Response(model_name=said.model_name, model_version=said.model_version)
    response.parameters["stage"].string_param = said.parameters.stage
    response.parameters["outside"].int64_param = said.parameters.outside
    outputs = [
        _Output(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape).SerializeToString()
        for tensor in said.outputs
    ]
    named = outputs[1] if len(outputs) > 1 else b""
    return response.SerializeToString(), outputs[0], named, said.outputs[0].parameters.binary_data_size


def _two_outputs(output: bytes, named: bytes, numbers: bytes, texts: bytes, *, is_raw: bool) -> bytes:
    """The outputs of a message with their data: numbers, and the texts that name a class for each row."""
    if is_raw:
        return _field(5, output) + _field(5, named) + _field(6, numbers) + _field(6, texts)
    listed: list[bytes] = []
    at = 0
    while at < len(texts):
        start = at + 4
        at = start + int.from_bytes(texts[at:start], "little")
        listed.append(_field(8, texts[start:at]))
    return _field(5, output + _field(5, _field(7, numbers))) + _field(5, named + _field(5, b"".join(listed)))


def parse(data: bytes) -> Message | None:
    """The request that the bytes of a message are; None for what is none."""
    try:
        return _Request.FromString(data)
    except DecodeError:
        return None


def _field(number: int, data: bytes) -> bytes:
    return field_head(number, len(data)) + data


def field_head(number: int, size: int) -> bytes:
    """What stands before a field of a message that holds bytes, text or a message (wire type 2).

    >>> field_head(3, 300).hex(" ")
    '1a ac 02'
    """
    if size < 128:
        return bytes((number << 3 | 2, size))
    encoded = bytearray((number << 3 | 2,))
    while size >= 128:
        encoded.append(size & 127 | 128)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)
