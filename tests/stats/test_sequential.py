import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats.sequential import (
    BETS,
    EDetector,
    blocks_to_decision,
    decidable_margin,
    decide,
    fold_paired,
    log_mixture,
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
            if log_mixture(state) >= math.log(1 / 0.05):
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
            if log_mixture(state) >= math.log(1 / 0.05):
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
def test_wealth_never_becomes_zero_whatever_comes(differences, null, direction):
    state: tuple[float, ...] = ()
    for d in differences:
        state = fold_paired(state, d, -1.0, 1.0, null, direction)
    assert all(math.isfinite(logged) for logged in state)
    assert log_mixture(state) >= len(differences) * math.log(1 - max(BETS)) - 1e-9


def test_two_equal_models_are_certainly_not_worse():
    assert decide(
        fold_paired((), 0.0, 0.0, 0.0, 0.01, "below"), fold_paired((), 0.0, 0.0, 0.0, 0.0, "above"), 0.05
    ) == ("not worse")


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
