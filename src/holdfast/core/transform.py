"""The one feature transform of training and serving: rows in, a float32 matrix out. It travels in the artifact."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import numpy as np

from holdfast.core import zones
from holdfast.core.signature import Rows, Signature

if TYPE_CHECKING:
    FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

SMOOTHING_ROWS = 100
"""A category's mean label is pulled to the overall mean as if by this many rows, so rare ones stay near it."""


class Encoding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column of the matrix. A category's code is its place in `categories`; None for numbers.

    A time is several columns of the matrix, one after the other: each a `part` of what a clock in `timezone` shows.
    """

    name: str
    categories: tuple[str, ...] | None = None
    part: zones.Part | None = None
    timezone: str | None = None


class Transform(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Columns of the matrix in order. Unseen categories and missing values are NaN.

    Raises ValueError for a time zone that this machine does not know.
    """

    columns: tuple[Encoding, ...]

    def __post_init__(self) -> None:
        """Makes the table of each time zone, so that no request waits for it."""
        for column in self.columns:
            if column.part is not None:
                if column.timezone is None:
                    raise ValueError(f"the {column.part} of '{column.name}' has no time zone")
                zones.zone_of(column.timezone)

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
        for j, name, code_of in self._plain:
            if code_of is None:
                matrix[:, j] = numbers[:, place[name]]
            else:
                matrix[:, j] = np.fromiter(map(code_of, rows.texts[name]), dtype=np.float32, count=rows.count)
        for name, timezone, parts in self._times:
            clock = zones.wall_clock(timezone, rows.numbers[:, place[name]])
            for j, part in parts:
                matrix[:, j] = zones.part_of(part, clock)
        return matrix

    @cached_property
    def _names(self) -> tuple[str, ...] | None:
        """The columns in order where all of them are numbers."""
        is_plain = all(column.categories is None and column.part is None for column in self.columns)
        return tuple(column.name for column in self.columns) if is_plain else None

    @cached_property
    def _plain(self) -> list[tuple[int, str, Callable[[str | None], float] | None]]:
        """The columns that are no part of a time, with what gives a category's code."""
        return [
            (j, c.name, None if c.categories is None else _Codes((name, i) for i, name in enumerate(c.categories)).of)
            for j, c in enumerate(self.columns)
            if c.part is None
        ]

    @cached_property
    def _times(self) -> list[tuple[str, str, list[tuple[int, zones.Part]]]]:
        """Each time with its zone and the columns of its parts."""
        parts: dict[tuple[str, str], list[tuple[int, zones.Part]]] = {}
        for j, column in enumerate(self.columns):
            if column.part is not None and column.timezone is not None:
                parts.setdefault((column.name, column.timezone), []).append((j, column.part))
        return [(name, timezone, places) for (name, timezone), places in parts.items()]


def fit(signature: Signature, rows: Rows, y: "FloatArray", *, timezone: str = "UTC") -> Transform:
    """The transform for these training rows and their labels (n,); `timezone` says what hour and day a time is.

    The categories that occur are put in the order of their smoothed mean label, equal means by name, so that a tree
    can split them as a number. In the order of the means lies the best of all splits in two (Breiman, Friedman,
    Olshen and Stone 1984, theorem 4.5). Where labels are classes, the order is that along the direction in which the
    smoothed shares of the classes differ most (Coppersmith, Hong and Hosking 1999).
    """
    prior = float(np.mean(y)) if len(y) else 0.0
    columns: list[Encoding] = []
    for column in signature.columns:
        if column.type == "time":
            columns += [Encoding(name=column.name, part=part, timezone=timezone) for part in get_args(zones.Part)]
        elif column.type == "category":
            values = rows.columns[column.name]
            names = _ordered_by_class(values, y, signature) if signature.classes else _ordered(values, y, prior)
            columns.append(Encoding(name=column.name, categories=names))
        else:
            columns.append(Encoding(name=column.name))
    return Transform(columns=tuple(columns))


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


def _ordered_by_class(values: list[str | None], y: "FloatArray", signature: Signature) -> tuple[str, ...]:
    names = sorted({value for value in values if value is not None})
    place = {name: i for i, name in enumerate(names)}
    pairs = [
        (place[value], int(c)) for value, c in zip(values, y.tolist(), strict=True) if value is not None and c >= 0
    ]
    counts = np.zeros((len(names), len(signature.classes)))
    if not pairs:
        return tuple(names)
    np.add.at(counts, tuple(np.array(pairs).T), 1.0)
    rows, prior = counts.sum(axis=1, keepdims=True), counts.sum(axis=0) / counts.sum()
    apart = (counts + SMOOTHING_ROWS * prior) / (rows + SMOOTHING_ROWS) - prior
    direction = np.linalg.eigh((apart * rows).T @ apart)[1][:, -1]
    # A direction has two signs; which one the solver gives must not decide the order.
    direction *= np.sign(direction[np.argmax(np.abs(direction))]) or 1.0
    return tuple(names[i] for i in np.argsort(apart @ direction, kind="stable"))


class _Codes(dict[str | None, float]):
    """Category to code, NaN for what is not in it."""

    def __missing__(self, key: str | None) -> float:
        return float("nan")

    @property
    def of(self) -> Callable[[str | None], float]:
        """Looks a category up."""
        return self.__getitem__


_LARGEST = float(np.finfo(np.float32).max)
_LEAST = -_LARGEST
