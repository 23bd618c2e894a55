"""Static stability under load: without keeper, catalog or routes file, and with workers that are killed meanwhile."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from holdfast.core.routes import decode

from .deployments import until
from .load import Load, Reconciled, orders_load, under_load

pytestmark = pytest.mark.slow


def accepted_by(pid: int, port: int) -> set[int]:
    """The clients' ports of the connections that a process has accepted on a port."""
    found = psutil.Process(pid).net_connections("tcp")
    return {each.raddr.port for each in found if each.raddr and each.laddr.port == port}


async def kill_exactly(load: Load, pid: int) -> set[int]:
    """kill -9, in a moment in which the process does nothing; returns the clients' ports of what it had accepted."""
    os.kill(pid, signal.SIGSTOP)
    await load.until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "the process to stand still")
    ports = accepted_by(pid, load.port)
    os.kill(pid, signal.SIGKILL)
    return ports


def orders_recorded(tools, up):
    """The lake through its catalog, which lists what the keeper rolled."""
    return tools.state(up.state).lake.scan("predictions", "orders")


def test_only_what_a_killed_worker_was_answering_fails_while_keeper_and_catalog_are_gone(tools, deployed):
    up = tools.up(deployed / "state", deployed / "holdfast.yaml", workers=2)
    load, lost, keeper = orders_load(up), set(), up.pid("keeper")
    aside = deployed / "aside"
    aside.mkdir()

    async def story():
        await load.more(200)
        for file in up.state.glob("catalog.db*"):
            shutil.move(file, aside / file.name)
        os.kill(keeper, signal.SIGKILL)
        load.rest_s = 0.02  # leaves the processors to those that start
        await load.until(lambda: "catalog.db is gone" in up.log.read_text(), "the keeper's word on it")
        for name in ("worker-1", "worker-2", "worker-1"):
            load.rest_s, pid = 0.0, up.pid(name)
            await load.more(200)
            lost.update(await kill_exactly(load, pid))
            load.rest_s = 0.02
            await load.until(lambda name=name, pid=pid: up.serving(name) not in (None, pid), f"a new {name}")
        await load.more(200)
        assert up.pid("keeper") == keeper  # no other one has given a sign of life since

    under_load(load, story)
    assert load.statuses.keys() == {200}
    assert load.turned_away == 0
    assert load.broken
    assert set(load.broken) <= lost
    for file in aside.iterdir():
        shutil.move(file, up.state / file.name)
    reconciled = Reconciled(load, orders_recorded(tools, up))
    assert reconciled.problems == []
    print(f"{reconciled.acknowledged} acknowledged, {len(load.broken)} connections broken, all at the three killed")


def test_workers_serve_on_while_the_catalog_is_locked_and_the_keeper_hangs(tools, deployed):
    up = tools.up(deployed / "state", deployed / "holdfast.yaml", workers=2)
    load, keeper = orders_load(up), up.pid("keeper")

    async def story():
        with closing(sqlite3.connect(up.state / "catalog.db", isolation_level=None)) as catalog:
            await load.until(lambda: locked(catalog), "the lock of the catalog")
            await load.more(500)
            os.kill(keeper, signal.SIGSTOP)
            await load.more(500)
            catalog.execute("ROLLBACK")
        os.kill(keeper, signal.SIGCONT)

    under_load(load, story)
    assert (load.statuses.keys(), load.broken, load.turned_away) == ({200}, [], 0)
    tools.until(up.console_answers, "the keeper once the catalog is free")
    assert Reconciled(load, orders_recorded(tools, up)).problems == []


def locked(catalog: sqlite3.Connection) -> bool:
    try:
        catalog.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return False
    return True


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 16)


def delete(path: Path) -> None:
    path.unlink()


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [truncate, flip, empty, make_binary, delete, make_directory]


def mend(routes: Path, good: bytes) -> None:
    if routes.is_dir():
        routes.rmdir()
    routes.write_bytes(good)


def test_workers_serve_on_with_the_last_good_routes_whatever_becomes_of_the_file(serve):
    deployment = serve(workers=2)
    load = Load(deployment.port)

    def troubled() -> bool:
        beats = [deployment.beat(name) for name in deployment.names]
        return all(beat is not None and "routes.json" in beat.error for beat in beats)

    async def story():
        for version, damage in zip(["2", "1", "2", "1", "2", "1"], DAMAGES, strict=True):
            deployment.route(version)
            await load.until(lambda: deployment.serves(deployment.generation), "the new routes")
            good = deployment.routes.read_bytes()
            damage(deployment.routes)
            await load.until(troubled, f"a word on the routes file after {damage.__name__}")
            await load.more(100)
            assert deployment.predict(f"after-{damage.__name__}").json()["predictions"][0]["version"] == version
            mend(deployment.routes, good)
            await load.until(lambda: not troubled(), "an end of the trouble")

    under_load(load, story)
    assert (load.statuses.keys(), load.broken, load.turned_away) == ({200}, [], 0)


@pytest.mark.parametrize(
    "damage", [truncate, make_directory, *(pytest.param(each, marks=pytest.mark.long) for each in DAMAGES[1:-1])]
)
def test_a_worker_that_starts_on_damaged_routes_serves_what_its_siblings_serve(serve, damage):
    deployment = serve(workers=2)
    deployment.route("2")
    until(lambda: deployment.serves(2), "the new routes")
    load = Load(deployment.port)

    async def story():
        damage(deployment.routes)
        for name in deployment.names:  # in the end there is none left that has seen the routes undamaged
            pid = deployment.pid(name)
            os.kill(pid, signal.SIGKILL)
            await load.until(lambda name=name, pid=pid: deployment.is_replaced(name, pid), f"a new {name}")
            assert "routes.json" in deployment.beat(name).error
            await load.more(200)

    under_load(load, story)
    assert load.statuses.keys() == {200}
    versions = {answer["version"] for asked in load.asked.values() for answer in asked.answers}
    assert versions == {"2"}


def test_a_worker_that_starts_on_a_version_that_cannot_be_loaded_serves_the_one_before(serve):
    deployment = serve(workers=2)
    model = deployment.root / "artifacts" / "2" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    generation = deployment.route("2")
    load = Load(deployment.port)

    def holds(name: str) -> bool:
        beat = deployment.beat(name)
        return beat is not None and beat.generation == generation and "flights" in beat.held

    async def story():
        await load.until(lambda: all(map(holds, deployment.names)), "the refusal of version 2")
        for name in deployment.names:
            pid = deployment.pid(name)
            os.kill(pid, signal.SIGKILL)
            await load.until(lambda name=name, pid=pid: deployment.is_replaced(name, pid) and holds(name), "a new one")
            await load.more(200)

    under_load(load, story)
    assert load.statuses.keys() == {200}
    versions = {answer["version"] for asked in load.asked.values() for answer in asked.answers}
    assert versions == {"1"}


def test_after_a_restart_with_damaged_routes_what_was_served_last_is_served(serve):
    deployment = serve(workers=1)
    assert decode((deployment.run_dir / "routes.good").read_bytes()).generation == 1
    truncate(deployment.routes)
    deployment.stop()
    deployment.start()
    assert deployment.predict("q").json()["predictions"][0]["version"] == "1"
