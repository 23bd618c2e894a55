"""``holdfast stream`` in processes of their own against a broker in this one: killed mid-stream, then reconciled."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.state import open_state

ck = pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
pytestmark = pytest.mark.slow

MESSAGES, PARTITIONS = 6000, 3
DEADLINE_S = 60.0


class Broker:
    """librdkafka's own mock cluster, living in this process. It keeps offsets that a consumer commits, and none that
    come in a transaction; it aborts nothing, so what a broken transaction sent can be read."""

    def __init__(self) -> None:
        self._cluster = ck.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})
        found = self._cluster.list_topics(timeout=10).brokers.values()
        self.address = ",".join(f"{broker.host}:{broker.port}" for broker in found)
        self._sender = ck.Producer({"bootstrap.servers": self.address, "log_level": 0})
        self._counter = ck.Consumer({"bootstrap.servers": self.address, "group.id": "counter", "log_level": 0})

    def send(self, topic: str, values: list[bytes], partitions: int = PARTITIONS) -> None:
        for number, value in enumerate(values):
            self._sender.produce(topic, value, str(number), partition=number % partitions)
            self._sender.poll(0)
        assert self._sender.flush(20) == 0

    def read(self, topic: str) -> list[Any]:
        """All messages of a topic, in the order of each partition."""
        reader = ck.Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "reader",
                "log_level": 0,
                "isolation.level": "read_uncommitted",
            }
        )
        try:
            ends = {}
            for partition in reader.list_topics(topic, timeout=10).topics[topic].partitions:
                ends[partition] = reader.get_watermark_offsets(ck.TopicPartition(topic, partition), timeout=10)[1]
            reader.assign([ck.TopicPartition(topic, partition, 0) for partition, end in ends.items() if end])
            found: list[Any] = []
            deadline_s = time.monotonic() + 20
            # What marks the end of a transaction takes an offset too, and is no message.
            while any(place.offset < ends[place.partition] for place in reader.position(reader.assignment())):
                assert time.monotonic() < deadline_s, "the topic was not read in time"
                found += [message for message in reader.consume(1000, 0.2) if message.error() is None]
            return found
        finally:
            reader.close()

    def answered(self) -> int:
        """How many answers are there by now."""
        partitions = self._counter.list_topics("scores", timeout=10).topics["scores"].partitions
        places = [ck.TopicPartition("scores", partition) for partition in partitions]
        return sum(self._counter.get_watermark_offsets(place, timeout=10)[1] for place in places)

    def close(self) -> None:
        self._counter.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.close()


def rows(count: int) -> list[bytes]:
    rng = np.random.default_rng(5)
    load, distance = rng.normal(size=count), rng.normal(size=count)
    return [
        json.dumps({"id": f"o{i}", "load": load[i], "distance": distance[i], "kind": "ab"[i % 2]}).encode()
        for i in range(count)
    ]


def stream(broker: Broker, state: Path, *more: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-m", "holdfast", "stream", "--brokers", broker.address, "--from", "rows", "--to", "scores"]
    settings = state.with_suffix(".properties")  # the group of one that was killed is free again within six seconds
    settings.write_text("session.timeout.ms=6000\nheartbeat.interval.ms=1000\n")
    argv += ["--settings", str(settings)]
    argv += ["--dead", "dead", "--until-end", "--json", "--state", str(state), *more]
    with state.with_suffix(".log").open("a") as log:
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True)


def ended(process: "subprocess.Popen[str]", state: Path) -> dict[str, int]:
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, state.with_suffix(".log").read_text()[-3000:]
    counts: dict[str, int] = json.loads(out)
    return counts


def kill_when_half_done(process: "subprocess.Popen[str]", broker: Broker, done: int) -> None:
    end = time.monotonic() + DEADLINE_S
    while broker.answered() < done:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "it answered too slowly to be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def recorded(state: Path) -> dict[str, float]:
    here = open_state(state)
    try:
        found = here.lake.scan("predictions", "orders")
    finally:
        here.close()
    ids = found["prediction_id"].to_list()
    assert len(set(ids)) == len(ids)
    assert set(found["stage"]) == {"live"}
    return dict(zip(ids, found["out.probability"].to_list(), strict=True))


@pytest.mark.parametrize("mode", ["--no-transactions", "--transactions"])
def test_every_message_is_recorded_once_though_its_consumer_is_killed(
    deployed: Path, broker: Broker, mode: str
) -> None:
    state = deployed / "state"
    broker.send("rows", rows(MESSAGES))
    broker.send("scores", [], 1)
    kill_when_half_done(stream(broker, state, mode), broker, 1000)
    counts = ended(stream(broker, state, mode), state)
    outputs = recorded(state)
    assert len(outputs) == MESSAGES
    assert counts["taken"] == counts["answered"] + counts["again"]
    sent = [json.loads(message.value()) for message in broker.read("scores")]
    assert {answer["prediction_id"] for answer in sent} == set(outputs)
    # One that was sent twice says the same twice: what is on record.
    assert all(answer["output"] == outputs[answer["prediction_id"]] for answer in sent)


def test_what_cannot_be_answered_is_kept_aside_and_does_not_stop_the_stream(deployed: Path, broker: Broker) -> None:
    state = deployed / "state"
    bad = [b"{", b"7", b'{"load": "x", "distance": 1, "kind": "a"}', b'{"load": NaN}', b"", b"\xff\xfe"]
    good = rows(50)
    broker.send("rows", [*good[:20], *bad, *good[20:]], 1)
    counts = ended(stream(broker, state), state)
    assert counts == {"taken": 56, "answered": 50, "again": 0, "dead": 6}
    dead = broker.read("dead")
    assert sorted(message.value() for message in dead) == sorted(bad)
    why = {message.value(): dict(message.headers())["holdfast.why"].decode() for message in dead}
    assert "column 'load': 'x' is not a number" in why[bad[2]]
    assert len(recorded(state)) == 50
