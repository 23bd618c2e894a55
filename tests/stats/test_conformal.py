import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from holdfast.stats.conformal import (
    Look,
    joint_p_value,
    joint_scores,
    least_level,
    level_within,
    p_value,
    shortfall,
    split_levels,
    standardised,
    windows_needed,
)

tables = arrays(np.float64, (12, 3), elements=st.one_of(st.integers(-20, 20).map(float), st.just(float("nan"))))


@given(tables, st.permutations(range(12)))
def test_scores_do_not_depend_on_which_window_is_under_test(table, order):
    # Exchangeability in one line: permuting the windows permutes their scores, nothing else.
    assert np.allclose(joint_scores(table[order]), joint_scores(table)[order], equal_nan=True)


@pytest.mark.parametrize("level", [0.02, 0.1, 0.3])
def test_false_alarms_stay_at_the_level_for_dependent_heavy_tailed_columns(level):
    random = np.random.default_rng(5)
    alarms = 0
    for _ in range(400):
        common = random.standard_t(2, size=(60, 1))
        windows = np.exp(common + random.standard_t(3, size=(60, 8)))
        alarms += joint_p_value(windows[-1], windows[:-1]) <= level
    assert alarms / 400 <= level + 3 * np.sqrt(level * (1 - level) / 400)


def test_a_window_unlike_all_others_gets_the_least_level():
    history = np.random.default_rng(0).normal(size=(99, 4))
    assert joint_p_value(np.array([0.0, 0.0, 50.0, 0.0]), history) == pytest.approx(least_level(99))
    rows = np.vstack([history, [0.0, 0.0, 50.0, 0.0]])
    assert int(np.argmax(standardised(rows)[-1])) == 2


def test_columns_that_never_move_or_were_never_measured_decide_nothing():
    history = np.column_stack([np.full(20, 0.3), np.full(20, np.nan), np.arange(20.0)])
    assert joint_p_value(np.array([0.3, np.nan, 18.5]), history) == pytest.approx(2 / 21)


def test_what_was_not_measured_has_no_p_value():
    with pytest.raises(ValueError, match="verdict is unknown"):
        p_value(float("nan"), np.array([1.0]))
    with pytest.raises(ValueError, match="verdict is unknown"):
        joint_p_value(np.array([np.nan]), np.array([[1.0], [2.0]]))


def test_windows_of_history_that_were_not_measured_do_not_count():
    assert p_value(3.0, np.array([1.0, np.nan])) == p_value(3.0, np.array([1.0])) == 0.5
    assert p_value(3.0, np.array([])) == 1.0


@given(st.integers(1, 5000))
def test_the_windows_a_level_needs_are_just_enough(needed):
    level = least_level(needed)
    assert windows_needed(level) == needed
    assert shortfall(needed, level) == ""
    assert shortfall(needed - 1, level) != ""


@given(st.floats(0.1, 5), st.integers(1, 20), st.floats(1, 3000))
def test_levels_spend_the_budget_and_no_more(budget, monitors, evaluations):
    level = level_within(budget, monitors=monitors, evaluations=evaluations)
    assert monitors * evaluations * level <= budget * (1 + 1e-12)


A_LOOK = st.builds(Look, st.floats(0.5, 40), st.none() | st.integers(0, 400))


@given(st.floats(0.05, 5), st.lists(A_LOOK, max_size=6))
def test_a_split_stays_within_the_budget_and_nobody_gets_a_level_it_cannot_use(budget, looks):
    levels = split_levels(budget, looks)
    assert sum(look.evaluations * level for look, level in zip(looks, levels, strict=True)) <= budget * (1 + 1e-9)
    for look, level in zip(looks, levels, strict=True):
        assert 0 <= level <= 0.5
        if look.windows is None:
            assert level > 0
        elif level:
            assert level >= least_level(look.windows)


@given(st.floats(0.05, 5), st.lists(A_LOOK, min_size=1, max_size=5), st.integers(0, 40))
def test_who_can_never_be_calibrated_takes_nothing_from_the_others(budget, looks, windows):
    hopeless = Look(evaluations=budget * (windows + 2), windows=windows)
    assert split_levels(budget, [*looks, hopeless])[-1] == 0
    assert split_levels(budget, [*looks, hopeless])[:-1] == split_levels(budget, looks)


def test_a_monitor_that_looks_rarely_needs_fewer_windows():
    assert split_levels(1.0, [Look(30, 12), Look(30, None)])[0] == 0
    assert split_levels(1.0, [Look(30 / 7, 12), Look(30, None)])[0] == pytest.approx(2 / 13)


@pytest.mark.slow
@pytest.mark.parametrize("dependence", [0.0, 0.5])
def test_a_week_and_its_newest_day_looked_at_daily_open_no_more_alarms_than_their_level_says(dependence):
    random = np.random.default_rng(8)
    past, ahead, columns, rank, opened = 150, 84, 4, 3, 0
    runs = 120
    for _ in range(runs):
        days = random.normal(size=(past + ahead, columns))
        for k in range(1, len(days)):
            days[k] += dependence * days[k - 1]
        weeks = np.stack([days[k - 6 : k + 1].mean(axis=0) for k in range(6, len(days))])
        looks = np.abs(np.hstack([days[6:], weeks]))
        history = looks[: past - 6]
        level, first = rank / (len(history) + 1), -7
        for day in range(past, past + ahead):
            if joint_p_value(looks[day - 6], history) <= level and day - first >= 7:
                opened, first = opened + 1, day
    assert 0.3 * level * ahead <= opened / runs <= 1.1 * level * ahead
