"""The simplified loop of the benchmark: what is asked for once, and until it is answered."""

from typing import Any, cast

import numpy as np
import pytest

from retraindates import HELD_OUT, MATURE, MOST, WITHIN, Year, played

KNOWN = HELD_OUT + MATURE


class Known:
    """A year of 200 days with a candidate each week, the newer the better; a release ends as it is told."""

    first, last = 20, 220
    trained = tuple(range(20, 213, 7))
    loss = tuple(np.full(220, 1.0 - n / 100) for n in range(len(trained)))
    rows = np.ones(220)

    def __init__(self, *ends: str) -> None:
        self.ends, self.began = list(ends), []

    def newest(self, day: int) -> int:
        return max(n for n, trained in enumerate(self.trained) if trained <= day)

    def passes(self, candidate: int, live: int, day: int) -> bool:
        return True

    def released(self, candidate: int, live: int, day: int, within: int) -> tuple[str, int]:
        self.began.append(day)
        end = self.ends.pop(0)
        return end, day + (within if end == "expired" else 10)


def began(year: Known, asked: list[int], *, until_answered: bool, closes: bool = False) -> list[int]:
    played(cast("Year", cast("Any", year)), asked, until_answered=until_answered, within=WITHIN, closes=closes)
    return [day - asked[0] for day in year.began]


def test_once_means_once() -> None:
    assert began(Known("expired"), [48], until_answered=False) == [0]


@pytest.mark.parametrize("end", ["live", "worse"])
def test_an_alarm_is_answered_by_a_candidate_that_was_fitted_up_to_it(end: str) -> None:
    # Trained on day 69 at first, the candidates being weekly: that is 15 days after 48, or the first after them.
    assert began(Known(end, end), [48], until_answered=True) == [0, KNOWN + 6]


def test_what_ended_undecided_is_begun_again_at_once() -> None:
    assert began(Known("expired", "live"), [48], until_answered=True) == [0, WITHIN]


def test_an_alarm_while_a_release_is_open_is_lost_unless_it_must_be_answered() -> None:
    assert began(Known("expired"), [48, 70], until_answered=False) == [0]
    # The candidate of day 76 was not fitted up to day 70; the one of day 90 was.
    assert began(Known("expired", "live", "live"), [48, 70], until_answered=True) == [0, WITHIN, 90 - 48]


def test_what_stays_undecided_is_begun_again_as_often_as_the_product_does() -> None:
    tries = began(Known(*["expired"] * (MOST + 2)), [48], until_answered=True)
    assert tries == [WITHIN * n for n in range(MOST + 1)]


def test_an_incident_that_closed_by_itself_is_trained_for_once_more_on_its_days() -> None:
    assert began(Known("expired", "expired", "expired"), [48], until_answered=True, closes=True) == [0, WITHIN]
    assert began(Known("live", "expired", "expired"), [48], until_answered=True, closes=True) == [0, KNOWN + 6]


def test_a_training_made_while_a_release_is_open_is_counted_and_releases_nothing() -> None:
    year = Known("expired", "live")
    found = played(cast("Year", cast("Any", year)), [48, 70], until_answered=False, within=WITHIN)
    assert (found["trainings"], found["live"], found["expired"], len(year.began)) == (2, 0, 1, 1)
