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
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import polars as pl
import pytest

from holdfast.core.clock import SystemClock
from holdfast.core.records import Record
from holdfast.core.specfile import read_spec
from holdfast.flow.registry import current_route
from holdfast.opening import open_system
from holdfast.places import CATALOG
from holdfast.state import State, open_state, put_in_force

R = TypeVar("R", bound=Record)

DAYS, ROWS_A_DAY = 60, 40
FILE = """\
system: {name}
about: Will it be late?
data:
  feeds:
    orders: {{from: "orders*.parquet", event_at: at, known_at: listed_at, key: id, fresh: 2d}}
    ends: {{from: ends.parquet, event_at: ended_at, known_at: ended_at, key: id}}
  rows: orders
  key: id
  label: {{feed: ends, column: late, known_at: ended_at, mature_after: 1d}}
  columns: {{load: number, distance: number, kind: category}}
model: {{task: classification, trainer: linear, params: {{l2: {l2}}}, validate: {{folds: 1, holdout: 7d}}}}
gates:
  - {{check: quality, metric: roc_auc, at_least: {least}}}
release:
  steps: [{steps}]
  decide: {{loss: brier, margin: 0.01}}
monitors:
  - {{check: freshness, every: 1d}}
"""
ROW = {"load": 1.5, "distance": 0.5, "kind": "b"}


def write_feeds(directory: Path, seed: int = 7) -> None:
    """Orders of the last two months, one in three of which ends late; the newest have no end yet."""
    rng = np.random.default_rng(seed)
    n = DAYS * ROWS_A_DAY
    today = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    start = today - timedelta(days=DAYS)
    at = [start + timedelta(days=i // ROWS_A_DAY, minutes=20 * (i % ROWS_A_DAY)) for i in range(n)]
    load, distance, kind = rng.normal(size=n), rng.normal(size=n), rng.choice(["a", "b"], size=n)
    late = rng.random(n) < 1 / (1 + np.exp(-(1.5 * load - distance + (kind == "b") - 1.2)))
    ids = [f"o{i}" for i in range(n)]
    listed = [each - timedelta(hours=2) for each in at]
    directory.mkdir(parents=True, exist_ok=True)
    columns = {"id": ids, "at": at, "listed_at": listed, "load": load, "distance": distance, "kind": kind}
    pl.DataFrame(columns).write_parquet(directory / "orders.parquet")
    ended = [each + timedelta(hours=3) for each in at]
    pl.DataFrame({"id": ids, "ended_at": ended, "late": late.astype(int)}).write_parquet(directory / "ends.parquet")


def write_file(
    directory: Path, name: str = "orders", *, l2: float = 1.0, least: float = 0.6, steps: str = "live"
) -> Path:
    """The system file beside its feeds."""
    path = directory / "holdfast.yaml"
    path.write_text(FILE.format(name=name, l2=l2, least=least, steps=steps), encoding="utf-8")
    return path


def holdfast(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    argv = [sys.executable, "-m", "holdfast", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
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
        assert self.process.stdout is not None
        while "stop with" not in self.said:
            line = self.process.stdout.readline()
            assert line, f"it ended: {self.process.wait()}\n{self.log.read_text()}"
            self.said += line
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

    write_feeds, write_file = staticmethod(write_feeds), staticmethod(write_file)
    holdfast, until = staticmethod(holdfast), staticmethod(until)

    def __init__(self) -> None:
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
        if directory not in self._states:
            self._states[directory] = open_state(directory)
        with self._states[directory].catalog.read() as tx:
            return tx.find(kind)

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
def tools() -> Iterator[Tools]:
    made = Tools()
    yield made
    made.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with feeds, a system file, and a state in which version 2 is live and version 1 was before."""
    root = tmp_path_factory.mktemp("trained")
    write_feeds(root)
    state, clock = open_state(root / "state"), SystemClock()
    for number, l2 in enumerate((10.0, 1.0), 1):
        file = write_file(root, l2=l2)
        text = file.read_text(encoding="utf-8")
        put_in_force(state, read_spec(file), path=file, text=text, now=clock.now(), by="test")
        system = open_system(state, "orders", clock, waits=True)
        system.submit_training("a test")
        while system.push_on():
            pass
        with state.catalog.read() as tx:
            assert current_route(tx, "orders").live == str(number)
    state.close()
    return root


@pytest.fixture
def deployed(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained` of one's own."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"
