"""A state mends the files of an artifact from its blobs, where those are whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core.records import Version
from holdfast.errors import Tampered
from holdfast.state import State, open_state

pytestmark = pytest.mark.slow


@pytest.fixture
def state(deployed: Path) -> Iterator[State]:
    opened = open_state(deployed / "state")
    yield opened
    opened.close()


@pytest.fixture
def version(state: State) -> Version:
    with state.catalog.read() as tx:
        return tx.find(Version, "orders")[-1]


def model_file(state: State, version: Version) -> Path:
    [path] = Path(state.unpacked(version).directory).glob("model.*")
    return path


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def test_a_whole_artifact_is_left_alone(state: State, version: Version) -> None:
    path = model_file(state, version)
    before = path.stat().st_ino
    assert not state.mend(version)
    assert path.stat().st_ino == before


def test_a_changed_file_is_unpacked_anew(state: State, version: Version) -> None:
    path = model_file(state, version)
    whole = path.read_bytes()
    damage(path)
    assert state.mend(version)
    assert path.read_bytes() == whole
    assert not state.mend(version)


def test_a_lost_or_changed_signature_is_laid_beside_it_anew(state: State, version: Version) -> None:
    damage(Path(state.unpacked(version).bundle))
    assert state.mend(version)
    state.load_model(state.unpacked(version))


def test_an_artifact_whose_blob_was_changed_too_is_tampered_with(state: State, version: Version) -> None:
    damage(model_file(state, version))
    [blob] = (state.directory / "blobs").glob(f"*/*/{version.artifact}")
    damage(blob)
    with pytest.raises(Tampered, match=version.artifact):
        state.mend(version)
