import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from holdfast.stats.bootstrap import block_bootstrap_mean, block_bootstrap_metric, resample, run_length, widening


def test_resampled_blocks_come_in_runs_that_wrap_around():
    drawn = resample(28, seed=1, replicates=50)
    assert drawn.shape == (50, 28)
    assert drawn.min() >= 0
    assert drawn.max() <= 27
    runs = drawn[:, : 9 * run_length(28)].reshape(50, 9, run_length(28))
    assert ((np.diff(runs, axis=2) % 28) == 1).all()


def test_the_same_seed_gives_the_same_interval():
    means = np.random.default_rng(0).normal(size=20)
    assert block_bootstrap_mean(means, seed=3) == block_bootstrap_mean(means, seed=3)
    assert block_bootstrap_mean(means, seed=3) != block_bootstrap_mean(means, seed=4)


@pytest.mark.slow
def test_intervals_of_dependent_days_hold_the_truth_about_as_often_as_they_say():
    random, held = np.random.default_rng(0), 0
    for t in range(300):
        shocks = random.normal(size=48)
        days = np.zeros(48)
        for i in range(1, 48):
            days[i] = 0.3 * days[i - 1] + shocks[i]
        low, high = block_bootstrap_mean(days[20:], seed=t, replicates=300)
        held += low < 0 < high
    assert 0.88 <= held / 300 <= 0.99


def test_an_interval_of_independent_days_is_near_students():
    days = np.random.default_rng(1).normal(size=60)
    low, high = block_bootstrap_mean(days)
    student = 2 * 2.001 * days.std(ddof=1) / math.sqrt(60)
    assert high - low == pytest.approx(student, rel=0.25)


def test_weights_are_rows_and_empty_blocks_do_not_count():
    means, weights = np.array([0.0, 1.0, 5.0, np.nan]), np.array([1.0, 3.0, 0.0, 2.0])
    low, high = block_bootstrap_mean(means, weights)
    assert low <= 0.75 <= high
    assert (low, high) == block_bootstrap_mean(means[:2], weights[:2])


def test_one_block_says_nothing_about_how_blocks_differ():
    assert all(math.isnan(bound) for bound in block_bootstrap_mean(np.array([1.0])))
    assert all(math.isnan(bound) for bound in block_bootstrap_metric([(np.array([1.0]),)], np.mean))


def test_the_interval_of_an_auc_holds_the_auc():
    random = np.random.default_rng(0)
    y = [random.integers(0, 2, 60).astype(float) for _ in range(12)]
    days = [(label, np.clip(0.4 + 0.2 * label + random.normal(0, 0.3, 60), 0, 1)) for label in y]
    whole = roc_auc_score(np.concatenate([d[0] for d in days]), np.concatenate([d[1] for d in days]))
    low, high = block_bootstrap_metric(days, roc_auc_score, replicates=60)
    assert low < whole < high
    assert high - low < 0.2


def test_a_metric_that_is_mostly_undefined_has_no_interval():
    days = [(np.array([0.0]),), (np.array([1.0]),), (np.array([0.0]),)]
    low, _ = block_bootstrap_metric(days, lambda y: math.nan if y.mean() < 0.9 else 1.0, replicates=50)
    assert math.isnan(low)


def test_intervals_widen_for_few_blocks_only():
    assert widening(4, 0.95) > widening(14, 0.95) > widening(100, 0.95) > 1
    assert widening(10**6, 0.95) == pytest.approx(1, abs=0.001)
