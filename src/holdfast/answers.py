"""Answers of a model that is served elsewhere: taken from its log and over HTTP, recorded, held to a reference.

Whoever ticks is the only one who records them, so it knows on which days they fall. Everything may be taken twice: an
answer is known by its id, and the record of the first time stays.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from msgspec.structs import replace

from holdfast.core.answerer import ELSEWHERE, Answerer
from holdfast.core.blocks import block_bounds
from holdfast.core.inputs import read_frame
from holdfast.core.protocols import ARRIVALS, PREDICTIONS, Task, Transaction
from holdfast.core.records import Mark
from holdfast.core.spec import Monitor, SystemSpec
from holdfast.core.specelsewhere import stated_signature
from holdfast.flow import elsewhere
from holdfast.flow.days import day_expr
from holdfast.flow.elsewhere import Halves, Told
from holdfast.flow.monitors import Monitoring, Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.reference import REFERENCE_DAYS, reference_of_answers
from holdfast.serve.recording import Recorder, RowMeta
from holdfast.state import State
from holdfast.world import EPOCH, World, microseconds

LOOK_EVERY = timedelta(seconds=2)
"""How often it is looked what came over HTTP."""
OVERLAP = timedelta(minutes=1)
"""What came is looked at again for so long: of several workers one may write what another has overtaken."""
SETTLED = timedelta(seconds=10)
"""Answers of past days are still coming in while the last of them came no longer ago than this."""
MOST_PATIENCE = timedelta(hours=1)
"""Longest time that evaluations wait for them, and longest until a reference without labels is looked at again."""
MOST_ROWS = 50_000
"""Rows recorded at a time."""
MARK, REFERENCE = "answers", "reference"
_MICROSECOND = timedelta(microseconds=1)
_ANY_DAYS = 30
"""Days looked at for where a version begins, where the reference is not its first days."""
_PREDICTION_ID = pl.format("{}:{}", "request_id", "row").alias("prediction_id")


class Answers:
    """What one system was told of answers given elsewhere. Owned by the thread that ticks."""

    def __init__(self, spec: SystemSpec, task: Task, state: State, live: LivePredictions, recorder: Recorder) -> None:
        assert spec.predictions is not None
        self._spec = spec
        self._predictions = spec.predictions
        self._task = task
        self._state = state
        self._live = live
        self._recorder = recorder
        self._signature = stated_signature(spec, task.output)
        self._halves = Halves()
        self._seen = pl.DataFrame()
        self._looked_at: datetime | None = None
        self._past_at: datetime | None = None
        self._waits_since: datetime | None = None
        self._made: dict[tuple[Any, ...], _Made] = {}

    # Taking

    def take(self, world: World, now: datetime) -> bool:
        """Record what is new in the log and what came over HTTP; true where days that are over have changed.

        Raises StateError where it cannot be recorded; what was read is then read again.
        """
        is_taken = False
        try:
            past = self._take(world, now)
            is_taken = True
        finally:
            if not is_taken:
                self._halves, self._seen, self._looked_at = Halves(), pl.DataFrame(), None
        return past

    def _take(self, world: World, now: datetime) -> bool:
        with self._state.catalog.read() as tx:
            mark = self._mark(tx)
        memory = dict(mark.memory)
        begins = self._looked_at is None
        told = [each for each in (self._from_log(world, now, memory), self._from_http(now, memory)) if each is not None]
        fresh = []
        for each in told:
            fresh.append(self._new(each))
            self._record(fresh[-1])
        # Who begins may find on record what was never counted, for the one before may have died between the two.
        past = self._note(fresh, {at for each in told for at in self._days_of(each)} if begins else set(), now, memory)
        if memory != mark.memory:
            with self._state.catalog.begin() as tx:
                tx.put(replace(mark, last_at=now, memory=memory))
        return past

    def _new(self, told: Told) -> Told:
        """The answers that are not on record yet, each once."""
        ids = told.meta.select(_PREDICTION_ID, "event_at").with_row_index("place")
        ids = ids.unique("prediction_id", keep="first", maintain_order=True)
        new = ids.join(self._known(ids["event_at"], timedelta(0)), on="prediction_id", how="anti")["place"].sort()
        return Told(meta=told.meta[new], inputs=told.inputs[new], outputs=told.outputs[new])

    def _known(self, times: pl.Series, around: timedelta) -> pl.DataFrame:
        """Column ``prediction_id``: what is on record with a time near one of these, looked up day by day."""
        found = [pl.DataFrame(schema={"prediction_id": pl.String})]
        spans = (
            times.to_frame("at")
            .group_by(pl.col("at").dt.date())
            .agg(pl.col("at").min().alias("least"), pl.col("at").max().alias("most"))
        )
        for _, least, most in spans.iter_rows():
            recorded = self._state.lake.scan(
                PREDICTIONS.name, self._spec.system, since=least - around, until=most + around + _MICROSECOND
            )
            if recorded.height:
                found.append(recorded.select("prediction_id"))
        return pl.concat(found)

    def _days_of(self, told: Told) -> set[date]:
        return set(told.meta.select(day_expr(self._spec.data.timezone)).to_series().unique())

    def _recount(self, days: Iterable[date], memory: dict[str, Any]) -> None:
        """Count the answers of some days as they are on record."""
        for day in sorted(days):
            start, end = block_bounds(self._spec.data.timezone, day)
            recorded = self._state.lake.scan(PREDICTIONS.name, self._spec.system, since=start, until=end)
            if recorded.height:
                recorded = recorded.filter(pl.col("stage") == ELSEWHERE)
            memory["days"] = elsewhere.recounted(memory.get("days", {}), recorded, day)

    def _ended(self, now: datetime, memory: dict[str, Any]) -> set[date]:
        """The days that became complete. They are counted again: an answer that came twice with two times, since who
        sent it stated none, is on record once."""
        last, before = self._live.last_complete_day(now).isoformat(), memory.get("counted_until", "")
        if last <= before:
            return set()
        memory["counted_until"] = last
        days = {day for of in memory.get("days", {}).values() for day in of if before < day <= last}
        return {date.fromisoformat(day) for day in days} if before else set()

    def _note(self, fresh: Sequence[Told], again: set[date], now: datetime, memory: dict[str, Any]) -> bool:
        """Note on which days answers were given, and read those again that are over; true where there are such.

        `fresh` are those that were not on record; the days `again` are counted as they are on record.
        """
        told = [each for each in fresh if each.meta.height]
        read_again, again = again, again | self._ended(now, memory)
        if not told and not again:
            return False
        for each in told:
            memory["newest"] = max(_newest(each.meta["event_at"]), _time(memory.get("newest"))).isoformat()
        day = day_expr(self._spec.data.timezone)
        for each in told:
            memory["days"] = elsewhere.counted(memory.get("days", {}), each.meta, day)
        days = read_again.union(*(self._days_of(each) for each in told))
        past = {at for at in days if at <= self._live.last_complete_day(now)}
        self._recount(again | past, memory)
        if past:
            self._live.forget(past)
            self._made.clear()
            self._past_at = now
            memory["changed"] = memory.get("changed", 0) + 1
        return bool(past)

    def is_settling(self, now: datetime) -> bool:
        """Whether answers of past days are still coming in, so that what is evaluated now would soon be another."""
        if self._past_at is None or now - self._past_at >= SETTLED:
            self._waits_since = None
            return False
        self._waits_since = self._waits_since or now
        return now - self._waits_since < MOST_PATIENCE

    def _from_log(self, world: World, now: datetime, memory: dict[str, Any]) -> Told | None:
        """Rows of the log that were not taken yet. One that came late is found by comparing."""
        log = memory.get("log", {"through": EPOCH.isoformat(), "taken": 0})
        through = datetime.fromisoformat(log["through"])
        fresh = world.rows_between(through + _MICROSECOND, now + _MICROSECOND)
        if world.rows_known(through) != log["taken"]:
            fresh = pl.concat([self._unrecorded(world.rows_between(EPOCH, through + _MICROSECOND)), fresh])
        if fresh.height or world.rows_known(through) != log["taken"]:
            through = max(through, _newest(fresh["known_at"])) if fresh.height else through
            memory["log"] = {"through": through.isoformat(), "taken": world.rows_known(through)}
        return elsewhere.of_log(self._spec, fresh) if fresh.height else None

    def _unrecorded(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of the log that are not on record."""
        recorded = self._state.lake.scan(PREDICTIONS.name, self._spec.system)
        if recorded.is_empty():
            return rows
        ids = elsewhere.of_log(self._spec, rows).meta.select(pl.format("{}:0", "request_id").alias("prediction_id"))
        places = ids.with_row_index("place").join(recorded.select("prediction_id"), on="prediction_id", how="anti")
        return rows[places["place"].sort()]

    def _from_http(self, now: datetime, memory: dict[str, Any]) -> Told | None:
        """Answers that came whole, or became whole, since the last look."""
        if self._looked_at is not None and now - self._looked_at < LOOK_EVERY:
            return None
        begins, self._looked_at = self._looked_at is None, now
        mark = _time(memory.get("arrived"))
        near = elsewhere.WAIT if begins else OVERLAP
        since = mark - near if mark > EPOCH else None
        rows = self._state.lake.scan(ARRIVALS.name, self._spec.system, since=since)
        if not rows.is_empty():
            rows = (
                rows.join(self._seen.select("arrival_id"), on="arrival_id", how="anti") if self._seen.height else rows
            )
        if not rows.is_empty():
            # Halves are read from further back, since they may still be waiting, but not those that were given up.
            is_whole = pl.col("part") == "whole"
            is_due = pl.col("arrived_at") >= mark - OVERLAP if begins else pl.lit(True)
            may_wait = pl.col("arrived_at") > _time(memory.get("given_up_through"))
            rows = rows.filter(pl.when(is_whole).then(is_due).otherwise(may_wait))
        if not rows.is_empty():
            newest = _newest(rows["arrived_at"])
            memory["arrived"] = max(mark, newest).isoformat()
            self._remember(rows, newest)
        elif not self._halves.waits:
            return None
        is_whole = pl.col("part") == "whole"
        whole, halves = (rows.filter(is_whole), rows.filter(~is_whole)) if rows.width else (rows, rows)
        if halves.height:
            ids = halves.with_columns(_PREDICTION_ID)
            known = self._known(halves["predicted_at"], near)
            halves = ids.join(known, on="prediction_id", how="anti", maintain_order="left").drop("prediction_id")
        joined = self._halves.join(halves, now, mark if begins else None)
        if any(self._halves.given_up.values()):
            memory["given_up_through"] = (now - elsewhere.WAIT).isoformat()
            memory["given_up"] = elsewhere.added(memory.get("given_up", {}), self._halves.take_given_up())
        whole = pl.concat([whole, joined], how="diagonal_relaxed") if joined.height else whole
        return elsewhere.of_arrivals(whole, self._task.output, self._task.classes) if whole.height else None

    def _remember(self, rows: pl.DataFrame, newest: datetime) -> None:
        """Know what was taken while it may be read again, which is for as long as reads overlap."""
        seen = pl.concat([self._seen, rows.select("arrival_id", "arrived_at")], how="diagonal_relaxed")
        self._seen = seen.filter(pl.col("arrived_at") >= newest - OVERLAP)

    def _record(self, told: Told) -> None:
        """Write answers as rows of the predictions table, at the stage that says that they are not Holdfast's."""
        for start in range(0, told.meta.height, MOST_ROWS):
            meta = told.meta[start : start + MOST_ROWS]
            given = told.inputs[start : start + MOST_ROWS]
            finite = [
                pl.when(pl.col(name).is_finite()).then(name) for name, kind in given.schema.items() if kind.is_float()
            ]
            signature = elsewhere.recorded_signature(self._signature)
            rows = read_frame(signature, given.with_columns(finite))
            answered = {
                version: Answerer(
                    system=self._spec.system,
                    version=version,
                    stage=ELSEWHERE,
                    release="",
                    signature=signature,
                    signature_hash=signature.hash(),
                )
                for version in meta["version"].unique().to_list()
            }
            by = [answered[version] for version in meta["version"].to_list()]
            nothing = np.full(meta.height, np.nan)
            self._recorder.record_predictions(
                by[0],
                rows,
                told.outputs[start : start + MOST_ROWS].fill_null(np.nan).to_numpy(),
                RowMeta(
                    request_id=meta["request_id"].to_list(),
                    predicted_at=microseconds(meta["predicted_at"]),
                    row=meta["row"].to_numpy(),
                    key=meta["key"].to_list(),
                    event_at=microseconds(meta["event_at"]),
                    caller=meta["caller"].to_list(),
                ),
                queue_us=nothing,
                run_us=nothing,
                answered=([each.version for each in by], [each.stage for each in by]),
            )
        self._recorder.close()

    # Holding

    def version(self, tx: Transaction, now: datetime) -> str:
        """The version that answers now; empty where no day with answers is complete."""
        return elsewhere.answering(self._days(tx), self._live.last_complete_day(now))

    def since(self, tx: Transaction) -> datetime | None:
        """Start of the day on which the first version began; a few answers that are dated back begin nothing."""
        stretch, memory = self._predictions.reference, self._mark(tx).memory
        days: elsewhere.Days = memory.get("days", {})
        if not days:
            return None
        length = stretch.first.days if stretch.first else _ANY_DAYS
        newest = date.fromisoformat(max(day for of in days.values() for day in of))
        begun = memory.get("begun", {})
        first = min(elsewhere.first_day(of, length, newest, begun.get(version)) for version, of in days.items())
        return block_bounds(self._spec.data.timezone, first)[0]

    def newest(self, tx: Transaction) -> datetime | None:
        """When the newest answer was given."""
        newest = self._mark(tx).memory.get("newest")
        return None if newest is None else datetime.fromisoformat(newest)

    def reference(self, tx: Transaction, version: str, now: datetime) -> Reference:
        """What a version is held to: the answers of its reference days. It says where these do not suffice yet."""
        last, mature = self._live.last_complete_day(now), self._live.last_mature_day(now)
        begun = self._mark(tx).memory.get("begun", {})
        promised = elsewhere.stretch_of(self._predictions, self._days(tx), version, last, begun)
        key = (version, promised, promised.end <= mature)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = _Made(self._make(version, promised, mature), now)
            self._made = {key: made}
        elif made.reference.unlabelled and key[-1] and made.is_due(now):
            self._live.forget_labels()
            made.take(self._make(version, promised, mature), now)
        return made.reference

    def due(
        self, tx: Transaction, monitoring: Monitoring, due: list[Monitor], live: str, now: datetime, since: datetime
    ) -> list[Monitor]:
        """What is to be evaluated: nothing while answers of past days come in, and else what has waited for a reference
        too, where there is one by now."""
        if self.is_settling(now):
            return []
        if due or monitoring.awaits_reference(tx):
            return monitoring.due(tx, now, since, self.reference(tx, live, now))
        return []

    def tell_reference(self, tx: Transaction, reference: Reference) -> None:
        """Leave word of the reference in force, for those who look on, and hold on to the day it begins on."""
        self._hold(tx, reference)
        memory = {
            "version": reference.version,
            "until": reference.until.isoformat() if reference.until else "",
            "promised": dict(reference.promised),
            "short": reference.short or reference.unlabelled,
        }
        mark = tx.get(Mark, self._spec.system, REFERENCE) or Mark(system=self._spec.system, id=REFERENCE)
        if mark.memory != memory:
            tx.put(replace(mark, memory=memory))

    def _hold(self, tx: Transaction, reference: Reference) -> None:
        """A reference that was made begins on the same day for good, whatever comes later."""
        mark = self._mark(tx)
        begun: Mapping[str, str] = mark.memory.get("begun", {})
        if reference.short or reference.version in begun or self._predictions.reference.first is None:
            return
        for (version, promised, _), made in self._made.items():
            if made.reference is reference:
                begun = {**begun, version: promised.start.isoformat()}
        tx.put(replace(mark, memory={**mark.memory, "begun": begun}))

    def _make(self, version: str, promised: elsewhere.Promised, mature: date) -> Reference:
        if promised.short:
            facts = {"edges": {}, "signature": self._signature}
            return Reference(version=version, blocks=(), facts=facts, promised={}, short=promised.short)
        awaited = ""
        if promised.end > mature:
            awaited = f"the labels of the reference, which ended on {promised.end}, do not count as complete yet"
        every = self._predictions.reference.first is None
        count = min(REFERENCE_DAYS, (promised.end - promised.start).days + 1)
        days = [promised.end - timedelta(days=n) for n in range(count - 1, -1, -1)]
        blocks = [self._live.told_block(day, None if every else version, labelled=day <= mature) for day in days]
        return reference_of_answers(
            self._spec, self._task, version, self._signature, blocks, promised.end, awaited=awaited
        )

    def _days(self, tx: Transaction) -> Mapping[str, Mapping[str, int]]:
        days: Mapping[str, Mapping[str, int]] = self._mark(tx).memory.get("days", {})
        return days

    def _mark(self, tx: Transaction) -> Mark:
        return tx.get(Mark, self._spec.system, MARK) or Mark(system=self._spec.system, id=MARK)


class _Made:
    """A reference, and when it was made. One for which no label has come is made again, ever more seldom."""

    def __init__(self, reference: Reference, now: datetime) -> None:
        self.reference = reference
        self._first_at = self._at = now

    def is_due(self, now: datetime) -> bool:
        """Whether it is time to look for labels again."""
        return now - self._at >= min(MOST_PATIENCE, max(SETTLED, (self._at - self._first_at) / 2))

    def take(self, reference: Reference, now: datetime) -> None:
        """Take what was made now."""
        self.reference, self._at = reference, now


def _time(text: str | None) -> datetime:
    return EPOCH if text is None else datetime.fromisoformat(text)


def _newest(times: pl.Series) -> datetime:
    newest = times.max()
    assert isinstance(newest, datetime)
    return newest
