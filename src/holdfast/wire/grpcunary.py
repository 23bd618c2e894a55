"""gRPC calls of one message that get one message."""

import asyncio

from holdfast.wire.grpccalls import MOST_OPEN_BYTES, Call, CallHead, Guard, Method, parsed, too_large_for_all
from holdfast.wire.grpcmessages import Message
from holdfast.wire.grpcwire import OK_HEAD, OK_TRAILERS, PREFIX_BYTES, length_of, only_message, prefixed
from holdfast.wire.http2stream import Stream

SMALL_BYTES = 16 * 1024
"""A message up to this size that came in one piece is not counted among what the worker holds."""


class Unary(Call):
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
                raise too_large_for_all()
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
