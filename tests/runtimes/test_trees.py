"""Trees by tables: the leaf that a walk finds, for every value a float32 can have; anything else is refused."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import ArtifactError
from holdfast.runtimes.ensemble import Ensemble, read_ensemble
from holdfast.runtimes.onnx import OnnxRuntime
from holdfast.runtimes.trees import TreesRuntime
from holdfast.trainers.lightgbm import to_onnx

Matrix = np.ndarray[Any, np.dtype[np.float32]]

ODD = (0.0, -0.0, 1e-45, -1e-45, 1e-36, 1.0, -1.0, 1.5, -2.5, 3.4e38, -3.4e38, math.inf, -math.inf, math.nan)


def matrix(rows: int, columns: int, seed: int = 0) -> Matrix:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


def text(*, columns: int = 5, leaves: int = 31, rounds: int = 20, rows: int = 1000, **params: Any) -> str:
    x = matrix(rows, columns)
    y = (np.nan_to_num(x).sum(axis=1) + x[:, 0] ** 2 > 1).astype(np.float64)
    options = {"objective": "binary", "num_leaves": leaves, "min_data_in_leaf": 2, "verbosity": -1, "num_threads": 1}
    return lgb.train(options | params, lgb.Dataset(x, y), num_boost_round=rounds).model_to_string()


def both(model: str, directory: Path) -> tuple[TreesRuntime, OnnxRuntime]:
    (directory / "model.onnx").write_bytes(to_onnx(model))
    return TreesRuntime.load(directory), OnnxRuntime.load(directory)


def at_thresholds(model: str, columns: int) -> Matrix:
    """Rows on every threshold of a model and on the float32 values beside it, odd ones among them."""
    lines = [line[10:].split() for line in model.split("\n") if line.startswith("threshold=")]
    on = np.array([float(word) for words in lines for word in words], dtype=np.float32)
    beside = [np.nextafter(on, np.float32(towards)) for towards in (-np.inf, np.inf)]
    values = np.concatenate([on, *beside, np.array(ODD, dtype=np.float32)])
    return np.random.default_rng(3).choice(values, size=(2000, columns)).astype(np.float32)


@st.composite
def ensembles(draw: st.DrawFn) -> Ensemble:
    """Any trees over three columns, lopsided ones too, with thresholds of every kind."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 9, 31, 32, 63, 70]), min_size=1, max_size=4))
    lopsided = draw(st.booleans())
    fields: dict[str, list[Any]] = {name: [] for name in ("feature", "threshold", "missing_true", "true", "false")}
    roots: list[int] = []
    for size in sizes:
        roots.append(root := len(fields["true"]))
        leaves = [root]
        fields["true"].append(-1)
        fields["false"].append(-1)
        while len(leaves) < size:
            parent = leaves.pop(-1 if lopsided else int(rng.integers(len(leaves))))
            place = len(fields["true"])
            fields["true"][parent], fields["false"][parent] = place, place + 1
            fields["true"] += [-1, -1]
            fields["false"] += [-1, -1]
            leaves += [place, place + 1]
    count = len(fields["true"])
    finite = [number + 0.0 for number in ODD if number == number]
    value = np.where(np.array(fields["true"]) < 0, rng.integers(-50, 50, count), 0).astype(np.float64)
    return Ensemble(
        columns=4,
        logistic=draw(st.booleans()),
        roots=np.array(roots),
        feature=rng.choice([0, 1, 3], count),
        threshold=rng.choice(np.array(finite, dtype=np.float32), count),
        missing_true=rng.random(count) < 0.5,
        true=np.array(fields["true"]),
        false=np.array(fields["false"]),
        value=value / 8,
    )


def walked(ensemble: Ensemble, row: Matrix) -> float:
    """The answer to a row by walking each tree."""
    total = 0.0
    for root in ensemble.roots:
        node = root
        while ensemble.true[node] >= 0:
            x = row[ensemble.feature[node]]
            goes_true = ensemble.missing_true[node] if np.isnan(x) else x <= ensemble.threshold[node]
            node = (ensemble.true if goes_true else ensemble.false)[node]
        total += ensemble.value[node]
    return 1 / (1 + math.exp(-total)) if ensemble.logistic else total


@given(ensembles(), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_it_finds_the_leaf_that_a_walk_finds(ensemble: Ensemble, seed: int) -> None:
    x = np.random.default_rng(seed).choice(np.array(ODD, dtype=np.float32), size=(40, 4))
    x[0] = -np.float32(np.nan)
    expected = [walked(ensemble, row) for row in x]
    np.testing.assert_allclose(TreesRuntime(ensemble).run(x), expected, rtol=1e-12, atol=1e-300)


@given(ensembles(), ensembles(), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_two_models_in_one_answer_what_each_answers_alone(first: Ensemble, second: Ensemble, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, which = rng.choice(np.array(ODD, dtype=np.float32), size=(70, 4)), rng.integers(0, 2, 70, dtype=np.uint32)
    second = msgspec.structs.replace(second, logistic=first.logistic)
    each = [TreesRuntime(ensemble) for ensemble in (first, second)]
    both = each[0].beside(each[1])
    assert both is not None
    expected = np.where(which == 1, each[1].run(x), each[0].run(x))
    for rows in (70, 3, 1, 70):
        np.testing.assert_allclose(both.run(x[:rows], which[:rows]), expected[:rows], rtol=1e-13, atol=1e-300)


def test_only_trees_that_answer_the_same_from_the_same_columns_stand_in_one(tmp_path: Path) -> None:
    trees, walking = both(text(), tmp_path)
    wider, _ = both(text(columns=6), tmp_path)
    summed, _ = both(text(objective="regression"), tmp_path)
    assert [trees.beside(other) for other in (walking, wider, summed)] == [None] * 3
    same = trees.beside(trees)
    assert same is not None
    x = matrix(100, 5)
    np.testing.assert_array_equal(same.run(x, np.arange(100, dtype=np.uint32) % 2), trees.run(x))


@pytest.mark.parametrize("leaves", [2, 31, 32, 63, 200])
def test_it_answers_what_onnx_runtime_answers(tmp_path: Path, leaves: int) -> None:
    model = text(leaves=leaves)
    trees, walking = both(model, tmp_path)
    asked = at_thresholds(model, 5)
    np.testing.assert_allclose(trees.run(asked), walking.run(asked), atol=1e-6)
    real = matrix(300, 5, seed=4)
    np.testing.assert_allclose(trees.run(real), lgb.Booster(model_str=model).predict(real), atol=1e-6)


def test_values_and_trees_without_a_split(tmp_path: Path) -> None:
    for model in (text(objective="regression"), text(min_data_in_leaf=5000)):
        data = to_onnx(model)
        (tmp_path / "model.onnx").write_bytes(data)
        asked = at_thresholds(model, 5)
        answers = TreesRuntime(read_ensemble(data)).run(asked)
        np.testing.assert_allclose(answers, OnnxRuntime.load(tmp_path).run(asked), atol=1e-6)


def test_a_row_is_answered_to_the_bit_the_same_in_any_company(tmp_path: Path) -> None:
    trees, _ = both(text(), tmp_path)
    x = matrix(700, 5, seed=1)
    together = trees.run(x)
    for size in (1, 2, 7, 64, 65, 300):
        parts = [trees.run(x[i : i + size]) for i in range(0, len(x), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)
    np.testing.assert_array_equal(trees.run(np.asfortranarray(x)), together)
    np.testing.assert_array_equal(trees.run(x[::2]), together[::2])
    assert len(trees.run(x[:0])) == 0


def test_threads_do_not_write_into_each_others_rows(tmp_path: Path) -> None:
    trees, _ = both(text(), tmp_path)
    asked = [matrix(size, 5, seed=size) for size in (1, 3, 64, 500) * 8]
    expected = [trees.run(x) for x in asked]
    with ThreadPoolExecutor(4) as pool:
        for answers, wanted in zip(pool.map(trees.run, asked), expected, strict=True):
            np.testing.assert_array_equal(answers, wanted)


def test_an_answer_is_not_overwritten_by_the_next(tmp_path: Path) -> None:
    trees, _ = both(text(), tmp_path)
    x = matrix(2, 5)
    first = trees.run(x[:1])
    kept = first.copy()
    trees.run(x[1:])
    np.testing.assert_array_equal(first, kept)


def test_other_columns_are_an_error(tmp_path: Path) -> None:
    trees, _ = both(text(), tmp_path)
    with pytest.raises(ValueError, match="1 columns instead of 5"):
        trees.run(np.zeros((3, 1), dtype=np.float32))


def test_what_walking_runs_faster_is_refused(tmp_path: Path) -> None:
    wide = text(columns=100, leaves=63, rounds=40, rows=150, max_bin=15)
    with pytest.raises(ArtifactError, match=r"model\.onnx: a row would read \d+ words a tree"):
        both(wide, tmp_path)


def test_few_trees_are_left_to_walking(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="it holds 19 trees, fewer than 20"):
        both(text(rounds=19, leaves=4), tmp_path)


def test_sums_that_would_overflow_are_refused() -> None:
    ensemble = read_ensemble(to_onnx(text(rounds=3)))
    steep = msgspec.structs.replace(ensemble, value=ensemble.value * 1e5)
    with pytest.raises(ArtifactError, match="its sums may reach"):
        TreesRuntime(steep)
