"""When it began: the step of a daily number. In: a case, its days. Out: a day with its interval, and the two sides."""

import math
from collections.abc import Sequence
from datetime import date, timedelta

import msgspec
import numpy as np
import numpy.typing as npt

from holdfast.core import kinds
from holdfast.core.evidence import Window
from holdfast.core.meaning import many
from holdfast.core.protocols import Check
from holdfast.core.records import ColumnCost
from holdfast.flow import evaluation
from holdfast.flow.case import Case
from holdfast.flow.classes import part_names
from holdfast.flow.dailies import Dailies
from holdfast.stats.changepoint import change_point

FloatArray = npt.NDArray[np.float64]

SIDE = 1
"""Fewest days on either side of a step: an alarm may come after one bad day."""
LEAST_DAYS = 7
"""So many days before a step have a level that it can stand out from."""
RECENT_DAYS = 28
"""A column is compared with itself a month ago first: over the seasons of a reference everything moves."""
AFTER_DAYS = 14
"""The newest so many days since it began are what is compared."""
LEVEL = 0.05
DATING = "when it began"
SUSPECTS = 3
"""So many of the costliest columns, and of those that moved farthest, are asked for a step where losses have none."""
OF_MATURE_DAYS = frozenset({"labelled_share", "unlabelled_rise", "labels_later"})
"""Readings about the newest days whose labels count as complete, by checks that else look at the newest days."""


class Dated(msgspec.Struct, frozen=True, kw_only=True):
    """When a daily number took a step."""

    at: date
    low: date
    high: date
    by: str


def when_began(case: Case, days: Dailies) -> Dated | None:
    """The step of what the incident is about: a column's distance, the daily loss, or the check's own number."""
    if case.check.against == "recent":
        return _first_seen(case)
    if case.is_about_labels:
        values, _ = days.losses()
        return _stepped(case, days.days, values, f"daily {case.loss}")
    if case.is_about_rows:
        return when_moved(case, days, case.incident.subject) if days.moves(case.incident.subject) else None
    if case.check.needs and case.check.against == "nothing":
        return _stepped(case, days.days, _measured(case, days), f"daily {case.incident.last.reading.name}", False)
    case.notes.append(f"{DATING}: {case.incident.check} is about a moment, not about days")
    return None


def _stepped(case: Case, days: Sequence[date], values: FloatArray, by: str, upward: bool = True) -> Dated | None:
    found, why = _step(days, values, by, upward=upward, level=LEVEL)
    case.notes += [] if found else [f"{DATING} by the {by}: {why}"]
    return found


def when_moved(case: Case, days: Dailies, column: str) -> Dated | None:
    """The step of a column's distance; None where none stands out."""
    found, why = _step_of(days, column, LEVEL)
    case.notes += [] if found else [f"{DATING} by the distance of {column}: {why}"]
    return found


def _first_seen(case: Case) -> Dated:
    """A check that compares each window with the days just before it alarms in the first one that differs. What it
    says of labels is about the newest days whose labels were complete, which are not those of the window."""
    opened = case.incident.opened_at
    is_of_labels = case.incident.first.reading.name in OF_MATURE_DAYS
    last = case.live.last_mature_day(opened) if is_of_labels else case.live.last_complete_day(opened)
    first = last - timedelta(days=case.window_days() - 1)
    return Dated(at=first, low=first, high=last, by="first window that differs from the days before it")


def _measured(case: Case, days: Dailies) -> FloatArray:
    """The check's own number, measured on each day alone."""
    check: Check = kinds.load("checks", case.incident.check)(**case.options())
    facts = {**case.reference.facts, "task": case.task, "now": case.now}
    wanted = (case.incident.last.reading.name, case.incident.subject)
    values = []
    for day in days.days:
        read = evaluation.measure(check, Window([days.block(day)], case.live.roles(), facts), None)
        value = next((r.value for r in read if (r.name, r.subject) == wanted), None)
        values.append(math.nan if value is None else value)
    return np.array(values)


def when_any_moved(case: Case, days: Dailies, dated: Dated | None, ranking: tuple[ColumnCost, ...]) -> Dated | None:
    """The largest step of a column instead, where the incident's own number has none, or where it is the daily loss
    and the other lies within its interval: losses are noisy, and a column that broke says the day.

    Asked are the costliest columns and those that moved farthest since the oldest days, each at its share of the
    level.
    """
    if dated is not None and not case.is_about_labels:
        return dated
    third = len(days.days) // 3
    apart = {name: days.apart(name, days.days[:third], days.days[-third:]) for name in _movable(case, days)}
    farthest = sorted((name for name in apart if apart[name] > 0), key=lambda name: -apart[name])[:SUSPECTS]
    costliest = [each.column for each in ranking if each.cost > (each.usual or 0.0)][:SUSPECTS]
    suspects = list(dict.fromkeys([*costliest, *farthest]))
    found = []
    for column in suspects:
        step, _ = _step_of(days, column, LEVEL / len(suspects))
        if step is not None and (dated is None or dated.low <= step.at <= dated.high):
            old, new = [day for day in days.days if day < step.at], [day for day in days.days if day >= step.at]
            found.append((days.apart(column, old, new), step))
    return max(found, key=lambda each: each[0])[1] if found else dated


def _movable(case: Case, days: Dailies) -> list[str]:
    outputs = part_names(case.task.output, case.task.classes) or [case.task.output]
    return [name for name in (*days.columns, *outputs) if days.moves(name)]


def sides(case: Case, days: Dailies, dated: Dated | None) -> tuple[list[date], list[date]]:
    """Days before it can have begun, and since it most likely has.

    Without a date the newest days stand for what came since: those of the monitor's window, or two weeks of
    complete labels. What began earlier then lies on both sides, and costs more than is said.
    """
    if dated is None:
        if case.is_about_labels:
            _, rows = days.losses()
            known = [day for day, count in zip(days.days, rows, strict=True) if count]
            newest = known[len(known) - min(AFTER_DAYS, len(known) // 2) :]
        else:
            newest = days.days[-case.window_days() :]
        since = newest[0] if newest else days.days[-1]
        return [day for day in days.days if day < since], [day for day in days.days if day >= since]
    before = [day for day in days.days if day < dated.low]
    if len(before) < LEAST_DAYS:  # an interval that reaches back to the first day leaves nothing to compare with
        before = [day for day in days.days if day < dated.at]
    return before, [day for day in days.days if day >= dated.at]


def distance_of(column: str) -> str:
    """The daily number that says when a column moved, as it is told."""
    return f"daily distance of {column}"


def _step_of(days: Dailies, column: str, level: float) -> tuple[Dated | None, str]:
    """When a column moved: within the last month against the days before that, else within all days against the
    version's reference, each at half the level."""
    recent, earlier = days.days[-RECENT_DAYS:], days.days[:-RECENT_DAYS]
    by = distance_of(column)
    if len(earlier) >= LEAST_DAYS:
        found, _ = _step(recent, days.distances(column, recent, earlier), by, upward=True, level=level / 2)
        if found is not None:
            return found, ""
    return _step(days.days, days.distances(column, days.days), by, upward=True, level=level / 2)


def _step(days: Sequence[date], values: FloatArray, by: str, *, upward: bool, level: float) -> tuple[Dated | None, str]:
    """When a daily number (n,) changed its level, for the worse; else why that cannot be told."""
    known = np.flatnonzero(np.isfinite(values))
    if known.size <= LEAST_DAYS:
        return None, f"{many(known.size, 'day')} of it are known, more than {LEAST_DAYS} are needed"
    found = change_point(np.where(np.isfinite(values), values, np.nan), least=SIDE, level=level)
    if found.at is None or found.low is None or found.high is None:
        return None, found.why
    if np.count_nonzero(known < found.at) < LEAST_DAYS:
        return None, f"its largest step, on {days[found.at]}, lies within the first {LEAST_DAYS} days"
    if upward and found.after < found.before:
        return None, f"its largest step, on {days[found.at]}, is one for the better"
    return Dated(at=days[found.at], low=days[found.low], high=days[found.high], by=by), ""
