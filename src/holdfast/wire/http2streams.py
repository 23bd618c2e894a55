"""The requests that are open on an HTTP/2 connection: what comes for each, counted against the windows."""

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from holdfast.wire import http2wire as wire
from holdfast.wire.http2headers import Head, HeadReader, Malformed
from holdfast.wire.http2limits import Allowance, Limits
from holdfast.wire.http2outlet import Outlet
from holdfast.wire.http2stream import Receiver, Stream
from holdfast.wire.http2wire import ConnectionFault, ErrorCode, StreamFault

T = TypeVar("T")

_SMALL_BYTES = 256


class Application(Protocol[T]):
    """What answers the requests of connections."""

    def prepare(self, head: Head) -> T:
        """What there is to know from a head alone. May be asked once for many equal heads. Does not raise."""

    def opened(self, stream: Stream, prepared: T) -> Receiver:
        """A request has begun. Does not raise."""


class Streams(Generic[T]):
    """The open streams of one connection. `done` is called when the last one that is taken was answered."""

    def __init__(
        self,
        application: Application[T],
        limits: Limits,
        allowance: Allowance,
        outlet: Outlet,
        done: Callable[[], None],
    ) -> None:
        self._application = application
        self._limits = limits
        self._allowance = allowance
        self._outlet = outlet
        self._done = done
        self._heads: HeadReader[tuple[T, int | None]] = HeadReader(self._prepared, limits.head_bytes)
        self._open: dict[int, Stream] = {}
        self._reset_here: dict[int, None] = {}
        """Streams that were ended here before the peer ended them; what it still sends for them is dropped."""
        self._window = limits.connection_window_bytes
        self._ungranted = 0
        self.last_id = 0
        """The last stream that the peer opened."""
        self.final_id: int | None = None
        """The last stream that is answered, once the peer was told."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._open.values()))

    def lose_all(self) -> None:
        """Nothing can be answered any more."""
        streams, self._open = list(self._open.values()), {}
        for stream in streams:
            _lose(stream)

    # What comes in

    def data(self, stream_id: int, payload: bytes, size: int, is_end: bool) -> None:
        """DATA without its padding; `size` with it."""
        self._granted(size)
        stream = self._open.get(stream_id)
        if stream is None or stream.is_remote_closed:
            self._data_nowhere(stream_id)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window of the stream")
        if not payload and not is_end:
            self._allowance.spend("empty DATA")
        if stream.expected is not None:
            _count(stream, len(payload), is_end)
        stream.is_remote_closed = is_end
        if not is_end:
            stream.heard_s = self._outlet.now_s
        if size > len(payload):
            stream.grant(size - len(payload))
        stream.receiver.received(payload, is_end)

    def _granted(self, size: int) -> None:
        """Count DATA against the window of the connection, and open it again.

        The windows of the streams bound what is kept; this one must not let a stream that waits stop the others.
        """
        self._window -= size
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window of the connection")
        self._ungranted += size
        if self._ungranted * 2 >= self._limits.connection_window_bytes:
            self._window += self._ungranted
            self._outlet.write(wire.window_update(0, self._ungranted))
            self._ungranted = 0

    def _data_nowhere(self, stream_id: int) -> None:
        """DATA for a stream that takes none."""
        self._refuse_idle(stream_id)
        if stream_id not in self._reset_here and not self._is_beyond(stream_id):
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "DATA on a closed stream")

    def _refuse_idle(self, stream_id: int) -> None:
        is_idle = stream_id == 0 or stream_id > self.last_id or stream_id % 2 == 0
        wire.expect(not is_idle, ErrorCode.PROTOCOL_ERROR, "a frame on a stream that was never opened")

    def _is_beyond(self, stream_id: int) -> bool:
        """True for a stream that began after the peer was told which one is the last."""
        return self.final_id is not None and stream_id > self.final_id

    def head(self, stream_id: int, block: bytes, is_end: bool) -> None:
        """A whole header block: of a request, or of its trailers."""
        if stream_id > self.last_id:
            self._request(stream_id, block, is_end)
            return
        # The block must be read, whatever becomes of it: later ones build on it.
        malformed = ""
        try:
            self._heads.trailers(block)
        except Malformed as error:
            malformed = str(error)
        stream = self._open.get(stream_id)
        if stream is None:
            is_late = stream_id in self._reset_here or self._is_beyond(stream_id)
            wire.expect(is_late, ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
            return
        if malformed:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, malformed)
        if stream.is_remote_closed:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "HEADERS after the end of the request")
        if not is_end:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "trailers that do not end their request")
        _count(stream, 0, is_end=True)
        stream.is_remote_closed = True
        stream.receiver.received(b"", True)

    def _prepared(self, head: Head) -> "tuple[T, int | None]":
        return self._application.prepare(head), head.length

    def _request(self, stream_id: int, block: bytes, is_end: bool) -> None:
        self.last_id = stream_id
        try:
            prepared, length = self._heads.request(block)
        except Malformed as error:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, str(error)) from error
        if self.final_id is not None:  # the peer was told that this one is not taken
            return
        if len(self._open) >= self._limits.streams:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, f"{self._limits.streams} requests are open")
        window_bytes = self._limits.stream_window_bytes
        stream = Stream(self, self._outlet, stream_id, window_bytes=window_bytes, length=length)
        if is_end:
            _count(stream, 0, is_end)
        self._open[stream_id] = stream
        stream.is_remote_closed = is_end
        stream.receiver = self._application.opened(stream, prepared)
        if is_end:
            stream.receiver.received(b"", True)

    def widened(self, stream_id: int, more: int) -> None:
        """The peer takes so much more: on a stream, or on the whole connection (0)."""
        if more < _SMALL_BYTES and self._outlet.has_waiting:
            self._allowance.spend("windows that open by a few bytes")
        if stream_id == 0:
            wire.expect(more > 0, ErrorCode.PROTOCOL_ERROR, "a window that opens by nothing")
            self._outlet.widen(more)
            return
        self._refuse_idle(stream_id)
        if more == 0:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a window that opens by nothing")
        stream = self._open.get(stream_id)
        if stream is not None:
            stream.send_window += more
            if stream.send_window > wire.LARGEST_WINDOW:
                raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2^31 - 1")
            stream.pump()

    def given_up(self, stream_id: int) -> None:
        """The peer wants no answer any more."""
        self._refuse_idle(stream_id)
        stream = self._open.pop(stream_id, None)
        if stream is not None:
            _lose(stream)
            self._look_if_done()

    def fault(self, fault: StreamFault) -> None:
        """A stream ends because of what the peer did."""
        stream = self._open.get(fault.stream_id)
        self.reset(fault.stream_id, fault.code)
        if stream is not None:
            _lose(stream)

    # What streams say

    def answered(self, stream: Stream) -> None:
        """The answer of a stream has been written whole."""
        if not stream.is_remote_closed:
            # The rest of the request is of no use any more (RFC 9113, section 8.1).
            stream.is_remote_closed = True
            self.reset(stream.id, ErrorCode.NO_ERROR)
            return
        self._open.pop(stream.id, None)
        self._look_if_done()

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Send RST_STREAM, and drop what still comes for the stream."""
        self._open.pop(stream_id, None)
        self._outlet.write(wire.rst_stream(stream_id, code))
        self._reset_here[stream_id] = None
        if len(self._reset_here) > self._limits.streams:
            del self._reset_here[next(iter(self._reset_here))]
        self._look_if_done()

    def _look_if_done(self) -> None:
        if self.final_id is not None and not self._open:
            self._done()


def _lose(stream: Stream) -> None:
    stream.is_local_closed = stream.is_remote_closed = True
    stream.drop()
    stream.receiver.lost()


def _count(stream: Stream, size: int, is_end: bool) -> None:
    """Hold the body against what `content-length` says."""
    if stream.expected is not None:
        stream.expected -= size
        if stream.expected < 0 or (is_end and stream.expected):
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "the body is not as long as content-length says")
