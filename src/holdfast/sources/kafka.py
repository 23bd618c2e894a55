"""Kafka: messages from one topic, answers to another, by librdkafka. Needs the extra ``kafka``."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from holdfast.core.clock import stopwatch_s
from holdfast.errors import AlreadyRunning, SourceError, StateError
from holdfast.sources.messages import Letter, Message

try:
    import confluent_kafka as ck
except ImportError as error:
    raise SourceError("Kafka needs a library that is not installed: pip install 'holdfast[kafka]'") from error

log = logging.getLogger(__name__)

DELIVERY_S = 30.0
"""Longest time to wait for the broker to take what is sent."""
SESSION_MS = 10_000
"""How long the group waits for a sign of life before it gives a member's partitions to others."""
ATTEMPTS = 3
"""How often a transaction that the broker broke off is tried."""

ASKED_AGAIN_S = 2.0
"""How long a broker that is asked for a topic is waited for, before what is wrong is told and it is asked again."""
SAID_AGAIN_S = 60.0
"""librdkafka tries again several times a second and says so each time; here it is said so often."""

_UNREACHABLE = (ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._RESOLVE)
"""What it says, of one broker or of all, while it finds nobody."""
_REPLACED = (ck.KafkaError._FENCED, ck.KafkaError.INVALID_PRODUCER_EPOCH, ck.KafkaError.FENCED_INSTANCE_ID)
"""What the broker says to a process whose name another one goes by since."""


class KafkaStream:
    """A member of a consumer group, and a producer that sends what the member makes of its messages.

    With `transactional` the letters of some messages and the note that these messages are done reach the broker
    together or not at all, so that a reader with ``isolation.level=read_committed`` sees each letter once. Without,
    letters are sent first and messages noted after that, so that after a crash some letters are sent again.
    """

    def __init__(
        self,
        *,
        brokers: str,
        source: str,
        group: str,
        instance: str = "0",
        transactional: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._transactional = transactional
        self._instance = f"{group}/{instance}"
        shared: dict[str, Any] = {**(settings or {}), "bootstrap.servers": brokers, "error_cb": _Trouble()}
        logger = _quiet_logger()
        try:
            self._consumer = ck.Consumer(
                {"session.timeout.ms": SESSION_MS}
                | shared
                | {
                    "group.id": group,
                    # A member of its own name takes over at once from one that died, not after its session ran out.
                    "group.instance.id": self._instance,
                    "auto.offset.reset": "earliest",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "isolation.level": "read_committed",
                },
                logger=logger,
            )
            sends: dict[str, Any] = {"enable.idempotence": True, "linger.ms": 5}
            if transactional:
                sends |= {"transactional.id": f"holdfast/{self._instance}"}
            self._producer = ck.Producer(shared | sends, logger=logger)
        except ck.KafkaException as error:
            raise SourceError(f"Kafka does not take these settings: {_words(error)}; correct --settings") from error
        self._ends: set[tuple[str, int]] = set()
        self._new: set[tuple[str, int]] = set()
        self._source = source
        self._failed: list[str] = []
        self._must_exist(source)
        if transactional:
            self._call(self._producer.init_transactions, DELIVERY_S)
        self._consumer.subscribe([source], on_assign=self._begin, on_revoke=self._forget)

    @property
    def is_at_end(self) -> bool:
        """True when the end of every partition that this member reads was seen after its last message."""
        mine = {(part.topic, part.partition) for part in self._consumer.assignment()}
        return bool(mine) and mine <= self._ends

    def take(self, most: int, wait_s: float) -> Sequence[Message]:
        taken = []
        for found in self._consumer.consume(most, wait_s):
            error, place = found.error(), (str(found.topic()), int(found.partition() or 0))
            if error is None:
                self._ends.discard(place)
                taken.append(
                    Message(
                        topic=place[0],
                        partition=place[1],
                        offset=int(found.offset() or 0),
                        at_ms=found.timestamp()[1] if found.timestamp()[0] != ck.TIMESTAMP_NOT_AVAILABLE else -1,
                        key=found.key(),
                        value=found.value(),
                    )
                )
            elif error.code() == ck.KafkaError._PARTITION_EOF:
                self._ends.add(place)
            elif error.code() == ck.KafkaError.FENCED_INSTANCE_ID:
                raise self._replaced()
            elif error.fatal():
                raise SourceError(f"topic '{self._source}' cannot be read: {error.str()}; start again")
            else:
                log.warning("topic '%s': %s; it is tried again", self._source, error.str())
        return taken

    def taken_over(self) -> Collection[tuple[str, int]]:
        new, self._new = self._new, set()
        return new

    def deliver(self, letters: Sequence[Letter], of: Sequence[Message]) -> None:
        done: dict[tuple[str, int], int] = {}
        for message in of:
            place = (message.topic, message.partition)
            done[place] = max(done.get(place, 0), message.offset + 1)
        offsets = [ck.TopicPartition(topic, partition, offset) for (topic, partition), offset in done.items()]
        if self._transactional:
            self._deliver_together(letters, offsets)
        else:
            self._send(letters)
            try:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            except ck.KafkaException as error:
                raise self._undelivered(error) from error

    def close(self) -> None:
        """Stop. The partitions wait for this member to come back until its session runs out; then others take them."""
        self._consumer.close()

    def _deliver_together(self, letters: Sequence[Letter], offsets: list[Any]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._producer.begin_transaction()
                self._send(letters)
                members = self._consumer.consumer_group_metadata()
                self._producer.send_offsets_to_transaction(offsets, members, DELIVERY_S)
                self._producer.commit_transaction(DELIVERY_S)
            except ck.KafkaException as error:
                if not error.args[0].txn_requires_abort() or attempt == ATTEMPTS:
                    raise self._undelivered(error) from error
                log.warning("the broker broke a transaction off: %s; it is tried again", _words(error))
                self._call(self._producer.abort_transaction, DELIVERY_S)
            else:
                return

    def _send(self, letters: Sequence[Letter]) -> None:
        self._failed.clear()
        for letter in letters:
            headers: list[tuple[str, str | bytes | None]] = list(letter.headers)
            while True:
                try:
                    self._producer.produce(
                        letter.topic, letter.value, letter.key, headers=headers, on_delivery=self._on_delivery
                    )
                    break
                except BufferError:  # the local queue is full: let some of it go
                    self._producer.poll(0.1)
        left = self._producer.flush(DELIVERY_S)
        if left or self._failed:
            why = self._failed[0] if self._failed else f"no word within {DELIVERY_S:g} s"
            raise StateError(
                f"{max(left, len(self._failed))} answers were not taken by the broker ({why}); their messages count as "
                "not done: look after the broker, then start again"
            )

    def _on_delivery(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(f"topic '{message.topic()}': {error.str()}")

    def _must_exist(self, topic: str) -> None:
        began_s, found, is_asked = stopwatch_s(), None, True
        while is_asked:
            try:
                found = self._consumer.list_topics(topic, timeout=min(ASKED_AGAIN_S, DELIVERY_S)).topics.get(topic)
                is_asked = False
            except ck.KafkaException as error:
                self._consumer.poll(0.1)  # until then nobody is told what is wrong
                passing = error.args[0].code() in (*_UNREACHABLE, ck.KafkaError._TIMED_OUT)
                if not passing or stopwatch_s() - began_s >= DELIVERY_S:
                    raise SourceError(f"the broker cannot be reached: {_words(error)}; check --brokers") from error
        if found is None or found.error is not None:
            raise SourceError(
                f"there is no topic '{topic}' ({found.error.str() if found else 'unknown'}); make it first"
            )

    def _call(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except ck.KafkaException as error:
            raise self._undelivered(error) from error

    def _undelivered(self, error: Any) -> StateError:
        if error.args[0].code() in _REPLACED:
            return self._replaced()
        return StateError(
            f"the broker did not take the answers ({_words(error)}); their messages count as not done: start again"
        )

    def _replaced(self) -> AlreadyRunning:
        return AlreadyRunning(
            f"another process took over as '{self._instance}'; give each member of a group an --instance of its own"
        )

    def _begin(self, consumer: Any, partitions: Any) -> None:
        self._new |= {(part.topic, part.partition) for part in partitions}

    def _forget(self, consumer: Any, partitions: Any) -> None:
        self._ends -= {(part.topic, part.partition) for part in partitions}


def _words(error: Any) -> str:
    return str(error.args[0].str())


class _Trouble:
    """Says problems that librdkafka looks after itself, each kind once a minute."""

    def __init__(self) -> None:
        self._said_s: dict[int, float] = {}

    def __call__(self, error: Any) -> None:
        kind = _UNREACHABLE[0] if error.code() in _UNREACHABLE else error.code()
        now_s = stopwatch_s()
        if now_s - self._said_s.get(kind, -SAID_AGAIN_S) >= SAID_AGAIN_S:
            self._said_s[kind] = now_s
            log.warning("Kafka: %s; it is tried again", error.str())


def _quiet_logger() -> logging.Logger:
    """Where librdkafka's own lines go, which it would write to standard error: into the log, but for those that say
    what `_Trouble` is told."""
    logger = logging.getLogger(f"{__name__}.librdkafka")
    logger.addFilter(_is_news)  # the same one again is not added
    return logger


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line is none of the kinds FAIL and ERROR: each of those is a problem that is told besides."""
    kind = record.args[0] if isinstance(record.args, tuple) and record.args else record.getMessage().partition(" ")[0]
    return kind not in ("FAIL", "ERROR")
