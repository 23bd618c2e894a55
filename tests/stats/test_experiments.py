"""A/B experiments: the difference of a goal, day by day, and whether traffic split as planned."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from holdfast.stats.confidence import EmpiricalBernstein, StudentMixture
from holdfast.stats.experiments import GoalDifference, SplitCheck, split_evidence
from holdfast.stats.sequential import first_reached

ENOUGH = {"control_rows": 500, "treatment_rows": 500}
HALVES = SplitCheck((0.5, 0.5))


def after(goal, differences):
    state = ()
    for difference in differences:
        state = goal.fold(state, 0.3, 0.3 + difference, **ENOUGH)
    return goal.judge(state)


def split_of(check, *days):
    state = ()
    for counts in days:
        state = check.fold(state, counts)
    return check.judge(state)


# The difference of a goal


def test_a_clear_difference_is_found_in_its_direction():
    days = np.random.default_rng(1).normal(0.03, 0.01, 20)
    found = after(GoalDifference(), days)
    assert (found.says, found.days, found.left_out) == ("higher", 20, 0)
    assert found.low < 0.03 < found.high
    assert found.mean == pytest.approx(days.mean())
    assert after(GoalDifference(), -days).says == "lower"


def test_equal_arms_are_equal_only_within_a_stated_margin():
    days = np.random.default_rng(1).normal(0, 0.01, 60)
    goal, state = GoalDifference(), ()
    for difference in days:
        state = goal.fold(state, 0.3, 0.3 + difference, **ENOUGH)
    assert goal.judge(state).says == "undecided"
    assert goal.judge(state, margin=0.02).says == "equal"


def test_too_few_days_are_unknown_and_say_so():
    for days in (0, 1, 2):
        found = after(GoalDifference(), [0.1, -0.1][:days])
        assert found.says == "unknown"
        assert f"{days} days are too few" in found.why
        assert (found.low, found.high) == (-math.inf, math.inf)
    assert math.isnan(after(GoalDifference(), []).mean)


def test_a_day_with_too_few_rows_in_an_arm_is_left_out_and_counted():
    goal = GoalDifference(least_rows=30)
    state = goal.fold((), 0.2, 0.3, **ENOUGH)
    thin = goal.fold(state, math.nan, 0.9, control_rows=0, treatment_rows=400)
    assert thin[1:] == state[1:]
    found = goal.judge(goal.fold(thin, 0.2, 0.9, control_rows=400, treatment_rows=29))
    assert (found.days, found.left_out) == (1, 2)
    assert "2 days left out, with fewer than 30 rows in an arm" in found.why


def test_days_of_a_rare_event_are_put_together_until_the_smaller_arm_has_enough_of_it():
    goal, state, sizes = GoalDifference(least_rare=10), (), {"control_rows": 900, "treatment_rows": 100}
    for day in range(1, 4):
        state = goal.fold(state, 0.04, 0.02 * day, rare_rows=40, **sizes)
        assert goal.judge(state).days == (3 if day == 3 else 0)
        waits = f"{day} days wait for 10 rows with the rarer label in the smaller arm"
        assert (waits in goal.judge(state).why) == (day < 3)
    assert goal.judge(state).mean == pytest.approx(0.0)
    assert "3 days in 1 groups are too few for an interval" in goal.judge(state).why
    assert goal.judge(goal.fold(state, 0.3, 0.3, rare_rows=300, **sizes)).days == 4


def test_only_rows_of_the_same_day_are_compared_within_a_group():
    goal = GoalDifference(least_rare=10)
    state = goal.fold((), 0.01, 0.01, control_rows=900, treatment_rows=100, rare_rows=10)
    state = goal.fold(state, 0.05, 0.05, control_rows=500, treatment_rows=500, rare_rows=50)
    found = goal.judge(state)
    assert (found.days, found.mean) == (2, pytest.approx(0.0))


def test_a_state_of_before_days_were_put_together_is_folded_on():
    goal = GoalDifference()
    old = goal.fold(goal.fold((), 0.2, 0.3, **ENOUGH), 0.2, 0.25, **ENOUGH)
    assert len(old) == 3 + len(goal.sequence.start())
    waiting = goal.fold(old, 0.0, 0.002, rare_rows=1, **ENOUGH)
    assert goal.judge(waiting).days == goal.judge(old).days == 2
    assert goal.judge(waiting).mean == goal.judge(old).mean == pytest.approx(0.075)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=60))
def test_a_stored_state_goes_on_where_it_stood_and_no_day_is_lost(days):
    goal, state, stored = GoalDifference(), (), ()
    for control, treatment in days:
        seen = {"rare_rows": control + treatment, **ENOUGH}
        state = goal.fold(state, control / 500, treatment / 500, **seen)
        stored = goal.fold(json.loads(json.dumps(stored)), control / 500, treatment / 500, **seen)
    assert stored == state
    found = goal.judge(state)
    waiting = int(found.why.split("; ")[1].split()[0]) if "wait" in found.why else 0
    assert found.days + waiting == len(days)


@given(st.lists(st.lists(st.tuples(st.integers(20, 90), st.integers(0, 9)), min_size=3, max_size=3), max_size=30))
def test_experiments_side_by_side_are_folded_as_each_by_itself(days):
    goal, alone = GoalDifference(), [(), (), ()]
    together = goal.start_streams(3)
    for day in days:
        rows, events = (np.array(each) for each in zip(*day, strict=True))
        sizes = {"control_rows": 200, "treatment_rows": rows, "rare_rows": events + 4}
        together = goal.fold_streams(together, 0.02, events / rows, **sizes)
        for at, state in enumerate(alone):
            own = {"control_rows": 200, "treatment_rows": int(rows[at]), "rare_rows": int(events[at] + 4)}
            alone[at] = goal.fold(state, 0.02, events[at] / rows[at], **own)
    low, high = goal.bounds_of(together)
    for at, state in enumerate(alone):
        assert together[at, : len(state)].tolist() == list(state or together[at, :0])
        assert not together[at, len(state) :].any()
        found = goal.judge(state)
        assert (found.low, found.high) == (low[at], high[at])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rates", "rows", "margin"),
    [((0.002, 0.006), (900, 100), 0.004), ((0.0005, 0.0025), (900, 100), 0.002), ((0.001, 0.002), (1000, 1000), 0.001)],
)
def test_a_candidate_that_is_worse_by_the_margin_in_a_rare_event_seldom_passes(rates, rows, margin):
    rng, goal, wrong, streams = np.random.default_rng(11), GoalDifference(), 0, 100
    for _ in range(streams):
        state = ()
        for control, treatment in zip(
            rng.binomial(rows[0], rates[0], 90), rng.binomial(rows[1], rates[1], 90), strict=True
        ):
            sizes = {"control_rows": rows[0], "treatment_rows": rows[1], "rare_rows": int(control + treatment)}
            state = goal.fold(state, control / rows[0], treatment / rows[1], **sizes)
            if goal.judge(state).high <= margin:
                wrong += 1
                break
    assert wrong <= 0.05 * streams


def test_a_goal_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="not measured"):
        GoalDifference().fold((), math.nan, 0.3, **ENOUGH)
    with pytest.raises(ValueError, match="leaves its bounds"):
        GoalDifference(EmpiricalBernstein(low=-1, high=1)).fold((), 0.0, 3.0, **ENOUGH)


def test_arms_that_never_differ_are_equal_and_not_an_error():
    found = after(GoalDifference(), [0.0] * 10)
    assert (found.low, found.high, found.says) == (0.0, 0.0, "undecided")
    goal, state = GoalDifference(), ()
    for _ in range(10):
        state = goal.fold(state, 0.3, 0.3, **ENOUGH)
    assert goal.judge(state, margin=0.01).says == "equal"


@pytest.mark.parametrize("sequence", [StudentMixture(), EmpiricalBernstein(low=-1, high=1)])
def test_folding_an_experiment_on_from_stored_state_ends_the_same(sequence):
    goal, state = GoalDifference(sequence), ()
    for difference in (0.1, 0.2, 0.15):
        state = goal.fold(state, 0.3, 0.3 + difference, **ENOUGH)
    stored = tuple(json.loads(json.dumps(state)))
    assert goal.fold(stored, 0.2, 0.4, **ENOUGH) == goal.fold(state, 0.2, 0.4, **ENOUGH)


@pytest.mark.slow
def test_equal_arms_are_ever_called_different_no_more_often_than_stated():
    # Days that move both arms, an effect that differs by day, 60 looks each.
    random, goal, wrong = np.random.default_rng(5), GoalDifference(), 0
    for _ in range(300):
        state, shocks = (), random.normal(0.3, 0.1, 60)
        for shock, effect in zip(shocks, random.normal(0, 0.02, 60), strict=True):
            state = goal.fold(state, shock, shock + effect, **ENOUGH)
            if goal.judge(state).says in ("higher", "lower"):
                wrong += 1
                break
    assert wrong / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


# The split


def test_a_split_as_planned_is_unknown_until_there_are_enough_units():
    assert split_of(HALVES).says == "unknown"
    assert split_of(HALVES).why.startswith("no units yet")
    assert split_of(HALVES, (100, 100)).says == "unknown"
    assert split_of(HALVES, (2000, 2010)).says == "as planned"


def test_a_mismatch_is_called_and_stays_called():
    lost = split_of(HALVES, (1000, 800))
    assert lost.says == "mismatch"
    assert lost.p_value < 0.001
    assert "1,800 units: 55.6% of 50.0%" in lost.why
    mended = split_of(HALVES, (1000, 800), (5000, 5200))
    assert (mended.says, mended.p_value) == ("mismatch", lost.p_value)


def test_arms_need_not_be_planned_equal_nor_two():
    check = SplitCheck((0.8, 0.15, 0.05))
    assert split_of(check, (80_000, 15_000, 5_000)).says == "as planned"
    assert split_of(check, (80_000, 15_000, 4_200)).says == "mismatch"


def test_evidence_against_a_split_is_the_integral_over_its_prior():
    arm, rest, strength, share = 37, 55, 40.0, 0.3

    def likelihood(q):
        return (q / share) ** arm * ((1 - q) / (1 - share)) ** rest * stats.beta.pdf(q, 40 * 0.3, 40 * 0.7)

    evidence = float(split_evidence([arm, rest], (share, 1 - share), (strength,)))
    assert math.exp(evidence) == pytest.approx(integrate.quad(likelihood, 0, 1)[0], rel=1e-8)


def test_shares_of_the_interval_are_those_that_the_evidence_does_not_rule_out():
    check = SplitCheck((0.5, 0.5), alpha=0.05, strengths=(40,))
    (low, high), _ = split_of(check, (37, 55)).intervals

    def evidence(share):
        # The prior stays where the plan put it; only the share in question moves.
        return integrate.quad(
            lambda q: (q / share) ** 37 * ((1 - q) / (1 - share)) ** 55 * stats.beta.pdf(q, 20, 20), 0, 1
        )[0]

    assert evidence(low) == pytest.approx(20, rel=1e-6)
    assert evidence(high) == pytest.approx(20, rel=1e-6)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=12))
def test_a_split_is_judged_by_totals_and_the_worst_look(days):
    state, worst = (), 0.0
    for i, counts in enumerate(days):
        state = HALVES.fold(state, counts)
        worst = max(worst, float(split_evidence(np.sum(days[: i + 1], axis=0), (0.5, 0.5))))
    found = HALVES.judge(state)
    assert found.p_value == pytest.approx(math.exp(-worst))
    assert found.units == sum(map(sum, days))
    for low, high in found.intervals:
        assert 0 <= low <= high <= 1


def test_an_empty_arm_is_a_mismatch_soon():
    assert split_of(HALVES, (40, 0)).says == "mismatch"
    assert split_of(HALVES, (40, 0)).intervals[1][0] == 0.0


@pytest.mark.slow
def test_a_planned_split_is_ever_called_a_mismatch_no_more_often_than_stated():
    random, day = np.random.default_rng(7), np.array([0.2, 0.3, 0.5])
    counts = np.cumsum(random.multinomial(50, day, size=(2000, 200)), axis=1)
    ever = np.isfinite(first_reached(split_evidence(counts, day.tolist()), 0.05))
    assert ever.mean() <= 0.05


def test_several_priors_are_averaged():
    each = [math.exp(split_evidence([30, 50], (0.5, 0.5), (strength,))) for strength in (10.0, 300.0)]
    assert math.exp(split_evidence([30, 50], (0.5, 0.5))) == pytest.approx(sum(each) / 2)


def test_plans_and_counts_that_make_no_sense_are_refused():
    for shares in ((1.0,), (0.5, 0.6), (1.0, 0.0)):
        with pytest.raises(ValueError, match="a plan is two or more shares"):
            SplitCheck(shares)
    for counts in ((1,), (1, 2, 3), (-1, 5)):
        with pytest.raises(ValueError, match="one count, 0 or more"):
            HALVES.fold((), counts)
    with pytest.raises(ValueError, match="alpha lies in"):
        SplitCheck((0.5, 0.5), alpha=0.0)
