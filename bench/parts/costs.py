"""Which of several broken columns costs most: columns ranked by estimated loss beside plain rankings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from holdfast.flow.dating import AFTER_DAYS
from holdfast.flow.pricing import BEFORE_DAYS, MOST_ASKED, MOST_RANKED
from holdfast.stats.distance import coarsen, ks, psi, total_variation
from holdfast.stats.histogram import Edges, count, edges_of
from holdfast.stats.impact import rank_columns
from parts.changes import OF_NUMBERS, OF_TEXTS, changed, deviations, drawn_change
from parts.explainsets import LOSS, answered, arrays, frame, losses
from parts.streams import Pool, draw

BROKEN = 4
"""Columns that are broken at once, at most half of all."""
METHODS = ("estimate", "no_labels", "psi", "ks", "importance", "psi_x_importance")
WORTH = 0.05
"""A worst column counts where it costs at least this part of the loss of the whole."""
Found = dict[str, Any]


def trial(pool: Pool, seed: int) -> Found:
    """Four weeks and the two weeks after them with some columns broken: per column what it truly costs, by every
    method what it scores, and whether the interval of the estimate holds the truth.

    The true cost of a column is the loss that would go away were it alone as it should be.
    """
    random = np.random.default_rng([seed, 11])
    before, after = draw(pool.strata, BEFORE_DAYS, AFTER_DAYS, random, pool.unit)
    old, now = _joined(pool, before), _joined(pool, after)
    usual = deviations(old, pool.columns)
    hit = random.choice(len(pool.columns), min(BROKEN, len(pool.columns) // 2), replace=False)
    names = [pool.columns[k] for k in hit]
    parts = {name: drawn_change(pool, name, random) for name in names}
    broken = answered(pool, now.with_columns(changed(now[name], parts[name], usual[name], random) for name in names))
    whole = float(losses(pool, broken).mean())
    truth = dict.fromkeys(pool.columns, 0.0)
    for name in names:
        mended = answered(pool, broken.with_columns(now[name]))
        truth[name] = whole - float(losses(pool, mended).mean())
    scores, ends = _scored(pool, old, broken)
    return {
        "changes": {name: str(parts[name]) for name in names},
        "loss": whole,
        "truth": truth,
        "scores": scores,
        "held": [ends[name][0] <= truth[name] <= ends[name][1] for name in names if name in ends],
    }


def together(trials: Sequence[Found]) -> Found:
    """Figures of one data set: per method the rank correlation over all broken columns (`rank`) and over those whose
    distribution moved (`moved`, all but permuted ones), how often the worst is named first, and which part of what
    the worst one costs the named one does. `held` is the share of intervals that hold the true cost."""
    worst = [max(one["truth"], key=one["truth"].__getitem__) for one in trials]
    counted = [
        (one, name) for one, name in zip(trials, worst, strict=True) if one["truth"][name] >= WORTH * one["loss"]
    ]
    figure: Found = {"trials": len(trials), "costly": len(counted), "faults": sum(len(t["changes"]) for t in trials)}
    for method in METHODS:
        pairs = [
            (one["truth"][c], one["scores"][method][c], what) for one in trials for c, what in one["changes"].items()
        ]
        first = [max(one["scores"][method], key=one["scores"][method].__getitem__) for one, _ in counted]
        costs = [one["truth"][name] for (one, _), name in zip(counted, first, strict=True)]
        figure[method] = {
            "rank": _correlation([(true, said) for true, said, _ in pairs]),
            "moved": _correlation([(true, said) for true, said, what in pairs if not what.startswith("permuted")]),
            "first": _mean([name == right for (_, right), name in zip(counted, first, strict=True)]),
            "part": sum(costs) / sum(one["truth"][name] for one, name in counted) if counted else None,
        }
    held = [each for one in trials for each in one["held"]]
    return figure | {"held": _mean(held), "intervals": len(held), "told_of_true": _told(trials)}


def _told(trials: Sequence[Found]) -> dict[str, float | None]:
    """Sum of the estimates over the sum of the true costs, by change."""
    sums: dict[str, list[float]] = {str(change): [0.0, 0.0] for change in (*OF_NUMBERS, *OF_TEXTS)}
    for one in trials:
        for name, what in one["changes"].items():
            sums[what][0] += one["scores"]["estimate"][name]
            sums[what][1] += one["truth"][name]
    return {what: told / true if true > 0 else None for what, (told, true) in sums.items()}


def distance(edges: Edges, before: Any, now: Any) -> float:
    """PSI as incidents take it: on ten cells, missing values one more."""
    p, q = _counted(before, edges), _counted(now, edges)
    old, new = p[:-1], q[:-1]
    if not edges.is_category:
        old, new = coarsen(old, new)
    return psi(np.append(old, p[-1]), np.append(new, q[-1]))


def _scored(
    pool: Pool, old: pl.DataFrame, now: pl.DataFrame
) -> tuple[dict[str, dict[str, float]], dict[str, tuple[float, float]]]:
    then, current = arrays(old, pool.columns), arrays(now, pool.columns)
    edges = {name: edges_of(v.tolist() if v.dtype.kind == "O" else v) for name, v in then.items()}
    apart = {name: distance(edges[name], then[name], current[name]) for name in pool.columns}
    priced = sorted(pool.columns, key=lambda name: -apart[name])[:MOST_RANKED]
    weight = _importance(pool, old)
    scores = {
        "psi": apart,
        "ks": {name: _gap(edges[name], then[name], current[name]) for name in pool.columns},
        "importance": weight,
        "psi_x_importance": {name: apart[name] * max(0.0, weight[name]) for name in pool.columns},
    }
    ends = {}
    for method, label in (("estimate", old["label"].to_numpy()), ("no_labels", None)):
        found = rank_columns(
            current,
            now["day"].to_numpy(),
            then,
            old["day"].to_numpy(),
            lambda columns: pool.score(frame(columns)),
            LOSS[pool.task],  # type: ignore[arg-type]
            reference_label=label,
            columns=priced,
            most_rows=MOST_ASKED,
        )
        scores[method] = dict.fromkeys(pool.columns, 0.0) | {each.column: each.excess for each in found.impacts}
        if label is not None:
            ends = {each.column: each.interval for each in found.impacts}
    return scores, ends


def _importance(pool: Pool, rows: pl.DataFrame) -> Mapping[str, float]:
    """How much the loss rises when the values of a column are dealt out anew."""
    random, usual = np.random.default_rng(1), float(losses(pool, rows).mean())
    places = random.permutation(rows.height)
    return {
        name: float(losses(pool, answered(pool, rows.with_columns(rows[name].gather(places)))).mean()) - usual
        for name in pool.columns
    }


def _gap(edges: Edges, before: Any, now: Any) -> float:
    p, q = _counted(before, edges)[:-1], _counted(now, edges)[:-1]
    if not q.sum():
        return 1.0
    return total_variation(p, q) if edges.is_category else ks(p, q)


def _counted(values: Any, edges: Edges) -> Any:
    return count(values.tolist() if values.dtype.kind == "O" else values, edges).counted


def _joined(pool: Pool, places: Sequence[int]) -> pl.DataFrame:
    return pl.concat([pool.days[place].with_columns(day=pl.lit(k)) for k, place in enumerate(places)])


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's; None where either side is all equal."""
    sides = [np.array(side) for side in zip(*pairs, strict=True)]
    return float(spearmanr(*sides)[0]) if len(pairs) > 2 and all(np.ptp(side) > 0 for side in sides) else None


def _mean(values: Sequence[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None
