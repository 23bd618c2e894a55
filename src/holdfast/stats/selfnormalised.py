"""Evidence for a mean above 0 that takes its own spread as the measure: no bounds, no normality, but symmetry."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

FloatArray = npt.NDArray[np.float64]

SCALE = 0.1
"""The sum of squares at which the test is sharpest, in squares of the first block's width.

Smaller is quicker where blocks vary a hundred times less than their width allows, and takes a few even blocks for
proof that no block of that width will come: in days that are even but for a rare disaster, the release test was wrong
in 69 % of streams with the average over 0.1, 0.01 and 0.001, and in 9 % with 0.1 (`docs/why/sequential.md`).
"""
_LEAST = 1e-12


def fold(state: Sequence[float], x: float, width: float) -> tuple[float, ...]:
    """The state (width, S, V) after one more block: S is the sum of all x, V the sum of their squares; ``()`` starts.

    `x` is the block's value and tested is H0 'given the past, x is symmetric around a mean of at most 0'. `width` is
    the scale on which x is measured and known before x: how far it could vary. The first one above 0 is kept, since
    it settles the mixture. Blocks before it, whose x is certain, are no evidence.

    >>> tuple(round(each, 6) for each in fold(fold((), 0.03, 0.2), 0.01, 0.4))
    (0.2, 0.04, 0.001)
    """
    kept, total, squares = state or (0.0, 0.0, 0.0)
    kept = kept or (width if width > _LEAST else 0.0)
    return (kept, total + x, squares + x * x) if kept else (0.0, 0.0, 0.0)


def log_evidence(state: Sequence[float]) -> float:
    """Log of the e-process of a folded state; 0 (evidence 1) before the first block.

    Under H0 it is the logarithm of a nonnegative supermartingale that starts at 1, so exp of it ever reaches 1 / alpha
    with probability at most alpha (Ville 1939). It is the mixture of exp(l S - l^2 V / 2) over a half-normal l >= 0
    of variance 1 / rho:  2 sqrt(rho / (rho + V)) exp(z^2 / 2) Phi(z),  z = S / sqrt(rho + V),  rho = SCALE * width^2.
    After n blocks it is below 2 exp((n - 1) / 2) / sqrt(n): less than 20 for seven of them.

    Why it holds: given the past and a mean m <= 0, l x is m + a or m - a with equal chance for some a >= 0, and
    exp(y - y^2 / 2) averages over the two to at most 1. With u = 1 - m >= 1 that average is
    exp((1 - u^2 - a^2) / 2) cosh(a u). For a <= 1 it falls as u grows, since its logarithm has the slope
    a tanh(a u) - u <= (a^2 - 1) u <= 0 (tanh(t) <= t), and for u = 1 it is exp(-a^2 / 2) cosh(a) <= 1. For a > 1 it is
    exp(1/2) (exp(-(u - a)^2 / 2) + exp(-(u + a)^2 / 2)) / 2 <= exp(1/2) (1 + exp(-2)) / 2 = 0.94.

    Sources: de la Peña, A general class of exponential inequalities for martingales and ratios (1999), for m = 0;
    de la Peña, Lai and Shao, Self-Normalized Processes (2009), for the mixture; Howard et al. (2021).

    >>> state = ()
    >>> for x in [0.03, 0.01] * 10:
    ...     state = fold(state, x, 0.2)
    >>> round(math.exp(log_evidence(state)))
    324
    >>> log_evidence(())
    0.0
    """
    if not state:
        return 0.0
    width, total, squares = (np.array(each, dtype=np.float64) for each in state)
    return float(_mixture(width, total, squares))


def log_evidence_path(x: FloatArray, width: FloatArray) -> FloatArray:
    """`log_evidence` after every block of whole streams (..., blocks), in the order of time; widths never shrink.

    >>> x = np.array([0.03, 0.01] * 10)
    >>> round(float(np.exp(log_evidence_path(x, np.full(20, 0.2))[-1])))
    324
    """
    measured = width > _LEAST
    first = np.take_along_axis(width, measured.argmax(axis=-1, keepdims=True), axis=-1)
    counted = np.where(measured, x, 0.0)
    return _mixture(np.where(first > _LEAST, first, 0.0), np.cumsum(counted, axis=-1), np.cumsum(counted**2, axis=-1))


def _mixture(width: FloatArray, total: FloatArray, squares: FloatArray) -> FloatArray:
    """The closed form; where the width is still 0 nothing was summed, and the result is 0 for any rho."""
    rho = np.where(width > 0, SCALE * width**2, 1.0)
    z = total / np.sqrt(rho + squares)
    mixed: FloatArray = math.log(2) + 0.5 * (np.log(rho / (rho + squares)) + z**2) + log_ndtr(z)
    return mixed
