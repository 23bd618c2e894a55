"""What the event loop hands over to the thread that writes: rows that wait, jobs made of them, and the thread.

`serve/committing.py` decides what is handed over and when.
"""

import logging
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.core.protocols import EMPTY, Columns, Writer
from holdfast.errors import StateError

if TYPE_CHECKING:
    from holdfast.core.protocols import Matrix

log = logging.getLogger(__name__)

Done = Callable[[StateError | None], None]
"""Told once what became of rows: None lets the answer go, an error is a 503. Must not raise."""

ENTRY_BYTES = 500
"""About what rows take while they wait, beside their values."""
_TEXT_BYTES = 60


class Background(Protocol):
    """Runs jobs one after the other, away from the event loop."""

    def submit(self, job: Callable[[], None]) -> None:
        """Run it after those that were submitted before."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until all that was submitted has run; False when it has not in that time."""

    def rest(self, until: Event, at_most_s: float) -> None:
        """In a job: do nothing until that is set or the time is over."""

    def stop(self) -> None:
        """Let the thread end when it has run what was submitted; `submit` begins another."""


class BackgroundThread:
    """Runs jobs in a thread that is begun when there is the first one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Run it after those that were submitted before."""
        self._jobs.put(job)
        if self._thread is None:
            self._thread = Thread(target=self._work, args=(self._jobs,), name=self._name, daemon=True)
            self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all that was submitted has run; False when it has not in that time."""
        if self._thread is None:
            return True
        is_done = Event()
        self._jobs.put(is_done.set)
        return is_done.wait(timeout_s)

    def rest(self, until: Event, at_most_s: float) -> None:
        """In a job: do nothing until that is set or the time is over."""
        until.wait(at_most_s)

    def stop(self) -> None:
        """Let the thread end when it has run what was submitted; `submit` begins another."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread, self._jobs = None, SimpleQueue()

    @staticmethod
    def _work(jobs: "SimpleQueue[Callable[[], None] | None]") -> None:
        while (job := jobs.get()) is not None:
            job()


class Entry:
    """Rows that wait, for the thread or for a sync."""

    __slots__ = (
        "columns",
        "constants",
        "done",
        "error",
        "is_early",
        "is_settled",
        "is_written",
        "matrix",
        "rows",
        "since_s",
        "size_bytes",
    )

    def __init__(
        self,
        rows: int,
        done: Done,
        since_s: float,
        size_bytes: int,
        *,
        is_written: bool = False,
        is_early: bool = False,
    ) -> None:
        self.rows = rows
        self.done = done
        self.since_s = since_s
        self.size_bytes = size_bytes
        self.is_written = is_written
        self.is_early = is_early
        """Whether its answer went before it was written."""
        self.is_settled = False
        self.error: Exception | None = None
        self.columns: Columns = EMPTY
        self.constants: Mapping[str, Any] = EMPTY
        self.matrix: Matrix | None = None

    def keep(self, columns: Columns, constants: Mapping[str, Any], matrix: "Matrix | None") -> None:
        """Copy what is the caller's."""
        self.columns = {
            name: values.copy() if isinstance(values, np.ndarray) else list(values) for name, values in columns.items()
        }
        self.constants = constants
        self.matrix = None if matrix is None else matrix.copy()


class Job:
    """What the thread does in one go. The loop touches nothing of it between `submit` and `is_over` but to give up."""

    def __init__(
        self, entries: list[Entry], writer: Writer | None, began_s: float, *, syncs: bool, retires: bool
    ) -> None:
        self.entries = entries
        self.writer = writer
        self.began_s = began_s
        self.syncs = syncs
        self.retires = retires
        self.failure: Exception | None = None
        """Of the disk, not of single rows."""
        self.write_s = 0.0
        self.sync_s = 0.0
        self.is_sync_failed = False
        self.gather_s = 0.0
        """How long to do nothing but wait, or until it is `enough`, for more rows that the next job syncs."""
        self.enough = Event()
        self.is_given_up = False
        self.is_over = False

    @property
    def is_gathering(self) -> bool:
        """Whether it does nothing but wait."""
        return self.gather_s > 0

    def run(
        self, open_writer: Callable[[], Writer], now_s: Callable[[], float], rest: Callable[[Event, float], None]
    ) -> None:
        """Wait, open, write, sync and close, as far as each is due."""
        if self.is_gathering:
            rest(self.enough, self.gather_s)
        began_s = now_s()
        try:
            self._write(open_writer)
            self.write_s = now_s() - began_s
            if self.syncs and self.writer is not None and any(entry.is_written for entry in self.entries):
                self.is_sync_failed = True
                self.writer.sync()
                self.is_sync_failed = False
                self.sync_s = now_s() - began_s - self.write_s
        except Exception as error:  # noqa: BLE001 - a writer is a plug-in
            self.failure = error
            for entry in self.entries:
                entry.error = entry.error or error
        if self.retires and self.writer is not None:
            close_quietly(self.writer)
            self.writer = None
        self.is_over = True

    def _write(self, open_writer: Callable[[], Writer]) -> None:
        for entry in self.entries:
            if entry.is_written:
                continue
            if self.failure is not None or self.is_given_up:  # after one failure the disk is left alone for a while
                entry.error = self.failure or stalled(0.0)
                continue
            if self.writer is None:
                self.writer = open_writer()
            try:
                self.writer.append(entry.columns, entry.rows, constants=entry.constants, matrix=entry.matrix)
                entry.is_written = True
            except Exception as error:  # noqa: BLE001 - a writer is a plug-in
                entry.error = error
                if is_of_the_disk(error):
                    self.failure = error


def close_quietly(writer: Writer) -> None:
    try:
        writer.close()
    except Exception as error:  # noqa: BLE001 - a writer is a plug-in
        # Every row in it was written before it was acknowledged, and unsealed segments are read. Only at ``memory``
        # some may still wait: the lake keeps them and tries again while the process lives.
        log.warning("a segment of the lake could not be sealed: %s", error)


def stalled(for_s: float) -> StateError:
    return StateError(f"the disk below the lake has not taken rows for {for_s:.1f} s; check it")


def size_of(columns: Columns, rows: int, matrix: "Matrix | None") -> int:
    """About how much memory rows take while they wait."""
    size_bytes = ENTRY_BYTES + (0 if matrix is None else matrix.nbytes)
    for values in columns.values():
        if isinstance(values, np.ndarray):
            size_bytes += values.nbytes
        else:
            size_bytes += rows * _TEXT_BYTES + sum(len(value) for value in values if isinstance(value, str))
    return size_bytes


def is_of_the_disk(failure: Exception) -> bool:
    """Whether a write failed for what the disk is, not for what the rows are."""
    return isinstance(failure, OSError) or isinstance(failure.__cause__, OSError)
