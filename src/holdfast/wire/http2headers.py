"""Header blocks of HTTP/2 (HPACK, RFC 7541, 2015): what a request's head says, and blocks for answers."""

import re
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec
from hpack import HPACKError, OversizedHeaderListError
from hpack.hpack import Decoder
from hpack.table import HeaderTable

from holdfast.wire.http2wire import ConnectionFault, ErrorCode

T = TypeVar("T")

MOST_REMEMBERED = 128
"""Blocks that are remembered for each connection."""
LARGEST_REMEMBERED = 2_048

SMALLER_TABLE = b"\x20"
"""Opens the first block after the peer shrank the table: blocks made here use none."""

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_is_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_is_value = re.compile(rb"(?:[^\x00\r\n \t](?:[^\x00\r\n]*[^\x00\r\n \t])?)?").fullmatch


class Malformed(Exception):
    """A head that no request may have; ends its stream, not its connection."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a request. Names are lower-case; a name may stand there several times."""

    method: bytes
    path: bytes
    authority: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    length: int | None
    """What `content-length` says."""

    def first(self, name: bytes) -> bytes:
        """The first value of a field; empty where there is none."""
        return next((value for each, value in self.fields if each == name), b"")


class HeadReader(Generic[T]):
    """Reads the header blocks of one connection, in order.

    A client that has said its headers before sends the same few bytes for each request, and they mean the same as long
    as the table of the connection does. So what `prepare` made of a head is remembered by the bytes of its block.
    `most_bytes` bounds a head, counted as the RFC counts it.
    """

    def __init__(self, prepare: Callable[[Head], T], most_bytes: int) -> None:
        self._prepare = prepare
        self._decoder = Decoder(max_header_list_size=most_bytes)
        self._table = _Table()
        self._decoder.header_table = self._table
        self._known: dict[bytes, T] = {}

    def request(self, block: bytes) -> T:
        """What `prepare` made of the head. Raises Malformed, or ConnectionFault when the block cannot be read."""
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._table.changes
        prepared = self._prepare(_head_of(self._decoded(block)))
        if self._table.changes != before:
            self._known.clear()
        elif len(block) <= LARGEST_REMEMBERED:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[block] = prepared
        return prepared

    def trailers(self, block: bytes) -> None:
        """Read trailers, of which nothing is used. Raises like `request`."""
        before = self._table.changes
        fields = self._decoded(block)
        if self._table.changes != before:
            self._known.clear()
        for name, value in fields:
            if name.startswith(b":"):
                raise Malformed(f"{_shown(name)} stands in the trailers")
            _check(name, value)

    def _decoded(self, block: bytes) -> list[tuple[bytes, bytes]]:
        if block and block[0] & 0xE0 == 0x20:  # a new size of the table
            self._table.changes += 1
        try:
            return [(name, value) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, str(error)) from error
        except HPACKError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"{type(error).__name__} in a header block") from error


class _Table(HeaderTable):
    """A table that counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)


def _head_of(fields: list[tuple[bytes, bytes]]) -> Head:
    pseudo: dict[bytes, bytes] = {}
    regular: list[tuple[bytes, bytes]] = []
    length: int | None = None
    for name, value in fields:
        if name.startswith(b":"):
            if name not in _PSEUDO or name in pseudo or regular:
                raise Malformed(f"{_shown(name)} is unknown, repeated, or not at the beginning")
            if not _is_value(value):
                raise Malformed(f"{_shown(name)} has a value with forbidden characters")
            pseudo[name] = value
            continue
        _check(name, value)
        if name == b"content-length":
            if not (value.isascii() and value.isdigit() and len(value) < 16) or length not in (None, int(value)):
                raise Malformed("content-length is no length")
            length = int(value)
        regular.append((name, value))
    if b":method" not in pseudo or b":scheme" not in pseudo or not pseudo.get(b":path"):
        raise Malformed("a request needs :method, :scheme and :path")
    return Head(
        method=pseudo[b":method"],
        path=pseudo[b":path"],
        authority=pseudo.get(b":authority", b""),
        fields=tuple(regular),
        length=length,
    )


def _check(name: bytes, value: bytes) -> None:
    if not _is_name(name) or name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
        raise Malformed(f"a field called {_shown(name)} has no place in HTTP/2")
    if not _is_value(value):
        raise Malformed(f"{_shown(name)} has a value with forbidden characters")


def _shown(name: bytes) -> str:
    return repr(name[:40])[1:]


def header_block(fields: Iterable[tuple[bytes, bytes]], status: bytes = b"") -> bytes:
    """A block that leaves the peer's table alone, so it can be made once and sent on every connection.

    `status` 200 comes first where given. Values are latin-1 without control characters.

    >>> header_block([(b"grpc-status", b"0")]).hex(" ")
    '00 0b 67 72 70 63 2d 73 74 61 74 75 73 01 30'
    """
    parts = [b"\x88" if status == b"200" else _literal(b":status", status)] if status else []
    parts += [_literal(name, value) for name, value in fields]
    return b"".join(parts)


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    """A number with a prefix of seven bits (RFC 7541, section 5.1)."""
    number = len(text)
    if number < 127:
        return bytes((number,))
    number -= 127
    encoded = bytearray((127,))
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
