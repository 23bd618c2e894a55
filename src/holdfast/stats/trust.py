"""May an estimate still be used? Its intervals are held against the truth that came later.

An interval at 95 % may miss the truth once in twenty windows. Each window whose labels are mature is one bet against
that: `M = (M + 1) (1 + bet * (missed - rate))`, averaged over bets, as for every stream here. While misses come no
more often than stated, given all windows before, the expected number of windows until the estimate is wrongly given
up is at least 1 / level, however they depend on each other (Shin, Ramdas, Rinaldo, E-detectors, 2024). A count of
misses with a binomial bound would hold for one look only, and would need windows to be independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.stats.sequential import EDetector

LEVEL = 1 / 1000
"""A sound estimate is given up once in 1,000 windows at most, on average. Three misses in a row suffice; where it
misses three times in ten it takes 19 windows, where every second time 9 (medians of 200 simulations)."""


@dataclass(frozen=True)
class Matured:
    """One estimate and the truth that came for the same rows."""

    value: float
    low: float
    high: float
    truth: float

    @property
    def missed(self) -> bool:
        """The truth lies outside the interval."""
        return not self.low <= self.truth <= self.high


@dataclass(frozen=True)
class Trust:
    """Whether an estimate may be used for decisions, and why."""

    usable: bool
    why: str
    misses: int
    windows: int
    error: float
    """Mean absolute error over all matured windows, in the metric's unit; NaN where there is none."""
    evidence: float
    """Against the stated rate of misses; `usable` ends when it reaches 1 / level."""


def trusted(past: Sequence[Matured], *, rate: float = 0.05, level: float = LEVEL) -> Trust:
    """Whether the next estimate may be used, given all earlier ones of the same calibration in time order.

    `rate` is how often an interval may miss, 1 - confidence, in (0, 1). Windows must not overlap, or one bad day
    counts many times; those without an interval or a truth are left out by the caller. Once given up it stays so:
    start anew with a new calibration. Without any matured window it is usable, and `why` says that nothing is known.

    >>> good, bad = Matured(0.8, 0.78, 0.82, 0.81), Matured(0.8, 0.78, 0.82, 0.7)
    >>> trusted([good] * 40 + [bad]).usable, trusted([good] * 40 + [bad] * 3).usable
    (True, False)
    """
    if not past:
        return Trust(True, "no earlier estimate has met its truth yet", 0, 0, float("nan"), 0.0)
    detector, highest, given_up = EDetector(), 0.0, 0
    state = detector.start()
    for i, one in enumerate(past, start=1):
        state = detector.fold(state, float(one.missed), rate)
        highest = max(highest, detector.evidence(state))
        if highest >= 1 / level and not given_up:
            given_up = i
    misses = sum(one.missed for one in past)
    error = sum(abs(one.value - one.truth) for one in past) / len(past)
    said = f"{misses} of {len(past)} earlier estimates missed the truth ({rate:.0%} may), off by {error:.4g} on average"
    if given_up:
        why = f"not used for decisions since its estimate number {given_up}: {said}; the concept does not hold"
        return Trust(False, why, misses, len(past), error, highest)
    return Trust(True, said, misses, len(past), error, detector.evidence(state))
