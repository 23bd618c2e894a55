"""Files larger than memory, a chunk of rows at a time: the same file gives the same chunks, from any chunk on."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol

import numpy as np
import polars as pl

from holdfast.core.inputs import read_frame
from holdfast.core.signature import Rows, Signature
from holdfast.core.times import MISSING_TIME
from holdfast.errors import InvalidInput, SourceError

IntArray = np.ndarray[Any, np.dtype[np.int64]]

CHUNK_BYTES = 8 * 2**20
"""About how many bytes of text a chunk holds; a record that is longer makes a longer chunk."""
LONGEST_RECORD_BYTES = 64 * 2**20
"""A record beyond this is taken for a quote that never closes, or for a file without lines."""
CHUNK_ROWS = 65_536
CHUNK_VALUES = 2**22
"""A chunk of Parquet holds so many rows, fewer where there are many columns."""


class Chunk(Protocol):
    """Some rows of a file, in its order. Read by one thread."""

    end: int
    """Where the next chunk begins: in bytes, or in rows for Parquet."""

    def __len__(self) -> int:
        """How many rows there are, those that cannot be read included."""

    def typed(self, signature: Signature, where: IntArray) -> Rows:
        """The rows at these ascending places as a signature reads them. Raises InvalidInput where one does not fit."""

    def column(self, name: str, where: IntArray) -> pl.Series:
        """A column that is no input (a key, a time) at these places; null where it is missing."""

    def values(self, place: int) -> dict[str, Any]:
        """One row as it was given."""


class RowFile(Protocol):
    """A file of rows."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns; None where each row names its own."""

    @property
    def size(self) -> int:
        """Where the last chunk ends."""

    def chunks(self, start: int) -> Iterator[Callable[[], Chunk]]:
        """What reads each chunk from `start` on, in order. Listing is cheap; reading may be done in other threads."""


class ParquetFile:
    """Rows of a Parquet file, by slices."""

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        self.path = path
        try:
            schema = pl.read_parquet_schema(path)
            self.size: int = pl.scan_parquet(path).select(pl.len()).collect().item()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            unreadable(path, error)
        self.columns = tuple(schema)
        self._wanted = [name for name in schema if name in set(wanted)]
        self._rows = max(1024, min(CHUNK_ROWS, CHUNK_VALUES // max(1, len(self._wanted))))

    def chunks(self, start: int) -> Iterator[Callable[[], Chunk]]:
        """Slices of `CHUNK_ROWS` rows."""
        for at in range(start, self.size, self._rows):
            yield lambda at=at: self._read(at)  # type: ignore[misc]

    def _read(self, at: int) -> Chunk:
        # One slice at a time on purpose: streamed collection reads ahead by whole row groups, however large they are.
        rows = pl.scan_parquet(self.path, parallel="none", low_memory=True, glob=False).select(self._wanted)
        try:
            frame = rows.slice(at, self._rows).collect(engine="in-memory")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            unreadable(self.path, error)
        return FrameChunk(frame, at + frame.height)


class FrameChunk:
    """Rows that a frame holds."""

    def __init__(self, frame: pl.DataFrame, end: int) -> None:
        self.frame = frame
        self.end = end

    def __len__(self) -> int:
        return self.frame.height

    def typed(self, signature: Signature, where: IntArray) -> Rows:
        return read_frame(signature, self._at(where))

    def column(self, name: str, where: IntArray) -> pl.Series:
        if name not in self.frame.columns:
            return pl.Series(name, [None], dtype=pl.String).new_from_index(0, len(where))
        return self._at(where)[name]

    def values(self, place: int) -> dict[str, Any]:
        return self.frame.row(place, named=True)

    def _at(self, where: IntArray) -> pl.DataFrame:
        if len(where) == self.frame.height:
            return self.frame
        if len(where) and where[-1] - where[0] + 1 == len(where):
            return self.frame.slice(int(where[0]), len(where))
        return self.frame[where]


class TextBlocks:
    """The records of a text file in blocks of whole records, found without parsing them."""

    def __init__(self, path: Path, *, quoted: bool) -> None:
        self.path = path
        self.size = os.stat(path).st_size
        self._quoted = quoted

    def blocks(self, start: int) -> Iterator[tuple[bytes, int]]:
        """Blocks from a byte on that begins a record, each with where it ends; about `CHUNK_BYTES` long.

        Where a block ends depends on where it begins and on nothing else.
        """
        with self.path.open("rb") as file:
            while data := self._block(file, start):
                start += len(data)
                yield data, start

    def _block(self, file: BinaryIO, start: int) -> bytes:
        file.seek(start)
        data = b""
        while True:
            more = file.read(CHUNK_BYTES)
            data += more
            if len(more) < CHUNK_BYTES:  # the rest of the file
                if self._quoted and data.count(b'"') % 2:
                    raise SourceError(f"{self.path}: a quote after byte {start} never closes; the file is cut off")
                return data
            if cut := last_record_end(data, quoted=self._quoted):
                return data[:cut]
            if len(data) > LONGEST_RECORD_BYTES:
                raise SourceError(
                    f"{self.path}: the record at byte {start} is longer than {LONGEST_RECORD_BYTES // 2**20} MiB; "
                    "look there for a quote that never closes"
                )


def last_record_end(data: bytes, *, quoted: bool) -> int:
    """Where the last whole record of a block ends that begins with a record; 0 when none does.

    In quoted text a line end inside of quotes ends no record, so those with an odd number of quotes before are left.

    >>> last_record_end(b'a\\n"b\\nc', quoted=True)
    2
    """
    end = data.rfind(b"\n") + 1
    if not quoted or not end:
        return end
    quotes = data.count(b'"', 0, end)
    while end and quotes % 2:
        before = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(b'"', before, end)
        end = before
    return end


def times_us(column: pl.Series) -> IntArray:
    """Times of a Datetime[us] column as microseconds since 1970 UTC; the smallest integer where missing."""
    found = column.dt.timestamp("us").fill_null(MISSING_TIME).to_numpy()
    return found.astype(np.int64, copy=False)


def unreadable(path: Path, error: BaseException) -> NoReturn:
    """Raises the SourceError for a file that a parser gave up on."""
    cause = str(error).strip().partition("\n")[0]
    raise SourceError(f"{path}: {cause}; the file is cut off, damaged or not what its name says") from error


class Unreadable(InvalidInput):
    """A record that cannot be parsed at all."""

    def __init__(self, why: str) -> None:
        super().__init__(f"row 0: {why}", row=0, expected="a record that can be read")


class Sorted:
    """Which rows of a chunk fit a signature, typed, and why the others do not."""

    def __init__(self, chunk: Chunk, signature: Signature) -> None:
        self._chunk, self._signature = chunk, signature
        self.bad: dict[int, InvalidInput] = {}
        """By place in the chunk, ascending."""

    @cached_property
    def rows(self) -> Rows:
        """The rows that fit, those of `good`."""
        everything = np.arange(len(self._chunk), dtype=np.int64)
        try:
            return self._chunk.typed(self._signature, everything)
        except InvalidInput as error:
            self._search(everything, error)
        return self._chunk.typed(self._signature, self.good)

    @property
    def good(self) -> IntArray:
        """Places of the rows that fit; complete once `rows` was read."""
        everything = np.arange(len(self._chunk), dtype=np.int64)
        return np.delete(everything, list(self.bad)) if self.bad else everything

    def _search(self, where: IntArray, error: InvalidInput) -> None:
        """Halve what does not fit until single rows are left."""
        if len(where) == 1:
            self.bad[int(where[0])] = error
            return
        for half in (where[: len(where) // 2], where[len(where) // 2 :]):
            try:
                self._chunk.typed(self._signature, half)
            except InvalidInput as found:
                self._search(half, found)


def first_misfit(chunk: Chunk, signature: Signature) -> tuple[int, InvalidInput]:
    """The first row of a chunk that does not fit, by halving, and why. The chunk has one."""
    where = np.arange(len(chunk), dtype=np.int64)
    while True:
        try:
            first = where[: max(1, len(where) // 2)]
            chunk.typed(signature, first)
        except InvalidInput as error:
            if len(first) == 1:
                return int(first[0]), error
            where = first
        else:
            where = where[len(first) :]
