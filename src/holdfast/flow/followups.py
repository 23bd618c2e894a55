"""Trains once more for an incident that is not answered yet. In: what incidents asked for, and what became of it.

A training that an alarm asks for cannot learn what alarmed: the newest days judge its model, so it is fitted on those
before. An incident is answered when a model that was fitted on the days up to its alarm was released or refused. Until
then it is trained again: when these days can be fitted, and where a release ended undecided.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from holdfast.core.blocks import mature_until
from holdfast.core.protocols import Controls, Transaction
from holdfast.core.records import Incident, Job, Release, ReleaseState, Run
from holdfast.core.spec import Response, SystemSpec
from holdfast.flow import incidents, releases

RETRAIN, TRAIN = "retrain", "train"
"""The action that asks for a training, and the kind of its job."""
DECIDED: tuple[ReleaseState, ...] = ("live", "retired", "rejected", "rolled_back")
"""How a release ends that says whether its model is wanted; one that expired does not."""
NEWEST = 20
"""Trainings and releases that are looked back on."""


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """A training to ask for."""

    incident: Incident
    payload: dict[str, Any]
    """Of its job: the terms of the training that the incident asked for before."""
    why: str


def owed(tx: Transaction, spec: SystemSpec, now: datetime) -> Owed | None:
    """The training that an incident is owed now, if any is; the newest incident's first.

    None while a training or a release is under way, and sooner after the last training that was released than the
    response's cool-down (the length of the hold-out where it has none). None after a training that failed: it would
    fail again.
    """
    answering = [each for each in spec.responses if each.do == RETRAIN and each.on is not None]
    if not answering:
        return None
    trainings = [job for job in tx.find(Job, spec.system, newest=NEWEST) if job.kind == TRAIN]
    if not trainings or trainings[-1].state != "done" or releases.open_release(tx, spec.system) is not None:
        return None
    past = tx.find(Release, spec.system, newest=NEWEST)
    undecided, learnt = _undecided(trainings[-1], past), _learnt(tx, past)
    holdout = spec.model.validate.holdout
    learnable = mature_until(spec.data, now) - holdout
    for job in reversed(trainings):
        incident = tx.get(Incident, spec.system, str(job.payload.get("incident", "")))
        response = None if incident is None else _response(answering, incident)
        if incident is None or response is None or (past and now - past[-1].at < (response.cooldown or holdout)):
            continue
        alarmed = incident.opened_at
        if (learnt is None or learnt < alarmed) and (undecided or learnable >= alarmed):
            why = undecided or f"the days up to {alarmed:%Y-%m-%d} can be fitted now"
            return Owed(incident=incident, payload=job.payload, why=why)
    return None


def ask(tx: Transaction, spec: SystemSpec, controls: Controls, now: datetime) -> list[str]:
    """Ask for the training that is owed, on the incident's record as well; returns what was done."""
    found = owed(tx, spec, now)
    if found is None:
        return []
    said = f"training submitted as {controls.submit(TRAIN, found.payload)} once more: {found.why}"
    incidents.note(tx, found.incident, RETRAIN, said, now)
    return [f"{found.incident.id}: {said}"]


def _undecided(training: Job, past: Iterable[Release]) -> str:
    """Why the last training did not decide anything; empty where it did."""
    run = training.result.get("run")
    release = next((each for each in past if each.run == run), None)
    if release is None:
        return f"what {training.id} made was not released"
    return "" if release.state in DECIDED else f"{release.id} ended undecided"


def _learnt(tx: Transaction, past: Iterable[Release]) -> datetime | None:
    """Up to when the newest days lie that a model was fitted on which was released or refused."""
    runs = [tx.get(Run, each.system, each.run) for each in past if each.state in DECIDED]
    return max((run.trained_until for run in runs if run is not None and run.trained_until is not None), default=None)


def _response(answering: Sequence[Response], incident: Incident) -> Response | None:
    """What the file answers such an incident with; None where it no longer does."""
    return next((each for each in answering if each.on in ("any", incident.check)), None)
