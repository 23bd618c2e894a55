"""Pricing: which column costs most, what a rise cost by labels, and what cannot be priced."""

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.core.records import ColumnCost
from holdfast.flow.dailies import Dailies
from holdfast.flow.pricing import culprit, ranked
from holdfast.testing import START

DAY = timedelta(days=1)
DAYS = 40
"""Days of answers."""


def test_of_two_columns_that_broke_the_costlier_is_named_whichever_moved_farther(watched: Any) -> None:
    explained = watched.explained(watched.of("drift", "y", also=("x",)))
    assert explained.column == "x"
    assert [each.column for each in explained.ranking] == ["x", "y"]
    assert explained.began_low <= watched.broken_on <= explained.began_high
    assert explained.cost > 0.1
    assert explained.cost == explained.ranking[0].cost
    assert explained.cost_low < explained.cost < explained.cost_high


def test_the_cost_of_a_rise_is_the_difference_of_the_labelled_days(watched: Any) -> None:
    explained = watched.explained(watched.of("quality", name="brier"))
    since = watched.broken_on
    blocks = [watched.live.labelled_block((START + k * DAY).date()) for k in range(DAYS - 1)]
    losses = {b.day: float(((b.rows()["label"] - b.rows()["probability"]) ** 2).mean()) for b in blocks}
    after = np.mean([loss for day, loss in losses.items() if day >= since])
    before = np.mean([loss for day, loss in losses.items() if day < since][-28:])
    assert explained.began == since
    assert explained.cost == pytest.approx(after - before, rel=1e-6)
    assert (explained.basis, explained.column) == ("labels", "x")


def test_a_model_that_cannot_be_asked_costs_the_ranking_only(watched: Any) -> None:
    explained = watched.explained(watched.of("drift", "x"), model=None)
    assert "served elsewhere" in explained.note
    assert (explained.ranking, explained.cost) == ((), None)
    assert explained.began is not None


def test_a_column_that_came_as_text_is_left_out_and_named(watched: Any) -> None:
    days = Dailies(watched.task, watched.reference, watched.live, "brier", watched.now)
    broken = days.block(days.days[-1])
    broken._rows = broken.rows().with_columns(pl.col("y").cast(pl.String))
    explained = watched.explained(watched.of("drift", "x"))
    assert "y changed type" in explained.note
    assert [each.column for each in explained.ranking] == ["x"]


def cost(column: str, value: float, low: float, usual: float = 0.0) -> ColumnCost:
    return ColumnCost(column=column, cost=value, low=low, high=2 * value, usual=usual)


def test_of_a_rise_a_column_is_named_only_where_it_costs_a_good_part_and_stands_out(watched: Any) -> None:
    measured = ColumnCost(column="", cost=0.2)
    named = {
        "x": (cost("x", 0.1, low=0.05),),
        "": (cost("x", 0.01, low=0.005),),
    }
    for expected, ranking in named.items():
        assert culprit(watched.case(watched.of("quality", name="brier")), ranking, measured, None) == expected
    doubtful = culprit(watched.case(watched.of("quality", name="brier")), (cost("x", 0.1, low=-0.1),), measured, None)
    assert doubtful == ""


def test_what_an_incident_is_about_is_named_however_little_it_costs(watched: Any) -> None:
    ranking = (cost("x", 0.1, low=0.05), cost("y", 0.001, low=-0.1))
    assert culprit(watched.case(watched.of("drift", "y")), ranking, None, None) == "y"


def test_with_too_few_days_nothing_is_priced_and_that_is_noted(watched: Any) -> None:
    case, days = watched.case(watched.of("drift", "x")), watched.days()
    assert ranked(case, days, days.days[:1], days.days[-1:]) == ()
    assert case.notes == ["what it costs: 1 day before it and 1 since, 3 and 1 are needed"]


def test_without_labels_of_the_days_before_costs_have_no_interval_and_the_note_says_why(watched: Any) -> None:
    case, days = watched.case(watched.of("drift", "x")), watched.days()
    for day in days.days:
        block = days.block(day)
        block._rows = block.rows().with_columns(label=pl.lit(None, pl.Float64))
    found = ranked(case, days, days.days[:-4], days.days[-4:])
    assert [(each.column, each.low, each.high) for each in found] == [("x", None, None), ("y", None, None)]
    assert found[0].cost > 0.1
    assert case.notes == ["how far the cost of a column may be off: 0 rows before it with labels, too few to say"]
