"""Builders: what a test needs in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from holdfast.core.clock import ManualClock
from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.protocols import Field
from holdfast.core.records import (
    Baseline,
    ColumnCost,
    Comparison,
    Explanation,
    FileRef,
    Happening,
    Incident,
    Job,
    Mark,
    Move,
    Record,
    Release,
    Route,
    Run,
    Snapshot,
    SystemFile,
    Token,
    Version,
)
from holdfast.errors import HoldfastError

START = datetime(2013, 4, 1, tzinfo=UTC)
"""When builders say that things happened."""


def manual_clock(start: datetime = START) -> ManualClock:
    """A clock that moves when told to."""
    return ManualClock(start)


@contextmanager
def refused(error: type[HoldfastError], *words: str) -> Iterator[None]:
    """The block must raise `error` with all `words` in its message."""
    try:
        yield
    except error as raised:
        said = str(raised)
    else:
        raise AssertionError(f"not refused with {error.__name__}")
    missing = [word for word in words if word not in said]
    assert not missing, f"{missing} not in: {said}"


def hours(count: float) -> timedelta:
    """A duration of `count` hours."""
    return timedelta(hours=count)


HOUR = hours(1)


def a_verdict(value: float | None = 0.5) -> Verdict:
    """A verdict of a quality check."""
    reading = Reading(name="log_loss", value=value, rows=900, low=0.4, high=0.6)
    return Verdict(grade=Grade.PASS, check="quality", reading=reading, why="0.5 is at most 0.6", at=START)


def a_job(id: str = "job1", system: str = "flights", **changes: Any) -> Job:
    """A queued training job."""
    return Job(system=system, id=id, kind="train", at=START, **changes)


def one_of_each(system: str = "flights") -> list[Record]:
    """A record of every kind, with every field that is hard to store: times, NaN, infinities, nesting, no value."""
    move = Move(at=START, to="live", why="not worse by the margin")
    day = hours(24)
    return [
        SystemFile(
            system=system, id="file", path="holdfast.yaml", text="system: flights\n", spec_hash="ef" * 32, at=START
        ),
        Snapshot(
            system=system,
            id="0123456789abcdef",
            sha256="0123456789abcdef" * 4,
            blob="ab" * 32,
            at=START,
            rows=10,
            rows_read=12,
            rows_dropped=1,
            rows_quarantined=1,
            labelled=9,
            since=START - day,
            until=None,
            files=(FileRef(feed="flights", name="flights-1.csv", sha256="cd" * 32, rows=12),),
            spec_hash="ef" * 32,
            code="0.1.0",
            verdicts=(a_verdict(), a_verdict(None)),
        ),
        Run(
            system=system,
            id="run1",
            state="succeeded",
            snapshot="0123456789abcdef",
            trainer="lightgbm",
            params={"leaves": 31, "rates": [0.1, float("inf")], "since": START, "deep": {"a": None}},
            seed=7,
            started_at=START,
            metrics={"log_loss": 0.4, "roc_auc": float("nan")},
            folds=({"log_loss": float("nan")},),
            curves={"train": [0.6, 0.5], "valid": [0.6, float("inf")]},
            baselines=(Baseline(name="trivial", metrics={"roc_auc": float("nan")}),),
            holdout=(START - day, START),
            message="über 10 µs, «done» \u2603 \U0001f6eb",
        ),
        Version(
            system=system,
            id="1",
            run="run1",
            artifact="ab" * 32,
            bundle="cd" * 32,
            signature_hash="0123",
            at=START,
            signed_by="me",
            history=(move,),
        ),
        Release(
            system=system,
            id="rel1",
            state="shadow",
            run="run1",
            version="1",
            at=START,
            evidence=(a_verdict(),),
            comparison=Comparison(blocks=2, through=START, worse=(0.0, float("-inf"))),
            history=(move, move),
        ),
        Route(system=system, id="route", generation=3, live="1", canary_share=0.1, at=START),
        Incident(
            system=system,
            id="inc1",
            cause="quality:",
            check="quality",
            opened_at=START,
            last_at=START,
            first=a_verdict(),
            last=a_verdict(),
            actions=(move,),
            explained=Explanation(
                at=START,
                column="x",
                began=START.date(),
                ranking=(ColumnCost(column="x", cost=0.1),),
                changes=(Happening(at=START, what="version 3 live"),),
            ),
        ),
        a_job(system=system, payload={"run": "run1", "nothing": None}, lease_until=START),
        Mark(system=system, id="drift", last_at=START, memory={"wealth": float("-inf"), "seen": [1, 2.5], "at": START}),
        Token(system="*", id="tok1", name="first", sha256="ab" * 32, at=START),
    ]


PREDICTION_FIELDS = (
    Field("event_at", "time"),
    Field("prediction_id", "text"),
    Field("distance", "float"),
    Field("seats", "int"),
    Field("carrier", "text"),
)


def micros(time: datetime) -> int:
    """Microseconds since 1970, as lake columns hold times."""
    return round((time - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def predictions(ids: list[str], *, at: datetime = START, step: timedelta = HOUR, **changes: Any) -> dict[str, Any]:
    """Columns for `PREDICTION_FIELDS`, a row per id, `step` apart."""
    count = len(ids)
    return {
        "event_at": np.array([micros(at + step * i) for i in range(count)], dtype=np.int64),
        "prediction_id": ids,
        "distance": np.arange(count, dtype=np.float64),
        "seats": np.arange(count, dtype=np.int64),
        "carrier": ["AA"] * count,
    } | changes
