"""Point-in-time joins: feeds in; one row per predicted row out, made only of what was known at that time.

The rule is `known_at`: a row of a feed counts for a predicted row when it was known by then. Truncating every feed
at any time therefore changes no feature of a row from before it.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
import polars as pl

from holdfast.core.signature import Column
from holdfast.core.spec import Data, Feed
from holdfast.errors import DataError, did_you_mean
from holdfast.flow.classes import places
from holdfast.flow.timeline import Timeline, counts, extremes, sums

TIME = pl.Datetime("us", "UTC")
OWN = ("key", "unit", "event_at", "known_at", "label", "label_known_at")
"""Columns that every assembled frame has, beside its features."""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """Where a joined feature comes from: the latest value of a feed's column, or an aggregate of it."""

    feed: str
    column: str
    function: str | None = None


def joined_names(name: str, feed: Feed) -> dict[str, Joined]:
    """The features that a feed can give, by name: ``<feed>_<column>`` and ``<feed>_<column>_<function>``."""
    found = {f"{name}_{column}": Joined(feed=name, column=column) for column in feed.take}
    for column, functions in feed.aggregate.items():
        for function in functions:
            found[f"{name}_{column}_{function}"] = Joined(feed=name, column=column, function=function)
    return found


def assemble(
    data: Data,
    feeds: Mapping[str, pl.DataFrame],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pl.DataFrame:
    """One row per row of the predicted feed with since < known_at <= until, as of its own known_at.

    Columns: `key` and `unit` (text; `unit` is null where the file names none), `event_at`, `known_at`
    (Datetime[us, UTC]), every feature in the order of `data.columns` (Float64, or String for a category; a time in
    microseconds since 1970 UTC), `label`
    (Float64; null while it was not known at `until`) and `label_known_at`. Sorted by `known_at`, then `key`.

    - A feature that is a column of the predicted feed is taken from there.
    - `take`: of the rows of the feed with the same `by` that were known by then, the one with the latest `event_at`
      (the latest known_at where the feed has no event_at); missing when that is older than `within`. A row that comes
      late never hides a newer observation. A feed without known_at is a lookup table: the last row of each `by`.
    - `aggregate`: over the rows of the feed with the same `by` and known_at in (row.known_at - last, row.known_at].
      Missing and infinite values do not count; an empty window has count 0, sum 0, and no mean, min or max; a row
      without a value to join on has none of them.

    Predicted rows without known_at or event_at are left out, feed rows without known_at, event_at or `by` are not
    joined: ingestion has put them into quarantine. A feed without rows gives missing values. Takes about a second for
    a third of a million rows joined to a third of a million events. Raises DataError where a column is absent or has
    a type that its feature cannot take.
    """
    spec = data.feeds[data.rows]
    known_column = spec.known_at or spec.event_at
    if known_column is None:
        raise DataError(
            f"feed '{data.rows}' is predicted but has no time: give it `event_at`, and `known_at` if that is earlier"
        )
    table = feeds.get(data.rows, pl.DataFrame())
    if not table.width:
        return _empty(data)
    known = _time(table, known_column, data.rows)
    wanted = known.is_not_null()
    if since is not None:
        wanted &= known > since
    if until is not None:
        wanted &= known <= until
    rows = _with_own(data, table.with_columns(known.alias("__known_at")).filter(wanted), spec.event_at or known_column)
    head = rows.select(pl.col(f"__{name}").alias(name) for name in ("key", "unit", "event_at", "known_at"))
    return _labelled(data, head.with_columns(_features(data, rows, feeds)), feeds, until)


def _with_own(data: Data, rows: pl.DataFrame, event_at: str) -> pl.DataFrame:
    """The predicted rows in their order, with what every assembled frame has under names no feed uses."""
    return (
        rows.with_columns(
            _text(rows, data.key, data.rows).alias("__key"),
            (_text(rows, data.unit, data.rows) if data.unit else pl.lit(None, pl.String)).alias("__unit"),
            _time(rows, event_at, data.rows).alias("__event_at"),
        )
        .drop_nulls("__event_at")
        .sort("__known_at", "__key", maintain_order=True)
    )


def _features(data: Data, rows: pl.DataFrame, feeds: Mapping[str, pl.DataFrame]) -> list[pl.Series]:
    """Every feature of the file, typed and in its order."""
    taken = [name for name in data.columns if name in OWN]
    if taken:
        raise DataError(f"data.columns.{taken[0]}: the assembled frame has a column of that name; rename yours")
    joined: dict[str, Joined] = {}
    for name, feed in data.feeds.items():
        if name not in (data.rows, data.label.feed) or feed.take or feed.aggregate:
            joined |= joined_names(name, feed)
    wanted = {name: joined[name] for name in data.columns if name in joined and name not in rows.columns}
    values: dict[str, pl.Series] = {}
    for name in {source.feed: None for source in wanted.values()}:
        mine = {feature: source for feature, source in wanted.items() if source.feed == name}
        values |= _join(name, data.feeds[name], feeds.get(name, pl.DataFrame()), rows, mine)
    found = []
    for name, column in data.columns.items():
        series = rows[name] if name in rows.columns else values.get(name)
        if series is None:
            if said := _lacks_class(data, name):
                raise DataError(said)
            near = did_you_mean(name, [column for column in [*rows.columns, *joined] if not column.startswith("__")])
            raise DataError(f"data.columns.{name}: no feed gives this column{near}")
        found.append(_typed(series, column, name))
    return found


def _lacks_class(data: Data, name: str) -> str:
    """What to say of a column of a log that holds the answers of a class; empty where it is none of those."""
    classes = data.label.classes
    stems = {each: name.removesuffix(f".{each}") for each in classes if name.endswith(f".{each}")}
    of = [each for each, stem in stems.items() if all(f"{stem}.{other}" in data.columns for other in classes)]
    if not of:
        return ""
    return (
        f"feed '{data.rows}': the log has no column '{name}' for the class '{of[0]}'; add it, empty if the version "
        "does not know it"
    )


def _join(
    name: str, feed: Feed, table: pl.DataFrame, rows: pl.DataFrame, wanted: Mapping[str, Joined]
) -> dict[str, pl.Series]:
    """The wanted features of one feed, one value per row of `rows`."""
    if not table.height:
        table = _no_rows(feed, rows, wanted)
    for source in wanted.values():
        _text_or_any(table, source.column, name)
    taken = {feature: source.column for feature, source in wanted.items() if source.function is None}
    groups, at = _grouped(name, feed, table, rows, take=bool(taken))
    found = _taken(feed, groups, at, rows, taken)
    aggregated = {feature: source for feature, source in wanted.items() if source.function is not None}
    if aggregated:
        if feed.known_at is None or feed.last is None:
            raise DataError(f"data.feeds.{name}.aggregate: needs `known_at` and `last`, how far back it looks")
        found |= _aggregated(feed.last, groups, at, rows, aggregated)
    return found


def _no_rows(feed: Feed, rows: pl.DataFrame, wanted: Mapping[str, Joined]) -> pl.DataFrame:
    """A feed before its first row, with the columns that its join reads."""
    types: dict[str, pl.DataType] = {source.column: pl.Float64() for source in wanted.values()}
    types |= {column: rows.schema[column] for column in feed.by if column in rows.columns}
    return pl.DataFrame(schema=types | {time: TIME for time in (feed.event_at, feed.known_at) if time})


def _reached(feed: Feed, known: pl.Series, asked: pl.Series, *, take: bool) -> pl.Series:
    """Which rows of a feed can matter to rows asked about at these times: this keeps the join of one day short."""
    if feed.known_at is None or not len(asked):
        return known.is_not_null()
    reached = known <= asked.max()
    if feed.last is not None and not take:
        # One window reaches back by `last`, and running totals restart at most `last` before that.
        earliest = asked.min()
        assert isinstance(earliest, datetime)
        reached &= known > earliest - 2 * feed.last
    return reached


def _grouped(
    name: str, feed: Feed, table: pl.DataFrame, rows: pl.DataFrame, *, take: bool
) -> tuple[pl.DataFrame, pl.Series]:
    """The feed's usable rows with their group number and times, in order; and the group number of each of `rows`:

    -1 where the feed has no row of that group, null where the row has no value to join on.
    """
    for column in feed.by:
        _text_or_any(rows, column, f"data.feeds.{name}.by")
        _text_or_any(table, column, name)
    always = pl.Series([0]).cast(TIME).new_from_index(0, table.height)
    known = _time(table, feed.known_at, name) if feed.known_at else always
    event = _time(table, feed.event_at, name) if feed.event_at and feed.known_at else known
    usable = (
        table.with_columns(known.alias("__known"), event.alias("__event"))
        .filter(_reached(feed, known, rows["__known_at"], take=take))
        .drop_nulls(["__known", "__event", *feed.by])
    )
    if not feed.by:
        return usable.with_columns(__group=pl.lit(0, pl.Int64)).sort("__known", "__event", maintain_order=True), (
            pl.Series([0], dtype=pl.Int64).new_from_index(0, rows.height)
        )
    left, right = rows.select(feed.by), usable
    unlike = [column for column in feed.by if left[column].dtype != right[column].dtype]
    left, right = (frame.with_columns(pl.col(unlike).cast(pl.String)) for frame in (left, right))
    groups = right.select(feed.by).unique(maintain_order=True).with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("__group")
    )  # fmt: skip
    right = right.join(groups, on=list(feed.by), how="left", maintain_order="left")
    # A value to join on that no row of the feed has yet is asked about all the same: its count is 0, not unknown.
    is_asked = pl.all_horizontal(pl.col(column).is_not_null() for column in feed.by)
    at = left.join(groups, on=list(feed.by), how="left", maintain_order="left").select(
        pl.coalesce("__group", pl.when(is_asked).then(pl.lit(-1, pl.Int64)))
    )
    return right.sort("__group", "__known", "__event", maintain_order=True), at.to_series()


def _taken(
    feed: Feed, groups: pl.DataFrame, at: pl.Series, rows: pl.DataFrame, columns: Mapping[str, str]
) -> dict[str, pl.Series]:
    if not columns:
        return {}
    # A row whose event is older than one already known says nothing about the latest state.
    newest = groups.filter(pl.col("__event") >= pl.col("__event").cum_max().over("__group"))
    timeline = Timeline(newest["__group"], newest["__known"])
    latest = timeline.latest(at, rows["__known_at"] if feed.known_at else None)
    if feed.within is not None and feed.known_at:
        age = rows["__known_at"] - newest["__event"].gather(latest)
        latest = latest.to_frame("i").select(pl.when(age <= feed.within).then("i")).to_series()
    return {feature: newest[column].gather(latest) for feature, column in columns.items()}


def _aggregated(
    last: timedelta, groups: pl.DataFrame, at: pl.Series, rows: pl.DataFrame, wanted: Mapping[str, Joined]
) -> dict[str, pl.Series]:
    timeline = Timeline(groups["__group"], groups["__known"])
    window = timeline.window(at, rows["__known_at"], last)
    found: dict[str, pl.Series] = {}
    for column in {source.column: None for source in wanted.values()}:
        values = _numbers(groups[column], column)
        count = counts(timeline, window, values)
        for feature, source in wanted.items():
            if source.column != column:
                continue
            if source.function == "count":
                found[feature] = count
            elif source.function in ("min", "max"):
                found[feature] = extremes(window, values, largest=source.function == "max")
            else:
                total = sums(timeline, window, values)
                found[feature] = total if source.function == "sum" else total / count
    for feature, series in found.items():
        found[feature] = series.fill_nan(None)
    return found


def _labelled(
    data: Data, frame: pl.DataFrame, feeds: Mapping[str, pl.DataFrame], until: datetime | None
) -> pl.DataFrame:
    """`frame` with the label of each row as it was known at `until`."""
    labels = labels_of(data, feeds, until, frame.select("key"))
    return frame.join(labels, on="key", how="left", maintain_order="left")


def labels_of(
    data: Data, feeds: Mapping[str, pl.DataFrame], until: datetime | None = None, keys: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The label of each key as it was known at `until`, of these keys or of all; of several, the one known last."""
    label = data.label
    table = feeds.get(label.feed, pl.DataFrame())
    if not table.height:
        return pl.DataFrame(schema={"key": pl.String(), "label": pl.Float64(), "label_known_at": TIME})
    known = _time(table, label.known_at, label.feed)
    rows = table.with_columns(_text(table, data.key, label.feed).alias("key"), known.alias("label_known_at"))
    if until is not None:
        rows = rows.filter(pl.col("label_known_at") <= until)
    if keys is not None:
        rows = rows.join(keys, on="key", how="semi", maintain_order="left")
    truth = _text_or_any(rows, label.column, label.feed)
    truth = places(truth, label.classes) if label.classes else _numbers(truth, label.column)
    return (
        rows.select("key", truth.alias("label"), "label_known_at")
        .drop_nulls()
        .sort("label_known_at", maintain_order=True)
        .unique("key", keep="last", maintain_order=True)
    )


def _typed(series: pl.Series, column: Column, name: str) -> pl.Series:
    """A feature as the frame holds it: String for a category, else Float64; a time in microseconds since 1970 UTC."""
    if column.type == "category":
        return series.cast(pl.String).alias(name)
    if column.type == "time":
        return _instants(series, name).alias(name)
    return _numbers(series, name).alias(name)


def _instants(series: pl.Series, name: str) -> pl.Series:
    if isinstance(series.dtype, pl.Datetime):
        aware = series if series.dtype.time_zone else series.dt.replace_time_zone("UTC")
        return aware.dt.epoch("us").cast(pl.Float64)
    if series.dtype == pl.Null or (series.dtype == pl.Float64 and series.null_count() == len(series)):
        return series.cast(pl.Float64)  # of a feed that has no rows yet
    raise DataError(f"column '{name}' must hold times but is {series.dtype}; convert it, or declare another column")


def _numbers(series: pl.Series, name: str) -> pl.Series:
    if series.dtype == pl.String or series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null):
        found = series.cast(pl.Float64, strict=False)
        if found.null_count() == series.null_count():
            return found.fill_nan(None)
        example = series.filter(found.is_null() & series.is_not_null())[0]
        raise DataError(
            f"column '{name}' must hold numbers but has {example!r}; clean the file, or declare the column a category"
        )
    raise DataError(f"column '{name}' must hold numbers but is {series.dtype}; declare another column, or convert it")


def _time(table: pl.DataFrame, column: str, feed: str) -> pl.Series:
    series = _text_or_any(table, column, feed)
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is not None:
        return series.cast(TIME)
    raise DataError(
        f"feed '{feed}': column '{column}' is {series.dtype}, not a time; see docs/sources/files.md on times"
    )


def _text(table: pl.DataFrame, column: str, feed: str) -> pl.Series:
    return _text_or_any(table, column, feed).cast(pl.String)


def _text_or_any(table: pl.DataFrame, column: str, feed: str) -> pl.Series:
    if column not in table.columns:
        raise DataError(f"feed '{feed}' has no column '{column}'{did_you_mean(column, table.columns)}")
    return table[column]


def _empty(data: Data) -> pl.DataFrame:
    schema: dict[str, pl.DataType] = {"key": pl.String(), "unit": pl.String(), "event_at": TIME, "known_at": TIME}
    for name, column in data.columns.items():
        schema[name] = pl.String() if column.type == "category" else pl.Float64()
    return pl.DataFrame(schema=schema | {"label": pl.Float64(), "label_known_at": TIME})
