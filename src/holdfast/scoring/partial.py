"""A result that is not whole yet: a folder beside its final name that survives any crash and can be taken up again.

scores.csv.partial/run.json        what is scored by what; a run that differs in any of it does not go on here
                   progress.json   how far the rows below are whole; replaced after each chunk
                   scores          rows of a text format, to be cut to what progress says
                   00000.parquet   or one file per chunk
                   bad             rows that were set aside
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import polars as pl

from holdfast.errors import AlreadyRunning, Conflict, StateError

Format = Literal["parquet", "csv", "ndjson"]
GROUP_ROWS = 2**18
"""Rows of a group in a whole Parquet file."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is scored, by what, into what. The same plan gives the same rows."""

    format: int = 1
    input: str
    sha256: str
    size_bytes: int
    system: str
    version: str
    artifact: str
    output: Format
    recorded: bool


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run has come, durably. Rows read are rows scored and rows set aside, always."""

    place: int = 0
    """Where the next chunk begins."""
    rows: int = 0
    scored: int = 0
    outside: int = 0
    """Rows with a value outside what training saw; they are scored all the same."""
    failed: int = 0
    """Rows that the model gave no finite number for; their output is missing."""
    bad: int = 0
    """Rows that do not fit the signature and were set aside."""
    parts: int = 0
    scores_bytes: int = 0
    bad_bytes: int = 0
    is_finished: bool = False
    """True once everything is on disk and only the final names are missing, or not even those."""


class Partial:
    """A run's folder, held by this process. Made by `partial`."""

    def __init__(self, out: Path, plan: Plan, progress: Progress) -> None:
        self.out, self.plan, self.progress = out, plan, progress
        self.folder = folder_of(out)
        self._scores, self._bad = self.folder / "scores", self.folder / "bad"
        if plan.output != "parquet" and not progress.is_finished:
            _cut(self._scores, progress.scores_bytes)
        if not progress.is_finished:
            _cut(self._bad, progress.bad_bytes)

    def add(self, frame: pl.DataFrame, bad: Sequence[Mapping[str, Any]], after: Progress) -> None:
        """Make the rows of one chunk durable, then the progress that counts them."""
        before = self.progress
        scores_bytes, parts = before.scores_bytes, before.parts
        if self.plan.output == "parquet":
            _write(self.folder / f"{parts:05}.parquet", _parquet(frame))
            parts += 1
        else:
            data = _csv(frame, header=not scores_bytes) if self.plan.output == "csv" else frame.write_ndjson().encode()
            scores_bytes += _append(self._scores, data)
        bad_bytes = before.bad_bytes + _append(self._bad, b"".join(msgspec.json.encode(row) + b"\n" for row in bad))
        self._put(msgspec.structs.replace(after, parts=parts, scores_bytes=scores_bytes, bad_bytes=bad_bytes))

    def finish(self, empty: pl.DataFrame, bad_rows: Path | None) -> None:
        """Give the result its final name, and the rows set aside theirs. `empty` is what a result without rows is."""
        if not self.progress.is_finished:
            if self.plan.output == "parquet":
                self._join_parts(empty)
            elif not self.progress.scores_bytes:
                _append(self._scores, _csv(empty, header=True) if self.plan.output == "csv" else b"")
            self._put(msgspec.structs.replace(self.progress, is_finished=True))
        # Killed from here on, the next call finds that all is written and only moves what was not moved yet.
        if bad_rows is not None and self._bad.exists():
            _move(self._bad, bad_rows)
        if self._scores.exists():
            _move(self._scores, self.out)
        shutil.rmtree(self.folder)

    def _join_parts(self, empty: pl.DataFrame) -> None:
        parts = [self.folder / f"{number:05}.parquet" for number in range(self.progress.parts)]
        rows = pl.scan_parquet(parts, glob=False) if parts else empty.lazy()
        rows.sink_parquet(self._scores, row_group_size=GROUP_ROWS, maintain_order=True)
        _sync(self._scores)

    def _put(self, progress: Progress) -> None:
        _replace(self.folder / "progress.json", msgspec.json.encode(progress))
        self.progress = progress


@contextmanager
def partial(out: Path, plan: Plan, *, restart: bool = False) -> Iterator[Partial]:
    """The folder of a run, taken up where it was left, or made.

    Raises Conflict where another plan was begun for the same result, AlreadyRunning where a process is at it.
    """
    folder = folder_of(out)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"{out} is being written by another process; wait for it, or name another file"
            ) from None
        begun = None if restart else begun_plan(out)
        if begun is None:
            for file in folder.iterdir():
                if file.name != "lock":
                    file.unlink()
            _replace(folder / "run.json", msgspec.json.encode(plan))
        elif begun != plan:
            raise Conflict(f"{folder} was begun with {_difference(begun, plan)}; finish it that way, or --restart")
        yield Partial(out, plan, _progress(folder))


def begun_plan(out: Path) -> Plan | None:
    """The plan of a run that was begun for this result; None where none was. Raises StateError where it is damaged."""
    path = folder_of(out) / "run.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise StateError(f"{path} is not understood ({error}); begin anew with --restart") from error


def folder_of(out: Path) -> Path:
    """Where a result lies until it is whole."""
    return out.with_name(f"{out.name}.partial")


def format_of(path: Path) -> Format:
    """The format that a file's name says. Raises StateError."""
    found = {"jsonl": "ndjson"}.get(path.suffix.removeprefix("."), path.suffix.removeprefix("."))
    for format in get_args(Format):
        if found == format:
            known: Format = format
            return known
    raise StateError(f"{path}: cannot tell its format; the name of a file ends in .parquet, .csv, .ndjson or .jsonl")


def _progress(folder: Path) -> Progress:
    path = folder / "progress.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Progress)
    except FileNotFoundError:
        return Progress()
    except msgspec.MsgspecError as error:
        raise StateError(f"{path} is not understood ({error}); begin anew with --restart") from error


def _difference(begun: Plan, plan: Plan) -> str:
    """What was begun, where it is not what is asked for now."""
    words = {
        "input": f"input {begun.input}, not {plan.input}",
        "sha256": "another content of the input, which has changed since",
        "version": f"version {begun.version}, and {plan.version} is asked for now: add --version {begun.version}",
        "system": f"system '{begun.system}', not '{plan.system}'",
        "recorded": "--record" if begun.recorded else "--no-record",
    }
    before, now = msgspec.to_builtins(begun), msgspec.to_builtins(plan)
    return next((said for name, said in words.items() if before[name] != now[name]), "other settings")


def _csv(frame: pl.DataFrame, *, header: bool) -> bytes:
    return frame.write_csv(include_header=header).encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="lz4", statistics=False)
    return buffer.getvalue()


def _append(path: Path, data: bytes) -> int:
    """Append bytes, durable when this returns; returns how many."""
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())
    return len(data)


def _cut(path: Path, size_bytes: int) -> None:
    """Drop what was written after the last progress. Raises StateError where rows that it counts are gone."""
    if not path.exists() and not size_bytes:
        return
    if not path.exists() or path.stat().st_size < size_bytes:
        raise StateError(f"{path} has lost rows that were written to it; begin anew with --restart")
    os.truncate(path, size_bytes)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    _write(temporary, data)
    temporary.replace(path)
    _sync(path.parent)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move(path: Path, to: Path) -> None:
    try:
        path.replace(to)
    except OSError as error:
        raise StateError(
            f"{path} is whole, but cannot be moved to {to}: {error.strerror}; make that possible, then run the same "
            "command again"
        ) from error
    _sync(to.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
