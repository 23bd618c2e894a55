"""Past days as an experiment would have found them. In: labelled rows by day. Out: two arms, split by chance anew."""

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

    @property
    def labelled(self) -> int:
        """Days that have rows."""
        return int((self.counts > 0).sum())


class Arms(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate and live version on days, all of one shape; rows, rows with the rarer labels, and excess as above."""

    rows: FloatArray
    rarer: FloatArray
    excess: FloatArray
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
            days=(), usual=0.0, has_two=True, counts=none, means=none, within=np.nan, rows=0, rarer=0, excess=0.0
        )
    values = rows["label"].value_counts(sort=True)
    usual = float(values.sort("count", "label", descending=True)["label"][0])
    rows = rows.with_columns((pl.col("label") - usual).alias("excess"), (pl.col("label") != usual).alias("rarer"))
    each = rows.group_by("day", "unit", maintain_order=True).agg(
        pl.len().cast(pl.Float64).alias("rows"), pl.col("rarer").sum().cast(pl.Float64), pl.col("excess").sum()
    )
    kinds = each.group_by("day", "rows", "rarer", "excess").agg(pl.len().cast(pl.Int64).alias("units"))
    found = kinds.sort("day", "rows", "rarer", "excess").partition_by("day", as_dict=True)
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
    found = np.empty((6, *drawn.shape))
    for share in np.unique(shares):
        at = shares == share
        found[:, :, at] = _split(past, float(share), splits, rng)[:, drawn[:, at], chosen[:, at]]
    rows, rarer, excess, live_rows, live_rarer, live_excess = found
    return Arms(
        rows=rows, rarer=rarer, excess=excess, live_rows=live_rows, live_rarer=live_rarer, live_excess=live_excess
    )


def reach(past: GoalDays, effect: float) -> float:
    """As much of an effect on the mean label as the labels have room for: no rate falls below 0 or rises above 1."""
    if not _is_moved_by_rows(past):
        return effect
    step, rarer = past.excess / past.rarer, past.rarer / past.rows
    low, high = sorted((-rarer * step, (1 - rarer) * step))
    return min(max(effect, low), high)


def moved(past: GoalDays, arms: Arms, effect: float, rng: np.random.Generator) -> Arms:
    """The same days with a candidate whose mean label is higher by `effect` on average, as far as `reach` allows.

    Where most rows have the usual label, some more or fewer of them have another one; else every label is moved.
    """
    effect = reach(past, effect)
    if not _is_moved_by_rows(past):
        return msgspec.structs.replace(arms, excess=arms.excess + effect * arms.rows)
    step, rarer = past.excess / past.rarer, past.rarer / past.rows
    more = effect / step  # of all rows, those that change to or from the usual label
    if more >= 0:
        came = rng.binomial((arms.rows - arms.rarer).astype(np.int64), min(1.0, more / (1 - rarer)))
        return msgspec.structs.replace(arms, rarer=arms.rarer + came, excess=arms.excess + came * step)
    went = rng.binomial(arms.rarer.astype(np.int64), min(1.0, -more / rarer))
    kept = 1 - went / np.maximum(arms.rarer, 1.0)
    return msgspec.structs.replace(arms, rarer=arms.rarer - went, excess=arms.excess * kept)


_SCHEMA = {"day": pl.Date, "unit": pl.String, "label": pl.Float64}


def _labels(day: date, frame: pl.DataFrame) -> pl.DataFrame:
    units = [name for name in UNIT if name in frame.columns]
    known = frame.filter(pl.col("label").is_not_null())
    return known.select(
        pl.lit(day, pl.Date).alias("day"),
        pl.coalesce(units).cast(pl.String).alias("unit"),
        pl.col("label").cast(pl.Float64),
    )


def _alike(kinds: pl.DataFrame) -> Alike:
    units, rows, rarer, excess = (kinds[name].to_numpy() for name in ("units", "rows", "rarer", "excess"))
    return Alike(units=units, rows=rows, rarer=rarer, excess=excess)


def _split(past: GoalDays, share: float, splits: int, rng: np.random.Generator) -> FloatArray:
    """Each day split so often: the six numbers of `Arms`, (6, days, splits)."""
    found = np.zeros((6, len(past.days), splits))
    for at, day in enumerate(past.days):
        figures = np.stack([day.rows, day.rarer, day.excess])
        came = rng.binomial(day.units, share, size=(splits, day.units.size))
        found[:3, at] = figures @ came.T
        found[3:, at] = (figures @ day.units)[:, None] - found[:3, at]
    return found


def _is_moved_by_rows(past: GoalDays) -> bool:
    return past.rarer * 2 <= past.rows
