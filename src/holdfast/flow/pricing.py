"""What it costs: columns priced by asking the model again, losses measured on labels. In: a case, its days."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.core.meaning import many
from holdfast.core.records import ColumnCost
from holdfast.flow.case import Case
from holdfast.flow.dailies import Dailies
from holdfast.flow.dating import AFTER_DAYS, Dated, distance_of
from holdfast.stats.bootstrap import Interval
from holdfast.stats.impact import Impact, Values, rank_columns
from holdfast.stats.rise import rise

FloatArray = npt.NDArray[np.float64]

BEFORE_DAYS = 28
"""The newest so many days before it began are what is compared with."""
MOST_ASKED = 4_000
"""Rows on either side that the model is asked about, once per column and side."""
MOST_RANKED = 8
"""Columns that are priced, those that moved most."""
GOOD_PART = 0.2
"""A column must cost so much of what the loss rose by to be named as what it comes from."""


def ranked(case: Case, days: Dailies, before: list[date], after: list[date]) -> tuple[ColumnCost, ...]:
    """Columns that moved, by what that costs beyond what is usual, estimated by asking the model again: the days
    before with these columns as they are now. Where labels of those days have come, each with an interval."""
    if case.answer is None:
        case.notes.append("what each column costs: the model is served elsewhere and cannot be asked again")
        return ()
    if case.task.is_listwise:
        case.notes.append("what each column costs: it is not told for answers that order lists")
        return ()
    if case.task.classes:
        case.notes.append("what each column costs: it is not told for answers of one probability per class")
        return ()
    old, new = before[-BEFORE_DAYS:], after[-AFTER_DAYS:]
    if len(old) < 3 or not new:
        case.notes.append(f"what it costs: {many(len(old), 'day')} before it and {len(new)} since, 3 and 1 are needed")
        return ()
    then = days.sample(old, most=MOST_ASKED, seed=1)
    now = days.sample(new, most=MOST_ASKED, seed=2)
    retyped = sorted({*then.retyped, *now.retyped})
    case.notes += [f"what it costs: {', '.join(retyped)} changed type"] if retyped else []
    names = [name for name in days.columns if name not in retyped]
    farthest = _to_price(case, days, names, old, new)
    if not farthest or not now.day.size:
        return ()
    found = rank_columns(
        now.without(retyped),
        now.day,
        then.without(retyped),
        then.day,
        _asking(case, days),
        case.loss,  # type: ignore[arg-type]  # another loss raises, and the note says so
        reference_label=then.label,
        columns=farthest,
        most_rows=MOST_ASKED,
    )
    costs = tuple(_column_cost(impact) for impact in found.impacts if math.isfinite(impact.cost))
    if costs and costs[0].low is None:
        labelled = many(int(np.isfinite(then.label).sum()), "row")
        case.notes.append(f"how far the cost of a column may be off: {labelled} before it with labels, too few to say")
    return costs


def _to_price(case: Case, days: Dailies, names: Sequence[str], old: list[date], new: list[date]) -> list[str]:
    """The columns to price: what the incident is about, then what moved farthest."""
    about = [name for name in case.about if name in names and days.moves(name)]
    apart = {name: days.apart(name, old, new) for name in names if name not in about and days.moves(name)}
    others = sorted((name for name in apart if not math.isnan(apart[name])), key=lambda name: -apart[name])
    return [*about, *others][: max(MOST_RANKED, len(about[: 2 * MOST_RANKED]))]


def _asking(case: Case, days: Dailies) -> Callable[[Mapping[str, Values]], FloatArray]:
    answer = case.answer
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


def culprit(case: Case, ranking: tuple[ColumnCost, ...], measured: ColumnCost | None, moved: Dated | None) -> str:
    """The costliest of the columns that the incident is about. Where it is about none, the costliest of all, if it
    costs a good part of what the loss rose by, and stands out from nothing and from what is usual or took the step
    that was found."""
    mine = [each.column for each in ranking if each.column in case.about]
    if mine or not ranking:
        return mine[0] if mine else ""
    first = ranking[0]
    stands_out = first.low is not None and first.low > max(0.0, first.usual or 0.0)
    took_it = moved is not None and moved.by == distance_of(first.column) and first.cost > (first.usual or 0.0)
    if (stands_out or took_it) and (measured is None or first.cost >= GOOD_PART * measured.cost > 0):
        return first.column
    if case.is_about_labels:
        case.notes.append(
            f"no column's shift explains it, the costliest is {first.column}: what the label has to do with the "
            "inputs may have changed, or rows came that are harder"
        )
    return ""


def measured_rise(case: Case, days: Dailies, before: list[date], after: list[date]) -> ColumnCost | None:
    """How much the loss did rise, where the incident is about labels and these have come."""
    if not case.is_about_labels:
        return None
    losses, rows = days.losses()
    place = {day: i for i, day in enumerate(days.days)}
    old = [place[day] for day in before if rows[place[day]]][-BEFORE_DAYS:]
    new = [place[day] for day in after if rows[place[day]]]
    if not old or not new:
        labelled = many(len(old), "labelled day")
        case.notes.append(f"what it costs: {labelled} before it and {len(new)} since, 1 is needed")
        return None
    value, interval = rise(losses[old], losses[new], rows[old], rows[new])
    low, high = ends(interval)
    return ColumnCost(column="", cost=value, low=low, high=high)


def _column_cost(impact: Impact) -> ColumnCost:
    low, high = ends(impact.interval)
    usual = impact.usual if math.isfinite(impact.usual) else None
    return ColumnCost(column=impact.column, cost=impact.cost, low=low, high=high, usual=usual)


def ends(interval: Interval) -> tuple[float | None, float | None]:
    """Both ends of an interval; None for both where one is not known."""
    low, high = interval
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)
