"""Incident -> action, inside cool-downs. In: open incidents and the clock. Out: actions taken, each on record."""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.core import kinds
from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.protocols import Action, Controls, Transaction
from holdfast.core.records import Incident, Mark
from holdfast.core.spec import Response, SystemSpec
from holdfast.flow import incidents

log = logging.getLogger(__name__)


def respond(
    tx: Transaction, spec: SystemSpec, touched: Iterable[Incident], controls: Controls, now: datetime
) -> list[str]:
    """Act on the incidents that an evaluation opened or kept open; returns what was done.

    A response acts once when an incident opens, and again while it stays open if it has a cool-down that has passed.
    """
    done = []
    for incident in touched:
        for number, response in enumerate(spec.responses):
            if response.on in ("any", incident.check) and _may_act(tx, spec, number, response, incident, now):
                said = _act(response, incident, controls)
                incidents.note(tx, incident, response.do, said, now)
                _remember(tx, spec, number, incident, now)
                done.append(said)
    return done


def on_schedule(tx: Transaction, spec: SystemSpec, controls: Controls, now: datetime, since: datetime) -> list[str]:
    """Take the actions that are due by the clock alone, counted from when the first version went live."""
    done = []
    for number, response in enumerate(spec.responses):
        if response.every is None:
            continue
        mark = _mark(tx, spec, number)
        if now - (mark.last_at or since) >= response.every:
            done.append(_act(response, _schedule_incident(spec, response, now), controls))
            tx.put(replace(mark, last_at=now))
    return done


def _may_act(
    tx: Transaction, spec: SystemSpec, number: int, response: Response, incident: Incident, now: datetime
) -> bool:
    mark = _mark(tx, spec, number)
    if mark.last_at is not None and now - mark.last_at < response.cooldown:
        return False
    acted_on: Sequence[str] = mark.memory.get("incidents", ())
    return incident.id not in acted_on or bool(response.cooldown)


def _act(response: Response, incident: Incident, controls: Controls) -> str:
    try:
        action: Action = msgspec.convert(dict(response.options), kinds.load("actions", response.do))
        return action.act(incident, controls)
    except Exception as error:
        log.exception("action %s failed", response.do)
        return f"{response.do} failed: {type(error).__name__}: {error}"


def _remember(tx: Transaction, spec: SystemSpec, number: int, incident: Incident, now: datetime) -> None:
    mark = _mark(tx, spec, number)
    acted_on = [*mark.memory.get("incidents", ())[-50:], incident.id]
    tx.put(replace(mark, last_at=now, memory={"incidents": list(dict.fromkeys(acted_on))}))


def _mark(tx: Transaction, spec: SystemSpec, number: int) -> Mark:
    id = f"response/{number}"
    return tx.get(Mark, spec.system, id) or Mark(system=spec.system, id=id)


def _schedule_incident(spec: SystemSpec, response: Response, now: datetime) -> Incident:
    """A scheduled action is given the schedule as its cause, in the form every action takes."""
    facts: dict[str, Any] = {"name": "schedule", "value": None, "note": f"every {response.every}"}
    verdict = Verdict(grade=Grade.NOT_APPLICABLE, check="schedule", reading=Reading(**facts), why="it is due")
    return Incident(
        system=spec.system,
        id="schedule",
        cause="schedule",
        check="schedule",
        opened_at=now,
        last_at=now,
        first=verdict,
        last=verdict,
    )
