"""Records as JSON and back, unchanged, also where JSON has no word for a value.

NaN and infinities are written as ``{"$float": "nan"}``, times in open-ended fields (a job's payload, a mark's memory)
as ``{"$time": "2013-04-01T00:00:00Z"}``. In those fields tuples come back as lists and keys as text, as JSON has it.
"""

import math
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import msgspec

from holdfast.core.records import Record

R = TypeVar("R", bound=Record)

_MARK = b'{"$'


def encode(record: Record) -> str:
    """A record as JSON text."""
    plain = msgspec.to_builtins(record, str_keys=True)
    for name in _open_ended(type(record)):
        plain[name] = msgspec.to_builtins(getattr(record, name), builtin_types=(datetime,), str_keys=True)
    return msgspec.json.encode(_marked(plain)).decode()


def decode(kind: type[R], body: str) -> R:
    """The record that was encoded; fields it did not have yet take their defaults. Raises msgspec.ValidationError."""
    data = body.encode()
    if _MARK not in data:
        return msgspec.json.decode(data, type=kind)
    return msgspec.convert(_unmarked(msgspec.json.decode(data)), type=kind)


@cache
def _open_ended(kind: type[Record]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind) if "Any" in str(field.type))


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        marked = {key: _marked(each) for key, each in value.items()}
        is_like_a_mark = len(marked) == 1 and next(iter(marked)).startswith("$")
        return {"$dict": marked} if is_like_a_mark else marked
    if isinstance(value, list | tuple):
        return [_marked(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, datetime):
        return {"$time": value}
    return value


def _unmarked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unmarked(each) for each in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$float": text} if len(value) == 1:
            return float(text)
        case {"$time": text} if len(value) == 1:
            return datetime.fromisoformat(text)
        case {"$dict": held} if len(value) == 1:
            return {key: _unmarked(each) for key, each in held.items()}
    return {key: _unmarked(each) for key, each in value.items()}
