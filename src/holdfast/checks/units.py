"""Conversions between units that are mixed up in practice, and which one explains a change."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Conversion:
    """What was done to a column: it came in `was`, it comes in `now`. Back again: value * scale + offset."""

    was: str
    now: str
    scale: float
    """Factor that undoes it; never 0."""
    offset: float = 0.0

    @property
    def far(self) -> float:
        """How far a column must have moved before this conversion counts as what happened to it.

        In multiples of how far recent days lie apart. A windy or a cold day looks like a small factor, so these
        need more; a temperature that moves by its offset hardly occurs by itself.
        """
        if self.offset:
            return 2.0
        return 4.0 if 1 / 3 < self.scale < 3 else 2.5

    @property
    def factor(self) -> float:
        """The scale or its inverse, whichever is larger; infinite for a change of sign, which no spread can show."""
        return float("inf") if self.scale < 0 else max(self.scale, 1 / self.scale)

    def told(self, column: str) -> str:
        """A sentence for a person: what it looks like, and what undoes it."""
        back = f"value * {self.scale:.6g}" if self.scale != 1 else "value"
        if self.offset:
            back += f" {'+' if self.offset > 0 else '-'} {abs(self.offset):.6g}"
        return f"{column} looks as if it were now in {self.now} instead of {self.was}; {back} restores it"


def _both_ways(one: str, other: str, factor: float) -> tuple[Conversion, Conversion]:
    """`factor` of `other` make one of `one`."""
    return Conversion(other, one, factor), Conversion(one, other, 1 / factor)


CONVERSIONS: tuple[Conversion, ...] = (
    Conversion("°F", "°C", 9 / 5, 32.0),
    Conversion("°C", "°F", 5 / 9, -160 / 9),
    Conversion("°C", "K", 1.0, -273.15),
    Conversion("K", "°C", 1.0, 273.15),
    Conversion("°F", "K", 9 / 5, -459.67),
    Conversion("K", "°F", 5 / 9, 459.67 * 5 / 9),
    *_both_ways("thousands", "ones", 1000.0),
    *_both_ways("shares or hundreds", "percent or ones", 100.0),
    *_both_ways("tens", "ones", 10.0),
    *_both_ways("minutes or hours", "seconds or minutes", 60.0),
    *_both_ways("hours", "seconds", 3600.0),
    *_both_ways("miles", "kilometres", 1.609344),
    *_both_ways("metres", "feet", 1 / 0.3048),
    *_both_ways("inches", "centimetres", 2.54),
    *_both_ways("kilograms", "pounds", 1 / 0.45359237),
    *_both_ways("m/s", "mph", 3600 / 1609.344),
    *_both_ways("knots", "mph", 1852 / 1609.344),
    *_both_ways("m/s", "knots", 3600 / 1852),
    *_both_ways("m/s", "km/h", 3.6),
    *_both_ways("knots", "km/h", 1.852),
    *_both_ways("inHg", "hPa", 33.8639),
    *_both_ways("mmHg", "hPa", 1.33322),
    Conversion("the opposite sign", "its present sign", -1.0),
)
"""Conversions a change is tried against. Equal factors stand once: dividing by 1000 is any kilo."""

_SCALES = np.array([conversion.scale for conversion in CONVERSIONS])
_OFFSETS = np.array([conversion.offset for conversion in CONVERSIONS])


def restored(quantiles: FloatArray) -> FloatArray:
    """Quantiles (q,) of a column after undoing each conversion, (conversions, q), each row ascending again."""
    undone: FloatArray = quantiles[None, :] * _SCALES[:, None] + _OFFSETS[:, None]
    undone[_SCALES < 0] = undone[_SCALES < 0, ::-1]
    return undone


def nearest(quantiles: FloatArray, days: FloatArray, *, kth: int = 1) -> FloatArray:
    """Distance of quantiles (..., q) to the k-th nearest row of `days` (n, q): the largest gap of any quantile.

    Shape (...,). NaN rows of `days` are never near.
    """
    gaps = np.abs(quantiles[..., None, :] - days).max(axis=-1)
    near: FloatArray = np.sort(gaps, axis=-1)[..., min(kth, days.shape[0]) - 1]
    return near


def explanations(quantiles: FloatArray, days: FloatArray, *, within: float, kth: int = 1) -> list[Conversion]:
    """Conversions whose undoing brings quantiles (q,) to within a distance of `days` (n, q), the likeliest first."""
    gaps = nearest(restored(quantiles), days, kth=kth)
    close = [k for k in range(len(CONVERSIONS)) if gaps[k] <= within]
    return [CONVERSIONS[k] for k in sorted(close, key=lambda k: (CONVERSIONS[k].far, gaps[k]))]
