"""Trace context and spans, against OpenTelemetry's own reading of the standard and its in-memory exporter."""

import http.server
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.answerer import Answerer
from holdfast.core.clock import ManualClock, stopwatch_s
from holdfast.observe.tracing import NoTracing, Outcome, Trace, context_of, read_traceparent, tracing
from holdfast.testing.serving import NOW, SIGNATURE

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="the extra otel is not installed"
)
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode, get_current_span  # noqa: E402
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: E402

from holdfast.observe.spans import Spans  # noqa: E402

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"
NOW_NS = int(NOW.timestamp()) * 10**9
BY = Answerer(system="flights", version="3", stage="canary", release="r7", signature=SIGNATURE, signature_hash="x")

PART = st.text("0123456789abcdefgA-_ ", max_size=40) | st.sampled_from(
    ["00", "ff", "01", "-", TRACE, CALLER, "0" * 32, "0" * 16]
)
TRACEPARENTS = st.one_of(
    st.sampled_from([SAMPLED, NOT_SAMPLED, f"cc-{TRACE}-{CALLER}-01-what-comes", f"00-{TRACE}-{CALLER}-01-more"]),
    st.lists(PART, max_size=5).map("-".join),
    st.builds(
        "{:02x}-{:032x}-{:016x}-{:02x}".format,
        st.integers(0, 255),
        st.integers(0, 2**128 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 255),
    ),
    st.text(max_size=80).filter(lambda text: "\n" not in text),
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter) -> Spans:
    return Spans("worker-0", ManualClock(NOW), SimpleSpanProcessor(exporter))


def outcome(**changed) -> Outcome:
    now_s = stopwatch_s()
    given = {"system": "flights", "request_id": "q1", "rows": 3, "by": BY, "queue_us": 20.0, "run_us": 150.0}
    return Outcome(**{**given, "started_s": now_s - 0.5, "ended_s": now_s - 0.25, **changed})


@pytest.mark.slow
@given(TRACEPARENTS)
def test_trace_context_is_read_as_opentelemetry_reads_it(traceparent):
    theirs = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": traceparent})).get_span_context()
    ours = read_traceparent(traceparent)
    assert (ours is not None) == theirs.is_valid
    if ours is not None:
        assert (ours.trace_id, ours.span_id, ours.flags) == (theirs.trace_id, theirs.span_id, theirs.trace_flags)


def test_context_is_found_among_headers():
    host = (b"host", b"a")
    parent, state, more = (b"traceparent", SAMPLED.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")
    assert context_of([host]) == ("", "")
    assert context_of([host, parent]) == (SAMPLED, "")
    assert context_of([state, parent, more]) == (SAMPLED, "a=1,b=2")
    assert context_of([parent, parent, state]) == ("", "")


def test_a_request_becomes_a_span_below_its_callers(spans, exporter):
    spans.answered(spans.begin(SAMPLED, "vendor=1"), outcome())
    [span] = exporter.get_finished_spans()
    assert (span.name, span.kind, span.status.status_code) == ("predict flights", SpanKind.SERVER, StatusCode.UNSET)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == CALLER
    assert span.parent.is_remote
    assert span.context.trace_state.to_header() == "vendor=1"
    assert dict(span.attributes) == {
        "holdfast.system": "flights",
        "holdfast.request_id": "q1",
        "holdfast.rows": 3,
        "holdfast.version": "3",
        "holdfast.stage": "canary",
        "holdfast.release": "r7",
        "holdfast.queue_us": 20.0,
        "holdfast.run_us": 150.0,
        "http.response.status_code": 200,
    }


def test_spans_are_made_once_for_a_whole_tick_after_its_answers(exporter):
    soon = []
    spans = Spans("worker-0", ManualClock(NOW), SimpleSpanProcessor(exporter), soon.append)
    for _ in range(2):
        for _ in range(3):
            spans.answered(spans.begin(SAMPLED), outcome())
        assert len(soon) == 1
        soon.pop()()
    assert len(exporter.get_finished_spans()) == 6
    spans.answered(spans.begin(SAMPLED), outcome())
    spans.close()
    assert len(exporter.get_finished_spans()) == 7, "what ended last is not forgotten"
    soon.pop()()
    assert len(exporter.get_finished_spans()) == 7


def test_a_span_lasts_as_long_as_its_request(spans, exporter):
    spans.answered(spans.begin(SAMPLED), outcome())
    [span] = exporter.get_finished_spans()
    assert span.end_time - span.start_time == pytest.approx(0.25e9, abs=1e4)
    assert span.end_time < NOW_NS, "the clock stood still while the request had ended a quarter of a second before"
    assert NOW_NS - span.end_time < 10e9


def test_a_request_without_context_begins_a_trace_of_its_own(spans, exporter):
    for traceparent in ("", "nonsense"):
        spans.answered(spans.begin(traceparent), outcome())
    one, two = exporter.get_finished_spans()
    assert one.parent is None
    assert one.context.is_valid
    assert one.context.trace_id != two.context.trace_id


def test_what_the_caller_does_not_record_is_not_recorded_here(spans, exporter):
    spans.answered(spans.begin(NOT_SAMPLED), outcome())
    assert exporter.get_finished_spans() == ()


def test_the_sampler_is_the_one_of_the_environment(monkeypatch, exporter):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    spans = Spans("worker-0", ManualClock(NOW), SimpleSpanProcessor(exporter))
    spans.answered(spans.begin(SAMPLED), outcome())
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("status", "code"), [(422, StatusCode.UNSET), (500, StatusCode.ERROR), (503, StatusCode.ERROR)]
)
def test_a_request_that_failed_here_is_an_error(spans, exporter, status, code):
    spans.answered(spans.begin(SAMPLED), outcome(status=status, by=None))
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is code
    assert "holdfast.version" not in span.attributes


def test_context_is_passed_on_as_the_span_that_will_be_made(spans, exporter):
    trace = spans.begin(SAMPLED, "vendor=1")
    headers: dict[str, str] = {}
    spans.inject(trace, headers)
    spans.answered(trace, outcome())
    [span] = exporter.get_finished_spans()
    assert headers == {"traceparent": f"00-{TRACE}-{span.context.span_id:016x}-01", "tracestate": "vendor=1"}
    theirs = get_current_span(TraceContextTextMapPropagator().extract(headers)).get_span_context()
    assert theirs.span_id == span.context.span_id


def test_context_is_passed_on_when_nothing_is_recorded_here(spans):
    headers: dict[str, str] = {}
    spans.inject(spans.begin(NOT_SAMPLED), headers)
    passed = read_traceparent(headers["traceparent"])
    assert passed is not None
    assert (f"{passed.trace_id:032x}", passed.flags) == (TRACE, 0)


def test_the_service_is_called_holdfast_unless_it_is_named(monkeypatch, exporter):
    def resource():
        spans = Spans("worker-1", ManualClock(NOW), SimpleSpanProcessor(exporter))
        spans.answered(spans.begin(SAMPLED), outcome())
        return exporter.get_finished_spans()[-1].resource.attributes

    assert resource()["service.name"] == "holdfast"
    assert resource()["service.instance.id"] == "worker-1"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "scores")
    assert resource()["service.name"] == "scores"


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "scores"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_tracing_is_off_unless_it_is_asked_for(environment, caplog):
    made = tracing("worker-0", ManualClock(NOW), environment)
    assert isinstance(made, NoTracing)
    assert caplog.records == []
    headers: dict[str, str] = {}
    made.inject(made.begin(SAMPLED), headers)
    made.answered(None, outcome())
    assert headers == {}


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "'zipkin'"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
    ],
)
def test_what_cannot_take_effect_is_said(environment, why, caplog):
    assert isinstance(tracing("worker-0", ManualClock(NOW), environment), NoTracing)
    assert why in caplog.text


@pytest.mark.parametrize("gone", ["opentelemetry", "opentelemetry.exporter", "opentelemetry.exporter.otlp.proto.http"])
def test_without_the_extra_serving_goes_on_and_the_reason_is_said(monkeypatch, caplog, gone):
    for name in [name for name in sys.modules if name == gone or name.startswith(gone + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, gone, None)  # Python's own mark of what cannot be imported
    assert isinstance(tracing("worker-0", ManualClock(NOW), ENDPOINT), NoTracing)
    assert "pip install 'holdfast[otel]'" in caplog.text


@pytest.mark.slow
def test_where_tracing_is_off_nothing_of_the_extra_is_imported():
    code = """
import sys
from holdfast.core.clock import SystemClock
from holdfast.observe.tracing import tracing
tracing("worker-0", SystemClock(), {})
sys.exit(any(name.startswith("opentelemetry") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


class Collector(http.server.ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP; `answering` is cleared to make it hang."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Receiver)
        self.got: list[tuple[str, bytes]] = []
        self.arrived, self.answering = threading.Event(), threading.Event()
        self.answering.set()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, body))
        self.server.arrived.set()
        self.server.answering.wait(20)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector(monkeypatch):
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield server
        server.answering.set()
        server.shutdown()
        thread.join(20)


def test_spans_arrive_at_a_collector(collector):
    made = tracing("worker-0", ManualClock(NOW))
    assert made.is_on
    for place in range(5):
        made.answered(made.begin(SAMPLED), outcome(request_id=f"q{place}"))
    made.close(within_s=20)
    assert {path for path, _ in collector.got} == {"/v1/traces"}
    found = []
    for _, body in collector.got:
        for resource in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert names["service.name"] == "holdfast"
            found += [span for scope in resource.scope_spans for span in scope.spans]
    assert {span.trace_id.hex() for span in found} == {TRACE}
    assert sorted(
        each.value.string_value for span in found for each in span.attributes if each.key == "holdfast.request_id"
    ) == [f"q{place}" for place in range(5)]


def test_a_collector_that_hangs_holds_up_neither_answers_nor_the_end(collector):
    collector.answering.clear()
    made = tracing("worker-0", ManualClock(NOW))
    made.answered(made.begin(SAMPLED), outcome())
    assert collector.arrived.wait(20)
    start_s = stopwatch_s()
    for _ in range(200):
        made.answered(made.begin(SAMPLED), outcome())
    made.close(within_s=0.05)
    assert stopwatch_s() - start_s < 5, "the collector would have answered after 20 seconds"


def test_a_trace_of_a_request_is_small():
    assert not hasattr(Trace(None), "__dict__")
