"""Tests that stay valid however often one looks: betting on block means.

The unit is the block (a day), never the row: losses cluster by day. What is assumed is said per test: a bound on
the conditional mean of a block given the blocks before it, and bounds on its value that were known before it.
All state is a plain tuple of floats, so it is stored with the record and folded on from there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from holdfast.stats import selfnormalised
from holdfast.stats.bootstrap import resample, run_length

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Days = tuple[FloatArray, FloatArray, FloatArray]
Amount = TypeVar("Amount", float, FloatArray)

BETS = (0.2, 0.6, 0.98)
"""Bets as shares of the largest one that cannot lose everything. Below 1, so that wealth never becomes 0."""

WEIGHTS = (0.1, 0.2, 0.7)
"""The part of the wealth that each bet starts with; they add up to 1.

Most on the largest, because block means vary far less than their bounds allow, where the largest bet is best. On
three real streams decisions come 13 to 20 % and alarms 7 to 14 % sooner than with equal parts, at the same guarantee
(`docs/why/sequential.md`).
"""

Decision = Literal["not worse", "worse", "undecided"]
Direction = Literal["below", "above"]
_CAP = 1e300
_EVEN = tuple(math.log(weight * len(WEIGHTS)) for weight in WEIGHTS)
"""Log wealth of the bets before the first block: their average is wealth 1."""
_MOST = 3.0
"""What a block may win at most, in units of what it may lose: no two blocks alone decide at 5 %."""
_LEAST = 1e-12
"""Nothing to lose and nothing to win, two models that are the same, is no evidence; it must not divide by zero."""


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
    weights: tuple[float, ...] = WEIGHTS
    """The part of the evidence that each bet carries; they add up to 1."""

    def start(self) -> tuple[float, ...]:
        """The state before the first block. The empty tuple means the same."""
        return (0.0,) * len(self.bets)

    def fold(
        self, state: Sequence[float], x: float, promised: float, low: float = 0.0, high: float = 1.0
    ) -> tuple[float, ...]:
        """The state after one more block whose mean is `x`: M becomes (M + weight) (1 + bet (x - promised)).

        `low` is what a block mean cannot fall below and must be true; the larger it is, the faster a rise is
        seen. `high` only clips: a mean above it counts as `high`, which keeps the guarantee. Raises ValueError
        for x below `low`, for a NaN, and for a promise that is not above `low`.
        """
        if not low < promised:
            raise ValueError(f"promised {promised} must lie above low {low}: otherwise every value breaks the promise")
        if math.isnan(x) or x < low - 1e-9:
            raise ValueError(f"a block mean of {x} lies below its bound {low}: the bound is wrong")
        gain = (min(x, high) - promised) / (promised - low)
        # Evidence is the average over bets, so a weight of 1 / bets is an increment of 1.
        increments = (weight * len(self.bets) for weight in self.weights)
        return tuple(
            min(_CAP, (m + increment) * max(0.0, 1.0 + bet * gain))
            for m, bet, increment in zip(state or self.start(), self.bets, increments, strict=True)
        )

    def evidence(self, state: Sequence[float]) -> float:
        """The average over bets, in [0, 1e300]; compare it with 1 / level."""
        return math.fsum(state) / len(state) if state else 0.0


def fold_paired(
    state: Sequence[float], d: float, low: float, high: float, null: float, direction: Direction
) -> tuple[float, ...]:
    """The state of one side of a paired comparison after one more block; ``()`` starts.

    `d` is the block's mean loss difference, `low` and `high` what it could have been before its labels came: the
    mean over its rows of `Task.loss_bounds`, and **no narrower than those of any block before** (fold them with min
    and max). Direction "below" collects evidence against H0 'E[d | past] >= null', "above" against H0
    'E[d | past] <= null'. `log_evidence` says how much there is.

    Half the wealth bets within the bounds: per bet of `BETS` its log wealth. Each is a share of the largest bet that
    keeps wealth nonnegative, so narrow bounds (two models that nearly agree) mean large bets, and nothing is assumed
    but the bounds. It wins at most three times what it may lose, so one day of perfect agreement decides nothing.
    The other half is on `selfnormalised`: three more floats. It takes the spread of the days themselves as the
    measure, which is far less than the bounds where days vary little, and assumes that, given the past, d lies
    symmetrically around its mean. Under H0 and both assumptions the average is a nonnegative supermartingale that
    starts at 1, so it ever reaches 1 / alpha with probability at most alpha (Ville 1939), look as often as you like.

    Why the widest bounds so far: the past must settle how much a block counts. With each block's own bounds, those on
    which the models agree would get the larger bets, so the test would be about a mean weighted by the inputs.
    Where a candidate is better on such days and worse on others, that is wrong more often than stated: in 20 % of
    streams at 5 % on flights. With the widest so far all blocks count alike but those that set a record, which count
    for less; that those few are not the ones on which the candidate is worse is what remains assumed.

    A state of bets alone, from a comparison that began before there was the other half, goes on as such: wealth
    cannot be moved later to what would have won. Raises ValueError when d lies outside its bounds.
    Sources: Waudby-Smith and Ramdas (2024); Choe and Ramdas, Comparing Sequential Forecasters (2024).

    >>> state = ()
    >>> for _ in range(20):
    ...     state = fold_paired(state, -0.02, -0.1, 0.1, 0.01, "below")
    >>> log_evidence(state) > math.log(1 / 0.05)
    True
    """
    if math.isnan(d) or d < low - 1e-9 or d > high + 1e-9:
        raise ValueError(f"a mean difference of {d} lies outside its bounds [{low}, {high}]: the bounds are wrong")
    gain, loss, best = _stakes(d, low, high, null, direction)
    share = max(-1.0, gain / max(loss, best / _MOST, _LEAST))
    before, measured = state[: len(BETS)], state[len(BETS) :]
    wealth = tuple(logged + math.log1p(bet * share) for logged, bet in zip(before or _EVEN, BETS, strict=True))
    if before and not measured:
        return wealth
    return (*wealth, *selfnormalised.fold(measured, gain, max(high, null) - min(low, null)))


def log_evidence(state: Sequence[float]) -> float:
    """Log of the evidence in a folded state: of the average of its two halves. 0 (evidence 1) before the first block.

    >>> round(math.exp(log_evidence(fold_paired((), 0.0, 0.0, 0.0, 0.01, "below"))), 3)
    2.133
    """
    if not state:
        return 0.0
    wealth, measured = state[: len(BETS)], state[len(BETS) :]
    top = max(wealth)
    betting = top + math.log(math.fsum(math.exp(logged - top) for logged in wealth) / len(wealth))
    if not measured:
        return betting
    return float(np.logaddexp(betting, selfnormalised.log_evidence(measured))) - math.log(2)


def evidence_path(
    d: FloatArray, low: FloatArray, high: FloatArray, null: FloatArray | float, direction: Direction
) -> FloatArray:
    """Log evidence after every block of whole streams at once: what `fold_paired` and `log_evidence` give one by one.

    `d`, `low` and `high` are (..., blocks), in the order of time, with each block's own bounds: they are widened
    here to the widest so far. `null` broadcasts against d. The result has the shape of d.

    >>> days = np.full(20, -0.02)
    >>> bool(evidence_path(days, days - 0.08, days + 0.12, 0.01, "below")[-1] > math.log(1 / 0.05))
    True
    """
    betting = betting_path(d, low, high, null, direction)
    total: FloatArray = np.logaddexp(betting, selfnormalised_path(d, low, high, null, direction)) - math.log(2)
    return total


def betting_path(
    d: FloatArray,
    low: FloatArray,
    high: FloatArray,
    null: FloatArray | float,
    direction: Direction,
    weights: tuple[float, ...] = WEIGHTS,
) -> FloatArray:
    """The half of `evidence_path` that bets within the bounds, with all the wealth; `weights` are the bets' parts.

    >>> days = np.full(3, -0.02)
    >>> np.exp(betting_path(days, days - 0.08, days + 0.12, 0.01, "below")).round(3).tolist()
    [1.275, 1.634, 2.101]
    """
    low, high = np.minimum.accumulate(low, axis=-1), np.maximum.accumulate(high, axis=-1)
    gain, loss, best = _stakes(d, low, high, null, direction)
    share = np.maximum(-1.0, gain / np.maximum(np.maximum(loss, best / _MOST), _LEAST))
    parts = [
        math.log(weight) + np.cumsum(np.log1p(bet * share), axis=-1) for bet, weight in zip(BETS, weights, strict=True)
    ]
    total: FloatArray = np.logaddexp.reduce(parts)
    return total


def selfnormalised_path(
    d: FloatArray, low: FloatArray, high: FloatArray, null: FloatArray | float, direction: Direction
) -> FloatArray:
    """The half of `evidence_path` that assumes symmetric days, with all the wealth; bounds only set its scale.

    >>> days = np.full(3, -0.02)
    >>> np.exp(selfnormalised_path(days, days - 0.08, days + 0.12, 0.01, "below")).round(3).tolist()
    [1.319, 1.777, 2.444]
    """
    low, high = np.minimum.accumulate(low, axis=-1), np.maximum.accumulate(high, axis=-1)
    gain, _, _ = _stakes(d, low, high, null, direction)
    return selfnormalised.log_evidence_path(gain, np.maximum(high, null) - np.minimum(low, null))


def _stakes(d: Amount, low: Amount, high: Amount, null: Amount | float, direction: Direction) -> tuple[Amount, ...]:
    """What a block wins, the most that it could lose, and the most that it could win, against `null`."""
    if direction == "below":
        return null - d, high - null, null - low
    return d - null, null - low, high - null


def decide(not_worse: Sequence[float], worse: Sequence[float], alpha: float) -> Decision:
    """What two folded comparisons say at error level `alpha`, each side for itself.

    `not_worse` was folded "below" with the margin as null, `worse` "above" with 0. When both are proved, the
    candidate is worse by less than the margin: "worse", since nobody gains by taking it.

    >>> decide((math.log(30.0),), (0.0,), 0.05), decide((0.0,), (math.log(30.0),), 0.05), decide((), (), 0.05)
    ('not worse', 'worse', 'undecided')
    """
    enough = math.log(1 / alpha)
    if log_evidence(worse) >= enough:
        return "worse"
    return "not worse" if log_evidence(not_worse) >= enough else "undecided"


@dataclass(frozen=True)
class Duration:
    """How many blocks a decision takes: a tenth of all runs are decided by `tenth`, half by `half`."""

    tenth: float
    half: float
    nine_in_ten: float
    """These three are infinite where fewer runs are decided within the horizon."""
    decided: float
    """Share decided within the horizon, in [0, 1]."""
    not_worse: float
    """Share that ended "not worse"."""


@dataclass(frozen=True)
class Margin:
    """The smallest margin at which a candidate is found "not worse" in time: in a tenth, half, nine in ten of runs."""

    tenth: float
    half: float
    nine_in_ten: float
    """Infinite where so many runs are not decided at any margin, for example because the candidate is worse."""


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
    """How many blocks a paired release test will take, where nothing is known but a mean and a spread.

    The test itself is simulated. `effect` and `sd` are mean and standard deviation of block mean differences,
    `low` and `high` their bounds; blocks are drawn independent and normal, clipped to the bounds. Costs
    runs x horizon x 6 operations, a few milliseconds. `replayed_decision` does the same with real days.

    >>> plan = blocks_to_decision(-0.005, 0.01, -0.08, 0.08, 0.01, 0.05)
    >>> plan.not_worse > 0.9 and plan.half < 40
    True
    """
    d = np.clip(np.random.default_rng(seed).normal(effect, sd, size=(runs, horizon)), low, high)
    return _duration(d, np.full(d.shape, low), np.full(d.shape, high), margin, alpha)


def replayed_decision(
    d: FloatArray,
    low: FloatArray,
    high: FloatArray,
    margin: float,
    alpha: float,
    *,
    effect: float | None = None,
    horizon: int = 120,
    runs: int = 500,
    seed: int = 0,
) -> Duration:
    """How many days a release test will take, by replaying past days: whole, and in runs of neighbours.

    `d` (n,) are mean loss differences per day between live and a candidate of like kind (an earlier release, or
    hold-out folds), `low` and `high` (n,) their bounds before labels. With `effect` the days are moved to that mean
    (0: an equally good candidate), within their bounds; without it they are taken as they were, and each run
    draws its own past of n days first, so that few past days give a wide distribution. Labels come later than
    days end: add the time to maturity. Raises ValueError for fewer than two days or days outside their bounds.
    Sources: Künsch (1989); Politis and Romano (1992) for runs of neighbours.

    >>> days = np.array([-0.004, 0.006, -0.008, 0.002, 0.004, 0.0])
    >>> plan = replayed_decision(days, days - 0.06, days + 0.06, 0.01, 0.05, effect=0.0)
    >>> plan.tenth <= plan.half <= plan.nine_in_ten < 60
    True
    """
    days = _past(d, low, high, effect)
    return _duration(*_replay(days, effect, horizon, runs, seed), margin, alpha)


def replayed_margin(
    d: FloatArray,
    low: FloatArray,
    high: FloatArray,
    alpha: float,
    *,
    within: int,
    effect: float | None = 0.0,
    runs: int = 500,
    seed: int = 0,
) -> Margin:
    """The smallest margin that is decidable within so many days, with its distribution; arguments as above.

    For each replayed run, by bisection, the smallest margin at which "not worse" is found, and found before
    "worse". State `half` in a plan if every second good candidate should pass in time, `nine_in_ten` for most.

    >>> days = np.array([-0.004, 0.006, -0.008, 0.002, 0.004, 0.0])
    >>> margin = replayed_margin(days, days - 0.06, days + 0.06, 0.05, within=28)
    >>> 0.002 < margin.tenth <= margin.half <= margin.nine_in_ten < 0.03
    True
    """
    if within < 1:
        raise ValueError(f"no margin is decidable within {within} days: give at least 1")
    streams = _replay(_past(d, low, high, effect), effect, within, runs, seed)
    # Twice the widest bound is a margin that nothing can exceed; beyond it a larger one wins nothing.
    below, above = np.zeros(runs), np.full(runs, 2 * float(np.maximum(np.abs(low), np.abs(high)).max()) + 1e-9)
    possible = _not_worse(*streams, above, alpha)
    for _ in range(14):
        middle = (below + above) / 2
        found = _not_worse(*streams, middle, alpha)
        below, above = np.where(found, below, middle), np.where(found, middle, above)
    tenth, half, nine_in_ten = _quantiles(np.where(possible, above, np.inf))
    return Margin(tenth=tenth, half=half, nine_in_ten=nine_in_ten)


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


def _past(d: FloatArray, low: FloatArray, high: FloatArray, effect: float | None) -> Days:
    d, low, high = (np.asarray(each, dtype=np.float64) for each in (d, low, high))
    if d.ndim != 1 or d.size < 2 or d.shape != low.shape or d.shape != high.shape:
        raise ValueError(
            f"a plan needs at least two past days, each with a difference and its bounds; got shapes "
            f"{d.shape}, {low.shape} and {high.shape}"
        )
    if not (np.isfinite(d).all() and (low - 1e-9 <= d).all() and (d <= high + 1e-9).all()):
        raise ValueError("a past day's difference is missing or lies outside its bounds: leave such days out")
    return d if effect is None else np.clip(d - d.mean() + effect, low, high), low, high


def _replay(days: Days, effect: float | None, horizon: int, runs: int, seed: int) -> Days:
    """Streams (runs, horizon) of past days in runs of neighbours, wrapping around the end."""
    n = days[0].size
    length = run_length(n)
    starts = np.random.default_rng([seed, 1]).integers(0, n, size=(runs, math.ceil(horizon / length)))
    drawn = ((starts[:, :, None] + np.arange(length)) % n).reshape(runs, -1)[:, :horizon]
    if effect is None:
        drawn = np.take_along_axis(resample(n, seed=seed, replicates=runs), drawn, axis=1)
    d, low, high = (each[drawn] for each in days)
    return d, low, high


def _duration(d: FloatArray, low: FloatArray, high: FloatArray, margin: float, alpha: float) -> Duration:
    not_worse = first_reached(evidence_path(d, low, high, margin, "below"), alpha)
    worse = first_reached(evidence_path(d, low, high, 0.0, "above"), alpha)
    decided = np.minimum(not_worse, worse)
    tenth, half, nine_in_ten = _quantiles(decided)
    return Duration(
        tenth=tenth,
        half=half,
        nine_in_ten=nine_in_ten,
        decided=float(np.isfinite(decided).mean()),
        not_worse=float((np.isfinite(not_worse) & (not_worse < worse)).mean()),
    )


def _not_worse(d: FloatArray, low: FloatArray, high: FloatArray, margins: FloatArray, alpha: float) -> BoolArray:
    """Per run (runs,), whether "not worse" is found at its margin, and before "worse"."""
    not_worse = first_reached(evidence_path(d, low, high, margins[:, None], "below"), alpha)
    return np.isfinite(not_worse) & (not_worse < first_reached(evidence_path(d, low, high, 0.0, "above"), alpha))


def _quantiles(values: FloatArray) -> tuple[float, float, float]:
    """The values that a tenth, half and nine in ten of all do not exceed."""
    ordered = np.sort(values)
    tenth, half, nine_in_ten = (float(ordered[max(0, math.ceil(q * ordered.size) - 1)]) for q in (0.1, 0.5, 0.9))
    return tenth, half, nine_in_ten


def first_reached(log_wealth: FloatArray, alpha: float) -> FloatArray:
    """First block (from 1) at which each stream of (..., blocks) reaches 1 / alpha; infinite where it never does.

    >>> first_reached(np.log([[1.0, 25.0, 3.0], [1.0, 2.0, 3.0]]), 0.05).tolist()
    [2.0, inf]
    """
    reached = log_wealth >= math.log(1 / alpha)
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1.0, np.inf)
