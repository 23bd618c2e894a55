import os

import pytest

from holdfast.core.routes import Routes, encode
from holdfast.serve.lanes import Prepared, prepare
from holdfast.serve.lastgood import NAME, in_force, keep, kept


def routes(world, generation, artifact):
    return Routes(generation=generation, systems={"flights": world.system(artifact)})


def test_what_was_kept_is_found_again(world, tmp_path):
    prepared = prepare(routes(world, 3, "v1"), Prepared(), world.load)
    keep(tmp_path, prepared)
    assert kept(tmp_path) == prepared.routes
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_what_is_the_same_is_not_written_again(world, tmp_path):
    prepared = prepare(routes(world, 3, "v1"), Prepared(), world.load)
    keep(tmp_path, prepared)
    before = (tmp_path / NAME).stat().st_ino
    keep(tmp_path, prepared)
    assert (tmp_path / NAME).stat().st_ino == before


def test_a_system_that_is_held_back_is_kept_with_the_version_that_it_serves(world):
    first = prepare(routes(world, 1, "v1"), Prepared(), world.load)
    second = prepare(routes(world, 2, "bad"), first, world.load)
    assert second.held
    assert in_force(second) == Routes(generation=2, systems=first.routes.systems)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff" * 99])
def test_what_is_damaged_is_not_found_and_is_replaced(world, tmp_path, damage):
    prepared = prepare(routes(world, 3, "v1"), Prepared(), world.load)
    whole = encode(prepared.routes)
    for data in (damage, whole[:-9], whole.replace(b"flights", b"flighty")):
        (tmp_path / NAME).write_bytes(data)
        assert kept(tmp_path) is None
    keep(tmp_path, prepared)
    assert kept(tmp_path) == prepared.routes


def test_where_nothing_was_kept_nothing_is_found(tmp_path):
    assert kept(tmp_path) is None
    assert kept(tmp_path / "absent") is None


def test_what_cannot_be_kept_is_said_and_leaves_nothing_behind(world, tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(OSError, match="directory"):
        keep(tmp_path, prepare(routes(world, 3, "v1"), Prepared(), world.load))
    assert os.listdir(tmp_path) == [NAME]
