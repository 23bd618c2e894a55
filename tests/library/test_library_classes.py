"""`hf.estimate_quality` of several classes."""

import numpy as np
import polars as pl
import pytest

import holdfast as hf
from holdfast.errors import DataError, NotFound
from holdfast.tasks.multiclass import Multiclass

SCORES = {"storm": "p_storm", "calm": "p_calm", "rain": "p_rain"}
NAMES = ("calm", "rain", "storm")


def answered(n: int, seed: int = 0, *, flat: float = 1.0) -> pl.DataFrame:
    """Answers that come true; below 1 `flat` brings them nearer to each other."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(3, 0.8), n) ** flat
    p /= p.sum(axis=1, keepdims=True)
    y = (p.cumsum(axis=1) < random.random(n)[:, None]).sum(axis=1).clip(0, 2)
    columns = {f"p_{name}": p[:, i] for i, name in enumerate(NAMES)}
    return pl.DataFrame(columns | {"y": np.array(NAMES)[y], "day": np.arange(n) * 30 // n})


@pytest.mark.parametrize("metric", ["roc_auc", "f1_macro", "log_loss"])
def test_an_estimate_of_classes_is_near_the_truth(metric: str) -> None:
    reference, current = answered(9000), answered(3000, 1, flat=0.5)
    found = hf.estimate_quality(reference, current.drop("y"), score=SCORES, label="y", metric=metric)
    labels = current["y"].replace_strict({name: i for i, name in enumerate(NAMES)}, return_dtype=pl.Float64).to_numpy()
    p = current.select(f"p_{name}" for name in NAMES).to_numpy()
    truth = Multiclass(NAMES).metrics(labels, p)[metric]
    assert found.low < truth < found.high
    assert (found.task, found.verdict, found.labelled) == ("multiclass", "worse", 0)
    assert found.method.startswith("CBPE by class, calibration: ")
    with_labels = hf.estimate_quality(reference, current, score=SCORES, label="y", metric=metric)
    assert with_labels.realised == pytest.approx(truth)
    assert with_labels.value == found.value


def test_what_is_asked_wrongly_of_classes_is_said() -> None:
    rows = answered(200)
    for given, said in (
        ({"score": "p_calm", "task": "multiclass"}, "maps each to the column of its probability"),
        ({"score": {"calm": "p_calm", "rain": "p_rain"}}, "3 or more"),
        ({"score": SCORES, "task": "regression"}, "3 or more"),
        ({"score": SCORES, "features": ["day"]}, "features= are for task='regression'"),
    ):
        with pytest.raises(DataError, match=said):
            hf.estimate_quality(rows, rows, label="y", **given)
    with pytest.raises(NotFound, match="f1_macro"):
        hf.estimate_quality(rows, rows, score=SCORES, label="y", metric="f1")


def test_models_of_classes_are_compared_in_pairs() -> None:
    rows = answered(6000)
    columns = [f"p_{name}" for name in NAMES]
    told = rows.select(columns).to_numpy() ** 0.2
    told /= told.sum(axis=1, keepdims=True)
    rows = rows.with_columns(pl.Series(f"worse_{name}", told[:, i]) for i, name in enumerate(NAMES))
    worse = {name: f"worse_{name}" for name in NAMES}
    found = hf.compare(rows, rows, label="y", score=(SCORES, worse), day="day", margin=0.01)
    assert (found.decision, found.loss) == ("worse", "brier")
    task, y = Multiclass(NAMES), rows["y"].replace_strict({name: i for i, name in enumerate(NAMES)}).to_numpy()
    assert found.loss_a == pytest.approx(task.loss("brier", y.astype(float), rows.select(columns).to_numpy()).mean())
    assert found.loss_b == pytest.approx(task.loss("brier", y.astype(float), told).mean())
    same = hf.compare(rows, rows, label="y", score=SCORES, day="day", margin=0.01, loss="log_loss")
    assert (same.decision, same.difference) == ("not worse", 0.0)
    with pytest.raises(DataError, match="different classes"):
        hf.compare(rows, rows, label="y", score=(SCORES, worse | {"hail": "p_calm"}), day="day")
