"""Verdicts become one incident per cause. In: an evaluation's verdicts. Out: incidents opened, kept or closed."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from holdfast.core.evidence import Grade, Verdict
from holdfast.core.protocols import Transaction
from holdfast.core.records import Incident, Move
from holdfast.errors import NotFound

OPEN = ("open", "acknowledged")
SEARCHING = frozenset({"slices"})
"""Checks that search anew what they are about at each look: whatever they find is one cause, under another name."""


def observe(
    tx: Transaction, system: str, check: str, verdicts: Sequence[Verdict], groups: Mapping[str, str], now: datetime
) -> list[Incident]:
    """Take up one evaluation of a monitor; returns the incidents that are open because of it.

    `groups` says which feed a subject belongs to: what goes bad together in one feed is one cause. An evaluation
    that alarms on several feeds at once opens one incident, named after its worst subject (verdicts come worst
    first), because its error budget was spent once; while that is open it stands for all of them. What fails beside
    an open incident is a cause of its own, unless it was calibrated together with it: then it is one more column of
    the same alarm. An open incident closes when an evaluation of its monitor passes on its
    causes; `warn` and `unknown` on one of them neither open nor close it.
    """
    open_now = [i for i in tx.find(Incident, system, state=OPEN) if i.check == check and _same_monitor(i, verdicts)]
    touched, new = [], [verdict for verdict in verdicts if verdict.grade is Grade.FAIL]
    for incident in open_now:
        mine = _of(incident, verdicts, groups)
        failing = [verdict for verdict in mine if verdict.grade is Grade.FAIL]
        new = [verdict for verdict in new if verdict not in failing]
        if failing:
            touched.append(_continue(tx, incident, failing, now))
        elif _is_over(incident, mine or verdicts):
            close(tx, incident, now)
    if new:
        touched.append(_open(tx, system, check, new, groups, now))
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


def _cause(subject: str, groups: Mapping[str, str]) -> str:
    """The feed of a subject; what belongs to no feed is a cause of its own."""
    return groups.get(subject) or subject


def _of(incident: Incident, verdicts: Sequence[Verdict], groups: Mapping[str, str]) -> list[Verdict]:
    """The verdicts about an incident's causes. What is about the whole window is about every cause in it, and what was
    calibrated jointly, or found by a search, is judged jointly: one monitor, one alarm."""
    causes = {_cause(subject, groups) for subject in (incident.subject, *incident.also)}
    return [
        verdict
        for verdict in verdicts
        if not incident.subject
        or not verdict.reading.subject
        or verdict.p_value is not None
        or incident.check in SEARCHING
        or _cause(verdict.reading.subject, groups) in causes
    ]


def _is_over(incident: Incident, mine: Sequence[Verdict]) -> bool:
    """True when something about its causes passes, nothing is in doubt, and what went bad was measured again."""
    bad = {incident.subject, *incident.also}
    if any(v.grade is Grade.WARN or (v.grade is Grade.UNKNOWN and v.reading.subject in bad) for v in mine):
        return False
    return any(v.grade in (Grade.PASS, Grade.NOT_APPLICABLE) for v in mine)


def _continue(tx: Transaction, incident: Incident, failing: Sequence[Verdict], now: datetime) -> Incident:
    known = () if incident.check in SEARCHING else incident.also
    also = _merge(known, [v.reading.subject for v in failing], incident.subject)
    incident = replace(incident, last_at=now, last=failing[0], seen=incident.seen + 1, also=also)
    tx.put(incident)
    return incident


def _open(
    tx: Transaction, system: str, check: str, failing: list[Verdict], groups: Mapping[str, str], now: datetime
) -> Incident:
    worst = failing[0]
    subject = worst.reading.subject
    incident = Incident(
        system=system,
        id=tx.next_id(Incident, system, "inc-"),
        cause=check if check in SEARCHING else f"{check}:{_cause(subject, groups)}".rstrip(":"),
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
