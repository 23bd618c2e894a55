"""From what a caller sends to typed rows: one reading of a signature for JSON, columns and frames.

The same values give the same `Rows`, whichever way they came. A missing value is null or absent; in arrays and
frames, which have no other way to say it for numbers, NaN is missing too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from holdfast.core.signature import Column, Rows, Signature
from holdfast.errors import InvalidInput, did_you_mean

if TYPE_CHECKING:
    import polars as pl

FEW_ROWS = 12
"""Up to this many JSON rows are read value by value, which is then faster than column by column."""

_NUMBER_TYPES = {float, int, type(None)}
_TEXT_TYPES = {str, type(None)}


def read_json(signature: Signature, rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Rows of a request, one object per row. A nullable column that is absent is missing.

    Raises InvalidInput with row, column and what was expected: for an unknown column, a value of another type,
    NaN or an infinity, a missing value that may not be missing, or a value outside a column that refuses it.
    """
    reader = _reader(signature)
    reader.refuse_unknown(rows)
    if len(rows) > FEW_ROWS:
        return reader.columns({c.name: [row.get(c.name) for row in rows] for c in signature.columns}, len(rows))
    return reader.few(rows)


def read_columns(signature: Signature, columns: Mapping[str, Sequence[Any]]) -> Rows:
    """Rows given column by column: lists of JSON values, or numpy arrays in which NaN is missing.

    Raises InvalidInput as `read_json` does, and for columns of different lengths.
    """
    reader = _reader(signature)
    reader.refuse_unknown([columns])
    lengths = {name: len(values) for name, values in columns.items()}
    count = next(iter(lengths.values()), 0)
    for name, length in lengths.items():
        if length != count:
            raise InvalidInput(
                f"column '{name}' has {length} values, '{next(iter(lengths))}' has {count}; all must be equally long",
                row=min(length, count),
                column=name,
                expected=f"{count} values",
            )
    return reader.columns(columns, count)


def read_frame(signature: Signature, frame: "pl.DataFrame") -> Rows:
    """Rows of a frame. NaN is missing; columns that the signature does not name (keys, times) are left alone.

    Raises InvalidInput as `read_json` does.
    """
    present = set(frame.columns)
    columns = {c.name: frame.get_column(c.name) for c in signature.columns if c.name in present}
    return _reader(signature).columns({name: _from_series(series) for name, series in columns.items()}, frame.height)


def _from_series(series: "pl.Series") -> Any:
    """A numpy array for numbers and booleans (a list where a boolean is null), else a list."""
    if series.dtype.is_numeric():
        return series.cast(float).to_numpy()
    if str(series.dtype) == "Boolean" and not series.null_count():
        return series.to_numpy()
    return series.to_list()


class _Reader:
    """A signature, prepared for reading."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.names = frozenset(column.name for column in signature.columns)
        self.known = {c.name: frozenset(c.categories) for c in signature.columns}

    def refuse_unknown(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InvalidInput(
                    f"row {i} is {_show(row)}; expected an object of column: value", row=i, expected="an object"
                )
            if not self.names.issuperset(row):
                name = next(name for name in row if name not in self.names)
                near = did_you_mean(str(name), sorted(self.names))
                raise InvalidInput(
                    f"row {i}: unknown column '{name}'{near}",
                    row=i,
                    column=str(name),
                    expected="a column of the signature",
                )

    def few(self, rows: Sequence[Mapping[str, Any]]) -> Rows:
        outside = np.zeros(len(rows), dtype=np.int64)
        columns: dict[str, Any] = {}
        for column in self.signature.columns:
            name = column.name
            columns[name] = self.values(column, [row.get(name) for row in rows], outside)
        return Rows(columns=columns, count=len(rows), outside=outside)

    def columns(self, given: Mapping[str, Any], count: int) -> Rows:
        outside = np.zeros(count, dtype=np.int64)
        columns: dict[str, Any] = {}
        for column in self.signature.columns:
            values = given.get(column.name)
            if values is None:
                values = [None] * count
            fast = self.categories if column.type == "category" else self.numbers
            read = fast(column, values, outside)
            columns[column.name] = self.values(column, _as_json(column, values), outside) if read is None else read
        return Rows(columns=columns, count=count, outside=outside)

    def values(self, column: Column, values: Sequence[Any], outside: Any) -> Any:
        """Reads value by value: the definition of what is accepted, and of every message."""
        known = self.known[column.name]
        read: list[Any] = []
        for i, value in enumerate(values):
            if value is None:
                if not column.nullable:
                    _refuse(i, column, "is missing")
                read.append(None)
                continue
            clean = _typed(i, column, value)
            if _is_outside(column, known, clean):
                if column.outside == "refuse":
                    _refuse(i, column, f"{_show(value)} is outside what the model was trained on", value)
                outside[i] += 1
                clean = None if column.outside == "missing" else clean
            read.append(clean)
        return read if column.type == "category" else np.array(read, dtype=np.float64)

    def numbers(self, column: Column, values: Any, outside: Any) -> Any:
        """The column as float64 at once, or None when something in it needs a closer look."""
        array = _as_floats(column, values)
        if array is None:
            return None
        finite = np.isfinite(array)
        if not finite.all():
            missing = np.isnan(array)
            if not column.nullable or (missing | finite).sum() != len(array):
                return None
        if column.type != "number" and not _is_whole(column, array[finite]):
            return None
        if column.low is None and column.high is None:
            return array
        low = -np.inf if column.low is None else column.low
        high = np.inf if column.high is None else column.high
        beyond = (array < low) | (array > high)
        if beyond.any():
            if column.outside == "refuse":
                return None
            outside += beyond
            if column.outside == "missing":
                return np.where(beyond, np.nan, array)
        return array

    def categories(self, column: Column, values: Any, outside: Any) -> list[str | None] | None:
        """The column as a list at once, or None when something in it needs a closer look."""
        if isinstance(values, np.ndarray):
            values = values.tolist()
        distinct = set(values) if set(map(type, values)) <= _TEXT_TYPES else {0}
        known = self.known[column.name]
        if 0 in distinct or (not column.nullable and None in distinct):
            return None
        unseen = distinct - known - {None} if known else ()
        if not unseen:
            return list(values)
        if column.outside == "refuse":
            return None
        outside += np.fromiter((value in unseen for value in values), dtype=np.int64, count=len(values))
        return [None if value in unseen else value for value in values] if column.outside == "missing" else list(values)


_READERS: dict[int, _Reader] = {}


def _reader(signature: Signature) -> _Reader:
    """The reader of a signature, made once. Keyed by identity: hashing a signature costs more than reading a row.

    Each reader holds its signature, so an identity in here cannot be taken by another one.
    """
    reader = _READERS.get(id(signature))
    if reader is None:
        if len(_READERS) >= 256:
            _READERS.clear()
        reader = _READERS[id(signature)] = _Reader(signature)
    return reader


def _as_floats(column: Column, values: Any) -> Any:
    """Values as a float64 array, or None when a type in them is not the column's."""
    if isinstance(values, np.ndarray):
        wanted = "fiub" if column.type == "boolean" else "fiu"
        return values.astype(np.float64, copy=False) if values.dtype.kind in wanted else None
    types = set(map(type, values))
    if not types <= ({type(None)} if column.type == "boolean" else _NUMBER_TYPES):
        return None
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    # A list holds JSON values, where missing is null: NaN in it is refused.
    return None if np.isnan(array).sum() != values.count(None) else array


def _is_whole(column: Column, finite: Any) -> bool:
    """True when every value is an integer, and 0 or 1 where the column is boolean."""
    if column.type == "boolean":
        return bool(((finite == 0) | (finite == 1)).all())
    return bool((np.trunc(finite) == finite).all())


def _as_json(column: Column, values: Any) -> Sequence[Any]:
    """An array as the JSON values it stands for."""
    if not isinstance(values, np.ndarray):
        return list(values)
    listed = [None if isinstance(value, float) and math.isnan(value) else value for value in values.tolist()]
    if column.type == "boolean":
        return [bool(value) if value in (0, 1) else value for value in listed]
    return listed


def _typed(row: int, column: Column, value: Any) -> Any:
    """A value as the column's type: str, or a finite float. Raises InvalidInput."""
    if column.type == "category":
        if not isinstance(value, str):
            _refuse(row, column, f"{_show(value)} is not text", value)
        return value
    if column.type == "boolean":
        if not isinstance(value, bool | np.bool_):
            _refuse(row, column, f"{_show(value)} is not true or false", value)
        return float(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        _refuse(row, column, f"{_show(value)} is not a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _refuse(row, column, f"{_show(value)} is not a finite number; send null for a missing value", value)
    if column.type == "integer" and not number.is_integer():
        _refuse(row, column, f"{_show(value)} is not a whole number", value)
    return number


def _is_outside(column: Column, known: frozenset[str], value: Any) -> bool:
    if column.type == "category":
        return bool(known) and value not in known
    return (column.low is not None and value < column.low) or (column.high is not None and value > column.high)


def _refuse(row: int, column: Column, what: str, value: Any = None) -> NoReturn:
    near = ""
    if isinstance(value, str) and column.type == "category" and column.categories:
        near = did_you_mean(value, column.categories)
    expected = describe(column)
    raise InvalidInput(
        f"row {row}, column '{column.name}': {what}{near or f'; expected {expected}'}",
        row=row,
        column=column.name,
        expected=expected,
    )


def describe(column: Column) -> str:
    """What a column accepts, in words.

    >>> describe(Column(name="hour", type="integer", low=0, high=23, outside="refuse", nullable=False))
    'a whole number from 0 to 23'
    """
    noun = {"number": "a number", "integer": "a whole number", "category": "text", "boolean": "true or false"}
    text = noun[column.type]
    if column.outside == "refuse":
        if column.categories:
            more = ", ..." if len(column.categories) > 8 else ""
            text = f"one of {', '.join(column.categories[:8])}{more}"
        if column.low is not None and column.high is not None:
            text += f" from {column.low:g} to {column.high:g}"
        elif column.low is not None:
            text += f" of at least {column.low:g}"
        elif column.high is not None:
            text += f" of at most {column.high:g}"
    return f"{text} or null" if column.nullable else text


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
