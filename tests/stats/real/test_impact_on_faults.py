"""Drift ranked by estimated loss against the loss that the same faults truly cost, beside the ranking by PSI.

Printed as a table: ``pytest tests/stats/real/test_impact_on_faults.py -s``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from holdfast.stats.distance import coarsen, psi
from holdfast.stats.histogram import Edges, IntArray, count, edges_of
from holdfast.stats.impact import Values, rank_columns

REFERENCE_DAYS = 28
STARTS = {"flights": (180, 210, 270, 330), "bikes": (395, 425, 485, 545)}
DAYS = {"flights": 7, "bikes": 14}
Columns = dict[str, Values]


def arrays(world: Any, rows: pl.DataFrame) -> Columns:
    return {
        name: np.array(values, dtype=object) if isinstance(values, list) else values
        for name, values in world.columns(rows).items()
    }


def frame(columns: Columns) -> pl.DataFrame:
    return pl.DataFrame(
        {
            name: pl.Series(values.tolist(), dtype=pl.String) if values.dtype == object else values
            for name, values in columns.items()
        }
    )


def faults(columns: Columns, reference: Columns, random: np.random.Generator) -> Iterator[tuple[str, Columns]]:
    """Name of a fault, and the columns as it leaves them."""
    numbers = [name for name, values in columns.items() if values.dtype != object]
    for name, values in columns.items():
        gone = [random.random(values.size) for _ in range(3)]
        if name in numbers:
            deviation, middle = np.nanstd(reference[name]), np.nanmedian(reference[name])
            for size in (0.1, 0.3, 1.0):
                yield f"{name} + {size} sd", {name: values + size * deviation}
            yield f"{name} dead", {name: np.full(values.size, middle)}
            yield f"{name} in other unit", {name: values * 1.8 + 32}
            yield f"{name} a tenth", {name: values * 0.1}
            for share, drawn in zip((0.05, 0.2, 0.8), gone, strict=True):
                yield f"{name} {share} missing", {name: np.where(drawn < share, np.nan, values)}
        else:
            common = max(sorted(set(reference[name])), key=list(reference[name]).count)
            yield f"{name} renamed", {name: np.where(values == common, "renamed", values).astype(object)}
            yield f"{name} dead", {name: np.full(values.size, common, dtype=object)}
            for share, drawn in zip((0.05, 0.2, 0.8), gone, strict=True):
                yield f"{name} {share} missing", {name: np.where(drawn < share, None, values).astype(object)}
    for one, other in zip(numbers, [*numbers[1:], numbers[0]], strict=True):
        yield f"{one} and {other} swapped", {one: columns[other], other: columns[one]}


def counted(values: Values, edges: Edges) -> IntArray:
    return count(values.tolist() if values.dtype == object else values, edges).counted


def distance(edges: Edges, before: Values, now: Values, *, with_missing: bool) -> float:
    """PSI as the drift check has it, or with missing values as a cell of their own on all cells."""
    p, q = counted(before, edges), counted(now, edges)
    if with_missing:
        return psi(p, q)
    if not q[:-1].sum():
        return 0.0
    return psi(p[:-1], q[:-1]) if edges.is_category else psi(*coarsen(p[:-1], q[:-1]))


def measured(world: Any, start: int, days: int) -> np.ndarray:
    """Per fault: true change of the loss, estimate without and with labels, PSI, PSI with missing."""
    before, now = world.between(start - REFERENCE_DAYS, start - 1), world.between(start, start + days - 1)
    reference, clean = arrays(world, before), arrays(world, now)
    edges = {name: edges_of(v.tolist() if v.dtype == object else v) for name, v in reference.items()}
    y, labels = now["y"].to_numpy(), before["y"].to_numpy()

    def answer(columns: Any) -> np.ndarray:
        return world.answer(frame(columns))

    def estimated(columns: Columns, names: list[str], label: np.ndarray | None) -> float:
        return rank_columns(
            columns,
            now["day"].to_numpy(),
            reference,
            before["day"].to_numpy(),
            answer,
            "squared_error",
            reference_label=label,
            columns=names,
            most_rows=4000,
        ).joint.cost

    usual, rows = np.square(answer(clean) - y).mean(), []
    for _, changed in faults(clean, reference, np.random.default_rng(start)):
        broken, names = {**clean, **changed}, list(changed)
        rows.append(
            (
                np.square(answer(broken) - y).mean() - usual,
                estimated(broken, names, None),
                estimated(broken, names, labels),
                sum(distance(edges[n], reference[n], broken[n], with_missing=False) for n in names),
                sum(distance(edges[n], reference[n], broken[n], with_missing=True) for n in names),
            )
        )
    return np.array(rows)


@pytest.mark.long
@pytest.mark.parametrize("name", ["flights", "bikes"])
def test_ranking_by_estimated_loss_beats_ranking_by_distance(name: str, request: pytest.FixtureRequest) -> None:
    world = request.getfixturevalue(name)
    print(f"\n{name}: Spearman (Pearson) correlation with the true change of the loss")
    print("from day | faults | estimate | with labels of the days before | PSI | PSI with missing")
    correlations = []
    for start in STARTS[name]:
        table = measured(world, start, DAYS[name])
        rank = [float(spearmanr(table[:, 0], table[:, k])[0]) for k in range(1, 5)]
        line = [float(np.corrcoef(table[:, 0], table[:, k])[0, 1]) for k in range(1, 5)]
        print(start, "|", len(table), "|", " | ".join(f"{a:.2f} ({b:.2f})" for a, b in zip(rank, line, strict=True)))
        correlations.append([*rank, *line])
    mean = np.mean(correlations, axis=0)
    print("mean | |", " | ".join(f"{mean[k]:.2f} ({mean[k + 4]:.2f})" for k in range(4)))
    estimate, with_labels, *distances = mean[:4]
    assert estimate > max(distances)
    assert with_labels > max(distances) + 0.1
    assert with_labels > estimate
    assert min(mean[4:6]) > max(mean[6:]) + 0.2
