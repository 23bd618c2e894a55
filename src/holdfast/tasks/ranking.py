"""Ranking: answers a score that orders the rows of a list."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from holdfast.errors import DataError, UnknownKind
from holdfast.stats.ranking import (
    AT_K,
    WHOLE,
    FloatArray,
    Lists,
    discounts,
    lists,
    mean,
    ndcg,
    reciprocal_rank,
)

if TYPE_CHECKING:
    import polars as pl

K = (1, 3, 5, 10)
"""Places that metrics are given at."""
FIRST = 10
"""Places that `ndcg_10_loss` looks at."""

METRICS = {
    "ndcg": True,
    **{f"{name}_{k}": True for name in AT_K for k in K},
    **dict.fromkeys(WHOLE, True),
    "irrelevant_lists": False,
}
"""Metrics and whether higher is better."""

_VALUES: dict[str, Callable[[Lists], FloatArray]] = {
    "ndcg_loss": ndcg,
    "ndcg_10_loss": lambda ordered: ndcg(ordered, FIRST),
    "rr_loss": reciprocal_rank,
}


class Ranking:
    """Rows of a list, each with a relevance of at least 0; the output is a score, and higher stands first.

    Targets are (n, 2): relevance and list. A row's loss is that of the list that it stands in, so that a list counts
    by its rows: `ndcg_loss`, 1 - NDCG (Järvelin and Kekäläinen 2002); `ndcg_10_loss`, the same of the first ten
    places; `rr_loss`, 1 - 1 / place of the first relevant row. All are in [0, 1]; that of a list in which nothing is
    relevant is NaN, as no order of it is right or wrong. Metrics are means over the lists in which something is
    relevant.
    """

    name = "ranking"
    output = "score"
    classes: tuple[str, ...] = ()
    losses = tuple(_VALUES)
    errors = ()
    is_listwise = True

    def target(self, label: "pl.Series") -> FloatArray:
        """Relevance as float64 (n,), NaN where missing. Raises DataError for text, infinities and what is below 0."""
        if not (label.dtype.is_numeric() or str(label.dtype) in ("Boolean", "Null")):
            raise DataError(
                f"label '{label.name}' is {label.dtype}; ranking takes relevance as numbers: convert it at its source"
            )
        y: FloatArray = label.cast(float).to_numpy().astype(np.float64, copy=False)
        wrong = np.isinf(y) | (y < 0)
        if wrong.any():
            raise DataError(
                f"label '{label.name}' is {y[wrong][0]:g} in row {int(np.argmax(wrong))}; relevance is a number of at "
                "least 0, where 0 is not relevant"
            )
        return y

    def refuses_label(self, value: float | str) -> str:
        """What is below 0 or not finite is refused."""
        return "" if not isinstance(value, str) and np.isfinite(value) and value >= 0 else "a number of at least 0"

    def loss(self, name: str, y: FloatArray, output: FloatArray) -> FloatArray:
        """Loss (n,) of targets (n, 2), for each row that of its list, NaN where nothing in it is relevant.

        Raises UnknownKind for a loss it has not.

        All rows must have a label: an order is judged by the rows that have one.
        """
        if name not in _VALUES:
            raise UnknownKind("losses", name, self.losses)
        ordered = _ordered(y, output)
        return ordered.each_row(1 - _VALUES[name](ordered))

    def loss_bounds(
        self, name: str, candidate: FloatArray, live: FloatArray, of: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest difference loss(candidate) - loss(live) per row (n,), whatever is relevant; `of` (n,) are
        the lists.

        Both losses are 1 - a share that is linear in the relevance over the best there is. Of lists as they may be
        relevant, the extremes are those in which the rows that gain most from one of the orders are equally relevant
        and all others are not; so the bounds of NDCG are reached. Of reciprocal ranks the row that gains most alone.
        """
        if name not in _VALUES:
            raise UnknownKind("losses", name, self.losses)
        of = np.zeros(len(live)) if of is None else of
        if name == "rr_loss":
            return _reciprocal_bounds(candidate, live, of)
        k = FIRST if name == "ndcg_10_loss" else None
        one, other = (discounts(_unlabelled(scores, of), k) for scores in (candidate, live))
        high = _most(other - one, of, k)
        return -_most(one - other, of, k), high

    def metrics(self, y: FloatArray, output: FloatArray) -> dict[str, float]:
        """All metrics of targets (n, 2); NaN where no list has anything relevant.

        `ndcg` is of whole lists, `ndcg_5` of the first five places; so with `precision`, `recall` and `hit_rate`
        (whether anything relevant stands there). `map` is the mean of average precision, `mrr` that of reciprocal
        ranks. `irrelevant_lists` is the share of lists in which nothing is relevant, which all others leave out.
        """
        if not len(y):
            return dict.fromkeys(METRICS, float("nan"))
        ordered = _ordered(y, output)
        found = {"ndcg": mean(ndcg(ordered)).value}
        found |= {f"{name}_{k}": mean(of(ordered, k)).value for name, of in AT_K.items() for k in K}
        found |= {name: mean(of(ordered)).value for name, of in WHOLE.items()}
        return found | {"irrelevant_lists": float((ordered.relevant == 0).mean())}

    def higher_is_better(self, metric: str) -> bool:
        """Direction of a metric. Raises UnknownKind with the near miss."""
        if metric in _VALUES:
            return False
        if metric not in METRICS:
            raise UnknownKind("metrics", metric, (*_VALUES, *METRICS))
        return METRICS[metric]

    def trivial(self, y: FloatArray) -> float:
        """0: equal scores, which order nothing."""
        return 0.0


def _ordered(y: FloatArray, output: FloatArray) -> Lists:
    return lists(y[:, 0], output, y[:, 1])


def _unlabelled(scores: FloatArray, of: FloatArray) -> Lists:
    return lists(np.zeros(len(scores)), scores, of)


def _most(gain: FloatArray, of: FloatArray, k: int | None) -> FloatArray:
    """Per row (n,) what its list can gain at most, at least 0: the m largest gains by the m first discounts."""
    by_gain = _unlabelled(gain, of)
    place = np.arange(1, int(by_gain.rank.max(initial=0)) + 1)
    best = np.cumsum(np.where(place <= (k or len(place)), 1 / np.log2(place + 1.0), 0.0))
    return by_gain.each_row(np.maximum(by_gain.most(by_gain.running(by_gain.scores) / best[by_gain.rank - 1]), 0.0))


def _reciprocal_bounds(candidate: FloatArray, live: FloatArray, of: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows with the same answer may stand in any order: the first place and the last of each bound its rank."""
    (first, last), (live_first, live_last) = (_unlabelled(scores, of).tied_places() for scores in (candidate, live))
    by_list = _unlabelled(np.zeros(len(of)), of)

    def most(gain: FloatArray) -> FloatArray:
        return by_list.each_row(np.maximum(by_list.most(gain[by_list.order]), 0.0))

    return -most(1 / first - 1 / live_last), most(1 / live_first - 1 / last)
