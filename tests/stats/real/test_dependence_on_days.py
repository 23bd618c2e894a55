"""Broken joins and shuffled values: dependence beside drift of single columns, a domain classifier and PCA.

All are judged alike: a window among disjoint windows of history at level 1/26, days of the year in random order.
Printed as a table: ``pytest tests/stats/real/test_dependence_on_days.py -s``.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from holdfast.checks.dependence import Dependence
from holdfast.checks.drift import Drift
from holdfast.core.evidence import Block, Role, Window
from holdfast.stats import conformal
from holdfast.stats.histogram import edges_of

WINDOWS, TESTS = 25, 10
DAYS = {"flights": 7, "bikes": 14}
SHUFFLED = {
    "flights": ("dep_hour", "distance", "temp", "humid", "carrier"),
    "bikes": ("hr", "temp", "hum", "windspeed"),
}
LATE = {"flights": ("temp", "dewp", "humid", "pressure"), "bikes": ("temp", "atemp", "hum", "windspeed")}
METHODS = (
    "dependence",
    "drift per column",
    "classifier, days kept whole",
    "classifier, rows split",
    "classifier on ranks, rows split",
    "PCA",
    "PCA on ranks",
)
Fault = Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]


def shuffled(column: str, share: float) -> Fault:
    def broken(rows: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        values = rows[column].to_numpy().copy()
        hit = np.flatnonzero(random.random(rows.height) < share)
        values[hit] = values[random.permutation(hit)]
        return rows.with_columns(pl.Series(column, values, dtype=rows.schema[column]))

    return broken


def late(columns: tuple[str, ...]) -> Fault:
    """Values of the row a quarter of a day before, as a join to the wrong hour gives them."""
    return lambda rows, _: rows.with_columns(
        pl.Series(name, np.roll(rows[name].to_numpy(), rows.height // 4)) for name in columns
    )


def faults(name: str) -> Iterator[tuple[str, Fault]]:
    yield "nothing", lambda rows, _: rows
    for column in SHUFFLED[name]:
        for share in (0.3, 1.0):
            yield f"{share:.0%} of {column} shuffled", shuffled(column, share)
    yield "temp joined six hours late", late(("temp",))
    yield "weather joined six hours late", late(LATE[name])


class Judge:
    """Scores of one window by every method, and those of disjoint windows of history."""

    def __init__(self, world: Any, days: int, seed: int = 0) -> None:
        self.world = world
        frames = {int(day): part for (day,), part in world.rows.partition_by("day", as_dict=True).items()}
        order = [int(day) for day in np.random.default_rng(seed).permutation(sorted(frames))]
        self.parts = [[frames[day] for day in order[i : i + days]] for i in range(0, (WINDOWS + TESTS) * days, days)]
        self.categories = {
            name: pl.Enum(sorted(world.rows[name].drop_nulls().unique()))
            for name in world.inputs
            if world.rows[name].dtype == pl.String
        }
        rows = pl.concat([day for part in self.parts[:WINDOWS] for day in part])
        values = {name: rows[name] for name in world.inputs}
        self.edges = {
            name: edges_of(v.to_list() if name in self.categories else v.cast(pl.Float64).to_numpy())
            for name, v in values.items()
        }
        self.history = [self.window(part, i * 100) for i, part in enumerate(self.parts[:WINDOWS])]
        self.matrices = [self.matrix(part) for part in self.parts[:WINDOWS]]
        self.ranks = [self.ranked(part) for part in self.matrices]
        self.past = [
            self.scores(self.history[i], self.matrices[i], self.ranks[i], [k for k in range(WINDOWS) if k != i])
            for i in range(WINDOWS)
        ]

    def window(self, days: list[pl.DataFrame], first: int) -> Window:
        blocks = []
        for k, rows in enumerate(days):
            start = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=first + k)
            blocks.append(Block(start.date(), start, start + timedelta(days=1), lambda rows=rows: rows))
        return Window(blocks, dict.fromkeys(self.world.inputs, Role.INPUT), {"edges": self.edges})

    def matrix(self, days: list[pl.DataFrame]) -> list[np.ndarray]:
        coded = [
            pl.col(name).cast(self.categories[name]).to_physical() if name in self.categories else pl.col(name)
            for name in self.world.inputs
        ]
        return [rows.select([column.cast(pl.Float64) for column in coded]).to_numpy() for rows in days]

    @staticmethod
    def ranked(days: list[np.ndarray]) -> list[np.ndarray]:
        return [rankdata(day, axis=0, nan_policy="omit") / len(day) for day in days]

    def scores(
        self, window: Window, matrix: list[np.ndarray], ranks: list[np.ndarray], others: list[int]
    ) -> list[np.ndarray]:
        """By method, one number per column that it looks at; higher is worse."""
        baseline = Window([b for k in others for b in self.history[k].blocks], window.roles, window.facts)
        checked = [
            np.array([np.nan if r.value is None else r.value for r in check.measure(window, baseline)])
            for check in (Dependence(), Drift())
        ]
        before, before_ranks = ([day for k in others for day in source[k]] for source in (self.matrices, self.ranks))
        found = [auc(before, matrix, by_day=True), auc(before, matrix, by_day=False)]
        found.append(auc(before_ranks, ranks, by_day=False))
        found += [reconstruction(before, matrix), reconstruction(before_ranks, ranks)]
        return [*checked, *(np.array([score]) for score in found)]

    def found(self, fault: Fault) -> np.ndarray:
        """Share of test windows in which each method finds a fault, (methods,)."""
        hits = []
        for i, part in enumerate(self.parts[WINDOWS:]):
            days = [fault(rows, np.random.default_rng(100 * i + k)) for k, rows in enumerate(part)]
            matrix = self.matrix(days)
            scores = self.scores(self.window(days, 10_000), matrix, self.ranked(matrix), list(range(WINDOWS)))
            hits.append(
                [
                    conformal.joint_p_value(now, np.array([past[m] for past in self.past])) <= 1 / (WINDOWS + 1) + 1e-9
                    for m, now in enumerate(scores)
                ]
            )
        return np.mean(hits, axis=0)


def auc(before: list[np.ndarray], now: list[np.ndarray], *, by_day: bool) -> float:
    """Mean area under the curve, over three folds, of trees that tell the window from the reference."""
    random = np.random.default_rng(0)
    x, y, fold = [], [], []
    for side, days, most in ((0.0, before, 4000), (1.0, now, 2000)):
        rows, of_day = np.vstack(days), np.repeat(random.permutation(len(days)), [len(day) for day in days])
        chosen = random.choice(len(rows), min(most, len(rows)), replace=False)
        x.append(rows[chosen])
        y.append(np.full(chosen.size, side))
        fold.append(of_day[chosen] % 3 if by_day else random.integers(0, 3, chosen.size))
    values, target, folds = np.vstack(x), np.concatenate(y), np.concatenate(fold)
    parameters = {"objective": "binary", "num_leaves": 15, "is_unbalance": True, "verbose": -1, "num_threads": 1}
    areas = []
    for held in range(3):
        train = lgb.train(parameters, lgb.Dataset(values[folds != held], target[folds != held]), 40)
        areas.append(roc_auc_score(target[folds == held], train.predict(values[folds == held], num_threads=1)))
    return float(np.mean(areas))


def reconstruction(before: list[np.ndarray], now: list[np.ndarray], kept: float = 0.65) -> float:
    """How far the mean error of rebuilding rows from the components with 65 % of the variance moved."""
    reference, current = np.vstack(before), np.vstack(now)
    mean, deviation = np.nanmean(reference, axis=0), np.nanstd(reference, axis=0) + 1e-12
    old, new = (np.nan_to_num((rows - mean) / deviation) for rows in (reference, current))
    variance, vectors = np.linalg.eigh(old.T @ old / len(old))
    count = int(np.searchsorted(np.cumsum(variance[::-1]) / variance.sum(), kept) + 1)
    kept_vectors = vectors[:, ::-1][:, :count]
    errors = [np.linalg.norm(rows - rows @ kept_vectors @ kept_vectors.T, axis=1).mean() for rows in (old, new)]
    return float(abs(errors[1] - errors[0]))


@pytest.mark.long
@pytest.mark.parametrize("name", ["flights", "bikes"])
def test_dependence_finds_more_broken_joins_than_classifier_and_pca(name: str, request: pytest.FixtureRequest) -> None:
    judge = Judge(request.getfixturevalue(name), DAYS[name])
    print(f"\n{name}: share of {TESTS} windows found")
    usual = np.array([[np.nanmax(score) for score in past] for past in judge.past])
    ends = zip(METHODS, usual.min(axis=0), usual.max(axis=0), strict=True)
    print("largest score in history |", " | ".join(f"{method} {low:.3g} to {high:.3g}" for method, low, high in ends))
    print("fault |", " | ".join(METHODS))
    powers = []
    for fault, broken in faults(name):
        found = judge.found(broken)
        print(fault, "|", " | ".join(f"{share:.1f}" for share in found), flush=True)
        if fault == "nothing":
            assert found[0] <= 0.2
        else:
            powers.append(found)
    mean = np.mean(powers, axis=0)
    print("mean |", " | ".join(f"{share:.2f}" for share in mean))
    assert mean[0] == mean.max()
    assert mean[0] > mean[1] + 0.2
