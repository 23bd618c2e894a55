"""How much a daily mean rose: the value, its interval, its ends."""

import numpy as np
import pytest

from holdfast.stats.rise import rise


def test_days_weigh_by_their_rows() -> None:
    value, _ = rise(np.array([0.0, 1.0]), np.array([2.0, 3.0]), np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    assert value == pytest.approx(2.5 - 0.75)


def test_the_interval_holds_the_true_rise_about_as_often_as_stated() -> None:
    held = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        before, after = random.normal(size=28), random.normal(size=14) + 1.0
        _, (low, high) = rise(before, after, np.ones(28), np.ones(14), seed=seed)
        held += low <= 1.0 <= high
    # 200 draws at 95 % scatter by 1.5 %; widening errs to the long side.
    assert 0.91 <= held / 200 <= 0.995


def test_one_day_has_no_interval_and_none_is_refused() -> None:
    value, (low, high) = rise(np.array([1.0, 2.0]), np.array([4.0]), np.ones(2), np.ones(1))
    assert value == 2.5
    assert np.isnan([low, high]).all()
    with pytest.raises(ValueError, match="at least one day"):
        rise(np.array([]), np.array([4.0]), np.array([]), np.ones(1))
