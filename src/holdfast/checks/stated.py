"""How checks with a limit of their own grade: a reading must lie within its own `low` and `high`."""

from holdfast.core.evidence import Grade, Reading

UNITS = (("d", 86400), ("h", 3600), ("min", 60))
"""Lengths in seconds."""


def within(reading: Reading) -> tuple[Grade, str]:
    """Fail outside [low, high] of the reading, pass inside; unknown without a value or without any limit."""
    if reading.value is None:
        return Grade.UNKNOWN, reading.note
    what = f"{reading.name} of {reading.subject}" if reading.subject else reading.name
    is_time = reading.unit == "s" and reading.value >= 0
    shown = f"{what} is {said(reading.value) if is_time else _number(reading.value) + _unit(reading)}"
    note = f"; {reading.note}" if reading.note else ""
    if reading.high is not None and reading.value > reading.high:
        limit = said(reading.high) if is_time else _number(reading.high)
        if is_time and said(reading.value) == limit:
            return Grade.FAIL, f"{what} is just above {limit}{note}"
        return Grade.FAIL, f"{shown}, above {limit}{note}"
    if reading.low is not None and reading.value < reading.low:
        return Grade.FAIL, f"{shown}, below {_number(reading.low)}{note}"
    if reading.low is None and reading.high is None:
        return Grade.UNKNOWN, f"{shown}, but nothing says how much is too much: state a limit"
    return Grade.PASS, f"{shown}, as it should be"


def at_most(reading: Reading, limit: float) -> tuple[Grade, str]:
    """Fail when the value is above a limit that the check states for itself, whatever its interval says."""
    if reading.value is None:
        return Grade.UNKNOWN, reading.note
    what = f"{reading.name} of {reading.subject}" if reading.subject else reading.name
    shown = f"{what} is {_number(reading.value)}{_unit(reading)}"
    if reading.value > limit:
        return Grade.FAIL, f"{shown}, above the stated {_number(limit)}"
    return Grade.PASS, f"{shown}, within the stated {_number(limit)}"


def said(seconds: float) -> str:
    """A length of time of 0 or more in the largest unit that it fills, to a tenth.

    >>> said(264_322), said(3600), said(5400), said(30)
    ('3.1 d', '1 h', '1.5 h', '30 s')
    """
    unit, length = next((each for each in UNITS if seconds >= each[1]), ("s", 1))
    return f"{seconds / length:.1f}".removesuffix(".0") + f" {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _unit(reading: Reading) -> str:
    return "" if reading.unit == "1" else f" {reading.unit}"
