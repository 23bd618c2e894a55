"""A small world to serve: two versions of one model, a lake in memory, a clock that stands still."""

from datetime import UTC, datetime

import numpy as np
import pytest

from holdfast.core.clock import ManualClock
from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Serve
from holdfast.engines.memory import MemoryLake
from holdfast.errors import Tampered
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder

NOW = datetime(2013, 5, 1, 12, tzinfo=UTC)

SIGNATURE = Signature(
    columns=(
        Column(name="dep_hour", type="integer", low=0, high=23, outside="refuse", nullable=False),
        Column(name="distance", type="number", low=80, high=5000),
        Column(name="carrier", type="category", categories=("AA", "UA", "DL")),
        Column(name="is_holiday", type="boolean"),
    ),
    task="classification",
    output="probability",
)

ROW = {"dep_hour": 8, "distance": 1000.0, "carrier": "AA", "is_holiday": False}


class HourModel:
    """Answers dep_hour / 100 plus a constant that tells the versions apart, and remembers its batches."""

    def __init__(self, plus: float = 0.0, signature: Signature = SIGNATURE) -> None:
        self.signature = signature
        self.plus = plus
        self.batches: list[int] = []

    def predict(self, rows):
        self.batches.append(rows.count)
        hours = rows.columns["dep_hour"]
        if (hours == 13).any():
            raise ArithmeticError("thirteen")
        return hours / 100 + self.plus


class FullDisk:
    """A lake on which nothing can be written."""

    def writer(self, table, system, schema):
        raise OSError(28, "No space left on device")


class World:
    """A data plane over a lake in memory. Artifact ``v<n>`` answers n + dep_hour / 100; ``bad`` cannot be loaded."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.lake = MemoryLake()
        self.models: dict[str, HourModel] = {}
        self.loads: list[str] = []
        self.plane = DataPlane(self.load, Recorder(self.lake.writer), self.clock)
        self.generation = 0

    def load(self, version: RoutedVersion) -> HourModel:
        self.loads.append(version.artifact)
        if version.artifact == "bad":
            raise Tampered(f"artifact of version {version.version} is not what was signed")
        return self.models.setdefault(version.artifact, HourModel(float(version.artifact.removeprefix("v"))))

    def version(self, artifact: str) -> RoutedVersion:
        return RoutedVersion(version=artifact.removeprefix("v"), artifact=artifact, directory=f"/artifacts/{artifact}")

    def system(self, live=None, canary=None, share=0.0, release="r1", **serve) -> RoutedSystem:
        return RoutedSystem(
            task="classification",
            output="probability",
            live=live and self.version(live),
            canary=canary and self.version(canary),
            canary_share=share,
            key="id",
            unit="tailnum",
            release=release,
            serve=Serve(**serve),
        )

    def follow(self, tokens=(), **systems: RoutedSystem):
        self.generation += 1
        return self.plane.follow(Routes(generation=self.generation, systems=systems, tokens=tokens))

    def serve(self, live="v1", **options):
        return self.follow(flights=self.system(live, **options))

    def recorded(self, system="flights"):
        return self.lake.scan("predictions", system)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def served(world: World) -> World:
    world.serve()
    return world


@pytest.fixture
def row() -> dict:
    return dict(ROW)


@pytest.fixture
def signature() -> Signature:
    return SIGNATURE


@pytest.fixture
def full_disk() -> FullDisk:
    return FullDisk()


@pytest.fixture
def rows_of():
    """Typed rows for a list of hours."""
    from holdfast.core.inputs import read_columns

    def make(hours, carriers=None):
        n = len(hours)
        return read_columns(
            SIGNATURE,
            {
                "dep_hour": np.array(hours, dtype=np.float64),
                "distance": np.full(n, 500.0),
                "carrier": carriers or ["AA"] * n,
                "is_holiday": np.zeros(n),
            },
        )

    return make
