"""Spans of requests through OpenTelemetry's SDK. Needs the extra ``otel``; imported only where tracing is set up."""

from collections.abc import MutableMapping
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from holdfast import __version__
from holdfast.core.clock import Clock, stopwatch_s
from holdfast.observe.tracing import Later, Outcome, Parent, Trace, read_traceparent

_SCOPE = InstrumentationScope("holdfast", __version__)


def exporting(worker: str, clock: Clock, later: Later | None) -> "Spans":
    """Spans that are sent by OTLP over HTTP, as the ``OTEL_*`` variables say.

    Sent by a thread of its own from a bounded queue (``OTEL_BSP_*``); what does not fit in is dropped.
    """
    return Spans(worker, clock, BatchSpanProcessor(OTLPSpanExporter()), later)


class Spans:
    """Makes a span per sampled request and hands it to a processor. ``OTEL_TRACES_SAMPLER`` says which are sampled.

    A span is made at once from what was measured, rather than opened and closed around the work: a request that is
    not sampled costs a few microseconds, and ids can be passed on before there is a span.
    """

    is_on = True

    def __init__(self, worker: str, clock: Clock, processor: SpanProcessor, later: Later | None = None) -> None:
        self._clock = clock
        self._later = later
        self._ended: list[tuple[Trace, Outcome]] = []
        self._processor = processor
        provider = TracerProvider(resource=_resource(worker), shutdown_on_exit=False)
        self._resource, self._sampler, self._ids = provider.resource, provider.sampler, provider.id_generator

    def begin(self, traceparent: str, tracestate: str = "") -> Trace:
        return Trace(read_traceparent(traceparent, tracestate) if traceparent else None)

    def inject(self, trace: Trace | None, headers: MutableMapping[str, str]) -> None:
        if trace is None:
            return
        own = self._context(trace, self._sampled(trace, ""))
        headers["traceparent"] = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
        if own.trace_state:
            headers["tracestate"] = own.trace_state.to_header()

    def answered(self, trace: Trace | None, outcome: Outcome) -> None:
        if trace is None:
            return
        self._ended.append((trace, outcome))
        if self._later is None:
            self._make()
        elif len(self._ended) == 1:
            self._later(self._make)

    def _make(self) -> None:
        """Make the spans of what has ended since this was last called."""
        ended, self._ended = self._ended, []
        for trace, outcome in ended:
            self._span(trace, outcome)

    def _span(self, trace: Trace, outcome: Outcome) -> None:
        name = f"predict {outcome.system}" if outcome.system else "predict"
        sampled = self._sampled(trace, name)
        if sampled.decision is not Decision.RECORD_AND_SAMPLE:
            return
        # The clock is read anew each time: a stopwatch drifts from it.
        now_ns, now_s = round(self._clock.now().timestamp() * 1e6) * 1000, stopwatch_s()
        span = ReadableSpan(
            name,
            context=self._context(trace, sampled),
            parent=None if trace.parent is None else _remote(trace.parent),
            resource=self._resource,
            attributes=_attributes(outcome) | dict(sampled.attributes or {}),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR if outcome.status >= 500 else StatusCode.UNSET),
            start_time=now_ns - round((now_s - outcome.started_s) * 1e9),
            end_time=now_ns - round((now_s - outcome.ended_s) * 1e9),
            instrumentation_scope=_SCOPE,
        )
        self._processor.on_end(span)

    def close(self, within_s: float = 2.0) -> None:
        self._make()
        # A collector that does not answer must not hold up the end of the worker.
        closing = Thread(target=self._processor.shutdown, name="spans-close", daemon=True)
        closing.start()
        closing.join(within_s)

    def _sampled(self, trace: Trace, name: str) -> SamplingResult:
        """Whether the request is sampled. The samplers decide by trace id and parent, so asking twice is safe."""
        if not trace.trace_id:
            trace.trace_id = self._ids.generate_trace_id()
        parent = Context()
        if trace.parent is not None:
            parent = set_span_in_context(NonRecordingSpan(_remote(trace.parent)), parent)
        return self._sampler.should_sample(parent, trace.trace_id, name, SpanKind.SERVER)

    def _context(self, trace: Trace, sampled: SamplingResult) -> SpanContext:
        if not trace.span_id:
            trace.span_id = self._ids.generate_span_id()
        flags = TraceFlags.SAMPLED if sampled.decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT
        if trace.parent is not None:
            flags |= trace.parent.flags & TraceFlags.RANDOM_TRACE_ID  # it speaks of the trace id, which is the same
        return SpanContext(
            trace.trace_id,
            trace.span_id,
            is_remote=False,
            trace_flags=TraceFlags(flags),
            trace_state=sampled.trace_state,
        )


def _remote(parent: Parent) -> SpanContext:
    return SpanContext(
        parent.trace_id,
        parent.span_id,
        is_remote=True,
        trace_flags=TraceFlags(parent.flags),
        trace_state=TraceState.from_header([parent.state]) if parent.state else None,
    )


def _attributes(outcome: Outcome) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "holdfast.system": outcome.system,
        "holdfast.request_id": outcome.request_id,
        "holdfast.rows": outcome.rows,
        "http.response.status_code": outcome.status,
    }
    if outcome.by is not None:
        attributes |= {
            "holdfast.version": outcome.by.version,
            "holdfast.stage": outcome.by.stage,
            "holdfast.release": outcome.by.release,
            "holdfast.queue_us": outcome.queue_us,
            "holdfast.run_us": outcome.run_us,
        }
    return attributes


def _resource(worker: str) -> Resource:
    """What the variables say about the service; ``holdfast`` where they do not name it."""
    found = Resource.create({SERVICE_INSTANCE_ID: worker, SERVICE_VERSION: __version__})
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: "holdfast"}))
    return found
