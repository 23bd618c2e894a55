"""Keeps processes alive: holds the listening socket, starts children, replaces the dead and the hung, stops all.

Stateless: it knows no catalog and no model, so there is next to nothing in it that could fail. How a child ended it
notes beside that child's heartbeat, for the keeper to tell.
"""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Literal

import msgspec

from holdfast.core.clock import Clock, SystemClock, stopwatch_s
from holdfast.errors import StateError
from holdfast.serve.heartbeat import End, note_end, read_heartbeat

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_PAUSE_S = 0.2
"""What counts at most between two looks: this process looks far more often, unless it stood still itself."""


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A process to keep alive. Without a heartbeat file it is only replaced when it is dead."""

    name: str
    argv: tuple[str, ...]
    heartbeat: Path | None = None
    env: Mapping[str, str] = {}
    """Added to the supervisor's own environment."""
    waits: bool = False
    """Whether it is first started when what `Supervisor.run` was given to do at the start is done."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """When a child counts as hung, and how often it may die."""

    hung_after_s: float = 2.0
    """Age of a heartbeat at which its process is killed and replaced."""
    first_beat_s: float = 30.0
    """How long a started child may take to its first heartbeat."""
    fast_s: float = 2.0
    """A child that lives shorter than this died fast."""
    fast_deaths: int = 3
    """So many fast deaths in a row are replaced at once; each further one waits twice as long as the last."""
    first_wait_s: float = 0.25
    longest_wait_s: float = 10.0

    def wait_s(self, fast_deaths: int) -> float:
        """How long to wait before the next start, after this many fast deaths in a row."""
        over = fast_deaths - self.fast_deaths
        return 0.0 if over <= 0 else min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(over - 1, 30))


class ChildState(msgspec.Struct, frozen=True, kw_only=True):
    """How a child stands; times are seconds on the stopwatch."""

    is_alive: bool = False
    started_s: float = 0.0
    beat_s: float | None = None
    """When its heartbeat was last seen to change; None before the first."""
    ended_s: float | None = None
    """When it was seen dead; None while it lives or before its first start."""
    fast_deaths: int = 0

    def later(self, by_s: float) -> "ChildState":
        """The same child, had all that is known of it happened so much later."""
        beat_s = None if self.beat_s is None else self.beat_s + by_s
        return msgspec.structs.replace(self, started_s=self.started_s + by_s, beat_s=beat_s)


Step = Literal["leave", "start", "kill"]


def decide(state: ChildState, has_heartbeat: bool, now_s: float, patience: Patience) -> Step:
    """What to do about a child."""
    if not state.is_alive:
        since = now_s - (state.ended_s if state.ended_s is not None else now_s)
        return "start" if since >= patience.wait_s(state.fast_deaths) else "leave"
    if not has_heartbeat:
        return "leave"
    if state.beat_s is None:
        return "kill" if now_s - state.started_s > patience.first_beat_s else "leave"
    return "kill" if now_s - state.beat_s > patience.hung_after_s else "leave"


def after_death(state: ChildState, now_s: float, patience: Patience) -> ChildState:
    """How a child stands once it was seen dead."""
    is_fast = now_s - state.started_s < patience.fast_s
    return ChildState(started_s=state.started_s, ended_s=now_s, fast_deaths=state.fast_deaths + 1 if is_fast else 0)


def listen(host: str = "127.0.0.1", port: int = 0, backlog: int = 2048) -> socket.socket:
    """A listening socket for workers to inherit. Port 0 takes a free one. Raises StateError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the connections of the last run to time out.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise StateError(f"cannot listen on {host}:{port}: {error}; free the port or choose another one") from error
    return listening


class _Child:
    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.state = ChildState()
        self.process: subprocess.Popen[bytes] | None = None
        self.stamp: tuple[int, int] | None = None
        self.noted = 0
        """The process whose end was noted."""


class Supervisor:
    """Keeps `children` alive; each inherits the `sockets` (and pipes) under the same descriptor numbers.

    The sockets stay open here while workers come and go, so connections that wait in their queue are not lost.
    """

    def __init__(
        self,
        children: Iterable[ChildSpec],
        sockets: Sequence[socket.socket | BinaryIO] = (),
        *,
        patience: Patience | None = None,
        look_s: float = 0.02,
        stop_s: float = 8.0,
        kill_s: float = 0.5,
        clock: Clock | None = None,
    ) -> None:
        self._children = [_Child(spec) for spec in children]
        self._sockets = sockets
        self._patience = patience or Patience()
        self._look_s = look_s
        self._stop_s = stop_s
        self._kill_s = kill_s
        self._clock = clock or SystemClock()
        self._looked_s: float | None = None
        self._killed: list[subprocess.Popen[bytes]] = []
        """Processes that were killed and replaced and had not ended yet."""
        # Not an Event: a signal handler that sets one waits for ever where it interrupts the wait for it.
        self._is_stopping = False
        self._is_starting = False

    def run(self, on_started: Callable[[], None] = lambda: None) -> None:
        """Keep the children alive until SIGTERM, SIGINT or `stop`; then end them all. Call it in the main thread.

        `on_started` is called once those that do not wait are started; where it raises, all are ended.
        """

        def on_signal(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._is_starting = True
            self.look()
            on_started()
            self._is_starting = False
            while not self._is_stopping:
                self.look()
                time.sleep(self._look_s)
        finally:
            self.end()
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._is_stopping

    def stop(self) -> None:
        """Make `run` end. Safe from any thread and from signal handlers."""
        self._is_stopping = True

    def pids(self) -> dict[str, int]:
        """Process ids of the children that live, by name."""
        return {c.spec.name: c.process.pid for c in self._children if c.process and c.state.is_alive}

    def look(self) -> None:
        """One look at every child: replace what is dead, kill what is hung."""
        self._killed = [process for process in self._killed if process.poll() is None]
        self._forgive_pause()
        for child in self._children:
            if self._is_starting and child.spec.waits:
                continue
            now_s = stopwatch_s()
            self._observe(child, now_s)
            match decide(child.state, child.spec.heartbeat is not None, now_s, self._patience):
                case "start":
                    self._start(child)
                case "kill":
                    log.error("%s has not answered for too long; it is killed and replaced", child.spec.name)
                    self._kill(child)  # first: the disk may be what it waits for
                    self._note_end(child, "gave no sign of life for too long and was killed")
                    self._observe(child, stopwatch_s())
                    self._start(child)

    def _forgive_pause(self) -> None:
        """Where this process stood still, so perhaps did all others: nobody is hung for a time nobody was looked at.

        A machine, a container or a laptop that is paused and goes on must not lose every worker at once.
        """
        now_s, before_s = stopwatch_s(), self._looked_s
        self._looked_s = now_s
        if before_s is None or now_s - before_s < _PAUSE_S:
            return
        for child in self._children:
            if child.state.is_alive:
                child.state = child.state.later(now_s - before_s - _PAUSE_S)

    def _observe(self, child: _Child, now_s: float) -> None:
        if child.process is None or not child.state.is_alive:
            return
        if child.process.poll() is not None:
            log.warning("%s ended with code %s", child.spec.name, child.process.returncode)
            self._note_end(child, f"ended with code {child.process.returncode}")
            child.state = after_death(child.state, now_s, self._patience)
            return
        stamp = _stamp(child.spec.heartbeat)
        if stamp is not None and stamp != child.stamp:
            child.stamp = stamp
            child.state = msgspec.structs.replace(child.state, beat_s=now_s)

    def _note_end(self, child: _Child, how: str) -> None:
        """Say once how a process ended, where it can be said: nothing may depend on it."""
        if child.process is None or child.spec.heartbeat is None or child.noted == child.process.pid:
            return
        child.noted = child.process.pid
        end = End(pid=child.process.pid, at=self._clock.now().isoformat(), how=how)
        with suppress(OSError):
            note_end(child.spec.heartbeat, end)

    def _start(self, child: _Child) -> None:
        if child.spec.heartbeat is not None:
            # What the last process acknowledged says nothing about this one. Where the disk does not let go of it, it
            # is at least not taken for a sign of life.
            with suppress(OSError):
                child.spec.heartbeat.unlink(missing_ok=True)
        child.stamp = _stamp(child.spec.heartbeat)
        now_s = stopwatch_s()
        parent = os.getpid()
        try:
            child.process = subprocess.Popen(  # noqa: S603 - the caller's own programs
                child.spec.argv,
                env={**os.environ, **child.spec.env},
                pass_fds=tuple(each.fileno() for each in self._sockets),
                stdin=subprocess.DEVNULL,
                # A Ctrl+C is for the supervisor, which ends its children in order.
                start_new_session=True,
                preexec_fn=_die_with(parent) if sys.platform == "linux" else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            log.error("%s could not be started: %s", child.spec.name, error)
            child.state = after_death(msgspec.structs.replace(child.state, started_s=now_s), now_s, self._patience)
            return
        child.state = ChildState(is_alive=True, started_s=now_s, fast_deaths=child.state.fast_deaths)

    def _kill(self, child: _Child) -> None:
        if child.process is None:
            return
        child.process.kill()
        # One that waits for a dead disk ends when the disk answers; nobody else may wait for it.
        try:
            child.process.wait(self._kill_s)
        except subprocess.TimeoutExpired:
            self._killed.append(child.process)

    def end(self) -> None:
        """End every child: SIGTERM, then after `stop_s` SIGKILL. Closes the sockets."""
        for each in self._sockets:
            each.close()
        living = [child for child in self._children if child.process is not None and child.process.poll() is None]
        for child in living:
            assert child.process is not None
            child.process.terminate()
        deadline_s = stopwatch_s() + self._stop_s
        for child in living:
            assert child.process is not None
            try:
                child.process.wait(max(0.0, deadline_s - stopwatch_s()))
            except subprocess.TimeoutExpired:
                log.error("%s did not stop in %s s; it is killed", child.spec.name, self._stop_s)
                self._kill(child)
        for child in self._children:
            child.state = msgspec.structs.replace(child.state, is_alive=False)


def await_generation(
    run_dir: Path, generation: int, workers: Sequence[str], deadline_s: float, system: str = ""
) -> list[str]:
    """Wait until every worker serves this generation or a later one; returns those that do not by the deadline.

    A worker that could not load a version of `system` (of any, by default) has not acknowledged.
    """
    end_s = stopwatch_s() + deadline_s
    while True:
        missing = [name for name in workers if not _follows(run_dir, name, generation, system)]
        if not missing or stopwatch_s() >= end_s:
            return missing
        time.sleep(0.01)


def _follows(run_dir: Path, name: str, generation: int, system: str) -> bool:
    beat = read_heartbeat(run_dir, name)
    if beat is None or beat.generation < generation:
        return False
    if beat.error and not beat.held:  # it cannot read the routes: it serves what was served last
        return False
    return system not in beat.held if system else not beat.held


def _die_with(parent: int) -> Callable[[], None]:
    """What a child runs before it becomes its program: the kernel ends it when the supervisor dies."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that took effect
            os._exit(1)

    return arrange


def _stamp(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
