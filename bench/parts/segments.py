"""Which rows got worse: the product's search for segments beside the worst value of a single column."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl
from scipy import stats

from holdfast.flow.explanations import PAIRED
from holdfast.stats.slices import FINE, Part, find_slices
from parts.changes import other_rule
from parts.explainsets import arrays, losses
from parts.streams import Pool, draw

BEFORE, AFTER = 28, 7
LEVELS = (0.01, 0.05)
"""Of the check, and of an explanation."""
ALIKE = 0.5
"""A segment is found where one with more than this in common (Jaccard) is named."""
SHARES = (0.3, 0.6)
"""Of the segment's labels that are turned, or deviations that they grow by."""
NULLS = 4
"""Draws without a change for each with one: rates of a few percent need many."""
MOST = 3
Found = dict[str, Any]


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the rows: a middle, low or high range of each number, one value of each text."""

    parts: tuple[Part, ...]


def inside(part: Part, rows: pl.DataFrame) -> Any:
    """Which rows (n,) lie in a part."""
    values = rows[part.column]
    if part.is_missing:
        return values.is_null().to_numpy()
    if part.values:
        return values.is_in(list(part.values)).fill_null(False).to_numpy()
    numbers = values.to_numpy()
    return (numbers >= part.low) & (numbers < part.high)


def within(segment: Segment, rows: pl.DataFrame) -> Any:
    """Which rows (n,) lie in all parts of a segment."""
    return np.logical_and.reduce([inside(part, rows) for part in segment.parts])


def jaccard(one: Any, other: Any) -> float:
    """Rows in both over rows in either, in [0, 1]; 0 where neither has any."""
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 0.0


def drawn_segment(pool: Pool, rows: pl.DataFrame, columns: int, random: np.random.Generator) -> Segment | None:
    """A segment of so many columns that holds 8 to 50 % of the rows; None where none was met. A column that never
    varies within a day has no segment that a search by days could find."""
    varies = [name for name in pool.columns if any(day[name].n_unique() > 1 for day in pool.days[:14])]
    for _ in range(100):
        names = random.choice(varies, min(columns, len(varies)), replace=False)
        segment = Segment(parts=tuple(_part(rows, str(name), random) for name in names))
        if 0.08 <= within(segment, rows).mean() <= 0.5:
            return segment
    return None


def trials(pool: Pool, seed: int, before: int = BEFORE, after: int = AFTER) -> Iterator[Found]:
    """Searches in one drawn stretch of days with a segment that follows another rule, and in others without."""
    random = np.random.default_rng([seed, 13])
    for k in range(NULLS + 1):
        old, new = draw(pool.strata, before, after, random, pool.unit)
        then, now = (
            pl.concat([pool.days[p].with_columns(day=pl.lit(i)) for i, p in enumerate(ds)]) for ds in (old, new)
        )
        if k:
            yield {"columns": 0, **_searched(pool, then, now, None, seed)}
            continue
        columns = 1 + seed % 2
        segment = drawn_segment(pool, then, columns, random)
        if segment is None:
            continue
        hit = within(segment, now)
        share = SHARES[seed // 2 % len(SHARES)]
        worse = other_rule(pool, now, pl.Series(hit), share, random)
        yield {"columns": columns, "share": share, **_searched(pool, then, worse, hit, seed)}


def in_order(pool: Pool, most: int, before: int = BEFORE, after: int = AFTER) -> Iterator[Found]:
    """Searches in the first so many stretches of days in their true order, where what is found may be true."""
    for first in range(0, len(pool.days) - before - after + 1, after)[:most]:
        days = [day.with_columns(day=pl.lit(k)) for k, day in enumerate(pool.days[first : first + before + after])]
        yield _searched(pool, pl.concat(days[:before]), pl.concat(days[before:]), None, first)


def together(found: Sequence[Found]) -> Found:
    """Figures of one data set: how often the segment is found, how often anything is where nothing was put."""
    still, moved = [one for one in found if not one["columns"]], [one for one in found if one["columns"]]
    figure: Found = {"trials": len(moved), "draws_of_nothing": len(still)}
    for name in (*(f"search_{level:g}" for level in LEVELS), "worst_value", "risen_value"):
        figure[name] = {
            "found": _mean([_is_found(one[name]) for one in moved]),
            "named": _mean([one[name] is not None for one in moved]),
            "of_nothing": _mean([one[name] is not None for one in still]),
            "astray": _mean([one["astray"][name] for one in moved if one["columns"]]),
            **{
                f"found_{columns}_{share:g}": _mean(
                    [_is_found(o[name]) for o in moved if (o["columns"], o["share"]) == (columns, share)]
                )
                for columns in (1, 2)
                for share in SHARES
            },
        }
    return figure


def _is_found(common: float | None) -> bool:
    return common is not None and common > ALIKE


def _searched(pool: Pool, then: pl.DataFrame, now: pl.DataFrame, hit: Any, seed: int) -> Found:
    """Per method what the best of what it names has in common with the segment; None where it names nothing."""
    old, new = losses(pool, then), losses(pool, now)
    columns = [_texts_as_lists(arrays(rows, pool.columns)) for rows in (then, now)]
    found = find_slices(
        columns[0],
        old,
        then["day"].to_numpy().astype(np.int64),
        columns[1],
        new,
        now["day"].to_numpy().astype(np.int64),
        most=MOST,
        seed=seed,
        paired=PAIRED,
    )
    said: Found = {"segments": found.searched, "astray": {}}
    for level in LEVELS:
        named = [Segment(parts=each.parts) for each in found.slices if each.p_value <= level]
        said[f"search_{level:g}"] = _common(named, now, hit)
        said["astray"][f"search_{level:g}"] = _astray(named, now, hit)
    worst, risen = _plain(pool, then, now, old, new)
    for name, named in (("worst_value", [worst]), ("risen_value", [risen] if risen else [])):
        said[name], said["astray"][name] = _common(named, now, hit), _astray(named, now, hit)
    return said


def _common(named: Sequence[Segment], now: pl.DataFrame, hit: Any) -> float | None:
    if not named:
        return None
    return 0.0 if hit is None else max(jaccard(within(each, now), hit) for each in named)


def _astray(named: Sequence[Segment], now: pl.DataFrame, hit: Any) -> int:
    """How many of those named have less than half in common with the segment."""
    return sum(hit is None or jaccard(within(each, now), hit) <= ALIKE for each in named)


def _plain(pool: Pool, then: pl.DataFrame, now: pl.DataFrame, old: Any, new: Any) -> tuple[Segment, Segment | None]:
    """The value or eighth of a single column with the highest mean loss now, and the one whose mean rose most by
    Welch's t over rows, where that is significant at 0.05 after Bonferroni."""
    cells = [Segment(parts=(part,)) for name in pool.columns for part in _cells(then, name)]
    highest, best, least = (-np.inf, cells[0]), None, 1.0
    for cell in cells:
        before, after = old[within(cell, then)], new[within(cell, now)]
        if min(before.size, after.size) < 30:
            continue
        highest = max(highest, (float(after.mean()), cell), key=lambda each: each[0])
        p = float(stats.ttest_ind(after, before, equal_var=False, alternative="greater").pvalue)
        if p * len(cells) <= 0.05 and p < least:
            best, least = cell, p
    return highest[1], best


def _cells(rows: pl.DataFrame, name: str) -> list[Part]:
    if rows[name].dtype == pl.String:
        return [Part(column=name, values=(value,)) for value in rows[name].drop_nulls().unique().sort().to_list()]
    known = rows[name].drop_nulls().to_numpy()
    if not known.size:
        return []
    cuts = np.unique(np.quantile(known, np.linspace(0, 1, FINE + 1)[1:-1], method="inverted_cdf"))
    bounds = [-np.inf, *cuts[cuts > known.min()].tolist(), np.inf]
    return [Part(column=name, low=low, high=high) for low, high in pairwise(bounds)]


def _part(rows: pl.DataFrame, name: str, random: np.random.Generator) -> Part:
    values = rows[name].drop_nulls()
    if values.dtype == pl.String:
        common = values.value_counts(sort=True)[name].to_list()
        return Part(column=name, values=(common[int(random.integers(min(6, len(common))))],))
    low = float(random.uniform(0.0, 0.6))
    ends = values.quantile(low), values.quantile(low + float(random.uniform(0.2, 0.4)))
    return Part(column=name, low=float(ends[0] or 0.0), high=float(ends[1] or 0.0))


def _texts_as_lists(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: values.tolist() if values.dtype.kind == "O" else values for name, values in columns.items()}


def _mean(values: Sequence[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None
