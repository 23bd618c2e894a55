"""How good orders are: lists of rows (one per query, user, session), each ordered by its answers.

Every metric is one value per list; rows with the same answer may stand in any order, and count by the mean over all of
them (McSherry and Najork 2008). A list in which nothing is relevant has no right order: its value is NaN, it is
left out of means, and how many there were is said (`Mean.undefined`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Lists:
    """Rows ordered list by list, within a list from the highest answer to the lowest. Made by `lists`.

    Which of the rows with the same answer stands first says nothing; here the less relevant do.
    """

    relevance: FloatArray
    """(n,), at least 0; above 0 is relevant."""
    scores: FloatArray
    """(n,)"""
    starts: IntArray
    """Where each list begins, (lists,)."""
    rank: IntArray
    """Place within its list, (n,), from 1."""
    order: IntArray
    """Where each row stood before, (n,)."""

    @property
    def relevant(self) -> FloatArray:
        """How many rows of each list are relevant, (lists,)."""
        return self.total((self.relevance > 0).astype(np.float64))

    def total(self, values: FloatArray) -> FloatArray:
        """Sums of a value per row (n,) over each list, (lists,)."""
        return np.add.reduceat(values, self.starts) if self.starts.size else np.empty(0)

    def most(self, values: FloatArray) -> FloatArray:
        """The largest of a value per row (n,) in each list, (lists,)."""
        return np.maximum.reduceat(values, self.starts) if self.starts.size else np.empty(0)

    def running(self, values: FloatArray) -> FloatArray:
        """Sums of a value per row (n,) over the row and those before it in its list, (n,)."""
        summed = np.cumsum(values)
        return summed - np.repeat((summed - values)[self.starts], _sizes(self))

    def defined(self, values: FloatArray) -> FloatArray:
        """Values per list (lists,), NaN for those without anything relevant."""
        return np.where(self.relevant > 0, values, np.nan)

    def each_row(self, values: FloatArray) -> FloatArray:
        """For each row, as the rows stood before, the value of its list: (n,) from (lists,)."""
        return self.as_before(np.repeat(values, _sizes(self)))

    def as_before(self, values: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
        """Values per row (n,) as the rows stood before."""
        found = np.empty_like(values)
        found[self.order] = values
        return found

    def tied_places(self) -> tuple[IntArray, IntArray]:
        """The first and the last place of the rows with the same answer, each (n,) as the rows stood before."""
        starts = _tie_starts(self)
        first = np.repeat(self.rank[starts], np.diff(np.append(starts, self.rank.size)))
        return self.as_before(first), self.as_before(self.rank[_tie_ends(self)])


@dataclass(frozen=True)
class Mean:
    """The mean of a metric over lists."""

    value: float
    """NaN where it is defined for no list."""
    lists: int
    """How many lists it rests on."""
    undefined: int
    """How many were left out, because nothing in them is relevant."""


def lists(relevance: FloatArray, scores: FloatArray, groups: npt.NDArray[np.generic]) -> Lists:
    """Rows (n,) as lists: `groups` (n,) says which list a row is in, in any order. O(n log n).

    Raises ValueError for arrays of different lengths, NaN, and relevance below 0.
    """
    if not relevance.shape == scores.shape == groups.shape:
        raise ValueError("relevance, scores and groups need one value per row each")
    if np.isnan(scores).any() or not (relevance >= 0).all() or np.isinf(relevance).any():
        raise ValueError("scores must not be NaN, and relevance must be a number of at least 0")
    _, codes = np.unique(groups, return_inverse=True)
    order = np.lexsort((relevance, -scores, codes))
    codes = codes[order]
    starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if codes.size else np.empty(0, dtype=np.int64)
    rank = np.arange(codes.size) - np.repeat(starts, np.diff(np.append(starts, codes.size))) + 1
    return Lists(relevance[order].astype(np.float64), scores[order].astype(np.float64), starts, rank, order)


def ndcg(ordered: Lists, k: int | None = None) -> FloatArray:
    """Normalised discounted cumulative gain at `k` per list, (lists,), in [0, 1]; NaN where nothing is relevant.

    Sum of relevance / log2(rank + 1) over the first k, over that of the best order (Järvelin and Kekäläinen 2002). Rows
    with the same answer share the mean of their relevance, as in scikit-learn (McSherry and Najork 2008).

    >>> one = lists(np.array([3.0, 2.0, 0.0]), np.array([0.2, 0.9, 0.5]), np.zeros(3))
    >>> ndcg(one).round(4).tolist()
    [0.8212]
    """
    _at_least_one(k)
    worth = _worth(ordered, k)
    best = np.lexsort((-ordered.relevance, _codes(ordered)))
    ideal = ordered.total(ordered.relevance[best] * worth)
    got = ordered.total(_mean_of_ties(ordered, ordered.relevance) * worth)
    return ordered.defined(np.divide(got, ideal, out=np.zeros_like(got), where=ideal > 0))


def discounts(ordered: Lists, k: int | None = None) -> FloatArray:
    """What a relevance of 1 adds to the gain at `k` of the list, for each row as the rows stood before, (n,).

    1 / log2(rank + 1) in the first k places, 0 after them; rows with the same answer share the mean.

    >>> discounts(lists(np.zeros(3), np.array([0.2, 0.9, 0.5]), np.zeros(3)), 2).round(4).tolist()
    [0.0, 1.0, 0.6309]
    """
    _at_least_one(k)
    return ordered.as_before(_mean_of_ties(ordered, _worth(ordered, k)))


def average_precision(ordered: Lists) -> FloatArray:
    """Average precision per list, (lists,), in [0, 1]; its mean is MAP. NaN where nothing is relevant.

    Mean over the relevant rows of the precision at their answer, rows with the same answer counting as one step, as in
    scikit-learn.

    >>> average_precision(lists(np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.5, 0.1]), np.zeros(3))).round(4).tolist()
    [0.8333]
    """
    hit = (ordered.relevance > 0).astype(np.float64)
    ends = _tie_ends(ordered)
    hits = np.cumsum(hit) - np.repeat((np.cumsum(hit) - hit)[ordered.starts], _sizes(ordered))
    precision = hits[ends] / ordered.rank[ends]
    relevant = ordered.relevant
    return ordered.defined(ordered.total(hit * precision) / np.maximum(relevant, 1.0))


def reciprocal_rank(ordered: Lists) -> FloatArray:
    """1 / rank of the first relevant row per list, (lists,), in (0, 1]; its mean is MRR. NaN where there is none.

    >>> reciprocal_rank(lists(np.array([0.0, 1.0, 1.0]), np.array([0.9, 0.5, 0.1]), np.zeros(3))).tolist()
    [0.5]
    """
    best = ordered.total(_chance_of_first(ordered) / ordered.rank)
    return ordered.defined(best)


def precision_at(ordered: Lists, k: int) -> FloatArray:
    """Share of the first `k` places that hold a relevant row, (lists,), in [0, 1]; a place that a short list has not
    holds none. NaN where nothing is relevant.

    >>> precision_at(lists(np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.5, 0.1]), np.zeros(3)), 2).tolist()
    [0.5]
    """
    _at_least_one(k)
    return ordered.defined(_hits(ordered, k) / k)


def recall_at(ordered: Lists, k: int) -> FloatArray:
    """Share of the relevant rows that stand among the first `k`, (lists,), in [0, 1]. NaN where nothing is relevant.

    >>> recall_at(lists(np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.5, 0.1]), np.zeros(3)), 2).tolist()
    [0.5]
    """
    _at_least_one(k)
    return ordered.defined(_hits(ordered, k) / np.maximum(ordered.relevant, 1.0))


def hit_at(ordered: Lists, k: int) -> FloatArray:
    """1 where any relevant row stands among the first `k`, else 0, (lists,); its mean is the hit rate. NaN where
    nothing is relevant.

    >>> hit_at(lists(np.array([0.0, 0.0, 1.0]), np.array([0.9, 0.5, 0.1]), np.zeros(3)), 2).tolist()
    [0.0]
    """
    _at_least_one(k)
    if not ordered.starts.size:
        return np.empty(0)
    starts, sizes, relevant = _ties(ordered)
    within = np.clip(k + 1 - ordered.rank[starts], 0, sizes)
    # Of each run of ties, how likely it is that nothing relevant stands in its places among the first k.
    none = np.where(within > sizes - relevant, 0.0, np.exp(_ways(sizes - relevant, within) - _ways(sizes, within)))
    return ordered.defined(1 - np.multiply.reduceat(none, np.searchsorted(starts, ordered.starts)))


def mean(values: FloatArray) -> Mean:
    """The mean of a metric over the lists (lists,) for which it is defined.

    >>> mean(np.array([0.5, 1.0, np.nan]))
    Mean(value=0.75, lists=2, undefined=1)
    """
    known = values[~np.isnan(values)]
    return Mean(float(known.mean()) if known.size else math.nan, int(known.size), int(values.size - known.size))


AT_K: Mapping[str, Callable[[Lists, int], FloatArray]] = {
    "ndcg": ndcg,
    "precision": precision_at,
    "recall": recall_at,
    "hit_rate": hit_at,
}
"""Metrics that look at the first k places; of all of them more is better."""
WHOLE: Mapping[str, Callable[[Lists], FloatArray]] = {"map": average_precision, "mrr": reciprocal_rank}
"""Metrics that look at whole lists; of all of them more is better."""


def _hits(ordered: Lists, k: int) -> FloatArray:
    hit = _mean_of_ties(ordered, (ordered.relevance > 0).astype(np.float64))
    return ordered.total(np.where(ordered.rank <= k, hit, 0.0))


def _chance_of_first(ordered: Lists) -> FloatArray:
    """How likely each place is that of the first relevant row of its list, (n,) as ordered."""
    starts, sizes, relevant = _ties(ordered)
    of = np.repeat(np.arange(starts.size), sizes)
    hit = (ordered.relevance > 0).astype(np.float64)
    before = (ordered.running(hit) - hit)[starts] if starts.size else np.empty(0)
    place, size, among = np.arange(of.size) - starts[of], sizes[of], relevant[of]
    possible = (among > 0) & (before[of] == 0) & (place <= size - among)
    after = np.where(possible, size - place - 1, 0)
    return np.where(possible, np.exp(_ways(after, np.where(possible, among - 1, 0)) - _ways(size, among)), 0.0)


def _ties(ordered: Lists) -> tuple[IntArray, IntArray, IntArray]:
    """Where each run of rows of one list with the same answer begins, its rows, and how many of them are relevant."""
    starts = _tie_starts(ordered)
    relevant = np.add.reduceat((ordered.relevance > 0).astype(np.int64), starts) if starts.size else starts
    return starts, np.diff(np.append(starts, ordered.rank.size)), relevant


def _ways(n: IntArray, k: IntArray) -> FloatArray:
    """Logarithm of in how many ways k of n can be chosen; 0 <= k <= n, else NaN or infinite."""
    ways: FloatArray = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return ways


def _sizes(ordered: Lists) -> IntArray:
    return np.diff(np.append(ordered.starts, ordered.rank.size))


def _codes(ordered: Lists) -> IntArray:
    return np.repeat(np.arange(ordered.starts.size), _sizes(ordered))


def _tie_starts(ordered: Lists) -> IntArray:
    """Where each run of rows of one list with the same answer begins."""
    differs = (ordered.scores[1:] != ordered.scores[:-1]) | (ordered.rank[1:] == 1)
    return np.flatnonzero(np.append(True, differs)) if ordered.rank.size else np.empty(0, dtype=np.int64)


def _tie_ends(ordered: Lists) -> IntArray:
    """The last row of each row's run, (n,)."""
    starts = _tie_starts(ordered)
    sizes = np.diff(np.append(starts, ordered.rank.size))
    return np.repeat(starts + sizes - 1, sizes)


def _worth(ordered: Lists, k: int | None) -> FloatArray:
    return np.where(ordered.rank <= (k or math.inf), 1 / np.log2(ordered.rank + 1.0), 0.0)


def _mean_of_ties(ordered: Lists, values: FloatArray) -> FloatArray:
    starts = _tie_starts(ordered)
    sizes = np.diff(np.append(starts, ordered.rank.size))
    return np.repeat(np.add.reduceat(values, starts) / sizes, sizes) if starts.size else values


def _at_least_one(k: int | None) -> None:
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
