"""The task of ordering lists: losses, their bounds, metrics, and what is refused."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from holdfast.core.targets import LIST, end_to_end, labels_of, listed, lists_of, mean_loss, taken, target_of, with_lists
from holdfast.errors import DataError, UnknownKind
from holdfast.stats.bootstrap import block_bootstrap_metric
from holdfast.tasks.classification import Classification
from holdfast.tasks.ranking import METRICS, Ranking

TASK = Ranking()
LISTS = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 3.0])
RELEVANCE = np.array([0.0, 2.0, 1.0, 1.0, 0.0, 0.0])
SCORES = np.array([0.9, 0.5, 0.1, 0.3, 0.2, 0.7])


def targets(relevance: object, of: object) -> np.ndarray:
    return np.column_stack([np.asarray(relevance, dtype=float), np.asarray(of, dtype=float)])


def by_hand(scores: np.ndarray, relevance: np.ndarray, k: int | None = None) -> float:
    """NDCG of one list, by scikit-learn."""
    return float(ndcg_score([relevance], [scores], k=k))


def test_a_row_has_the_loss_of_its_list() -> None:
    loss = TASK.loss("ndcg_loss", targets(RELEVANCE, LISTS), SCORES)
    first = 1 - by_hand(SCORES[:3], RELEVANCE[:3])
    assert loss == pytest.approx([first] * 3 + [0.0] * 2 + [np.nan], nan_ok=True)


def test_a_list_without_anything_relevant_says_nothing() -> None:
    y = targets([0.0, 0.0], [1, 1])
    for name in TASK.losses:
        loss = TASK.loss(name, y, np.array([0.1, 0.9]))
        assert np.isnan(loss).all()
        assert np.isnan(mean_loss(loss))
    both = targets([0.0, 0.0, 1.0, 0.0], [1, 1, 2, 2])
    assert mean_loss(TASK.loss("ndcg_loss", both, np.array([0.1, 0.9, 0.9, 0.1]))) == 0.0


def test_equal_scores_earn_what_a_random_order_does() -> None:
    y = targets([1.0, 0.0, 0.0], [1, 1, 1])
    each = [1 - by_hand(np.array(order, dtype=float), y[:, 0]) for order in itertools.permutations(range(3))]
    assert TASK.loss("ndcg_loss", y, np.full(3, TASK.trivial(y)))[0] == pytest.approx(np.mean(each))


def test_metrics_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(5)
    relevance = random.integers(0, 4, size=(40, 12)).astype(float)
    relevance[:, 0] = 1.0
    scores = random.normal(size=(40, 12))
    found = TASK.metrics(targets(relevance.ravel(), np.repeat(np.arange(40), 12)), scores.ravel())
    assert found["ndcg"] == pytest.approx(ndcg_score(relevance, scores))
    for k in (1, 3, 5, 10):
        assert found[f"ndcg_{k}"] == pytest.approx(ndcg_score(relevance, scores, k=k))
    assert found["map"] == pytest.approx(label_ranking_average_precision_score(relevance > 0, scores))
    order = np.argsort(-scores, axis=1)
    hits = np.take_along_axis(relevance > 0, order, axis=1)
    assert found["mrr"] == pytest.approx((1 / (hits.argmax(axis=1) + 1)).mean())
    assert found["precision_3"] == pytest.approx(hits[:, :3].mean())
    assert found["recall_3"] == pytest.approx((hits[:, :3].sum(axis=1) / hits.sum(axis=1)).mean())
    assert found["hit_rate_1"] == pytest.approx(hits[:, 0].mean())
    assert found["irrelevant_lists"] == 0.0
    assert set(found) == set(METRICS)


def test_metrics_leave_lists_out_in_which_nothing_is_relevant() -> None:
    found = TASK.metrics(targets(RELEVANCE, LISTS), SCORES)
    assert found["irrelevant_lists"] == pytest.approx(1 / 3)
    assert found["ndcg"] == pytest.approx((by_hand(SCORES[:3], RELEVANCE[:3]) + 1) / 2)
    assert np.isnan(TASK.metrics(targets([0.0], [1]), np.array([0.3]))["ndcg"])
    assert all(np.isnan(value) for value in TASK.metrics(targets([], []), np.array([])).values())


small_lists = st.integers(2, 5).flatmap(
    lambda size: st.tuples(
        st.lists(st.integers(0, 3), min_size=size, max_size=size),
        st.lists(st.integers(0, 3), min_size=size, max_size=size),
    )
)


@pytest.mark.slow
@given(lists=st.lists(small_lists, min_size=1, max_size=3), name=st.sampled_from(TASK.losses))
def test_no_relevance_takes_a_difference_beyond_its_bounds(lists: list[tuple[list[int], list[int]]], name: str) -> None:
    of = np.repeat(np.arange(len(lists), dtype=float), [len(one) for one, _ in lists])
    candidate, live = (np.concatenate([np.array(each[i], dtype=float) for each in lists]) for i in (0, 1))
    low, high = TASK.loss_bounds(name, candidate, live, of)
    for number, (one, _) in enumerate(lists):
        rows = of == number
        for relevance in itertools.product((0, 1, 2), repeat=len(one)):
            y = targets(relevance, of[rows])
            difference = TASK.loss(name, y, candidate[rows])[0] - TASK.loss(name, y, live[rows])[0]
            if not any(relevance):
                assert np.isnan(difference)
                continue
            assert low[rows][0] - 1e-9 <= difference <= high[rows][0] + 1e-9


@given(small_lists, st.sampled_from(["ndcg_loss", "ndcg_10_loss"]))
def test_bounds_of_ndcg_are_reached(pair: tuple[list[int], list[int]], name: str) -> None:
    candidate, live = (np.array(scores, dtype=float) for scores in pair)
    of = np.zeros(len(live))
    low, high = TASK.loss_bounds(name, candidate, live, of)
    found = []
    for relevance in itertools.product((0, 1), repeat=len(live)):
        y = targets(relevance, of)
        if any(relevance):
            found.append(TASK.loss(name, y, candidate)[0] - TASK.loss(name, y, live)[0])
    assert (min([*found, 0.0]), max([*found, 0.0])) == pytest.approx((low[0], high[0]))


@pytest.mark.parametrize("name", TASK.losses)
def test_the_same_order_cannot_differ(name: str) -> None:
    low, high = TASK.loss_bounds(name, SCORES * 2 + 1, SCORES, LISTS)
    assert low == pytest.approx(0.0)
    assert high == pytest.approx(0.0)


def test_what_is_no_relevance_is_refused() -> None:
    with pytest.raises(DataError, match="at least 0"):
        TASK.target(pl.Series("clicks", [0.0, -1.0]))
    with pytest.raises(DataError, match="as numbers"):
        TASK.target(pl.Series("clicks", ["many"]))
    assert TASK.target(pl.Series("clicks", [None, True, False])).tolist()[1:] == [1.0, 0.0]
    assert TASK.refuses_label(-1.0)
    assert TASK.refuses_label("a")
    assert not TASK.refuses_label(3.0)


def test_labels_that_the_task_cannot_take_are_missing_and_the_others_stand() -> None:
    labels = pl.Series("label", [1.0, -1.0, None, 0.5, float("inf")])
    assert taken(TASK, labels).to_list() == [1.0, None, None, 0.5, None]
    assert taken(Classification(), pl.Series("label", [0.0, 0.5, 1.0, 2.0])).to_list() == [0.0, None, 1.0, None]
    fine = pl.Series("label", [0.0, 2.0])
    assert taken(TASK, fine) is fine


def test_an_unknown_loss_or_metric_names_the_near_miss() -> None:
    with pytest.raises(UnknownKind, match="ndcg_1"):
        TASK.higher_is_better("ndcg_11")
    with pytest.raises(UnknownKind, match="ndcg_loss"):
        TASK.loss("ndcg", targets(RELEVANCE, LISTS), SCORES)
    assert TASK.higher_is_better("map")
    assert not TASK.higher_is_better("rr_loss")


def test_a_list_is_the_rows_of_a_unit_or_else_of_a_request() -> None:
    rows = pl.DataFrame(
        {
            "label": [1.0, 0.0, 2.0, 0.0],
            "unit": ["a", None, "a", None],
            "request_id": ["r1", "r2", "r3", "r2"],
            "key": ["k1", "k2", "k3", "k4"],
        }
    )
    named = with_lists(TASK, rows)
    unit, request, *others = named[LIST]
    assert others == [unit, request]
    assert unit == "a"
    assert request not in ("a", "r2"), "what a unit may be called"
    y = target_of(TASK, named)
    assert labels_of(y).tolist() == [1.0, 0.0, 2.0, 0.0]
    of = lists_of(y)
    assert of is not None
    assert of[0] == of[2] != of[1] == of[3]
    assert with_lists(TASK, rows.drop("unit", "request_id"))[LIST].n_unique() == 4


def test_rows_without_lists_have_plain_targets() -> None:
    assert listed(np.array([1.0]), pl.DataFrame({"label": [1.0]})).tolist() == [1.0]
    assert lists_of(np.array([1.0])) is None
    assert end_to_end([np.array([1.0]), np.array([2.0])]).tolist() == [1.0, 2.0]


def test_a_block_that_is_drawn_twice_is_two_blocks_of_lists() -> None:
    y, p = targets([0.0, 1.0], [1, 1]), np.array([0.9, 0.1])
    twice = TASK.metrics(end_to_end([y, y]), np.concatenate([p, p]))
    assert twice["ndcg"] == pytest.approx(TASK.metrics(y, p)["ndcg"])
    interval = block_bootstrap_metric([(y, p)] * 4, lambda y, p: TASK.metrics(y, p)["ndcg"], seed=1, join=end_to_end)
    assert interval == pytest.approx((twice["ndcg"], twice["ndcg"]))
