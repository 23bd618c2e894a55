"""Releases: from candidate to live only on evidence, and back; every move on record and in the routes."""

import math
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.evidence import Block, Grade, Reading, Verdict
from holdfast.core.protocols import Transaction
from holdfast.core.records import OPEN_STATES, Comparison, Release, Run, Version
from holdfast.core.spec import Decide, ReleasePlan, Step
from holdfast.engines.memory import MemoryCatalog
from holdfast.errors import Conflict, NotFound
from holdfast.flow import registry, releases
from holdfast.flow.registry import current_route
from holdfast.security import audit
from holdfast.tasks.classification import Classification
from holdfast.testing import START, refused

DAY = timedelta(days=1)
TASK = Classification()
SHADOW, CANARY, LIVE = (
    Step(stage="shadow", least=2 * DAY),
    Step(stage="canary", share=0.1, least=3 * DAY),
    Step(stage="live"),
)
PLAN = ReleasePlan(steps=(SHADOW, CANARY, LIVE), decide=Decide(loss="brier", margin=0.02))
PASSED = Verdict(grade=Grade.PASS, check="quality", reading=Reading(name="brier", value=0.1), why="good")


def a_release(tx: Transaction, run: str, day: float = 0) -> Release:
    facts: dict[str, Any] = {"snapshot": "s", "trainer": "linear", "seed": 7, "started_at": START, "artifact": run}
    made = Run(system="orders", id=run, state="succeeded", **facts)
    tx.put(made)
    return releases.attempt(tx, made, cause="test", now=START + day * DAY)


def entered(tx: Transaction, run: str, day: float = 0, plan: ReleasePlan = PLAN) -> Release:
    """A release whose candidate passed its gates."""
    release, now = a_release(tx, run, day), START + day * DAY
    made = tx.get(Run, "orders", run)
    assert made is not None
    version = registry.register(tx, made, bundle="b", signature_hash="s", signed_by="me", now=now)
    return releases.enter(tx, release, version.id, (PASSED,), plan, now)


@pytest.fixture
def first(tx: Transaction) -> Release:
    """A first release: version 1 is live."""
    return entered(tx, "run-1")


def a_block(day: int, rows: pl.DataFrame) -> Block:
    start = START + day * DAY
    return Block(start.date(), start, start + DAY, lambda: rows)


def paired(day: int, y: Sequence[float | None], live: Sequence[float], candidate: Sequence[float]) -> Block:
    """A day of rows that version 1 answered; the candidate's answers stand in their input."""
    columns = {"label": list(y), "probability": list(live), "candidate": list(candidate), "version": ["1"] * len(y)}
    return a_block(day, pl.DataFrame(columns, schema_overrides={"label": pl.Float64}))


def score(version: str, rows: pl.DataFrame) -> np.ndarray:
    return rows["candidate" if version == "2" else "probability"].to_numpy()


def folded(release: Release, block: Block, plan: ReleasePlan = PLAN) -> Release:
    return releases.fold(release, block, TASK, plan, score, "probability")


def simulated(rng: np.random.Generator, day: int, off: tuple[float, float], rows: int = 30) -> Block:
    """A day of paired answers that are `off` the true probability (live, candidate); its labels hang together."""
    true = rng.uniform(0.3, 0.6, rows)
    common = rng.random(rows) < 0.5
    y = np.where(common, rng.random() < true, rng.random(rows) < true).astype(np.float64)
    return paired(day, list(y), list(true + off[0]), list(true + off[1]))


def run_to_end(
    tx: Transaction, release: Release, rng: np.random.Generator, off: tuple[float, float], plan: ReleasePlan = PLAN
) -> Release:
    """Fold and step day by day until the release is closed."""
    day = 1
    while release.state in OPEN_STATES:
        release = folded(release, simulated(rng, day, off), plan)
        release = releases.step(tx, release, plan, release.at + day * DAY)
        day += 1
    return release


def states(release: Release) -> list[str]:
    return [move.to for move in release.history]


# Moves


def test_a_first_release_goes_live_at_once(tx: Transaction, first: Release) -> None:
    assert (first.state, first.against) == ("live", "")
    assert states(first) == ["candidate", "gated", "live"]
    route = current_route(tx, "orders")
    assert (route.live, route.canary, route.shadow, route.release) == ("1", "", "", "")
    assert registry.get_version(tx, "orders", "1").state == "live"


def test_what_the_gates_found_stands_in_the_release(tx: Transaction, first: Release) -> None:
    assert first.evidence == (PASSED,)
    rejected = releases.reject(tx, a_release(tx, "run-2"), (PASSED,), "roc_auc 0.5 is too low", START)
    assert (rejected.state, rejected.why, rejected.evidence) == ("rejected", "roc_auc 0.5 is too low", (PASSED,))
    assert current_route(tx, "orders").live == "1"
    assert tx.find(Version, "orders", state=("rejected",)) == []


def test_only_one_release_is_under_way(tx: Transaction, first: Release) -> None:
    second = entered(tx, "run-2")
    with refused(Conflict, second.id, "shadow"):
        a_release(tx, "run-3")
    releases.roll_back(tx, second, "enough", START)
    assert a_release(tx, "run-3").state == "candidate"


def test_a_release_goes_from_shadow_over_canary_to_live_only_with_evidence(tx: Transaction, first: Release) -> None:
    release = entered(tx, "run-2")
    assert (release.state, current_route(tx, "orders").shadow, current_route(tx, "orders").canary) == (
        "shadow",
        "2",
        "",
    )
    release = releases.step(tx, release, PLAN, START + 1.9 * DAY)
    assert release.state == "shadow"
    release = releases.step(tx, release, PLAN, START + 2 * DAY)
    route = current_route(tx, "orders")
    assert (release.state, route.canary, route.canary_share, route.shadow) == ("canary", "2", 0.1, "")
    assert (route.live, route.release) == ("1", release.id)
    assert releases.step(tx, release, PLAN, START + 20 * DAY).state == "canary"
    for day in range(1, 15):
        release = folded(release, paired(day, [1.0, 0.0], [0.5, 0.5], [0.9, 0.1]))
    assert releases.step(tx, release, PLAN, START + 4.9 * DAY).state == "canary"
    release = releases.step(tx, release, PLAN, START + 5 * DAY)
    route = current_route(tx, "orders")
    assert (release.state, route.live, route.canary, route.canary_share, route.shadow) == ("live", "2", "", 0.0, "")
    assert states(release) == ["candidate", "gated", "shadow", "canary", "live"]
    assert "brier -0.2400 a day over 14 days and 28 labelled rows" in release.why
    retired = tx.get(Release, "orders", first.id)
    assert retired is not None
    assert (retired.state, registry.get_version(tx, "orders", "1").state) == ("retired", "retired")


def test_a_plan_of_live_alone_goes_live_after_the_gates(tx: Transaction, first: Release) -> None:
    release = entered(tx, "run-2", plan=ReleasePlan(steps=(LIVE,), decide=PLAN.decide))
    assert (release.state, current_route(tx, "orders").live) == ("live", "2")


def test_a_plan_that_became_shorter_is_still_decided(tx: Transaction, first: Release) -> None:
    release = releases.step(tx, entered(tx, "run-2"), PLAN, START + 2 * DAY)
    shorter = ReleasePlan(steps=(LIVE,), decide=PLAN.decide)
    assert releases.step(tx, release, shorter, START + 3 * DAY).state == "canary"
    for day in range(1, 15):
        release = folded(release, paired(day, [1.0, 0.0], [0.5, 0.5], [0.9, 0.1]))
    assert releases.step(tx, release, shorter, START + 15 * DAY).state == "live"


def test_every_move_changes_the_route_by_one_generation_or_not_at_all(tx: Transaction, first: Release) -> None:
    assert current_route(tx, "orders").generation == 1
    release = entered(tx, "run-2")
    assert current_route(tx, "orders").generation == 2
    releases.step(tx, release, PLAN, START + DAY)
    assert current_route(tx, "orders").generation == 2
    releases.step(tx, release, PLAN, START + 2 * DAY)
    assert current_route(tx, "orders").generation == 3


def test_every_move_is_audited_in_an_unbroken_chain(tx: Transaction, first: Release) -> None:
    release = releases.step(tx, entered(tx, "run-2"), PLAN, START + 2 * DAY)
    releases.roll_back(tx, release, "no", START + 3 * DAY, by="me")
    releases.reject(tx, a_release(tx, "run-3"), (), "bad", START)
    log = tx.audit_log("orders")
    assert [(entry.subject, entry.action.removeprefix("release "), entry.actor) for entry in log] == [
        ("rel-1", "gated", "holdfast"),
        ("rel-1", "live", "holdfast"),
        ("rel-2", "gated", "holdfast"),
        ("rel-2", "shadow", "holdfast"),
        ("rel-2", "canary", "holdfast"),
        ("rel-2", "rolled_back", "me"),
        ("rel-3", "rejected", "holdfast"),
    ]
    audit.verify(log)


# Evidence


def test_a_worse_candidate_is_rolled_back(tx: Transaction, first: Release) -> None:
    release = run_to_end(tx, entered(tx, "run-2"), np.random.default_rng(1), (0.0, 0.4))
    assert release.state == "rolled_back"
    assert "worse than version 1" in release.why
    route = current_route(tx, "orders")
    assert (route.live, route.canary, route.shadow, route.release) == ("1", "", "", "")
    assert registry.get_version(tx, "orders", "2").state == "rolled_back"
    assert release.comparison.blocks < 20


def test_an_equal_candidate_is_promoted_within_two_weeks(tx: Transaction, first: Release) -> None:
    release = run_to_end(tx, entered(tx, "run-2"), np.random.default_rng(2), (0.02, -0.02))
    assert release.state == "live"
    assert 5 <= release.comparison.blocks <= 14


def test_an_undecided_release_expires_and_the_old_version_stays(tx: Transaction, first: Release) -> None:
    plan = replace(PLAN, decide=Decide(loss="brier", margin=0.0001, within=10 * DAY))
    release = run_to_end(tx, entered(tx, "run-2", plan=plan), np.random.default_rng(3), (0.1, -0.1), plan)
    assert (release.state, release.comparison.blocks) == ("expired", 10)
    assert "undecided after 10 days, so version 1 stays" in release.why
    route = current_route(tx, "orders")
    assert (route.live, route.canary, route.release) == ("1", "", "")


def test_without_any_label_a_release_expires_and_says_how_many_rows_had_none(tx: Transaction, first: Release) -> None:
    release = entered(tx, "run-2")
    for day in range(1, 4):
        release = folded(release, paired(day, [None, None], [0.5, 0.5], [0.5, 0.5]))
    assert (release.comparison.blocks, release.comparison.rows, release.comparison.unlabelled) == (0, 0, 6)
    assert release.comparison.through == START + 4 * DAY
    release = releases.step(tx, release, PLAN, START + 28 * DAY)
    assert release.state == "canary"
    release = releases.step(tx, release, PLAN, START + 28 * DAY)
    assert (release.state, "(6 without label)" in release.why) == ("expired", True)


def test_rows_without_a_label_are_counted_and_do_not_weigh(tx: Transaction, first: Release) -> None:
    release = entered(tx, "run-2")
    whole = folded(release, paired(1, [1.0, 0.0], [0.5, 0.5], [0.6, 0.3]))
    more = folded(release, paired(1, [1.0, None, 0.0], [0.5, 0.1, 0.5], [0.6, 0.9, 0.3]))
    assert more.comparison == replace(whole.comparison, unlabelled=1)
    assert folded(release, a_block(1, pl.DataFrame())).comparison.through == START + 2 * DAY


def test_the_comparison_is_the_mean_over_days_of_the_paired_difference(tx: Transaction, first: Release) -> None:
    release = entered(tx, "run-2")
    release = folded(release, paired(1, [1.0, 1.0], [0.5, 0.5], [0.6, 0.7]))
    release = folded(release, paired(2, [0.0], [0.5], [0.6]))
    differences = [np.mean([0.4**2 - 0.5**2, 0.3**2 - 0.5**2]), 0.6**2 - 0.5**2]
    assert release.comparison.mean == pytest.approx(np.mean(differences))
    assert (release.comparison.blocks, release.comparison.rows) == (2, 3)


def test_a_version_is_scored_as_it_answered_and_from_the_inputs_where_it_did_not(
    tx: Transaction, first: Release
) -> None:
    release = entered(tx, "run-2")
    asked: list[tuple[str, int]] = []

    def counting(version: str, rows: pl.DataFrame) -> np.ndarray:
        asked.append((version, rows.height))
        return np.full(rows.height, 0.5)

    columns = {"label": [1.0] * 3, "probability": [0.6, 0.7, 0.8], "version": ["1", "2", "1"]}
    block = a_block(1, pl.DataFrame(columns))
    comparison = releases.fold(release, block, TASK, PLAN, counting, "probability").comparison
    assert sorted(asked) == [("1", 1), ("2", 2)]
    live, candidate = np.array([0.6, 0.5, 0.8]), np.array([0.5, 0.7, 0.5])
    assert comparison.mean == pytest.approx(((1 - candidate) ** 2 - (1 - live) ** 2).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("off", "wrong"),
    [
        # Equal in expectation: 'worse' would be wrong.
        ((0.2, -0.2), "rolled_back"),
        # Worse by exactly the margin, 0.15² - 0.05² = 0.02: 'not worse' would be wrong.
        ((0.05, 0.15), "live"),
    ],
)
def test_at_its_border_a_decision_is_wrong_no_more_often_than_stated(off: tuple[float, float], wrong: str) -> None:
    alpha, runs, days = 1 - PLAN.decide.confidence, 120, 28
    rng = np.random.default_rng(5)
    ended = []
    for _ in range(runs):
        release = Release(system="orders", id="r", run="r", version="2", against="1", at=START)
        for day in range(days):
            release = folded(release, simulated(rng, day, off))
            states = release.comparison.worse, release.comparison.not_worse
            if releases._evidence(states[wrong == "live"]) >= 1 / alpha:
                ended.append(day)
                break
    assert len(ended) / runs <= alpha


def test_a_release_stored_when_evidence_was_bets_alone_goes_on_as_it_began(tx: Transaction, first: Release) -> None:
    release = entered(tx, "run-2")
    stored = {"blocks": 1, "log_wealth_not_worse": [0.1, 0.2, 0.3], "log_wealth_worse": [-0.1, -0.2, -0.3]}
    comparison = msgspec.convert(stored, Comparison)
    release = folded(replace(release, comparison=comparison), paired(1, [1.0, 0.0], [0.5, 0.5], [0.9, 0.1]))
    assert (release.comparison.blocks, len(release.comparison.not_worse), len(release.comparison.worse)) == (2, 3, 3)
    assert releases._evidence(release.comparison.not_worse) > math.exp(0.3)
    again = msgspec.json.decode(msgspec.json.encode(release), type=Release)
    assert again.comparison == release.comparison


# Back


def test_taking_back_ends_the_open_release_first(tx: Transaction, first: Release) -> None:
    release = releases.step(tx, entered(tx, "run-2"), PLAN, START + 2 * DAY)
    assert releases.take_back(tx, "orders", "latency", START + 3 * DAY, by="me") == "1"
    kept = tx.get(Release, "orders", release.id)
    assert kept is not None
    assert (kept.state, kept.history[-1].by, current_route(tx, "orders").canary) == ("rolled_back", "me", "")


def test_a_candidate_that_is_not_registered_yet_can_be_taken_back(tx: Transaction, first: Release) -> None:
    release = a_release(tx, "run-2")
    releases.take_back(tx, "orders", "no", START)
    kept = tx.get(Release, "orders", release.id)
    assert kept is not None
    assert kept.state == "rolled_back"


def test_taking_back_the_live_version_makes_the_one_before_live(tx: Transaction, first: Release) -> None:
    plan = ReleasePlan(steps=(LIVE,), decide=PLAN.decide)
    second = entered(tx, "run-2", day=1, plan=plan)
    assert releases.take_back(tx, "orders", "complaints", START + 2 * DAY, by="me") == "1"
    assert current_route(tx, "orders").live == "1"
    assert [registry.get_version(tx, "orders", id).state for id in ("1", "2")] == ["live", "rolled_back"]
    kept = tx.get(Release, "orders", second.id)
    assert kept is not None
    assert (kept.state, kept.why) == ("rolled_back", "complaints")
    entry = tx.audit_log("orders", newest=1)[0]
    assert (entry.action, entry.subject, entry.actor) == ("version rolled back", "2", "me")


def test_taking_back_again_goes_further_back_and_never_to_what_was_rolled_back(tx: Transaction, first: Release) -> None:
    plan = ReleasePlan(steps=(LIVE,), decide=PLAN.decide)
    for number in (2, 3):
        entered(tx, f"run-{number}", day=number, plan=plan)
    assert releases.take_back(tx, "orders", "bad", START + 4 * DAY) == "2"
    assert releases.take_back(tx, "orders", "bad too", START + 5 * DAY) == "1"
    with refused(NotFound, "version 1 is the first live version; there is nothing to go back to"):
        releases.take_back(tx, "orders", "all bad", START + 6 * DAY)
    assert current_route(tx, "orders").live == "1"


# Any order of moves

FINAL = ("rejected", "rolled_back", "expired", "retired")
AFTER = {
    "candidate": {"gated", "rejected", "rolled_back"},
    "gated": {"shadow", "live", "rolled_back"},
    "shadow": {"canary", "live", "rolled_back", "expired"},
    "canary": {"live", "rolled_back", "expired"},
    "live": {"retired", "rolled_back"},
}
MOVES = st.lists(st.sampled_from(["begin", "reject", "enter", "good", "bad", "wait", "take back"]), max_size=40)


def _do(tx: Transaction, move: str, day: int) -> None:
    now, release = START + day * DAY, releases.open_release(tx, "orders")
    if move == "begin" and release is None:
        a_release(tx, f"run-{day}", day)
    elif move == "take back":
        try:
            releases.take_back(tx, "orders", "a person", now)
        except NotFound:
            return
    elif release is None:
        return
    elif release.state == "candidate" and move == "reject":
        releases.reject(tx, release, (), "a gate", now)
    elif release.state == "candidate" and move == "enter":
        run = tx.get(Run, "orders", release.run)
        assert run is not None
        version = registry.register(tx, run, bundle="b", signature_hash="s", signed_by="me", now=now)
        releases.enter(tx, release, version.id, (), PLAN, now)
    elif release.state in ("shadow", "canary"):
        answer = {"good": 1.0, "bad": 0.0, "wait": 0.5}.get(move, 0.5)

        def says(version: str, rows: pl.DataFrame) -> np.ndarray:
            return np.full(rows.height, answer if version == release.version else 0.5)

        columns = {"label": [1.0] * 2, "probability": [0.5] * 2, "version": ["other"] * 2}
        for _ in range(6 if move in ("good", "bad") else 0):
            block = a_block(day, pl.DataFrame(columns))
            release = releases.fold(release, block, TASK, PLAN, says, "probability")
        releases.step(tx, release, PLAN, now)


def _check(tx: Transaction, known: dict[str, Release]) -> None:
    open_now = tx.find(Release, "orders", state=OPEN_STATES)
    live = tx.find(Version, "orders", state=("live",))
    route = current_route(tx, "orders")
    assert len(open_now) <= 1
    assert [version.id for version in live] == ([route.live] if route.live else [])
    on_trial = {"shadow": route.shadow, "canary": route.canary}
    for release in open_now:
        assert on_trial.get(release.state, release.version) == release.version
    if not any(release.state in on_trial for release in open_now):
        assert (route.shadow, route.canary, route.canary_share, route.release) == ("", "", 0.0, "")
    for release in tx.find(Release, "orders"):
        before = known.get(release.id)
        if before is not None and before.state in FINAL:
            assert release == before
        history = states(release)
        assert all(to in AFTER[at] for at, to in pairwise(history)), history
        assert history[-1] == release.state
        known[release.id] = release


def _walk(moves: Sequence[str]) -> set[str]:
    """All states that releases went through."""
    with MemoryCatalog().begin() as tx:
        known: dict[str, Release] = {}
        for day, move in enumerate(moves):
            _do(tx, move, day)
            _check(tx, known)
        return {state for release in known.values() for state in states(release)}


@given(MOVES)
def test_whatever_happens_routes_and_versions_agree_and_what_has_ended_stays_ended(moves: list[str]) -> None:
    _walk(moves)


def test_every_state_can_be_reached() -> None:
    first, second = ["begin", "enter"], ["begin", "enter", "wait", "wait"]
    promoted = _walk([*first, *second, "good", "good", "good", "good", "good", "begin", "reject", "take back"])
    expired = _walk([*first, *second, *["wait"] * 30])
    assert promoted | expired == {*AFTER, *FINAL}
