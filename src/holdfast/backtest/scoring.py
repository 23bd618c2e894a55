"""What a replay cost and caught: its answers against the truth, its alarms against harm, its faults against time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import polars.selectors as cs

from holdfast.backtest.faults import Fault, touched_feeds
from holdfast.core.protocols import PREDICTIONS
from holdfast.core.records import Incident, Release, Run, Version
from holdfast.core.targets import mean_loss, taken, target_of, with_lists
from holdfast.flow.classes import gathered, part_names
from holdfast.flow.incidents import FURTHER, PASSED
from holdfast.flow.monitors import MONTH

if TYPE_CHECKING:
    from holdfast.system import System

HARM_DAYS = timedelta(days=7)
"""An alarm counts as one with harm when the answers of this long before and after it were worse than promised."""
NO_ACTIONS = ("closed", "acknowledged", FURTHER, PASSED)
"""Moves of an incident that are no answer to it."""
DETECTED_WITHIN = timedelta(days=14)
"""A fault's alarm must come while it lasts or at most this long after its end."""


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """One incident of a replay."""

    at: datetime
    check: str
    subject: str
    calibrated: bool
    stood_in: bool = False
    """Whether a limit judged only because history was too short."""
    with_harm: bool
    why: str
    actions: tuple[str, ...]


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one injected fault; `detected_at` is None when nothing noticed it in time."""

    name: str
    injected_at: datetime
    detected_at: datetime | None
    check: str
    action: str
    why: str = ""


class ReleaseSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One release of a replay."""

    id: str
    version: str
    cause: str
    began: datetime
    state: str
    ended: datetime
    why: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A whole replay. Losses and metrics are over labelled answers; `bias` is mean answer minus mean label."""

    metrics: dict[str, float]
    """All metrics of the task."""
    by_month: tuple[dict[str, Any], ...]
    predictions: int
    labelled: int
    refused: int = 0
    """Rows that did not fit the live version's signature and were not answered."""
    retrains: int
    alarms: tuple[Alarm, ...]
    releases: tuple[ReleaseSummary, ...]
    detections: tuple[Detection, ...]
    false_alarms_per_month: float
    """Alarms without harm per 30 days."""
    cpu_s: float = 0.0
    """CPU seconds of the process that replayed: the whole loop, without the trainings, which run in their own."""
    took_s: float
    training_s: float
    """Wall time of it spent waiting for training jobs."""


def score_replay(
    system: "System", truth: pl.DataFrame, faults: Sequence[Fault], *, start: datetime, end: datetime, took_s: float
) -> Outcome:
    """Score what a system did between two times against all labels that ever came."""
    name = system.spec.system
    with system.state.catalog.read() as tx:
        incidents = tx.find(Incident, name)
        releases = tx.find(Release, name)
        runs = tx.find(Run, name)
        versions = tx.find(Version, name)
    answered = _with_truth(system, truth)
    scored = _scored(system, answered)
    alarms = tuple(_alarm(system, incident, scored, versions) for incident in incidents)
    months = (end - start) / MONTH
    without_harm = sum(1 for alarm in alarms if not alarm.with_harm)
    return Outcome(
        metrics=_metrics(system, scored),
        by_month=tuple(_by_month(system, answered)),
        predictions=answered.height,
        labelled=scored.height,
        retrains=sum(1 for run in runs[1:] if run.state == "succeeded"),
        alarms=alarms,
        releases=tuple(_summary(release) for release in releases),
        detections=tuple(_detect(system, fault, incidents, releases) for fault in faults),
        false_alarms_per_month=without_harm / months,
        took_s=took_s,
        training_s=system.workshop.waited_s,
    )


def _with_truth(system: "System", truth: pl.DataFrame) -> pl.DataFrame:
    recorded = system.state.lake.scan(PREDICTIONS.name, system.spec.system)
    output = system.task.output
    parts = part_names(output, system.task.classes)
    named = [pl.col(f"out.{name}").alias(name) for name in parts or [output] if f"out.{name}" in recorded.columns]
    lists = cs.by_name("unit", "request_id", require_all=False)
    answers = recorded.select("key", lists, "event_at", "version", "stage", *named)
    answers = gathered(answers, output, system.task.classes) if parts else answers
    labels = (
        truth.select("key", taken(system.task, truth["label"]))
        .drop_nulls()
        .unique("key", keep="last", maintain_order=True)
    )
    month = pl.col("event_at").dt.convert_time_zone(system.spec.data.timezone).dt.strftime("%Y-%m").alias("month")
    return with_lists(system.task, answers.join(labels, on="key", how="left").with_columns(month))


def _scored(system: "System", answered: pl.DataFrame) -> pl.DataFrame:
    """The answers that the truth is known of; one that failed has none to score."""
    return answered.filter(pl.col("label").is_not_null() & pl.col(system.task.output).is_not_null())


def _metrics(system: "System", scored: pl.DataFrame) -> dict[str, float]:
    if scored.is_empty():
        return {}
    return system.task.metrics(target_of(system.task, scored), scored[system.task.output].to_numpy())


def _by_month(system: "System", answered: pl.DataFrame) -> list[dict[str, Any]]:
    months = []
    for (month,), rows in answered.sort("month", maintain_order=True).group_by("month", maintain_order=True):
        scored = _scored(system, rows)
        counts = {"month": month, "predictions": rows.height, "labelled": scored.height}
        months.append({**counts, **_metrics(system, scored)})
    return months


def _alarm(system: "System", incident: Incident, scored: pl.DataFrame, versions: Sequence[Version]) -> Alarm:
    return Alarm(
        at=incident.opened_at,
        check=incident.check,
        subject=incident.subject,
        calibrated=incident.calibrated,
        stood_in=not incident.calibrated and incident.first.stood_in,
        with_harm=_did_harm(system, incident.opened_at, scored, versions),
        why=incident.first.why,
        actions=tuple(f"{move.to}: {move.why}" for move in incident.actions if move.to not in NO_ACTIONS),
    )


def _did_harm(system: "System", at: datetime, scored: pl.DataFrame, versions: Sequence[Version]) -> bool:
    """Whether the answers around a time were worse, in the default loss, than the live version's promise."""
    around = scored.filter((pl.col("event_at") >= at - HARM_DAYS) & (pl.col("event_at") < at + HARM_DAYS))
    went_live = [(move.at, v.id) for v in versions for move in v.history if move.to == "live" and move.at <= at]
    if around.is_empty() or not went_live:
        return False
    live = max(went_live, key=lambda each: each[0])[1]
    loss = system.spec.release.decide.loss
    losses = system.task.loss(loss, target_of(system.task, around), around[system.task.output].to_numpy())
    return mean_loss(losses) > system.promised(live)[loss]  # not where no row can be judged


def _detect(system: "System", fault: Fault, incidents: Sequence[Incident], releases: Sequence[Release]) -> Detection:
    if fault.fault == "swapped_columns":
        return _detect_release(fault, releases)
    groups = system.groups()
    feeds = touched_feeds(system.spec.data, fault)
    for incident in sorted(incidents, key=lambda i: i.opened_at):
        subjects = {incident.subject, *incident.also}
        about_it = any(groups.get(subject, subject) in feeds for subject in subjects)
        about_labels = fault.fault == "labels_stop" and "labels" in subjects
        if fault.start <= incident.opened_at <= fault.end + DETECTED_WITHIN and (about_it or about_labels):
            done = "; ".join(move.why for move in incident.actions if move.to not in NO_ACTIONS)
            return Detection(
                name=fault.name,
                injected_at=fault.start,
                detected_at=incident.opened_at,
                check=incident.check,
                action=done or "recorded",
                why=incident.first.why,
            )
    return Detection(name=fault.name, injected_at=fault.start, detected_at=None, check="", action="")


def _detect_release(fault: Fault, releases: Sequence[Release]) -> Detection:
    for release in releases:
        if release.cause == f"fault: {fault.name}":
            stopped = release.state in ("rejected", "rolled_back", "expired")
            stages = [move.to for move in release.history]
            return Detection(
                name=fault.name,
                injected_at=release.at,
                detected_at=release.history[-1].at if stopped else None,
                check="gate" if release.state == "rejected" else f"release in {stages[-2]}",
                action=f"{release.state.replace('_', ' ')}" if stopped else f"still {release.state}",
                why=release.why,
            )
    return Detection(name=fault.name, injected_at=fault.start, detected_at=None, check="", action="never trained")


def _summary(release: Release) -> ReleaseSummary:
    return ReleaseSummary(
        id=release.id,
        version=release.version,
        cause=release.cause,
        began=release.at,
        state=release.state,
        ended=release.history[-1].at,
        why=release.why,
    )
