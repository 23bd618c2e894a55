"""One HTTP/2 connection of a server (RFC 9113, 2022), over any asyncio transport: its beginning, its time and its end.

Everything that a peer can make it keep or do is bounded, and what was written in one tick of the event loop goes out in
one write. Knows nothing of what the requests mean: an `Application` opens a `Receiver` for each.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from holdfast.wire import http2wire as wire
from holdfast.wire.http2frames import FrameReader
from holdfast.wire.http2limits import Allowance, Limits
from holdfast.wire.http2outlet import Outlet
from holdfast.wire.http2streams import Application, Streams
from holdfast.wire.http2wire import ConnectionFault, ErrorCode

log = logging.getLogger(__name__)

T = TypeVar("T")

_LAST_CALL = b"holdfast"
"""What a PING says that tells when the peer has seen the first GOAWAY."""


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
        self._limits = limits
        self._closed = closed
        self._outlet = Outlet(now_s)
        self._allowance = Allowance(limits, now_s)
        self._streams = Streams(application, limits, self._allowance, self._outlet, self._close)
        self._frames = FrameReader(limits, self._allowance, self._streams, self)
        self._transport: asyncio.Transport | None = None
        # Time
        self._was_heard = False
        self._opened_s = self._heard_s = self._busy_s = now_s
        self._asked_s: float | None = None
        # The end
        self._over_s: float | None = None
        """When it was decided that this connection is over."""
        self._stopping_s: float | None = None

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
        try:
            self._frames.feed(data)
        except ConnectionFault as fault:
            self._fail(fault.code, str(fault))
        except Exception:
            log.exception("an HTTP/2 connection failed")
            self._fail(ErrorCode.INTERNAL_ERROR, "the connection failed inside Holdfast")

    def eof_received(self) -> bool:
        """The peer sends no more; what it asked is still answered, but under TLS, which knows no half a connection."""
        self._stop()
        self._last_call()
        is_encrypted = self._transport is not None and self._transport.get_extra_info("sslcontext") is not None
        return bool(self._streams) and not is_encrypted

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
        self._frames.stop()
        self._streams.lose_all()
        self._closed(self)

    # What the peer says of the connection

    def settings(self, settings: list[tuple[int, int]]) -> None:
        """Follow the peer's settings."""
        self._outlet.write(wire.frame(wire.SETTINGS, wire.ACK, 0))
        self._outlet.take_settings(settings, list(self._streams))

    def ping(self, payload: bytes, is_answer: bool) -> None:
        """Answer; or learn that the peer has seen what was sent before."""
        if not is_answer:
            self._outlet.write(wire.frame(wire.PING, wire.ACK, 0, payload))
        elif payload == _LAST_CALL and self._stopping_s is not None:
            self._last_call()

    # Time

    def sweep(self, now_s: float) -> None:
        """Take note of the time, and end what has taken too long."""
        limits = self._limits
        self._outlet.now_s = self._allowance.now_s = now_s
        if self._was_heard:
            self._was_heard, self._heard_s, self._asked_s = False, now_s, None
        if self._streams:
            self._busy_s = now_s
        stalled_s, block_s = self._outlet.stalled_s, self._frames.block_s
        if (stalled_s is not None and now_s - stalled_s > limits.stall_s) or (
            self._over_s is not None and now_s - self._over_s > limits.stall_s
        ):
            self.abort()
        elif self._over_s is not None:
            return
        elif not self._frames.has_settings:
            if now_s - self._opened_s > limits.opening_s:
                self._fail(ErrorCode.SETTINGS_TIMEOUT, f"no SETTINGS within {limits.opening_s:g} s")
        elif block_s is not None and now_s - block_s > limits.opening_s:
            self._fail(ErrorCode.ENHANCE_YOUR_CALM, f"a header block took longer than {limits.opening_s:g} s")
        elif self._stopping_s is not None and self._streams.final_id is None and now_s - self._stopping_s > 1.0:
            self._last_call()
        elif now_s - self._busy_s > limits.idle_s and now_s - self._heard_s > limits.idle_s:
            self.stop()
        elif self._streams:
            self._sweep_streams(now_s)

    def _sweep_streams(self, now_s: float) -> None:
        limits = self._limits
        for stream in self._streams:
            is_stalled = stream.pending_bytes and now_s - stream.moved_s > limits.stall_s
            if is_stalled or stream.waited_for_s(now_s) > limits.request_s:
                stream.reset(ErrorCode.CANCEL)
                stream.receiver.lost()
        if self._asked_s is None:
            if now_s - self._heard_s > limits.silent_s:
                self._asked_s = now_s
                self._outlet.write(wire.frame(wire.PING, 0, 0, b"\0" * 8))
        elif now_s - self._asked_s > limits.silent_s:
            self.abort()

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
            if self._frames.has_settings:
                ping = wire.frame(wire.PING, 0, 0, _LAST_CALL)
                self._outlet.write(wire.goaway(wire.LARGEST_WINDOW, ErrorCode.NO_ERROR) + ping)
            else:
                self._last_call()

    def abort(self) -> None:
        """Close now, whatever is open."""
        if self._transport is not None:
            self._transport.abort()

    def _stop(self) -> None:
        if self._stopping_s is None:
            self._stopping_s = self._outlet.now_s
            for stream in self._streams:
                stream.receiver.stopping()

    def _last_call(self) -> None:
        streams = self._streams
        if streams.final_id is None and self._over_s is None:
            streams.final_id = streams.last_id
            self._outlet.write(wire.goaway(streams.last_id, ErrorCode.NO_ERROR))
            if not streams:
                self._close()

    def _fail(self, code: ErrorCode, message: str) -> None:
        """End the connection because of what the peer did."""
        if self._over_s is None:
            log.info("an HTTP/2 connection ends: %s: %s", code.name, message)
            final_id = self._streams.final_id
            self._outlet.write(wire.goaway(self._streams.last_id if final_id is None else final_id, code, message))
            self._close()
            self._streams.lose_all()

    def _close(self) -> None:
        if self._over_s is None:
            self._over_s = self._outlet.now_s
            self._outlet.flush()
            self._frames.stop()
            if self._transport is not None:
                self._transport.close()
