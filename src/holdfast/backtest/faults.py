"""Faults that a backtest injects: the world as it would have been had something broken on a stated day."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import polars as pl

from holdfast.core.spec import Data
from holdfast.errors import DataError, NotFound

FaultKind = Literal["unit_change", "stale", "constant", "labels_stop", "swapped_columns"]
Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that breaks at `start` and is whole again at `end`, both aware times.

    - `unit_change`: numbers of `columns` in `feed` become value * `scale` + `offset`.
    - `stale`: nothing of `feed` becomes known; it all comes at `end`.
    - `constant`: `columns` of `feed` are stuck at `value`.
    - `labels_stop`: no label becomes known; they all come at `end`.
    - `swapped_columns`: two features, `columns`, are swapped in the data of the one training that `start` forces.
    """

    name: str
    fault: FaultKind
    start: Aware
    end: Aware
    feed: str = ""
    columns: tuple[str, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    value: float = 0.0


TAKES: Mapping[str, frozenset[str]] = {
    "unit_change": frozenset({"feed", "columns", "scale", "offset"}),
    "stale": frozenset({"feed"}),
    "constant": frozenset({"feed", "columns", "value"}),
    "labels_stop": frozenset(),
    "swapped_columns": frozenset({"columns"}),
}
"""Which fields each kind heeds, beside its name and days; any other is refused, as it would have no effect."""


def read_faults(data: bytes, file: str) -> tuple[Fault, ...]:
    """Faults from YAML: a list of mappings with the fields of `Fault`. Raises DataError."""
    try:
        return tuple(msgspec.convert(msgspec.yaml.decode(data), list[Fault]))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{file} is not a list of faults: {said}") from error


def check_faults(data: Data, faults: Sequence[Fault]) -> None:
    """Raises DataError or NotFound for faults that would not do what they say, before anything is run."""
    names = [fault.name for fault in faults]
    for fault in faults:
        if names.count(fault.name) > 1:
            raise DataError(f"two faults are called '{fault.name}'; give each a name of its own")
        if fault.end <= fault.start:
            raise DataError(f"fault '{fault.name}' ends ({fault.end:%Y-%m-%d}) before it starts; correct its days")
        _check_fields(fault)
        if "feed" in TAKES[fault.fault] and fault.feed not in data.feeds:
            raise NotFound(f"feed for fault '{fault.name}':", fault.feed, data.feeds)
        if fault.fault == "swapped_columns":
            _check_swap(data, fault)


def broken(data: Data, feeds: Mapping[str, pl.DataFrame], faults: Sequence[Fault]) -> dict[str, pl.DataFrame]:
    """The feeds as they would have come with these faults. A feed's file that several entries read breaks in all.

    Raises DataError or NotFound for a feed or column that cannot break so.
    """
    changed = dict(feeds)
    for fault in faults:
        for name in _entries(data, fault):
            changed[name] = _break(data, name, changed[name], fault)
    return changed


def swapped(rows: pl.DataFrame, fault: Fault) -> pl.DataFrame:
    """Rows with two features swapped."""
    one, other = fault.columns
    return rows.with_columns(pl.col(one).alias(other), pl.col(other).alias(one))


def touched_feeds(data: Data, fault: Fault) -> frozenset[str]:
    """Every entry of the system file that a fault reaches."""
    return frozenset(_entries(data, fault))


def _check_fields(fault: Fault) -> None:
    for field in ("feed", "columns", "scale", "offset", "value"):
        default = next(f.default for f in msgspec.structs.fields(Fault) if f.name == field)
        is_given, takes = getattr(fault, field) != default, field in TAKES[fault.fault]
        if is_given and not takes:
            raise DataError(f"fault '{fault.name}': `{field}` has no effect on {fault.fault}; leave it out")
        if takes and field in ("feed", "columns") and not is_given:
            raise DataError(f"fault '{fault.name}': {fault.fault} needs `{field}`")
    if fault.fault == "unit_change" and (fault.scale, fault.offset) == (1.0, 0.0):
        raise DataError(f"fault '{fault.name}' changes nothing: give `scale`, `offset` or both")


def _check_swap(data: Data, fault: Fault) -> None:
    for column in fault.columns:
        if column not in data.columns:
            raise NotFound(f"feature for fault '{fault.name}':", column, data.columns)
    if len(set(fault.columns)) != 2 or len(fault.columns) != 2:
        raise DataError(f"fault '{fault.name}': two features are swapped, and {len(fault.columns)} are given")
    one, other = (data.columns[column].type == "category" for column in fault.columns)
    if one != other:
        raise DataError(f"fault '{fault.name}': a category cannot be swapped with a number; give two of one type")


def _entries(data: Data, fault: Fault) -> list[str]:
    if fault.fault == "swapped_columns":
        return []
    if fault.fault == "labels_stop":
        return [data.label.feed]
    if fault.feed not in data.feeds:
        raise NotFound("feed", fault.feed, data.feeds)
    source = data.feeds[fault.feed].from_
    return [name for name, feed in data.feeds.items() if feed.from_ == source]


def _break(data: Data, name: str, rows: pl.DataFrame, fault: Fault) -> pl.DataFrame:
    known_at = data.label.known_at if fault.fault == "labels_stop" else data.feeds[name].known_at
    if known_at is None:
        raise DataError(f"fault '{fault.name}': feed '{name}' has no known_at, so it has no day to break on")
    start, end = fault.start.astimezone(UTC), fault.end.astimezone(UTC)
    during = (pl.col(known_at) >= start) & (pl.col(known_at) < end)
    if fault.fault in ("stale", "labels_stop"):
        return rows.with_columns(pl.when(during).then(pl.lit(end)).otherwise(pl.col(known_at)).alias(known_at))
    for column in fault.columns:
        if column not in rows.columns:
            if name != fault.feed:
                continue  # another entry of the same file that does not read this column
            raise NotFound(f"column for fault '{fault.name}' in feed '{name}':", column, rows.columns)
        if not rows.schema[column].is_numeric():
            raise DataError(
                f"fault '{fault.name}': {name}.{column} is {rows.schema[column]}; only numbers can break so"
            )
        stuck = pl.lit(fault.value) if fault.fault == "constant" else pl.col(column) * fault.scale + fault.offset
        present = during & pl.col(column).is_not_null()
        rows = rows.with_columns(pl.when(present).then(stuck).otherwise(pl.col(column)).alias(column))
    return rows
