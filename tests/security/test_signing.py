"""Bundles: signed through the model-signing library, checked here and by the library alike."""

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_signing import verifying as library

from holdfast.errors import StateError, Tampered
from holdfast.security.signing import Keys, create_keys, sign
from holdfast.security.verifying import fingerprint, verify


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return create_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    directory = tmp_path / "artifact"
    directory.mkdir()
    (directory / "a.json").write_text("{}")
    (directory / "model.onnx").write_bytes(bytes(range(256)) * 40)
    return directory


def ours(artifact: Path, bundle: bytes, key: Path) -> bool:
    try:
        verify(artifact, bundle, key)
    except Tampered:
        return False
    return True


def theirs(artifact: Path, bundle: bytes, key: Path) -> bool:
    """What the library says; files of git, which it skips unless told, are not in play."""
    path = artifact.parent / "bundle.json"
    path.write_bytes(bundle)
    try:
        library.Config().use_elliptic_key_verifier(public_key=key).verify(artifact, path)
    except Exception:  # it raises what its parsers raise
        return False
    return True


def _flip(artifact: Path) -> None:
    data = bytearray((artifact / "model.onnx").read_bytes())
    data[1000] ^= 1
    (artifact / "model.onnx").write_bytes(data)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda artifact: None,
    "one byte": _flip,
    "a file less": lambda artifact: (artifact / "a.json").unlink(),
    "a file more": lambda artifact: (artifact / "b.json").write_text("{}"),
    "another name": lambda artifact: (artifact / "a.json").rename(artifact / "b.json"),
    "an empty file": lambda artifact: (artifact / "a.json").write_text(""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_library_and_we_agree_on_files(artifact: Path, keys: Keys, change: str) -> None:
    bundle = sign(artifact, keys.private)
    CHANGES[change](artifact)
    assert ours(artifact, bundle, keys.public) is theirs(artifact, bundle, keys.public) is (change == "nothing")


@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_we_never_accept_a_changed_bundle_that_the_library_refuses(
    artifact: Path, keys: Keys, share: float, bit: int
) -> None:
    bundle = bytearray(sign(artifact, keys.private))  # its length differs by a few bytes from one to the next
    bundle[int(share * len(bundle))] ^= 1 << bit
    if ours(artifact, bytes(bundle), keys.public):
        assert theirs(artifact, bytes(bundle), keys.public)


def test_a_statement_that_was_swapped_is_refused(artifact: Path, keys: Keys) -> None:
    bundle = json.loads(sign(artifact, keys.private))
    statement = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    _flip(artifact)
    fresh = json.loads(sign(artifact, keys.private))
    assert ours(artifact, json.dumps(fresh).encode(), keys.public)
    fresh["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()
    with pytest.raises(Tampered, match="the signature in its bundle does not match"):
        verify(artifact, json.dumps(fresh).encode(), keys.public)


def test_another_key_is_refused(artifact: Path, keys: Keys, tmp_path: Path) -> None:
    other = create_keys(tmp_path / "other")
    bundle = sign(artifact, keys.private)
    with pytest.raises(Tampered, match="signed with another key"):
        verify(artifact, bundle, other.public)
    claimed = bundle.replace(fingerprint(keys.public).encode(), fingerprint(other.public).encode())
    with pytest.raises(Tampered, match="does not match"):
        verify(artifact, claimed, other.public)


@pytest.mark.parametrize("bundle", [b"", b"{}", b"[]", b"\xff", b'{"mediaType": "x"}'])
def test_what_is_no_bundle_is_refused(artifact: Path, keys: Keys, bundle: bytes) -> None:
    with pytest.raises(Tampered, match="cannot be read"):
        verify(artifact, bundle, keys.public)


def test_a_missing_directory_is_refused(keys: Keys, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(Tampered, match="cannot be read"):
        verify(tmp_path / "none", sign(artifact, keys.private), keys.public)


def test_keys_are_made_once_and_only_the_owner_reads_the_private_half(tmp_path: Path) -> None:
    keys = create_keys(tmp_path / "keys")
    before = keys.private.read_bytes()
    assert create_keys(tmp_path / "keys") == keys
    assert keys.private.read_bytes() == before
    assert stat.S_IMODE(keys.private.stat().st_mode) == 0o600


def test_a_key_that_others_can_read_does_not_sign(artifact: Path, tmp_path: Path) -> None:
    keys = create_keys(tmp_path / "keys")
    keys.private.chmod(0o644)
    with pytest.raises(StateError, match="chmod 600"):
        sign(artifact, keys.private)


def test_half_a_key_is_not_made_whole_with_another(tmp_path: Path) -> None:
    create_keys(tmp_path).private.unlink()
    with pytest.raises(StateError, match="only one half"):
        create_keys(tmp_path)


def test_a_missing_key_is_named(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no signing key at"):
        sign(artifact, tmp_path / "private.pem")


def test_a_public_key_of_another_kind_is_named(tmp_path: Path) -> None:
    pem = ed25519.Ed25519PrivateKey.generate().public_key()
    path = tmp_path / "public.pem"
    path.write_bytes(pem.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(StateError, match="not an elliptic-curve key"):
        fingerprint(path)
