"""gRPC calls of many messages: each is answered in its place, many at a time."""

import asyncio
from collections import deque

import msgspec

from holdfast.wire.grpccalls import STOPPING, Call, CallHead, Guard, Method, parsed
from holdfast.wire.grpcmessages import Message
from holdfast.wire.grpcwire import OK_HEAD, OK_TRAILERS, Messages, Refused, StatusCode, prefixed
from holdfast.wire.http2stream import Stream

MOST_IN_FLIGHT = 64
"""Messages of one stream that are answered at a time; the others wait in the client."""
MOST_UNSENT_BYTES = 1 << 20
"""Once a stream has so much to send, no further message of it is answered."""


class Conversation(Call):
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
