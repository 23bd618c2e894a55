"""Logistic and ridge regression on one-hot categories and standardised numbers, by scikit-learn."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from scipy import sparse
from scipy.special import logsumexp, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from holdfast.core.protocols import Task
from holdfast.core.targets import labels_of
from holdfast.errors import HoldfastError

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

LINKS = {
    "brier": "logistic",
    "log_loss": "logistic",
    "absolute_error": "identity",
    "squared_error": "identity",
    "ndcg_loss": "identity",
}
"""How the score becomes the output, for a task whose default loss is the key."""
SCORE_LIMIT = 8.0
"""Standardised numbers are cut to this many standard deviations, so that one wild value cannot rule the answer."""


class Linear(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A linear score: logistic regression for a probability, ridge regression for a value; for several classes a score
    each, multinomial logistic regression. Lists are ordered by what ridge regression says of each row's relevance.

    It is the plain model that every candidate must beat, and a good first model of one's own.
    """

    l2: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Penalty on the squares of the weights, greater than 0."""
    rounds: Annotated[int, msgspec.Meta(ge=1)] = 60
    """Most iterations of the solver (L-BFGS) of logistic regression."""
    max_rows: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    """It is fitted on at most this many rows: the last ones of the matrix, which are the newest."""

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
    ) -> "Fit":
        """Fit on a float32 matrix (n, columns) with NaN for missing; `valid` and `seed` are not needed.

        Each row's error counts as much as its weight (n,); the scaling of numbers is that of the rows alike.

        A missing number counts as the mean and has a weight of its own; a missing or unseen category too. Raises
        HoldfastError for a task whose loss it cannot fit.
        """
        if task.losses[0] not in LINKS:
            raise HoldfastError(
                f"trainer linear cannot fit the loss '{task.losses[0]}' of task '{task.name}'; "
                f"it fits {', '.join(LINKS)}"
            )
        link = LINKS[task.losses[0]]
        x, y = x[-self.max_rows :], labels_of(y)[-self.max_rows :]
        counts = None if weights is None else weights[-self.max_rows :]
        design = _Design.of(x, categories)
        if task.classes:
            slopes, starts = self._solve_classes(design.rows(x), y, len(task.classes), counts)
            each = [design.coefficients(w, float(b), "identity") for w, b in zip(slopes, starts, strict=True)]
            return Fit({"link": "softmax", "scores": each}, msgspec.structs.asdict(self))
        coefficients, intercept = self._solve(design.rows(x), y, link, counts)
        return Fit(design.coefficients(coefficients, intercept, link), msgspec.structs.asdict(self))

    def _solve(
        self, rows: sparse.csr_matrix, y: FloatArray, link: str, counts: FloatArray | None
    ) -> tuple[FloatArray, float]:
        if link == "identity":
            ridge = Ridge(alpha=self.l2, solver="lsqr", tol=1e-6).fit(rows, y, sample_weight=counts)
            return np.asarray(ridge.coef_, dtype=np.float64).ravel(), float(ridge.intercept_)
        if y.min() == y.max():
            # One class only: the solver refuses, but the best model is known, a constant (with one row of doubt).
            share = (y.sum() + 0.5) / (len(y) + 1)
            return np.zeros(rows.shape[1]), float(np.log(share / (1 - share)))
        model = self._logistic(rows, y, counts)
        return np.asarray(model.coef_, dtype=np.float64).ravel(), float(model.intercept_[0])

    def _logistic(self, rows: sparse.csr_matrix, y: FloatArray, counts: FloatArray | None) -> LogisticRegression:
        model = LogisticRegression(C=1 / self.l2, max_iter=self.rounds, tol=1e-4)
        with warnings.catch_warnings():
            # After `rounds` iterations the loss no longer changes in the fourth digit; going on costs time only.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows, y, sample_weight=counts)
        return model

    def _solve_classes(
        self, rows: sparse.csr_matrix, y: FloatArray, classes: int, counts: FloatArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """Weights (classes, columns) and intercepts (classes,). A class that never occurs gets a constant score: that
        of half a row among all."""
        weights, starts = np.zeros((classes, rows.shape[1])), np.zeros(classes)
        found = np.unique(y).astype(np.int64)
        if len(found) > 1:
            model = self._logistic(rows, y, counts)
            # With two classes the scores are those of the second against the first.
            there = found if len(found) > 2 else found[1:]
            weights[there], starts[there] = model.coef_, model.intercept_
        scores = rows @ weights[found].T + starts[found]
        usual = float(np.mean(logsumexp(scores, axis=1)))
        starts[np.setdiff1d(np.arange(classes), found)] = usual + np.log(0.5 / (len(y) + 0.5))
        return weights, starts


class _Design(msgspec.Struct, frozen=True, kw_only=True):
    """How a matrix becomes the sparse rows that are fitted: where each column's weights stand."""

    categories: tuple[int, ...]
    mean: Any
    scale: Any

    @classmethod
    def of(cls, x: FloatArray, categories: Sequence[int]) -> "_Design":
        present = ~np.isnan(x)
        counts = np.maximum(present.sum(axis=0), 1)
        mean = np.where(present, x, 0).sum(axis=0, dtype=np.float64) / counts
        variance = np.where(present, np.square(x - mean), 0).sum(axis=0) / counts
        return cls(categories=tuple(categories), mean=mean, scale=np.where(variance > 0, np.sqrt(variance), 1.0))

    def rows(self, x: FloatArray) -> sparse.csr_matrix:
        """Two sparse columns per number (value, missing), k + 1 per category of k codes (the last for missing)."""
        parts = []
        for j, size in enumerate(self.categories):
            values = x[:, j]
            missing = np.isnan(values)
            if size:
                codes = np.where(missing, size, values).astype(np.int32)
                ones = np.ones(len(codes), dtype=np.float32)
                starts = np.arange(len(codes) + 1, dtype=np.int32)
                parts.append(sparse.csr_matrix((ones, codes, starts), shape=(len(codes), size + 1)))
            else:
                z = np.clip((values - self.mean[j]) / self.scale[j], -SCORE_LIMIT, SCORE_LIMIT)
                both = np.stack([np.where(missing, 0, z), missing], axis=1).astype(np.float32)
                parts.append(sparse.csr_matrix(both))
        return sparse.hstack(parts, format="csr")

    def coefficients(self, weights: FloatArray, intercept: float, link: str) -> dict[str, Any]:
        """What ``model.json`` holds; see the page of the linear runtime."""
        columns: list[dict[str, Any]] = []
        at = 0
        for j, size in enumerate(self.categories):
            width = size + 1 if size else 2
            mine = [float(weight) for weight in weights[at : at + width]]
            at += width
            if size:
                columns.append({"type": "category", "weights": mine})
            else:
                scaling = {"mean": float(self.mean[j]), "scale": float(self.scale[j]), "limit": SCORE_LIMIT}
                columns.append({"type": "number", **scaling, "weight": mine[0], "missing": mine[1]})
        return {"intercept": intercept, "link": link, "columns": columns}


class Fit:
    """A fitted linear model."""

    curves: Mapping[str, list[float]] = {}

    def __init__(self, coefficients: dict[str, Any], params: Mapping[str, Any]) -> None:
        self._coefficients = coefficients
        self.params = params

    def predict(self, x: FloatArray) -> FloatArray:
        """Outputs (n,) for a float32 matrix: a probability or a value; or (n, classes), probabilities."""
        if "scores" in self._coefficients:
            scores = np.column_stack([_score(each, x) for each in self._coefficients["scores"]])
            return np.asarray(softmax(scores, axis=1), dtype=np.float64)
        score = _score(self._coefficients, x)
        return 0.5 * (1 + np.tanh(score / 2)) if self._coefficients["link"] == "logistic" else score

    def export(self, directory: Path) -> str:
        """Write ``model.onnx``, computed in float64."""
        (directory / "model.onnx").write_bytes(to_onnx(self._coefficients))
        return "onnx"

    def export_native(self, directory: Path) -> str:
        """Write ``model.json``: the coefficients."""
        (directory / "model.json").write_bytes(msgspec.json.encode(self._coefficients))
        return "linear"


def _score(coefficients: dict[str, Any], x: FloatArray) -> FloatArray:
    score = np.full(len(x), coefficients["intercept"], dtype=np.float64)
    for j, column in enumerate(coefficients["columns"]):
        values = x[:, j].astype(np.float64)
        missing = np.isnan(values)
        if column["type"] == "category":
            weights = np.array(column["weights"])
            score += weights[np.where(missing, len(weights) - 1, values).astype(np.int64)]
        else:
            z = np.clip((values - column["mean"]) / column["scale"], -column["limit"], column["limit"])
            score += np.where(missing, column["missing"], z * column["weight"])
    return score


ENDS = {"logistic": "Sigmoid", "identity": "Identity", "softmax": "Softmax"}
"""The last node of a graph, which makes the output of the scores."""


def to_onnx(coefficients: dict[str, Any]) -> bytes:
    """Coefficients as an ONNX model: input ``x`` float32 (n, columns), output ``y`` float64 (n, 1), or (n, classes)."""
    graph = _Graph()
    scores: list[dict[str, Any]] = coefficients.get("scores", [coefficients])
    columns = list(enumerate(scores[0]["columns"]))
    score = graph.constant(np.array([[each["intercept"] for each in scores]], dtype=np.float64))
    numbers = [j for j, column in columns if column["type"] == "number"]
    if numbers:
        score = graph.node("Add", graph.numbers(numbers, scores), score)
    tables = [j for j, column in columns if column["type"] == "category"]
    if tables:
        score = graph.node("Add", graph.categories(tables, scores), score)
    graph.nodes.append(helper.make_node(ENDS[coefficients["link"]], [score], ["y"]))
    return graph.model(len(columns), len(scores))


class _Graph:
    """An ONNX graph in the making; names count up, so the same model gives the same bytes."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def pick(self, places: list[int]) -> tuple[str, str]:
        """Columns of the input as float64, and where they are NaN."""
        picked = self.node("Gather", "x", self.constant(np.array(places, dtype=np.int64)), axis=1)
        return self.node("Cast", picked, to=TensorProto.DOUBLE), self.node("IsNaN", picked)

    def numbers(self, places: list[int], scores: list[dict[str, Any]]) -> str:
        """Sum of the shares of the numbers in each score, (n, scores)."""
        values, missing = self.pick(places)
        mean, scale, limit = (
            np.array([[scores[0]["columns"][j][field] for j in places]], dtype=np.float64)
            for field in ("mean", "scale", "limit")
        )
        weight, absent = (
            np.array([[each["columns"][j][field] for j in places] for each in scores], dtype=np.float64)
            for field in ("weight", "missing")
        )
        means = self.constant(mean)
        z = self.node("Sub", self.node("Where", missing, means, values), means)
        z = self.node("Div", z, self.constant(scale))
        z = self.node("Min", self.node("Max", z, self.constant(-limit)), self.constant(limit))
        shares = self.node("MatMul", z, self.constant(weight.T))
        flags = self.node("Cast", missing, to=TensorProto.DOUBLE)
        return self.node("Add", shares, self.node("MatMul", flags, self.constant(absent.T)))

    def categories(self, places: list[int], scores: list[dict[str, Any]]) -> str:
        """Sum of the shares of the categories in each score, (n, scores): all tables in one, each column offset to its
        own."""
        tables = [[each["columns"][j]["weights"] for j in places] for each in scores]
        sizes = [len(weights) for weights in tables[0]]
        values, missing = self.pick(places)
        last = self.constant(np.array([[size - 1 for size in sizes]], dtype=np.float64))
        codes = self.node("Cast", self.node("Where", missing, last, values), to=TensorProto.INT64)
        offsets = self.constant(np.array([np.cumsum([0, *sizes[:-1]])], dtype=np.int64))
        stacked = [np.concatenate(weights).astype(np.float64) for weights in tables]
        is_single = len(stacked) == 1
        weights = self.constant(stacked[0] if is_single else np.column_stack(stacked))
        shares = self.node("Gather", weights, self.node("Add", codes, offsets), axis=0)
        return self.node("ReduceSum", shares, self.constant(np.array([1], dtype=np.int64)), keepdims=int(is_single))

    def model(self, columns: int, scores: int) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns])],
            [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, scores])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="holdfast")
        data: bytes = model.SerializeToString(deterministic=True)
        return data
