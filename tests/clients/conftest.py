"""A real worker with two small models, and the interpreter of the foreign clients that ask it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from holdfast.core.inputs import read_columns
from holdfast.core.model import Facts
from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes, encode
from holdfast.core.signature import Column, Signature
from holdfast.core.transform import fit
from holdfast.security.artifacts import describe
from holdfast.security.signing import Keys, create_keys, sign
from holdfast.serve.heartbeat import read_heartbeat
from holdfast.serve.supervisor import listen
from holdfast.tasks.classification import Classification
from holdfast.trainers.lightgbm import LightGBM

collect_ignore = ["scripts"]  # they run in the environment of the clients
HERE = Path(__file__).parent
CLIENTS = HERE.parents[1] / ".venv-clients" / "bin" / "python"
WORKER = HERE.parent / "e2e" / "serving_worker.py"

FLIGHTS = (
    Column(name="dep_hour", type="integer", low=0, high=23, outside="refuse", nullable=False),
    Column(name="distance", type="number"),
    Column(name="carrier", type="category", categories=("AA", "UA")),
    Column(name="is_holiday", type="boolean"),
)
PUMPS = (
    Column(name="pressure", type="number"),
    Column(name="flow", type="number"),
    Column(name="speed", type="number"),
)


def train(root: Path, name: str, columns: tuple[Column, ...], keys: Keys) -> RoutedSystem:
    """A signed version 1 of a small real model, and the route to it."""
    signature = Signature(columns=columns, task="classification", output="probability")
    rng, n = np.random.default_rng(7), 600
    drawn: dict[str, Any] = {
        "integer": lambda: rng.integers(0, 24, n).astype(float),
        "number": lambda: rng.normal(10, 8, n),
        "category": lambda: rng.choice(["AA", "UA"], n).tolist(),
        "boolean": lambda: rng.random(n) < 0.5,
    }
    values = {column.name: drawn[column.type]() for column in columns}
    rows = read_columns(signature, values)
    y = (values[columns[0].name] + values[columns[1].name] + rng.normal(0, 4, n) > 20).astype(float)
    transform = fit(signature, rows, y)
    trained = LightGBM(trees=20, min_rows_per_leaf=10).fit(
        transform.matrix(rows), y, valid=None, task=Classification(), categories=transform.sizes, seed=7
    )
    directory = root / "artifacts" / name
    directory.mkdir(parents=True)
    facts = Facts(
        system=name, task="classification", trainer="lightgbm", params={}, seed=7, parity="",
        runtime=trained.export(directory), rows=n, trained_from="2013-01-01", trained_until="2013-04-01",
    )  # fmt: skip
    for file, data in describe(signature, transform, facts).items():
        (directory / file).write_bytes(data)
    bundle = root / "artifacts" / f"{name}.bundle"
    bundle.write_bytes(sign(directory, keys.private))
    live = RoutedVersion(version="1", artifact=name, directory=str(directory), bundle=str(bundle))
    return RoutedSystem(task="classification", output="probability", live=live, key="id", unit="tailnum")


@pytest.fixture(scope="package")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a real worker serves the systems ``flights`` and ``pumps``."""
    root = tmp_path_factory.mktemp("clients")
    (root / "run").mkdir()
    keys = create_keys(root / "keys")
    systems = {"flights": train(root, "flights", FLIGHTS, keys), "pumps": train(root, "pumps", PUMPS, keys)}
    (root / "routes.json").write_bytes(encode(Routes(generation=1, systems=systems)))
    with listen() as listening:
        argv = [sys.executable, str(WORKER), "worker", str(listening.fileno()), str(root)]
        process = subprocess.Popen(argv, pass_fds=[listening.fileno()])
        end = time.monotonic() + 30
        while (beat := read_heartbeat(root / "run", "worker")) is None or beat.generation < 1 or beat.held:
            assert process.poll() is None, "the worker ended"
            assert time.monotonic() < end, f"not in time: {beat}"
            time.sleep(0.02)
        yield "http://{}:{}".format(*listening.getsockname())
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture(scope="package")
def interpreter() -> Path:
    """The interpreter of the clients."""
    if not CLIENTS.exists():
        pytest.skip("the foreign clients are not installed: make clients")
    return CLIENTS


@pytest.fixture(scope="package")
def client(interpreter: Path, url: str) -> Callable[[str], Any]:
    """Runs one of `scripts` against the worker and gives what it printed as JSON."""

    def run(name: str) -> Any:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        argv = [str(interpreter), "-W", "ignore", str(HERE / "scripts" / name), url]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="package")
def plain(url: str) -> Callable[..., list[float]]:
    """The answers to plain JSON rows, which what foreign clients get is compared with."""

    def ask(system: str, *rows: dict[str, Any]) -> list[float]:
        answer = httpx.post(f"{url}/predict/{system}", json={"rows": rows})
        return [each["probability"] for each in answer.json()["predictions"]]

    return ask
