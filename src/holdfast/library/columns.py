"""One column of two tables from its counts: how far the two are apart, and why that cannot be said."""

import math
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.library.texts import Texts
from holdfast.stats.batches import nature_of
from holdfast.stats.distance import (
    Counts,
    chi_square,
    coarsen,
    hellinger,
    jensen_shannon,
    ks,
    ks_p_value,
    psi,
    total_variation,
    wasserstein,
)
from holdfast.stats.histogram import Edges, Histogram

NONE_SEEN = "{} is one that the reference never had (ids and counters do so by themselves: leave them out)"
LEAST_ROWS = 30
"""With fewer values on a side a distance measures the side's size, not a shift."""

EXPECTED = 5
"""Values that would be expected from which on their absence is no chance."""

Verdict = Literal["broken", "moved", "maybe", "no evidence", "unknown"]
"""`broken`: not what it was, whatever the unit: gone, of another type, entirely missing, or nothing but values that the
reference never had. `maybe`: moved, if every row is an observation of its own, which nobody has said."""


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one column of the current table is from the reference. What could not be measured is None.

    Distances are of the values that are present; missing ones have shares of their own.
    """

    column: str
    role: Literal["input", "output"] = "input"
    kind: Literal["number", "text", "other"]
    verdict: Verdict
    why: str
    """Why the verdict is what it is, as a sentence."""
    p_value: float | None = None
    """How often a column moves as much when nothing changed, corrected for all columns. In (0, 1]."""
    p_alone: float | None = None
    """The same of the gap of this column alone, not corrected."""
    gap: float | None = None
    """Largest gap between the two distributions: Kolmogorov-Smirnov for numbers, total variation for text. In [0, 1].
    What verdicts rest on."""
    psi: float | None = None
    """Population stability index, in [0, inf); numbers on ten cells of equal mass in the reference."""
    jensen_shannon: float | None = None
    """Distance in base 2, in [0, 1]; on the same cells."""
    hellinger: float | None = None
    """Distance, in [0, 1]; on the same cells."""
    wasserstein: float | None = None
    """In the column's unit, for numbers; a lower bound where values lie outside what the reference had."""
    missing_reference: float | None = None
    missing_current: float | None = None
    """Share of rows without a value, in [0, 1]; NaN is no value."""
    outside: float | None = None
    """Share of current values that are none of the reference's: below its least, above its most, or a text that it
    never has. In [0, 1]."""
    values_reference: int = 0
    values_current: int = 0
    """Values present."""
    type_reference: str = ""
    type_current: str = ""
    """Types as polars names them; empty where a table lacks the column."""

    @property
    def is_broken(self) -> bool:
        """It is not what it was: gone, of another type, without any value, or with none that the reference had."""
        return self.verdict == "broken"

    def __str__(self) -> str:
        return f"{self.column}: {self.verdict}, {self.why}"


def described(
    name: str, types: tuple[pl.DataType | None, pl.DataType | None], edges: Mapping[str, Edges], is_output: bool
) -> ColumnDrift:
    """What is known of a column before it is counted: `broken` where it is gone or another, else `unknown` as yet."""
    before, now = types
    kind = nature_of(before or now or pl.Null()) or "other"
    verdict: Verdict = "unknown"
    if before is None:
        why = "new: the reference has no such column"
    elif now is None:
        verdict, why = "broken", "gone: the current table has no such column"
    elif name not in edges and _nature(before) != _nature(now):
        verdict, why = "broken", f"its type changed: {now} where the reference had {before}"
    elif name not in edges:
        why = f"it holds {before}, which is not counted" + " (times move on by themselves)" * isinstance(
            before, pl.Date | pl.Datetime
        )
    else:
        why = ""
    return ColumnDrift(
        column=name,
        role="output" if is_output else "input",
        kind=kind,
        verdict=verdict,
        why=why,
        type_reference="" if before is None else str(before),
        type_current="" if now is None else str(now),
    )


def measured(
    of: ColumnDrift, edges: Edges, reference: Histogram, current: Histogram, texts: Texts | None = None
) -> ColumnDrift:
    """The same column with its distances, or with `why` none can be given; `texts` where it is text."""
    before, now = reference.present, current.present
    known = msgspec.structs.replace(
        of,
        kind="text" if edges.is_category and edges.categories else "number" if edges.cuts else of.kind,
        values_reference=int(before.sum()),
        values_current=int(now.sum()),
        missing_reference=_share(reference.nulls, reference.rows),
        missing_current=_share(current.nulls, current.rows),
    )
    why = _refusal(known, edges, reference, current, texts)
    if why:
        verdict: Verdict = "broken" if _is_emptied(known, current) else "unknown"
        return msgspec.structs.replace(known, why=why, verdict=verdict)
    # Every value is compared by counts, not by shares: 1.0 must mean all of them.
    unseen = int(now[0] + now[-1]) if texts is None else texts.unseen
    is_new = unseen == known.values_current
    coarse = (before, now) if edges.is_category else coarsen(before, now)
    return msgspec.structs.replace(
        known,
        verdict="broken" if is_new else "unknown",
        why=NONE_SEEN.format("every value") if is_new else "",
        gap=gap(before, now, edges),
        psi=psi(*coarse),
        jensen_shannon=jensen_shannon(*coarse),
        hellinger=hellinger(*coarse),
        wasserstein=None if edges.is_category else _finite(wasserstein(before, now, edges)),
        outside=max(0.0, unseen / known.values_current - (_beyond(before) if texts is None else 0.0)),
    )


def gap(reference: Counts, current: Counts, edges: Edges) -> float:
    """Kolmogorov-Smirnov statistic of numbers, total variation of text: of `Histogram.present` (k + 2,) of both."""
    return total_variation(reference, current) if edges.is_category else ks(reference, current)


def p_of_rows(edges: Edges, reference: Histogram, current: Histogram) -> tuple[float, float]:
    """P-values of the gap and of the missing share, each row taken for an observation of its own. NaN if undefined.

    Kolmogorov-Smirnov for numbers; for text and missing shares chi-square, categories that expect fewer than five
    rows on a side joined (Cochran 1954).
    """
    before, now = reference.present, current.present
    if edges.is_category:
        p_gap = chi_square(*_common(before, now)).p_value
    else:
        p_gap = ks_p_value(ks(before, now), int(before.sum()), int(now.sum()))
    missing = [np.array([one.nulls, one.rows - one.nulls], dtype=np.int64) for one in (reference, current)]
    return p_gap, chi_square(missing[0], missing[1]).p_value


def _common(reference: Counts, current: Counts) -> tuple[Counts, Counts]:
    both = reference + current
    share = min(int(reference.sum()), int(current.sum())) / max(1, int(both.sum()))
    rare = both * share < 5
    return tuple(np.append(side[~rare], side[rare].sum()) for side in (reference, current))  # type: ignore[return-value]


def _nature(kind: pl.DataType) -> str:
    """What a column holds, so far as a change of it is one of meaning: dates and datetimes are both times."""
    return nature_of(kind) or ("time" if isinstance(kind, pl.Date | pl.Datetime) else str(kind.base_type()))


def _is_emptied(of: ColumnDrift, current: Histogram) -> bool:
    """It has no value left, where the reference lets one expect several."""
    return not of.values_current and current.rows * (1.0 - (of.missing_reference or 0.0)) >= EXPECTED


def _refusal(of: ColumnDrift, edges: Edges, reference: Histogram, current: Histogram, texts: Texts | None) -> str:
    """Why there is nothing to measure; empty when there is."""
    if not reference.rows:
        return "the reference has no row"
    if not current.rows:
        return "the current table has no row"
    if not of.values_reference:
        return "every value of the reference is missing"
    if not of.values_current:
        return f"every value is missing now ({of.missing_reference:.1%} were in the reference)"
    fewest = min(of.values_reference, of.values_current)
    if fewest < LEAST_ROWS:
        side = "current table" if fewest == of.values_current else "reference"
        return f"the {side} has {fewest} values, {LEAST_ROWS} are needed"
    if texts is not None and texts.are_own(of.values_reference, of.values_current):
        return "almost every value is its own, as ids are: no distribution to compare"
    filled = (reference.present > 0) | (current.present > 0)
    if int(filled.sum()) == 1 and (edges.is_discrete or edges.is_category):
        value = edges.categories[0] if edges.categories else f"{edges.cuts[0]:g}"
        return f"every value of both tables is {value}: a constant cannot move"
    return ""


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _beyond(present: Counts) -> float:
    total = int(present.sum())
    return int(present[0] + present[-1]) / total if total else math.nan


def _finite(value: float) -> float | None:
    """The area between values that are as far apart as floats go is no float."""
    return value if math.isfinite(value) else None
