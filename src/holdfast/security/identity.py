"""Who asks: secrets that are shown once, and the hashes that are kept of them."""

import hashlib
import hmac
import secrets
from typing import Literal

Role = Literal["admin", "client"]
"""``client`` may ask for predictions and send labels; ``admin`` may change things too."""

ROLES: tuple[Role, ...] = ("admin", "client")

PREFIX = "hf_"
"""What every secret begins with, so that a leaked one is recognised by scanners."""


def new_token() -> tuple[str, str]:
    """A fresh secret with 256 random bits, and its sha256 in hexadecimal. Only the hash is to be kept."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, hash_of(secret)


def hash_of(secret: str) -> str:
    """The sha256 of a secret in hexadecimal.

    A plain hash is enough: a secret of 256 random bits cannot be guessed, however fast one hashes.

    >>> hash_of("hf_example")[:16]
    '2e1d43f164ced480'
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, sha256: str) -> bool:
    """True when the hash is that of the secret; takes the same time wherever they differ."""
    return hmac.compare_digest(hash_of(secret).encode(), sha256.encode())
