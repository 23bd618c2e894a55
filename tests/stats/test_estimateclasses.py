"""Multi-class estimates without labels: the task's own numbers where labels are there, near the truth where not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats.estimateclasses import (
    HIGHER_IS_BETTER,
    calibrate_classes,
    class_noise,
    confusion,
    estimate_classes,
    one_hot,
    past_class_errors,
)
from holdfast.tasks.multiclass import METRICS, Multiclass

TASK = Multiclass(("a", "b", "c", "d"))


def answered(n: int, seed: int = 0, *, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and answers (n, 4) that come true with a `power` of 1; above it they are too sure."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(4, 0.8), n)
    y = (p.cumsum(axis=1) < random.random(n)[:, None]).sum(axis=1).clip(0, 3)
    told = p**power
    return y.astype(np.float64), told / told.sum(axis=1, keepdims=True)


def blocks(count: int, rows: int = 150, **kwargs: float) -> list[tuple[np.ndarray, np.ndarray]]:
    return [answered(rows, seed=100 + i, **kwargs) for i in range(count)]


@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans())
def test_with_labels_each_metric_is_the_tasks(seed: int, n: int, has_strangers: bool) -> None:
    y, p = answered(n, seed)
    if has_strangers:
        y[::3] = -1
    found = estimate_classes(p, one_hot(y, 4))
    expected = TASK.metrics(y, p)
    assert {name: float(values[0]) for name, values in found.items()} == pytest.approx(
        {name: expected[name] for name in found}, abs=1e-9, nan_ok=True
    )
    assert {name: METRICS[name] for name in found} == dict(HIGHER_IS_BETTER)


def test_chunks_are_measured_apart() -> None:
    y, p = answered(90)
    whole = estimate_classes(p, one_hot(y, 4), (0, 40))
    for name, values in whole.items():
        parts = [estimate_classes(p[at], one_hot(y[at], 4))[name][0] for at in (slice(0, 40), slice(40, 90))]
        assert values.tolist() == pytest.approx(parts)
    with pytest.raises(ValueError, match="every chunk needs a row"):
        estimate_classes(p, p, (0, 90))
    with pytest.raises(ValueError, match="no estimate of f1"):
        estimate_classes(p, p, metrics=("f1",))


def test_the_confusion_holds_every_row_once() -> None:
    y, p = answered(200)
    table = confusion(p, p.argmax(axis=1))
    assert table.sum() == pytest.approx(200)
    assert table.sum(axis=0) == pytest.approx(np.bincount(p.argmax(axis=1), minlength=4))
    counted = confusion(one_hot(y, 4), p.argmax(axis=1))
    assert np.diag(counted).sum() == (p.argmax(axis=1) == y).sum()


def test_too_sure_answers_are_calibrated_and_add_up() -> None:
    curves = calibrate_classes(blocks(20, power=2.0))
    assert set(curves.methods) == {"sigmoid"} or "as answered" not in curves.methods
    y, told = answered(4000, seed=7, power=2.0)
    p = curves(told)
    assert p.sum(axis=1) == pytest.approx(np.ones(4000))
    truth = estimate_classes(told, one_hot(y, 4))
    for name in ("accuracy", "f1_macro", "roc_auc", "brier", "log_loss"):
        far, near = (abs(estimate_classes(told, by)[name][0] - truth[name][0]) for by in (told, p))
        assert near < 0.06, name
        assert near < far or name == "roc_auc", name


def test_curves_that_all_say_nothing_share_equally() -> None:
    zero = [(np.full(50, 3.0), np.tile([0.2, 0.3, 0.4, 0.1], (50, 1)))] * 2
    p = calibrate_classes(zero)(np.zeros((1, 4)))
    assert p.sum() == pytest.approx(1)


@pytest.mark.slow
def test_intervals_hold_the_truth_at_about_their_rate() -> None:
    past = past_class_errors(blocks(40), window=4, metrics=("accuracy", "brier"))
    curves, held = calibrate_classes(blocks(40)), {"accuracy": 0, "brier": 0}
    for seed in range(60):
        y, p = answered(600, seed=1000 + seed)
        truth = curves(p)
        for name in held:
            value = float(estimate_classes(p, truth, metrics=(name,))[name][0])
            low, high = past.interval(name, value, class_noise(p, truth))
            held[name] += low <= float(estimate_classes(p, one_hot(y, 4), metrics=(name,))[name][0]) <= high
    assert min(held.values()) >= 51, held  # 57 of 60 on average at 95 %


def test_a_short_reference_says_nothing_about_errors() -> None:
    past = past_class_errors(blocks(3), window=1, metrics=("accuracy",))
    assert np.isnan(past.interval("accuracy", 0.7, 0.01)).all()
    assert np.isfinite(past_class_errors(blocks(8), window=3, metrics=("accuracy",)).by_metric["accuracy"]).all()
