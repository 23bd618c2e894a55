"""How many values lie outside what training saw, told from counts where these tell it exactly."""

import math

import numpy as np

from holdfast.core.signature import Column
from holdfast.stats.histogram import Edges, FloatArray, IntArray


def strays(column: Column, edges: Edges, counted: IntArray) -> int | None:
    """Values of a column outside its range or categories, from its counts on edges (cells + 3,).

    None where they do not tell it: a cell that is not empty lies on a bound, values fell into no cell of categories
    that training saw more of, or nothing is present, so that its type is not known. Of edges with a cell for each
    number, the last cell stands for the largest one, though the float after it counts there too.

    >>> edges = Edges(cuts=(0.0, 1.0, 2.0))
    >>> strays(Column(name="x", type="number", low=0.0, high=2.0), edges, np.array([3, 5, 5, 0, 0]))
    3
    """
    present = counted[:-1]
    if not present.any():
        return None if counted[-1] else 0
    if edges.is_category != (column.type == "category") or not (edges.cuts or edges.categories):
        return None
    return _unseen(column, edges, present) if edges.is_category else _beyond(column, edges, present)


def _unseen(column: Column, edges: Edges, present: IntArray) -> int | None:
    if not column.categories:
        return 0
    known, cells = set(column.categories), edges.categories
    if present[-1] and not known.issubset(cells):
        return None
    is_stray = np.array([False, *(name not in known for name in cells), True], dtype=np.bool_)
    return int(present[is_stray].sum())


def _beyond(column: Column, edges: Edges, present: IntArray) -> int | None:
    low = -math.inf if column.low is None else column.low
    high = math.inf if column.high is None else column.high
    least, most = _ends(edges)
    is_stray = (most < low) | (least > high)
    is_within = (least >= low) & (most <= high)
    return None if present[~(is_stray | is_within)].any() else int(present[is_stray].sum())


def _ends(edges: Edges) -> tuple[FloatArray, FloatArray]:
    """The least and the most that below, each inner cell and above can hold, (cells + 2,) each."""
    cuts = np.asarray(edges.cuts, dtype=np.float64)
    least = np.concatenate([[-math.inf], cuts[:-1], [np.nextafter(cuts[-1], math.inf)]])
    most = np.concatenate([np.nextafter(cuts[:-1], -math.inf), [cuts[-1], math.inf]])
    if edges.is_discrete and math.isfinite(least[-1]):
        most[-2] = cuts[-2]
    return least, most
