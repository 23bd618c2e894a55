"""Search for the worst segment on real days: how often nothing is found in nothing, and whether a fault is found."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.stats.slices import Search, find_slices

REFERENCE = {"flights": 28, "bikes": 56}
CURRENT = {"flights": 7, "bikes": 14}


def held_out(world: Any) -> dict[int, pl.DataFrame]:
    """Days that the model was not fitted on, with the loss of each row."""
    rows = world.between(world.fitted_through + 1, 10**6)
    parts = rows.with_columns(pl.Series("loss", world.loss(rows))).partition_by("day", as_dict=True)
    return {int(day): part for (day,), part in parts.items()}


def search(world: Any, before: list[pl.DataFrame], now: list[pl.DataFrame], seed: int = 0) -> Search:
    old, new = (
        pl.concat([day.with_columns(pl.lit(first + k).alias("day")) for k, day in enumerate(days)])
        for first, days in ((0, before), (1000, now))
    )
    return find_slices(
        world.columns(old),
        old["loss"].to_numpy(),
        old["day"].to_numpy(),
        world.columns(new),
        new["loss"].to_numpy(),
        new["day"].to_numpy(),
        seed=seed,
        replicates=199,
    )


@pytest.mark.long
@pytest.mark.parametrize("name", ["flights", "bikes"])
def test_days_dealt_anew_hold_no_worst_segment_at_the_stated_rate(name: str, request: pytest.FixtureRequest) -> None:
    world = request.getfixturevalue(name)
    days, random, smallest = held_out(world), np.random.default_rng(0), []
    for i in range(200):
        drawn = [days[k] for k in random.permutation(sorted(days))[: REFERENCE[name] + CURRENT[name]]]
        found = search(world, drawn[: REFERENCE[name]], drawn[REFERENCE[name] :], seed=i)
        smallest.append(min([each.p_value for each in found.slices], default=1.0))
    rates = {level: float(np.mean(np.array(smallest) <= level)) for level in (0.01, 0.05, 0.1)}
    print(f"\n{name}: found in {rates} of 200 worlds, by level; {found.searched} segments")
    # Two standard errors of 200 worlds above what is stated.
    assert all(rate <= level + 2 * np.sqrt(level * (1 - level) / 200) for level, rate in rates.items())


@pytest.mark.long
@pytest.mark.parametrize(("name", "most"), [("flights", 0.1), ("bikes", 0.3)])
def test_weeks_in_their_true_order_hold_few_that_are_worse(
    name: str, most: float, request: pytest.FixtureRequest
) -> None:
    world, before, now = request.getfixturevalue(name), REFERENCE[name], CURRENT[name]
    days = held_out(world)
    order, found = sorted(days), []
    for first in range(0, len(order) - before - now, now):
        drawn = [days[k] for k in order[first : first + before + now]]
        slices = search(world, drawn[:before], drawn[before:], seed=first).slices
        found.append(min([each.p_value for each in slices], default=1.0) <= 0.01)
    print(f"\n{name}: found at 0.01 in {sum(found)} of {len(found)} windows")
    assert np.mean(found) <= most


@pytest.mark.slow
def test_labels_that_are_wrong_for_one_carrier_in_the_evening_are_found(flights: Any) -> None:
    days = held_out(flights)
    before, now = ([days[k] for k in range(first, last)] for first, last in ((200, 228), (228, 235)))
    hit = (pl.col("carrier") == "UA") & (pl.col("dep_hour") >= 17)
    wrong = [day.with_columns(pl.when(hit).then(pl.col("loss") + 0.25).otherwise("loss").alias("loss")) for day in now]
    worst = search(flights, before, wrong).slices[0]
    assert {part.column for part in worst.parts} == {"dep_hour", "carrier"}
    assert "carrier=UA" in str(worst)
    assert worst.p_value == pytest.approx(1 / 200)


@pytest.mark.slow
def test_a_storm_that_delays_all_is_not_blamed_on_anybody(flights: Any) -> None:
    days = held_out(flights)
    before, now = ([days[k] for k in range(first, last)] for first, last in ((200, 228), (228, 235)))
    worse = [day.with_columns(pl.col("loss") + 0.3) for day in now]
    calm, stormy = search(flights, before, now), search(flights, before, worse)
    assert [str(each) for each in stormy.slices][:1] == [str(each) for each in calm.slices][:1] or (
        stormy.slices[0].p_value > 0.05
    )
