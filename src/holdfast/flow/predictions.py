"""What was answered, and the label when it comes. In: the lake. Out: live windows, day by day."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import polars as pl

from holdfast.core.answerer import ELSEWHERE
from holdfast.core.blocks import block_bounds, day_of, mature_until
from holdfast.core.classes import task_of
from holdfast.core.evidence import Block, Role, Window
from holdfast.core.protocols import LABELS, PREDICTIONS, Lake
from holdfast.core.spec import SystemSpec
from holdfast.core.targets import LIST, taken, with_lists
from holdfast.flow.buckets import Buckets
from holdfast.flow.classes import gathered, kind_of, part_names, valued

KEPT_BLOCKS = 120
"""How many days of each kind of block are kept in memory."""

NOT_SERVED = ("batch", ELSEWHERE)
"""Stages of recorded rows that no request to this system got for an answer."""

META = ("version", "stage", "release", "latency_ms", "outside", "request_id", "prediction_id")


def with_delivered_labels(spec: SystemSpec, lake: Lake, rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Assembled rows with the labels that were delivered over HTTP by `now`; where both are known, these count."""
    found = valued(spec, lake.scan(LABELS.name, spec.system, until=now))
    if found.is_empty():
        return rows
    delivered = found.filter(pl.col("source") != spec.data.label.feed)
    if delivered.is_empty():
        return rows
    newest = delivered.sort("revision", maintain_order=True).unique("key", keep="last", maintain_order=True)
    joined = rows.join(
        newest.select("key", pl.col("value").alias("_value"), pl.col("label_known_at").alias("_known_at")),
        on="key",
        how="left",
        maintain_order="left",
    )
    return joined.with_columns(
        pl.coalesce("_value", "label").alias("label"),
        pl.coalesce("_known_at", "label_known_at").alias("label_known_at"),
    ).drop("_value", "_known_at")


class LivePredictions:
    """A system's recorded predictions as windows.

    Blocks of ended days do not change for the monitors that read them, so they are read once and what checks derive
    from them is remembered. A labelled block is made when its day is mature: labels that come later still.
    """

    def __init__(self, spec: SystemSpec, lake: Lake, output: str) -> None:
        self._spec = spec
        self._lake = lake
        self._output = output
        self._task = task_of(spec)
        self._classes = spec.data.label.classes
        kind = "served" if spec.predictions is None else ELSEWHERE
        self.buckets = Buckets(spec.system, lake, spec.data.timezone, self._served, kind)
        self._answered: OrderedDict[date, Block] = OrderedDict()
        self._labelled: OrderedDict[date, Block] = OrderedDict()

    def roles(self) -> dict[str, Role]:
        """The role of each column of a live window."""
        roles = dict.fromkeys(self._spec.data.columns, Role.INPUT)
        roles[self._output] = Role.OUTPUT
        roles |= dict.fromkeys(part_names(self._output, self._classes), Role.PART)
        roles |= {"label": Role.LABEL, "key": Role.KEY, "event_at": Role.TIME, "predicted_at": Role.TIME}
        return roles | dict.fromkeys(META, Role.META)

    def window(
        self, start: date, end: date, facts: Mapping[str, Any], now: datetime, *, labelled: bool = True
    ) -> Window:
        """Answered rows of the days start .. end, both included; mature days with their labels, and then only the last
        answer for a key that was given in time. Unless `labelled` every answer of each day, without labels."""
        mature = self.last_mature_day(now)
        blocks = [
            self.labelled_block(day)
            if labelled and day <= mature
            else self._kept(self._answered, day, self._answered_block)
            for day in _days(start, end)
        ]
        return Window(blocks, self.roles(), facts)

    def labelled_window(self, start: date, end: date, facts: Mapping[str, Any]) -> Window:
        """Answered rows of the days start .. end with the labels known when each day was mature."""
        blocks = [self.labelled_block(day) for day in _days(start, end)]
        return Window(blocks, self.roles(), facts)

    def labelled_block(self, day: date) -> Block:
        """One mature day with its labels."""
        return self._kept(self._labelled, day, self._labelled_block)

    def answered_by(self, version: str, day: date, facts: Mapping[str, Any]) -> Window:
        """One mature day with its labels, only the rows that this version answered; no block where it answered none."""
        block = self.labelled_block(day)
        rows = block.rows()
        by = rows["version"] == version
        if not by.all():
            mine = rows.filter(by)
            block = Block(day, block.start, block.end, lambda: mine)
        return Window([block] if block.rows().height else [], self.roles(), facts)

    def told_block(self, day: date, version: str | None, *, labelled: bool) -> Block:
        """One day that was told, only what a version answered where one is given."""
        kept = self.labelled_block(day) if labelled else self._kept(self._answered, day, self._answered_block)
        rows = kept.rows()
        if version is None or rows.is_empty() or (rows["version"] == version).all():
            return kept
        mine = rows.filter(pl.col("version") == version)
        return Block(day, kept.start, kept.end, lambda: mine)

    def last_complete_day(self, now: datetime) -> date:
        """The newest day that has ended; of answers that are told, one whose answers count as complete."""
        predictions = self._spec.predictions
        ended = now if predictions is None else now - predictions.complete_after
        return day_of(self._spec.data.timezone, ended) - timedelta(days=1)

    def last_mature_day(self, now: datetime) -> date:
        """The newest day whose labels count as complete."""
        end = mature_until(self._spec.data, now)
        mature = day_of(self._spec.data.timezone, end - timedelta(seconds=1))
        return mature if self._spec.predictions is None else min(mature, self.last_complete_day(now))

    def day_of(self, at: datetime) -> date:
        """The day of the system's time zone that a time falls on."""
        return day_of(self._spec.data.timezone, at)

    def forget(self, days: Iterable[date]) -> None:
        """Read these days again when they are asked for: answers came that belong to them."""
        for day in days:
            self._answered.pop(day, None)
            self._labelled.pop(day, None)

    def forget_labels(self) -> None:
        """Join labels anew: those that came after their day counted as complete are looked for."""
        self._labelled.clear()

    def _kept(self, kept: "OrderedDict[date, Block]", day: date, make: Any) -> Block:
        if day not in kept:
            kept[day] = make(day)
            if len(kept) > KEPT_BLOCKS:
                kept.popitem(last=False)
        return kept[day]

    def _answered_block(self, day: date) -> Block:
        start, end = block_bounds(self._spec.data.timezone, day)
        counts = partial(self.buckets.counts, start, end)
        return Block(day, start, end, lambda: self.answered(start, end), counts)

    def _labelled_block(self, day: date) -> Block:
        start, end = block_bounds(self._spec.data.timezone, day)
        known_until = end + self._spec.data.label.mature_after
        answered = self._kept(self._answered, day, self._answered_block)

        def counts(edges: Mapping[str, Any]) -> Mapping[str, Any]:
            """Of every answer too: also of one that a later answer for the same key took the place of, which has no
            row here. Who compares rows with counts asks for days without labels."""
            found = answered.counts(edges)
            found = self.buckets.of_rows(answered.rows(), edges) if found is None else found
            return {name: each for name, each in found.items() if name != "label"}

        return Block(day, start, end, lambda: self._join_labels(answered.rows(), start, known_until), counts)

    def answered(self, start: datetime, end: datetime) -> pl.DataFrame:
        """Recorded answers by event time, inputs and output under their own names; files that were scored are none."""
        found = self._lake.scan(PREDICTIONS.name, self._spec.system, since=start, until=end)
        if found.is_empty():
            types = {name: _DTYPES.get(role, pl.Float64) for name, role in self.roles().items()}
            types |= {LIST: pl.String} if self._task.is_listwise else {}
            return pl.DataFrame(schema=types | kind_of(self._output, self._classes))
        found = self._served(found)
        renamed = {name: name.split(".", 1)[1] for name in found.columns if name.startswith(("in.", "out."))}
        found = found.rename(renamed)
        found = gathered(found, self._output, self._classes) if self._classes else found
        return with_lists(self._task, found).with_columns(
            ((pl.col("queue_us") + pl.col("run_us")) / 1000).alias("latency_ms"),
            pl.lit(None, pl.Float64).alias("label"),
        )

    def failures(self, block: Block) -> int:
        """How many rows of a block were asked for and got no answer: recorded as failed, and left out of its rows."""
        found = self._lake.scan(PREDICTIONS.name, self._spec.system, since=block.start, until=block.end)
        if found.is_empty():
            return 0
        return found.filter(pl.col("status") != "ok", ~pl.col("stage").is_in(NOT_SERVED)).height

    def _served(self, found: pl.DataFrame) -> pl.DataFrame:
        """Of recorded rows those that were answered, and not for a file that was scored."""
        if found["status"].n_unique() > 1 or (found.height and found["status"][0] != "ok"):
            found = found.filter(pl.col("status") == "ok")
        if self._spec.predictions is not None:
            return found.filter(pl.col("stage") == ELSEWHERE)
        stages = found["stage"]
        if stages.n_unique() == 1 and stages[0] not in NOT_SERVED:
            return found  # most windows, and at a tenth of the price
        if stages.is_in(NOT_SERVED).any():
            return found.filter(~pl.col("stage").is_in(NOT_SERVED))
        return found

    def labels(self, start: datetime, until: datetime) -> pl.DataFrame:
        """The newest revision of each label known in a time range: columns ``key``, ``label``, ``label_known_at``."""
        found = valued(self._spec, self._lake.scan(LABELS.name, self._spec.system, since=start, until=until))
        if found.is_empty():
            return pl.DataFrame(schema=dict(_LABELS))
        newest = found.sort("revision", maintain_order=True).unique(subset="key", keep="last", maintain_order=True)
        label = taken(self._task, newest["value"]).alias("label")
        return newest.select("key", label, "label_known_at").drop_nulls("label")

    def _join_labels(self, answered: pl.DataFrame, start: datetime, known_until: datetime) -> pl.DataFrame:
        if answered.is_empty():
            return answered
        labels = self.labels(start - self._spec.data.label.mature_after, known_until)
        joined = answered.drop("label").join(labels, on="key", how="left", maintain_order="left")
        # A label scores the last answer that was given before it was known; an earlier one was superseded.
        answered_in_time = pl.col("label_known_at").is_null() | (pl.col("predicted_at") <= pl.col("label_known_at"))
        joined = joined.filter(answered_in_time)
        if joined["key"].n_unique() < joined.height:
            joined = joined.sort("predicted_at", maintain_order=True)
            joined = joined.filter(pl.col("key").is_null() | pl.col("key").is_last_distinct())
        return joined


_LABELS: Mapping[str, Any] = {"key": pl.String, "label": pl.Float64, "label_known_at": pl.Datetime("us", "UTC")}
_DTYPES: Mapping[Role, Any] = {Role.KEY: pl.String, Role.TIME: pl.Datetime("us", "UTC")}


def _days(start: date, end: date) -> Sequence[date]:
    return [start + timedelta(days=i) for i in range((end - start).days + 1)]
