"""CSV in chunks: numbers parsed at once where all of them are numbers, else looked at one by one."""

import csv
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from holdfast.core.inputs import read_frame
from holdfast.core.signature import Rows, Signature
from holdfast.errors import SourceError
from holdfast.scoring.chunks import Chunk, IntArray, TextBlocks, Unreadable
from holdfast.sources.texttypes import MISSING, parse_times

_BOM = b"\xef\xbb\xbf"
_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


class CsvFile:
    """Rows of a CSV file with a header line, comma and UTF-8; an empty line is no row unless there is one column."""

    def __init__(self, path: Path, signature: Signature) -> None:
        self.path = path
        self._blocks = TextBlocks(path, quoted=True)
        self.size = self._blocks.size
        self._numeric = tuple(c.name for c in signature.columns if c.type in ("number", "integer"))
        self._boolean = tuple(c.name for c in signature.columns if c.type == "boolean")
        self._times = tuple(c.name for c in signature.columns if c.type == "time")
        self._header = self._read_header()
        text = self._header.removeprefix(_BOM).decode()
        self.columns = tuple(next(csv.reader(StringIO(text, newline="")), ()))
        twice = next((name for name in self.columns if self.columns.count(name) > 1), None)
        if twice is not None:
            raise SourceError(f"{path}: its header names '{twice}' twice; rename one of them")

    def chunks(self, start: int) -> Iterator[Callable[[], Chunk]]:
        """Blocks of whole records after the header."""
        for data, end in self._blocks.blocks(start or len(self._header)):
            yield lambda data=data, end=end: CsvChunk(self, data, end)  # type: ignore[misc]

    def parse(self, data: bytes, *, numbers: bool) -> pl.DataFrame:
        """Records as a frame; with `numbers`, columns that the signature says are numbers are parsed as such."""
        types = dict.fromkeys([c for c in self._numeric if c in self.columns], pl.Float64) if numbers else {}
        return pl.read_csv(self._header + data, infer_schema=False, schema_overrides=types)

    def rows_of(self, data: bytes) -> list[bytes]:
        """The records that are rows."""
        records = records_of(data)
        return [record for record in records if record.strip(b"\r\n")] if len(self.columns) > 1 else records

    def as_typed(self, text: pl.DataFrame) -> pl.DataFrame:
        """Text columns as the signature's types; a column that holds something else stays text, to be refused."""
        for name in (*self._numeric, *self._boolean, *self._times):
            if text.schema.get(name) != pl.String:
                continue
            column = text.get_column(name).str.strip_chars()
            given = column.to_frame().select(pl.when(~pl.col(name).is_in(MISSING)).then(pl.col(name))).to_series()
            if name in self._times:
                times = parse_times(given)
                if times.null_count() == given.null_count():
                    text = text.with_columns(times)
                continue
            if name in self._boolean:
                given = given.str.to_lowercase().replace({"true": "1", "false": "0"})
            number = given.cast(pl.Float64, strict=False)
            if number.null_count() == given.null_count():
                text = text.with_columns(number)
        return text

    def _read_header(self) -> bytes:
        with self.path.open("rb") as file:
            data = b""
            while more := file.read(2**16):
                data += more
                at = data.find(b"\n") + 1
                while at and data.count(b'"', 0, at) % 2:
                    at = data.find(b"\n", at) + 1
                if at:
                    break
        if not data.strip():
            raise SourceError(f"{self.path}: it is empty; a CSV begins with a line of column names")
        if data.startswith((b"PAR1", b"\x1f\x8b")):
            raise SourceError(f"{self.path}: it is a Parquet or gzip file, not CSV; rename it or unpack it")
        header = data[:at] if at else data + b"\n"
        try:
            header.decode()
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.path}: it is not UTF-8 ({error.reason}); write it as UTF-8") from error
        return header


class CsvChunk:
    """Records of a CSV file."""

    def __init__(self, file: CsvFile, data: bytes, end: int) -> None:
        self.end = end
        self._file = file
        self._records: list[bytes] | None = None
        self._text: pl.DataFrame | None = None
        self._fast = self._parsed(data, numbers=True)
        if self._fast is not None:
            return
        self._text = self._parsed(data, numbers=False)
        if self._text is None:
            self._records = file.rows_of(data)

    def _parsed(self, data: bytes, *, numbers: bool) -> pl.DataFrame | None:
        """The records as a frame, an empty line not counted; None where one of them cannot be parsed."""
        try:
            frame = self._file.parse(data, numbers=numbers)
            if frame.width > 1 and min(frame.null_count().row(0)) > 0:
                # A row of nothing is an empty line, or one of commas, which is a row.
                frame = self._file.parse(b"".join(self._file.rows_of(data)), numbers=numbers)
        except _FAILURES:
            return None
        return frame

    def __len__(self) -> int:
        for frame in (self._fast, self._text):
            if frame is not None:
                return frame.height
        return len(self._records or ())

    def typed(self, signature: Signature, where: IntArray) -> Rows:
        frame = self._at(where)
        return read_frame(signature, self._file.as_typed(frame))

    def column(self, name: str, where: IntArray) -> pl.Series:
        if name not in self._file.columns:
            return pl.Series(name, [None], dtype=pl.String).new_from_index(0, len(where))
        return self._at(where).get_column(name).cast(pl.String)

    def values(self, place: int) -> dict[str, Any]:
        try:
            frame = self._at(np.array([place]))
        except Unreadable:
            assert self._records is not None
            return {"record": self._records[place].decode(errors="replace").rstrip("\r\n")}
        return frame.row(0, named=True)

    def _at(self, where: IntArray) -> pl.DataFrame:
        frame = self._fast if self._fast is not None else self._text
        if frame is not None:
            return frame if len(where) == frame.height else frame[where]
        assert self._records is not None
        data = b"".join(self._records[i] for i in where.tolist())
        try:
            return self._file.parse(data, numbers=False)
        except _FAILURES as error:
            cause = str(error).strip().partition("\n")[0]
            raise Unreadable(f"this record cannot be read: {cause}") from error


def records_of(data: bytes) -> list[bytes]:
    """The records of a block, each with its line end.

    >>> records_of(b'1,"a\\nb"\\n2,c\\n')
    [b'1,"a\\nb"\\n', b'2,c\\n']
    """
    records, start, quotes = [], 0, 0
    while start < len(data):
        end = start
        while True:
            at = data.find(b"\n", end) + 1 or len(data)
            quotes += data.count(b'"', end, at)
            end = at
            if quotes % 2 == 0 or at == len(data):
                break
        records.append(data[start:end])
        start, quotes = end, 0
    return records
