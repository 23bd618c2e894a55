"""Two signed versions of a small real model, served by a real supervisor with real workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import polars as pl
import psutil

from holdfast.core.inputs import read_columns
from holdfast.core.model import Facts
from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes, encode
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Serve
from holdfast.core.transform import fit
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import Manifest, MemoryManifest
from holdfast.security.artifacts import describe
from holdfast.security.signing import create_keys, sign
from holdfast.serve.heartbeat import Heartbeat, read_heartbeat
from holdfast.serve.supervisor import Patience
from holdfast.tasks.classification import Classification
from holdfast.trainers.lightgbm import LightGBM

from ..lines import next_line

SUPERVISOR = Path(__file__).with_name("serving_supervisor.py")
DEADLINE_S = 60.0
SIGNATURE = Signature(
    columns=(
        Column(name="dep_hour", type="integer", low=0, high=23, nullable=False),
        Column(name="distance", type="number"),
        Column(name="carrier", type="category", categories=("AA", "UA")),
    ),
    task="classification",
    output="probability",
)
ROW = {"dep_hour": 8, "distance": 1000.0, "carrier": "UA", "tailnum": "N1"}


def train_versions(root: Path) -> None:
    """Train and sign the versions 1 and 2 below ``artifacts``, with the keys beside them."""
    keys = create_keys(root / "keys")
    rng = np.random.default_rng(7)
    n = 600
    columns = {
        "dep_hour": rng.integers(0, 24, n).astype(float),
        "distance": rng.normal(1000, 300, n),
        "carrier": rng.choice(["AA", "UA"], n).tolist(),
    }
    rows = read_columns(SIGNATURE, columns)
    y = (columns["dep_hour"] + rng.normal(0, 6, n) > 14).astype(float)
    for version, trees in (("1", 20), ("2", 40)):
        transform = fit(SIGNATURE, rows, y)
        trained = LightGBM(trees=trees, min_rows_per_leaf=20).fit(
            transform.matrix(rows), y, valid=None, task=Classification(), categories=transform.sizes, seed=7
        )
        directory = root / "artifacts" / version
        directory.mkdir(parents=True)
        facts = Facts(
            system="flights", task="classification", trainer="lightgbm", params={}, seed=7, parity="",
            runtime=trained.export(directory), rows=n, trained_from="2013-01-01", trained_until="2013-04-01",
        )  # fmt: skip
        for name, data in describe(SIGNATURE, transform, facts).items():
            (directory / name).write_bytes(data)
        (root / "artifacts" / f"{version}.bundle").write_bytes(sign(directory, keys.private))


def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Look at real processes until something holds; returns it."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.01)
    return found


class Deployment:
    """One supervisor process and its workers, on a root with keys and artifacts."""

    def __init__(
        self, root: Path, workers: int, patience: Patience, environment: dict[str, str] | None = None, **serve: Any
    ) -> None:
        self.root = root
        self.names = [f"worker-{number}" for number in range(workers)]
        self.generation = 0
        self.run_dir.mkdir(exist_ok=True)
        self.lake.mkdir(exist_ok=True)
        self._patience = patience
        self._environment = environment or {}
        self.route("1", **serve)
        self.start()

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def routes(self) -> Path:
        return self.root / "routes.json"

    @property
    def log(self) -> str:
        """What supervisor and workers said so far."""
        return (self.root / "log").read_text()

    def start(self) -> None:
        """Start the supervisor; returns when every worker serves the newest routes."""
        for beat in self.run_dir.glob("*.json"):
            beat.unlink()
        argv = [sys.executable, str(SUPERVISOR), str(self.root), str(len(self.names))]
        argv.append(msgspec.json.encode(self._patience).decode())
        with (self.root / "log").open("a") as log:
            self.process = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **self._environment}
            )
        self.port = int(next_line(self.process, "the port", log=self.root / "log"))
        until(lambda: self.serves(self.generation), f"the workers\n{self.log}")

    def route(self, version: str, *, canary: str = "", share: float = 0.0, **serve: Any) -> int:
        """Put a version live, perhaps beside a canary, in routes of their own generation."""
        self.generation += 1
        system = RoutedSystem(
            task="classification",
            output="probability",
            live=self._routed(version),
            canary=self._routed(canary) if canary else None,
            canary_share=share,
            key="id",
            unit="tailnum",
            release=f"rel-{self.generation}",
            serve=Serve(**serve),
        )
        self.write_routes(encode(Routes(generation=self.generation, systems={"flights": system})))
        return self.generation

    def _routed(self, version: str) -> RoutedVersion:
        at = self.root / "artifacts"
        return RoutedVersion(
            version=version, artifact=version, directory=str(at / version), bundle=str(at / f"{version}.bundle")
        )

    def write_routes(self, data: bytes) -> None:
        temporary = self.root / "routes.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, self.routes)

    def beat(self, name: str) -> Heartbeat | None:
        return read_heartbeat(self.run_dir, name)

    def pid(self, name: str) -> int:
        """Process id by the last sign of life."""
        return int(until(lambda: self.beat(name), f"a sign of life of {name}\n{self.log}").pid)

    def serves(self, generation: int) -> bool:
        """Whether every worker serves these routes or later ones, wherever it has them from."""
        beats = [self.beat(name) for name in self.names]
        return all(beat is not None and beat.generation >= generation and not beat.held for beat in beats)

    def is_replaced(self, name: str, pid: int) -> bool:
        """Whether another process of that name serves the newest routes."""
        beat = self.beat(name)
        return beat is not None and beat.pid != pid and beat.generation == self.generation

    def ports_of(self, pid: int) -> set[int]:
        """The clients' ports of the connections that a process has accepted."""
        found = psutil.Process(pid).net_connections("tcp")
        return {each.raddr.port for each in found if each.raddr and each.laddr.port == self.port}

    def predict(self, request_id: str, **row: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}/predict/flights"
        return httpx.post(url, json=ROW | row, headers={"x-request-id": request_id}, timeout=20)

    def recorded(self, manifest: Manifest | None = None) -> pl.DataFrame:
        """All predictions as a scan gives them."""
        return FileLake(self.lake, manifest or MemoryManifest()).scan("predictions", "flights")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the supervisor and wait for its end; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()
