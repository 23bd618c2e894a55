"""Errors: which share of what was asked got no answer?"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import msgspec
import polars as pl
from scipy.special import betaincinv

from holdfast.checks.sequence import overlap
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.core.meaning import many

FAILED = "failed_share"
STATED = 0.01
"""Limit where the file states none: one in a hundred."""


class Errors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Share of the asked rows that were recorded as failed, with an exact interval at 95 %."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.META})
    facts: ClassVar[frozenset[str]] = frozenset({"failures"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "stated"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "nothing"

    def measure(self, window: Window, baseline: Window | None = None) -> Sequence[Reading]:
        """`failed_share`, of the rows whose `status` is not ``ok`` and of those that `failures` says were left out."""
        if why := overlap(window):
            return [_unknown(why)]
        failures: Callable[[Block], int] = window.facts["failures"]
        if any(block.rows().height and "status" not in block.rows().columns for block in window.blocks):
            return [_unknown("the rows have no column status, which says whether they were answered")]
        aside = [failures(block) for block in window.blocks]
        failed = [left + block.remember("failed", _failed) for left, block in zip(aside, window.blocks, strict=True)]
        asked, lost = sum(aside) + sum(block.rows().height for block in window.blocks), sum(failed)
        if not asked:
            return [_unknown("nothing was asked for")]
        low, high = _interval(lost, asked)
        worst = window.blocks[failed.index(max(failed))].day
        note = f"{lost:,} of {many(asked, 'row')} failed" + (f", most of them on {worst}" if lost else "")
        return [Reading(name=FAILED, value=lost / asked, rows=asked, low=low, high=high, note=note)]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails where the whole interval lies above 0.01, warns where only the share does."""
        if reading.value is None:
            return Grade.UNKNOWN, reading.note
        said = f"{reading.note}: {reading.value:.2%}, where {STATED:.0%} is the stated limit"
        if (reading.low or 0.0) > STATED:
            return Grade.FAIL, said
        return (Grade.WARN if reading.value > STATED else Grade.PASS), said


def _failed(rows: pl.DataFrame) -> int:
    return int((rows["status"].cast(pl.String) != "ok").fill_null(True).sum()) if rows.height else 0


def _interval(failed: int, asked: int) -> tuple[float, float]:
    """Bounds of a share at 95 %, exact for rows that fail independently (Clopper and Pearson 1934)."""
    low = float(betaincinv(failed, asked - failed + 1, 0.025)) if failed else 0.0
    high = float(betaincinv(failed + 1, asked - failed, 0.975)) if failed < asked else 1.0
    return low, high


def _unknown(why: str) -> Reading:
    return Reading(name=FAILED, value=None, note=why)
