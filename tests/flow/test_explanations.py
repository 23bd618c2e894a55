"""Explanations: the column, the day, the cost; what cannot be said is said, and nothing costs an incident."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.evidence import Block, Grade, Reading, Verdict
from holdfast.core.protocols import Transaction
from holdfast.core.records import Explanation, Happening, Incident, Mark, Move, Release, Snapshot, Version
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Feed, Monitor, SystemSpec
from holdfast.engines.memory import MemoryLake
from holdfast.flow import explanations
from holdfast.flow.dailies import Dailies
from holdfast.flow.happenings import happenings, near
from holdfast.flow.monitors import Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.stats import histogram
from holdfast.tasks.classification import Classification
from holdfast.testing import START

DAY = timedelta(days=1)
ROWS = 80
DAYS, BROKEN = 40, 36
"""Days of answers, and the one on which x and y come in other units."""
MakeSpec = Callable[..., SystemSpec]


def answer(rows: pl.DataFrame) -> Any:
    """A model that heeds x much and y a little."""
    score = 2.0 * rows["x"].fill_null(0).to_numpy() + 0.2 * rows["y"].fill_null(0).to_numpy()
    return 1 / (1 + np.exp(-score))


class Watched:
    """A system with days of answers in a lake, and a reference of the month before."""

    def __init__(self, lake: MemoryLake, traffic: Any, spec: SystemSpec) -> None:
        self.spec, self.task = spec, Classification()
        random = np.random.default_rng(3)
        x, y = random.normal(size=30 * ROWS), random.normal(size=30 * ROWS)
        p = answer(pl.DataFrame({"x": x, "y": y}))
        label = (random.random(30 * ROWS) < p).astype(float)
        before = pl.DataFrame({"x": x, "y": y, "probability": p, "label": label})
        blocks = []
        for k in range(30):
            start = START - (30 - k) * DAY
            blocks.append(Block(start.date(), start, start + DAY, lambda k=k: before[k * ROWS : (k + 1) * ROWS]))
        signature = Signature(
            columns=tuple(Column(name=n, type="number") for n in ("x", "y")), task="t", output="probability"
        )
        edges = {name: histogram.edges_of(before[name].to_numpy()) for name in ("x", "y", "probability")}
        self.reference = Reference(
            version="1", blocks=tuple(blocks), facts={"edges": edges, "signature": signature}, promised={}
        )
        for day in range(DAYS):
            x, y = random.normal(size=ROWS), random.normal(size=ROWS)
            truth = answer(pl.DataFrame({"x": x, "y": y}))
            if day >= BROKEN:
                x, y = x - 2, y - 2
            at = [START + day * DAY + timedelta(hours=12)] * ROWS
            keys = traffic.answer(at, answer(pl.DataFrame({"x": x, "y": y})), x=x, y=y)
            traffic.label(keys, (random.random(ROWS) < truth).astype(float), at[0] + timedelta(hours=1))
        self.live = LivePredictions(spec, lake, "probability")
        self.now = START + DAYS * DAY

    def explained(self, incident: Incident, model: Any = answer, **more: Any) -> Explanation:
        live = more.get("live", self.live)
        changes = more.get("changes", ())
        return explanations.explain(incident, self.spec, self.task, self.reference, live, model, changes, self.now)

    def of(self, check: str, subject: str = "", also: tuple[str, ...] = (), name: str = "psi") -> Incident:
        reading = Reading(name=name, value=1.0, subject=subject)
        bad = Verdict(grade=Grade.FAIL, check=check, reading=reading, why="it moved", monitor="m")
        return Incident(
            system="orders", id="inc-1", cause=check, check=check, subject=subject, also=also,
            opened_at=self.now, last_at=self.now, first=bad, last=bad,
        )  # fmt: skip


@pytest.fixture
def watched(lake: MemoryLake, traffic: Any, a_spec: MakeSpec) -> Watched:
    return Watched(lake, traffic, a_spec(monitors=(Monitor(check="drift", name="m"),)))


def test_of_two_columns_that_broke_the_costlier_is_named_whichever_moved_farther(watched: Watched) -> None:
    explained = watched.explained(watched.of("drift", "y", also=("x",)))
    assert explained.column == "x"
    assert [each.column for each in explained.ranking] == ["x", "y"]
    assert explained.began_low <= (START + BROKEN * DAY).date() <= explained.began_high
    assert explained.cost > 0.1
    assert explained.cost == explained.ranking[0].cost
    assert explained.cost_low < explained.cost < explained.cost_high


def test_the_cost_of_a_rise_is_the_difference_of_the_labelled_days(watched: Watched) -> None:
    explained = watched.explained(watched.of("quality", name="brier"))
    since = (START + BROKEN * DAY).date()
    blocks = [watched.live.labelled_block((START + k * DAY).date()) for k in range(DAYS - 1)]
    losses = {b.day: float(((b.rows()["label"] - b.rows()["probability"]) ** 2).mean()) for b in blocks}
    after = np.mean([loss for day, loss in losses.items() if day >= since])
    before = np.mean([loss for day, loss in losses.items() if day < since][-28:])
    assert explained.began == since
    assert explained.cost == pytest.approx(after - before, rel=1e-6)
    assert (explained.basis, explained.column) == ("labels", "x")


def test_segments_are_said_with_their_interval(watched: Watched) -> None:
    explained = watched.explained(watched.of("drift", "x"))
    assert explained.slices
    assert not explained.is_final, "three days have labels: more can be said later"
    assert all(each.subject.startswith(("x", "y")) and each.low <= each.value <= each.high for each in explained.slices)


def test_a_model_that_cannot_be_asked_costs_the_ranking_only(watched: Watched) -> None:
    explained = watched.explained(watched.of("drift", "x"), model=None)
    assert "served elsewhere" in explained.note
    assert (explained.ranking, explained.cost) == ((), None)
    assert explained.began is not None


def test_a_model_that_fails_is_said_and_the_rest_stands(watched: Watched) -> None:
    def broken(rows: pl.DataFrame) -> Any:
        raise RuntimeError("out of order")

    explained = watched.explained(watched.of("drift", "x"), model=broken)
    assert "RuntimeError: out of order" in explained.note
    assert explained.began == (START + BROKEN * DAY).date()
    assert explained.slices


def test_days_that_cannot_be_read_are_said(watched: Watched) -> None:
    class Gone(LivePredictions):
        def last_complete_day(self, now: Any) -> date:
            raise OSError("no such lake")

    explained = watched.explained(watched.of("drift", "x"), live=Gone(watched.spec, MemoryLake(), "probability"))
    assert "OSError: no such lake" in explained.note
    assert not explained.is_final


def test_without_a_day_of_answers_nothing_is_said_but_that(watched: Watched) -> None:
    watched.now = START - 100 * DAY
    explained = watched.explained(watched.of("quality", name="brier"))
    assert explained.note == "no day with answers is complete yet"
    assert explained.began is None


def test_an_incident_about_a_moment_names_what_changed_before_it(watched: Watched) -> None:
    changes = tuple(Happening(at=watched.now - k * DAY, what=f"{k} days ago") for k in (20, 3, 1))
    explained = watched.explained(watched.of("freshness", "orders", name="age"), changes=changes)
    assert "about a moment" in explained.note
    assert [each.what for each in explained.changes] == ["3 days ago", "1 days ago"]
    assert explained.is_final
    assert explained.cost is None


def test_a_check_against_recent_days_is_dated_by_the_window_that_failed_first(watched: Watched) -> None:
    incident = replace(watched.of("silence", "x"), opened_at=START + (BROKEN + 1) * DAY)
    explained = watched.explained(incident)
    assert explained.began == explained.began_low == explained.began_high == (START + BROKEN * DAY).date()
    assert explained.column == "x"


def test_what_is_said_of_labels_began_on_the_newest_day_whose_labels_were_complete(watched: Watched) -> None:
    opened = START + (BROKEN + 3) * DAY + timedelta(hours=1)
    incident = replace(watched.of("volume", "labels", name="unlabelled_rise"), opened_at=opened)
    complete = watched.live.last_mature_day(opened)
    assert complete < watched.live.last_complete_day(opened)
    assert watched.explained(incident).began == complete
    rows = replace(watched.of("volume", "rows", name="volume_change"), opened_at=opened)
    assert watched.explained(rows).began == watched.live.last_complete_day(opened)


def test_a_column_that_came_as_text_is_left_out_and_named(watched: Watched) -> None:
    days = Dailies(watched.task, watched.reference, watched.live, "brier", watched.now)
    broken = days.block(days.days[-1])
    broken._rows = broken.rows().with_columns(pl.col("y").cast(pl.String))
    explained = watched.explained(watched.of("drift", "x"))
    assert "y changed type" in explained.note
    assert [each.column for each in explained.ranking] == ["x"]


def test_a_check_of_the_serving_is_dated_by_its_own_daily_number_and_costs_no_loss(watched: Watched) -> None:
    watched.spec = replace(watched.spec, monitors=(Monitor(check="latency", name="m", options={"quantile": 0.9}),))
    explained = watched.explained(watched.of("latency", name="latency_p90"))
    # Every row of this traffic took the same time: each day was measured, and none stands out.
    assert explained.note == "when it began by the daily latency_p90: all blocks have the same value"
    assert (explained.ranking, explained.cost, explained.is_final) == ((), None, True)


def test_an_explanation_that_fails_as_a_whole_loses_no_incident(watched: Watched, tx: Transaction) -> None:
    incident = watched.of("a check that is no longer installed")
    told = explanations.take_up(
        tx, watched.spec, incident, watched.task, watched.reference, watched.live, answer, watched.now
    )
    assert tx.find(Incident) == [told]
    assert told.explained is not None
    assert "the explanation failed: UnknownKind" in told.explained.note


def test_the_same_incident_is_explained_alike_twice(watched: Watched) -> None:
    incident = watched.of("drift", "x")
    assert watched.explained(incident) == watched.explained(incident)


def test_it_is_stored_with_the_incident_and_orders_what_else_failed_by_cost(watched: Watched, tx: Transaction) -> None:
    incident = watched.of("drift", "probability", also=("z", "y", "x"))
    args = (watched.task, watched.reference, watched.live, answer, watched.now)
    told = explanations.take_up(tx, watched.spec, incident, *args)
    assert tx.find(Incident) == [told]
    assert told.also == ("x", "y", "z")
    assert explanations.take_up(tx, watched.spec, told, *args) is told


def test_it_is_explained_again_after_one_four_and_thirteen_days_and_then_no_more(watched: Watched) -> None:
    incident = watched.of("drift", "x")
    days = []
    for day in range(30):
        now = incident.opened_at + day * DAY
        if explanations.is_due(incident, now):
            days.append(day)
            incident = replace(incident, explained=Explanation(at=now, about=("x",), is_final=False))
    assert days == [0, 1, 4, 13]


def test_one_that_is_settled_is_explained_again_only_when_more_goes_bad(watched: Watched) -> None:
    settled = Explanation(at=watched.now, about=("x",))
    incident = replace(watched.of("drift", "x"), explained=settled)
    assert not explanations.is_due(incident, watched.now + 5 * DAY)
    assert explanations.is_due(replace(incident, also=("y",)), watched.now + 30 * DAY)
    searched = replace(watched.of("slices", "x >= 3", also=("y < 1",)), explained=settled)
    assert not explanations.is_due(searched, watched.now + 5 * DAY)


def test_what_changed_comes_from_all_that_is_on_record(tx: Transaction, a_spec: MakeSpec) -> None:
    spec = a_spec()
    spec = replace(spec, data=replace(spec.data, feeds={"orders": Feed(from_="orders.csv")}))
    live, canary = Move(at=START, to="live", why="better", by="ann"), Move(at=START - DAY, to="canary", why="")
    tx.put(Version(
        system="orders", id="2", run="run-1", artifact="a", bundle="b", signature_hash="s", at=START, signed_by="k",
        history=(live,),
    ))  # fmt: skip
    tx.put(Release(system="orders", id="rel-1", run="run-1", version="2", at=START, history=(canary,)))
    tx.put(Snapshot(
        system="orders", id="s1", sha256="s", blob="b", at=START + DAY, rows=5, rows_read=5, rows_dropped=0,
        rows_quarantined=0, labelled=5, since=None, until=None, files=(), spec_hash="", code="",
    ))  # fmt: skip
    files = [{"name": "new.csv", "sha256": "c", "rows": 1000, "quarantined": 3}]
    tx.put(Mark(system="orders", id="ingest/orders", last_at=START + 2 * DAY, memory={"files": files}))
    tx.audit(
        at=START + 3 * DAY, actor="ann", action="system file put in force", system="orders", subject="f", detail={}
    )
    found = happenings(tx, spec, START - 2 * DAY, START + 5 * DAY)
    assert [each.what for each in found] == [
        "version 2 went into canary (rel-1)",
        "version 2 live, by ann: better",
        "snapshot s1 taken, 5 rows",
        "feed orders took in new.csv, 1,000 rows, 3 of them set aside",
        "system file put in force by ann",
    ]
    assert happenings(tx, spec, START + 4 * DAY, START + 5 * DAY) == ()


@given(
    hours=st.lists(st.integers(-500, 500), max_size=20),
    low=st.integers(-100, 100),
    length=st.integers(0, 100),
    most=st.integers(0, 6),
)
def test_near_keeps_the_nearest_in_their_order(hours: list[int], low: int, length: int, most: int) -> None:
    events = tuple(Happening(at=START + timedelta(hours=h), what=str(i)) for i, h in enumerate(hours))
    first = START + timedelta(hours=low)
    kept = near(events, first, first + timedelta(hours=length), before=DAY, most=most)
    inside = [each for each in events if first - DAY <= each.at <= first + timedelta(hours=length)]
    assert len(kept) == min(most, len(inside))
    assert set(kept) <= set(inside)
    assert [each.at for each in kept] == sorted(each.at for each in kept)
    farthest = max((abs(each.at - first) for each in kept), default=timedelta(0))
    assert all(abs(each.at - first) >= farthest for each in inside if each not in kept)
