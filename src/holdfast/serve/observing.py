"""Takes note of requests once their answers are on their way: in metrics, and in traces where they are asked for."""

from collections.abc import Sequence

import numpy as np

from holdfast.core.clock import stopwatch_s
from holdfast.errors import HoldfastError, StateError
from holdfast.observe.metrics import Metrics
from holdfast.observe.tracing import NoTracing, Outcome, Tracing, context_of
from holdfast.serve.lanes import Lane
from holdfast.serve.quick import Quick
from holdfast.serve.recording import FloatArray
from holdfast.serve.requests import Pending
from holdfast.serve.traffic import Bools


class Observing:
    """What a data plane tells about its work. Owned by its thread."""

    def __init__(self, metrics: Metrics | None = None, tracing: Tracing | None = None) -> None:
        self.metrics = metrics
        self.tracing = tracing or NoTracing()

    def settled(
        self,
        lane: Lane,
        rows: int,
        requests: Sequence[Pending | Quick],
        accepted_s: FloatArray,
        queue_us: FloatArray,
        run_us: float,
        error: HoldfastError | None,
    ) -> None:
        """Requests (n,) of one version were just settled; `accepted_s` and `queue_us` are by request."""
        ended_s = stopwatch_s()
        if self.metrics is not None:
            total_us = (ended_s - accepted_s) * 1e6
            if error is None:
                self.metrics.ran(lane.by, rows, len(requests), queue_us, run_us, total_us)
            elif not isinstance(error, StateError):  # what could not be recorded is counted where it is answered
                self.metrics.failed(lane.by, len(requests), total_us=float(total_us.sum()))
        if self.tracing.is_on:
            status = 200 if error is None else 503 if isinstance(error, StateError) else 500
            self._trace(lane, requests, queue_us.tolist(), run_us, ended_s, status)

    def settled_both(
        self,
        lanes: tuple[Lane, Lane],
        is_second: Bools,
        requests: Sequence[Quick],
        accepted_s: FloatArray,
        queue_us: FloatArray,
        run_us: float,
        error: HoldfastError | None,
    ) -> None:
        """Requests (n,) of two versions that were run at once, of one row each, were just settled."""
        if error is None and self.metrics is not None and not self.tracing.is_on:
            total_us = (stopwatch_s() - accepted_s) * 1e6
            self.metrics.ran_both((lanes[0].by, lanes[1].by), is_second, queue_us, run_us, total_us)
            return
        for lane, chosen in zip(lanes, (~is_second, is_second), strict=True):
            some = [requests[i] for i in np.flatnonzero(chosen).tolist()]
            self.settled(lane, len(some), some, accepted_s[chosen], queue_us[chosen], run_us, error)

    def _trace(
        self,
        lane: Lane,
        requests: Sequence[Pending | Quick],
        queue_us: list[float],
        run_us: float,
        ended_s: float,
        status: int,
    ) -> None:
        for request, waited_us in zip(requests, queue_us, strict=True):
            if isinstance(request, Quick):
                trace = self.tracing.begin(*context_of(request.known.headers))
            else:
                trace = request.trace
            self.tracing.answered(
                trace,
                Outcome(
                    system=lane.by.system,
                    request_id=request.request_id,
                    rows=request.count,
                    status=status,
                    by=lane.by,
                    started_s=request.accepted_s,
                    ended_s=ended_s,
                    queue_us=waited_us,
                    run_us=run_us,
                ),
            )
