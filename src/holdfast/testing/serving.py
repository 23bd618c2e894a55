"""A small world to serve, and its fixtures: versions of one model, a lake in memory, a clock that stands still."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from holdfast.core.clock import ManualClock
from holdfast.core.inputs import FloatArray, read_columns
from holdfast.core.protocols import Field, Writer
from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes, TokenHash
from holdfast.core.signature import Column, Rows, Signature
from holdfast.core.spec import Serve
from holdfast.engines.memory import MemoryLake
from holdfast.errors import Tampered
from holdfast.serve.dataplane import Acknowledgement, DataPlane
from holdfast.serve.recording import Recorder

if TYPE_CHECKING:
    import polars as pl

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

    def predict(self, rows: Rows) -> FloatArray:
        """Outputs (n,). Raises ArithmeticError where an hour is 13."""
        self.batches.append(rows.count)
        hours: FloatArray = rows.columns["dep_hour"]
        if (hours == 13).any():
            raise ArithmeticError("thirteen")
        return hours / 100 + self.plus


class FullDisk:
    """A lake on which nothing can be written."""

    def writer(self, table: str, system: str, schema: Sequence[Field]) -> Writer:
        """Always raises OSError."""
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

    def load(self, version: RoutedVersion) -> Any:
        """The model of a version. Raises Tampered for the artifact ``bad``."""
        self.loads.append(version.artifact)
        if version.artifact == "bad":
            raise Tampered(f"artifact of version {version.version} is not what was signed")
        return self.models.setdefault(version.artifact, HourModel(float(version.artifact.removeprefix("v"))))

    def version(self, artifact: str) -> RoutedVersion:
        """A version with this artifact."""
        return RoutedVersion(version=artifact.removeprefix("v"), artifact=artifact, directory=f"/artifacts/{artifact}")

    def system(
        self, live: str | None = None, canary: str | None = None, share: float = 0.0, release: str = "r1", **serve: Any
    ) -> RoutedSystem:
        """How a system with these artifacts is routed."""
        return RoutedSystem(
            task="classification",
            output="probability",
            live=self.version(live) if live else None,
            canary=self.version(canary) if canary else None,
            canary_share=share,
            key="id",
            unit="tailnum",
            release=release,
            serve=Serve(**serve),
        )

    def follow(self, tokens: tuple[TokenHash, ...] = (), **systems: RoutedSystem) -> Acknowledgement:
        """Follow the next routes."""
        self.generation += 1
        return self.plane.follow(Routes(generation=self.generation, systems=systems, tokens=tokens))

    def serve(self, live: str = "v1", **options: Any) -> Acknowledgement:
        """Serve the system ``flights``."""
        return self.follow(flights=self.system(live, **options))

    def recorded(self, system: str = "flights") -> "pl.DataFrame":
        """What was recorded of a system."""
        return self.lake.scan("predictions", system)


@pytest.fixture
def world() -> World:
    """A world that serves nothing yet."""
    return World()


@pytest.fixture
def served(world: World) -> World:
    """A world that serves ``flights``."""
    world.serve()
    return world


@pytest.fixture
def row() -> dict[str, Any]:
    """A row that fits the signature."""
    return dict(ROW)


@pytest.fixture
def signature() -> Signature:
    """What the versions of a world take."""
    return SIGNATURE


@pytest.fixture
def full_disk() -> FullDisk:
    """A lake on which nothing can be written."""
    return FullDisk()


@pytest.fixture
def rows_of() -> Callable[..., Rows]:
    """Typed rows for a list of hours."""

    def make(hours: Sequence[float], carriers: Sequence[str] | None = None) -> Rows:
        n = len(hours)
        return read_columns(
            SIGNATURE,
            {
                "dep_hour": np.array(hours, dtype=np.float64),  # type: ignore[dict-item]
                "distance": np.full(n, 500.0),  # type: ignore[dict-item]
                "carrier": carriers or ["AA"] * n,
                "is_holiday": np.zeros(n),  # type: ignore[dict-item]
            },
        )

    return make
