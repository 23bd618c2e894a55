import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats.sequential import (
    BETS,
    EDetector,
    betting_path,
    blocks_to_decision,
    decidable_margin,
    decide,
    evidence_path,
    first_reached,
    fold_paired,
    log_evidence,
    replayed_decision,
    replayed_margin,
    selfnormalised_path,
)


def day_losses(random, days, mean, *, rows=200, between=0.01, within=0.3):
    """Block means of row losses that share a daily shock: what a day of flights looks like."""
    daily = random.normal(0, between, size=days)
    return mean + daily + random.normal(0, within, size=(days, rows)).mean(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "null"), [("below", 0.01), ("above", 0.0)])
def test_type_one_error_holds_when_looked_at_after_every_block(direction, null):
    # At the boundary of H0, the hardest place: day-clustered losses, 200 looks, nominal 5 %.
    random = np.random.default_rng(11)
    wrong = 0
    for _ in range(200):
        state: tuple[float, ...] = ()
        for d in day_losses(random, 200, null, between=0.02):
            state = fold_paired(state, float(np.clip(d, -0.08, 0.08)), -0.08, 0.08, null, direction)
            if log_evidence(state) >= math.log(1 / 0.05):
                wrong += 1
                break
    assert wrong / 200 <= 0.05


@pytest.mark.slow
def test_type_one_error_holds_for_skewed_differences_that_use_their_bounds():
    # A difference of +-1 with mean at the null uses the bounds fully, where betting has least slack.
    random = np.random.default_rng(3)
    wrong = 0
    for _ in range(300):
        state: tuple[float, ...] = ()
        for up in random.random(150) < 0.5:
            state = fold_paired(state, 1.0 if up else -1.0, -1.0, 1.0, 0.0, "above")
            if log_evidence(state) >= math.log(1 / 0.05):
                wrong += 1
                break
    assert wrong / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


def test_a_clear_difference_is_decided_and_each_way():
    better, worse = ((), ()), ((), ())
    for d in day_losses(np.random.default_rng(0), 60, 0.0):
        better = _fold(better, d - 0.02)
        worse = _fold(worse, d + 0.04)
    assert decide(*better, 0.05) == "not worse"
    assert decide(*worse, 0.05) == "worse"


def _fold(states, d):
    return (
        fold_paired(states[0], d, -0.15, 0.15, 0.01, "below"),
        fold_paired(states[1], d, -0.15, 0.15, 0.0, "above"),
    )


@given(st.lists(st.floats(-1, 1), max_size=50), st.floats(-0.5, 0.5), st.sampled_from(["below", "above"]))
def test_evidence_never_becomes_zero_whatever_comes(differences, null, direction):
    state: tuple[float, ...] = ()
    for d in differences:
        state = fold_paired(state, d, -1.0, 1.0, null, direction)
    assert all(math.isfinite(each) for each in state)
    assert log_evidence(state) >= len(differences) * math.log(1 - max(BETS)) - math.log(2) - 1e-9


def test_two_equal_models_are_certainly_not_worse_but_not_after_a_day_or_two():
    states = (), ()
    for day in range(1, 11):
        states = (
            fold_paired(states[0], 0.0, 0.0, 0.0, 0.01, "below"),
            fold_paired(states[1], 0.0, 0.0, 0.0, 0.0, "above"),
        )
        assert decide(*states, 0.05) == ("undecided" if day < 3 else "not worse")


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(1e-6, 1), st.floats(1e-6, 1)), min_size=1, max_size=30),
    st.floats(0, 0.5),
    st.sampled_from(["below", "above"]),
)
def test_whole_streams_give_what_folding_day_by_day_gives(days, null, direction):
    low, high = (np.array(each) for each in ([-down for _, down, _ in days], [up for _, _, up in days]))
    d = low + np.array([share for share, _, _ in days]) * (high - low)
    path, state = evidence_path(d, low, high, null, direction), ()
    for i in range(len(days)):
        state = fold_paired(state, d[i], low[: i + 1].min(), high[: i + 1].max(), null, direction)
        assert path[i] == pytest.approx(log_evidence(state), abs=1e-9)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(1e-6, 1), st.floats(1e-6, 1)), min_size=1, max_size=30),
    st.floats(0, 0.5),
    st.sampled_from(["below", "above"]),
)
def test_evidence_is_the_average_of_both_halves_so_within_a_factor_of_two_of_the_better(days, null, direction):
    low, high = (np.array(each) for each in ([-down for _, down, _ in days], [up for _, _, up in days]))
    stream = (low + np.array([share for share, _, _ in days]) * (high - low), low, high, null, direction)
    together, betting, symmetric = (path(*stream) for path in (evidence_path, betting_path, selfnormalised_path))
    assert np.exp(together) == pytest.approx((np.exp(betting) + np.exp(symmetric)) / 2, rel=1e-9)
    assert (together >= np.maximum(betting, symmetric) - math.log(2) - 1e-9).all()


def test_where_days_vary_far_less_than_their_bounds_a_decision_takes_two_thirds_of_the_days_of_bets():
    random = np.random.default_rng(12)
    d = np.clip(random.normal(0.0, 0.01, (200, 200)), -0.2, 0.2)
    stream = (d, np.full_like(d, -0.2), np.full_like(d, 0.2), 0.007, "below")
    together, alone = (np.median(first_reached(path(*stream), 0.05)) for path in (evidence_path, betting_path))
    assert together <= alone * 2 / 3


def test_a_comparison_that_began_with_bets_alone_goes_on_with_bets_alone():
    # Three log wealths is what 0.1 stored; the average with what would have won since would be no fair bet.
    stored, d = (0.1, 0.2, 0.3), np.full(20, -0.02)
    state = stored
    for each in d:
        state = fold_paired(state, each, -0.1, 0.1, 0.01, "below")
    assert len(state) == len(stored)
    gains = [logged + 20 * math.log1p(bet * 0.03 / 0.09) for logged, bet in zip(stored, BETS, strict=True)]
    assert math.exp(log_evidence(state)) == pytest.approx(np.mean(np.exp(gains)))
    assert decide(state, (), 0.05) == "not worse"


def test_days_of_perfect_agreement_are_no_evidence_of_being_worse_and_leave_later_days_their_weight():
    state: tuple[float, ...] = ()
    for _ in range(5):
        state = fold_paired(state, 0.0, 0.0, 0.0, 0.0, "above")
    assert log_evidence(state) == pytest.approx(0.0, abs=1e-12)
    later = fold_paired(state, 0.02, -0.1, 0.1, 0.0, "above")
    assert later == pytest.approx(fold_paired((), 0.02, -0.1, 0.1, 0.0, "above"))


@pytest.mark.slow
@pytest.mark.parametrize("together", [1, 6])
def test_type_one_error_holds_for_symmetric_days_of_any_spread_that_lasts(together):
    # Spreads of neighbours alike and tails heavy: neither normal nor independent, but symmetric.
    random = np.random.default_rng(13)
    spread = np.repeat(random.lognormal(-5, 1, (1000, 120 // together)), together, axis=1)
    d = np.clip(0.01 + spread * random.standard_t(3, spread.shape), -0.08, 0.1)
    low, high = np.full_like(d, -0.08), np.full_like(d, 0.1)
    assert np.isfinite(first_reached(evidence_path(d, low, high, 0.01, "below"), 0.05)).mean() <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_type_one_error_holds_for_exponential_days_though_one_half_assumes_symmetry(sign):
    d = sign * np.clip(np.random.default_rng(14).exponential(size=(2000, 120)) - 1, -1, 10)
    stream = (d, np.full_like(d, -10), np.full_like(d, 10), 0.0, "below")
    for path in (evidence_path, selfnormalised_path):
        assert np.isfinite(first_reached(path(*stream), 0.05)).mean() <= 0.05


@pytest.mark.slow
def test_rare_disasters_on_otherwise_even_days_are_the_stated_limit():
    # Better by 0.002 on 49 days of 50 and worse by 0.098 on the other: equally good, and as asymmetric as days can be.
    bad = np.random.default_rng(15).random((2000, 120)) < 0.02
    d = np.where(bad, 0.098, -0.002)
    stream = (d, np.full_like(d, -0.1), np.full_like(d, 0.1), 0.0, "below")
    together, betting = (first_reached(path(*stream), 0.05) for path in (evidence_path, betting_path))
    assert np.isfinite(betting).mean() <= 0.05 < np.isfinite(together).mean() <= 0.25
    assert together.min() > 28  # so many even days alone do not speak against a disaster that the bounds allow


def test_no_two_days_alone_decide_whatever_they_show():
    for null, direction, d in ((0.01, "below", -1.0), (0.0, "above", 1.0)):
        state = ()
        for _ in range(2):
            state = fold_paired(state, d, -1.0 if d < 0 else -1e-9, 1.0 if d > 0 else 1e-9, null, direction)
        assert log_evidence(state) < math.log(1 / 0.05)


@pytest.mark.slow
def test_a_candidate_better_where_models_agree_and_worse_elsewhere_is_not_judged_by_the_former():
    # Equally good over all days: better by 0.002 on three calm days of four, worse by 0.006 on the fourth.
    random = np.random.default_rng(4)
    calm = random.random((1000, 100)) < 0.75
    d = np.where(calm, -0.002, 0.006) + random.normal(0, 0.002, calm.shape)
    width = np.where(calm, 0.012, 0.1)
    wrong = np.isfinite(first_reached(evidence_path(d, -width, width, 0.0, "below"), 0.05))
    weighted = np.isfinite(
        first_reached(np.cumsum(np.log1p(0.98 * -d / width), axis=1), 0.05)  # each day within its own bounds
    )
    assert wrong.mean() <= 0.05 < 0.5 < weighted.mean()


def test_a_difference_outside_its_bounds_is_refused():
    with pytest.raises(ValueError, match="bounds are wrong"):
        fold_paired((), 0.2, -0.1, 0.1, 0.0, "below")
    with pytest.raises(ValueError, match="bounds are wrong"):
        fold_paired((), float("nan"), -0.1, 0.1, 0.0, "below")


def test_folding_on_from_stored_state_ends_the_same():
    state = fold_paired((), 0.01, -0.1, 0.1, 0.02, "below")
    stored = tuple(float(repr(logged)) for logged in state)
    assert fold_paired(stored, -0.01, -0.1, 0.1, 0.02, "below") == fold_paired(state, -0.01, -0.1, 0.1, 0.02, "below")


@pytest.mark.slow
def test_the_mean_time_to_a_false_alarm_is_at_least_one_over_the_level():
    detector, level, random = EDetector(), 1 / 40, np.random.default_rng(2)
    run_lengths = []
    for _ in range(150):
        state, blocks = detector.start(), 0
        while detector.evidence(state) < 1 / level and blocks < 400:
            x = float(np.clip(0.2 + random.normal(0, 0.08), 0, 1))
            state, blocks = detector.fold(state, x, 0.2), blocks + 1
        run_lengths.append(blocks)  # cut at 400, which can only lower the mean
    assert np.mean(run_lengths) >= 1 / level


def test_a_rise_is_seen_and_a_fall_is_not():
    detector = EDetector()
    risen, fallen = detector.start(), detector.start()
    for _ in range(15):
        risen = detector.fold(risen, 0.3, 0.2)
        fallen = detector.fold(fallen, 0.1, 0.2)
    assert detector.evidence(risen) > 150 > 5 > detector.evidence(fallen)
    assert detector.evidence(()) == 0.0


def test_evidence_stays_finite_for_ever():
    detector, state = EDetector(), ()
    for _ in range(3000):
        state = detector.fold(state, 1.0, 0.2)
    assert math.isfinite(detector.evidence(state))


def test_a_detector_refuses_what_would_break_its_guarantee():
    with pytest.raises(ValueError, match="must lie above low"):
        EDetector().fold((), 0.5, 0.0)
    with pytest.raises(ValueError, match="below its bound"):
        EDetector().fold((), -0.5, 0.2)


def test_a_plan_is_what_the_test_itself_does():
    plan = blocks_to_decision(0.0, 0.01, -0.06, 0.06, 0.01, 0.05, seed=4)
    random, taken = np.random.default_rng(9), []
    for _ in range(40):
        states, n = ((), ()), 0
        while decide(*states, 0.05) == "undecided" and n < 120:
            d = float(np.clip(random.normal(0, 0.01), -0.06, 0.06))
            states = (
                fold_paired(states[0], d, -0.06, 0.06, 0.01, "below"),
                fold_paired(states[1], d, -0.06, 0.06, 0.0, "above"),
            )
            n += 1
        taken.append(n)
    assert plan.half == pytest.approx(np.median(taken), abs=3)
    assert plan.decided == 1.0


def test_what_is_decidable_in_time_grows_easier_with_time():
    month = decidable_margin(0.01, -0.06, 0.06, 0.05, within=28)
    week = decidable_margin(0.01, -0.06, 0.06, 0.05, within=7)
    assert 0 < month < week
    assert 0.05 < decidable_margin(0.01, -0.06, 0.06, 0.05, within=1) <= 0.06


PAST = np.random.default_rng(8).normal(0.001, 0.01, 40)
BOUNDS = PAST - 0.05, PAST + 0.05


def test_a_replayed_plan_is_what_the_test_itself_does_on_the_same_days():
    low, high = np.full(40, -0.06), np.full(40, 0.06)
    days = np.clip(PAST, low, high)
    plan = replayed_decision(days, low, high, 0.01, 0.05, effect=0.0, seed=4)
    drawn = np.random.default_rng(9).choice(days - days.mean(), size=(300, 120))
    below = first_reached(evidence_path(drawn, *(np.full(drawn.shape, b) for b in (-0.06, 0.06)), 0.01, "below"), 0.05)
    assert plan.half == pytest.approx(np.median(below), abs=3)
    assert plan.tenth <= plan.half <= plan.nine_in_ten
    assert plan.decided == 1.0


def test_a_plan_depends_on_its_seed_only():
    assert replayed_decision(PAST, *BOUNDS, 0.01, 0.05, seed=1) == replayed_decision(PAST, *BOUNDS, 0.01, 0.05, seed=1)
    assert replayed_margin(PAST, *BOUNDS, 0.05, within=28) == replayed_margin(PAST, *BOUNDS, 0.05, within=28)


def test_a_better_candidate_and_more_days_make_a_smaller_margin_decidable():
    month = replayed_margin(PAST, *BOUNDS, 0.05, within=28)
    better = replayed_margin(PAST, *BOUNDS, 0.05, within=28, effect=-0.005)
    week = replayed_margin(PAST, *BOUNDS, 0.05, within=7)
    assert 0 < better.half < month.half < week.half


def test_half_of_all_replays_pass_in_time_at_the_margin_of_a_half():
    margin = replayed_margin(PAST, *BOUNDS, 0.05, within=28, runs=400)
    at_half = replayed_decision(PAST, *BOUNDS, margin.half, 0.05, effect=0.0, horizon=28, runs=400)
    assert at_half.not_worse == pytest.approx(0.5, abs=0.03)
    assert replayed_decision(
        PAST, *BOUNDS, margin.nine_in_ten, 0.05, effect=0.0, horizon=28, runs=400
    ).not_worse == pytest.approx(0.9, abs=0.03)


def test_few_past_days_make_a_wide_plan_unless_the_effect_is_given():
    days = np.array([-0.02, 0.03, 0.0, -0.01, 0.02])
    few = days, np.full(5, -0.08), np.full(5, 0.08)
    unknown = replayed_decision(*few, 0.01, 0.05, runs=2000)
    assumed = replayed_decision(*few, 0.01, 0.05, runs=2000, effect=float(days.mean()))
    assert unknown.nine_in_ten - unknown.tenth > assumed.nine_in_ten - assumed.tenth


def test_a_candidate_that_is_clearly_worse_has_no_decidable_margin():
    worse = np.full(10, 0.04)
    margin = replayed_margin(worse, worse - 0.05, worse + 0.01, 0.05, within=60, effect=None)
    assert math.isinf(margin.tenth)


@pytest.mark.parametrize(
    ("d", "low", "high", "says"),
    [
        ([0.1], [0.0], [0.2], "at least two past days"),
        ([0.1, 0.1], [0.0], [0.2], "at least two past days"),
        ([0.1, 0.3], [0.0, 0.0], [0.2, 0.2], "outside its bounds"),
        ([0.1, math.nan], [0.0, 0.0], [0.2, 0.2], "missing"),
    ],
)
def test_a_plan_refuses_days_that_it_cannot_replay(d, low, high, says):
    with pytest.raises(ValueError, match=says):
        replayed_decision(np.array(d), np.array(low), np.array(high), 0.01, 0.05)
