"""The report: exactly the documented keys as JSON, tables for people."""

import io
import json
from datetime import timedelta
from math import nan

import pytest
from msgspec.structs import replace
from rich.console import Console

from holdfast.backtest.report import show, to_json
from holdfast.backtest.runner import Report
from holdfast.backtest.scoring import Alarm, Detection, Outcome
from holdfast.testing import START

DAY = timedelta(days=1)
KEYS = {"log_loss", "brier", "roc_auc", "bias"}
COUNTS = {"by_month", "predictions", "retrains", "alarms", "alarms_without_harm", "false_alarms_per_month"}


def an_alarm(with_harm: bool) -> Alarm:
    return Alarm(at=START, check="drift", subject="x", calibrated=True, with_harm=with_harm, why="", actions=())


def an_outcome(log_loss: float = 0.5, **changes) -> Outcome:
    metrics = {"log_loss": log_loss, "brier": 0.2, "roc_auc": 0.7, "bias": 0.01, "mae": 9.5, "rmse": 2, "r2": 0.1}
    month = {"month": "2013-04", "predictions": 90, "labelled": 80, **metrics}
    outcome = Outcome(
        metrics=metrics,
        by_month=(month,),
        predictions=100,
        labelled=80,
        retrains=2,
        alarms=(an_alarm(True), an_alarm(False), an_alarm(False)),
        releases=(),
        detections=(),
        false_alarms_per_month=1.5,
        took_s=4.0,
        training_s=2.0,
        cpu_s=2.0,
    )
    return replace(outcome, **changes)


def a_report(*, faulted: bool = False, **policies: Outcome) -> Report:
    found = Detection(
        name="stale", injected_at=START, detected_at=START + DAY, check="freshness", action="told", why="old"
    )
    return Report(
        system="flights",
        start=START,
        end=START + 30 * DAY,
        policies=policies or {name: an_outcome() for name in ("never", "monthly", "evidence")},
        faulted=an_outcome(detections=(found, replace(found, name="x", detected_at=None))) if faulted else None,
        took_s=9.0,
    )


def shown(report: Report, task: str = "classification") -> str:
    console = Console(file=io.StringIO(), width=200)
    show(report, task, console)
    return console.file.getvalue()


def test_alarms_by_a_limit_that_is_stated_are_not_those_by_one_that_stood_in_for_history():
    by_limit = replace(an_alarm(False), calibrated=False)
    alarms = (an_alarm(True), by_limit, by_limit, replace(by_limit, stood_in=True))
    report = a_report(never=an_outcome(alarms=alarms))
    runs = json.loads(to_json(report, "classification"))["details"]["runs"]
    assert (runs["never"]["alarms_stated"], runs["never"]["alarms_uncalibrated"]) == (2, 1)
    [row] = [line.split() for line in shown(report).splitlines() if "1.50" in line]
    assert [cell for cell in row if cell.isdigit()] == ["4", "1", "3", "2", "1"]


def test_json_has_exactly_the_documented_keys():
    found = json.loads(to_json(a_report(faulted=True), "classification"))
    assert set(found) == {"policies", "faults", "predictions_per_s", "took_s", "details"}
    assert list(found["policies"]) == ["never", "monthly", "evidence"]
    for policy in found["policies"].values():
        assert set(policy) == KEYS | COUNTS
        assert set(policy["by_month"][0]) == {"month", "predictions", "labelled"} | KEYS
    assert [set(fault) for fault in found["faults"]] == [{"name", "injected_at", "detected_at", "check", "action"}] * 2
    assert set(found["details"]["runs"]) == {"never", "monthly", "evidence", "faults"}


def test_json_counts():
    found = json.loads(to_json(a_report(faulted=True), "classification"))
    never = found["policies"]["never"]
    assert (never["predictions"], never["retrains"]) == (100, 2)
    assert (never["alarms"], never["alarms_without_harm"], never["false_alarms_per_month"]) == (3, 2, 1.5)
    assert found["predictions_per_s"] == pytest.approx(400 / 8)
    assert found["took_s"] == 9.0
    assert found["faults"][0]["detected_at"] == "2013-04-02T00:00:00Z"
    assert found["faults"][1]["detected_at"] is None


def test_without_faults_the_list_is_empty():
    found = json.loads(to_json(a_report(), "classification"))
    assert found["faults"] == []
    assert set(found["details"]["runs"]) == {"never", "monthly", "evidence"}


def test_what_is_undefined_is_null():
    one_class = an_outcome(metrics={"log_loss": 0.5, "roc_auc": nan})
    found = json.loads(to_json(a_report(never=one_class), "classification"))
    assert found["policies"]["never"]["roc_auc"] is None
    assert found["policies"]["never"]["brier"] is None


def test_a_regression_has_its_own_metrics():
    found = json.loads(to_json(a_report(), "regression"))
    assert set(found["policies"]["never"]) == {"mae", "rmse", "r2", "bias"} | COUNTS


def test_a_task_from_elsewhere_shows_all_its_metrics():
    report = a_report(never=an_outcome(metrics={"pinball": 1.0}))
    assert json.loads(to_json(report, "quantiles"))["policies"]["never"]["pinball"] == 1.0
    assert "pinball" in shown(report, "quantiles")


def test_tables_tell_policies_months_alarms_and_faults():
    said = shown(a_report(faulted=True))
    for words in ("never", "monthly", "evidence", "2013-04", "0.5000", "freshness", "not detected", "1.0 d", "1.50"):
        assert words in said
    assert "400 predictions through the whole loop, 50 a second" in said


def best(report: Report, task: str = "classification") -> list[str]:
    """The cells of the table by month that stand out."""
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    show(report, task, console)
    months = console.file.getvalue().split("By month")[1].split("Alarms in")[0]
    rows = [line for line in months.splitlines() if "2013-" in line]
    return [part.split("\x1b")[0].strip() for line in rows for part in line.split("\x1b[1m")[1:]]


def test_the_best_of_a_month_stands_out_as_a_number_not_as_text():
    nine, ten = an_outcome(), an_outcome(by_month=({**an_outcome().by_month[0], "mae": 10.5},))
    assert best(a_report(never=ten, monthly=nine), "regression") == ["9.5"]


def test_a_month_that_one_run_lacks_or_cannot_score_is_empty():
    month = an_outcome().by_month[0]
    late = an_outcome(by_month=({**month, "month": "2013-05"},))
    unknown = an_outcome(by_month=({"month": "2013-04", "predictions": 3, "labelled": 0},))
    undefined = an_outcome(by_month=({**month, "log_loss": nan},))
    report = a_report(never=an_outcome(), monthly=late, evidence=unknown, other=undefined)
    assert "nan" not in shown(report)
    assert best(report) == [".500", ".500"]


def test_a_replay_without_labels_is_reported():
    nothing = an_outcome(metrics={}, by_month=())
    assert json.loads(to_json(a_report(never=nothing), "classification"))["policies"]["never"]["log_loss"] is None
    assert "never" in shown(a_report(never=nothing))
