"""The HTTP/2 connection, held against an independent client (h2) and against frames written by hand."""

import asyncio
import contextlib
import functools

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from h2.settings import SettingCodes
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.wire import http2wire as wire
from holdfast.wire.http2 import Connection
from holdfast.wire.http2headers import HeadReader, Malformed, header_block
from holdfast.wire.http2limits import Limits
from holdfast.wire.http2wire import ConnectionFault, ErrorCode, frame

HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "here"), ("te", "trailers")]
OK = header_block([(b"kind", b"test")], status=b"200")
END = header_block([(b"end", b"0")])


def in_loop(test):
    """Run a test of coroutines in an event loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


class Echo:
    """Answers with what it was sent; to ``/late`` when told, to ``/hold`` without granting anything."""

    def __init__(self):
        self.prepared = 0
        self.calls = []

    def prepare(self, head):
        self.prepared += 1
        return head

    def opened(self, stream, head):
        call = EchoCall(stream, head)
        self.calls.append(call)
        return call


class EchoCall:
    def __init__(self, stream, head):
        self.stream, self.head = stream, head
        self.is_stream = head.path in (b"/stream", b"/partial")
        self.is_partial = head.path == b"/partial"
        self.body, self.is_lost, self.is_whole, self.is_stopping, self.drains = b"", False, False, False, 0

    def received(self, data, is_end):
        self.body += data
        if self.head.path != b"/hold":
            self.stream.grant(len(data))
        if is_end:
            self.is_whole = True
            if self.head.path == b"/echo":
                self.answer()

    def answer(self, body=None):
        self.stream.answer(OK, self.body if body is None else body, END)

    def lost(self):
        self.is_lost = True

    def drained(self):
        self.drains += 1

    def stopping(self):
        self.is_stopping = True


class Transport:
    """Keeps what is written; `is_slow` takes one write and then asks for a pause."""

    def __init__(self, connection):
        self.connection = connection
        self.out, self.writes = bytearray(), 0
        self.is_closed = self.is_aborted = self.is_reading_paused = self.is_slow = False
        self.encrypted = None

    def set_write_buffer_limits(self, high):
        self.high = high

    def get_extra_info(self, name):
        return self.encrypted if name == "sslcontext" else None

    def write(self, data):
        assert not self.is_closed, "a write after the end"
        self.out += data
        self.writes += 1
        if self.is_slow:
            self.connection.pause_writing()

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = self.is_aborted = True

    def pause_reading(self):
        self.is_reading_paused = True

    def resume_reading(self):
        self.is_reading_paused = False


class Pair:
    """A connection and what a client sees of it. Make it in a running loop."""

    def __init__(self, *, greet=True, **limits):
        self.app = Echo()
        self.gone = []
        self.server = Connection(self.app, Limits(**limits), 0.0, self.gone.append)
        self.transport = Transport(self.server)
        self.server.connection_made(self.transport)
        self.encoder = Encoder()
        if greet:
            self.give(wire.PREFACE + wire.settings_frame({}))

    def give(self, *frames):
        for each in frames:
            self.server.data_received(each)

    async def taken(self):
        """The frames that were sent since the last look: kind, flags, stream, payload."""
        await settle()
        data, frames = bytes(self.transport.out), []
        self.transport.out.clear()
        while data:
            high, low, kind, flags, stream_id = wire.unpack_head(data)
            length = high << 16 | low
            assert len(data) >= 9 + length, "half a frame was written"
            frames.append((kind, flags, stream_id, data[9 : 9 + length]))
            data = data[9 + length :]
        return frames

    def head(self, stream_id, path="/echo", flags=wire.END_HEADERS, **more):
        fields = [(name, path if name == ":path" else value) for name, value in HEAD]
        return frame(wire.HEADERS, flags, stream_id, self.encoder.encode(fields + list(more.items())))

    def request(self, stream_id, body=b"x", path="/echo", **more):
        return self.head(stream_id, path, **more) + frame(wire.DATA, wire.END_STREAM, stream_id, body)

    def sweep(self, *times):
        for now_s in times:
            self.server.sweep(now_s)


async def settle():
    for _ in range(4):
        await asyncio.sleep(0)


def codes(frames, kind):
    """Error codes of the frames of a kind, RST_STREAM or GOAWAY."""
    start = 4 if kind == wire.GOAWAY else 0
    return [int.from_bytes(payload[start : start + 4], "big") for each, _, _, payload in frames if each == kind]


class Client:
    """h2 as the client of a pair."""

    def __init__(self, pair):
        self.pair = pair
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events = []
        self.bodies = {}

    async def exchange(self, until=lambda _: False):
        """Carry bytes both ways until nothing moves."""
        while True:
            sent = self.h2.data_to_send()
            if sent:
                self.pair.server.data_received(sent)
            await settle()
            received = bytes(self.pair.transport.out)
            self.pair.transport.out.clear()
            if not sent and not received:
                return
            for event in self.h2.receive_data(received):
                self.events.append(event)
                if isinstance(event, h2.events.DataReceived):
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def send(self, body=b"", path="/echo", headers=HEAD):
        stream_id = self.h2.get_next_available_stream_id()
        fields = [(name, path if name == ":path" else value) for name, value in headers]
        self.h2.send_headers(stream_id, fields)
        return stream_id

    async def call(self, body, path="/echo"):
        stream_id = self.send(path=path)
        await self.upload(stream_id, body)
        return stream_id

    async def upload(self, stream_id, body):
        while body:
            size = min(len(body), self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            if size == 0:
                await self.exchange()
                assert self.h2.local_flow_control_window(stream_id) > 0, "the window stays closed"
                continue
            self.h2.send_data(stream_id, body[:size])
            body = body[size:]
        self.h2.end_stream(stream_id)
        await self.exchange()

    def seen(self, kind, stream_id=None):
        return [
            event
            for event in self.events
            if isinstance(event, kind) and (stream_id is None or event.stream_id == stream_id)
        ]


# With an independent client


@in_loop
async def test_a_request_is_answered():
    client = Client(Pair(greet=False))
    stream_id = await client.call(b"hello")
    [answer] = client.seen(h2.events.ResponseReceived)
    assert (":status", "200") in answer.headers
    assert client.bodies[stream_id] == b"hello"
    assert client.seen(h2.events.TrailersReceived)[0].headers == [("end", "0")]
    assert client.seen(h2.events.StreamEnded)
    assert client.pair.server.is_idle


@in_loop
async def test_large_bodies_pass_through_the_windows_both_ways():
    client = Client(Pair(greet=False, stream_window_bytes=65_535, connection_window_bytes=65_535))
    body = bytes(range(256)) * 8_192
    stream_id = await client.call(body)
    assert client.bodies[stream_id] == body


@in_loop
async def test_streams_are_answered_in_any_order():
    client = Client(Pair(greet=False))
    ids = [await client.call(b"%d" % i, path="/late") for i in range(5)]
    for call in reversed(client.pair.app.calls):
        call.answer()
    await client.exchange()
    assert [client.bodies[id] for id in ids] == [b"0", b"1", b"2", b"3", b"4"]
    assert [event.stream_id for event in client.seen(h2.events.StreamEnded)] == ids[::-1]


@in_loop
async def test_what_one_tick_answers_is_one_write():
    pair = Pair()
    await pair.taken()
    before = pair.transport.writes
    pair.give(b"".join(pair.request(stream_id) for stream_id in range(1, 41, 2)))
    assert len([kind for kind, *_ in await pair.taken() if kind == wire.DATA]) == 20
    assert pair.transport.writes == before + 1


@in_loop
async def test_a_new_initial_window_moves_streams_that_are_open():
    client = Client(Pair(greet=False))
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    stream_id = client.send(path="/late")
    client.h2.end_stream(stream_id)
    await client.exchange()
    client.pair.app.calls[0].answer(b"y" * 100)
    await settle()
    assert b"y" * 10 in client.pair.transport.out
    assert b"y" * 11 not in client.pair.transport.out
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 50})
    await client.exchange()
    assert client.bodies[stream_id] == b"y" * 100


@in_loop
async def test_a_client_without_header_table_understands_answers():
    client = Client(Pair(greet=False))
    client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 0})
    await client.call(b"1")
    await client.call(b"2")
    assert len(client.seen(h2.events.StreamEnded)) == 2


@in_loop
async def test_frames_are_no_larger_than_the_client_takes():
    pair = Pair()
    pair.give(pair.head(1, flags=5, path="/late") + wire.window_update(1, 200_000) + wire.window_update(0, 200_000))
    pair.app.calls[0].answer(b"z" * 100_000)
    sizes = [len(payload) for kind, _, _, payload in await pair.taken() if kind == wire.DATA]
    assert (max(sizes), sum(sizes)) == (wire.DEFAULT_FRAME_BYTES, 100_000)


@in_loop
async def test_a_stop_loses_no_request_that_is_under_way():
    client = Client(Pair(greet=False))
    early = await client.call(b"a", path="/late")
    client.pair.server.stop()
    late = client.send()  # sent before the client has seen the first GOAWAY
    client.h2.send_data(late, b"b", end_stream=True)
    client.pair.server.data_received(client.h2.data_to_send())
    await settle()
    frames = await client.pair.taken()
    assert [int.from_bytes(p[:4], "big") for kind, _, _, p in frames if kind == wire.GOAWAY] == [wire.LARGEST_WINDOW]
    [ping] = [payload for kind, flags, _, payload in frames if kind == wire.PING and not flags]
    client.pair.give(frame(wire.PING, wire.ACK, 0, ping))
    frames = await client.pair.taken()
    assert [int.from_bytes(p[:4], "big") for kind, _, _, p in frames if kind == wire.GOAWAY] == [late]
    assert not client.pair.transport.is_closed
    assert client.pair.app.calls[0].is_stopping
    client.pair.app.calls[0].answer()
    frames = await client.pair.taken()
    assert [(kind, stream) for kind, _, stream, _ in frames] == [(1, early), (0, early), (1, early)]
    assert client.pair.transport.is_closed


# Reading


@in_loop
async def test_a_request_may_come_byte_by_byte():
    pair = Pair(greet=False)
    for byte in wire.PREFACE + wire.settings_frame({}) + pair.request(1, b"abc"):
        pair.give(bytes((byte,)))
    assert (wire.DATA, 0, 1, b"abc") in await pair.taken()


@in_loop
async def test_heads_may_be_continued_padded_and_have_a_priority():
    pair = Pair()
    block = pair.encoder.encode(HEAD)
    padded = bytes((3,)) + b"\0\0\0\0\7" + block[:4] + b"\0\0\0"
    pair.give(
        frame(wire.HEADERS, wire.PADDED | wire.WITH_PRIORITY, 1, padded),
        frame(wire.CONTINUATION, 0, 1, block[4:6]),
        frame(wire.CONTINUATION, wire.END_HEADERS, 1, block[6:]),
        frame(wire.PRIORITY, 0, 1, b"\0\0\0\0\1"),
        frame(wire.PRIORITY, 0, 9, b"\0\0\0\0\1"),
        frame(wire.DATA, wire.PADDED, 1, b"\2ab\0\0"),
        frame(0xEE, 0xFF, 1, b"unknown"),
        frame(wire.DATA, wire.PADDED | wire.END_STREAM, 1, b"\0c"),
    )
    assert (wire.DATA, 0, 1, b"abc") in await pair.taken()


@in_loop
async def test_trailers_end_a_request():
    pair = Pair()
    pair.give(pair.head(1), frame(wire.DATA, 0, 1, b"body"))
    pair.give(frame(wire.HEADERS, 5, 1, pair.encoder.encode([("x-checksum", "1")])))
    assert (wire.DATA, 0, 1, b"body") in await pair.taken()


@in_loop
async def test_settings_and_pings_are_acknowledged():
    pair = Pair()
    pair.give(frame(wire.PING, 0, 0, b"12345678"))
    frames = await pair.taken()
    assert (wire.SETTINGS, wire.ACK, 0, b"") in frames
    assert (wire.PING, wire.ACK, 0, b"12345678") in frames


@in_loop
async def test_equal_heads_are_read_once():
    pair = Pair()
    for stream_id in range(1, 101, 2):
        pair.give(pair.request(stream_id))
    assert len(pair.app.calls) == 50
    assert pair.app.prepared == 2  # the first fills the table of the client


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "2", "x" * 1500])), max_size=3),
            st.sampled_from([None, 0, 100, 4096]),
        ),
        max_size=12,
    )
)
def test_a_remembered_block_always_means_what_it_says(requests):
    reader, encoder, reference = HeadReader(lambda head: head, 16_384), Encoder(), Decoder()
    for fields, table_bytes in requests:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        block = encoder.encode(HEAD + fields)
        expected = [(name.encode(), value.encode()) for name, value in reference.decode(block)]
        head = reader.request(block)
        assert [*head.fields] == [field for field in expected if not field[0].startswith(b":")]


@in_loop
async def test_bytes_that_are_not_granted_close_the_window_of_their_stream_only():
    pair = Pair(stream_window_bytes=65_535)
    pair.give(pair.head(1, "/hold"))
    pair.give(*[frame(wire.DATA, 0, 1, b"h" * 13_107)] * 5, pair.request(3))
    frames = await pair.taken()
    assert (wire.DATA, 0, 3, b"x") in frames
    assert not [1 for kind, _, stream, _ in frames if kind == wire.WINDOW_UPDATE and stream == 1]
    pair.app.calls[0].stream.grant(65_535)
    assert (wire.WINDOW_UPDATE, 0, 1, (65_535).to_bytes(4, "big")) in await pair.taken()
    pair.give(frame(wire.DATA, 0, 1, b"h" * 65_535), frame(wire.DATA, 0, 1, b"!"))
    assert codes(await pair.taken(), wire.RST_STREAM) == [ErrorCode.FLOW_CONTROL_ERROR]
    assert pair.app.calls[0].is_lost


# What is wrong


def _h(stream_id=1, flags=wire.END_HEADERS | wire.END_STREAM, fields=HEAD):
    return frame(wire.HEADERS, flags, stream_id, Encoder().encode(fields))


FAULTS = {
    "a continuation of nothing": (frame(wire.CONTINUATION, 4, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "a head that is not continued": (_h(flags=0) + frame(wire.PING, 0, 0, b"8" * 8), ErrorCode.PROTOCOL_ERROR),
    "a head continued elsewhere": (_h(flags=0) + frame(wire.CONTINUATION, 4, 3), ErrorCode.PROTOCOL_ERROR),
    "a request on stream 0": (_h(0), ErrorCode.PROTOCOL_ERROR),
    "a request on an even stream": (_h(2), ErrorCode.PROTOCOL_ERROR),
    "a stream twice": (_h(1) + _h(1), ErrorCode.STREAM_CLOSED),
    "a stream below the last one": (_h(5) + _h(3), ErrorCode.STREAM_CLOSED),
    "data on stream 0": (frame(wire.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data on an idle stream": (frame(wire.DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "padding without end": (_h(flags=4) + frame(wire.DATA, wire.PADDED, 1, b"\x05abc"), ErrorCode.PROTOCOL_ERROR),
    "padding of nothing": (_h(flags=4) + frame(wire.DATA, wire.PADDED, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "a block that is no block": (frame(wire.HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
    "a block cut short": (frame(wire.HEADERS, 5, 1, b"\x40\x05ab"), ErrorCode.COMPRESSION_ERROR),
    "an index of nothing": (frame(wire.HEADERS, 5, 1, b"\xfe"), ErrorCode.COMPRESSION_ERROR),
    "a table that is too large": (frame(wire.HEADERS, 5, 1, b"\x3f\xe2\x1f\x82"), ErrorCode.COMPRESSION_ERROR),
    "a reset of an idle stream": (wire.rst_stream(1, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
    "a reset of stream 0": (wire.rst_stream(0, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
    "a short reset": (_h() + frame(wire.RST_STREAM, 0, 1, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
    "a window of an idle stream": (wire.window_update(1, 1), ErrorCode.PROTOCOL_ERROR),
    "a window that opens by nothing": (wire.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
    "a window beyond all bounds": (wire.window_update(0, wire.LARGEST_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    "a short window": (frame(wire.WINDOW_UPDATE, 0, 0, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
    "settings on a stream": (frame(wire.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "settings cut short": (frame(wire.SETTINGS, 0, 0, b"abcd"), ErrorCode.FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (frame(wire.SETTINGS, 1, 0, b"\0\1\0\0\0\0"), ErrorCode.FRAME_SIZE_ERROR),
    "a push setting of 2": (wire.settings_frame({wire.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
    "a window setting of 2^31": (wire.settings_frame({wire.INITIAL_WINDOW_SIZE: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
    "a frame size of 100": (wire.settings_frame({wire.MAX_FRAME_SIZE: 100}), ErrorCode.PROTOCOL_ERROR),
    "a ping on a stream": (frame(wire.PING, 0, 1, b"8" * 8), ErrorCode.PROTOCOL_ERROR),
    "a short ping": (frame(wire.PING, 0, 0, b"1234567"), ErrorCode.FRAME_SIZE_ERROR),
    "a short goodbye": (frame(wire.GOAWAY, 0, 0, b"1234567"), ErrorCode.FRAME_SIZE_ERROR),
    "a goodbye on a stream": (frame(wire.GOAWAY, 0, 1, b"12345678"), ErrorCode.PROTOCOL_ERROR),
    "a priority of nothing": (frame(wire.PRIORITY, 0, 0, b"12345"), ErrorCode.PROTOCOL_ERROR),
    "a push": (frame(wire.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), ErrorCode.PROTOCOL_ERROR),
    "a frame that is too large": (frame(wire.DATA, 0, 1, b"x" * 70_000), ErrorCode.FRAME_SIZE_ERROR),
    "a priority without room": (frame(wire.HEADERS, 0x24, 1, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
    "a head too large unpacked": (
        frame(wire.HEADERS, 5, 1, Encoder().encode([*HEAD, ("a", "b" * 4000)]) + b"\xbe" * 20),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a head continued without end": (
        _h(flags=0) + frame(wire.CONTINUATION, 0, 1, b"\x00" * 8_000) * 3,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
@in_loop
async def test_a_broken_connection_ends_with_its_reason(name):
    data, code = FAULTS[name]
    pair = Pair()
    pair.give(data)
    frames = await pair.taken()
    assert frames[-1][0] == wire.GOAWAY
    assert codes(frames, wire.GOAWAY) == [code]
    assert pair.transport.is_closed
    pair.give(pair.request(101))
    assert not [call for call in pair.app.calls if call.stream.id == 101]


STREAM_FAULTS = {
    "no method": [(":scheme", "http"), (":path", "/")],
    "no scheme": [(":method", "POST"), (":path", "/")],
    "no path": [(":method", "POST"), (":scheme", "http")],
    "an empty path": [(":method", "POST"), (":scheme", "http"), (":path", "")],
    "a path twice": [*HEAD[:3], (":path", "/")],
    "an unknown pseudo field": [*HEAD, (":wrong", "x")],
    "a status": [*HEAD[:3], (":status", "200")],
    "a pseudo field at the end": [("a", "b"), *HEAD],
    "capital letters": [*HEAD, ("Name", "x")],
    "an empty name": [*HEAD, ("", "x")],
    "a name with a space": [*HEAD, ("a b", "x")],
    "connection": [*HEAD, ("connection", "close")],
    "transfer-encoding": [*HEAD, ("transfer-encoding", "chunked")],
    "another te": [*HEAD[:4], ("te", "gzip")],
    "a line break in a value": [*HEAD, ("a", "b\r\nc: d")],
    "a zero byte in a value": [*HEAD, ("a", "b\0")],
    "blanks around a value": [*HEAD, ("a", " b ")],
    "a length that is no number": [*HEAD, ("content-length", "+1")],
    "two lengths": [*HEAD, ("content-length", "1"), ("content-length", "2")],
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
@in_loop
async def test_a_malformed_request_ends_alone(name):
    pair = Pair()
    pair.give(frame(wire.HEADERS, 4, 1, pair.encoder.encode(STREAM_FAULTS[name])), frame(wire.DATA, 1, 1, b"x"))
    pair.give(pair.request(3))
    frames = await pair.taken()
    assert codes(frames, wire.RST_STREAM) == [ErrorCode.PROTOCOL_ERROR]
    assert (wire.DATA, 0, 3, b"x") in frames


@pytest.mark.parametrize(("length", "body"), [("2", b"x"), ("0", b"x"), ("5", b"")])
@in_loop
async def test_a_body_must_be_as_long_as_its_length_says(length, body):
    pair = Pair()
    pair.give(pair.request(1, body, **{"content-length": length}), pair.request(3, b"ok", **{"content-length": "2"}))
    frames = await pair.taken()
    assert codes(frames, wire.RST_STREAM) == [ErrorCode.PROTOCOL_ERROR]
    assert (wire.DATA, 0, 3, b"ok") in frames


@in_loop
async def test_data_after_the_end_ends_its_stream():
    pair = Pair()
    pair.give(pair.request(1, path="/late"), frame(wire.DATA, 0, 1, b"more"))
    assert codes(await pair.taken(), wire.RST_STREAM) == [ErrorCode.STREAM_CLOSED]
    assert pair.app.calls[0].is_lost


@in_loop
async def test_what_comes_for_an_answered_stream_is_dropped():
    pair = Pair()
    pair.give(pair.head(1, "/late"))
    pair.app.calls[0].answer(b"no more")
    frames = await pair.taken()
    assert codes(frames, wire.RST_STREAM) == [ErrorCode.NO_ERROR]
    pair.give(frame(wire.DATA, wire.END_STREAM, 1, b"late"), wire.window_update(1, 5), pair.request(3))
    frames = await pair.taken()
    assert not codes(frames, wire.RST_STREAM)
    assert (wire.DATA, 0, 3, b"x") in frames


@in_loop
async def test_requests_beyond_the_limit_are_refused():
    pair = Pair(streams=3)
    pair.give(*[pair.request(stream_id, path="/late") for stream_id in (1, 3, 5, 7)])
    frames = await pair.taken()
    assert [(kind, stream) for kind, _, stream, _ in frames if kind == wire.RST_STREAM] == [(wire.RST_STREAM, 7)]
    assert codes(frames, wire.RST_STREAM) == [ErrorCode.REFUSED_STREAM]
    pair.app.calls[0].answer()
    pair.give(pair.request(9, path="/late"))
    assert not codes(await pair.taken(), wire.RST_STREAM)


@in_loop
async def test_a_cancelled_request_is_not_answered():
    pair = Pair()
    pair.give(pair.request(1, path="/late"), wire.rst_stream(1, ErrorCode.CANCEL))
    await pair.taken()
    assert pair.app.calls[0].is_lost
    pair.app.calls[0].answer()
    assert await pair.taken() == []


@in_loop
async def test_what_is_no_http2_is_told_so():
    pair = Pair(greet=False)
    pair.give(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    frames = await pair.taken()
    assert b"speaks gRPC" in frames[-1][3]
    assert pair.transport.is_closed


# Bounds

FLOODS = {
    "resets": lambda pair, id: pair.head(id) + wire.rst_stream(id, ErrorCode.CANCEL),
    "pings": lambda pair, id: frame(wire.PING, 0, 0, b"8" * 8),
    "settings": lambda pair, id: wire.settings_frame({}),
    "acknowledgements": lambda pair, id: frame(wire.SETTINGS, wire.ACK, 0),
    "priorities": lambda pair, id: frame(wire.PRIORITY, 0, id, b"\0\0\0\0\1"),
    "empty data": lambda pair, id: (pair.head(1, "/late") if id == 1 else b"") + frame(wire.DATA, 0, 1),
    "unknown frames": lambda pair, id: frame(0x42, 0, id, b"?"),
    "malformed requests": lambda pair, id: frame(wire.HEADERS, 5, id, b"\x82"),
    "empty continuations": lambda pair, id: (
        frame(wire.HEADERS, 1, 1, b"\x82") if id == 1 else frame(wire.CONTINUATION, 0, 1)
    ),
}


@pytest.mark.parametrize("name", FLOODS)
@in_loop
async def test_a_flood_ends_the_connection(name):
    pair = Pair(burst=50)
    for stream_id in range(1, 301, 2):
        pair.give(FLOODS[name](pair, stream_id))
    assert codes(await pair.taken(), wire.GOAWAY) == [ErrorCode.ENHANCE_YOUR_CALM]


@in_loop
async def test_patience_comes_back_with_time():
    pair = Pair(burst=50, frames_per_s=10.0)
    for now_s in range(20):
        pair.sweep(float(now_s))
        pair.give(*[frame(wire.PING, 0, 0, b"8" * 8)] * 10)
    assert not codes(await pair.taken(), wire.GOAWAY)


@in_loop
async def test_windows_that_open_by_single_bytes_are_a_flood_too():
    pair = Pair(burst=50)
    pair.give(wire.settings_frame({wire.INITIAL_WINDOW_SIZE: 0}), pair.request(1, b"x" * 1000))
    for _ in range(60):
        pair.give(wire.window_update(1, 1))
    assert codes(await pair.taken(), wire.GOAWAY) == [ErrorCode.ENHANCE_YOUR_CALM]


@in_loop
async def test_who_does_not_read_is_asked_for_nothing():
    pair = Pair()
    pair.give(wire.window_update(0, 1 << 20), wire.settings_frame({wire.INITIAL_WINDOW_SIZE: 1 << 20}))
    pair.give(pair.request(1, path="/late"), pair.request(3, path="/late"))
    await pair.taken()
    pair.server.pause_writing()
    assert pair.transport.is_reading_paused
    pair.app.calls[0].answer(b"a" * 40_000)
    pair.app.calls[1].answer(b"b" * 40_000)
    assert not [kind for kind, *_ in await pair.taken() if kind == wire.DATA]
    pair.server.resume_writing()
    assert not pair.transport.is_reading_paused
    assert sum(len(payload) for kind, _, _, payload in await pair.taken() if kind == wire.DATA) == 80_000
    assert [call.drains for call in pair.app.calls] == [1, 1]


# Time


@in_loop
async def test_a_client_that_says_nothing_is_closed():
    pair = Pair(greet=False)
    pair.sweep(5.0)
    assert not pair.transport.is_closed
    pair.sweep(11.0)
    assert codes(await pair.taken(), wire.GOAWAY) == [ErrorCode.SETTINGS_TIMEOUT]


@in_loop
async def test_a_head_that_is_not_continued_in_time_is_given_up():
    pair = Pair()
    pair.give(pair.head(1, flags=0))
    pair.sweep(11.0)
    assert codes(await pair.taken(), wire.GOAWAY) == [ErrorCode.ENHANCE_YOUR_CALM]


@in_loop
async def test_a_request_that_takes_too_long_is_given_up_and_a_stream_is_not():
    pair = Pair()
    pair.give(pair.head(1), pair.head(3, "/stream"), pair.request(5, path="/late"))
    for now_s in range(1, 70):
        pair.sweep(float(now_s))
        pair.give(frame(wire.PING, 0, 0, b"8" * 8))
    frames = await pair.taken()
    assert [(kind, stream) for kind, _, stream, _ in frames if kind == wire.RST_STREAM] == [(wire.RST_STREAM, 1)]
    assert [call.is_lost for call in pair.app.calls] == [True, False, False]


@in_loop
async def test_a_stream_that_stops_within_a_message_is_given_up_and_one_that_goes_on_is_not():
    pair = Pair()
    pair.give(pair.head(1, "/partial"), pair.head(3, "/partial"), pair.request(5, path="/partial"))
    for now_s in range(1, 200):
        if now_s < 100:
            pair.give(frame(wire.DATA, 0, 1, b"x"))
        pair.give(frame(wire.DATA, 0, 3, b"x"), frame(wire.PING, wire.ACK, 0, b"8" * 8))
        pair.sweep(float(now_s))
        if now_s == 158:
            assert not pair.app.calls[0].is_lost, "60 s since its last bytes"
    frames = await pair.taken()
    assert [(kind, stream) for kind, _, stream, _ in frames if kind == wire.RST_STREAM] == [(wire.RST_STREAM, 1)]
    assert [call.is_lost for call in pair.app.calls] == [True, False, False], "the last one was sent whole"


@in_loop
async def test_an_idle_connection_is_closed():
    pair = Pair()
    pair.give(pair.request(1))
    pair.sweep(1.0, 200.0)
    await pair.taken()
    pair.sweep(302.0)
    assert codes(await pair.taken(), wire.GOAWAY) == [ErrorCode.NO_ERROR]
    pair.sweep(304.0)  # the client does not answer the last ping
    assert codes(await pair.taken(), wire.GOAWAY) == [ErrorCode.NO_ERROR]
    assert pair.transport.is_closed


@in_loop
async def test_a_silent_client_with_open_requests_is_asked_and_then_given_up():
    pair = Pair()
    pair.give(pair.request(1, path="/late"))
    pair.sweep(1.0, 50.0)
    await pair.taken()
    pair.sweep(62.0)
    assert (wire.PING, 0, 0, b"\0" * 8) in await pair.taken()
    pair.give(frame(wire.PING, wire.ACK, 0, b"\0" * 8))
    pair.sweep(63.0, 124.0)
    assert (wire.PING, 0, 0, b"\0" * 8) in await pair.taken()
    assert not pair.transport.is_aborted
    pair.sweep(185.0)
    assert pair.transport.is_aborted


@in_loop
async def test_a_client_that_takes_nothing_loses_its_stream_or_its_connection():
    pair = Pair()
    pair.give(wire.settings_frame({wire.INITIAL_WINDOW_SIZE: 0}), pair.request(1))
    pair.sweep(20.0)
    assert not pair.app.calls[0].is_lost
    pair.sweep(31.0)
    assert codes(await pair.taken(), wire.RST_STREAM) == [ErrorCode.CANCEL]
    pair.server.pause_writing()
    pair.sweep(62.0)
    assert pair.transport.is_aborted


@in_loop
async def test_a_close_that_does_not_come_through_is_enforced():
    pair = Pair()
    pair.give(frame(wire.PING, 0, 0, b"short"))
    assert pair.transport.is_closed
    pair.sweep(10.0)
    assert not pair.transport.is_aborted
    pair.sweep(31.0)
    assert pair.transport.is_aborted


# The end


@in_loop
async def test_a_lost_connection_loses_its_requests():
    pair = Pair()
    pair.give(pair.request(1, path="/late"))
    pair.server.connection_lost(None)
    assert pair.app.calls[0].is_lost
    assert pair.gone == [pair.server]
    pair.app.calls[0].answer()
    await settle()


@in_loop
async def test_half_a_connection_is_enough_to_answer_on():
    pair = Pair()
    pair.give(pair.request(1, path="/late"))
    assert pair.server.eof_received() is True
    pair.app.calls[0].answer(b"answer")
    assert (wire.DATA, 0, 1, b"answer") in await pair.taken()
    assert pair.transport.is_closed
    assert Pair().server.eof_received() is False


@in_loop
async def test_under_tls_there_is_no_half_a_connection():
    pair = Pair()
    pair.give(pair.request(1, path="/late"))
    pair.transport.encrypted = object()
    assert pair.server.eof_received() is False


@in_loop
async def test_requests_after_the_last_call_are_not_taken():
    pair = Pair()
    pair.give(pair.request(1, path="/late"))
    pair.server.stop()
    pair.sweep(2.0)
    pair.give(pair.request(3), wire.window_update(3, 5), wire.rst_stream(3, ErrorCode.CANCEL))
    assert len(pair.app.calls) == 1
    frames = await pair.taken()
    assert codes(frames, wire.GOAWAY) == [ErrorCode.NO_ERROR, ErrorCode.NO_ERROR]
    assert not pair.transport.is_closed


# Anything


def _steps():
    """Frames as a client might send them, and as none should."""
    ids = st.sampled_from([0, 1, 2, 3, 5, 7, 9, 11])
    payloads = st.one_of(st.binary(max_size=40), st.sampled_from([b"\0\0\0\1", b"\0\0\0\0\0\0\0\0", b"x" * 20_000]))
    blocks = st.sampled_from(
        [Encoder().encode(HEAD), b"\x82\x87\x84", b"\x20\x82", b"\xbe", header_block([(b"a", b"b")])]
    )
    return st.one_of(
        st.builds(frame, st.integers(0, 11), st.integers(0, 255), ids, payloads),
        st.builds(frame, st.just(wire.HEADERS), st.sampled_from([0, 1, 4, 5]), ids, blocks),
        st.builds(frame, st.just(wire.DATA), st.sampled_from([0, 1, 8, 9]), ids, payloads),
        st.builds(frame, st.just(wire.CONTINUATION), st.sampled_from([0, 4]), ids, blocks),
        st.builds(wire.window_update, ids, st.sampled_from([0, 1, 1000, 2**31 - 1])),
        st.builds(lambda size: wire.settings_frame({wire.INITIAL_WINDOW_SIZE: size}), st.integers(0, 2**31)),
    )


async def _told(chunks, answers):
    """What a connection says to these bytes, and that it keeps its promises meanwhile."""
    pair = Pair(burst=200)
    for place, chunk in enumerate(chunks):
        if pair.transport.is_closed:
            break
        pair.give(chunk)
        for call in pair.app.calls[: answers.get(place, 0)]:
            call.answer()
        await settle()
    for call in pair.app.calls:
        assert not (call.is_lost and not call.stream.is_local_closed)
    frames = await pair.taken()
    pair.sweep(1000.0, 2000.0)
    pair.server.connection_lost(None)
    assert not pair.server._streams
    return frames


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(_steps(), max_size=25), st.dictionaries(st.integers(0, 24), st.integers(0, 9), max_size=4))
@in_loop
async def test_no_sequence_of_frames_breaks_the_connection(steps, answers):
    await _told(steps, answers)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(_steps(), max_size=12), st.lists(st.integers(0, 3000), max_size=8))
@in_loop
async def test_where_the_bytes_are_cut_makes_no_difference(steps, cuts):
    data = b"".join(steps)
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    parts = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]
    assert await _told(parts, {}) == await _told([data] if data else [], {})


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
@in_loop
async def test_no_bytes_break_the_connection(data, is_greeted):
    pair = Pair(greet=is_greeted)
    pair.give(data)
    await pair.taken()
    pair.server.connection_lost(None)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_no_block_breaks_the_reader(block):
    reader = HeadReader(lambda head: head, 4_096)
    for _ in range(2):
        with contextlib.suppress(Malformed, ConnectionFault):
            reader.request(block)
