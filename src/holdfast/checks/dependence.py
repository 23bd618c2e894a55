"""Dependence: do the inputs still hang together as they did where the model was trained?"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.checks.instants import times_of
from holdfast.checks.sequence import overlap
from holdfast.checks.stated import at_most
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.stats.histogram import Edges
from holdfast.stats.multivariate import LEAST_ROWS, correlation_shift, rank_correlations

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

NAME = "dependence_shift"
CATEGORIES = 4
"""A category takes part by its commonest values, each as yes or no."""
LEAST_DAYS = 10
"""Fewest days of the reference: fewer do not say how much a correlation varies from day to day."""
STATED = 10.0
"""Limit while history is too short to calibrate: what only a pair reaches that came apart."""


class Dependence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the rank correlations of each input with the others moved, within days, from the reference.

    Sees what no column alone shows: shuffled values, rows joined to the wrong key or the wrong hour. Times are left
    out.
    """

    needs: ClassVar[frozenset[Role]] = frozenset({Role.INPUT})
    facts: ClassVar[frozenset[str]] = frozenset({"edges"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "window"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "reference"

    columns: tuple[str, ...] = ()
    """Columns to look at; empty means all inputs but times."""

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        """One reading per column, about its pair that moved most, which the note names. A block of the window that is
        in the baseline is left out of the baseline."""
        times = times_of(window)
        edges: Mapping[str, Edges] = window.facts["edges"]
        wanted = [name for name in self.columns or window.columns(Role.INPUT) if name not in times]
        columns = [name for name in wanted if name in edges]
        inside = set(window.blocks)
        rest = [block for block in baseline.blocks if block not in inside] if baseline else []
        owners = [name for name in columns for _ in _cuts(edges[name])]
        before, now = _correlations(rest, columns, edges), _correlations(window.blocks, columns, edges)
        rows = sum(block.rows().height for block in window.blocks)
        if twice := overlap(window, baseline):
            return [_unknown(name, twice, 0) for name in wanted or [""]]
        if len(columns) < 2:
            return [_unknown(name, "a column alone hangs together with nothing", rows) for name in wanted or [""]]
        if len(before) < LEAST_DAYS:
            why = f"{len(before)} days of reference with {LEAST_ROWS} rows, {LEAST_DAYS} are needed"
            return [_unknown(name, why, rows) for name in wanted]
        if not len(now):
            why = f"no day of the window has {LEAST_ROWS} rows"
            return [_unknown(name, why, rows) for name in wanted]
        moved, was, is_now = correlation_shift(before, now)
        return [_about(name, owners, moved, was, is_now, rows) for name in wanted]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails above a stated limit that only columns reach which came apart; see the check's page."""
        return at_most(reading, STATED)


def _about(name: str, owners: Sequence[str], moved: FloatArray, was: FloatArray, now: FloatArray, rows: int) -> Reading:
    mine = np.array([owner == name for owner in owners], dtype=np.bool_)
    if not mine.any():
        return _unknown(name, "no edges: the reference has not counted this column", rows)
    pairs = np.where(mine[:, None] & ~mine[None, :], moved, np.nan)
    if np.isnan(pairs).all():
        return _unknown(name, "it does not vary, or never together with another column", rows)
    one, other = divmod(int(np.nanargmax(pairs)), pairs.shape[1])
    note = f"rank correlation with {owners[other]} went from {was[one, other]:.2f} to {now[one, other]:.2f}"
    return Reading(name=NAME, value=float(pairs[one, other]), rows=rows, subject=name, note=note)


def _unknown(name: str, why: str, rows: int) -> Reading:
    return Reading(name=NAME, value=None, rows=rows, subject=name, note=why)


def _cuts(edge: Edges) -> tuple[str | None, ...]:
    """What a column takes part as: itself, or a category's commonest values."""
    return edge.categories[:CATEGORIES] if edge.is_category else (None,)


def _correlations(blocks: Sequence[Block], columns: Sequence[str], edges: Mapping[str, Edges]) -> FloatArray:
    """(days, k, k) of the blocks that have enough rows; computed once per block."""
    key = ("rank correlations", tuple((name, edges[name].digest) for name in columns))
    width = sum(len(_cuts(edges[name])) for name in columns)
    found = [
        block.remember(key, lambda rows: rank_correlations(_matrix(rows, columns, edges)))
        for block in blocks
        if block.rows().height >= LEAST_ROWS
    ]
    return np.stack(found) if found else np.empty((0, width, width))


def _matrix(rows: pl.DataFrame, columns: Sequence[str], edges: Mapping[str, Edges]) -> FloatArray:
    """(n, k) of the numbers and of a category's commonest values as 0 and 1; what is absent or no number is NaN."""
    parts = []
    for name in columns:
        for value in _cuts(edges[name]):
            if name not in rows.columns:
                parts.append(np.full(rows.height, np.nan))
            elif value is not None:
                parts.append((rows[name].cast(pl.String) == value).cast(pl.Float64).to_numpy())
            elif rows[name].dtype.is_numeric() or rows[name].dtype == pl.Boolean:
                parts.append(rows[name].cast(pl.Float64).to_numpy())
            else:
                parts.append(np.full(rows.height, np.nan))
    return np.column_stack(parts) if parts else np.empty((rows.height, 0))
