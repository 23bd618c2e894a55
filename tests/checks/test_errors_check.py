import polars as pl
import pytest
from scipy.stats import binomtest

from holdfast.checks.errors import Errors
from holdfast.core.evidence import Grade, Role, Window

ROLES = {"status": Role.META}


def a_day(failed, rows):
    return pl.DataFrame({"status": ["failed"] * failed + ["ok"] * (rows - failed)}, schema={"status": pl.String})


@pytest.fixture
def measured(window):
    def build(days, failures=lambda block: 0):
        check = Errors()
        [reading] = check.measure(window(days, {"failures": failures}, roles=ROLES))
        return reading, check.grade(reading)[0]

    return build


@pytest.mark.parametrize(("failed", "rows"), [(0, 50), (1, 3), (5, 5), (7, 400), (30, 1000)])
def test_the_share_and_its_interval_are_scipys(measured, failed, rows):
    reading, _ = measured([a_day(failed, rows)])
    exact = binomtest(failed, rows).proportion_ci(0.95, method="exact")
    assert reading.value == failed / rows
    assert (reading.low, reading.high) == pytest.approx((exact.low, exact.high))


def test_it_fails_where_chance_cannot_be_and_warns_where_it_could(measured):
    assert [measured([a_day(failed, rows)])[1] for failed, rows in ((0, 500), (1, 50), (40, 1000), (5, 5))] == [
        Grade.PASS,
        Grade.WARN,
        Grade.FAIL,
        Grade.FAIL,
    ]


def test_rows_that_the_window_leaves_out_are_counted(measured):
    reading, _ = measured([a_day(0, 90), a_day(0, 80)], lambda block: 10 if block.start.day == 2 else 0)
    assert (reading.value, reading.rows) == (10 / 180, 180)
    assert "10 of 180 rows failed, most of them on 2013-04-02" in reading.note


def test_a_row_without_a_status_was_not_answered(measured):
    assert measured([a_day(0, 10).with_columns(status=pl.lit(None, pl.String))])[0].value == 1.0


def test_where_nothing_was_asked_or_nothing_says_how_it_went_it_is_unknown(measured):
    for days, why in (([a_day(0, 0)], "nothing was asked"), ([pl.DataFrame({"x": [1]})], "no column status")):
        reading, grade = measured(days)
        assert (reading.value, grade) == (None, Grade.UNKNOWN)
        assert why in reading.note


def test_all_that_failed_is_no_silence(measured):
    reading, grade = measured([a_day(0, 0)], lambda block: 40)
    assert (reading.value, grade) == (1.0, Grade.FAIL)


def test_a_window_that_does_not_say_what_it_leaves_out_is_not_measured():
    assert "failures" in Errors.facts
    assert Role.META in Errors.needs
    assert Window([], ROLES).facts == {}
