"""Faults that a backtest injects: the world as it would have been had something broken on a stated day."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
import polars as pl

from holdfast.core.spec import Data
from holdfast.errors import DataError, NotFound

FaultKind = Literal["unit_change", "stale", "constant", "labels_stop", "swapped_columns"]


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
    start: datetime
    end: datetime
    feed: str = ""
    columns: tuple[str, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    value: float = 0.0


def read_faults(data: bytes, file: str) -> tuple[Fault, ...]:
    """Faults from YAML: a list of mappings with the fields of `Fault`. Raises DataError."""
    try:
        return tuple(msgspec.yaml.decode(data, type=list[Fault]))
    except msgspec.MsgspecError as error:
        raise DataError(f"{file} is not a list of faults: {error}") from error


def broken(data: Data, feeds: Mapping[str, pl.DataFrame], faults: Sequence[Fault]) -> dict[str, pl.DataFrame]:
    """The feeds as they would have come with these faults. A feed's file that several entries read breaks in all."""
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
        stuck = pl.lit(fault.value) if fault.fault == "constant" else pl.col(column) * fault.scale + fault.offset
        present = during & pl.col(column).is_not_null()
        rows = rows.with_columns(pl.when(present).then(stuck).otherwise(pl.col(column)).alias(column))
    return rows
