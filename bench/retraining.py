"""Which window and which retrain policy would have been best? The real backtest on flights and on bike sharing.

Windows (all of the history, 90 days, 30 days, chosen by evidence) times policies (never, every 30 days, on a fallen
quality where the new model is better, every 30 days where it is). Each replay is the whole loop with real trainings.
One core; `--thin 6` keeps every sixth flight, which is what makes it minutes.
"""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # as the processes of a backtest have it

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from msgspec.structs import replace

from holdfast.backtest.replay import MONTH, replay
from holdfast.core.evidence import Limit
from holdfast.core.spans import ALL, AUTO, Span
from holdfast.core.spec import Gate, Monitor, Response, SystemSpec
from holdfast.core.specfile import parse_spec
from holdfast.core.specwords import write_span
from holdfast.demo.flights import write_feeds
from holdfast.flow import child
from holdfast.flow.drafting import draft
from holdfast.world import World, make_world
from parts.figures import machine, options
from parts.shared import DATA

WINDOWS = (ALL, Span(recent=timedelta(days=90)), Span(recent=timedelta(days=30)), AUTO)
COSTS = {"flights": 0.001, "bikes": 2.0}
"""What a new version must earn, in the loss that decides: about a twentieth and a fortieth of what a model gains over
a constant."""
POLICIES = ("never", "monthly", "evidence", "monthly if better")

BIKES = """
system: bikes
data:
  feeds:
    hires: {from: hires.parquet, event_at: at, known_at: at, key: id}
    counts: {from: counts.parquet, event_at: counted_at, known_at: counted_at, key: id}
  rows: hires
  key: id
  label: {feed: counts, column: cnt, known_at: counted_at, mature_after: 1d}
  columns:
    hr: {integer: [0, 23]}
    weekday: {integer: [0, 6]}
    workingday: {integer: [0, 1]}
    holiday: {integer: [0, 1]}
    weathersit: {integer: [1, 4]}
    temp: {number: [0, 1]}
    hum: {number: [0, 1]}
    windspeed: {number: [0, 1]}
model: {task: regression, trainer: lightgbm}
gates:
  - {check: quality, metric: mae, no_worse_than: live}
release:
  steps: [shadow 2d, canary 10% 3d, live]
  decide: {loss: absolute_error, margin: 4}
monitors:
  - {check: quality, metric: mae}
"""


def flights(thin: int) -> tuple[SystemSpec, World, datetime, datetime]:
    """The inferred system, watched for its quality alone, and its world: one flight in `thin`."""
    start, end = datetime(2013, 4, 1, 4, tzinfo=UTC), datetime(2014, 1, 1, 5, tzinfo=UTC)
    with TemporaryDirectory() as directory:
        root = Path(directory)
        write_feeds(root / "data")
        spec = draft(root / "data", label="landings.late", timezone="America/New_York", root=root, until=start).spec
        feeds = {name: pl.read_parquet(root / feed.from_) for name, feed in spec.data.feeds.items()}
    feeds["flights"] = feeds["flights"].gather_every(thin)
    metric = {"metric": "log_loss"}
    spec = replace(
        spec,
        system="flights",
        gates=(Gate(check="quality", options=metric, limit=Limit(no_worse_than="live"), name="live"),),
        monitors=(Monitor(check="quality", options=metric, name="quality"),),
    )
    return spec, make_world(spec, feeds), start, end


def bikes() -> tuple[SystemSpec, World, datetime, datetime]:
    """How many bikes are hired in an hour: trained on 2011, answered in 2012, which was much busier."""
    hours = pl.read_parquet(DATA / "bike_sharing" / "bike_hour.parquet").with_columns(
        at=pl.col("dteday").cast(pl.String).str.to_datetime("%Y-%m-%d", time_unit="us", time_zone="UTC")
        + pl.duration(hours="hr"),
        id=pl.col("instant").cast(pl.String),
    )
    spec = parse_spec(BIKES)
    counts = hours.select("id", "cnt", counted_at=pl.col("at") + timedelta(hours=1))
    feeds = {"hires": hours.select("id", "at", *spec.data.columns), "counts": counts}
    return spec, make_world(spec, feeds), datetime(2012, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)


def retrained(spec: SystemSpec, policy: str) -> tuple[SystemSpec, str]:
    """The system with the responses of a policy, and the policy of the backtest that heeds them."""
    asked = {"if": "better", "cost": COSTS[spec.system]}
    responses = {
        "evidence": Response(do="retrain", on="quality", cooldown=timedelta(days=14), options=asked),
        "monthly if better": Response(do="retrain", every=MONTH, options=asked),
    }
    if policy in responses:
        return replace(spec, responses=(responses[policy],)), "evidence"
    return replace(spec, responses=()), policy


def measured(
    spec: SystemSpec, world: World, start: datetime, end: datetime, window: Span, policy: str
) -> dict[str, Any]:
    """One replay. `loop_cpu_s` is without the trainings, whose wall time is `training_s`."""
    spec, known = retrained(replace(spec, model=replace(spec.model, window=window)), policy)
    outcome = replay(spec, world, policy=known, start=start, end=end)
    losses = ("brier", "log_loss") if "brier" in outcome.metrics else ("mae",)
    went_live = [r for r in outcome.releases[1:] if r.state in ("live", "retired")]
    return {
        "data": spec.system,
        "window": write_span(window),
        "policy": policy,
        **{loss: outcome.metrics[loss] for loss in losses},
        "retrains": outcome.retrains,
        "released": len(went_live),
        "by_month": {month["month"]: month[losses[0]] for month in outcome.by_month if losses[0] in month},
        "releases": [f"{r.began:%Y-%m-%d} {r.state}: {r.why}" for r in outcome.releases],
        "loop_cpu_s": outcome.cpu_s,
        "training_s": outcome.training_s,
    }


def main() -> None:
    """Measure and report; what is done is told on standard error."""
    given = options(__doc__, thin=6, only="")
    child.warm_up()
    worlds = {"flights": lambda: flights(given.thin), "bikes": bikes}
    rows: list[dict[str, Any]] = []
    for name in [given.only] if given.only else list(worlds):
        spec, world, start, end = worlds[name]()
        for policy in POLICIES:
            for window in WINDOWS:
                rows.append(measured(spec, world, start, end, window, policy))
                sys.stderr.write(f"{_line(rows[-1])}\n")
    sys.stdout.write("\n".join(table(rows)) + "\n")
    if given.json:
        whole = {"benchmark": "retraining", "machine": machine(), "thin": given.thin, "figures": rows}
        given.json.write_text(json.dumps(whole, indent=2) + "\n")


def _line(row: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value}" for key, value in row.items() if key not in ("by_month", "releases"))


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The losses as a table in Markdown: a line per data set and policy, a column per window."""
    names = [write_span(window) for window in WINDOWS]
    lines = [f"| data, loss | policy | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for data in dict.fromkeys(row["data"] for row in rows):
        mine = [row for row in rows if row["data"] == data]
        for loss in [name for name in ("brier", "log_loss", "mae") if name in mine[0]]:
            for policy in POLICIES:
                found = {row["window"]: row for row in mine if row["policy"] == policy}
                cells = [f"{found[n][loss]:.4g} ({found[n]['released']})" if n in found else "" for n in names]
                lines.append(f"| {data}, {loss} | {policy} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
