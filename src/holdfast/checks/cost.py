"""Cost: what a thousand answers took, in seconds of running the model or in money."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.checks.labelled import numbers
from holdfast.checks.sequence import overlap
from holdfast.core.evidence import Grade, Reading, Role, Window
from holdfast.core.meaning import many

COST = "cost_per_1000"
LEAST_ROWS = 30


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time that the model ran per 1,000 answered rows, or what that time costs."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.META})
    facts: ClassVar[frozenset[str]] = frozenset()
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "stated"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "nothing"

    per_hour: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Price of an hour of the processor; with 0 the reading is in seconds."""
    currency: str = "money"
    """What the price is in: the unit of the reading."""

    def measure(self, window: Window, baseline: Window | None = None) -> Sequence[Reading]:
        """`cost_per_1000`, in seconds or in the currency; rows that a batch answered together share its time."""
        unit = self.currency if self.per_hour else "s"
        if why := overlap(window):
            return [Reading(name=COST, value=None, unit=unit, note=why)]
        took = [block.remember("seconds run", _seconds) for block in window.blocks]
        rows, seconds = sum(n for n, _ in took), sum(s for _, s in took)
        if rows < LEAST_ROWS:
            note = f"{many(rows, 'row')} with run_us, {LEAST_ROWS} are needed"
            return [Reading(name=COST, value=None, unit=unit, rows=rows, note=note)]
        each = seconds / rows * 1000
        value = each * self.per_hour / 3600 if self.per_hour else each
        note = f"the model ran {seconds:,.3g} s for {many(rows, 'row')}"
        return [Reading(name=COST, value=value, unit=unit, rows=rows, note=note)]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Always unknown: what an answer may cost is the system's to state."""
        return Grade.UNKNOWN, reading.note if reading.value is None else (
            f"{reading.name} is {reading.value:.3g} {reading.unit}, but nothing was promised: state at_most"
        )


def _seconds(rows: pl.DataFrame) -> tuple[int, float]:
    """Rows that say how long their batch ran, and how long all batches ran. Rows of one batch carry the time of all of
    it, and are known by that time and by when it was answered."""
    took = numbers(rows, "run_us")
    known = np.isfinite(took) & (took >= 0.0)
    if "predicted_at" not in rows.columns:
        return int(known.sum()), float((took[known] / 1e6).sum())
    batch = [name for name in ("version", "predicted_at", "run_us") if name in rows.columns]
    once = rows.filter(pl.Series(known)).unique(batch)
    return int(known.sum()), float((numbers(once, "run_us") / 1e6).sum())
