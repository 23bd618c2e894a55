"""Kafka against librdkafka's own mock broker, in this process."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import SourceError
from holdfast.sources.messages import Letter, Message
from holdfast.testing import refused

ck = pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Any:
    return ck.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})


@pytest.fixture
def address(cluster: Any) -> str:
    return ",".join(f"{b.host}:{b.port}" for b in cluster.list_topics(timeout=10).brokers.values())


@pytest.fixture
def opened(address: str) -> Iterator[Any]:
    """Streams on a topic, closed at the end."""
    from holdfast.sources.kafka import KafkaStream

    made: list[KafkaStream] = []

    def open_stream(topic: str, **changes: Any) -> KafkaStream:
        stream = KafkaStream(brokers=address, source=topic, group=f"of-{topic}", **changes)
        made.append(stream)
        return stream

    yield open_stream
    for stream in made:
        stream.close()


def send(address: str, topic: str, values: list[bytes]) -> None:
    producer = ck.Producer({"bootstrap.servers": address, "log_level": 0})
    for value in values:
        producer.produce(topic, value, b"k", partition=0)
    assert producer.flush(10) == 0


def all_of(stream: Any) -> list[Message]:
    taken: list[Message] = []
    while not stream.is_at_end:
        taken += stream.take(100, 0.2)
    return taken


def test_messages_come_with_their_place_and_time_in_order(opened: Any, address: str) -> None:
    send(address, "first", [b"1", b"2", b"3"])
    stream = opened("first")
    taken = all_of(stream)
    assert [(m.place, m.offset, m.key, m.value) for m in taken] == [
        (("first", 0), offset, b"k", b"%d" % (offset + 1)) for offset in range(3)
    ]
    assert taken[0].id == f"first/0/0@{taken[0].at_ms}"
    assert taken[0].at_ms > 1_700_000_000_000
    assert ("first", 0) in stream.taken_over()
    assert stream.taken_over() == set()


def test_what_was_delivered_does_not_come_again_and_what_was_not_does(opened: Any, address: str) -> None:
    send(address, "second", [b"1", b"2", b"3", b"4"])
    stream = opened("second", transactional=False)
    taken = all_of(stream)
    stream.deliver([Letter(topic="answers", key=m.key, value=b"a" + (m.value or b"")) for m in taken[:2]], taken[:2])
    stream.close()
    assert [m.value for m in all_of(opened("second", transactional=False))] == [b"3", b"4"]
    reader = opened("answers")
    assert [m.value for m in all_of(reader)] == [b"a1", b"a2"]


def test_settings_that_librdkafka_does_not_know_are_refused(opened: Any) -> None:
    with refused(SourceError, "no.such.thing", "correct --settings"):
        opened("third", settings={"no.such.thing": "1"})


def test_a_broker_that_is_not_there_is_named_a_problem_of_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.sources import kafka

    monkeypatch.setattr(kafka, "DELIVERY_S", 0.3)
    with refused(SourceError, "cannot be reached", "check --brokers"):
        kafka.KafkaStream(brokers="127.0.0.1:1", source="rows", group="g", settings={"log_level": "0"})


def test_a_broker_that_is_not_there_is_said_once_and_librdkafka_writes_nothing_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from holdfast.sources import kafka

    monkeypatch.setattr(kafka, "DELIVERY_S", 1.0)
    with refused(SourceError, "cannot be reached"):
        kafka.KafkaStream(brokers="127.0.0.1:1,127.0.0.1:2", source="rows", group="g")
    told = [record.getMessage() for record in caplog.records if "127.0.0.1" in record.getMessage()]
    assert len(told) == 1, caplog.text
    assert capfd.readouterr().err == ""


def test_a_problem_is_said_again_after_a_minute_and_another_one_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from holdfast.sources import kafka

    now_s = [100.0]
    monkeypatch.setattr(kafka, "stopwatch_s", lambda: now_s[0])
    trouble = kafka._Trouble()
    for after_s, code in ((0, ck.KafkaError._TRANSPORT), (1, ck.KafkaError._ALL_BROKERS_DOWN), (1, ck.KafkaError._SSL)):
        now_s[0] = 100.0 + after_s
        trouble(ck.KafkaError(code))
    assert len(caplog.records) == 2
    now_s[0] = 160.0
    trouble(ck.KafkaError(ck.KafkaError._RESOLVE))
    assert len(caplog.records) == 3


def test_without_the_library_the_command_names_the_extra(tmp_path: Path) -> None:
    script = "import sys; sys.modules['confluent_kafka'] = None; from holdfast.cli.app import main; main()"
    argv = [sys.executable, "-c", script, "stream", "--brokers", "b", "--from", "rows", "--state", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "pip install 'holdfast[kafka]'" in done.stderr
