"""Verdicts become one incident per cause. In: an evaluation's verdicts. Out: incidents opened, kept or closed."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from holdfast.core.evidence import Grade, Verdict
from holdfast.core.protocols import Transaction
from holdfast.core.records import Incident, Move
from holdfast.errors import NotFound

OPEN = ("open", "acknowledged")


def observe(
    tx: Transaction, system: str, check: str, verdicts: Sequence[Verdict], groups: Mapping[str, str], now: datetime
) -> list[Incident]:
    """Take up one evaluation of a monitor; returns the incidents that are open because of it.

    `groups` says which feed a subject belongs to: what goes bad together in one feed is one cause. An evaluation
    that alarms on several feeds at once opens one incident, named after its worst subject (verdicts come worst
    first), because its error budget was spent once. An open incident closes when an evaluation of its monitor passes
    on its cause; an evaluation that ends in `unknown` neither opens nor closes one.
    """
    failing = [verdict for verdict in verdicts if verdict.grade is Grade.FAIL]
    open_now = [i for i in tx.find(Incident, system, state=OPEN) if i.check == check and _same_monitor(i, verdicts)]
    touched = _continue(tx, open_now, failing, groups, now)
    if failing and not touched:
        touched = [_open(tx, system, check, failing, groups, now)]
    if any(verdict.grade is not Grade.UNKNOWN for verdict in verdicts):
        doubtful = {groups.get(v.reading.subject, "") for v in verdicts if v.grade in (Grade.WARN, Grade.FAIL)}
        for incident in open_now:
            if groups.get(incident.subject, "") not in doubtful:
                close(tx, incident, now)
    return touched


def close(tx: Transaction, incident: Incident, now: datetime, why: str = "the check passes again") -> None:
    """Close an incident, saying why."""
    closed = replace(incident, state="closed", closed_at=now, last_at=now)
    tx.put(replace(closed, actions=(*incident.actions, Move(at=now, to="closed", why=why))))


def acknowledge(tx: Transaction, system: str, incident_id: str, by: str, now: datetime) -> Incident:
    """A person has seen it. Raises NotFound."""
    incident = tx.get(Incident, system, incident_id)
    if incident is None or incident.state == "closed":
        raise NotFound("open incident", incident_id, [i.id for i in tx.find(Incident, system, state=OPEN)])
    seen = Move(at=now, to="acknowledged", why="seen by a person", by=by)
    incident = replace(incident, state="acknowledged", actions=(*incident.actions, seen))
    tx.put(incident)
    return incident


def note(tx: Transaction, incident: Incident, action: str, done: str, now: datetime) -> None:
    """Add what was done about an incident to its record."""
    current = tx.get(Incident, incident.system, incident.id) or incident
    tx.put(replace(current, actions=(*current.actions, Move(at=now, to=action, why=done))))


def _same_monitor(incident: Incident, verdicts: Sequence[Verdict]) -> bool:
    return any(incident.last.monitor == verdict.monitor for verdict in verdicts)


def _continue(
    tx: Transaction, open_now: list[Incident], failing: list[Verdict], groups: Mapping[str, str], now: datetime
) -> list[Incident]:
    continued = []
    for incident in open_now:
        mine = [v for v in failing if groups.get(v.reading.subject, "") == groups.get(incident.subject, "")]
        if mine:
            also = _merge(incident.also, [v.reading.subject for v in mine], incident.subject)
            incident = replace(incident, last_at=now, last=mine[0], seen=incident.seen + 1, also=also)
            tx.put(incident)
            continued.append(incident)
    return continued


def _open(
    tx: Transaction, system: str, check: str, failing: list[Verdict], groups: Mapping[str, str], now: datetime
) -> Incident:
    worst = failing[0]
    subject = worst.reading.subject
    incident = Incident(
        system=system,
        id=tx.next_id(Incident, system, "inc-"),
        cause=f"{check}:{groups.get(subject, '') or subject}".rstrip(":"),
        check=check,
        subject=subject,
        opened_at=now,
        last_at=now,
        calibrated=worst.calibrated,
        first=worst,
        last=worst,
        also=_merge((), [v.reading.subject for v in failing[1:]], subject),
    )
    tx.put(incident)
    return incident


def _merge(known: tuple[str, ...], more: Sequence[str], without: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(subject for subject in (*known, *more) if subject and subject != without))
