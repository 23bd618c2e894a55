"""Which version answers: a split of traffic that is sticky by unit and needs no memory."""

import hashlib
from collections.abc import Sequence

import numpy as np

BITS = 53
"""Bits of the hash that are used: as many as a float64 holds exactly."""


def place_of(unit: str, salt: str) -> float:
    """Where a unit stands in [0, 1), uniform over units and independent between salts.

    The same everywhere and for ever: it depends on the two texts alone.
    """
    state = _salted(salt)
    state.update(unit.encode())
    return (int.from_bytes(state.digest(), "little") >> (64 - BITS)) * 2.0**-BITS


def takes_canary(units: Sequence[str], salt: str, share: float) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which units the canary answers (n,): those whose place lies below `share`, so a growing share only adds units."""
    if share <= 0.0:
        return np.zeros(len(units), dtype=np.bool_)
    if share >= 1.0:
        return np.ones(len(units), dtype=np.bool_)
    salted = _salted(salt)
    digests = bytearray()
    for unit in units:
        state = salted.copy()
        state.update(unit.encode())
        digests += state.digest()
    places = np.frombuffer(digests, dtype="<u8") >> np.uint64(64 - BITS)
    return places * 2.0**-BITS < share


def _salted(salt: str) -> "hashlib.blake2b":
    # The key holds 64 bytes at most; a hash of the salt fits, however long the salt is.
    return hashlib.blake2b(digest_size=8, key=hashlib.sha256(salt.encode()).digest())
