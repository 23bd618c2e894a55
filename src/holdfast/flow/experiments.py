"""A release decided by what its answers bring about. In: mature days of split traffic. Out: what the arms differ by.

Where answers influence outcomes, scoring both versions on the same rows says nothing: the label is what came of the
answer that was given. Then only the split counts: the label of those whom the candidate answered against the label of
those whom the live version did, as in any A/B experiment.
"""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Literal, TypeVar

import polars as pl
from msgspec.structs import replace

from holdfast.core.evidence import Block
from holdfast.core.records import Comparison, Release
from holdfast.core.spec import ReleasePlan
from holdfast.stats.confidence import StudentMixture
from holdfast.stats.experiments import FloatArray, GoalDifference, SplitCheck

Outcome = Literal["not worse", "worse", "undecided", "mismatch"]
Ends = TypeVar("Ends", float, FloatArray)

UNIT = pl.coalesce("unit", "key", "request_id")
"""What sticks to one version."""


def fold_goal(past: Comparison, labelled: pl.DataFrame, release: Release, plan: ReleasePlan) -> Comparison:
    """Fold the labels of one mature day: the mean of those whom each version answered. Shadows answer nobody."""
    labelled = _split_only(labelled, release)
    arms = [labelled.filter(pl.col("version") == version)["label"] for version in (release.against, release.version)]
    control, candidate = ((arm.mean() if len(arm) else float("nan")) for arm in arms)
    goal = goal_of(plan).fold(
        past.goal,
        _number(control),
        _number(candidate),
        control_rows=len(arms[0]),
        treatment_rows=len(arms[1]),
        rare_rows=labelled.height - _number_of(labelled["label"].unique_counts().max()),
    )
    return replace(past, blocks=past.blocks + 1, rows=past.rows + labelled.height, goal=goal)


def with_split(release: Release, plan: ReleasePlan, newest: date, blocks: Callable[[], Sequence[Block]]) -> Release:
    """Count how units came to the versions in the step under way, where a day or the step is new since it was counted.

    `blocks` gives the whole days since the step began, `newest` the last of them included.
    """
    past = release.comparison
    if (past.split_step, past.split_through) == (release.step, newest):
        return release
    split = fold_split(blocks(), release, plan)
    return replace(release, comparison=replace(past, split=split, split_step=release.step, split_through=newest))


def fold_split(blocks: Sequence[Block], release: Release, plan: ReleasePlan) -> tuple[float, ...]:
    """How units came to the two versions on some days, each counted once, where it was answered first."""
    share = canary_share(release, plan)
    if not share:
        return ()
    check = _split(share)
    days = [
        _split_only(rows, release).select(UNIT.alias("unit"), "version", "predicted_at", pl.lit(day).alias("day"))
        for day, block in enumerate(blocks)
        if (rows := block.rows()).height
    ]
    state: tuple[float, ...] = ()
    if not days:
        return state
    first = pl.concat(days).sort("day", "predicted_at", maintain_order=True)
    first = first.unique("unit", keep="first", maintain_order=True)
    is_candidate = pl.col("version") == release.version
    counts = first.group_by("day").agg(pl.len().alias("units"), is_candidate.sum().alias("candidates")).sort("day")
    for _, units, candidates in counts.iter_rows():
        state = check.fold(state, (units - candidates, candidates))
    return state


def canary_share(release: Release, plan: ReleasePlan) -> float:
    """The share that the canary under way was given when its step was taken; 0 where none is under way."""
    if release.share or release.state == "shadow":
        return release.share
    stage = plan.steps[min(release.step, len(plan.steps) - 1)]  # releases that began before shares were kept
    return stage.share if stage.stage == "canary" else 0.0


def judge_goal(release: Release, plan: ReleasePlan) -> Outcome:
    """What the arms say so far: "not worse" by the margin, "worse", or that the split cannot be trusted."""
    past, decide = release.comparison, plan.decide
    share = canary_share(release, plan)
    if share and past.split and _split(share).judge(past.split).says == "mismatch":
        return "mismatch"
    found = goal_of(plan).judge(past.goal)
    if found.says == "unknown":
        return "undecided"
    best, worst = harm(found.low, found.high, plan)
    if best > 0:
        return "worse"
    return "not worse" if worst <= decide.margin else "undecided"


def harm(low: Ends, high: Ends, plan: ReleasePlan) -> tuple[Ends, Ends]:
    """How much worse the candidate is, at least and at most, from an interval for candidate less live version."""
    return (low, high) if plan.decide.prefer == "lower" else (-high, -low)


def goal_of(plan: ReleasePlan) -> GoalDifference:
    """The test that decides."""
    return GoalDifference(sequence=StudentMixture(alpha=1 - plan.decide.confidence))


def goal_text(release: Release, plan: ReleasePlan) -> str:
    """The arms and their split in one line."""
    past, decide = release.comparison, plan.decide
    found = goal_of(plan).judge(past.goal)
    said = f"mean label of the candidate's answers less the live version's, {decide.prefer} is better: {found.why}"
    share = canary_share(release, plan)
    split = f"; split: {_split(share).judge(past.split).why}" if past.split and share else ""
    return f"{said}; margin {decide.margin:g}{split}"


def _split(share: float) -> SplitCheck:
    return SplitCheck((1 - share, share))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _number_of(value: object) -> int:
    return value if isinstance(value, int) else 0


def _split_only(rows: pl.DataFrame, release: Release) -> pl.DataFrame:
    """Rows of the two versions that came to them by chance: one whose caller names a version is of no release."""
    by_chance = pl.col("release") == release.id
    return rows.filter(by_chance, pl.col("version").is_in([release.against, release.version]))
