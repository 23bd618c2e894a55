"""A release plan: what replaying past days through the release test says of the days to come."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from holdfast.core.spec import Decide, Step
from holdfast.errors import DataError
from holdfast.flow.planning import forecast, paired_days
from holdfast.tasks.classification import Classification

DAY = timedelta(days=1)
STEPS = (Step(stage="shadow", least=2 * DAY), Step(stage="canary", share=0.1, least=10 * DAY), Step(stage="live"))


def some_days(days, rows=400, noise=0.05, seed=3):
    """Days of labelled rows, answered by two models that differ a little."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(days):
        truth = rng.uniform(0.1, 0.6, rows) + rng.normal(0, 0.05)
        made.append(
            pl.DataFrame(
                {
                    "label": (rng.random(rows) < truth).astype(float),
                    "one": np.clip(truth + rng.normal(0, noise, rows), 0.01, 0.99),
                    "other": np.clip(truth + rng.normal(0, noise, rows), 0.01, 0.99),
                }
            )
        )
    return made


def paired(days, **how):
    return paired_days(Classification(), "brier", some_days(days, **how), "one", "other")


def test_days_are_paired_over_labelled_rows_and_within_their_bounds():
    days = [*some_days(3), some_days(1)[0].with_columns(label=pl.lit(None, pl.Float64))]
    found = paired_days(Classification(), "brier", days, "one", "other")
    assert (found.days, found.rows) == (3, 1200)
    first = days[0]
    losses = [((first[name] - first["label"]) ** 2).mean() for name in ("one", "other")]
    assert found.difference[0] == pytest.approx(losses[0] - losses[1])
    assert (found.low <= found.difference).all()
    assert (found.difference <= found.high).all()


def test_a_wider_margin_is_decided_sooner_and_more_often(a_spec):
    days = paired(20)
    tight, wide = (
        forecast(a_spec(steps=STEPS, decide=Decide(loss="brier", margin=margin)), days, "test")
        for margin in (0.001, 0.02)
    )
    assert wide.as_good.promoted > 0.9 > tight.as_good.promoted
    assert wide.as_good.days.half < (tight.as_good.days.half or np.inf)
    assert tight.margins == wide.margins
    assert 0.001 < wide.margins.half < 0.02
    for outlook in (tight.as_good, tight.as_bad, wide.as_good, wide.as_bad):
        assert outlook.promoted + outlook.refused + outlook.undecided == pytest.approx(1)


def test_a_release_takes_no_less_than_its_steps_and_labels_do(a_spec):
    decide = Decide(loss="brier", margin=0.2)
    found = forecast(a_spec(steps=STEPS, decide=decide, mature_after=3 * DAY), paired(20), "test")
    assert (found.least_days, found.maturity_days) == (12, 3)
    assert found.as_good.days.one_in_ten == 12
    later = forecast(a_spec(steps=(Step(stage="live"),), decide=decide, mature_after=3 * DAY), paired(20), "test")
    assert 3 < later.as_good.days.one_in_ten < 12


def test_a_release_that_a_goal_decides_is_not_planned_by_another_test(a_spec):
    decide = Decide(loss="brier", margin=0.02, goal="label", prefer="lower")
    with pytest.raises(DataError, match="by a goal, the labels of split traffic, and not by a loss"):
        forecast(a_spec(steps=STEPS, decide=decide), paired(20), "test")


def test_too_few_days_are_said(a_spec):
    with pytest.raises(DataError, match=r"4 labelled days to plan by \(test\), at least 5"):
        forecast(a_spec(), paired(4), "test")


def test_nothing_goes_live_within_less_than_the_steps_take(a_spec):
    decide = Decide(loss="brier", margin=0.2, within=11 * DAY)
    found = forecast(a_spec(steps=STEPS, decide=decide), paired(20), "test")
    assert (found.within_days, found.least_days) == (11, 12)
    assert (found.as_good.promoted, found.margins.half) == (0, None)
    assert found.as_good.refused + found.as_good.undecided == pytest.approx(1)


def test_two_answers_that_are_the_same_cannot_be_planned_by(a_spec):
    days = [day.with_columns(other=pl.col("one") + 1e-15) for day in some_days(20)]
    same = paired_days(Classification(), "brier", days, "one", "other")
    with pytest.raises(DataError, match=r"cannot be planned: the two answers are the same \(version 1 and linear\)"):
        forecast(a_spec(steps=STEPS, decide=Decide(loss="brier", margin=0.005)), same, "version 1 and linear")


def test_harm_is_not_cut_off_where_two_versions_nearly_agree(a_spec):
    nearly = paired(20, noise=0.0005)
    assert nearly.high.max() < 0.01
    found = forecast(a_spec(steps=STEPS, decide=Decide(loss="brier", margin=0.005)), nearly, "test")
    assert (found.as_bad.promoted, found.as_bad.refused) == (0, 1)
    assert found.as_good.promoted > 0.9
