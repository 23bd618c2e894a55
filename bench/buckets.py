"""Drift of a week of recorded answers from buckets by hour, beside reading the rows; and what counting costs at ingest.

    python bench/buckets.py --json bench/results/buckets.json

20 columns and the answer, 7 days of --rows rows in all, in a lake on files with its manifest in SQLite. Polars gets one
thread. Times are processor time of this process; a report is the drift check on a week, cut from the counts anew.
"""

import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["POLARS_MAX_THREADS"] = "1"

import numpy as np
import polars as pl

from holdfast.checks.drift import Drift
from holdfast.core.evidence import Block, Window
from holdfast.core.signature import Column
from holdfast.core.spec import Data, Decide, Label, Model, ReleasePlan, Step, SystemSpec
from holdfast.core.times import microseconds
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import LakeFile, Swap
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.flow.predictions import LivePredictions
from holdfast.stats.histogram import edges_of
from parts.figures import options, report
from parts.tables import table

DAYS = 7
MILLION = 1_000_000
FEW = 1_000
"""Rows of a small roll: what a minute of 10 million rows a week brings."""
START = datetime(2026, 3, 2, tzinfo=UTC)
WANTED_MS, WANTED_US = 5.0, 0.2


def main() -> None:
    """Measure and report."""
    given = options(__doc__, rows=10 * MILLION, work="", timezone="UTC")
    with TemporaryDirectory(prefix="holdfast-buckets-", dir=given.work or None) as temporary:
        folder = Path(temporary)
        catalog = SqliteCatalog(folder / "catalog.db")
        lake = FileLake(folder / "lake", catalog.manifest)
        figures = _measured(lake, catalog, folder / "lake", given.rows, given.repeats, given.timezone)
        lake.close()
        catalog.close()
    report("buckets", figures, given.json)


def _measured(
    lake: FileLake, catalog: SqliteCatalog, folder: Path, rows: int, repeats: int, timezone: str
) -> list[dict[str, Any]]:
    known = table(MILLION, seed=1).with_columns(pl.Series("probability", np.random.default_rng(1).random(MILLION)))
    edges = {name: edges_of(_values(known[name])) for name in known.columns}
    spec = _spec(known, timezone)
    baseline = Window([Block(START.date(), START - timedelta(days=2), START - timedelta(days=1), lambda: known)], {})
    live = LivePredictions(spec, lake, "probability")
    ingest = [_ingested(catalog, folder, live, edges, n, rows // DAYS) for n in range(DAYS)]
    counted = sum(each["values"] for each in ingest)
    spent = sum(each["cpu_s"] for each in ingest)
    few = [_ingested(catalog, folder, live, edges, DAYS + n, FEW) for n in range(5)]
    kept = sum(path.stat().st_size for path in folder.rglob("*.counts-*"))
    window = _window(spec, lake, edges)
    Drift().measure(window(), baseline)  # counts the baseline, once for a version

    def by_buckets(live: LivePredictions | None = None) -> float:
        blocks = window(live)
        return _cpu_s(lambda: Drift().measure(blocks, baseline))

    in_memory = [by_buckets(live) * 1e3 for _ in range(20 * repeats)]
    anew = [by_buckets() * 1e3 for _ in range(20 * repeats)]
    read = window()
    by_rows = _cpu_s(lambda: [block.rows() for block in read.blocks])
    plain = Window([Block(b.day, b.start, b.end, b.rows) for b in read.blocks], read.roles, read.facts)
    by_rows += _cpu_s(lambda: Drift().measure(plain, baseline))
    assert Drift().measure(plain, baseline) == Drift().measure(window(), baseline)
    us, few_us = spent / counted * 1e6, statistics.median(each["cpu_s"] / each["values"] for each in few) * 1e6
    ms, anew_ms = statistics.median(in_memory), statistics.median(anew)
    case = f"{DAYS} days of {rows:,} rows, {len(edges)} columns"
    return [
        {"case": f"counting at ingest, {rows // DAYS:,} rows a file", "us_per_value": us, "wanted": WANTED_US,
         "met": us <= WANTED_US, "kept_mb": kept / 1e6, "rows_mb": sum(each["bytes"] for each in ingest) / 1e6},
        {"case": f"counting at ingest, {FEW:,} rows a file", "us_per_value": few_us, "wanted": WANTED_US,
         "met": few_us <= WANTED_US},
        {"case": f"drift report, {case}, counts in memory", "ms": ms, "wanted": WANTED_MS, "met": ms <= WANTED_MS},
        {"case": f"drift report, {case}, counts read from disk", "ms": anew_ms, "wanted": WANTED_MS,
         "met": anew_ms <= WANTED_MS},
        {"case": f"drift report, {case}, from the rows", "ms": by_rows * 1e3, "by_buckets": by_rows * 1e3 / ms},
    ]  # fmt: skip


def _ingested(
    catalog: SqliteCatalog, folder: Path, live: LivePredictions, edges: dict[str, Any], day: int, rows: int
) -> dict[str, float]:
    """A day, or a minute of few rows, as one file, as rolling leaves it, and what counting it takes."""
    begin = microseconds(START + timedelta(days=day))
    span = 86_400_000_000 if rows > FEW else 60_000_000
    at = np.sort(np.random.default_rng(day).integers(0, span, rows)) + begin
    inputs = table(rows, seed=100 + day, shift=0.02)
    frame = inputs.select(pl.all().name.prefix("in.")).with_columns(
        pl.Series("event_at", at).cast(pl.Datetime("us", "UTC")),
        pl.format("{}-{}:0", pl.lit(day), pl.int_range(rows)).alias("prediction_id"),
        pl.Series("out.probability", np.random.default_rng(day).random(rows)),
        *(pl.lit(text).alias(name) for name, text in (("status", "ok"), ("stage", "live"), ("version", "1"))),
        *(pl.lit(1.0).alias(name) for name in ("queue_us", "run_us")),
        pl.int_range(rows).cast(pl.Int64).alias("_written_at"),
        pl.int_range(rows).cast(pl.Int64).alias("_row"),
        pl.lit(None, pl.String).alias("key"),
    )
    path = folder / "flights" / "predictions" / f"day={START + timedelta(days=day):%Y-%m-%d}" / "0.parquet"
    path.parent.mkdir(parents=True)
    frame.write_parquet(path, compression="zstd", statistics=True)
    size = path.stat().st_size
    file = LakeFile(
        system="flights",
        table="predictions",
        path=path.relative_to(folder).as_posix(),
        rows=rows,
        low=int(at[0]),
        high=int(at[-1]),
        size_bytes=size,
    )
    catalog.manifest.swap([Swap(system="flights", table="predictions", add=(file,))])
    del frame, inputs
    took = _cpu_s(lambda: list(live.buckets.counting(edges)))
    return {"cpu_s": took, "values": rows * len(edges), "bytes": size}


def _window(spec: SystemSpec, lake: FileLake, edges: dict[str, Any]) -> Callable[..., Window]:
    """The week as blocks that remember nothing; of new predictions, which have read nothing, where none are given."""

    def made(live: LivePredictions | None = None) -> Window:
        live = live or LivePredictions(spec, lake, "probability")
        days = [START.date() + timedelta(days=n) for n in range(DAYS)]
        live.forget(days)
        return live.window(days[0], days[-1], {"edges": edges}, START + timedelta(days=DAYS))

    return made


def _spec(known: pl.DataFrame, timezone: str) -> SystemSpec:
    types: dict[str, Any] = {
        name: "category" if dtype == pl.String else "number" for name, dtype in known.drop("probability").schema.items()
    }
    label = Label(feed="flights", column="late", known_at="landed_at", mature_after=timedelta(days=30))
    columns = {name: Column(name=name, type=type) for name, type in types.items()}
    return SystemSpec(
        system="flights",
        data=Data(feeds={}, rows="flights", key="id", timezone=timezone, label=label, columns=columns),
        model=Model(task="classification", trainer="lightgbm"),
        gates=(),
        release=ReleasePlan(steps=(Step(stage="live"),), decide=Decide(loss="brier", margin=0.01)),
    )


def _values(column: pl.Series) -> Any:
    return column.to_list() if column.dtype == pl.String else column.cast(pl.Float64).to_numpy()


def _cpu_s(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()
