"""The sending side of an HTTP/2 connection: windows, and one write for all that a tick of the event loop has to say."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from holdfast.wire import http2wire as wire
from holdfast.wire.http2headers import SMALLER_TABLE
from holdfast.wire.http2wire import ConnectionFault, ErrorCode


class Sender(Protocol):
    """A stream, as the sending side sees it."""

    id: int
    send_window: int

    def pump(self) -> None:
        """Send what waits, as far as the windows and the transport allow."""


class Outlet:
    """Collects frames until the tick ends. `now_s` is the time of the last sweep."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s
        self.peer_window = wire.DEFAULT_WINDOW
        """Bytes that the peer takes at the beginning of a stream."""
        self.stalled_s: float | None = None
        """Since when the transport takes no more; None while it does."""
        self._call_soon: Callable[[Callable[[], None]], object] | None = None
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes | memoryview] = []
        self._waiting: dict[int, Sender] = {}
        self._window = wire.DEFAULT_WINDOW
        self._frame_bytes = wire.DEFAULT_FRAME_BYTES
        self._owes_table_update = False

    def open(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to this transport from now on."""
        self._transport, self._call_soon = transport, loop.call_soon

    def close(self) -> None:
        """Write nothing any more; what was not flushed is dropped."""
        self._transport = self._call_soon = None
        self._out.clear()
        self._waiting.clear()

    @property
    def has_waiting(self) -> bool:
        """True while a stream has data that it cannot send."""
        return bool(self._waiting)

    def can_send(self, size: int) -> bool:
        """True when so much DATA can go out now, in one frame."""
        return size <= self._window and size <= self._frame_bytes and self.stalled_s is None

    def sendable(self, size: int) -> int:
        """How much of so much DATA can go out now, in one frame; zero or less for none."""
        return min(size, self._window, self._frame_bytes) if self.stalled_s is None else 0

    def sent(self, size: int) -> None:
        """So much DATA went out."""
        self._window -= size

    def headers(self, stream_id: int, block: bytes, flags: int) -> bytes:
        """A HEADERS frame."""
        if self._owes_table_update:
            self._owes_table_update, block = False, SMALLER_TABLE + block
        return wire.frame_head(len(block), wire.HEADERS, flags | wire.END_HEADERS, stream_id) + block

    def write(self, data: bytes | memoryview) -> None:
        """Write frames at the end of this tick, together with all others."""
        if self._call_soon is not None:
            if not self._out:
                self._call_soon(self.flush)
            self._out.append(data)

    def flush(self) -> None:
        """Write what was collected, now."""
        out = self._out
        if out and self._transport is not None:
            self._out = []
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def wait(self, sender: Sender) -> None:
        """Let this stream send when a window or the transport opens."""
        self._waiting[sender.id] = sender

    def forget(self, stream_id: int) -> None:
        """A stream has nothing to send any more."""
        self._waiting.pop(stream_id, None)

    def pump(self) -> None:
        """Let every stream send that waits to."""
        if self._waiting and self.sendable(1) > 0:
            waiting, self._waiting = self._waiting, {}
            for sender in waiting.values():
                sender.pump()

    def widen(self, more: int) -> None:
        """The peer takes so much more on the whole connection."""
        self._window += more
        _check_window(self._window)
        self.pump()

    def take_settings(self, settings: list[tuple[int, int]], senders: "list[Sender]") -> None:
        """Follow the settings of the peer; `senders` are all open streams. Raises ConnectionFault."""
        for name, value in settings:
            if name == wire.INITIAL_WINDOW_SIZE:
                more, self.peer_window = value - self.peer_window, value
                for sender in senders:
                    sender.send_window += more
                    _check_window(sender.send_window)
            elif name == wire.MAX_FRAME_SIZE:
                self._frame_bytes = value
            elif name == wire.HEADER_TABLE_SIZE and value < wire.DEFAULT_TABLE_BYTES:
                self._owes_table_update = True
        self.pump()


def _check_window(size: int) -> None:
    if size > wire.LARGEST_WINDOW:
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2^31 - 1")
