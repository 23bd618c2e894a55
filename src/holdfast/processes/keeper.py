"""The keeper: ``python -m holdfast.processes.keeper --state DIR --fd N``.

It ticks every system in force, publishes routes, rolls the lake, and serves console and API on its own socket.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from types import FrameType

import uvicorn

from holdfast.core.clock import Clock, SystemClock, stopwatch_s
from holdfast.core.records import Mark, SystemFile, Version
from holdfast.errors import HoldfastError
from holdfast.flow.registry import current_route
from holdfast.opening import system_of, teller
from holdfast.presence import KEEPER, read_presence
from holdfast.processes.hostwatch import HostWatch
from holdfast.processes.logs import log_to_stderr
from holdfast.serve.heartbeat import Heartbeat, read_heartbeat, write_heartbeat
from holdfast.state import State, open_state
from holdfast.system import System
from holdfast.web.app import make_app
from holdfast.world import LakeFeeds

log = logging.getLogger("holdfast")

EVERY_S = 1.0
"""Pause between two rounds, in seconds."""
ROLL_EVERY = timedelta(minutes=1)
COUNT_S = 0.25
"""How long a round may count rolled answers of one system before it goes on; one piece is always finished."""
STATE_WIDE = "*"


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep the systems of a state until told to stop."""
    parser = argparse.ArgumentParser(prog="holdfast.processes.keeper")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket of the console")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    given = parser.parse_args(arguments)
    # Not an Event: a signal handler that sets one waits for ever where it interrupts the wait for it.
    is_stopping = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        """Stop in the middle of a round too: what was not committed is done again by the next keeper."""
        nonlocal is_stopping
        if not is_stopping:
            is_stopping = True
            raise _Stopped

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    log_to_stderr()
    clock = SystemClock()
    try:
        state = open_state(given.state)
    except HoldfastError as error:
        log.error("the keeper cannot start: %s", error)
        sys.exit(error.exit_code)
    console = _Console(state, clock, socket.socket(fileno=given.fd), given.tls_cert, given.tls_key)
    console.start()
    keeper = Keeper(state, clock)
    try:
        while True:
            keeper.round()
            time.sleep(EVERY_S)
    except _Stopped:
        log.info("the keeper stops")
    finally:
        keeper.close()
        console.stop()
        state.close()


class _Stopped(BaseException):
    """The process was told to stop. Not an Exception, so that no error boundary takes it for a fault."""


class Keeper:
    """Looks after every system of a state, round by round. What goes wrong with one does not stop the others."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._systems: dict[str, tuple[SystemFile, System]] = {}
        self._errors: dict[str, str] = {}
        self._rolled_at: datetime | None = None
        self._uncounted: set[str] = set()
        """Systems whose answers may not all be counted since the lake was rolled."""
        self._started_at = clock.now()
        self._host = HostWatch(state, clock, pid=os.getpid())

    def round(self) -> None:
        """One look at everything."""
        self._beat()
        try:
            with self._state.catalog.read() as tx:
                files = tx.find(SystemFile)
        except HoldfastError as error:
            self._note(STATE_WIDE, str(error))
            files = []
        for file in files:
            self._look_after(file)
        self._keep_house()
        self._beat()

    def close(self) -> None:
        """Stop what is under way; trainings are given back, so that the next keeper takes them up at once."""
        for _, system in self._systems.values():
            system.close()

    def _look_after(self, file: SystemFile) -> None:
        """One tick of one system."""
        problem = ""
        try:
            system = self._system(file)
            for done in system.tick():
                log.info("%s: %s", file.system, done)
            if file.system in self._uncounted:
                self._count(file.system, system)
            if isinstance(system.feeds, LakeFeeds):
                problem = system.feeds.problem
        except Exception as error:
            problem = _said(error)
            if not isinstance(error, HoldfastError):
                log.exception("%s: the tick failed", file.system)
        self._note(file.system, problem)

    def _system(self, file: SystemFile) -> System:
        """The system as its file in force describes it; made anew when another file was put in force."""
        known = self._systems.get(file.system)
        if known is not None and (known[0].spec_hash, known[0].path) == (file.spec_hash, file.path):
            return known[1]
        if known is not None:
            known[1].close()
        system = system_of(self._state, file, self._clock, tell=teller(file.system, self._clock))
        self._systems[file.system] = (file, system)
        return system

    def _keep_house(self) -> None:
        """Publish what the round changed, mend artifacts, roll sealed segments, tell what befell the host; what fails
        stops no other."""
        problems = []
        for step in (self._state.publish_routes, self._mend_artifacts, self._roll, self._host.look):
            try:
                step()
            except Exception as error:
                problems.append(_said(error))
                if not isinstance(error, HoldfastError):
                    log.exception("publishing routes, mending artifacts, rolling or looking at the host failed")
        self._note(STATE_WIDE, "; ".join(problems))

    def _roll(self) -> None:
        now = self._clock.now()
        if self._rolled_at is None or now - self._rolled_at >= ROLL_EVERY:
            self._rolled_at = now
            self._state.lake.roll()
            self._uncounted.update(self._systems)

    def _count(self, name: str, system: System) -> None:
        """Count what was rolled, for a bounded time; the next rounds go on with the rest."""
        began = stopwatch_s()
        for _ in system.count_answers():
            if stopwatch_s() - began > COUNT_S:
                return
        self._uncounted.discard(name)

    def _mend_artifacts(self) -> None:
        """Where a worker refuses an artifact, unpack it anew from the blobs; the worker tries again by itself."""
        up = read_presence(self._state.run_directory)
        beats = [read_heartbeat(self._state.run_directory, worker) for worker in up.workers] if up else []
        for system in sorted({name for beat in beats if beat is not None for name in beat.held}):
            with self._state.catalog.read() as tx:
                route = current_route(tx, system)
                versions = [tx.get(Version, system, id) for id in (route.live, route.canary) if id]
            for version in versions:
                if version is not None and self._state.mend(version):
                    self._tell_mended(version)

    def _tell_mended(self, version: Version) -> None:
        log.error("%s: the files of version %s were changed; they were unpacked anew", version.system, version.id)
        with self._state.catalog.begin() as tx:
            tx.audit(
                at=self._clock.now(),
                actor="holdfast",
                action="artifact unpacked anew",
                system=version.system,
                subject=version.id,
                detail={"why": "its files on disk were not what was signed"},
            )

    def _note(self, system: str, problem: str) -> None:
        """Log and remember what goes wrong, once until it changes."""
        if system not in self._errors:
            self._errors[system] = self._remembered(system)
        if self._errors[system] == problem:
            return
        log.log(logging.ERROR if problem else logging.INFO, "%s: %s", system, problem or "works again")
        try:
            with self._state.catalog.begin() as tx:
                tx.put(Mark(system=system, id=KEEPER, last_at=self._clock.now(), memory={"error": problem}))
        except HoldfastError as error:
            log.error("the error could not be remembered: %s", error)
            return
        self._errors[system] = problem

    def _remembered(self, system: str) -> str:
        try:
            with self._state.catalog.read() as tx:
                mark = tx.get(Mark, system, KEEPER)
        except HoldfastError:
            return ""
        return str(mark.memory.get("error", "")) if mark else ""

    def _beat(self) -> None:
        beat = Heartbeat(
            pid=os.getpid(),
            generation=0,
            at=self._clock.now().isoformat(),
            error="; ".join(f"{system}: {error}" for system, error in self._errors.items() if error),
        )
        try:
            write_heartbeat(self._state.run_directory, KEEPER, beat)
        except OSError as error:
            log.warning("the keeper could not write its sign of life: %s", error)


class _Console:
    """Serves console and API in a thread of its own, on the inherited socket."""

    def __init__(
        self, state: State, clock: Clock, listening: socket.socket, certificate: Path | None, key: Path | None
    ) -> None:
        config = uvicorn.Config(
            make_app(state, clock),
            ssl_certfile=certificate,
            ssl_keyfile=key,
            lifespan="off",
            access_log=False,
            log_level="warning",
            log_config=None,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run, args=([listening],), name="console", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=3)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
