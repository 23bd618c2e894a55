"""One HTTP/2 stream of a server: a request that comes in, and its answer that goes out."""

from collections import deque
from typing import Protocol

from holdfast.wire import http2wire as wire
from holdfast.wire.http2outlet import Outlet
from holdfast.wire.http2wire import ErrorCode


class Receiver(Protocol):
    """Takes the bytes of one request. Called in the thread of the event loop; does not raise."""

    is_stream: bool
    """True where the request may stay open as long as it likes."""

    @property
    def is_partial(self) -> bool:
        """Of such a request: True while the peer is to send the rest of what it began."""

    def received(self, data: bytes, is_end: bool) -> None:
        """The next bytes; whoever keeps them for long grants them late. `is_end`: these were the last."""

    def lost(self) -> None:
        """The peer gave up the request or is gone; nothing can be answered any more."""

    def drained(self) -> None:
        """All that waited to be sent has gone out."""

    def stopping(self) -> None:
        """The server stops: answer what was received and end the stream."""


class Owner(Protocol):
    """The connection, as a stream sees it."""

    def answered(self, stream: "Stream") -> None:
        """The answer has been written whole."""

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Send RST_STREAM."""


class Stream:
    """One request and its answer. Sending on a stream that has ended does nothing."""

    __slots__ = (
        "_ending",
        "_outlet",
        "_owner",
        "_pending",
        "_ungranted",
        "_window_bytes",
        "expected",
        "heard_s",
        "id",
        "is_local_closed",
        "is_remote_closed",
        "moved_s",
        "opened_s",
        "pending_bytes",
        "receive_window",
        "receiver",
        "send_window",
    )

    receiver: Receiver

    def __init__(self, owner: Owner, outlet: Outlet, id: int, *, window_bytes: int, length: int | None) -> None:
        self._owner = owner
        self._outlet = outlet
        self._window_bytes = window_bytes
        self._ungranted = 0
        self._pending: deque[memoryview] = deque()
        self._ending: bytes | None = None
        self.id = id
        self.expected = length
        """Bytes that `content-length` says are still to come."""
        self.is_remote_closed = False
        self.is_local_closed = False
        self.opened_s = self.moved_s = outlet.now_s
        self.heard_s = outlet.now_s
        """When the peer last sent something or was allowed to send more."""
        self.pending_bytes = 0
        """Bytes of the answer that wait for the peer to take them."""
        self.receive_window = window_bytes
        self.send_window = outlet.peer_window

    def grant(self, count: int) -> None:
        """So many received bytes are used up: the peer may send as many again."""
        self._ungranted += count
        if self._ungranted * 2 >= self._window_bytes and not self.is_remote_closed:
            self.receive_window += self._ungranted
            self.heard_s = self._outlet.now_s
            self._outlet.write(wire.window_update(self.id, self._ungranted))
            self._ungranted = 0

    def answer(self, head: bytes, data: bytes, trailers: bytes) -> None:
        """Send a whole answer: header block, data, header block of the trailers."""
        if self.is_local_closed:
            return
        outlet, id, size = self._outlet, self.id, len(data)
        if size > self.send_window or not outlet.can_send(size):
            self.begin(head)
            self.send(data)
            self.finish(trailers)
            return
        self.send_window -= size
        outlet.sent(size)
        outlet.write(
            b"".join(
                (
                    outlet.headers(id, head, 0),
                    wire.frame_head(size, wire.DATA, 0, id),
                    data,
                    wire.frame_head(len(trailers), wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, id),
                    trailers,
                )
            )
        )
        self._end()

    def begin(self, head: bytes) -> None:
        """Send the header block of an answer."""
        if not self.is_local_closed:
            self._outlet.write(self._outlet.headers(self.id, head, 0))

    def send(self, data: bytes) -> None:
        """Send the next data of an answer, as fast as the peer takes it."""
        if data and not self.is_local_closed:
            if not self._pending:
                self.moved_s = self._outlet.now_s
            self._pending.append(memoryview(data))
            self.pending_bytes += len(data)
            self._send_pending()

    def finish(self, trailers: bytes) -> None:
        """End the answer, once all its data is sent."""
        if not self.is_local_closed and self._ending is None:
            self._ending = trailers
            self._send_pending()

    def refuse(self, head: bytes) -> None:
        """Send an answer that is a header block only, and drop what waits to be sent."""
        if not self.is_local_closed:
            self.drop()
            self._outlet.write(self._outlet.headers(self.id, head, wire.END_STREAM))
            self._end()

    def reset(self, code: ErrorCode) -> None:
        """End the stream without an answer."""
        if not self.is_local_closed:
            self.drop()
            self.is_local_closed = self.is_remote_closed = True
            self._owner.reset(self.id, code)

    def drop(self) -> None:
        """Forget what waits to be sent."""
        self._pending.clear()
        self.pending_bytes = 0
        self._outlet.forget(self.id)

    def waited_for_s(self, now_s: float) -> float:
        """How long the peer takes by now over what it began to send; 0 where nothing is to come."""
        if self.is_remote_closed:
            return 0.0
        if not self.receiver.is_stream:
            return now_s - self.opened_s
        return now_s - self.heard_s if self.receiver.is_partial else 0.0

    def pump(self) -> None:
        """Send what waits, as far as the windows and the transport allow."""
        if self.pending_bytes:
            self._send_pending()
            if not self.pending_bytes:
                self.receiver.drained()

    def _send_pending(self) -> None:
        outlet, pending = self._outlet, self._pending
        while pending:
            data = pending[0]
            size = outlet.sendable(min(len(data), self.send_window))
            if size <= 0:
                outlet.wait(self)
                return
            outlet.write(wire.frame_head(size, wire.DATA, 0, self.id))
            outlet.write(data[:size])
            if size == len(data):
                pending.popleft()
            else:
                pending[0] = data[size:]
            self.pending_bytes -= size
            self.send_window -= size
            self.moved_s = outlet.now_s
            outlet.sent(size)
        if self._ending is not None:
            outlet.write(outlet.headers(self.id, self._ending, wire.END_STREAM))
            self._end()

    def _end(self) -> None:
        self.is_local_closed = True
        self._owner.answered(self)
