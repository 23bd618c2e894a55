"""Tensors of the Open Inference Protocol, whichever transport brought them.

In: little-endian bytes (the binary extension over HTTP, `raw_input_contents` over gRPC) or values (JSON, the typed
contents of gRPC). Out: checked tensors that a signature can read, and the same bytes. A claimed shape never allocates
anything: it is compared with what was sent.
"""

import math
import struct
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal, NoReturn

import msgspec
import numpy as np

from holdfast.core.times import EXPECTED, MISSING_TIME
from holdfast.errors import InvalidInput

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
    "BF16",
    "BYTES",
]

NumberArray = np.ndarray[Any, np.dtype[Any]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]

_STORED: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
}
"""How the elements of a datatype stand in bytes; BYTES have no fixed size."""

_FLOATS = ("FP16", "FP32", "FP64", "BF16")
_LIMITS = {
    name: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    for name, dtype in _STORED.items()
    if dtype.kind in "iu" and name != "BF16"
}
_EXACT = 2**53
"""Up to here every whole number is a float64."""
_WIDEST = 2**31
"""Widest row of a tensor that has no rows: no data contradict it."""
_LENGTH = struct.Struct("<I")


class Tensor(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A named tensor of shape [n] or [n, k] whose data agree with its datatype and shape.

    `data` is flat, row by row: an array in the precision of the datatype (BF16 as float32, numbers from JSON as
    float64), or a list where an array cannot say it: text, and integers or booleans of which some are missing (None).
    NaN is missing.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: NumberArray | list[Any]

    @property
    def width(self) -> int:
        """Values in each row."""
        return self.shape[1] if len(self.shape) == 2 else 1


def from_bytes(
    name: str, datatype: Datatype, shape: Sequence[int], raw: bytes | memoryview, columns: Sequence[str] = ()
) -> Tensor:
    """A tensor from its bytes: little-endian, row by row, nothing in between; BYTES have their length before each.

    `columns` names the places of a row in messages. Raises InvalidInput.
    """
    where = _Where(name, shape, columns)
    if datatype == "BYTES":
        return Tensor(name=name, datatype=datatype, shape=where.shape, data=_texts_from_bytes(where, raw))
    stored = _STORED[datatype]
    if where.count * stored.itemsize != len(raw):
        where.refuse_tensor(
            f"has {len(raw)} bytes, its shape {where.as_text} takes {stored.itemsize} for each {datatype}",
            f"{said(where.count * stored.itemsize)} bytes",
        )
    array = np.frombuffer(raw, dtype=np.uint8 if datatype == "BOOL" else stored)
    if not array.flags.aligned:
        array = array.copy()
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    elif datatype == "BOOL":
        if (array > 1).any():
            place = int(np.argmax(array > 1))
            where.refuse(place, f"the byte {int(array[place])} is not BOOL", "a byte that is 0 or 1")
        array = array.view(np.bool_)
    return Tensor(name=name, datatype=datatype, shape=where.shape, data=array)


def from_values(
    name: str, datatype: Datatype, shape: Sequence[int], data: Sequence[Any], columns: Sequence[str] = ()
) -> Tensor:
    """A tensor from values, flat or nested as its shape says; None is missing, text may be str or UTF-8 bytes.

    A BOOL may be given as 0 or 1, a whole number as 3.0. `columns` names the places of a row in messages. Raises
    InvalidInput.
    """
    where = _Where(name, shape, columns)
    flat = _flat(where, data)
    if len(flat) != where.count:
        where.refuse_tensor(
            f"has {len(flat)} values, its shape {where.as_text} says {said(where.count)}", f"{said(where.count)} values"
        )
    read = _READ[datatype](where, datatype, flat)
    return Tensor(name=name, datatype=datatype, shape=where.shape, data=read)


def to_bytes(tensor: Tensor) -> bytes:
    """The bytes that `from_bytes` reads. Raises InvalidInput for what is missing in text or integers."""
    if isinstance(tensor.data, np.ndarray):
        if tensor.datatype == "BF16":
            bits: bytes = (tensor.data.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
            return bits
        return tensor.data.astype(_STORED[tensor.datatype], copy=False).tobytes()
    if None in tensor.data:
        raise InvalidInput(
            f"'{tensor.name}' has missing values, which its bytes cannot say",
            row=tensor.data.index(None) // tensor.width,
        )
    if tensor.datatype != "BYTES":
        return np.array(tensor.data, dtype=_STORED[tensor.datatype]).tobytes()
    encoded = [value.encode() for value in tensor.data]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(each)), each) for each in encoded))


def floats(tensor: Tensor, columns: Sequence[str] = ()) -> FloatArray:
    """All values of a tensor of numbers or booleans as float64, flat, NaN for missing; nothing is rounded.

    Raises InvalidInput for text, and for integers that no float64 holds exactly.
    """
    if tensor.datatype in ("BYTES", "INT64", "UINT64"):
        where = _Where(tensor.name, tensor.shape, columns)
        if tensor.datatype == "BYTES":
            where.refuse_tensor("is BYTES, which are no numbers", "a numeric datatype or BOOL")
        _refuse_rounding(where, tensor.data)
    return np.asarray(tensor.data, dtype=np.float64)  # None becomes NaN


def column(tensor: Tensor) -> NumberArray | list[Any]:
    """The values of one column as a signature reads them: numbers as an array, text and booleans as they are.

    Raises InvalidInput as `floats` does, and for several values a row.
    """
    _refuse_wide(tensor)
    return tensor.data if tensor.datatype in ("BYTES", "BOOL") else floats(tensor)


def instants(tensor: Tensor) -> NumberArray | list[Any]:
    """The values of one column of times as a signature reads them: text, or microseconds since 1970 UTC as an array.

    Raises InvalidInput for another datatype than BYTES and INT64, and for several values a row.
    """
    _refuse_wide(tensor)
    if tensor.datatype == "BYTES":
        return tensor.data
    if tensor.datatype != "INT64":
        raise InvalidInput(
            f"input '{tensor.name}' is {tensor.datatype}, which says no time; send BYTES, each {EXPECTED}, or INT64, "
            "microseconds since 1970 UTC",
            column=tensor.name,
            expected="BYTES or INT64",
        )
    return np.array([MISSING_TIME if value is None else value for value in tensor.data], dtype=np.int64)


def values(tensor: Tensor) -> list[Any]:
    """The values of one column, exactly, as JSON knows them: what identifies rows must not go through a float.

    Raises InvalidInput for several values a row.
    """
    _refuse_wide(tensor)
    if isinstance(tensor.data, np.ndarray):
        return [None if value != value else value for value in tensor.data.tolist()]
    return tensor.data


def _refuse_wide(tensor: Tensor) -> None:
    if tensor.width != 1:
        raise InvalidInput(
            f"input '{tensor.name}' has shape {list(tensor.shape)}; give one tensor of shape [n] or [n, 1] per column, "
            "or all columns in one tensor of shape [n, columns] and no other input",
            column=tensor.name,
            expected="shape [n] or [n, 1]",
        )


def said(number: int) -> str:
    """A number that a caller claims, without its three thousand digits."""
    return str(number) if abs(number) < 10**20 else "more than 10^20" if number > 0 else "less than -10^20"


class _Where:
    """Which tensor is being read: its shape, checked, and words for a place in it."""

    def __init__(self, name: str, shape: Sequence[int], columns: Sequence[str]) -> None:
        self.name = name
        self.shape = tuple(shape)
        self._columns = columns
        is_table = len(self.shape) in (1, 2) and min(self.shape) >= 0 and self.shape[1:] != (0,)
        if not is_table or (0 in self.shape and max(self.shape) > _WIDEST):
            self.refuse_tensor(
                f"has shape {self.as_text}; give one of shape [n] or [n, 1] per column, or one of shape [n, columns]",
                "shape [n], [n, 1] or [n, columns]",
            )
        self.width = self.shape[1] if len(self.shape) == 2 else 1
        self.count = math.prod(self.shape)

    @property
    def as_text(self) -> str:
        return f"[{', '.join(map(said, self.shape[:8]))}{', ...' if len(self.shape) > 8 else ''}]"

    def refuse(self, place: int, what: str, expected: str) -> NoReturn:
        """Refuse the value at this flat place."""
        row, i = divmod(place, max(self.width, 1))
        named = self._columns[i] if self.width == len(self._columns) else self.name
        text = f"column '{named}'" if self.width == 1 or named != self.name else f"value {i} of input '{self.name}'"
        raise InvalidInput(f"row {row}, {text}: {what}; expected {expected}", row=row, column=named, expected=expected)

    def refuse_tensor(self, what: str, expected: str) -> NoReturn:
        raise InvalidInput(f"input '{self.name}' {what}", column=self.name, expected=expected)


def _flat(where: _Where, data: Sequence[Any]) -> Sequence[Any]:
    if list not in map(type, data):
        return data
    is_nested = len(where.shape) == 2 and len(data) == where.shape[0]
    if not is_nested or any(type(row) is not list or len(row) != where.shape[1] for row in data):
        where.refuse_tensor(
            f"has nested data that do not have its shape {where.as_text}", "flat data, or nested as shape"
        )
    return list(chain.from_iterable(data))


def _floats(where: _Where, datatype: str, flat: Sequence[Any]) -> NumberArray:
    array = _as_float64(flat)
    if array is None:
        _refuse_first(where, datatype, flat)
    return array


def _as_float64(flat: Sequence[Any]) -> FloatArray | None:
    if not set(map(type, flat)) <= {float, int, type(None)}:
        return None
    try:
        return np.array(flat, dtype=np.float64)  # None becomes NaN
    except OverflowError:
        return None


def _integers(where: _Where, datatype: str, flat: Sequence[Any]) -> NumberArray | list[Any]:
    if set(map(type, flat)) == {int}:
        try:
            return np.array(flat, dtype=_STORED[datatype])
        except OverflowError:
            _refuse_first(where, datatype, flat)
    if not all(_fits(datatype, value) for value in flat):
        _refuse_first(where, datatype, flat)
    whole = [None if value is None else int(value) for value in flat]
    return whole if None in whole else np.array(whole, dtype=_STORED[datatype])


def _booleans(where: _Where, datatype: str, flat: Sequence[Any]) -> NumberArray | list[Any]:
    if not all(_fits(datatype, value) for value in flat):
        _refuse_first(where, datatype, flat)
    given = [None if value is None else bool(value) for value in flat]
    return given if None in given else np.array(given, dtype=np.bool_)


def _texts(where: _Where, datatype: str, flat: Sequence[Any]) -> list[Any]:
    types = set(map(type, flat))
    if types <= {str, type(None)}:
        return list(flat)
    if types <= {bytes}:
        return [_text(where, place, value) for place, value in enumerate(flat)]
    _refuse_first(where, datatype, flat)


_READ: dict[str, Callable[[_Where, str, Sequence[Any]], NumberArray | list[Any]]] = {
    **dict.fromkeys(_STORED, _integers),
    **dict.fromkeys(_FLOATS, _floats),
    "BOOL": _booleans,
    "BYTES": _texts,
}


def _texts_from_bytes(where: _Where, raw: bytes | memoryview) -> list[str]:
    if where.count * _LENGTH.size > len(raw):
        where.refuse_tensor(
            f"has {len(raw)} bytes, its shape {where.as_text} says {said(where.count)} values of 4 bytes or more",
            f"{said(where.count)} values",
        )
    texts: list[str] = []
    at = 0
    for place in range(where.count):
        start = at + _LENGTH.size
        end = start + _LENGTH.unpack_from(raw, at)[0] if start <= len(raw) else start
        if end > len(raw):
            where.refuse(place, f"its bytes end beyond the {len(raw)} of the tensor", "4 bytes of length, then text")
        texts.append(_text(where, place, raw[start:end]))
        at = end
    if at != len(raw):
        where.refuse_tensor(f"has {len(raw) - at} bytes behind its {where.count} values", f"{at} bytes")
    return texts


def _text(where: _Where, place: int, raw: bytes | memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        where.refuse(place, f"{bytes(raw[:30])!r} is not UTF-8", "text in UTF-8")


def _fits(datatype: str, value: Any) -> bool:
    """True for a value that the datatype holds: the definition of what is accepted."""
    kind = type(value)
    if value is None:
        return True
    if datatype == "BYTES":
        return kind is str
    if datatype == "BOOL":
        return kind is bool or (kind is int and value in (0, 1))
    if datatype in _FLOATS:
        # A narrow datatype does not round what was written; infinities and NaN are for the signature to refuse.
        return kind is float or (kind is int and abs(value) <= sys.float_info.max)
    low, high = _LIMITS[datatype]
    return (kind is int or (kind is float and value.is_integer())) and low <= value <= high


def _refuse_first(where: _Where, datatype: str, flat: Sequence[Any]) -> NoReturn:
    place = next(place for place, value in enumerate(flat) if not _fits(datatype, value))
    where.refuse(place, f"{_shown(flat[place])} is not {datatype}", f"{_expected(datatype)} or null")


def _expected(datatype: str) -> str:
    if datatype == "BYTES":
        return "text"
    if datatype == "BOOL":
        return "true or false"
    if datatype in _FLOATS:
        return "a number"
    low, high = _LIMITS[datatype]
    return f"a whole number from {low} to {high}"


def _refuse_rounding(where: _Where, data: NumberArray | list[Any]) -> None:
    """Models compute with float64: a large id that would become another number is no input."""
    if isinstance(data, np.ndarray):
        large = (data > _EXACT) | (data < -_EXACT)
        places = np.flatnonzero(large).tolist() if large.any() else []
    else:
        places = [place for place, value in enumerate(data) if value is not None and abs(value) > _EXACT]
    for place in places:
        value = int(data[place])
        if int(float(value)) != value:
            where.refuse(
                place, f"{value} would be rounded to {float(value):.0f}", "a whole number that a float64 holds exactly"
            )


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**40:
        return said(value)
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
