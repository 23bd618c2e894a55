"""The format of a lake segment: a schema frame, data frames, and an end frame when it is sealed.

Every frame is a header of 40 bytes and a payload, all little-endian:

    magic     4 bytes  ``HFSG``
    version   u8       1
    kind      u8       0 schema, 1 data, 2 end
    reserved  u16      0
    schema    u32      crc32 of the schema frame's payload
    rows      u32      rows of a data frame; 0 otherwise
    length    u32      bytes of payload
    sequence  u64      0, 1, 2 ... without a gap within a segment
    written   i64      microseconds since 1970 UTC
    crc       u32      crc32 (zlib) of the 36 bytes before it and the payload

A schema frame's payload is JSON: ``[["name", "type"], ...]``. A data frame's payload is one block per column, in the
order of the schema: float64 or int64 values as they are; text as a u32 length per row (0xFFFFFFFF for None) and
then the UTF-8 bytes of all rows. An end frame has none.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from holdfast.core.protocols import Columns, Field
from holdfast.engines.tables import DTYPES, MISSING_TIME, missing_time, numbers, rules_of, text, wrong_names
from holdfast.errors import StateError

MAGIC = b"HFSG"
VERSION = 1
SCHEMA, DATA, END = 0, 1, 2

_HEADER = struct.Struct("<4sBBHIIIQq")
_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
_NONE = 0xFFFFFFFF
_MOST_BYTES = 2**31
_NONE_LENGTH = _LENGTH.pack(_NONE)


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
    """Makes the payload of data frames from columns. Raises StateError where they do not fit the schema."""

    def __init__(self, table: str, schema: tuple[Field, ...]) -> None:
        self._table = table
        self._schema = schema
        self._time = rules_of(table).time
        # Looked up once: one row of 35 columns should cost a few microseconds of its own, not of attribute access.
        self._plan = [(field, field.name, DTYPES.get(field.type), field.name == self._time) for field in schema]

    def payload(self, columns: Columns, rows: int) -> bytes:
        """Column blocks of `rows` rows."""
        if len(columns) != len(self._plan):
            raise wrong_names(self._table, self._schema, columns)
        parts: list[Any] = []
        for field, name, dtype, is_time in self._plan:
            try:
                values = columns[name]
            except KeyError:
                raise wrong_names(self._table, self._schema, columns) from None
            if dtype is None:
                self._add_text(parts, field, values, rows)
                continue
            if type(values) is not np.ndarray or values.dtype is not dtype or values.shape != (rows,):
                values = numbers(self._table, field, values, rows)
            if not values.flags.c_contiguous:
                values = np.ascontiguousarray(values)
            if is_time and rows and (values[0] if rows == 1 else values.min()) == MISSING_TIME:
                raise missing_time(self._table)
            parts.append(values)
        payload = b"".join(parts)
        if len(payload) > _MOST_BYTES:
            raise StateError(
                f"{rows} rows for lake table '{self._table}' make {len(payload)} bytes, "
                f"more than {_MOST_BYTES} in one append; append fewer rows at a time"
            )
        return payload

    def _add_text(self, parts: list[Any], field: Field, values: Any, rows: int) -> None:
        if rows == 1 and len(values) == 1:
            value = values[0]
            if value is None:
                parts.append(_NONE_LENGTH)
                return
            if type(value) is str and value.isascii():
                parts.append(_LENGTH.pack(len(value)))
                parts.append(value.encode())
                return
        column, joined = text(self._table, field, values, rows)
        parts.append(_lengths(column, joined))
        parts.append(joined)


def _lengths(column: list[str | None], joined: bytes) -> "np.ndarray[Any, np.dtype[np.uint32]]":
    try:
        lengths = np.fromiter(map(len, column), dtype="<u4", count=len(column))  # type: ignore[arg-type]
    except TypeError:
        return np.array([_NONE if value is None else len(value.encode()) for value in column], dtype="<u4")
    if int(lengths.sum(dtype=np.int64)) == len(joined):  # every character is one byte
        return lengths
    return np.array([len(value.encode()) for value in column if value is not None], dtype="<u4")


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
    blocks: list[list[Any]] = [[] for _ in schema]
    for frame in frames:
        offset = 0
        for field, pieces in zip(schema, blocks, strict=True):
            if field.type == "text":
                lengths = np.frombuffer(frame.payload, dtype="<u4", count=frame.rows, offset=offset)
                start = offset + 4 * frame.rows
                offset = start + int(lengths.sum(dtype=np.int64, where=lengths != _NONE))
                pieces.append((lengths, frame.payload[start:offset]))
            else:
                pieces.append(frame.payload[offset : offset + 8 * frame.rows])
                offset += 8 * frame.rows
    return {
        field.name: _texts(pieces) if field.type == "text" else np.frombuffer(b"".join(pieces), DTYPES[field.type])
        for field, pieces in zip(schema, blocks, strict=True)
    }


def _texts(pieces: Sequence[tuple["np.ndarray[Any, np.dtype[np.uint32]]", memoryview]]) -> list[str | None]:
    if not pieces:
        return []
    lengths = np.concatenate([lengths for lengths, _ in pieces])
    joined = b"".join([data for _, data in pieces])
    is_none = lengths == _NONE
    ends = np.cumsum(np.where(is_none, 0, lengths).astype(np.int64))
    starts = np.concatenate(([0], ends[:-1])).tolist()
    ends = ends.tolist()
    if joined.isascii():
        whole = joined.decode()
        values: list[str | None] = [whole[a:b] for a, b in zip(starts, ends, strict=True)]
    else:
        values = [joined[a:b].decode() for a, b in zip(starts, ends, strict=True)]
    for at in np.flatnonzero(is_none).tolist():
        values[at] = None
    return values
