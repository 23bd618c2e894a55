"""Do columns still hang together: the product's check beside thresholds on how far plain correlations moved."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from holdfast.checks.dependence import STATED, Dependence
from holdfast.core.blocks import block_bounds
from holdfast.core.evidence import Block, Role, Window
from holdfast.stats import conformal
from holdfast.stats.histogram import Edges, edges_of
from holdfast.stats.multivariate import rank_correlations
from parts.explainsets import arrays
from parts.streams import MONDAY, Pool, draw

HISTORY, TESTS, DAYS = 20, 6, 3
"""Disjoint windows of history, windows that are judged among them, and days of each."""
LEVEL = 1 / (HISTORY + 1)
BANDS: Mapping[str, tuple[float, float]] = {"strong": (0.5, 1.01), "middle": (0.2, 0.5), "weak": (0.1, 0.2)}
"""How tied a pair was: mean absolute rank correlation within days, the lower end included."""
APART = (0.1, 0.2)
"""Plain thresholds: so far may a correlation move."""
METHODS = ("dependence", "dependence_stated", *(f"moved_{limit:g}" for limit in APART), "moved_by_history")
Found = dict[str, Any]


def trials(pool: Pool, seed: int) -> list[Found]:
    """Windows of one drawn stretch of days as they are, and with a column of a pair dealt out anew within each day."""
    random = np.random.default_rng([seed, 14])
    before, after = draw(pool.strata, HISTORY * DAYS, TESTS * DAYS, random, pool.unit)
    history = _windows([pool.days[k] for k in before])
    judge = Judge(pool, history)
    found = []
    for days in _windows([pool.days[k] for k in after]):
        found.append({"tie": "", **judge.says(days)})
        for tie, (low, high) in BANDS.items():
            pairs = [pair for pair, strength in judge.ties.items() if low <= strength < high]
            if pairs:
                pair = pairs[int(random.integers(len(pairs)))]
                column = pair[int(random.integers(2))]
                broken = [day.with_columns(day[column].gather(random.permutation(day.height))) for day in days]
                found.append({"tie": tie, **judge.says(broken)})
    return found


def together(found: Sequence[Found]) -> Found:
    """Figures of one data set: share of windows in which each method finds something, by what was put there."""
    figure: Found = {"windows": sum(not one["tie"] for one in found)}
    for method in METHODS:
        figure[method] = {"of_nothing": _mean([one[method] for one in found if not one["tie"]])}
        figure[method] |= {tie: _mean([one[method] for one in found if one["tie"] == tie]) for tie in BANDS}
    return figure


class Judge:
    """History of one system, and what each method says of a window."""

    def __init__(self, pool: Pool, history: Sequence[Sequence[pl.DataFrame]]) -> None:
        rows = pl.concat([day for days in history for day in days])
        values = arrays(rows, pool.columns)
        self.edges: dict[str, Edges] = {
            name: edges_of(v.tolist() if v.dtype.kind == "O" else v) for name, v in values.items()
        }
        self._pool = pool
        self._blocks = [self._of(days, -len(history) * DAYS + k * DAYS) for k, days in enumerate(history)]
        self._past = np.array([self._readings(blocks) for blocks in self._blocks])
        matrices = [_matrix(pl.concat(days), pool.columns, self.edges) for days in history]
        self._whole = _plain(np.vstack(matrices))
        self._moves = np.array(
            [_apart(_plain(np.vstack(matrices[:k] + matrices[k + 1 :])), _plain(one)) for k, one in enumerate(matrices)]
        )
        self.ties = _ties(pool, rows, [day for days in history for day in days], self.edges)

    def says(self, days: Sequence[pl.DataFrame]) -> dict[str, bool]:
        """Whether each method finds something in a window."""
        read = self._readings(self._of(days, 0))
        moved = _apart(self._whole, _plain(_matrix(pl.concat(days), self._pool.columns, self.edges)))
        return {
            "dependence": conformal.joint_p_value(read, self._past) <= LEVEL + 1e-9,
            "dependence_stated": bool(np.nanmax(read) > STATED),
            **{f"moved_{limit:g}": moved > limit for limit in APART},
            "moved_by_history": conformal.p_value(moved, self._moves) <= LEVEL + 1e-9,
        }

    def _of(self, days: Sequence[pl.DataFrame], first: int) -> list[Block]:
        dates = [MONDAY + timedelta(days=first + k) for k in range(len(days))]
        return [
            Block(on, *block_bounds("UTC", on), partial(_as_it_is, day)) for on, day in zip(dates, days, strict=True)
        ]

    def _readings(self, blocks: Sequence[Block]) -> Any:
        roles, facts = dict.fromkeys(self._pool.columns, Role.INPUT), {"edges": self.edges}
        baseline = Window([each for part in self._blocks for each in part], roles, facts)
        read = Dependence().measure(Window(blocks, roles, facts), baseline)
        return np.array([np.nan if each.value is None else each.value for each in read])


def _windows(days: Sequence[pl.DataFrame]) -> list[list[pl.DataFrame]]:
    return [list(days[k : k + DAYS]) for k in range(0, len(days), DAYS)]


def _matrix(rows: pl.DataFrame, columns: Sequence[str], edges: Mapping[str, Edges]) -> Any:
    """(n, columns): numbers, and whether a text is the commonest value."""
    return np.column_stack(
        [
            (rows[name] == (edges[name].categories or ("",))[0]).cast(pl.Float64).to_numpy()
            if rows[name].dtype == pl.String
            else rows[name].cast(pl.Float64).to_numpy()
            for name in columns
        ]
    )


def _plain(values: Any) -> Any:
    """Pearson's correlations of all pairs over the rows that lack nothing; NaN where a column stands still."""
    known = values[~np.isnan(values).any(axis=1)]
    if len(known) < 3:
        return np.full((values.shape[1], values.shape[1]), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef(known, rowvar=False)


def _apart(one: Any, other: Any) -> float:
    far = np.abs(one - other)
    return 0.0 if np.isnan(far).all() else float(np.nanmax(far))


def _ties(
    pool: Pool, rows: pl.DataFrame, days: Sequence[pl.DataFrame], edges: Mapping[str, Edges]
) -> dict[tuple[str, str], float]:
    """How tied each pair of columns is within days, that can be told on most days."""
    each = np.stack([rank_correlations(_matrix(day, pool.columns, edges)) for day in days])
    known = (~np.isnan(each)).mean(axis=0)
    mean = np.abs(np.where(np.isnan(each), 0.0, each).mean(axis=0))
    return {
        (pool.columns[i], pool.columns[j]): float(mean[i, j])
        for i, j in combinations(range(len(pool.columns)), 2)
        if known[i, j] > 0.5
    }


def _as_it_is(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


def _mean(values: Sequence[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None
