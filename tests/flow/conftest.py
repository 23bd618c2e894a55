"""A small system in memory for the loop's stages: its file, a transaction, a lake with answers and labels."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import pytest

from holdfast.core.answerer import Answerer
from holdfast.core.evidence import Grade, Limit, Reading, Verdict
from holdfast.core.inputs import read_columns
from holdfast.core.protocols import Transaction
from holdfast.core.records import Run
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Data, Decide, Gate, Label, Model, Monitor, ReleasePlan, Response, Step, SystemSpec
from holdfast.engines.memory import MemoryCatalog, MemoryLake
from holdfast.serve.recording import Recorder, RowMeta
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
