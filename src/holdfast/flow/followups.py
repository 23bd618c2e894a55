"""Trains once more for an incident that is not answered yet. In: what incidents asked for, and what became of it.

A training that an alarm asks for cannot learn what alarmed: the newest days judge its model, so it is fitted on those
before. An incident is answered when a model that was fitted on the days up to its alarm was released or refused. Until
then it is trained again: when these days can be fitted, and where a release ended undecided. Not for ever: what three
more trainings did not answer is for people, and one that closed by itself is owed its days once and no other try.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from holdfast.core.blocks import mature_until
from holdfast.core.protocols import Controls, Transaction
from holdfast.core.records import Incident, Job, Release, ReleaseState, Run
from holdfast.core.spec import Response, SystemSpec
from holdfast.flow import gates, incidents, releases

RETRAIN, TRAIN = "retrain", "train"
"""The action that asks for a training, and the kind of its job."""
DECIDED: tuple[ReleaseState, ...] = ("live", "retired", "rejected", "rolled_back")
"""How a release ends that says whether its model is wanted, where anything was compared; one that expired does not."""
MOST = 3
"""So many trainings more are asked for on account of one incident."""
ONCE_MORE = "once more"
"""Said of each of them on the incident's record, where they are counted."""
JOB_OPEN = ("queued", "running")
NEWEST = 20
"""Trainings and releases that are looked back on."""


IsLabelled = Callable[[datetime], bool]
"""Whether labels are known of a mature day that ends after this time: a training holds out the newest that have any."""


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """A training to ask for."""

    incident: Incident
    payload: dict[str, Any]
    """Of its job: the terms of the training that the incident asked for before."""
    why: str


def owed(tx: Transaction, spec: SystemSpec, now: datetime, is_labelled: IsLabelled) -> Owed | None:
    """The training that an incident is owed now, if any is; the newest incident's first.

    None while a training or a release is under way, for the length of a hold-out after a training that failed, and
    sooner after the last training that was released than the response's cool-down (the length of the hold-out where
    it has none). None for an incident that `MOST` trainings more were asked for. One that is closed is owed only the
    training on its days, once.
    """
    answering = [each for each in spec.responses if each.do == RETRAIN and each.on is not None]
    if not answering:
        return None
    trainings = [job for job in tx.find(Job, spec.system, newest=NEWEST) if job.kind == TRAIN]
    holdout = spec.model.validate.holdout
    if _is_busy(trainings, now, holdout) or releases.open_release(tx, spec.system) is not None:
        return None
    past = tx.find(Release, spec.system, newest=NEWEST)
    undecided, learnt = _undecided(trainings, past), _learnt(tx, past)
    for job in reversed(trainings):
        incident = tx.get(Incident, spec.system, str(job.payload.get("incident", "")))
        response = None if incident is None else _response(answering, incident)
        if incident is None or response is None or (past and now - past[-1].at < (response.cooldown or holdout)):
            continue
        alarmed = incident.opened_at
        if (learnt is not None and learnt >= alarmed) or asked_again(incident) >= MOST:
            continue
        is_open = incident.state != "closed"
        why = undecided if is_open else ""
        if not why and _is_past(spec, alarmed, now) and (is_open or not _was_tried(spec, incident)):
            why = f"the days up to {alarmed:%Y-%m-%d} can be fitted now" if is_labelled(alarmed + holdout) else ""
        if why:
            return Owed(incident=incident, payload=job.payload, why=why)
    return None


def ask(tx: Transaction, spec: SystemSpec, controls: Controls, now: datetime, is_labelled: IsLabelled) -> list[str]:
    """Ask for the training that is owed, on the incident's record as well; returns what was done."""
    found = owed(tx, spec, now, is_labelled)
    if found is None:
        return []
    said = f"training submitted as {controls.submit(TRAIN, found.payload)} {ONCE_MORE}: {found.why}"
    if asked_again(found.incident) + 1 == MOST:
        said += f"; this is the last of {MOST} for this incident, what it leaves open is for people"
    incidents.note(tx, found.incident, RETRAIN, said, now)
    return [f"{found.incident.id}: {said}"]


def asked_again(incident: Incident) -> int:
    """How many trainings more were asked for on account of an incident."""
    return sum(move.to == RETRAIN and ONCE_MORE in move.why for move in incident.actions)


def _is_busy(trainings: Sequence[Job], now: datetime, holdout: timedelta) -> bool:
    """Whether nothing is to be asked for yet: nothing was before, or it is under way, or failed lately.

    What failed fails again on the same rows; after as long as a hold-out it is given others.
    """
    if not trainings:
        return True
    newest = trainings[-1]
    return newest.state in JOB_OPEN or (newest.state == "failed" and now - (newest.ended_at or newest.at) < holdout)


def _is_past(spec: SystemSpec, alarmed: datetime, at: datetime) -> bool:
    """Whether a training at this time may fit the days up to an alarm, were there labels up to then."""
    return mature_until(spec.data, at) - spec.model.validate.holdout >= alarmed


def _was_tried(spec: SystemSpec, incident: Incident) -> bool:
    """Whether a training was asked for, on its account, that could fit its days."""
    return any(move.to == RETRAIN and _is_past(spec, incident.opened_at, move.at) for move in incident.actions)


def _undecided(trainings: Sequence[Job], past: Iterable[Release]) -> str:
    """Why the last training that did not fail decided nothing; empty where it did."""
    training = next((job for job in reversed(trainings) if job.state == "done"), None)
    if training is None:
        return ""
    run = training.result.get("run")
    release = next((each for each in past if each.run == run), None)
    if release is None:
        return f"what {training.id} made was not released"
    return "" if _has_decided(release) else f"{release.id} ended undecided"


def _has_decided(release: Release) -> bool:
    """Whether how it ended says that its model is wanted or not."""
    if release.state == "rejected":
        return gates.has_compared(release.evidence)
    return release.state in DECIDED and not releases.is_mismatch(release)


def _learnt(tx: Transaction, past: Iterable[Release]) -> datetime | None:
    """Up to when the newest days lie that a model was fitted on which was released or refused."""
    runs = [tx.get(Run, each.system, each.run) for each in past if _has_decided(each)]
    return max((run.trained_until for run in runs if run is not None and run.trained_until is not None), default=None)


def _response(answering: Sequence[Response], incident: Incident) -> Response | None:
    """What the file answers such an incident with; None where it no longer does."""
    return next((each for each in answering if each.on in ("any", incident.check)), None)
