import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.clock import ManualClock
from holdfast.errors import StateError
from holdfast.serve.heartbeat import End, Heartbeat, read_ends, write_heartbeat
from holdfast.serve.supervisor import (
    ChildSpec,
    ChildState,
    Patience,
    Supervisor,
    after_death,
    await_generation,
    decide,
    listen,
)
from holdfast.testing import START

from ..lines import next_line

PATIENCE = Patience(hung_after_s=2, first_beat_s=30, fast_s=2, fast_deaths=3, first_wait_s=0.25, longest_wait_s=10)
SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")


def until(condition, deadline_s=10.0):
    """Polls a condition on real processes."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


def alive(**options):
    return ChildState(is_alive=True, started_s=100.0, **options)


# Deciding


@pytest.mark.parametrize(
    ("state", "now_s", "step"),
    [
        (ChildState(), 0.0, "start"),
        (ChildState(ended_s=100.0, fast_deaths=3), 100.0, "start"),
        (ChildState(ended_s=100.0, fast_deaths=4), 100.2, "leave"),
        (ChildState(ended_s=100.0, fast_deaths=4), 100.25, "start"),
        (ChildState(ended_s=100.0, fast_deaths=50), 109.9, "leave"),
        (ChildState(ended_s=100.0, fast_deaths=50), 110.0, "start"),
        (alive(), 130.0, "leave"),
        (alive(), 130.1, "kill"),
        (alive(beat_s=120.0), 122.0, "leave"),
        (alive(beat_s=120.0), 122.1, "kill"),
    ],
)
def test_the_dead_are_started_and_the_hung_are_killed(state, now_s, step):
    assert decide(state, True, now_s, PATIENCE) == step


def test_a_child_without_a_heartbeat_is_never_hung():
    assert decide(alive(), False, 1e9, PATIENCE) == "leave"


def test_a_long_life_forgives_fast_deaths():
    dead = after_death(alive(fast_deaths=5), 101.0, PATIENCE)
    assert (dead.is_alive, dead.fast_deaths, dead.ended_s) == (False, 6, 101.0)
    assert after_death(alive(fast_deaths=5), 102.0, PATIENCE).fast_deaths == 0


@given(st.integers(0, 1000))
def test_the_wait_grows_with_fast_deaths_up_to_a_limit(deaths):
    assert 0 <= PATIENCE.wait_s(deaths) <= PATIENCE.wait_s(deaths + 1) <= 10


@given(
    st.builds(
        ChildState,
        is_alive=st.booleans(),
        started_s=st.floats(0, 1e6),
        beat_s=st.none() | st.floats(0, 1e6),
        ended_s=st.none() | st.floats(0, 1e6),
        fast_deaths=st.integers(0, 100),
    ),
    st.booleans(),
    st.floats(0, 1e6),
)
def test_only_the_dead_are_started_and_only_the_living_killed(state, has_heartbeat, now_s):
    step = decide(state, has_heartbeat, now_s, PATIENCE)
    assert step == "leave" or state.is_alive == (step == "kill")


# The listening socket


def test_the_socket_listens_on_loopback_and_says_when_the_port_is_taken():
    with listen() as first:
        host, port = first.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(StateError, match=f"cannot listen on 127.0.0.1:{port}.*free the port or choose another"):
            listen(port=port)


# Real processes


@pytest.fixture
def supervise():
    """A supervisor over children that is looked at by hand and ended at last."""
    started = []

    def make(*children, **options):
        supervisor = Supervisor(children, options.pop("sockets", ()), **options)
        started.append(supervisor)
        supervisor.look()
        return supervisor

    yield make
    for supervisor in started:
        supervisor.end()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def replaced(supervisor, name, old):
    def look():
        supervisor.look()
        return supervisor.pids().get(name, old) != old

    return look


def test_a_child_that_was_killed_is_replaced(supervise):
    supervisor = supervise(ChildSpec(name="one", argv=SLEEPER), ChildSpec(name="two", argv=SLEEPER))
    before = supervisor.pids()
    os.kill(before["one"], signal.SIGKILL)
    until(replaced(supervisor, "one", before["one"]))
    assert supervisor.pids()["two"] == before["two"]


def test_a_child_whose_heartbeat_stops_is_killed_and_replaced(supervise, tmp_path):
    beat = tmp_path / "one.json"
    supervisor = supervise(
        ChildSpec(name="one", argv=SLEEPER, heartbeat=beat), patience=Patience(hung_after_s=0.1, first_beat_s=30)
    )
    first = supervisor.pids()["one"]
    beat.write_text("{}")
    until(replaced(supervisor, "one", first))
    assert not is_running(first)
    assert not beat.exists()  # what the last one said is not taken for the new one's


def test_how_a_worker_ended_stands_beside_its_heartbeat_once(supervise, tmp_path):
    beat = tmp_path / "one.json"
    clock = ManualClock(START)
    supervisor = supervise(ChildSpec(name="one", argv=SLEEPER, heartbeat=beat), clock=clock)
    killed = supervisor.pids()["one"]
    os.kill(killed, signal.SIGKILL)
    until(replaced(supervisor, "one", killed))
    supervisor.look()
    assert read_ends(tmp_path, "one") == [End(pid=killed, at=START.isoformat(), how="ended with code -9")]


def test_a_hung_worker_is_said_to_have_hung_and_an_orderly_stop_is_no_end(supervise, tmp_path):
    beat = tmp_path / "one.json"
    supervisor = supervise(
        ChildSpec(name="one", argv=SLEEPER, heartbeat=beat), patience=Patience(hung_after_s=0.1, first_beat_s=30)
    )
    hung = supervisor.pids()["one"]
    beat.write_text("{}")
    until(replaced(supervisor, "one", hung))
    supervisor.end()
    [end] = read_ends(tmp_path, "one")
    assert (end.pid, end.how) == (hung, "gave no sign of life for too long and was killed")


def test_a_hung_worker_is_killed_before_its_end_is_noted(supervise, tmp_path):
    class Looking(ManualClock):
        """Is asked for the time of an end; sees then whether the worker is still running."""

        def now(self):
            seen.append(is_running(hung))
            return super().now()

    seen = []
    beat = tmp_path / "one.json"
    patience = Patience(hung_after_s=0.1, first_beat_s=30)
    supervisor = supervise(ChildSpec(name="one", argv=SLEEPER, heartbeat=beat), patience=patience, clock=Looking(START))
    hung = supervisor.pids()["one"]
    beat.write_text("{}")
    until(replaced(supervisor, "one", hung))
    assert seen == [False], "the disk of the note may be what the worker waits for"


def test_an_end_that_cannot_be_noted_keeps_no_child_from_being_replaced(supervise, tmp_path):
    beat = tmp_path / "one.json"
    beat.with_suffix(".ends").mkdir()
    supervisor = supervise(ChildSpec(name="one", argv=SLEEPER, heartbeat=beat))
    before = supervisor.pids()["one"]
    os.kill(before, signal.SIGKILL)
    until(replaced(supervisor, "one", before))


def test_a_program_that_cannot_be_started_does_not_stop_the_supervisor(supervise, caplog):
    supervisor = supervise(ChildSpec(name="one", argv=("/nonexistent",)), ChildSpec(name="two", argv=SLEEPER))
    assert list(supervisor.pids()) == ["two"]
    assert "one could not be started" in caplog.text


def test_children_inherit_the_socket_and_their_environment(supervise, tmp_path):
    listening = listen()
    port = listening.getsockname()[1]
    program = (
        "import os, socket, sys; s = socket.socket(fileno=int(sys.argv[1])); c, _ = s.accept();"
        "c.sendall(os.environ['WORD'].encode()); c.close(); s.accept()"
    )
    argv = (sys.executable, "-c", program, str(listening.fileno()))
    supervise(ChildSpec(name="one", argv=argv, env={"WORD": "hello"}), sockets=[listening])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        assert client.recv(10) == b"hello"


def test_a_child_that_ignores_sigterm_is_killed_at_the_deadline(tmp_path):
    program = (
        f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(tmp_path / 'up')!r}, 'w'); time.sleep(60)"
    )
    supervisor = Supervisor([ChildSpec(name="one", argv=(sys.executable, "-c", program))], stop_s=0.1)
    supervisor.look()
    pid = supervisor.pids()["one"]
    until((tmp_path / "up").exists)
    supervisor.end()
    assert not is_running(pid)
    assert supervisor.pids() == {}


RUNNER = """
import sys
from holdfast.serve.supervisor import ChildSpec, Supervisor
argv = (sys.executable, "-c", "import time; time.sleep(60)")
supervisor = Supervisor([ChildSpec(name="one", argv=argv), ChildSpec(name="two", argv=argv)])
supervisor.run(lambda: print(*supervisor.pids().values(), flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)])
def test_the_children_end_with_the_supervisor_however_it_ends(number, code):
    with subprocess.Popen([sys.executable, "-c", RUNNER], stdout=subprocess.PIPE, text=True) as process:
        children = [int(pid) for pid in next_line(process, "the children's ids").split()]
        assert len(children) == 2
        process.send_signal(number)
        assert process.wait(10) == code
        until(lambda: not any(is_running(pid) for pid in children))


# Waiting for a generation


def beat(run_dir, name, generation, **held):
    write_heartbeat(run_dir, name, Heartbeat(pid=1, generation=generation, at="", held=held))


def test_those_that_serve_an_older_generation_are_named(tmp_path):
    beat(tmp_path, "worker-0", 7)
    beat(tmp_path, "worker-1", 6)
    workers = ["worker-0", "worker-1", "worker-2"]
    assert await_generation(tmp_path, 7, workers, deadline_s=0.0) == ["worker-1", "worker-2"]
    assert await_generation(tmp_path, 6, workers[:2], deadline_s=0.0) == []


def test_a_worker_that_holds_the_system_back_has_not_acknowledged(tmp_path):
    beat(tmp_path, "worker-0", 7, flights="Tampered")
    assert await_generation(tmp_path, 7, ["worker-0"], deadline_s=0.0, system="flights") == ["worker-0"]
    assert await_generation(tmp_path, 7, ["worker-0"], deadline_s=0.0, system="trains") == []
    assert await_generation(tmp_path, 7, ["worker-0"], deadline_s=0.0) == ["worker-0"]


def test_a_worker_that_cannot_read_the_routes_has_not_acknowledged(tmp_path):
    # It serves what was served last, whatever number that carries.
    write_heartbeat(tmp_path, "worker-0", Heartbeat(pid=1, generation=7, at="now", error="routes.json: damaged"))
    assert await_generation(tmp_path, 7, ["worker-0"], deadline_s=0.0) == ["worker-0"]
