"""HTTP/2 on the wire (RFC 9113, 2022): the numbers of frames, settings and errors, and what a frame looks like."""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first."""
FRAME_HEAD_BYTES = 9
LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_BYTES = 16_384
LARGEST_FRAME_BYTES = 2**24 - 1
DEFAULT_TABLE_BYTES = 4_096

# Kinds of frames.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

# Flags. ACK and END_STREAM share a bit: the one stands on SETTINGS and PING, the other on DATA and HEADERS.
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

# Settings.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)


class ErrorCode(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFault(Exception):
    """The peer broke the protocol in a way that ends the connection."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        super().__init__(message)


class StreamFault(Exception):
    """The peer broke the protocol in a way that ends one stream."""

    def __init__(self, stream_id: int, code: ErrorCode, message: str) -> None:
        self.stream_id = stream_id
        self.code = code
        super().__init__(message)


_head = struct.Struct(">BHBBI")
_setting = struct.Struct(">HI")
_number = struct.Struct(">I")
_two_numbers = struct.Struct(">II")

unpack_head = _head.unpack_from
"""High byte and low 16 bits of the length, kind, flags and stream (with its reserved bit) of a frame at an offset."""


def frame_head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes before a payload."""
    return _head.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return frame_head(len(payload), kind, flags, stream_id) + payload


def settings_frame(settings: dict[int, int]) -> bytes:
    """SETTINGS with these values."""
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(*each) for each in settings.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The values in a SETTINGS payload, in order: a name may stand there twice. Raises ConnectionFault."""
    if len(payload) % 6:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes; each value takes 6")
    settings = list(_setting.iter_unpack(payload))
    for name, value in settings:
        if name == ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}; it is 0 or 1")
        if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}, beyond 2^31 - 1")
        if name == MAX_FRAME_SIZE and not DEFAULT_FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}, not 2^14 to 2^24 - 1")
    return settings


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE for a stream, or for the connection (0)."""
    return frame(WINDOW_UPDATE, 0, stream_id, _number.pack(increment))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream_id, _number.pack(code))


def goaway(last_stream_id: int, code: ErrorCode, message: str = "") -> bytes:
    """GOAWAY, with a message for whoever debugs the client."""
    return frame(GOAWAY, 0, 0, _two_numbers.pack(last_stream_id, code) + message.encode()[:256])


def read_number(payload: bytes) -> int:
    """The number of 31 bits that a payload of four bytes holds."""
    return int(_number.unpack(payload)[0]) & LARGEST_WINDOW


def unpadded(flags: int, payload: bytes) -> bytes:
    """A payload without its padding. Raises ConnectionFault where the padding does not fit."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def expect(is_so: bool, code: ErrorCode, message: str) -> None:
    """Raise ConnectionFault where something is not as the protocol wants it."""
    if not is_so:
        raise ConnectionFault(code, message)
