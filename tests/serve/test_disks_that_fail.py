"""Recording on disks that are really full and that really hang."""

import asyncio
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.engines import files, segments
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest
from holdfast.serve.committing import Committer
from holdfast.serve.handover import BackgroundThread
from holdfast.testing import PREDICTION_FIELDS, START, hours, predictions

from ..lines import next_line, rest

pytestmark = pytest.mark.slow
DEADLINE_S = 20


class SmallDisk:
    """A file system of one megabyte in memory, with a file on it that can make room."""

    def __init__(self, directory):
        self.directory = directory
        self.ballast = directory / "ballast"

    def fill(self):
        with self.ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        os.truncate(self.ballast, self.ballast.stat().st_size - 40_960)

    def free(self):
        self.ballast.unlink()


class SmallFiles:
    """No file may become larger than so much: what is written beyond fails as on a full disk."""

    def __init__(self, directory):
        self.directory = directory
        self.most, self.hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_960, self.hard))

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.hard))


@pytest.fixture
def tmpfs(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield SmallDisk(tmp_path)
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.fixture
def small_files(tmp_path):
    disk = SmallFiles(tmp_path)
    yield disk
    disk.free()


@pytest.fixture(params=["tmpfs", "small_files"])
def disk(request):
    return request.getfixturevalue(request.param)


class Client:
    """Sends one row after the other and keeps what became of each."""

    def __init__(self, committer):
        self.committer = committer
        self.outcomes = {}

    async def send(self, count):
        """Sends rows, each when the one before was answered; returns the answers."""
        answers = []
        for _ in range(count):
            id = f"{len(self.outcomes)}"
            answer = asyncio.get_running_loop().create_future()
            columns = predictions([id], at=START + hours(len(self.outcomes)), carrier=["A" * 200])
            self.committer.append(columns, 1, done=answer.set_result)
            self.outcomes[id] = await asyncio.wait_for(answer, DEADLINE_S)
            answers.append(self.outcomes[id])
        return answers

    async def send_until(self, holds):
        """Sends rows until an answer is as wanted."""
        deadline = time.monotonic() + DEADLINE_S
        while not holds((await self.send(1))[0]):
            assert time.monotonic() < deadline
            await asyncio.sleep(0)


@pytest.mark.parametrize("record", ["process", "disk"])
def test_on_a_full_disk_rows_are_refused_until_there_is_room_and_every_acknowledged_one_is_there(disk, record):
    async def story():
        lake = FileLake(disk.directory, MemoryManifest())
        call_soon = asyncio.get_running_loop().call_soon_threadsafe
        committer = Committer(
            lambda: lake.writer("predictions", "flights", PREDICTION_FIELDS), record=record, call_soon=call_soon
        )
        client = Client(committer)
        assert await client.send(20) == [None] * 20
        disk.fill()
        await client.send_until(lambda error: error is not None)
        refusals = await client.send(50)
        assert all("free space" in str(error) for error in refusals)
        disk.free()
        await client.send_until(lambda error: error is None)
        assert await client.send(20) == [None] * 20
        committer.close()
        lake.close()
        return client, committer

    client, committer = asyncio.run(story())
    acknowledged = [id for id, error in client.outcomes.items() if error is None]
    found = FileLake(disk.directory, MemoryManifest()).scan("predictions", "flights")["prediction_id"].to_list()
    assert found == acknowledged
    assert committer.sent == len(client.outcomes) == committer.written + committer.lost
    assert (committer.written, committer.shed, committer.late) == (len(found), 0, 0)


def test_on_a_full_disk_answers_go_on_under_shed_and_what_is_missing_is_counted(disk):
    async def story():
        lake = FileLake(disk.directory, MemoryManifest())
        committer = Committer(
            lambda: lake.writer("predictions", "flights", PREDICTION_FIELDS),
            record="process",
            on_failure="shed",
            call_soon=asyncio.get_running_loop().call_soon_threadsafe,
        )
        client = Client(committer)
        disk.fill()
        await client.send(300)
        assert committer.shed > 0
        disk.free()
        written, deadline = committer.written, time.monotonic() + DEADLINE_S
        while committer.written == written:
            assert time.monotonic() < deadline
            await client.send(1)
        committer.close()
        lake.close()
        return client, committer

    client, committer = asyncio.run(story())
    assert set(client.outcomes.values()) == {None}
    frame = FileLake(disk.directory, MemoryManifest()).scan("predictions", "flights")
    assert frame.height == committer.written
    assert committer.sent == len(client.outcomes) == committer.written + committer.shed


class Cut:
    """A disk that keeps, when the power is cut, what was synced; no more of a file once a sync of it failed."""

    def __init__(self):
        self.is_broken = False
        self.kept = {}
        self.dropped = set()

    def fdatasync(self, fd):
        status = os.fstat(fd)
        if self.is_broken:
            self.dropped.add(status.st_ino)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if status.st_ino not in self.dropped:
            self.kept[status.st_ino] = status.st_size

    def fsync(self, fd):
        """Of a directory."""

    def __getattr__(self, name):
        return getattr(os, name)

    def cut_the_power(self, directory):
        for path in directory.rglob("*.seg*"):
            os.truncate(path, self.kept.get(path.stat().st_ino, 0))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["append", "append", "thread", "thread", "turn", "turn", "break", "repair", "wait", "rotate"]),
        max_size=60,
    )
)
def test_every_row_that_was_acknowledged_at_disk_is_there_after_a_power_cut(tmp_path, acts):
    with pytest.MonkeyPatch.context() as patched, TemporaryDirectory(dir=tmp_path) as name:
        disk, jobs, soon, acknowledged, now_s = Cut(), deque(), deque(), [], [0.0]
        patched.setattr(segments, "os", disk)
        patched.setattr(files, "os", disk)
        patched.setattr(files, "SEGMENT_BYTES", 500)
        lake = FileLake(Path(name), MemoryManifest())
        background = BackgroundThread("unused")
        patched.setattr(background, "submit", jobs.append)
        committer = Committer(
            lambda: lake.writer("predictions", "flights", PREDICTION_FIELDS),
            record="disk",
            call_soon=soon.append,
            now_s=lambda: now_s[0],
            background=background,
        )
        for n, act in enumerate(acts):
            if act == "append":
                row = predictions([f"{n}"], at=START + hours(n))
                committer.append(row, 1, done=lambda error, n=n: acknowledged.append(n) if error is None else None)
            elif act == "thread" and jobs:
                jobs.popleft()()
            elif act == "turn" and soon:
                soon.popleft()()
            elif act in ("break", "repair"):
                disk.is_broken = act == "break"
            elif act == "wait":
                now_s[0] += 0.2
            elif act == "rotate":
                committer.rotate(0.0)
        disk.cut_the_power(Path(name))
        frame = FileLake(Path(name), MemoryManifest()).scan("predictions", "flights")
        found = set(frame["prediction_id"].to_list()) if frame.width else set()
        assert {f"{n}" for n in acknowledged} <= found
        for writer in tuple(lake._writers):  # let go of the files that were cut
            for segment in (*writer._ended, writer._segment):
                if segment is not None:
                    segment.abandon()


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static void hang(const char *call, int fd) {
    char link[64], path[4096];
    const char *flag = getenv("HANG_WHILE"), *calls = getenv("HANG_CALLS");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    if (!strstr(path, ".seg") || !strstr(calls, call)) return;
    while (access(flag, F_OK) == 0) usleep(1000);
}
ssize_t write(int fd, const void *data, size_t size) {
    hang("write", fd);
    return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    hang("write", fd);
    return ((ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev"))(fd, parts, count);
}
int fdatasync(int fd) {
    hang("fdatasync", fd);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""

SERVER = """
import asyncio, json, sys
from pathlib import Path
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest
from holdfast.serve.committing import Committer
from holdfast.serve.handover import BackgroundThread
from holdfast.testing import PREDICTION_FIELDS, START, hours, predictions

directory, life, record, on_failure = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]

async def serve():
    loop = asyncio.get_running_loop()
    stop = loop.create_future()
    loop.add_reader(sys.stdin, lambda: stop.done() or stop.set_result(None))
    lake = FileLake(directory, MemoryManifest(), record="memory" if record == "memory" else "process")
    committer = Committer(
        lambda: lake.writer("predictions", "flights", PREDICTION_FIELDS),
        record=record, on_failure=on_failure, call_soon=loop.call_soon_threadsafe,
    )
    n = 0
    while not stop.done():
        id = f"{life}-{n}"
        def done(error, id=id):
            print(json.dumps([id, None if error is None else str(error), committer.shed]), flush=True)
        committer.append(predictions([id], at=START + n * hours(1)), 1, done=done)
        committer.look()
        n += 1
        await asyncio.sleep(0.002)
    committer.close(drain_s=2.0)
    lake.close()
    counts = {name: getattr(committer, name) for name in ("sent", "written", "shed", "lost", "late", "waiting_rows")}
    print(json.dumps(counts), flush=True)

asyncio.run(serve())
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    directory = tmp_path_factory.mktemp("shim")
    (directory / "shim.c").write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-o", str(directory / "shim.so"), str(directory / "shim.c"), "-ldl"]
    subprocess.run(command, check=True)
    return directory / "shim.so"


class Server:
    """A process that records a row every two milliseconds, on a disk that hangs while `flag` is there."""

    def __init__(self, shim, directory, life, *, record, on_failure, calls):
        self.flag = directory / "hang"
        environment = {"LD_PRELOAD": str(shim), "HANG_WHILE": str(self.flag), "HANG_CALLS": calls}
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER), str(directory / "lake"), life, record, on_failure],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.acknowledged = set()
        self.refused = {}
        self.shed = 0
        self.counts = {}

    def read(self, until):
        """Take in answers until `until` holds of this server."""
        deadline = time.monotonic() + DEADLINE_S
        while not until():
            assert time.monotonic() < deadline
            self.take(next_line(self.process, "an answer", deadline_s=DEADLINE_S))

    def take(self, line):
        said = json.loads(line)
        if isinstance(said, dict):
            self.counts = said
            return
        id, error, self.shed = said
        if error is None:
            self.acknowledged.add(id)
        else:
            self.refused[id] = error

    def more(self, of, count):
        """Read until so many more answers of a kind came."""
        found = getattr(self, of)
        target = len(found) + count
        self.read(lambda: len(found) >= target)

    def stop(self):
        """Let it end in order; returns its counters."""
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        self.read_to_the_end()
        assert self.process.wait(DEADLINE_S) == 0
        return self.counts

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.read_to_the_end()
        self.process.wait(DEADLINE_S)

    def read_to_the_end(self):
        for line in rest(self.process, "its end", deadline_s=DEADLINE_S):
            if line.endswith("\n"):  # else it is torn
                self.take(line)


@pytest.fixture
def serve(shim, tmp_path):
    servers = []

    def start(life, *, record, on_failure="refuse", calls="write,fdatasync"):
        servers.append(Server(shim, tmp_path, life, record=record, on_failure=on_failure, calls=calls))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()
        server.process.stdin.close()
        server.process.stdout.close()


def recorded(directory: Path) -> set[str]:
    frame = FileLake(directory / "lake", MemoryManifest()).scan("predictions", "flights")
    ids = frame["prediction_id"].to_list() if frame.width else []
    assert len(ids) == len(set(ids))
    return set(ids)


def test_while_a_sync_hangs_rows_are_refused_and_recording_goes_on_when_it_is_over(serve, tmp_path):
    server = serve("a", record="disk", calls="fdatasync")
    server.more("acknowledged", 20)
    server.flag.touch()
    server.more("refused", 200)
    assert all("has not taken rows" in error for error in server.refused.values())
    server.flag.unlink()
    server.more("acknowledged", 20)
    counts = server.stop()
    assert counts["sent"] == counts["written"] + counts["lost"]
    assert (counts["waiting_rows"], counts["shed"]) == (0, 0)
    assert counts["written"] == len(server.acknowledged)
    found = recorded(tmp_path)
    assert server.acknowledged <= found
    assert found - server.acknowledged <= server.refused.keys()


def test_a_process_that_hung_in_a_write_is_replaced_and_the_next_one_answers_although_the_disk_still_hangs(
    serve, tmp_path
):
    first = serve("a", record="process")
    first.more("acknowledged", 20)
    first.flag.touch()
    second = serve("b", record="process")
    second.more("refused", 100)  # the first one hangs in the middle of its event loop; this one answers
    first.kill()
    assert not second.acknowledged
    second.flag.unlink()
    second.more("acknowledged", 20)
    counts = second.stop()
    assert counts["sent"] == counts["written"] + counts["lost"]
    assert first.acknowledged | second.acknowledged <= recorded(tmp_path)


def test_under_shed_a_disk_that_hangs_holds_no_answer_up_for_long(serve, tmp_path):
    server = serve("a", record="disk", on_failure="shed", calls="fdatasync")
    server.more("acknowledged", 20)
    server.flag.touch()
    server.read(lambda: server.shed > 200)
    server.flag.unlink()
    shed = server.shed
    server.more("acknowledged", 300)
    counts = server.stop()
    assert server.refused == {}
    assert counts["sent"] == counts["written"] + counts["shed"] == len(server.acknowledged)
    assert counts["shed"] >= shed
    assert len(recorded(tmp_path)) >= counts["written"]


def test_under_memory_a_disk_that_hangs_is_not_waited_for(serve, tmp_path):
    server = serve("a", record="memory")
    server.more("acknowledged", 20)
    server.flag.touch()
    server.more("acknowledged", 800)
    server.flag.unlink()
    counts = server.stop()
    assert counts["sent"] == counts["written"] == len(server.acknowledged)
    assert recorded(tmp_path) == server.acknowledged
