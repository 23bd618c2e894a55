"""Incidents of a whole small system say what they mean: which column, since when, what it costs, what changed then."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.clock import ManualClock
from holdfast.core.evidence import Limit
from holdfast.core.inputs import read_frame
from holdfast.core.meaning import headline, reason
from holdfast.core.records import Incident
from holdfast.core.signature import Column
from holdfast.core.spec import (
    Data,
    Decide,
    Feed,
    Gate,
    Label,
    Model,
    Monitor,
    ReleasePlan,
    Response,
    Step,
    SystemSpec,
    Validate,
)
from holdfast.errors import JobFailed
from holdfast.flow.training import TrainingRequest, TrainingResult, train
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder, RowMeta
from holdfast.state import memory_state
from holdfast.system import System
from holdfast.testing import START
from holdfast.world import FixedFeeds, World, microseconds

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
ROWS = 60
BEGIN, BROKEN = 16, 30
"""Days from START on which the system begins, and on which x comes in thousands."""
DRIFT = Monitor(check="drift", name="drift", limit=Limit(at_most=3.0))
QUALITY = Monitor(check="quality", name="quality", options={"metric": "brier"})


def orders(days: int, *, broken_from: int, where_y_is_above: float) -> pl.DataFrame:
    """Assembled rows whose label depends on x; from a day on x is a thousandth of what it was, the truth is not."""
    rng = np.random.default_rng(7)
    n = days * ROWS
    x, y = rng.normal(size=n) + 3, rng.normal(size=n)
    late = rng.random(n) < 1 / (1 + np.exp(-3 * (x - 3)))
    is_broken = (np.arange(n) // ROWS >= broken_from) & (y > where_y_is_above)
    at = [START + timedelta(days=i // ROWS, minutes=20 * (i % ROWS)) for i in range(n)]
    frame = pl.DataFrame(
        {
            "key": [f"o{i}" for i in range(n)],
            "unit": [f"u{i % 17}" for i in range(n)],
            "event_at": at,
            "known_at": [each - timedelta(hours=1) for each in at],
            "x": np.where(is_broken, x / 1000, x),
            "y": y,
            "label": late.astype(np.float64),
            "label_known_at": [each + timedelta(hours=2) for each in at],
        }
    )
    return frame.with_columns(
        pl.col(name).cast(pl.Datetime("us", "UTC")) for name in ("event_at", "known_at", "label_known_at")
    )


def a_spec(**changes: Any) -> SystemSpec:
    columns = {each: Column(name=each, type="number") for each in ("x", "y")}
    spec = SystemSpec(
        system="orders",
        data=Data(
            feeds={"orders": Feed(from_="orders.parquet", event_at="at", known_at="listed_at", fresh=DAY)},
            rows="orders",
            key="id",
            label=Label(feed="orders", column="late", known_at="ended_at", mature_after=DAY),
            columns=columns,
        ),
        model=Model(task="classification", trainer="linear", validate=Validate(folds=1, holdout=5 * DAY)),
        gates=(Gate(check="quality", options={"metric": "roc_auc"}, limit=Limit(at_least=0.6), name="auc"),),
        release=ReleasePlan(steps=(Step(stage="live"),), decide=Decide(loss="brier", margin=0.03)),
        responses=(Response(on="any", do="notify"),),
    )
    return replace(spec, **changes)


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


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.flow.child.start", lambda request, **_: Here(request))


class Life:
    """A system with its traffic, day by day."""

    def __init__(self, directory: Path, spec: SystemSpec, rows: pl.DataFrame) -> None:
        self.state, self.clock, self.said = memory_state(directory), ManualClock(START + BEGIN * DAY), list[str]()
        self.world = World(rows, {"orders": np.sort(microseconds(rows["known_at"]))})
        self.system = System(spec, self.state, self.clock, FixedFeeds(self.world), waits=True, tell=self.said.append)
        self.plane = DataPlane(self.state.load_model, Recorder(self.state.lake.writer), self.clock)
        self.system.put_in_force()
        self.tick()

    def tick(self) -> None:
        while self.system.tick():
            pass
        with self.state.catalog.read() as tx:
            self.plane.follow(self.state.routes(tx))

    def days(self, count: int) -> list[Incident]:
        """The incidents on record after so many days."""
        for _ in range(count):
            self._answer(self.clock.now(), self.clock.now() + DAY)
            self.clock.advance(DAY)
            self.tick()
        with self.state.catalog.read() as tx:
            return tx.find(Incident, "orders")

    def _answer(self, after: datetime, until: datetime) -> None:
        traffic = self.world.rows_between(after, until)
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
        self.plane.predict_rows("orders", read_frame(self.plane.signature("orders"), traffic), meta)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Life]]:
    made: list[Life] = []

    def make(*monitors: Monitor, broken_from: int = BROKEN, where_y_is_above: float = -np.inf) -> Life:
        rows = orders(60, broken_from=broken_from, where_y_is_above=where_y_is_above)
        made.append(Life(tmp_path, a_spec(monitors=monitors), rows))
        return made[-1]

    yield make
    for life in made:
        life.system.close()


def test_a_unit_change_is_explained_by_its_column_its_day_and_its_cost(live: Callable[..., Life]) -> None:
    life = live(DRIFT)
    [opened] = life.days(BROKEN - BEGIN + 1)
    moved = f"drift {opened.subject}: {reason(opened.first)}."
    assert life.said == [f"{moved} {_capital(headline(opened))}"]
    [incident] = life.days(1)
    explained = incident.explained
    assert explained is not None
    first = (START + BROKEN * DAY).date()
    assert explained.column == "x"
    assert explained.began_low <= first <= explained.began_high
    assert explained.began == first
    assert explained.cost is not None
    assert explained.cost > 0.05
    assert (explained.loss, explained.basis) == ("brier", "estimate")
    assert [each.column for each in explained.ranking] == ["x", "y"]
    assert explained.ranking[1].cost < 0.01
    assert "which rows got worse" in explained.note


def test_it_is_explained_again_as_labels_come_and_then_says_where(live: Callable[..., Life]) -> None:
    life = live(replace(DRIFT, limit=Limit(at_most=1.0)), where_y_is_above=0.0)
    [opened] = life.days(BROKEN - BEGIN + 2)
    [incident] = life.days(13)
    assert opened.explained is not None
    assert not opened.explained.is_final
    explained = incident.explained
    assert explained is not None
    assert explained.is_final
    assert explained.at > opened.explained.at
    assert explained.began == (START + BROKEN * DAY).date()
    assert explained.slices[0].subject.startswith(("x < ", "y >= "))
    assert explained.slices[0].value > 0.1


def test_a_rise_of_the_loss_is_measured_and_laid_to_the_column_that_broke(live: Callable[..., Life]) -> None:
    life = live(QUALITY)
    found = life.days(BROKEN - BEGIN + 8)
    assert [each.cause for each in found] == ["quality"]
    explained = found[0].explained
    assert explained is not None
    assert (explained.basis, explained.column) == ("labels", "x")
    assert explained.began_low <= (START + BROKEN * DAY).date() <= explained.began_high
    assert explained.cost > 0.05


def test_what_a_short_history_cannot_say_is_said(live: Callable[..., Life]) -> None:
    life = live(Monitor(check="quality", name="quality", options={"metric": "brier"}, limit=Limit(at_most=0.0001)))
    [incident] = life.days(3)[:1]
    explained = incident.explained
    assert explained is not None
    assert explained.began is None
    assert "when it began by the daily brier" in explained.note
    assert not explained.is_final


def test_a_release_near_the_time_is_among_what_changed(live: Callable[..., Life]) -> None:
    life = live(DRIFT, broken_from=BEGIN + 1)
    [incident] = life.days(4)
    explained = incident.explained
    assert explained is not None
    assert any(each.what.startswith("version 1 live") for each in explained.changes)
    assert all(each.at <= incident.opened_at for each in explained.changes)
    assert "near it: version 1 live" in headline(incident)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
