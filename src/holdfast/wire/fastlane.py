"""The fast lane: requests in their usual form are answered beside ASGI, all others go on into it.

A small subclass of uvicorn's protocol. A request head that was seen before is known by its bytes: what it means was
read by the same parser then, so nothing is guessed. Tests hold this class against the uvicorn that is installed, and
the fast lane against plain ASGI.
"""

import re
import struct
from collections import deque
from fcntl import ioctl
from termios import FIONREAD
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from holdfast.core.clock import stopwatch_s
from holdfast.serve.quick import Known, Quick
from holdfast.wire.fastlaneflow import Flow, Outlet
from holdfast.wire.heads import HEAD_LIMIT_BYTES, Heads
from holdfast.wire.http import Answer, error_of, too_many, with_bytes

MOST_IN_FLIGHT = 128
"""Requests of one connection that are answered at a time; beyond it nothing more is read from it."""
REQUEST_S = 30.0
"""How long a client may take to send one request, from its first byte to its last."""
IDLE_S = 75.0
"""How long a connection may lie idle."""

_END = b"\r\n\r\n"
_LARGE_BYTES = 64 * 1024
"""A request larger than this that came in several packets waits until those before it are answered."""
_SMALL_BYTES = 16 * 1024
"""A request up to this size that came in one packet is not counted among what the worker holds: the queue bounds how
many of them wait, and the usual ones need not pay."""
_PIECE_BYTES = 16 * 1024
"""What uvicorn's parser is given at a time: few requests fit into it, and each costs it some kilobytes."""
_NO_HEAD = re.compile(rb"[^A-Z\r\n]|[^\r\n]+\n")
"""The beginning of what cannot become a head: it is refused at once, rather than waited for."""
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)


class FastLane(HttpToolsProtocol):
    """One connection.

    It is in one of two states. Either whole requests are cut from what comes in and answered as usual (`_in_flight`),
    or uvicorn's parser has it (`_is_slow`), until what that was given is parsed and answered. What comes too early
    for either is held (`_held`), and nothing is read meanwhile.
    """

    heads: Heads
    """Shared by the connections of a worker; `fast_lane` sets it."""
    ok = (b"", b"")
    """Head of a good answer up to its length: of JSON, and of JSON with bytes behind it."""
    ok_headers: object = None
    """The default headers that stand in it, which change with the date."""
    flow: Flow

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_flight: deque[Quick] = deque()
        self._parts = bytearray()
        self._wanted = 0
        self._held = b""
        self._is_slow = False
        self._is_parsing = False
        self._is_in_head = False
        self._head_bytes = 0
        self._refusal = 0
        self._running: Any = None
        self._is_deaf = False
        self._is_ending = False
        self._is_at_end = False
        self._is_open = False
        self._began_s = 0.0
        self._quiet_s = stopwatch_s()
        self._unsent = 0
        self._counted = 0
        """Bytes that the worker holds for this connection, by its count."""

    # What the transport says

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        self._is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        self._parts.clear()
        self._held = b""
        self._in_flight = deque(call for call in self._in_flight if not call.is_answered)  # the others are still run
        self._has_room()
        if self._running is not None:
            self._running.transport = self.transport
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        now_s = self._quiet_s = stopwatch_s()
        if self._held:
            self._held += data
        elif self._parts:
            self._add(data, now_s)
        elif self._is_slow:
            self._feed(data)
        else:
            self._take(data, now_s)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that sends no more still gets the answers to what it sent, but under TLS, which knows no half of a
        connection."""
        self._parts.clear()
        self._has_room()
        self._began_s = 0.0
        self._is_ending = self._is_at_end = True
        is_cut_off = self._is_parsing and not self.pipeline and self.cycle is not None and self.cycle.more_body
        return self._is_owed() and not is_cut_off and self.scheme != "https"

    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.pause_reading()  # who does not read the answers is asked for no more questions

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._held and not (self._in_flight or self.pipeline):
            self._go_on()
        else:
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """Answer what was accepted or is coming in, then close."""
        self._is_ending = True
        if self._is_deaf:
            self.transport.close()
        elif not (self._in_flight or self._held or self._parts or self._is_parsing or self._has_unread()):
            super().shutdown()

    def _is_owed(self) -> bool:
        """True while an answer is on its way."""
        return bool(self._in_flight or self._held) or (self.cycle is not None and not self.cycle.response_complete)

    def _has_unread(self) -> bool:
        """True where the client sent what was not read yet."""
        socket = self.transport.get_extra_info("socket")
        if socket is None or self.scheme == "https" or self.transport.is_closing():
            return False
        waiting: int = struct.unpack("i", ioctl(socket.fileno(), FIONREAD, bytes(4)))[0]
        return waiting > 0

    # The lane

    def _add(self, data: bytes, now_s: float) -> None:
        """Take more of a request of which there are parts."""
        self._parts += data
        if len(self._parts) < self._wanted:
            if not self._has_room():
                self._turn_away()
            return
        whole = bytes(self._parts)
        self._parts.clear()
        if self._in_flight and len(whole) > _LARGE_BYTES:
            self._hold(whole)
        else:
            self._take(whole, now_s)

    def _take(self, data: bytes, now_s: float) -> None:
        """Accept the usual requests in front; leave the rest to uvicorn."""
        start, size = 0, len(data)
        while start < size:
            end = data.find(_END, start) + 4
            if end < 4:
                if size - start > HEAD_LIMIT_BYTES:
                    self._refuse_head(data[start:])
                elif _NO_HEAD.match(data, start):
                    self._slow(b"", data[start:], b"")
                else:
                    self._wait(data[start:], 0, now_s)
                return
            head = data[start:end]
            known = self.heads.known(head)
            if known is None or len(self._in_flight) >= MOST_IN_FLIGHT:
                self._slow(head, data[start:], data[end:])
                return
            stop = end + known.length
            if stop > size:
                self._wait(data[start:], stop - start, now_s)
                return
            if known.length > _SMALL_BYTES and not self._has_room(known.length):
                self._parts += data[start:]
                self._turn_away()
                return
            self._began_s = 0.0
            self._accept(known, data[end:stop], now_s)
            start = stop

    def _accept(self, known: Known, body: bytes, now_s: float) -> None:
        call = self.heads.call(self, known, body, now_s)
        self._in_flight.append(call)
        if call.values is None or not self.heads.batcher.submit(call):
            self._go_general(call)

    def _wait(self, part: bytes, wanted: int, now_s: float) -> None:
        self._parts += part
        self._wanted = wanted
        self._began_s = self._began_s or now_s
        if wanted and not self._has_room():
            self._turn_away()

    def _has_room(self, more: int = 0) -> bool:
        """Count what is held here, and so many bytes more; False, and nothing is counted, where the worker holds too
        much for that."""
        held = len(self._parts) + len(self._held) + sum([len(call.body) for call in self._in_flight]) + more
        bodies = self.heads.bodies
        if held > self._counted and not bodies.hold(held - self._counted):
            return False
        if held < self._counted:
            bodies.release(self._counted - held)
        self._counted = held
        return True

    def _turn_away(self) -> None:
        """Refuse the request of which there are parts and for which there is no room, once those before it are
        answered; what of it still comes goes by."""
        parts = bytes(self._parts)
        self._parts.clear()
        end = parts.find(_END) + 4
        known = self.heads.known(parts[:end])
        if self._in_flight or known is None:
            self._slow(parts[:end], parts, parts[end:])
            return
        answer = too_many(self.heads.bodies)
        self.heads.app.count(answer, known.place)
        self.transport.write(self._written(answer))
        self._has_room()
        self._is_slow = True
        if self._is_at_end:
            self.transport.close()
            return
        self._began_s = self._began_s or self._quiet_s  # what still comes has its time too
        self.ignore()

    def _slow(self, head: bytes, data: bytes, behind: bytes) -> None:
        """Leave requests to uvicorn once those before them are answered: answers keep the order of their questions.

        `data` begins with a request whose head is `head`, empty where it is none; `behind` is what follows the head.
        """
        if self._in_flight:
            self._hold(data)
        elif len(head) > HEAD_LIMIT_BYTES:
            self._refuse_head(data)
        elif _UPGRADE.search(head):  # other protocols are not spoken here, and the parser would not read the body
            self._take(_UPGRADE.sub(b"", head) + behind, self._quiet_s)
        else:
            self._feed(data)

    def _hold(self, data: bytes) -> None:
        self._held = data
        if not self._is_parsing:
            self._began_s = 0.0
        self.flow.is_holding = True
        self.flow.pause_reading()

    def _go_on(self) -> None:
        """Go on with what was held."""
        held, self._held = self._held, b""
        if self._counted:
            self._has_room()
        if self.transport.is_closing():
            return
        self.flow.is_holding = False
        self.flow.resume_reading()
        if self._is_slow:
            self._feed(held)
        else:
            self._take(held, self._quiet_s)

    def unusual(self, call: Quick) -> None:
        """Answer a call that was submitted the general way: something in it needs a closer look."""
        if call.values is None:
            return
        self.heads.batcher.answered(call)
        self._go_general(call)

    def _go_general(self, call: Quick) -> None:
        call.values = None
        task = self.loop.create_task(self._generally(call))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _generally(self, call: Quick) -> None:
        call.answer = await self.heads.app.take(call.known.place, call.body, call.known.headers, call.caller)
        self._settle(call)

    def answered(self, call: Quick) -> None:
        """Take the answer of a call that was submitted."""
        if call.values is None:  # it has its answer, or goes the general way by now
            return
        call.values = None
        self.heads.batcher.answered(call)
        if call.error is not None:
            call.answer = error_of(call.error, call.body)
        self._settle(call)

    def _settle(self, call: Quick) -> None:
        """Send what can be sent: answers leave in the order in which their requests came."""
        call.is_answered = True
        waiting = self._in_flight
        if not self._is_open:
            # They know this connection: while one is left, both outlive themselves until the next collection.
            waiting.remove(call)
            self._has_room()
            return
        if len(waiting) == 1:
            waiting.clear()
            self.transport.write(self._response(call))
        else:
            ready: list[bytes] = []
            while waiting and waiting[0].is_answered:
                ready.append(self._response(waiting.popleft()))
            if ready:
                self.transport.write(b"".join(ready))
        if self._counted:
            self._has_room()
        if not waiting and (self._held or self._is_ending):
            self._drained()

    def _drained(self) -> None:
        if self._held:
            if not self.flow.write_paused:  # otherwise `resume_writing` goes on
                self._go_on()
        elif not (self._parts or self._has_unread()):
            self.transport.close()

    def _response(self, call: Quick) -> bytes:
        if call.answer is None and not self._is_ending:
            payload = call.payload
            if call.json_length:
                return b"%b%d\r\ncontent-length: %d\r\n\r\n%b" % (
                    self._ok()[1],
                    call.json_length,
                    len(payload),
                    payload,
                )
            return b"%bcontent-length: %d\r\n\r\n%b" % (self._ok()[0], len(payload), payload)
        answer = call.answer
        if answer is None:
            answer = with_bytes(call.payload, call.json_length) if call.json_length else Answer(200, call.payload)
        self.heads.app.count(answer, call.known.place)
        is_last = self._is_ending and not (self._in_flight or self._held or self._parts or self._has_unread())
        return self._written(answer, ((b"connection", b"close"),) if is_last else ())

    def _written(self, answer: Answer, more: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
        headers = [
            *self.server_state.default_headers,
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
            *more,
        ]
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return b"%b%b\r\n%b" % (STATUS_LINE[answer.status], lines, answer.body)

    def _ok(self) -> tuple[bytes, bytes]:
        headers, kind = self.server_state.default_headers, type(self)
        if kind.ok_headers is not headers:
            lines = STATUS_LINE[200] + b"".join([b"%b: %b\r\n" % header for header in headers])
            of_bytes = with_bytes(b"", 0)
            [(length, _)] = of_bytes.headers
            kind.ok = (
                lines + b"content-type: application/json\r\n",
                lines + b"content-type: %b\r\n%b: " % (of_bytes.content_type, length),
            )
            kind.ok_headers = headers
        return kind.ok

    # The way through uvicorn

    def _feed(self, data: bytes) -> None:
        """Let uvicorn's parser have it, but only as much as makes one request wait for another."""
        if self._counted:  # what the parser has is counted by the application as it takes it
            self._has_room()
        start = 0
        while start < len(data) and not (self._refusal or self._is_deaf or self.transport.is_closing()):
            if self.pipeline:
                self._hold(data[start:])
                return
            piece = data[start : start + _PIECE_BYTES]
            start += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade:
                # Where its message ends cannot be known, so this is the last one.
                self.cycle.keep_alive = False
                self._is_parsing = False
                return
            except httptools.HttpParserError:
                self._refuse(400)
                return
            if self._is_in_head:
                self._head_bytes += len(piece)
                if self._head_bytes > HEAD_LIMIT_BYTES + _PIECE_BYTES:
                    self._refuse(431)

    def on_message_begin(self) -> None:
        self._is_slow = self._is_parsing = self._is_in_head = True
        self._head_bytes = 0
        self._began_s = self._began_s or stopwatch_s()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_parsing = False
        self._began_s = 0.0
        if self.cycle.response_complete:  # it was answered before its body was read
            self._all_sent()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # usual requests would not stop that timer; `close_if_overdue` looks
        self._quiet_s = stopwatch_s()
        if self.cycle.response_complete:
            self._all_sent()
        if self._held and not (self.pipeline or self._in_flight or self.flow.write_paused):
            self._go_on()

    def _all_sent(self) -> None:
        """Everything that was parsed is answered."""
        self._is_slow = self._is_parsing
        if self._is_deaf:
            return
        if self._refusal:
            self._refuse(self._refusal)
        elif self._is_ending and not self._held and (self._is_at_end or not (self._is_parsing or self._has_unread())):
            self.transport.close()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        cycle.transport = Outlet(self)
        super()._start_asgi_task(cycle, app)

    def is_coming_in(self) -> bool:
        """True while the body of the request that is being answered is."""
        return self._is_parsing and self.cycle is self._running and self.cycle.more_body and not self._is_at_end

    def ignore(self) -> None:
        """Say that nothing more is answered, and let what still comes in go by, until the client ends or time does."""
        self._is_deaf = True
        if self.scheme != "https":
            self.transport.write_eof()

    def _refuse(self, status: int) -> None:
        """Refuse what cannot be parsed, once everything before it is answered, and close."""
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope and self.pipeline:
            self.pipeline.popleft()  # the broken request itself is waiting
            self.cycle = cycle = self.pipeline[0][0] if self.pipeline else self._running
        is_broken = cycle is not None and cycle.scope is self.scope
        if cycle is None or cycle.response_complete or is_broken:
            if cycle is not None and is_broken and cycle.response_started:
                self.transport.close()
            elif status == 431:
                self._send_431()
            else:
                self.send_400_response("Invalid HTTP request received.")
            return
        self._refusal = status
        self._is_parsing = False
        self._began_s = 0.0
        self.flow.is_holding = True
        self.flow.pause_reading()

    def _refuse_head(self, data: bytes) -> None:
        if self._in_flight:
            self._hold(data)
        else:
            self._send_431()

    def _send_431(self) -> None:
        body = b'{"error":"the head of the request is larger than 64 KiB; send fewer or shorter headers"}'
        lines = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        lines += b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[431] + lines + body)
        self.transport.close()

    # What time says

    def close_if_overdue(self, now_s: float) -> None:
        """Close the connection of a client that takes too long over a request, or sends none for too long.

        One that does not take its answers either is cut off the next time.
        """
        if self._began_s:
            is_overdue = now_s - self._began_s > REQUEST_S
        elif self._is_owed() and not self.transport.is_closing():
            self._quiet_s = now_s
            return
        else:
            is_overdue = now_s - self._quiet_s > IDLE_S
        if not is_overdue:
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent != self._unsent:  # it is still taking its answers
            self._unsent, self._quiet_s = unsent, now_s
            self._began_s = now_s if self._began_s else 0.0
        elif self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.close()


def fast_lane(heads: Heads) -> type[FastLane]:
    """The protocol class of one worker."""
    return type("FastLaneOfWorker", (FastLane,), {"heads": heads})
