"""Requests of one tick of the event loop are answered together: run at once, recorded as one frame."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping

from holdfast.errors import HoldfastError, Overloaded
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.quick import Quick
from holdfast.serve.requests import Pending, PredictAnswer, PredictRequest

log = logging.getLogger(__name__)

MOST_ROWS = 16_384
"""Rows that are run in one go; what waits beyond it is answered in the next tick, so memory stays bounded."""
MOST_LOOKS = 4
"""How often it is looked, at most, whether more requests came in; each look takes microseconds."""


class Batcher:
    """Collects requests for as long as more are ready. Waits for nothing: a lone request is answered at once.

    Owned by one event loop.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._waiting: deque[Pending | Quick] = deque()
        self._in_flight: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.refused = 0
        """Requests that were turned away because the queue was full."""
        self._general: Counter[str] = Counter()

    @property
    def in_flight(self) -> Mapping[str, int]:
        """Requests that are accepted and not answered yet, by system."""
        return self._in_flight

    @property
    def general(self) -> Mapping[str, int]:
        """Requests that were accepted in another form than the usual ones, by system."""
        return self._general

    async def predict(self, system: str, request: PredictRequest) -> PredictAnswer:
        """Answer a request; recorded when this returns.

        Raises Overloaded when as many wait as `serve.queue` allows, and what `DataPlane.predict` raises.
        """
        most = self._plane.lanes(system).routed.serve.queue
        if self._in_flight[system] >= most:
            self.refused += 1
            raise Overloaded(f"{most} requests for '{system}' are waiting; send this one again in a second")
        pending = self._plane.accept(system, request)
        self._general[system] += 1
        future: asyncio.Future[PredictAnswer] = asyncio.get_running_loop().create_future()

        def settled() -> None:
            self._in_flight[system] -= 1
            if future.done():  # the caller went away; the answer is recorded all the same
                return
            if pending.error is not None:
                future.set_exception(pending.error)
            else:
                future.set_result(pending.answer())

        pending.settled = settled
        self._add(pending, system)
        return await future

    def submit(self, call: Quick) -> bool:
        """Take a call; its origin hears of the answer. False when as many wait as the queue holds."""
        system = call.lanes.name
        if self._in_flight[system] >= call.lanes.routed.serve.queue:
            return False
        self._add(call, system)
        return True

    def answered(self, call: Quick) -> None:
        """A call that was submitted has its answer."""
        self._in_flight[call.lanes.name] -= 1

    def _add(self, request: Pending | Quick, system: str) -> None:
        if not self._waiting:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            # Runs after everything that is ready in this tick.
            self._loop.call_soon(self._gather, 1, MOST_LOOKS)
        self._waiting.append(request)
        self._in_flight[system] += 1

    def _gather(self, before: int, looks: int) -> None:
        """Look once more for what came in meanwhile, for as long as it gets more than `before`: a run costs much, a
        row in it little. A lone request waits for nobody."""
        count = len(self._waiting)
        if count > before and looks:
            assert self._loop is not None
            self._loop.call_soon(self._gather, count, looks - 1)
        else:
            self._flush()

    def _flush(self) -> None:
        waiting = self._waiting
        pendings: list[Pending] = []
        calls: dict[int, list[Quick]] = {}
        rows = 0
        while waiting and (not rows or rows + waiting[0].count <= MOST_ROWS):
            request = waiting.popleft()
            rows += request.count
            if type(request) is Quick:
                calls.setdefault(id(request.lanes), []).append(request)
            else:
                pendings.append(request)  # type: ignore[arg-type]
        if waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        for some in calls.values():
            self._run_quick(some)
        if pendings:
            self._run(pendings)

    def _run_quick(self, calls: list[Quick]) -> None:
        try:
            self._plane.run_quick(calls[0].lanes, calls)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            failure = _failure(error)
            for call in calls:
                if not call.is_answered and call.values is not None:  # None: it goes the general way already
                    call.error = failure
                    call.origin.answered(call)

    def _run(self, pendings: list[Pending]) -> None:
        try:
            self._plane.run(pendings)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            failure = _failure(error)
            for pending in pendings:
                pending.give_up(failure)


def _failure(error: Exception) -> HoldfastError:
    log.error("requests failed", exc_info=error)
    failure = HoldfastError(f"the request failed ({type(error).__name__}); send it again with the same id")
    failure.__cause__ = error
    return failure
