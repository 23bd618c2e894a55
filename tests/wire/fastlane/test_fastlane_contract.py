"""What the fast lane takes for granted about uvicorn: an upgrade that changes any of it fails here, not in production.

A failure means: read the new `httptools_impl.py` beside `holdfast/wire/fastlane.py`, mend that, then this.
"""

import asyncio
import inspect
import re

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl as impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from holdfast.wire.fastlane import FastLane

ASK = f"uvicorn {uvicorn.__version__} differs from what holdfast/wire/fastlane.py was written for: "

CALLED_BY_UVICORN = {
    "connection_made": ["self", "transport"],
    "connection_lost": ["self", "exc"],
    "data_received": ["self", "data"],
    "eof_received": ["self"],
    "pause_writing": ["self"],
    "resume_writing": ["self"],
    "shutdown": ["self"],
    "on_message_begin": ["self"],
    "on_headers_complete": ["self"],
    "on_message_complete": ["self"],
    "on_response_complete": ["self"],
    "_start_asgi_task": ["self", "cycle", "app"],
    "send_400_response": ["self", "msg"],
    "_unset_keepalive_if_required": ["self"],
}
"""Methods that the fast lane overrides or calls, and what they take."""
ATTRIBUTES = [
    "app", "config", "cycle", "flow", "loop", "parser", "pipeline", "scheme", "scope", "server_state", "tasks",
    "timeout_keep_alive_task", "transport",
]  # fmt: skip
CYCLE = ["scope", "flow", "keep_alive", "more_body", "response_started", "response_complete", "on_response"]
OURS = [
    "_accept", "_add", "_all_sent", "_began_s", "_counted", "_drained", "_feed", "_generally", "_go_general",
    "_go_on", "_has_room", "_has_unread", "_head_bytes", "_held", "_hold", "_in_flight", "_is_at_end", "_is_deaf",
    "_is_ending", "_is_in_head", "_is_open", "_is_owed", "_is_parsing", "_is_slow", "_ok", "_parts", "_quiet_s",
    "_refusal", "_refuse", "_refuse_head", "_response", "_running", "_send_431", "_settle", "_slow", "_take",
    "_turn_away", "_unsent", "_wait", "_wanted", "_written", "answered", "close_if_overdue", "heads", "ignore",
    "is_coming_in", "ok", "ok_headers", "unusual",
]  # fmt: skip


async def app(scope, receive, send):
    raise AssertionError("nobody asks")


@pytest.fixture
def protocol():
    loop = asyncio.new_event_loop()
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None)
    yield impl.HttpToolsProtocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    loop.close()


@pytest.mark.parametrize("name", CALLED_BY_UVICORN)
def test_the_methods_that_are_touched_take_what_they_took(name):
    method = getattr(impl.HttpToolsProtocol, name, None)
    assert method is not None, f"{ASK}HttpToolsProtocol.{name} is gone"
    assert list(inspect.signature(method).parameters) == CALLED_BY_UVICORN[name], f"{ASK}HttpToolsProtocol.{name}"


def test_the_attributes_that_are_touched_are_there(protocol):
    missing = [name for name in ATTRIBUTES if not hasattr(protocol, name)]
    assert not missing, f"{ASK}HttpToolsProtocol has no {missing}"
    assert protocol.cycle is None
    assert not protocol.pipeline
    assert isinstance(protocol.parser, httptools.HttpRequestParser)


def test_a_protocol_is_made_as_before():
    made = list(inspect.signature(impl.HttpToolsProtocol.__init__).parameters)
    assert made == ["self", "config", "server_state", "app_state", "_loop"], f"{ASK}HttpToolsProtocol.__init__"


def test_no_name_of_the_fast_lane_is_taken_by_uvicorn(protocol):
    taken = [name for name in OURS if hasattr(protocol, name)]
    assert not taken, f"{ASK}it has names of its own that the fast lane uses: {taken}"


def test_the_names_of_the_fast_lane_are_all_looked_at():
    made = set(re.findall(r"self\.(_\w+)(?:: [^=]+)? =", inspect.getsource(FastLane)))
    made |= {name for name in vars(FastLane) if not name.startswith("__")}
    assert made - set(OURS) - set(CALLED_BY_UVICORN) - set(ATTRIBUTES) == set()


def test_a_request_on_its_way_says_what_it_said():
    made = list(inspect.signature(impl.RequestResponseCycle.__init__).parameters)
    assert {"scope", "transport", "flow", "default_headers", "keep_alive", "on_response"} <= set(made), (
        f"{ASK}RequestResponseCycle.__init__"
    )
    source = inspect.getsource(impl.RequestResponseCycle)
    missing = [name for name in CYCLE if f"self.{name} = " not in source]
    assert not missing, f"{ASK}RequestResponseCycle has no {missing}"


def test_a_request_on_its_way_only_writes_and_closes():
    """It is given an outlet in place of the transport."""
    used = set(re.findall(r"self\.transport\.(\w+)", inspect.getsource(impl.RequestResponseCycle)))
    assert used == {"write", "close", "is_closing"}, f"{ASK}RequestResponseCycle uses {used} of its transport"


def test_an_answer_is_complete_before_that_is_said():
    """`on_response_complete` looks at `response_complete`, and closes behind the last answer."""
    source = inspect.getsource(impl.RequestResponseCycle.send)
    assert source.index("self.response_complete = True") < source.index("self.on_response()"), f"{ASK}send"


def test_what_is_pipelined_stands_in_front_and_is_taken_from_behind():
    source = inspect.getsource(impl.HttpToolsProtocol)
    assert "self.pipeline.appendleft((self.cycle, app))" in source, f"{ASK}the pipeline"
    assert "self.pipeline.pop()" in source, f"{ASK}the pipeline"
    assert source.index("self.flow.resume_reading()") < source.index("self.pipeline.pop()"), f"{ASK}the pipeline"


def test_every_message_has_a_scope_of_its_own(protocol):
    protocol.on_message_begin()
    first = protocol.scope
    protocol.on_message_begin()
    assert protocol.scope is not first, f"{ASK}a scope is used twice"


def test_the_flow_is_controlled_as_before():
    assert list(inspect.signature(FlowControl.__init__).parameters) == ["self", "transport"], f"{ASK}FlowControl"
    for name in ("pause_reading", "resume_reading", "pause_writing", "resume_writing"):
        assert list(inspect.signature(getattr(FlowControl, name)).parameters) == ["self"], f"{ASK}FlowControl.{name}"
    transport = type("Paused", (), {"pause_reading": lambda self: None, "resume_reading": lambda self: None})()
    flow = FlowControl(transport)
    assert (flow.read_paused, flow.write_paused) == (False, False), f"{ASK}FlowControl"


def test_default_headers_are_another_list_whenever_they_change():
    """The fast lane knows by its identity whether the head of an answer must be written anew."""
    state = ServerState()
    assert state.default_headers == [], f"{ASK}ServerState.default_headers"
    source = inspect.getsource(uvicorn.Server.on_tick)
    assert "self.server_state.default_headers = " in source, f"{ASK}default_headers are changed in place"
    assert isinstance(state.connections, set)
    assert isinstance(state.tasks, set)


def test_status_lines_are_bytes_by_number():
    assert impl.STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n", f"{ASK}STATUS_LINE"
    assert impl.STATUS_LINE[431].startswith(b"HTTP/1.1 431 "), f"{ASK}STATUS_LINE"


def test_a_wish_for_another_protocol_ends_the_parsing_where_it_is_said():
    class Nothing:
        """Takes no callbacks."""

    parser = httptools.HttpRequestParser(Nothing())
    raw = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as raised:
        parser.feed_data(raw + b"more")
    assert raised.value.args == (len(raw),)
    assert not issubclass(httptools.HttpParserUpgrade, httptools.HttpParserError)
