from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from holdfast.stats.impact import (
    Ranking,
    Values,
    cost_of,
    mapped,
    mix,
    rank_columns,
)


class World:
    """Ten days of a hundred rows: the answer leans much on `temp`, a little on `wind`, not on `dust`."""

    def __init__(self, seed: int = 0, *, first: int = 0, days: int = 10) -> None:
        random = np.random.default_rng(seed)
        n = 100 * days
        self.day = np.repeat(np.arange(first, first + days), 100)
        self.columns: dict[str, Values] = {
            "temp": random.normal(60, 10, n),
            "wind": random.gamma(3, 3, n),
            "dust": random.normal(0, 1, n),
            "carrier": random.choice(["AA", "UA"], n).astype(object),
        }
        self.label = (random.random(n) < self.answer(self.columns)).astype(float)

    @staticmethod
    def answer(columns: Mapping[str, Values]) -> np.ndarray:
        temp = np.where(np.isnan(columns["temp"].astype(float)), 60.0, columns["temp"].astype(float))
        lean = (temp - 60) / 10 + 0.1 * (columns["wind"].astype(float) - 9) / 5 + 0.5 * (columns["carrier"] == "UA")
        return 1 / (1 + np.exp(-lean))

    def rank(self, *, is_labelled: bool = True, **changed: Values) -> Ranking:
        reference = World(1, days=30)
        return rank_columns(
            {**self.columns, **changed},
            self.day,
            reference.columns,
            reference.day,
            self.answer,
            "brier",
            reference_label=reference.label if is_labelled else None,
        )

    def cost(self, broken: Mapping[str, Values], mended: Mapping[str, Values]) -> float:
        """How much higher the loss is with some columns than with others in their place."""
        losses = [np.square(self.answer({**self.columns, **each}) - self.label).mean() for each in (broken, mended)]
        return float(losses[0] - losses[1])


def test_a_change_of_mix_is_worth_the_difference_of_shares_times_the_loss() -> None:
    rows, loss = np.array([[60, 40], [40, 60]]), np.array([[6.0, 20.0], [4.0, 30.0]])
    worth = mix(rows, loss, np.array([[25, 75], [25, 75]]))
    assert worth.change == pytest.approx((0.25 - 0.5) * 0.1 + (0.75 - 0.5) * 0.5)
    assert worth.unknown_share == 0.0
    assert worth.interval[0] <= worth.change <= worth.interval[1]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), cells=st.integers(1, 8))
def test_the_same_shares_are_worth_nothing_and_scale_does_not_matter(seed: int, cells: int) -> None:
    random = np.random.default_rng(seed)
    rows, loss = random.integers(1, 50, (5, cells)), random.random((5, cells))
    assert mix(rows, loss, 7 * rows).change == pytest.approx(0.0, abs=1e-12)
    now = random.integers(1, 50, (3, cells))
    assert mix(rows, loss, now).change == pytest.approx(mix(rows, loss, 10 * now).change)


def test_cells_that_the_reference_has_not_count_at_the_mean_and_are_said() -> None:
    worth = mix(np.array([[10, 0], [10, 0]]), np.array([[2.0, 0.0], [2.0, 0.0]]), np.array([[5, 15]]))
    assert worth.change == pytest.approx(0.0)
    assert worth.unknown_share == pytest.approx(0.75)
    assert np.isnan(worth.interval).all()
    assert np.isnan(mix(np.zeros((2, 2), int), np.zeros((2, 2)), np.ones((2, 2), int)).change)


def test_the_cost_in_log_loss_is_the_relative_entropy() -> None:
    p, q = np.array([0.2, 0.5, 0.9]), np.array([0.4, 0.5, 0.1])
    expected = [entropy([b, 1 - b], [a, 1 - a]) for a, b in zip(p, q, strict=True)]
    assert cost_of("log_loss", p, q, q) == pytest.approx(expected)


@pytest.mark.parametrize("loss", ["brier", "log_loss"])
def test_the_cost_is_the_mean_extra_loss_when_labels_are_drawn_as_said(loss: str) -> None:
    random = np.random.default_rng(0)
    given_, right, truth = 0.3, 0.4, 0.55
    y = (random.random(400_000) < truth).astype(float)

    def measured(p: float) -> float:
        each = np.square(p - y) if loss == "brier" else -(y * np.log(p) + (1 - y) * np.log(1 - p))
        return float(each.mean())

    cost = cost_of(loss, np.array([given_]), np.array([right]), np.array([truth]))[0]
    assert cost == pytest.approx(measured(given_) - measured(right), abs=0.002)


def test_the_cost_in_absolute_error_is_the_difference_of_both_errors() -> None:
    given_, right, truth = np.array([3.0, 1.0]), np.array([1.0, 1.0]), np.array([0.0, 5.0])
    assert cost_of("absolute_error", given_, right, truth).tolist() == [2.0, 0.0]
    with pytest.raises(ValueError, match="no cost is known for the loss 'hinge'"):
        cost_of("hinge", given_, right, truth)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0), offset=st.floats(-1000, 1000))
def test_a_change_of_unit_is_undone_exactly(seed: int, scale: float, offset: float) -> None:
    values = np.random.default_rng(seed).permutation(200).astype(float)
    assert np.array_equal(mapped(values * scale + offset, values), values)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.sampled_from([1.0, 2.0, 3.0, np.nan]), min_size=1, max_size=50), dead=st.floats(-5, 5))
def test_what_values_become_are_values_of_the_other_side(values: list[float], dead: float) -> None:
    reference = np.array(values)
    back = mapped(np.array([dead] * 40 + [np.nan] * 10), reference)
    assert {each for each in back.tolist() if each == each} <= {each for each in values if each == each}


def test_a_dead_column_becomes_a_draw_from_the_reference() -> None:
    reference = np.random.default_rng(0).normal(size=5000)
    back = mapped(np.full(5000, 7.0), reference)
    assert np.quantile(back, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(reference, [0.1, 0.5, 0.9]), abs=0.1)


def test_missing_values_above_the_usual_are_filled_and_the_usual_ones_stay() -> None:
    random = np.random.default_rng(0)
    reference = np.where(random.random(5000) < 0.1, np.nan, random.normal(size=5000))
    current = np.where(random.random(5000) < 0.6, np.nan, random.normal(size=5000))
    assert np.isnan(mapped(current, reference)).mean() == pytest.approx(0.1, abs=0.02)
    assert np.isnan(mapped(random.normal(size=5000), reference)).mean() == pytest.approx(0.1, abs=0.02)


def test_categories_keep_what_they_can_and_a_renamed_one_comes_back() -> None:
    random = np.random.default_rng(0)
    reference = random.choice(["AA", "UA", None], 5000, p=[0.3, 0.6, 0.1]).astype(object)
    current = np.where(reference == "UA", "United", reference).astype(object)
    back = mapped(current, reference)
    kept = np.array([one in ("AA", None) for one in current])
    assert (back[kept] == current[kept]).all()
    assert set(back[~kept]) == {"UA"}


def test_the_column_that_the_model_leans_on_is_first_however_far_others_moved() -> None:
    now = World(2, first=30, days=7)
    ranked = now.rank(dust=now.columns["dust"] + 50.0, wind=now.columns["wind"] + 3.0, temp=now.columns["temp"] + 10)
    assert [each.column for each in ranked.impacts][:2] == ["temp", "wind"]
    worst = ranked.impacts[0]
    assert worst.interval[0] < worst.cost < worst.interval[1]
    assert {each.column: each.cost for each in ranked.impacts}["dust"] == 0.0


def test_the_estimate_is_the_loss_that_a_unit_change_then_causes() -> None:
    now = World(3, first=30, days=20)
    broken = {**now.columns, "temp": (now.columns["temp"] - 32) / 1.8}
    before, after = (float(np.square(now.answer(each) - now.label).mean()) for each in (now.columns, broken))
    worst = now.rank(temp=broken["temp"]).impacts[0]
    assert worst.column == "temp"
    assert worst.cost == pytest.approx(after - before, rel=0.15)
    assert worst.usual < 0.1 * worst.cost


def test_labels_say_when_a_fault_makes_a_biased_model_better() -> None:
    now, reference = World(4, first=30, days=7), World(1, days=30)

    def too_high(columns: Mapping[str, Values]) -> np.ndarray:
        return np.minimum(World.answer(columns) + 0.3, 0.99)

    colder = {**now.columns, "temp": now.columns["temp"] - 5}
    believed, judged = (
        rank_columns(
            colder,
            now.day,
            reference.columns,
            reference.day,
            too_high,
            "brier",
            reference_label=label,
            columns=["temp"],
        ).impacts[0]
        for label in (None, reference.label)
    )
    gained = np.square(too_high(colder) - now.label).mean() - np.square(too_high(now.columns) - now.label).mean()
    assert gained < 0
    assert believed.cost > 0
    assert judged.cost == pytest.approx(gained, abs=0.02)


def test_swapped_columns_are_priced_by_what_they_do_together() -> None:
    now = World(5, first=30, days=7)
    swapped = {"temp": now.columns["wind"], "wind": now.columns["temp"]}
    ranked = now.rank(**swapped)
    assert ranked.joint.cost == pytest.approx(now.cost(swapped, {}), rel=0.3)
    assert ranked.impacts[0].column == "temp"
    wind = next(each for each in ranked.impacts if each.column == "wind")
    low, high = wind.interval
    # The swapped wind makes up for a little of what the swapped temperature does: to mend it alone is worse.
    assert low <= now.cost(swapped, {"temp": swapped["temp"]}) <= high < 0.02


@pytest.mark.parametrize("fault", ["unit", "noise", "shuffled", "dead", "missing"])
def test_the_interval_holds_what_a_fault_costs_whether_or_not_values_keep_their_order(fault: str) -> None:
    now, random = World(7, first=30, days=14), np.random.default_rng(0)
    temp = np.asarray(now.columns["temp"], dtype=np.float64)
    broken = {
        "unit": (temp - 32) / 1.8,
        "noise": temp + random.normal(0, 15, temp.size),
        "shuffled": random.permutation(temp),
        "dead": np.full(temp.size, 60.0),
        "missing": np.where(random.random(temp.size) < 0.5, np.nan, temp),
    }[fault]
    other = {"carrier": random.permutation(now.columns["carrier"])}
    cost = now.cost({"temp": broken, **other}, other)
    temp_cost = next(each for each in now.rank(temp=broken, **other).impacts if each.column == "temp")
    low, high = temp_cost.interval
    assert low <= cost <= high
    assert low <= temp_cost.cost <= high
    assert high - low < 0.25  # of a loss that lies between 0 and 1


def test_a_column_that_did_not_break_may_cost_nothing() -> None:
    now = World(8, first=30, days=7)
    for each in now.rank(temp=np.asarray(now.columns["temp"]) + 10.0).impacts[1:]:
        assert each.interval[0] <= 0.0 <= each.interval[1]


def test_a_single_current_day_has_a_wider_interval_than_many() -> None:
    wide, narrow = (
        now.rank(dust=np.asarray(now.columns["dust"]) + 1.0, temp=np.asarray(now.columns["temp"]) + 10.0).impacts[0]
        for now in (World(9, first=30, days=1), World(9, first=30, days=20))
    )
    assert wide.column == narrow.column == "temp"
    assert wide.interval[1] - wide.interval[0] > 1.2 * (narrow.interval[1] - narrow.interval[0])


def test_without_labels_a_cost_is_estimated_and_no_interval_told() -> None:
    now = World(3, first=30, days=7)
    colder = (np.asarray(now.columns["temp"]) - 32) / 1.8
    worst = now.rank(temp=colder, is_labelled=False).impacts[0]
    assert worst.cost == pytest.approx(now.cost({"temp": colder}, {}), rel=0.2)
    assert np.isnan(worst.interval).all()


def test_a_reference_of_one_day_ranks_by_cost_without_what_is_usual() -> None:
    now, reference = World(6, first=30, days=2), World(1, days=1)
    warmer = {**now.columns, "temp": np.asarray(now.columns["temp"]) + 10.0}
    ranked = rank_columns(
        warmer, now.day, reference.columns, reference.day, now.answer, "brier", reference_label=reference.label
    )
    assert ranked.impacts[0].column == "temp"
    assert np.isnan(ranked.impacts[0].usual)
    assert np.isnan(ranked.impacts[0].interval).all()


def test_nothing_current_is_not_a_number_and_ranks_all_the_same() -> None:
    now, reference = World(6, first=30, days=1), World(1, days=30)
    none = {name: values[:0] for name, values in now.columns.items()}
    ranked = rank_columns(none, now.day[:0], reference.columns, reference.day, now.answer, "brier")
    assert [each.column for each in ranked.impacts] == ["carrier", "dust", "temp", "wind"]
    assert np.isnan(ranked.joint.cost)
