from datetime import UTC, datetime, timedelta

import pytest

from holdfast.checks.freshness import Freshness
from holdfast.checks.stated import said
from holdfast.core.evidence import Grade

NOW = datetime(2013, 7, 1, 12, tzinfo=UTC)


def graded(window, newest, allowed):
    facts = {"feeds": newest, "fresh": allowed, "now": NOW}
    return {r.subject: (r, *Freshness().grade(r)) for r in Freshness().measure(window([], facts))}


def test_a_feed_within_its_promise_passes_and_a_stale_one_fails(window):
    found = graded(
        window,
        {"weather": NOW - timedelta(hours=1), "flights": NOW - timedelta(hours=5), "planes": None},
        {"weather": timedelta(hours=2), "flights": timedelta(hours=2)},
    )
    assert (found["weather"][0].value, found["weather"][1]) == (3600.0, Grade.PASS)
    assert (found["flights"][0].value, found["flights"][1]) == (18000.0, Grade.FAIL)
    assert found["flights"][2].startswith("age of flights is 5 h, above 2 h; newest row of flights was known at")
    assert found["flights"][2].endswith(", 5 h ago")
    assert "planes" not in found


def test_a_feed_that_never_delivered_is_unknown(window):
    for newest in ({"weather": None}, {}):
        reading, grade, why = graded(window, newest, {"weather": timedelta(hours=2)})["weather"]
        assert (reading.value, grade) == (None, Grade.UNKNOWN)
        assert "not delivered anything yet" in why


def test_a_row_from_the_future_is_a_warning_about_clocks(window):
    _, grade, why = graded(window, {"weather": NOW + timedelta(hours=3)}, {"weather": timedelta(hours=2)})["weather"]
    assert grade is Grade.WARN
    assert "a clock is wrong" in why


def test_an_age_that_reads_like_its_limit_is_just_above_it(window):
    _, grade, why = graded(window, {"weather": NOW - timedelta(seconds=7205)}, {"weather": timedelta(hours=2)})[
        "weather"
    ]
    assert grade is Grade.FAIL
    assert why.startswith("age of weather is just above 2 h; ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(264_322, "3.1 d"), (86_400, "1 d"), (86_399, "24 h"), (90, "1.5 min"), (0.4, "0.4 s"), (0, "0 s")],
)
def test_an_age_is_said_in_its_largest_unit(seconds, text):
    assert said(seconds) == text
