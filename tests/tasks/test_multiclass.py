"""Multi-class classification, its numbers against scikit-learn."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression

from holdfast.errors import DataError, UnknownKind
from holdfast.tasks.multiclass import METRICS, Multiclass, roc_auc

DATA = Path(os.environ.get("HOLDFAST_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
WINE = DATA / "wine_quality" / "wine_quality.parquet"
TASK = Multiclass(("a", "b", "c", "d"))
FloatArray = np.ndarray


def answers(n: int, classes: int = 4, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Labels and answers (n, classes); the answers come true."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(classes, 0.7), n)
    y = (p.cumsum(axis=1) < random.random(n)[:, None]).sum(axis=1).clip(0, classes - 1)
    return y.astype(np.float64), p


def scikit(y: FloatArray, p: FloatArray) -> dict[str, float]:
    """What scikit-learn says, classes that are never answered or never occur counting as 0."""
    said, classes = p.argmax(axis=1), list(range(p.shape[1]))
    clipped = np.clip(p, 1e-6, 1.0)
    found = {
        "accuracy": reference.accuracy_score(y, said),
        "balanced_accuracy": reference.balanced_accuracy_score(y, said),
        "top_2_accuracy": reference.top_k_accuracy_score(y, p, k=2, labels=classes),
        "precision_macro": reference.precision_score(y, said, average="macro", zero_division=0),
        "recall_macro": reference.recall_score(y, said, average="macro", zero_division=0),
        "f1_macro": reference.f1_score(y, said, average="macro", zero_division=0),
        "f1_weighted": reference.f1_score(y, said, average="weighted", zero_division=0),
        "mcc": reference.matthews_corrcoef(y, said),
        "log_loss": -np.log(clipped[np.arange(len(y)), y.astype(int)]).mean(),
        "brier": np.square(p - np.eye(p.shape[1])[y.astype(int)]).sum(axis=1).mean(),
    }
    if len(np.unique(y)) == p.shape[1]:
        found["roc_auc"] = reference.roc_auc_score(y, p, multi_class="ovr")
    return found


@pytest.mark.parametrize("seed", range(4))
def test_metrics_of_random_answers_equal_scikit_learns(seed: int) -> None:
    y, p = answers(400, seed=seed)
    got = TASK.metrics(y, p)
    assert {name: got[name] for name in scikit(y, p)} == pytest.approx(scikit(y, p), abs=1e-12)
    assert got["log_loss"] == pytest.approx(reference.log_loss(y, p, labels=[0, 1, 2, 3]), abs=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.skipif(not WINE.is_file(), reason="the shared data set wine_quality is not here")
def test_metrics_on_real_rows_equal_scikit_learns() -> None:
    rows = pl.read_parquet(WINE)
    x = rows.drop("quality", "colour").to_numpy()
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = rows["quality"].rank("dense").to_numpy().astype(np.float64) - 1
    first = np.arange(len(y)) % 2 == 0
    model = LogisticRegression(max_iter=200).fit(x[first], y[first])
    p, later = model.predict_proba(x[~first]), y[~first]
    got = Multiclass(tuple(str(c) for c in range(3, 10))).metrics(later, p)
    expected = scikit(later, p)
    assert len(np.unique(p.argmax(axis=1))) < p.shape[1], "a class that is never answered is among the cases"
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(st.integers(-1, 2), st.lists(st.floats(0.01, 1), min_size=3, max_size=3)), min_size=1))
def test_metrics_are_defined_or_nan_whatever_classes_occur(rows: list[tuple[int, list[float]]]) -> None:
    y = np.array([label for label, _ in rows], dtype=np.float64)
    p = np.array([scores for _, scores in rows])
    got = Multiclass(("a", "b", "c")).metrics(y, p / p.sum(axis=1, keepdims=True))
    assert set(got) == set(METRICS)
    for name, value in got.items():
        if not np.isnan(value):
            assert (-1 if name in ("mcc", "bias") else 0) <= value <= (14 if name == "log_loss" else 2), name
    assert got["unknown_labels"] == pytest.approx((y < 0).mean())
    assert not np.isnan([got[name] for name in ("accuracy", "balanced_accuracy", "f1_macro", "brier")]).any()


def test_a_class_that_never_occurs_is_left_out_of_the_areas() -> None:
    y, p = answers(300, classes=3)
    kept = y < 2
    pairs = [reference.roc_auc_score(y[kept] == c, p[kept, c]) for c in (0, 1)]
    assert roc_auc(y[kept], p[kept]) == pytest.approx(np.mean(pairs))
    assert np.isnan(roc_auc(np.zeros(5), p[:5]))
    assert np.isnan(TASK.metrics(np.zeros(5), answers(5)[1])["mcc"])
    assert all(np.isnan(value) for value in TASK.metrics(np.empty(0), np.empty((0, 4))).values())


def test_a_label_of_none_of_the_classes_counts_as_wrong() -> None:
    y, p = answers(50)
    worst = np.full(50, -1.0)
    got = TASK.metrics(worst, p)
    assert (got["accuracy"], got["top_2_accuracy"], got["f1_macro"], got["unknown_labels"]) == (0.0, 0.0, 0.0, 1.0)
    assert TASK.loss("log_loss", worst, p) == pytest.approx(np.full(50, -np.log(1e-6)))
    assert TASK.loss("brier", worst, p) == pytest.approx(np.square(p).sum(axis=1) + 1)
    assert (TASK.loss("brier", worst, p) > TASK.loss("brier", y, p)).all()


@pytest.mark.parametrize("loss", TASK.losses)
def test_no_label_takes_a_difference_beyond_its_bounds_and_two_labels_reach_them(loss: str) -> None:
    (_, candidate), (_, live) = answers(200, seed=1), answers(200, seed=2)
    candidate[0] = live[0]
    low, high = TASK.loss_bounds(loss, candidate, live)
    each = [
        TASK.loss(loss, np.full(200, float(c)), candidate) - TASK.loss(loss, np.full(200, float(c)), live)
        for c in range(-1, 4)
    ]
    assert np.min(each, axis=0) == pytest.approx(low)
    assert np.max(each, axis=0) == pytest.approx(high)
    assert low[0] == high[0] == 0


def test_a_row_without_a_label_has_no_loss_and_losses_have_names() -> None:
    _, p = answers(2)
    assert np.isnan(TASK.loss("brier", np.array([0.0, np.nan]), p)).tolist() == [False, True]
    for refused in (lambda: TASK.loss("bried", np.zeros(2), p), lambda: TASK.loss_bounds("bried", p, p)):
        with pytest.raises(UnknownKind, match="did you mean 'brier'"):
            refused()
    with pytest.raises(UnknownKind, match="did you mean 'f1_macro'"):
        TASK.higher_is_better("f1_makro")


def test_the_best_constant_are_the_shares_of_the_known_classes() -> None:
    assert TASK.trivial(np.array([0.0, 0.0, 1.0, 3.0, -1.0])).tolist() == [0.5, 0.25, 0.0, 0.25]
    assert TASK.trivial(np.array([-1.0])).tolist() == [0.25] * 4


def test_targets_are_places_of_classes() -> None:
    assert TASK.target(pl.Series("kind", [0.0, 3.0, -1.0, None])).tolist()[:3] == [0.0, 3.0, -1.0]
    for label, said in (
        (pl.Series("kind", [4.0]), "has the value 4; there are 4 classes"),
        (pl.Series("kind", [0.5]), "has the value 0.5"),
        (pl.Series("kind", ["a"]), "takes the places of classes"),
    ):
        with pytest.raises(DataError, match=said):
            TASK.target(label)


@pytest.mark.parametrize(
    ("label", "is_taken"),
    [("a", True), ("new", True), (3, True), (3.0, True), (0.5, False), (True, False), (" ", False)],
)
def test_a_class_is_text_or_a_whole_number(label: float | str, is_taken: bool) -> None:
    assert TASK.refuses_label(label) == ("" if is_taken else "a class: text or a whole number")
