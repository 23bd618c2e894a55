"""The reader of trees in ONNX files: what our trainers write, whole; nothing else, whatever the bytes."""

import math
from collections.abc import Iterator
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


def text(*, rounds: int, leaves: int, **params: Any) -> str:
    x = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32)
    options = {"objective": "binary", "num_leaves": leaves, "min_data_in_leaf": 2, "verbosity": -1, "num_threads": 1}
    return lgb.train(options | params, lgb.Dataset(x, x.sum(axis=1) > 1), num_boost_round=rounds).model_to_string()


def test_every_number_is_read_as_onnx_reads_it() -> None:
    data = to_onnx(text(rounds=20, leaves=31))
    given = {
        one.name: onnx.helper.get_attribute_value(one) for one in onnx.load_from_string(data).graph.node[0].attribute
    }
    read = read_ensemble(data)
    inner = read.true >= 0
    assert (read.columns, read.logistic, len(read.roots)) == (5, True, 20)
    assert [mode == b"BRANCH_LEQ" for mode in given["nodes_modes"]] == inner.tolist()
    np.testing.assert_array_equal(read.feature, given["nodes_featureids"])
    np.testing.assert_array_equal(read.threshold, np.array(given["nodes_values"], dtype=np.float32))
    np.testing.assert_array_equal(read.missing_true, np.array(given["nodes_missing_value_tracks_true"]) == 1)
    ids, trees = np.array(given["nodes_nodeids"]), np.array(given["nodes_treeids"])
    for child, name in ((read.true, "nodes_truenodeids"), (read.false, "nodes_falsenodeids")):
        np.testing.assert_array_equal(ids[child[inner]], np.array(given[name])[inner])
        np.testing.assert_array_equal(trees[child[inner]], trees[inner])
    np.testing.assert_array_equal(read.value[~inner], given["target_weights"])


def minus_zero(graph: Any) -> None:
    attribute(graph, "nodes_values").floats[0] = -0.0


def test_minus_zero_is_the_threshold_that_zero_is(tmp_path: Path) -> None:
    data = edited(minus_zero)
    (tmp_path / "model.onnx").write_bytes(data)
    x = np.random.default_rng(2).choice(np.array([-1, -0.0, 0, 1e-45, 1], dtype=np.float32), size=(200, 5))
    walking = OnnxRuntime.load(tmp_path).run(x)
    np.testing.assert_allclose(TreesRuntime(read_ensemble(data)).run(x), walking, atol=1e-6)


def edited(change: Any) -> bytes:
    """A model's bytes, after its graph was changed."""
    model = onnx.load_from_string(to_onnx(text(rounds=3, leaves=5)))
    change(model.graph)
    data: bytes = model.SerializeToString()
    return data


def attribute(graph: Any, name: str) -> Any:
    return next(one for one in graph.node[0].attribute if one.name == name)


def other_kind(graph: Any) -> None:
    graph.node[1].op_type = "Tanh"


def other_output(graph: Any) -> None:
    graph.output[0].name = "sum"


def averaged(graph: Any) -> None:
    attribute(graph, "aggregate_function").s = b"AVERAGE"


def other_mode(graph: Any) -> None:
    attribute(graph, "nodes_modes").strings[0] = b"BRANCH_LT"


def with_base(graph: Any) -> None:
    graph.node[0].attribute.append(onnx.helper.make_attribute("base_values", [1.0]))


def circle(graph: Any) -> None:
    attribute(graph, "nodes_truenodeids").ints[0] = 0


def two_parents(graph: Any) -> None:
    attribute(graph, "nodes_truenodeids").ints[0] = attribute(graph, "nodes_falsenodeids").ints[0]


def no_such_node(graph: Any) -> None:
    attribute(graph, "nodes_truenodeids").ints[0] = 99


def no_such_column(graph: Any) -> None:
    attribute(graph, "nodes_featureids").ints[0] = 5


def below_zero(graph: Any) -> None:
    attribute(graph, "nodes_nodeids").ints[0] = -1


def short_list(graph: Any) -> None:
    attribute(graph, "nodes_values").floats.pop()


def two_outputs(graph: Any) -> None:
    attribute(graph, "target_ids").ints[0] = 1


def infinite_leaf(graph: Any) -> None:
    attribute(graph, "target_weights").floats[0] = math.inf


REFUSED = (
    *(other_kind, other_output, averaged, other_mode, with_base, circle, two_parents, no_such_node, no_such_column),
    *(below_zero, short_list, two_outputs, infinite_leaf),
)


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_a_graph_that_is_not_just_trees_is_refused(change: Any) -> None:
    read_ensemble(edited(lambda graph: None))
    with pytest.raises(ArtifactError, match="not the trees of an ONNX file"):
        read_ensemble(edited(change))


def damaged() -> Iterator[bytes]:
    """A small model with a byte changed, or cut, here and there."""
    whole = to_onnx(text(rounds=2, leaves=3))
    rng = np.random.default_rng(5)
    for place in rng.integers(0, len(whole), 1500):
        yield whole[:place]
        yield whole[:place] + bytes([int(rng.integers(256))]) + whole[place + 1 :]


@pytest.mark.slow
def test_damage_is_refused_or_read_as_it_stands() -> None:
    outcomes = set()
    for data in damaged():
        try:
            runtime = TreesRuntime(read_ensemble(data))
        except ArtifactError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            columns = runtime.columns
            if columns < 1000:
                assert np.isfinite(runtime.run(np.zeros((2, columns), dtype=np.float32))).all()
    assert outcomes == {"refused", "read"}
