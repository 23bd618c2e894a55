import pytest

from holdfast.engines.blobs import FileBlobs
from holdfast.errors import StateError, Tampered


def test_a_changed_file_is_refused_by_name_and_put_repairs_it(tmp_path):
    blobs = FileBlobs(tmp_path)
    key = blobs.put(b"model")
    path = tmp_path / key[:2] / key[2:4] / key
    path.write_bytes(b"mode1")
    with pytest.raises(Tampered, match=f"{key} does not hash to its name.*restore it"):
        blobs.get(key)
    assert blobs.put(b"model") == key
    assert blobs.get(key) == b"model"


def test_nothing_but_blobs_is_left_behind_or_listed(tmp_path):
    blobs = FileBlobs(tmp_path)
    key = blobs.put(b"model")
    folder = tmp_path / key[:2] / key[2:4]
    assert [path.name for path in folder.iterdir()] == [key]
    (folder / ".half").write_bytes(b"mo")
    assert list(blobs.keys()) == [key]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"cannot store blob.*check that the disk is writable"):
        FileBlobs(tmp_path / "file").put(b"model")
