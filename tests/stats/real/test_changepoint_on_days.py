"""When did an injected fault begin: on the daily loss and on the daily drift of real days."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.stats.changepoint import change_point
from holdfast.stats.distance import coarsen, psi
from holdfast.stats.histogram import count, edges_of


def daily_loss(world: Any, first: int, last: int, broken_from: int, **fault: pl.Expr) -> np.ndarray:
    """Mean loss of each day first .. last; inputs are broken from one of them on, the truth never."""
    rows = world.between(first, last)
    broken = pl.col("day") >= broken_from
    inputs = rows.with_columns(**{k: pl.when(broken).then(v).otherwise(pl.col(k)) for k, v in fault.items()})
    losses = rows.select("day").with_columns(pl.Series("loss", world.loss(rows, inputs)))
    return losses.group_by("day").agg(pl.col("loss").mean()).sort("day")["loss"].to_numpy()


@pytest.mark.slow
def test_a_unit_change_in_flights_is_dated_to_the_day_by_drift(flights: Any) -> None:
    first, at = 200, 41
    rows, broken = flights.between(first, first + 59), []
    edges = edges_of(flights.between(first - 60, first - 1)["temp"].to_numpy())
    usual = count(flights.between(first - 60, first - 1)["temp"].to_numpy(), edges).present
    for day in range(first, first + 60):
        temp = rows.filter(pl.col("day") == day)["temp"].to_numpy()
        celsius = (temp - 32) / 1.8 if day >= first + at else temp
        broken.append(psi(*coarsen(usual, count(celsius, edges).present)))
    found = change_point(np.array(broken))
    assert found.low <= at <= found.high
    assert abs(found.at - at) <= 1


@pytest.mark.slow
def test_the_interval_of_an_hour_that_is_six_off_holds_the_day_it_began(bikes: Any) -> None:
    held, lengths, starts = [], [], range(400, 640, 20)
    for first in starts:
        at = 25 + first % 7 * 3
        loss = daily_loss(bikes, first, first + 59, first + at, hr=(pl.col("hr") + 6) % 24)
        found = change_point(loss)
        held.append(found.is_found and found.low <= at <= found.high)
        lengths.append(found.high - found.low + 1 if found.is_found else 60)
    print(f"\nheld {np.mean(held):.2f} of {len(held)}, median length {np.median(lengths):.0f} days")
    assert np.mean(held) >= 0.9
    assert np.median(lengths) <= 5


@pytest.mark.slow
def test_a_fault_that_storms_hide_is_not_dated_and_a_grave_one_is(flights: Any) -> None:
    hidden, held, starts = [], [], range(155, 300, 15)
    for first in starts:
        at = 30 + first % 5
        hidden.append(
            change_point(daily_loss(flights, first, first + 59, first + at, dep_hour=pl.col("dep_hour") * 0.1))
        )
        loss = daily_loss(flights, first, first + 59, first + 60)
        found = change_point(np.where(np.arange(60) >= at, loss + 0.3, loss))
        held.append(found.is_found and found.low <= at <= found.high)
    assert np.mean([found.is_found for found in hidden]) <= 0.3
    assert all(found.is_found or "no change stands out" in found.why for found in hidden)
    assert np.mean(held) >= 0.9
