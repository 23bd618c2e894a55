"""What `holdfast release plan` says of a forecast."""

from holdfast.cli.release import smallest_margin
from holdfast.cli.train import later_releases
from holdfast.flow.planning import Outlook, ReleaseForecast, Spread

NEVER = Spread(one_in_ten=None, half=None, nine_in_ten=None)
OUTLOOK = Outlook(days=NEVER, promoted=0.0, refused=0.0, undecided=1.0)


def a_forecast(within_days: float, margins: Spread = NEVER) -> ReleaseForecast:
    return ReleaseForecast(
        system="orders", loss="brier", margin=0.01, confidence=0.95, within_days=within_days, least_days=5,
        maturity_days=1, based_on="test", days=20, rows=400, sd=0.01, as_good=OUTLOOK, as_bad=OUTLOOK, margins=margins,
    )  # fmt: skip


def test_less_than_the_steps_take_decides_nothing_for_a_candidate() -> None:
    said = "cannot be decided for a candidate within 3 days: the steps alone take 5 days"
    assert smallest_margin(a_forecast(3)) == said


def test_the_smallest_margin_is_said_for_shares_of_releases() -> None:
    margins = Spread(one_in_ten=0.001, half=0.02, nine_in_ten=None)
    assert smallest_margin(a_forecast(28, margins)) == (
        "smallest margin that lets an equally good candidate pass within 28 days: "
        "1 in 10 of them 0.001; half of them 0.02; 9 in 10 of them none"
    )


def test_a_first_training_says_what_becomes_of_later_releases() -> None:
    margins = Spread(one_in_ten=0.001, half=0.02, nine_in_ten=None)
    assert later_releases(a_forecast(28, margins)) == (
        "of later candidates that are as good, 0% are promoted within 28 days at the margin of 0.01; "
        "half of them pass at a margin of 0.02; a cautious guess, by its linear baseline (`holdfast release plan`)"
    )
    assert "; no margin lets half of them pass; " in later_releases(a_forecast(3))
