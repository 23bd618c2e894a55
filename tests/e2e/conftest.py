"""A small system with real files, and `holdfast up` as a process of its own, for tests of the whole."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from holdfast.core.records import Record
from holdfast.places import CATALOG
from holdfast.serve.supervisor import Patience
from holdfast.state import State, open_state

from ..lines import next_line
from .deployments import Deployment, train_versions

R = TypeVar("R", bound=Record)

ROW = {"load": 1.5, "distance": 0.5, "kind": "b"}


def holdfast(*arguments: object, expect: int | tuple[int, ...] = 0) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    argv = [sys.executable, "-m", "holdfast", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (expect if isinstance(expect, tuple) else (expect,)), (
        f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


def until(condition: Callable[[], Any], what: str, deadline_s: float = 40.0) -> Any:
    """Look at real processes until something holds; returns it."""
    end = time.monotonic() + deadline_s
    while True:
        if found := condition():
            return found
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)


class Running:
    """One `holdfast up`."""

    def __init__(self, state: Path, *files: Path, workers: int = 1) -> None:
        self.state = state
        self.log = state.with_suffix(".log")
        argv = [sys.executable, "-m", "holdfast", "up", *map(str, files), "--state", str(state)]
        argv += ["--port", "0", "--console-port", "0", "--workers", str(workers)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True)
        self.said = ""
        while "stop with" not in self.said:
            self.said += next_line(self.process, "all that `up` says at its start", said=self.said, log=self.log)
        up = json.loads((state / "run" / "up.json").read_bytes())
        self.url, self.console = up["url"], up["console"]
        secrets = state / "secret-of-the-test"
        if found := re.search(r"hf_[\w-]+", self.said):
            secrets.write_text(found[0])
        self.token = secrets.read_text()

    def predict(self, system: str = "orders", *, token: str = "", **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token or self.token}"}
        return httpx.post(f"{self.url}/predict/{system}", json=body or ROW, headers=headers, timeout=20)

    def api(self, method: str, path: str, *, token: str = "", **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token or self.token}"}
        return httpx.request(method, f"{self.console}{path}", json=body or None, headers=headers, timeout=20)

    def console_answers(self) -> bool:
        try:
            return self.api("GET", "/api/status").status_code == 200
        except httpx.TransportError:
            return False

    def status(self, place: int = 0) -> dict[str, Any]:
        """How a system stands, by its place."""
        found: dict[str, Any] = self.api("GET", "/api/status").json()["systems"][place]
        return found

    def answers(self, system: str = "orders") -> dict[str, Any]:
        """Ask until there is an answer, as a client would."""

        def asked() -> httpx.Response | None:
            try:
                answer = self.predict(system)
            except httpx.TransportError:
                return None
            return answer if answer.status_code == 200 else None

        found: dict[str, Any] = until(asked, f"an answer of '{system}'\n{self.log}").json()
        return found

    def pid(self, name: str) -> int:
        """Process id by the last sign of life."""
        beat = until(lambda: _beat(self.state / "run" / f"{name}.json"), f"a sign of life of {name}")
        return int(beat["pid"])

    def serving(self, name: str) -> int | None:
        """Process id of a worker that has acknowledged routes; None while there is none."""
        beat = _beat(self.state / "run" / f"{name}.json")
        return int(beat["pid"]) if beat and beat["generation"] else None

    def kill_keeper(self) -> None:
        """kill -9, and wait until another one lives."""
        before = self.pid("keeper")
        os.kill(before, signal.SIGKILL)
        until(lambda: self.pid("keeper") != before, "a new keeper")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


def _beat(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, json.JSONDecodeError):
        return None


class Tools:
    """What the tests use, as one fixture."""

    holdfast, until = staticmethod(holdfast), staticmethod(until)

    def __init__(self, small: Any) -> None:
        self.write_feeds, self.write_file = small.write_feeds, small.write_file
        self.running: list[Running] = []
        self._states: dict[Path, State] = {}

    def up(self, state: Path, *files: Path, workers: int = 1) -> Running:
        running = Running(state, *files, workers=workers)
        self.running.append(running)
        return running

    def records(self, directory: Path, kind: type[R]) -> list[R]:
        """What the catalog of a state holds, read here: asking a command each time would take a process each time."""
        if not (directory / CATALOG).exists():
            return []
        with self.state(directory).catalog.read() as tx:
            return tx.find(kind)

    def state(self, directory: Path) -> State:
        """A state, opened once."""
        if directory not in self._states:
            self._states[directory] = open_state(directory)
        return self._states[directory]

    def close(self) -> None:
        for running in self.running:
            running.stop()
        for state in self._states.values():
            state.close()

    @staticmethod
    def json(*arguments: object) -> Any:
        """What a command says with --json."""
        return json.loads(holdfast(*arguments, "--json").stdout)


@pytest.fixture
def tools(small: Any) -> Iterator[Tools]:
    made = Tools(small)
    yield made
    made.close()


@pytest.fixture(scope="session")
def signed_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two signed versions of a small real model, below ``artifacts/<version>``, and the keys."""
    root = tmp_path_factory.mktemp("signed")
    train_versions(root)
    return root


@pytest.fixture
def serve(tmp_path: Path, signed_versions: Path) -> Iterator[Callable[..., Deployment]]:
    """Starts a supervisor and workers on version 1 and waits until they serve it."""
    running: list[Deployment] = []

    def start(
        workers: int = 2, patience: Patience | None = None, environment: dict[str, str] | None = None, **options: Any
    ) -> Deployment:
        shutil.copytree(signed_versions, tmp_path, dirs_exist_ok=True)
        running.append(Deployment(tmp_path, workers, patience or Patience(), environment, **options))
        return running[-1]

    yield start
    for deployment in running:
        deployment.stop()
