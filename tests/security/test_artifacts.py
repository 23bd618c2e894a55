"""Artifacts: the same files give the same archive, and nothing is loaded that was not signed."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.inputs import read_json
from holdfast.core.model import Facts
from holdfast.core.signature import Column, Signature
from holdfast.core.transform import Encoding, Transform
from holdfast.errors import ArtifactError, StateError, Tampered, UnknownKind
from holdfast.security.artifacts import artifact_hash, describe, load_model, open_model, pack, unpack
from holdfast.security.signing import Keys, create_keys, sign

SIGNATURE = Signature(
    columns=(Column(name="x", type="number"), Column(name="c", type="category")),
    task="regression",
    output="value",
)
TRANSFORM = Transform(columns=(Encoding(name="x"), Encoding(name="c", categories=("a", "b"))))
FACTS = Facts(
    system="s",
    task="regression",
    trainer="linear",
    params={"l2": 1.0},
    seed=7,
    runtime="linear",
    parity="linear: 100 rows, equal",
    rows=100,
    trained_from="2013-01-01T05:00:00+00:00",
    trained_until="2013-03-01T05:00:00+00:00",
)
COEFFICIENTS = {
    "intercept": 1.0,
    "link": "identity",
    "columns": [
        {"type": "number", "mean": 0.0, "scale": 1.0, "limit": 8.0, "weight": 2.0, "missing": -1.0},
        {"type": "category", "weights": [10.0, 20.0, 0.0]},
    ],
}


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return create_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A directory with a whole artifact: value = 1 + 2 x + 10 for a, 20 for b."""
    directory = tmp_path / "artifact"
    directory.mkdir()
    for name, data in files().items():
        (directory / name).write_bytes(data)
    return directory


def files(facts: Facts = FACTS) -> dict[str, bytes]:
    return {"model.json": json.dumps(COEFFICIENTS).encode(), **describe(SIGNATURE, TRANSFORM, facts)}


def archive_of(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def member(name: str, *, type: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = type, link, 1 if type == tarfile.REGTYPE else 0
    return made


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(st.dictionaries(names, st.binary(max_size=2000), max_size=5))
def test_packing_is_the_same_in_any_order_and_unpacks_to_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]
) -> None:
    packed = pack(content)
    assert packed == pack(dict(reversed(content.items())))
    directory = tmp_path_factory.mktemp("unpacked") / "a"
    unpack(packed, directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == content


def test_the_hash_changes_with_a_byte_and_with_a_name() -> None:
    hashes = {artifact_hash(f) for f in ({"a": b"1"}, {"a": b"2"}, {"b": b"1"}, {"a": b"1", "b": b""})}
    assert len(hashes) == 4


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "", ".hidden", "a\n", "ä"])
def test_a_name_with_a_path_in_it_is_not_packed(name: str) -> None:
    with pytest.raises(ArtifactError, match="cannot hold a file named"):
        pack({name: b""})


@pytest.mark.parametrize(
    "data",
    [
        archive_of(member("../evil")),
        archive_of(member("/tmp/evil")),
        archive_of(member("a/b")),
        archive_of(member("a", type=tarfile.SYMTYPE, link="/etc/passwd")),
        archive_of(member("a", type=tarfile.LNKTYPE, link="/etc/passwd")),
        archive_of(member("a", type=tarfile.DIRTYPE)),
        archive_of(member("a", type=tarfile.FIFOTYPE)),
        archive_of(member("a"), member("a")),
        b"not an archive",
        pack({"a": b"x" * 5000})[:700],
    ],
)
def test_a_hostile_or_damaged_archive_writes_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArtifactError):
        unpack(data, tmp_path / "in" / "a")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_unpacking_again_leaves_what_is_there(tmp_path: Path) -> None:
    unpack(pack({"a": b"1"}), tmp_path / "a")
    unpack(pack({"a": b"2"}), tmp_path / "a")
    assert (tmp_path / "a" / "a").read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_signed_artifact_becomes_a_model_that_answers(artifact: Path, keys: Keys) -> None:
    model = load_model(artifact, sign(artifact, keys.private), keys.public)
    answers = model.predict(read_json(model.signature, [{"x": 1, "c": "b"}, {"x": None, "c": "unseen"}]))
    np.testing.assert_array_equal(answers, [23.0, 0.0])
    assert model.facts == FACTS
    assert len(model.predict(read_json(model.signature, []))) == 0


@pytest.mark.parametrize("name", ["model.json", "signature.json", "transform.json", "facts.json"])
def test_one_changed_byte_in_any_file_is_refused(artifact: Path, keys: Keys, name: str) -> None:
    bundle = sign(artifact, keys.private)
    data = bytearray((artifact / name).read_bytes())
    data[len(data) // 2] ^= 1
    (artifact / name).write_bytes(data)
    with pytest.raises(Tampered, match=f"the bytes of file '{name}'"):
        load_model(artifact, bundle, keys.public)


def _remove(artifact: Path) -> None:
    (artifact / "facts.json").unlink()


def _add(artifact: Path) -> None:
    (artifact / ".gitignore").write_text("*")


def _link(artifact: Path) -> None:
    (artifact / "facts.json").rename(artifact.parent / "facts.json")
    (artifact / "facts.json").symlink_to(artifact.parent / "facts.json")


def _nest(artifact: Path) -> None:
    (artifact / "more").mkdir()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_remove, "file 'facts.json' was signed but is missing"),
        (_add, "file '.gitignore' is there but was not signed"),
        (_link, "'facts.json' is not a plain file"),
        (_nest, "'more' is not a plain file"),
    ],
)
def test_another_set_of_files_is_refused(artifact: Path, keys: Keys, change: Callable[[Path], None], said: str) -> None:
    bundle = sign(artifact, keys.private)
    change(artifact)
    with pytest.raises(Tampered, match=said):
        load_model(artifact, bundle, keys.public)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("facts.json", None, "no facts.json"),
        ("facts.json", b"{", "facts.json"),
        ("signature.json", b'{"columns": [{"name": 5, "type": "number"}]}', "signature.json"),
        ("transform.json", b'{"columns": []}', "name different columns"),
        (
            "transform.json",
            b'{"columns": [{"name": "x", "part": "hour", "timezone": "UTC"}, {"name": "c"}]}',
            "name different columns",
        ),
        (
            "transform.json",
            b'{"columns": [{"name": "x", "part": "hour", "timezone": "Mars/Olympus"}, {"name": "c"}]}',
            "knows no time zone 'Mars/Olympus'",
        ),
        ("facts.json", files()["facts.json"].replace(b'"format": 1', b'"format": 2'), "format 2"),
        ("model.json", b'{"intercept": 1, "link": "identity", "columns": [{"type": "evil"}]}', "model.json"),
        (
            "model.json",
            b'{"intercept": 1, "link": "identity", "columns": [{"type": "category", "weights": []}]}',
            "run",
        ),
    ],
)
def test_what_was_signed_must_still_make_sense(artifact: Path, name: str, data: bytes | None, said: str) -> None:
    if data is None:
        (artifact / name).unlink()
    else:
        (artifact / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=said):
        open_model(artifact)


def test_an_unknown_runtime_is_named(artifact: Path) -> None:
    facts = (artifact / "facts.json").read_bytes()
    (artifact / "facts.json").write_bytes(facts.replace(b'"runtime": "linear"', b'"runtime": "pickle"'))
    with pytest.raises(UnknownKind, match="no runtime of kind 'pickle'"):
        open_model(artifact)


def test_without_a_public_key_nothing_is_loaded(artifact: Path, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no usable public key"):
        load_model(artifact, sign(artifact, keys.private), tmp_path / "none.pem")
