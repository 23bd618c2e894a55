"""Tables of any kind as polars frames, their columns by name, and the days of their rows.

Taken are polars frames and lazy frames, pandas frames (with or without pyarrow), whatever has the Arrow stream
interface `__arrow_c_stream__` (pyarrow, DuckDB, cuDF, another dataframe library), and mappings of columns.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.errors import DataError, did_you_mean

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Frame = pl.DataFrame | pl.LazyFrame


def frame_of(table: Any, side: str = "the table") -> pl.DataFrame:
    """A table as a frame in memory. `side` names it in errors. Raises DataError for what is no table.

    >>> frame_of({"x": [1, 2]}).shape
    (2, 1)
    """
    rows = rows_of(table, side)
    return rows.collect() if isinstance(rows, pl.LazyFrame) else rows


def rows_of(table: Any, side: str = "the table") -> Frame:
    """A table as a frame; a lazy one stays lazy, so that it may be larger than memory. Raises DataError.

    Arrow data is not copied. A pandas frame is read column by column, its index left out.
    """
    if isinstance(table, pl.DataFrame | pl.LazyFrame):
        return table
    if isinstance(table, pl.Series) or _is_pandas(table, "Series"):
        raise DataError(f"{side} is a Series, which is one column: give a table, for example .to_frame()")
    if _is_pandas(table):
        return _from_pandas(table, side)
    if hasattr(table, "__arrow_c_stream__"):
        return pl.DataFrame(table)
    if isinstance(table, Mapping):
        single = [name for name, values in table.items() if _is_single(values)]
        if table and len(single) == len(table):
            raise DataError(
                f"{side} has single values, '{single[0]}' for one: give each column a list, {{'{single[0]}': [...]}}"
            )
        try:
            return pl.DataFrame({str(name): values for name, values in table.items()}, strict=False)
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{side} cannot be made a table: {_first(error)}") from error
    raise DataError(
        f"{side} is a {type(table).__name__}, which is no table: give a polars or pandas frame, an Arrow table, "
        "anything with __arrow_c_stream__, or a mapping of column names to values"
    )


def has_columns(rows: Frame, names: Iterable[str], side: str) -> None:
    """Raise DataError with the near miss for a name that the table does not have."""
    known = rows.collect_schema().names()
    for name in names:
        if name not in known:
            raise DataError(f"{side} has no column '{name}'{did_you_mean(name, known)}")


def names_of(given: str | Sequence[str] | None) -> list[str]:
    """One name, several, or none as a list."""
    if given is None:
        return []
    return [given] if isinstance(given, str) else list(given)


def numbers_of(rows: pl.DataFrame, name: str, side: str) -> FloatArray:
    """A column of numbers or booleans (n,), NaN for missing. Raises DataError for any other type."""
    values = rows[name]
    if not (values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"column '{name}' of {side} holds {values.dtype}; numbers or booleans are needed")
    return values.cast(pl.Float64).to_numpy()


def days_of(rows: pl.DataFrame, name: str, timezone: str, side: str) -> pl.Series:
    """The day of each row in a time zone, (n,), null where the time is missing.

    Times with an offset are moved to the zone; times without one are taken as its wall clock; dates stay. Text is read
    as ISO 8601. Raises DataError for any other type, text that is no time, and an unknown zone.

    >>> night = pl.DataFrame({"at": ["2013-01-01T02:00:00Z", None]})
    >>> days_of(night, "at", "America/New_York", "the table").to_list()
    [datetime.date(2012, 12, 31), None]
    """
    times = rows[name]
    if times.dtype == pl.String:
        times = _read(times, side)
    if times.dtype == pl.Date or times.null_count() == len(times):
        return times.cast(pl.Date)
    if not isinstance(times.dtype, pl.Datetime):
        raise DataError(
            f"column '{name}' of {side} holds {times.dtype}, which is no time: give datetimes, dates or ISO 8601 text"
        )
    if times.dtype.time_zone is None:
        return times.dt.date()
    try:
        return times.dt.convert_time_zone(timezone).dt.date()
    except pl.exceptions.PolarsError as error:
        raise DataError(f"no time zone is called '{timezone}'; one is, for example, Europe/Berlin") from error


def _is_single(values: Any) -> bool:
    """It is no column: a number, a text, a time, None."""
    return isinstance(values, str | bytes) or (not hasattr(values, "__len__") and not isinstance(values, Iterable))


def _read(times: pl.Series, side: str) -> pl.Series:
    known = times.drop_nulls()
    has_offset = known.str.contains(r"(?:Z|[+-]\d\d:?\d\d)$").any()
    try:
        return times.str.to_datetime(time_zone="UTC") if has_offset else times.str.to_datetime()
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"column '{times.name}' of {side} holds text that is no ISO 8601 time: {_first(error)}"
        ) from error


def _first(error: Exception) -> str:
    """The first line of an error, without the context and hints that follow."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _is_pandas(table: Any, name: str = "DataFrame") -> bool:
    kind = type(table)
    return any(base.__module__.partition(".")[0] == "pandas" and base.__name__ == name for base in kind.__mro__)


def _from_pandas(table: Any, side: str) -> pl.DataFrame:
    names = [str(name) for name in table.columns]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"{side} has the column '{min(twice)}' twice: rename one of them")
    return pl.DataFrame([_pandas_column(name, table.iloc[:, i], side) for i, name in enumerate(names)])


def _pandas_column(name: str, values: Any, side: str) -> pl.Series:
    """A pandas column without the help of pyarrow, which polars would need."""
    kind = values.dtype
    if type(kind).__name__ == "ArrowDtype":
        return pl.Series(name, values.array.__arrow_array__())
    if kind.kind in "fiub" and isinstance(kind, np.dtype):
        return pl.Series(name, values.to_numpy())
    if kind.kind in "fiu":
        return pl.Series(name, values.to_numpy(dtype=np.float64, na_value=np.nan), nan_to_null=True)
    if kind.kind == "M":
        zone = getattr(kind, "tz", None)
        naive = values.dt.tz_convert("UTC").dt.tz_localize(None) if zone is not None else values
        times = pl.Series(name, naive.to_numpy())
        return times.dt.replace_time_zone("UTC") if zone is not None else times
    missing = values.isna().to_numpy()
    listed = [None if gone else value for gone, value in zip(missing, values.tolist(), strict=True)]
    try:
        return pl.Series(name, listed)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"column '{name}' of {side} mixes types ({_first(error)}): make it one, for example .astype(str)"
        ) from error
