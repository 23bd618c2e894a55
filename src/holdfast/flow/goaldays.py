"""Past days as an experiment would have found them. In: labelled rows by day. Out: two arms, split by chance anew."""

import math
from collections.abc import Mapping
from datetime import date, timedelta

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.stats.bootstrap import run_length

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

UNIT = ("unit", "key", "request_id")
"""What sticks to one version: the first of these that a row has."""
MOST_SPLITS, FEWEST_SPLITS = 200, 4
"""How often each past day is split by chance anew."""
DRAWS = 5_000_000
"""How many kinds of units are drawn for all splits of all days, roughly, where there are many."""


class Alike(msgspec.Struct, frozen=True, kw_only=True):
    """The units of one day, kind by kind (k,): those of a kind had as many rows, and the same labels in sum."""

    units: IntArray
    """How many are of the kind. Each of them had:"""
    rows: FloatArray
    rarer: FloatArray
    """Rows whose label is not the usual one."""
    excess: FloatArray
    """Sum of its labels, each less the usual one."""
    below: FloatArray
    """Rows whose label is less than the usual one."""
    under: FloatArray
    """Sum of the labels of these, each less the usual one: 0 or negative."""


class GoalDays(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled rows of past days, in order. A day between them that has none is of no kinds."""

    days: tuple[Alike, ...]
    usual: float
    """The label that most rows have."""
    has_two: bool
    """Whether labels take no more than two values."""
    counts: FloatArray
    """Rows of each day (days,)."""
    means: FloatArray
    """Mean label of each day (days,), NaN without rows."""
    within: float
    """Standard deviation of labels within a day; NaN without rows."""
    rows: int
    rarer: int
    """Rows whose label is not the usual one."""
    excess: float
    below: int
    """Rows whose label is less than the usual one."""
    under: float
    over: float

    @property
    def labelled(self) -> int:
        """Days that have rows."""
        return int((self.counts > 0).sum())


class Arms(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate and live version on days, all of one shape; the figures of `Alike`, summed over units."""

    rows: FloatArray
    rarer: FloatArray
    excess: FloatArray
    below: FloatArray
    under: FloatArray
    live_rows: FloatArray
    live_rarer: FloatArray
    live_excess: FloatArray

    @property
    def difference(self) -> FloatArray:
        """Mean label of the candidate's rows less that of the live version's; NaN where one has none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.excess / self.rows - self.live_excess / self.live_rows


def goal_days(days: Mapping[date, pl.DataFrame]) -> GoalDays:
    """What can be split of days, by units. Days before the first label and after the last one are left out."""
    rows = pl.concat([_labels(day, frame) for day, frame in days.items()] or [pl.DataFrame(schema=_SCHEMA)])
    if rows.is_empty():
        none = np.zeros(0)
        return GoalDays(
            days=(), usual=0.0, has_two=True, counts=none, means=none, within=np.nan,
            rows=0, rarer=0, excess=0.0, below=0, under=0.0, over=0.0,
        )  # fmt: skip
    values = rows["label"].value_counts(sort=True)
    usual = float(values.sort("count", "label", descending=True)["label"][0])
    rows = rows.with_columns((pl.col("label") - usual).alias("excess"), (pl.col("label") != usual).alias("rarer"))
    rows = rows.with_columns((pl.col("excess") < 0).alias("below"), pl.col("excess").clip(upper_bound=0).alias("under"))
    each = rows.group_by("day", "unit", maintain_order=True).agg(
        pl.len().cast(pl.Float64).alias("rows"), *(pl.col(name).sum().cast(pl.Float64) for name in _SUMMED)
    )
    kinds = each.group_by("day", "rows", *_SUMMED).agg(pl.len().cast(pl.Int64).alias("units"))
    found = kinds.sort("day", "rows", *_SUMMED).partition_by("day", as_dict=True)
    first, last = rows["day"].min(), rows["day"].max()
    assert isinstance(first, date)
    assert isinstance(last, date)
    dates = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    by_day = {day: (len(frame), frame["label"].mean()) for (day,), frame in rows.group_by("day")}
    spread = (pl.col("label") - pl.col("label").mean().over("day")).pow(2).mean().sqrt()
    return GoalDays(
        days=tuple(_alike(found.get((day,), kinds.clear())) for day in dates),
        usual=usual,
        has_two=len(values) <= 2,
        counts=np.array([by_day.get(day, (0, 0.0))[0] for day in dates], dtype=np.float64),
        means=np.array([by_day.get(day, (0, np.nan))[1] for day in dates], dtype=np.float64),
        within=rows.select(spread).item(),
        rows=rows.height,
        rarer=int(rows["rarer"].sum()),
        excess=float(rows["excess"].sum()),
        below=int(rows["below"].sum()),
        under=float(rows["under"].sum()),
        over=float(rows["excess"].clip(lower_bound=0).sum()),
    )


def replayed(past: GoalDays, shares: FloatArray, runs: int, rng: np.random.Generator) -> Arms:
    """Equal arms on the days to come (runs, days), of which the candidate answers `shares` (days,), each in [0, 1].

    Past days are drawn whole, in runs of neighbours (Politis and Romano 1992), and the units of each split by chance.
    """
    n, length = len(past.days), run_length(len(past.days))
    starts = rng.integers(0, n, size=(runs, -(-len(shares) // length)))
    drawn = ((starts[:, :, None] + np.arange(length)) % n).reshape(runs, -1)[:, : len(shares)]
    kinds = max(1, sum(day.units.size for day in past.days))
    splits = max(FEWEST_SPLITS, min(MOST_SPLITS, DRAWS // kinds))
    chosen = rng.integers(0, splits, size=drawn.shape)
    found = np.empty((8, *drawn.shape))
    for share in np.unique(shares):
        at = shares == share
        found[:, :, at] = _split(past, float(share), splits, rng)[:, drawn[:, at], chosen[:, at]]
    rows, rarer, excess, below, under, live_rows, live_rarer, live_excess = found
    return Arms(
        rows=rows, rarer=rarer, excess=excess, below=below, under=under,
        live_rows=live_rows, live_rarer=live_rarer, live_excess=live_excess,
    )  # fmt: skip


def reach(past: GoalDays, effect: float) -> float:
    """As much of an effect on the mean label as the labels have room for: no rate falls below 0 or rises above 1."""
    if not past.rarer:
        return 0.0
    if not _is_moved_by_rows(past):
        return effect
    growing, shrinking = _sides(past, effect)
    most = (growing.mean - growing.total / past.rows) + shrinking.total / past.rows
    return math.copysign(min(abs(effect), most), effect)


def moved(past: GoalDays, arms: Arms, effect: float, rng: np.random.Generator) -> Arms:
    """The same days with a candidate whose mean label is higher by `effect` on average, as far as `reach` allows.

    Where most rows have the usual label, more of them have one on the side of the effect, and as much fewer, in
    proportion, one on the other side; else every label is moved.
    """
    effect = reach(past, effect)
    if not effect:
        return arms
    if not _is_moved_by_rows(past):
        return msgspec.structs.replace(arms, excess=arms.excess + effect * arms.rows)
    growing, shrinking = _sides(past, effect)
    needed = abs(effect) * past.rows
    growth = needed / (growing.total + shrinking.total)
    if growth > 1 and growing.total:  # nothing is left on the other side
        growth = (needed - shrinking.total) / growing.total
    lost = min(1.0, growth)
    sources = past.rows - growing.rows - shrinking.rows * (1 - lost)  # rows that can come to the growing side
    gained = min(1.0, growth * growing.rows / sources)
    above, over = arms.rarer - arms.below, arms.excess - arms.under
    if effect >= 0:
        went, came = _exchange(arms.below, arms.rows - arms.rarer, lost, gained, rng)
        below, under = arms.below - went, _without(arms.under, arms.below, went)
        above, over = above + came, over + came * growing.mean
    else:
        went, came = _exchange(above, arms.rows - arms.rarer, lost, gained, rng)
        over, above = _without(over, above, went), above - went
        below, under = arms.below + came, arms.under - came * growing.mean
    return msgspec.structs.replace(arms, rarer=above + below, excess=over + under, below=below, under=under)


class _Side(msgspec.Struct, frozen=True, kw_only=True):
    """Rows whose label lies on one side of the usual one, and how far away in sum, 0 or more."""

    rows: int
    total: float

    @property
    def mean(self) -> float:
        """How far away one of them is; 0 where there are none."""
        return self.total / self.rows if self.rows else 0.0


def _sides(past: GoalDays, effect: float) -> tuple[_Side, _Side]:
    """The side that grows with an effect, and the one that shrinks."""
    above = _Side(rows=past.rarer - past.below, total=past.over)
    below = _Side(rows=past.below, total=-past.under)
    return (above, below) if effect >= 0 else (below, above)


def _exchange(
    shrinking: FloatArray, usual: FloatArray, lost: float, gained: float, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Rows that leave the shrinking side for the usual label, and rows that then come to the growing side."""
    went = rng.binomial(shrinking.astype(np.int64), lost)
    return went, rng.binomial(usual.astype(np.int64) + went, gained)


def _without(total: FloatArray, rows: FloatArray, went: IntArray) -> FloatArray:
    """The sum over rows when so many of them, of average size, have gone."""
    left: FloatArray = total * (1 - went / np.maximum(rows, 1.0))
    return left


_SUMMED = ("rarer", "excess", "below", "under")
_SCHEMA = {"day": pl.Date, "unit": pl.String, "label": pl.Float64}


def _labels(day: date, frame: pl.DataFrame) -> pl.DataFrame:
    units = [name for name in UNIT if name in frame.columns]
    found = frame.select(
        pl.lit(day, pl.Date).alias("day"),
        pl.coalesce(units).cast(pl.String).alias("unit"),
        pl.col("label").cast(pl.Float64).fill_nan(None),  # NaN is no label, as where models are trained
    )
    return found.drop_nulls("label")


def _alike(kinds: pl.DataFrame) -> Alike:
    return Alike(**{name: kinds[name].to_numpy() for name in ("units", "rows", *_SUMMED)})


def _split(past: GoalDays, share: float, splits: int, rng: np.random.Generator) -> FloatArray:
    """Each day split so often: the numbers of `Arms`, (8, days, splits)."""
    found = np.zeros((8, len(past.days), splits))
    for at, day in enumerate(past.days):
        figures = np.stack([day.rows, day.rarer, day.excess, day.below, day.under])
        came = rng.binomial(day.units, share, size=(splits, day.units.size))
        found[:5, at] = figures @ came.T
        found[5:, at] = (figures[:3] @ day.units)[:, None] - found[:3, at]
    return found


def _is_moved_by_rows(past: GoalDays) -> bool:
    return past.rarer * 2 <= past.rows
