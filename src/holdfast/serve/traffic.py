"""Which version answers: a split of traffic that is sticky by unit and needs no memory."""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Words = np.ndarray[Any, np.dtype[np.uint32]]

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
    factor, offset, end = _splitting(salt, share)
    hashes = np.array([crc32(unit.encode()) for unit in units], dtype=np.uint64)
    hashes *= factor  # modulo 2**64, as `place_of` has it
    hashes += offset
    taken: Bools = hashes < end
    return taken


@lru_cache(maxsize=256)
def _splitting(salt: str, share: float) -> tuple[Any, Any, Any]:
    """Factor, offset, and the first hash of a place that is not below `share`, below 1. As arrays of no dimension,
    because numpy takes longer to make one of a number than to compute with it."""
    factor, offset = _salted(salt)
    end = math.ceil(share * _WHOLE) << _DROPPED
    return tuple(np.array(number, dtype=np.uint64) for number in (factor, offset, end))  # type: ignore[return-value]


@lru_cache(maxsize=256)
def _salted(salt: str) -> tuple[int, int]:
    digest = hashlib.sha256(salt.encode()).digest()
    return int.from_bytes(digest[:8], "little") | 1, int.from_bytes(digest[8:16], "little")
