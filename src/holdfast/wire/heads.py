"""What request heads mean, by their bytes: a client that stays repeats its own."""

from collections.abc import Callable

import httptools

from holdfast.serve.dataplane import DataPlane
from holdfast.serve.ids import usable_id
from holdfast.serve.lanes import Prepared
from holdfast.serve.paths import place_of
from holdfast.serve.quick import Known, Origin, Quick
from holdfast.wire.http import BODY_LIMIT_BYTES, DataPlaneApp

HEAD_LIMIT_BYTES = 64 * 1024
"""Most bytes of a request's head."""
MOST_HEADS = 4096
"""Heads that are remembered; clients that vary theirs push out only each other."""
_LONGEST_HEAD = 2048
"""Most bytes of a head that is remembered, so that all of them together take some 30 MB at most."""
_LONGEST_LENGTH = 18
"""Most digits of a length that is read here."""

_PLAIN_ONLY = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"content-encoding"})
"""Headers that make a request unusual."""
_ITS_OWN = frozenset({b"x-request-id", b"traceparent"})
"""Headers that differ from request to request, so that remembering a head with one would help nobody."""
_BINARY = b"inference-header-content-length"


class Heads:
    """Remembers heads while the routes stay the same. Owned by one event loop."""

    def __init__(self, plane: DataPlane, app: DataPlaneApp, new_id: Callable[[], str]) -> None:
        self.app = app
        self.batcher = app.batcher
        self.bodies = app.bodies
        self._plane = plane
        self._access = app.access
        self._new_id = new_id
        self._known: dict[bytes, Known] = {}
        self._in_force: Prepared | None = None

    def known(self, head: bytes) -> Known | None:
        """What a head says; None where the request is not of the usual kind."""
        in_force = self._plane.in_force
        if in_force is not self._in_force:  # a token may have been revoked, a version may have changed
            self._in_force = in_force
            self._known.clear()
        found = self._known.get(head)
        if found is None:
            found = self._read(head)
            if found is not None and len(head) <= _LONGEST_HEAD and not _is_its_own(found):
                if len(self._known) >= MOST_HEADS:
                    self._known.clear()
                self._known[head] = found
        return found

    def call(self, origin: Origin, known: Known, body: bytes, accepted_s: float) -> Quick:
        """A call for a whole request; `given` is None where its body is not of the usual form."""
        reading = known.lanes.reading
        given = None
        if known.is_readable and reading is not None:
            if known.place.kind == "predict":
                given = reading.rows(body)
            elif known.json_length:
                given = reading.binary(body, known.json_length)
            else:
                given = reading.tensors(body)
            if given is not None and given.count > 1 and given.count > known.lanes.routed.serve.max_rows:
                given = None
        return Quick(
            origin, known, body, given, (given and given.request_id) or known.request_id or self._new_id(), accepted_s
        )

    def _read(self, head: bytes) -> Known | None:
        if len(head) > HEAD_LIMIT_BYTES:
            return None
        read = _Head(head)
        if not read.is_usual or b"%" in read.url or b"?" in read.url:
            return None
        place = place_of(read.url.decode("latin-1"))
        names = [name for name, _ in read.headers]
        if place is None or place.kind not in ("predict", "infer") or not _PLAIN_ONLY.isdisjoint(names):
            return None
        headers = dict(read.headers)
        length = headers.get(b"content-length", b"")
        token = self._access.token(self._plane.routes, headers.get(b"authorization", b"").decode("latin-1"))
        lanes = self._plane.in_force.systems.get(place.system)
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")
        if token is None or lanes is None or len(headers) != len(names) or not usable_id(request_id):
            return None
        if not length.isdigit() or len(length) > _LONGEST_LENGTH or int(length) > BODY_LIMIT_BYTES:
            return None
        json_length = headers.get(_BINARY, b"")
        has_bytes = place.kind == "infer" and json_length.isdigit() and len(json_length) < 8 and int(json_length) > 0
        return Known(
            place=place,
            lanes=lanes,
            length=int(length),
            caller=token.name,
            headers=tuple(read.headers),
            request_id=request_id,
            is_readable=lanes.live is not None and not place.version and (has_bytes or _BINARY not in headers),
            json_length=int(json_length) if has_bytes else 0,
        )


def _is_its_own(known: Known) -> bool:
    return any(name in _ITS_OWN for name, _ in known.headers)


class _Head:
    """A request head, read by the parser that reads all requests."""

    def __init__(self, head: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_usual = False
        self._is_whole = False
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return
        self.is_usual = (
            self._is_whole
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
        )

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_whole = True
