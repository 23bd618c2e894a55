"""A backtest's report: as JSON for scripts, as tables for people."""

from collections.abc import Sequence
from datetime import datetime
from math import isnan
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from holdfast.backtest.runner import FAULTED, Report
from holdfast.backtest.scoring import Outcome

METRICS = {
    "classification": ("log_loss", "brier", "roc_auc", "bias"),
    "multiclass": ("log_loss", "brier", "accuracy", "f1_macro", "roc_auc", "bias"),
    "ranking": ("ndcg_10", "ndcg", "map", "mrr"),
    "regression": ("mae", "rmse", "r2", "bias"),
}
"""The metrics that a report shows, by task."""
FAULT_FIELDS = ("name", "injected_at", "detected_at", "check", "action")


def to_json(report: Report, task: str) -> bytes:
    """The report as JSON: ``policies``, ``faults``, ``predictions_per_s``, ``took_s``, and under ``details`` what the
    numbers rest on: every alarm and release of every run."""
    runs = {**report.policies, **({FAULTED: report.faulted} if report.faulted else {})}
    found = {
        "policies": {name: _summary(outcome, task) for name, outcome in report.policies.items()},
        "faults": [{name: getattr(fault, name) for name in FAULT_FIELDS} for fault in report.faults],
        "predictions_per_s": report.predictions_per_s,
        "took_s": report.took_s,
        "details": {
            "system": report.system,
            "start": report.start,
            "end": report.end,
            "runs": {name: _detail(outcome) for name, outcome in runs.items()},
        },
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"


def metrics_of(task: str, outcome: Outcome) -> tuple[str, ...]:
    """The metrics that a report shows: those of `METRICS`, or all that a task from elsewhere has."""
    return METRICS.get(task) or tuple(outcome.metrics)


def _summary(outcome: Outcome, task: str) -> dict[str, Any]:
    shown = metrics_of(task, outcome)
    months = ("month", "predictions", "labelled", *shown)
    return {
        **{name: outcome.metrics.get(name) for name in shown},
        "by_month": [{name: month.get(name) for name in months} for month in outcome.by_month],
        "predictions": outcome.predictions,
        "retrains": outcome.retrains,
        "alarms": len(outcome.alarms),
        "alarms_without_harm": sum(not alarm.with_harm for alarm in outcome.alarms),
        "false_alarms_per_month": outcome.false_alarms_per_month,
    }


def _detail(outcome: Outcome) -> dict[str, Any]:
    return {
        "metrics": outcome.metrics,
        "labelled": outcome.labelled,
        "refused": outcome.refused,
        "took_s": outcome.took_s,
        "training_s": outcome.training_s,
        "alarms_stated": sum(not (alarm.calibrated or alarm.stood_in) for alarm in outcome.alarms),
        "alarms_uncalibrated": sum(alarm.stood_in for alarm in outcome.alarms),
        "alarms": outcome.alarms,
        "releases": outcome.releases,
        "detections": outcome.detections,
    }


def show(report: Report, task: str, console: Console) -> None:
    """Print the report as tables."""
    shown = metrics_of(task, next(iter(report.policies.values())))
    console.print(_policies(report, shown))
    console.print(_months(report, shown))
    console.print(_alarms(report))
    if report.faults:
        console.print(_faults(report))
    total = sum(outcome.predictions for outcome in report.policies.values())
    total += report.faulted.predictions if report.faulted else 0
    console.print(
        f"{total:,} predictions through the whole loop, {report.predictions_per_s:,.0f} a second of CPU "
        f"(trainings left out); {report.took_s:.0f} s in all"
    )


def _policies(report: Report, shown: tuple[str, ...]) -> Table:
    table = Table(title=f"Policies, {_day(report.start)} to {_day(report.end)}, without faults", title_justify="left")
    for column in ("policy", *shown, "retrains", "released"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, outcome in report.policies.items():
        released = sum(any_live(release.state) for release in outcome.releases[1:])
        values = [_number(outcome.metrics.get(metric)) for metric in shown]
        table.add_row(name, *values, str(outcome.retrains), str(released))
    return table


def any_live(state: str) -> bool:
    """Whether a release in this state has been live."""
    return state in ("live", "retired")


def _months(report: Report, shown: tuple[str, ...]) -> Table:
    """A row per month; in each cell the policies in their order, the best of the first metric in bold."""
    title = f"By month, each {' / '.join(report.policies)}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("month", *shown):
        table.add_column(column, no_wrap=True)
    found = {name: {month["month"]: month for month in run.by_month} for name, run in report.policies.items()}
    for month in sorted({month for months in found.values() for month in months}):
        scored = [months.get(month, {}) for months in found.values()]
        cells = [_side_by_side([each.get(metric) for each in scored]) for metric in shown]
        best = min((v for each in scored if (v := each.get(shown[0])) is not None and not isnan(v)), default=None)
        cells[0] = _side_by_side([each.get(shown[0]) for each in scored], best)
        table.add_row(month, *cells)
    return table


def _side_by_side(values: Sequence[float | None], best: float | None = None) -> str:
    return " ".join(f"[bold]{_short(v)}[/bold]" if best is not None and v == best else _short(v) for v in values)


def _short(value: float | None) -> str:
    """Three decimals without the zero before them; larger numbers with four digits."""
    if value is None or isnan(value):
        return "-"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}".replace("0.", ".", 1)


def _alarms(report: Report) -> Table:
    table = Table(title="Alarms in the runs without faults", title_justify="left")
    counted = ("alarms", "with harm", "without harm", "stated limit", "not calibrated", "without harm a month")
    for column in ("policy", *counted):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, outcome in report.policies.items():
        with_harm = sum(alarm.with_harm for alarm in outcome.alarms)
        stood_in = sum(alarm.stood_in for alarm in outcome.alarms)
        stated = sum(not alarm.calibrated for alarm in outcome.alarms) - stood_in
        counts = (len(outcome.alarms), with_harm, len(outcome.alarms) - with_harm, stated, stood_in)
        table.add_row(name, *map(str, counts), f"{outcome.false_alarms_per_month:.2f}")
    return table


def _faults(report: Report) -> Table:
    table = Table(title="Faults, in a run of their own", title_justify="left")
    for column in ("fault", "began", "detected", "after", "by", "what was done"):
        table.add_column(column, overflow="fold")
    for fault in report.faults:
        found = fault.detected_at
        after = f"{(found - fault.injected_at).total_seconds() / 86400:.1f} d" if found else ""
        table.add_row(
            fault.name,
            _day(fault.injected_at),
            _day(found) if found else "not detected",
            after,
            fault.check,
            fault.action,
        )
    return table


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d")


def _number(value: float | None) -> str:
    return "" if value is None or isnan(value) else f"{value:.4f}"
