"""What every lake agrees on: its tables, what a schema and columns must be, and how rows become one frame.

Rows that share an identity are one row: the first or the last written, as the table says, among the rows of the range
that is read.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from holdfast.core.protocols import TABLES, Columns, Field, LakeTable, Same
from holdfast.core.times import MISSING_TIME
from holdfast.errors import NotFound, StateError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

WRITTEN = ("_written_at", "_row")
"""Columns that rows on disk carry beside their own, so that what was written first or last is known wherever they are
moved: when their frame was written, in microseconds since 1970 UTC, and where they stand in it."""

DTYPES: dict[str, np.dtype[Any]] = {"float": np.dtype("<f8"), "int": np.dtype("<i8"), "time": np.dtype("<i8")}


class LakeStats(msgspec.Struct, frozen=True, kw_only=True):
    """How a lake stands. Rows are counted by this process; segments and files by what is there now."""

    rows_written: int
    segments_open: int
    segments_sealed: int
    segments_rolled: int
    """By this process."""
    files: int
    """Parquet files in the manifest."""


def rules_of(table: str) -> LakeTable:
    """Time and identity column of a table; ``feeds/weather`` follows ``feeds``. Raises NotFound with the near miss."""
    name = table.partition("/")[0]
    if name not in TABLES:
        raise NotFound("lake table", table, TABLES)
    return TABLES[name]


def checked_schema(table: str, schema: Sequence[Field]) -> tuple[Field, ...]:
    """The schema as a tuple. Raises StateError where a name stands twice or the table's own columns are missing."""
    rules = rules_of(table)
    types = {field.name: field.type for field in schema}
    if len(types) != len(schema):
        names = [field.name for field in schema]
        twice = next(name for name in names if names.count(name) > 1)
        raise StateError(f"the schema for lake table '{table}' names column '{twice}' twice; rename one of them")
    if taken := types.keys() & set(WRITTEN):
        raise StateError(f"column '{min(taken)}' of lake table '{table}' is the lake's own; rename it")
    if types.get(rules.time) != "time":
        raise StateError(f"lake table '{table}' is ordered by '{rules.time}': its schema needs it, of type time")
    if types.get(rules.identity) not in ("text", "int"):
        raise StateError(f"lake table '{table}' is identified by '{rules.identity}': its schema needs it, text or int")
    return tuple(schema)


def wrong_names(table: str, schema: Sequence[Field], columns: Columns) -> StateError:
    """The error for columns that are not those of the schema."""
    names = [field.name for field in schema]
    missing = [name for name in names if name not in columns]
    extra = [name for name in columns if name not in names]
    if missing:
        return StateError(
            f"rows for lake table '{table}' lack column '{missing[0]}'{did_you_mean(missing[0], extra)}; "
            "give every column of the schema that the writer was opened with"
        )
    return StateError(
        f"rows for lake table '{table}' have column '{extra[0]}' that is not in the schema"
        f"{did_you_mean(extra[0], names)}"
    )


def numbers(table: str, field: Field, values: Any, rows: int) -> "np.ndarray[Any, np.dtype[Any]]":
    """Values of a float, int or time column as a little-endian array (rows,). Raises StateError when they do not fit.

    What converts without loss is converted (float32, int32, booleans); nothing else is.
    """
    want = DTYPES[field.type]
    array = np.asarray(values)
    if array.dtype is not want and array.dtype != want:
        if not np.can_cast(array.dtype, want, "safe"):
            raise StateError(
                f"column '{field.name}' of lake table '{table}' is of type {field.type}: "
                f"an array of {array.dtype} does not fit without loss; convert it to {want.name} first"
            )
        array = array.astype(want)
    if array.shape != (rows,):
        raise wrong_length(table, field, array.shape, rows)
    return array


def text(table: str, field: Field, values: Any, rows: int) -> tuple[list[str | None], bytes]:
    """Values of a text column as a list of its own, and all of them joined as UTF-8. Raises StateError otherwise."""
    column = list(values)
    if len(column) != rows:
        raise wrong_length(table, field, (len(column),), rows)
    try:
        # One join checks all types at a fraction of what a look at each value costs.
        return column, "".join(column).encode()
    except (TypeError, UnicodeEncodeError):
        pass
    if set(map(type, column)) <= {str, type(None)}:
        try:
            return column, "".join([value for value in column if value is not None]).encode()
        except UnicodeEncodeError:
            pass
    raise wrong_text(table, field, column)


class Division(msgspec.Struct, frozen=True, kw_only=True):
    """In which of the three ways each column of a schema is given to an append, in the order of the schema."""

    constants: tuple[tuple[Field, str | int | float | None], ...]
    same: tuple[tuple[Field, Field, str], ...]
    """Which column holds what another one of those that vary does, and with which suffix."""
    varying: tuple[Field, ...]
    matrix: tuple[Field, ...]


def divided(table: str, schema: tuple[Field, ...], constants: Mapping[str, Any], width: int) -> Division:
    """The columns of a schema by how they are given. Raises StateError where a name or a value does not fit."""
    matrix = schema[len(schema) - width :] if width else ()
    if width > len(schema) or any(field.type != "float" for field in matrix):
        raise StateError(
            f"a matrix of {width} columns for lake table '{table}' stands for the last {width} columns of the schema, "
            f"which must all be of type float; the schema has {len(schema)} columns"
        )
    names = {field.name for field in schema}
    in_matrix = {field.name for field in matrix}
    for name in constants:
        if name not in names:
            raise wrong_names(table, schema, {**dict.fromkeys(names), name: None})
        if name in in_matrix:
            raise StateError(f"column '{name}' of lake table '{table}' is given as a constant and in the matrix")
    varying = {f.name: f for f in schema if f.name not in constants and f.name not in in_matrix}
    given = [(f, constants[f.name]) for f in schema if f.name in constants]
    return Division(
        constants=tuple((f, constant(table, f, value)) for f, value in given if type(value) is not Same),
        same=tuple((f, *_original(table, f, value, varying)) for f, value in given if type(value) is Same),
        varying=tuple(varying.values()),
        matrix=matrix,
    )


def _original(table: str, field: Field, same: Same, varying: Mapping[str, Field]) -> tuple[Field, str]:
    """The column that another one repeats, and with which suffix. Raises StateError where that cannot be."""
    found = varying.get(same.column)
    if found is None:
        raise StateError(
            f"column '{field.name}' of lake table '{table}' is to be the same as '{same.column}', which is not among "
            f"the columns that are given row by row{did_you_mean(same.column, list(varying))}"
        )
    if found.type != field.type or (same.suffix and field.type != "text"):
        suffix = f" and a suffix of {same.suffix!r}" if same.suffix else ""
        raise StateError(
            f"column '{field.name}' of lake table '{table}' is of type {field.type}: it cannot be the same as "
            f"'{found.name}', of type {found.type}{suffix}"
        )
    text(table, field, [same.suffix], 1)
    return found, same.suffix


def repeated(values: Any, suffix: str) -> Any:
    """The values of a column that is the same as another one, from those of that one."""
    if not suffix:
        return values
    return [None if value is None else value + suffix for value in values]


def misgiven(table: str, schema: Sequence[Field], division: Division, columns: Columns) -> StateError:
    """The error for columns that are not exactly those that are neither constants nor in the matrix."""
    varying = {field.name for field in division.varying}
    twice = [field.name for field in schema if field.name in columns and field.name not in varying]
    if twice:
        return StateError(
            f"column '{twice[0]}' of lake table '{table}' is given twice: among the columns, and as a constant or in "
            "the matrix; give it once"
        )
    return wrong_names(table, division.varying, columns)


def constant(table: str, field: Field, value: Any) -> str | int | float | None:
    """A value that stands in every row, as its column stores it. Raises StateError when it does not fit."""
    if field.type == "text":
        text(table, field, [value], 1)
        return None if value is None else str(value)
    if value is None and field.type != "int":
        value = float("nan") if field.type == "float" else MISSING_TIME
    stored: int | float = numbers(table, field, [value], 1)[0].item()
    if field.name == rules_of(table).time and stored == MISSING_TIME:
        raise missing_time(table)
    return stored


def as_matrix(table: str, matrix: Any, rows: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """A matrix (rows, k) of float64, row after row in memory. Raises StateError for another shape or type."""
    found = np.asarray(matrix)
    if found.ndim != 2 or len(found) != rows or not np.can_cast(found.dtype, np.float64, "safe"):
        raise StateError(
            f"the matrix for lake table '{table}' has shape {found.shape} and type {found.dtype}: "
            f"expected ({rows}, columns) of float64"
        )
    return np.ascontiguousarray(found, dtype="<f8")


def spread(
    table: str, schema: tuple[Field, ...], columns: Columns, rows: int, constants: Mapping[str, Any], matrix: Any
) -> Columns:
    """Every column as if it had been given in `columns`."""
    if not constants and matrix is None:
        return columns
    block = None if matrix is None else as_matrix(table, matrix, rows)
    division = divided(table, schema, constants, 0 if block is None else block.shape[1])
    if columns.keys() != {field.name for field in division.varying}:
        raise misgiven(table, schema, division, columns)
    whole = dict(columns)
    for field, value in division.constants:
        whole[field.name] = [value] * rows if field.type == "text" else np.full(rows, value, DTYPES[field.type])
    for field, original, suffix in division.same:
        whole[field.name] = repeated(whole[original.name], suffix)
    if block is not None:
        whole |= {field.name: block[:, at] for at, field in enumerate(division.matrix)}
    return whole


def wrong_length(table: str, field: Field, shape: tuple[int, ...], rows: int) -> StateError:
    """The error for a column that is not as long as was said."""
    return StateError(f"column '{field.name}' of lake table '{table}' has shape {shape}: expected ({rows},)")


def wrong_text(table: str, field: Field, values: Sequence[Any]) -> StateError:
    """The error for a text column that holds something else."""
    bad = next((value for value in values if value is not None and not _is_text(value)), None)
    return StateError(
        f"column '{field.name}' of lake table '{table}' is text: {bad!r} is neither valid text nor None; "
        "convert it with str() first"
    )


def missing_time(table: str) -> StateError:
    """The error for a row without the time that it would be found by."""
    return StateError(f"a row for lake table '{table}' has no '{rules_of(table).time}', so no scan would find it")


def series(field: Field, values: Any) -> "pl.Series":
    """A column as scans give it: NaN and missing times as null, times as Datetime[us, UTC]."""
    import polars as pl  # heavy; writers never need it

    if field.type == "text":
        return pl.Series(field.name, values, dtype=pl.String)
    if field.type == "float":
        return pl.Series(field.name, values, dtype=pl.Float64, nan_to_null=True)
    column = pl.Series(field.name, values, dtype=pl.Int64)
    if field.type == "int":
        return column
    if len(column) and column.min() == MISSING_TIME:
        column = column.set(column == MISSING_TIME, None)
    return column.cast(pl.Datetime("us", "UTC"))


def cut(
    frame: "pl.DataFrame", times: "np.ndarray[Any, np.dtype[np.int64]]", since: int | None, until: int | None
) -> "pl.DataFrame":
    """The rows with since <= time < until; `times` are the frame's, all in microseconds, and None is no bound."""
    import polars as pl

    if since is None and until is None:
        return frame
    if np.all(times[1:] >= times[:-1]):
        first = 0 if since is None else int(np.searchsorted(times, since))
        end = len(times) if until is None else int(np.searchsorted(times, until))
        return frame.slice(first, max(end - first, 0))
    keep = np.ones(len(times), dtype=bool)
    if since is not None:
        keep &= times >= since
    if until is not None:
        keep &= times < until
    return frame.filter(pl.Series(keep))


def merged(rules: LakeTable, frames: "Sequence[pl.DataFrame]", *, by_time: bool = False) -> "pl.DataFrame":
    """Frames as one: of rows with the same identity the one that the table keeps, by time and then by writing.

    With `by_time`, rows are the same only if their time is the same too, so that what is left reads alike in every
    range. Frames that carry `WRITTEN` may come in any order, others come in the order they were written. Raises
    StateError where a column is of types that do not mix.
    """
    import polars as pl

    frames = [frame for frame in frames if frame.height]
    if not frames:
        return pl.DataFrame()
    frame = frames[0] if len(frames) == 1 else _stacked(frames)
    written = [name for name in WRITTEN if name in frame.columns]
    if frame[rules.identity].n_unique() < frame.height:
        if written:
            frame = frame.sort(written, maintain_order=True)
        same = [rules.identity, rules.time] if by_time else [rules.identity]
        frame = frame.unique(subset=same, keep=rules.keep, maintain_order=True)
    order = [rules.time, *written]
    return frame if _is_ordered(frame, order) else frame.sort(order, maintain_order=True)


def _stacked(frames: "Sequence[pl.DataFrame]") -> "pl.DataFrame":
    import polars as pl

    kinds: dict[str, set[str]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            kind = "number" if dtype.is_numeric() else "text" if dtype == pl.String else "time"
            kinds.setdefault(name, set()).add(kind)
    for name, found in kinds.items():
        if len(found) > 1:
            raise StateError(
                f"column '{name}' was recorded as {' and as '.join(sorted(found))}, which do not mix; "
                "read a range of time that holds one of them, and give the column another name from now on"
            )
    return pl.concat(frames, how="diagonal_relaxed", rechunk=True)


def _is_ordered(frame: "pl.DataFrame", order: list[str]) -> bool:
    undecided: Any = np.ones(frame.height - 1, dtype=bool)
    for name in order:
        values = frame[name].to_physical().to_numpy()
        if np.any(undecided & (values[1:] < values[:-1])):
            return False
        undecided &= values[1:] == values[:-1]
    return True


def _is_text(value: object) -> bool:
    if type(value) is not str:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
