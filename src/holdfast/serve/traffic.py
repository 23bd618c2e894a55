"""Which version answers: a split of traffic that is sticky by unit and needs no memory."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np

Bools = np.ndarray[Any, np.dtype[np.bool_]]

_MASK = 2**64 - 1
_DROPPED = 11
"""Lower bits of the hash that are not used, so that a float64 holds the others exactly."""
_WHOLE = 2**53


def place_of(unit: str, salt: str) -> float:
    """Where a unit stands in [0, 1), uniform over units and independent between salts.

    The same everywhere and for ever: it depends on the two texts alone. A checksum of the unit is multiplied by an odd
    number that the salt gives; the upper bits of the product are the place (multiply-shift hashing, Dietzfelbinger,
    Hagerup, Katajainen and Penttonen 1997).
    """
    factor, offset = _salted(salt)
    return ((crc32(unit.encode()) * factor + offset & _MASK) >> _DROPPED) / _WHOLE


def takes_canary(units: Sequence[str], salt: str, share: float) -> Bools:
    """Which units the canary answers (n,): those whose place lies below `share`, so a growing share only adds units."""
    if share <= 0.0:
        return np.zeros(len(units), dtype=np.bool_)
    if share >= 1.0:
        return np.ones(len(units), dtype=np.bool_)
    factor, offset = _salted(salt)
    below = share * _WHOLE
    taken = [((crc32(unit.encode()) * factor + offset & _MASK) >> _DROPPED) < below for unit in units]
    return np.array(taken, dtype=np.bool_)


@lru_cache(maxsize=256)
def _salted(salt: str) -> tuple[int, int]:
    digest = hashlib.sha256(salt.encode()).digest()
    return int.from_bytes(digest[:8], "little") | 1, int.from_bytes(digest[8:16], "little")
