"""How long a release takes that a goal decides, said beforehand. In: past days, labelled. Out: a plan."""

import math
from datetime import timedelta

import msgspec
import numpy as np
import numpy.typing as npt

from holdfast.core.meaning import many
from holdfast.core.spec import ReleasePlan, SystemSpec
from holdfast.errors import DataError
from holdfast.flow import experiments
from holdfast.flow.goaldays import GoalDays, reach
from holdfast.flow.goalruns import (
    SLACK,
    Course,
    Times,
    course_of,
    ended,
    last_canary,
    least_margin,
    times_of,
    with_share,
)
from holdfast.flow.planning import DAY, LEAST_DAYS, Outlook, Spread

FloatArray = npt.NDArray[np.float64]

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of the canary that are compared, beside that of the file."""


class GoalOutlook(Outlook, frozen=True, kw_only=True):
    """What becomes of releases of one kind."""

    effect: float
    """The candidate's mean label less the live version's; less than was asked for where labels have no room for it."""


class ShareOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of equally good candidates whose canary, the last one, answers so much."""

    share: float
    promoted: float
    """Share that goes live within the plan's `within`."""
    lengths: Spread
    """Days until they go live: the smallest `within` that lets so many of them pass."""
    margins: Spread
    """The smallest margin at which they go live within the plan's `within`."""


class GoalForecast(msgspec.Struct, frozen=True, kw_only=True):
    """How long the releases of a system that a goal decides will take, and what they can tell."""

    system: str
    goal: str
    prefer: str
    margin: float
    confidence: float
    within_days: float
    least_days: float
    """What the steps take at least."""
    maturity_days: float
    """How long labels take to count as complete: evidence comes that much later."""
    share: float
    """Of the units, what the last canary answers."""
    based_on: str
    days: int
    rows: int
    rows_a_day: float
    mean: float
    """Mean label."""
    sd_between: float
    """Standard deviation of the days' mean labels: what moves both versions alike."""
    sd_within: float
    """Standard deviation of labels within a day: what chance lets differ."""
    sd: float | None
    """Of a day's difference between two versions that are equally good, on days that count; None where none does."""
    left_out: float
    """Share of days on which a version has too few rows for the day to count."""
    rarer: int
    """Rows with any other label than the one that most have."""
    group_days: float | None
    """Days that are put together to one observation, about: 1 where labels are not rare; None where all have the
    candidate answer everything."""
    least_observations: int
    """So many of them are needed for any interval."""
    known: float
    """Share of releases in which there are enough observations for any interval within the plan's `within`."""
    as_better: GoalOutlook
    """A candidate that is better by the margin."""
    as_good: GoalOutlook
    """A candidate that is exactly as good as what is live."""
    as_worse: GoalOutlook
    """One that is worse by the margin."""
    as_bad: GoalOutlook
    """One that is worse by twice the margin."""
    lengths: Spread
    """The smallest `within` in which an equally good candidate is promoted."""
    margins: Spread
    """The smallest margin at which an equally good candidate is promoted in time."""
    shares: tuple[ShareOutlook, ...]
    """The same for other shares of the canary, the smallest first."""


def goal_forecast(spec: SystemSpec, past: GoalDays, based_on: str) -> GoalForecast:
    """Run the release test on past days that are split by chance anew.

    Assumes what the test assumes: that how units fall to the versions is drawn anew from day to day. An effect that
    differs between days, and traffic that does not come as split, are not simulated. Raises DataError where too few
    days are labelled, and where all labels are the same or some are infinite.
    """
    _must_tell(spec, past, based_on)
    plan, decide = spec.release, spec.release.decide
    within, maturity = decide.within / DAY, spec.data.label.mature_after / DAY
    times = times_of(sum((step.least for step in plan.steps), timedelta(0)) / DAY, maturity)
    share = last_canary(plan.steps).share
    equal = course_of(plan, past, 0.0)

    def worse_by(harm: float) -> GoalOutlook:
        effect = reach(past, harm if decide.prefer == "lower" else -harm)
        return _outlook(course_of(plan, past, effect), times, decide.margin, within, effect)

    shares = tuple(
        _share_outlook(each, equal if each == share else course_of(with_share(plan, each), past, 0.0), times, plan)
        for each in sorted({share, *SHARES})
    )
    mine = next(each for each in shares if each.share == share)
    return GoalForecast(
        system=spec.system,
        goal="label",
        prefer=decide.prefer or "",
        margin=decide.margin,
        confidence=decide.confidence,
        within_days=within,
        least_days=times.least,
        maturity_days=maturity,
        share=share,
        based_on=based_on,
        days=past.labelled,
        rows=past.rows,
        rows_a_day=past.rows / past.labelled,
        mean=past.usual + past.excess / past.rows,
        sd_between=float(np.nanstd(past.means, ddof=1)),
        sd_within=past.within,
        sd=equal.sd,
        left_out=equal.left_out,
        rarer=past.rarer,
        group_days=_group_days(plan, past, share),
        least_observations=_least_observations(plan),
        known=float(np.isfinite(equal.worst[:, times.told <= within + SLACK]).any(axis=1).mean()),
        as_better=worse_by(-decide.margin),
        as_good=_outlook(equal, times, decide.margin, within, 0.0),
        as_worse=worse_by(decide.margin),
        as_bad=worse_by(2 * decide.margin),
        lengths=mine.lengths,
        margins=mine.margins,
        shares=shares,
    )


def _must_tell(spec: SystemSpec, past: GoalDays, based_on: str) -> None:
    if past.labelled < LEAST_DAYS:
        raise DataError(
            f"{many(past.labelled, 'labelled day')} to plan by ({based_on}), at least {LEAST_DAYS} are needed; "
            "wait until more days have their labels, then ask again"
        )
    if not math.isfinite(past.excess):
        raise DataError(
            f"a release of '{spec.system}' cannot be planned: some labels are infinite, or too large to be added up "
            f"({based_on}), so they have no mean; correct these labels"
        )
    if not past.rarer:
        raise DataError(
            f"a release of '{spec.system}' cannot be planned: all {past.rows:,} labels are {past.usual:g} "
            f"({based_on}), so no difference between two versions would ever show; choose a label that is more common, "
            "or wait for rows that have another one"
        )


def _outlook(course: Course, times: Times, margin: float, within: float, effect: float) -> GoalOutlook:
    promoted, refused = ended(course, times, margin)
    passed, failed = (float((each <= within + SLACK).mean()) for each in (promoted, refused))
    return GoalOutlook(
        effect=effect,
        days=_spread(np.minimum(promoted, refused)),
        promoted=passed,
        refused=failed,
        undecided=max(0.0, 1 - passed - failed),
    )


def _share_outlook(share: float, course: Course, times: Times, plan: ReleasePlan) -> ShareOutlook:
    within = plan.decide.within / DAY
    promoted, _ = ended(course, times, plan.decide.margin)
    return ShareOutlook(
        share=share,
        promoted=float((promoted <= within + SLACK).mean()),
        lengths=_spread(promoted),
        margins=_spread(least_margin(course, times, within)),
    )


def _group_days(plan: ReleasePlan, past: GoalDays, share: float) -> float | None:
    rarer = min(past.rarer, past.rows - past.rarer) if past.has_two else past.rarer
    smaller = rarer / len(past.days) * min(share, 1 - share)
    return max(1.0, experiments.goal_of(plan).least_rare / smaller) if smaller else None


def _least_observations(plan: ReleasePlan) -> int:
    goal = experiments.goal_of(plan)
    states, needed = goal.start_streams(1), 0
    while not np.isfinite(goal.bounds_of(states)[0]).all():
        states = goal.fold_streams(states, 0.0, 0.0, control_rows=goal.least_rows, treatment_rows=goal.least_rows)
        needed += 1
    return needed


def _spread(values: FloatArray) -> Spread:
    """The values that a tenth, half and nine in ten of all do not exceed; None where that is infinite."""
    ordered = np.sort(values)
    ends = [float(ordered[max(0, math.ceil(q * ordered.size) - 1)]) for q in (0.1, 0.5, 0.9)]
    tenth, half, nine_in_ten = (None if math.isinf(end) else end for end in ends)
    return Spread(one_in_ten=tenth, half=half, nine_in_ten=nine_in_ten)
