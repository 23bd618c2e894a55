"""Dating: the day on which what an incident is about took a step, by its own number or by a column's."""

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from holdfast.core.spec import Monitor
from holdfast.flow.dating import Dated, sides, when_any_moved, when_moved
from holdfast.testing import START

DAY = timedelta(days=1)
BROKEN = 36
"""The day on which x and y come in other units."""


def test_a_check_against_recent_days_is_dated_by_the_window_that_failed_first(watched: Any) -> None:
    incident = replace(watched.of("silence", "x"), opened_at=START + (BROKEN + 1) * DAY)
    explained = watched.explained(incident)
    assert explained.began == explained.began_low == explained.began_high == watched.broken_on
    assert explained.column == "x"


def test_what_is_said_of_labels_began_on_the_newest_day_whose_labels_were_complete(watched: Any) -> None:
    opened = START + (BROKEN + 3) * DAY + timedelta(hours=1)
    incident = replace(watched.of("volume", "labels", name="unlabelled_rise"), opened_at=opened)
    complete = watched.live.last_mature_day(opened)
    assert complete < watched.live.last_complete_day(opened)
    assert watched.explained(incident).began == complete
    rows = replace(watched.of("volume", "rows", name="volume_change"), opened_at=opened)
    assert watched.explained(rows).began == watched.live.last_complete_day(opened)


def test_a_check_of_the_serving_is_dated_by_its_own_daily_number_and_costs_no_loss(watched: Any) -> None:
    watched.spec = replace(watched.spec, monitors=(Monitor(check="latency", name="m", options={"quantile": 0.9}),))
    explained = watched.explained(watched.of("latency", name="latency_p90"))
    # Every row of this traffic took the same time: each day was measured, and none stands out.
    assert explained.note == "when it began by the daily latency_p90: all blocks have the same value"
    assert (explained.ranking, explained.cost, explained.is_final) == ((), None, True)


def test_the_distance_of_a_column_dates_it_to_the_day(watched: Any) -> None:
    found = when_moved(watched.case(watched.of("drift", "x")), watched.days(), "x")
    assert found is not None
    assert (found.at, found.by) == (watched.broken_on, "daily distance of x")
    assert found.low <= found.at <= found.high


def test_a_column_that_never_moved_has_no_date_and_that_is_noted(watched: Any) -> None:
    watched.now = START + (BROKEN - 1) * DAY
    case = watched.case(watched.of("drift", "x"))
    assert when_moved(case, watched.days(), "x") is None
    assert case.notes[0].startswith("when it began by the distance of x: ")


def test_the_two_sides_never_share_a_day(watched: Any) -> None:
    days = watched.days()
    wide = Dated(at=watched.broken_on, low=days.days[0], high=days.days[-1], by="a wide interval")
    for check, dated in (("drift", None), ("quality", None), ("drift", wide)):
        before, since = sides(watched.case(watched.of(check, name="brier")), days, dated)
        assert before
        assert since
        assert max(before) < min(since)
    assert min(since) == watched.broken_on, "an interval over all days leaves the days before the step itself"


def test_a_loss_without_a_step_takes_the_day_of_the_column_that_broke(watched: Any) -> None:
    case = watched.case(watched.of("quality", name="brier"))
    found = when_any_moved(case, watched.days(), None, ())
    assert found is not None
    assert found.at == watched.broken_on
