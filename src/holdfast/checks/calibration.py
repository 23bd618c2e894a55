"""Calibration: do answered probabilities come true?"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np

from holdfast.checks.labelled import FloatArray, Pairs, coverage, labelled
from holdfast.checks.stated import at_most
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.stats.bootstrap import Interval
from holdfast.stats.calibration import bias, bias_interval, calibration_error, error_interval, reliability

STATED = 0.1
"""Limit of both readings, for bias on its absolute value, while history is too short to calibrate one."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Expected calibration error, and bias (mean answer minus mean outcome), each with an interval at 95 %."""

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
        """`calibration_error` first, then `bias`; neither has a value without labels or for answers outside [0, 1]."""
        pairs = labelled(window)
        rows, note = coverage(window, pairs)
        if not rows:
            return self._unknown(f"no labelled row: {note}")
        try:
            blocks = [self._sums(block, pair) for block, pair in zip(window.blocks, pairs, strict=True) if pair[0].size]
        except ValueError as refused:
            return self._unknown(str(refused))
        total: FloatArray = np.sum(blocks, axis=0)
        return [
            _reading("calibration_error", calibration_error(total), error_interval(blocks, seed=self.seed), rows, note),
            _reading("bias", bias(total), bias_interval(blocks, seed=self.seed), rows, note),
        ]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails above 0.1, for bias in absolute value."""
        if reading.name == "bias" and reading.value is not None:
            grade, why = at_most(msgspec.structs.replace(reading, value=abs(reading.value)), STATED)
            return grade, f"answers are {'too high' if reading.value > 0 else 'too low'} on average: {why}"
        return at_most(reading, STATED)

    def _sums(self, block: Block, pair: Pairs) -> FloatArray:
        return block.remember(("reliability", self.bins), lambda _: reliability(*pair, bins=self.bins))

    def _unknown(self, why: str) -> list[Reading]:
        return [Reading(name=name, value=None, note=why) for name in ("calibration_error", "bias")]


def _reading(name: str, value: float, interval: Interval, rows: int, note: str) -> Reading:
    low, high = (None, None) if math.isnan(interval[0]) else interval
    return Reading(name=name, value=value, low=low, high=high, rows=rows, note=note)
