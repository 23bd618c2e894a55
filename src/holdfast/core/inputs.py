"""From what a caller sends to typed rows: one reading of a signature for JSON, columns and frames.

The same values give the same `Rows`, whichever way they came. A missing value is null or absent; in arrays and
frames, which have no other way to say it for numbers, NaN is missing too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from holdfast.core import times
from holdfast.core.signature import Column, Rows, Signature
from holdfast.errors import InvalidInput, did_you_mean

if TYPE_CHECKING:
    import polars as pl

FEW_ROWS = 12
"""Up to this many JSON rows are read value by value, which is then faster than column by column."""

_EXACT = 2**53
"""Below it a float64 holds every whole number."""
_NUMBER_TYPES = {float, int, type(None)}
_FLAG_TYPES = {bool, type(None)}
_TEXT_TYPES = {str, type(None)}

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class Ranges(Protocol):
    """Ranges that differ from row to row."""

    @property
    def within(self) -> tuple[FloatArray, FloatArray]:
        """The range that lies within those of all rows (columns,): its low and high ends."""

    def beyond(self, numbers: FloatArray, index: "np.ndarray[Any, np.dtype[np.int64]]") -> Bools:
        """Which numbers of some rows lie outside the range of their row; `index` says which rows they are."""


def read_json(signature: Signature, rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Rows of a request, one object per row. A nullable column that is absent is missing.

    Raises InvalidInput with row, column and what was expected: for an unknown column, a value of another type,
    NaN or an infinity, a missing value that may not be missing, or a value outside a column that refuses it.
    """
    reader = reader_of(signature)
    reader.refuse_unknown(rows)
    if len(rows) > FEW_ROWS:
        return reader.columns({c.name: [row.get(c.name) for row in rows] for c in signature.columns}, len(rows))
    return reader.by_value({c.name: [row.get(c.name) for row in rows] for c in signature.columns}, len(rows))


def read_columns(signature: Signature, columns: Mapping[str, Sequence[Any]]) -> Rows:
    """Rows given column by column: lists of JSON values, or numpy arrays in which NaN is missing.

    Raises InvalidInput as `read_json` does, and for columns of different lengths.
    """
    reader = reader_of(signature)
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


def read_matrix(signature: Signature, matrix: FloatArray) -> Rows:
    """Rows of a matrix (n, columns) that holds every column in the order of the signature; NaN is missing.

    Raises InvalidInput as `read_json` does, for a matrix of another width, and where a column is no number.
    """
    names = [column.name for column in signature.columns]
    for column in signature.columns:
        if column.type in ("category", "time"):
            what = "text" if column.type == "category" else "a time"
            raise InvalidInput(
                f"column '{column.name}' is {what}, so the columns do not fit into one tensor; give one tensor per "
                "column",
                column=column.name,
                expected=f"{len(names)} tensors, one per column",
            )
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise InvalidInput(
            f"the tensor has shape {list(matrix.shape)}; the model takes {len(names)} columns: {', '.join(names)}",
            expected=f"shape [n, {len(names)}]",
        )
    reader = reader_of(signature)
    read = reader.checked(np.array(matrix, dtype=np.float64, order="C"), {})
    return reader.columns({name: matrix[:, j] for j, name in enumerate(names)}, len(matrix)) if read is None else read


def read_frame(signature: Signature, frame: "pl.DataFrame") -> Rows:
    """Rows of a frame. NaN is missing; columns that the signature does not name (keys, times) are left alone.

    A time may be a date or time of any unit and zone (without one it is taken as UTC), text with an offset, or a
    number of microseconds since 1970 UTC, as the lake keeps it. Raises InvalidInput as `read_json` does.
    """
    present = set(frame.columns)
    columns = {c.name: _from_series(c, frame.get_column(c.name)) for c in signature.columns if c.name in present}
    return reader_of(signature).columns(columns, frame.height)


def _from_series(column: Column, series: "pl.Series") -> Any:
    """A numpy array for times, numbers and booleans (a list where a boolean is null), else a list."""
    if column.type == "time":
        return times.from_series(series)
    if series.dtype.is_numeric():
        return series.cast(float).to_numpy()
    if str(series.dtype) == "Boolean" and not series.null_count():
        return series.to_numpy()
    return series.to_list()


class Reader:
    """A signature, prepared for reading. `names` are the columns of the matrix, `texts` the categories, `times` the
    names of the times among the matrix."""

    times: frozenset[str] = frozenset()

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.known = {c.name: frozenset(c.categories) for c in signature.columns}
        self.texts = tuple(column for column in signature.columns if column.type == "category")
        numbers = [column for column in signature.columns if column.type != "category"]
        self.names = tuple(column.name for column in numbers)
        self._all_names = frozenset(self.known)
        self.low = np.array([-np.inf if c.low is None else c.low for c in numbers])
        self.high = np.array([np.inf if c.high is None else c.high for c in numbers])
        self._required = np.array([not c.nullable for c in numbers], dtype=bool)
        self._whole = np.flatnonzero([c.type in ("integer", "boolean") for c in numbers])
        self._boolean = np.flatnonzero([c.type == "boolean" for c in numbers])
        self._refusing = np.array([c.outside == "refuse" for c in numbers], dtype=bool)
        self._blanking = np.array([c.outside == "missing" for c in numbers], dtype=bool)

    def refuse_unknown(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise InvalidInput for what is no object, and for a column that the signature does not name."""
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InvalidInput(
                    f"row {i} is {_show(row)}; expected an object of column: value", row=i, expected="an object"
                )
            if not self._all_names.issuperset(row):
                name = next(name for name in row if name not in self._all_names)
                near = did_you_mean(str(name), sorted(self._all_names))
                raise InvalidInput(
                    f"row {i}: unknown column '{name}'{near}",
                    row=i,
                    column=str(name),
                    expected="a column of the signature",
                )

    def checked(
        self,
        numbers: FloatArray,
        texts: dict[str, list[str | None]],
        ranges: Ranges | None = None,
    ) -> Rows | None:
        """Rows of values that have the right types already, or None when something in them needs a closer look.

        `numbers` (n, k) belongs to the rows from then on: values that count as missing outside their range become NaN.
        `ranges` are those of the rows, where they are not the ones of the signature.
        """
        outside = np.zeros(len(numbers), dtype=np.int64)
        finite = np.isfinite(numbers)
        has_gaps = not finite.all()
        if has_gaps:
            missing = np.isnan(numbers)
            if not (missing | finite).all() or missing[:, self._required].any():
                return None
        if len(self._whole):
            whole = numbers[:, self._whole]
            is_whole = np.trunc(whole) == whole
            if not (is_whole | np.isnan(whole) if has_gaps else is_whole).all() or (np.abs(whole) >= _EXACT).any():
                return None
            if len(self._boolean):
                flags = numbers[:, self._boolean]
                if not ((flags == 0) | (flags == 1) | np.isnan(flags)).all():
                    return None
        low, high = (self.low, self.high) if ranges is None else ranges.within
        beyond = (numbers < low) | (numbers > high)
        if beyond.any():
            if ranges is not None:
                some = np.flatnonzero(beyond.any(axis=1))
                beyond[some] = ranges.beyond(numbers[some], some)
            if beyond[:, self._refusing].any():
                return None
            outside += beyond.sum(axis=1)
            numbers[beyond & self._blanking] = np.nan
        for column in self.texts:
            if not self._is_checked(column, texts, outside):
                return None
        return Rows(names=self.names, numbers=numbers, texts=texts, outside=outside)

    def _is_checked(self, column: Column, texts: dict[str, list[str | None]], outside: Any) -> bool:
        values = texts[column.name]
        distinct, known = set(values), self.known[column.name]
        if not column.nullable and None in distinct:
            return False
        unseen = distinct - known - {None} if known else ()
        if not unseen:
            return True
        if column.outside == "refuse":
            return False
        outside += np.fromiter((value in unseen for value in values), dtype=np.int64, count=len(values))
        if column.outside == "missing":
            texts[column.name] = [None if value in unseen else value for value in values]
        return True

    def columns(self, given: Mapping[str, Any], count: int) -> Rows:
        """Rows of lists and arrays, all at once where their types allow it, else value by value."""
        numbers = np.empty((count, len(self.names)))
        texts: dict[str, list[str | None]] = {}
        place = 0
        for column in self.signature.columns:
            values = given.get(column.name)
            if column.type == "category":
                listed = _as_texts([None] * count if values is None else values)
                if listed is None:
                    return self.by_value(given, count)
                texts[column.name] = listed
                continue
            array = np.nan if values is None else _as_floats(column, values)
            if array is None:
                return self.by_value(given, count)
            numbers[:, place] = array
            place += 1
        rows = self.checked(numbers, texts)
        return self.by_value(given, count) if rows is None else rows

    def by_value(self, given: Mapping[str, Any], count: int) -> Rows:
        """Rows of columns read value by value: the definition of what is accepted, and of every message."""
        outside = np.zeros(count, dtype=np.int64)
        numbers = np.empty((count, len(self.names)))
        texts: dict[str, list[str | None]] = {}
        place = 0
        for column in self.signature.columns:
            values = given.get(column.name)
            read = self._values(column, [None] * count if values is None else _as_json(column, values), outside)
            if column.type == "category":
                texts[column.name] = read
                continue
            numbers[:, place] = read  # None becomes NaN
            place += 1
        return Rows(names=self.names, numbers=numbers, texts=texts, outside=outside)

    def _values(self, column: Column, values: Sequence[Any], outside: Any) -> list[Any]:
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
        return read


class ReaderOfTimes(Reader):
    """The reader of a signature with times: it makes numbers of them, which is what the rest of it reads."""

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self._of_times = tuple(column for column in signature.columns if column.type == "time")
        self.times = frozenset(column.name for column in self._of_times)

    def columns(self, given: Mapping[str, Any], count: int) -> Rows:
        """As `Reader.columns`."""
        return super().columns(self._with_numbers(given), count)

    def by_value(self, given: Mapping[str, Any], count: int) -> Rows:
        """As `Reader.by_value`."""
        return super().by_value(self._with_numbers(given), count)

    def _with_numbers(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        read = dict(given)
        for column in self._of_times:
            values = given.get(column.name)
            if values is not None:
                instants = times.read_times(values)
                read[column.name] = _instants(column, values) if instants is None else instants
        return read


def _instants(column: Column, values: Any) -> FloatArray:
    """Times that are not all of the usual form, one by one. Raises InvalidInput for the first that is none."""
    read = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        try:
            read[i] = np.nan if value is None else times.read_time(value)
        except ValueError as error:
            _refuse(i, column, f"{_show(value)} {error}")
    return read


_READERS: dict[int, Reader] = {}


def reader_of(signature: Signature) -> Reader:
    """The reader of a signature, made once. Keyed by identity: hashing a signature costs more than reading a row.

    Each reader holds its signature, so an identity in here cannot be taken by another one.
    """
    reader = _READERS.get(id(signature))
    if reader is None:
        if len(_READERS) >= 256:
            _READERS.clear()
        has_times = any(column.type == "time" for column in signature.columns)
        reader = _READERS[id(signature)] = ReaderOfTimes(signature) if has_times else Reader(signature)
    return reader


def _as_texts(values: Any) -> list[str | None] | None:
    """Values as a list of its own, or None when something in them is no text."""
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return listed if set(map(type, listed)) <= _TEXT_TYPES else None


def _as_floats(column: Column, values: Any) -> Any:
    """Values as a float64 array, or None when a type in them is not the column's."""
    if isinstance(values, np.ndarray):
        wanted = "fiub" if column.type == "boolean" else "fiu"
        return values.astype(np.float64, copy=False) if values.dtype.kind in wanted else None
    if not set(map(type, values)) <= (_FLAG_TYPES if column.type == "boolean" else _NUMBER_TYPES):
        return None
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    # A list holds JSON values, where missing is null: NaN in it is refused.
    return None if np.isnan(array).sum() != values.count(None) else array


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
    if column.type == "integer" and (not number.is_integer() or number != value):
        what = "is more than a float64 holds exactly" if number.is_integer() else "is not a whole number"
        _refuse(row, column, f"{_show(value)} {what}", value)
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
    text = _NOUNS[column.type]
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
    comma = "," if column.type == "time" else ""
    return f"{text}{comma} or null" if column.nullable else text


_NOUNS = {
    "number": "a number",
    "integer": "a whole number",
    "category": "text",
    "boolean": "true or false",
    "time": times.EXPECTED,
}


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
