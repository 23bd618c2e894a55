"""Scores a whole file, chunk by chunk, so that it can be killed anywhere and taken up again."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import polars as pl

from holdfast.core.answerer import Answerer
from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.model import Model
from holdfast.core.signature import Rows, Signature
from holdfast.core.times import MISSING_TIME, microseconds
from holdfast.errors import Conflict, InvalidInput, StateError
from holdfast.scoring.chunks import Chunk, ParquetFile, RowFile, Sorted, first_misfit, times_us
from holdfast.scoring.csvchunks import CsvFile
from holdfast.scoring.jsonchunks import JsonLinesFile
from holdfast.scoring.partial import Partial, Plan, Progress, format_of
from holdfast.serve.recording import FloatArray, IntArray, Recorder, RowMeta
from holdfast.serve.requests import CLASS
from holdfast.sources.texttypes import UTC_TIME, as_times, parse_times

HASHED_BYTES = 2**22
OnRead = Callable[[int], None]
"""Is told how many bytes of the input have been looked at, before scoring begins."""
OnProgress = Callable[[Progress], None]


class Scorer(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers, and what beside the inputs is taken from a row."""

    system: str
    version: str
    artifact: str
    model: Model
    key: str
    unit: str = ""
    event_at: str = ""
    known_at: str = ""

    @property
    def beside(self) -> tuple[str, ...]:
        """Columns that are wanted though they may be no inputs."""
        return tuple(name for name in (self.key, self.unit, self.event_at, self.known_at) if name)

    def answerer(self) -> Answerer:
        """By whom rows are recorded."""
        signature = self.model.signature
        return Answerer(
            system=self.system,
            version=self.version,
            stage="batch",
            release="",
            signature=signature,
            signature_hash=signature.hash(),
        )


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded of rows beside inputs and outputs. Times are microseconds since 1970 UTC (n,)."""

    key: Sequence[str | None]
    unit: Sequence[str | None]
    event_at: IntArray
    known_at: IntArray


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk, scored. Places count from the chunk's first row."""

    end: int
    count: int
    rows: Rows
    good: IntArray
    outputs: FloatArray
    key: pl.Series
    beside: "Beside | None"
    """Only where rows are recorded."""
    bad: dict[int, InvalidInput]
    bad_values: dict[int, dict[str, Any]]
    run_us: float
    """How long the model took for all of it."""


def open_rows(path: Path, scorer: Scorer, *, needed: tuple[str, ...] = ()) -> RowFile:
    """The rows of a file, whose columns must be those that the version takes, and those that are `needed` beside.

    Raises SourceError where it cannot be read, InvalidInput for a column that it lacks, with the near miss.
    """
    inputs = tuple(column.name for column in scorer.model.signature.columns)
    kind = format_of(path)
    file: RowFile
    if kind == "parquet":
        file = ParquetFile(path, (*inputs, *scorer.beside))
    elif kind == "csv":
        file = CsvFile(path, scorer.model.signature)
    else:
        file = JsonLinesFile(path, scorer.model.signature, scorer.beside)
    if file.columns is not None:
        for name in (*inputs, *needed):
            if name not in file.columns:
                near = get_close_matches(name, [known for known in file.columns if known not in inputs], n=1)
                asked = f"; did you mean '{near[0]}'?" if near else ";"
                raise InvalidInput(
                    f"{path} has no column '{name}', which version {scorer.version} of '{scorer.system}' needs{asked} "
                    f"its columns: {', '.join(file.columns)}",
                    column=name,
                    expected="all input columns",
                )
    return file


def sha256_of(path: Path, on_read: OnRead) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while data := file.read(HASHED_BYTES):
            digest.update(data)
            done += len(data)
            on_read(done)
    return digest.hexdigest()


def batch_id(plan: Plan) -> str:
    """The request id of all rows of a file: the same for the same content, system and version, wherever it lies."""
    said = "\n".join((plan.sha256, plan.system, plan.version, plan.artifact))
    return f"file-{hashlib.sha256(said.encode()).hexdigest()[:20]}"


class Misfit(Exception):
    """A row of a chunk does not fit; `place` counts from the chunk's first row."""

    def __init__(self, place: int, error: InvalidInput) -> None:
        super().__init__(str(error))
        self.place, self.error = place, error


class FileScoring:
    """Scores a file into a partial result. With a `recorder` each row is recorded before it counts as scored."""

    def __init__(
        self,
        file: RowFile,
        scorer: Scorer,
        into: Partial,
        clock: Clock,
        *,
        recorder: Recorder | None = None,
        bad_rows: Path | None = None,
        threads: int = 1,
    ) -> None:
        self._file, self._scorer, self._into, self._clock = file, scorer, into, clock
        self._recorder, self._bad_rows, self._threads = recorder, bad_rows, threads
        self._by = scorer.answerer()
        self._seen = _stamp(file.path)
        self._request_id = batch_id(into.plan)

    def run(self, on_progress: OnProgress) -> Progress:
        """Score what is left, then give the result its name; returns how all of it went.

        Raises InvalidInput at the first row that does not fit, unless such rows are set aside; Conflict where the
        input is changed meanwhile. Whatever stops it, the next call goes on after the last chunk that was written.
        """
        into = self._into
        if into.progress.bad and self._bad_rows is None:
            raise Conflict(f"{into.progress.bad} rows of this run were set aside before; add --bad-rows FILE again")
        on_progress(into.progress)
        if not into.progress.is_finished:
            self._score_rest(on_progress)
        into.finish(self._frame(_nobody(), _EMPTY, _EMPTY, np.empty(self._by.signature.shape(0))), self._bad_rows)
        return into.progress

    def _score_rest(self, on_progress: OnProgress) -> None:
        into = self._into
        try:
            # Closed here: whatever stops the writing, no thread is left to whoever collects the generator.
            with closing(self._scored(into.progress.place)) as chunks:
                for scored in chunks:
                    self._write(scored)
                    on_progress(into.progress)
        except Misfit as misfit:
            row = into.progress.rows + misfit.place
            self._refuse(misfit.error, row, "put it right, or set such rows aside with --bad-rows FILE")
        finally:
            if self._recorder is not None:
                self._recorder.close()

    def _scored(self, start: int) -> Generator[Scored]:
        """Chunks in order; as many as there are threads are worked on ahead."""
        waiting: deque[Future[Scored]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="score") as pool:
            try:
                for read in self._file.chunks(start):
                    waiting.append(pool.submit(self._score, read))
                    if len(waiting) > self._threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _score(self, read: Callable[[], Chunk]) -> Scored:
        chunk, scorer = read(), self._scorer
        fitting = Sorted(chunk, scorer.model.signature)
        rows = fitting.rows if self._bad_rows is not None else _all_of(chunk, scorer)
        good = fitting.good
        began_s = stopwatch_s()
        outputs = np.asarray(scorer.model.predict(rows), dtype=np.float64)
        run_us = (stopwatch_s() - began_s) * 1e6
        if outputs.shape != scorer.model.signature.shape(rows.count):
            raise StateError(
                f"version {scorer.version} of '{scorer.system}' gave outputs of shape {outputs.shape} for "
                f"{rows.count} rows; score with another version"
            )
        return Scored(
            end=chunk.end,
            count=len(chunk),
            rows=rows,
            good=good,
            outputs=outputs,
            key=chunk.column(scorer.key, good),
            beside=None if self._recorder is None else _beside(chunk, scorer, good),
            bad=fitting.bad,
            bad_values={place: chunk.values(place) for place in fitting.bad},
            run_us=run_us,
        )

    def _write(self, scored: Scored) -> None:
        if _stamp(self._file.path) != self._seen:
            raise Conflict(
                f"{self._file.path} was changed while it was being scored; begin anew with --restart, and write new "
                "data under another name"
            )
        before = self._into.progress
        if self._recorder is not None:
            self._record(self._recorder, scored, before.rows)
        after = msgspec.structs.replace(
            before,
            place=scored.end,
            rows=before.rows + scored.count,
            scored=before.scored + len(scored.good),
            outside=before.outside + int((scored.rows.outside > 0).sum()),
            failed=before.failed + int((~_finite(scored.outputs)).sum()),
            bad=before.bad + len(scored.bad),
        )
        frame = self._frame(scored.key, scored.good + before.rows, scored.rows.outside, scored.outputs)
        self._into.add(frame, _set_aside(scored, before.rows), after)

    def _frame(self, key: pl.Series, row: IntArray, outside: IntArray, outputs: FloatArray) -> pl.DataFrame:
        """Rows of the result, as they are in the file."""
        answered = _answered(self._by.signature, outputs)
        taken = {*(each.name for each in answered), "row", "outside", "version", "prediction_id"}
        name = self._scorer.key
        columns = [
            pl.Series("row", row, dtype=pl.Int64),
            key.alias(f"key_{name}" if name in taken else name),
            *answered,
            pl.Series("outside", outside, dtype=pl.Int64),
            pl.Series("version", [self._scorer.version], dtype=pl.String).new_from_index(0, len(row)),
        ]
        frame = pl.DataFrame(columns)
        if self._recorder is None:
            return frame
        return frame.with_columns(pl.format("{}:{}", pl.lit(self._request_id), "row").alias("prediction_id"))

    def _record(self, recorder: Recorder, scored: Scored, first: int) -> None:
        """Write rows to the lake. Written again after a crash, a row has the same id and time, so it counts once."""
        n, beside = len(scored.good), scored.beside
        assert beside is not None
        if (timeless := np.flatnonzero(beside.event_at == MISSING_TIME)).size:
            name = self._scorer.event_at
            error = InvalidInput(f"row 0, column '{name}': is no time", column=name, expected="an ISO 8601 time")
            self._refuse(error, first + int(scored.good[timeless[0]]), "put it right, or score with --no-record")
        meta = RowMeta(
            request_id=[self._request_id] * n,
            row=scored.good + first,
            key=beside.key,
            unit=beside.unit,
            event_at=beside.event_at,
            features_known_at=np.where(beside.known_at == MISSING_TIME, beside.event_at, beside.known_at),
            predicted_at=np.full(n, microseconds(self._clock.now()), dtype=np.int64),
        )
        queue_us = np.zeros(n)
        recorder.record_predictions(
            self._by, scored.rows, scored.outputs, meta, queue_us=queue_us, run_us=scored.run_us / max(n, 1)
        )

    def _refuse(self, error: InvalidInput, row: int, advice: str) -> NoReturn:
        placed = _placed(error, row).replace(f"row {row}", f"row {row} (from 0)", 1)
        message = f"{self._file.path}: {placed}; {advice}"
        raise InvalidInput(message, row=row, column=error.column, expected=error.expected) from error


def _all_of(chunk: Chunk, scorer: Scorer) -> Rows:
    """The rows of a chunk. Raises Misfit for the first that does not fit."""
    signature = scorer.model.signature
    try:
        return chunk.typed(signature, np.arange(len(chunk), dtype=np.int64))
    except InvalidInput:
        place, error = first_misfit(chunk, signature)
        raise Misfit(place, error) from error


def _placed(error: InvalidInput, row: int) -> str:
    """What is wrong, with the row's place in the file instead of that in what was read at once."""
    return str(error).replace(f"row {error.row}", f"row {row}", 1)


def _set_aside(scored: Scored, first: int) -> list[dict[str, Any]]:
    return [
        {
            "row": first + place,
            "column": error.column,
            "why": _placed(error, first + place),
            "values": scored.bad_values[place],
        }
        for place, error in sorted(scored.bad.items())
    ]


def _beside(chunk: Chunk, scorer: Scorer, where: IntArray) -> Beside:
    event_at = _times(chunk, scorer.event_at, where)
    key = _texts(chunk.column(scorer.key, where))
    return Beside(
        key=key,
        unit=_texts(chunk.column(scorer.unit, where)) if scorer.unit else key,
        event_at=event_at,
        known_at=_times(chunk, scorer.known_at, where) if scorer.known_at else event_at,
    )


def _times(chunk: Chunk, name: str, where: IntArray) -> IntArray:
    """A column of times in microseconds since 1970 UTC; the smallest integer where there is none."""
    nothing = np.full(len(where), MISSING_TIME, dtype=np.int64)
    if not name:
        return nothing
    column = chunk.column(name, where)
    if column.dtype == pl.String:
        return times_us(parse_times(column))
    typed = as_times(column.to_frame()).to_series()
    return times_us(typed) if typed.dtype == UTC_TIME else nothing


def _texts(column: pl.Series) -> list[str | None]:
    """Keys or units as text; whole floats as whole numbers, so that 7 and 7.0 are the same."""
    if column.dtype.is_float():
        return [
            None if value is None or value != value else str(int(value)) if value.is_integer() else str(value)
            for value in column.to_list()
        ]
    return column.cast(pl.String).to_list()


def _finite(outputs: FloatArray) -> Any:
    """Which rows (n,) were answered with nothing but numbers."""
    return np.isfinite(outputs if outputs.ndim == 1 else outputs.sum(axis=1))


def _answered(signature: Signature, outputs: FloatArray) -> list[pl.Series]:
    """The columns of the answers: the output; or the most likely class and the probability of each."""
    finite = _finite(outputs)
    if not signature.classes:
        return [pl.Series(signature.output, np.where(finite, outputs, np.nan), dtype=pl.Float64, nan_to_null=True)]
    known = np.where(finite[:, None], outputs, np.nan)
    likeliest = np.where(finite[:, None], outputs, 0.0).argmax(axis=1)
    names = [signature.classes[i] if ok else None for i, ok in zip(likeliest.tolist(), finite.tolist(), strict=True)]
    each = [
        pl.Series(name, known[:, j], dtype=pl.Float64, nan_to_null=True) for j, name in enumerate(signature.outputs)
    ]
    return [pl.Series(CLASS, names, dtype=pl.String), *each]


def _nobody() -> pl.Series:
    return pl.Series("key", [], dtype=pl.String)


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written or replaced."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


_EMPTY: IntArray = np.empty(0, dtype=np.int64)
