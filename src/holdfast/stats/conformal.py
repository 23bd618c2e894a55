"""Limits from a system's own history: how unusual is a window among windows like it?

Valid when history and the new window are exchangeable, which disjoint blocks nearly are and overlapping ones are not:
thirty weekly windows that each share six days with the next are about five windows. Among windows that overlap as it
does a window that stands out is one of a run of them; the k highest of history are of at most k runs, so that k runs
in as many windows are the most to be expected: alarms are to be counted by runs, and looks in alarm are more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def p_value(score: float, history: FloatArray) -> float:
    """Conformal p-value: (1 + number of history scores at or above `score`) / (n + 1). In (0, 1].

    `history` (n,) holds scores of disjoint windows, higher is worse; NaN in it (windows that could not be
    measured) does not count. No history gives 1. Under exchangeability P(p <= a) <= a for every a.
    Raises ValueError for a NaN score: what was not measured has no p-value.
    Sources: Vovk, Gammerman, Shafer (2005); for blocks Chernozhukov, Wüthrich, Zhu (2018).

    >>> p_value(3.0, np.array([1.0, 2.0, 3.0, 4.0]))
    0.6
    """
    if math.isnan(score):
        raise ValueError("a score that is NaN was not measured: its verdict is unknown, not a p-value")
    known = history[~np.isnan(history)]
    return (1 + int(np.count_nonzero(known >= score))) / (known.size + 1)


def standardised(windows: FloatArray) -> FloatArray:
    """Each column of `windows` (n, columns) less its mean, over its standard deviation. Shape (n, columns).

    A column that never moves is 0 everywhere; NaN (not measured) stays NaN. Mean and deviation are taken over
    all rows alike, so exchangeable rows stay exchangeable: append the window under test as one of the rows.
    Deviation, not a robust scale: judged by the maximum, a robust scale lets the column with the heaviest tail
    (departure times on holidays) drown all others; on a year of flights that cost up to all of the power.

    >>> standardised(np.array([[1.0], [2.0], [3.0], [10.0]]))[:, 0].round(2).tolist()
    [-0.85, -0.57, -0.28, 1.7]
    """
    known = ~np.isnan(windows)
    count = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, windows, 0.0) - np.where(known, windows, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(known, centred, 0.0) ** 2).sum(axis=0) / count)
    # A constant column is left with rounding only, which must not be blown up to a deviation of one.
    still = deviation <= 1e-12 * (1 + np.abs(np.where(known, windows, 0.0)).max(axis=0, initial=0.0))
    standard = np.where(still, 0.0, centred / np.where(still, 1.0, deviation))
    return np.where(known, standard, np.nan)


def joint_scores(windows: FloatArray) -> FloatArray:
    """One score per window from all its columns: the largest standardised one. (n, columns) -> (n,).

    Judging columns by their maximum calibrates all of a monitor's columns together: one p-value, one alarm,
    however many columns there are and however they depend on each other. Put the window under test in as a
    row of its own (`joint_p_value` does); a row with nothing measured is NaN.

    >>> joint_scores(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [2.0, 9.0]])).round(2).tolist()
    [-0.58, 0.0, 1.41, 1.73]
    """
    standard = standardised(windows)
    known = ~np.isnan(standard)
    highest = np.where(known, standard, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(known.any(axis=1), highest, np.nan)


def joint_p_value(current: FloatArray, history: FloatArray) -> float:
    """Conformal p-value of one window (columns,) among disjoint windows of history (n, columns), columns joint.

    Valid at every level because all n + 1 windows are standardised by the same rule. Raises ValueError when
    nothing of the current window was measured. `standardised` of the same rows says which column stands out.

    >>> joint_p_value(np.array([9.0]), np.array([[1.0], [2.0], [3.0], [2.0]]))
    0.2
    """
    scores = joint_scores(np.vstack([history.reshape(-1, current.size), current]))
    return p_value(float(scores[-1]), scores[:-1])


def least_level(windows: int) -> float:
    """The smallest level that `windows` disjoint windows of history can reach: 1 / (n + 1). In (0, 1].

    >>> least_level(99)
    0.01
    """
    return 1 / (windows + 1)


def windows_needed(level: float) -> int:
    """How many disjoint windows of history a level in (0, 1] needs before it can be reached.

    >>> windows_needed(1 / 150)
    149
    """
    return max(0, math.ceil(1 / level - 1e-9) - 1)


def level_within(budget: float, *, monitors: int, evaluations: float) -> float:
    """The level for one monitor that keeps all of them within a budget of false alarms. In (0, 1].

    `budget` is expected false alarms per month over all `monitors`, `evaluations` how often this one looks
    per month. By linearity of expectation this holds under any dependence between monitors and looks.
    Sources: Spjøtvoll (1972); Dandapanthula and Ramdas (2025).

    >>> level_within(1.0, monitors=5, evaluations=30)
    0.006666666666666667
    """
    return min(1.0, budget / (monitors * evaluations))


@dataclass(frozen=True)
class Look:
    """Something that looks now and then, and may alarm falsely."""

    evaluations: float
    """How often it looks per month."""
    windows: int | None
    """Windows of history that it is judged among, so that its level is a multiple of 1 / (windows + 1); None for one
    that any level suits."""
    is_second: bool = False
    """Whether something else looks at the same already: it goes without first, where not all can be calibrated."""

    @property
    def step(self) -> float:
        """False alarms per month at its smallest level; 0 where any level suits."""
        return 0.0 if self.windows is None else self.evaluations * least_level(self.windows)


FAIR = 0.5
"""Nobody gets less than this part of an even share so that one with little history reaches its level."""
MOST = 0.5
"""No level is above this: what alarms at every second look says nothing."""


def split_levels(budget: float, looks: Sequence[Look]) -> list[float]:
    """The level of each look, so that the sum of evaluations times level stays within a budget of alarms per month.

    By linearity of expectation that bounds false alarms under any dependence (Spjøtvoll 1972; Dandapanthula and
    Ramdas 2025). Shares are even, but one whose history is short gets as much as its smallest level costs, if that
    leaves the others half of an even share; if not, the neediest gets nothing, level 0, and its share goes to the
    others. What ranks among windows can use whole ranks only. What is left goes to further ranks, the coarsest
    ranking first, then to those that any level suits: these keep half of an even share, for half the level costs them
    the logarithm of two only.

    >>> split_levels(1.0, [Look(4, 9), Look(30, None)])
    [0.1, 0.02]
    >>> split_levels(1.0, [Look(4, 9), Look(30, 60), Look(30, None)])
    [0.1, 0.0, 0.02]
    >>> [round(level, 4) for level in split_levels(1.0, [Look(30 / 7, 25), Look(30, 180), Look(30, None)])]
    [0.0769, 0.0166, 0.0058]
    """
    kept = [i for i, look in enumerate(looks) if look.windows is None or look.windows > 0]
    shares = _fair_shares(budget, looks, kept)
    while kept and not shares:
        kept.remove(max(kept, key=lambda i: (looks[i].is_second and looks[i].step > 0, looks[i].step, i)))
        shares = _fair_shares(budget, looks, kept)
    ranks = {i: max(1, math.floor(shares[i] / looks[i].step + 1e-9)) for i in kept if looks[i].windows is not None}
    ranks = {i: min(rank, _most_ranks(looks[i])) for i, rank in ranks.items()}
    levels = [0.0] * len(looks)
    free = [i for i in kept if i not in ranks]
    least = FAIR * budget / max(1, len(kept))
    spare = budget - sum(rank * looks[i].step for i, rank in ranks.items()) - least * len(free)
    while more := [i for i in ranks if looks[i].step <= spare + 1e-12 and ranks[i] < _most_ranks(looks[i])]:
        one = min(more, key=lambda i: (ranks[i], -looks[i].step, i))
        ranks[one] += 1
        spare -= looks[one].step
    for i, rank in ranks.items():
        # Where nobody else can use the rest, it stays: a look may find more windows than were counted on.
        rest = 0.0 if free else max(0.0, spare) / len(ranks) / looks[i].evaluations
        levels[i] = min(MOST, rank / (1 + (looks[i].windows or 0)) + rest)
    for i in free:
        levels[i] = min(MOST, (least + max(0.0, spare) / len(free)) / looks[i].evaluations)
    return levels


def _fair_shares(budget: float, looks: Sequence[Look], kept: Sequence[int]) -> dict[int, float]:
    """Even shares of the budget, at least what each needs; empty where that leaves others less than is fair."""
    shares, rest, left = {}, budget, len(kept)
    for i in sorted(kept, key=lambda i: -looks[i].step):
        shares[i] = max(looks[i].step, rest / left)
        rest -= shares[i]
        left -= 1
        if rest < FAIR * budget / len(kept) * left - 1e-12:
            return {}
    return shares


def _most_ranks(look: Look) -> int:
    return max(1, int(MOST * (1 + (look.windows or 0))))


def shortfall(windows: int, level: float) -> str:
    """Why history is too short for a level, as a sentence; empty when it is long enough.

    >>> shortfall(90, 1 / 150)
    'history has 90 windows; level 0.0067 needs 149'
    >>> shortfall(149, 1 / 150)
    ''
    """
    needed = windows_needed(level)
    return "" if windows >= needed else f"history has {windows} windows; level {level:.2g} needs {needed}"
