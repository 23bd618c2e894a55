"""What an incident means. In: an incident, the days before and after. Out: when it began, where, what it costs, why."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec.structs import replace

from holdfast.core import kinds
from holdfast.core.blocks import block_bounds
from holdfast.core.evidence import Reading, Role, Window
from holdfast.core.protocols import Check, Task, Transaction
from holdfast.core.records import ColumnCost, Explanation, Happening, Incident
from holdfast.core.spec import SystemSpec
from holdfast.flow import evaluation
from holdfast.flow.dailies import Dailies
from holdfast.flow.happenings import happenings, near
from holdfast.flow.incidents import SEARCHING
from holdfast.flow.monitors import Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.stats.bootstrap import Interval
from holdfast.stats.changepoint import change_point
from holdfast.stats.impact import Impact, Values, rank_columns
from holdfast.stats.rise import rise
from holdfast.stats.slices import Slice, find_slices

log = logging.getLogger(__name__)
FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")

Answer = Callable[[pl.DataFrame], FloatArray]
"""The live version's model: rows that carry its inputs in, answers (n,) out."""

SIDE = 1
"""Fewest days on either side of a step: an alarm may come after one bad day."""
LEAST_DAYS = 7
"""So many days before a step have a level that it can stand out from."""
RECENT_DAYS = 28
"""A column is compared with itself a month ago first: over the seasons of a reference everything moves."""
LEVEL = 0.05
DATING = "when it began"
BEFORE_DAYS, AFTER_DAYS = 28, 14
"""The newest so many days before it began are what is compared with, and the newest so many since."""
MOST_ASKED = 4_000
"""Rows on either side that the model is asked about, once per column and side."""
MOST_RANKED, MOST_SAID = 8, 5
"""Columns that are priced, those that moved most; and those that are said."""
SUSPECTS = 3
"""So many of the costliest columns, and of those that moved farthest, are asked for a step where losses have none."""
GOOD_PART = 0.2
"""A column must cost so much of what the loss rose by to be named as what it comes from."""
MOST_SEARCHED = 10_000
"""Rows on either side in which segments are searched."""
PAIRED = 10
"""Columns that are searched two by two."""
EARLIER = timedelta(days=3)
"""What was changed so long before it can have begun may be the cause."""
MOST_HAPPENINGS = 8
SETTLED_DAYS = 7
"""With labels of so many days since it began an explanation is not made anew."""
OF_MATURE_DAYS = frozenset({"labelled_share", "unlabelled_rise", "labels_later"})
"""Readings about the newest days whose labels count as complete, by checks that else look at the newest days."""
LONGEST = timedelta(days=14)
"""For so long after an incident opened it is explained again as days and labels come in."""


class Dated(msgspec.Struct, frozen=True, kw_only=True):
    """When a daily number took a step."""

    at: date
    low: date
    high: date
    by: str


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
    says so and stands."""
    if not is_due(incident, now):
        return incident
    try:
        events = happenings(tx, spec, now - timedelta(days=90), now)
        events = tuple(each for each in events if not each.what.startswith(f"{incident.id} "))
        explained = explain(incident, spec, task, reference, live, answer, events, now)
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


def explain(
    incident: Incident,
    spec: SystemSpec,
    task: Task,
    reference: Reference,
    live: LivePredictions,
    answer: Answer | None,
    changes: tuple[Happening, ...],
    now: datetime,
) -> Explanation:
    """What an incident means, from at most 60 days and a bounded sample of their rows.

    `answer` is None where the model cannot be asked: served elsewhere. What fails or cannot be told becomes a part of
    the note. Deterministic.
    """
    case = _Case(incident, spec, task, reference, live, answer, now)
    return case.explained(changes)


class _Case:
    """One incident under examination; `notes` collects what cannot be said."""

    def __init__(
        self,
        incident: Incident,
        spec: SystemSpec,
        task: Task,
        reference: Reference,
        live: LivePredictions,
        answer: Answer | None,
        now: datetime,
    ) -> None:
        self.incident, self.spec, self.task, self.reference = incident, spec, task, reference
        self.live, self.answer, self.now = live, answer, now
        self.notes: list[str] = []
        self.about = tuple(name for name in (incident.subject, *incident.also) if name)
        self.check: Check = kinds.load("checks", incident.check)
        measured = incident.last.reading.name
        self.loss = measured if measured in task.losses else spec.release.decide.loss or task.losses[0]
        self.is_about_rows = bool(self.check.needs & {Role.INPUT, Role.OUTPUT, Role.LABEL})
        self.is_about_labels = Role.LABEL in self.check.needs

    def explained(self, changes: tuple[Happening, ...]) -> Explanation:
        days = self._tried("the days could not be read", self._days, None)
        if days is None or not days.days:
            self.notes += ["no day with answers is complete yet"] if days is not None else []
            near_it = self._near(changes, None)
            return Explanation(at=self.now, about=self.about, changes=near_it, note=self._note(), is_final=False)
        dated = self._tried(DATING, lambda: self._dated(days), None)
        ranking: tuple[ColumnCost, ...] = ()
        column, is_settled = "", not self.is_about_rows
        slices: tuple[Reading, ...] = ()
        measured: ColumnCost | None = None
        if self.is_about_rows:
            ranking = self._tried("what it costs", lambda: self._ranked(days, *self._sides(days, dated)), ())
            moved = self._tried("which column moved", lambda: self._or_moved(days, dated, ranking), dated)
            sides = self._sides(days, moved)
            if moved is not dated:
                ranking = self._tried("what it costs", lambda: self._ranked(days, *sides), ranking)
            measured = self._tried("what it costs", lambda: self._rise(days, *sides), None)
            column = self._culprit(ranking, measured, moved)
            if column and moved is not None and moved.by == _distance_of(column):
                dated = moved
            elif column and not self.is_about_labels and column != self.incident.subject:
                moved = self._tried(DATING, lambda: self._moved_at(days, column), None)
                if moved is not None:
                    dated, sides = moved, self._sides(days, moved)
                    ranking = self._tried("what it costs", lambda: self._ranked(days, *sides), ()) or ranking
            before, after = self._sides(days, dated)
            measured = self._tried("what it costs", lambda: self._rise(days, before, after), None)
            slices, is_settled = self._tried(
                "which rows got worse", lambda: self._slices(days, before, after), (slices, False)
            )
        cost = measured or next((each for each in ranking if each.column == column), None)
        return Explanation(
            at=self.now,
            about=self.about,
            column=column,
            began=dated.at if dated else None,
            began_low=dated.low if dated else None,
            began_high=dated.high if dated else None,
            dated_by=dated.by if dated else "",
            slices=slices,
            loss=self.loss if cost or ranking else "",
            cost=cost.cost if cost else None,
            cost_low=cost.low if cost else None,
            cost_high=cost.high if cost else None,
            basis="labels" if measured else "estimate" if cost else "",
            ranking=ranking[:MOST_SAID],
            changes=self._near(changes, dated),
            note=self._note(dated),
            is_final=not self.is_about_rows or (dated is not None and is_settled),
        )

    def _tried(self, what: str, part: Callable[[], T], instead: T) -> T:
        """A part of the explanation; one that fails is said in the note, and the incident stands."""
        try:
            return part()
        except Exception as error:
            log.exception("explaining %s: %s", self.incident.id, what)
            self.notes.append(f"{what}: failed with {type(error).__name__}: {error}")
            return instead

    def _note(self, dated: Dated | None = None) -> str:
        """What cannot be said; what was found out in another way is not part of it."""
        notes = [each for each in self.notes if dated is None or not each.startswith(DATING)]
        return "; ".join(dict.fromkeys(notes))

    def _days(self) -> Dailies:
        days = Dailies(self.task, self.reference, self.live, self.loss, self.now)
        if days.is_cut:
            self.notes.append(f"only the newest {len(days.days)} days were looked at: they have enough rows")
        return days

    # When it began

    def _dated(self, days: Dailies) -> Dated | None:
        """The step of what the incident is about: a column's distance, the daily loss, or the check's own number."""
        if self.check.against == "recent":
            return self._first_seen()
        if self.is_about_labels:
            values, _ = days.losses()
            return self._stepped(days.days, values, f"daily {self.loss}")
        if self.is_about_rows:
            return self._moved_at(days, self.incident.subject) if days.moves(self.incident.subject) else None
        if self.check.needs and self.check.against == "nothing":
            return self._stepped(days.days, self._measured(days), f"daily {self.incident.last.reading.name}", False)
        self.notes.append(f"{DATING}: {self.incident.check} is about a moment, not about days")
        return None

    def _stepped(self, days: Sequence[date], values: FloatArray, by: str, upward: bool = True) -> Dated | None:
        found, why = _step(days, values, by, upward=upward, level=LEVEL)
        self.notes += [] if found else [f"{DATING} by the {by}: {why}"]
        return found

    def _moved_at(self, days: Dailies, column: str) -> Dated | None:
        found, why = _step_of(days, column, LEVEL)
        self.notes += [] if found else [f"{DATING} by the distance of {column}: {why}"]
        return found

    def _first_seen(self) -> Dated:
        """A check that compares each window with the days just before it alarms in the first one that differs. What it
        says of labels is about the newest days whose labels were complete, which are not those of the window."""
        opened = self.incident.opened_at
        is_of_labels = self.incident.first.reading.name in OF_MATURE_DAYS
        last = self.live.last_mature_day(opened) if is_of_labels else self.live.last_complete_day(opened)
        first = last - timedelta(days=self._window_days() - 1)
        return Dated(at=first, low=first, high=last, by="first window that differs from the days before it")

    def _window_days(self) -> int:
        monitor = next((m for m in self.spec.monitors if m.name == self.incident.last.monitor), None)
        return max(1, monitor.window.days) if monitor else 1

    def _measured(self, days: Dailies) -> FloatArray:
        """The check's own number, measured on each day alone."""
        options: Mapping[str, Any] = next(
            (m.options for m in self.spec.monitors if m.name == self.incident.last.monitor), {}
        )
        check: Check = kinds.load("checks", self.incident.check)(**options)
        facts = {**self.reference.facts, "task": self.task, "now": self.now}
        wanted = (self.incident.last.reading.name, self.incident.subject)
        values = []
        for day in days.days:
            read = evaluation.measure(check, Window([days.block(day)], self.live.roles(), facts), None)
            value = next((r.value for r in read if (r.name, r.subject) == wanted), None)
            values.append(math.nan if value is None else value)
        return np.array(values)

    def _or_moved(self, days: Dailies, dated: Dated | None, ranking: tuple[ColumnCost, ...]) -> Dated | None:
        """The largest step of a column instead, where the incident's own number has none, or where it is the daily loss
        and the other lies within its interval: losses are noisy, and a column that broke says the day.

        Asked are the costliest columns and those that moved farthest since the oldest days, each at its share of the
        level.
        """
        if dated is not None and not self.is_about_labels:
            return dated
        third = len(days.days) // 3
        apart = {name: days.apart(name, days.days[:third], days.days[-third:]) for name in self._movable(days)}
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

    def _movable(self, days: Dailies) -> list[str]:
        return [name for name in (*days.columns, self.task.output) if days.moves(name)]

    def _sides(self, days: Dailies, dated: Dated | None) -> tuple[list[date], list[date]]:
        """Days before it can have begun, and since it most likely has.

        Without a date the newest days stand for what came since: those of the monitor's window, or two weeks of
        complete labels. What began earlier then lies on both sides, and costs more than is said.
        """
        if dated is None:
            if self.is_about_labels:
                _, rows = days.losses()
                known = [day for day, count in zip(days.days, rows, strict=True) if count]
                newest = known[len(known) - min(AFTER_DAYS, len(known) // 2) :]
            else:
                newest = days.days[-self._window_days() :]
            since = newest[0] if newest else days.days[-1]
            return [day for day in days.days if day < since], [day for day in days.days if day >= since]
        before = [day for day in days.days if day < dated.low]
        if len(before) < LEAST_DAYS:  # an interval that reaches back to the first day leaves nothing to compare with
            before = [day for day in days.days if day < dated.at]
        return before, [day for day in days.days if day >= dated.at]

    # What it costs

    def _ranked(self, days: Dailies, before: list[date], after: list[date]) -> tuple[ColumnCost, ...]:
        """Columns that moved, by what that costs beyond what is usual, estimated by asking the model again."""
        if self.answer is None:
            self.notes.append("what each column costs: the model is served elsewhere and cannot be asked again")
            return ()
        old, new = before[-BEFORE_DAYS:], after[-AFTER_DAYS:]
        if len(old) < 3 or not new:
            self.notes.append(f"what it costs: {len(old)} days before it and {len(new)} since, 3 and 1 are needed")
            return ()
        then = days.sample(old, most=MOST_ASKED, seed=1)
        now = days.sample(new, most=MOST_ASKED, seed=2)
        retyped = sorted({*then.retyped, *now.retyped})
        self.notes += [f"what it costs: {', '.join(retyped)} changed type"] if retyped else []
        names = [name for name in days.columns if name not in retyped]
        moved = self._moved(days, names, old, new)
        if not moved or not now.day.size:
            return ()
        found = rank_columns(
            now.without(retyped),
            now.day,
            then.without(retyped),
            then.day,
            self._asked(days),
            self.loss,  # type: ignore[arg-type]  # another loss raises, and the note says so
            reference_label=then.label,
            columns=moved,
            most_rows=MOST_ASKED,
        )
        return tuple(_column_cost(impact) for impact in found.impacts if math.isfinite(impact.cost))

    def _moved(self, days: Dailies, names: Sequence[str], old: list[date], new: list[date]) -> list[str]:
        """The columns to price: what the incident is about, then what moved farthest."""
        about = [name for name in self.about if name in names and days.moves(name)]
        apart = {name: days.apart(name, old, new) for name in names if name not in about and days.moves(name)}
        others = sorted((name for name in apart if not math.isnan(apart[name])), key=lambda name: -apart[name])
        return [*about, *others][: max(MOST_RANKED, len(about[: 2 * MOST_RANKED]))]

    def _asked(self, days: Dailies) -> Callable[[Mapping[str, Values]], FloatArray]:
        answer = self.answer
        assert answer is not None

        def asked(columns: Mapping[str, Values]) -> FloatArray:
            series = []
            for name, values in columns.items():
                if days.columns[name].type == "category":
                    series.append(pl.Series(name, values.tolist(), pl.String))
                else:
                    series.append(pl.Series(name, values, nan_to_null=True))
            return np.asarray(answer(pl.DataFrame(series)), dtype=np.float64)

        return asked

    def _culprit(self, ranking: tuple[ColumnCost, ...], measured: ColumnCost | None, moved: Dated | None) -> str:
        """The costliest of the columns that the incident is about. Where it is about none, the costliest of all, if it
        costs a good part of what the loss rose by, and stands out from nothing and from what is usual or took the step
        that was found."""
        mine = [each.column for each in ranking if each.column in self.about]
        if mine or not ranking:
            return mine[0] if mine else ""
        first = ranking[0]
        stands_out = first.low is not None and first.low > max(0.0, first.usual or 0.0)
        took_it = moved is not None and moved.by == _distance_of(first.column) and first.cost > (first.usual or 0.0)
        if (stands_out or took_it) and (measured is None or first.cost >= GOOD_PART * measured.cost > 0):
            return first.column
        if self.is_about_labels:
            self.notes.append(
                f"no column's shift explains it, the costliest is {first.column}: what the label has to do with the "
                "inputs may have changed, or rows came that are harder"
            )
        return ""

    def _rise(self, days: Dailies, before: list[date], after: list[date]) -> ColumnCost | None:
        """How much the loss did rise, where the incident is about labels and these have come."""
        if not self.is_about_labels:
            return None
        losses, rows = days.losses()
        place = {day: i for i, day in enumerate(days.days)}
        old = [place[day] for day in before if rows[place[day]]][-BEFORE_DAYS:]
        new = [place[day] for day in after if rows[place[day]]]
        if not old or not new:
            self.notes.append(f"what it costs: {len(old)} labelled days before it and {len(new)} since, 1 is needed")
            return None
        value, interval = rise(losses[old], losses[new], rows[old], rows[new])
        low, high = _ends(interval)
        return ColumnCost(column="", cost=value, low=low, high=high)

    # Where

    def _slices(self, days: Dailies, before: list[date], after: list[date]) -> tuple[tuple[Reading, ...], bool]:
        """Segments that got worse beyond the rest, and whether enough days were searched to leave it at that."""
        _, rows = days.losses()
        labelled = {day for day, count in zip(days.days, rows, strict=True) if count}
        old = [day for day in before if day in labelled]
        new = [day for day in after if day in labelled][-min(AFTER_DAYS, max(1, len(old) // 2)) :]
        if not new:
            since = f" since {after[0]}" if after else ""
            self.notes.append(f"which rows got worse: the labels of the days{since} are not complete yet")
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
            self.notes.append(f"which rows got worse: {why}")
            return (), False
        worse = tuple(_said(each) for each in found.slices if each.p_value <= LEVEL)
        if not worse:
            self.notes.append(f"which rows got worse: none of {found.searched:,} segments more than the rest")
        return worse, len(new) >= SETTLED_DAYS

    # What changed

    def _near(self, changes: tuple[Happening, ...], dated: Dated | None) -> tuple[Happening, ...]:
        timezone, opened = self.spec.data.timezone, self.incident.opened_at
        if dated is None:
            return near(changes, opened, opened, before=timedelta(days=7), most=MOST_HAPPENINGS)
        low, _ = block_bounds(timezone, dated.low)
        _, high = block_bounds(timezone, dated.high)
        # What was done because of the incident is no cause of it.
        return near(changes, low, min(high, opened) if opened > low else high, before=EARLIER, most=MOST_HAPPENINGS)


def _distance_of(column: str) -> str:
    return f"daily distance of {column}"


def _step_of(days: Dailies, column: str, level: float) -> tuple[Dated | None, str]:
    """When a column moved: within the last month against the days before that, else within all days against the
    version's reference, each at half the level."""
    recent, earlier = days.days[-RECENT_DAYS:], days.days[:-RECENT_DAYS]
    by = _distance_of(column)
    if len(earlier) >= LEAST_DAYS:
        found, _ = _step(recent, days.distances(column, recent, earlier), by, upward=True, level=level / 2)
        if found is not None:
            return found, ""
    return _step(days.days, days.distances(column, days.days), by, upward=True, level=level / 2)


def _step(days: Sequence[date], values: FloatArray, by: str, *, upward: bool, level: float) -> tuple[Dated | None, str]:
    """When a daily number (n,) changed its level, for the worse; else why that cannot be told."""
    known = np.flatnonzero(np.isfinite(values))
    if known.size <= LEAST_DAYS:
        return None, f"{known.size} days have one, more than {LEAST_DAYS} are needed"
    found = change_point(np.where(np.isfinite(values), values, np.nan), least=SIDE, level=level)
    if found.at is None or found.low is None or found.high is None:
        return None, found.why
    if np.count_nonzero(known < found.at) < LEAST_DAYS:
        return None, f"its largest step, on {days[found.at]}, lies within the first {LEAST_DAYS} days"
    if upward and found.after < found.before:
        return None, f"its largest step, on {days[found.at]}, is one for the better"
    return Dated(at=days[found.at], low=days[found.low], high=days[found.high], by=by), ""


def _column_cost(impact: Impact) -> ColumnCost:
    low, high = _ends(impact.interval)
    usual = impact.usual if math.isfinite(impact.usual) else None
    return ColumnCost(column=impact.column, cost=impact.cost, low=low, high=high, usual=usual)


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    low, high = interval
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def _listed(values: Values) -> Any:
    return values.tolist() if values.dtype.kind == "O" else values


def _said(found: Slice) -> Reading:
    low, high = _ends(found.rise)
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
