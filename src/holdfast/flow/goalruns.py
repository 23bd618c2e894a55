"""Releases that a goal decides, run beforehand. In: past days, a plan. Out: when each of many would be decided."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from holdfast.core.spec import ReleasePlan, Step
from holdfast.flow import experiments
from holdfast.flow.goaldays import GoalDays, moved, replayed
from holdfast.flow.planning import DAY, HORIZON

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

RUNS = 1000
"""Releases that are run for each candidate."""
SEED = 0
SLACK = 1e-9
"""Times in days are this exact."""


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """Simulated releases day by day (runs, days): how much worse the candidate is, at least and at most."""

    best: FloatArray
    worst: FloatArray
    left_out: float
    """Share of days with the last canary on which a version has too few rows for the day to count."""
    sd: float | None
    """Standard deviation of a day's difference with the last canary; None where no day counts."""


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """When days of evidence tell: days since the release began (days,), and which of them may end in a promotion."""

    least: float
    """What the steps take at least."""
    told: FloatArray
    promoting: BoolArray
    """Not before all steps have lasted."""
    promoted: FloatArray
    """When a promotion follows from what that day told."""


def last_canary(steps: Sequence[Step]) -> Step:
    """The step that lasts until a release is decided; a plan with a goal has one."""
    return next(step for step in reversed(steps) if step.stage == "canary")


def with_share(plan: ReleasePlan, share: float) -> ReleasePlan:
    """The plan with so large a last canary, none before it larger."""
    last = last_canary(plan.steps)
    steps = [replace(step, share=share if step is last else min(step.share, share)) for step in plan.steps]
    return replace(plan, steps=tuple(steps))


def _shares(steps: Sequence[Step]) -> FloatArray:
    """What the candidate answers on each day since the release began (days,): a day that a step ends on is shared."""
    days, begins = np.arange(HORIZON, dtype=np.float64), 0.0
    shares = np.zeros(HORIZON)
    for step in (step for step in steps if step.stage != "live"):
        is_last = step is last_canary(steps)
        ends = math.inf if is_last else begins + step.least / DAY
        shares += step.share * np.clip(np.minimum(days + 1, ends) - np.maximum(days, begins), 0.0, 1.0)
        begins = ends
    return shares


def course_of(plan: ReleasePlan, past: GoalDays, effect: float) -> Course:
    """Run the test on days to come with a candidate whose mean label is higher by `effect`. Same days, same course."""
    random, shares = np.random.default_rng(SEED), _shares(plan.steps)
    arms = moved(past, replayed(past, shares, RUNS, random), effect, random)
    goal, difference = experiments.goal_of(plan), arms.difference
    rarer = arms.rarer + arms.live_rarer
    if past.has_two:
        rarer = np.minimum(rarer, arms.rows + arms.live_rows - rarer)
    states, low, high = goal.start_streams(RUNS), np.empty(difference.shape), np.empty(difference.shape)
    for day in range(len(shares)):
        states = goal.fold_streams(
            states,
            0.0,
            difference[:, day],
            control_rows=arms.live_rows[:, day],
            treatment_rows=arms.rows[:, day],
            rare_rows=rarer[:, day],
        )
        low[:, day], high[:, day] = goal.bounds_of(states)
    best, worst = experiments.harm(low, high, plan)
    counts = (np.minimum(arms.rows, arms.live_rows) >= goal.least_rows)[:, shares == shares[-1]]
    counted = difference[:, shares == shares[-1]][counts]
    sd = float(counted.std()) if counted.size else None
    return Course(best=best, worst=worst, left_out=1 - float(counts.mean()), sd=sd)


def times_of(least: float, maturity: float) -> Times:
    """For steps that take at least so many days, and labels that take so many."""
    days = np.arange(1.0, HORIZON + 1)
    told = days + maturity
    before = math.floor(least - maturity + SLACK)  # days of evidence that are there when the last step has lasted
    return Times(told=told, least=least, promoting=days >= before, promoted=np.maximum(told, least))


def ended(course: Course, times: Times, margin: float) -> tuple[FloatArray, FloatArray]:
    """When each release is promoted, and when refused (runs,): infinite where that does not come first."""
    worse = _first(course.best > 0)
    passed = _first((course.worst <= margin) & times.promoting)
    promoted, refused = (_at(each, when) for each, when in ((passed, times.promoted), (worse, times.told)))
    return np.where(passed < worse, promoted, np.inf), np.where(worse <= passed, refused, np.inf)


def least_margin(course: Course, times: Times, within: float) -> FloatArray:
    """The smallest margin at which each release is promoted within so many days (runs,); infinite where none is."""
    before = np.arange(HORIZON) < _first(course.best > 0)[:, None]
    passing = before & times.promoting & (times.promoted <= within + SLACK)
    margins: FloatArray = np.maximum(np.where(passing, course.worst, np.inf).min(axis=1), 0.0)
    return margins


def _first(found: BoolArray) -> FloatArray:
    """The first day (from 0) on which something holds, in each run; infinite where it never does."""
    return np.where(found.any(axis=1), found.argmax(axis=1).astype(np.float64), np.inf)


def _at(days: FloatArray, times: FloatArray) -> FloatArray:
    known = np.isfinite(days)
    return np.where(known, times[np.where(known, days, 0.0).astype(np.int64)], np.inf)
