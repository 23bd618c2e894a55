"""One segment file: written by one process, read by any, whole up to its last acknowledged frame after any crash.

The writer holds an advisory lock on its open file. The kernel drops it when the process dies, however it dies and
in whatever container, so a segment that can be locked has no writer any more.
"""

import errno
import fcntl
import os
import re
import secrets
import socket
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from holdfast.core.protocols import EMPTY, Columns, Field
from holdfast.engines.frames import (
    DATA,
    END,
    HEADER_BYTES,
    SCHEMA,
    VERSION,
    Encoder,
    Frame,
    decode,
    decode_schema,
    encode,
    encode_schema,
    frame_at,
    has_frame_after,
    other_version,
)
from holdfast.engines.tables import WRITTEN, rules_of, series
from holdfast.errors import CorruptSegment, OtherFormat, StateError

if TYPE_CHECKING:
    import polars as pl

    from holdfast.core.protocols import Matrix

MOST_WAITING_BYTES = 4 * 2**20
"""Rows waiting in memory are to be written when there are this many bytes of them, however young they are."""

OPEN, SEALED = ".seg.open", ".seg"

Record = Literal["process", "disk", "memory"]
"""When an append returns: written with write(2), synced to the disk, or kept to be written within a second."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SegmentWriter:
    """Appends frames to a new segment file in `directory`. Raises StateError when it cannot be made.

    One thread appends, seals and lets go; any may `sync` and `flush` meanwhile.
    """

    def __init__(
        self, directory: Path, table: str, schema: tuple[Field, ...], *, record: Record, now: Callable[[], int]
    ) -> None:
        self.rows = 0
        self.started = now()
        self.size_bytes = 0
        """Bytes of the segment, written and waiting."""
        self.waiting_bytes = 0
        self.is_broken = False
        """True once nothing more can be trusted to reach this file."""
        self._table = table
        self._record = record
        self._now = now
        self._encoder = Encoder(table, schema)
        self._sequence = 0
        self._written_bytes = 0
        self._synced_bytes = 0
        self._waiting: list[bytes] = []
        self._adding = Lock()
        self._writing = Lock()
        self._is_placed = False
        self._is_closed = False
        self._path, self._fd = _create(directory)
        payload = encode_schema(schema)
        self._schema = zlib.crc32(payload)
        try:
            self._write(self._next(SCHEMA, payload, self.started))
            if record == "disk":
                self._place()
        except BaseException:
            self._path.unlink(missing_ok=True)  # a disk that is full must not be littered with empty files too
            os.close(self._fd)
            raise
        self._sequence = 1
        self.size_bytes = self._written_bytes

    @property
    def is_writing(self) -> bool:
        """Whether another thread is writing what waited in memory."""
        return self._writing.locked()

    def append(
        self,
        columns: Columns,
        rows: int,
        *,
        at: int,
        constants: Mapping[str, Any] = EMPTY,
        matrix: "Matrix | None" = None,
    ) -> None:
        """Record rows as one frame written at `at`. After a StateError nothing of them is in the segment."""
        payload = self._encoder.payload(columns, rows, constants=constants, matrix=matrix)
        if rows == 0:
            return
        frame = self._next(DATA, payload, at, rows)
        if self._record == "memory":
            self._keep(frame)
        else:
            self._write(frame)
        self.size_bytes += HEADER_BYTES + len(payload)
        self._sequence += 1
        self.rows += rows

    def flush(self) -> None:
        """Write what waits in memory."""
        if self._record == "memory":
            with self._writing:
                self._flush()

    def sync(self) -> None:
        """Make all that was appended before survive a power cut. Raises StateError where that is not known."""
        self.flush()
        with self._writing:
            if self._is_closed:
                return
            fd, upto = os.dup(self._fd), self._written_bytes
        try:
            if self.is_broken:  # a sync of it failed, and what was appended since has the same gap before it
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            os.fdatasync(fd)
            self._place()
        except OSError as failure:
            # The kernel may have dropped pages, so nothing later in this file could be trusted.
            self.is_broken = True
            raise self._said(failure, "What was written since the last sync may not survive a power cut") from failure
        finally:
            self._synced_bytes = upto
            os.close(fd)

    @property
    def is_synced(self) -> bool:
        """Whether every byte was synced, or said not to be."""
        return self._synced_bytes == self._written_bytes and not self._waiting

    def end(self) -> None:
        """Write what waits and the end frame."""
        self.flush()
        self._write(self._next(END, b"", self._now()))

    def seal(self) -> Path:
        """Give the ended file its final name and let go of it. Returns the name."""
        sealed = self._path.with_name(stem(self._path) + SEALED)
        try:
            os.rename(self._path, sealed)
        finally:
            self.abandon()
        return sealed

    def discard(self) -> None:
        """Delete the segment, which has no rows."""
        self._path.unlink(missing_ok=True)
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is; it will be read as that of a dead writer."""
        with self._writing:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._fd)

    def _next(self, kind: int, payload: bytes, at: int, rows: int = 0) -> tuple[bytes, bytes]:
        return encode(kind, payload, schema=self._schema, rows=rows, sequence=self._sequence, written=at)

    def _keep(self, frame: tuple[bytes, bytes]) -> None:
        if self.waiting_bytes >= 2 * MOST_WAITING_BYTES:  # the disk is full or slow, and must not fill the memory too
            if not self._writing.acquire(blocking=False):
                busy = OSError(errno.EAGAIN, "the disk does not keep up")
                raise self._said(busy, "Nothing of these rows was kept") from busy
            try:
                self._flush()
            finally:
                self._writing.release()
        with self._adding:
            self._waiting += frame
            self.waiting_bytes += len(frame[0]) + len(frame[1])

    def _flush(self) -> None:
        """Write what waits, while appends go on. Only under `_writing`."""
        if self._is_closed:
            return  # the number of the file may be that of another one by now
        with self._adding:
            count = len(self._waiting)
            joined = b"".join(self._waiting)
        if count:
            self._write((joined, b""))
            with self._adding:
                del self._waiting[:count]
                self.waiting_bytes -= len(joined)

    def _write(self, parts: tuple[bytes, bytes]) -> None:
        length = len(parts[0]) + len(parts[1])
        try:
            written = os.writev(self._fd, parts)
            while written < length:  # a disk that fills up takes a part first
                written += os.write(self._fd, b"".join(parts)[written:])
            if self._record == "disk":
                os.fdatasync(self._fd)
        except OSError as failure:
            raise self._undone(failure) from failure
        self._written_bytes += length

    def _place(self) -> None:
        """Sync the directories that name the file: whichever of them were made for it."""
        if not self._is_placed:
            directory = self._path.parent
            for each in (directory, *directory.parents[:4]):
                sync_directory(each)
            self._is_placed = True

    def _undone(self, failure: OSError) -> StateError:
        # After a failed sync the kernel may have dropped pages, so nothing later in this file could be trusted.
        self.is_broken = self.is_broken or (self._record == "disk" and failure.errno not in _FULL)
        try:
            os.ftruncate(self._fd, self._written_bytes)
        except OSError:
            self.is_broken = True
        return self._said(failure, "Nothing of these rows was recorded")

    def _said(self, failure: OSError, outcome: str) -> StateError:
        todo = "free space on" if failure.errno in _FULL else "check"
        return StateError(
            f"cannot record to lake table '{self._table}': {self._path}: {failure.strerror}; "
            f"{todo} this disk, then try again. {outcome}"
        )


class SegmentReader:
    """Reads one segment as it grows: each `read` decodes only what was added since. Raises CorruptSegment,
    and of it OtherFormat where the segment is not damaged but of another format version."""

    def __init__(self, table: str) -> None:
        self.times: np.ndarray[Any, np.dtype[np.int64]] = np.empty(0, np.int64)
        self.first_written = 0
        self.sequence = 0
        self.offset = 0
        """Where the last whole frame ends."""
        self.is_ended = False
        self._time = rules_of(table).time
        self._schema: tuple[Field, ...] = ()
        self._schema_id = 0
        self._frames: list[pl.DataFrame] = []

    def read(self, path: Path, *, is_sealed: bool) -> None:
        """Take in what `path` holds beyond `offset`. Raises FileNotFoundError when it was renamed or deleted."""
        with path.open("rb") as file:
            file.seek(self.offset)
            data = memoryview(file.read())
        frames: list[Frame] = []
        at = 0
        while at < len(data):
            frame = frame_at(data, at)
            if frame is None or not self._follows(frame):
                is_followed = has_frame_after(data, at)
                version = other_version(data, at) if self.sequence == 0 and not is_followed else None
                if version is not None:
                    raise _of_other_format(path, version)
                if is_sealed or frame is not None or is_followed:
                    raise damaged(path, self.offset)
                break  # the torn end of a segment whose writer died, or is writing right now
            if frame.kind == SCHEMA:
                self._schema, self._schema_id = decode_schema(frame.payload), frame.schema
            elif frame.kind == DATA:
                frames.append(frame)
            self.is_ended = frame.kind == END
            self.sequence += 1
            self.offset += frame.end - at
            at = frame.end
        if is_sealed and not self.is_ended:
            raise damaged(path, self.offset)
        if frames:
            self._add(frames)

    def frame(self) -> "pl.DataFrame":
        """All rows so far in the order they were appended, with when each was written."""
        import polars as pl  # heavy; writers never need it

        if len(self._frames) != 1:
            self._frames = [pl.concat(self._frames, rechunk=True)] if self._frames else [pl.DataFrame()]
        return self._frames[0]

    def _follows(self, frame: Frame) -> bool:
        if frame.sequence != self.sequence or self.is_ended:
            return False
        return frame.kind == SCHEMA if frame.sequence == 0 else frame.schema == self._schema_id

    def _add(self, frames: list[Frame]) -> None:
        import polars as pl

        columns = decode(self._schema, frames)
        written = (
            np.repeat([frame.written for frame in frames], [frame.rows for frame in frames]),
            np.concatenate([np.arange(frame.rows) for frame in frames]),
        )
        self.first_written = self.first_written or frames[0].written
        self.times = np.concatenate((self.times, columns[self._time]))
        built = [series(field, columns[field.name]) for field in self._schema]
        self._frames = [frame for frame in self._frames if frame.width]
        order = [pl.Series(name, values, dtype=pl.Int64) for name, values in zip(WRITTEN, written, strict=True)]
        self._frames.append(pl.DataFrame([*built, *order]))


def recover(path: Path, table: str) -> Path | None:
    """Seal the open segment of a dead writer, its torn end cut off; None while the writer lives."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        return None
    try:
        if not _locked(fd) or not _is_same(fd, path):
            return None
        reader = SegmentReader(table)
        reader.read(path, is_sealed=False)
        os.ftruncate(fd, reader.offset)
        if not reader.is_ended and reader.sequence > 0:
            header, _ = encode(END, b"", schema=reader._schema_id, sequence=reader.sequence, written=0)
            os.write(fd, header)
        if reader.sequence == 0:  # it died before the schema was written, so there is no row in it
            os.unlink(path)
            return None
        sealed = path.with_name(stem(path) + SEALED)
        os.rename(path, sealed)
        return sealed
    finally:
        os.close(fd)


def stem(path: Path) -> str:
    """The name of a segment without what says whether it is sealed."""
    return path.name.removesuffix(".open").removesuffix(SEALED)


def damaged(path: Path, offset: int) -> CorruptSegment:
    """The error for recorded bytes that are not what was written."""
    return CorruptSegment(
        f"{path}: the frame at byte {offset} is damaged or missing. The rows before it are intact; to read on without "
        f"the segment, copy it elsewhere, then cut this file there (`truncate -s {offset}`) "
        f"and name it '{stem(path)}{OPEN}'"
    )


def _of_other_format(path: Path, version: int) -> OtherFormat:
    return OtherFormat(
        f"{path} was written in segment format {version}, this program reads format {VERSION}. Nothing of it is "
        "damaged or lost, leave it as it is: start the version of Holdfast that wrote it once more on this state "
        "(`holdfast up`), so that it rolls its segments into Parquet files, which this program reads"
    )


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _create(directory: Path) -> tuple[Path, int]:
    node = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname()) or "node"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        while True:
            path = directory / f"{node}.{os.getpid()}.{secrets.token_hex(6)}{OPEN}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
            # Between creating and locking, another process may have taken the file for a dead writer's.
            if _locked(fd) and _is_same(fd, path):
                return path, fd
            os.close(fd)
    except OSError as failure:
        raise StateError(
            f"cannot make a segment in {directory}: {failure.strerror}; check that it is writable and has space"
        ) from failure


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
