"""Calibration: do answered probabilities come true?"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np

from holdfast.checks.labelled import FloatArray, Pairs, coverage, labelled, likeliest
from holdfast.checks.sequence import overlap
from holdfast.checks.stated import at_most
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.stats.calibration import bias, bias_interval, calibration_error, error_interval, reliability

ERROR, BIAS = "calibration_error", "absolute_bias"

STATED = 0.1
"""Limit of both readings while history is too short to calibrate one."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Expected calibration error, and how far the mean answer is from the mean outcome, with intervals at 95 %.

    Of one probability per class it is that of the likeliest class, and the outcome whether that was right.
    """

    needs: ClassVar[frozenset[Role]] = frozenset({Role.OUTPUT, Role.LABEL})
    facts: ClassVar[frozenset[str]] = frozenset()
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "window"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "nothing"

    bins: int = 10
    """Bins of equal width over [0, 1]."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"bins must be at least 2, not {self.bins}")

    def measure(self, window: Window, baseline: Window | None = None) -> Sequence[Reading]:
        """`calibration_error`, then `absolute_bias` (about ``bias``, its note says which way); higher is worse.

        Neither has a value without labels or for answers outside [0, 1].
        """
        if why := overlap(window):
            return _unknown(why)
        pairs = [_of_likeliest(pair) for pair in labelled(window)]
        rows, note = coverage(window, pairs)
        if not rows:
            return _unknown(f"no labelled row: {note}")
        try:
            blocks = [self._sums(block, pair) for block, pair in zip(window.blocks, pairs, strict=True) if pair[0].size]
        except ValueError as refused:
            return _unknown(str(refused))
        total: FloatArray = np.sum(blocks, axis=0)
        off, (low, high) = bias(total), bias_interval(blocks, seed=self.seed)
        said = f"answers are {abs(off):.2%} too {'high' if off > 0 else 'low'} on average"
        said += "" if math.isnan(low) else f", between {low:+.2%} and {high:+.2%}"
        error, interval = calibration_error(total), error_interval(blocks, seed=self.seed)
        return [
            Reading(name=ERROR, value=error, low=_known(interval[0]), high=_known(interval[1]), rows=rows, note=note),
            Reading(name=BIAS, value=abs(off), rows=rows, subject="bias", note=f"{said}; {note}"),
        ]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails above 0.1."""
        return at_most(reading, STATED)

    def _sums(self, block: Block, pair: Pairs) -> FloatArray:
        if not ((pair[0] == 0) | (pair[0] == 1)).all():
            raise ValueError("calibration needs outcomes: a label is neither 0 nor 1")
        return block.remember(("reliability", self.bins), lambda _: reliability(*pair, bins=self.bins))


def _of_likeliest(pair: Pairs) -> Pairs:
    """Of answers of one probability per class: whether the likeliest class was right, and its probability (n,)."""
    y, p = pair
    if p.ndim == 1:
        return pair
    return (p.argmax(axis=1) == y).astype(np.float64), np.minimum(likeliest(p), 1.0)


def _unknown(why: str) -> list[Reading]:
    return [
        Reading(name=ERROR, value=None, note=why),
        Reading(name=BIAS, value=None, subject="bias", note=why),
    ]


def _known(bound: float) -> float | None:
    return None if math.isnan(bound) else bound
