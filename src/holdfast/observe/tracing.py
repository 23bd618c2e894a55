"""Trace context of requests (W3C Trace Context, 2021), and where spans are made: nowhere, unless tracing is set up."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

import msgspec

from holdfast.core.answerer import Answerer
from holdfast.core.clock import Clock

log = logging.getLogger(__name__)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_LONGEST_TRACEPARENT = 256
_EXTRA = "the extra 'otel' is not installed: pip install 'holdfast[otel]'"


Later = Callable[[Callable[[], None]], object]
"""Runs a function soon, but not now: ``loop.call_soon``."""


class Parent(msgspec.Struct, frozen=True):
    """The span of the caller, as the request named it."""

    trace_id: int
    span_id: int
    flags: int
    """Bit 0: the caller records this trace."""
    state: str = ""
    """The header ``tracestate`` as it came."""


class Trace:
    """The trace that one request belongs to. Its own ids are made when they are needed first."""

    __slots__ = ("parent", "span_id", "trace_id")

    def __init__(self, parent: Parent | None) -> None:
        self.parent = parent
        self.trace_id = 0 if parent is None else parent.trace_id
        self.span_id = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request, for its span. Moments are readings of `stopwatch_s`."""

    system: str
    request_id: str = ""
    rows: int = 0
    status: int = 200
    by: Answerer | None = None
    """The version that answered it; None when none was asked."""
    started_s: float
    ended_s: float
    queue_us: float = 0.0
    run_us: float = 0.0


class Tracing(Protocol):
    """Makes one span per request. Owned by the thread of the event loop."""

    is_on: bool
    """Where this is False nothing else here needs to be called."""

    def begin(self, traceparent: str, tracestate: str = "") -> Trace | None:
        """The trace of a request, by its headers (empty when absent)."""

    def inject(self, trace: Trace | None, headers: MutableMapping[str, str]) -> None:
        """Add the headers that let another service continue the trace."""

    def answered(self, trace: Trace | None, outcome: Outcome) -> None:
        """Make the span of a request whose answer was handed to the transport; later, where `later` was given."""

    def close(self, within_s: float = 2.0) -> None:
        """Send what waits, and give up after so many seconds."""


class NoTracing:
    """Tracing where none is set up: does nothing."""

    is_on = False

    def begin(self, traceparent: str, tracestate: str = "") -> Trace | None:
        return None

    def inject(self, trace: Trace | None, headers: MutableMapping[str, str]) -> None:
        return

    def answered(self, trace: Trace | None, outcome: Outcome) -> None:
        return

    def close(self, within_s: float = 2.0) -> None:
        return


def tracing(
    worker: str, clock: Clock, environment: Mapping[str, str] | None = None, *, later: Later | None = None
) -> Tracing:
    """The tracing that the ``OTEL_*`` variables ask for; `environment` stands for `os.environ`.

    With `later` spans are made once the answers of a tick are on their way. Tracing is on when an OTLP endpoint is
    named or ``OTEL_TRACES_EXPORTER`` is ``otlp``. Where that cannot take effect the reason is logged and serving goes
    on without: these variables are often set for every program of a machine.
    """
    given = os.environ if environment is None else environment
    if not _is_wanted(given):
        return NoTracing()
    if why := _obstacle(given):
        log.warning("requests are not traced although OTEL_* variables ask for it: %s", why)
        return NoTracing()
    # On first use: nothing of the extra is imported where tracing is off.
    made: Tracing = import_module("holdfast.observe.spans").exporting(worker, clock, later)
    return made


def _is_wanted(given: Mapping[str, str]) -> bool:
    if given.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = given.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter != "none"
    return bool(given.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or given.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


def _obstacle(given: Mapping[str, str]) -> str:
    """Why tracing cannot be set up as asked; empty when it can."""
    exporter = given.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in ("", "otlp"):
        return f"OTEL_TRACES_EXPORTER is '{exporter}'; set it to 'otlp', or to 'none' to be rid of this line"
    protocol = given.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or given.get("OTEL_EXPORTER_OTLP_PROTOCOL") or ""
    if protocol not in ("", "http/protobuf"):
        return (
            f"the protocol of the exporter is '{protocol}'; set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL to 'http/protobuf'"
        )
    return "" if _is_installed() else _EXTRA


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # one of the packages above it is missing
        return False


def context_of(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str]:
    """The values of ``traceparent`` and ``tracestate`` among headers in lower case; empty when absent.

    A second ``traceparent`` makes both worthless; several ``tracestate`` are one list.
    """
    parents: list[str] = []
    states: list[str] = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value.decode("latin-1"))
        elif name == b"tracestate":
            states.append(value.decode("latin-1"))
    return (parents[0], ",".join(states)) if len(parents) == 1 else ("", "")


def read_traceparent(traceparent: str, tracestate: str = "") -> Parent | None:
    """The caller's span; None where the header is absent or not as the standard has it, so a new trace begins."""
    if len(traceparent) > _LONGEST_TRACEPARENT:
        return None
    found = _TRACEPARENT.fullmatch(traceparent.strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, further = found.groups()
    # Later versions may append fields; version 00 has none, and ff is no version.
    if version == "ff" or (version == "00" and further is not None):
        return None
    parent = Parent(int(trace_id, 16), int(span_id, 16), int(flags, 16), tracestate)
    return parent if parent.trace_id and parent.span_id else None
