"""Releases that a goal decides: the labels of those whom each version answered, and how traffic split."""

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.evidence import Block
from holdfast.core.protocols import Transaction
from holdfast.core.records import OPEN_STATES, Release, Run
from holdfast.core.spec import Decide, ReleasePlan, Step
from holdfast.core.specrules import check_decide, check_release
from holdfast.flow import experiments, registry, releases
from holdfast.tasks.classification import Classification
from holdfast.testing import START

DAY = timedelta(days=1)
STEPS = (Step(stage="shadow", least=DAY), Step(stage="canary", share=0.5, least=3 * DAY), Step(stage="live"))
DECIDE = Decide(loss="brier", margin=0.02, goal="label", prefer="lower", within=60 * DAY)
PLAN = ReleasePlan(steps=STEPS, decide=DECIDE)


@pytest.fixture
def release(tx: Transaction) -> Release:
    """In its canary; version 1 is live."""
    for number in (1, 2):
        facts: dict[str, Any] = {"snapshot": "s", "trainer": "linear", "seed": 7, "started_at": START}
        run = Run(system="orders", id=f"run-{number}", state="succeeded", artifact=f"a{number}", **facts)
        tx.put(run)
        made = releases.attempt(tx, run, cause="test", now=START)
        version = registry.register(tx, run, bundle="b", signature_hash="s", signed_by="me", now=START)
        made = releases.enter(tx, made, version.id, (), PLAN, START)
    return releases.step(tx, made, PLAN, START + DAY)


def a_day(
    rng: np.random.Generator, day: int, rates: tuple[float, float], rows=(500, 500), units=None, spread=0.03
) -> Block:
    """Rows that version 1 and version 2 answered, with the labels that came of it; days differ for both alike."""
    common = rng.normal(0, spread)
    labels = [(rng.random(n) < rate + common).astype(float) for rate, n in zip(rates, rows, strict=True)]
    start = START + day * DAY
    names = units or [f"{day}-{i}" for i in range(sum(rows))]
    frame = pl.DataFrame(
        {
            "label": np.concatenate(labels),
            "probability": 0.5,
            "version": ["1"] * rows[0] + ["2"] * rows[1],
            "unit": names,
            "key": names,
            "request_id": names,
            "predicted_at": [start] * sum(rows),
            "release": ["rel-2"] * sum(rows),
        }
    )
    return Block(start.date(), start, start + DAY, lambda: frame)


def asked_for(block: Block, version: str, rows: int) -> Block:
    """The day with so many rows more, whose callers named the version; all of them had what the label says."""
    more = (
        block.rows()
        .head(rows)
        .with_columns(
            pl.lit(version).alias("version"),
            pl.lit("").alias("release"),
            pl.lit(1.0).alias("label"),
            *(pl.format("asked-{}", name).alias(name) for name in ("unit", "key", "request_id")),
        )
    )
    frame = pl.concat([block.rows(), more])
    return Block(block.day, block.start, block.end, lambda: frame)


def run_to_end(tx, release, rates, plan=PLAN, rows=(500, 500), spread=0.03):
    rng = np.random.default_rng(5)
    blocks: list[Block] = []
    while release.state in OPEN_STATES:
        day = len(blocks) + 2
        blocks.append(a_day(rng, day, rates, rows, spread=spread))
        release = releases.fold(release, blocks[-1], Classification(), plan, None, "probability")
        split = experiments.fold_split(blocks, release, plan)
        release = replace(release, comparison=replace(release.comparison, split=split))
        release = releases.step(tx, release, plan, release.at + (day + 1) * DAY)
    return release


def test_what_brings_about_as_much_goes_live(tx, release):
    ended = run_to_end(tx, release, (0.3, 0.3))
    assert ended.state == "live"
    assert "lower is better" in ended.why
    assert "of 50.0%" in ended.why


def test_what_brings_about_more_is_taken_back_or_not_as_the_file_prefers(tx, release):
    assert run_to_end(tx, release, (0.3, 0.36)).state == "rolled_back"


def test_what_brings_about_more_goes_live_where_more_is_better(tx, release):
    plan = replace(PLAN, decide=replace(DECIDE, prefer="higher"))
    assert run_to_end(tx, release, (0.3, 0.36), plan).state == "live"


def test_arms_that_traffic_did_not_come_to_as_planned_are_not_compared(tx, release):
    ended = run_to_end(tx, release, (0.3, 0.3), rows=(500, 380))
    assert ended.state == "rolled_back"
    assert "traffic did not come to the versions as split" in ended.why


def test_a_unit_is_counted_once_where_it_came_first(release):
    rng = np.random.default_rng(1)
    names = [f"user-{i}" for i in range(100)]
    days = [a_day(rng, day, (0.3, 0.3), (60, 40), names) for day in (2, 3, 4)]
    _, control, candidate = experiments.fold_split(days, release, PLAN)
    assert (control, candidate) == (60, 40)


@pytest.mark.slow
def test_the_split_is_judged_by_the_share_of_its_step_whatever_the_file_says_now(tx, release):
    assert release.share == 0.5
    edited = replace(PLAN, steps=(STEPS[0], replace(STEPS[1], share=0.9), STEPS[2]))
    assert run_to_end(tx, release, (0.3, 0.3), edited).state == "live"


def test_a_release_kept_before_shares_were_is_judged_by_the_share_of_the_file(release):
    old = replace(release, share=0.0)
    assert experiments.canary_share(old, PLAN) == 0.5
    assert experiments.canary_share(replace(old, state="shadow"), PLAN) == 0.0
    kept = msgspec.to_builtins(old)
    del kept["share"], kept["comparison"]["split_step"], kept["comparison"]["split_through"]
    assert msgspec.convert(kept, Release) == old


def test_the_next_step_begins_without_the_split_of_the_last(tx, release):
    plan = replace(PLAN, steps=(*STEPS[:2], Step(stage="canary", share=0.8, least=DAY), STEPS[2]))
    counted = replace(release.comparison, split=(0.0, 500.0, 500.0), split_step=1, split_through=START.date())
    moved = releases.step(tx, replace(release, comparison=counted), plan, release.at + 10 * DAY)
    assert (moved.step, moved.share, registry.current_route(tx, "orders").canary_share) == (2, 0.8, 0.8)
    assert (moved.comparison.split, moved.comparison.split_through) == ((), None)


def test_a_split_is_counted_again_only_where_a_day_or_the_step_is_new(release):
    rng = np.random.default_rng(1)
    days = [a_day(rng, day, (0.3, 0.3), (60, 40)) for day in (2, 3)]
    read = []

    def some(count):
        return lambda: read.append(count) or days[:count]

    once = experiments.with_split(release, PLAN, days[0].day, some(1))
    assert experiments.with_split(once, PLAN, days[0].day, some(1)) is once
    stored = msgspec.convert(msgspec.to_builtins(once), Release)
    assert experiments.with_split(stored, PLAN, days[0].day, some(1)) is stored
    twice = experiments.with_split(stored, PLAN, days[1].day, some(2))
    experiments.with_split(replace(twice, step=2), PLAN, days[1].day, some(2))
    assert read == [1, 2, 2]
    assert (once.comparison.split[1:], twice.comparison.split[1:]) == ((60, 40), (120, 80))


def test_requests_that_name_a_version_judge_no_release(release):
    rng = np.random.default_rng(1)
    plain = [a_day(rng, day, (0.3, 0.3)) for day in (2, 3, 4)]
    mixed = [asked_for(block, "2", 100) for block in plain]
    assert experiments.fold_split(mixed, release, PLAN) == experiments.fold_split(plain, release, PLAN)
    folded = [releases.fold(release, days[0], Classification(), PLAN, None, "probability") for days in (mixed, plain)]
    assert folded[0].comparison.goal == folded[1].comparison.goal


@pytest.mark.slow
def test_a_rare_event_that_the_candidate_brings_about_more_often_is_not_called_no_worse(tx, release):
    plan = replace(PLAN, decide=replace(DECIDE, margin=0.001))
    ended = run_to_end(tx, release, (0.0005, 0.0025), plan, rows=(500, 500), spread=0.0)
    assert ended.state in ("rolled_back", "expired")
    assert "group" in ended.why or "wait for 3 rows" in ended.why


@pytest.mark.slow
def test_a_label_that_nobody_has_decides_nothing(tx, release):
    ended = run_to_end(tx, release, (0.0, 0.0), spread=0.0)
    assert ended.state == "expired"
    assert "0 days are too few for an interval; 58 days wait for 3 rows with the rarer label" in ended.why


def test_a_goal_says_what_is_better_and_has_somebody_to_compare_with():
    without = Decide(loss="brier", margin=0.02, goal="label")
    assert [where for where, _ in check_decide(without)] == ["prefer"]
    assert [where for where, _ in check_decide(Decide(loss="brier", margin=0.02, prefer="lower"))] == ["prefer"]
    shadow = ReleasePlan(steps=(STEPS[0], STEPS[2]), decide=DECIDE)
    at_once = ReleasePlan(steps=(STEPS[2],), decide=DECIDE)
    for plan in (shadow, at_once):
        assert any("those whom a canary answers" in why for _, why in check_release(plan))
    assert not list(check_release(PLAN))
