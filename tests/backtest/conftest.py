"""A small synthetic system in memory: parcels that come late, with a weather feed and a lookup read by two entries."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.backtest.replay import replay
from holdfast.backtest.scoring import Outcome
from holdfast.core.spec import SystemSpec
from holdfast.core.specfile import parse_spec
from holdfast.world import World, make_world

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAYS, ROWS_A_DAY = 60, 40
START, END = FIRST + timedelta(days=30), FIRST + timedelta(days=50)
TASKS = {"classification": ("late", "log_loss", "brier"), "regression": ("hours", "mae", "absolute_error")}

FILE = """\
system: parcels
data:
  feeds:
    parcels: {{from: parcels.parquet, event_at: at, known_at: listed_at, key: id, fresh: 2d}}
    ends: {{from: ends.parquet, event_at: ended_at, known_at: ended_at, key: id}}
    weather: {{from: weather.parquet, event_at: hour, known_at: told_at, by: depot, take: [temp], within: 2d,
      fresh: 2d}}
    weather_seen: {{from: weather.parquet, event_at: hour, known_at: told_at, by: depot,
      aggregate: {{temp: [mean]}}, last: 2d}}
  rows: parcels
  key: id
  label: {{feed: ends, column: {label}, known_at: ended_at, mature_after: 1d}}
  columns: {{depot: category, load: number, distance: number, weather_temp: number}}
model: {{task: {task}, trainer: linear, validate: {{folds: 1, holdout: 7d}}}}
gates:
  - {gate}
release:
  steps: [shadow 2d, live]
  decide: {{loss: {loss}, margin: 0.05, within: 10d}}
monitors:
  - {{check: quality, metric: {metric}}}
  - {{check: silence}}
  - {{check: freshness}}
responses:
  - {{on: quality, do: retrain, cooldown: 14d}}
"""
GATE = "{check: quality, metric: %s, no_worse_than: live, margin: 1}"


def a_spec(task: str = "classification", gate: str = "") -> SystemSpec:
    """The system, for one of the two tasks."""
    label, metric, loss = TASKS[task]
    text = FILE.format(label=label, task=task, loss=loss, metric=metric, gate=gate or GATE % metric)
    return parse_spec(text, file="parcels.yaml")


def some_feeds(days: int = DAYS, rows_a_day: int = ROWS_A_DAY, seed: int = 3) -> dict[str, pl.DataFrame]:
    """The feeds by entry: parcels are listed two hours before, their end is known three hours after."""
    rng = np.random.default_rng(seed)
    n = days * rows_a_day
    minutes = 1440 // rows_a_day
    at = [FIRST + timedelta(days=i // rows_a_day, minutes=minutes * (i % rows_a_day)) for i in range(n)]
    load, distance, depot = rng.normal(size=n), rng.normal(size=n), rng.choice(["north", "south"], size=n)
    score = 1.5 * load - distance + (depot == "south") - 1.0
    ids = [f"p{i}" for i in range(n)]
    ended = [each + timedelta(hours=3) for each in at]
    late = (rng.random(n) < 1 / (1 + np.exp(-score))).astype(int)
    hours = [FIRST - timedelta(days=3) + timedelta(hours=6 * k) for k in range(4 * (days + 3)) for _ in range(2)]
    temp = 60 + 8 * np.sin(np.arange(len(hours)) / 8) + rng.normal(size=len(hours))
    weather = pl.DataFrame(
        {
            "depot": ["north", "south"] * (len(hours) // 2),
            "hour": hours,
            "told_at": [each + timedelta(hours=1) for each in hours],
            "temp": temp,
        }
    )
    return {
        "parcels": pl.DataFrame(
            {
                "id": ids,
                "at": at,
                "listed_at": [each - timedelta(hours=2) for each in at],
                "depot": depot,
                "load": load,
                "distance": distance,
            }
        ),
        "ends": pl.DataFrame({"id": ids, "ended_at": ended, "late": late, "hours": score + rng.normal(size=n)}),
        "weather": weather,
        "weather_seen": weather,
    }


def write_system(directory: Path, feeds: dict[str, pl.DataFrame], task: str = "classification") -> Path:
    """The same system as files; returns the system file."""
    for name in ("parcels", "ends", "weather"):
        feeds[name].write_parquet(directory / f"{name}.parquet")
    label, metric, loss = TASKS[task]
    file = directory / "holdfast.yaml"
    file.write_text(FILE.format(label=label, task=task, loss=loss, metric=metric, gate=GATE % metric))
    return file


def without_times(outcome: Outcome) -> dict[str, Any]:
    """All of an outcome but how long it took."""
    timed = ("took_s", "training_s", "cpu_s")
    return {name: getattr(outcome, name) for name in outcome.__struct_fields__ if name not in timed}


class Small:
    """The small system."""

    first, start, end = FIRST, START, END
    spec, feeds = staticmethod(a_spec), staticmethod(some_feeds)
    write, without_times = staticmethod(write_system), staticmethod(without_times)

    @staticmethod
    def world(feeds: dict[str, pl.DataFrame] | None = None, spec: SystemSpec | None = None) -> World:
        return make_world(spec or a_spec(), feeds or some_feeds())

    @classmethod
    def play(cls, world: World | None = None, spec: SystemSpec | None = None, **how: Any) -> Outcome:
        how = {"policy": "never", "start": START, "end": END} | how
        return replay(spec or a_spec(), world or cls.world(), **how)


@pytest.fixture(scope="session")
def parcels() -> type[Small]:
    return Small


@pytest.fixture(scope="session")
def never(parcels: type[Small]) -> Outcome:
    """The outcome of `never` on the small system."""
    return parcels.play()


@pytest.fixture
def seen() -> Callable[..., Any]:
    """`seen(what)`: keeps what is told to it."""
    kept: list[Any] = []

    def see(*what: Any) -> None:
        kept.append(what)

    see.kept = kept  # type: ignore[attr-defined]
    return see
