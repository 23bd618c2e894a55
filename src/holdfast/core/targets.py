"""Targets: what answers are scored against. Labels (n,); of a task that orders rows within lists (n, 2), the label and
the number of the row's list."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.errors import DataError

if TYPE_CHECKING:
    from holdfast.core.protocols import Task

FloatArray = npt.NDArray[np.float64]
F = TypeVar("F", bound=np.floating[Any])

LIST = "list"
"""The column that names the list of each row, in frames of a task that orders rows within lists and in no others."""


def with_lists(task: "Task", rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with their lists, where the task is about some: those of one unit; without a unit, or with an empty one,
    those of one request; without either each row is a list of its own.

    A row without a unit shares no list with a unit that is called as its request or key is: what stands in is marked.
    """
    if not task.is_listwise:
        return rows
    text = {name: pl.col(name).cast(pl.String) for name in ("unit", "request_id", "key") if name in rows.columns}
    named: list[pl.Expr] = [pl.when(text["unit"] != "").then(text.pop("unit"))] if "unit" in text else []
    # Marked by which of both it is, too: the key of one row may be the request of another.
    named += [pl.lit(f"\0{name} ") + each for name, each in text.items()]
    return rows.with_columns(pl.coalesce(named).alias(LIST))


def target_of(task: "Task", rows: pl.DataFrame, label: str = "label") -> FloatArray:
    """The targets of rows, float64. Raises DataError for a label that the task cannot take."""
    return listed(np.asarray(task.target(rows[label]), dtype=np.float64), rows)


def taken(task: "Task", labels: pl.Series) -> pl.Series:
    """Labels without those that the task cannot take: a feed may bring any, and one of them must not stop the others.

    Missing instead. A label over HTTP is refused before it is recorded.
    """
    try:
        task.target(labels)
    except DataError:
        seen = labels.unique().drop_nulls()
        bad = [value for value in seen.to_list() if task.refuses_label(value)]
        return labels.set(labels.is_in(bad), None)
    return labels


def mean_loss(losses: npt.NDArray[Any]) -> float:
    """The mean of losses (n,) that say something, those that are not NaN; NaN where there is none."""
    known = losses[~np.isnan(losses)]
    return float(known.mean()) if known.size else float("nan")


def listed(labels: FloatArray, rows: pl.DataFrame) -> FloatArray:
    """Labels (n,) as targets: with the number of each row's list, from 1, where the rows have lists."""
    if LIST not in rows.columns:
        return labels
    numbers = rows[LIST].rank("dense").cast(pl.Float64).to_numpy()
    return np.column_stack([labels, numbers])


def labels_of(y: npt.NDArray[F]) -> npt.NDArray[F]:
    """The labels (n,) of targets."""
    return y if y.ndim == 1 else y[:, 0]


def lists_of(y: npt.NDArray[F]) -> npt.NDArray[F] | None:
    """The lists (n,) of targets, None where there are none."""
    return None if y.ndim == 1 else y[:, 1]


def end_to_end(parts: Sequence[FloatArray]) -> FloatArray:
    """Targets of several blocks, one after the other; lists of different blocks stay different lists, also of a block
    that comes twice.

    >>> end_to_end([np.array([[1.0, 1.0], [0.0, 2.0]]), np.array([[1.0, 1.0]])])[:, 1].tolist()
    [1.0, 2.0, 3.0]
    """
    if not parts or parts[0].ndim == 1:
        return np.concatenate(parts)
    lists = [int(part[:, 1].max(initial=0.0)) for part in parts]
    moved = np.repeat(np.cumsum(lists) - lists, [len(part) for part in parts])
    joined = np.concatenate(parts)
    joined[:, 1] += moved
    return joined
