"""Runs a linear model from its coefficients in JSON, with numpy alone."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from holdfast.errors import ArtifactError

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

FILE = "model.json"


class Number(msgspec.Struct, frozen=True, kw_only=True, tag="number", forbid_unknown_fields=True):
    """A number's share in the score: ``weight * clip((x - mean) / scale, -limit, limit)``, or `missing` for NaN."""

    mean: float
    scale: float
    limit: float
    weight: float
    missing: float


class Category(msgspec.Struct, frozen=True, kw_only=True, tag="category", forbid_unknown_fields=True):
    """A category's share in the score: ``weights[code]``, the last one for NaN."""

    weights: tuple[float, ...]


class Coefficients(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A linear model. The score is the intercept plus one share per column; `link` makes the output of it."""

    intercept: float
    link: Literal["logistic", "identity"]
    columns: tuple[Number | Category, ...]


class Scores(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A linear model of several classes: a score each, and the softmax of these as the output."""

    link: Literal["softmax"]
    scores: tuple[Coefficients, ...]


class LinearRuntime:
    """Sums the shares in float64. Safe to call from several threads."""

    def __init__(self, coefficients: Coefficients) -> None:
        self._link = coefficients.link
        self._intercept = coefficients.intercept
        columns = list(enumerate(coefficients.columns))
        numbers = [(j, c) for j, c in columns if isinstance(c, Number)]
        self._places = np.array([j for j, _ in numbers], dtype=np.int64)
        self._mean, self._scale, self._limit, self._weight, self._missing = (
            np.array([getattr(c, field) for _, c in numbers], dtype=np.float64)
            for field in ("mean", "scale", "limit", "weight", "missing")
        )
        self._tables = [(j, np.array(c.weights, dtype=np.float64)) for j, c in columns if isinstance(c, Category)]

    @classmethod
    def load(cls, directory: Path) -> "LinearRuntime | ScoresRuntime":
        """Load ``model.json``. Raises ArtifactError when it does not hold coefficients."""
        path = directory / FILE
        try:
            data = path.read_bytes()
            if "scores" in msgspec.json.decode(data, type=dict[str, msgspec.Raw]):
                return ScoresRuntime(msgspec.json.decode(data, type=Scores))
            return cls(msgspec.json.decode(data, type=Coefficients))
        except (msgspec.MsgspecError, OSError) as error:
            raise ArtifactError(f"{path}: not the coefficients of a linear model: {error}") from error

    def run(self, x: FloatArray) -> FloatArray:
        """Outputs for a matrix (n, columns) of float32: shape (n,), float64."""
        numbers = x[:, self._places].astype(np.float64)
        missing = np.isnan(numbers)
        z = np.clip((np.where(missing, self._mean, numbers) - self._mean) / self._scale, -self._limit, self._limit)
        score = self._intercept + z @ self._weight + missing @ self._missing
        for j, weights in self._tables:
            codes = np.where(np.isnan(x[:, j]), len(weights) - 1, x[:, j]).astype(np.int64)
            score += weights[codes]
        # tanh keeps the logistic function from overflowing for large scores.
        return 0.5 * (1 + np.tanh(score / 2)) if self._link == "logistic" else score


class ScoresRuntime:
    """One sum per class, then their softmax. Safe to call from several threads."""

    def __init__(self, scores: Scores) -> None:
        self._each = [LinearRuntime(score) for score in scores.scores]

    @classmethod
    def load(cls, directory: Path) -> "LinearRuntime | ScoresRuntime":
        """Load ``model.json``."""
        return LinearRuntime.load(directory)

    def run(self, x: FloatArray) -> FloatArray:
        """Outputs for a matrix (n, columns) of float32: shape (n, classes), float64."""
        scores = np.column_stack([each.run(x) for each in self._each])
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: FloatArray = powers / powers.sum(axis=1, keepdims=True)
        return shares
