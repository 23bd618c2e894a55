"""Gradient-boosted trees by LightGBM, exported to ONNX branch by branch.

Ke et al. 2017, LightGBM: a highly efficient gradient boosting decision tree.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import lightgbm as lgb
import msgspec
import numpy as np
from onnx import TensorProto, helper

from holdfast.core.protocols import Task
from holdfast.core.targets import labels_of, lists_of
from holdfast.errors import HoldfastError, ParityFailed

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

THREADS = 1
"""Cores that one fit may use; the model does not depend on it. OpenMP's threads wait by spinning: with two of them
beside two busy processes on two cores a fit took eight times as long as with one, and took that time from serving."""

BINS = 63
"""Bins per column. Against LightGBM's 255 the losses on flights differ in the fourth digit, and fits are faster."""

OBJECTIVES = {
    "brier": ("binary", "binary_logloss"),
    "log_loss": ("binary", "binary_logloss"),
    "absolute_error": ("regression_l1", "l1"),
    "squared_error": ("regression", "l2"),
    "ndcg_loss": ("lambdarank", "ndcg"),
}
"""What is fitted and watched for a task whose default loss is the key."""
OF_CLASSES = ("multiclass", "multi_logloss")
"""The same for a task of classes."""


PLACES = 10
"""First places of a list that early stopping looks at."""
TRUNCATED = 30
"""Pairs of rows are fitted of which one stands in the first so many places."""
MOST_GRADES = 10_000
"""Distinct values of relevance that are told apart; with more, each counts as the next lower of so many quantiles."""
LONGEST = 10_000
"""Rows of a list; LightGBM takes no longer one."""


Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class LightGBM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Boosted trees. Fast, strong on tables, takes missing values as they are."""

    trees: Count = 200
    """Most boosting rounds, one tree each."""
    leaves: Annotated[int, msgspec.Meta(ge=2)] = 31
    """Most leaves of a tree, at least 2."""
    learning_rate: Share = 0.1
    """Share of each tree that is added, in (0, 1]."""
    min_rows_per_leaf: Count | None = None
    """Fewest rows in a leaf; when not given, 0.3 % of the rows, at least 20, as small leaves learn single days."""
    feature_fraction: Share = 0.5
    """Share of columns drawn for each tree, in (0, 1]."""
    bagging_fraction: Share = 1.0
    """Share of rows drawn for each tree, in (0, 1]; below 1 they are drawn anew for every tree."""
    l2: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """Penalty on the squares of the leaf values, at least 0."""
    early_stopping: Annotated[int, msgspec.Meta(ge=0)] = 10
    """Rounds without a better validation loss after which it stops; 0 never stops early."""

    def fit(
        self,
        x: FloatArray,
        y: FloatArray,
        *,
        valid: tuple[FloatArray, FloatArray] | None,
        task: Task,
        categories: Sequence[int],
        seed: int,
        weights: FloatArray | None = None,
    ) -> "Boosted":
        """Fit on a float32 matrix (n, columns) with NaN for missing, each row counting as much as its weight (n,).

        Lists, targets (n, 2), are fitted by LambdaRank (Burges 2010) with relevance, which is at least 0, as gain.

        `categories` is not needed: codes are ordered by mean label and are split as numbers. Fewest rows in a leaf
        are counted, not weighed. Raises HoldfastError for a task whose loss it cannot fit.
        """
        if task.losses[0] not in OBJECTIVES:
            raise HoldfastError(
                f"trainer lightgbm cannot fit the loss '{task.losses[0]}' of task '{task.name}'; "
                f"it fits {', '.join(OBJECTIVES)}"
            )
        objective, metric = OF_CLASSES if task.classes else OBJECTIVES[task.losses[0]]
        least = self.min_rows_per_leaf or max(20, round(0.003 * len(y)))
        options = self._options(objective, metric, seed) | {"min_data_in_leaf": least}
        options |= {"num_class": len(task.classes)} if task.classes else {}
        grades = _grades([y] if valid is None else [y, valid[1]]) if y.ndim > 1 else None
        options |= {} if grades is None else _listwise(grades)
        train = lgb.Dataset(**_rows(x, y, weights, grades), params=options)
        watched = [train]
        if valid is not None:
            watched.append(lgb.Dataset(**_rows(*valid, None, grades), reference=train, params=options))
        losses: dict[str, dict[str, list[float]]] = {}
        callbacks = [lgb.record_evaluation(losses)]
        if valid is not None and self.early_stopping:
            callbacks.append(lgb.early_stopping(self.early_stopping, verbose=False))
        booster = lgb.train(
            options,
            train,
            num_boost_round=self.trees,
            valid_sets=watched,
            valid_names=["train", "valid"][: len(watched)],
            callbacks=callbacks,
        )
        rounds = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
        curves = {name: _curve(values, metric) for name, values in losses.items()}
        params = msgspec.structs.asdict(self) | {
            "trees": rounds,
            "min_rows_per_leaf": least,
            "early_stopping": 0,
        }
        return Boosted(booster, rounds, params, curves)

    def _options(self, objective: str, metric: str, seed: int) -> dict[str, Any]:
        return {
            "objective": objective,
            "metric": metric,
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1 if self.bagging_fraction < 1 else 0,
            "lambda_l2": self.l2,
            "seed": seed,
            "max_bin": BINS,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": THREADS,
            "verbosity": -1,
        }


def _grades(targets: Sequence[FloatArray]) -> FloatArray:
    """The values of relevance that targets (n, 2) have, 0 first, rising: at least two, at most `MOST_GRADES`.

    Raises HoldfastError for lists and relevance that cannot be fitted.
    """
    longest = max(int(np.unique(y[:, 1], return_counts=True)[1].max(initial=0)) for y in targets)
    if longest > LONGEST:
        raise HoldfastError(
            f"trainer lightgbm fits lists of {LONGEST:,} rows at most, and one has {longest:,}: let data.unit name a "
            "column whose values stand for one list each"
        )
    values = np.unique(np.concatenate([[0.0], *(labels_of(y) for y in targets)]))
    if values[0] < 0 or not np.isfinite(values[-1]):
        raise HoldfastError(
            f"trainer lightgbm orders lists by relevance of at least 0, and the label is "
            f"{values[0] if values[0] < 0 else values[-1]:g} in one row or more; mend it in its feed"
        )
    if len(values) > MOST_GRADES:
        values = values[np.linspace(0, len(values) - 1, MOST_GRADES).round().astype(np.int64)]
    return values if len(values) > 1 else np.array([0.0, 1.0])


def _listwise(grades: FloatArray) -> dict[str, Any]:
    """Options of lists whose rows have these values of relevance."""
    # NDCG knows no unit. A power of two keeps every digit, and what is summed up within what a number can hold.
    gains = np.ldexp(grades, -int(np.frexp(grades[-1])[1]))
    return {"label_gain": gains.tolist(), "eval_at": [PLACES], "lambdarank_truncation_level": TRUNCATED}


def _rows(x: FloatArray, y: FloatArray, weights: FloatArray | None, grades: FloatArray | None) -> dict[str, Any]:
    """Matrix, label and weights as LightGBM takes them; of lists one after the other, with their sizes and the places
    of their relevance among the grades."""
    lists = lists_of(y)
    if lists is None or grades is None:
        return {"data": x, "label": y, "weight": weights}
    order = np.argsort(lists, kind="stable")
    _, sizes = np.unique(lists, return_counts=True)
    weight = None if weights is None else weights[order]
    label = np.searchsorted(grades, labels_of(y)[order], side="right") - 1
    return {"data": x[order], "label": label, "weight": weight, "group": sizes}


def _curve(values: Mapping[str, Sequence[float]], metric: str) -> list[float]:
    """Loss per round: of NDCG, which is better higher, what is missing to 1."""
    if metric == "ndcg":
        return [1 - float(value) for value in values[f"ndcg@{PLACES}"]]
    return [float(loss) for loss in values[metric]]


class Boosted:
    """Fitted trees. `params` fit the same number of trees again without validation rows."""

    def __init__(
        self, booster: lgb.Booster, rounds: int, params: Mapping[str, Any], curves: Mapping[str, list[float]]
    ) -> None:
        self._booster = booster
        self._rounds = rounds
        self.params = params
        self.curves = curves

    def predict(self, x: FloatArray) -> FloatArray:
        """Outputs (n,) for a float32 matrix: a probability or a value; or (n, classes), probabilities."""
        return np.asarray(self._booster.predict(x, num_iteration=self._rounds, num_threads=THREADS))

    def export(self, directory: Path) -> str:
        """Write ``model.onnx``. Raises ParityFailed for trees that ONNX cannot express."""
        (directory / "model.onnx").write_bytes(to_onnx(self._text()))
        return "onnx"

    def export_native(self, directory: Path) -> str:
        """Write ``model.txt``, LightGBM's own text, without the settings of the machine that made it."""
        (directory / "model.txt").write_text(self._text(), encoding="utf-8")
        return "lightgbm"

    def _text(self) -> str:
        """The model as text, up to the last round that is used; how it was fitted stands in the run."""
        text: str = self._booster.model_to_string(num_iteration=self._rounds)
        return re.sub(r"\nparameters:\n.*?\nend of parameters\n", "\n", text, flags=re.DOTALL)


class _Trees(NamedTuple):
    """Nodes of all trees in the form of ai.onnx.ml, one entry per node."""

    tree: list[int]
    node: list[int]
    feature: list[int]
    mode: list[str]
    threshold: list[float]
    true_child: list[int]
    false_child: list[int]
    missing_true: list[int]
    leaf_tree: list[int]
    leaf_node: list[int]
    leaf_value: list[float]


def to_onnx(text: str) -> bytes:
    """LightGBM's model text as an ONNX model: input ``x`` float32 (n, columns), output ``y`` float32 (n, 1), or
    (n, classes).

    Raises ParityFailed for what has no equal in ONNX: categorical splits, linear leaves, averaged trees.
    """
    header, *blocks = re.split(r"\nTree=\d+\n", text.split("\nend of trees", 1)[0])
    facts = _fields(header)
    if "average_output" in header.split("\n"):
        raise ParityFailed("averaged trees (boosting rf) are not converted to ONNX")
    objective, *options = facts["objective"].split()
    scale = float(dict(option.split(":") for option in options).get("sigmoid", "1")) if objective == "binary" else None
    classes = int(facts["num_class"]) if objective == "multiclass" else 1
    if objective not in ("binary", "multiclass", "regression", "regression_l1", "lambdarank") or "sqrt" in options:
        raise ParityFailed(f"objective '{facts['objective']}' is not converted to ONNX")
    trees = _Trees(*([] for _ in _Trees._fields))
    for number, block in enumerate(blocks):
        _add_tree(trees, number, _fields(block))
    return _model(trees, columns=int(facts["max_feature_idx"]) + 1, sigmoid=scale, classes=classes)


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.split("\n") if "=" in line)


def _add_tree(trees: _Trees, number: int, fields: dict[str, str]) -> None:
    """Inner nodes keep their index, leaf i becomes node `inner + i`."""
    if fields.get("is_linear", "0") != "0":
        raise ParityFailed("trees with linear leaves are not converted to ONNX")
    leaves = np.array(fields["leaf_value"].split(), dtype=np.float64)
    inner = len(leaves) - 1
    if inner:
        thresholds = np.array(fields["threshold"].split(), dtype=np.float64)
        decisions = np.array(fields["decision_type"].split(), dtype=np.int64)
        trees.feature.extend(int(feature) for feature in fields["split_feature"].split())
        trees.threshold.extend(float32_below(thresholds).tolist())
        trees.missing_true.extend(_missing_left(thresholds, decisions).tolist())
        for children, name in ((trees.true_child, "left_child"), (trees.false_child, "right_child")):
            # LightGBM writes leaf i as the bitwise complement of i.
            children.extend(c if c >= 0 else inner + ~c for c in map(int, fields[name].split()))
    nodes = inner + len(leaves)
    trees.tree.extend([number] * nodes)
    trees.node.extend(range(nodes))
    trees.mode.extend(["BRANCH_LEQ"] * inner + ["LEAF"] * len(leaves))
    for column in (trees.feature, trees.true_child, trees.false_child, trees.missing_true):
        column.extend([0] * len(leaves))
    trees.threshold.extend([0.0] * len(leaves))
    trees.leaf_tree.extend([number] * len(leaves))
    trees.leaf_node.extend(range(inner, nodes))
    trees.leaf_value.extend(leaves.tolist())


def float32_below(thresholds: FloatArray) -> FloatArray:
    """The largest float32 that is not above each threshold: x <= it exactly where x <= threshold, for float32 x."""
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)


CATEGORICAL, DEFAULT_LEFT, MISSING_ZERO, MISSING_NAN = 1, 2, 4, 8
"""Bits of LightGBM's ``decision_type`` (include/LightGBM/tree.h). No missing bit: NaN counts as 0."""


def _missing_left(thresholds: FloatArray, decisions: "np.ndarray[Any, np.dtype[np.int64]]") -> Any:
    """Whether NaN goes left at each node, as 0 or 1. Raises ParityFailed where a node cannot be said in ONNX."""
    if (decisions & CATEGORICAL).any():
        raise ParityFailed("splits on sets of categories are not converted to ONNX")
    default_left = (decisions & DEFAULT_LEFT) > 0
    zero_left = thresholds >= 0
    if (((decisions & MISSING_ZERO) > 0) & (default_left != zero_left)).any():
        raise ParityFailed("a split that sends zero as missing against its threshold is not converted to ONNX")
    return np.where((decisions & MISSING_NAN) > 0, default_left, zero_left).astype(np.int64)


def _model(trees: _Trees, *, columns: int, sigmoid: float | None, classes: int = 1) -> bytes:
    """The ONNX file. Nothing random, dated or named after a machine goes into it.

    Of several classes each has a sum of its own: every round adds one tree to each, in the order of the classes.
    """
    link = "Softmax" if classes > 1 else None if sigmoid is None else "Sigmoid"
    nodes = [
        helper.make_node(
            "TreeEnsembleRegressor",
            ["x"],
            ["y" if link is None else "sum"],
            domain="ai.onnx.ml",
            n_targets=classes,
            aggregate_function="SUM",
            post_transform="NONE",
            nodes_treeids=trees.tree,
            nodes_nodeids=trees.node,
            nodes_featureids=trees.feature,
            nodes_modes=trees.mode,
            nodes_values=trees.threshold,
            nodes_truenodeids=trees.true_child,
            nodes_falsenodeids=trees.false_child,
            nodes_missing_value_tracks_true=trees.missing_true,
            target_treeids=trees.leaf_tree,
            target_nodeids=trees.leaf_node,
            target_ids=[tree % classes for tree in trees.leaf_tree],
            target_weights=[value * (sigmoid or 1.0) for value in trees.leaf_value],
        )
    ]
    if link is not None:
        nodes.append(helper.make_node(link, ["sum"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, classes])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="holdfast")
    data: bytes = model.SerializeToString(deterministic=True)
    return data
