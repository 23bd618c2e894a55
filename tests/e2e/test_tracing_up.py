"""`holdfast up` with a collector: requests of both lanes arrive as spans below their callers."""

import http.server
import threading

import httpx
import pytest

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="the extra otel is not installed"
)
pytestmark = pytest.mark.slow

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.spans = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield server
        server.shutdown()
        thread.join(20)


def test_requests_of_both_lanes_arrive_as_spans_of_their_callers(tools, deployed, collector):
    up = tools.up(deployed / "state", deployed / "holdfast.yaml")
    row = {"load": 1.5, "distance": 0.5, "kind": "b"}
    up.answers()
    headers = {"authorization": f"Bearer {up.token}", "traceparent": f"00-{TRACE}-{CALLER}-01"}
    for body in (row, {"rows": [row, row], "event_at": ["2026-01-05T10:00:00Z", None]}):
        assert httpx.post(f"{up.url}/predict/orders", json=body, headers=headers, timeout=20).status_code == 200

    def of_caller():
        return [span for span in collector.spans if span.parent_span_id.hex() == CALLER]

    spans = tools.until(lambda: len(of_caller()) == 2 and of_caller(), "two spans")
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.name for span in spans} == {"predict orders"}
    rows = [attr.value.int_value for span in spans for attr in span.attributes if attr.key == "holdfast.rows"]
    assert sorted(rows) == [1, 2]
    for span in spans:
        assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 5e9
