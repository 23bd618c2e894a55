"""gRPC over HTTP/2, as far as it stands in bytes: messages, statuses, timeouts, compression.

Source: the public description of the protocol (github.com/grpc/grpc, PROTOCOL-HTTP2).
"""

import re
import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum

from holdfast.wire.http2headers import header_block

MESSAGE_LIMIT_BYTES = 8 * 1024 * 1024
"""Most bytes of a message, unpacked."""
PREFIX_BYTES = 5
ENCODINGS = (b"identity", b"gzip")
"""Compressions of messages that are read."""

_prefix = struct.Struct(">BI")
_timeout = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST_MESSAGE_BYTES = 2_048


class StatusCode(IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Refused(Exception):
    """A call that ends with a status other than OK; `metadata` goes along in the trailers."""

    def __init__(self, code: StatusCode, message: str, metadata: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.code = code
        self.metadata = tuple(metadata)
        super().__init__(message)


_KIND = (b"content-type", b"application/grpc")
OK_HEAD = header_block([_KIND], status=b"200")
"""What an answer with messages begins with."""
OK_TRAILERS = header_block([(b"grpc-status", b"0")])


def trailers(refused: Refused) -> bytes:
    """The block that ends an answer after its messages."""
    return header_block(_status_fields(refused))


def trailers_only(refused: Refused) -> bytes:
    """The block that is an answer without messages."""
    return header_block([_KIND, *_status_fields(refused)], status=b"200")


def no_grpc(status: int) -> bytes:
    """The block that answers what is no gRPC request, with a status of HTTP."""
    return header_block([_KIND, (b"grpc-status", b"%d" % StatusCode.UNKNOWN)], status=b"%d" % status)


def _status_fields(refused: Refused) -> list[tuple[bytes, bytes]]:
    message = _percent_encoded(str(refused))
    return [(b"grpc-status", b"%d" % refused.code), (b"grpc-message", message), *refused.metadata]


def _percent_encoded(text: str) -> bytes:
    """Text as a header can carry it: UTF-8, everything but printable ASCII as %XX.

    >>> _percent_encoded("100 % für")
    b'100 %25 f%C3%BCr'
    """
    encoded = b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in text.encode("utf-8", "replace")[:_MOST_MESSAGE_BYTES]
    )
    return encoded.strip(b" ")


def prefixed(message: bytes) -> bytes:
    """A message with its length before it, not compressed."""
    return _prefix.pack(0, len(message)) + message


def timeout_s(text: bytes) -> float | None:
    """Seconds that a ``grpc-timeout`` leaves; None for what is no timeout.

    >>> timeout_s(b"250m")
    0.25
    """
    found = _timeout(text)
    return None if found is None else int(found[1]) * _UNITS_S[found[2]]


class Messages:
    """Cuts the bytes of a request into messages. `encoding` is what ``grpc-encoding`` says."""

    def __init__(self, encoding: bytes) -> None:
        self._encoding = encoding
        self._held = bytearray()
        self._wanted = PREFIX_BYTES

    @property
    def held_bytes(self) -> int:
        """Bytes that belong to no whole message yet."""
        return len(self._held)

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self._held += data

    def next(self) -> bytes | None:
        """The next message; None while it is not whole. Raises Refused for one that cannot be read."""
        held = self._held
        if len(held) < self._wanted:
            return None
        self._wanted = PREFIX_BYTES + length_of(held)
        if len(held) < self._wanted:
            return None
        data = unpacked(held[0], bytes(memoryview(held)[PREFIX_BYTES : self._wanted]), self._encoding)
        del held[: self._wanted]  # only now: what cannot be read is still held, and given back by whoever holds it
        self._wanted = PREFIX_BYTES
        return data


def only_message(body: bytes, encoding: bytes) -> bytes:
    """The message of a body that must hold exactly one. Raises Refused."""
    if len(body) < PREFIX_BYTES:
        raise Refused(StatusCode.INTERNAL, f"the request has {len(body)} bytes; a message takes 5 or more")
    flag, length = body[0], length_of(body)
    if len(body) != PREFIX_BYTES + length:
        said = f"the message has {length} bytes by its head, the request {len(body) - PREFIX_BYTES} behind it"
        raise Refused(StatusCode.INTERNAL, f"{said}; this method takes one message")
    data = body[PREFIX_BYTES:]
    return unpacked(flag, data, encoding) if flag else data


def length_of(start: bytes | bytearray) -> int:
    """How long a message is, by its first five bytes. Raises Refused for one that is too long."""
    length = int(_prefix.unpack_from(start)[1])
    if length > MESSAGE_LIMIT_BYTES:
        raise _too_large()
    return length


def unpacked(flag: int, data: bytes, encoding: bytes) -> bytes:
    """The bytes of a message, decompressed where its flag says so; never more than a message may have."""
    if flag == 0:
        return data
    if flag != 1 or encoding != b"gzip":
        raise Refused(StatusCode.INTERNAL, f"a message with flag {flag} in a request without compression")
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        message = stream.decompress(data, MESSAGE_LIMIT_BYTES + 1)
    except zlib.error as error:
        raise Refused(StatusCode.INTERNAL, f"a compressed message cannot be read: {error}") from error
    if len(message) > MESSAGE_LIMIT_BYTES:
        raise _too_large()
    if not stream.eof or stream.unused_data:
        raise Refused(StatusCode.INTERNAL, "a compressed message does not end where its length says")
    return message


def _too_large() -> Refused:
    mebibytes = MESSAGE_LIMIT_BYTES // 1024 // 1024
    return Refused(StatusCode.RESOURCE_EXHAUSTED, f"the message is larger than {mebibytes} MiB; send several requests")
