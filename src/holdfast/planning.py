"""What a release plan is made from: the days on which what is live and another version can both be scored."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl
from msgspec.structs import replace

from holdfast.core.classes import task_of
from holdfast.core.protocols import Task, Transaction
from holdfast.core.records import Run
from holdfast.core.spec import SystemSpec
from holdfast.core.specelsewhere import must_have_model
from holdfast.errors import StateError
from holdfast.flow import registry
from holdfast.flow.days import blocks_of
from holdfast.flow.planning import LEAST_DAYS, PairedDays, ReleaseForecast, forecast, paired_days, refuse_goal
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.reference import read_holdout
from holdfast.state import State, system_file

MOST_DAYS = 60
"""How many of the newest mature days are read."""


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
    live = registry.current_route(tx, system).live
    if not live:
        raise StateError(f"no version of '{system}' is live: its first release goes live as soon as its gates pass")
    before = registry.previous_live(tx, system)
    if before:
        paired = _on_traffic(state, tx, spec, task, live, before, now)
        if paired.days >= LEAST_DAYS:
            return forecast(spec, paired, f"versions {live} and {before} on {paired.days} days of live traffic")
    run = tx.get(Run, system, registry.get_version(tx, system, live).run)
    assert run is not None
    holdout = read_holdout(state.blobs.get(run.holdout_rows))
    days = [block.rows() for block in blocks_of(spec.data.timezone, holdout)]
    other, said = "linear", f"version {live} and its linear baseline"
    if before:
        other, said = "before", f"versions {live} and {before}"
        model = state.model(registry.get_version(tx, system, before))
        days = [day.with_columns(pl.Series(other, model.predict_frame(day))) for day in days]
    paired = paired_days(task, spec.release.decide.loss, days, other, "candidate")
    if not before and not paired.are_same:
        said += ", which differ more than two releases will,"
    return forecast(spec, paired, f"{said} on the {paired.days} days held out from version {live}")


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
