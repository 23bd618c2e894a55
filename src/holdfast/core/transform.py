"""The one feature transform of training and serving: rows in, a float32 matrix out. It travels in the artifact."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from holdfast.core.signature import Rows, Signature

if TYPE_CHECKING:
    FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

SMOOTHING_ROWS = 100
"""A category's mean label is pulled to the overall mean as if by this many rows, so rare ones stay near it."""


class Encoding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column of the matrix. A category's code is its place in `categories`; None for numbers."""

    name: str
    categories: tuple[str, ...] | None = None


class Transform(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Columns of the matrix in order. Unseen categories and missing values are NaN."""

    columns: tuple[Encoding, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many codes each column has; 0 for a number."""
        return tuple(len(column.categories or ()) for column in self.columns)

    def matrix(self, rows: Rows) -> "FloatArray":
        """The rows as float32 of shape (n, columns), C-contiguous. Values beyond float32 become its largest."""
        numbers = np.maximum(np.minimum(rows.numbers, _LARGEST), _LEAST)
        if rows.names == self._names:
            plain: FloatArray = numbers.astype(np.float32)
            return plain
        matrix = np.empty((rows.count, len(self.columns)), dtype=np.float32)
        place = {name: j for j, name in enumerate(rows.names)}
        for j, (name, codes) in enumerate(self._codes):
            if codes is None:
                matrix[:, j] = numbers[:, place[name]]
            else:
                texts = rows.texts[name]
                matrix[:, j] = np.fromiter(map(codes.__getitem__, texts), dtype=np.float32, count=rows.count)
        return matrix

    @cached_property
    def _names(self) -> tuple[str, ...] | None:
        """The columns in order where all of them are numbers."""
        return None if any(c.categories is not None for c in self.columns) else tuple(c.name for c in self.columns)

    @cached_property
    def _codes(self) -> "list[tuple[str, _Codes | None]]":
        return [
            (c.name, None if c.categories is None else _Codes((name, i) for i, name in enumerate(c.categories)))
            for c in self.columns
        ]


def fit(signature: Signature, rows: Rows, y: "FloatArray") -> Transform:
    """The transform for these training rows and their labels (n,).

    The categories that occur are put in the order of their smoothed mean label, equal means by name, so that a tree
    can split them as a number. In the order of the means lies the best of all splits in two (Breiman, Friedman,
    Olshen and Stone 1984, theorem 4.5).
    """
    prior = float(np.mean(y)) if len(y) else 0.0
    return Transform(
        columns=tuple(
            Encoding(name=c.name, categories=_ordered(rows.columns[c.name], y, prior) if c.type == "category" else None)
            for c in signature.columns
        )
    )


def _ordered(values: list[str | None], y: "FloatArray", prior: float) -> tuple[str, ...]:
    names = sorted({value for value in values if value is not None})
    place = _Codes((name, i) for i, name in enumerate(names))
    codes = np.fromiter(map(place.__getitem__, values), dtype=np.float64, count=len(values))
    present = ~np.isnan(codes)
    index = codes[present].astype(np.int64)
    counts = np.bincount(index, minlength=len(names))
    sums = np.bincount(index, weights=y[present], minlength=len(names))
    means = (sums + SMOOTHING_ROWS * prior) / (counts + SMOOTHING_ROWS)
    return tuple(names[i] for i in np.argsort(means, kind="stable"))


class _Codes(dict[str | None, float]):
    """Category to code, NaN for what is not in it."""

    def __missing__(self, key: str | None) -> float:
        return float("nan")


_LARGEST = float(np.finfo(np.float32).max)
_LEAST = -_LARGEST
