"""Responses: the right action, once or after its cool-down, and never one in the way of another."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from holdfast.core import kinds
from holdfast.core.evidence import Grade
from holdfast.core.protocols import Controls, Transaction
from holdfast.core.records import Incident
from holdfast.core.spec import Response, SystemSpec
from holdfast.flow import incidents, responses
from holdfast.testing import START

DAY = timedelta(days=1)


class Do(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Says what it acts on."""

    word: str = "did"

    def act(self, incident: Incident, controls: Controls) -> str:
        controls.notify(f"{self.word} {incident.cause}")
        return f"{self.word} it"


class Break(msgspec.Struct, frozen=True, kw_only=True):
    def act(self, incident: Incident, controls: Controls) -> str:
        raise OSError("no route to host")


class Heard:
    """Controls that only listen."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def notify(self, text: str) -> str:
        self.said.append(text)
        return "people were told"

    def submit(self, kind: str, payload: Mapping[str, Any]) -> str:
        return "job-1"

    def rollback(self, why: str) -> str:
        return "1"


@pytest.fixture(autouse=True)
def _actions(monkeypatch: pytest.MonkeyPatch) -> None:
    load, actions = kinds.load, {"do": Do, "break": Break}
    monkeypatch.setattr(kinds, "load", lambda group, name: actions.get(name) or load(group, name))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def respond(tx: Transaction, a_spec: Callable[..., SystemSpec], heard: Heard) -> Callable[..., list[str]]:
    """`respond(plan, incident, day)`: what is done about an incident on a day."""

    def make(plan: Sequence[Response], incident: Incident, day: float = 0) -> list[str]:
        return responses.respond(tx, a_spec(responses=plan), [incident], heard, START + day * DAY)

    return make


@pytest.fixture
def an_incident(tx: Transaction, graded) -> Callable[..., Incident]:
    def make(subject: str = "x", check: str = "drift") -> Incident:
        [opened] = incidents.observe(tx, "orders", check, [graded(Grade.FAIL, subject, monitor=subject)], {}, START)
        return opened

    return make


ONCE, COOL = Response(on="drift", do="do"), Response(on="drift", do="do", cooldown=3 * DAY)


def test_without_a_cooldown_it_acts_once_per_incident(respond, an_incident) -> None:
    first, second = an_incident("x"), an_incident("y")
    assert [respond([ONCE], first, day) for day in range(3)] == [["did it"], [], []]
    assert respond([ONCE], second, 3) == ["did it"]
    assert respond([ONCE], first, 4) == []


def test_with_a_cooldown_it_acts_again_once_that_has_passed(respond, an_incident) -> None:
    incident = an_incident()
    assert [bool(respond([COOL], incident, day)) for day in (0, 1, 2.9, 3, 4, 6)] == [
        True, False, False, True, False, True,
    ]  # fmt: skip


def test_a_cooldown_holds_for_all_incidents_together(respond, an_incident) -> None:
    first, second = an_incident("x"), an_incident("y")
    assert respond([COOL], first, 0) == ["did it"]
    assert respond([COOL], second, 1) == []
    assert respond([COOL], second, 3) == ["did it"]


def test_only_what_it_is_about_is_acted_on(respond, an_incident, heard: Heard) -> None:
    assert respond([Response(on="quality", do="do")], an_incident()) == []
    assert respond([Response(every=DAY, do="do")], an_incident()) == []
    assert respond([Response(on="any", do="do")], an_incident("z", check="quality")) == ["did it"]
    assert heard.said == ["did quality:z"]


def test_what_was_done_is_on_the_incidents_record(tx: Transaction, respond, an_incident) -> None:
    incident = an_incident()
    respond([ONCE, Response(on="any", do="do", options={"word": "told"})], incident, 1)
    kept = tx.get(Incident, "orders", incident.id)
    assert kept is not None
    assert [(move.to, move.why, move.at) for move in kept.actions] == [
        ("do", "did it", START + DAY),
        ("do", "told it", START + DAY),
    ]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Response(on="any", do="break"), "break failed: OSError: no route to host"),
        (
            Response(on="any", do="do", options={"wrong": 1}),
            "do failed: ValidationError: Object contains unknown field `wrong`",
        ),
    ],
)
def test_an_action_that_raises_is_recorded_and_does_not_stop_the_others(
    tx: Transaction, respond, an_incident, caplog, bad: Response, said: str
) -> None:
    incident = an_incident()
    assert respond([bad, ONCE], incident) == [said, "did it"]
    kept = tx.get(Incident, "orders", incident.id)
    assert kept is not None
    assert [move.why for move in kept.actions] == [said, "did it"]
    assert f"action {bad.do} failed" in caplog.text


def test_a_scheduled_action_is_taken_every_so_often_from_going_live_on(
    tx: Transaction, a_spec: Callable[..., SystemSpec], heard: Heard
) -> None:
    spec = a_spec(responses=[ONCE, Response(every=7 * DAY, do="do")])

    def on(day: float) -> list[str]:
        return responses.on_schedule(tx, spec, heard, START + day * DAY, START)

    assert [len(on(day)) for day in (0, 6.9, 7, 8, 13.9, 14.5, 21)] == [0, 0, 1, 0, 0, 1, 0]
    assert heard.said == ["did schedule"] * 2
