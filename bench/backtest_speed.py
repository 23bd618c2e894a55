"""How many predictions a second go through the whole loop in a backtest: `never` on April to December of the flights.

One process, as in `holdfast backtest`: answer, record, take labels, every monitor every day. With and without the
first training, and the processor time that the loop takes in this process. A few seconds a repeat.
"""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # as the processes of a backtest have it

import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from holdfast.backtest.replay import replay
from holdfast.core.spec import SystemSpec
from holdfast.demo.flights import write_feeds
from holdfast.flow import child
from holdfast.flow.drafting import draft
from holdfast.world import World, make_world
from parts.figures import median_of, options, report

START, END = datetime(2013, 4, 1, 4, tzinfo=UTC), datetime(2014, 1, 1, 5, tzinfo=UTC)


def flights() -> tuple[SystemSpec, World]:
    """The inferred system and its world."""
    with TemporaryDirectory() as directory:
        root = Path(directory)
        write_feeds(root / "data")
        spec = draft(root / "data", label="landings.late", timezone="America/New_York", root=root, until=START).spec
        feeds = {name: pl.read_parquet(root / feed.from_) for name, feed in spec.data.feeds.items()}
    return spec, make_world(spec, feeds)


def once(spec: SystemSpec, world: World) -> dict[str, float]:
    """One replay."""
    cpu_s = time.process_time()
    outcome = replay(spec, world, policy="never", start=START, end=END)
    loop_s = outcome.took_s - outcome.training_s
    return {
        "predictions": outcome.predictions,
        "predictions_per_s": outcome.predictions / loop_s,
        "predictions_per_s_with_training": outcome.predictions / outcome.took_s,
        "loop_s": loop_s,
        "training_s": outcome.training_s,
        "cpu_s": time.process_time() - cpu_s,
        "log_loss": outcome.metrics["log_loss"],
    }


def main() -> None:
    """Measure and report."""
    given = options(__doc__)
    child.warm_up()
    spec, world = flights()
    report("backtest_speed", median_of(given.repeats, lambda: once(spec, world)), given.json)


if __name__ == "__main__":
    main()
