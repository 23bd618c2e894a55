"""Requests of one tick of the event loop are answered together: run at once, recorded as one frame."""

import asyncio
from collections import Counter, deque

from holdfast.errors import HoldfastError, Overloaded
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.requests import Pending, PredictAnswer, PredictRequest

MOST_ROWS = 16_384
"""Rows that are run in one go; what waits beyond it is answered in the next tick, so memory stays bounded."""


class Batcher:
    """Collects requests until the tick ends. Waits for nothing: a lone request is answered at once.

    Owned by one event loop.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._waiting: deque[tuple[Pending, asyncio.Future[PredictAnswer]]] = deque()
        self._per_system: Counter[str] = Counter()
        self.refused = 0
        """Requests that were turned away because the queue was full."""

    async def predict(self, system: str, request: PredictRequest) -> PredictAnswer:
        """Answer a request; recorded when this returns.

        Raises Overloaded when as many wait as `serve.queue` allows, and what `DataPlane.predict` raises.
        """
        most = self._plane.lanes(system).routed.serve.queue
        if self._per_system[system] >= most:
            self.refused += 1
            raise Overloaded(f"{most} requests for '{system}' are waiting; send this one again in a second")
        pending = self._plane.accept(system, request)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[PredictAnswer] = loop.create_future()
        if not self._waiting:
            # Runs after everything that is ready in this tick, so all of it is in the batch.
            loop.call_soon(self._flush)
        self._waiting.append((pending, future))
        self._per_system[system] += 1
        return await future

    def _flush(self) -> None:
        batch: list[tuple[Pending, asyncio.Future[PredictAnswer]]] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0][0].count <= MOST_ROWS):
            batch.append(self._waiting.popleft())
            rows += batch[-1][0].count
            self._per_system[batch[-1][0].system] -= 1
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        try:
            self._plane.run([pending for pending, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            _fail(batch, error)
            return
        for pending, future in batch:
            if future.done():  # the caller went away; the answer is recorded all the same
                continue
            if pending.error is not None:
                future.set_exception(pending.error)
            else:
                future.set_result(pending.answer())


def _fail(batch: "list[tuple[Pending, asyncio.Future[PredictAnswer]]]", error: Exception) -> None:
    failure = HoldfastError(f"the request failed ({type(error).__name__}: {error}); send it again with the same id")
    failure.__cause__ = error
    for _, future in batch:
        if not future.done():
            future.set_exception(failure)
