"""What befalls processes and machine is told once in the audit log, and waits for a catalog that cannot be written."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from holdfast.core.clock import ManualClock
from holdfast.core.records import AuditEntry
from holdfast.errors import StateError
from holdfast.flow import happenings
from holdfast.presence import KEEPER, write_presence
from holdfast.processes.hostwatch import LEAST_FREE_BYTES, QUIET, HostWatch
from holdfast.serve.heartbeat import End, Heartbeat, note_end, path_of, write_heartbeat
from holdfast.state import State, memory_state
from holdfast.testing import START

SECOND = timedelta(seconds=1)
ME = os.getpid()


class Host:
    """A state with a supervisor (this process), a worker's signs of life, a disk and two clocks."""

    def __init__(self, directory: Path) -> None:
        self.state: State = memory_state(directory)
        self.clock = ManualClock(START)
        self.at_s, self.room = 100.0, 10**12
        self.run = self.state.run_directory
        self.run.mkdir(parents=True)
        write_presence(self.run, url="u", console="c", workers=("worker-1", "worker-2"))
        self.watch = self.keeper(1)

    def keeper(self, pid: int) -> HostWatch:
        return HostWatch(self.state, self.clock, pid=pid, stopwatch=lambda: self.at_s, room=lambda _: self.room)

    def beat(self, name: str = "worker-1", **facts: Any) -> None:
        write_heartbeat(self.run, name, Heartbeat(generation=1, at=self.clock.now().isoformat(), **facts))

    def look(self, after: timedelta = SECOND) -> list[str]:
        """What one more look, so much later, adds to the log."""
        self.clock.advance(after)
        self.at_s += after.total_seconds()
        known = len(self.log())
        self.watch.look()
        return [str(entry.detail["why"]) for entry in self.log()[known:]]

    def log(self) -> list[AuditEntry]:
        with self.state.catalog.read() as tx:
            return tx.audit_log()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.state.close()


def test_coming_up_is_told_once_and_calm_rounds_tell_nothing(host: Host) -> None:
    host.beat(pid=11)
    assert host.look() == ["Holdfast was brought up"]
    assert [host.look() for _ in range(3)] == [[], [], []]


def test_a_worker_that_ended_is_told_with_how_and_when(host: Host) -> None:
    host.beat(pid=11)
    host.look()
    died = host.clock.now()
    note_end(path_of(host.run, "worker-1"), End(pid=11, at=died.isoformat(), how="ended with code -9"))
    host.beat(pid=12)
    assert host.look() == ["worker-1 ended with code -9 and was replaced"]
    [entry] = [entry for entry in host.log() if entry.action == happenings.WORKER_REPLACED]
    assert (entry.at, entry.system, entry.subject, entry.actor) == (died, "*", "worker-1", "holdfast")
    assert host.look() == []


def test_a_worker_that_is_another_without_a_word_is_told_all_the_same(host: Host) -> None:
    host.beat(pid=11)
    host.look()
    host.beat(pid=12)
    assert host.look() == ["worker-1 ended, nobody saw how, and was replaced"]


def test_a_worker_that_dies_again_and_again_is_counted_and_told_every_ten_minutes(host: Host) -> None:
    host.beat(pid=11)
    host.look()
    said = []
    for pid in range(12, 72):
        host.beat(pid=pid)
        said += host.look(10 * SECOND)
    assert said == ["worker-1 ended, nobody saw how, and was replaced"]
    assert host.look(QUIET) == ["worker-1 ended and was replaced 59 times more by then"]
    assert host.look(QUIET) == []


def test_another_keeper_goes_on_from_what_the_last_one_saw(host: Host) -> None:
    host.beat(pid=11, lost=3)
    host.look()
    write_heartbeat(host.run, KEEPER, Heartbeat(pid=1, generation=0, at=host.clock.now().isoformat()))
    host.watch = host.keeper(2)
    host.beat(pid=12)
    said = host.look()
    assert said == [
        f"the keeper was replaced; the last sign of life before was given at {START + SECOND:%Y-%m-%d %H:%M} UTC",
        "worker-1 ended, nobody saw how, and was replaced",
    ]


def test_workers_of_another_start_are_no_replacements(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.beat(pid=11)
    host.look()
    before = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: before + 1000)
    write_presence(host.run, url="u", console="c", workers=("worker-1",))
    host.beat(pid=99)
    assert host.look() == ["Holdfast was brought up"]


def test_rows_that_could_not_be_recorded_are_told_with_their_number(host: Host) -> None:
    host.beat(pid=11, recorded=500)
    host.look()
    host.beat(pid=11, lost=1, shed=20)
    assert host.look() == ["worker-1 could not record: 1 row refused and 20 rows answered without a record"]
    host.beat(pid=11, lost=5, shed=20)
    assert host.look() == [], "the rest of an episode is told together"
    host.beat(pid=11, lost=8, shed=20)
    assert host.look(QUIET) == ["worker-1 could not record: 7 rows refused"]


def test_a_new_process_counts_from_nothing(host: Host) -> None:
    host.beat(pid=11, lost=50)
    host.look()
    host.beat(pid=12, lost=2)
    assert "worker-1 could not record: 2 rows refused" in host.look(QUIET)


def test_rows_that_were_not_told_yet_outlive_their_worker_and_the_keeper(host: Host) -> None:
    host.beat(pid=11)
    host.look()
    host.beat(pid=11, lost=5)
    assert host.look() == ["worker-1 could not record: 5 rows refused"]
    host.beat(pid=11, lost=5000, shed=7)
    assert host.look() == []
    host.watch = host.keeper(2)
    host.beat(pid=12, lost=1)
    more = "4,996 rows refused and 7 rows answered without a record"
    assert f"worker-1 could not record: {more}" in host.look()
    assert host.look(QUIET) == []


def test_held_routes_belong_to_their_system_and_end(host: Host) -> None:
    host.beat("worker-1", pid=11)
    host.beat("worker-2", pid=12)
    host.look()
    host.beat("worker-2", pid=12, held={"orders": "its artifact was changed"})
    assert host.look() == ["older routes were held: its artifact was changed"]
    assert host.look() == []
    host.beat("worker-2", pid=12)
    assert host.look() == ["the newest routes were followed again"]
    assert [entry.action for entry in host.log() if entry.system == "orders"] == [
        "routes held",
        "routes followed again",
    ]


def test_a_sign_of_life_that_cannot_be_read_ends_no_hold(host: Host) -> None:
    host.beat("worker-1", pid=11)
    host.beat("worker-2", pid=12, held={"orders": "its artifact was changed"})
    assert "older routes were held: its artifact was changed" in host.look()
    path_of(host.run, "worker-2").write_bytes(b"")
    assert [host.look(), host.look(QUIET)] == [[], []]
    host.beat("worker-2", pid=12)
    assert host.look() == ["the newest routes were followed again"]


def test_a_hold_is_told_where_another_worker_cannot_be_read(host: Host) -> None:
    host.beat("worker-1", pid=11, held={"orders": "its artifact was changed"})
    assert "older routes were held: its artifact was changed" in host.look()


def test_a_hold_that_ended_while_nothing_was_up_is_told_then(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.beat(pid=11, held={"orders": "its artifact was changed"})
    host.look()
    before = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: before + 1000)
    write_presence(host.run, url="u", console="c", workers=("worker-1",))
    host.beat(pid=99)
    assert host.look() == ["Holdfast was brought up", "the newest routes were followed again"]


def test_a_full_disk_is_one_episode(host: Host) -> None:
    host.look()
    host.room = LEAST_FREE_BYTES - 1
    assert host.look() == ["the disk of the state was full: 17 MB left"]
    host.room = LEAST_FREE_BYTES + 1
    assert host.look() == [], "a little room is still none"
    host.room = 10**9
    assert host.look() == ["the disk of the state has room again: 1,000 MB"]


@pytest.mark.parametrize(
    ("wall", "stopwatch_s", "said"),
    [
        (timedelta(hours=2), 1.0, ["the clock jumped ahead by 1:59:59, or the machine slept as long"]),
        (timedelta(0), 90.0, ["the clock jumped back by 0:01:30"]),
        (timedelta(minutes=5), 300.0, []),
        (timedelta(seconds=5), 1.0, []),
    ],
)
def test_a_clock_that_jumps_is_told_and_a_long_round_is_not(
    host: Host, wall: timedelta, stopwatch_s: float, said: list[str]
) -> None:
    host.look()
    host.clock.advance(wall)
    host.at_s += stopwatch_s
    assert host.look(timedelta(0)) == said


def test_what_cannot_be_written_waits(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.look()
    begin = host.state.catalog.begin

    def full() -> Any:
        raise StateError("no room")

    monkeypatch.setattr(host.state.catalog, "begin", full)
    host.room = 0
    with pytest.raises(StateError):
        host.look()
    monkeypatch.setattr(host.state.catalog, "begin", begin)
    assert host.look() == ["the disk of the state was full: 0 MB left"]
    [entry] = [entry for entry in host.log() if entry.action == happenings.DISK_FULL]
    assert entry.at == START + 2 * SECOND


def test_nothing_up_is_nothing_to_tell(tmp_path: Path) -> None:
    state = memory_state(tmp_path)
    HostWatch(state, ManualClock(START), pid=1, stopwatch=lambda: 0.0, room=lambda _: 10**12).look()
    with state.catalog.read() as tx:
        assert tx.audit_log() == []


def test_what_was_remembered_otherwise_is_begun_anew(host: Host) -> None:
    host.look()
    with host.state.catalog.begin() as tx:
        mark = tx.get(happenings.Mark, "*", "host")
        assert mark is not None
        tx.put(msgspec.structs.replace(mark, memory={"up": "what"}))
    host.watch = host.keeper(1)
    assert host.look() == ["Holdfast was brought up"]
