"""Scores messages as they come. In: JSON objects of a topic. Out: answers, recorded first, then sent.

A message's id is made of topic, partition, offset and time, and its answer is recorded before it counts as done. One
that is delivered again, after a crash, is looked up: what was recorded stands, and is what is sent.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl

from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.protocols import PREDICTIONS, Lake
from holdfast.core.times import MISSING_TIME, microseconds
from holdfast.scoring.chunks import Sorted, Unreadable, times_us
from holdfast.scoring.jsonchunks import ObjectChunk, object_in
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.lanes import Lane
from holdfast.serve.recording import FloatArray, IntArray, RowMeta
from holdfast.serve.requests import split
from holdfast.sources.messages import Letter, Message, Messages
from holdfast.sources.texttypes import parse_times

log = logging.getLogger(__name__)

MOST_MESSAGES = 1000
WAIT_S = 0.2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StreamPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is scored and where answers go."""

    system: str
    to: str
    """Topic of the answers; empty sends none."""
    dead: str = ""
    """Topic of what could not be answered; without one it is logged and counted."""
    event_at: str = ""
    """Field that says when a row's event is; the message's own time where a row has none."""
    known_at: str = ""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the messages so far. Those taken are answered, answered before, or dead, always."""

    taken: int = 0
    answered: int = 0
    again: int = 0
    """Delivered again after their answer had been recorded."""
    dead: int = 0
    """Not JSON, not what the version takes, or failed by the model."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent of one row. `output` is null where the model gave no finite number; the probability of each class
    where there are classes."""

    prediction_id: str
    key: str | None
    system: str
    version: str
    stage: str
    output: float | dict[str, float] | None
    outside: int


class Stream:
    """Takes, answers, records, sends, and only then counts messages as done. Owned by one thread."""

    def __init__(self, plan: StreamPlan, messages: Messages, plane: DataPlane, lake: Lake, clock: Clock) -> None:
        self.counts = Counts()
        self._plan, self._messages, self._plane, self._lake, self._clock = plan, messages, plane, lake, clock
        self._first_new: dict[tuple[str, int], int] = {}
        """Per partition, the first offset whose answer was not on record."""

    def run(self, goes_on: Callable[[], bool], *, until_end: bool = False) -> Counts:
        """Go on while asked to, or until the end of the topic; a batch that was begun is finished."""
        while goes_on():
            taken = self._messages.take(MOST_MESSAGES, WAIT_S)
            if taken:
                self.handle(taken)
            elif until_end and self._messages.is_at_end:
                break
        return self.counts

    def handle(self, taken: Sequence[Message]) -> None:
        """Answer messages and send the answers. Raises StateError where they can be neither recorded nor sent."""
        routed = self._plane.lanes(self._plan.system).routed
        rows = MessageRows(taken, self._plan, key=routed.key, unit=routed.unit)
        before = self._on_record(rows)
        places = np.array([place for place in range(len(taken)) if place not in before], dtype=np.int64)
        found = before | dict(self._answered(rows, places))
        letters = [self._letter(message, found[place]) for place, message in enumerate(taken)]
        self._messages.deliver([letter for letter in letters if letter.topic], taken)
        for place in places.tolist():
            if isinstance(found[place], Answer):
                self._first_new.setdefault(taken[place].place, taken[place].offset)
        dead = sum(isinstance(answer, str) for answer in found.values())
        count = self.counts
        self.counts = Counts(
            taken=count.taken + len(taken),
            answered=count.answered + len(places) - dead,
            again=count.again + len(before),
            dead=count.dead + dead,
        )

    def _on_record(self, rows: "MessageRows") -> "dict[int, Answer | str]":
        """Answers of messages that were delivered before, by place.

        Rows are recorded in the order of their partition, all of one call to `handle` in any: from so many messages
        after the first without a record on, none has one.
        """
        for partition in self._messages.taken_over():
            self._first_new.pop(partition, None)
        unsure = [
            place
            for place, message in enumerate(rows.messages)
            if message.place not in self._first_new or message.offset < self._first_new[message.place] + MOST_MESSAGES
        ]
        times = rows.event_at[unsure]
        times = times[times != MISSING_TIME]
        if not len(times):
            return {}
        since, until = (_EPOCH + timedelta(microseconds=int(at)) for at in (times.min(), times.max() + 1))
        ids = {f"{rows.messages[place].id}:0": place for place in unsure}
        frame = self._lake.scan(PREDICTIONS.name, self._plan.system, since=since, until=until)
        routed = self._plane.lanes(self._plan.system).routed
        parts = {f"out.{routed.output}.{name}": name for name in routed.classes}
        return dict(_recorded(frame, ids, self._plan.system, parts))

    def _answered(self, rows: "MessageRows", places: IntArray) -> "Iterator[tuple[int, Answer | str]]":
        """The recorded answer of each place, or why there is none."""
        lanes = self._plane.lanes(self._plan.system)
        sticks = [rows.units[place] or rows.keys[place] or rows.messages[place].id for place in places.tolist()]
        for lane, index in split(lanes, sticks):
            yield from self._answered_by(lane, rows, places if index is None else places[index])

    def _answered_by(self, lane: Lane, rows: "MessageRows", places: IntArray) -> "Iterator[tuple[int, Answer | str]]":
        fitting = Sorted(rows.chunk.part(places), lane.signature)
        typed, good = fitting.rows, places[fitting.good]
        for place, error in fitting.bad.items():
            yield int(places[place]), str(error).removeprefix(f"row {error.row}, ").removeprefix(f"row {error.row}: ")
        timeless = rows.event_at[good] == MISSING_TIME
        if timeless.any():
            yield from ((place, "neither the row nor the message has a time") for place in good[timeless].tolist())
            yield from self._answered_by(lane, rows, good[~timeless])
            return
        if not len(good):
            return
        began_s = stopwatch_s()
        try:
            outputs = np.asarray(lane.model.predict(typed), dtype=np.float64)
        except Exception as error:  # a model is foreign code
            if len(good) > 1:  # one message must not fail its neighbours
                for half in (good[: len(good) // 2], good[len(good) // 2 :]):
                    yield from self._answered_by(lane, rows, half)
                return
            log.exception("version %s of '%s' failed", lane.by.version, lane.by.system)
            yield int(good[0]), f"version {lane.by.version} failed ({type(error).__name__}: {error})"
            return
        meta = rows.meta(good, microseconds(self._clock.now()))
        run_us = (stopwatch_s() - began_s) * 1e6
        self._plane.recorder.record_predictions(
            lane.by, typed, outputs, meta, queue_us=np.zeros(len(good)), run_us=run_us
        )
        yield from zip(good.tolist(), _answers(lane, meta, outputs, typed.outside), strict=True)

    def _letter(self, message: Message, found: "Answer | str") -> Letter:
        if isinstance(found, Answer):
            return Letter(topic=self._plan.to, key=message.key, value=msgspec.json.encode(found))
        if not self._plan.dead:
            log.warning("%s cannot be answered: %s", message.id, found)
        headers = (("holdfast.why", found), ("holdfast.message", message.id))
        return Letter(topic=self._plan.dead, key=message.key, value=message.value, headers=headers)


class MessageRows:
    """Messages as rows, with what is known of each beside its inputs. Times are microseconds since 1970 UTC (n,)."""

    def __init__(self, messages: Sequence[Message], plan: StreamPlan, *, key: str, unit: str) -> None:
        self.messages = messages
        self.chunk = ObjectChunk([_object_of(message) for message in messages], 0)
        sent_at = np.array([m.at_ms * 1000 if m.at_ms >= 0 else MISSING_TIME for m in messages], dtype=np.int64)
        self.event_at = _or_else(self._times(plan.event_at), sent_at)
        self.known_at = _or_else(self._times(plan.known_at), self.event_at)
        names = [None if message.key is None else message.key.decode(errors="replace") for message in messages]
        self.keys = [found or name for found, name in zip(self._column(key), names, strict=True)]
        self.units = self._column(unit) if unit else self.keys

    def meta(self, places: IntArray, now_us: int) -> RowMeta:
        """What is recorded of some rows beside inputs and outputs."""
        chosen = places.tolist()
        return RowMeta(
            request_id=[self.messages[place].id for place in chosen],
            row=np.zeros(len(chosen), dtype=np.int64),
            key=[self.keys[place] for place in chosen],
            unit=[self.units[place] for place in chosen],
            event_at=self.event_at[places],
            features_known_at=self.known_at[places],
            predicted_at=np.full(len(chosen), now_us, dtype=np.int64),
        )

    def _column(self, name: str) -> list[str | None]:
        return self._series(name).to_list()

    def _series(self, name: str) -> pl.Series:
        return self.chunk.column(name, np.arange(len(self.messages), dtype=np.int64))

    def _times(self, name: str) -> IntArray:
        if not name:
            return np.full(len(self.messages), MISSING_TIME, dtype=np.int64)
        return times_us(parse_times(self._series(name)))


def _object_of(message: Message) -> Any:
    return Unreadable("it has no value") if message.value is None else object_in(message.value)


def _or_else(times: IntArray, others: IntArray) -> IntArray:
    return np.where(times == MISSING_TIME, others, times)


def _answers(lane: Lane, meta: RowMeta, outputs: FloatArray, outside: IntArray) -> Iterator[Answer]:
    assert meta.key is not None
    for id, key, output, count in zip(meta.request_id, meta.key, outputs.tolist(), outside.tolist(), strict=True):
        yield Answer(
            prediction_id=f"{id}:0",
            key=key,
            system=lane.by.system,
            version=lane.by.version,
            stage=lane.by.stage,
            output=_told(lane.signature.classes, output),
            outside=count,
        )


def _told(classes: Sequence[str], output: Any) -> float | dict[str, float] | None:
    """An output as it is sent."""
    if classes:
        return dict(zip(classes, output, strict=True)) if all(map(math.isfinite, output)) else None
    return output if math.isfinite(output) else None


def _recorded(
    frame: pl.DataFrame, ids: Mapping[str, int], system: str, parts: Mapping[str, str]
) -> "Iterator[tuple[int, Answer | str]]":
    """The rows of a scan that have these ids, by the place that an id stands for; `parts` are the classes by the column
    that holds the probability of each, where there are classes."""
    if frame.is_empty():
        return
    outputs = [name for name in frame.columns if name.startswith("out.")]
    answered = pl.struct(outputs) if parts else pl.coalesce(outputs)
    found = frame.filter(pl.col("prediction_id").is_in(list(ids))).select(
        "prediction_id", "key", "version", "stage", "outside", answered.alias("output")
    )
    for row in found.iter_rows(named=True):
        if parts:
            known = {parts[name]: value for name, value in row["output"].items() if name in parts and value is not None}
            row["output"] = known or None
        yield ids[row["prediction_id"]], Answer(system=system, **row)
