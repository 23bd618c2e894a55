"""What a system can know of its feeds at a time: the assembled rows, cut at the clock."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from holdfast.core import kinds
from holdfast.core.protocols import Catalog, Lake, Source
from holdfast.core.records import FileRef
from holdfast.core.spec import SystemSpec
from holdfast.errors import SourceError
from holdfast.flow import elsewhere
from holdfast.flow.datasets import as_known
from holdfast.flow.ingestion import Ingested, feed_tables, ingest, intake, lineage
from holdfast.flow.joins import assemble, labels_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = np.iinfo(np.int64).max

Times = np.ndarray[Any, np.dtype[np.int64]]


class World:
    """Feeds assembled once, seen as they were known at any time.

    That a view at a time is a prefix (no later row of a feed changes an earlier assembled row) is what the leak test
    of `flow/joins.py` holds, so nothing has to be joined again as a clock moves.
    """

    def __init__(
        self,
        assembled: pl.DataFrame,
        feed_times: Mapping[str, Times],
        files: tuple[FileRef, ...] = (),
        *,
        quarantined: int = 0,
        labels: pl.DataFrame | None = None,
    ) -> None:
        self.assembled = assembled.sort("known_at", maintain_order=True)
        self.files = files
        self.quarantined = quarantined
        """Rows of the predicted feed that ingestion set aside."""
        self._known_at = microseconds(self.assembled["known_at"])
        self._labelled = self.assembled if labels is None else labels
        """Rows with a label: those that are predicted, or, where these come over HTTP too, all that have one."""
        label_times = microseconds(self._labelled["label_known_at"])
        self._by_label = np.argsort(label_times, kind="stable")
        self._label_times = label_times[self._by_label]
        self._feed_times = feed_times

    def rows(self, now: datetime) -> pl.DataFrame:
        """Rows known at `now`, with the labels known then."""
        known = self.assembled.head(int(np.searchsorted(self._known_at, to_us(now), side="right")))
        return as_known(known, now)

    def rows_between(self, after: datetime, until: datetime) -> pl.DataFrame:
        """Rows that became known in [after, until)."""
        start, end = np.searchsorted(self._known_at, [to_us(after), to_us(until)], side="left")
        return self.assembled[int(start) : int(end)]

    def labels_between(self, after: datetime, until: datetime) -> pl.DataFrame:
        """Rows whose label became known in (after, until]."""
        start, end = np.searchsorted(self._label_times, [to_us(after), to_us(until)], side="right")
        return self._labelled[self._by_label[int(start) : int(end)]]

    def rows_known(self, now: datetime) -> int:
        """How many rows were known at `now`."""
        return int(np.searchsorted(self._known_at, to_us(now), side="right"))

    def labels_known(self, now: datetime) -> int:
        """How many labels were known at `now`."""
        return int(np.searchsorted(self._label_times, to_us(now), side="right"))

    def newest(self, now: datetime) -> dict[str, datetime | None]:
        """The newest row of each timed feed that was known at `now`."""
        found: dict[str, datetime | None] = {}
        for name, times in self._feed_times.items():
            n = int(np.searchsorted(times, to_us(now), side="right"))
            found[name] = EPOCH + timedelta(microseconds=int(times[n - 1])) if n else None
        return found


class Feeds(Protocol):
    """Gives the world as far as it has come."""

    def world(self, now: datetime) -> World: ...


class FixedFeeds:
    """A world that does not change: for replays."""

    def __init__(self, world: World) -> None:
        self._world = world

    def world(self, now: datetime) -> World:
        return self._world


class LakeFeeds:
    """Feeds that are taken into a lake: every `every` the sources are looked at, and what is new is assembled."""

    def __init__(
        self, spec: SystemSpec, root: Path, lake: Lake, catalog: Catalog, *, every: timedelta = timedelta(minutes=1)
    ) -> None:
        self._spec = elsewhere.logged(spec)
        self._lake = lake
        self._catalog = catalog
        self._every = every
        self._sources = sources_of(self._spec, root)
        self._world: World | None = None
        self._looked_at: datetime | None = None
        self.problem = ""
        """Why the last look at the sources failed; empty when it did not."""

    def world(self, now: datetime) -> World:
        """The world with everything that has come.

        What cannot be read is told in `problem` and counts as not having come, so that a damaged file in one feed
        stops neither labels nor monitors.
        """
        if self._world is None or self._looked_at is None or now - self._looked_at >= self._every:
            self._looked_at = now
            try:
                is_new, self.problem = self.ingest(now).rows_kept > 0, self._ahead(now)
            except SourceError as error:
                is_new, self.problem = True, str(error)
            if self._world is None or is_new:
                self._world = self._assemble()
        return self._world

    def ingest(self, now: datetime) -> Ingested:
        """Take in what the sources have that was not taken in before. Raises SourceError, after the rest was read."""
        with self._catalog.read() as tx:
            newest = {name: intake(tx, self._spec.system, name).newest for name in self._spec.data.feeds}
        sources = self._sources | queries_of(self._spec, newest, now)
        return ingest(self._spec, sources, self._lake, self._catalog, now=now)

    def _ahead(self, now: datetime) -> str:
        """Which queries have rows that are dated in the future. Raises SourceError."""
        found = {name: query.ahead() for name, query in queries_of(self._spec, {}, now).items()}
        return "; ".join(f"feed '{name}': {said}" for name, said in found.items() if said)

    def _assemble(self) -> World:
        tables = feed_tables(self._spec, self._lake, self._catalog)
        with self._catalog.read() as tx:
            files = lineage(tx, self._spec)
            taken = intake(tx, self._spec.system, self._spec.data.rows).files
        return make_world(self._spec, tables, files, quarantined=sum(file.quarantined for file in taken))


def make_world(
    spec: SystemSpec, tables: Mapping[str, pl.DataFrame], files: tuple[FileRef, ...] = (), *, quarantined: int = 0
) -> World:
    """A world of whole feeds."""
    timed = {name: feed.known_at for name, feed in spec.data.feeds.items() if feed.known_at is not None}
    times = {name: np.sort(microseconds(tables[name][column])) for name, column in timed.items()}
    labels = None if spec.predictions is None else labels_of(spec.data, tables)
    return World(assemble(spec.data, tables), times, files, quarantined=quarantined, labels=labels)


def sources_of(spec: SystemSpec, root: Path) -> dict[str, Source]:
    """The sources of all feeds; paths in the system file are relative to `root`."""
    files = kinds.load("sources", "files")
    return {
        name: files(path=feed.from_, root=str(root), times=_times(spec, name))
        for name, feed in spec.data.feeds.items()
        if feed.from_ and not feed.query
    } | queries_of(spec, {}, None)


class Query(Source, Protocol):
    """A source whose rows are known by their times, so that some may be dated in the future."""

    def ahead(self) -> str:
        """What is said of rows whose time has not come yet; empty where there are none. Raises SourceError."""


def queries_of(spec: SystemSpec, newest: Mapping[str, datetime | None], now: datetime | None) -> dict[str, Query]:
    """The sources that are queries; each goes on after what is newest in its feed, up to `now`."""
    return {
        name: kinds.load("sources", "sql")(
            url=feed.from_, query=feed.query, watermark=feed.known_at, after=newest.get(name), now=now
        )
        for name, feed in spec.data.feeds.items()
        if feed.query
    }


def _times(spec: SystemSpec, name: str) -> tuple[str, ...]:
    feed, label = spec.data.feeds[name], spec.data.label
    times = (feed.event_at, feed.known_at, label.known_at if name == label.feed else None)
    return tuple(time for time in times if time is not None)


def to_us(at: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (at - EPOCH) // timedelta(microseconds=1)


def microseconds(times: pl.Series) -> Times:
    """Times as microseconds since 1970 UTC (n,); the largest integer where missing."""
    return times.dt.timestamp("us").fill_null(NEVER).to_numpy().astype(np.int64)
