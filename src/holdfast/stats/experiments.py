"""A/B experiments on live traffic: the difference of a goal between two arms, and whether traffic split as planned.

The day is the unit of the difference, because rows cluster by day; the first row of a user (or of whatever sticks to
an arm) is the unit of the split. Both may be looked at after every day. States are plain tuples of floats, to be
stored with the experiment and folded on from there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from holdfast.stats.confidence import Bounds, ConfidenceSequence, StudentMixture

FloatArray = npt.NDArray[np.float64]
State = Sequence[float]
Says = Literal["higher", "lower", "equal", "undecided", "unknown"]
Match = Literal["as planned", "mismatch", "unknown"]

STRENGTHS = (10.0, 300.0)
"""How near the plan deviations are expected, in units of the prior: 300 looks for one of a few percentage points,
10 for an arm that hardly gets any. The evidence is the average of both."""
_BEHIND = 5
"""Floats behind those of the sequence: days that were put with others; of the group that waits its days, weight,
difference and rare rows."""


@dataclass(frozen=True)
class Difference:
    """What an experiment shows so far about treatment less control."""

    says: Says
    """"equal" is within the stated margin; "unknown" is too few days for any interval."""
    mean: float
    """Mean of the days' differences; NaN before the first."""
    low: float
    high: float
    """The interval that holds at every look; infinite, or the goal's range, while unknown."""
    days: int
    """Those that count: not those left out, and not those that wait to be put together with others."""
    left_out: int
    """Days on which an arm had too few rows."""
    why: str


@dataclass(frozen=True)
class GoalDifference:
    """An always-valid interval for how much a goal differs between two arms, with the day as the unit.

    A day counts as one observation, treatment mean less control mean: what moves both arms on a day cancels, and
    an effect that differs between days is part of the spread. `sequence` says what is assumed. The default takes
    the days' differences as independent and normal with unknown deviation. For a guarantee without that, give
    `EmpiricalBernstein(low=-1, high=1)` or `HedgedCapital(low=-1, high=1)` for a goal in [0, 1]: much wider.

    Assumed by all: units come to arms by chance, and how they fell is drawn anew, nearly, from day to day. Where
    the same few units return daily, the chance difference between the arms' units never averages out.

    Days on which next to nobody has what the goal counts are far from normal: most differ by exactly 0, so that their
    spread looks like none. Say how many rows do (`rare_rows`), and such days are put together, consecutive ones, until
    the smaller arm can be expected to hold `least_rare` of them; a group then is one observation, its days weighted as
    Mantel and Haenszel (1959) do, so that only rows of the same day are compared. When a group ends depends on both
    arms together, and hardly on how they differ.

    >>> goal, state = GoalDifference(), ()
    >>> for difference in [0.02, 0.03, 0.01, 0.02, 0.03, 0.02, 0.01, 0.02]:
    ...     state = goal.fold(state, 0.10, 0.10 + difference, control_rows=900, treatment_rows=100)
    >>> goal.judge(state).says, goal.judge(state[:0]).says
    ('higher', 'unknown')
    """

    sequence: ConfidenceSequence = field(default_factory=StudentMixture)
    least_rows: int = 30
    """A day on which an arm has fewer rows is left out and counted, whatever its values."""
    least_rare: float = 3.0
    """Rows with the rarer values that a group of days is expected to bring the smaller arm."""

    def fold(
        self,
        state: State,
        control: float,
        treatment: float,
        *,
        control_rows: int,
        treatment_rows: int,
        rare_rows: int | None = None,
    ) -> tuple[float, ...]:
        """The state after one more day; ``()`` starts. `control` and `treatment` are the day's means of the goal.

        They may be NaN on a day that is left out. `rare_rows` are the rows of both arms whose value is not the one
        that most rows have: for a goal of 0 and 1 the events or the others, whichever are fewer. None, where values
        are not rare, takes the day by itself. Raises ValueError where means of a day that counts are NaN, or where
        their difference leaves the bounds of the sequence.
        """
        before = self.start_streams(1)
        before[0, : len(state)] = state
        folded = self.fold_streams(
            before, control, treatment, control_rows=control_rows, treatment_rows=treatment_rows, rare_rows=rare_rows
        )
        after: list[float] = folded[0].tolist()
        merged, waiting = after[-_BEHIND : 2 - _BEHIND]
        return tuple(after if merged or waiting else after[:-_BEHIND])

    def start_streams(self, streams: int) -> FloatArray:
        """States of so many experiments before their first day, (streams, floats); `fold_streams` folds on."""
        return np.tile([0.0, 0.0, 0.0, *self.sequence.start(), *[0.0] * _BEHIND], (streams, 1))

    def fold_streams(
        self,
        states: FloatArray,
        control: npt.ArrayLike,
        treatment: npt.ArrayLike,
        *,
        control_rows: npt.ArrayLike,
        treatment_rows: npt.ArrayLike,
        rare_rows: npt.ArrayLike | None = None,
    ) -> FloatArray:
        """What `fold` does, for many experiments side by side: a day of each, as numbers or arrays (streams,).

        >>> goal = GoalDifference()
        >>> states = goal.start_streams(3)
        >>> for control in [0.10, 0.12, 0.11, 0.13, 0.12, 0.10, 0.11, 0.12]:
        ...     treatment = np.array([1.3, 1.0, 0.7]) * control
        ...     states = goal.fold_streams(states, control, treatment, control_rows=900, treatment_rows=100)
        >>> goal.bounds_of(states)[0].round(3).tolist()
        [0.027, 0.0, -0.041]
        """
        after, shape = states.copy(), len(states)
        smaller = np.broadcast_to(np.minimum(control_rows, treatment_rows), shape)
        rows = np.broadcast_to(np.add(control_rows, treatment_rows), shape)
        apart = np.broadcast_to(np.subtract(treatment, control), shape)
        counts = smaller >= self.least_rows
        after[~counts, 0] += 1
        smaller, rows, apart = smaller[counts], rows[counts], apart[counts]
        if not np.isfinite(apart).all():
            raise ValueError("a goal that is NaN or infinite was not measured: leave the day out")
        days, weight, difference, rare = after[counts, 1 - _BEHIND :].T
        gain = smaller / rows * (rows - smaller)
        weight = weight + gain
        difference = difference + (apart - difference) * gain / weight
        if rare_rows is None:
            rare = rare + self.least_rare
        else:
            rare = rare + np.broadcast_to(rare_rows, shape)[counts] * smaller / rows
        after[counts, 1 - _BEHIND :] = np.stack([days + 1, weight, difference, rare], axis=-1)
        complete = counts & (after[:, -1] >= self.least_rare)
        if complete.any():
            after[complete] = self._with_group(after[complete])
        return after

    def bounds_of(self, states: FloatArray) -> Bounds:
        """Lower and upper end of what is known of each experiment, (...) and (...); states (..., floats)."""
        return self.sequence.interval(states[..., 3:-_BEHIND])

    def _with_group(self, states: FloatArray) -> FloatArray:
        """States (streams, floats) whose waiting days have become one observation."""
        after = states.copy()
        days, difference = states[:, 1 - _BEHIND], states[:, 3 - _BEHIND]
        after[:, 1] += 1
        after[:, 2] += (difference - after[:, 2]) / after[:, 1]
        after[:, 3:-_BEHIND] = self.sequence.fold(states[:, 3:-_BEHIND], difference)
        after[:, -_BEHIND] += days - 1
        after[:, 1 - _BEHIND :] = 0.0
        return after

    def judge(self, state: State, *, margin: float = 0.0) -> Difference:
        """What is known after the days folded so far; within +-`margin`, where above 0, arms count as equal.

        "higher" and "lower" are each wrong with probability at most alpha over all looks together, and so is
        "equal": the three are one interval, read three ways.
        """
        left_out, groups, mean = (int(state[0]), int(state[1]), float(state[2])) if state else (0, 0, math.nan)
        low, high = (float(end) for end in self.sequence.interval(state[3 : 3 + self._folded] if state else ()))
        merged, waiting = (int(state[3 + self._folded]), int(state[4 + self._folded])) if self._waits(state) else (0, 0)
        days, says = groups + merged, self._says(low, high, margin, groups)
        counted = f"{days} days" + (f" in {groups} groups" if merged else "")
        if says == "unknown":
            why = f"{counted} are too few for an interval"
        else:
            why = f"{mean:+.4g} a day over {counted}, in [{low:+.4g}, {high:+.4g}] at {1 - self.sequence.alpha:.0%}"
        if waiting:
            why += f"; {waiting} days wait for {self.least_rare:g} rows with the rarer label in the smaller arm"
        if left_out:
            why += f"; {left_out} days left out, with fewer than {self.least_rows} rows in an arm"
        return Difference(says, mean if groups else math.nan, low, high, days, left_out, why)

    @property
    def _folded(self) -> int:
        """How many floats the sequence keeps; days that were put together, and those that wait, stand behind them."""
        return len(self.sequence.start())

    def _waits(self, state: State) -> bool:
        return len(state) > 3 + self._folded

    def _says(self, low: float, high: float, margin: float, groups: int) -> Says:
        if not groups or not (math.isfinite(low) and math.isfinite(high)):
            return "unknown"
        if margin > 0 and -margin <= low and high <= margin:
            return "equal"
        return "higher" if low > 0 else "lower" if high < 0 else "undecided"


@dataclass(frozen=True)
class Split:
    """Whether units came to the arms as planned."""

    says: Match
    """"unknown" is too few units to tell the plan from a deviation of `tolerance`."""
    shares: tuple[float, ...]
    """Observed, per arm; NaN before the first unit."""
    intervals: tuple[tuple[float, float], ...]
    """Each arm's share; together they hold at every look with probability at least 1 - alpha."""
    p_value: float
    """In [0, 1], and valid however often one has looked: the smallest so far."""
    units: int
    why: str


@dataclass(frozen=True)
class SplitCheck:
    """Sample-ratio mismatch, checked as often as one likes: did units come to the arms in the planned shares?

    A mismatch says that assignment or recording loses units of one arm, so that no comparison of the arms can be
    trusted. The evidence is the Bayes factor of Dirichlet priors, centred on the plan, against the plan; under the
    plan it is a martingale that starts at 1 (Lindon and Malek, Anytime-valid inference for multinomial count data,
    2022). Assumes that units come to arms independently of each other: count each unit once, at its first row.
    Rows of one unit stick to one arm, and would be counted as evidence that is not there.

    >>> check, state = SplitCheck((0.5, 0.5)), ()
    >>> for day in range(10):
    ...     state = check.fold(state, (520, 460))
    >>> check.judge(state).says, check.judge(check.fold((), (7, 5))).says
    ('mismatch', 'unknown')
    """

    shares: tuple[float, ...]
    """The plan: each above 0, adding up to 1."""
    alpha: float = 0.01
    """The probability, in (0, 1), of ever calling a split a mismatch that is as planned."""
    tolerance: float = 0.1
    """A split is as planned once each share is known to lie within this part of its plan, 0.1: 45 to 55 % of 50 %."""
    strengths: tuple[float, ...] = STRENGTHS

    def __post_init__(self) -> None:
        if len(self.shares) < 2 or min(self.shares) <= 0 or not math.isclose(sum(self.shares), 1, abs_tol=1e-9):
            raise ValueError(f"a plan is two or more shares above 0 that add up to 1, not {self.shares}")
        if not (0 < self.alpha < 1 and self.tolerance > 0 and min(self.strengths, default=0) > 0):
            raise ValueError("alpha lies in (0, 1), tolerance and strengths are above 0")

    def fold(self, state: State, new_units: Sequence[int]) -> tuple[float, ...]:
        """The state after so many new units per arm; ``()`` starts. Raises ValueError for negative or missing counts.

        The state is the largest log evidence so far, then the count of each arm.
        """
        if len(new_units) != len(self.shares) or min(new_units) < 0:
            raise ValueError(f"counts {tuple(new_units)} are not one count, 0 or more, for each of {len(self.shares)}")
        most, *before = tuple(state) or (0.0, *(0.0 for _ in self.shares))
        counts = tuple(past + new for past, new in zip(before, new_units, strict=True))
        now = float(split_evidence(np.array(counts), self.shares, self.strengths))
        return (max(most, now), *counts)

    def judge(self, state: State) -> Split:
        """What is known after the units folded so far. A mismatch once found stays one."""
        most, *counts = tuple(state) or (0.0, *(0.0 for _ in self.shares))
        units = int(sum(counts))
        intervals = tuple(self._interval(count, units, share) for count, share in zip(counts, self.shares, strict=True))
        observed = tuple(count / units if units else math.nan for count in counts)
        p_value = math.exp(-most)
        near = all(
            share * (1 - self.tolerance) <= low and high <= share * (1 + self.tolerance)
            for (low, high), share in zip(intervals, self.shares, strict=True)
        )
        says: Match = "mismatch" if p_value <= self.alpha else "as planned" if near else "unknown"
        shown = ", ".join(f"{seen:.1%} of {share:.1%}" for seen, share in zip(observed, self.shares, strict=True))
        why = f"{units:,} units: {shown} planned, p {p_value:.2g}" if units else "no units yet"
        if says == "unknown":
            why += f"; too few to know each share to {self.tolerance:.0%} of itself"
        return Split(says, observed, intervals, p_value, units, why)

    def _interval(self, count: float, units: int, share: float) -> tuple[float, float]:
        """One arm against all others; with more than two arms, each at its part of alpha."""
        if not units:
            return 0.0, 1.0
        alpha = self.alpha if len(self.shares) == 2 else self.alpha / len(self.shares)
        counts = np.array([count, units - count])
        # Evidence against a share q is `marginal` less count * log(q) + rest * log(1 - q), convex around count / units.
        marginal = _marginal(counts, np.array([share, 1 - share]), self.strengths)
        least = float(marginal) - math.log(1 / alpha)

        def likelihood(q: float) -> float:
            parts = ((count, q), (units - count, 1 - q))
            return sum(n * (math.log(p) if p > 0 else -math.inf) for n, p in parts if n)

        return _edge(likelihood, least, count / units, 0.0), _edge(likelihood, least, count / units, 1.0)


def split_evidence(
    counts: npt.ArrayLike, shares: Sequence[float], strengths: Sequence[float] = STRENGTHS
) -> FloatArray:
    """Log evidence that units do not come in `shares`, from all counts so far (..., arms) -> (...).

    0 before the first unit; may be negative, evidence for the plan. Under the plan its exponential ever reaches
    1 / alpha with probability at most alpha (Ville 1939).

    >>> split_evidence([[0, 0], [50, 50], [70, 30]], (0.5, 0.5), (100.0,)).round(2).tolist()
    [0.0, -0.35, 3.7]
    """
    planned, n = np.asarray(shares, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    evidence: FloatArray = _marginal(n, planned, strengths) - (n * np.log(planned)).sum(axis=-1)
    return evidence


def _marginal(counts: FloatArray, planned: FloatArray, strengths: Sequence[float]) -> FloatArray:
    """Log probability of the units in their order, averaged over the priors: counts (..., arms) -> (...)."""
    priors = [strength * planned for strength in strengths]
    each = np.stack([_log_beta(prior + counts) - _log_beta(prior) for prior in priors])
    averaged: FloatArray = np.logaddexp.reduce(each) - math.log(len(priors))
    return averaged


def _log_beta(a: FloatArray) -> FloatArray:
    """Logarithm of the multivariate beta function over the last axis."""
    result: FloatArray = gammaln(a).sum(axis=-1) - gammaln(a.sum(axis=-1))
    return result


def _edge(likelihood: Callable[[float], float], least: float, inside: float, outside: float) -> float:
    """Where the likelihood of a share falls below `least` between the observed share and 0 or 1, by bisection."""
    if likelihood(outside) > least:
        return outside
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if likelihood(middle) > least else (inside, middle)
    return outside
