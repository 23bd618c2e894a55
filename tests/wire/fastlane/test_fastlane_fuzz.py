"""Anything in any order: the fast lane never raises, never hangs, and leaves no call behind."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import StateError
from holdfast.wire.fastlane import MOST_IN_FLIGHT

ROW = {"a": 1.0, "b": 2.0, "c": 3.0}
PIECES = [
    b"POST /predict/numbers HTTP/1.1\r\n",
    b"POST /v2/models/split/infer HTTP/1.1\r\n",
    b"GET /v2 HTTP/1.1\r\n",
    b"HEAD /v2/health/live HTTP/1.1\r\n", b"POST /labels/numbers HTTP/1.1\r\n", b"content-length: 7\r\n",
    b"content-length: 0\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n",
    b"connection: upgrade\r\nupgrade: h2c\r\n", b"expect: 100-continue\r\n", b"x-request-id: i\r\n", b"host: a\r\n",
    b"inference-header-content-length: 7\r\n", b"\r\n", b"\r\n", b'{"c":1}', b'7\r\n{"c":1}\r\n0\r\n\r\n',
    b"\n", b"\x00",
    b"x" * 300, b"5\r\n", b'{"c":13}', b" ", b'POST /predict/numbers HTTP/1.1\r\ncontent-length: 7\r\n\r\n{"c":1}',
    b"GET /v2 HTTP/1.1\r\n\r\n", b'POST /predict/split HTTP/1.1\r\ncontent-length: 7\r\n\r\n{"c":2}',
]  # fmt: skip
BYTES = st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join) | st.binary(max_size=200)
KINDS = ["send"] * 8 + ["tick", "stop", "full", "empty", "end", "lose", "routes", "sweep"]
EVENTS = st.lists(
    st.tuples(st.sampled_from(KINDS), BYTES),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def served(kit):
    made = kit.Served()
    yield made
    made.close()


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS)
@pytest.mark.slow
def test_anything_in_any_order_leaves_nothing_behind(served, kit, events):
    line = served.connect()
    lane, transport = line.protocol, line.transport
    for kind, data in events:
        if transport.is_lost:
            break
        match kind:
            case "send":
                line.send(data[: len(data) // 2], data[len(data) // 2 :], at_once=len(data) % 2 == 0)
            case "tick":
                served.settle()
            case "stop":
                line.call(lane.shutdown)
            case "full" if not lane.flow.write_paused:
                line.call(lane.pause_writing)
            case "empty" if lane.flow.write_paused:
                line.call(lane.resume_writing)
            case "end" if not transport.is_closed:
                line.end()
            case "lose":
                line.call(transport.lose)
            case "routes":
                served.follow()
            case "sweep" if not transport.is_lost:
                line.call(lambda: lane.close_if_overdue(lane._quiet_s + 10))
        assert len(lane._in_flight) <= MOST_IN_FLIGHT
    if lane.flow.write_paused and not transport.is_lost:
        line.call(lane.resume_writing)
    served.settle()
    assert served.is_at_rest()
    assert not lane._in_flight
    if not transport.is_lost:
        assert not lane._held
        assert transport.is_reading or lane._refusal or not lane.cycle.response_complete
        line.call(lambda: transport.lose())
    served.settle()
    assert not served.state.tasks
    assert not served.state.connections


@settings(max_examples=200, deadline=None)
@given(raw=BYTES)
@pytest.mark.slow
def test_what_comes_back_is_always_http(served, kit, raw):
    if b"HEAD" not in raw:
        for answer in kit.responses(served.ask(raw)):
            assert answer.status in (200, 400, 401, 404, 405, 413, 415, 422, 431, 500)


def exploding(plane, when):
    """Makes the recorder fail in a way that it never should, at these of its calls."""
    record, calls = plane.recorder.record_predictions, []

    def explode(*arguments, **named):
        calls.append(named)
        if len(calls) in when:
            raise RuntimeError("boom")
        return record(*arguments, **named)

    plane.recorder.record_predictions = explode
    return calls


@pytest.mark.parametrize("when", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("system", ["numbers", "split"])
def test_a_recorder_that_breaks_leaves_no_request_unanswered(kit, when, system):
    served = kit.Served()
    exploding(served.plane, when)
    raw = b"".join(kit.request(f"/predict/{system}", ROW, x_request_id=f"r{i}") for i in range(20))
    raw += kit.request(f"/predict/{system}", {"rows": [ROW] * 2, "keys": ["a", "b"]})
    answers = kit.responses(served.ask(raw))
    assert len(answers) == 21
    assert {each.status for each in answers} <= {200, 500}
    assert served.is_at_rest()
    after = kit.responses(served.ask(kit.request(f"/predict/{system}", ROW)))
    assert [each.status for each in after] in ([200], [500])
    assert served.is_at_rest()
    served.close()


class Late:
    """A recorder whose disk answers when a test says so."""

    def __init__(self, plane):
        self.waiting = []
        plane.recorder.record_predictions = lambda *arguments, done, **named: self.waiting.append(done)

    def say(self, error=None):
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            done(error)


def test_nothing_is_answered_before_it_is_recorded(kit):
    served = kit.Served()
    late = Late(served.plane)
    line = served.connect().send(kit.request("/predict/numbers", ROW) * 3)
    assert line.sent == b""
    line.call(late.say)
    assert [each.status for each in kit.responses(line.sent)] == [200] * 3
    served.close()


def test_a_request_behind_one_that_waits_for_the_disk_waits_too(kit):
    served = kit.Served()
    late = Late(served.plane)
    line = served.connect()
    line.send(kit.request("/predict/numbers", ROW), kit.request("/predict/nothing", ROW))
    line.send(kit.request("/v2", method="GET"), kit.request("/predict/numbers", ROW))
    assert line.sent == b""
    line.call(late.say)
    line.send().call(late.say)
    assert [each.status for each in kit.responses(line.sent)] == [200, 404, 200, 200]
    assert served.is_at_rest()
    served.close()


def test_a_disk_that_stalls_holds_a_bounded_number_of_requests(kit):
    served = kit.Served()
    late = Late(served.plane)
    line = served.connect().send(*[kit.request("/predict/numbers", ROW)] * (3 * MOST_IN_FLIGHT))
    assert len(line.protocol._in_flight) == MOST_IN_FLIGHT
    assert not line.transport.is_reading
    for _ in range(3):
        line.call(late.say)
        line.send()
    assert [each.status for each in kit.responses(line.sent)] == [200] * 3 * MOST_IN_FLIGHT
    served.close()


def test_large_requests_wait_for_the_ones_before_them(kit):
    served = kit.Served()
    late = Late(served.plane)
    large = kit.request("/predict/numbers", b'{"c":1' + b" " * 1_000_000 + b"}")
    packets = [large[i : i + 65_536] for i in range(0, len(large), 65_536)]
    line = served.connect().send(*packets * 4)
    assert len(line.protocol._in_flight) == 1
    assert not line.transport.is_reading
    for _ in range(4):
        line.call(late.say)
        line.send()
    assert [each.status for each in kit.responses(line.sent)] == [200] * 4
    served.close()


def test_a_full_queue_is_said_and_when_to_come_again(kit):
    served = kit.Served(queue=4)
    late = Late(served.plane)
    line = served.connect().send(kit.request("/predict/numbers", ROW) * 6)
    line.call(late.say)
    answers = kit.responses(line.sent)
    assert [each.status for each in answers] == [200] * 4 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert "waiting" in answers[-1].json["error"]
    line.send(kit.request("/predict/numbers", ROW)).call(late.say)
    assert [each.status for each in kit.responses(line.sent)][-1] == 200
    assert served.is_at_rest()
    served.close()


def test_a_disk_that_fails_is_said(kit):
    served = kit.Served()
    late = Late(served.plane)
    line = served.connect().send(kit.request("/predict/numbers", ROW) * 2)
    line.call(lambda: late.say(StateError("no space")))
    assert [each.status for each in kit.responses(line.sent)] == [503] * 2
    assert served.is_at_rest()
    served.close()


def test_a_client_that_goes_away_while_the_disk_stalls_leaves_nothing_behind(kit):
    served = kit.Served()
    late = Late(served.plane)
    line = served.connect().send(kit.request("/predict/numbers", ROW) * 5)
    line.call(line.transport.lose)
    line.call(late.say)
    assert served.is_at_rest()
    assert line.sent == b""
    served.close()


def test_a_client_that_is_done_still_gets_what_waits_for_the_disk(kit):
    served = kit.Served()
    late = Late(served.plane)
    line = served.connect().send(kit.request("/predict/numbers", ROW) * 2 + b"POST /pre")
    assert line.end()
    line.call(late.say)
    assert [each.status for each in kit.responses(line.sent)] == [200] * 2
    assert line.transport.is_lost
    served.close()


def test_held_requests_wait_while_answers_are_not_taken(kit):
    served = kit.Served()
    line = served.connect()
    line.call(line.protocol.pause_writing)
    assert not line.transport.is_reading
    late = Late(served.plane)
    line.call(lambda: line.protocol.data_received(kit.request("/predict/numbers", ROW) * (2 * MOST_IN_FLIGHT)))
    line.call(late.say)
    assert len(kit.responses(line.sent)) == MOST_IN_FLIGHT
    assert line.protocol._held
    line.call(line.protocol.resume_writing)
    line.call(late.say)
    assert len(kit.responses(line.sent)) == 2 * MOST_IN_FLIGHT
    assert line.transport.is_reading
    served.close()
