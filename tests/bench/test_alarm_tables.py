import numpy as np
import pytest

from parts import alarmtables


def a_row(data, own, equal_rate):
    return {
        "data": data,
        "fault": "dead feature",
        "holdfast_compared": own,
        "equal_rate": equal_rate,
        "default": dict.fromkeys(equal_rate, 1.0),
    }


@pytest.mark.parametrize(
    ("mine", "best", "said"),
    [(1.0, 2.0, "shorter"), (2.0, 2.0, "equal"), (np.inf, 3.0, "longer"), (np.inf, np.inf, "equal")],
)
def test_a_delay_is_shorter_equal_or_longer_and_two_that_never_come_are_equal(mine, best, said):
    assert alarmtables.beside(mine, best) == said


def test_the_best_is_the_soonest_of_the_peers_or_of_the_plain_rules():
    delays = {"plain PSI 0.2, days": 1.0, "Evidently any column, days": 3.0, "NannyML CBPE, days": None}
    assert alarmtables.best_of(delays, plain_rules=False) == (3.0, "Evidently any column, days")
    assert alarmtables.best_of(delays, plain_rules=True) == (1.0, "plain PSI 0.2, days")
    assert alarmtables.best_of({"NannyML CBPE, days": None}, plain_rules=False) == (np.inf, "none")
    assert alarmtables.best_of({}, plain_rules=False) == (None, "")


def test_the_tables_count_who_was_sooner_by_data_set_and_by_peer():
    rows = [
        a_row("flights", 1.0, {"plain PSI 0.2, days": 1.0, "Evidently any column, days": 3.0}),
        a_row("flights", None, {"plain PSI 0.2, days": None, "Evidently any column, days": 3.0}),
        a_row("elec2", 2.0, {"plain PSI 0.2, days": 1.0, "Evidently any column, weeks": 7.0}),
    ]
    table = alarmtables.delay_tables(rows)
    assert "| the best peer of each fault, flights | 2 | 1 | 0 | 1 |" in table
    assert "| the best plain rule of each fault, flights | 2 | 0 | 2 | 0 |" in table
    assert "| Evidently any column, all data sets | 3 | 2 | 0 | 1 |" in table
    assert "| dead feature | 2 | 1 (1) | 7 (1) |" in table


def test_a_data_set_without_peers_is_not_compared_with_any():
    table = alarmtables.delay_tables([a_row("flights", 1.0, {"plain PSI 0.2, days": 1.0})])
    assert "peer" not in table


def test_a_detector_that_alarms_too_often_at_its_least_eager_is_not_compared():
    false = [
        {"data": "flights", "detector": "Holdfast", "total": 0.7},
        {"data": "flights", "detector": "River DDM on errors", "total": 9.0, "rate_at_threshold": 5.0},
        {"data": "flights", "detector": "River KSWIN on losses", "total": 9.0, "rate_at_threshold": 0.7},
    ]
    delay = [a_row("flights", 2.0, {"River DDM on errors": 1.0, "River KSWIN on losses": 3.0})]
    [row] = alarmtables.at_equal_rates(false, delay)
    assert row["equal_rate"] == {"River KSWIN on losses": 3.0}
    table = alarmtables.delay_tables([row])
    assert "| dead feature | 2 | too often (1) | 3 (1) |" in table
    assert "| the best peer of each fault, flights | 1 | 1 | 0 | 0 |" in table
