"""A plan for releases that a goal decides: what is said beforehand, beside releases that are then run."""

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.evidence import Block
from holdfast.core.records import OPEN_STATES, Release, Run
from holdfast.core.spec import Decide, ReleasePlan, Step
from holdfast.errors import DataError
from holdfast.flow import experiments, goalruns, registry, releases
from holdfast.flow.goaldays import goal_days, moved, reach, replayed
from holdfast.flow.goalplans import goal_forecast
from holdfast.tasks.classification import Classification
from holdfast.testing import START

DAY = timedelta(days=1)
HALF = (Step(stage="canary", share=0.5, least=7 * DAY), Step(stage="live"))
SLOW_START = (
    Step(stage="shadow", least=2 * DAY),
    Step(stage="canary", share=0.1, least=3 * DAY),
    Step(stage="canary", share=0.5, least=4 * DAY),
    Step(stage="live"),
)


def decide(**settings: Any) -> Decide:
    return Decide(loss="brier", **{"margin": 0.02, "goal": "label", "prefer": "lower", "within": 60 * DAY, **settings})


def labels(day: int, values: Any, **columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"key": [f"{day}-{i}" for i in range(len(values))], "label": values, **columns})


def some_days(days: int, rows: int = 400, rate: float = 0.3, between: float = 0.03, seed: int = 1):
    """Days of labels of which `rate` are 1, a rate that differs from day to day."""
    rng = np.random.default_rng(seed)
    drawn = [(rng.random(rows) < rate + rng.normal(0, between)).astype(float) for _ in range(days)]
    return goal_days({(START + day * DAY).date(): labels(day, values) for day, values in enumerate(drawn)})


def signed(rng, share: float, harm: float, rows: int = 400):
    """Labels of -1, 0 and 1, as many on one side as on the other, but for a harm."""
    return rng.choice([-1.0, 0.0, 1.0], rows, p=[share / 2 - harm / 2, 1 - share, share / 2 + harm / 2])


def signed_days(days: int, share: float = 0.2, seed: int = 1):
    rng = np.random.default_rng(seed)
    return goal_days({(START + day * DAY).date(): labels(day, signed(rng, share, 0.0)) for day in range(days)})


def planned(a_spec, past, *, steps=HALF, **settings):
    return goal_forecast(a_spec(steps=steps, decide=decide(**settings)), past, "test")


# What a plan says


@pytest.mark.slow
def test_the_days_are_described(a_spec):
    found = planned(a_spec, some_days(40, rows=500))
    assert (found.days, found.rows, found.rows_a_day, found.share) == (40, 20_000, 500, 0.5)
    assert found.mean == pytest.approx(0.3, abs=0.02)
    assert found.sd_between == pytest.approx(np.hypot(0.03, np.sqrt(0.21 / 500)), rel=0.25)
    assert found.sd_within == pytest.approx(np.sqrt(0.21), rel=0.03)
    assert found.sd == pytest.approx(np.sqrt(0.21 * 4 / 500), rel=0.05)
    assert (found.left_out, found.group_days, found.known) == (0, 1, 1)


@pytest.mark.slow
def test_what_is_better_passes_sooner_and_what_is_worse_is_refused(a_spec):
    found = planned(a_spec, some_days(40, rows=600))
    assert found.as_better.promoted > 0.95
    assert found.as_bad.refused > 0.95
    assert found.as_better.days.half < found.as_good.days.half
    assert found.as_bad.days.half < found.as_worse.days.half
    assert found.as_good.refused < 0.05 > found.as_worse.promoted
    for outlook in (found.as_better, found.as_good, found.as_worse, found.as_bad):
        assert outlook.promoted + outlook.refused + outlook.undecided == pytest.approx(1)


@pytest.mark.slow
def test_a_plan_is_the_same_each_time_and_can_be_kept(a_spec):
    found = planned(a_spec, some_days(20))
    assert planned(a_spec, some_days(20)) == found
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


@pytest.mark.slow
def test_where_more_is_better_the_same_days_read_the_other_way_round(a_spec):
    past = some_days(30, rate=0.5, between=0.0, rows=1000)
    lower, higher = (planned(a_spec, past, prefer=prefer) for prefer in ("lower", "higher"))
    assert (lower.as_better.effect, higher.as_better.effect) == (-0.02, 0.02)
    assert (lower.as_bad.effect, higher.as_bad.effect) == (0.04, -0.04)
    assert abs(lower.as_good.days.half - higher.as_good.days.half) <= 3
    assert lower.as_better.promoted > 0.95 < higher.as_better.promoted


@pytest.mark.slow
def test_a_plan_takes_no_less_than_its_steps_and_labels_do(a_spec):
    past, steps = some_days(20), (Step(stage="canary", share=0.5, least=10 * DAY), Step(stage="live"))
    assert planned(a_spec, past, steps=steps, margin=0.9).as_good.days.one_in_ten == 10
    assert planned(a_spec, past, steps=steps, margin=0.9, within=9 * DAY).as_good.promoted == 0
    found = goal_forecast(a_spec(steps=HALF, decide=decide(margin=0.9), mature_after=6 * DAY), past, "test")
    assert (found.least_days, found.maturity_days, found.least_observations) == (7, 6, 7)
    assert found.as_good.days.one_in_ten == 7 + 6


@pytest.mark.slow
def test_labels_have_no_room_for_an_effect_beyond_them(a_spec):
    found = planned(a_spec, some_days(40, rows=1000, rate=0.01, between=0.0), margin=0.05)
    assert -0.02 < found.as_better.effect == pytest.approx(-found.mean)
    assert (found.as_worse.effect, found.as_bad.effect) == (0.05, 0.1)


# Properties


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.tuples(st.floats(1e-4, 0.2), st.floats(1e-4, 0.2)),
    st.sampled_from([0.002, 0.05, 0.4]),
    st.sampled_from([HALF, SLOW_START]),
    st.sampled_from(["lower", "higher"]),
)
def test_a_larger_margin_is_never_planned_to_take_longer(margins, rate, steps, prefer):
    past = some_days(15, rate=rate, between=rate / 10)
    plan = ReleasePlan(steps=steps, decide=decide(prefer=prefer))
    course, times = goalruns.course_of(plan, past, 0.0), goalruns.times_of(7.0, 1.0)
    ends = [goalruns.ended(course, times, margin) for margin in sorted(margins)]
    tight, wide = (np.minimum(promoted, refused) for promoted, refused in ends)
    assert (wide <= tight).all()
    assert (ends[1][0] <= ends[0][0]).all()


@pytest.mark.slow
@settings(max_examples=25)
@given(st.integers(0, 999), st.sampled_from([0.002, 0.05, 0.4]), st.sampled_from([HALF, SLOW_START]))
def test_the_smallest_margin_is_the_one_from_which_on_a_release_passes(run, rate, steps):
    past = some_days(15, rate=rate, between=rate / 10)
    plan = ReleasePlan(steps=steps, decide=decide())
    course, times = goalruns.course_of(plan, past, 0.0), goalruns.times_of(7.0, 1.0)
    margin = goalruns.least_margin(course, times, 60.0)[run]
    if not np.isfinite(margin):
        assert goalruns.ended(course, times, 1e9)[0][run] > 60
        return
    assert goalruns.ended(course, times, margin)[0][run] <= 60
    assert goalruns.ended(course, times, margin * 0.99)[0][run] > 60 or margin == 0


@pytest.mark.slow
@given(st.floats(-0.3, 0.3), st.sampled_from([0.02, 0.5, 0.97]))
def test_an_effect_moves_the_mean_label_by_as_much_as_there_is_room_for(effect, rate):
    past, rng = some_days(10, rate=rate, between=0.0, rows=2000), np.random.default_rng(3)
    equal = replayed(past, np.full(40, 0.5), 25, rng)
    after = moved(past, equal, effect, rng)
    assert (after.rarer >= 0).all()
    assert (after.rarer <= after.rows).all()
    change = (after.excess.sum() - equal.excess.sum()) / equal.rows.sum()
    assert change == pytest.approx(reach(past, effect), abs=2e-3)
    assert -1e-9 <= past.usual + after.excess.sum() / after.rows.sum() <= 1 + 1e-9


LABELS = st.one_of(
    st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=40),
    st.lists(st.sampled_from([0.0, 1e-9, -7.5, 1e6]), min_size=1, max_size=40),
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40),
)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(LABELS, min_size=1, max_size=4), st.floats(-3, 3))
def test_an_effect_finds_no_labels_that_it_cannot_be_given(days, effect):
    past = goal_days({(START + day * DAY).date(): labels(day, values) for day, values in enumerate(days)})
    equal = replayed(past, np.full(3, 0.5), 4, np.random.default_rng(3))
    after = moved(past, equal, effect, np.random.default_rng(3))
    assert abs(reach(past, effect)) <= abs(effect)
    assert reach(past, effect) * effect >= 0
    for found in (after.excess, after.under, after.below, after.rarer):
        assert np.isfinite(found).all()
    assert (after.below >= 0).all()
    assert (after.below <= after.rarer).all()
    assert (after.rarer <= after.rows).all()
    assert (after.live_excess == equal.live_excess).all()


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.dictionaries(st.sampled_from([-5.0, -1.0, -0.1, 0.5, 1.0, 8.0]), st.integers(1, 40), min_size=1, max_size=4),
    st.floats(-2, 2),
)
def test_labels_on_both_sides_move_the_mean_by_as_much_as_there_is_room_for(others, effect):
    values = [value for value, rows in others.items() for _ in range(rows)]
    values += [0.0] * max(len(values), 100)
    past = goal_days({(START + day * DAY).date(): labels(day, values) for day in range(5)})
    rng = np.random.default_rng(3)
    equal = replayed(past, np.full(50, 0.5), 200, rng)
    change = (moved(past, equal, effect, rng).excess.sum() - equal.excess.sum()) / equal.rows.sum()
    assert change == pytest.approx(reach(past, effect), abs=0.02)


def test_labels_on_both_sides_have_room_up_to_the_mean_of_one_side_and_spread_as_before():
    past, rng = signed_days(20), np.random.default_rng(3)
    mean = past.excess / past.rows
    assert (reach(past, 5.0), reach(past, -5.0)) == (pytest.approx(1 - mean), pytest.approx(-1 - mean))
    equal = replayed(past, np.full(40, 0.5), 200, rng)
    for effect in (0.1, -0.1):
        after = moved(past, equal, effect, rng)
        assert (after.excess - equal.excess).sum() / equal.rows.sum() == pytest.approx(effect, rel=0.05)
        assert after.rarer.sum() == pytest.approx(equal.rarer.sum(), rel=0.05)
        assert after.difference.std() == pytest.approx(equal.difference.std(), rel=0.1)


def test_labels_that_are_exactly_symmetric_are_moved():
    values = [-1.0, 1.0] * 50 + [0.0] * 400
    past = goal_days({(START + day * DAY).date(): labels(day, values) for day in range(10)})
    rng = np.random.default_rng(3)
    assert (past.excess, reach(past, 0.1), reach(past, -2.0)) == (0, 0.1, -1)
    equal = replayed(past, np.full(20, 0.5), 50, rng)
    assert (moved(past, equal, 0.1, rng).difference - equal.difference).mean() == pytest.approx(0.1, rel=0.05)


# How past days are split


def test_a_split_keeps_all_rows_of_a_day_and_its_labels():
    past = some_days(6, rows=300)
    arms = replayed(past, np.array([0.0, 0.1, 0.1, 0.5]), 50, np.random.default_rng(1))
    assert (arms.rows + arms.live_rows == 300).all()
    assert (arms.rows[:, 0] == 0).all()
    assert np.isnan(arms.difference[:, 0]).all()
    assert arms.rows[:, 1:3].mean() == pytest.approx(30, rel=0.1)
    sums = {round(float(mean * 300)) for mean in past.means}
    assert {round(each) for each in np.unique(arms.excess + arms.live_excess)} <= sums


def test_rows_of_a_unit_come_to_the_same_version_so_that_its_days_say_less():
    rng = np.random.default_rng(2)
    users = [f"u{i // 20}" for i in range(600)]
    drawn = [np.repeat(rng.random(30) < 0.3, 20).astype(float) for _ in range(20)]
    dates = [(START + day * DAY).date() for day in range(20)]
    apart = goal_days({at: labels(day, drawn[day]) for day, at in enumerate(dates)})
    together = goal_days({at: labels(day, drawn[day], unit=users) for day, at in enumerate(dates)})
    spread = [
        np.nanstd(replayed(each, np.full(30, 0.5), 100, np.random.default_rng(1)).difference)
        for each in (apart, together)
    ]
    assert spread[1] == pytest.approx(spread[0] * np.sqrt(20), rel=0.1)


def test_amounts_are_moved_as_they_are_and_rare_ones_by_how_many_there_are():
    rng = np.random.default_rng(2)
    dates = [(START + day * DAY).date() for day in range(8)]
    amounts = goal_days({at: labels(day, rng.gamma(2.0, 10.0, 200)) for day, at in enumerate(dates)})
    equal = replayed(amounts, np.full(20, 0.5), 20, rng)
    assert moved(amounts, equal, 3.0, rng).difference == pytest.approx(equal.difference + 3.0)
    assert (moved(amounts, equal, 3.0, rng).rarer == equal.rarer).all()
    spent = {at: labels(day, (rng.random(2000) < 0.1) * rng.gamma(2.0, 10.0, 2000)) for day, at in enumerate(dates)}
    seldom = goal_days(spent)
    equal = replayed(seldom, np.full(20, 0.5), 50, rng)
    more = moved(seldom, equal, 0.5, rng)
    assert (more.difference - equal.difference).mean() == pytest.approx(0.5, rel=0.05)
    assert more.rarer.sum() > equal.rarer.sum() * 1.2


def test_days_without_labels_between_others_pass_and_those_around_do_not_count():
    dates = [(START + day * DAY).date() for day in range(9)]
    none = labels(0, [None, None]).with_columns(pl.col("label").cast(pl.Float64))
    some = {at: labels(day, [0.0, 1.0, 0.0]) for day, at in enumerate(dates) if day in (2, 3, 6)}
    past = goal_days({at: some.get(at, none) for at in dates})
    assert (past.labelled, past.rows, past.counts.tolist()) == (3, 9, [3, 3, 0, 0, 3])
    without = goal_days(some)
    assert without.counts.tolist() == past.counts.tolist()


# What is missing


def test_no_days_and_few_days_are_said(a_spec):
    for days, said in ((0, "0 labelled days"), (4, "4 labelled days")):
        with pytest.raises(DataError, match=rf"{said} to plan by \(test\), at least 5 are needed; wait until"):
            planned(a_spec, some_days(days))


def test_labels_that_are_all_the_same_cannot_be_planned_by(a_spec):
    past = some_days(10, rate=0.0, between=0.0)
    with pytest.raises(DataError, match=r"all 4,000 labels are 0 \(test\), so no difference .* choose a label"):
        planned(a_spec, past)


def test_infinite_labels_are_said_and_those_that_are_not_a_number_are_none(a_spec):
    def past(value):
        return goal_days({(START + day * DAY).date(): labels(day, [0.0, 1.0, 0.0, value]) for day in range(6)})

    with pytest.raises(DataError, match=r"some labels are infinite.*\(test\), so they have no mean; correct these"):
        planned(a_spec, past(np.inf))
    found = past(np.nan)
    assert (found.rows, found.rarer, found.excess) == (18, 6, 6)


@pytest.mark.slow
def test_too_few_rows_in_an_arm_are_said(a_spec):
    few = planned(a_spec, some_days(10, rows=40))
    assert (few.left_out, few.sd, few.known, few.as_good.undecided) == (1, None, 0, 1)
    some = planned(a_spec, some_days(10, rows=66), margin=0.2)
    assert 0.3 < some.left_out < 0.7
    assert some.sd > 0


@pytest.mark.slow
def test_a_rare_goal_says_that_it_is_and_what_would_do(a_spec):
    past = some_days(60, rows=1000, rate=0.002, between=0.0)
    steps = (Step(stage="canary", share=0.1, least=7 * DAY), Step(stage="live"))
    found = planned(a_spec, past, steps=steps, margin=0.004, within=28 * DAY)
    assert found.group_days == pytest.approx(15, rel=0.1)
    assert (found.as_good.undecided, found.known, found.margins.half) == (1, 0, None)
    assert 80 < found.lengths.half < 160
    halves = next(each for each in found.shares if each.share == 0.5)
    assert halves.lengths.half < found.lengths.half / 2
    long = planned(a_spec, past, steps=HALF, margin=0.004, within=timedelta(days=halves.lengths.nine_in_ten))
    assert long.as_good.promoted >= 0.9


# Beside releases that are run


def run_release(tx, rng, plan, a_day) -> tuple[str, float]:
    """One release on simulated traffic, by the code that runs releases: how it ends, and after how many days."""
    run = Run(
        system="orders", id=tx.next_id(Run, "orders", "run-"), state="succeeded", artifact="a", snapshot="s",
        trainer="linear", seed=7, started_at=START,
    )  # fmt: skip
    tx.put(run)
    release = releases.attempt(tx, run, cause="test", now=START)
    version = registry.register(tx, run, bundle="b", signature_hash="s", signed_by="me", now=START)
    release = releases.enter(tx, release, version.id, (), plan, START)
    blocks: list[Block] = []
    while release.state in OPEN_STATES:
        day = len(blocks)
        blocks.append(traffic(rng, day, release, plan, a_day))
        now = START + (day + 1) * DAY
        if day:  # labels take a day
            release = releases.fold(release, blocks[day - 1], Classification(), plan, None, "probability")
            since = (release.step_since - START) // DAY

            def whole_days(since: int = since, day: int = day) -> list[Block]:
                return blocks[since:day]

            release = experiments.with_split(release, plan, blocks[day - 1].day, whole_days)
        release = releases.step(tx, release, plan, now)
    return release.state, (now - START) / DAY


def late(rng, rows, rates, between):
    """A day's labels as drawn for either version, by one rate or the other (2, rows)."""
    common, drawn = rng.normal(0, between), rng.random(rows)
    return np.stack([(drawn < rate + common).astype(float) for rate in rates])


def traffic(rng, day, release: Release, plan: ReleasePlan, a_day) -> Block:
    """One day, of which `a_day` draws the labels (2, rows) that the live version and the candidate would bring."""
    brought = a_day(rng)
    rows = brought.shape[1]
    is_candidate = rng.random(rows) < experiments.canary_share(release, plan)
    start, names = START + day * DAY, [f"{day}-{i}" for i in range(rows)]
    frame = pl.DataFrame(
        {
            "label": np.where(is_candidate, brought[1], brought[0]),
            "probability": 0.5,
            "version": np.where(is_candidate, release.version, release.against),
            "unit": names,
            "key": names,
            "request_id": names,
            "predicted_at": [start] * rows,
            "release": release.id,
        }
    )
    return Block(start.date(), start, start + DAY, lambda: frame)


@pytest.fixture
def live(tx):
    """Version 1 is live."""
    run = Run(
        system="orders", id="run-0", state="succeeded", artifact="a0", snapshot="s", trainer="linear", seed=7,
        started_at=START,
    )  # fmt: skip
    tx.put(run)
    first = releases.attempt(tx, run, cause="test", now=START)
    version = registry.register(tx, run, bundle="b", signature_hash="s", signed_by="me", now=START)
    releases.enter(tx, first, version.id, (), ReleasePlan(steps=HALF, decide=decide()), START)
    return tx


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "rows", "rate", "between", "margin", "harm"),
    [
        (HALF, 400, 0.3, 0.03, 0.04, 0.0),
        (HALF, 400, 0.3, 0.03, 0.04, 0.08),
        (SLOW_START, 400, 0.3, 0.03, 0.04, 0.0),
        (HALF, 1000, 0.005, 0.0, 0.005, 0.0),
    ],
)
def test_releases_take_as_long_as_was_planned(live, a_spec, steps, rows, rate, between, margin, harm):
    """A quarter is the tolerance: of 40 releases the median is this uncertain, and a past of 60 days is not all."""
    spec = a_spec(steps=steps, decide=decide(margin=margin, within=90 * DAY))
    found = goal_forecast(spec, some_days(60, rows=rows, rate=rate, between=between, seed=8), "test")
    outlook = found.as_bad if harm else found.as_good
    rng = np.random.default_rng(5)

    def a_day(rng):
        return late(rng, rows, (rate, rate + harm), between)

    must_take_as_planned([run_release(live, rng, spec.release, a_day) for _ in range(40)], outlook)


@pytest.mark.slow
@pytest.mark.parametrize("harm", [-0.05, 0.0, 0.1])
def test_releases_by_labels_on_both_sides_of_the_usual_one_take_as_long_as_was_planned(live, a_spec, harm):
    spec = a_spec(steps=HALF, decide=decide(margin=0.05, within=90 * DAY))
    found = goal_forecast(spec, signed_days(60, seed=8), "test")
    outlook = {-0.05: found.as_better, 0.0: found.as_good, 0.1: found.as_bad}[harm]
    assert outlook.effect == pytest.approx(harm)

    def a_day(rng):
        return np.stack([signed(rng, 0.2, 0.0), signed(rng, 0.2, harm)])

    rng = np.random.default_rng(5)
    must_take_as_planned([run_release(live, rng, spec.release, a_day) for _ in range(40)], outlook)


def must_take_as_planned(ends, outlook) -> None:
    took = sorted(days if state != "expired" else np.inf for state, days in ends)
    assert np.median(took) == pytest.approx(outlook.days.half, rel=0.25)
    promoted = np.mean([state == "live" for state, _ in ends])
    assert promoted == pytest.approx(outlook.promoted, abs=0.15)
