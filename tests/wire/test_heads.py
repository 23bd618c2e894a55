import itertools
import tracemalloc

import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.routes import TokenHash
from holdfast.security.identity import hash_of
from holdfast.wire.heads import MOST_HEADS, Heads
from holdfast.wire.http import DataPlaneApp

FIRST = b"POST /predict/flights HTTP/1.1"


@pytest.fixture
def heads(served):
    ids = map(str, itertools.count())
    return Heads(served.plane, DataPlaneApp(served.plane, served.clock, ids.__next__), ids.__next__)


def head(*lines: bytes, first: bytes = FIRST) -> bytes:
    return b"\r\n".join([first, *lines]) + b"\r\n\r\n"


def test_a_usual_head_says_where_to_how_long_and_who(heads):
    known = heads.known(head(b"Host: x", b"Content-Length: 12", b"X-Request-Id: mine"))
    assert (known.place.kind, known.place.system, known.length, known.request_id) == ("predict", "flights", 12, "mine")
    assert known.headers == ((b"host", b"x"), (b"content-length", b"12"), (b"x-request-id", b"mine"))
    assert known.is_readable


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"content-length: 1", b"host: a", b"host: b"),
        (b"content-length: 1", b"transfer-encoding: chunked"),
        (b"content-length: 1", b"expect: 100-continue"),
        (b"content-length: 1", b"content-encoding: gzip"),
        (b"content-length: 1", b"connection: close"),
        (b"content-length: 1", b"connection: upgrade", b"upgrade: h2c"),
        (b"content-length: 8388609",),
        (b"content-length: " + b"0" * 5000 + b"1",),
        (b"content-length: 1", b"x-request-id: " + b"l" * 201),
        (b"content-length: 1", b"x: y\r\n folded"),
        (b"content-length: 1", b"x : y"),
    ],
)
def test_an_unusual_head_is_left_to_others(heads, lines):
    assert heads.known(head(*lines)) is None


@pytest.mark.parametrize(
    "first",
    [
        b"GET /predict/flights HTTP/1.1",
        b"POST /predict/flights HTTP/1.0",
        b"POST /predict/flights?a=b HTTP/1.1",
        b"POST /predict/fl%69ghts HTTP/1.1",
        b"POST /predict/nobody HTTP/1.1",
        b"POST /labels/flights HTTP/1.1",
        b"POST http://x/predict/flights HTTP/1.1",
    ],
)
def test_another_place_or_method_is_left_to_others(heads, first):
    assert heads.known(head(b"content-length: 1", first=first)) is None


@pytest.mark.parametrize(
    ("value", "length"), [(b"12", 12), (b"007", 7), (b"0", 0), (b"", 0), (b"-1", 0), (b"99999999", 0), (b"\xb2", 0)]
)
def test_the_length_of_the_json_counts_only_where_it_is_one(heads, value, length):
    first = b"POST /v2/models/flights/infer HTTP/1.1"
    known = heads.known(head(b"content-length: 9", b"inference-header-content-length: " + value, first=first))
    assert (known.json_length, known.is_readable) == (length, length > 0)


def test_a_head_is_read_once_while_the_routes_stay(heads, served):
    raw = head(b"content-length: 1")
    first = heads.known(raw)
    assert heads.known(raw) is first
    served.serve("v2")
    again = heads.known(raw)
    assert again is not first
    assert again.lanes.live.by.version == "2"


def test_a_revoked_token_is_no_longer_known(heads, served):
    tokens = tuple(TokenHash(sha256=hash_of(f"hf_{name}"), role="client", name=name) for name in ("a", "b"))
    raw = head(b"content-length: 1", b"authorization: Bearer hf_a")
    served.follow(tokens=tokens, flights=served.system("v1"))
    assert heads.known(raw).caller == "a"
    served.follow(tokens=tokens[1:], flights=served.system("v1"))
    assert heads.known(raw) is None


@pytest.mark.parametrize("line", [b"x-request-id: %d", b"traceparent: 00-%032x-00f067aa0ba902b7-01"])
def test_heads_that_never_come_again_push_out_nothing(heads, line):
    raw = head(b"content-length: 1")
    first = heads.known(raw)
    for i in range(2 * MOST_HEADS):
        assert heads.known(head(b"content-length: 1", line % i)) is not None
    assert heads.known(raw) is first


@pytest.mark.long
@pytest.mark.parametrize("size", [10, 60_000])
def test_a_million_different_heads_keep_the_memory_bounded(heads, size):
    count = 1_000_000 if size == 10 else 20_000
    padding = b"x" * size
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for i in range(count):
            heads.known(head(b"content-length: 1", b"x: %d" % i, padding + b": y"))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 32_000_000


def test_a_large_head_is_not_remembered(heads):
    raw = head(b"content-length: 1", b"x: " + b"y" * 10_000)
    assert heads.known(raw) is not None
    assert heads.known(raw) is not heads.known(raw)


class Seen:
    """Everything that the parser says about some bytes."""

    def __init__(self, raw: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.bodies: list[bytes] = []
        self.is_good = True
        try:
            httptools.HttpRequestParser(self).feed_data(raw)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_good = False

    def on_message_begin(self):
        self.bodies.append(b"")

    def on_header(self, name, value):
        self.headers.append((name.lower(), value))

    def on_body(self, body):
        self.bodies[-1] += body


PIECES = [
    b"content-length", b"Content-Length", b"transfer-encoding", b"chunked", b"connection", b"close", b"keep-alive",
    b"host",
    b"x-request-id", b": ", b":", b"\r\n", b"\n", b"\r", b" ", b"\t", b"7", b"0", b"1", b"\x00", b"\xff", b",", b"%",
    b"HTTP/1.1", b"POST", b"/predict/flights", b"\r\n\r\n", b"expect", b"upgrade", b"identity",
]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join), st.booleans())
def test_what_is_known_is_one_request_to_the_parser_too(heads, middle, has_length):
    """A head that is understood in two ways would let one request hide in another."""
    raw = FIRST + b"\r\n" + middle + (b"\r\ncontent-length: 7" if has_length else b"") + b"\r\n\r\n"
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    known = heads.known(raw)
    if known is None:
        return
    behind = head(b"content-length: 1") + b"1"
    seen = Seen(raw + b"b" * known.length + behind)
    assert seen.is_good
    assert seen.bodies == [b"b" * known.length, b"1"]
    assert tuple(seen.headers[:-1]) == known.headers


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_no_bytes_are_a_head_that_cannot_be_looked_at(heads, raw):
    heads.known(raw)
    heads.known(FIRST + b"\r\n" + raw + b"\r\n\r\n")
