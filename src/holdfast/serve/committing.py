"""When an answer may go out: rows put into one segment of the lake by the durability and the policy of the file.

Out: `Committer`. It knows nothing of what the rows say; `serve/recording.py` does.
"""

import errno
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from holdfast.core.clock import stopwatch_s
from holdfast.core.protocols import EMPTY, Columns, Writer
from holdfast.errors import StateError
from holdfast.serve.handover import (
    ENTRY_BYTES,
    Background,
    BackgroundThread,
    Done,
    Entry,
    Job,
    close_quietly,
    is_of_the_disk,
    size_of,
    stalled,
)

if TYPE_CHECKING:
    from holdfast.core.protocols import Matrix

log = logging.getLogger(__name__)

Record = Literal["process", "disk", "memory", "none"]
OnFailure = Literal["refuse", "shed"]
SLOW_S = 0.25
"""A write on the event loop that takes longer hands writing over to the thread."""
WAIT_S = 1.0
"""Longest time that rows wait for the disk before they are refused or shed."""
CALM_S = 1.0
"""How long writes must have been quick before they are done on the event loop again."""
RETRY_S = 0.1
"""After a write failed, rows are refused or shed for this long before the disk is tried again."""
DRAIN_S = 5.0
"""Longest time that closing waits for a disk that does not answer."""
FEW = 4
"""With fewer requests than this at a time a sync is begun at once; with more it waits a little for the others."""
GATHER_S = 0.002
"""Longest time that it waits, and never longer than half of what the last sync took."""
MOST_WAITING_BYTES = 8 * 2**20
"""Most bytes of rows, about, that wait for the thread."""


class Committer:
    """Puts rows into one segment of the lake and says when an answer may go out. Owned by the event loop's thread.

    `open_writer` opens a segment of a lake whose own durability is ``memory`` for ``memory`` and ``process`` for all
    others: syncs are asked for here. `call_soon` runs a function on the event loop, from any thread
    (``loop.call_soon_threadsafe``). Without it every append is synchronous: written, and at ``disk`` synced, and done
    before it returns.

    What is recorded when ``done(None)`` is called, by `record`:

    - ``process``: the rows are written with write(2).
    - ``disk``: they are synced too. One sync serves all rows that were appended before it began (group commit); while
      it runs, the next group collects. Where several clients each send their next row when they are answered, the
      sync after that waits a little for them: the first would have one of its own, and the others would wait for two.
    - ``memory``: the lake has them in memory and writes them within a second, or when 4 MiB wait.
    - ``none``: nothing; the rows are only counted as sent.

    Who writes. There is one writer, and at any time either the loop or the thread may use it:

    - *inline*: each append is written at once on the caller's thread, which is what is fastest. At ``disk`` the thread
      only syncs. This goes on until a write takes longer than `slow_s`, the segment is rotated, or rows have waited too
      long: then *handed over*.
    - *handed over*: appends wait in a queue bounded in bytes, the thread takes all that wait as one job: opens a
      writer where there is none, writes, at ``disk`` syncs. This is where a committer begins, and where it begins each
      segment, so that a process that comes up on a disk that hangs answers rather than hangs. Once a job succeeded and
      no write was slow for `calm_s`: *inline*.
    - *given up*: rows have waited longer than `wait_s`. All that wait are refused or shed, and new ones are at once,
      until the job that hangs is over; then *handed over*. `look` notices this when no rows come.

    A write or sync that fails (a full disk, an I/O error) refuses or sheds its rows and opens an *episode*, said once
    in the log: for `retry_s` rows are refused or shed without trying, then the next append tries again. The first
    success closes it. Rows that the writer refuses for what they are open none.

    One inline write cannot be interrupted: where it hangs the loop hangs with it, and whoever watches the process
    replaces it. A row that was refused may still be in the lake, when its write came through after all (`late`); a
    row that was acknowledged is there.

    Always: ``sent == written + shed + lost + waiting_rows``, but at ``none``, where only `sent` counts.
    """

    def __init__(
        self,
        open_writer: Callable[[], Writer],
        *,
        record: Record,
        on_failure: OnFailure = "refuse",
        call_soon: Callable[[Callable[[], None]], object] | None = None,
        now_s: Callable[[], float] = stopwatch_s,
        background: Background | None = None,
        slow_s: float = SLOW_S,
        wait_s: float = WAIT_S,
        calm_s: float = CALM_S,
        retry_s: float = RETRY_S,
        most_waiting_bytes: int = MOST_WAITING_BYTES,
    ) -> None:
        self.sent = 0
        """Rows given to `append`."""
        self.written = 0
        """Rows recorded as `record` says, before or when their answer went."""
        self.shed = 0
        """Rows answered without being recorded."""
        self.lost = 0
        """Rows refused; none of them was answered."""
        self.late = 0
        """Rows among `shed` and `lost` that are known to be recorded after all."""
        self.waiting_rows = 0
        """Rows accepted and not yet recorded."""
        self.waiting_bytes = 0
        self._open_writer = open_writer
        self._record = record
        self._is_shedding = on_failure == "shed"
        self._call_soon = call_soon
        self._now_s = now_s
        self._background = background or BackgroundThread("lake-commit")
        self._slow_s, self._wait_s, self._calm_s, self._retry_s = slow_s, wait_s, calm_s, retry_s
        self._most_waiting_bytes = most_waiting_bytes
        self._writer: Writer | None = None
        self._opened_s = 0.0
        self._is_inline = False
        self._calm_from_s = float("-inf")
        self._queue: deque[Entry] = deque()
        self._job: Job | None = None
        self._is_retiring = False
        self._at_a_time = 0
        self._sync_s = 0.0
        self._episode: _Episode | None = None

    def append(
        self,
        columns: Columns,
        rows: int,
        *,
        constants: Mapping[str, Any] = EMPTY,
        matrix: "Matrix | None" = None,
        done: Done,
    ) -> None:
        """Record rows, given as to `Writer.append`; `columns` and `matrix` are the caller's again when it returns.

        `done` is called once: before this returns, or later on the event loop.
        """
        self.sent += rows
        if self._record == "none":
            done(None)
        elif self._call_soon is None:
            self._append_and_sync(columns, rows, constants, matrix, done)
        elif self._episode is not None and self._now_s() < self._episode.retry_s:
            self._refuse(rows, done, self._episode.cause)
        elif self._is_inline:
            self._append_inline(columns, rows, constants, matrix, done)
        else:
            self._append_later(columns, rows, constants, matrix, done)

    @property
    def lag_s(self) -> float:
        """Age in seconds of the oldest row that was accepted and is not yet recorded; 0 when there is none."""
        oldest_s = self._oldest_s()
        return 0.0 if oldest_s is None else self._now_s() - oldest_s

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and no segment is open, so that `close` has nothing to wait for."""
        return self._writer is None and self._job is None and not self._queue

    def look(self) -> None:
        """Refuse or shed what has waited too long. To be called every 50 ms or so."""
        if self._record != "memory" and self.lag_s > self._wait_s:
            self._give_up()

    def rotate(self, older_than_s: float) -> None:
        """Seal the segment if it was opened longer ago than this. The thread does it, and opens the next one."""
        self.look()
        if self._writer is None or self._now_s() - self._opened_s < older_than_s:
            return
        if self._call_soon is None:
            self._close_writer()
        else:
            self._is_retiring = True
            if self._job is None:
                self._send()

    def close(self, drain_s: float = DRAIN_S) -> None:
        """Write what waits and seal the segment. What the disk does not take in time is refused or shed, and said.

        May be called when the event loop is over. The committer may be used again; it opens another segment.
        """
        if self._call_soon is None:
            self._close_writer()
            return
        deadline_s = self._now_s() + drain_s
        while self._job is not None or self._queue or self._writer is not None:
            if self._job is None:
                self._is_retiring = True
                self._send()
            if not self._background.wait(max(deadline_s - self._now_s(), 0.0)):
                self._give_up()
                log.error("the disk took nothing for %.1f s: the last segment is left as it is, unsealed", drain_s)
                break
            self._collect()
        self._is_retiring = False
        self._background.stop()

    def _append_inline(
        self, columns: Columns, rows: int, constants: Mapping[str, Any], matrix: "Matrix | None", done: Done
    ) -> None:
        began_s = self._now_s()
        if self.waiting_bytes + ENTRY_BYTES > self._most_waiting_bytes:
            self._refuse(rows, done, stalled(self.lag_s))
            return
        failure = self._write(columns, rows, constants, matrix, began_s)
        if failure is not None:
            self._failed(failure)
            self._refuse(rows, done, failure)
        elif self._record == "disk":
            self._queue_up(Entry(rows, done, began_s, ENTRY_BYTES, is_written=True))
            self.look()
        else:
            if self._episode is not None:
                self._succeeded()
            self.written += rows
            done(None)

    def _write(
        self, columns: Columns, rows: int, constants: Mapping[str, Any], matrix: "Matrix | None", began_s: float
    ) -> Exception | None:
        """Write on this thread; returns why that failed. Where it was slow, the next one is the thread's."""
        assert self._writer is not None
        failure = None
        try:
            self._writer.append(columns, rows, constants=constants, matrix=matrix)
        except Exception as error:  # noqa: BLE001 - a writer is a plug-in
            failure = error
        if self._now_s() - began_s > self._slow_s:
            self._hand_over()
        return failure

    def _append_and_sync(
        self, columns: Columns, rows: int, constants: Mapping[str, Any], matrix: "Matrix | None", done: Done
    ) -> None:
        try:
            if self._writer is None:
                self._writer, self._opened_s = self._open_writer(), self._now_s()
            self._writer.append(columns, rows, constants=constants, matrix=matrix)
            if self._record == "disk":
                self._writer.sync()
        except Exception as failure:  # noqa: BLE001 - a writer is a plug-in
            self._failed(failure)
            self._refuse(rows, done, failure)
            return
        self._succeeded()
        self.written += rows
        done(None)

    def _append_later(
        self, columns: Columns, rows: int, constants: Mapping[str, Any], matrix: "Matrix | None", done: Done
    ) -> None:
        self.look()
        size_bytes = size_of(columns, rows, matrix)
        if self._job is not None and self._job.is_given_up:
            self._refuse(rows, done, stalled(self._now_s() - self._job.began_s))
        elif self.waiting_rows and self.waiting_bytes + size_bytes > self._most_waiting_bytes:
            self._refuse(rows, done, stalled(self.lag_s))
        else:
            entry = Entry(rows, done, self._now_s(), size_bytes, is_early=self._record == "memory")
            entry.keep(columns, constants, matrix)
            self._queue_up(entry)
            if entry.is_early:
                done(None)

    def _queue_up(self, entry: "Entry") -> None:
        self.waiting_rows += entry.rows
        self.waiting_bytes += entry.size_bytes
        self._queue.append(entry)
        if self._job is None:
            self._send_or_gather()
        elif self._job.is_gathering and len(self._queue) >= self._at_a_time:
            self._job.enough.set()

    def _send_or_gather(self) -> None:
        """Begin the next sync, or first wait for those who were just answered to come back."""
        if not self._is_inline or self._at_a_time < FEW or len(self._queue) >= self._at_a_time or self._is_retiring:
            self._send()
            return
        self._job = job = Job([], self._writer, self._now_s(), syncs=False, retires=False)
        job.gather_s = min(self._sync_s / 2, GATHER_S)
        self._background.submit(lambda: self._run(job))

    def _send(self) -> None:
        """Give the thread all that waits as one job."""
        job = Job(
            list(self._queue), self._writer, self._now_s(), syncs=self._record == "disk", retires=self._is_retiring
        )
        self._queue.clear()
        self._job, self._is_retiring = job, False
        if job.retires or job.writer is None:
            self._is_inline = False
        self._background.submit(lambda: self._run(job))

    def _run(self, job: "Job") -> None:
        """In the thread."""
        assert self._call_soon is not None
        job.run(self._open_writer, self._now_s, self._background.rest)
        try:
            self._call_soon(self._collect)
        except RuntimeError:
            return  # the loop is over: whoever closes this collects

    def _collect(self) -> None:
        """Take back the writer and what became of the job, begin the next, then tell the callers."""
        job = self._job
        if job is None or not job.is_over:
            return
        now_s = self._now_s()
        if self._writer is None:
            self._opened_s = now_s
        self._job, self._writer = None, job.writer
        if job.write_s > self._slow_s or job.is_given_up:
            self._calm_from_s = now_s + self._calm_s
        if job.failure is not None:
            self._failed(job.failure)
        elif any(entry.error is None for entry in job.entries):
            self._succeeded()
        unsynced = self._unsynced() if job.is_sync_failed else []
        is_calm = job.failure is None and now_s >= self._calm_from_s
        settled = self._resume() if is_calm and self._writer is not None else []
        if job.sync_s:
            self._sync_s, self._at_a_time = job.sync_s, len(job.entries) + len(self._queue)
        if job.is_gathering and self._queue:
            self._send()
        elif self._queue or (self._is_retiring and self._writer is not None):
            self._send_or_gather()
        self._settle_all([(entry, entry.error) for entry in (*job.entries, *settled)])
        self._settle_all([(entry, job.failure) for entry in unsynced])

    def _unsynced(self) -> "list[Entry]":
        """What was written while a sync ran that failed: it was said to be lost with the rest, and not waited for."""
        unsynced = [entry for entry in self._queue if entry.is_written]
        self._queue = deque(entry for entry in self._queue if not entry.is_written)
        return unsynced

    def _resume(self) -> "list[Entry]":
        """Write inline again, first what waits; returns what of it is over."""
        self._is_inline = True
        waiting, self._queue = self._queue, deque()
        settled = []
        while waiting and self._is_inline:
            entry = waiting.popleft()
            if not entry.is_written:
                entry.error = self._write(entry.columns, entry.rows, entry.constants, entry.matrix, self._now_s())
                entry.is_written = entry.error is None
            if entry.error is not None:
                self._failed(entry.error)
                self._is_inline = self._is_inline and self._episode is None
            if entry.error is not None or self._record != "disk":
                settled.append(entry)
            else:
                self._queue.append(entry)
        self._queue += waiting
        return settled

    def _hand_over(self) -> None:
        self._is_inline = False
        self._calm_from_s = self._now_s() + self._calm_s

    def _give_up(self) -> None:
        """Refuse or shed all that waits."""
        lag_s = self.lag_s
        failure = stalled(lag_s)
        waiting = [*(self._job.entries if self._job is not None else ()), *self._queue]
        self._queue.clear()
        if self._job is not None:
            self._job.is_given_up = True
        self._hand_over()
        self._begin_episode(failure, self._now_s() - lag_s, retry_s=0.0)
        self._settle_all([(entry, failure) for entry in waiting])

    def _settle_all(self, entries: "list[tuple[Entry, Exception | None]]") -> None:
        for entry, failure in entries:
            try:
                self._settle(entry, failure)
            except Exception:  # whatever one answer met, the others must go out
                log.exception("an answer could not be given")

    def _settle(self, entry: "Entry", failure: Exception | None) -> None:
        if entry.is_settled:
            self.late += entry.rows if failure is None else 0
            return
        entry.is_settled = True
        self.waiting_rows -= entry.rows
        self.waiting_bytes -= entry.size_bytes
        if failure is None:
            self.written += entry.rows
            if not entry.is_early:
                entry.done(None)
        elif entry.is_early:
            self.shed += entry.rows
        else:
            self._refuse(entry.rows, entry.done, failure)

    def _refuse(self, rows: int, done: Done, failure: Exception) -> None:
        if self._is_shedding:
            self.shed += rows
            done(None)
            return
        self.lost += rows
        error = StateError(
            f"{'the row' if rows == 1 else f'{rows} rows'} could not be recorded, so there is no answer: "
            f"{_told(failure)}; send the request again with the same id when that is mended"
        )
        error.__cause__ = failure
        done(error)

    def _failed(self, failure: Exception) -> None:
        """Begin or go on with an episode, unless it is the rows that the writer would not take."""
        if is_of_the_disk(failure):
            now_s = self._now_s()
            self._begin_episode(failure, now_s, retry_s=now_s + self._retry_s)
        elif not isinstance(failure, StateError):
            log.error("rows could not be recorded for a reason that nobody foresaw", exc_info=failure)

    def _begin_episode(self, cause: Exception, began_s: float, *, retry_s: float) -> None:
        if self._episode is None:
            outcome = "answered without being recorded" if self._is_shedding else "refused"
            log.warning("%s. Until that works again, predictions are %s", cause, outcome)
            self._episode = _Episode(cause, began_s, self.shed + self.lost)
        self._episode.cause, self._episode.retry_s = cause, retry_s

    def _succeeded(self) -> None:
        if self._episode is not None:
            missed = self.shed + self.lost - self._episode.missed_before
            log.warning("recorded again after %.1f s; %d rows missed", self._now_s() - self._episode.began_s, missed)
            self._episode = None

    def _oldest_s(self) -> float | None:
        """When the oldest of the rows that wait came."""
        if self._job is not None and self._job.entries and not self._job.is_given_up:
            return self._job.entries[0].since_s
        return self._queue[0].since_s if self._queue else None

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            close_quietly(writer)


class _Episode:
    """A time in which rows could not be recorded."""

    def __init__(self, cause: Exception, began_s: float, missed_before: int) -> None:
        self.cause = cause
        self.began_s = began_s
        self.retry_s = 0.0
        """When the disk is tried again."""
        self.missed_before = missed_before


def _told(failure: Exception) -> str:
    """Why rows were not recorded, for those who asked: no name of a file of this machine."""
    cause = failure if isinstance(failure, OSError) else failure.__cause__
    if not isinstance(cause, OSError) or not cause.strerror:
        return str(failure)
    is_full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{cause.strerror}: free space there" if is_full else cause.strerror
