"""Verdicts become one incident per cause. In: an evaluation's verdicts. Out: incidents opened, kept or closed."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from holdfast.core.evidence import Grade, Verdict
from holdfast.core.protocols import Transaction
from holdfast.core.records import Incident, Move
from holdfast.errors import NotFound

OPEN = ("open", "acknowledged")
FURTHER, PASSED = "further evidence", "passes again"
"""Moves of an incident that several monitors found: one more of them finds it, and one of them no longer does."""
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
    the same alarm. What another monitor of the same check finds about the causes of an open incident is further
    evidence on that; what it finds about anything else is a cause of its own. An open incident closes when an
    evaluation of its monitor passes on its causes, and of several when each that found it passes; `warn` and
    `unknown` on one of them neither open nor close it.
    """
    monitor = next((verdict.monitor for verdict in verdicts), None)
    open_now = [i for i in tx.find(Incident, system, state=OPEN) if i.check == check and monitor is not None]
    claimed = {i.id: [v for v in verdicts if v.grade is Grade.FAIL and _is_about(i, v, groups)] for i in open_now}
    touched, new = [], [verdict for verdict in verdicts if verdict.grade is Grade.FAIL]
    taken: list[Verdict] = []
    for incident in open_now:
        elsewhere = [verdict for id, found in claimed.items() if id != incident.id for verdict in found] + taken
        mine = [v for v in _of(incident, verdicts, groups) if v not in elsewhere or v in claimed[incident.id]]
        failing = [verdict for verdict in mine if verdict.grade is Grade.FAIL]
        new = [verdict for verdict in new if verdict not in failing]
        taken += [verdict for verdict in failing if verdict.reading.subject]  # what has none is about every cause
        if failing:
            touched.append(_continue(tx, incident, failing, now))
        elif monitor in _finders(incident) and _is_over(incident, mine or verdicts):
            _pass(tx, incident, str(monitor), now)
    if new:
        touched.append(_open(tx, system, check, new, groups, now))
    return touched


def close(tx: Transaction, incident: Incident, now: datetime, why: str = "the check passes again") -> None:
    """Close an incident, saying why."""
    closed = replace(incident, state="closed", closed_at=now, last_at=now)
    tx.put(replace(closed, actions=(*incident.actions, Move(at=now, to="closed", why=why))))


def orphaned(tx: Transaction, system: str, monitors: Mapping[str, str]) -> list[Incident]:
    """Open incidents that a monitor found which can no longer pass: it is not in the file, or has another check there.

    `monitors` are those of the file, by name the check of each.
    """
    return [incident for incident in tx.find(Incident, system, state=OPEN) if _gone(incident, monitors)]


def close_orphaned(tx: Transaction, system: str, monitors: Mapping[str, str], now: datetime) -> list[str]:
    """Close what was found only by monitors that are gone; elsewhere leave these out of who must pass, on record.

    Returns what was closed. Such an incident would stay open for good, and take up every later alarm of its cause.
    """
    done = []
    for incident in orphaned(tx, system, monitors):
        gone = _gone(incident, monitors)
        is_or_are = "is" if len(gone) == 1 else "are"
        why = f"{' and '.join(gone)}, which found it, {is_or_are} no longer in the file"
        if set(gone) == set(_finding(incident)):
            close(tx, incident, now, why)
            done.append(f"{incident.id} closed: {why}")
        else:
            moves = [Move(at=now, to=PASSED, why=why, by=name) for name in gone]
            tx.put(replace(incident, actions=(*incident.actions, *moves)))
    return done


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


def _finders(incident: Incident) -> dict[str, bool]:
    """The monitors that found it, and whether each still does: the one that opened it, then those that joined."""
    finders = {incident.first.monitor: True}
    for move in incident.actions:
        if move.to in (FURTHER, PASSED):
            finders[move.by] = move.to == FURTHER
    return finders


def _finding(incident: Incident) -> list[str]:
    """The monitors that found it and do not pass yet."""
    return [name for name, still_finds in _finders(incident).items() if still_finds]


def _gone(incident: Incident, monitors: Mapping[str, str]) -> list[str]:
    return [name for name in _finding(incident) if monitors.get(name) != incident.check]


def _cause(subject: str, groups: Mapping[str, str]) -> str:
    """The feed of a subject; what belongs to no feed is a cause of its own."""
    return groups.get(subject) or subject


def _of(incident: Incident, verdicts: Sequence[Verdict], groups: Mapping[str, str]) -> list[Verdict]:
    """The verdicts about an incident's causes. What is about the whole window is about every cause in it, and what was
    calibrated jointly, or found by a search, is judged jointly: one monitor, one alarm. Of another monitor than the
    one that opened it only what is about the very same causes."""
    return [
        verdict
        for verdict in verdicts
        if _is_about(incident, verdict, groups)
        or (
            verdict.monitor == incident.first.monitor
            and (
                not incident.subject
                or not verdict.reading.subject
                or verdict.p_value is not None
                or incident.check in SEARCHING
            )
        )
    ]


def _is_about(incident: Incident, verdict: Verdict, groups: Mapping[str, str]) -> bool:
    """Whether a verdict is about the very causes of an incident, whichever monitor gave it. What is about the whole
    window is so where it is the same number; what a search found never is, for it may have searched other rows."""
    if verdict.monitor != incident.first.monitor and incident.check in SEARCHING:
        return False
    subject = verdict.reading.subject
    if not subject or not incident.subject:
        return subject == incident.subject and verdict.reading.name == incident.first.reading.name
    return _cause(subject, groups) in {_cause(each, groups) for each in (incident.subject, *incident.also)}


def _is_over(incident: Incident, mine: Sequence[Verdict]) -> bool:
    """True when something about its causes passes, nothing is in doubt, and what went bad was measured again."""
    bad = {incident.subject, *incident.also}
    if any(v.grade is Grade.WARN or (v.grade is Grade.UNKNOWN and v.reading.subject in bad) for v in mine):
        return False
    return any(v.grade in (Grade.PASS, Grade.NOT_APPLICABLE) for v in mine)


def _continue(tx: Transaction, incident: Incident, failing: Sequence[Verdict], now: datetime) -> Incident:
    worst = failing[0]
    known = () if incident.check in SEARCHING else incident.also
    also = _merge(known, [v.reading.subject for v in failing], incident.subject)
    actions = incident.actions
    if not _finders(incident).get(worst.monitor):
        actions = (*actions, Move(at=now, to=FURTHER, why=worst.why, by=worst.monitor))
    incident = replace(
        incident,
        last_at=now,
        last=worst,
        seen=incident.seen + 1,
        also=also,
        actions=actions,
        calibrated=incident.calibrated or (worst.calibrated and worst.monitor != incident.first.monitor),
    )
    tx.put(incident)
    return incident


def _pass(tx: Transaction, incident: Incident, monitor: str, now: datetime) -> None:
    """A monitor that found it passes: the incident closes, unless another that found it does not pass yet."""
    finders = _finders(incident)
    others = [name for name in _finding(incident) if name != monitor]
    if not others:
        close(tx, incident, now)
    elif finders[monitor]:
        why = f"{monitor} passes again, {' and '.join(others)} not yet"
        tx.put(replace(incident, actions=(*incident.actions, Move(at=now, to=PASSED, why=why, by=monitor))))


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
