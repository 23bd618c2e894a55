"""Volume: are as many rows answered and labels delivered as usual, and do labels come as soon as usual?"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.checks.labelled import FloatArray, numbers
from holdfast.checks.sequence import overlap
from holdfast.checks.stated import at_most
from holdfast.core.evidence import Block, Grade, Reading, Role, Window

BEFORE = timedelta(days=14)
"""How far back the blocks lie that say what is usual. A window of history must be compared like one of today, so this
is as far as the baseline of a check that compares with the recent past reaches."""
CLOCK_CHANGE = timedelta(hours=2)
"""Two weeks across the end of summer time are an hour longer."""
LEAST_SAME = 2
"""Blocks of the same weekday (and hour) that are needed to say what is usual."""
LEAST_BLOCKS = 5
"""Days with complete labels before those that are looked at."""
LEAST_ROWS = 30
DAYS = (1, 2, 3, 5, 7, 14, 30)
"""Days after the event at which the delay curve of labels is shown."""
WHOLE_DAY_S = 20 * 3600.0
"""Blocks at least this long are days, the shortest of which has 23 hours; below, the hour matters too."""

CHANGE, UNLABELLED, LATER = "volume_change", "unlabelled_rise", "labels_later"
STATED: Mapping[str, float] = {CHANGE: math.log(10), UNLABELLED: 0.5, LATER: 0.5}
"""Limits while history is too short: a tenth or ten times as many rows, half of all labels gone or late."""


class Volume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the number of rows is from what is usual on this weekday, how many labels lack, how much later they come.

    Usual is what the two weeks before had.
    """

    needs: ClassVar[frozenset[Role]] = frozenset()
    facts: ClassVar[frozenset[str]] = frozenset()
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "window"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "recent"

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        """`volume_change` of the rows, then `unlabelled_rise` and `labels_later` of the labels of complete days."""
        if (why := overlap(window, baseline)) or not window.blocks:
            return _unknowns(why or "the window is empty")
        blocks = sorted(window.blocks, key=lambda block: block.start)
        first = blocks[0].start
        since = first - BEFORE - CLOCK_CHANGE
        before = [b for b in (baseline.blocks if baseline else ()) if since <= b.start and b.end <= first]
        before.sort(key=lambda block: block.start)
        key = window.columns(Role.KEY)
        return [_rows(blocks, _since_first(before), key[0] if key else ""), *_labels(window, blocks, before)]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails for a tenth or ten times as many rows as usual, and for half of all labels gone or late."""
        grade, why = at_most(reading, STATED[reading.name])
        return grade, why if reading.value is None else f"{why}; {reading.note}"


def _since_first(before: Sequence[Block]) -> Sequence[Block]:
    """Without the blocks before the first that has rows, which say nothing of what is usual: nothing was answered yet.
    One is kept where the same time of a later week has none either: a shop that is closed on Sundays."""
    first = next((k for k, block in enumerate(before) if block.rows().height), len(before))
    closed = {_time_of_week(block) for block in before[first:] if not block.rows().height}
    return [block for k, block in enumerate(before) if k >= first or _time_of_week(block) in closed]


def _rows(blocks: Sequence[Block], before: Sequence[Block], key: str) -> Reading:
    """|ln| of the rows over those of the week before, or over those of the one before that, whichever is nearer; half a
    row is added to all. So a holiday does not make the same day of the next two weeks look strange."""
    now = sum(_answered(block, key) for block in blocks)
    newest_first = before[::-1]
    same = [[_answered(b, key) for b in newest_first if _time_of_week(b) == _time_of_week(block)] for block in blocks]
    weeks = min(len(counts) for counts in same)
    if weeks < LEAST_SAME:
        day = next(block for block, counts in zip(blocks, same, strict=True) if len(counts) == weeks).day
        why = f"{weeks} of the blocks before are a {day:%A}, {LEAST_SAME} are needed to say what is usual"
        return _reading(CHANGE, None, "rows", why, now)
    if not any(_answered(block, key) for block in (*blocks, *before)):
        return _reading(CHANGE, None, "rows", "no rows now and none before", 0)
    totals = [sum(counts[k] for counts in same) for k in range(weeks)]
    value = min(abs(math.log((now + 0.5) / (total + 0.5))) for total in totals)
    empty = [block for block, counts in zip(blocks, same, strict=True) if not _answered(block, key) and min(counts)]
    when = f"on the {blocks[0].day:%A}s before" if len(blocks) == 1 else "in the weeks before"
    note = f"{now:,} rows; {when} there were {' and '.join(f'{total:,}' for total in totals)}"
    note += f"; no rows at all on {', '.join(str(block.day) for block in empty[:3])}" if empty else ""
    return _reading(CHANGE, value, "rows", note, now)


def _labels(window: Window, blocks: Sequence[Block], before: Sequence[Block]) -> list[Reading]:
    """Both readings of the newest blocks whose labels are complete, as many as the window has."""
    label, until = window.columns(Role.LABEL), window.facts.get("mature_until")
    if not label or not isinstance(until, datetime):
        return _of_labels("no label column, or nothing says which labels are complete")
    mature = [block for block in (*before, *blocks) if block.end <= until]
    newest, older = mature[-len(blocks) :], mature[: -len(blocks)]
    if len(older) < LEAST_BLOCKS:
        return _of_labels(f"{len(older)} earlier days with complete labels, {LEAST_BLOCKS} are needed")
    horizon = _horizon(window.facts, until)
    now, usual = (_delivered(some, label[0], horizon) for some in (newest, older))
    if min(now.rows, usual.rows) < LEAST_ROWS:
        return _of_labels(f"{min(now.rows, usual.rows)} rows with complete labels, {LEAST_ROWS} are needed", now.rows)
    if not usual.labelled:
        return _of_labels(f"no label on {len(older)} days before either", now.rows)
    shares = [each.labelled / each.rows for each in (now, usual)]
    days = f"{newest[0].day}" if len(newest) == 1 else f"{newest[0].day} to {newest[-1].day}"
    note = f"{shares[0]:.1%} of {now.rows:,} rows of {days} have a label; usual are {shares[1]:.1%}"
    first = _reading(UNLABELLED, max(0.0, shares[1] - shares[0]), "labels", note, now.rows)
    if not (now.is_dated and usual.is_dated):
        return [first, _reading(LATER, None, "label delay", "nothing says when labels were known", now.rows)]
    if not now.labelled:
        return [first, _reading(LATER, None, "label delay", "no label came, so none came late", now.rows)]
    return [first, _later(now, usual)]


class _Delivered(msgspec.Struct, frozen=True):
    """What came of the labels of some blocks."""

    rows: int
    labelled: int
    delays: FloatArray
    """Days from the event to its label, ascending; (labelled,) where all of them are dated."""
    early: int
    """Labels that were known before their answer was given."""

    @property
    def is_dated(self) -> bool:
        return self.delays.size == self.labelled


def _delivered(blocks: Sequence[Block], label: str, horizon: timedelta | None) -> _Delivered:
    key = ("labels delivered", label, horizon)
    parts = [block.remember(key, partial(_count, label, block.end, horizon)) for block in blocks]
    delays = np.sort(np.concatenate([part.delays for part in parts]))
    return _Delivered(sum(p.rows for p in parts), sum(p.labelled for p in parts), delays, sum(p.early for p in parts))


def _count(label: str, end: datetime, horizon: timedelta | None, rows: pl.DataFrame) -> _Delivered:
    """The labels of one block that were known when it was mature."""
    has = _present(rows, label)
    if not (_is_time(rows, "event_at") and _is_time(rows, "label_known_at")):
        return _Delivered(rows.height, int(has.sum()), np.empty(0), 0)
    if horizon is not None:  # the rows of a version know labels that came after their day counted as complete
        has &= (rows["label_known_at"] <= end + horizon).fill_null(True).to_numpy()
    waited = (rows["label_known_at"] - rows["event_at"]).dt.total_microseconds().cast(pl.Float64).to_numpy()
    days = waited[has] / 86_400e6
    early = 0
    if _is_time(rows, "predicted_at"):
        early = int((rows["label_known_at"] < rows["predicted_at"]).fill_null(False).to_numpy()[has].sum())
    return _Delivered(rows.height, int(has.sum()), days[~np.isnan(days)], early)


def _horizon(facts: Mapping[str, object], until: datetime) -> timedelta | None:
    """How long after its end a day counts as complete; where only the clock says so, rounded up to days."""
    after, now = facts.get("mature_after"), facts.get("now")
    if isinstance(after, timedelta):
        return after
    return timedelta(days=-((until - now) // timedelta(days=1))) if isinstance(now, datetime) else None


def _later(now: _Delivered, usual: _Delivered) -> Reading:
    """The largest share of labels that usually has come by some delay and now has not: one side of a KS distance."""
    at = usual.delays
    gap = np.arange(1, at.size + 1) / at.size - np.searchsorted(now.delays, at, side="right") / now.delays.size
    # Of tied delays the last one counts: before it not all of them have come.
    gap = gap[np.append(at[1:] != at[:-1], True)]
    worst = max(0.0, float(gap.max()))
    curves = [np.searchsorted(each.delays, DAYS, side="right") / each.delays.size for each in (now, usual)]
    shown = [f"{share:.0%} within {days} d ({was:.0%})" for days, share, was in zip(DAYS, *curves, strict=True)]
    whole = int(np.argmax(np.minimum(*curves) >= 1)) if (np.minimum(*curves) >= 1).any() else len(DAYS) - 1
    shown = shown[: whole + 1]
    note = f"labels came {', '.join(shown)}, in brackets what is usual"
    note += f"; {now.early:,} were known before the answer was given" if now.early else ""
    return _reading(LATER, worst, "label delay", note, now.labelled)


def _answered(block: Block, key: str) -> int:
    """How many keys were answered, a row without a key counting as one of its own: days whose labels are complete hold
    the last answer of each key only, newer days hold all of them."""

    def compute(rows: pl.DataFrame) -> int:
        if key not in rows.columns:
            return rows.height
        return rows[key].drop_nulls().n_unique() + rows[key].null_count()

    return block.remember(("keys answered", key), compute)


def _time_of_week(block: Block) -> tuple[int, int]:
    """Weekday, and for blocks shorter than a day the hour in UTC."""
    is_day = (block.end - block.start).total_seconds() >= WHOLE_DAY_S
    return block.day.weekday(), -1 if is_day else block.start.hour


def _is_time(rows: pl.DataFrame, column: str) -> bool:
    return column in rows.columns and isinstance(rows[column].dtype, pl.Datetime)


def _present(rows: pl.DataFrame, column: str) -> npt.NDArray[np.bool_]:
    if column not in rows.columns:
        return np.zeros(rows.height, dtype=np.bool_)
    if rows[column].dtype.is_numeric():
        return ~np.isnan(numbers(rows, column))
    return rows[column].is_not_null().to_numpy()


def _of_labels(why: str, rows: int = 0) -> list[Reading]:
    return [_reading(UNLABELLED, None, "labels", why, rows), _reading(LATER, None, "label delay", why, rows)]


def _unknowns(why: str) -> list[Reading]:
    return [_reading(CHANGE, None, "rows", why, 0), *_of_labels(why)]


def _reading(name: str, value: float | None, subject: str, note: str, rows: int) -> Reading:
    return Reading(name=name, value=value, rows=rows, subject=subject, note=note)
