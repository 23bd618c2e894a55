"""A stream over messages in memory: what is recorded stands, whatever is delivered again."""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.clock import ManualClock
from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes
from holdfast.core.signature import Column, Signature
from holdfast.engines.memory import MemoryLake
from holdfast.errors import StateError
from holdfast.scoring import stream as streaming
from holdfast.scoring.stream import Counts, Stream, StreamPlan
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder
from holdfast.sources.messages import Letter, Message

NOW = datetime(2013, 5, 1, 12, tzinfo=UTC)
MADE_MS = 1_367_000_000_000
SIGNATURE = Signature(
    columns=(Column(name="hour", type="integer", low=0, high=23, outside="refuse", nullable=False),),
    task="classification",
    output="probability",
)
PLAN = StreamPlan(system="flights", to="scores", dead="dead", event_at="at")


class HourModel:
    """Answers its version plus hour / 100; fails at thirteen."""

    signature = SIGNATURE

    def __init__(self, version: int) -> None:
        self._version = version

    def predict(self, rows: Any) -> Any:
        hours = np.asarray(rows.columns["hour"])
        if (hours == 13).any():
            raise ArithmeticError("thirteen")
        return self._version + hours / 100


class FakeMessages:
    """Messages of one topic by partition. What was delivered is remembered only when all of it was."""

    def __init__(self, *partitions: Sequence[Message]) -> None:
        self.partitions = partitions
        self.done = [0] * len(partitions)
        self.letters: list[Letter] = []
        self.fails = False
        self.restart()

    def restart(self) -> None:
        """As a new member of the group sees it."""
        self._next = list(self.done)
        self._taken_over = {("rows", number) for number in range(len(self.partitions))}

    @property
    def is_at_end(self) -> bool:
        return all(at >= len(messages) for at, messages in zip(self._next, self.partitions, strict=True))

    def take(self, most: int, wait_s: float) -> Sequence[Message]:
        taken: list[Message] = []
        for number, messages in enumerate(self.partitions):
            some = messages[self._next[number] :][: most - len(taken)]
            self._next[number] += len(some)
            taken += some
        return taken

    def taken_over(self) -> Collection[tuple[str, int]]:
        new, self._taken_over = self._taken_over, set()
        return new

    def deliver(self, letters: Sequence[Letter], of: Sequence[Message]) -> None:
        if self.fails:
            raise StateError("the broker is gone")
        self.letters += letters
        for message in of:
            self.done[message.partition] = message.offset + 1

    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(letter.value or b"") for letter in self.letters if letter.topic == "scores"]

    def dead(self) -> dict[bytes | None, str]:
        return {letter.value: dict(letter.headers)["holdfast.why"] for letter in self.letters if letter.topic == "dead"}


def messages(values: Sequence[Any], partition: int = 0, *, made_ms: int = MADE_MS) -> list[Message]:
    return [
        Message(
            topic="rows",
            partition=partition,
            offset=offset,
            at_ms=made_ms + offset,
            key=f"k{offset}".encode(),
            value=value if value is None or isinstance(value, bytes) else json.dumps(value).encode(),
        )
        for offset, value in enumerate(values)
    ]


class World:
    """A lake in memory, a data plane, and streams that begin anew over both."""

    def __init__(self) -> None:
        self.lake = MemoryLake()
        self.generation = 0
        self.begin()

    def begin(self, version: str = "1", canary: str = "", share: float = 0.0) -> None:
        """A new process: nothing is remembered but lake and messages."""
        clock = ManualClock(NOW)
        self.plane = DataPlane(lambda routed: HourModel(int(routed.version)), Recorder(self.lake.writer), clock)
        self.clock = clock
        self.generation += 1
        routed = [self._version(version), self._version(canary) if canary else None]
        system = RoutedSystem(
            task="classification", output="probability", live=routed[0], canary=routed[1], canary_share=share, key="id"
        )
        self.plane.follow(Routes(generation=self.generation, systems={"flights": system}))

    def _version(self, version: str) -> RoutedVersion:
        return RoutedVersion(version=version, artifact=version, directory="/nowhere")

    def run(self, of: FakeMessages, plan: StreamPlan = PLAN) -> Counts:
        of.restart()
        return Stream(plan, of, self.plane, self.lake, self.clock).run(lambda: True, until_end=True)

    def recorded(self) -> dict[str, Any]:
        found = self.lake.scan("predictions", "flights")
        return {} if found.is_empty() else {row["prediction_id"]: row for row in found.iter_rows(named=True)}


@pytest.fixture
def world() -> World:
    return World()


def test_an_answer_is_recorded_and_sent_under_the_name_of_its_message(world: World) -> None:
    of = FakeMessages(messages([{"hour": 8, "id": "f1"}, {"hour": 9, "at": "2013-01-01T10:00:00Z"}]))
    assert world.run(of) == Counts(taken=2, answered=2)
    first, second = of.answers()
    assert first == {
        "prediction_id": f"rows/0/0@{MADE_MS}:0",
        "key": "f1",
        "system": "flights",
        "version": "1",
        "stage": "live",
        "output": 1.08,
        "outside": 0,
    }
    recorded = world.recorded()
    assert recorded[first["prediction_id"]]["event_at"] == datetime.fromtimestamp(MADE_MS / 1000, UTC)
    assert recorded[second["prediction_id"]]["event_at"] == datetime(2013, 1, 1, 10, tzinfo=UTC)
    assert recorded[second["prediction_id"]]["key"] == "k1", "without a key of its own, that of the message"


def test_what_is_on_record_stands_though_another_version_is_live_by_now(world: World) -> None:
    of = FakeMessages(messages([{"hour": hour} for hour in range(5)]))
    of.fails = True
    with pytest.raises(StateError):
        world.run(of)
    assert len(world.recorded()) == 5
    of.fails = False
    world.begin(version="2")
    assert world.run(of) == Counts(taken=5, again=5)
    assert {answer["version"] for answer in of.answers()} == {"1"}
    assert [answer["output"] for answer in of.answers()] == [1 + hour / 100 for hour in range(5)]
    assert {row["version"] for row in world.recorded().values()} == {"1"}


def test_a_topic_made_anew_is_not_taken_for_the_old_one(world: World) -> None:
    for made_ms in (MADE_MS, MADE_MS + 60_000):
        assert world.run(FakeMessages(messages([{"hour": 8}] * 3, made_ms=made_ms))).answered == 3
    assert len(world.recorded()) == 6


def test_a_bad_message_is_buried_with_its_reason_and_stops_nobody(world: World) -> None:
    bad = [b"{", None, 7, {"hour": 24}, {"hour": "8"}, {}, {"hour": 13}]
    of = FakeMessages(messages([{"hour": 1}, *bad, {"hour": 2}]))
    assert world.run(of) == Counts(taken=9, answered=2, dead=7)
    assert len(world.recorded()) == 2
    why = of.dead()
    assert "column 'hour': 24 is outside" in why[b'{"hour": 24}']
    assert why[None] == "it has no value"
    assert "version 1 failed (ArithmeticError: thirteen)" in why[b'{"hour": 13}']
    assert of.done == [9]


def test_without_a_topic_for_them_bad_messages_are_logged_and_counted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    of = FakeMessages(messages([b"{", {"hour": 1}]))
    counts = world.run(of, StreamPlan(system="flights", to="scores"))
    assert (counts.dead, counts.answered) == (1, 1)
    assert f"rows/0/0@{MADE_MS} cannot be answered" in caplog.text
    assert [letter.topic for letter in of.letters] == ["scores"]


def test_a_row_without_any_time_is_buried(world: World) -> None:
    of = FakeMessages(messages([{"hour": 1}, {"hour": 2, "at": "2013-01-01"}], made_ms=-9))
    assert world.run(of) == Counts(taken=2, answered=1, dead=1)


def test_a_canary_answers_its_share_of_the_units(world: World) -> None:
    world.begin(version="1", canary="2", share=0.5)
    of = FakeMessages(messages([{"hour": 1, "id": f"f{i}"} for i in range(200)]))
    world.run(of)
    stages = [(answer["version"], answer["stage"]) for answer in of.answers()]
    assert set(stages) == {("1", "live"), ("2", "canary")}
    assert 60 < stages.count(("2", "canary")) < 140
    assert [answer["key"] for answer in of.answers()] == [f"f{i}" for i in range(200)], "in the order of the messages"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_each_message_counts_once_wherever_a_stream_dies(data: st.DataObject) -> None:
    """It dies with rows recorded and nothing sent, any number of times, and goes on with batches cut anywhere else."""
    world, most = World(), streaming.MOST_MESSAGES
    values = data.draw(st.lists(st.lists(st.sampled_from([{"hour": 1}, {"hour": 2}, {"hour": 24}, b"{"]), max_size=12)))
    of = FakeMessages(*(messages(part, number) for number, part in enumerate(values)))
    of.restart()
    first: dict[str, str] = {}
    try:
        streaming.MOST_MESSAGES = 6
        for version in ("1", "2", "3"):
            world.begin(version=version)
            of.restart()
            running = Stream(PLAN, of, world.plane, world.lake, world.clock)
            for _ in range(data.draw(st.integers(0, 3))):
                if taken := of.take(data.draw(st.integers(1, 6)), 0):
                    running.handle(taken)
                    first = {id: row["version"] for id, row in world.recorded().items()} | first
            of.fails = True
            if taken := of.take(data.draw(st.integers(1, 6)), 0):
                with pytest.raises(StateError):
                    running.handle(taken)
            first = {id: row["version"] for id, row in world.recorded().items()} | first
            of.fails = False
        world.begin(version="4")
        world.run(of)
    finally:
        streaming.MOST_MESSAGES = most
    recorded = world.recorded()
    good = (b'{"hour": 1}', b'{"hour": 2}')
    assert set(recorded) == {f"{m.id}:0" for part in of.partitions for m in part if m.value in good}
    assert {id: recorded[id]["version"] for id in first} == first, "what was recorded first stands"
    sent = [answer["prediction_id"] for answer in of.answers()]
    assert sorted(sent) == sorted(recorded), "an answer is sent once when sending and noting are one step"
