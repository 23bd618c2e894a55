"""The format of a lake segment: a schema frame, data frames, and an end frame when it is sealed.

Every frame is a header of 40 bytes and a payload, all little-endian:

    magic     4 bytes  ``HFSG``
    version   u8       2
    kind      u8       0 schema, 1 data, 2 end
    reserved  u16      0
    schema    u32      crc32 of the schema frame's payload
    rows      u32      rows of a data frame; 0 otherwise
    length    u32      bytes of payload
    sequence  u64      0, 1, 2 ... without a gap within a segment
    written   i64      microseconds since 1970 UTC
    crc       u32      crc32 (zlib) of the 36 bytes before it and the payload

A schema frame's payload is JSON: ``[["name", "type"], ...]``. An end frame has none. A data frame's payload is:

    head      u32      bytes of the head after this number
              u16      columns of the matrix: the last ones of the schema
              u16      constants; then for each, in the order of the schema:
                         u16 which column; its value: 8 bytes, or u32 length (0xFFFFFFFF for None) and UTF-8 bytes;
                         or u16 which column plus 0x8000; u16 of which it repeats the values, u32 length of a suffix to
                         them and its UTF-8 bytes
    matrix             float64, row after row
    numbers            for each other column of float, int or time, in the order of the schema: its values, 8 bytes each
    lengths            for each other column of text, in the order of the schema: a u32 per row (0xFFFFFFFF for None)
    texts              the UTF-8 bytes of those, one after the other

The head is the same bytes in frame after frame, so a writer makes it once and a reader understands it once.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from holdfast.core.protocols import EMPTY, Columns, Field
from holdfast.core.times import MISSING_TIME
from holdfast.engines.tables import (
    DTYPES,
    as_matrix,
    divided,
    misgiven,
    missing_time,
    numbers,
    repeated,
    rules_of,
    text,
)
from holdfast.errors import StateError

if TYPE_CHECKING:
    from holdfast.core.protocols import Matrix

MAGIC = b"HFSG"
VERSION = 2
SCHEMA, DATA, END = 0, 1, 2

_HEADER = struct.Struct("<4sBBHIIIQq")
_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<IHH")
_COLUMN = struct.Struct("<H")
_NUMBER = {"float": struct.Struct("<d"), "int": struct.Struct("<q"), "time": struct.Struct("<q")}
HEADER_BYTES = _HEADER.size + _CRC.size
_NONE = 0xFFFFFFFF
_REPEATS = 0x8000
"""Added to the number of a column that repeats another one."""
_MOST_BYTES = 2**31
_FLOAT = np.dtype(np.float64)
_FEW_ROWS = 64
"""Up to here a Python list is looked through faster than numpy is called."""
_PLANS = 64
"""Most mappings of constants that an encoder remembers."""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One whole frame, its checksum verified. `payload` looks into the bytes that were read."""

    kind: int
    schema: int
    rows: int
    sequence: int
    written: int
    payload: memoryview
    end: int
    """Where the next frame begins."""


def encode(
    kind: int, payload: bytes, *, schema: int, rows: int = 0, sequence: int, written: int
) -> tuple[bytes, bytes]:
    """Header and payload of one frame, to be written together."""
    header = _HEADER.pack(MAGIC, VERSION, kind, 0, schema, rows, len(payload), sequence, written)
    return header + _CRC.pack(zlib.crc32(payload, zlib.crc32(header))), payload


def encode_schema(schema: Sequence[Field]) -> bytes:
    """The payload of a schema frame; its crc32 is the schema's id in the frames that follow."""
    return msgspec.json.encode([[field.name, field.type] for field in schema])


def decode_schema(payload: memoryview) -> tuple[Field, ...]:
    """The columns that a schema frame names."""
    pairs = msgspec.json.decode(payload, type=tuple[tuple[str, Literal["float", "int", "text", "time"]], ...])
    return tuple(Field(name, kind) for name, kind in pairs)


class Encoder:
    """Makes the payload of data frames from columns. Raises StateError where they do not fit the schema.

    It stands on the path of every request, so all that can be is done once per mapping of constants.
    """

    def __init__(self, table: str, schema: tuple[Field, ...]) -> None:
        self._table = table
        self._schema = schema
        self._plans: dict[tuple[int, int], _Plan] = {}

    def payload(
        self, columns: Columns, rows: int, *, constants: Mapping[str, Any] = EMPTY, matrix: "Matrix | None" = None
    ) -> bytes:
        """The payload of one frame with `rows` rows, given as to `Writer.append`."""
        width = 0
        if matrix is not None:
            if type(matrix) is not np.ndarray or matrix.dtype is not _FLOAT or not matrix.flags.c_contiguous:
                matrix = as_matrix(self._table, matrix, rows)
            shape = matrix.shape
            if len(shape) != 2 or shape[0] != rows:
                as_matrix(self._table, matrix, rows)
            width = shape[1]
        plan = self._plans.get((id(constants), width))
        if plan is None:
            plan = self._planned(constants, width)
        if len(columns) != plan.given:
            raise misgiven(self._table, self._schema, plan.division, columns)
        parts: list[Any] = [plan.head]
        if matrix is not None:
            parts.append(matrix)
        try:
            self._add_numbers(parts, plan, columns, rows)
            if plan.texts:
                self._add_texts(parts, plan, columns, rows)
        except KeyError:
            raise misgiven(self._table, self._schema, plan.division, columns) from None
        payload = b"".join(parts)
        if len(payload) > _MOST_BYTES:
            raise StateError(
                f"{rows} rows for lake table '{self._table}' make {len(payload)} bytes, "
                f"more than {_MOST_BYTES} in one append; append fewer rows at a time"
            )
        return payload

    def _planned(self, constants: Mapping[str, Any], width: int) -> "_Plan":
        plan = _Plan(self._table, self._schema, constants, width)
        if len(self._plans) >= _PLANS:
            self._plans.clear()
        self._plans[id(constants), width] = plan  # it holds the constants, so that their id is nobody else's
        return plan

    def _add_numbers(self, parts: list[Any], plan: "_Plan", columns: Columns, rows: int) -> None:
        shape = (rows,)
        for field, name, dtype, is_time in plan.numbers:
            values = columns[name]
            if (
                type(values) is not np.ndarray
                or values.dtype is not dtype
                or values.shape != shape
                or not values.flags.c_contiguous
            ):
                values = np.ascontiguousarray(numbers(self._table, field, values, rows))
            if is_time and (
                MISSING_TIME in values.tolist() if rows <= _FEW_ROWS else int(values.min()) == MISSING_TIME
            ):
                raise missing_time(self._table)
            parts.append(values)

    def _add_texts(self, parts: list[Any], plan: "_Plan", columns: Columns, rows: int) -> None:
        values: list[str] = []
        expected = 0
        for _, name in plan.texts:
            values += columns[name]
            expected += rows
            if len(values) != expected:
                break  # said below
        else:
            try:
                # One join checks all types at a fraction of what a look at each value costs.
                joined = "".join(values)
                encoded = joined.encode()
            except (TypeError, UnicodeEncodeError):
                pass
            else:
                if len(encoded) == len(joined):  # every character is one byte
                    parts.append(_lengths(list(map(len, values))))
                    parts.append(encoded)
                    return
        self._add_other_texts(parts, plan, columns, rows)

    def _add_other_texts(self, parts: list[Any], plan: "_Plan", columns: Columns, rows: int) -> None:
        """Texts with None or more than ASCII among them, and those that are refused."""
        joined = []
        for field, name in plan.texts:
            column, encoded = text(self._table, field, columns[name], rows)
            parts.append(_lengths([_NONE if value is None else len(value.encode()) for value in column]))
            joined.append(encoded)
        parts += joined


class _Plan:
    """What is known of all frames that share a mapping of constants and the width of the matrix."""

    def __init__(self, table: str, schema: tuple[Field, ...], constants: Mapping[str, Any], width: int) -> None:
        time = rules_of(table).time
        self.constants = constants
        self.division = divided(table, schema, constants, width)
        varying = self.division.varying
        dated = {time, *(original.name for field, original, _ in self.division.same if field.name == time)}
        self.given = len(varying)
        self.numbers = [(f, f.name, DTYPES[f.type], f.name in dated) for f in varying if f.type != "text"]
        self.texts = [(f, f.name) for f in varying if f.type == "text"]
        blocks = [
            (schema.index(field), _COLUMN.pack(schema.index(field)) + _constant(field, value))
            for field, value in self.division.constants
        ]
        blocks += [
            (schema.index(field), _repetition(schema.index(field), schema.index(original), suffix))
            for field, original, suffix in self.division.same
        ]
        after = b"".join([block for _, block in sorted(blocks)])
        self.head = _HEAD.pack(_HEAD.size - _LENGTH.size + len(after), width, len(blocks)) + after


def _constant(field: Field, value: Any) -> bytes:
    if field.type != "text":
        return _NUMBER[field.type].pack(value)
    encoded = b"" if value is None else value.encode()
    return _LENGTH.pack(_NONE if value is None else len(encoded)) + encoded


def _repetition(column: int, original: int, suffix: str) -> bytes:
    encoded = suffix.encode()
    return _COLUMN.pack(column | _REPEATS) + _COLUMN.pack(original) + _LENGTH.pack(len(encoded)) + encoded


def _lengths(lengths: list[int]) -> Any:
    count = len(lengths)
    return struct.pack(f"<{count}I", *lengths) if count <= _FEW_ROWS else np.array(lengths, dtype="<u4")


def frame_at(data: memoryview, offset: int) -> Frame | None:
    """The whole, intact frame that begins at `offset`; None when there is none."""
    start = offset + HEADER_BYTES
    if start > len(data):
        return None
    head = data[offset : offset + _HEADER.size]
    magic, version, kind, _, schema, rows, length, sequence, written = _HEADER.unpack(head)
    if magic != MAGIC or version != VERSION or start + length > len(data):
        return None
    payload = data[start : start + length]
    (crc,) = _CRC.unpack(data[start - _CRC.size : start])
    if zlib.crc32(payload, zlib.crc32(head)) != crc:
        return None
    return Frame(
        kind=kind, schema=schema, rows=rows, sequence=sequence, written=written, payload=payload, end=start + length
    )


def other_version(data: memoryview, offset: int) -> int | None:
    """The format version of what begins at `offset`; None where that is this one, or where no frame begins there."""
    if len(data) - offset <= len(MAGIC) or data[offset : offset + len(MAGIC)] != MAGIC:
        return None
    version = data[offset + len(MAGIC)]
    return None if version == VERSION else version


def has_frame_after(data: memoryview, offset: int) -> bool:
    """Whether an intact frame begins after `offset`: then what stands at `offset` is damage, not a torn end."""
    whole = bytes(data[offset:])
    found = whole.find(MAGIC, 1)
    while found >= 0:
        if frame_at(data, offset + found) is not None:
            return True
        found = whole.find(MAGIC, found + 1)
    return False


def decode(schema: Sequence[Field], frames: Sequence[Frame]) -> dict[str, Any]:
    """The rows of data frames as columns: numpy arrays, or lists of str | None."""
    alike: dict[bytes, list[int]] = {}
    for at, frame in enumerate(frames):
        (length,) = _LENGTH.unpack_from(frame.payload)
        alike.setdefault(bytes(frame.payload[: _LENGTH.size + length]), []).append(at)
    groups = [(_Layout(schema, head), places) for head, places in alike.items()]
    parts = [layout.decoded([frames[at] for at in places]) for layout, places in groups]
    if len(parts) == 1:
        return parts[0]
    order = _order(frames, [places for _, places in groups])
    return {field.name: _joined(field, [part[field.name] for part in parts], order) for field in schema}


def _order(frames: Sequence[Frame], groups: Sequence[Sequence[int]]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Where each row of the frames stands once the rows of each group of frames are together."""
    rows = [frame.rows for frame in frames]
    starts = [0, *accumulate(rows)]
    together = [np.arange(starts[at], starts[at] + rows[at]) for places in groups for at in places]
    return np.argsort(np.concatenate([np.empty(0, np.int64), *together]))


def _joined(field: Field, parts: Sequence[Any], order: "np.ndarray[Any, np.dtype[np.int64]]") -> Any:
    if field.type != "text":
        return np.concatenate([np.empty(0, DTYPES[field.type]), *parts])[order]
    values = [value for part in parts for value in part]
    return [values[at] for at in order.tolist()]


class _Layout:
    """Reads frames that have the same head."""

    def __init__(self, schema: Sequence[Field], head: bytes) -> None:
        _, width, count = _HEAD.unpack_from(head)
        self._start = len(head)
        self._constants: list[tuple[Field, Any]] = []
        self._same: list[tuple[Field, Field, str]] = []
        at = _HEAD.size
        for _ in range(count):
            (column,) = _COLUMN.unpack_from(head, at)
            at += _COLUMN.size
            if column & _REPEATS:
                (original,) = _COLUMN.unpack_from(head, at)
                suffix, at = _text_at(head, at + _COLUMN.size)
                self._same.append((schema[column ^ _REPEATS], schema[original], suffix or ""))
            else:
                value, at = _constant_at(schema[column], head, at)
                self._constants.append((schema[column], value))
        self._matrix = list(schema[len(schema) - width :]) if width else []
        told = [field for field, _ in self._constants] + [field for field, _, _ in self._same]
        beside = {field.name for field in (*self._matrix, *told)}
        varying = [field for field in schema if field.name not in beside]
        self._numbers = [field for field in varying if field.type != "text"]
        self._texts = [field for field in varying if field.type == "text"]

    def decoded(self, frames: Sequence[Frame]) -> dict[str, Any]:
        """All columns of the schema."""
        width, texts = len(self._matrix), len(self._texts)
        blocks: list[memoryview] = []
        pieces: list[list[memoryview]] = [[] for _ in self._numbers]
        lengths: list[memoryview] = []
        joined: list[memoryview] = []
        for frame in frames:
            payload, size, at = frame.payload, 8 * frame.rows, self._start
            if width:
                blocks.append(payload[at : at + width * size])
                at += width * size
            for piece in pieces:
                piece.append(payload[at : at + size])
                at += size
            if texts:
                middle = at + texts * size // 2
                lengths.append(payload[at:middle])
                joined.append(payload[middle:])
        rows = [frame.rows for frame in frames]
        columns: dict[str, Any] = {
            field.name: [value] * sum(rows) if field.type == "text" else np.full(sum(rows), value, DTYPES[field.type])
            for field, value in self._constants
        }
        for field, piece in zip(self._numbers, pieces, strict=True):
            columns[field.name] = np.frombuffer(b"".join(piece), DTYPES[field.type])
        if width:
            matrix = np.ascontiguousarray(np.frombuffer(b"".join(blocks), DTYPES["float"]).reshape(-1, width).T)
            columns |= {field.name: matrix[at] for at, field in enumerate(self._matrix)}
        if texts:
            values = _texts(np.frombuffer(b"".join(lengths), "<u4"), b"".join(joined))
            columns |= zip((field.name for field in self._texts), _apart(values, rows, texts), strict=True)
        for field, original, suffix in self._same:
            columns[field.name] = repeated(columns[original.name], suffix)
        return columns


def _constant_at(field: Field, head: bytes, at: int) -> tuple[Any, int]:
    """A constant and where it ends."""
    if field.type != "text":
        return _NUMBER[field.type].unpack_from(head, at)[0], at + 8
    return _text_at(head, at)


def _text_at(head: bytes, at: int) -> tuple[str | None, int]:
    """A text by its length, and where it ends."""
    (length,) = _LENGTH.unpack_from(head, at)
    at += _LENGTH.size
    return (None, at) if length == _NONE else (head[at : at + length].decode(), at + length)


def _apart(values: list[str | None], rows: Sequence[int], columns: int) -> list[list[str | None]]:
    """The texts of each column, from those of each frame column after column."""
    if len(rows) == 1:
        return [values[at * rows[0] : (at + 1) * rows[0]] for at in range(columns)]
    apart: list[list[str | None]] = [[] for _ in range(columns)]
    at = 0
    for count in rows:
        for column in apart:
            column += values[at : at + count]
            at += count
    return apart


def _texts(lengths: "np.ndarray[Any, np.dtype[np.uint32]]", joined: bytes) -> list[str | None]:
    """Texts by their lengths in UTF-8 bytes."""
    is_none = lengths == _NONE
    stops = np.cumsum(np.where(is_none, 0, lengths).astype(np.int64)).tolist()
    starts = [0, *stops[:-1]] if stops else []
    if joined.isascii():
        whole = joined.decode()
        values: list[str | None] = [whole[a:b] for a, b in zip(starts, stops, strict=True)]
    else:
        values = [joined[a:b].decode() for a, b in zip(starts, stops, strict=True)]
    for at in np.flatnonzero(is_none).tolist():
        values[at] = None
    return values
