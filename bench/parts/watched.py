"""Holdfast's monitors on simulated systems: its own checks, evaluation, monitoring and incidents, driven day by day.

Only what brings the days is a stand-in: it hands the blocks of a simulated day to `LivePredictions`, which else reads
them from the lake. Labels are complete a day after their day. The promise is made by the product's `make_reference`:
180 days of reference, the newest 14 of them the hold-out. Its folds are the losses of the one model on the three later
quarters of the days before; a real run fits a model for each, and promises more generously for it.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import numpy as np
import polars as pl

from holdfast.core import kinds
from holdfast.core.blocks import block_bounds, mature_until
from holdfast.core.evidence import Block, Grade, Verdict, Window
from holdfast.core.protocols import Task
from holdfast.core.records import Incident, Mark
from holdfast.core.signature import Signature
from holdfast.core.spec import Data, Decide, Feed, Gate, Label, Model, Monitor, ReleasePlan, Step, SystemSpec
from holdfast.core.specwords import fill_names
from holdfast.engines.memory import MemoryCatalog, MemoryLake
from holdfast.flow import incidents
from holdfast.flow.monitors import Monitoring
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.reference import make_reference
from parts.streams import MONDAY, Pool, column_of, dated, days_from, draw

NAME, VERSION = "simulated", "1"
HOLDOUT, FOLDS = 14, 3
DAY = timedelta(days=1)
WEEK = 7 * DAY
LOSS = {"classification": "log_loss", "regression": "absolute_error"}


class Simulated(LivePredictions):
    """Live predictions that come from frames by day. Changed days take the place of those that were served."""

    def __init__(self, spec: SystemSpec, output: str, days: Mapping[date, pl.DataFrame]) -> None:
        super().__init__(spec, MemoryLake(), output)
        self._served = {day: self._block(day, rows) for day, rows in days.items()}
        self._original = dict(self._served)
        self._empty = next(iter(days.values())).clear()

    def change(self, days: Mapping[date, pl.DataFrame]) -> None:
        """Serve the original days but these."""
        self._served = {**self._original, **{day: self._block(day, rows) for day, rows in days.items()}}

    def labelled_block(self, day: date) -> Block:
        """One day with its labels; what is asked of it before it is mature reads no label."""
        if day not in self._served:
            self._served[day] = self._original[day] = self._block(day, self._empty)
        return self._served[day]

    def _answered_block(self, day: date) -> Block:
        return self.labelled_block(day)

    def _kept(self, kept: Any, day: date, make: Any) -> Block:
        block: Block = make(day)
        return block

    def _block(self, day: date, rows: pl.DataFrame) -> Block:
        start, end = block_bounds(self._spec.data.timezone, day)
        return Block(day, start, end, lambda: rows)


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor that failed on a day: `on` counts from 0, the day whose evidence was the newest."""

    on: int
    monitor: str
    is_calibrated: bool
    subject: str
    why: str


class Watch:
    """One simulated system: a reference, a stream of days, and the monitors of the product on them."""

    def __init__(self, pool: Pool, seed: int, *, monitors: Sequence[Monitor] = (), stream: int = 0) -> None:
        self.pool = pool
        self.task: Task = kinds.load("tasks", pool.task)()
        random = np.random.default_rng([seed, 1])
        before, after = draw(pool.strata, pool.reference, stream or pool.stream, random, pool.unit)
        self.reference_days = [pool.days[place] for place in before]
        self.stream = [pool.days[place] for place in after]
        self.spec = spec_of(pool, monitors or default_monitors(pool))
        earlier = days_from(MONDAY - pool.reference * DAY, pool.reference)
        rows = pl.concat([dated(day, on, VERSION) for day, on in zip(self.reference_days, earlier, strict=True)])
        self._reference = self._refer(rows)
        self._dates = days_from(MONDAY, len(self.stream))
        served = {on: dated(day, on, VERSION) for on, day in zip(self._dates, self.stream, strict=True)}
        self._live = Simulated(self.spec, pool.output, served)
        self._monitoring = Monitoring(self.spec, self.task, self._live)
        self._groups = {name: pool.groups.get(name, "rows") for name in pool.columns}

    @property
    def promised(self) -> Mapping[str, float]:
        """What the version promises of each loss."""
        return self._reference.promised

    def run(
        self, through: int, *, since: int = 0, catalog: MemoryCatalog | None = None, stop: bool = False
    ) -> tuple[list[Alarm], MemoryCatalog]:
        """Watch the days `since` .. `through` - 1, going on from a catalog; with `stop` only until the first alarm."""
        catalog = catalog or MemoryCatalog()
        alarms: list[Alarm] = []
        for on in range(since, through):
            now = datetime.combine(self._dates[0] + (on + 1) * DAY, datetime.min.time(), tzinfo=UTC)
            with catalog.begin() as tx:
                for monitor in self._monitoring.due(tx, now, now - (on + 1) * DAY):
                    facts = {
                        "now": now,
                        "monitors": self._monitoring.last_runs(tx),
                        "mature_until": mature_until(self.spec.data, now),
                    }
                    verdicts = self._monitoring.run(tx, monitor, self._reference, facts, now)
                    incidents.observe(tx, NAME, monitor.check, verdicts, self._groups, now)
                    alarms += _failed(verdicts, on)
            if stop and alarms:
                break
        return alarms, catalog

    def change(self, days: Mapping[int, pl.DataFrame]) -> None:
        """Serve these days, counted from 0, in place of the original ones."""
        self._live.change({self._dates[on]: dated(day, self._dates[on], VERSION) for on, day in days.items()})

    def windows(self, days: Sequence[pl.DataFrame]) -> tuple[Window, Window]:
        """Some days as a window that a check can measure, and the reference as its baseline."""
        blocks = [
            Block(on, *block_bounds("UTC", on), partial(_as_it_is, day))
            for on, day in zip(self._dates, days, strict=False)
        ]
        roles, facts = self._live.roles(), {**self._reference.facts, "task": self.task}
        return Window(blocks, roles, facts), Window(self._reference.blocks, roles, facts)

    def _refer(self, rows: pl.DataFrame) -> Any:
        output = self.pool.output
        signature = Signature(
            columns=tuple(column_of(name, rows[name]) for name in self.pool.columns), task=self.pool.task, output=output
        )
        first: Any = rows["event_at"].max() - HOLDOUT * DAY
        day = rows["event_at"].dt.date()
        held = rows.filter(day > first.date()).select("key", "event_at", "label", candidate=output)
        parts = np.array_split(np.arange(self.pool.reference - HOLDOUT), FOLDS + 1)[1:]
        folds = [self._metrics(pl.concat([self.reference_days[k] for k in part])) for part in parts]
        # What the folds scored: three quarters of the days before the hold-out.
        dates = rows["event_at"].dt.date()
        validated = rows.filter(dates.is_in(sorted(dates.unique())[int(parts[0][0]) : int(parts[-1][-1]) + 1]))
        return make_reference(
            self.spec,
            self.task,
            VERSION,
            signature,
            rows.drop(output, "version"),
            held,
            folds,
            validated=validated.select("key", candidate=output),
        )

    def _metrics(self, rows: pl.DataFrame) -> Mapping[str, float]:
        known = rows.filter(pl.col("label").is_not_null())
        return self.task.metrics(known["label"].to_numpy(), known[self.pool.output].to_numpy()) | {
            loss: float(self.task.loss(loss, known["label"].to_numpy(), known[self.pool.output].to_numpy()).mean())
            for loss in self.task.losses
        }


def opened(catalog: MemoryCatalog) -> list[Incident]:
    """Every incident that was opened, whatever became of it."""
    with catalog.read() as tx:
        return list(tx.find(Incident, NAME))


def forked(catalog: MemoryCatalog) -> MemoryCatalog:
    """A catalog with the same memory and open incidents, to go on from without changing the other."""
    copy = MemoryCatalog()
    with catalog.read() as tx, copy.begin() as into:
        for record in (*tx.find(Mark, NAME), *tx.find(Incident, NAME)):
            into.put(record)
    return copy


def default_monitors(pool: Pool) -> list[Monitor]:
    """The monitors that `holdfast init` writes, without freshness: simulated feeds are never late."""
    return [
        Monitor(check="quality", options={"metric": LOSS[pool.task]}),
        Monitor(check="drift", window=WEEK),
        Monitor(check="silence"),
        Monitor(check="schema"),
    ]


def spec_of(pool: Pool, monitors: Sequence[Monitor]) -> SystemSpec:
    """The system file of a pool, with `false_alarms: 1 per month`."""
    feeds = {"rows": Feed(from_="rows.parquet", event_at="event_at", known_at="event_at", key=("key",))}
    label = Label(feed="rows", column="label", known_at="event_at", mature_after=DAY)
    columns = {name: column_of(name, pool.days[0][name]) for name in pool.columns}
    return SystemSpec(
        system=NAME,
        data=Data(feeds=feeds, rows="rows", key="key", label=label, columns=columns),
        model=Model(task=pool.task),
        gates=(Gate(check="quality", options={"metric": LOSS[pool.task]}),),
        release=ReleasePlan(steps=(Step(stage="live"),), decide=Decide(loss=LOSS[pool.task], margin=0.01)),
        monitors=tuple(fill_names(list(monitors))),
        false_alarms=1.0,
    )


def _failed(verdicts: Sequence[Verdict], on: int) -> list[Alarm]:
    failing = [verdict for verdict in verdicts if verdict.grade is Grade.FAIL][:1]
    return [
        Alarm(
            on=on,
            monitor=verdict.check,
            is_calibrated=verdict.calibrated,
            subject=verdict.reading.subject,
            why=verdict.why,
        )
        for verdict in failing
    ]


def _as_it_is(rows: pl.DataFrame) -> pl.DataFrame:
    return rows
