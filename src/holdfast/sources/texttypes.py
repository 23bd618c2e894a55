"""What text means: columns of text in; numbers, booleans and UTC times out, where every value is one."""

from collections.abc import Collection

import polars as pl

MISSING = ("NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None")
"""Words for a missing value, in a column whose other values are numbers, booleans or times."""

INTEGER = r"^[+-]?(?:0|[1-9]\d{0,17})$"
NUMBER = r"^[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$|^[+-]?(?:inf|Infinity)$"
BOOLEAN = r"^(?:true|false|True|False|TRUE|FALSE)$"
TIME = (
    r"^\s*(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2}(?:[.,]\d+)?))?)?"  # date, hour, minute, second
    r"\s*(?:([Zz])|([+-])(\d{2}):?(\d{2})?)?\s*$"  # Z, or how far ahead of UTC
)

UTC_TIME = pl.Datetime("us", "UTC")


def typed(text: pl.Series) -> pl.Series:
    """A column of text as what all of its values are: integers, numbers, booleans or ISO 8601 times, else as it is.

    A number with a leading zero (``00501``) is text: it is a code, and would lose its zeros.
    """
    given = text.to_frame().select(pl.when(~pl.col(text.name).is_in(MISSING)).then(pl.col(text.name))).to_series()
    if given.null_count() == len(given):
        return text
    if _all(given, INTEGER):
        return given.cast(pl.Int64)
    if _all(given, NUMBER):
        return given.cast(pl.Float64)
    if _all(given, BOOLEAN):
        return given.str.to_lowercase() == "true"
    if _all(given, TIME):
        times = parse_times(given)
        return times if times.null_count() == given.null_count() else text
    return text


def as_times(frame: pl.DataFrame, declared: Collection[str] = ()) -> pl.DataFrame:
    """`frame` with all times as Datetime[us, UTC], and its `_at` and declared columns as times where all values are.

    A time without a zone is taken as UTC, a date as its first moment. What cannot be read as a time stays what it is,
    for ingestion to find.
    """
    columns = []
    for series in frame.get_columns():
        named = series.name.endswith("_at") or series.name in declared
        if isinstance(series.dtype, pl.Datetime):
            aware = series if series.dtype.time_zone else series.dt.replace_time_zone("UTC")
            columns.append(aware.cast(UTC_TIME))
        elif series.dtype == pl.Date:
            columns.append(series.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
        elif named and series.dtype == pl.String:
            times = parse_times(series)
            columns.append(times if times.null_count() == series.null_count() else series)
        else:
            columns.append(series)
    return pl.DataFrame(columns)


def parse_times(text: pl.Series) -> pl.Series:
    """ISO 8601 dates and times as Datetime[us, UTC]; null where a value is none. Beyond microseconds is cut off."""
    found = text.str.extract_groups(TIME).struct.unnest()
    found.columns = ["date", "hour", "minute", "second", "z", "sign", "ahead_h", "ahead_min"]
    number = {name: pl.col(name).cast(pl.Int64).fill_null(0) for name in ("hour", "minute", "ahead_h", "ahead_min")}
    second = pl.col("second").str.replace(",", ".", literal=True).cast(pl.Float64).fill_null(0.0)
    ahead = (number["ahead_h"] * 60 + number["ahead_min"]) * pl.when(pl.col("sign") == "-").then(-1).otherwise(1)
    time = pl.duration(
        hours=number["hour"],
        minutes=number["minute"] - ahead,
        microseconds=(second * 1e6 + 1e-3).floor().cast(pl.Int64),
    )
    day = pl.col("date").str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    valid = (number["hour"] <= 23) & (number["minute"] <= 59) & (second < 61) & (number["ahead_h"] <= 23)
    return found.select(pl.when(valid).then(day + time).dt.replace_time_zone("UTC").alias(text.name)).to_series()


def _all(given: pl.Series, pattern: str) -> bool:
    """True when every value that is given matches; the first few are asked before all."""
    return bool(given.drop_nulls().head(50).str.contains(pattern).all()) and bool(given.str.contains(pattern).all())
