"""What `holdfast release plan` refuses to try, and what it leaves out because it would say nothing."""

from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.cli.release import app, what_a_day_tells, what_would_do
from holdfast.core.spec import Decide
from holdfast.core.specrules import check_decide
from holdfast.flow.goalplans import GoalForecast, GoalOutlook, ShareOutlook
from holdfast.flow.planning import Spread

NEVER = Spread(one_in_ten=None, half=None, nine_in_ten=None)


def a_forecast(**changes: Any) -> GoalForecast:
    outlook = GoalOutlook(days=NEVER, promoted=0.0, refused=0.0, undecided=1.0, effect=0.0)
    share = ShareOutlook(share=0.1, promoted=0.0, lengths=NEVER, margins=NEVER)
    values: dict[str, Any] = {
        "system": "orders", "goal": "label", "prefer": "lower", "margin": 0.01, "confidence": 0.95, "within_days": 28.0,
        "least_days": 7.0, "maturity_days": 1.0, "share": 0.1, "based_on": "test", "days": 30, "rows": 30_000,
        "rows_a_day": 1000.0, "mean": 0.1, "sd_between": 0.01, "sd_within": 0.3, "sd": 0.03, "left_out": 0.0,
        "rarer": 3000, "group_days": 1.0, "least_observations": 7, "known": 1.0, "as_better": outlook,
        "as_good": outlook, "as_worse": outlook, "as_bad": outlook, "lengths": NEVER, "margins": NEVER,
        "shares": (share,),
    }  # fmt: skip
    return GoalForecast(**{**values, **changes})


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan")])
def test_a_margin_that_no_file_may_state_is_refused_in_the_same_words(margin: float) -> None:
    words = dict(check_decide(Decide(loss="brier", margin=margin)))["margin"]
    found = CliRunner().invoke(app, ["plan", "--margin", str(margin)], env={"COLUMNS": "300"})
    assert found.exit_code == 2
    assert f"Invalid value for '--margin': {words}" in found.output


def test_shares_of_releases_and_days_that_round_to_nothing_are_left_out() -> None:
    said = what_would_do(a_forecast(known=0.998)), what_a_day_tells(a_forecast(left_out=0.004))
    assert said == (what_would_do(a_forecast()), what_a_day_tells(a_forecast()))
    assert "in 1% of releases there are too few observations" in what_would_do(a_forecast(known=0.99))
    assert "; 1% of days are left out" in what_a_day_tells(a_forecast(left_out=0.01))
