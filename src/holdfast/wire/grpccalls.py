"""gRPC calls, whatever their shape: what their head says, what their method does, how they end and with which status.

One kind of receiver for each shape of a method: one message for one, many for many, one for many.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec
from google.protobuf.message import DecodeError

from holdfast.errors import HoldfastError, InvalidInput, NotFound, Overloaded, StateError
from holdfast.wire.bodies import Bodies
from holdfast.wire.grpcmessages import Message, MessageClass
from holdfast.wire.grpcwire import Refused, StatusCode, trailers, trailers_only
from holdfast.wire.http2stream import Stream

log = logging.getLogger(__name__)

MOST_OPEN_BYTES = 4 * 1024
"""Of a message of a method that needs no token."""
STOPPING = "this worker stops; call again, another one answers"


class CallHead(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What the head of a request says. Many requests share one."""

    method: "Method | None"
    refused: Refused | None = None
    """Why it cannot be taken, whatever its message."""
    block: bytes = b""
    """The whole answer to what is no gRPC request."""
    timeout_s: float | None = None
    encoding: bytes = b""
    authorization: str = ""
    request_id: str = ""
    context: tuple[tuple[bytes, bytes], ...] = ()
    """The fields that say to which trace it belongs."""


class Asker(Protocol):
    """A call that waits for its answer."""

    def reply(self, body: bytes) -> None:
        """Send the answer: the bytes of a message."""

    def refuse(self, error: BaseException) -> None:
        """End the call with the status that an error stands for."""

    def generally(self, data: bytes, caller: str) -> None:
        """Answer the general way: the bytes of the message."""


class Watcher(Protocol):
    """A call that is told whenever something has changed."""

    def look(self) -> None:
        """Tell what is to be told, if it has changed."""


class Method(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One method of a service. One of `answer`, `infer`, `converse` and `watch` says how it answers."""

    request: MessageClass
    is_open: bool = False
    """True where no token is needed."""
    answer: Callable[[Message], Message] | None = None
    infer: Callable[[Message, CallHead, str], Coroutine[Any, Any, Message]] | None = None
    """Takes also the head and the caller."""
    converse: Callable[[Message, CallHead, str], Coroutine[Any, Any, Message]] | None = None
    """Answers each message of a stream; what is wrong with a message is an answer too."""
    quick: Callable[[Asker, bytes, CallHead, str], bool] | None = None
    """Where there is an `infer` or a `converse`: takes the message if it can answer it faster, and says whether it did.
    What it answers is what `infer` would."""
    worded: Callable[[bytes], bytes] = bytes
    """Makes a message of a stream of a quick answer."""
    failed: Callable[[Message, BaseException], Message] | None = None
    """What a stream is told where a quick answer failed."""
    watch: Callable[[Message], Message] | None = None
    """What is to be told whenever it has changed."""


class Guard:
    """What all calls of a server share: who may enter, how much is held, how many were refused."""

    def __init__(self, enter: Callable[[CallHead], str], bodies: Bodies) -> None:
        self.enter = enter
        """The caller's name. Raises Refused for one who may not enter."""
        self.bodies = bodies
        self.refused = 0
        """Calls that ended with another status than OK."""
        self.watchers: set[Watcher] = set()

    def hold(self, count: int) -> None:
        """Keep so many more bytes. Raises Refused when it is too many."""
        if not self.bodies.hold(count):
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, "too many large requests are coming in; send it again later")


class Call:
    """What the kinds of calls have in common: a deadline, and one end."""

    is_stream = False

    def __init__(self, guard: Guard, stream: Stream, head: CallHead, method: Method) -> None:
        self._guard, self._stream, self._head, self._method = guard, stream, head, method
        self._is_over = False
        self._has_begun = False
        self._timer: asyncio.TimerHandle | None = None
        if head.timeout_s is not None:
            self._timer = asyncio.get_running_loop().call_later(head.timeout_s, self._expire)

    @property
    def is_partial(self) -> bool:
        """True while the client is to send the rest of a message of a stream."""
        return False

    def lost(self) -> None:
        """Stop: nobody waits for an answer any more."""
        if not self._is_over:
            self._finish()
            self._give_up()

    def drained(self) -> None:
        """Nothing waits for this."""

    def stopping(self) -> None:
        """What was asked is answered."""

    def refuse(self, error: BaseException) -> None:
        """End the call with the status that an error stands for."""
        self._end_with(error)

    def _end_with(self, error: BaseException) -> None:
        if self._is_over:
            return
        self._finish()
        self._guard.refused += 1
        refused = refused_of(error)
        if self._has_begun:
            self._stream.finish(trailers(refused))
        else:
            self._stream.refuse(trailers_only(refused))
        self._give_up()

    def _expire(self) -> None:
        self._end_with(Refused(StatusCode.DEADLINE_EXCEEDED, f"not answered within {self._head.timeout_s:g} s"))

    def _finish(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        """Drop what is held and under way."""


class Turned(Call):
    """A call that is answered before its message has come."""

    def __init__(self, guard: Guard, stream: Stream, head: CallHead) -> None:
        self._is_over = True
        self._stream = stream
        guard.refused += 1
        self._block = head.block or trailers_only(head.refused or Refused(StatusCode.UNKNOWN, "refused"))

    def received(self, data: bytes, is_end: bool) -> None:
        """Answer with the first bytes, whatever they are."""
        self._stream.refuse(self._block)


def too_large_for_all() -> Refused:
    """Of a message of a method that needs no token."""
    return Refused(
        StatusCode.RESOURCE_EXHAUSTED,
        f"the message is larger than {MOST_OPEN_BYTES >> 10} KiB, the most that a method without a token takes",
    )


def parsed(kind: MessageClass, data: bytes) -> Message:
    """A message from its bytes. Raises Refused."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise Refused(StatusCode.INVALID_ARGUMENT, f"the message is no {kind.DESCRIPTOR.name}: {error}") from error


def refused_of(error: BaseException) -> Refused:
    """The status that an error stands for.

    What helps when it is sent again is UNAVAILABLE, with the time to wait where that is known: that is what clients
    and proxies retry by themselves.
    """
    match error:
        case Refused():
            return error
        case InvalidInput():
            return Refused(StatusCode.INVALID_ARGUMENT, str(error))
        case NotFound():
            return Refused(StatusCode.NOT_FOUND, str(error))
        case Overloaded():
            pushback_ms = b"%d" % max(1, round(error.retry_after_s * 1000))
            return Refused(StatusCode.UNAVAILABLE, str(error), [(b"grpc-retry-pushback-ms", pushback_ms)])
        case StateError():
            return Refused(StatusCode.UNAVAILABLE, str(error))
        case HoldfastError():
            return Refused(StatusCode.INTERNAL, str(error))
    log.error("a call failed", exc_info=error)
    return Refused(StatusCode.INTERNAL, "the call failed inside Holdfast; the worker's log has the details")
