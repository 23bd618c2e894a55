from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from holdfast.checks.cost import Cost
from holdfast.core.evidence import Grade, Role

START = datetime(2013, 4, 1, tzinfo=UTC)
ROLES = {"run_us": Role.META}


def answered(batches):
    """Rows of batches of (rows, microseconds), a second apart."""
    rows = [(START + timedelta(seconds=k), us) for k, (count, us) in enumerate(batches) for _ in range(count)]
    return pl.DataFrame(rows, schema={"predicted_at": pl.Datetime("us", "UTC"), "run_us": pl.Float64}, orient="row")


def test_rows_of_a_batch_share_its_time(window):
    [reading] = Cost().measure(window([answered([(32, 640.0), (1, 100.0)]), answered([(17, 60.0)])], roles=ROLES))
    assert (reading.value, reading.unit, reading.rows) == (pytest.approx(800e-6 / 50 * 1000), "s", 50)


def test_batches_that_took_equally_long_are_two(window):
    [reading] = Cost().measure(window([answered([(20, 500.0), (20, 500.0)])], roles=ROLES))
    assert reading.value == pytest.approx(1000e-6 / 40 * 1000)


def test_a_price_makes_it_money(window):
    [reading] = Cost(per_hour=0.36, currency="EUR").measure(window([answered([(40, 1e6)])], roles=ROLES))
    assert reading.unit == "EUR"
    assert reading.value == pytest.approx(0.36 / 3600 * 1000 / 40)


def test_it_has_no_limit_of_its_own(window):
    [reading] = Cost().measure(window([answered([(40, 1e6)])], roles=ROLES))
    grade, why = Cost().grade(reading)
    assert grade is Grade.UNKNOWN
    assert "state at_most" in why


@pytest.mark.parametrize("frame", [answered([(29, 5.0)]), answered([(40, 5.0)]).drop("run_us"), answered([(40, -5.0)])])
def test_too_few_rows_that_say_how_long_they_ran_are_unknown(window, frame):
    [reading] = Cost().measure(window([frame], roles=ROLES))
    assert reading.value is None
    assert "30 are needed" in reading.note
