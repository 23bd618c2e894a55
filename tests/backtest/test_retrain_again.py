"""A world that turns: the training on the alarm knows little of it, so the incident is owed another one."""

from datetime import timedelta

import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.spec import Response

DAY = timedelta(days=1)
pytestmark = pytest.mark.slow


def test_an_incident_is_trained_on_again_when_its_days_can_be_fitted(parcels) -> None:
    feeds = parcels.feeds(days=100)
    turned = pl.col("ended_at") > parcels.start + 3 * DAY
    ends = feeds["ends"].with_columns(late=pl.when(turned).then(1 - pl.col("late")).otherwise("late"))
    spec = replace(parcels.spec(), responses=(Response(on="quality", do="retrain"),))
    outcome = parcels.play(
        parcels.world({**feeds, "ends": ends}), spec=spec, policy="evidence", end=parcels.start + 30 * DAY
    )
    alarm = next(each for each in outcome.alarms if each.check == "quality")
    asked = [said for said in alarm.actions if said.startswith("retrain")]
    assert len(asked) >= 2, outcome
    assert "once more" not in asked[0]
    assert all("once more: " in said for said in asked[1:])
    first, again = outcome.releases[1:3]
    assert again.began - first.began >= spec.model.validate.holdout
    assert again.cause == first.cause


def test_where_labels_stop_the_same_rows_are_not_fitted_again_and_again(parcels) -> None:
    feeds = parcels.feeds(days=100)
    turned = pl.col("ended_at") > parcels.start + 3 * DAY
    ends = feeds["ends"].with_columns(late=pl.when(turned).then(1 - pl.col("late")).otherwise("late"))
    ends = ends.filter(pl.col("ended_at") < parcels.start + 10 * DAY)
    spec = replace(parcels.spec(), responses=(Response(on="quality", do="retrain", cooldown=5 * DAY),))
    outcome = parcels.play(
        parcels.world({**feeds, "ends": ends}), spec=spec, policy="evidence", end=parcels.start + 40 * DAY
    )
    alarm = next(each for each in outcome.alarms if each.check == "quality")
    said = [each for each in alarm.actions if each.startswith("retrain")]
    assert len(said) == 1, said
