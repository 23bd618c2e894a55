"""Ids that count up: ``1``, ``2``, ... behind a prefix."""

from collections.abc import Callable


def next_unused(prefix: str, is_used: Callable[[str], bool]) -> str:
    """The next counting id, found in a logarithmic number of questions. Ids are never taken back, so they have no gaps.

    >>> next_unused("r", {"r1", "r2", "r3"}.__contains__)
    'r4'
    """
    high = 1
    while is_used(f"{prefix}{high}"):
        high *= 2
    low = high // 2  # used, or 0
    while high - low > 1:
        middle = (low + high) // 2
        if is_used(f"{prefix}{middle}"):
            low = middle
        else:
            high = middle
    return f"{prefix}{high}"
