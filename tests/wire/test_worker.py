import asyncio
from pathlib import Path

import pytest

from holdfast.core.routes import Routes, encode
from holdfast.serve.heartbeat import read_heartbeat
from holdfast.wire.http import DataPlaneApp
from holdfast.wire.worker import Follower, WorkerSetup


@pytest.fixture
def setup(world, tmp_path) -> WorkerSetup:
    """A worker's setup whose first routes are written, with no wait between two looks."""
    (tmp_path / "run").mkdir()
    made = WorkerSetup(
        name="worker-0",
        socket_fd=-1,
        routes=tmp_path / "routes.json",
        run_dir=tmp_path / "run",
        load_model=world.load,
        open_writer=lambda record, table, system, schema: world.lake.writer(table, system, schema),
        clock=world.clock,
        beat_s=0.0,
        retry_s=0.0,
    )
    write(made.routes, world, 1, "v1")
    return made


def write(path: Path, world, generation, artifact):
    routes = Routes(generation=generation, systems={"flights": world.system(artifact)})
    path.with_suffix(".tmp").write_bytes(encode(routes))
    path.with_suffix(".tmp").replace(path)


def follow(world, setup, *changes):
    """Starts a follower, makes each change and looks until it has been followed; returns the last heartbeat."""

    async def run():
        follower = Follower(setup, world.plane, DataPlaneApp(world.plane, world.clock, lambda: "q"))
        await follower.start()
        for change in changes:
            change()
            follower.look()
            if follower.following is not None:
                await follower.following
        return read_heartbeat(setup.run_dir, setup.name)

    return asyncio.run(run())


def test_a_worker_says_which_generation_it_serves(world, setup):
    beat = follow(world, setup)
    assert (beat.generation, beat.error, beat.at) == (1, "", world.clock.now().isoformat())


def test_new_routes_are_followed(world, setup):
    assert follow(world, setup, lambda: write(setup.routes, world, 2, "v2")).generation == 2
    assert world.loads == ["v1", "v2"]


def test_unchanged_routes_are_not_read_again(world, setup):
    follow(world, setup, lambda: None, lambda: None)
    assert world.loads == ["v1"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda path: path.unlink(), "No such file"), (lambda path: path.write_bytes(b"{"), "damaged")],
)
def test_the_last_good_routes_stay_in_force_and_the_reason_is_told(world, setup, damage, message):
    beat = follow(world, setup, lambda: damage(setup.routes))
    assert beat.generation == 1
    assert message in beat.error
    assert world.plane.lanes("flights").lane().by.version == "1"


def test_a_version_that_could_not_be_loaded_is_tried_again(world, setup):
    write(setup.routes, world, 1, "bad")
    beat = follow(world, setup, lambda: None, lambda: None)
    assert world.loads == ["bad"] * 3
    assert "Tampered" in beat.held["flights"]


def test_a_heartbeat_that_cannot_be_written_stops_nothing(world, setup, caplog):
    setup.run_dir.rmdir()
    assert follow(world, setup, lambda: write(setup.routes, world, 2, "v2")) is None
    assert world.plane.routes.generation == 2
    assert "could not write its heartbeat" in caplog.text
