"""What an HTTP/2 connection may keep and do, so that no peer can make it use more."""

import msgspec

from holdfast.wire.http2wire import ConnectionFault, ErrorCode


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds for one connection. Times are in seconds; the windows are 65,535 bytes or more."""

    streams: int = 1_024
    """Requests open at once; further ones are refused."""
    stream_window_bytes: int = 1 << 20
    """Bytes of one request that a peer may send before they are granted."""
    connection_window_bytes: int = 16 << 20
    frame_bytes: int = 65_536
    """Largest frame that is taken."""
    head_bytes: int = 16_384
    """Largest head of a request, both packed and unpacked."""
    write_bytes: int = 1 << 18
    """From this many unsent bytes on, nothing is read and no DATA is written until they are gone."""
    burst: int = 1_000
    """Frames that ask for work but carry nothing (PING, SETTINGS, RST_STREAM ...) taken at once ..."""
    frames_per_s: float = 100.0
    """... and how many more with each second that passes."""
    opening_s: float = 10.0
    """For the preface and the first SETTINGS, and for a header block that has begun."""
    request_s: float = 60.0
    """For the whole of a request that is not a stream of messages; of one that is, for the next bytes of a message."""
    stall_s: float = 30.0
    """For a peer that takes nothing of what it is sent."""
    idle_s: float = 300.0
    """After which a connection without requests is closed."""
    silent_s: float = 60.0
    """After which a peer with open requests is asked if it lives; after as long again without a word it is gone."""


class Allowance:
    """How many frames that carry nothing a peer may still send: a burst, and some more with each second."""

    def __init__(self, limits: Limits, now_s: float) -> None:
        self._most, self._per_s = float(limits.burst), limits.frames_per_s
        self._left, self._filled_s = self._most, now_s
        self.now_s = now_s

    def spend(self, on: str) -> None:
        """Use up one. Raises ConnectionFault when none is left."""
        if self._left < 1:
            passed_s, self._filled_s = self.now_s - self._filled_s, self.now_s
            self._left = min(self._most, self._left + passed_s * self._per_s)
            if self._left < 1:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too much of this: {on}")
        self._left -= 1
