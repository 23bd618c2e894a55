"""What an incident means. In: an incident, the days before and after. Out: when it began, where, what it costs, why."""

import logging
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.core.blocks import block_bounds
from holdfast.core.evidence import Reading
from holdfast.core.protocols import Task, Transaction
from holdfast.core.records import ColumnCost, Explanation, Happening, Incident
from holdfast.core.spec import SystemSpec
from holdfast.flow.case import Answer, Case
from holdfast.flow.categories import came_and_went
from holdfast.flow.dailies import Dailies
from holdfast.flow.dating import (
    AFTER_DAYS,
    DATING,
    LEVEL,
    Dated,
    distance_of,
    sides,
    when_any_moved,
    when_began,
    when_moved,
)
from holdfast.flow.happenings import happenings, near
from holdfast.flow.incidents import SEARCHING
from holdfast.flow.monitors import Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.pricing import culprit, ends, measured_rise, ranked
from holdfast.stats.impact import Values
from holdfast.stats.slices import Slice, find_slices

log = logging.getLogger(__name__)

COSTING = "what it costs"
MOST_SAID = 5
"""Columns whose price is said."""
MOST_SEARCHED = 10_000
"""Rows on either side in which segments are searched."""
PAIRED = 10
"""Columns that are searched two by two."""
EARLIER = timedelta(days=3)
"""What was changed so long before it can have begun may be the cause."""
MOST_HAPPENINGS = 8
SETTLED_DAYS = 7
"""With labels of so many days since it began an explanation is not made anew."""
LONGEST = timedelta(days=14)
"""For so long after an incident opened it is explained again as days and labels come in."""


def is_due(incident: Incident, now: datetime) -> bool:
    """True for an incident that was not explained, that is about more by now, or whose explanation may say more: then
    after one, four and thirteen days."""
    explained = incident.explained
    if explained is None:
        return True
    if incident.check not in SEARCHING and not {incident.subject, *incident.also} <= {*explained.about, ""}:
        return True
    age = explained.at - incident.opened_at
    return (
        not explained.is_final
        and now - explained.at >= 2 * age + timedelta(days=1)
        and now - incident.opened_at <= LONGEST
    )


def take_up(
    tx: Transaction,
    spec: SystemSpec,
    incident: Incident,
    task: Task,
    reference: Reference,
    live: LivePredictions,
    answer: Answer | None,
    now: datetime,
) -> Incident:
    """The incident with its explanation, stored; as it is where that is not due. An incident that cannot be explained
    says so and stands. The note of its newest verdict names the categories that came and went.

    `answer` is None where the model cannot be asked: served elsewhere.
    """

    def case_of(incident: Incident) -> Case:
        return Case(incident, spec, task, reference, live, answer, now)

    named = _with_names(incident, case_of)
    if named is not incident:
        tx.put(named)
    incident = named
    if not is_due(incident, now):
        return incident
    try:
        events = happenings(tx, spec, now - timedelta(days=90), now)
        events = tuple(each for each in events if not each.what.startswith(f"{incident.id} "))
        explained = explain(case_of(incident), events)
    except Exception as error:
        log.exception("explaining %s failed", incident.id)
        about = (incident.subject, *incident.also)
        explained = Explanation(
            at=now, about=about, note=f"the explanation failed: {type(error).__name__}: {error}", is_final=False
        )
    costly = [each.column for each in explained.ranking]
    also = sorted(incident.also, key=lambda name: costly.index(name) if name in costly else len(costly))
    incident = replace(incident, explained=explained, also=tuple(also))
    tx.put(incident)
    return incident


def _with_names(incident: Incident, case_of: Callable[[Incident], Case]) -> Incident:
    try:
        names = came_and_went(case_of(incident))
    except Exception:
        log.exception("the categories of %s could not be told", incident.id)
        return incident
    reading = incident.last.reading
    if not names or names in reading.note:
        return incident
    note = "; ".join(filter(None, (reading.note, names)))
    last = replace(incident.last, reading=replace(reading, note=note))
    return replace(incident, last=last, first=last if incident.first == incident.last else incident.first)


def explain(case: Case, changes: tuple[Happening, ...]) -> Explanation:
    """What an incident means, from at most 60 days and a bounded sample of their rows.

    What fails or cannot be told becomes a part of the note. Deterministic.
    """
    days = case.tried("the days could not be read", lambda: _days(case), None)
    if days is None or not days.days:
        case.notes += ["no day with answers is complete yet"] if days is not None else []
        near_it = _near(case, changes, None)
        return Explanation(at=case.now, about=case.about, changes=near_it, note=_note(case), is_final=False)
    dated = case.tried(DATING, lambda: when_began(case, days), None)
    found = _Found(dated=dated, is_settled=not case.is_about_rows)
    if case.is_about_rows:
        found = _examined(case, days, dated)
    cost = found.measured or next((each for each in found.ranking if each.column == found.column), None)
    dated = found.dated
    return Explanation(
        at=case.now,
        about=case.about,
        column=found.column,
        began=dated.at if dated else None,
        began_low=dated.low if dated else None,
        began_high=dated.high if dated else None,
        dated_by=dated.by if dated else "",
        slices=found.slices,
        loss=case.loss if cost or found.ranking else "",
        cost=cost.cost if cost else None,
        cost_low=cost.low if cost else None,
        cost_high=cost.high if cost else None,
        basis="labels" if found.measured else "estimate" if cost else "",
        ranking=found.ranking[:MOST_SAID],
        changes=_near(case, changes, dated),
        note=_note(case, dated),
        is_final=not case.is_about_rows or (dated is not None and found.is_settled),
    )


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out from the rows."""

    dated: Dated | None
    is_settled: bool
    """Whether enough days were searched to leave it at that."""
    column: str = ""
    ranking: tuple[ColumnCost, ...] = ()
    measured: ColumnCost | None = None
    slices: tuple[Reading, ...] = ()


def _examined(case: Case, days: Dailies, dated: Dated | None) -> _Found:
    """The date, the price and the place of what is about rows: each helps to find the others."""
    nothing: tuple[ColumnCost, ...] = ()
    no_slices: tuple[tuple[Reading, ...], bool] = ((), False)
    ranking = case.tried(COSTING, lambda: ranked(case, days, *sides(case, days, dated)), nothing)
    moved = case.tried("which column moved", lambda: when_any_moved(case, days, dated, ranking), dated)
    both = sides(case, days, moved)
    if moved is not dated:
        ranking = case.tried(COSTING, lambda: ranked(case, days, *both), ranking)
    measured = case.tried(COSTING, lambda: measured_rise(case, days, *both), None)
    column = culprit(case, ranking, measured, moved)
    if column and moved is not None and moved.by == distance_of(column):
        dated = moved
    elif column and not case.is_about_labels and column != case.incident.subject:
        moved = case.tried(DATING, lambda: when_moved(case, days, column), None)
        if moved is not None:
            dated, both = moved, sides(case, days, moved)
            ranking = case.tried(COSTING, lambda: ranked(case, days, *both), nothing) or ranking
    before, after = sides(case, days, dated)
    measured = case.tried(COSTING, lambda: measured_rise(case, days, before, after), None)
    slices, is_settled = case.tried("which rows got worse", lambda: _slices(case, days, before, after), no_slices)
    return _Found(dated=dated, is_settled=is_settled, column=column, ranking=ranking, measured=measured, slices=slices)


def _note(case: Case, dated: Dated | None = None) -> str:
    """What cannot be said; what was found out in another way is not part of it."""
    notes = [each for each in case.notes if dated is None or not each.startswith(DATING)]
    return "; ".join(dict.fromkeys(notes))


def _days(case: Case) -> Dailies:
    days = Dailies(case.task, case.reference, case.live, case.loss, case.now)
    if days.is_cut:
        case.notes.append(f"only the newest {len(days.days)} days were looked at: they have enough rows")
    return days


def _slices(case: Case, days: Dailies, before: list[date], after: list[date]) -> tuple[tuple[Reading, ...], bool]:
    """Segments that got worse beyond the rest, and whether enough days were searched to leave it at that."""
    _, rows = days.losses()
    labelled = {day for day, count in zip(days.days, rows, strict=True) if count}
    old = [day for day in before if day in labelled]
    new = [day for day in after if day in labelled][-min(AFTER_DAYS, max(1, len(old) // 2)) :]
    if not new:
        since = f" since {after[0]}" if after else ""
        case.notes.append(f"which rows got worse: the labels of the days{since} are not complete yet")
        return (), False
    then = days.sample(old, most=MOST_SEARCHED, seed=3).labelled()
    now = days.sample(new, most=MOST_SEARCHED, seed=4).labelled()
    names = [name for name in days.columns if days.moves(name) and name not in (*then.retyped, *now.retyped)]
    found = find_slices(
        {name: _listed(then.columns[name]) for name in names},
        then.loss,
        then.day,
        {name: _listed(now.columns[name]) for name in names},
        now.loss,
        now.day,
        paired=PAIRED,
    )
    why = found.why
    if found.least_p > LEVEL / 2:
        why = why or f"so few days can show p = {found.least_p:.2g} at best"
    if why:
        case.notes.append(f"which rows got worse: {why}")
        return (), False
    worse = tuple(_said(each) for each in found.slices if each.p_value <= LEVEL)
    if not worse:
        case.notes.append(f"which rows got worse: none of {found.searched:,} segments more than the rest")
    return worse, len(new) >= SETTLED_DAYS


def _near(case: Case, changes: tuple[Happening, ...], dated: Dated | None) -> tuple[Happening, ...]:
    timezone, opened = case.spec.data.timezone, case.incident.opened_at
    if dated is None:
        return near(changes, opened, opened, before=timedelta(days=7), most=MOST_HAPPENINGS)
    low, _ = block_bounds(timezone, dated.low)
    _, high = block_bounds(timezone, dated.high)
    # What was done because of the incident is no cause of it.
    return near(changes, low, min(high, opened) if opened > low else high, before=EARLIER, most=MOST_HAPPENINGS)


def _listed(values: Values) -> Any:
    return values.tolist() if values.dtype.kind == "O" else values


def _said(found: Slice) -> Reading:
    low, high = ends(found.rise)
    note = (
        f"{found.before:.3g} before, {found.after:.3g} since, on {found.share:.1%} of the rows; "
        f"p = {found.p_value:.2g} after the search"
    )
    return Reading(
        name="slice_rise",
        value=found.after - found.before,
        rows=found.rows,
        low=low,
        high=high,
        subject=str(found),
        note=note,
    )
