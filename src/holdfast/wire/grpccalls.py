"""gRPC calls: what becomes of the bytes of a request until its status goes out, whatever the method.

One kind of receiver for each shape of a method: one message for one, many for many, one for many.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from holdfast.errors import HoldfastError, InvalidInput, NotFound, Overloaded, StateError
from holdfast.wire.bodies import Bodies
from holdfast.wire.grpcmessages import Message, MessageClass
from holdfast.wire.grpcwire import (
    OK_HEAD,
    OK_TRAILERS,
    PREFIX_BYTES,
    Messages,
    Refused,
    StatusCode,
    length_of,
    only_message,
    prefixed,
    trailers,
    trailers_only,
)
from holdfast.wire.http2stream import Stream

log = logging.getLogger(__name__)

MOST_IN_FLIGHT = 64
"""Messages of one stream that are answered at a time; the others wait in the client."""
MOST_UNSENT_BYTES = 1 << 20
"""Once a stream has so much to send, no further message of it is answered."""
SMALL_BYTES = 16 * 1024
"""A message up to this size that came in one piece is not counted among what the worker holds."""
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
    quick: "Callable[[Unary | Turn, bytes, CallHead, str], bool] | None" = None
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
        self.watchers: set[Watch] = set()

    def hold(self, count: int) -> None:
        """Keep so many more bytes. Raises Refused when it is too many."""
        if not self.bodies.hold(count):
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, "too many large requests are coming in; send it again later")


class _Call:
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


class Unary(_Call):
    """A call of one message that gets one message."""

    def __init__(self, guard: Guard, stream: Stream, head: CallHead, method: Method) -> None:
        super().__init__(guard, stream, head, method)
        self._parts: list[bytes] = []
        self._held = self._kept = 0
        self._wanted: int | None = None
        self._is_quick = False
        """True while its bytes wait to be answered with others, which they do though the caller goes away."""
        self._task: asyncio.Task[None] | None = None

    def received(self, data: bytes, is_end: bool) -> None:
        """Take the next bytes; answer when they are whole."""
        if self._is_over:
            return
        try:
            if not is_end or self._parts:
                self._hold(data)
                if not is_end:
                    return
                data = b"".join(self._parts)
                self._parts.clear()
            caller = "" if self._method.is_open else self._guard.enter(self._head)
            message = only_message(data, self._head.encoding)
            if len(message) > SMALL_BYTES and len(message) > self._held and not self._method.is_open:
                self._guard.hold(len(message) - self._held)
                self._held = len(message)
            self._answer(message, caller)
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            self.refuse(error)

    def _hold(self, data: bytes) -> None:
        if self._method.is_open:  # anyone may call it, so it must not take the room of the others
            if self._kept + len(data) > MOST_OPEN_BYTES:
                raise _too_large_for_all()
        else:
            if not self._parts:
                self._guard.enter(self._head)  # nothing is kept for those who may not enter
            self._guard.hold(len(data))
            self._held += len(data)
        self._kept += len(data)
        self._parts.append(data)
        if self._wanted is None and self._kept >= PREFIX_BYTES:
            self._wanted = PREFIX_BYTES + length_of(b"".join(self._parts))
        if self._wanted is not None and self._kept > self._wanted:
            only_message(b"".join(self._parts), b"")  # says what is wrong
        self._stream.grant(len(data))

    def _answer(self, data: bytes, caller: str) -> None:
        method = self._method
        if method.answer is not None:
            self.reply(method.answer(parsed(method.request, data)).SerializeToString())
        elif method.quick is not None and method.quick(self, data, self._head, caller):
            self._is_quick = True
        else:
            self.generally(data, caller)

    def refuse(self, error: BaseException) -> None:
        """End the call with the status that an error stands for."""
        self._is_quick = False
        self._end_with(error)
        self._release()

    def generally(self, data: bytes, caller: str) -> None:
        """Answer in a task of its own: the bytes of the message."""
        self._is_quick = False
        if self._is_over:
            self._release()
        else:
            request = parsed(self._method.request, data)
            self._task = asyncio.get_running_loop().create_task(self._infer(request, caller))

    async def _infer(self, request: Message, caller: str) -> None:
        assert self._method.infer is not None
        try:
            response = await self._method.infer(request, self._head, caller)
            self.reply(response.SerializeToString())
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            self.refuse(error)

    def reply(self, body: bytes) -> None:
        """Send the answer: the bytes of a message."""
        self._is_quick = False
        if not self._is_over:
            self._finish()
            self._stream.answer(OK_HEAD, prefixed(body), OK_TRAILERS)
        self._release()

    def _give_up(self) -> None:
        if not self._is_quick:
            self._release()
        if self._task is not None:
            self._task.cancel()

    def _release(self) -> None:
        if self._held:
            self._guard.bodies.release(self._held)
            self._held = 0
            self._parts.clear()


class Conversation(_Call):
    """A call of many messages, each of which gets one, in their order."""

    is_stream = True

    def __init__(self, guard: Guard, stream: Stream, head: CallHead, method: Method) -> None:
        super().__init__(guard, stream, head, method)
        self._messages = Messages(head.encoding)
        # The id of the call cannot name several requests.
        self._head_of_each = msgspec.structs.replace(head, request_id="")
        self._may_enter = method.is_open
        self._in_flight: deque[Turn] = deque()
        self._ungranted = 0
        self._has_ended = False
        self._is_stopping = False

    def received(self, data: bytes, is_end: bool) -> None:
        """Take the next bytes; begin to answer the messages that are whole."""
        if self._is_over:
            return
        try:
            if not self._may_enter:
                self._guard.enter(self._head)  # nothing is kept for those who may not enter
                self._may_enter = True
            self._guard.hold(len(data))
            self._messages.add(data)
            self._ungranted += len(data)
            self._has_ended = self._has_ended or is_end
            self._take()
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            self.refuse(error)

    def drained(self) -> None:
        """Go on with the messages that waited for that."""
        self._go_on()

    def stopping(self) -> None:
        """Answer what has come whole, then end the stream."""
        self._is_stopping = True
        self._go_on()

    def _go_on(self) -> None:
        if not self._is_over:
            try:
                self._take()
            except Exception as error:  # noqa: BLE001 - a request is foreign input
                self.refuse(error)

    def _take(self) -> None:
        while self._has_room:
            before = self._messages.held_bytes
            message = self._messages.next()
            if message is None:
                break
            self._begin(message, before - self._messages.held_bytes)
        if self._has_room:
            ungranted, self._ungranted = self._ungranted, 0
            self._stream.grant(ungranted)
            if not self._in_flight:
                self._end()

    @property
    def is_partial(self) -> bool:
        """True while the client is to send the rest of a message."""
        return not self._is_over and self._messages.held_bytes > 0 and self._has_room

    @property
    def _has_room(self) -> bool:
        return len(self._in_flight) < MOST_IN_FLIGHT and self._stream.pending_bytes < MOST_UNSENT_BYTES

    def _begin(self, data: bytes, held: int) -> None:
        turn = Turn(self, self._method, data, held)
        self._in_flight.append(turn)
        if len(data) > held:  # it came compressed
            self._guard.hold(len(data) - held)
            turn.held = len(data)
        caller = self._guard.enter(self._head)
        quick = self._method.quick
        if quick is not None and quick(turn, data, self._head_of_each, caller):
            turn.is_quick = True
        else:
            turn.generally(data, caller)

    def task(self, data: bytes, caller: str) -> "asyncio.Task[Message]":
        """Answer a message the general way."""
        assert self._method.converse is not None
        request = parsed(self._method.request, data)
        return asyncio.get_running_loop().create_task(self._method.converse(request, self._head_of_each, caller))

    def release(self, turn: "Turn") -> None:
        """What is held of a message that nobody waits for any more is needed no longer."""
        self._guard.bodies.release(turn.held)

    def settle(self) -> None:
        """Send the answers that are ready, up to the first that is not."""
        ready: list[bytes] = []
        while not self._is_over and self._in_flight and self._in_flight[0].is_answered:
            turn = self._in_flight.popleft()
            self._guard.bodies.release(turn.held)
            if turn.error is not None:
                self._send(ready)
                self.refuse(turn.error)
                return
            ready.append(prefixed(turn.answer))
        self._send(ready)
        self._go_on()

    def _send(self, answers: list[bytes]) -> None:
        if answers and not self._is_over:
            self._open()
            self._stream.send(answers[0] if len(answers) == 1 else b"".join(answers))

    def _open(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._stream.begin(OK_HEAD)

    def _end(self) -> None:
        """End the stream if nothing is to come."""
        if self._has_ended and self._messages.held_bytes:
            raise Refused(StatusCode.INTERNAL, "the stream ends within a message")
        if self._has_ended:
            self._finish()
            self._open()
            self._stream.finish(OK_TRAILERS)
        elif self._is_stopping:
            raise Refused(StatusCode.UNAVAILABLE, STOPPING)

    def _give_up(self) -> None:
        left = sum([turn.held for turn in self._in_flight if not turn.is_quick])
        self._guard.bodies.release(self._messages.held_bytes + left)
        self._messages = Messages(b"")
        in_flight, self._in_flight = self._in_flight, deque()
        for turn in in_flight:
            turn.give_up()


class Turn:
    """One message of a conversation, until its answer is there."""

    __slots__ = ("_conversation", "_data", "_method", "_task", "answer", "error", "held", "is_answered", "is_quick")

    def __init__(self, conversation: Conversation, method: Method, data: bytes, held: int) -> None:
        self._conversation, self._method, self._data = conversation, method, data
        self._task: asyncio.Task[Message] | None = None
        self.held = held
        """Bytes that are held of it."""
        self.answer = b""
        self.error: BaseException | None = None
        """Why the whole conversation ends with it."""
        self.is_answered = False
        self.is_quick = False
        """True while its bytes wait to be answered with others, which they do though the caller goes away."""

    def _is_for_nobody(self) -> bool:
        if self.is_answered and self.is_quick:
            self._conversation.release(self)
        self.is_quick = False
        return self.is_answered

    def reply(self, body: bytes) -> None:
        """Take the answer: the bytes of what `infer` would answer."""
        if not self._is_for_nobody():
            self._settle(self._method.worded(body))

    def refuse(self, error: BaseException) -> None:
        """Tell in its place what is wrong with the message."""
        assert self._method.failed is not None
        if self._is_for_nobody():
            return
        request = parsed(self._method.request, self._data)
        self._settle(self._method.failed(request, error).SerializeToString())

    def generally(self, data: bytes, caller: str) -> None:
        """Answer the general way: the bytes of the message."""
        if self._is_for_nobody():
            return
        try:
            self._task = self._conversation.task(data, caller)
        except Refused as error:
            self.error = error
            asyncio.get_running_loop().call_soon(self._settle, b"")  # others of the same bytes are still to begin
        else:
            self._task.add_done_callback(self._done)

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        self.is_answered = True
        if self._task is not None:
            self._task.cancel()

    def _done(self, task: "asyncio.Task[Message]") -> None:
        if task.cancelled():
            self.error = Refused(StatusCode.CANCELLED, "cancelled")
        else:
            self.error = task.exception()
        self._settle(b"" if self.error is not None else task.result().SerializeToString())

    def _settle(self, answer: bytes) -> None:
        if not self.is_answered:
            self.is_answered, self.answer = True, answer
            self._conversation.settle()


class Watch(_Call):
    """A call of one message that is told something now and whenever it changes."""

    is_stream = True

    def __init__(self, guard: Guard, stream: Stream, head: CallHead, method: Method) -> None:
        super().__init__(guard, stream, head, method)
        self._body = b""
        self._request: Message = None
        self._told = b""

    def received(self, data: bytes, is_end: bool) -> None:
        """Take the message, which must be short; begin to tell."""
        if self._is_over:
            return
        try:
            self._body += data
            self._stream.grant(len(data))
            if len(self._body) > MOST_OPEN_BYTES:
                raise _too_large_for_all()
            if is_end:
                self._request = parsed(self._method.request, only_message(self._body, self._head.encoding))
                self._guard.watchers.add(self)
                self.look()
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            self.refuse(error)

    @property
    def is_partial(self) -> bool:
        """True while the message has not come."""
        return self._request is None

    def look(self) -> None:
        """Tell what is to be told, if it has changed."""
        assert self._method.watch is not None
        now = prefixed(self._method.watch(self._request).SerializeToString())
        if now != self._told and not self._stream.pending_bytes:
            self._told = now
            if not self._has_begun:
                self._has_begun = True
                self._stream.begin(OK_HEAD)
            self._stream.send(now)

    def stopping(self) -> None:
        """End the stream."""
        self.refuse(Refused(StatusCode.UNAVAILABLE, STOPPING))

    def _finish(self) -> None:
        super()._finish()
        self._guard.watchers.discard(self)


class Turned(_Call):
    """A call that is answered before its message has come."""

    def __init__(self, guard: Guard, stream: Stream, head: CallHead) -> None:
        self._is_over = True
        self._stream = stream
        guard.refused += 1
        self._block = head.block or trailers_only(head.refused or Refused(StatusCode.UNKNOWN, "refused"))

    def received(self, data: bytes, is_end: bool) -> None:
        """Answer with the first bytes, whatever they are."""
        self._stream.refuse(self._block)


def _too_large_for_all() -> Refused:
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
