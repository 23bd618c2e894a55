"""What a drift is worth to a model: columns ranked by estimated loss, not by distance.

Two questions, because a column that moved has either told the truth or lied. *The world moved*: then rows come
from cells that are harder or easier, and the mean loss changes with the shares (`mix`). *The column lies* (a unit, a
swap, a dead feature): then older rows, whose labels have come, say what it costs: they are answered with the column as
it is now (`rank_columns`). Neither needs a label of the current window.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.stats.bootstrap import UNKNOWN, Interval, block_bootstrap_mean, resample, widening

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
TextArray = npt.NDArray[np.object_]
Values = FloatArray | TextArray
"""A column: floats (n,) with NaN for missing, or objects (n,) of str and None."""
Answer = Callable[[Mapping[str, Values]], FloatArray]
"""A model: columns of n rows in, answers (n,) out. Called with the columns that it was given, some of them mapped."""
Loss = Literal["brier", "log_loss", "squared_error", "absolute_error"]

CLIP = 1e-6
"""Log loss takes probabilities no closer to 0 or 1 than this."""
LEAST_ROWS = 30
"""With fewer labelled rows the model is believed: what it answers without the fault stands for the label."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What a shift of shares between cells is worth."""

    change: float
    """Estimated change of the mean loss, in units of the loss; NaN when nothing is known."""
    interval: Interval
    """At 95 %, by a block bootstrap over the days of both sides."""
    unknown_share: float
    """Share of current rows in cells that the reference has no loss for, counted at the mean loss. In [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Impact:
    """What the drift of one column is worth."""

    column: str
    cost: float
    """Estimated rise of the mean loss if the column lies and its values keep their order, in units of the loss; NaN
    without a current row."""
    interval: Interval
    """For the true cost on the current days, at 95 %: from the least to the most that it can be whether values keep
    their order or have nothing to do with the row any more, in this column and in the others, each widened for how
    days and labels scatter. (nan, nan) without labels. How often it holds: docs/why/impact.md."""
    usual: float
    """The estimate on days of the reference, whose columns move without lying; NaN where it has one day only."""

    @property
    def excess(self) -> float:
        """Cost above what is usual, where that is known: what columns are ranked by."""
        return self.cost - (0.0 if math.isnan(self.usual) else self.usual)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Columns by what their drift is worth, and all together."""

    impacts: tuple[Impact, ...]
    """Worst first."""
    joint: Impact
    """All columns at once; less than the sum where columns make up for each other, more where they are
    broken together, as swapped ones are."""


def mix(reference_rows: IntArray, reference_loss: FloatArray, current_rows: IntArray, *, seed: int = 0) -> Mix:
    """What a change of shares is worth: sum over cells of (current share - reference share) x mean loss in the cell.

    `reference_rows` and `reference_loss` (days, cells) are rows with a label and their summed loss; `current_rows`
    (days, cells) needs no label. So it is a sum of buckets, and cells may be of one column or of several together.
    It is right when the loss within a cell stays what it was. A cell without loss in the reference counts at the mean
    loss, which says nothing for it or against it: `unknown_share` says how many rows that concerns.

    >>> loss = np.array([[1.0, 8.0], [1.0, 8.0]])
    >>> worth = mix(np.array([[10, 10], [10, 10]]), loss, np.array([[5, 15], [5, 15]]))
    >>> round(worth.change, 3)
    0.175
    """
    rows, loss, now = (np.asarray(each, dtype=np.float64) for each in (reference_rows, reference_loss, current_rows))
    if not rows.sum() or not now.sum():
        return Mix(change=math.nan, interval=UNKNOWN, unknown_share=math.nan)
    change = float(_mix(rows.sum(axis=0)[None], loss.sum(axis=0)[None], now.sum(axis=0)[None])[0])
    unseen = float(now.sum(axis=0)[rows.sum(axis=0) == 0].sum() / now.sum())
    if len(rows) < 2 or len(now) < 2:
        return Mix(change=change, interval=UNKNOWN, unknown_share=unseen)
    old = resample(len(rows), seed=seed, replicates=1000)
    new = resample(len(now), seed=seed + 1, replicates=1000)
    drawn = _mix(rows[old].sum(axis=1), loss[old].sum(axis=1), now[new].sum(axis=1))
    return Mix(change=change, interval=_around(change, drawn, min(len(rows), len(now))), unknown_share=unseen)


def cost_of(loss: Loss, given: FloatArray, right: FloatArray, truth: FloatArray) -> FloatArray:
    """Extra loss of answering `given` (n,) where the model would have answered `right` (n,). (n,).

    `truth` (n,) is the label, or what it is expected to be. Below 0 where a fault brings the answer nearer to it.
    Brier, squared error and log loss (in nats) are linear in the label but for a term that both answers share, so an
    expected label gives the expected cost (Gneiting and Raftery 2007). For the absolute error it gives the most that
    it can be where `right` is expected. Raises ValueError for another loss.

    >>> cost_of("brier", np.array([0.9]), np.array([0.4]), np.array([0.0])).round(2).tolist()
    [0.65]
    >>> cost_of("brier", np.array([0.3]), np.array([0.4]), np.array([0.2])).round(2).tolist()
    [-0.03]
    """
    if loss in ("brier", "squared_error"):
        return np.square(given - truth) - np.square(right - truth)
    if loss == "log_loss":
        p, q = (np.clip(each, CLIP, 1 - CLIP) for each in (given, right))
        return np.asarray(truth * np.log(q / p) + (1 - truth) * np.log((1 - q) / (1 - p)), dtype=np.float64)
    if loss == "absolute_error":
        return np.abs(given - truth) - np.abs(right - truth)
    raise ValueError(f"no cost is known for the loss '{loss}': brier, log_loss, squared_error, absolute_error")


def mapped(values: Values, onto: Values, *, seed: int = 0) -> Values:
    """The column as it would be had it the distribution of `onto`: (n,) of the same type.

    Numbers keep their rank: a value at quantile u becomes the value of `onto` at u, so a change of unit is done
    exactly. Values that are equal share their span of quantiles at random (Rüschendorf 2009), so a dead column becomes
    a draw from `onto`. Categories and missing values have no rank: as many rows as can keep theirs, and the
    surplus is drawn from what there is too little of (maximal coupling). Values that agree with `onto` in
    distribution stay almost unchanged. Either side empty: returned as it is.

    >>> celsius = np.array([0.0, 10.0, 20.0, 30.0])
    >>> mapped(celsius, celsius * 1.8 + 32).tolist()
    [32.0, 50.0, 68.0, 86.0]
    """
    if not len(values) or not len(onto):
        return values
    random = np.random.default_rng(seed)
    if not _is_number(onto):
        return _coupled(values, onto, random)
    now, wanted = np.asarray(values, dtype=np.float64), np.asarray(onto, dtype=np.float64)
    found = now.copy()
    missing, lacking = np.isnan(now), np.isnan(wanted)
    known = np.sort(wanted[~lacking])
    if not known.size:
        return np.full(now.size, np.nan)
    share, right = float(missing.mean()), float(lacking.mean())
    revived = missing & (random.random(now.size) >= (right / share if share else 1.0))
    lost = ~missing & (random.random(now.size) < ((right - share) / (1 - share) if right > share else 0.0))
    present = ~missing
    if present.any():
        found[present] = _at_rank(now[present], known, random)
    found[revived] = known[random.integers(0, known.size, int(revived.sum()))]
    found[lost] = np.nan
    return found


def rank_columns(
    current: Mapping[str, Values],
    current_day: IntArray,
    reference: Mapping[str, Values],
    reference_day: IntArray,
    answer: Answer,
    loss: Loss,
    *,
    reference_label: FloatArray | None = None,
    columns: Sequence[str] = (),
    seed: int = 0,
    most_rows: int = 20_000,
) -> Ranking:
    """Columns by what it costs if their drift is a fault: what it would have cost on older rows.

    `current` and `reference` hold the model's columns, `current_day` (n,) and `reference_day` (m,) a day per row.
    `columns` are those to look at, all when empty; `reference_label` (m,) is NaN where it has not come. The reference's
    rows get the values of the current ones in all these columns (`mapped`), and per column the cost is how much lower
    the loss is once this one alone is as it was. Take the newest labelled days as the reference. Without labels the
    model is believed, which is worse, and no interval is known.

    What the distribution of a column cannot say is which row got which value. If values kept their order, as in
    another unit, a fault costs least; if they have nothing to do with the row, as in a swap of rows, most. The
    estimate is the former, the interval reaches over both. It assumes that labels have as much to do with the rows as
    in the reference. Whether the column lied or the world moved it cannot know: `usual` is what the newest third of
    the reference seems to cost the days before, and columns are ranked by what is above that.

    Calls `answer` at most 5 x (columns + 1) times on at most `most_rows` rows.
    """
    names = list(columns) or list(current)
    now = np.unique(current_day).size
    rows = _history(reference, reference_day, reference_label, answer, seed=seed, most_rows=most_rows)
    if not now or not rows.day.size:
        nothing = [Impact(column=name, cost=math.nan, interval=UNKNOWN, usual=math.nan) for name in (*names, "")]
        return Ranking(impacts=tuple(sorted(nothing[:-1], key=lambda one: one.column)), joint=nothing[-1])
    onto = {name: current[name] for name in names}
    costs = _costs(rows, onto, answer, loss, seed=seed, bounded=rows.is_labelled)
    known = np.unique(rows.day)
    newest = rows.day >= known[-max(1, known.size // 3)]
    lately = {name: rows.columns[name][newest] for name in names}
    usual = _costs(rows.only(~newest), lately, answer, loss, seed=seed, bounded=False)
    found = [
        Impact(
            column=name,
            cost=float(costs[name][0].mean()),
            interval=_reach(costs[name], rows.day, now, seed=seed) if rows.is_labelled else UNKNOWN,
            usual=float(usual[name][0].mean()) if usual[name][0].size else math.nan,
        )
        for name in (*names, "")
    ]
    ranked = sorted(found[:-1], key=lambda one: (-one.excess if math.isfinite(one.excess) else math.inf, one.column))
    return Ranking(impacts=tuple(ranked), joint=found[-1])


@dataclass(frozen=True, kw_only=True)
class _History:
    """Rows that faults are tried on: their columns, and for each its day and label, (n,)."""

    columns: Mapping[str, Values]
    day: IntArray
    truth: FloatArray
    """The labels; where they have not come what the model answered."""
    is_labelled: bool

    def only(self, chosen: npt.NDArray[np.bool_]) -> "_History":
        """Some of the rows."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return _History(columns=columns, day=self.day[chosen], truth=self.truth[chosen], is_labelled=self.is_labelled)


def _history(
    reference: Mapping[str, Values],
    day: IntArray,
    label: FloatArray | None,
    answer: Answer,
    *,
    seed: int,
    most_rows: int,
) -> _History:
    labelled = np.empty(0, dtype=np.int64) if label is None else np.flatnonzero(~np.isnan(label))
    is_labelled = labelled.size >= LEAST_ROWS
    chosen = _some(labelled if is_labelled else np.arange(day.size), seed=seed, most=most_rows)
    columns = {name: values[chosen] for name, values in reference.items()}
    if label is not None and is_labelled:
        truth = np.asarray(label[chosen], dtype=np.float64)
    else:
        truth = answer(columns) if chosen.size else np.empty(0)
    return _History(columns=columns, day=day[chosen], truth=truth, is_labelled=is_labelled)


def _costs(
    rows: _History, onto: Mapping[str, Values], answer: Answer, loss: Loss, *, seed: int, bounded: bool
) -> dict[str, list[FloatArray]]:
    """Cost per row (n,) of each column, and under the empty name of all of them: where all values keep their order;
    when `bounded` also where those of the column, of the others or of both are dealt out to any row."""
    if not rows.day.size:
        return {name: [np.empty(0)] for name in (*onto, "")}
    random = np.random.default_rng(seed)
    kept = {name: mapped(rows.columns[name], values, seed=seed + k) for k, (name, values) in enumerate(onto.items())}
    dealt: dict[str, Values] = {name: random.permutation(values) for name, values in kept.items()}

    def asked(changed: Mapping[str, Values]) -> FloatArray:
        return answer({**rows.columns, **changed})

    right = asked({})
    found: dict[str, list[FloatArray]] = {name: [] for name in (*onto, "")}
    for others, otherwise in ((kept, dealt), (dealt, kept))[: 1 + bounded]:
        broken = asked(others)
        found[""].append(cost_of(loss, broken, right, rows.truth))
        for name in onto:
            mended = asked({**others, name: rows.columns[name]})
            found[name].append(cost_of(loss, broken, mended, rows.truth))
            if bounded:
                other_way = asked({**others, name: otherwise[name]})
                found[name].append(cost_of(loss, other_way, mended, rows.truth))
    return found


def _reach(costs: Sequence[FloatArray], day: IntArray, now: int, *, seed: int) -> Interval:
    """From the lowest to the highest end of intervals for each of the costs (n,) on `now` other days.

    The mean of other days scatters too, so each is wider than that for the mean by sqrt(1 + days / now).
    """
    days, code = np.unique(day, return_inverse=True)
    count = np.bincount(code).astype(np.float64)
    ends = []
    for cost in costs:
        middle = float(cost.mean())
        interval = block_bootstrap_mean(np.bincount(code, weights=cost) / count, count, seed=seed)
        ends += [middle + (end - middle) * math.sqrt(1 + days.size / now) for end in interval]
    return min(ends), max(ends)


def _some(rows: IntArray, *, seed: int, most: int) -> IntArray:
    """At most so many of the rows, in order."""
    if rows.size <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _mix(rows: FloatArray, loss: FloatArray, now: FloatArray) -> FloatArray:
    """(replicates, cells) three times -> (replicates,)."""
    total = rows.sum(axis=1, keepdims=True)
    mean = loss.sum(axis=1, keepdims=True) / total
    within = np.where(rows > 0, loss / np.where(rows > 0, rows, 1.0), mean)
    return np.asarray(((now / now.sum(axis=1, keepdims=True) - rows / total) * within).sum(axis=1))


def _around(estimate: float, drawn: FloatArray, days: int) -> Interval:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    wider = widening(days, 0.95)
    return float(estimate + (low - estimate) * wider), float(estimate + (high - estimate) * wider)


def _is_number(values: Values) -> bool:
    return values.dtype.kind in "fiub"


def _at_rank(values: FloatArray, known: FloatArray, random: np.random.Generator) -> FloatArray:
    """The value of sorted `known` (m,) at each value's own quantile; equal values spread over their span."""
    order = np.sort(values)
    low, high = np.searchsorted(order, values, side="left"), np.searchsorted(order, values, side="right")
    single = high - low == 1
    u = np.where(single, (low + 0.5), low + random.random(values.size) * (high - low)) / values.size
    return np.asarray(known[np.minimum((u * known.size).astype(np.int64), known.size - 1)])


def _coupled(current: Values, reference: Values, random: np.random.Generator) -> TextArray:
    """Categories with the reference's shares, as many rows as possible keeping theirs."""
    names = {name: k for k, name in enumerate(dict.fromkeys([*reference, *current]))}
    values = np.array(list(names), dtype=object)
    now = np.array([names[value] for value in current])
    p = np.bincount([names[value] for value in reference], minlength=values.size) / len(reference)
    q = np.bincount(now, minlength=values.size) / len(current)
    keep = np.minimum(1.0, np.divide(p, q, out=np.ones_like(p), where=q > 0))
    moved = random.random(now.size) >= keep[now]
    lacking = np.maximum(p - q, 0.0)
    if moved.any() and lacking.sum() > 0:
        now[moved] = random.choice(values.size, size=int(moved.sum()), p=lacking / lacking.sum())
    back: Any = values[now]
    return np.asarray(back, dtype=object)
