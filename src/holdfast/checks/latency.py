"""Latency: how long answers took."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.checks.labelled import numbers
from holdfast.checks.sequence import overlap
from holdfast.checks.stated import at_most
from holdfast.core.evidence import Grade, Reading, Role, Window
from holdfast.core.meaning import many

FloatArray = npt.NDArray[np.float64]

STATED_MS = 100.0
"""Limit where the file states none: an answer that a person waits for."""


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A quantile of the time from request to answer, in milliseconds, over the window's rows."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.META})
    facts: ClassVar[frozenset[str]] = frozenset()
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "stated"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "nothing"

    quantile: float = 0.99
    """Which quantile, in (0, 1)."""

    def __post_init__(self) -> None:
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"quantile must lie between 0 and 1, not {self.quantile}")

    def measure(self, window: Window, baseline: Window | None = None) -> Sequence[Reading]:
        """The quantile; no value where too few rows carry a latency for the quantile to be seen."""
        name = f"latency_p{self.quantile * 100:g}"
        if why := overlap(window):
            return [Reading(name=name, value=None, unit="ms", note=why)]
        took = np.concatenate([np.empty(0), *(block.remember("latency_ms", _latencies) for block in window.blocks)])
        least = int(np.ceil(1 / min(self.quantile, 1 - self.quantile) - 1e-9))
        if took.size < least:
            note = f"{many(took.size, 'row')} with latency_ms, this quantile needs {least}"
            return [Reading(name=name, value=None, unit="ms", rows=took.size, note=note)]
        value = float(np.quantile(took, self.quantile, method="inverted_cdf"))
        return [Reading(name=name, value=value, unit="ms", rows=took.size)]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails above 100 ms."""
        return at_most(reading, STATED_MS)


def _latencies(rows: pl.DataFrame) -> FloatArray:
    took = numbers(rows, "latency_ms")
    return took[np.isfinite(took) & (took >= 0.0)]  # below 0 a clock was put back while the answer was made
