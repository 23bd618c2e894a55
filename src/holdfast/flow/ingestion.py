"""Ingestion: batches of sources in; rows of feeds in the lake out, each once, the unusable ones in quarantine.

What was read is remembered per feed in a `Mark`, so that a batch is read once. A batch is appended before it is
remembered: when the process dies in between it is read again, and the rows' identities keep one of each.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from holdfast.core.protocols import FEEDS, Batch, Catalog, Field, Lake, Source, Transaction
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


class TakenFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken from one version of one file."""

    name: str
    sha256: str
    rows: int
    quarantined: int


class Intake(msgspec.Struct, frozen=True, kw_only=True):
    """All that one feed has taken so far; rows read are rows kept and rows quarantined, always."""

    files: tuple[TakenFile, ...] = ()
    """In the order in which they were read; a file that changed is there once per version."""
    kinds: Mapping[str, Kind] = {}
    """Columns and what they hold, as first seen."""
    newest: datetime | None = None
    """Newest `known_at`; None for a lookup table."""


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
    (the feed's `key`, or the whole row) are one, the last read wins. Raises SourceError after all other feeds were
    taken in, naming every feed that could not be read; what was taken in by then is kept.
    """
    done: dict[str, FeedIngested] = {}
    problems = []
    for name in spec.data.feeds:
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
        taken = intake(tx, spec.system, name)
    seen = {(file.name, file.sha256) for file in taken.files}
    files = read = kept = 0
    for batch in source.batches():
        if (batch.name, batch.sha256) in seen:
            continue
        frame = source.read(batch)
        rows = sort_out(spec.data, name, frame, taken.kinds, file=batch.name)
        taken = _append(spec, name, batch, rows, taken, lake, now)
        with catalog.begin() as tx:
            memory: dict[str, Any] = msgspec.to_builtins(taken)
            tx.put(Mark(system=spec.system, id=f"ingest/{name}", last_at=now, memory=memory))
        files, read, kept = files + 1, read + frame.height, kept + rows.good.height
    return FeedIngested(files=files, rows_read=read, rows_kept=kept, rows_quarantined=read - kept, newest=taken.newest)


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
    file = TakenFile(name=batch.name, sha256=batch.sha256, rows=rows.read, quarantined=rows.bad.height)
    return Intake(files=(*taken.files, file), kinds=rows.kinds, newest=newest)


def _always(height: int) -> pl.Series:
    return pl.Series([ALWAYS]).cast(pl.Datetime("us", "UTC")).new_from_index(0, height)
