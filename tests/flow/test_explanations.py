"""Explanations: what cannot be said is said, nothing costs an incident, and labels that come later add to it."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import polars as pl
from msgspec.structs import replace

from holdfast.core.protocols import Transaction
from holdfast.core.records import Explanation, Happening, Incident
from holdfast.core.spec import SystemSpec
from holdfast.engines.memory import MemoryLake
from holdfast.flow import explanations
from holdfast.flow.predictions import LivePredictions
from holdfast.testing import START

DAY = timedelta(days=1)
MakeSpec = Callable[..., SystemSpec]


def test_segments_are_said_with_their_interval(watched: Any) -> None:
    explained = watched.explained(watched.of("drift", "x"))
    assert explained.slices
    assert not explained.is_final, "three days have labels: more can be said later"
    assert all(each.subject.startswith(("x", "y")) and each.low <= each.value <= each.high for each in explained.slices)


def test_a_model_that_fails_is_said_and_the_rest_stands(watched: Any) -> None:
    def broken(rows: pl.DataFrame) -> Any:
        raise RuntimeError("out of order")

    explained = watched.explained(watched.of("drift", "x"), model=broken)
    assert "RuntimeError: out of order" in explained.note
    assert explained.began == watched.broken_on
    assert explained.slices


def test_days_that_cannot_be_read_are_said(watched: Any) -> None:
    class Gone(LivePredictions):
        def last_complete_day(self, now: Any) -> date:
            raise OSError("no such lake")

    explained = watched.explained(watched.of("drift", "x"), live=Gone(watched.spec, MemoryLake(), "probability"))
    assert "OSError: no such lake" in explained.note
    assert not explained.is_final


def test_without_a_day_of_answers_nothing_is_said_but_that(watched: Any) -> None:
    watched.now = START - 100 * DAY
    explained = watched.explained(watched.of("quality", name="brier"))
    assert explained.note == "no day with answers is complete yet"
    assert explained.began is None


def test_an_incident_about_a_moment_names_what_changed_before_it(watched: Any) -> None:
    changes = tuple(Happening(at=watched.now - k * DAY, what=f"{k} days ago") for k in (20, 3, 1))
    explained = watched.explained(watched.of("freshness", "orders", name="age"), changes=changes)
    assert "about a moment" in explained.note
    assert [each.what for each in explained.changes] == ["3 days ago", "1 days ago"]
    assert explained.is_final
    assert explained.cost is None


def test_an_explanation_that_fails_as_a_whole_loses_no_incident(watched: Any, tx: Transaction) -> None:
    incident = watched.of("a check that is no longer installed")
    told = explanations.take_up(
        tx, watched.spec, incident, watched.task, watched.reference, watched.live, watched.answer, watched.now
    )
    assert tx.find(Incident) == [told]
    assert told.explained is not None
    assert "the explanation failed: UnknownKind" in told.explained.note


def test_the_same_incident_is_explained_alike_twice(watched: Any) -> None:
    incident = watched.of("drift", "x")
    assert watched.explained(incident) == watched.explained(incident)


def test_it_is_stored_with_the_incident_and_orders_what_else_failed_by_cost(watched: Any, tx: Transaction) -> None:
    incident = watched.of("drift", "probability", also=("z", "y", "x"))
    args = (watched.task, watched.reference, watched.live, watched.answer, watched.now)
    told = explanations.take_up(tx, watched.spec, incident, *args)
    assert tx.find(Incident) == [told]
    assert told.also == ("x", "y", "z")
    assert explanations.take_up(tx, watched.spec, told, *args) is told


def test_it_is_explained_again_after_one_four_and_thirteen_days_and_then_no_more(watched: Any) -> None:
    incident = watched.of("drift", "x")
    days = []
    for day in range(30):
        now = incident.opened_at + day * DAY
        if explanations.is_due(incident, now):
            days.append(day)
            incident = replace(incident, explained=Explanation(at=now, about=("x",), is_final=False))
    assert days == [0, 1, 4, 13]


def test_one_that_is_settled_is_explained_again_only_when_more_goes_bad(watched: Any) -> None:
    settled = Explanation(at=watched.now, about=("x",))
    incident = replace(watched.of("drift", "x"), explained=settled)
    assert not explanations.is_due(incident, watched.now + 5 * DAY)
    assert explanations.is_due(replace(incident, also=("y",)), watched.now + 30 * DAY)
    searched = replace(watched.of("slices", "x >= 3", also=("y < 1",)), explained=settled)
    assert not explanations.is_due(searched, watched.now + 5 * DAY)
