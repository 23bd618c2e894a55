"""A whole system in memory on a clock by hand: each day its rows are answered, then what is due is done."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from msgspec.structs import replace

from holdfast.core.clock import ManualClock
from holdfast.core.evidence import Limit
from holdfast.core.inputs import read_frame
from holdfast.core.protocols import READINGS
from holdfast.core.records import Release
from holdfast.core.signature import Column
from holdfast.core.spec import Data, Decide, Feed, Gate, Label, Model, ReleasePlan, Step, SystemSpec, Validate
from holdfast.errors import JobFailed
from holdfast.flow.registry import current_route
from holdfast.flow.training import TrainingRequest, TrainingResult, train
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder, RowMeta
from holdfast.state import State
from holdfast.system import System
from holdfast.testing import START
from holdfast.world import FixedFeeds, World, microseconds

DAY = timedelta(days=1)
ROWS = 60
"""Rows a day."""
BEGIN = 16
"""The day, from START, on which a system of orders begins; what lies before is its history."""
QUALITY = Gate(check="quality", options={"metric": "roc_auc"}, limit=Limit(at_least=0.6), name="auc")
SHADOW, CANARY, LIVE = (
    Step(stage="shadow", least=DAY),
    Step(stage="canary", share=0.2, least=DAY),
    Step(stage="live"),
)
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


class Here:
    """Trains in this process, at once: what a child process would have given."""

    def __init__(self, request: TrainingRequest) -> None:
        self._request = request

    def wait(self, timeout_s: float | None = None) -> TrainingResult:
        try:
            return train(self._request)
        except Exception as error:
            raise JobFailed(f"training failed: {error}") from error

    poll = wait

    def kill(self) -> None:
        """Nothing runs between calls."""


class Life:
    """A system with its traffic. It is in force from the start; its first tick is the caller's."""

    def __init__(self, state: State, spec: SystemSpec, world: World, clock: ManualClock, **options: Any) -> None:
        self.state, self.spec, self.world, self.clock = state, spec, world, clock
        self.said: list[str] = []
        feeds = options.pop("feeds", None) or FixedFeeds(world)
        self.system = System(spec, state, clock, feeds, waits=True, tell=self.said.append, **options)
        self.plane = DataPlane(state.load_model, Recorder(state.lake.writer), clock)
        self.system.put_in_force()
        self.done: list[str] = []
        self.answered = np.empty(0)
        """The answers of the newest day, (n,) or (n, classes)."""

    def tick(self) -> list[str]:
        done: list[str] = []
        while more := self.system.tick():
            done += more
        with self.state.catalog.read() as tx:
            self.plane.follow(self.state.routes(tx))
        self.done += done
        return done

    def days(self, count: int) -> list[str]:
        """What was done in so many days."""
        before = len(self.done)
        for _ in range(count):
            self._answer(self.clock.now(), self.clock.now() + DAY)
            self.clock.advance(DAY)
            self.tick()
        return self.done[before:]

    def until(self, is_over: Callable[["Life"], bool], most: int) -> int:
        """Days until something is so; fails after `most`."""
        for day in range(1, most + 1):
            self.days(1)
            if is_over(self):
                return day
        raise AssertionError(f"not in {most} days: {self.done[-5:]}")

    def _answer(self, after: datetime, until: datetime) -> None:
        traffic = self.world.rows_between(after, until)
        if not self.live or not traffic.height:
            return
        keys, known = traffic["key"].to_list(), microseconds(traffic["known_at"])
        meta = RowMeta(
            request_id=keys,
            row=np.zeros(len(keys), dtype=np.int64),
            key=keys,
            unit=traffic["unit"].to_list(),
            event_at=microseconds(traffic["event_at"]),
            features_known_at=known,
            predicted_at=known,
        )
        rows = read_frame(self.plane.signature(self.spec.system), traffic)
        self.answered = self.plane.predict_rows(self.spec.system, rows, meta)
        assert len(self.answered) == traffic.height

    def all(self, kind: Any) -> list[Any]:
        """The records of a kind, oldest first."""
        with self.state.catalog.read() as tx:
            found: list[Any] = tx.find(kind, self.spec.system)
        return found

    def readings(self, name: str) -> pl.DataFrame:
        """What monitors read, oldest first."""
        return self.state.lake.scan(READINGS.name, self.spec.system).filter(pl.col("name") == name).sort("at")

    @property
    def newest(self) -> Release:
        release: Release = self.all(Release)[-1]
        return release

    @property
    def live(self) -> str:
        with self.state.catalog.read() as tx:
            return current_route(tx, self.spec.system).live


def assembled(x: Floats, y: Floats, late: np.ndarray, prefix: str = "o") -> pl.DataFrame:
    """Rows of orders as they are joined for training, `ROWS` a day from START on."""
    n = len(x)
    at = [START + timedelta(days=i // ROWS, minutes=20 * (i % ROWS)) for i in range(n)]
    frame = pl.DataFrame(
        {
            "key": [f"{prefix}{i}" for i in range(n)],
            "unit": [f"u{i % 17}" for i in range(n)],
            "event_at": at,
            "known_at": [each - timedelta(hours=1) for each in at],
            "x": x,
            "y": y,
            "label": late.astype(np.float64),
            "label_known_at": [each + timedelta(hours=2) for each in at],
        }
    )
    times = [pl.col(name).cast(pl.Datetime("us", "UTC")) for name in ("event_at", "known_at", "label_known_at")]
    return frame.with_columns(times)


def a_world(rows: pl.DataFrame) -> World:
    """The world of orders with these rows."""
    return World(rows, {"orders": np.sort(microseconds(rows["known_at"]))})


def a_spec(name: str = "orders", **changes: Any) -> SystemSpec:
    """A system over `x` and `y` of orders, released in three steps."""
    columns = {each: Column(name=each, type="number") for each in ("x", "y")}
    spec = SystemSpec(
        system=name,
        data=Data(
            feeds={"orders": Feed(from_="orders.parquet", event_at="at", known_at="listed_at", fresh=DAY)},
            rows="orders",
            key="id",
            label=Label(feed="orders", column="late", known_at="ended_at", mature_after=DAY),
            columns=columns,
        ),
        model=Model(task="classification", trainer="linear", validate=Validate(folds=1, holdout=5 * DAY)),
        gates=(QUALITY,),
        release=ReleasePlan(steps=(SHADOW, CANARY, LIVE), decide=Decide(loss="brier", margin=0.03)),
    )
    return replace(spec, **changes)
