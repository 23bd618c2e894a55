"""Heads and streams of requests: what is usual and what is not, mixed, and cut into packets anywhere."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROW = {"a": 1.0, "b": 2.0, "c": 3.0}
PACKED = {"inputs": [{"name": "i", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}], "id": "p"}
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def head(*lines: bytes, body: bytes = b'{"c":1}', first: bytes = b"POST /predict/numbers HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *lines]) + b"\r\n\r\n" + body


LENGTH = b"content-length: 7"
HEADS = {
    "usual": head(LENGTH),
    "no length": head(b"host: x", body=b""),
    "zero length": head(b"content-length: 0", body=b""),
    "length twice": head(LENGTH, LENGTH),
    "lengths that differ": head(LENGTH, b"content-length: 8"),
    "list of lengths": head(b"content-length: 7, 7"),
    "signed length": head(b"content-length: +7"),
    "negative length": head(b"content-length: -7"),
    "hexadecimal length": head(b"content-length: 0x7"),
    "length with zeros": head(b"content-length: 007"),
    "length of 5000 digits": head(b"content-length: " + b"0" * 5000 + b"7"),
    "huge length": head(b"content-length: " + b"9" * 30),
    "length of 2^64": head(b"content-length: 18446744073709551623"),
    "empty length": head(b"content-length:"),
    "length with a tab": head(b"content-length:\t7\t"),
    "length without a space": head(b"content-length:7"),
    "chunked": head(b"transfer-encoding: chunked", body=b'7\r\n{"c":1}\r\n0\r\n\r\n'),
    "chunked in pieces": head(
        b"transfer-encoding: chunked", body=b'1;x=y\r\n{\r\n6\r\n"c":1}\r\n0\r\ntrailer: t\r\n\r\n'
    ),
    "chunked and length": head(b"transfer-encoding: chunked", LENGTH, body=b'7\r\n{"c":1}\r\n0\r\n\r\n'),
    "length and chunked": head(LENGTH, b"transfer-encoding: chunked", body=b'7\r\n{"c":1}\r\n0\r\n\r\n'),
    "identity": head(b"transfer-encoding: identity", LENGTH),
    "xchunked": head(b"transfer-encoding: xchunked", LENGTH),
    "chunked with a space before the colon": head(b"transfer-encoding : chunked", LENGTH),
    "length with a space before the colon": head(b"content-length : 7"),
    "chunked that is none": head(b"transfer-encoding: chunked", body=b"zz\r\n"),
    "folded": head(b"x: y\r\n z", LENGTH),
    "folded length": head(b"x: y\r\n content-length: 7", LENGTH),
    "bare line feeds": head(LENGTH).replace(b"\r\n", b"\n"),
    "one bare line feed": b"POST /predict/numbers HTTP/1.1\r\nx: y\ncontent-length: 7\r\n\r\n" + b'{"c":1}',
    "early end by line feeds": b"POST /predict/numbers HTTP/1.1\r\ncontent-length: 7\n\nPOST / HTTP/1.1\r\n\r\n",
    "bare carriage return": head(b"x: a\rb", LENGTH),
    "zero byte in a value": head(b"x: a\x00b", LENGTH),
    "zero byte in a name": head(b"x\x00: ab", LENGTH),
    "high bytes in a value": head(b"x: \xff\xfe", LENGTH),
    "nothing before the colon": head(b": x", LENGTH),
    "no colon": head(b"nonsense", LENGTH),
    "two hosts": head(b"host: a", b"host: b", LENGTH),
    "no host": head(LENGTH),
    "names in upper case": head(b"HOST: A", b"CONTENT-LENGTH: 7"),
    "lower case": head(b"host: a", LENGTH),
    "close": head(LENGTH, b"connection: close"),
    "keep alive": head(LENGTH, b"connection: keep-alive"),
    "close among others": head(LENGTH, b"connection: foo, Close"),
    "proxy close": head(LENGTH, b"proxy-connection: close"),
    "HTTP/1.0": head(LENGTH, first=b"POST /predict/numbers HTTP/1.0"),
    "HTTP/1.0 kept": head(LENGTH, b"connection: keep-alive", first=b"POST /predict/numbers HTTP/1.0"),
    "HTTP/2.0": head(LENGTH, first=b"POST /predict/numbers HTTP/2.0"),
    "HTTP/1.2": head(LENGTH, first=b"POST /predict/numbers HTTP/1.2"),
    "HTTP/0.9": b"GET /v2/health/live\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "lower method": head(LENGTH, first=b"post /predict/numbers HTTP/1.1"),
    "unknown method": head(LENGTH, first=b"BREW /predict/numbers HTTP/1.1"),
    "PUT": head(LENGTH, first=b"PUT /predict/numbers HTTP/1.1"),
    "DELETE": head(first=b"DELETE /predict/numbers HTTP/1.1", body=b""),
    "OPTIONS": head(first=b"OPTIONS * HTTP/1.1", body=b""),
    "TRACE": head(first=b"TRACE /predict/numbers HTTP/1.1", body=b""),
    "GET": head(first=b"GET /v2/health/live HTTP/1.1", body=b""),
    "GET of what is posted": head(first=b"GET /predict/numbers HTTP/1.1", body=b""),
    "GET with a body": head(LENGTH, first=b"GET /v2/models/numbers HTTP/1.1"),
    "GET of nothing": head(first=b"GET /nothing HTTP/1.1", body=b""),
    "POST of what is looked at": head(LENGTH, first=b"POST /v2/models/numbers HTTP/1.1"),
    "query": head(LENGTH, first=b"POST /predict/numbers?x=/predict/mixed HTTP/1.1"),
    "fragment": head(LENGTH, first=b"POST /predict/numbers#x HTTP/1.1"),
    "escapes": head(LENGTH, first=b"POST /predict/n%75mbers HTTP/1.1"),
    "escaped slash": head(LENGTH, first=b"POST /predict%2Fnumbers HTTP/1.1"),
    "bad escape": head(LENGTH, first=b"POST /predict/%zz HTTP/1.1"),
    "slashes": head(LENGTH, first=b"POST //predict/numbers/ HTTP/1.1"),
    "dots": head(LENGTH, first=b"POST /v2/../predict/numbers HTTP/1.1"),
    "absolute": head(LENGTH, first=b"POST http://holdfast/predict/numbers HTTP/1.1"),
    "authority": head(first=b"CONNECT holdfast:80 HTTP/1.1", body=b""),
    "no path": head(LENGTH, first=b"POST  HTTP/1.1"),
    "path with high bytes": head(LENGTH, first=b"POST /predict/\xc3\xb6 HTTP/1.1"),
    "path with a space": head(LENGTH, first=b"POST /predict/num bers HTTP/1.1"),
    "two spaces": head(LENGTH, first=b"POST  /predict/numbers  HTTP/1.1"),
    "spaces in front": b"  " + head(LENGTH),
    "lines in front": b"\r\n\r\n\r\n" + head(LENGTH),
    "line feed in front": b"\n" + head(LENGTH),
    "an id": head(LENGTH, b"x-request-id: mine"),
    "an id twice": head(LENGTH, b"x-request-id: a", b"x-request-id: b"),
    "an id that is too long": head(LENGTH, b"x-request-id: " + b"l" * 201),
    "an id in latin-1": head(LENGTH, b"x-request-id: \xe9\xa0"),
    "an empty id": head(LENGTH, b"x-request-id:"),
    "trace": head(LENGTH, b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    "encoded": head(LENGTH, b"content-encoding: gzip"),
    "other content": head(LENGTH, b"content-type: text/plain"),
    "too large": head(b"content-length: 8388609", body=b""),
    "largest": head(b"content-length: 8388608", body=b'{"c":1}' + b" " * (8388608 - 7)),
    "expect": head(LENGTH, b"expect: 100-continue"),
    "expect more": head(LENGTH, b"expect: tea"),
    "bytes that are none": head(LENGTH, b"inference-header-content-length: 7"),
    "upgrade alone": head(LENGTH, b"upgrade: h2c"),
    "priority of dashes": head(LENGTH, b"content_length: 9"),
}


@pytest.fixture
def two(kit):
    made = kit.Served(), kit.Served(is_fast=False)
    yield made
    for each in made:
        each.close()


@pytest.mark.parametrize("name", HEADS)
def test_odd_heads_are_answered_as_plain_asgi_answers_them(two, kit, name):
    fast, plain = two
    answers = [kit.responses(served.ask(HEADS[name])) for served in two]
    assert [each.said() for each in answers[0]] == [each.said() for each in answers[1]]
    assert kit.recorded(fast) == kit.recorded(plain)
    assert fast.is_at_rest()


@pytest.mark.parametrize("name", HEADS)
def test_what_follows_an_odd_head_is_read_as_plain_asgi_reads_it(two, kit, name):
    """A head that is understood in two ways would let one request hide in another."""
    behind = kit.request("/predict/numbers", ROW, x_request_id="behind")
    lines = [served.connect() for served in two]
    for line in lines:
        line.send(HEADS[name]).send(behind)
    answers = [kit.responses(line.sent) for line in lines]
    assert [each.said() for each in answers[0]] == [each.said() for each in answers[1]]
    ended = [line.transport.is_closed or line.transport.is_done for line in lines]
    assert ended[0] == ended[1]
    assert kit.recorded(two[0]) == kit.recorded(two[1])


def test_a_head_request_is_answered_without_a_body(two, kit):
    raw = kit.request("/v2/health/live", method="HEAD") + kit.request("/predict/numbers", ROW)
    answers = [kit.responses(served.ask(raw), heads=1) for served in two]
    assert [each.said() for each in answers[0]] == [each.said() for each in answers[1]]
    assert [each.status for each in answers[0]] == [200, 200]


@pytest.mark.parametrize(
    "authorization",
    ["Bearer hf_good", "bearer hf_other", "Bearer hf_bad", "Basic aGY6Zw==", "", "Bearer", "hf_good", None],
)
def test_tokens_are_asked_for_alike(kit, authorization):
    answers = []
    for is_fast in (True, False):
        served = kit.Served(is_fast, tokens=kit.tokens)
        line = served.connect()
        for path in ("/predict/numbers", "/v2/health/live", "/v2/models/numbers/infer", "/predict/numbers"):
            line.send(kit.request(path, ROW, authorization=authorization))
        answers.append(([each.said() for each in kit.responses(line.sent)], kit.recorded(served)))
        served.close()
    assert answers[0] == answers[1]


def test_a_revoked_token_is_refused_on_the_connection_that_used_it(kit):
    served = kit.Served(tokens=kit.tokens)
    line, raw = served.connect(), kit.request("/predict/numbers", ROW, authorization="Bearer hf_good")
    line.send(raw, raw)
    served.follow(kit.tokens[1:])
    line.send(raw)
    served.follow(kit.tokens)
    line.send(raw)
    assert [each.status for each in kit.responses(line.sent)] == [200, 200, 401, 200]
    served.close()


def test_a_token_that_is_revoked_while_a_body_comes_in_lets_nobody_in(kit):
    served = kit.Served(tokens=kit.tokens)
    raw = kit.request("/predict/numbers", ROW, authorization="Bearer hf_good")
    line = served.connect().send(raw, raw[:-3])
    served.follow(kit.tokens[1:])
    line.send(raw[-3:])
    assert [each.status for each in kit.responses(line.sent)] == [200, 401]
    served.close()


USUAL = ["usual", "an id", "other content", "lower case"]
GENERAL = ["zero length", "bytes that are none"]
AWAY = [
    "chunked",
    "chunked in pieces",
    "GET",
    "GET with a body",
    "PUT",
    "query",
    "lines in front",
    "encoded",
    "expect more",
]
LAST = ["close", "bare line feeds", "HTTP/1.0", "TLS", "chunked and length", "length twice", "unknown method", "folded"]


@st.composite
def streams(draw, kit):
    """Requests one after the other, and where the packets are cut."""
    names = draw(st.lists(st.sampled_from(USUAL * 3 + GENERAL + AWAY), min_size=1, max_size=8))
    if draw(st.integers(0, 2)) == 0:
        names.append(draw(st.sampled_from(LAST)))
    raw = b"".join(HEADS[name] for name in names)
    cuts = draw(st.lists(st.integers(0, len(raw)), max_size=12))
    return names, raw, [0, *sorted(cuts), len(raw)]


def told(kit, raw):
    return [each.said() for each in kit.responses(raw)]


@settings(max_examples=200, deadline=None, suppress_health_check=QUIET, derandomize=True)
@given(st.data(), st.booleans())
@pytest.mark.slow
def test_any_cut_of_a_stream_gives_the_same_answers(lasting, kit, data, at_once):
    names, raw, cuts = data.draw(streams(kit))
    alone = [each.said() for name in names for each in kit.responses(lasting.ask(HEADS[name]))]
    line = lasting.connect().send(*[raw[a:b] for a, b in itertools.pairwise(cuts)], at_once=at_once)
    assert told(kit, line.sent) == alone, names
    assert lasting.is_at_rest()


@pytest.fixture(scope="module")
def lasting(kit):
    made = kit.Served()
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [True, False])
def test_a_stream_cut_at_every_byte_gives_the_same_answers(lasting, kit, at_once):
    names = ["usual", "GET", "usual", "chunked", "zero length"]
    raw = b"".join(HEADS[name] for name in names)
    alone = [each.said() for name in names for each in kit.responses(lasting.ask(HEADS[name]))]
    for cut in range(1, len(raw)):
        line = lasting.connect().send(raw[:cut], raw[cut:], at_once=at_once)
        assert told(kit, line.sent) == alone, cut
    assert told(kit, lasting.connect().send(*[raw[i : i + 1] for i in range(len(raw))]).sent) == alone
    assert lasting.is_at_rest()


@pytest.mark.parametrize("before", ["usual", "GET", "PUT", "usual usual", "GET GET", "usual GET", "GET usual", ""])
@pytest.mark.parametrize("size", [110_000, 300_000])
@pytest.mark.parametrize("packet", [1000, 65_536, 10**6])
def test_a_head_that_is_too_large_is_refused_behind_what_came_before(lasting, kit, before, size, packet):
    raw = b"".join(HEADS[name] for name in before.split()) + b"POST /predict/numbers HTTP/1.1\r\nx: " + b"x" * size
    raw += b"\r\n\r\n"
    line = lasting.connect().send(*[raw[i : i + packet] for i in range(0, len(raw), packet)])
    assert [each.status for each in kit.responses(line.sent)][-1] == 431
    assert len(kit.responses(line.sent)) == len(before.split()) + 1
    assert line.transport.is_lost


def test_a_head_of_just_over_64_kib_is_refused_however_it_comes(lasting, kit):
    raw = HEADS["usual"] + head(b"x: " + b"x" * 65_536, LENGTH)
    for packet in (1000, 65_536, 10**6):
        line = lasting.connect().send(*[raw[i : i + packet] for i in range(0, len(raw), packet)])
        assert [each.status for each in kit.responses(line.sent)] == [200, 431]


@pytest.mark.slow
def test_many_small_heads_that_are_cut_are_not_taken_for_a_large_one(lasting, kit):
    raw = HEADS["GET"] * 4000
    line = lasting.connect().send(*[raw[i : i + 16_385] for i in range(0, len(raw), 16_385)], at_once=True)
    assert [each.status for each in kit.responses(line.sent)] == [200] * 4000


def test_garbage_behind_a_request_does_not_take_its_answer(lasting, kit):
    for before in ("GET", "usual", "GET GET", "usual GET"):
        raw = b"".join(HEADS[name] for name in before.split()) + b"garbage\r\n\r\n"
        line = lasting.connect().send(raw)
        assert [each.status for each in kit.responses(line.sent)] == [200] * len(before.split()) + [400]
        assert line.transport.is_lost


@pytest.mark.parametrize("method", ["GET /v2/health/live", "POST /predict/numbers", "POST /labels/numbers"])
def test_a_wish_for_another_protocol_is_not_obeyed_and_harms_nothing(lasting, kit, method):
    """Some clients wish for HTTP/2 with each first request."""
    wish = head(
        b"host: x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEA", LENGTH,
        first=f"{method} HTTP/1.1".encode(),
    )  # fmt: skip
    plain = kit.responses(lasting.ask(wish.replace(b"Upgrade: h2c\r\n", b"").replace(b"Upgrade, ", b"")))
    line = lasting.connect().send(wish, wish, HEADS["usual"])
    statuses = [each.status for each in kit.responses(line.sent)]
    assert statuses == [plain[0].status] * 2 + [200]


def test_a_wish_for_another_protocol_behind_other_requests_ends_the_connection(lasting, kit):
    wish = head(b"Connection: Upgrade", b"Upgrade: h2c", LENGTH)
    line = lasting.connect().send(HEADS["GET"] + wish + HEADS["usual"])
    assert [each.status for each in kit.responses(line.sent)] == [200, 400]
    assert line.transport.is_lost


def test_requests_of_one_packet_are_answered_in_their_order(lasting, kit):
    raw = b"".join(kit.request("/predict/numbers", {"c": i % 10}, x_request_id=f"r{i}") for i in range(1000))
    answers = kit.responses(lasting.ask(raw))
    assert [each.json["request_id"] for each in answers] == [f"r{i}" for i in range(1000)]
    assert {each.status for each in answers} == {200}
