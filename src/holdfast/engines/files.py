"""A lake on local files: each writer's own segments, rolled into Parquet by day.

<directory>/<system>/<table...>/<node>.<process>.<random>.seg.open    being written, or left by a dead writer
                                <node>.<process>.<random>.seg         sealed
                                day=2013-04-01/<random>.parquet       rolled; listed in the manifest
                                day=2013-04-01/<random>.<name>        kept with it
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from holdfast.core.clock import Clock, SystemClock
from holdfast.core.protocols import EMPTY, Columns, Field, Part, Writer
from holdfast.core.times import microseconds
from holdfast.engines.manifest import Contents, LakeFile, Manifest
from holdfast.engines.rolling import UNFINISHED, beside, place_of, roll, tables_in
from holdfast.engines.segments import (
    MOST_WAITING_BYTES,
    OPEN,
    SEALED,
    Record,
    SegmentReader,
    SegmentWriter,
    stem,
    sync_directory,
)
from holdfast.engines.tables import WRITTEN, LakeStats, checked_schema, cut, merged, rules_of
from holdfast.errors import CorruptSegment, NotFound, StateError

if TYPE_CHECKING:
    import polars as pl

    from holdfast.core.protocols import Matrix

SEGMENT_BYTES = 32 * 2**20
"""A segment of this size is sealed and the next one begun."""
SEGMENT_S = 300
"""A segment of this age, in seconds, is sealed at the next append."""
FLUSH_S = 1.0
"""How long rows may wait in memory where the lake is opened with `record="memory"`."""
READ_ROWS = 2**18
"""Rows of a part that are read at once: what a group of rows of a Parquet file holds."""
_RETRY_S = 0.1
"""How long after rows could not be written from memory that is tried again."""
_ATTEMPTS = 50


class FileLake:
    """What was observed, in files below `directory`. Processes and threads may share it; a writer is one thread's.

    `record` says when an append returns: ``process`` after write(2), so that it survives the death of the process;
    ``disk`` after fdatasync, so that it survives a power cut; ``memory`` at once, written within a second.
    """

    def __init__(
        self, directory: Path, manifest: Manifest, *, record: Record = "process", clock: Clock | None = None
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._record: Record = record
        self._clock = clock or SystemClock()
        self._newest = 0
        self._ticking = Lock()
        self._writers: set[_FileWriter] = set()
        self._readers: dict[tuple[str, str], dict[str, SegmentReader]] = {}
        self._contents: dict[tuple[str, str], Contents] = {}
        self._reading = Lock()
        self._rows_of_closed = 0
        self._rolled = 0
        self._is_closed = False
        self._closing = Event()
        self._flushing = Event()
        self._flusher: Thread | None = None

    def writer(self, table: str, system: str, schema: Sequence[Field]) -> Writer:
        """A writer with a segment of its own. Raises NotFound, or StateError for a schema or place that will not do."""
        self._must_be_open()
        writer = _FileWriter(self, table, system, checked_schema(table, schema))
        with self._ticking:
            self._writers.add(writer)
            if self._record == "memory" and self._flusher is None:
                self._flusher = Thread(target=self._flush_each_second, name="lake-flush", daemon=True)
                self._flusher.start()
        return writer

    def scan(
        self, table: str, system: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> "pl.DataFrame":
        """Rows with since <= time < until, ordered by time and then by writing. Raises CorruptSegment."""
        rules, low, high = rules_of(table), _bound(since), _bound(until)
        _, frames = self._seen(table, system, low, high, lambda file: self._from_file(file, rules.time, low, high))
        return _without_writing(merged(rules, frames))

    def parts(
        self, table: str, system: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> "tuple[Sequence[Part], Callable[[], pl.DataFrame]]":
        """Files with rows near since <= time < until, and what gives the rows that are still in segments."""
        rules, low, high = rules_of(table), _bound(since), _bound(until)
        contents, frames = self._seen(table, system, low, high)
        near = [file for file in contents.files if _is_near(file, low, high)]
        parts = [
            Part(system=system, table=table, name=file.path, rows=file.rows, low=file.low, high=file.high)
            for file in near
        ]
        return parts, lambda: _without_writing(merged(rules, frames))

    def read_part(self, part: Part, columns: Sequence[str]) -> "Iterator[pl.DataFrame]":
        """Rows of a file in groups. Raises NotFound when it was rolled into another, CorruptSegment."""
        import polars as pl  # heavy; a process that only writes never needs it

        self._must_be_open()
        path = self._directory / part.name
        rows = pl.scan_parquet(path, hive_partitioning=False, glob=False)
        chosen = rows.select(pl.selectors.by_name(*columns, require_all=False))
        try:
            for at in range(0, part.rows, READ_ROWS):
                yield chosen.slice(at, READ_ROWS).collect()
        except FileNotFoundError as failure:
            raise NotFound("part of the lake", part.name) from failure
        except pl.exceptions.PolarsError as failure:
            raise _damaged(path, failure) from failure

    def keep(self, part: Part, name: str, data: bytes) -> None:
        """Write a file beside that of the part, whole or not at all unless the power is cut. Raises StateError."""
        self._must_be_open()
        path = beside(self._directory / part.name, name)
        unfinished = beside(self._directory / part.name, f"{secrets.token_hex(4)}{UNFINISHED}")
        if not (self._directory / part.name).exists():
            return
        try:
            unfinished.write_bytes(data)
            unfinished.rename(path)
        except FileNotFoundError:
            return  # the part was deleted meanwhile, and this with it
        except OSError as failure:
            unfinished.unlink(missing_ok=True)
            raise StateError(
                f"{path} cannot be written: {failure.strerror or failure}; free space on this disk or check it. "
                "What it holds can be made again, no row is lost"
            ) from failure

    def kept(self, part: Part, name: str) -> bytes | None:
        """What lies beside the file of the part."""
        self._must_be_open()
        try:
            return beside(self._directory / part.name, name).read_bytes()
        except OSError:
            return None

    def _seen(
        self,
        table: str,
        system: str,
        low: int | None,
        high: int | None,
        read: "Callable[[LakeFile], pl.DataFrame] | None" = None,
    ) -> "tuple[Contents, list[pl.DataFrame]]":
        """What makes up a table at one moment: the manifest, and the rows of segments and of what `read` gives."""
        self._must_be_open()
        place = place_of(self._directory, system, table)
        self.flush()
        for _ in range(_ATTEMPTS):
            contents = self._contents_of(system, table, is_checked=read is not None)
            before = _segments_in(place)
            try:
                with self._reading:
                    frames = self._from_segments(system, table, before, contents.rolled, low, high)
                frames += [read(file) for file in contents.files] if read is not None else []
            except FileNotFoundError:
                self._contents.pop((system, table), None)
                continue  # sealed, rolled or deleted meanwhile: look again
            # While a name changes, a listing may show neither the old one nor the new; a second one then shows it.
            is_same = _segments_in(place).keys() <= before.keys()
            if is_same and self._manifest.generation(system, table) == contents.generation:
                return contents, frames
            self._contents.pop((system, table), None)
        raise StateError(
            f"lake table '{table}' of '{system}' lists a file below {place} that is not there, or it never stays "
            "still: restore the file from a backup, or stop what rolls this lake without pause"
        )

    def roll(self) -> int:
        """Turn sealed segments, and those of dead writers, into Parquet; returns how many. One process at a time."""
        self._must_be_open()
        rolled = roll(self._directory, self._manifest)
        self._rolled += rolled
        return rolled

    def flush(self) -> None:
        """Write what waits in memory. Nothing waits unless the lake was opened with `record="memory"`."""
        if self._record == "memory":
            for writer in tuple(self._writers):
                writer.flush()

    def stats(self) -> LakeStats:
        """Rows and segments as of now; walks the directory."""
        tables = list(tables_in(self._directory))
        contents = {each: self._manifest.contents(*each) for each in tables}
        segments = {each: _segments_in(place_of(self._directory, *each)) for each in tables}
        waiting = [
            path for each in tables for name, path in segments[each].items() if name not in contents[each].rolled
        ]
        return LakeStats(
            rows_written=self._rows_of_closed + sum(writer.rows for writer in tuple(self._writers)),
            segments_open=sum(path.name.endswith(OPEN) for path in waiting),
            segments_sealed=sum(path.name.endswith(SEALED) for path in waiting),
            segments_rolled=self._rolled,
            files=sum(len(each.files) for each in contents.values()),
        )

    def close(self) -> None:
        """Seal the segments of writers that are still open, and refuse further use."""
        if self._is_closed:
            return
        self._closing.set()
        self._flushing.set()
        if self._flusher is not None:
            self._flusher.join()
        for writer in tuple(self._writers):
            writer.close()
        self._is_closed = True

    def _contents_of(self, system: str, table: str, *, is_checked: bool) -> Contents:
        """The manifest of a table, read again when it has changed; unchecked, what was read last may be old."""
        held = self._contents.get((system, table))
        if held is None or (is_checked and held.generation != self._manifest.generation(system, table)):
            held = self._contents[system, table] = self._manifest.contents(system, table)
        return held

    def _from_segments(
        self, system: str, table: str, paths: dict[str, Path], rolled: frozenset[str], low: int | None, high: int | None
    ) -> "list[pl.DataFrame]":
        held = self._readers.setdefault((system, table), {})
        for name in held.keys() - (paths.keys() - rolled):
            del held[name]
        frames = []
        for name in paths.keys() - rolled:
            reader = held.pop(name, None) or SegmentReader(table)
            reader.read(paths[name], is_sealed=paths[name].name.endswith(SEALED))
            held[name] = reader  # kept only once it was read without an error
            if len(reader.times):
                frames.append(cut(reader.frame(), reader.times, low, high))
        return frames

    def _from_file(self, file: LakeFile, time: str, low: int | None, high: int | None) -> "pl.DataFrame":
        import polars as pl  # heavy; a process that only writes never needs it

        if not _is_near(file, low, high):
            return pl.DataFrame()
        rows = pl.scan_parquet(self._directory / file.path, hive_partitioning=False, glob=False)
        if low is not None and low > file.low:
            rows = rows.filter(pl.col(time) >= pl.lit(low).cast(pl.Datetime("us", "UTC")))
        if high is not None and high <= file.high:
            rows = rows.filter(pl.col(time) < pl.lit(high).cast(pl.Datetime("us", "UTC")))
        try:
            return rows.collect()
        except pl.exceptions.PolarsError as failure:
            raise _damaged(self._directory / file.path, failure) from failure

    def _now(self) -> int:
        """Microseconds, greater at every call, so that what this process writes has an order."""
        now = microseconds(self._clock.now())
        with self._ticking:
            self._newest = now = now if now > self._newest else self._newest + 1
        return now

    def _flush_each_second(self) -> None:
        while not self._closing.is_set():
            self._flushing.wait(FLUSH_S)
            self._flushing.clear()
            is_done = [writer.flush_if_possible() for writer in tuple(self._writers)]
            if not all(is_done):
                self._closing.wait(_RETRY_S)

    def _forget(self, writer: "_FileWriter") -> None:
        with self._ticking:
            self._rows_of_closed += writer.rows
            self._writers.discard(writer)

    def _must_be_open(self) -> None:
        if self._is_closed:
            raise StateError("this lake is closed; open it again to read or write")


class _FileWriter:
    """Appends to one segment after the other."""

    def __init__(self, lake: FileLake, table: str, system: str, schema: tuple[Field, ...]) -> None:
        self.rows = 0
        """Recorded so far."""
        self._lake = lake
        self._table = table
        self._place = place_of(lake._directory, system, table)
        self._schema = schema
        self._is_closed = False
        self._is_synced = False
        """True once somebody asked for a sync: segments are then synced before they get their final name."""
        self._ended: list[SegmentWriter] = []
        """Segments that are full or broken, and not known to be on the disk."""
        self._sealed: list[Path] = []
        """Segments that were sealed before anybody asked for a sync."""
        self._changing = Lock()
        self._syncing = Lock()
        self._segment: SegmentWriter | None = self._begun()

    def append(
        self, columns: Columns, rows: int, *, constants: Mapping[str, Any] = EMPTY, matrix: "Matrix | None" = None
    ) -> None:
        now = self._lake._now()
        segment = self._segment
        if (
            segment is None
            or segment.is_broken
            or segment.size_bytes >= SEGMENT_BYTES
            or now - segment.started >= SEGMENT_S * 1_000_000
        ):
            segment, now = self._next(), self._lake._now()
        segment.append(columns, rows, at=now, constants=constants, matrix=matrix)
        self.rows += rows
        if segment.waiting_bytes >= MOST_WAITING_BYTES:
            self._lake._flushing.set()

    def sync(self) -> None:
        with self._syncing:
            with self._changing:
                self._is_synced = True
                ended, sealed, current = tuple(self._ended), tuple(self._sealed), self._segment
            failures = [self._synced(segment) for segment in ended]
            for path in sealed:
                self._sealed.remove(path)
                _sync_sealed(path)
            if current is not None:
                current.sync()
            for failure in failures:
                if failure is not None:
                    raise failure

    def flush(self) -> None:
        if self._segment is not None:
            self._segment.flush()

    def flush_if_possible(self) -> bool:
        """Flush; rows that cannot be written stay in memory, and the next append, scan or close says why."""
        try:
            self.flush()
        except StateError:
            return False
        return True

    def close(self) -> None:
        if self._is_closed:
            return
        try:
            self._end()
        except StateError:
            segment = self._segment
            if segment is not None and not segment.waiting_bytes:
                # All its rows are written. Let go of it: it is read, and sealed, as that of a dead writer.
                self._segment = None
                segment.abandon()
                self._is_closed = True
                self._lake._forget(self)
            raise
        self._is_closed = True
        self._lake._forget(self)
        if self._is_synced:
            self.sync()

    def _next(self) -> SegmentWriter:
        """The segment to append to, where the one so far is missing, broken, large or old."""
        if self._is_closed:
            raise StateError(f"this writer of lake table '{self._table}' is closed; open another one")
        segment = self._segment
        if segment is not None and segment.is_writing and not segment.is_broken:
            return segment  # the disk is busy with it; to end it now would be to wait for that
        self._end()
        self._segment = self._begun()
        return self._segment

    def _begun(self) -> SegmentWriter:
        return SegmentWriter(self._place, self._table, self._schema, record=self._lake._record, now=self._lake._now)

    def _end(self) -> None:
        """Part with the segment. Where its end cannot be written, its rows stay and it goes on."""
        segment = self._segment
        if segment is None:
            return
        if segment.is_broken:
            with self._changing:
                self._segment = None
                if self._is_synced and not segment.is_synced:
                    self._ended.append(segment)
                    return
            segment.abandon()
        elif not segment.rows:
            self._segment = None
            segment.discard()
        else:
            segment.end()
            with self._changing:
                self._segment = None
                if self._is_synced:
                    self._ended.append(segment)
                else:
                    self._sealed.append(segment.seal())

    def _synced(self, segment: SegmentWriter) -> StateError | None:
        """Sync a segment that is over, and let go of it; returns why that failed."""
        try:
            segment.sync()
        except StateError as failure:
            segment.abandon()
            return failure
        else:
            with suppress(OSError):  # the rows are safe under either name
                sync_directory(segment.seal().parent)
            return None
        finally:
            with self._changing:
                self._ended.remove(segment)


def _sync_sealed(path: Path) -> None:
    """Sync a segment by its name; one that was rolled meanwhile is in a file that was synced."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fdatasync(fd)
        for each in (path.parent, *path.parent.parents[:4]):
            sync_directory(each)
    except OSError as failure:
        raise StateError(
            f"{path} cannot be synced: {failure.strerror}; check this disk. Its rows may not survive a power cut"
        ) from failure
    finally:
        os.close(fd)


def _bound(at: datetime | None) -> int | None:
    return None if at is None else microseconds(at)


def _is_near(file: LakeFile, low: int | None, high: int | None) -> bool:
    return (low is None or file.high >= low) and (high is None or file.low < high)


def _without_writing(frame: "pl.DataFrame") -> "pl.DataFrame":
    return frame.drop(WRITTEN) if frame.width else frame


def _damaged(path: Path, failure: Exception) -> CorruptSegment:
    return CorruptSegment(f"{path} cannot be read as Parquet ({failure}); restore it from a backup")


def _segments_in(place: Path) -> dict[str, Path]:
    """Segments by name; where one is seen under both names, the sealed one."""
    try:
        names = sorted((name for name in os.listdir(place) if name.endswith((SEALED, OPEN))), reverse=True)
    except FileNotFoundError:
        return {}
    return {stem(path): path for path in (place / name for name in names)}
