"""The checks of traffic over a lake with answers and labels, judged as monitors are."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.checks.cost import Cost
from holdfast.checks.errors import Errors
from holdfast.core.blocks import mature_until
from holdfast.core.evidence import Grade, Window
from holdfast.core.spec import Monitor
from holdfast.flow import evaluation
from holdfast.flow.monitors import Monitoring, Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.tasks.classification import Classification
from holdfast.testing import START

DAY = timedelta(days=1)
FIRST = START.date()
DAYS = 60


def rows_of(day: int) -> int:
    """Fewer at weekends (START is a Monday), and never exactly as many."""
    return (80 if day % 7 < 5 else 40) + int(np.random.default_rng(day).integers(0, 9))


@pytest.fixture
def watched(a_spec: Any, lake: Any, traffic: Any, tx: Any) -> SimpleNamespace:
    """`DAYS` days of traffic that a version is promised on, and a monitor of its volume that one month may alarm."""
    for day in range(DAYS):
        traffic.day(day, [0.3] * rows_of(day), [1.0] * rows_of(day))
    spec = a_spec(monitors=[Monitor(check="volume", name="volume", window=DAY)])
    live = LivePredictions(spec, lake, "probability")
    blocks = tuple(live.labelled_block(FIRST + day * DAY) for day in range(DAYS))
    reference = Reference(version="1", blocks=blocks, facts={"edges": {}}, promised={})
    monitoring = Monitoring(spec, Classification(), live)

    def judge(day: int) -> dict[str, Any]:
        now = START + (day + 1) * DAY
        facts = {"now": now, "mature_until": mature_until(spec.data, now)}
        verdicts = monitoring.run(tx, spec.monitors[0], reference, facts, now)
        return {verdict.reading.subject: verdict for verdict in verdicts}

    return SimpleNamespace(judge=judge, live=live)


def test_usual_days_pass_on_calibrated_limits(watched: Any, traffic: Any) -> None:
    for day in range(DAYS, DAYS + 4):
        traffic.day(day, [0.3] * rows_of(day), [1.0] * rows_of(day))
    found = watched.judge(DAYS + 3)
    assert {subject: verdict.grade for subject, verdict in found.items()} == {
        "rows": Grade.PASS,
        "labels": Grade.PASS,
        "label delay": Grade.PASS,
    }
    assert all(verdict.calibrated for verdict in found.values())


def test_half_of_the_traffic_lost_is_found_on_its_first_day(watched: Any, traffic: Any) -> None:
    traffic.day(DAYS, [0.3] * 40, [1.0] * 40)
    found = watched.judge(DAYS)
    assert found["rows"].grade is Grade.FAIL
    assert found["rows"].calibrated
    assert "windows of history, level 0.033" in found["rows"].why


def test_no_traffic_at_all_is_found(watched: Any) -> None:
    assert watched.judge(DAYS)["rows"].grade is Grade.FAIL


def test_labels_that_stop_are_found_once_their_day_is_complete(watched: Any, traffic: Any) -> None:
    traffic.answer([START + DAYS * DAY + timedelta(hours=12)] * rows_of(DAYS), [0.3] * rows_of(DAYS))
    traffic.day(DAYS + 1, [0.3] * rows_of(DAYS + 1), [1.0] * rows_of(DAYS + 1))
    assert watched.judge(DAYS)["labels"].grade is Grade.PASS
    gone = watched.judge(DAYS + 1)["labels"]
    assert gone.grade is Grade.FAIL
    assert "0.0% of" in gone.reading.note


def test_answers_that_are_no_number_are_failures_that_live_windows_leave_out(watched: Any, traffic: Any) -> None:
    noon = START + DAYS * DAY + timedelta(hours=12)
    traffic.answer([noon] * 100, [0.3] * 90 + [np.nan] * 10)
    window = watched.live.window(FIRST + DAYS * DAY, FIRST + DAYS * DAY, {"failures": lambda block: 10}, START)
    assert window.rows().height == 90
    [reading] = evaluation.measure(Errors(), window, None)
    assert (reading.value, reading.rows) == (0.1, 100)
    unsaid = Window(window.blocks, window.roles, {})
    assert "the window has no failures" in evaluation.measure(Errors(), unsaid, None)[0].note


def test_one_batch_of_recorded_answers_costs_its_time_once(watched: Any, traffic: Any) -> None:
    noon = START + DAYS * DAY + timedelta(hours=12)
    traffic.answer([noon] * 50, [0.3] * 50)
    window = watched.live.window(FIRST + DAYS * DAY, FIRST + DAYS * DAY, {}, START)
    [reading] = evaluation.measure(Cost(), window, None)
    assert reading.value == pytest.approx(1000e-6 / 50 * 1000)
