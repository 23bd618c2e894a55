"""How long a release will take, said beforehand. In: days on which two versions answered the same rows. Out: a plan."""

import math
from collections.abc import Iterable
from datetime import timedelta

import msgspec
import numpy as np
import polars as pl

from holdfast.core.protocols import Task
from holdfast.core.spec import SystemSpec
from holdfast.core.targets import lists_of, target_of
from holdfast.errors import DataError
from holdfast.stats import sequential

FloatArray = np.ndarray[tuple[int], np.dtype[np.float64]]

LEAST_DAYS = 5
"""Fewer labelled days than this say nothing about how days differ."""
HORIZON = 365
"""Days after which a simulated release counts as never decided."""
SAME = 1e-12
"""Losses of two answers that can differ by no more than this are those of the same answers, but for rounding."""
DAY = timedelta(days=1)


class PairedDays(msgspec.Struct, frozen=True, kw_only=True):
    """What two versions lost on the same rows, day by day (n,): mean difference, and its bounds before labels."""

    difference: FloatArray
    low: FloatArray
    high: FloatArray
    rows: int

    @property
    def days(self) -> int:
        return len(self.difference)

    @property
    def are_same(self) -> bool:
        """Whether both versions gave the same answers on all days."""
        return bool(max(np.abs(self.low).max(initial=0.0), np.abs(self.high).max(initial=0.0)) <= SAME)


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A number that differs from one run to the next. None where so many runs have none within a year."""

    one_in_ten: float | None
    half: float | None
    nine_in_ten: float | None


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of releases of one kind."""

    days: Spread
    """From the beginning of the release until it is decided, maturity of labels and steps of the plan included."""
    promoted: float
    """Share that goes live within the plan's `within`."""
    refused: float
    """Share that is found worse and rolled back within it."""
    undecided: float
    """Share that expires: the old version stays."""


class ReleaseForecast(msgspec.Struct, frozen=True, kw_only=True):
    """How long the releases of a system will take, and what they can tell."""

    system: str
    loss: str
    margin: float
    confidence: float
    within_days: float
    least_days: float
    """What the steps take at least."""
    maturity_days: float
    """How long labels take to count as complete: evidence comes that much later."""
    based_on: str
    days: int
    rows: int
    sd: float
    """Standard deviation of a day's mean difference."""
    as_good: Outlook
    """A candidate that is exactly as good as what is live."""
    as_bad: Outlook
    """One that is worse by twice the margin."""
    margins: Spread
    """The smallest margin at which an equally good candidate is promoted in time."""


def paired_days(task: Task, loss: str, days: Iterable[pl.DataFrame], candidate: str, live: str) -> PairedDays:
    """Pair two columns of answers over the labelled rows of each day. Days without labels are left out."""
    difference, low, high, rows = [], [], [], 0
    for day in days:
        both = day.filter(pl.all_horizontal(pl.col("label", candidate, live).is_not_null()))
        if both.is_empty():
            continue
        y, one, other = target_of(task, both), both[candidate].to_numpy(), both[live].to_numpy()
        bounds = task.loss_bounds(loss, one, other, lists_of(y))
        differences = task.loss(loss, y, one) - task.loss(loss, y, other)
        known = ~np.isnan(differences)
        if not known.any():
            continue
        difference.append(float(differences[known].mean()))
        low.append(float(bounds[0][known].mean()))
        high.append(float(bounds[1][known].mean()))
        rows += both.height
    return PairedDays(difference=np.array(difference), low=np.array(low), high=np.array(high), rows=rows)


def refuse_goal(spec: SystemSpec) -> None:
    """Raises DataError where a goal decides: what two versions lost on the same rows says nothing of that."""
    if spec.release.decide.goal is not None:
        raise DataError(
            f"releases of '{spec.system}' are decided by a goal, the labels of split traffic, and not by a loss: "
            "`holdfast release plan` plans them by that"
        )


def forecast(spec: SystemSpec, paired: PairedDays, based_on: str) -> ReleaseForecast:
    """Replay the release test on past days. Raises DataError where too few are labelled, where both versions answered
    the same, and where a goal decides."""
    refuse_goal(spec)
    decide = spec.release.decide
    if paired.days < LEAST_DAYS:
        raise DataError(
            f"{paired.days} labelled days to plan by ({based_on}), at least {LEAST_DAYS} are needed; "
            "wait until more days have their labels, then ask again"
        )
    if paired.are_same:
        raise DataError(
            f"a release of '{spec.system}' cannot be planned: the two answers are the same ({based_on}), so nothing "
            "says how far those of another version would differ; ask again once a version that differs was trained"
        )
    alpha, within = 1 - decide.confidence, decide.within / DAY
    least = sum((step.least for step in spec.release.steps), timedelta(0)) / DAY
    maturity = spec.data.label.mature_after / DAY
    usable = max(1, math.floor(within - maturity))
    days = (paired.difference, paired.low, paired.high)
    margin = sequential.replayed_margin(*days, alpha, within=usable)
    is_judged = within >= maturity + 1  # by then the labels of its first day are complete
    is_possible = is_judged and within >= least  # what is worse may be refused before all steps are taken
    sd = float(paired.difference.std(ddof=1))

    def outlook(effect: float) -> Outlook:
        moved = _room(paired, effect)
        run = sequential.replayed_decision(*moved, decide.margin, alpha, effect=effect, horizon=HORIZON)
        timely = sequential.replayed_decision(*moved, decide.margin, alpha, effect=effect, horizon=usable)
        ends = [None if math.isinf(d) else max(d + maturity, least) for d in (run.tenth, run.half, run.nine_in_ten)]
        promoted = timely.not_worse if is_possible else 0.0
        refused = timely.decided - timely.not_worse if is_judged else 0.0
        return Outlook(
            days=Spread(one_in_ten=ends[0], half=ends[1], nine_in_ten=ends[2]),
            promoted=promoted,
            refused=refused,
            undecided=1 - promoted - refused,
        )

    return ReleaseForecast(
        system=spec.system,
        loss=decide.loss,
        margin=decide.margin,
        confidence=decide.confidence,
        within_days=within,
        least_days=least,
        maturity_days=maturity,
        based_on=based_on,
        days=paired.days,
        rows=paired.rows,
        sd=sd,
        as_good=outlook(0.0),
        as_bad=outlook(2 * decide.margin),
        margins=Spread(
            one_in_ten=_finite(margin.tenth) if is_possible else None,
            half=_finite(margin.half) if is_possible else None,
            nine_in_ten=_finite(margin.nine_in_ten) if is_possible else None,
        ),
    )


def _room(paired: PairedDays, effect: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The days with bounds (n,) that hold them once they are moved to a mean of `effect`.

    What is so much worse answers otherwise than these two did: within their bounds, two that nearly agree could not
    do harm, and the plan would say that what is bad gets promoted.
    """
    shift = effect - float(paired.difference.mean())
    moved = paired.difference + shift
    if (paired.low <= moved).all() and (moved <= paired.high).all():
        return paired.difference, paired.low, paired.high
    return paired.difference, paired.low + min(0.0, shift), paired.high + max(0.0, shift)


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value
