"""How unusual is a shift? P-values from units of evidence, days or blocks, and from rows where no unit is named."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from holdfast.library.columns import LEAST_ROWS, NONE_SEEN, gap, p_of_rows
from holdfast.library.pictures import share
from holdfast.library.texts import Texts
from holdfast.stats.conformal import p_value, standardised
from holdfast.stats.histogram import Edges, Histogram

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DEALS = 499
"""How often blocks are dealt anew to the two sides."""

BY_ROWS = (
    "every row was taken for an observation of its own. Rows of one day, user or batch are not, so true p-values are "
    "larger: name a unit with time= or block="
)


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """P-values of columns, and what they rest on."""

    by_column: Mapping[str, float]
    """Corrected for all columns, by the most unusual of them (Westfall and Young 1993); for rows by Bonferroni."""
    alone: Mapping[str, float]
    """Of each column's gap by itself."""
    joint: float | None
    """Of all columns together: that the most unusual of them is so unusual. None where nothing was measured."""
    least: float
    """The smallest p-value that could be."""
    assumes: str
    """What they assume, as a sentence."""
    seen: Mapping[str, str] = field(default_factory=dict)
    """By column, its gap where it was judged, beside what is usual."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Columns that have no value, or none that the reference had, where they were judged; and why, as a sentence."""
    is_calibrated: bool
    """They rest on units that were named, not on rows."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Counts of columns by unit of evidence, the reference's first."""

    edges: Mapping[str, Edges]
    cells: Mapping[str, IntArray]
    """By column (units, k + 3), as `Histogram.counted`."""
    changed: Mapping[str, str]
    """Columns that could not be counted on both sides, and why."""
    split: int
    """How many units are the reference's."""
    labels: tuple[str, ...] = field(default=())
    """What each unit is called."""
    texts: Mapping[str, Texts] = field(default_factory=dict)
    """Of the columns of text."""

    def sides(self, name: str) -> tuple[Histogram, Histogram]:
        """The histograms of the whole reference and the whole current table."""
        cells = self.cells[name]
        return Histogram(cells[: self.split].sum(axis=0)), Histogram(cells[self.split :].sum(axis=0))


def of_nothing() -> Surprise:
    """No column was measured."""
    return Surprise(by_column={}, alone={}, joint=None, least=0.0, assumes="no column was measured", is_calibrated=True)


def of_rows(counted: Counted, names: Sequence[str]) -> Surprise:
    """P-values that take every row for an observation of its own."""
    pairs = {name: p_of_rows(counted.edges[name], *counted.sides(name)) for name in names}
    tests = sum(int(np.isfinite(p)) for pair in pairs.values() for p in pair)
    corrected = {name: min(1.0, float(np.nanmin(pair)) * tests) for name, pair in pairs.items()}
    return Surprise(
        by_column=corrected,
        alone={name: float(pair[0]) for name, pair in pairs.items()},
        joint=min(corrected.values(), default=None),
        least=0.0,
        assumes=BY_ROWS,
        is_calibrated=False,
    )


def of_windows(counted: Counted, names: Sequence[str], days: int) -> Surprise:
    """Conformal p-values of the newest `days` of the current table among disjoint windows of the reference as long.

    Each window of the reference is scored against the rest of the reference, the newest against all of it.
    """
    history = counted.split // days
    newest = np.arange(len(counted.labels))[-days:]
    windows = [np.arange(counted.split - (k + 1) * days, counted.split - k * days) for k in range(history)]
    scores = np.full((history + 1, len(names), 3), np.nan)
    for j, name in enumerate(names):
        cells = counted.cells[name]
        total = cells[: counted.split].sum(axis=0)
        for i, window in enumerate(windows):
            inside = cells[window].sum(axis=0)
            scores[i, j] = (
                *_scores(total - inside, inside, counted.edges[name]),
                _unseen(total - inside, inside, counted.edges[name]),
            )
        inside = cells[newest].sum(axis=0)
        scores[-1, j] = (*_scores(total, inside, counted.edges[name]), _unseen(total, inside, counted.edges[name]))
    assumes = (
        f"the newest {_days(days)} ({_span(counted, newest)}) among {history} disjoint windows of the reference as "
        "long, which are taken to be exchangeable: a season that the reference has not seen counts as a change"
    )
    by_column, joint, crowd = _corrected(scores, names, standing(scores.reshape(history + 1, -1)))
    where = f"the newest {_days(days)}"
    return Surprise(
        by_column=by_column,
        alone=_alone(scores, names),
        joint=joint,
        least=1 / (history + 1),
        assumes=assumes,
        seen={name: _seen_of(scores[:, j], where, crowd.get(name, 0)) for j, name in enumerate(names)},
        broken={name: why for j, name in enumerate(names) if (why := _broken(scores[:, j], where))},
        is_calibrated=True,
    )


def of_blocks(counted: Counted, names: Sequence[str], unit: str, seed: int) -> Surprise:
    """P-values from dealing the blocks anew to the two sides, 499 times; the first deal is the truth."""
    units = len(counted.labels)
    now = units - counted.split
    truth = np.arange(units) >= counted.split
    random = np.random.default_rng(seed)
    deals = np.stack([truth, *(random.permutation(truth) for _ in range(DEALS))]).astype(np.float64)
    scores = np.full((len(deals), len(names), 2), np.nan)
    for j, name in enumerate(names):
        cells = counted.cells[name]
        dealt = np.rint(deals @ cells.astype(np.float64)).astype(np.int64)
        rest = cells.sum(axis=0) - dealt
        for i in range(len(deals)):
            scores[i, j] = _scores(rest[i], dealt[i], counted.edges[name])
    assumes = (
        f"{counted.split} blocks of the reference and {now} current ones ({unit}) are exchangeable and independent of "
        "each other, however much rows within one depend"
    )
    least = max(1 / len(deals), 1 / math.comb(units, now))
    scores = np.roll(scores, -1, axis=0)
    # Dealing anew makes every column's scores alike in shape, so that deviations compare; windows of a year are not.
    by_column, joint, _ = _corrected(scores, names, standardised(scores.reshape(len(deals), -1)))
    what = "{:.3g} apart, {:.3g} at most when blocks are dealt anew"
    gaps = scores[:, :, 0]
    return Surprise(
        by_column=by_column,
        alone=_alone(scores, names),
        joint=joint,
        least=least,
        assumes=assumes,
        seen={
            name: what.format(gaps[-1, j], np.nanmax(gaps[:-1, j]))
            for j, name in enumerate(names)
            if np.isfinite(gaps[-1, j]) and np.isfinite(gaps[:-1, j]).any()
        },
        is_calibrated=True,
    )


def series(counted: Counted, name: str) -> FloatArray:
    """The gap of each unit from the reference without it, (units,); NaN where it has fewer than 30 values."""
    cells, edges = counted.cells[name], counted.edges[name]
    total = cells[: counted.split].sum(axis=0)
    return np.array(
        [_scores(total - one if i < counted.split else total, one, edges)[0] for i, one in enumerate(cells)]
    )


def standing(scores: FloatArray) -> FloatArray:
    """How unusual each score is among those of its own column, (units, measures); higher is more, NaN stays NaN.

    By its conformal rank in the column, so that no column's tail or season drowns another; equal ranks by how far the
    score exceeds all others of its column. The order alone counts. A symmetric function of the units, so that
    exchangeable units stay exchangeable.

    >>> standing(np.array([[0.1, 0.9], [0.2, 0.1], [0.9, 0.2]])).tolist()
    [[1.0, 3.0], [2.0, 1.0], [3.0, 2.0]]
    """
    ranks, beyond = np.full(scores.shape, np.nan), np.full(scores.shape, np.nan)
    for j, column in enumerate(scores.T):
        known = np.flatnonzero(~np.isnan(column))
        values = column[known]
        ordered = np.sort(values)
        if not known.size:
            continue
        ranks[known, j] = np.searchsorted(ordered, values, side="left") / known.size
        others = np.where(values == ordered[-1], ordered[-2:][0], ordered[-1])
        beyond[known, j] = values - others
    places = np.flatnonzero(~np.isnan(ranks))
    keys = np.column_stack([ranks.ravel()[places], beyond.ravel()[places]])
    found = np.full(scores.size, np.nan)
    if places.size:
        found[places] = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1) + 1.0
    return found.reshape(scores.shape)


def _corrected(
    scores: FloatArray, names: Sequence[str], unusual: FloatArray
) -> tuple[dict[str, float], float | None, dict[str, int]]:
    """P-values of columns and of all together, each against the most unusual score of every unit in any column.

    `scores` (units, columns, measures), the unit under test last; `unusual` (units, columns * measures), higher is
    more. The third is, by column, how many units stand out as much in some column.
    """
    known = ~np.isnan(unusual)
    highest = np.where(known, unusual, -np.inf).max(axis=1)
    highest = np.where(known.any(axis=1), highest, np.nan)
    tested = unusual[-1].reshape(scores.shape[1:])
    corrected, crowd = {}, {}
    for name, several in zip(names, tested, strict=True):
        if not np.isnan(several).all():
            most = float(np.nanmax(several))
            corrected[name] = p_value(most, highest[:-1])
            crowd[name] = int(np.count_nonzero(highest[:-1] >= most))
    joint = None if np.isnan(highest[-1]) else p_value(float(highest[-1]), highest[:-1])
    return corrected, joint, crowd


def _alone(scores: FloatArray, names: Sequence[str]) -> dict[str, float]:
    """The p-value of each column's gap by itself."""
    gaps = scores[:, :, 0]
    return {
        name: p_value(float(gaps[-1, j]), gaps[:-1, j]) for j, name in enumerate(names) if not np.isnan(gaps[-1, j])
    }


def _seen_of(scores: FloatArray, where: str, crowd: int) -> str:
    """What decides about a column, from its scores (units, 3) and how many windows stand out as much in any column."""
    most = np.where(np.isnan(scores[:-1]), -np.inf, scores[:-1]).max(axis=0, initial=-np.inf)
    if not np.isfinite(most).any():
        return ""
    now, said = scores[-1], []
    if not np.isnan(now[0]) and np.isfinite(most[0]):
        said.append(f"{where} {now[0]:.3g} apart, those of the reference {most[0]:.3g} at most")
    if now[1] > most[1] and now[1] >= 0.001:
        said.append(f"in {where} the missing share is {share(now[1])} off, in those of the reference {_most(most[1])}")
    if now[2] > most[2] and now[2] >= 0.001:
        said.append(
            f"{share(now[2])} of the values of {where} are unlike all of the reference, in its own {_most(most[2])}"
        )
    is_first = bool((now > most).any())
    if is_first and crowd:
        said.append(f"yet {crowd} of {len(scores) - 1} windows of the reference stand out as much in some column")
    return ", ".join(said)


def _broken(scores: FloatArray, where: str) -> str:
    """Why a column is broken in the newest window, from its scores (units, 3); empty where no more than unusual."""
    most = np.where(np.isnan(scores[:-1]), 0.0, scores[:-1]).max(axis=0, initial=0.0)
    if scores[-1, 1] == 1.0 > most[1]:
        return f"every value of {where} is missing, none was in the reference"
    if scores[-1, 2] == 1.0 > most[2]:
        said = NONE_SEEN.format(f"every value of {where}")
        return f"{said}; in windows of the reference that holds for {_most(most[2])}"
    return ""


def _most(value: float) -> str:
    return f"{share(max(0.0, value))} at most"


def _unseen(reference: IntArray, current: IntArray, edges: Edges) -> float:
    """Share of values beyond what the reference has: outside its range, or a text it never has. NaN for too few."""
    values, filled = int(current[:-1].sum()), np.flatnonzero(reference[:-1])
    if values < LEAST_ROWS or not filled.size:
        return np.nan
    if edges.is_category:
        return int(current[:-1][reference[:-1] == 0].sum()) / values
    return int(current[: filled[0]].sum() + current[filled[-1] + 1 : -1].sum()) / values


def _scores(reference: IntArray, current: IntArray, edges: Edges) -> tuple[float, float]:
    """The gap and how far the missing shares are apart; NaN where too little is there."""
    rows, before = int(current.sum()), int(reference.sum())
    if not rows or not before:
        return np.nan, np.nan
    apart = abs(current[-1] / rows - reference[-1] / before)
    if min(rows - current[-1], before - reference[-1]) < LEAST_ROWS:
        return np.nan, float(apart)
    return gap(reference[:-1], current[:-1], edges), float(apart)


def _days(days: int) -> str:
    return "day" if days == 1 else f"{days} days"


def _span(counted: Counted, units: IntArray) -> str:
    first, last = counted.labels[int(units[0])], counted.labels[int(units[-1])]
    return first if first == last else f"{first} to {last}"
