"""A small system in memory for the loop's stages: its file, a transaction, a lake with answers and labels."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest

from holdfast.core.answerer import Answerer
from holdfast.core.evidence import Block, Grade, Limit, Reading, Verdict
from holdfast.core.inputs import read_columns
from holdfast.core.protocols import Transaction
from holdfast.core.records import Explanation, Incident, Run
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Data, Decide, Gate, Label, Model, Monitor, ReleasePlan, Response, Step, SystemSpec
from holdfast.engines.memory import MemoryCatalog, MemoryLake
from holdfast.flow import explanations
from holdfast.flow.case import Case
from holdfast.flow.dailies import Dailies
from holdfast.flow.monitors import Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.serve.recording import Recorder, RowMeta
from holdfast.stats import histogram
from holdfast.tasks.classification import Classification
from holdfast.testing import START, micros

DAY = timedelta(days=1)
COLUMNS = {name: Column(name=name, type="number") for name in ("x", "y")}
SIGNATURE = Signature(columns=tuple(COLUMNS.values()), task="classification", output="probability")


@pytest.fixture
def tx() -> Iterator[Transaction]:
    with MemoryCatalog().begin() as made:
        yield made


@pytest.fixture
def lake() -> MemoryLake:
    return MemoryLake()


@pytest.fixture
def a_spec() -> Callable[..., SystemSpec]:
    """`a_spec(timezone=..., mature_after=..., steps=..., decide=..., gates=..., monitors=..., responses=...)`."""

    def make(
        *,
        timezone: str = "UTC",
        mature_after: timedelta = DAY,
        steps: Sequence[Step] = (Step(stage="live"),),
        decide: Decide = Decide(loss="brier", margin=0.01),  # noqa: B008 - frozen
        gates: Sequence[Gate] = (Gate(check="quality", options={"metric": "brier"}, limit=Limit(at_most=0.5)),),
        monitors: Sequence[Monitor] = (),
        responses: Sequence[Response] = (),
        columns: dict[str, Column] = COLUMNS,
        **more: Any,
    ) -> SystemSpec:
        label = Label(feed="orders", column="late", known_at="ended_at", mature_after=mature_after)
        return SystemSpec(
            system="orders",
            data=Data(feeds={}, rows="orders", key="id", timezone=timezone, label=label, columns=columns),
            model=Model(task="classification", trainer="lightgbm"),
            gates=tuple(gates),
            release=ReleasePlan(steps=tuple(steps), decide=decide),
            monitors=tuple(monitors),
            responses=tuple(responses),
            **more,
        )

    return make


class Traffic:
    """Writes answers and labels into a lake as the data plane does."""

    def __init__(self, lake: MemoryLake) -> None:
        self.recorder = Recorder(lake.writer)
        self.asked = 0

    def answer(
        self,
        at: Sequence[datetime],
        outputs: Sequence[float],
        *,
        keys: Sequence[str | None] | None = None,
        version: str = "1",
        stage: Literal["live", "canary", "batch"] = "live",
        predicted_at: Sequence[datetime] | None = None,
        **columns: Any,
    ) -> list[str | None]:
        """Answers to rows of these event times; returns their keys."""
        n = len(at)
        named = list(keys) if keys is not None else [f"k{self.asked + i}" for i in range(n)]
        values = {name: np.asarray(columns.get(name, np.zeros(n)), dtype=np.float64) for name in COLUMNS}
        meta = RowMeta(
            request_id=[f"r{self.asked + i}" for i in range(n)],
            row=np.zeros(n, dtype=np.int64),
            key=named,
            unit=[None] * n,
            event_at=np.array([micros(each) for each in at], dtype=np.int64),
            features_known_at=np.array([micros(each) for each in at], dtype=np.int64),
            predicted_at=np.array([micros(each) for each in predicted_at or at], dtype=np.int64),
        )
        by = Answerer(
            system="orders", version=version, stage=stage, release="", signature=SIGNATURE, signature_hash="s"
        )
        rows = read_columns(SIGNATURE, values)
        outputs = np.asarray(outputs, dtype=np.float64)
        self.recorder.record_predictions(by, rows, outputs, meta, queue_us=np.full(n, 500.0), run_us=1000.0)
        self.asked += n
        return named

    def label(self, keys: Sequence[str], values: Sequence[float], known_at: datetime, *, revision: int = 0) -> None:
        """Labels that became known at one time."""
        n = len(keys)
        known = np.full(n, micros(known_at), dtype=np.int64)
        self.recorder.record_labels(
            "orders",
            output="probability",
            keys=keys,
            values=np.asarray(values, dtype=np.float64),
            known_at=known,
            ingested_at=known,
            revisions=np.full(n, revision, dtype=np.int64),
        )

    def day(self, day: int, outputs: Sequence[float], labels: Sequence[float], *, version: str = "1") -> None:
        """A day of rows at noon, `day` days after START, whose labels are known an hour later."""
        noon = START + timedelta(days=day, hours=12)
        keys = self.answer([noon] * len(outputs), outputs, version=version)
        self.label([str(key) for key in keys], labels, noon + timedelta(hours=1))


@pytest.fixture
def traffic(lake: MemoryLake) -> Traffic:
    return Traffic(lake)


def a_graded(grade: Grade, subject: str = "", *, monitor: str = "m", check: str = "drift") -> Verdict:
    reading = Reading(name="psi", value=None if grade is Grade.UNKNOWN else 1.0, subject=subject)
    return Verdict(grade=grade, check=check, reading=reading, why=f"{subject} {grade.value}", monitor=monitor)


@pytest.fixture
def graded() -> Callable[..., Verdict]:
    """`graded(Grade.FAIL, "temp", monitor="m")`: a verdict."""
    return a_graded


@pytest.fixture
def a_run() -> Callable[..., Run]:
    """`a_run("run-1")`: a run that succeeded."""

    def make(id: str = "run-1", **changes: Any) -> Run:
        facts = {"snapshot": "s", "trainer": "linear", "seed": 7, "started_at": START, "artifact": f"artifact of {id}"}
        return Run(system="orders", id=id, state="succeeded", **{**facts, **changes})

    return make


WATCHED_ROWS = 80
WATCHED_DAYS, BROKEN_ON = 40, 36
"""Days of answers, and the one on which x and y come in other units."""


def an_answer(rows: pl.DataFrame) -> Any:
    """A model that heeds x much and y a little."""
    score = 2.0 * rows["x"].fill_null(0).to_numpy() + 0.2 * rows["y"].fill_null(0).to_numpy()
    return 1 / (1 + np.exp(-score))


class Watched:
    """A system with days of answers in a lake, and a reference of the month before."""

    def __init__(self, lake: MemoryLake, traffic: Any, spec: SystemSpec) -> None:
        self.spec, self.task = spec, Classification()
        random = np.random.default_rng(3)
        x, y = random.normal(size=30 * WATCHED_ROWS), random.normal(size=30 * WATCHED_ROWS)
        p = an_answer(pl.DataFrame({"x": x, "y": y}))
        label = (random.random(30 * WATCHED_ROWS) < p).astype(float)
        before = pl.DataFrame({"x": x, "y": y, "probability": p, "label": label})
        blocks = []
        for k in range(30):
            start = START - (30 - k) * DAY
            blocks.append(
                Block(start.date(), start, start + DAY, lambda k=k: before[k * WATCHED_ROWS : (k + 1) * WATCHED_ROWS])
            )
        signature = Signature(
            columns=tuple(Column(name=n, type="number") for n in ("x", "y")), task="t", output="probability"
        )
        edges = {name: histogram.edges_of(before[name].to_numpy()) for name in ("x", "y", "probability")}
        self.reference = Reference(
            version="1", blocks=tuple(blocks), facts={"edges": edges, "signature": signature}, promised={}
        )
        for day in range(WATCHED_DAYS):
            x, y = random.normal(size=WATCHED_ROWS), random.normal(size=WATCHED_ROWS)
            truth = an_answer(pl.DataFrame({"x": x, "y": y}))
            if day >= BROKEN_ON:
                x, y = x - 2, y - 2
            at = [START + day * DAY + timedelta(hours=12)] * WATCHED_ROWS
            keys = traffic.answer(at, an_answer(pl.DataFrame({"x": x, "y": y})), x=x, y=y)
            traffic.label(keys, (random.random(WATCHED_ROWS) < truth).astype(float), at[0] + timedelta(hours=1))
        self.live = LivePredictions(spec, lake, "probability")
        self.now = START + WATCHED_DAYS * DAY
        self.broken_on = (START + BROKEN_ON * DAY).date()
        self.answer = an_answer

    def case(self, incident: Incident, model: Any = an_answer, live: LivePredictions | None = None) -> Case:
        """An incident under examination."""
        return Case(incident, self.spec, self.task, self.reference, live or self.live, model, self.now)

    def days(self, loss: str = "brier") -> Dailies:
        return Dailies(self.task, self.reference, self.live, loss, self.now)

    def explained(self, incident: Incident, model: Any = an_answer, **more: Any) -> Explanation:
        return explanations.explain(self.case(incident, model, more.get("live")), more.get("changes", ()))

    def of(self, check: str, subject: str = "", also: tuple[str, ...] = (), name: str = "psi") -> Incident:
        reading = Reading(name=name, value=1.0, subject=subject)
        bad = Verdict(grade=Grade.FAIL, check=check, reading=reading, why="it moved", monitor="m")
        return Incident(
            system="orders", id="inc-1", cause=check, check=check, subject=subject, also=also,
            opened_at=self.now, last_at=self.now, first=bad, last=bad,
        )  # fmt: skip


@pytest.fixture
def watched(lake: MemoryLake, traffic: Any, a_spec: Callable[..., SystemSpec]) -> Watched:
    """A system whose two columns broke on its last days; `broken_on` is the first of them."""
    return Watched(lake, traffic, a_spec(monitors=(Monitor(check="drift", name="m"),)))
