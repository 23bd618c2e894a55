"""kill -9 of workers under load, again and again: what was acknowledged is in the lake, once, as it was answered."""

import os
import random
import signal
from contextlib import suppress

import psutil
import pytest

from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest
from holdfast.serve.supervisor import Patience

from .deployments import Deployment
from .load import Load, Reconciled, times_written, under_load, written_too_often

pytestmark = pytest.mark.slow

UNWEARIED = Patience(fast_s=0.0)
"""A child that dies right after its start is replaced without a wait, so that many deaths fit into one test."""


async def kill_workers(deployment: Deployment, load: Load, kills: int, seed: int = 11) -> None:
    """Kill one worker after the other, each a little after the one before was replaced."""
    chance = random.Random(seed)
    for number in range(kills):
        load.rest_s = 0.0
        await load.more(chance.randrange(1, 150))
        name = deployment.names[number % len(deployment.names)]
        pid = deployment.pid(name)
        os.kill(pid, signal.SIGKILL)
        load.rest_s = 0.02  # leaves the processors to the one that starts
        await load.until(lambda name=name, pid=pid: deployment.is_replaced(name, pid), f"a new {name}")


def kill(child: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):  # one that was killed just now may still be listed
        child.kill()


def reconcile(deployment: Deployment, load: Load) -> Reconciled:
    """Hold the ledger against the lake, before and after all segments were rolled into Parquet."""
    times = times_written(deployment.lake)
    assert written_too_often(load, times) == []
    reconciled = Reconciled(load, deployment.recorded())
    assert reconciled.problems == []
    manifest = MemoryManifest()
    FileLake(deployment.lake, manifest).roll()
    rolled = Reconciled(load, deployment.recorded(manifest))
    assert rolled.problems == []
    assert rolled.recorded_rows == reconciled.recorded_rows
    return reconciled


@pytest.mark.parametrize(
    ("record", "kills"),
    [
        ("process", 10),
        ("disk", 6),
        pytest.param("process", 100, marks=pytest.mark.long),
        pytest.param("disk", 30, marks=pytest.mark.long),
    ],
)
def test_what_was_acknowledged_is_recorded_once_though_workers_are_killed_again_and_again(serve, record, kills):
    deployment = serve(workers=2, patience=UNWEARIED, record=record)
    load = Load(deployment.port)
    under_load(load, lambda: kill_workers(deployment, load, kills))
    assert load.statuses.keys() == {200}
    assert load.broken  # some requests were being answered by those that were killed
    assert load.turned_away == 0
    reconciled = reconcile(deployment, load)
    assert reconciled.acknowledged == len(load.asked) == load.acknowledged
    again = sum(asked.sends > 1 for asked in load.asked.values())
    others = sum(asked.others for asked in load.asked.values())
    assert again
    assert others
    print(
        f"{record}: {kills} kills, {len(load.asked)} requests, {reconciled.acknowledged} acknowledged with "
        f"{reconciled.acknowledged_rows} rows, {reconciled.recorded_rows} recorded, {len(load.broken)} connections "
        f"broken, {again} requests sent again, {others} with other inputs"
    )


def test_workers_that_are_killed_all_at_once_or_before_they_serve_lose_nothing_either(serve):
    deployment = serve(workers=2, patience=UNWEARIED)
    load, supervisor = Load(deployment.port), psutil.Process(deployment.process.pid)
    chance = random.Random(13)

    async def story():
        for _ in range(4):
            await load.more(chance.randrange(1, 150))
            for child in supervisor.children():
                kill(child)
        for _ in range(12):
            child = chance.choice(await load.until(supervisor.children, "a child"))
            kill(child)
            await load.until(lambda child=child: child not in supervisor.children(), "its end")
        await load.more(300)

    under_load(load, story)
    assert load.statuses.keys() == {200}
    assert load.turned_away == 0  # who comes while no worker lives waits in the queue of the socket
    assert reconcile(deployment, load).acknowledged == len(load.asked)
