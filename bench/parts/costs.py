"""Which of several broken columns costs most, and how much: ranked by estimated loss beside plain rankings, and the
interval that is told beside plain ones."""

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
LITTLE = 0.01
"""A column that costs less than this part of the loss before costs next to nothing."""
MISS = 2 / 0.05
"""What an interval that is stated at 95 % is charged for each unit by which it misses (Gneiting and Raftery 2007)."""
INTERVALS = ("told", "half_to_double", "as_elsewhere")
Ends = tuple[float, float]
Found = dict[str, Any]


def trial(pool: Pool, seed: int, *, in_order: bool = False) -> Found:
    """Four weeks and the two weeks after them with some columns broken: per column what it truly costs, by every
    method what it scores, and of those that are priced the interval.

    The true cost of a column is the loss that would go away were it alone as it should be. The weeks are drawn days,
    or `in_order` days as they came from a drawn one on.
    """
    random = np.random.default_rng([seed, 11])
    before, after = draw(pool.strata, BEFORE_DAYS, AFTER_DAYS, random, pool.unit)
    if in_order:
        first = int(random.integers(len(pool.days) - BEFORE_DAYS - AFTER_DAYS + 1))
        days = list(range(first, first + BEFORE_DAYS + AFTER_DAYS))
        before, after = days[:BEFORE_DAYS], days[BEFORE_DAYS:]
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
        "usual_loss": float(losses(pool, old).mean()),
        "ends": {name: ends[name] for name in names if name in ends},
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
    return figure | {"told_of_true": _told(trials)}


def usual_ends(trials: Sequence[Found]) -> Ends | None:
    """What 95 % of broken columns cost, as shares of the loss before; None without any."""
    shares = [one["truth"][name] / one["usual_loss"] for one in trials for name in one["ends"]]
    return (float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975))) if shares else None


def intervals(trials: Sequence[Found], elsewhere: Ends | None) -> Found:
    """Of the intervals of the broken columns that are priced: how many there are, the share that hold the true cost
    (`held`), their mean width and score in units of the loss before, how often they lie above 0 where the column costs
    5 % of the loss before or more (`of_costly`) and where it costs less than 1 % (`of_little`); and of those that are
    told what part holds by change.

    Beside what is told stand half to double of the estimate, and what columns cost on other data sets (`elsewhere`).
    The score is the width and 40 times what lies between the interval and the truth: lower is better."""
    rows = [(one, name) for one in trials for name in one["ends"]]
    figure: Found = {"count": len(rows), "costly": sum(_share(*row) >= WORTH for row in rows)}
    for kind in INTERVALS:
        if kind != "as_elsewhere" or elsewhere is not None:
            figure[kind] = _of_ends([(_ends(kind, one, name, elsewhere), _share(one, name)) for one, name in rows])
    changes = sorted({one["changes"][name] for one, name in rows})
    figure["held_by_change"] = {
        what: _of_ends([(_ends("told", one, c, None), _share(one, c)) for one, c in rows if one["changes"][c] == what])[
            "held"
        ]
        for what in changes
    }
    return figure


def _share(one: Found, name: str) -> float:
    return float(one["truth"][name] / one["usual_loss"])


def _ends(kind: str, one: Found, name: str, elsewhere: Ends | None) -> Ends:
    """Ends of an interval as shares of the loss before."""
    if kind == "as_elsewhere":
        assert elsewhere is not None
        return elsewhere
    estimate, low, high = (each / one["usual_loss"] for each in one["ends"][name])
    return (low, high) if kind == "told" else (min(estimate / 2, 2 * estimate), max(estimate / 2, 2 * estimate))


def _of_ends(pairs: Sequence[tuple[Ends, float]]) -> Found:
    width = [high - low for (low, high), _ in pairs]
    missed = [max(low - true, true - high, 0.0) for (low, high), true in pairs]
    return {
        "held": _mean([not each for each in missed]),
        "width": _mean(width),
        "score": _mean([w + MISS * m for w, m in zip(width, missed, strict=True)]),
        "of_costly": _mean([low > 0 for (low, _), true in pairs if true >= WORTH]),
        "of_little": _mean([low > 0 for (low, _), true in pairs if true < LITTLE]),
    }


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
) -> tuple[dict[str, dict[str, float]], dict[str, tuple[float, float, float]]]:
    """By method what each column scores, and of those that are priced the estimate and both ends."""
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
            ends = {each.column: (each.cost, *each.interval) for each in found.impacts}
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
