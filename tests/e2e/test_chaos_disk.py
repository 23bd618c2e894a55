"""Disks that are full or hang below a real deployment: the file's policy holds, and it ends with the trouble."""

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from holdfast.serve.supervisor import Patience

from ..serve.test_disks_that_fail import SHIM
from .deployments import Deployment, until
from .load import STYLES, Load, Reconciled, orders_load, under_load

pytestmark = pytest.mark.slow

SIZE_MB = 48
ONCE = tuple(dataclasses.replace(style, repeats=0.0) for style in STYLES)
"""Nothing is sent again with other inputs: what was shed is not on record, so a second record would be the first."""


class SmallDisk:
    """A file system in memory that holds a whole deployment, with a file on it that can make room."""

    def __init__(self, directory: Path) -> None:
        self.ballast = directory / "ballast"

    def fill(self, leave_bytes: int = 64 * 1024) -> None:
        """Take all the room there is, but so much; again, where some has become free meanwhile."""
        with self.ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        os.truncate(self.ballast, max(0, self.ballast.stat().st_size - leave_bytes))

    def free(self) -> None:
        self.ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Everything that the test deploys lies on it: artifacts, routes, signs of life, log and lake."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield SmallDisk(tmp_path)
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def pids(deployment: Deployment) -> set[int]:
    return {deployment.pid(name) for name in deployment.names}


def counted(deployment: Deployment) -> tuple[int, int, int]:
    """Rows recorded, shed and lost, by the last signs of life."""
    beats = [deployment.beat(name) for name in deployment.names]
    assert all(beats)
    return tuple(sum(getattr(beat, name) for beat in beats) for name in ("recorded", "shed", "lost"))


@pytest.mark.parametrize("record", ["process", "disk"])
def test_on_a_full_disk_requests_are_refused_and_when_it_is_freed_they_are_answered_by_the_same_workers(
    disk, serve, record
):
    deployment = serve(workers=2, record=record)
    load, before = Load(deployment.port), pids(deployment)

    async def story():
        await load.more(200)
        disk.fill()
        await load.until(lambda: load.statuses[503], "a refusal")
        load.rest_s = 0.01
        refused = load.statuses[503]
        # Signs of life go on, or the supervisor would replace a worker because the disk is full.
        await beats(deployment, load, 10)
        await load.until(lambda: load.statuses[503] > refused + 50, "more refusals")
        assert httpx.get(f"http://127.0.0.1:{load.port}/v2/health/live", timeout=5).status_code == 200
        disk.free()
        load.rest_s = 0.0
        await load.more(500)

    under_load(load, story)
    assert load.statuses.keys() == {200, 503}
    assert all("could not be recorded" in said and "free space" in said for said in load.refusals)
    assert pids(deployment) == before
    assert load.broken == []
    reconciled = Reconciled(load, deployment.recorded())
    assert reconciled.problems == []
    assert reconciled.acknowledged == len(load.asked)
    print(f"{record}: {load.statuses[503]} refused, {reconciled.acknowledged} acknowledged, all of them recorded")


@pytest.mark.parametrize(("policy", "status"), [("refuse", 503), ("shed", 200)])
def test_a_worker_that_starts_on_a_full_disk_stays_and_does_as_the_file_says(disk, serve, policy, status):
    first_beat_s = 4.0
    deployment = serve(workers=1, patience=Patience(first_beat_s=first_beat_s), unrecorded=policy, record="disk")
    before = deployment.pid("worker-0")

    def answers_as_the_file_says() -> bool:
        disk.fill(leave_bytes=0)  # what a dead process held, or a file that was replaced, makes room
        return deployment.predict("full").status_code == status

    disk.fill(leave_bytes=0)
    os.kill(before, signal.SIGKILL)
    until(answers_as_the_file_says, "the answer of the next worker")
    [worker] = psutil.Process(deployment.process.pid).children()
    since_s = time.monotonic()
    until(lambda: time.monotonic() - since_s > first_beat_s + 1, "the time in which it would be taken for hung")
    until(answers_as_the_file_says, "the same answer")
    assert psutil.Process(deployment.process.pid).children() == [worker]
    disk.free()
    until(lambda: deployment.predict("free").status_code == 200 and deployment.is_replaced("worker-0", before), "room")
    assert deployment.pid("worker-0") == worker.pid
    until(lambda: deployment.predict("recorded").status_code == 200 and deployment.recorded().height, "a record")


def test_on_a_full_disk_under_shed_answers_go_on_and_what_is_missing_is_counted(disk, serve):
    deployment = serve(workers=2, unrecorded="shed")
    load, before = Load(deployment.port), pids(deployment)

    async def story():
        await load.more(200)
        disk.fill()
        await load.until(lambda: counted(deployment)[1] > 500, "rows that are shed")
        disk.free()
        recorded = counted(deployment)[0]
        await load.until(lambda: counted(deployment)[0] > recorded + 500, "rows that are recorded again")

    under_load(load, story, ONCE)
    assert load.statuses.keys() == {200}
    assert load.broken == []
    assert pids(deployment) == before
    answered = sum(len(asked.rows) for asked in load.asked.values())
    until(lambda: sum(counted(deployment)) == answered, "the last counts")
    written, shed, lost = counted(deployment)
    found = deployment.recorded()
    assert (found.height, lost) == (written, 0)
    assert shed > 500
    assert len(unexplained := Reconciled(load, found).problems) == shed
    assert all("is not recorded" in problem for problem in unexplained)
    print(f"{answered} rows answered, {written} recorded, {shed} shed, {found.height} in the lake")


def test_a_whole_system_goes_on_by_itself_when_its_full_disk_is_freed(disk, deployed, tools):
    up = tools.up(deployed / "state", deployed / "holdfast.yaml", workers=2)
    load, keeper, worker = orders_load(up), up.pid("keeper"), up.pid("worker-1")

    async def story():
        await load.more(200)
        disk.fill(leave_bytes=0)
        await load.until(lambda: load.statuses[503], "a refusal")
        load.rest_s = 0.01
        os.kill(keeper, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        refused = load.statuses[503]
        await load.until(lambda: load.statuses[503] > refused + 200, "more refusals")
        disk.free()
        load.rest_s = 0.0
        await load.more(500)
        await load.until(lambda: up.serving("worker-1") not in (None, worker), "a new worker-1")

    under_load(load, story, ONCE)
    assert load.statuses.keys() == {200, 503}
    tools.until(up.console_answers, "the console of a new keeper")
    reconciled = Reconciled(load, tools.state(up.state).lake.scan("predictions", "orders"))
    assert reconciled.problems == []
    assert reconciled.acknowledged == len(load.asked)
    assert tools.json("rollback", "--state", up.state)["missing"] == {}
    assert up.stop() == 0


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    directory = tmp_path_factory.mktemp("shim")
    (directory / "shim.c").write_text(SHIM)
    library = directory / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, directory / "shim.c", "-ldl"], check=True)
    return library


@pytest.mark.parametrize(
    ("record", "calls", "policy"),
    [("process", "write", "refuse"), ("disk", "fdatasync", "refuse"), ("process", "write", "shed")],
)
def test_while_the_disk_hangs_workers_answer_and_are_not_killed_over_and_over(serve, shim, record, calls, policy):
    flag = shim.with_name(f"hang-{record}-{policy}")
    deployment = serve(
        workers=2,
        environment={"LD_PRELOAD": str(shim), "HANG_WHILE": str(flag), "HANG_CALLS": calls},
        record=record,
        unrecorded=policy,
    )
    load = Load(deployment.port)

    def said() -> int:
        return load.statuses[503] if policy == "refuse" else counted(deployment)[1]

    async def story():
        await load.more(200)
        flag.touch()
        # A write cannot be called back: a worker that hangs in one is replaced, once; then both stay.
        await beats(deployment, load, 10)
        during, kills = pids(deployment), deployment.log.count("is killed and replaced")
        assert kills <= (2 if calls == "write" else 0)
        before_s = said()
        await load.until(lambda: said() > before_s + 100, f"answers from a disk that hangs\n{deployment.log[-2000:]}")
        load.rest_s = 0.02
        await beats(deployment, load, 10)
        assert httpx.get(f"http://127.0.0.1:{load.port}/v2/health/live", timeout=5).status_code == 200
        assert (pids(deployment), deployment.log.count("is killed and replaced")) == (during, kills)
        flag.unlink()
        load.rest_s = 0.0
        await load.more(500)
        recorded = counted(deployment)[0]
        await load.until(lambda: counted(deployment)[0] > recorded + 200, "rows that are recorded again")
        assert pids(deployment) == during

    try:
        under_load(load, story, ONCE)
    finally:
        flag.unlink(missing_ok=True)
    assert load.statuses.keys() == ({200, 503} if policy == "refuse" else {200})
    assert load.torn == 0
    problems = Reconciled(load, deployment.recorded()).problems
    if policy == "shed":
        problems = [problem for problem in problems if "is not recorded" not in problem]
    assert problems == []
    kills = deployment.log.count("is killed and replaced")
    print(f"{record}, {calls} hangs, {policy}: {dict(load.statuses)}, {kills} workers replaced")


async def beats(deployment: Deployment, load: Load, count: int) -> None:
    """Wait until every worker gave so many signs of life one after the other, as the same process."""
    seen: dict[str, list[tuple[int, str]]] = {name: [] for name in deployment.names}

    def enough() -> bool:
        for name, signs in seen.items():
            beat = deployment.beat(name)
            if beat is None:
                continue
            if signs and signs[-1][0] != beat.pid:
                signs.clear()
            if not signs or signs[-1][1] != beat.at:
                signs.append((beat.pid, beat.at))
        return all(len(signs) >= count for signs in seen.values())

    await load.until(enough, f"signs of life\n{deployment.log[-2000:]}")
