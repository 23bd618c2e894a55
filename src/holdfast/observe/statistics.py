"""Triton's statistics extension: counts and cumulative times per version, for REST and gRPC."""

from collections.abc import Iterable

import msgspec

from holdfast.observe.tallies import Answered, Cached, LookUps, Runs, Snapshot, by_version


class Duration(msgspec.Struct, frozen=True, kw_only=True):
    """How often something was done, and for how many nanoseconds in all."""

    count: int = 0
    ns: int = 0


class InferStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one version, but rows for look-ups in the cache. What is not measured is 0: inputs, outputs, and the
    time of look-ups, which is in that of the runs.
    """

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration = Duration()
    compute_infer: Duration
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class BatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one batch size: exactly up to 256 rows, above by the next power of two."""

    batch_size: int
    compute_input: Duration = Duration()
    compute_infer: Duration
    compute_output: Duration = Duration()


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one version since the workers started."""

    name: str
    version: str
    last_inference: int
    """Milliseconds since 1970 UTC; 0 for never."""
    inference_count: int
    """Rows answered, unlike Triton's with those from the cache."""
    execution_count: int
    """Batches answered, also those wholly from the cache."""
    inference_stats: InferStatistics
    batch_stats: tuple[BatchStatistics, ...]


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``GET /v2/models/stats`` and of what lies below a model."""

    model_stats: tuple[ModelStatistics, ...]


def statistics(
    snapshots: Iterable[Snapshot], versions: Iterable[tuple[str, str]], system: str = "", version: str = ""
) -> Statistics:
    """Statistics of all workers together, by model and version, sorted.

    `versions` are the routed (system, version) pairs: those that answered nothing yet are listed with zeros. What is
    asked for is narrowed by `system` and `version`, empty for all; whether they exist is for the caller to say.
    """
    counted = sum(snapshots, Snapshot())
    answered = {(each.system, each.version): each for each in by_version(counted.answered)}
    for name, number in versions:
        answered.setdefault((name, number), Answered(system=name, version=number, stage=""))
    return Statistics(
        model_stats=tuple(
            _of(each, counted.caches.get(key[0], Cached()).versions.get(key[1], LookUps()))
            for key, each in sorted(answered.items())
            if system in ("", key[0]) and version in ("", key[1])
        )
    )


def _of(each: Answered, looked_up: LookUps) -> ModelStatistics:
    return ModelStatistics(
        name=each.system,
        version=each.version,
        last_inference=each.last_ms,
        inference_count=each.rows,
        execution_count=each.run.count,
        inference_stats=InferStatistics(
            success=Duration(count=each.request.count, ns=each.request.total_ns),
            fail=Duration(count=sum(each.failed.values()), ns=each.failed_ns),
            queue=Duration(count=each.queue.count, ns=each.queue.total_ns),
            # As Triton has it: a run counts for every request in it, so ns / count is what a request saw.
            compute_infer=Duration(count=each.queue.count, ns=each.shared_run_ns),
            cache_hit=Duration(count=looked_up.hits),
            cache_miss=Duration(count=looked_up.misses),
        ),
        batch_stats=tuple(_batch(rows, runs) for rows, runs in each.batches.items()),
    )


def _batch(rows: int, runs: Runs) -> BatchStatistics:
    return BatchStatistics(batch_size=rows, compute_infer=Duration(count=runs.count, ns=runs.ns))
