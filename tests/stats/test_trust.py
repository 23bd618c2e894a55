import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats.trust import Matured, trusted

INSIDE, OUTSIDE = Matured(0.8, 0.78, 0.82, 0.81), Matured(0.8, 0.78, 0.82, 0.6)


def history(missed):
    return [OUTSIDE if miss else INSIDE for miss in missed]


def test_nothing_known_is_usable_and_says_so():
    trust = trusted([])
    assert trust.usable
    assert "no earlier estimate" in trust.why


def test_three_misses_in_a_row_end_it_whatever_came_before():
    assert trusted(history([False] * 200 + [True] * 2)).usable
    trust = trusted(history([False] * 200 + [True] * 3))
    assert not trust.usable
    assert "number 203" in trust.why
    assert trust.misses == 3


def test_once_given_up_it_stays_so():
    assert not trusted(history([True] * 3 + [False] * 500)).usable


def test_the_error_is_shown():
    trust = trusted(history([False, True]))
    assert trust.error == pytest.approx((0.01 + 0.2) / 2)
    assert "1 of 2" in trust.why


def test_an_interval_of_other_confidence_may_miss_at_its_own_rate():
    every_fourth = [i % 4 == 0 for i in range(80)]
    assert not trusted(history(every_fourth)).usable
    assert trusted(history(every_fourth), rate=0.3).usable


@pytest.mark.slow
def test_sound_estimates_are_given_up_as_seldom_as_stated():
    random, level, windows = np.random.default_rng(0), 1 / 100, 60
    given_up = sum(not trusted(history(random.random(windows) < 0.05), level=level).usable for _ in range(300))
    # an average run of at least 100 windows: of runs of 60 at most 60 % end, and a detector on sound data far fewer
    assert given_up / 300 < 0.35


@pytest.mark.slow
def test_estimates_that_miss_half_of_the_time_are_given_up_within_two_weeks():
    random = np.random.default_rng(1)
    took = []
    for _ in range(100):
        missed = random.random(60) < 0.5
        took.append(next(i for i in range(1, 61) if not trusted(history(missed[:i])).usable))
    assert np.median(took) <= 14


@given(st.lists(st.booleans(), max_size=25))
def test_what_was_given_up_is_not_taken_up_again(missed):
    usable = [trusted(history(missed[:i])).usable for i in range(len(missed) + 1)]
    assert usable == sorted(usable, reverse=True)
