"""A retrain with `if: better`: what gains nothing is refused, what gains is released, and attempts share one level."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.spans import Span
from holdfast.core.spec import Response

DAY = timedelta(days=1)
pytestmark = pytest.mark.slow


@pytest.fixture
def played(parcels) -> Callable[..., Any]:
    """`played(feeds)`: 42 days with a training each week whose candidate must be better."""

    def play(feeds: dict[str, pl.DataFrame]) -> Any:
        asks = Response(do="retrain", every=7 * DAY, options={"if": "better", "cost": 0.001})
        spec = parcels.spec()
        model = replace(spec.model, window=Span(recent=14 * DAY))
        spec = replace(spec, responses=(asks,), model=model)
        return parcels.play(parcels.world(feeds), spec=spec, policy="evidence", end=parcels.start + 42 * DAY)

    return play


def test_where_nothing_changed_no_candidate_is_worth_its_cost(parcels, played) -> None:
    outcome = played(parcels.feeds(days=100))
    first, *others = outcome.releases
    assert first.state == "live"
    assert len(others) >= 4
    assert {release.state for release in others} == {"rejected"}
    assert all("does not cover its cost" in release.why for release in others)
    levels = ["at a level of 0.025" in release.why for release in others]
    assert levels == [True] + [False] * (len(others) - 1)
    assert "attempt 2 of these 30 days, at a level of 0.0125" in others[1].why


def test_where_the_world_turned_a_better_candidate_is_released(parcels, played) -> None:
    feeds = parcels.feeds(days=100)
    turned = pl.col("ended_at") > parcels.start + 3 * DAY
    ends = feeds["ends"].with_columns(late=pl.when(turned).then(1 - pl.col("late")).otherwise("late"))
    outcome = played({**feeds, "ends": ends})
    assert any(release.state in ("live", "retired") for release in outcome.releases[1:])
