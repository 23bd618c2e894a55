"""What a peer sends over HTTP/2, from bytes to frames (RFC 9113, 2022): cut out, held against the rules of their kind,
and told one by one."""

from typing import Protocol

from holdfast.wire import http2wire as wire
from holdfast.wire.http2limits import Allowance, Limits
from holdfast.wire.http2wire import ConnectionFault, ErrorCode, StreamFault


class OfStreams(Protocol):
    """Takes the frames of streams. Raises ConnectionFault or StreamFault."""

    def data(self, stream_id: int, payload: bytes, size: int, is_end: bool) -> None:
        """DATA without its padding; `size` with it."""

    def head(self, stream_id: int, block: bytes, is_end: bool) -> None:
        """A whole header block: of a request, or of its trailers."""

    def widened(self, stream_id: int, more: int) -> None:
        """The peer takes so much more: on a stream, or on the whole connection (0)."""

    def given_up(self, stream_id: int) -> None:
        """The peer wants no answer any more."""

    def fault(self, fault: StreamFault) -> None:
        """A stream ends because of what the peer did. Raises nothing."""


class OfConnection(Protocol):
    """Takes the frames of the connection itself. Raises ConnectionFault."""

    def settings(self, settings: list[tuple[int, int]]) -> None:
        """The peer's settings, in their order."""

    def ping(self, payload: bytes, is_answer: bool) -> None:
        """PING: asked by the peer, or its answer."""


class FrameReader:
    """Reads the frames of one connection. `is_over` is set where nothing more is to be read."""

    def __init__(self, limits: Limits, allowance: Allowance, streams: OfStreams, connection: OfConnection) -> None:
        self._largest, self._head_bytes = limits.frame_bytes, limits.head_bytes
        self._allowance = allowance
        self._streams, self._connection = streams, connection
        self._rest = bytearray()
        self._needed = len(wire.PREFACE)
        self._is_greeted = False
        self._block: bytearray | None = None
        self._block_stream, self._block_flags = 0, 0
        self.block_s: float | None = None
        """Since when a header block is not whole; None where there is none."""
        self.has_settings = False
        """True once the peer has said its settings, which come first."""
        self.is_over = False

    def stop(self) -> None:
        """Read nothing more."""
        self.is_over = True
        self._block = self.block_s = None
        self._rest.clear()

    def feed(self, data: bytes) -> None:
        """Take what came. Raises ConnectionFault."""
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return
            data = bytes(rest)
            rest.clear()
        done = self._take(data)
        if done < len(data):
            rest += memoryview(data)[done:]

    def _take(self, data: bytes) -> int:
        """Take all whole frames; returns how many bytes they were."""
        position, end = 0, len(data)
        if not self._is_greeted:
            position = self._greeted(data)
            if not position:
                return 0
        largest, unpack_head = self._largest, wire.unpack_head
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
                self._streams.fault(fault)
            if self.is_over:
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
            is_next = kind == wire.CONTINUATION and stream_id == self._block_stream
            wire.expect(is_next, ErrorCode.PROTOCOL_ERROR, "a header block was not continued")
        elif not self.has_settings:
            wire.expect(kind == wire.SETTINGS, ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        if kind == wire.DATA:
            size = len(payload)
            if flags & wire.PADDED:
                payload = wire.unpadded(flags, payload)
            self._streams.data(stream_id, payload, size, bool(flags & wire.END_STREAM))
        elif kind == wire.HEADERS:
            self._headers(flags, stream_id, payload)
        elif kind == wire.WINDOW_UPDATE:
            wire.expect(len(payload) == 4, ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE takes 4 bytes")
            self._streams.widened(stream_id, wire.read_number(payload))
        elif kind == wire.CONTINUATION:
            self._continuation(flags, payload)
        elif kind == wire.RST_STREAM:
            wire.expect(len(payload) == 4, ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM takes 4 bytes")
            # Opening and giving up requests without end would cost the peer next to nothing (CVE-2023-44487).
            self._allowance.spend("RST_STREAM")
            self._streams.given_up(stream_id)
        elif kind == wire.PRIORITY:
            self._priority(stream_id, payload)
        elif kind in (wire.SETTINGS, wire.PING, wire.GOAWAY):
            wire.expect(stream_id == 0, ErrorCode.PROTOCOL_ERROR, "a frame of the connection on a stream")
            self._of_connection(kind, flags, payload)
        else:
            wire.expect(kind != wire.PUSH_PROMISE, ErrorCode.PROTOCOL_ERROR, "a client cannot push")
            self._allowance.spend("frames of unknown kinds")

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that no client may open")
        if flags & wire.PADDED:
            payload = wire.unpadded(flags, payload)
        if flags & wire.WITH_PRIORITY:
            wire.expect(len(payload) >= 5, ErrorCode.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            payload = payload[5:]
        if flags & wire.END_HEADERS and len(payload) <= self._head_bytes:
            self._streams.head(stream_id, payload, bool(flags & wire.END_STREAM))
            return
        self._block, self._block_stream, self._block_flags = bytearray(), stream_id, flags
        self.block_s = self._allowance.now_s
        self._continuation(0, payload)

    def _continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        if len(self._block) + len(payload) > self._head_bytes:
            message = f"a header block of more than {self._head_bytes} bytes"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message)
        self._block += payload
        if not payload:
            self._allowance.spend("empty CONTINUATION")
        if flags & wire.END_HEADERS:
            block, self._block, self.block_s = bytes(self._block), None, None
            self._streams.head(self._block_stream, block, bool(self._block_flags & wire.END_STREAM))

    def _priority(self, stream_id: int, payload: bytes) -> None:
        wire.expect(stream_id != 0, ErrorCode.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY takes 5 bytes")
        self._allowance.spend("PRIORITY")

    def _of_connection(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == wire.GOAWAY:
            wire.expect(len(payload) >= 8, ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")
            self._allowance.spend("GOAWAY")
        elif kind == wire.PING:
            wire.expect(len(payload) == 8, ErrorCode.FRAME_SIZE_ERROR, "PING takes 8 bytes")
            self._allowance.spend("PING")
            self._connection.ping(payload, bool(flags & wire.ACK))
        elif flags & wire.ACK:
            wire.expect(self.has_settings, ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
            wire.expect(not payload, ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement that is not empty")
            self._allowance.spend("SETTINGS")
        else:
            settings = wire.read_settings(payload)
            if self.has_settings:
                self._allowance.spend("SETTINGS")
            self.has_settings = True
            self._connection.settings(settings)
