"""Turns sealed segments into Parquet, one file or few per table and day.

In: segment files nobody writes any more. Out: Parquet files in the manifest, and the segments deleted at the next
roll, when readers are done with them. A crash at any point leaves rows in a segment, in a file, or in both under
the same identity; never in neither.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from holdfast.engines.manifest import Contents, LakeFile, Manifest, Swap
from holdfast.engines.segments import OPEN, SEALED, SegmentReader, recover, stem, sync_directory
from holdfast.engines.tables import merged, rules_of
from holdfast.errors import CorruptSegment, StateError

if TYPE_CHECKING:
    import polars as pl

BATCH_BYTES = 128 * 2**20
"""Most bytes of segments that are rolled into one swap, so that a long backlog needs bounded memory."""

UNFINISHED = ".tmp"
"""How the name of a file ends that is being written."""

_DAY = 86_400_000_000
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def place_of(directory: Path, system: str, table: str) -> Path:
    """Where a table's files lie. Raises StateError for a name that is not safe in a path."""
    for word in (system, *table.split("/")):
        if not _WORD.fullmatch(word):
            raise StateError(
                f"'{word}' cannot name a system or lake table: use letters, digits, '_', '-' and '.', no '.' first"
            )
    return directory.joinpath(system, *table.split("/"))


def beside(file: Path, name: str) -> Path:
    """Where that lies which is kept with a Parquet file under a name; it is deleted with the file.

    >>> beside(Path("day=2013-04-01/0a.parquet"), "counts").as_posix()
    'day=2013-04-01/0a.counts'
    """
    if not _WORD.fullmatch(name):
        raise StateError(f"'{name}' cannot be kept in the lake under this name: use letters, digits, '_', '-' and '.'")
    return file.with_suffix(f".{name}")


def tables_in(directory: Path) -> Iterator[tuple[str, str]]:
    """Every system and table that has a file below `directory`."""
    for at, folders, files in os.walk(directory):
        has_days = any(folder.startswith("day=") for folder in folders)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("day="))
        words = Path(at).relative_to(directory).parts
        if len(words) >= 2 and (has_days or any(name.endswith((SEALED, OPEN)) for name in files)):
            yield words[0], "/".join(words[1:])


def roll(directory: Path, manifest: Manifest) -> int:
    """Roll all tables; returns how many segments. Returns 0 while another process rolls the same lake.

    Raises CorruptSegment when one could not be read, after all others were rolled.
    """
    rolled = 0
    damage: list[CorruptSegment] = []
    with _alone(directory) as is_alone:
        if is_alone:
            for system, table in tables_in(directory):
                rolled += _Roll(directory, manifest, system, table).run(damage)
    if damage:
        raise damage[0]
    return rolled


class _Roll:
    """The rolling of one table."""

    def __init__(self, directory: Path, manifest: Manifest, system: str, table: str) -> None:
        self._directory = directory
        self._place = place_of(directory, system, table)
        self._manifest = manifest
        self._system = system
        self._table = table
        self._rules = rules_of(table)

    def run(self, damage: list[CorruptSegment]) -> int:
        contents = self._manifest.contents(self._system, self._table)
        self._delete_unlisted(contents)
        rolled = 0
        readers: dict[str, SegmentReader] = {}
        size_bytes = 0
        for path in self._sealed(contents, damage):
            reader = SegmentReader(self._table)
            try:
                reader.read(path, is_sealed=True)
            except CorruptSegment as error:
                damage.append(error)
                continue
            readers[stem(path)] = reader
            size_bytes += reader.offset
            if size_bytes >= BATCH_BYTES:
                rolled += self._swap(readers)
                readers, size_bytes = {}, 0
        return rolled + self._swap(readers)

    def _delete_unlisted(self, contents: Contents) -> None:
        """Delete what an earlier roll replaced or a crash left behind, and forget segments that are gone."""
        listed = {_first_name(self._directory / file.path) for file in contents.files}
        for path in self._place.glob("day=*/*"):
            if _first_name(path) not in listed or path.name.endswith(UNFINISHED):
                path.unlink(missing_ok=True)
        for name in contents.rolled:
            (self._place / f"{name}{SEALED}").unlink(missing_ok=True)
        if contents.rolled:
            # Were the deletion lost in a power cut, the segment would come back and be rolled again: same identities.
            self._manifest.swap([Swap(system=self._system, table=self._table, forget=contents.rolled)])

    def _sealed(self, contents: Contents, damage: list[CorruptSegment]) -> list[Path]:
        for path in sorted(self._place.glob(f"*{OPEN}")):
            try:
                recover(path, self._table)
            except CorruptSegment as error:
                damage.append(error)
        return [path for path in sorted(self._place.glob(f"*{SEALED}")) if stem(path) not in contents.rolled]

    def _swap(self, readers: dict[str, SegmentReader]) -> int:
        if not readers:
            return 0
        contents = self._manifest.contents(self._system, self._table)
        add: list[LakeFile] = []
        remove: set[str] = set()
        for day, frames in self._by_day(readers).items():
            frames, replaced = self._with_small_files(frames, [f for f in contents.files if f.low // _DAY == day])
            remove |= replaced
            add += [self._written(day, frame) for frame in self._mergeable(frames)]
        self._manifest.swap(
            [
                Swap(
                    system=self._system,
                    table=self._table,
                    add=tuple(add),
                    remove=frozenset(remove),
                    rolled=frozenset(readers),
                )
            ]
        )
        return len(readers)

    def _by_day(self, readers: dict[str, SegmentReader]) -> "dict[int, list[pl.DataFrame]]":
        import polars as pl  # heavy; only a process that rolls or reads needs it

        days: dict[int, list[pl.DataFrame]] = {}
        for reader in readers.values():
            frame, on = reader.frame(), reader.times // _DAY
            for day in np.unique(on).tolist():
                days.setdefault(day, []).append(frame.filter(pl.Series(on == day)))
        return days

    def _with_small_files(
        self, frames: "list[pl.DataFrame]", files: Sequence[LakeFile]
    ) -> "tuple[list[pl.DataFrame], set[str]]":
        """Take in files of the day that are not much larger, so that a day has few files and each row moves seldom."""
        import polars as pl

        rows = sum(frame.height for frame in frames)
        replaced: set[str] = set()
        for file in sorted(files, key=lambda each: each.rows):
            if file.rows > 2 * rows:
                break
            try:
                held = pl.read_parquet(self._directory / file.path, hive_partitioning=False, glob=False)
            except (pl.exceptions.PolarsError, OSError):
                continue  # it stays as it is, and the next scan of it says what is wrong
            frames = [*frames, held]
            replaced.add(file.path)
            rows += file.rows
        return frames, replaced

    def _mergeable(self, frames: "list[pl.DataFrame]") -> "list[pl.DataFrame]":
        try:
            return [merged(self._rules, frames, by_time=True)]
        except StateError:  # a column changed its type: each frame becomes a file of its own
            return [merged(self._rules, [frame], by_time=True) for frame in frames]

    def _written(self, day: int, frame: "pl.DataFrame") -> LakeFile:
        times = frame[self._rules.time].to_physical()
        folder = self._place / f"day={_date(day)}"
        path = folder / f"{secrets.token_hex(8)}.parquet"
        unfinished = path.with_suffix(UNFINISHED)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(unfinished, compression="zstd", statistics=True)
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            size_bytes = unfinished.stat().st_size
            unfinished.rename(path)
            sync_directory(folder)
            sync_directory(self._place)
        except OSError as failure:
            raise StateError(
                f"cannot roll lake table '{self._table}' into {path}: {failure.strerror or failure}; "
                "free space on this disk or check it. The rows stay in their segments"
            ) from failure
        low, high = times.min(), times.max()
        assert isinstance(low, int)
        assert isinstance(high, int)
        return LakeFile(
            system=self._system,
            table=self._table,
            path=path.relative_to(self._directory).as_posix(),
            rows=frame.height,
            low=low,
            high=high,
            size_bytes=size_bytes,
        )


def _first_name(path: Path) -> Path:
    """What a Parquet file and all that is kept with it have in common."""
    return path.with_name(path.name.partition(".")[0])


@contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """Whether this is the only roll of the lake; the kernel ends the claim when the process dies."""
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory / ".rolling", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def _date(day: int) -> str:
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day):%Y-%m-%d}"
    except OverflowError:  # outside the years 1 to 9999
        return f"{day:+d}"
