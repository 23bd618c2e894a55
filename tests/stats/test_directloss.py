import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_log_error,
    root_mean_squared_error,
    root_mean_squared_log_error,
)

from holdfast.stats.directloss import METRICS, held_out, loss_noise, metric_of, past_loss_errors, row_losses

SKLEARN = {
    "mae": mean_absolute_error,
    "mape": mean_absolute_percentage_error,
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "msle": mean_squared_log_error,
    "rmsle": root_mean_squared_log_error,
}


def least_squares(x, target):
    design = np.column_stack([np.ones(len(x)), x])
    weights, *_ = np.linalg.lstsq(design, target, rcond=None)
    return lambda rows: np.column_stack([np.ones(len(rows)), rows]) @ weights


def spreading(seed, rows, high=1.0):
    """Errors whose size grows with the feature."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, high, (rows, 1))
    return x, np.zeros(rows), random.normal(0, 1 + 3 * x[:, 0])


@pytest.mark.parametrize("metric", METRICS)
def test_known_losses_give_the_metric_of_scikit_learn(metric):
    random = np.random.default_rng(0)
    y, output = random.gamma(2, 3, 500), random.gamma(2, 3, 500)
    found = metric_of(metric, row_losses(metric, y, output))
    assert found[0] == pytest.approx(SKLEARN[metric](y, output))


def test_estimates_follow_rows_into_a_harder_region():
    x, y, output = spreading(0, 6000)
    predict = least_squares(x, row_losses("mae", y, output))
    hard_x, hard_y, hard_output = spreading(1, 3000, high=2.0)
    truth = float(metric_of("mae", row_losses("mae", hard_y, hard_output))[0])
    before = float(metric_of("mae", row_losses("mae", y, output))[0])
    assert float(metric_of("mae", predict(hard_x))[0]) == pytest.approx(truth, rel=0.05)
    assert abs(truth - before) > 0.3 * before


@given(st.lists(st.floats(0, 100), min_size=2, max_size=30), st.integers(1, 29))
def test_chunks_are_measured_as_if_each_stood_alone(losses, cut):
    losses, cut = np.array(losses), min(cut, len(losses) - 1)
    both = metric_of("rmse", losses, [0, cut])
    assert both == pytest.approx([metric_of("rmse", losses[:cut])[0], metric_of("rmse", losses[cut:])[0]])


def test_a_row_is_estimated_by_a_learner_that_never_saw_its_days():
    x, losses, block = np.zeros((10, 1)), np.arange(10.0), np.repeat(np.arange(5), 2)
    found = held_out(lambda _, target: lambda rows: np.full(len(rows), target.mean()), x, losses, block)
    for day in range(5):
        assert found[block == day] == pytest.approx(np.full(2, losses[block != day].mean()))
    assert np.isnan(held_out(least_squares, x, losses, np.zeros(10, dtype=np.int64))).all()


@pytest.mark.slow
def test_intervals_hold_the_truth_at_their_rate():
    inside = 0
    for seed in range(80):
        x, y, output = spreading(seed, 67 * 60)
        losses = row_losses("rmse", y, output)
        cut, block = 60 * 60, np.arange(60 * 60) // 60
        past = past_loss_errors(
            "rmse", losses[:cut], held_out(least_squares, x[:cut], losses[:cut], block), block, blocks=7, seed=seed
        )
        guessed = least_squares(x[:cut], losses[:cut])(x[cut:])
        low, high = past.interval("rmse", float(metric_of("rmse", guessed)[0]), loss_noise("rmse", guessed))
        inside += low <= float(metric_of("rmse", losses[cut:])[0]) <= high
    assert inside >= 70  # of 80 at 95 %: fewer has a probability under 1 %


def test_few_blocks_and_impossible_values_are_refused():
    assert past_loss_errors("mae", np.ones(6), np.ones(6), np.arange(6) // 2, blocks=2).by_metric["mae"].size == 0
    assert loss_noise("mae", np.empty(0)) == 0.0
    with pytest.raises(ValueError, match="at least 0"):
        row_losses("rmsle", np.array([-1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="there are mae"):
        row_losses("r2", np.array([1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="needs a row"):
        metric_of("mae", np.ones(3), [0, 3])


def test_a_mean_loss_that_was_estimated_below_zero_counts_as_zero_under_a_root():
    assert metric_of("rmse", np.array([-1.0, -2.0]))[0] == 0.0
