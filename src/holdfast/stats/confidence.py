"""Confidence sequences: intervals for a mean that hold at every look at once, folded block by block.

Each kind has three functions: `start` gives the state before the first block, `fold` the state after one more,
`interval` what is known. A state is an array of a few floats (HedgedCapital: some hundreds) along its last axis;
store it as a list and fold on from there. Leading axes are streams of their own: fold x of shape (streams,) and
states are (streams, k). With probability at least 1 - alpha the interval holds the truth after every block at once.

What each assumes, and what "the mean" is where the blocks' expected values, given the past, are not all equal:

| kind | assumes | holds |
|---|---|---|
| HedgedCapital | low <= x <= high | the common mean; narrowest for bounded blocks |
| EmpiricalBernstein | low <= x <= high | the mean weighted by its bets; closed form, six floats |
| NormalMixture | x - mean is sub-Gaussian with a stated deviation | the plain average of expected values |
| StudentMixture | x normal with equal, unknown deviation, independent | the common mean; no bounds needed |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
State = FloatArray | Sequence[float]
Bounds = tuple[FloatArray, FloatArray]


class ConfidenceSequence(Protocol):
    """An interval for a mean that holds at every look: pure functions of a state that can be stored."""

    @property
    def alpha(self) -> float:
        """The probability, in (0, 1), that the interval ever misses."""
        ...

    def start(self) -> FloatArray:
        """The state before the first block; the empty sequence means the same."""
        ...

    def fold(self, state: State, x: npt.ArrayLike) -> FloatArray:
        """The state after one more block. Raises ValueError for a NaN, or an x that its assumption rules out."""
        ...

    def interval(self, state: State) -> Bounds:
        """Lower and upper end, of the shape of the folded x; infinite or the bounds where nothing is known yet."""
        ...


@dataclass(frozen=True)
class HedgedCapital:
    """For block means between known bounds, by betting: against every mean on a grid, upwards and downwards.

    The bets are the plug-in ones of Waudby-Smith and Ramdas, Estimating means of bounded random variables by
    betting (2024), eq. 26, cut at `most` of what cannot lose everything. A mean is out once half the wealth on it
    reaches 1 / alpha; between grid points the interval is rounded outwards, by (high - low) / (points - 1) at most.
    Folding costs about 20 µs a stream at 201 points.

    >>> sequence, state = HedgedCapital(), ()
    >>> for x in [0.4, 0.6] * 50:
    ...     state = sequence.fold(state, x)
    >>> [round(float(end), 3) for end in sequence.interval(state)]
    [0.46, 0.54]
    """

    alpha: float = 0.05
    low: float = 0.0
    high: float = 1.0
    points: int = 201
    most: float = 0.5

    def __post_init__(self) -> None:
        _check(self.alpha, self.low, self.high)
        if self.points < 2:
            raise ValueError(f"a grid of {self.points} points holds no interval: give at least 2")

    def start(self) -> FloatArray:
        """Count, sum and squared deviations of what was folded, then log wealths of both sides."""
        return np.zeros(3 + 2 * self.points)

    def fold(self, state: State, x: npt.ArrayLike) -> FloatArray:
        """The state after a block mean x in [low, high], any shape; the state has one axis more."""
        scaled = _scaled(x, self.low, self.high)
        before = _begun(state, self.start(), scaled)
        bet = _plug_in_bet(before, self.alpha)[..., None]
        means, at = np.linspace(0.0, 1.0, self.points), scaled[..., None]
        with np.errstate(divide="ignore"):
            up, down = np.minimum(bet, self.most / means), np.minimum(bet, self.most / (1 - means))
        lower, upper = np.split(before[..., 3:], 2, axis=-1)
        lower = lower + np.log1p(up * (at - means))
        upper = upper + np.log1p(down * (means - at))
        return np.concatenate([_moments(before, scaled), lower, upper], axis=-1)

    def interval(self, state: State) -> Bounds:
        """Grid points around the means that are not ruled out; all of [low, high] before the first block."""
        lower, upper = np.split(_given(state, self.start())[..., 3:], 2, axis=-1)
        enough = math.log(2 / self.alpha)
        # Wealth falls, or rises, along the grid, so the means that are ruled out are its first, or last, points.
        first = np.maximum((lower >= enough).sum(axis=-1) - 1, 0)
        last = self.points - 1 - np.maximum((upper >= enough).sum(axis=-1) - 1, 0)
        step = (self.high - self.low) / (self.points - 1)
        return np.asarray(self.low + step * first), np.asarray(self.low + step * last)


@dataclass(frozen=True)
class EmpiricalBernstein:
    """For block means between known bounds, in closed form: as narrow as their spread allows, for six floats.

    The predictable plug-in empirical Bernstein confidence sequence of Waudby-Smith and Ramdas (2024), theorem 2.

    >>> sequence, state = EmpiricalBernstein(), ()
    >>> for x in [0.4, 0.6] * 50:
    ...     state = sequence.fold(state, x)
    >>> [round(float(end), 3) for end in sequence.interval(state)]
    [0.422, 0.578]
    """

    alpha: float = 0.05
    low: float = 0.0
    high: float = 1.0
    most: float = 0.5

    def __post_init__(self) -> None:
        _check(self.alpha, self.low, self.high)

    def start(self) -> FloatArray:
        """Count, sum, squared deviations; sums of the bets, of bet times x, and of what uncertainty costs."""
        return np.zeros(6)

    def fold(self, state: State, x: npt.ArrayLike) -> FloatArray:
        """The state after a block mean x in [low, high], any shape; the state has one axis more."""
        scaled = _scaled(x, self.low, self.high)
        before = _begun(state, self.start(), scaled)
        bet = np.minimum(_plug_in_bet(before, self.alpha), self.most)
        cost = np.square(scaled - _plug_in_mean(before)) * (-np.log1p(-bet) - bet)
        sums = before[..., 3:] + np.stack([bet, bet * scaled, cost], axis=-1)
        return np.concatenate([_moments(before, scaled), sums], axis=-1)

    def interval(self, state: State) -> Bounds:
        """Around the mean weighted by the bets, cut at [low, high]; all of it before the first block."""
        bets, weighted, cost = np.moveaxis(_given(state, self.start())[..., 3:], -1, 0)
        known = np.where(bets > 0, bets, np.nan)
        centre, half = weighted / known, (math.log(2 / self.alpha) + cost) / known
        lower, upper = np.nan_to_num(centre - half, nan=0.0), np.nan_to_num(centre + half, nan=1.0)
        width = self.high - self.low
        return self.low + width * np.maximum(lower, 0.0), self.low + width * np.minimum(upper, 1.0)


@dataclass(frozen=True)
class NormalMixture:
    """For blocks whose deviation from their expected value is sub-Gaussian with a known standard deviation.

    Holds the plain average of the blocks' expected values, which need not be equal. The two-sided normal mixture
    of Howard, Ramdas, McAuliffe and Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences (2021),
    eq. 14, narrowest near `tuned` blocks. Values between low and high are sub-Gaussian with (high - low) / 2.

    >>> sequence, state = NormalMixture(sd=0.5), ()
    >>> for x in [0.4, 0.6] * 50:
    ...     state = sequence.fold(state, x)
    >>> [round(float(end), 3) for end in sequence.interval(state)]
    [0.344, 0.656]
    """

    sd: float
    alpha: float = 0.05
    tuned: int = 30

    def __post_init__(self) -> None:
        _check(self.alpha, 0.0, self.sd)

    def start(self) -> FloatArray:
        """Count and sum."""
        return np.zeros(2)

    def fold(self, state: State, x: npt.ArrayLike) -> FloatArray:
        """The state after x, any shape; the state has one axis more."""
        at = _known(x)
        return _begun(state, self.start(), at) + np.stack([np.ones_like(at), at], axis=-1)

    def interval(self, state: State) -> Bounds:
        """Around the plain mean; infinite before the first block."""
        n, total = np.moveaxis(_given(state, self.start()), -1, 0)
        known = np.where(n > 0, n, np.nan)
        mixed = self.tuned / _tuning(self.alpha)
        half = self.sd * np.sqrt((known + mixed) * np.log((known + mixed) / (mixed * self.alpha**2))) / known
        return _around(total / known, half)


@dataclass(frozen=True)
class StudentMixture:
    """For independent normal blocks of one unknown mean and deviation: the t-test that may be looked at always.

    Blocks that are means over many rows are nearly normal; no bounds are needed, so it is far narrower than betting
    where blocks vary little within their range. The evidence against a mean is the Bayes factor with the right
    Haar prior on the deviation and a normal prior, of `tuned`-dependent width, on mean / deviation (Rouder et al.
    2009); as it depends on the data through their t-statistic only, it is a martingale whatever the deviation
    (Lai 1976; Wang and Ramdas, Anytime-valid t-tests, 2024). Three floats.

    >>> sequence, state = StudentMixture(), ()
    >>> for x in [0.4, 0.6] * 10:
    ...     state = sequence.fold(state, x)
    >>> [round(float(end), 3) for end in sequence.interval(state)]
    [0.421, 0.579]
    """

    alpha: float = 0.05
    tuned: int = 30
    """The number of blocks near which the interval is narrowest."""

    def __post_init__(self) -> None:
        _check(self.alpha, 0.0, 1.0)

    def start(self) -> FloatArray:
        """Count, mean and sum of squared deviations from it."""
        return np.zeros(3)

    def fold(self, state: State, x: npt.ArrayLike) -> FloatArray:
        """The state after x, any shape; the state has one axis more."""
        at = _known(x)
        n, mean, squares = np.moveaxis(_begun(state, self.start(), at), -1, 0)
        moved = mean + (at - mean) / (n + 1)
        return np.stack([n + 1, moved, squares + (at - mean) * (at - moved)], axis=-1)

    def interval(self, state: State) -> Bounds:
        """Around the plain mean; infinite for the first few blocks, six at 0.95."""
        n, mean, squares = np.moveaxis(_given(state, self.start()), -1, 0)
        blocks = np.maximum(n, 1.0)
        grown = 1 + blocks * _tuning(self.alpha) / self.tuned
        ratio = np.exp(np.minimum(2 / blocks * (math.log(1 / self.alpha) + 0.5 * np.log(grown)), 700.0))
        # Solves evidence(mean) = 1 / alpha for t² / (n - 1); where ratio >= grown no t is large enough.
        left = np.where(ratio < grown, 1 - ratio / grown, np.nan)
        return _around(mean, np.sqrt((ratio - 1) / left * squares / blocks))


def _check(alpha: float, low: float, high: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is the probability of ever missing, in (0, 1), not {alpha}")
    if not low < high:
        raise ValueError(f"the range from {low} to {high} is empty: give low below high, a deviation above 0")


def _known(x: npt.ArrayLike) -> FloatArray:
    at = np.asarray(x, dtype=np.float64)
    if not np.isfinite(at).all():
        raise ValueError("a block mean that is NaN or infinite was not measured: leave the block out")
    return at


def _scaled(x: npt.ArrayLike, low: float, high: float) -> FloatArray:
    """x as a share of its range, in [0, 1]."""
    at = _known(x)
    if (at < low - 1e-9).any() or (at > high + 1e-9).any():
        raise ValueError(f"a block mean in [{at.min()}, {at.max()}] leaves its bounds [{low}, {high}]: they are wrong")
    return np.clip((at - low) / (high - low), 0.0, 1.0)


def _given(state: State, start: FloatArray) -> FloatArray:
    given = np.asarray(state, dtype=np.float64)
    if given.size == 0:
        return start
    if given.shape[-1] != start.size:
        raise ValueError(f"a state of {given.shape[-1]} numbers is not of this sequence, which has {start.size}")
    return given


def _begun(state: State, start: FloatArray, x: FloatArray) -> FloatArray:
    return np.broadcast_to(_given(state, start), (*x.shape, start.size))


def _plug_in_mean(state: FloatArray) -> FloatArray:
    """Mean of what was folded so far, with one observation of 1/2 added."""
    mean: FloatArray = (0.5 + state[..., 1]) / (1 + state[..., 0])
    return mean


def _plug_in_bet(state: FloatArray, alpha: float) -> FloatArray:
    """The bet before the next block: from the variance so far, with one observation of variance 1/4 added."""
    n = state[..., 0]
    variance = (0.25 + state[..., 2]) / (1 + n)
    bet: FloatArray = np.sqrt(2 * math.log(2 / alpha) / (variance * (n + 1) * np.log(n + 2)))
    return bet


def _moments(before: FloatArray, x: FloatArray) -> FloatArray:
    """Count, sum, and squared deviations of each x from the plug-in mean that includes it, after one more."""
    n, total = before[..., 0] + 1, before[..., 1] + x
    deviation = np.square(x - (0.5 + total) / (1 + n))
    return np.stack([n, total, before[..., 2] + deviation], axis=-1)


def _tuning(alpha: float) -> float:
    """Blocks over the mixture's own, at which a normal mixture is narrowest (Waudby-Smith et al. 2024, app. B)."""
    return 2 * math.log(1 / alpha) + math.log(2 * math.log(1 / alpha)) + 1 if alpha < 0.5 else 1.0


def _around(centre: FloatArray, half: FloatArray) -> Bounds:
    lower, upper = centre - half, centre + half
    unknown = np.isnan(half)
    return np.where(unknown, -np.inf, lower), np.where(unknown, np.inf, upper)
