"""Messages of topics as they come and go, whichever broker carries them."""

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a topic. Topic, partition and offset name it for ever."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    """When it was made, in milliseconds since 1970 UTC, as the broker says; -1 where it does not."""
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> tuple[str, int]:
        """Its topic and partition."""
        return self.topic, self.partition

    @property
    def id(self) -> str:
        """Its name as a request id. The time tells it from the message at the same place of a topic made anew."""
        return f"{self.topic}/{self.partition}/{self.offset}@{self.at_ms}"


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A message to send."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, str], ...] = ()


class Messages(Protocol):
    """Where messages are taken from, and what is made of them is sent. Owned by one thread."""

    @property
    def is_at_end(self) -> bool:
        """True when all that had come was taken, as far as is known."""

    def take(self, most: int, wait_s: float) -> Sequence[Message]:
        """Messages that were not taken yet, after waiting this long for the first; by partition in order."""

    def taken_over(self) -> Collection[tuple[str, int]]:
        """Topics and partitions that became this member's since this was asked last."""

    def deliver(self, letters: Sequence[Letter], of: Sequence[Message]) -> None:
        """Send letters and, when all are sent, count these messages as done. Raises StateError where they are not."""
