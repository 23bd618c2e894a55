"""Which Parquet files make up a lake table, kept where a swap can be one transaction.

The lake on files is given a manifest and never asks who keeps it: the catalog does, in a deployment.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Protocol

import msgspec


class LakeFile(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable Parquet file of a table. `low` and `high` are its first and last time, in microseconds."""

    system: str
    table: str
    path: str
    """Relative to the lake's directory."""
    rows: int
    low: int
    high: int
    size_bytes: int


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a table is made of at one moment. `generation` grows by one at every change."""

    generation: int = 0
    files: tuple[LakeFile, ...] = ()
    """In the order they were added."""
    rolled: frozenset[str] = frozenset()
    """Names of segments whose rows are in the files, for as long as the segments may still exist."""


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a table: what comes in, what goes out."""

    system: str
    table: str
    add: tuple[LakeFile, ...] = ()
    remove: frozenset[str] = frozenset()
    """Paths of files that the new ones replace."""
    rolled: frozenset[str] = frozenset()
    forget: frozenset[str] = frozenset()
    """Names of rolled segments that no longer exist."""


class Manifest(Protocol):
    """Keeps the contents of lake tables. Safe to share between threads and, where it is on disk, processes."""

    def contents(self, system: str, table: str) -> Contents:
        """The table as of now, all of it from one moment; empty contents for a table never swapped."""

    def generation(self, system: str, table: str) -> int:
        """The table's generation as of now, 0 for a table never swapped."""

    def swap(self, changes: Sequence[Swap]) -> None:
        """Make all changes or none. Durable when this returns."""


class MemoryManifest:
    """A manifest that lives as long as the process, for tests."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], Contents] = {}
        self._swapping = Lock()

    def contents(self, system: str, table: str) -> Contents:
        """The table as of now."""
        return self._tables.get((system, table), Contents())

    def generation(self, system: str, table: str) -> int:
        """The table's generation as of now."""
        return self.contents(system, table).generation

    def swap(self, changes: Sequence[Swap]) -> None:
        """Make all changes."""
        with self._swapping:
            tables = dict(self._tables)
            for change in changes:
                held = tables.get((change.system, change.table), Contents())
                tables[change.system, change.table] = Contents(
                    generation=held.generation + 1,
                    files=(*(file for file in held.files if file.path not in change.remove), *change.add),
                    rolled=(held.rolled | change.rolled) - change.forget,
                )
            self._tables = tables
