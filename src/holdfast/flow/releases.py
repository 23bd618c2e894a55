"""Shadow, canary, live: decided on paired evidence. In: a gated candidate, mature labels. Out: a release's moves."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
import polars as pl
from msgspec.structs import replace

from holdfast.core.evidence import Block, Verdict
from holdfast.core.protocols import Task, Transaction
from holdfast.core.records import OPEN_STATES, Move, Release, ReleaseState, Run
from holdfast.core.spec import ReleasePlan
from holdfast.core.targets import lists_of, target_of
from holdfast.errors import Conflict, HoldfastError, NotFound
from holdfast.flow import experiments, registry
from holdfast.stats import sequential

Score = Callable[[str, pl.DataFrame], "np.ndarray[tuple[int], np.dtype[np.float64]]"]
"""Outputs (n,) of a version, by id, on rows that carry the inputs."""


MISMATCH = "traffic did not come to the versions as split, so they cannot be compared"
"""How the reason begins for which a release is taken back that says nothing of its version."""


class CannotAnswer(HoldfastError):
    """A version under release does not answer what live traffic asked."""


class NothingBefore(NotFound):
    """No version was live before the one that is; `name` is that one, empty where none is."""

    def __init__(self, live: str) -> None:
        super().__init__("earlier live version", live)

    def __str__(self) -> str:
        now = f"version {self.name} is the first live version" if self.name else "no version is live yet"
        return f"{now}; there is nothing to go back to"


def open_release(tx: Transaction, system: str) -> Release | None:
    """The release that is under way, if any: there is at most one."""
    releases = tx.find(Release, system, state=OPEN_STATES)
    return releases[-1] if releases else None


def attempt(tx: Transaction, run: Run, *, cause: str, now: datetime) -> Release:
    """Begin a release of what a run produced. Raises Conflict while another one is under way."""
    under_way = open_release(tx, run.system)
    if under_way is not None:
        raise Conflict(f"{under_way.id} is still in {under_way.state}; wait for it, or roll it back first")
    release = Release(
        system=run.system,
        id=tx.next_id(Release, run.system, "rel-"),
        run=run.id,
        against=registry.current_route(tx, run.system).live,
        at=now,
        cause=cause,
        history=(Move(at=now, to="candidate", why=cause),),
    )
    tx.put(release)
    return release


def reject(tx: Transaction, release: Release, verdicts: Sequence[Verdict], why: str, now: datetime) -> Release:
    """A gate refused the candidate."""
    return _move(tx, replace(release, evidence=tuple(verdicts)), "rejected", why, now)


def enter(
    tx: Transaction, release: Release, version: str, verdicts: Sequence[Verdict], plan: ReleasePlan, now: datetime
) -> Release:
    """All gates passed: take the first step, or go live at once when there is nothing to compare with."""
    release = replace(release, version=version, evidence=tuple(verdicts))
    release = _move(tx, release, "gated", "all gates passed", now)
    if not release.against:
        return _promote(tx, release, "first release: nothing is live to compare with", now)
    return _take_step(tx, release, 0, plan, "gates passed", now)


def fold(release: Release, block: Block, task: Task, plan: ReleasePlan, score: Score, output: str) -> Release:
    """Fold one mature day into the comparison: both versions score every recorded, labelled row of it.

    The paired difference of each row is bounded by the two answers before its label is known (Choe and Ramdas 2024;
    Waudby-Smith and Ramdas 2024). A day is bet on within the widest bounds so far: within its own, days on which both
    versions agree would count for more than others, and what is decided would not be the mean over days.
    """
    rows = block.rows()
    labelled = rows.filter(pl.col("label").is_not_null()) if rows.height else rows
    past = replace(
        release.comparison, through=block.end, unlabelled=release.comparison.unlabelled + rows.height - labelled.height
    )
    if labelled.is_empty():
        return replace(release, comparison=past)
    if plan.decide.goal is not None:
        return replace(release, comparison=experiments.fold_goal(past, labelled, release, plan))
    y = target_of(task, labelled)
    live, candidate = (
        _outputs(labelled, release.against, score, output),
        _outputs(labelled, release.version, score, output),
    )
    if not np.isfinite(candidate).all():
        broken = int((~np.isfinite(candidate)).sum())
        raise CannotAnswer(f"version {release.version} has no finite answer to {broken} rows of {block.day}")
    loss = plan.decide.loss
    differences = task.loss(loss, y, candidate) - task.loss(loss, y, live)
    known = ~np.isnan(differences)
    if not known.any():  # nothing in any list is relevant
        return replace(release, comparison=past)
    difference = float(differences[known].mean())
    low, high = (float(bound[known].mean()) for bound in task.loss_bounds(loss, candidate, live, lists_of(y)))
    low, high = min(past.lowest, low), max(past.highest, high)
    comparison = replace(
        past,
        blocks=past.blocks + 1,
        lowest=low,
        highest=high,
        rows=past.rows + labelled.height,
        mean=past.mean + (difference - past.mean) / (past.blocks + 1),
        not_worse=sequential.fold_paired(past.not_worse, difference, low, high, plan.decide.margin, direction="below"),
        worse=sequential.fold_paired(past.worse, difference, low, high, 0.0, direction="above"),
    )
    return replace(release, comparison=comparison)


def step(tx: Transaction, release: Release, plan: ReleasePlan, now: datetime) -> Release:
    """Move a release on, back, or not at all, on the evidence folded so far. Stores it either way."""
    decision = _decision(release, plan)
    # The plan may have become shorter since the release began.
    stage, following = plan.steps[min(release.step, len(plan.steps) - 1)], plan.steps[release.step + 1 :]
    if decision == "mismatch":
        return roll_back(tx, release, f"{MISMATCH}: {evidence_text(release, plan)}", now)
    if decision == "worse":
        return roll_back(tx, release, f"worse than version {release.against}: {evidence_text(release, plan)}", now)
    waited = release.step_since is not None and now - release.step_since >= stage.least
    last_before_live = not following or following[0].stage == "live"
    if waited and not last_before_live:
        return _take_step(tx, release, release.step + 1, plan, f"no evidence against it in {stage.stage}", now)
    if waited and decision == "not worse":
        return _promote(tx, release, f"not worse than version {release.against}: {evidence_text(release, plan)}", now)
    if now - release.at >= plan.decide.within:
        why = f"undecided after {plan.decide.within.days} days, so version {release.against} stays: "
        return _close(tx, release, "expired", why + evidence_text(release, plan), now)
    tx.put(release)
    return release


def roll_back(tx: Transaction, release: Release, why: str, now: datetime, by: str = "holdfast") -> Release:
    """Take an open release back: its version answers nothing any more."""
    return _close(tx, release, "rolled_back", why, now, by)


def is_mismatch(release: Release) -> bool:
    """Whether a release was taken back because traffic did not come as it was split."""
    return release.state == "rolled_back" and release.why.startswith(MISMATCH)


def take_back(tx: Transaction, system: str, why: str, now: datetime, by: str = "holdfast") -> str:
    """Take the open release back, or else the live version; returns the version that is live now.

    Raises NothingBefore where no version was live before.
    """
    under_way = open_release(tx, system)
    live = registry.current_route(tx, system).live
    if under_way is not None:
        roll_back(tx, under_way, why, now, by)
        return live
    before = roll_back_live(tx, system, why, now, by)
    detail = {"live": before, "why": why}
    tx.audit(at=now, actor=by, action="version rolled back", system=system, subject=live, detail=detail)
    return before


def roll_back_live(tx: Transaction, system: str, why: str, now: datetime, by: str = "holdfast") -> str:
    """Make the version that was live before live again; returns its id. Raises NothingBefore when there was none."""
    before = registry.previous_live(tx, system)
    if not before:
        raise NothingBefore(registry.current_route(tx, system).live)
    bad = registry.current_route(tx, system).live
    registry.move(tx, system, bad, "rolled_back", why, now, by)
    registry.move(tx, system, before, "live", f"back from version {bad}: {why}", now, by)
    for release in tx.find(Release, system, state=("live",)):
        tx.put(
            replace(
                release,
                state="rolled_back",
                why=why,
                history=(*release.history, Move(at=now, to="rolled_back", why=why, by=by)),
            )
        )
    registry.reroute(tx, system, now, live=before, canary="", canary_share=0.0, shadow="", release="")
    return before


def evidence_text(release: Release, plan: ReleasePlan) -> str:
    """The comparison in one line."""
    c = release.comparison
    if plan.decide.goal is not None:
        return experiments.goal_text(release, plan)
    return (
        f"{plan.decide.loss} {c.mean:+.4f} a day over {c.blocks} days and {c.rows:,} labelled rows "
        f"({c.unlabelled:,} without label), margin {plan.decide.margin:g}, evidence not worse "
        f"{_evidence(c.not_worse):.1f}, worse {_evidence(c.worse):.1f}, "
        f"needed {1 / (1 - plan.decide.confidence):.0f}"
    )


def _decision(release: Release, plan: ReleasePlan) -> experiments.Outcome:
    if plan.decide.goal is not None:
        return experiments.judge_goal(release, plan)
    folded = release.comparison
    return sequential.decide(folded.not_worse, folded.worse, 1 - plan.decide.confidence)


def _evidence(state: tuple[float, ...]) -> float:
    return math.exp(min(sequential.log_evidence(state), 700.0))


def _outputs(
    rows: pl.DataFrame, version: str, score: Score, output: str
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """A version's outputs: as recorded where it was the one that answered, else scored from the recorded inputs."""
    answered = (rows["version"] == version).to_numpy()
    if answered.all():
        return rows[output].to_numpy()
    recorded = rows[output].to_numpy()
    outputs = np.zeros(recorded.shape)
    outputs[answered] = recorded[answered]
    outputs[~answered] = score(version, rows.filter(pl.Series(~answered)))
    return outputs


def _take_step(tx: Transaction, release: Release, step: int, plan: ReleasePlan, why: str, now: datetime) -> Release:
    stage = plan.steps[step]
    if stage.stage == "live":
        return _promote(tx, release, why, now)
    is_canary = stage.stage == "canary"
    compared = replace(release.comparison, split=(), split_step=-1, split_through=None)  # each step splits anew
    share = stage.share if is_canary else 0.0
    release = replace(release, step=step, step_since=now, share=share, comparison=compared)
    release = _move(tx, release, stage.stage, why, now)
    registry.reroute(
        tx,
        release.system,
        now,
        canary=release.version if is_canary else "",
        canary_share=release.share,
        shadow="" if is_canary else release.version,
        release=release.id,
    )
    return release


def _promote(tx: Transaction, release: Release, why: str, now: datetime) -> Release:
    if release.against:
        registry.move(tx, release.system, release.against, "retired", f"replaced by version {release.version}", now)
        for old in tx.find(Release, release.system, state=("live",)):
            tx.put(replace(old, state="retired", history=(*old.history, Move(at=now, to="retired", why=why))))
    release = _move(tx, release, "live", why, now)
    registry.reroute(tx, release.system, now, live=release.version, canary="", canary_share=0.0, shadow="", release="")
    return release


def _close(
    tx: Transaction, release: Release, to: ReleaseState, why: str, now: datetime, by: str = "holdfast"
) -> Release:
    registry.reroute(tx, release.system, now, canary="", canary_share=0.0, shadow="", release="")
    return _move(tx, release, to, why, now, by)


def _move(
    tx: Transaction, release: Release, to: ReleaseState, why: str, now: datetime, by: str = "holdfast"
) -> Release:
    release = replace(release, state=to, why=why, history=(*release.history, Move(at=now, to=to, why=why, by=by)))
    tx.put(release)
    if release.version:
        registry.move(tx, release.system, release.version, to, why, now, by)
    tx.audit(
        at=now,
        actor=by,
        action=f"release {to}",
        system=release.system,
        subject=release.id,
        detail={"version": release.version, "why": why},
    )
    return release
