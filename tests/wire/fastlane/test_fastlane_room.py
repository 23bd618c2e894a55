"""What all connections of a worker hold of requests together is bounded, and the usual requests do not notice."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.clock import stopwatch_s
from holdfast.wire.fastlane import _SMALL_BYTES, REQUEST_S

ROW = {"a": 1.0, "b": 2.0, "c": 3.0}
LARGE = 100_000
ROOM = 4 * LARGE + 5_000
"""For four such requests with their heads."""


@pytest.fixture
def served(kit):
    made = kit.Served()
    made.app.bodies.limit_bytes = ROOM
    yield made
    made.close()


def large(kit, size=LARGE, path="/predict/numbers"):
    """A request of so many bytes, but for its last: it never comes by itself."""
    body = json.dumps(ROW).encode()
    return kit.request(path, body[:-1] + b" " * (size - len(body)) + b"}")


def begun(served, request):
    """A connection on which all of a request but its last byte has come."""
    line = served.connect()
    for at in range(0, len(request) - 1, 30_000):
        line.send(request[: len(request) - 1][at : at + 30_000])
    return line


@pytest.mark.parametrize("path", ["/predict/numbers", "/labels/numbers"])
def test_a_thousand_connections_hold_no_more_than_the_bound(kit, served, path):
    request = large(kit, path=path)
    lines = [begun(served, request) for _ in range(50)]
    assert ROOM - LARGE <= served.app.bodies.held_bytes <= ROOM
    refused = [line for line in lines if line.sent]
    assert len(refused) == served.app.refused == 50 - ROOM // LARGE
    for line in refused:
        [answer] = kit.responses(line.sent)
        assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (503, "1", "close")
        assert line.transport.is_done
    for line in lines:
        if line not in refused and not line.transport.is_closed:
            line.send(request[-1:])
            [answer] = kit.responses(line.sent)
            assert answer.status == (200 if "predict" in path else 422)
    assert served.app.bodies.held_bytes == 0
    assert kit.responses(begun(served, request).send(request[-1:]).sent)[0].status != 503


def test_small_requests_are_answered_while_there_is_no_room(kit, served):
    lines = [begun(served, large(kit)) for _ in range(10)]
    for _ in range(3):
        assert [each.status for each in kit.responses(served.ask(kit.request("/predict/numbers", ROW) * 20))] == [
            200
        ] * 20
    assert len({line.sent[:12] for line in lines}) == 2, "some wait and some are refused"


def test_a_large_request_in_one_packet_is_counted_too(kit, served):
    held = [begun(served, large(kit)) for _ in range(4)]
    whole = large(kit, _SMALL_BYTES + 1)
    assert [each.status for each in kit.responses(served.ask(whole))] == [503]
    assert [each.status for each in kit.responses(served.ask(large(kit, _SMALL_BYTES)))] == [200]
    held.pop().call(lambda: None)
    served.app.bodies.limit_bytes = ROOM * 2
    assert [each.status for each in kit.responses(served.ask(whole * 3))] == [200] * 3


def test_what_was_answered_before_a_refusal_is_answered_in_order(kit, served):
    lines = [begun(served, large(kit)) for _ in range(4)]
    line = served.connect().send(kit.request("/predict/numbers", ROW) * 2 + large(kit))
    assert [each.status for each in kit.responses(line.sent)] == [200, 200, 503]
    assert all(not other.sent for other in lines)


def test_a_connection_that_is_lost_gives_its_room_back(kit, served):
    lines = [begun(served, large(kit)) for _ in range(4)]
    lines += [begun(served, large(kit, path="/labels/numbers"))]
    for line in lines:
        line.call(line.transport.lose)
    assert served.app.bodies.held_bytes == 0


class Late:
    """Holds answers back until it is told to give them."""

    def __init__(self, served):
        self._served, self._waiting = served, []
        self._record = served.plane.recorder.record_predictions
        served.plane.recorder.record_predictions = self._later

    def _later(self, *arguments, done, **named):
        self._record(*arguments, done=lambda error: self._waiting.append((done, error)), **named)

    def pause(self):
        """Hold no more back than there is."""
        self._served.plane.recorder.record_predictions = self._record

    def give(self):
        self.pause()
        for done, error in self._waiting:
            self._served.loop.call_soon(done, error)
        self._served.settle()


@pytest.fixture
def late(served):
    return Late(served)


def in_packets(request):
    return [request[at : at + 30_000] for at in range(0, len(request), 30_000)]


def test_what_a_lost_connection_asked_is_counted_until_it_is_answered(kit, served, late):
    lines = [served.connect().send(*in_packets(large(kit))) for _ in range(3)]
    for line in lines:
        line.call(line.transport.lose)
    assert served.app.bodies.held_bytes > 2.9 * LARGE, "the batcher still holds them"
    more = [begun(served, large(kit)) for _ in range(3)]
    assert [bool(line.sent) for line in more] == [False, True, True], "and no others take their place meanwhile"
    more[0].call(more[0].transport.lose)
    late.give()
    assert served.app.bodies.held_bytes == 0
    assert served.is_at_rest()


def test_a_lost_connection_keeps_nothing_of_answers_that_waited_for_an_earlier_one(kit, served, late):
    line = served.connect().send(*in_packets(large(kit, 50_000)))
    late.pause()
    line.send(*in_packets(large(kit, 50_000)))
    assert [call.is_answered for call in line.protocol._in_flight] == [False, True]
    line.call(line.transport.lose)
    assert 0 < served.app.bodies.held_bytes < LARGE, "of the first one only"
    late.give()
    assert served.app.bodies.held_bytes == 0


def test_a_client_that_sends_no_more_is_turned_away_and_closed(kit, served, late):
    for _ in range(4):
        begun(served, large(kit))
    line = served.connect().send(kit.request("/predict/numbers", ROW) + large(kit))
    line.end()
    assert not line.sent
    late.give()
    assert [answer.status for answer in kit.responses(line.sent)] == [200, 503]
    assert line.transport.is_closed


def test_who_is_turned_away_and_goes_on_sending_is_cut_off_in_time(kit, served):
    for _ in range(4):
        begun(served, large(kit))
    line = served.connect().send(large(kit))
    assert [answer.status for answer in kit.responses(line.sent)] == [503]
    line.send(b"x" * 50_000)
    line.call(lambda: line.protocol.close_if_overdue(stopwatch_s() + REQUEST_S / 2))
    assert not line.transport.is_closed, "it may read its answer first"
    line.send(b"x" * 50_000)
    line.call(lambda: line.protocol.close_if_overdue(stopwatch_s() + REQUEST_S + 1))
    assert line.transport.is_closed


def test_a_client_that_is_done_in_the_middle_gives_its_room_back(kit, served):
    line = begun(served, large(kit))
    assert served.app.bodies.held_bytes > 0
    line.end()
    assert served.app.bodies.held_bytes == 0


def test_requests_that_change_their_head_in_the_middle_give_their_room_back(kit, served):
    request = large(kit)
    line = begun(served, request)
    served.follow()  # heads are forgotten
    line.send(request[-1:])
    assert [each.status for each in kit.responses(line.sent)] == [200]
    assert served.app.bodies.held_bytes == 0


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["part", "part", "part", "whole", "small", "chunked", "rest", "lose", "end", "late", "routes"]),
        st.sampled_from([1, 100, 5_000, 20_000, 70_000, 200_000]),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(events=EVENTS)
def test_whatever_clients_do_the_bound_holds_and_all_room_comes_back(kit, served, events):
    waiting = []
    record = served.plane.recorder.record_predictions

    def late(*arguments, done, **named):
        return record(*arguments, done=lambda error: waiting.append((done, error)), **named)

    served.plane.recorder.record_predictions = late
    bodies = served.app.bodies
    lines = [served.connect() for _ in range(4)]
    rests = [b""] * 4
    try:
        for i, kind, size in events:
            line = lines[i]
            if kind in ("part", "whole", "small", "chunked", "rest"):
                request = large(kit, max(size, 60))
                if kind == "small":
                    request = kit.request("/predict/numbers", ROW) * 3
                elif kind == "chunked":
                    body = b"%x\r\n%b\r\n" % (size, b" " * size)
                    request = kit.request("/predict/numbers", body, content_length=None, transfer_encoding="chunked")
                elif kind == "rest":
                    request = rests[i]
                sent = request[: len(request) // 2] if kind == "part" else request
                if not line.transport.is_lost:
                    line.send(*[sent[at : at + 50_000] for at in range(0, len(sent), 50_000)])
                rests[i] = request[len(sent) :]
            elif kind == "lose":
                line.call(line.transport.lose)
                lines[i], rests[i] = served.connect(), b""
            elif kind == "end" and not line.transport.is_closed:
                line.end()
            elif kind == "routes":
                served.follow()
            elif kind == "late":
                some, waiting[:] = waiting[:], []
                for done, error in some:
                    line.call(lambda done=done, error=error: done(error))
            assert 0 <= bodies.held_bytes <= ROOM
    finally:
        for _ in range(1_000):
            some, waiting[:] = waiting[:], []
            for done, error in some:
                lines[0].call(lambda done=done, error=error: done(error))
            served.settle()
            if not waiting:
                break
        for line in lines:
            if not line.transport.is_lost:
                line.call(line.transport.lose)
        served.settle()
        served.plane.recorder.record_predictions = record
    assert served.is_at_rest()
    assert bodies.held_bytes == 0
