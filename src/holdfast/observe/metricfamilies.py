"""Every metric of the data plane: its name, kind, labels and meaning, and how it is read from what was counted."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import msgspec

from holdfast.observe.tallies import EDGES_US, Answered, Cached, Snapshot, Tally, by_version

_SHOWN_US = tuple(m * 10**d for d in range(1, 7) for m in (2.5, 5, 10))
_PLACES = {edge: EDGES_US.index(edge) for edge in _SHOWN_US}
_ROWS = tuple(1 << power for power in range(15))
_REASONS = {429: "REJECTED", 500: "BACKEND"}


class Histogram(NamedTuple):
    """Counts up to and including each edge, the count of all, and the sum."""

    edges: Sequence[str]
    up_to: Sequence[int]
    all: int
    total: float


class Process(NamedTuple):
    """What the operating system says about a process."""

    cpu_s: float
    resident_bytes: int
    open_fds: int
    started_s: float


class Shown(NamedTuple):
    """One worker on the page."""

    counted: Snapshot
    process: Process | None


Value = int | float | Histogram
Samples = Iterator[tuple[tuple[str, ...], Value]]
"""Label values in the order of the family's labels, and the number."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One metric: its name, kind, labels beside ``worker``, meaning, and how it is read."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...] = ()
    help: str
    read: Callable[[Shown], Samples]


def _seconds(tally: Tally) -> Histogram:
    """A tally by the edges that are shown, in seconds."""
    up_to = list(accumulate(tally.counts))
    edges = [f"{edge / 1e6:.7f}".rstrip("0").rstrip(".") for edge in _SHOWN_US]
    return Histogram(edges, [up_to[_PLACES[edge]] for edge in _SHOWN_US], up_to[-1], tally.total_ns / 1e9)


def _batches(shown: Shown) -> Samples:
    for each in shown.counted.answered:
        up_to = [sum(runs.count for rows, runs in each.batches.items() if rows <= most) for most in _ROWS]
        count = sum(runs.count for runs in each.batches.values())
        yield each.key, Histogram([str(most) for most in _ROWS], up_to, count, each.rows)


def _requests(shown: Shown) -> Samples:
    for each in shown.counted.answered:
        yield (*each.key, "200"), each.request.count
        yield from (((*each.key, str(status)), count) for status, count in each.failed.items())
    for system, by_status in shown.counted.refused.items():
        yield from (((system, "", "", str(status)), count) for status, count in by_status.items())


def _of_versions(of: Callable[[Answered], Value]) -> Callable[[Shown], Samples]:
    return lambda shown: ((each.key, of(each)) for each in shown.counted.answered)


def _of_models(of: Callable[[Answered], Value]) -> Callable[[Shown], Samples]:
    """By version, stages together, as Triton has it."""
    return lambda shown: (((each.system, each.version), of(each)) for each in by_version(shown.counted.answered))


def _of_worker(of: Callable[[Snapshot], Value]) -> Callable[[Shown], Samples]:
    return lambda shown: iter([((), of(shown.counted))])


def _of_process(of: Callable[[Process], Value]) -> Callable[[Shown], Samples]:
    return lambda shown: iter([] if shown.process is None else [((), of(shown.process))])


def _of_caches(of: Callable[[Cached], Value]) -> Callable[[Shown], Samples]:
    return lambda shown: (((system,), of(cache)) for system, cache in shown.counted.caches.items())


def _held(shown: Shown) -> Samples:
    return (((system,), 1) for system in shown.counted.workers[0].held)


def _waiting(shown: Shown) -> Samples:
    systems = {each.system for each in shown.counted.answered} | set(shown.counted.waiting)
    return (((system,), shown.counted.waiting.get(system, 0)) for system in sorted(systems))


def _failures(shown: Shown) -> Samples:
    """By Triton's reasons: the queue was full, the model failed, anything else."""
    found: dict[tuple[str, str, str], int] = {}
    failed = [(each.system, each.version, each.failed) for each in by_version(shown.counted.answered)]
    refused = [(system, "", by_status) for system, by_status in shown.counted.refused.items() if system]
    for system, version, by_status in (*failed, *refused):
        for reason in ("REJECTED", "BACKEND", "OTHER"):
            found.setdefault((system, version, reason), 0)
        for status, count in by_status.items():
            found[system, version, _REASONS.get(status, "OTHER")] += count
    yield from found.items()


_VERSION = ("system", "version", "stage")
_MODEL = ("model", "version")

FAMILIES: tuple[Family, ...] = (
    Family(
        name="holdfast_requests_total",
        kind="counter",
        labels=(*_VERSION, "status"),
        help="Requests by HTTP status. Without version and stage: turned away before one was asked, or not recorded.",
        read=_requests,
    ),
    Family(
        name="holdfast_request_seconds",
        kind="histogram",
        labels=_VERSION,
        help="Time from the parsed request to its answer, of answered requests.",
        read=_of_versions(lambda each: _seconds(each.request)),
    ),
    Family(
        name="holdfast_queue_seconds",
        kind="histogram",
        labels=_VERSION,
        help="Time that answered requests waited for the run of their model.",
        read=_of_versions(lambda each: _seconds(each.queue)),
    ),
    Family(
        name="holdfast_run_seconds",
        kind="histogram",
        labels=_VERSION,
        help="Time of one run of the model, looking up in the cache included, once per batch.",
        read=_of_versions(lambda each: _seconds(each.run)),
    ),
    Family(
        name="holdfast_batch_rows",
        kind="histogram",
        labels=_VERSION,
        help="Rows per batch, those from the cache too.",
        read=_batches,
    ),
    Family(
        name="holdfast_rows_total",
        kind="counter",
        labels=_VERSION,
        help="Rows answered, from the cache too.",
        read=_of_versions(lambda each: each.rows),
    ),
    Family(
        name="holdfast_queue_requests",
        kind="gauge",
        labels=("system",),
        help="Requests that are accepted and not answered yet.",
        read=_waiting,
    ),
    Family(
        name="holdfast_connections",
        kind="gauge",
        help="Open connections.",
        read=_of_worker(lambda counted: counted.workers[0].connections),
    ),
    Family(
        name="holdfast_sent_rows_total",
        kind="counter",
        help="Rows handed over for recording.",
        read=_of_worker(lambda counted: counted.recording.sent),
    ),
    Family(
        name="holdfast_recorded_rows_total",
        kind="counter",
        help="Rows recorded: predictions and labels.",
        read=_of_worker(lambda counted: counted.recording.written),
    ),
    Family(
        name="holdfast_shed_rows_total",
        kind="counter",
        help="Rows answered without being recorded, where the system file allows that.",
        read=_of_worker(lambda counted: counted.recording.shed),
    ),
    Family(
        name="holdfast_lost_rows_total",
        kind="counter",
        help="Rows that could not be recorded; their requests were not acknowledged.",
        read=_of_worker(lambda counted: counted.recording.lost),
    ),
    Family(
        name="holdfast_record_lag_seconds",
        kind="gauge",
        help="Age of the oldest row that waits to be recorded.",
        read=_of_worker(lambda counted: counted.recording.lag_s),
    ),
    Family(
        name="holdfast_routes_generation",
        kind="gauge",
        help="Number of the routes that the worker follows.",
        read=_of_worker(lambda counted: counted.workers[0].generation),
    ),
    Family(
        name="holdfast_held",
        kind="gauge",
        labels=("system",),
        help="1 for a system that still follows older routes because a version could not be loaded.",
        read=_held,
    ),
    Family(
        name="holdfast_cache_hits_total",
        kind="counter",
        labels=("system",),
        help="Rows answered from the cache.",
        read=_of_caches(lambda cache: cache.hits),
    ),
    Family(
        name="holdfast_cache_misses_total",
        kind="counter",
        labels=("system",),
        help="Rows that the cache did not know.",
        read=_of_caches(lambda cache: cache.misses),
    ),
    Family(
        name="holdfast_cache_entries",
        kind="gauge",
        labels=("system",),
        help="Answers in the cache.",
        read=_of_caches(lambda cache: cache.entries),
    ),
    Family(
        name="nv_inference_request_success",
        kind="counter",
        labels=_MODEL,
        help="Answered requests, whatever their rows.",
        read=_of_models(lambda each: each.request.count),
    ),
    Family(
        name="nv_inference_request_failure",
        kind="counter",
        labels=(*_MODEL, "reason"),
        help="Failed requests: REJECTED by a full queue, BACKEND for a model that failed, OTHER.",
        read=_failures,
    ),
    Family(
        name="nv_inference_count",
        kind="counter",
        labels=_MODEL,
        help="Rows answered, unlike Triton's with those from the cache.",
        read=_of_models(lambda each: each.rows),
    ),
    Family(
        name="nv_inference_exec_count",
        kind="counter",
        labels=_MODEL,
        help="Batches answered, also those wholly from the cache.",
        read=_of_models(lambda each: each.run.count),
    ),
    Family(
        name="nv_inference_request_duration_us",
        kind="counter",
        labels=_MODEL,
        help="Time from parsed requests to their answers, summed over requests.",
        read=_of_models(lambda each: each.request.total_ns // 1000),
    ),
    Family(
        name="nv_inference_queue_duration_us",
        kind="counter",
        labels=_MODEL,
        help="Time that requests waited for a run, summed over requests.",
        read=_of_models(lambda each: each.queue.total_ns // 1000),
    ),
    Family(
        name="nv_inference_compute_infer_duration_us",
        kind="counter",
        labels=_MODEL,
        help="Time of runs, counted for every request of a run.",
        read=_of_models(lambda each: each.shared_run_ns // 1000),
    ),
    Family(
        name="nv_inference_pending_request_count",
        kind="gauge",
        labels=("model",),
        help="Requests that are accepted and not answered yet.",
        read=_waiting,
    ),
    Family(
        name="nv_cache_num_hits_per_model",
        kind="counter",
        labels=("model",),
        help="Rows answered from the cache.",
        read=_of_caches(lambda cache: cache.hits),
    ),
    Family(
        name="nv_cache_num_misses_per_model",
        kind="counter",
        labels=("model",),
        help="Rows that the cache did not know.",
        read=_of_caches(lambda cache: cache.misses),
    ),
    Family(
        name="process_cpu_seconds_total",
        kind="counter",
        help="CPU time of the worker's process.",
        read=_of_process(lambda process: process.cpu_s),
    ),
    Family(
        name="process_resident_memory_bytes",
        kind="gauge",
        help="Resident memory of the worker's process.",
        read=_of_process(lambda process: process.resident_bytes),
    ),
    Family(
        name="process_open_fds",
        kind="gauge",
        help="Open file descriptors of the worker's process.",
        read=_of_process(lambda process: process.open_fds),
    ),
    Family(
        name="process_start_time_seconds",
        kind="gauge",
        help="When the worker's process began, in seconds since 1970.",
        read=_of_process(lambda process: process.started_s),
    ),
)
"""Every family, in the order of the page."""
