"""Answers requests, whichever way they come: follows the routes, runs models, records.

Knows no transport: a live worker and a backtest use the same object. Owned by one thread, except `prepare`.
"""

import logging
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.inputs import read_columns
from holdfast.core.routes import Routes
from holdfast.core.signature import Rows, Signature
from holdfast.errors import HoldfastError, NotFound
from holdfast.serve.lanes import Lane, Lanes, LoadModel, Prepared, prepare
from holdfast.serve.recording import FloatArray, Recorder, RowMeta
from holdfast.serve.requests import Part, Pending, PredictAnswer, PredictRequest, joined, meta_of, split

log = logging.getLogger(__name__)


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a data plane says about the routes that it was given."""

    generation: int
    held: Mapping[str, str] = {}
    """Systems that still follow older routes because a version could not be loaded, and why."""


class DataPlane:
    """Serves every system of the routes.

    `load` makes a model of a routed version, `recorder` writes what is answered, `clock` dates it.
    """

    def __init__(self, load: LoadModel, recorder: Recorder, clock: Clock) -> None:
        self.recorder = recorder
        self._load = load
        self._clock = clock
        self._in_force = Prepared()

    @property
    def routes(self) -> Routes:
        """The routes that were followed last."""
        return self._in_force.routes

    def follow(self, routes: Routes) -> Acknowledgement:
        """Load what is new, then switch. What cannot be loaded leaves the old routes of its system in force."""
        return self.switch(self.prepare(routes))

    def prepare(self, routes: Routes) -> Prepared:
        """Load the versions that are not loaded yet. Slow, changes nothing, may run in another thread."""
        return prepare(routes, self._in_force, self._load)

    def switch(self, prepared: Prepared) -> Acknowledgement:
        """Put prepared routes in force. Requests accepted before are answered by the versions that accepted them."""
        self._in_force = prepared
        return self.acknowledgement()

    def acknowledgement(self) -> Acknowledgement:
        """The generation in force and what could not be loaded."""
        return Acknowledgement(generation=self.routes.generation, held=self._in_force.held)

    def lanes(self, system: str) -> Lanes:
        """How a system answers. Raises NotFound with the near miss."""
        lanes = self._in_force.systems.get(system)
        if lanes is None:
            raise NotFound("model", system, self._in_force.systems)
        return lanes

    def signature(self, system: str) -> Signature:
        """What the live version of a system takes. Raises NotFound, or StateError where none is live."""
        return self.lanes(system).lane().signature

    def accept(self, system: str, request: PredictRequest) -> Pending:
        """Route a request and type its inputs, without running it. Raises InvalidInput, NotFound or StateError."""
        return Pending(self.lanes(system), request)

    def predict(self, system: str, request: PredictRequest) -> PredictAnswer:
        """Answer one request; recorded when this returns. Raises what is wrong with it, or StateError if it is not."""
        pending = self.accept(system, request)
        self.run([pending])
        if pending.error is not None:
            raise pending.error
        return pending.answer()

    def run(self, batch: Sequence[Pending]) -> None:
        """Fill in the answers of accepted requests: the rows of each version are run at once, recorded as one frame.

        What goes wrong with a request is put on it as its `error`.
        """
        by_lane: dict[int, tuple[Lane, list[tuple[Pending, Part]]]] = {}
        for pending in batch:
            for part in pending.parts:
                by_lane.setdefault(id(part.lane), (part.lane, []))[1].append((pending, part))
        for lane, work in by_lane.values():
            self._answer(lane, work)

    def _answer(self, lane: Lane, work: Sequence[tuple[Pending, Part]]) -> None:
        rows = joined([part.rows for _, part in work])
        outputs = _run_model(lane, rows)
        if isinstance(outputs, HoldfastError) and len(work) > 1:
            # One request must not fail its neighbours of the same tick.
            for each in work:
                self._answer(lane, [each])
            return
        meta = meta_of(work, self._clock.now())
        started_s = np.repeat([pending.started_s for pending, _ in work], [part.rows.count for _, part in work])
        latency_us = (stopwatch_s() - started_s) * 1e6
        try:
            answered = self._record(lane, rows, outputs, meta, latency_us)
        except HoldfastError as error:
            for pending, _ in work:
                pending.error = error
            return
        start = 0
        for pending, part in work:
            pending.fill(part, answered[start : start + part.rows.count])
            start += part.rows.count

    def predict_rows(self, system: str, rows: Rows, meta: RowMeta) -> FloatArray:
        """Answer many rows at once (n,), each dated and named by the caller: for replays and batches.

        `rows` passed the signature of the live version. Recorded when this returns, with the time per row of the
        whole batch as latency. Raises NotFound, or StateError where no version is live or recording failed.
        """
        lanes = self.lanes(system)
        names = zip(meta.unit, meta.key, meta.request_id, strict=True)
        units = [unit or key or request_id for unit, key, request_id in names] if lanes.canary else ()
        outputs = np.empty(rows.count)
        for lane, index in split(lanes, units):
            some, some_meta = (rows, meta) if index is None else (rows.take(index), meta.take(index))
            if lanes.live and lane.by.signature_hash != lanes.live.by.signature_hash:
                some = _retyped(lane, some)
            outputs[slice(None) if index is None else index] = self._run_rows(lane, some, some_meta)
        return outputs

    def _run_rows(self, lane: Lane, rows: Rows, meta: RowMeta) -> FloatArray:
        started_s = stopwatch_s()
        outputs = _run_model(lane, rows)
        per_row_us = (stopwatch_s() - started_s) * 1e6 / max(rows.count, 1)
        return self._record(lane, rows, outputs, meta, np.full(rows.count, per_row_us))

    def _record(
        self, lane: Lane, rows: Rows, outputs: "FloatArray | HoldfastError", meta: RowMeta, latency_us: FloatArray
    ) -> FloatArray:
        """Record what a version answered, or that it failed; raises the failure after that."""
        if isinstance(outputs, HoldfastError):
            nothing = np.full(rows.count, np.nan)
            self.recorder.record_predictions(lane.by, rows, nothing, meta, latency_us=latency_us)
            raise outputs
        self.recorder.record_predictions(lane.by, rows, outputs, meta, latency_us=latency_us)
        return outputs


def _run_model(lane: Lane, rows: Rows) -> "FloatArray | HoldfastError":
    """Outputs (n,), or what to tell the caller."""
    try:
        outputs = np.asarray(lane.model.predict(rows), dtype=np.float64)
        if outputs.shape != (rows.count,):
            raise ValueError(f"outputs of shape {outputs.shape} for {rows.count} rows")
    except Exception as error:  # a model is foreign code
        log.exception("version %s of '%s' failed", lane.by.version, lane.by.system)
        return HoldfastError(
            f"version {lane.by.version} of '{lane.by.system}' failed ({type(error).__name__}: {error}); the request "
            "was recorded as failed; ask for another version or roll back"
        )
    return outputs


def _retyped(lane: Lane, rows: Rows) -> Rows:
    """The rows, typed for the live version, as the signature of this one sees them."""
    columns = {name: values for name, values in rows.columns.items() if name in lane.names}
    return read_columns(lane.signature, columns)
