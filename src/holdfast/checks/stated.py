"""How checks with a limit of their own grade: a reading must lie within its own `low` and `high`."""

from holdfast.core.evidence import Grade, Reading


def within(reading: Reading) -> tuple[Grade, str]:
    """Fail outside [low, high] of the reading, pass inside; unknown without a value or without any limit."""
    if reading.value is None:
        return Grade.UNKNOWN, reading.note
    what = f"{reading.name} of {reading.subject}" if reading.subject else reading.name
    shown = f"{what} is {_number(reading.value)}{_unit(reading)}"
    said = f"; {reading.note}" if reading.note else ""
    if reading.high is not None and reading.value > reading.high:
        return Grade.FAIL, f"{shown}, above {_number(reading.high)}{said}"
    if reading.low is not None and reading.value < reading.low:
        return Grade.FAIL, f"{shown}, below {_number(reading.low)}{said}"
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


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _unit(reading: Reading) -> str:
    return "" if reading.unit == "1" else f" {reading.unit}"
