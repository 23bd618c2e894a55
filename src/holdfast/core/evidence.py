"""The words of evidence: a window is measured into readings, a limit grades them into verdicts."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")


class Role(StrEnum):
    """What a column of a window is for."""

    INPUT = "input"  # a feature, as the model's signature names it
    OUTPUT = "output"  # what was answered; numbers, or an array of one number per class
    PART = "part"  # one number of an answer of several, in a column of its own
    LABEL = "label"  # the truth; null where it has not come
    KEY = "key"  # what a label is matched on
    TIME = "time"  # one of the five times
    META = "meta"  # version, stage, latency, flags ...


Counts = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""Edges by column to counts by column; see `Block.counts`."""


class Block:
    """One unit of evidence: a day in the system's time zone, its rows read on first use.

    `start` and `end` are aware UTC times, `end` exclusive. Blocks are kept by whoever makes windows, so
    what a check derives from one (say, counts per column) can be remembered on it and is computed once.
    `counts` gives counts of columns on their edges without reading rows, where its maker can.
    """

    def __init__(
        self,
        day: date,
        start: datetime,
        end: datetime,
        load: "Callable[[], pl.DataFrame]",
        counts: Counts | None = None,
    ) -> None:
        self.day = day
        self.start = start
        self.end = end
        self._load = load
        self._counts = counts
        self._rows: pl.DataFrame | None = None
        self._memory: dict[Hashable, Any] = {}

    def rows(self) -> "pl.DataFrame":
        """All rows of the block. The frame must not be changed."""
        if self._rows is None:
            self._rows = self._load()
        return self._rows

    def counts(self, edges: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Counts by column on these edges, `holdfast.stats.histogram`, of every row that was answered.

        A column is missing where only rows can tell; None where they must be read for all columns.
        """
        return self._counts(edges) if self._counts is not None else None

    def remember(
        self, key: Hashable, compute: "Callable[[pl.DataFrame], T]", shortcut: "Callable[[], T | None] | None" = None
    ) -> T:
        """What `compute` makes of the rows, computed once per key. `compute` must be pure.

        `shortcut` gives the same without the rows, or None where it cannot.
        """
        if key not in self._memory:
            found = shortcut() if shortcut is not None else None
            self._memory[key] = compute(self.rows()) if found is None else found
        value: T = self._memory[key]
        return value


class Window:
    """A bounded slice of evidence: consecutive blocks and the role each column plays.

    One type serves hold-out rows, training snapshots and live traffic.
    """

    def __init__(self, blocks: Sequence[Block], roles: Mapping[str, Role], facts: Mapping[str, Any] | None = None):
        self.blocks = tuple(blocks)
        self.roles = dict(roles)
        self.facts: Mapping[str, Any] = facts or {}
        """What is known about the window beside its rows, named by the check that needs it (`Check.facts`)."""

    @property
    def start(self) -> datetime | None:
        return self.blocks[0].start if self.blocks else None

    @property
    def end(self) -> datetime | None:
        return self.blocks[-1].end if self.blocks else None

    def rows(self) -> "pl.DataFrame":
        """The rows of all blocks in order; a frame without columns when there is no block."""
        import polars as pl  # heavy; only ever needed where frames already exist

        frames = [block.rows() for block in self.blocks]
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()

    def columns(self, role: Role) -> list[str]:
        """Names of the columns that play a role, in order."""
        return [name for name, played in self.roles.items() if played is role]

    def answered(self) -> list[str]:
        """Names of the columns of single numbers that were answered: the output, or the parts of one of several."""
        return self.columns(Role.PART) or self.columns(Role.OUTPUT)


class Grade(StrEnum):
    """How a reading was graded. Unknown is never pass."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not applicable"


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One measured number. `value` is None when it could not be measured; `note` then says why."""

    name: str
    """What was measured, for example ``log_loss`` or ``psi``."""
    value: float | None
    unit: str = "1"
    """Unit of `value`: ``1`` for shares and losses, ``s``, ``ms``, ``rows``."""
    rows: int = 0
    """How many rows the number rests on."""
    low: float | None = None
    high: float | None = None
    """Interval, at the confidence that `note` or the check's page states."""
    subject: str = ""
    """What it is about: a column, a feed; empty for the whole window."""
    note: str = ""


class Limit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a reading turns bad. Exactly the fields that are set take effect."""

    at_least: float | None = None
    """The reading fails below this, in the reading's unit."""
    at_most: float | None = None
    """The reading fails above this, in the reading's unit."""
    no_worse_than: str | None = None
    """``live`` or ``baseline``: compared with that model on the same rows, by block bootstrap."""
    margin: float = 0.0
    """How much worse than `no_worse_than` is still accepted, in the reading's unit; at least 0."""

    @property
    def is_stated(self) -> bool:
        """True when the file gives a limit, so that nothing has to be calibrated."""
        return self.at_least is not None or self.at_most is not None or self.no_worse_than is not None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A graded reading: what a gate or monitor concluded, and why."""

    grade: Grade
    check: str
    reading: Reading
    why: str
    """One sentence a person can act on."""
    monitor: str = ""
    """Name of the monitor or gate that asked."""
    calibrated: bool = True
    """Whether history judged: false where a limit did that the file or the check states."""
    stood_in: bool = False
    """Whether a limit judged only because history was too short to calibrate one."""
    p_value: float | None = None
    level: float | None = None
    at: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    """The window that was measured."""
