"""Ingestion: batches of sources in; rows of feeds in the lake out, each once, the unusable ones in quarantine.

What was read is remembered per feed in a `Mark`, so that a batch is read once. A batch is appended before it is
remembered: when the process dies in between it is read again, and the rows' identities keep one of each.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from holdfast.core.protocols import FEEDS, QUARANTINE, Batch, Catalog, Field, Lake, Source, Transaction
from holdfast.core.records import FileRef, Mark
from holdfast.core.spec import SystemSpec
from holdfast.errors import SourceError
from holdfast.flow.rows import (
    ALWAYS,
    Kind,
    Sorted,
    empty_table,
    field_of,
    quarantine,
    row_ids,
    sort_out,
    unstored,
    write,
)

TAKEN_BACK = "read again, and kept"
"""The reason of a row that was in quarantine until its file was read again."""


class TakenFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken from one version of one file."""

    name: str
    sha256: str
    rows: int
    quarantined: int
    at: datetime | None = None
    """When it was taken in; None in records from before that was kept."""


class Deciding(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a feed that decide which of its rows can be used, and what identifies one."""

    event_at: str | None
    known_at: str | None
    key: tuple[str, ...]


class Intake(msgspec.Struct, frozen=True, kw_only=True):
    """All that one feed has taken so far; rows read are rows kept and rows quarantined, always."""

    files: tuple[TakenFile, ...] = ()
    """In the order in which they were read; a file that changed is there once per version."""
    kinds: Mapping[str, Kind] = {}
    """Columns and what they hold, as first seen."""
    newest: datetime | None = None
    """Newest `known_at`; None for a lookup table."""
    deciding: Deciding | None = None
    """As they were when the files were read; None where nobody wrote it down."""

    @property
    def rows_kept(self) -> int:
        return sum(file.rows - file.quarantined for file in self.files)


class FeedIngested(msgspec.Struct, frozen=True, kw_only=True):
    """What one call took in for one feed."""

    files: int = 0
    rows_read: int = 0
    rows_kept: int = 0
    """Written to the lake, where those that share an identity are one."""
    rows_quarantined: int = 0
    newest: datetime | None = None
    """Newest `known_at` ever taken in."""


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of `ingest` took in, by feed."""

    feeds: Mapping[str, FeedIngested]

    @property
    def rows_kept(self) -> int:
        return sum(feed.rows_kept for feed in self.feeds.values())


def ingest(spec: SystemSpec, sources: Mapping[str, Source], lake: Lake, catalog: Catalog, *, now: datetime) -> Ingested:
    """Take in every batch that was not seen before, by name and content.

    A row that cannot be used (no known_at or event_at, no key, no value to join on, a value of the wrong type) goes to
    the lake table ``quarantine/<feed>`` with its reason. A changed file is read again; rows that share an identity
    (the feed's `key`, or the whole row) are one, the last read wins. Where a feed's `event_at` or `known_at` changed
    since its files were read, those that are still there are read again. Raises SourceError after all other feeds were
    taken in, naming every feed that could not be read; what was taken in by then is kept.
    """
    done: dict[str, FeedIngested] = {}
    problems = []
    for name, feed in spec.data.feeds.items():
        if not feed.from_:
            continue  # its rows come over HTTP
        if name not in sources:
            problems.append(f"feed '{name}' has no source")
            continue
        try:
            done[name] = _ingest_feed(spec, name, sources[name], lake, catalog, now)
        except SourceError as error:
            problems.append(f"feed '{name}': {error}")
    if problems:
        raise SourceError("; ".join(problems))
    return Ingested(feeds=done)


def forget(catalog: Catalog, spec: SystemSpec) -> None:
    """Forget which files were taken in, so that the next `ingest` reads them all again; rows keep their identity."""
    with catalog.begin() as tx:
        for feed in spec.data.feeds:
            mark = tx.get(Mark, spec.system, f"ingest/{feed}")
            if mark is not None:
                memory: dict[str, Any] = msgspec.to_builtins(
                    msgspec.structs.replace(intake(tx, spec.system, feed), files=())
                )
                tx.put(msgspec.structs.replace(mark, memory=memory))


def intake(tx: Transaction, system: str, feed: str) -> Intake:
    """All that a feed has taken so far."""
    mark = tx.get(Mark, system, f"ingest/{feed}")
    return msgspec.convert(mark.memory, Intake) if mark else Intake()


def quarantine_reasons(lake: Lake, system: str, feed: str) -> dict[str, int]:
    """Why rows of a feed are in quarantine and how many for each reason, most frequent first."""
    held = lake.scan(f"{QUARANTINE.name}/{feed}", system)
    if not held.height:
        return {}
    counts = held.filter(pl.col("reason") != TAKEN_BACK).group_by("reason").len()
    return dict(counts.sort("len", "reason", descending=[True, False]).select("reason", "len").iter_rows())


def lineage(tx: Transaction, spec: SystemSpec) -> tuple[FileRef, ...]:
    """Every file that went into the feeds of a system, in the order of feeds and reading."""
    return tuple(
        FileRef(feed=feed, name=file.name, sha256=file.sha256, rows=file.rows)
        for feed in spec.data.feeds
        for file in intake(tx, spec.system, feed).files
    )


def feed_tables(
    spec: SystemSpec, lake: Lake, catalog: Catalog, *, until: datetime | None = None
) -> dict[str, pl.DataFrame]:
    """Every feed as it was read, with its own column names and types; of timed feeds the rows with known_at <= until.

    Ordered by known_at, then in the order of reading. A feed without rows has the columns that the file names.
    """
    end = None if until is None else until + timedelta(microseconds=1)
    tables = {}
    with catalog.read() as tx:
        intakes = {name: intake(tx, spec.system, name) for name in spec.data.feeds}
    for name, taken in intakes.items():
        frame = lake.scan(f"{FEEDS.name}/{name}", spec.system, until=end)
        tables[name] = unstored(frame, taken.kinds) if taken.kinds else empty_table(spec.data, name)
    return tables


def _ingest_feed(
    spec: SystemSpec, name: str, source: Source, lake: Lake, catalog: Catalog, now: datetime
) -> FeedIngested:
    with catalog.read() as tx:
        before = intake(tx, spec.system, name)
    batches = list(source.batches())
    taken = _as_decided(spec, name, before, batches)
    if taken.deciding != before.deciding and before.files:
        _remember(spec, name, taken, catalog, now)
    seen = {(file.name, file.sha256) for file in taken.files}
    held: pl.DataFrame | None = None
    files = read = kept = 0
    for batch in batches:
        if (batch.name, batch.sha256) in seen:
            continue
        if held is None:
            held = lake.scan(f"{QUARANTINE.name}/{name}", spec.system)
        frame = source.read(batch)
        rows = sort_out(spec.data, name, frame, taken.kinds, file=batch.name)
        taken = _append(spec, name, batch, rows, taken, lake, now)
        _take_back(spec, name, batch, rows, held, lake, now)
        _remember(spec, name, taken, catalog, now)
        files, read, kept = files + 1, read + frame.height, kept + rows.good.height
    return FeedIngested(files=files, rows_read=read, rows_kept=kept, rows_quarantined=read - kept, newest=taken.newest)


def _as_decided(spec: SystemSpec, name: str, taken: Intake, batches: Sequence[Batch]) -> Intake:
    """What a feed has taken under the settings of the file: without the files that these make it read again.

    A row keeps the identity it was written with, so with another key it would be there twice: then SourceError is
    raised, unless no row was kept yet.
    """
    feed = spec.data.feeds[name]
    deciding = Deciding(event_at=feed.event_at, known_at=feed.known_at, key=feed.key)
    before = taken.deciding
    if before is None or before == deciding:
        return msgspec.structs.replace(taken, deciding=deciding)
    if before.key != deciding.key and taken.rows_kept:
        raise SourceError(
            f"its key was {_named(before.key)} when its files were taken in, and is {_named(deciding.key)} now; rows "
            "keep the identity they were read with, so put the old key back, or begin in a state of its own: "
            "holdfast train FILE --state DIRECTORY"
        )
    there = {batch.name for batch in batches}
    gone = tuple(file for file in taken.files if file.name not in there)
    newest = taken.newest if before.known_at == deciding.known_at else None
    return msgspec.structs.replace(taken, files=gone, newest=newest, deciding=deciding)


def _named(key: Sequence[str]) -> str:
    return ", ".join(key) or "the whole row"


def _remember(spec: SystemSpec, name: str, taken: Intake, catalog: Catalog, now: datetime) -> None:
    memory: dict[str, Any] = msgspec.to_builtins(taken)
    with catalog.begin() as tx:
        tx.put(Mark(system=spec.system, id=f"ingest/{name}", last_at=now, memory=memory))


def _take_back(
    spec: SystemSpec, name: str, batch: Batch, rows: Sorted, held: pl.DataFrame, lake: Lake, now: datetime
) -> None:
    """Say of rows in quarantine that they are in the feed by now: the same file was read again, and they can be used.

    The lake is append-only, so that the later entry of a row stands for the earlier one.
    """
    if not held.height:
        return
    again = held.filter(
        pl.col("row_id").str.starts_with(f"{batch.sha256[:16]}/"),
        pl.col("reason") != TAKEN_BACK,
        ~pl.col("row").is_in(rows.bad["row"].implode()),
    )
    if again.height:
        quarantine(lake, name, spec.system, again.with_columns(reason=pl.lit(TAKEN_BACK)), now=now)


def _append(
    spec: SystemSpec, name: str, batch: Batch, rows: Sorted, taken: Intake, lake: Lake, now: datetime
) -> Intake:
    """Write the rows of one batch to the lake; returns what the feed has taken with them."""
    feed = spec.data.feeds[name]
    assert rows.good.height + rows.bad.height == rows.read, "every row read is kept or quarantined"
    newest = taken.newest
    if rows.good.height:
        known = rows.good[feed.known_at] if feed.known_at else _always(rows.good.height)
        columns = [(Field("row_id", "text"), row_ids(rows.good, feed.key)), (Field("known_at", "time"), known)]
        columns += [(field_of(column, rows.kinds[column]), rows.good[column]) for column in rows.good.columns]
        write(lake, f"{FEEDS.name}/{name}", spec.system, columns)
        if feed.known_at:
            latest = known.max()
            assert isinstance(latest, datetime)
            newest = latest if newest is None else max(newest, latest)
    if rows.bad.height:
        bad = rows.bad.with_columns(
            pl.format("{}/{}", pl.lit(batch.sha256[:16]), "row").alias("row_id"), pl.lit(batch.name).alias("file")
        )
        quarantine(lake, name, spec.system, bad, now=now)
    file = TakenFile(name=batch.name, sha256=batch.sha256, rows=rows.read, quarantined=rows.bad.height, at=now)
    return msgspec.structs.replace(taken, files=(*taken.files, file), kinds=rows.kinds, newest=newest)


def _always(height: int) -> pl.Series:
    return pl.Series([ALWAYS]).cast(pl.Datetime("us", "UTC")).new_from_index(0, height)
