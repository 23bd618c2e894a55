"""Signs artifacts: OpenSSF model-signing bundles made with a local key. Checking them is `verifying.py`.

The library that signs takes a quarter of a second to import; only the process that registers versions needs it.
"""

import os
import stat
import tempfile
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing
from model_signing import signing as library

from holdfast.errors import StateError


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Where the two halves of a signing key lie."""

    private: Path
    public: Path


def create_keys(directory: Path) -> Keys:
    """The signing key of a state directory (EC P-256, PEM), made on first use; the private half has mode 0600.

    Raises StateError when only one half is there.
    """
    keys = Keys(private=directory / "private.pem", public=directory / "public.pem")
    if keys.private.exists() and keys.public.exists():
        return keys
    if keys.private.exists() or keys.public.exists():
        raise StateError(f"{directory} holds only one half of the signing key; restore the other from your backup")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = ec.generate_private_key(ec.SECP256R1())
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for path, data, mode in ((keys.private, secret, 0o600), (keys.public, public, 0o644)):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    return keys


def sign(directory: Path, private_key: Path) -> bytes:
    """A bundle over every file of the directory.

    Raises StateError when the private key can be read by others, or is missing.
    """
    if not private_key.is_file():
        raise StateError(f"no signing key at {private_key}; `create_keys` makes one")
    if stat.S_IMODE(private_key.stat().st_mode) & 0o077:
        raise StateError(f"others can read the signing key {private_key}; run: chmod 600 {private_key}")
    everything = hashing.Config()  # type: ignore[no-untyped-call]
    everything.set_ignored_paths(paths=[], ignore_git_paths=False)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle.json"
        config = library.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_signer(private_key=private_key).set_hashing_config(everything).sign(directory, bundle)
        return bundle.read_bytes()
