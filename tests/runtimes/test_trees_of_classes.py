"""Tables of the trees of several classes: the shares that ONNX Runtime gives, and anything else is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
import pytest

from holdfast.errors import ArtifactError
from holdfast.runtimes.ensemble import read_ensemble
from holdfast.runtimes.onnx import OnnxRuntime
from holdfast.runtimes.trees import TreesRuntime
from holdfast.trainers.lightgbm import to_onnx


def matrix(rows: int, columns: int = 5, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, columns)).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    return x


def model(classes: int = 3, rounds: int = 12, leaves: int = 15, *, present: int = 0) -> lgb.Booster:
    x = matrix(900)
    score = np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) ** 2
    y = score.argsort().argsort() * (present or classes) // 900
    options = {"objective": "multiclass", "num_class": classes, "num_leaves": leaves, "min_data_in_leaf": 5}
    return lgb.train(options | {"verbosity": -1, "num_threads": 1}, lgb.Dataset(x, y.astype(float)), rounds)


@pytest.mark.parametrize(
    ("classes", "options"),
    [(3, {}), (7, {"rounds": 30}), (4, {"leaves": 60}), (3, {"present": 2})],
    ids=["three", "seven", "trees of several words", "a class that never occurs"],
)
def test_shares_are_those_of_onnx_runtime_whatever_the_batch(
    tmp_path: Path, classes: int, options: dict[str, Any]
) -> None:
    booster = model(classes, **options)
    (tmp_path / "model.onnx").write_bytes(to_onnx(booster.model_to_string()))
    trees, reference = TreesRuntime.load(tmp_path), OnnxRuntime.load(tmp_path)
    x = np.concatenate([matrix(500, seed=3), np.full((1, 5), np.nan, dtype=np.float32)])
    together = trees.run(x)
    assert together.shape == (501, classes)
    assert together == pytest.approx(reference.run(x), abs=1e-6)
    assert together == pytest.approx(booster.predict(x), abs=1e-6)
    assert together.sum(axis=1) == pytest.approx(np.ones(501))
    assert (trees.run(x[7:8]) == together[7:8]).all()
    assert trees.run(x[:0]).shape == (0, classes)


def test_two_models_of_classes_are_not_run_as_one(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(to_onnx(model().model_to_string()))
    trees = TreesRuntime.load(tmp_path)
    assert trees.beside(trees) is None


def attribute(node: Any, name: str) -> Any:
    return next(each for each in node.attribute if each.name == name)


def other_sums(node: Any) -> None:
    attribute(node, "n_targets").i = 4


def a_tree_of_two_sums(node: Any) -> None:
    attribute(node, "target_ids").ints[0] = 2


def a_sum_without_trees(node: Any) -> None:
    ids = attribute(node, "target_ids").ints
    for i, value in enumerate(ids):
        ids[i] = 0 if value == 2 else value


def sums_beyond(node: Any) -> None:
    ids = attribute(node, "target_ids").ints
    for i, value in enumerate(ids):
        ids[i] = 3 if value == 2 else value


@pytest.mark.parametrize("change", [other_sums, a_tree_of_two_sums, a_sum_without_trees, sums_beyond])
def test_trees_whose_sums_do_not_fit_are_refused(change: Callable[[Any], None]) -> None:
    made = onnx.load_from_string(to_onnx(model(rounds=8).model_to_string()))
    assert read_ensemble(made.SerializeToString()).classes == 3
    change(made.graph.node[0])
    with pytest.raises(ArtifactError, match="not the trees of an ONNX file"):
        read_ensemble(made.SerializeToString())


def test_another_link_or_axis_is_refused() -> None:
    for kind, axis in (("Sigmoid", None), ("Softmax", 0)):
        made = onnx.load_from_string(to_onnx(model(rounds=8).model_to_string()))
        made.graph.node[1].op_type = kind
        if axis is not None:
            made.graph.node[1].attribute.append(onnx.helper.make_attribute("axis", axis))
        with pytest.raises(ArtifactError, match="not the trees of an ONNX file"):
            read_ensemble(made.SerializeToString())
