"""What a drift is worth to a model: columns ranked by estimated loss, not by distance.

Two questions, because a column that moved has either told the truth or lied. *The world moved*: then rows come
from cells that are harder or easier, and the mean loss changes with the shares (`mix`). *The column lies* (a unit, a
swap, a dead feature): then the model answers p where it would have answered p*, and a proper loss says what that costs
(`rank_columns`). Neither needs a label of the current window.
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
"""With fewer labelled rows the model is believed as it is."""


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
    """Estimated rise of the mean loss if the column lies, in units of the loss; NaN without a current row."""
    interval: Interval
    """At 95 %, by a block bootstrap over the current days: how far other such days would move the estimate. How far the
    estimate is from the true cost it does not say; docs/why/impact.md does."""
    usual: float
    """The same on days of the reference, whose columns move without lying."""

    @property
    def excess(self) -> float:
        """Cost above what is usual: what columns are ranked by."""
        return self.cost - self.usual


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Columns by what their drift is worth, and all together."""

    impacts: tuple[Impact, ...]
    """Worst first."""
    joint: Impact
    """All columns mapped back at once; less than the sum where columns make up for each other, more where they are
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


def cost_of(loss: Loss, given: FloatArray, right: FloatArray, truth: FloatArray | None = None) -> FloatArray:
    """Expected extra loss of answering `given` (n,) where the model would have answered `right` (n,). (n,).

    `truth` (n,) is what the label is expected to be where the model answers `right`: `right` itself when the model is
    believed (the cost is then at least 0), else `recalibrated` on labels that have come. A model that answers too
    high gains by a fault that lowers it, and the cost is below 0.

    Brier and squared error: (p - t)² - (p* - t)². Log loss: the difference of t ln(1/p) + (1 - t) ln(1/(1 - p)), in
    nats (Gneiting and Raftery 2007). Absolute error, whose cost depends on how the truth scatters: |p - p*|, the most
    that it can be; see `absolute_cost`. Raises ValueError for another loss.

    >>> cost_of("brier", np.array([0.9]), np.array([0.4])).round(2).tolist()
    [0.25]
    >>> cost_of("brier", np.array([0.3]), np.array([0.4]), np.array([0.2])).round(2).tolist()
    [-0.03]
    """
    expected = right if truth is None else truth
    if loss in ("brier", "squared_error"):
        return np.square(given - expected) - np.square(right - expected)
    if loss == "log_loss":
        p, q, t = (np.clip(each, CLIP, 1 - CLIP) for each in (given, right, expected))
        return np.asarray(t * np.log(q / p) + (1 - t) * np.log((1 - q) / (1 - p)), dtype=np.float64)
    if loss == "absolute_error":
        return np.abs(given - right)
    raise ValueError(f"no cost is known for the loss '{loss}': brier, log_loss, squared_error, absolute_error")


def absolute_cost(given: FloatArray, right: FloatArray, residuals: FloatArray) -> FloatArray:
    """Expected extra absolute error of answering `given` (n,) where the model would have answered `right` (n,). (n,).

    `residuals` (m,), label less answer on reference rows, say how the truth scatters about `right`: the cost of
    d = p - p* is the mean of |e - d| - |e|, in [-|d|, |d|]. Raises ValueError without any residual. O((n + m) log m).

    >>> absolute_cost(np.array([3.0]), np.array([1.0]), np.array([-1.0, 0.0, 1.0])).round(3).tolist()
    [1.333]
    """
    if not residuals.size:
        raise ValueError("the cost in absolute error needs residuals: labels less answers of labelled reference rows")
    e, apart = np.sort(residuals), given - right
    sums = np.concatenate([[0.0], np.cumsum(e)])
    below = np.searchsorted(e, apart, side="right")
    total = apart * (2 * below - e.size) + sums[-1] - 2 * sums[below]
    return np.asarray((total - np.abs(e).sum()) / e.size, dtype=np.float64)


def recalibrated(answers: FloatArray, labels: FloatArray) -> tuple[float, float]:
    """Intercept a and slope b such that a + b x answer is the mean label, by least squares (after Cox 1958).

    `answers` and `labels` (n,), rows with NaN in either left out. (0, 1), no change, for fewer than 30 rows or answers
    that are all equal.

    >>> answers = np.linspace(0.1, 0.9, 40)
    >>> [round(each, 3) for each in recalibrated(answers, 0.05 + 0.5 * answers)]
    [0.05, 0.5]
    """
    known = ~(np.isnan(answers) | np.isnan(labels))
    x, y = answers[known], labels[known]
    if x.size < LEAST_ROWS or np.ptp(x) <= 1e-12 * float(np.abs(x).max()):
        return 0.0, 1.0
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / np.square(x - x.mean()).sum())
    return float(y.mean() - slope * x.mean()), slope


def mapped_back(current: Values, reference: Values, *, seed: int = 0) -> Values:
    """The column as it would be had it the reference's distribution: (n,) of the same type.

    Numbers keep their rank: a value at quantile u becomes the reference's value at u, so a change of unit is undone
    exactly. Values that are equal share their span of quantiles at random (Rüschendorf 2009), so a dead column becomes
    a draw from the reference. Categories and missing values have no rank: as many rows as can keep theirs, and the
    surplus is drawn from what there is too little of (maximal coupling). Values that agree with the reference in
    distribution come back almost unchanged. Either side empty: returned as it is.

    >>> celsius = np.array([0.0, 10.0, 20.0, 30.0])
    >>> mapped_back(celsius, celsius * 1.8 + 32).tolist()
    [32.0, 50.0, 68.0, 86.0]
    """
    if not len(current) or not len(reference):
        return current
    random = np.random.default_rng(seed)
    if not _is_number(reference):
        return _coupled(current, reference, random)
    now, old = np.asarray(current, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    back = now.copy()
    missing, before = np.isnan(now), np.isnan(old)
    known = np.sort(old[~before])
    if not known.size:
        return np.full(now.size, np.nan)
    share, usual = float(missing.mean()), float(before.mean())
    revived = missing & (random.random(now.size) >= (usual / share if share else 1.0))
    lost = ~missing & (random.random(now.size) < ((usual - share) / (1 - share) if usual > share else 0.0))
    present = ~missing
    if present.any():
        back[present] = _at_rank(now[present], known, random)
    back[revived] = known[random.integers(0, known.size, int(revived.sum()))]
    back[lost] = np.nan
    return back


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
    """Columns by what it costs if their drift is a fault: how far the answers move when a column is mapped back.

    `current` and `reference` hold the model's columns, `current_day` (n,) and `reference_day` (m,) a day per row.
    `columns` are those to look at, all when empty. Per column, its values are mapped back (`mapped_back`) and `answer`
    is called on rows that differ in that column only; the cost is the mean of `cost_of`. The same is done to as many
    of the newest days of the reference as the current window has, against the days before them: a column that moves
    with the weather costs something there too, and is ranked by what is above that.

    `reference_label` (m,), NaN where it has not come, makes the estimate much better (measured in
    docs/why/impact.md): a model that has been wrong of late may even gain by a fault. Take the newest labelled days as
    the reference. It tells a fault from a true move of the world no better than history does: where the world moved,
    the answer is right and `mix` says what that is worth. Mapping one column at a time breaks what it had to do with
    the others, so a dead column is priced a little too high. Calls `answer` 2 x (columns + 2) times, and once on the
    labelled reference, on at most `most_rows` rows each.
    """
    names = list(columns) or list(current)
    cost = _pricing(reference, reference_label, answer, loss, seed=seed, most_rows=most_rows)
    now = _costs(current, current_day, reference, names, answer, cost, seed=seed, most_rows=most_rows)
    known = np.unique(reference_day)
    days = min(len(np.unique(current_day)), max(1, known.size // 3))
    newest = np.isin(reference_day, known[known.size - days :])
    inside = {name: values[newest] for name, values in reference.items()}
    others = {name: values[~newest] for name, values in reference.items()}
    then = _costs(inside, reference_day[newest], others, names, answer, cost, seed=seed, most_rows=most_rows)
    found = [
        Impact(
            column=name,
            cost=_mean(*now[name]),
            interval=block_bootstrap_mean(*now[name], seed=seed),
            usual=_mean(*then[name]),
        )
        for name in (*names, "")
    ]
    ranked = sorted(found[:-1], key=lambda one: (-one.excess if math.isfinite(one.excess) else math.inf, one.column))
    return Ranking(impacts=tuple(ranked), joint=found[-1])


Days = tuple[FloatArray, FloatArray]
"""Mean cost and rows per day, (days,) each."""
Cost = Callable[[FloatArray, FloatArray], FloatArray]
"""Extra loss per row of one answer where another was right: (n,), (n,) -> (n,)."""


def _pricing(
    reference: Mapping[str, Values],
    label: FloatArray | None,
    answer: Answer,
    loss: Loss,
    *,
    seed: int,
    most_rows: int,
) -> Cost:
    """How an answer that moved is charged, given what the labels of the reference say about the model."""
    labelled = np.empty(0, dtype=np.int64) if label is None else np.flatnonzero(~np.isnan(label))
    if label is None or labelled.size < LEAST_ROWS:
        return lambda given, right: cost_of(loss, given, right)
    chosen = _some(labelled, seed=seed, most=most_rows)
    answers = answer({name: values[chosen] for name, values in reference.items()})
    if loss == "absolute_error":
        residuals = label[chosen] - answers
        return lambda given, right: absolute_cost(given, right, residuals)
    a, b = recalibrated(answers, label[chosen])
    return lambda given, right: cost_of(loss, given, right, a + b * right)


def _costs(
    current: Mapping[str, Values],
    day: IntArray,
    reference: Mapping[str, Values],
    names: Sequence[str],
    answer: Answer,
    cost: Cost,
    *,
    seed: int,
    most_rows: int,
) -> dict[str, Days]:
    """Cost per day of each column, and under the empty name of all of them together."""
    back = {name: mapped_back(current[name], reference[name], seed=seed + k) for k, name in enumerate(names)}
    chosen = _some(np.arange(day.size), seed=seed, most=most_rows)
    if not chosen.size:
        return dict.fromkeys((*names, ""), (np.empty(0), np.empty(0)))
    rows = {name: values[chosen] for name, values in current.items()}
    changed = {name: values[chosen] for name, values in back.items()}
    days, code = np.unique(day[chosen], return_inverse=True)
    count = np.bincount(code, minlength=days.size).astype(np.float64)
    given = answer(rows)
    costs = {}
    for name in (*names, ""):
        right = answer({**rows, **({name: changed[name]} if name else changed)})
        costs[name] = (np.bincount(code, weights=cost(given, right), minlength=days.size) / count, count)
    return costs


def _some(rows: IntArray, *, seed: int, most: int) -> IntArray:
    """At most so many of the rows, in order."""
    if rows.size <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _mean(means: FloatArray, weights: FloatArray) -> float:
    return float(np.average(means, weights=weights)) if means.size else math.nan


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
