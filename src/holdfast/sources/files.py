"""Files: CSV, Parquet and JSON lines, by path, folder or glob, plain or compressed."""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable
from functools import cached_property
from io import BytesIO
from pathlib import Path

import msgspec
import polars as pl

from holdfast.core.protocols import Batch
from holdfast.errors import SourceError
from holdfast.sources.texttypes import as_times, typed

COMPRESSED = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
"""Endings of compressed files and the bytes that such a file begins with."""


class Files(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Rows from files: ``.csv``, ``.parquet``, ``.jsonl`` or ``.ndjson``; CSV and JSON lines also as ``.gz``, ``.zst``.

    Each file is one batch, sorted by name. Columns whose name ends in ``_at``, and those in `times`, become times in
    UTC, as do text columns of a CSV that hold nothing but ISO 8601 times; a time without a zone is taken as UTC.
    """

    path: str
    """A file, a folder of files, or a glob such as ``data/flights-*.parquet``."""
    root: str = "."
    """What a relative path begins at: the folder of the system file."""
    times: tuple[str, ...] = ()
    """Further columns that are times, whatever they are called."""

    def batches(self) -> Iterable[Batch]:
        """Every file that matches now, by name. Raises SourceError when there is none, or one of an unknown kind."""
        return [self._batch(file) for file in self._found()]

    def read(self, batch: Batch) -> pl.DataFrame:
        """All rows of a file. Raises SourceError when it is gone, changed, truncated, or not what its name says."""
        file = Path(self.root) / batch.name
        try:
            data = file.read_bytes()
        except OSError as error:
            raise SourceError(f"{file}: cannot be read ({error.strerror}); put it back, or correct `from:`") from error
        if hashlib.sha256(data).hexdigest() != batch.sha256:
            raise SourceError(f"{file}: changed while it was being read; write under another name, then rename it")
        return as_times(_parse(file, data), self.times)

    def _found(self) -> list[Path]:
        root, path = Path(self.root), Path(self.path)
        where = root / path
        if where.is_dir():
            found = [file for file in where.iterdir() if file.is_file() and _reader(file) is not None]
        elif where.is_file():
            found = [where]
        elif path.is_absolute():
            found = [file for file in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if file.is_file()]
        else:
            found = [file for file in root.glob(self.path) if file.is_file()]
        if not found:
            raise SourceError(
                f"{where}: no file of that name or pattern; put the data there, or correct `from:` in the system file"
            )
        for file in found:
            if _reader(file) is None:
                raise SourceError(
                    f"{file}: cannot tell what this is from its name; files end in .csv, .parquet, .jsonl or .ndjson "
                    "(CSV and JSON lines also with .gz or .zst)"
                )
        return sorted(found)

    @cached_property
    def _hashed(self) -> dict[tuple[Path, int, int, int], str]:
        """Hashes by path, inode, size and time of change: a file that was not touched is not read again."""
        return {}

    def _batch(self, file: Path) -> Batch:
        try:
            status = file.stat()
            key = (file, status.st_ino, status.st_size, status.st_mtime_ns)
            if key not in self._hashed:
                with file.open("rb") as stream:
                    self._hashed[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise SourceError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
        root = Path(self.root)
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()
        return Batch(name=name, sha256=self._hashed[key], size_bytes=status.st_size)


def _parse(file: Path, data: bytes) -> pl.DataFrame:
    reader = _reader(file)
    if reader is None:
        raise SourceError(f"{file}: cannot tell what this is from its name; files end in .csv, .parquet or .jsonl")
    if file.suffix in COMPRESSED and not data.startswith(COMPRESSED[file.suffix]):
        raise SourceError(
            f"{file}: its name ends in {file.suffix}, its bytes do not begin like one; rename or rewrite it"
        )
    try:
        # polars takes the readable part of a truncated gzip without a word; the standard library does not.
        return reader(gzip.decompress(data) if file.suffix == ".gz" else data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{file}: the compressed data is cut off or damaged ({error}); copy it again") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        cause = str(error).strip().partition("\n")[0]
        raise SourceError(f"{file}: {cause}; the file is cut off, damaged or not what its name says") from error


def _reader(file: Path) -> Callable[[bytes], pl.DataFrame] | None:
    name = file.name.removesuffix(file.suffix) if file.suffix in COMPRESSED else file.name
    if name.endswith(".csv"):
        return _csv
    if name.endswith((".jsonl", ".ndjson")):
        return _json_lines
    return _parquet if name == file.name and name.endswith(".parquet") else None


def _parquet(data: bytes) -> pl.DataFrame:
    if not data.startswith((b"PAR1", b"PARE")):
        raise ValueError("it does not begin like a Parquet file")
    return pl.read_parquet(BytesIO(data))


def _csv(data: bytes) -> pl.DataFrame:
    """Types are decided over the whole file, never from its first rows."""
    if data.startswith((b"PAR1", COMPRESSED[".gz"])):
        raise ValueError("it is a Parquet or gzip file, not CSV")
    frame = pl.read_csv(data, infer_schema=False)
    twice = [name for name in frame.columns if (base := name.rpartition("_duplicated_")[0]) and base in frame.columns]
    if twice:
        raise ValueError(f"its header names '{twice[0].rpartition('_duplicated_')[0]}' twice")
    if frame.width > 1:  # an empty line is no row
        frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))
    return frame.with_columns(typed(frame[name]) for name in frame.columns)


def _json_lines(data: bytes) -> pl.DataFrame:
    if not data.strip():
        return pl.DataFrame()
    return pl.read_ndjson(data, infer_schema_length=None)
