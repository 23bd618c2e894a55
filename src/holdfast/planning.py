"""What a release plan is made from: days on which two versions can be scored or, for a goal, those with labels."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl
from msgspec.structs import replace

from holdfast.core.classes import task_of
from holdfast.core.meaning import many
from holdfast.core.protocols import Task, Transaction
from holdfast.core.records import Run
from holdfast.core.spec import SystemSpec
from holdfast.core.specelsewhere import must_have_model
from holdfast.errors import StateError
from holdfast.flow import registry
from holdfast.flow.days import blocks_of
from holdfast.flow.goaldays import goal_days
from holdfast.flow.goalplans import GoalForecast, goal_forecast
from holdfast.flow.planning import LEAST_DAYS, PairedDays, ReleaseForecast, forecast, paired_days, refuse_goal
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.reference import read_holdout
from holdfast.state import State, system_file

MOST_DAYS = 60
"""How many of the newest mature days are read."""


def plan_next_release(
    state: State, tx: Transaction, system: str, now: datetime, *, margin: float | None, within: timedelta | None
) -> ReleaseForecast | GoalForecast:
    """`plan_by_goal` where a goal decides, else `plan_release`."""
    plan = plan_release if state.spec(system_file(tx, system)).release.decide.goal is None else plan_by_goal
    return plan(state, tx, system, now, margin=margin, within=within)


def plan_by_goal(
    state: State, tx: Transaction, system: str, now: datetime, *, margin: float | None, within: timedelta | None
) -> GoalForecast:
    """How long the next release of a system that a goal decides will take; arguments as for `plan_release`.

    Days come from live traffic where enough are labelled, else from the hold-out of what is live. Raises StateError
    where no version is live, DataError where too few days are labelled, or all labels are the same.
    """
    spec = _changed(state.spec(system_file(tx, system)), margin, within)
    must_have_model(spec, "nothing is released here")
    live = _live(tx, system)
    answered = LivePredictions(spec, state.lake, task_of(spec).output)
    newest = answered.last_mature_day(now)
    dates = [newest - timedelta(days=back) for back in reversed(range(MOST_DAYS))]
    past = goal_days({day: answered.labelled_block(day).rows() for day in dates})
    if past.labelled >= LEAST_DAYS:
        return goal_forecast(spec, past, f"{past.labelled} days of live traffic")
    blocks = blocks_of(spec.data.timezone, _holdout(state, tx, system, live))
    so_far = f"live traffic has {many(past.labelled, 'labelled day')} so far"
    past = goal_days({block.day: block.rows() for block in blocks})
    return goal_forecast(spec, past, f"the {many(past.labelled, 'day')} held out from version {live}: {so_far}")


def plan_release(
    state: State, tx: Transaction, system: str, now: datetime, *, margin: float | None, within: timedelta | None
) -> ReleaseForecast:
    """How long the next release of a system will take; `margin` and `within` stand for those of its file.

    Days come from live traffic where enough are labelled, scored by what is live and by the version before it; else
    from the hold-out of what is live; where nothing was live before, its linear baseline is the other one. Raises
    StateError where no version is live, DataError where too few days are labelled or a goal decides.
    """
    spec = _changed(state.spec(system_file(tx, system)), margin, within)
    must_have_model(spec, "nothing is released here")
    refuse_goal(spec)
    task: Task = task_of(spec)
    live = _live(tx, system)
    before = registry.previous_live(tx, system)
    if before:
        paired = _on_traffic(state, tx, spec, task, live, before, now)
        if paired.days >= LEAST_DAYS:
            return forecast(spec, paired, f"versions {live} and {before} on {paired.days} days of live traffic")
    days = [block.rows() for block in blocks_of(spec.data.timezone, _holdout(state, tx, system, live))]
    other, said = "linear", f"version {live} and its linear baseline"
    if before:
        other, said = "before", f"versions {live} and {before}"
        model = state.model(registry.get_version(tx, system, before))
        days = [day.with_columns(pl.Series(other, model.predict_frame(day))) for day in days]
    paired = paired_days(task, spec.release.decide.loss, days, other, "candidate")
    if not before and not paired.are_same:
        said += ", which differ more than two releases will,"
    return forecast(spec, paired, f"{said} on the {paired.days} days held out from version {live}")


def _live(tx: Transaction, system: str) -> str:
    live = registry.current_route(tx, system).live
    if not live:
        raise StateError(f"no version of '{system}' is live: its first release goes live as soon as its gates pass")
    return live


def _holdout(state: State, tx: Transaction, system: str, version: str) -> pl.DataFrame:
    run = tx.get(Run, system, registry.get_version(tx, system, version).run)
    assert run is not None
    return read_holdout(state.blobs.get(run.holdout_rows))


def _on_traffic(
    state: State, tx: Transaction, spec: SystemSpec, task: Task, live: str, before: str, now: datetime
) -> PairedDays:
    answered = LivePredictions(spec, state.lake, task.output)
    model = state.model(registry.get_version(tx, spec.system, before))

    def days() -> Iterator[pl.DataFrame]:
        newest = answered.last_mature_day(now)
        for back in reversed(range(MOST_DAYS)):
            day = answered.labelled_block(newest - timedelta(days=back)).rows()
            if day.height:
                mine = day.filter(pl.col("version") == live)
                yield mine.with_columns(
                    pl.col(task.output).alias("candidate"), pl.Series("before", model.predict_frame(mine))
                )

    return paired_days(task, spec.release.decide.loss, days(), "before", "candidate")


def _changed(spec: SystemSpec, margin: float | None, within: timedelta | None) -> SystemSpec:
    decide = spec.release.decide
    decide = replace(
        decide, margin=decide.margin if margin is None else margin, within=decide.within if within is None else within
    )
    return replace(spec, release=replace(spec.release, decide=decide))
