"""Rows of a feed between source and lake: which can be used, what identifies one, how each column is stored."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.core.protocols import QUARANTINE, Field, FieldType, Lake
from holdfast.core.spec import Data
from holdfast.core.times import MISSING_TIME
from holdfast.errors import SourceError, did_you_mean

Kind = Literal["number", "integer", "boolean", "text", "time"]
"""What a column of a feed holds. The lake keeps numbers, integers and booleans as floats, so that each can be null."""

UTC_TIME = pl.Datetime("us", "UTC")
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""The `known_at` of rows that were always known."""
EXACT = 2**53
"""Columns with integers beyond this are kept as text, because a float would lose their last digits."""

_NUMERIC: tuple[Kind, ...] = ("boolean", "integer", "number")  # each holds all values of those before it
_TYPES: Mapping[Kind, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "text": pl.String(),
    "time": UTC_TIME,
}
_NAMED: Mapping[Kind, str] = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "text": "text",
    "time": "a time",
}
_TIME_FORMATS = ("%+", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f")
_OWN = ("row_id", "known_at")
_BAD = pl.DataFrame(schema={"row": pl.Int64, "reason": pl.String, "raw": pl.String})


QUARANTINED = (
    Field("row_id", "text"),
    Field("ingested_at", "time"),
    Field("file", "text"),
    Field("row", "int"),
    Field("reason", "text"),
    Field("raw", "text"),
)
"""Columns of a quarantine table: `row` counts from 0 in `file`; `raw` is the row as it was read, as JSON."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a system file asks of the columns of one feed."""

    times: frozenset[str]
    numeric: frozenset[str]
    texts: frozenset[str] = frozenset()
    """A label of classes: what is numbers in one file may be text in another."""
    required: tuple[str, ...]
    """No row may lack these: times, key, and what it is joined on."""
    named: tuple[str, ...]
    """Every column that the file names: each must be there."""


class Sorted(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a batch, sorted into those that can be used and those that cannot."""

    good: pl.DataFrame
    """Cast to what their columns hold."""
    bad: pl.DataFrame
    """`row` (from 0), `reason`, and `raw`, the row as JSON."""
    kinds: Mapping[str, Kind]
    """What the feed's columns hold, those of this batch included."""
    read: int


def needs_of(data: Data, feed: str) -> Needs:
    """What the system file asks of a feed's columns."""
    spec = data.feeds[feed]
    required = [column for column in (spec.event_at, spec.known_at) if column]
    times = set(required)
    required += [*spec.key, *spec.by]
    named = [*spec.take, *spec.aggregate]
    numeric, texts = set(spec.aggregate), set[str]()
    joined = {f"{name}_{column}": (name, column) for name, part in data.feeds.items() for column in part.take}
    aggregated = {
        f"{name}_{column}_{function}"
        for name, part in data.feeds.items()
        for column, functions in part.aggregate.items()
        for function in functions
    }
    for name, column in data.columns.items():
        owner, own = joined.get(name, ("" if name in aggregated else data.rows, name))
        if owner == feed:
            named.append(own)
            if column.type == "time":
                times.add(own)
            elif column.type != "category":
                numeric.add(own)
    if feed == data.rows:
        required.append(data.key)
        named += [data.unit] if data.unit else []
    if feed == data.label.feed:
        times.add(data.label.known_at)
        required.append(data.key)
        named += [data.label.column, data.label.known_at]
        (texts if data.label.classes else numeric).add(data.label.column)
    return Needs(
        times=frozenset(times),
        numeric=frozenset(numeric - times),
        texts=frozenset(texts - times - numeric),
        required=tuple(dict.fromkeys(required)),
        named=tuple(dict.fromkeys([*required, *named])),
    )


def empty_table(data: Data, feed: str) -> pl.DataFrame:
    """A feed that has no rows yet, with the columns that the system file names."""
    needs = needs_of(data, feed)
    types = {name: UTC_TIME if name in needs.times else pl.Float64() for name in needs.times | needs.numeric}
    return pl.DataFrame(schema={name: types.get(name, pl.String()) for name in needs.named})


def sort_out(data: Data, feed: str, frame: pl.DataFrame, kinds: Mapping[str, Kind], *, file: str) -> Sorted:
    """Cast a batch to what the feed's columns hold, and set aside the rows that do not fit or lack what is needed.

    `kinds` is what earlier batches held; what the system file asks of a column goes first. Raises SourceError where
    the batch lacks a column that the file names.
    """
    needs = needs_of(data, feed)
    if not frame.height:
        return Sorted(good=frame, bad=_BAD, kinds=kinds, read=0)
    for column in needs.named:
        if column not in frame.columns:
            near = did_you_mean(column, frame.columns)
            raise SourceError(f"{file}: has no column '{column}'{near}; the system file names it for feed '{feed}'")
    found: dict[str, Kind] = {}
    cast: list[pl.Series] = []
    reasons: list[pl.Expr] = []
    for series in frame.get_columns():
        kind = _kind(series, needs, kinds.get(series.name))
        if kind is None:
            continue
        found[series.name] = kind
        fitted = _fitted(series, kind)
        cast.append(fitted)
        if fitted.null_count() > series.null_count():
            told = pl.concat_str(pl.lit(f"{series.name} is not {_NAMED[kind]}: "), shown(series))
            reasons.append(pl.when(fitted.is_null() & series.is_not_null()).then(told))
        if series.name in needs.required and series.null_count():
            reasons.append(pl.when(series.is_null()).then(pl.lit(f"{series.name} is missing")))
    good, merged = pl.DataFrame(cast), {**kinds, **found}
    if not reasons:
        return Sorted(good=good, bad=_BAD, kinds=merged, read=frame.height)
    places = pl.int_range(frame.height, dtype=pl.Int64, eager=True).alias("row")
    bad = places.to_frame().with_columns(pl.coalesce(reasons).alias("reason")).filter(pl.col("reason").is_not_null())
    raw = [msgspec.json.encode(row, enc_hook=str).decode() for row in frame[bad["row"]].iter_rows(named=True)]
    bad = bad.with_columns(pl.Series("raw", raw, dtype=pl.String))
    return Sorted(good=good.filter(~places.is_in(bad["row"].implode())), bad=bad, kinds=merged, read=frame.height)


def row_ids(frame: pl.DataFrame, key: Sequence[str]) -> pl.Series:
    """What identifies each row: its key's values joined by ``|``, or a hash of the whole row where there is no key.

    A ``|`` or backslash inside a value is escaped, so that no two keys look alike.
    """
    columns = list(key) or sorted(frame.columns)
    parts = [shown(frame[name]).alias(name).fill_null("") for name in columns]
    if len(parts) > 1:
        parts = [
            part.str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True) for part in parts
        ]
    text = pl.DataFrame(parts).select(pl.concat_str(pl.all(), separator="|").alias("row_id")).to_series()
    if key:
        return text
    head = "|".join(columns) + "\n"
    return pl.Series([hashlib.blake2b((head + row).encode(), digest_size=16).hexdigest() for row in text])


def shown(series: pl.Series) -> pl.Series:
    """A column as text, the same in every version: times as microseconds since 1970, nested values as JSON."""
    if series.dtype.is_nested():
        return pl.Series(
            series.name,
            [
                None if value is None else msgspec.json.encode(value, enc_hook=str).decode()
                for value in series.to_list()
            ],
            dtype=pl.String,
        )
    if isinstance(series.dtype, pl.Datetime):
        return series.dt.epoch("us").cast(pl.String)
    if series.dtype == pl.Binary:
        return series.bin.encode("hex")
    return series.cast(pl.String)


def field_of(column: str, kind: Kind) -> Field:
    """The field of a column in the lake, where `row_id` and `known_at` are the table's own."""
    types: Mapping[Kind, FieldType] = {"text": "text", "time": "time"}
    return Field(_stored_name(column), types.get(kind, "float"))


def stored(series: pl.Series, field: Field) -> Any:
    """A column as the lake takes it: an array with NaN or the missing time for null, or a list of text."""
    if field.type == "text":
        return series.to_list()
    if field.type == "time":
        return series.dt.epoch("us").fill_null(MISSING_TIME).to_numpy()
    if field.type == "int":
        return series.to_numpy()
    return series.cast(pl.Float64).fill_null(np.nan).to_numpy()


def unstored(frame: pl.DataFrame, kinds: Mapping[str, Kind]) -> pl.DataFrame:
    """The columns of a feed as they were read, from what the lake has of them."""
    columns = []
    for name, kind in kinds.items():
        held = _stored_name(name)
        if held in frame.columns:
            columns.append(frame[held].cast(_TYPES[kind]).alias(name))
        else:
            columns.append(pl.Series(name, [None], dtype=_TYPES[kind]).new_from_index(0, frame.height))
    return pl.DataFrame(columns)


def quarantine(lake: Lake, feed: str, system: str, bad: pl.DataFrame, *, now: datetime) -> None:
    """Record rows that cannot be used, with the columns of QUARANTINED but the time; those of a `row_id` are one."""
    whole = bad.with_columns(pl.lit(now).cast(UTC_TIME).alias("ingested_at"))
    write(lake, f"{QUARANTINE.name}/{feed}", system, [(field, whole[field.name]) for field in QUARANTINED])


def write(lake: Lake, table: str, system: str, columns: Sequence[tuple[Field, pl.Series]]) -> None:
    """Append columns of one length to a lake table, in a segment of its own."""
    writer = lake.writer(table, system, [field for field, _ in columns])
    try:
        writer.append({field.name: stored(series, field) for field, series in columns}, len(columns[0][1]))
    finally:
        writer.close()


def _stored_name(column: str) -> str:
    return f"column {column}" if column in _OWN else column


def _kind(series: pl.Series, needs: Needs, before: Kind | None) -> Kind | None:
    """What a column holds: what the file asks, else what it held before, else what it is; None if nothing is known."""
    if series.name in needs.times:
        return "time"
    if series.name in needs.texts:
        return "text"
    own = _own_kind(series)
    if own in _NUMERIC and before in _NUMERIC:
        return max(own, before, key=_NUMERIC.index)
    if series.name in needs.numeric:
        return own if own in _NUMERIC else "number"
    return before or own or ("text" if series.name in needs.named else None)


def _own_kind(series: pl.Series) -> Kind | None:
    dtype = series.dtype
    if dtype == pl.Null or series.null_count() == len(series):
        return None
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        return "integer" if series.cast(pl.Float64).abs().max() <= EXACT else "text"  # type: ignore[operator]
    if dtype.is_numeric():
        return "number"
    return "time" if isinstance(dtype, pl.Datetime) or dtype == pl.Date else "text"


def _fitted(series: pl.Series, kind: Kind) -> pl.Series:
    """`series` as its kind; null where a value does not fit."""
    if kind == "text":
        return shown(series)
    if kind == "time":
        return _times(series)
    if isinstance(series.dtype, pl.Datetime | pl.Date) or series.dtype.is_nested():
        return pl.Series(series.name, [None], dtype=_TYPES[kind]).new_from_index(0, len(series))
    return series.cast(_TYPES[kind], strict=False)


def _times(series: pl.Series) -> pl.Series:
    if isinstance(series.dtype, pl.Datetime):
        aware = series if series.dtype.time_zone else series.dt.replace_time_zone("UTC")
        return aware.cast(UTC_TIME)
    if series.dtype == pl.Date:
        return series.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if series.dtype == pl.String:
        parsed = [
            pl.col(series.name).str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
            for form in _TIME_FORMATS
        ]
        day = pl.col(series.name).str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
        return series.to_frame().select(pl.coalesce(*parsed, day.dt.replace_time_zone("UTC"))).to_series()
    return pl.Series(series.name, [None], dtype=UTC_TIME).new_from_index(0, len(series))
