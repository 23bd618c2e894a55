"""One HTTP/2 connection of a server (RFC 9113, 2022), over any asyncio transport.

Everything that a peer can make it keep or do is bounded, and what was written in one tick of the event loop goes out in
one write. Knows nothing of what the requests mean: an `Application` opens a `Receiver` for each.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

from holdfast.wire import http2wire as wire
from holdfast.wire.http2headers import Head, HeadReader, Malformed
from holdfast.wire.http2limits import Allowance, Limits
from holdfast.wire.http2outlet import Outlet
from holdfast.wire.http2stream import Receiver, Stream
from holdfast.wire.http2wire import ConnectionFault, ErrorCode, StreamFault

log = logging.getLogger(__name__)

T = TypeVar("T")

_LAST_CALL = b"holdfast"
"""What a PING says that tells when the peer has seen the first GOAWAY."""
_SMALL_BYTES = 256


class Application(Protocol[T]):
    """What answers the requests of connections."""

    def prepare(self, head: Head) -> T:
        """What there is to know from a head alone. May be asked once for many equal heads. Does not raise."""

    def opened(self, stream: Stream, prepared: T) -> Receiver:
        """A request has begun. Does not raise."""


class Connection(asyncio.Protocol, Generic[T]):
    """The server's side of one connection.

    `now_s` is what the clock said when it was made; later times come from `sweep`, to be called about once a second, so
    limits of time are as coarse as that. `closed` is called once, when the connection is gone.
    """

    def __init__(
        self,
        application: Application[T],
        limits: Limits,
        now_s: float,
        closed: "Callable[[Connection[T]], None]" = lambda _: None,
    ) -> None:
        self._application = application
        self._limits = limits
        self._closed = closed
        self._outlet = Outlet(now_s)
        self._allowance = Allowance(limits, now_s)
        self._heads: HeadReader[tuple[T, int | None]] = HeadReader(self._prepared, limits.head_bytes)
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._reset_here: dict[int, None] = {}
        """Streams that were ended here before the peer ended them; what it still sends for them is dropped."""
        self._last_id = 0
        # What was read
        self._rest = bytearray()
        self._needed = len(wire.PREFACE)
        self._is_greeted = False
        self._has_settings = False
        self._block: bytearray | None = None
        self._block_stream, self._block_flags, self._block_s = 0, 0, now_s
        self._window = limits.connection_window_bytes
        self._ungranted = 0
        # Time
        self._was_heard = False
        self._opened_s = self._heard_s = self._busy_s = now_s
        self._asked_s: float | None = None
        # The end
        self._over_s: float | None = None
        """When it was decided that this connection is over."""
        self._stopping_s: float | None = None
        self._final_id: int | None = None
        """The last stream that is answered, once the peer was told."""

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what this side takes, before the peer has said anything."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_bytes)
        self._outlet.open(self._transport, asyncio.get_running_loop())
        settings = {
            wire.MAX_CONCURRENT_STREAMS: self._limits.streams,
            wire.INITIAL_WINDOW_SIZE: self._limits.stream_window_bytes,
            wire.MAX_FRAME_SIZE: self._limits.frame_bytes,
            wire.MAX_HEADER_LIST_SIZE: self._limits.head_bytes,
        }
        self._outlet.write(wire.settings_frame(settings))
        if self._limits.connection_window_bytes > wire.DEFAULT_WINDOW:
            more = self._limits.connection_window_bytes - wire.DEFAULT_WINDOW
            self._outlet.write(wire.window_update(0, more))

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._over_s is not None:
            return
        self._was_heard = True
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return
            data = bytes(rest)
            rest.clear()
        try:
            done = self._take(data)
        except ConnectionFault as fault:
            self._fail(fault.code, str(fault))
            return
        except Exception:
            log.exception("an HTTP/2 connection failed")
            self._fail(ErrorCode.INTERNAL_ERROR, "the connection failed inside Holdfast")
            return
        if done < len(data):
            rest += memoryview(data)[done:]

    def eof_received(self) -> bool:
        """The peer sends no more; what it asked is still answered."""
        self._stop()
        self._last_call()
        return bool(self._streams)

    def pause_writing(self) -> None:
        """The peer does not read as fast as it asks: take no more requests from it."""
        self._outlet.stalled_s = self._outlet.now_s
        if self._transport is not None and self._over_s is None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer has read."""
        self._outlet.stalled_s = None
        if self._transport is not None and self._over_s is None:
            self._transport.resume_reading()
        self._outlet.pump()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone, and with it every request that was not answered."""
        if self._over_s is None:
            self._over_s = self._outlet.now_s
        self._transport = None
        self._outlet.close()
        self._rest.clear()
        self._lose_all()
        self._closed(self)

    # Time

    def sweep(self, now_s: float) -> None:
        """Take note of the time, and end what has taken too long."""
        limits = self._limits
        self._outlet.now_s = self._allowance.now_s = now_s
        if self._was_heard:
            self._was_heard, self._heard_s, self._asked_s = False, now_s, None
        if self._streams:
            self._busy_s = now_s
        stalled_s = self._outlet.stalled_s
        if (stalled_s is not None and now_s - stalled_s > limits.stall_s) or (
            self._over_s is not None and now_s - self._over_s > limits.stall_s
        ):
            self._abort()
        elif self._over_s is not None:
            return
        elif not self._has_settings:
            if now_s - self._opened_s > limits.opening_s:
                self._fail(ErrorCode.SETTINGS_TIMEOUT, f"no SETTINGS within {limits.opening_s:g} s")
        elif self._block is not None and now_s - self._block_s > limits.opening_s:
            self._fail(ErrorCode.ENHANCE_YOUR_CALM, f"a header block took longer than {limits.opening_s:g} s")
        elif self._stopping_s is not None and self._final_id is None and now_s - self._stopping_s > 1.0:
            self._last_call()
        elif now_s - self._busy_s > limits.idle_s and now_s - self._heard_s > limits.idle_s:
            self.stop()
        elif self._streams:
            self._sweep_streams(now_s)

    def _sweep_streams(self, now_s: float) -> None:
        limits = self._limits
        for stream in list(self._streams.values()):
            is_late = not stream.is_remote_closed and now_s - stream.opened_s > limits.request_s
            is_stalled = stream.pending_bytes and now_s - stream.moved_s > limits.stall_s
            if is_stalled or (is_late and not stream.receiver.is_stream):
                stream.reset(ErrorCode.CANCEL)
                stream.receiver.lost()
        if self._asked_s is None:
            if now_s - self._heard_s > limits.silent_s:
                self._asked_s = now_s
                self._outlet.write(wire.frame(wire.PING, 0, 0, b"\0" * 8))
        elif now_s - self._asked_s > limits.silent_s:
            self._abort()

    # The end

    @property
    def is_idle(self) -> bool:
        """True while no request is open."""
        return not self._streams

    def stop(self) -> None:
        """Take no new requests, answer those that were taken, then close.

        The peer first learns that the end is near, and only when it has seen that which request was the last one taken:
        so none is lost on the way.
        """
        if self._over_s is None and self._stopping_s is None:
            self._stop()
            if self._has_settings:
                ping = wire.frame(wire.PING, 0, 0, _LAST_CALL)
                self._outlet.write(wire.goaway(wire.LARGEST_WINDOW, ErrorCode.NO_ERROR) + ping)
            else:
                self._last_call()

    def abort(self) -> None:
        """Close now, whatever is open."""
        self._abort()

    def _stop(self) -> None:
        if self._stopping_s is None:
            self._stopping_s = self._outlet.now_s
            for stream in list(self._streams.values()):
                stream.receiver.stopping()

    def _last_call(self) -> None:
        if self._final_id is None and self._over_s is None:
            self._final_id = self._last_id
            self._outlet.write(wire.goaway(self._last_id, ErrorCode.NO_ERROR))
            self._close_when_done()

    def _close_when_done(self) -> None:
        if self._final_id is not None and not self._streams:
            self._close()

    def _fail(self, code: ErrorCode, message: str) -> None:
        """End the connection because of what the peer did."""
        if self._over_s is None:
            log.info("an HTTP/2 connection ends: %s: %s", code.name, message)
            last_id = self._last_id if self._final_id is None else self._final_id
            self._outlet.write(wire.goaway(last_id, code, message))
            self._close()
            self._lose_all()

    def _close(self) -> None:
        if self._over_s is None:
            self._over_s = self._outlet.now_s
            self._outlet.flush()
            self._block = None
            self._rest.clear()
            if self._transport is not None:
                self._transport.close()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _lose_all(self) -> None:
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            self._lose(stream)

    def _lose(self, stream: Stream) -> None:
        stream.is_local_closed = stream.is_remote_closed = True
        stream.drop()
        stream.receiver.lost()

    # What the peer says

    def _take(self, data: bytes) -> int:
        """Take all whole frames; returns how many bytes they were."""
        position, end = 0, len(data)
        if not self._is_greeted:
            position = self._greeted(data)
            if not position:
                return 0
        largest, unpack_head = self._limits.frame_bytes, wire.unpack_head
        while end - position >= wire.FRAME_HEAD_BYTES:
            high, low, kind, flags, stream_id = unpack_head(data, position)
            length = high << 16 | low
            if length > largest:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes; at most {largest}")
            start = position + wire.FRAME_HEAD_BYTES
            if start + length > end:
                self._needed = wire.FRAME_HEAD_BYTES + length
                return position
            position = start + length
            try:
                self._frame(kind, flags, stream_id & wire.LARGEST_WINDOW, data[start:position])
            except StreamFault as fault:
                self._allowance.spend("stream errors")
                self._fault(fault)
            if self._over_s is not None:
                return end
        self._needed = wire.FRAME_HEAD_BYTES
        return position

    def _greeted(self, data: bytes) -> int:
        """How many bytes the preface took; 0 while it is not whole."""
        if data.startswith(wire.PREFACE):
            self._is_greeted = True
            return len(wire.PREFACE)
        if wire.PREFACE.startswith(data):
            self._needed = len(wire.PREFACE)
            return 0
        raise ConnectionFault(
            ErrorCode.PROTOCOL_ERROR, "this port speaks gRPC: HTTP/2 from the first byte, without TLS"
        )

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None:
            _expect(
                kind == wire.CONTINUATION and stream_id == self._block_stream,
                ErrorCode.PROTOCOL_ERROR,
                "a header block was not continued",
            )
        elif not self._has_settings:
            _expect(kind == wire.SETTINGS, ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        if kind == wire.DATA:
            self._data(flags, stream_id, payload)
        elif kind == wire.HEADERS:
            self._headers(flags, stream_id, payload)
        elif kind == wire.WINDOW_UPDATE:
            self._window_update(stream_id, payload)
        elif kind == wire.CONTINUATION:
            self._continuation(flags, payload)
        elif kind == wire.RST_STREAM:
            self._rst_stream(stream_id, payload)
        elif kind == wire.PRIORITY:
            self._priority(stream_id, payload)
        elif kind in (wire.SETTINGS, wire.PING, wire.GOAWAY):
            _expect(stream_id == 0, ErrorCode.PROTOCOL_ERROR, "a frame of the connection on a stream")
            if kind == wire.SETTINGS:
                self._settings(flags, payload)
            elif kind == wire.PING:
                self._ping(flags, payload)
            else:
                _expect(len(payload) >= 8, ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")
                self._allowance.spend("GOAWAY")
        else:
            _expect(kind != wire.PUSH_PROMISE, ErrorCode.PROTOCOL_ERROR, "a client cannot push")
            self._allowance.spend("frames of unknown kinds")

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._granted(size)
        stream = self._streams.get(stream_id)
        if stream is None or stream.is_remote_closed:
            self._data_nowhere(stream_id)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window of the stream")
        if flags & wire.PADDED:
            payload = wire.unpadded(flags, payload)
        is_end = bool(flags & wire.END_STREAM)
        if not payload and not is_end:
            self._allowance.spend("empty DATA")
        if stream.expected is not None:
            _count(stream, len(payload), is_end)
        stream.is_remote_closed = is_end
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
        is_idle = stream_id == 0 or stream_id > self._last_id or stream_id % 2 == 0
        _expect(not is_idle, ErrorCode.PROTOCOL_ERROR, "a frame on a stream that was never opened")

    def _is_beyond(self, stream_id: int) -> bool:
        """True for a stream that began after the peer was told which one is the last."""
        return self._final_id is not None and stream_id > self._final_id

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that no client may open")
        if flags & wire.PADDED:
            payload = wire.unpadded(flags, payload)
        if flags & wire.WITH_PRIORITY:
            _expect(len(payload) >= 5, ErrorCode.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            payload = payload[5:]
        if flags & wire.END_HEADERS and len(payload) <= self._limits.head_bytes:
            self._whole(stream_id, flags, payload)
            return
        self._block, self._block_stream, self._block_flags = bytearray(), stream_id, flags
        self._block_s = self._outlet.now_s
        self._continuation(0, payload)

    def _continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        if len(self._block) + len(payload) > self._limits.head_bytes:
            message = f"a header block of more than {self._limits.head_bytes} bytes"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message)
        self._block += payload
        if not payload:
            self._allowance.spend("empty CONTINUATION")
        if flags & wire.END_HEADERS:
            block, self._block = bytes(self._block), None
            self._whole(self._block_stream, self._block_flags, block)

    def _whole(self, stream_id: int, flags: int, block: bytes) -> None:
        """A whole header block has come: of a request, or of its trailers."""
        if stream_id > self._last_id:
            self._request(stream_id, block, bool(flags & wire.END_STREAM))
            return
        # The block must be read, whatever becomes of it: later ones build on it.
        malformed = ""
        try:
            self._heads.trailers(block)
        except Malformed as error:
            malformed = str(error)
        stream = self._streams.get(stream_id)
        if stream is None:
            is_late = stream_id in self._reset_here or self._is_beyond(stream_id)
            _expect(is_late, ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
            return
        if malformed:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, malformed)
        if stream.is_remote_closed:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "HEADERS after the end of the request")
        if not flags & wire.END_STREAM:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "trailers that do not end their request")
        _count(stream, 0, is_end=True)
        stream.is_remote_closed = True
        stream.receiver.received(b"", True)

    def _prepared(self, head: Head) -> "tuple[T, int | None]":
        return self._application.prepare(head), head.length

    def _request(self, stream_id: int, block: bytes, is_end: bool) -> None:
        self._last_id = stream_id
        try:
            prepared, length = self._heads.request(block)
        except Malformed as error:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, str(error)) from error
        if self._final_id is not None:  # the peer was told that this one is not taken
            return
        if len(self._streams) >= self._limits.streams:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, f"{self._limits.streams} requests are open")
        window_bytes = self._limits.stream_window_bytes
        stream = Stream(self, self._outlet, stream_id, window_bytes=window_bytes, length=length)
        if is_end:
            _count(stream, 0, is_end)
        self._streams[stream_id] = stream
        stream.is_remote_closed = is_end
        stream.receiver = self._application.opened(stream, prepared)
        if is_end:
            stream.receiver.received(b"", True)

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & wire.ACK:
            _expect(self._has_settings, ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
            _expect(not payload, ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement that is not empty")
            self._allowance.spend("SETTINGS")
            return
        settings = wire.read_settings(payload)
        if self._has_settings:
            self._allowance.spend("SETTINGS")
        self._has_settings = True
        self._outlet.write(wire.frame(wire.SETTINGS, wire.ACK, 0))
        self._outlet.take_settings(settings, list(self._streams.values()))

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE takes 4 bytes")
        more = wire.read_number(payload)
        if more < _SMALL_BYTES and self._outlet.has_waiting:
            self._allowance.spend("windows that open by a few bytes")
        if stream_id == 0:
            _expect(more > 0, ErrorCode.PROTOCOL_ERROR, "a window that opens by nothing")
            self._outlet.widen(more)
            return
        self._refuse_idle(stream_id)
        if more == 0:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a window that opens by nothing")
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.send_window += more
            if stream.send_window > wire.LARGEST_WINDOW:
                raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2^31 - 1")
            stream.pump()

    def _ping(self, flags: int, payload: bytes) -> None:
        _expect(len(payload) == 8, ErrorCode.FRAME_SIZE_ERROR, "PING takes 8 bytes")
        self._allowance.spend("PING")
        if not flags & wire.ACK:
            self._outlet.write(wire.frame(wire.PING, wire.ACK, 0, payload))
        elif payload == _LAST_CALL and self._stopping_s is not None:
            self._last_call()

    def _rst_stream(self, stream_id: int, payload: bytes) -> None:
        self._refuse_idle(stream_id)
        _expect(len(payload) == 4, ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM takes 4 bytes")
        # Opening and giving up requests without end would cost the peer next to nothing (CVE-2023-44487).
        self._allowance.spend("RST_STREAM")
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._lose(stream)
            self._close_when_done()

    def _priority(self, stream_id: int, payload: bytes) -> None:
        _expect(stream_id != 0, ErrorCode.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY takes 5 bytes")
        self._allowance.spend("PRIORITY")

    def _fault(self, fault: StreamFault) -> None:
        stream = self._streams.get(fault.stream_id)
        self.reset(fault.stream_id, fault.code)
        if stream is not None:
            self._lose(stream)

    # What streams say

    def answered(self, stream: Stream) -> None:
        """The answer of a stream has been written whole."""
        if not stream.is_remote_closed:
            # The rest of the request is of no use any more (RFC 9113, section 8.1).
            stream.is_remote_closed = True
            self.reset(stream.id, ErrorCode.NO_ERROR)
            return
        self._streams.pop(stream.id, None)
        if self._stopping_s is not None:
            self._close_when_done()

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Send RST_STREAM, and drop what still comes for the stream."""
        self._streams.pop(stream_id, None)
        self._outlet.write(wire.rst_stream(stream_id, code))
        self._reset_here[stream_id] = None
        if len(self._reset_here) > self._limits.streams:
            del self._reset_here[next(iter(self._reset_here))]
        self._close_when_done()


def _expect(is_so: bool, code: ErrorCode, message: str) -> None:
    if not is_so:
        raise ConnectionFault(code, message)


def _count(stream: Stream, size: int, is_end: bool) -> None:
    """Hold the body against what `content-length` says."""
    if stream.expected is not None:
        stream.expected -= size
        if stream.expected < 0 or (is_end and stream.expected):
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "the body is not as long as content-length says")
