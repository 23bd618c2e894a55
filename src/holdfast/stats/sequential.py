"""Tests that stay valid however often one looks: betting on block means.

The unit is the block (a day), never the row: losses cluster by day. What is assumed is said per test: a bound on
the conditional mean of a block given the blocks before it, and bounds on its value that were known before it.
All state is a plain tuple of floats, one per bet, so it is stored with the record and folded on from there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

BETS = (0.2, 0.6, 0.98)
"""Bets as shares of the largest one that cannot lose everything. Below 1, so that wealth never becomes 0.

Few and large: averaging over k bets costs log k of evidence, and block means vary far less than their bounds
allow, where the largest bet is best. Against eight bets from 0.02 to 0.9 a decision comes 10 to 30 % sooner.
"""

Decision = Literal["not worse", "worse", "undecided"]
_CAP = 1e300


@dataclass(frozen=True)
class EDetector:
    """Watches a stream of block means for a rise above what was promised. Alarm at `evidence` >= 1 / level.

    While every block's conditional mean, given the past, is at most `promised`, the expected number of blocks
    until an alarm is at least 1 / level, under any dependence between blocks. After an alarm start anew.
    Source: Shin, Ramdas, Rinaldo, E-detectors (2024).

    >>> detector, state = EDetector(), ()
    >>> for x in [0.1] * 30 + [0.5] * 10:
    ...     state = detector.fold(state, x, 0.2)
    >>> detector.evidence(state) > 150
    True
    """

    bets: tuple[float, ...] = BETS
    """Shares, in (0, 1), of the largest bet."""

    def start(self) -> tuple[float, ...]:
        """The state before the first block. The empty tuple means the same."""
        return (0.0,) * len(self.bets)

    def fold(
        self, state: Sequence[float], x: float, promised: float, low: float = 0.0, high: float = 1.0
    ) -> tuple[float, ...]:
        """The state after one more block whose mean is `x`: M becomes (M + 1) (1 + bet (x - promised)).

        `low` is what a block mean cannot fall below and must be true; the larger it is, the faster a rise is
        seen. `high` only clips: a mean above it counts as `high`, which keeps the guarantee. Raises ValueError
        for x below `low`, for a NaN, and for a promise that is not above `low`.
        """
        if not low < promised:
            raise ValueError(f"promised {promised} must lie above low {low}: otherwise every value breaks the promise")
        if math.isnan(x) or x < low - 1e-9:
            raise ValueError(f"a block mean of {x} lies below its bound {low}: the bound is wrong")
        gain = (min(x, high) - promised) / (promised - low)
        return tuple(
            min(_CAP, (m + 1.0) * max(0.0, 1.0 + bet * gain))
            for m, bet in zip(state or self.start(), self.bets, strict=True)
        )

    def evidence(self, state: Sequence[float]) -> float:
        """The average over bets, in [0, 1e300]; compare it with 1 / level."""
        return math.fsum(state) / len(state) if state else 0.0


def fold_paired(
    log_wealths: Sequence[float],
    d: float,
    low: float,
    high: float,
    null: float,
    direction: Literal["below", "above"],
    *,
    bets: tuple[float, ...] = BETS,
) -> tuple[float, ...]:
    """Log wealth per bet after one more block of a paired comparison; ``()`` starts.

    `d` is the block's mean loss difference, `low` and `high` what it could have been before its labels came
    (the mean over its rows of `Task.loss_bounds`). Direction "below" bets against H0 'E[d | past] >= null',
    "above" against H0 'E[d | past] <= null'. Under H0 the wealth is a nonnegative supermartingale that starts
    at 1, so it ever reaches 1 / alpha with probability at most alpha (Ville 1939), look as often as you like.
    Each bet is a share of the largest that keeps wealth nonnegative within this block's own bounds, so narrow
    bounds (two models that nearly agree) mean large bets. Raises ValueError when d lies outside its bounds.
    Sources: Waudby-Smith and Ramdas (2024); Choe and Ramdas, Comparing Sequential Forecasters (2024).

    >>> state = ()
    >>> for _ in range(20):
    ...     state = fold_paired(state, -0.02, -0.1, 0.1, 0.01, "below")
    >>> log_mixture(state) > math.log(1 / 0.05)
    True
    """
    if math.isnan(d) or d < low - 1e-9 or d > high + 1e-9:
        raise ValueError(f"a mean difference of {d} lies outside its bounds [{low}, {high}]: the bounds are wrong")
    before = log_wealths or (0.0,) * len(bets)
    gain, loss = (null - d, high - null) if direction == "below" else (d - null, null - low)
    # With (almost) nothing to lose the largest bet would be boundless; a hundredth of the range bounds it.
    at_risk = max(loss, (high - low) / 100, 1e-12)
    share = max(-1.0, gain / at_risk)
    return tuple(logged + math.log1p(bet * share) for logged, bet in zip(before, bets, strict=True))


def log_mixture(log_wealths: Sequence[float]) -> float:
    """Log of the average wealth over all bets; 0 (wealth 1) before the first block.

    >>> round(math.exp(log_mixture((math.log(2.0), math.log(4.0)))), 9)
    3.0
    """
    if not log_wealths:
        return 0.0
    top = max(log_wealths)
    return top + math.log(math.fsum(math.exp(logged - top) for logged in log_wealths) / len(log_wealths))


def decide(not_worse: Sequence[float], worse: Sequence[float], alpha: float) -> Decision:
    """What two folded comparisons say at error level `alpha`, each side for itself.

    `not_worse` was folded "below" with the margin as null, `worse` "above" with 0. When both are proved, the
    candidate is worse by less than the margin: "worse", since nobody gains by taking it.

    >>> decide((math.log(30.0),), (0.0,), 0.05), decide((0.0,), (math.log(30.0),), 0.05), decide((), (), 0.05)
    ('not worse', 'worse', 'undecided')
    """
    enough = math.log(1 / alpha)
    if log_mixture(worse) >= enough:
        return "worse"
    return "not worse" if log_mixture(not_worse) >= enough else "undecided"


@dataclass(frozen=True)
class Duration:
    """How many blocks a decision takes: half of all runs are decided by `half`, nine in ten by `nine_in_ten`."""

    half: float
    nine_in_ten: float
    """Infinite where fewer runs are decided within the horizon."""
    decided: float
    """Share decided within the horizon, in [0, 1]."""
    not_worse: float
    """Share that ended "not worse"."""


def blocks_to_decision(
    effect: float,
    sd: float,
    low: float,
    high: float,
    margin: float,
    alpha: float,
    *,
    horizon: int = 120,
    runs: int = 200,
    seed: int = 0,
) -> Duration:
    """How many blocks a paired release test will take, by simulation of the test itself.

    `effect` and `sd` are mean and standard deviation of block mean differences (from a hold-out), `low` and
    `high` their typical bounds; blocks are drawn independent and normal, clipped to the bounds. Costs
    runs x horizon x bets operations, a few milliseconds.

    >>> plan = blocks_to_decision(-0.005, 0.01, -0.08, 0.08, 0.01, 0.05)
    >>> plan.not_worse > 0.9 and plan.half < 40
    True
    """
    random = np.random.default_rng(seed)
    d = np.clip(random.normal(effect, sd, size=(runs, horizon)), low, high)
    range_share = (high - low) / 100
    not_worse = _crossed((margin - d) / max(high - margin, range_share, 1e-12), alpha)
    worse = _crossed(d / max(-low, range_share, 1e-12), alpha)
    first = np.sort(np.minimum(not_worse, worse))
    return Duration(
        half=float(first[(runs - 1) // 2]),
        nine_in_ten=float(first[min(runs - 1, math.ceil(0.9 * runs) - 1)]),
        decided=float(np.isfinite(first).mean()),
        not_worse=float((np.isfinite(not_worse) & (not_worse <= worse)).mean()),
    )


def decidable_margin(
    sd: float, low: float, high: float, alpha: float, *, within: int, share: float = 0.8, seed: int = 0
) -> float:
    """The smallest margin at which an equally good candidate is found "not worse" within so many blocks.

    Found by bisection between 0 and `high` (a margin that nothing can exceed) with `blocks_to_decision` at
    effect 0, in `share` of the runs; 13 simulations.

    >>> margin = decidable_margin(0.01, -0.08, 0.08, 0.05, within=28)
    >>> 0.002 < margin < 0.02
    True
    """

    def decidable(margin: float) -> bool:
        return blocks_to_decision(0.0, sd, low, high, margin, alpha, horizon=within, seed=seed).not_worse >= share

    below, above = 0.0, high
    for _ in range(13):
        middle = (below + above) / 2
        below, above = (below, middle) if decidable(middle) else (middle, above)
    return above


def _crossed(shares: FloatArray, alpha: float) -> FloatArray:
    """First block (from 1) at which each run's average wealth reaches 1 / alpha; infinite when it never does."""
    shares = np.maximum(shares, -1.0)
    bets = np.asarray(BETS)[:, None, None]
    wealth = np.exp(np.minimum(np.cumsum(np.log1p(bets * shares), axis=2), 600.0)).mean(axis=0)
    reached = wealth >= 1 / alpha
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)
