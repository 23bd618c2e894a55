"""Actions: each does its one thing through the controls and says it in a sentence."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from holdfast.core import kinds
from holdfast.core.protocols import Action
from holdfast.core.records import Incident
from holdfast.errors import NotFound
from holdfast.opening import WEBHOOK, on_record
from holdfast.testing import START, a_verdict

INCIDENT = Incident(
    system="orders",
    id="inc-3",
    cause="drift:weather",
    check="drift",
    subject="temp",
    opened_at=START,
    last_at=START,
    first=a_verdict(),
    last=a_verdict(),
)


class Controls:
    """Keeps what it is asked for; one job is open at a time."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.jobs: list[tuple[str, Mapping[str, Any]]] = []
        self.rolled_back: list[str] = []

    def notify(self, text: str) -> str:
        self.said.append(text)
        return "written to the log (no webhook is set)"

    def submit(self, kind: str, payload: Mapping[str, Any]) -> str:
        if not self.jobs:
            self.jobs.append((kind, payload))
        return "job-1"

    def rollback(self, why: str) -> str:
        if self.rolled_back:
            raise NotFound("earlier live version to roll back to", "1")
        self.rolled_back.append(why)
        return "1"


@pytest.fixture
def controls() -> Controls:
    return Controls()


def made(name: str) -> Action:
    action: Action = kinds.load("actions", name)()
    return action


def test_notify_says_check_subject_and_why_once(controls: Controls) -> None:
    assert made("notify").act(INCIDENT, controls) == "written to the log (no webhook is set)"
    assert controls.said == ["drift temp: 0.5 is at most 0.6"]


def test_that_nobody_was_told_without_a_webhook_stands_on_record() -> None:
    assert on_record({}) == "written to the log (no webhook is set)"
    assert on_record({WEBHOOK: "https://example.org/hook"}) == "people were told"


def test_notify_about_the_whole_window_names_no_subject(controls: Controls) -> None:
    made("notify").act(replace(INCIDENT, subject=""), controls)
    assert controls.said == ["drift: 0.5 is at most 0.6"]


def test_notify_says_what_the_check_noted(controls: Controls) -> None:
    noted = replace(a_verdict(), reading=replace(a_verdict().reading, note="new: teal, plum"))
    made("notify").act(replace(INCIDENT, last=noted), controls)
    assert controls.said == ["drift temp: 0.5 is at most 0.6; new: teal, plum"]


def test_retrain_asks_for_one_training_however_often_it_acts(controls: Controls) -> None:
    for _ in range(2):
        assert made("retrain").act(INCIDENT, controls) == "training submitted as job-1"
    assert controls.jobs == [("train", {"cause": "drift:weather", "incident": "inc-3"})]


def test_retrain_hands_on_what_its_candidate_must_show(controls: Controls) -> None:
    action: Action = msgspec.convert({"if": "better", "cost": 0.002}, kinds.load("actions", "retrain"))
    action.act(INCIDENT, controls)
    [(_, payload)] = controls.jobs
    assert payload == {"cause": "drift:weather", "incident": "inc-3", "if": "better", "cost": 0.002}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cost": 0.1}, "'cost' has no effect without 'if: better'"),
        ({"if": "better", "cost": -0.1}, "Expected `float` >= 0.0"),
        ({"if": "bettr"}, "Invalid enum value 'bettr'"),
    ],
)
def test_retrain_refuses_what_can_take_no_effect(options: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(options, kinds.load("actions", "retrain"))


def test_rollback_says_why_and_what_is_live(controls: Controls) -> None:
    assert made("rollback").act(INCIDENT, controls) == "rolled back; version 1 is live"
    assert controls.rolled_back == ["inc-3: 0.5 is at most 0.6"]


def test_rollback_without_an_earlier_version_says_so(controls: Controls) -> None:
    made("rollback").act(INCIDENT, controls)
    with pytest.raises(NotFound, match="no earlier live version"):
        made("rollback").act(INCIDENT, controls)


@pytest.mark.parametrize("name", sorted(kinds.registered("actions")))
def test_no_action_takes_an_option_that_it_has_not(name: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"colour": "red"}, kinds.load("actions", name))
