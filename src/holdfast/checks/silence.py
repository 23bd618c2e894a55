"""Silence: what stopped, froze or changed its unit without any error being raised."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Literal

import msgspec
import numpy as np

from holdfast.checks.instants import times_of
from holdfast.checks.profile import (
    LEAST_ROWS,
    PROBS,
    BoolArray,
    FloatArray,
    IntArray,
    Profile,
    mixed,
    of_block,
    of_window,
)
from holdfast.checks.sequence import overlap
from holdfast.checks.stated import within
from holdfast.checks.units import explanations, nearest
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.core.meaning import many

LEAST_BLOCKS = 5
"""Days before the window that a column needs before anything is said about it."""
OTHERS = 10
"""A column is constant only where by chance a day has no other value once in e^10 days."""
NEARLY = 0.9
"""A column that had two days with this share of one value may well have one with nothing else (a clear sky)."""
MISSING_RISE = 0.1
"""A missing share fails when it rises by this much above the worst recent day at least."""
MISSING_NEAR = 0.07
"""So close to where it fails a missing share warns."""
DOUBTFUL = 0.75
"""A unit change warns from this part of the distance at which it fails (`Conversion.far`)."""
SWING = 1.5
"""A pure factor must be this many times the factor by which the spread of recent days differs."""
BEYOND = 1.5
"""A unit change must be this many times farther than the farthest that the history shows without one."""
KTH = 2
"""Distances go to the second nearest day, so that one day that was already wrong does not hide the next."""
ODD = 0.2
"""A day before is odd where values other than the commonest made up less than this part of what they did on any
other day."""
MIDDLE = slice(PROBS.index(0.25), PROBS.index(0.75) + 1)
"""The quantiles of a column's middle half."""
FEW_LABELS = 0.1
"""Labels fail below this part of the usual labelled share, and warn below five times as much."""
MISSED_RUNS = 2
"""A monitor fails when it has not run for this many times its `every`."""


class Silence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dead, constant or half-missing columns, changed units, no traffic, no labels, monitors that do not run."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.INPUT})
    facts: ClassVar[frozenset[str]] = frozenset({"now", "monitors", "mature_until"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "stated"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "recent"

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        """One reading per column (the gravest finding), then traffic, labels, and one per monitor."""
        inputs, outputs = window.columns(Role.INPUT), window.answered()
        recent = baseline.blocks if baseline else ()
        if why := overlap(window, baseline):
            return [_reading("rows", None, "traffic", why, unit="rows"), *_monitors(window.facts)]
        of_two_kinds = mixed(window, [*inputs, *outputs])
        readings = [_traffic(window, recent), _labels(window, recent), *_monitors(window.facts)]
        if window.blocks:
            columns = [column for column in (*inputs, *outputs) if column not in of_two_kinds]
            now, days = _pooled(window, recent, columns)
            times = times_of(window)
            scaled = [column in inputs and column not in times for column in columns]
            readings += _columns(columns, scaled, now, days, window.facts.get("usual", {}))
        for column, what in of_two_kinds.items():
            readings.append(_reading("missing_share", None, column, f"{column} changed its type: it is {what}"))
        return readings

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails outside what the reading's `low` and `high` allow; near them, unit changes and labels warn."""
        grade, why = within(reading)
        if grade is Grade.PASS and reading.value is not None:
            doubtful = reading.name == "unit_change"
            doubtful |= reading.name == "labelled_share" and reading.value < 5 * (reading.low or 0.0)
            doubtful |= reading.name == "missing_share" and reading.value > (reading.high or 1.0) - MISSING_NEAR
            if doubtful:
                return Grade.WARN, reading.note
        return grade, why


def _pooled(window: Window, recent: Sequence[Block], columns: Sequence[str]) -> tuple[Profile, list[Profile]]:
    """The profile of the window, and those of the days before it that have rows.

    Where days have too few rows to say anything, days in a row are pooled until they have enough: the newest with the
    window, be they good or bad, and those before them with one another. `lately` brings what the baseline leaves out:
    days that were bad, and days before those that it has.
    """
    lately = sorted(window.facts.get("lately", recent), key=lambda block: block.start)
    pool = list(window.blocks)
    heights = [block.rows().height for block in lately]
    is_sparse = bool(heights) and float(np.median(heights)) < LEAST_ROWS  # a day of few among many says nothing itself
    while is_sparse and lately and _rows_of(window.blocks) > 0 and _rows_of(pool) < LEAST_ROWS:
        pool.insert(0, lately.pop())
    if len(pool) == len(window.blocks):
        days = [of_block(block, columns) for block in recent]
        return of_window(window, columns), [day for day in days if day.rows]
    first = min((block.start for block in recent), default=pool[0].start)
    inside = set(pool)
    good = [block for block in (*(b for b in lately if b.start < first), *recent) if block not in inside]
    groups: list[list[Block]] = []
    group: list[Block] = []
    for block in sorted(good, key=lambda block: block.start, reverse=True):
        group.insert(0, block)
        if _rows_of(group) >= LEAST_ROWS:
            groups.insert(0, group)
            group = []
    if not groups:
        return of_window(window, columns), []
    return of_window(Window(pool, window.roles), columns), [of_window(Window(g, window.roles), columns) for g in groups]


def _rows_of(blocks: Sequence[Block]) -> int:
    return sum(block.rows().height for block in blocks)


def _traffic(window: Window, recent: Sequence[Block]) -> Reading:
    rows = sum(block.rows().height for block in window.blocks)
    before = [block.rows().height for block in sorted(recent, key=lambda block: block.start)]
    if not rows and not any(before):
        return _reading("rows", None, "traffic", "no rows now and none before", unit="rows")
    if rows:
        return _reading("rows", float(rows), "traffic", "", unit="rows", rows=rows, low=1.0)
    *runs, lately = (len(run) for run in "".join("x" if count else "." for count in before).split("x"))
    quiet = len(window.blocks) + lately
    had = f"the {len(before)} days before" if len(before) != 1 else "the day before"
    note = f"no rows for {many(quiet, 'day')}; {had} had {np.mean(before):,.0f} a day"
    return _reading("rows", 0.0, "traffic", note, unit="rows", low=1.0 if quiet > max(runs) else 0.0)


def _labels(window: Window, recent: Sequence[Block]) -> Reading:
    label, until = window.columns(Role.LABEL), window.facts.get("mature_until")
    if not label or until is None:
        return _reading("labelled_share", None, "labels", "no label column, or nothing says which labels are complete")
    mature = sorted((b for b in (*recent, *window.blocks) if b.end <= until), key=lambda block: block.start)
    shares = [(block.rows().height, share) for block in mature if (share := _labelled_share(block, label[0])) >= 0]
    if len(shares) <= LEAST_BLOCKS:
        return _reading(
            "labelled_share", None, "labels", f"{many(len(shares), 'day')} with complete labels, too few to compare"
        )
    (rows, newest), usual = shares[-1], float(np.median([share for _, share in shares[:-1]]))
    note = f"{newest:.1%} of the newest complete day have a label; usual are {usual:.1%}"
    if not usual:
        return _reading("labelled_share", None, "labels", f"no labels on any of {len(shares)} days", rows=rows)
    if rows < LEAST_ROWS:
        why = f"{many(rows, 'row')} on the newest complete day, {LEAST_ROWS} are needed"
        return _reading("labelled_share", None, "labels", why, rows=rows)
    return _reading("labelled_share", newest, "labels", note, rows=rows, low=FEW_LABELS * usual)


def _labelled_share(block: Block, label: str) -> float:
    rows = block.rows()
    if not rows.height or label not in rows.columns:
        return -1.0
    return block.remember(("labelled share", label), lambda frame: frame[label].count() / frame.height)


def _monitors(facts: Mapping[str, object]) -> list[Reading]:
    monitors, now = facts.get("monitors"), facts.get("now")
    if not isinstance(monitors, Mapping) or not isinstance(now, datetime):
        return [_reading("since_last_run", None, "monitors", "nothing says when monitors ran", unit="s")]
    return [_monitor(name, last_at, every, now) for name, (last_at, every) in monitors.items()]


def _monitor(name: str, last_at: datetime | None, every: timedelta, now: datetime) -> Reading:
    subject, allowed_s = f"monitor {name}", MISSED_RUNS * every.total_seconds()
    if last_at is None:
        return _reading("since_last_run", None, subject, f"monitor {name} has never run", unit="s")
    note = f"monitor {name} runs every {every} and last ran at {last_at:%Y-%m-%d %H:%M}"
    return _reading("since_last_run", (now - last_at).total_seconds(), subject, note, unit="s", high=allowed_s)


def _columns(
    columns: Sequence[str],
    scaled: Sequence[bool],
    now: Profile,
    days: Sequence[Profile],
    usual: Mapping[tuple[str, str], float],
) -> list[Reading]:
    """One reading per column; `scaled` says which of them are inputs that come in some unit."""
    if not now.rows or len(days) < LEAST_BLOCKS:
        why = f"{many(now.rows, 'row')} now and {many(len(days), 'day')} before; {LEAST_BLOCKS} days are needed"
        return [_reading("missing_share", None, column, why, rows=now.rows) for column in columns]
    missing = np.array([day.missing for day in days])
    present = np.array([day.present for day in days])
    distinct = np.array([day.distinct for day in days])
    common = np.array([day.common for day in days])
    quantiles = np.array([day.quantiles for day in days])
    moved = _moved(now.quantiles, quantiles)
    readings = []
    for k, column in enumerate(columns):
        usable = present[:, k] >= LEAST_ROWS
        before = (present[usable, k], distinct[usable, k], common[usable, k])
        found = None
        if ("distinct_values", column) not in usual:  # a column that was constant for a day before may be so again
            found = _constant(column, int(now.present[k]), int(now.distinct[k]), *before)
        seen = usual.get(("missing_share", column), 0.0)
        lacking = _missing(column, now.rows, float(now.missing[k]), missing[:, k], seen)
        is_known = found is not None and found.value is not None
        found = found if found is not None and (is_known or _passes(lacking)) else lacking
        if scaled[k] and moved[k] and _passes(found):
            seen = usual.get(("unit_change", column), 0.0)
            found = _unit(column, int(now.present[k]), now.quantiles[:, k], quantiles[usable, :, k], seen) or found
        readings.append(found)
    return readings


def _constant(
    column: str, present: int, distinct: int, usual: IntArray, before: IntArray, common: FloatArray
) -> Reading | None:
    if distinct != 1 or len(before) < LEAST_BLOCKS or (before == 1).any():
        return None
    if present < max(LEAST_ROWS, float(np.median(usual)) / 2):
        return None  # a handful of values may well be the same
    if present * (1 - float(np.average(common, weights=usual))) < OTHERS:
        return None  # so few other values are usual that a day without one comes by chance
    if np.sort(common)[-KTH] > NEARLY:
        return None  # days that are all but constant are usual: the rows of a day share their cause
    note = f"all {present:,} values of {column} are the same; on none of {len(before)} days before they were"
    plain = np.argsort(common, kind="stable")
    if 1 - common[plain[-1]] < ODD * (1 - common[plain[-KTH]]):
        plain = plain[:-1]  # it was perhaps the first day of this fault, which must not make the fault look usual
    if _log_chance_of_none(present, 1 - common[plain], usual[plain]) > -OTHERS:
        note += (
            f", but its commonest value made up {common.min():.0%} to {common.max():.0%} of a day: a day of nothing "
        )
        return _reading("distinct_values", None, column, f"{note}else may well come by itself", rows=present)
    return _reading("distinct_values", 1.0, column, note, rows=present, low=2.0)


def _log_chance_of_none(present: int, shares: FloatArray, counts: IntArray) -> float:
    """Log of the chance that none of so many values is another than the commonest, where the share (days,) of others
    differs from day to day: beta-binomial, fitted by moments to the days before, with (days,) values each."""
    mean = float(np.average(shares, weights=counts))
    within = mean * (1 - mean)
    if mean >= 1:
        return -math.inf
    # Two weeks of days tell a variance within a factor of two: it may be as large.
    apart = 2 * float(shares.var(ddof=1) - np.mean(within / counts))
    if apart <= 0:
        return present * math.log1p(-mean)
    size = max(within / apart - 1, 1e-9)
    yes, no = mean * size, (1 - mean) * size
    return math.lgamma(no + present) - math.lgamma(no) + math.lgamma(yes + no) - math.lgamma(yes + no + present)


def _passes(reading: Reading) -> bool:
    return reading.value is not None and reading.high is not None and reading.value <= reading.high


def _missing(column: str, rows: int, share: float, before: FloatArray, seen: float) -> Reading:
    if rows < LEAST_ROWS:
        return _reading("missing_share", None, column, f"{many(rows, 'row')}, {LEAST_ROWS} are needed", rows=rows)
    worst, spread = float(before.max()), float(before.max() - before.min())
    # Three standard errors of a share at the worst recent day: a small day scatters without any cause.
    scatter = 3 * float(np.sqrt(max(worst * (1 - worst), 1 / rows) / rows))
    limit = max(worst + max(MISSING_RISE, spread, scatter), seen)
    what = f"{column} is dead: every value is missing" if share == 1.0 else f"{share:.1%} of {column} are missing"
    note = f"{what}; on {len(before)} days before it was {before.min():.1%} to {worst:.1%}" if share > worst else ""
    return _reading("missing_share", share, column, note, rows=rows, high=limit)


def _moved(now: FloatArray, days: FloatArray) -> BoolArray:
    """Which columns (columns,) lie farther from the days than these from one another, by enough that `_unit` must look:
    a first sieve over all columns at once, because nearly none of them has moved. `now` is (q, columns), `days`
    (n, q, columns)."""
    gaps = np.sort(np.abs(now - days).max(axis=1), axis=0)
    apart = np.sort(np.abs(days[:, None] - days).max(axis=2), axis=1)
    # NaN is sorted last: a day without quantiles is never near, and has no nearest itself.
    reach = np.where(np.isnan(apart[:, KTH]), 0.0, apart[:, KTH]).max(axis=0)
    moved: BoolArray = gaps[KTH - 1] > DOUBTFUL * 2.0 * reach
    return moved


def _unit(column: str, present: int, now: FloatArray, days: FloatArray, seen: float) -> Reading | None:
    """A finding only when no recent day looks like the window and, with a known conversion undone, some do. A column
    that jumped like that in the history it was promised on, where no unit changed, must jump farther."""
    days = days[~np.isnan(days).any(axis=1)]
    if (
        np.isnan(now).any()
        or len(days) < LEAST_BLOCKS
        or not _is_spread(now)
        or not _is_spread(np.median(days, axis=0))
    ):
        return None
    least = 0.02 * float(np.median(days[:, PROBS.index(0.75)] - days[:, PROBS.index(0.25)]))
    reach, far = _reach_and_far(now, days, least)
    # Another unit moves all of a column: where the middle half stays, a few large values came or went.
    far = min(far, _reach_and_far(now[MIDDLE], days[:, MIDDLE], least)[1])
    if far <= DOUBTFUL * 2.0:
        return None
    swings = _swings(days)
    causes = [c for c in explanations(now, days, within=reach, kth=KTH) if c.offset or c.factor > swings]
    if not causes or far <= DOUBTFUL * causes[0].far:
        return None
    note = "; or ".join(cause.told(column) for cause in causes[:2])
    return _reading("unit_change", far, column, note, rows=present, high=max(causes[0].far, BEYOND * seen))


def _reach_and_far(now: FloatArray, days: FloatArray, least: float) -> tuple[float, float]:
    """How far days lie from one another, at least `least`, and how many times as far the window lies from them."""
    # Each day is its own nearest, hence one more.
    reach = max(float(nearest(days, days, kth=KTH + 1).max()), least)
    return reach, float(nearest(now, days, kth=KTH)) / reach


def _swings(days: FloatArray) -> float:
    """How far the spread of recent days moves by itself, as a factor, with room: a smaller factor proves no unit."""
    spread = days[:, PROBS.index(0.75)] - days[:, PROBS.index(0.25)]
    return SWING * float(spread.max() / spread.min()) if spread.min() > 0 else float("inf")


def _is_spread(quantiles: FloatArray) -> bool:
    """A column that is mostly one value (no rain) has no scale by which a unit could be told."""
    return bool(quantiles[PROBS.index(0.75)] > quantiles[PROBS.index(0.25)])


def _reading(
    name: str,
    value: float | None,
    subject: str,
    note: str,
    *,
    unit: str = "1",
    rows: int = 0,
    low: float | None = None,
    high: float | None = None,
) -> Reading:
    return Reading(name=name, value=value, unit=unit, rows=rows, low=low, high=high, subject=subject, note=note)
