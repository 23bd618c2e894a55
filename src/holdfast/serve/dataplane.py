"""Answers requests, whichever way they come: follows the routes, runs models, records.

Knows no transport: a live worker and a backtest use the same object. Owned by one thread, except `prepare`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from holdfast.core.answerer import Answerer
from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.inputs import read_columns
from holdfast.core.routes import Routes
from holdfast.core.signature import Rows, Signature
from holdfast.core.times import microseconds
from holdfast.errors import HoldfastError, NotFound, StateError
from holdfast.serve.lanes import Lane, Lanes, LoadModel, Pair, Prepared, prepare
from holdfast.serve.observing import Observing
from holdfast.serve.quick import Quick, name_lists, rows_of, stuck_to, write_answers, write_class_answers
from holdfast.serve.quick import meta_of as quick_meta
from holdfast.serve.recording import Answered, Done, FloatArray, Recorder, RowMeta
from holdfast.serve.requests import Part, Pending, PredictAnswer, PredictRequest, joined, meta_of, split
from holdfast.serve.traffic import Bools, Words, takes_canary

log = logging.getLogger(__name__)

Outcome = FloatArray | HoldfastError
"""The outputs of rows (n,), or why there are none."""

_ERROR_LIMIT = 500
"""Most characters of a model's error that are recorded with its rows."""


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a data plane says about the routes that it was given."""

    generation: int
    held: Mapping[str, str] = {}
    """Systems that still follow older routes because a version could not be loaded, and why."""


class DataPlane:
    """Serves every system of the routes.

    `load` makes a model of a routed version, `recorder` writes what is answered, `clock` dates it. `observing`
    takes note of what was done; it may be set before requests come.
    """

    def __init__(self, load: LoadModel, recorder: Recorder, clock: Clock) -> None:
        self.recorder = recorder
        self.observing = Observing()
        self._load = load
        self._clock = clock
        self._in_force = Prepared()

    @property
    def routes(self) -> Routes:
        """The routes that were followed last."""
        return self._in_force.routes

    @property
    def in_force(self) -> Prepared:
        """The routes with their loaded versions; another object whenever any of it changes."""
        return self._in_force

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
        """How a system answers. Raises NotFound with the near miss, StateError while there are no routes at all."""
        lanes = self._in_force.systems.get(system)
        if lanes is None:
            if not self.routes.generation:
                raise StateError("this worker has no routes to follow yet; ask again in a moment")
            raise NotFound("model", system, self._in_force.systems)
        return lanes

    def signature(self, system: str) -> Signature:
        """What the live version of a system takes. Raises NotFound, or StateError where none is live."""
        return self.lanes(system).lane().signature

    def accept(self, system: str, request: PredictRequest) -> Pending:
        """Route a request and type its inputs, without running it. Raises InvalidInput, NotFound or StateError."""
        return Pending(self.lanes(system), request)

    def predict(self, system: str, request: PredictRequest) -> PredictAnswer:
        """Answer one request; recorded when this returns. Raises what is wrong with it, or StateError if it is not.

        Needs a recorder that waits for what it writes.
        """
        pending = self.accept(system, request)
        self.run([pending])
        if pending.error is not None:
            raise pending.error
        return pending.answer()

    def run(self, batch: Sequence[Pending]) -> None:
        """Answer accepted requests: the rows of each version are run at once and recorded as one frame.

        `settled` of a request is called once it is recorded, which may be after this returned. What goes wrong with
        it is put on it as its `error`.
        """
        by_lane: dict[int, tuple[Lane, list[tuple[Pending, Part]]]] = {}
        for pending in batch:
            for part in pending.parts:
                by_lane.setdefault(id(part.lane), (part.lane, []))[1].append((pending, part))
        for lane, work in by_lane.values():
            self._answer(lane, work)

    def _answer(self, lane: Lane, work: Sequence[tuple[Pending, Part]]) -> None:
        counts = [part.rows.count for _, part in work]

        def settle(outcome: Outcome) -> None:
            start = 0
            for (pending, part), count in zip(work, counts, strict=True):
                if isinstance(outcome, HoldfastError):
                    pending.fail(outcome)
                else:
                    pending.fill(part, outcome[start : start + count])
                start += count

        rows = joined([part.rows for _, part in work])
        requests = [pending for pending, _ in work]
        if not self._run(lane, rows, meta_of(work, self._clock.now()), requests, counts, settle):
            for each in work:
                self._answer(lane, [each])

    def run_quick(self, lanes: Lanes, calls: Sequence[Quick]) -> None:
        """Answer calls of one system that were read in a single pass, as `run` does."""
        if lanes.routed.is_listwise:
            name_lists(calls)
        meta = quick_meta(calls, microseconds(self._clock.now()))
        if lanes.canary is None or lanes.routed.canary_share <= 0.0:
            self._answer_quick(lanes.lane(), calls, meta)
            return
        has_names = meta.key is not None or meta.unit is not None
        if has_names and meta.row is not None:
            together = [call for call in calls if not _may_part(call)]
            if len(together) < len(calls):
                for call in calls:
                    if _may_part(call):
                        call.origin.unusual(call)
                if together:
                    self.run_quick(lanes, together)
                return
        units = stuck_to(calls) if has_names or meta.row is not None else meta.request_id
        is_canary = takes_canary(units, f"{lanes.name}/{lanes.routed.release}", lanes.routed.canary_share)
        which = is_canary.tolist()
        if True not in which:
            self._answer_quick(lanes.lane(), calls, meta)
        elif False not in which:
            self._answer_quick(lanes.canary, calls, meta)
        elif not (meta.row is None and self._answer_both(lanes, calls, meta, is_canary)):
            for lane, wanted in ((lanes.lane(), False), (lanes.canary, True)):
                some = [call for call, is_it in zip(calls, which, strict=True) if is_it == wanted]
                self._answer_quick(lane, some, quick_meta(some, microseconds(self._clock.now())))

    def _answer_quick(self, lane: Lane, calls: Sequence[Quick], meta: RowMeta) -> None:
        rows = rows_of(lane.reader, calls)
        if rows is None:
            # One of them is not as it should be: each goes the general way, which says what is wrong with which.
            for call in calls:
                call.origin.unusual(call)
            return
        for call in calls:
            call.lane = lane
        outside = rows.outside.tolist()
        counts = None if rows.count == len(calls) else [call.count for call in calls]
        if not self._run(lane, rows, meta, calls, counts, lambda outcome: _settle_quick(calls, outcome, outside)):
            for call in calls:
                self._answer_quick(lane, [call], quick_meta([call], microseconds(self._clock.now())))

    def _answer_both(self, lanes: Lanes, calls: Sequence[Quick], meta: RowMeta, is_canary: Bools) -> bool:
        """Answer calls of one row, some by the live version and some by its canary: read, run and recorded at once.

        False where that cannot be; nothing was done then.
        """
        live, canary, pair = lanes.live, lanes.canary, lanes.pair
        if pair is None or live is None or canary is None:
            return False
        which = is_canary.astype(np.uint32)
        rows = rows_of(pair.reader, calls, pair.ranges(which))
        if rows is None:
            return False
        started_s = stopwatch_s()
        outputs = _run_both(live, canary, pair, rows, which)
        run_us = (stopwatch_s() - started_s) * 1e6
        if isinstance(outputs, HoldfastError):
            return False
        accepted_s = np.array([call.accepted_s for call in calls])
        queue_us = (started_s - accepted_s) * 1e6
        is_other = is_canary.tolist()
        for call, is_it in zip(calls, is_other, strict=True):
            call.lane = canary if is_it else live
        outside = rows.outside.tolist()

        def done(unrecorded: StateError | None) -> None:
            _settle_quick(calls, unrecorded or outputs, outside)
            self.observing.settled_both((live, canary), is_canary, calls, accepted_s, queue_us, run_us, unrecorded)

        self.recorder.record_predictions(
            live.by,
            rows,
            outputs,
            meta,
            queue_us=queue_us,
            run_us=run_us,
            answered=_both_by(live.by, canary.by, is_other),
            done=done,
        )
        return True

    def _run(
        self,
        lane: Lane,
        rows: Rows,
        meta: RowMeta,
        requests: Sequence[Pending | Quick],
        counts: Sequence[int] | None,
        settle: Callable[[Outcome], None],
    ) -> bool:
        """Run and record the rows of some requests, then settle them. False: run each alone, together they failed.

        `counts` are the rows of each request; None stands for one each.
        """
        started_s = stopwatch_s()
        outputs = _run_model(lane, rows)
        run_us = (stopwatch_s() - started_s) * 1e6
        if isinstance(outputs, HoldfastError) and len(requests) > 1:
            return False  # one request must not fail its neighbours of the same tick
        accepted_s = np.array([request.accepted_s for request in requests])
        queue_us = (started_s - accepted_s) * 1e6

        def done(unrecorded: StateError | None) -> None:
            outcome = unrecorded or outputs
            settle(outcome)
            error = outcome if isinstance(outcome, HoldfastError) else None
            self.observing.settled(lane, rows.count, requests, accepted_s, queue_us, run_us, error)

        by_row_us = queue_us if counts is None else np.repeat(queue_us, counts)
        self._record(lane, rows, outputs, meta, queue_us=by_row_us, run_us=run_us, done=done)
        return True

    def _record(
        self,
        lane: Lane,
        rows: Rows,
        outputs: Outcome,
        meta: RowMeta,
        *,
        queue_us: FloatArray,
        run_us: float,
        done: Done | None = None,
    ) -> None:
        """Record what a version answered, or that it failed."""
        error = ""
        if isinstance(outputs, HoldfastError):
            error = str(outputs.__cause__ or outputs)[:_ERROR_LIMIT]
            outputs = np.full(lane.signature.shape(rows.count), np.nan)
        self.recorder.record_predictions(
            lane.by, rows, outputs, meta, queue_us=queue_us, run_us=run_us, error=error, done=done
        )

    def predict_rows(self, system: str, rows: Rows, meta: RowMeta) -> FloatArray:
        """Answer many rows at once (n,), each dated and named by the caller: for replays and batches.

        `rows` passed the signature of the live version. Recorded when this returns, with the time per row of the
        whole batch as its running time. Raises NotFound, or StateError where no version is live or recording failed.
        """
        lanes = self.lanes(system)
        units: Sequence[str] = ()
        if lanes.canary:
            nothing = [None] * rows.count
            names = zip(meta.unit or nothing, meta.key or nothing, meta.request_id, strict=True)
            units = [unit or key or request_id for unit, key, request_id in names]
        outputs = np.empty(lanes.lane().signature.shape(rows.count))
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
        self._record(lane, rows, outputs, meta, queue_us=np.zeros(rows.count), run_us=per_row_us)
        if isinstance(outputs, HoldfastError):
            raise outputs
        return outputs


def _may_part(call: Quick) -> bool:
    """Whether rows of a call may stick to different versions: its rows are of more than one unit, or key."""
    if call.count == 1 or not (call.units or call.keys):
        return False
    nothing = [None] * call.count
    named = zip(call.units or nothing, call.keys or nothing, strict=True)
    return len({unit or key for unit, key in named}) > 1


def _settle_quick(calls: Sequence[Quick], outcome: Outcome, outside: Sequence[int]) -> None:
    if isinstance(outcome, HoldfastError):
        for call in calls:
            call.error = outcome
    elif outcome.ndim == 1:
        write_answers(calls, outcome, outside)
    else:
        write_class_answers(calls, outcome, outside)
    for call in calls:
        try:
            call.origin.answered(call)
        except Exception:  # one that breaks must not keep the others from their answers
            log.exception("an answer could not be given")


def _run_model(lane: Lane, rows: Rows) -> Outcome:
    """Outputs (n,) or (n, classes), or what to tell the caller."""
    return _checked(lambda: lane.model.predict(rows), rows.count, lane)


def _checked(predict: Callable[[], FloatArray], count: int, lane: Lane, canary: Lane | None = None) -> Outcome:
    """Outputs (count,) of a version, or of two that are run in one, of which either may be what failed.

    Of several classes a row that failed in one of its numbers failed in all: whoever tells them tells the same.
    """
    try:
        outputs, signature = np.asarray(predict(), dtype=np.float64), lane.by.signature
        if (outputs.shape != (count,) or signature.classes) and outputs.shape != signature.shape(count):
            raise ValueError(f"outputs of shape {outputs.shape} for {count} rows")
    except Exception as error:  # a model is foreign code
        versions = lane.by.version if canary is None else f"{lane.by.version} or {canary.by.version}"
        log.exception("version %s of '%s' failed", versions, lane.by.system)
        failure = HoldfastError(
            f"version {versions} of '{lane.by.system}' failed ({type(error).__name__}); the request "
            "was recorded as failed; ask for another version or roll back"
        )
        failure.__cause__ = error
        return failure
    if outputs.ndim == 2 and not (finite := np.isfinite(outputs.sum(axis=1))).all():
        return np.where(finite[:, None], outputs, np.nan)  # a copy: they may be what a cache keeps
    return outputs


def _run_both(live: Lane, canary: Lane, pair: Pair, rows: Rows, which: Words) -> Outcome:
    """Outputs (n,) of the live version where `which` is 0 and of the canary where it is 1."""
    if pair.model is not None:
        both = pair.model
        return _checked(lambda: both.predict(rows, which), rows.count, live, canary)
    # The live version runs all rows: a few more cost it less than picking its own out would.
    outputs = _run_model(live, rows)
    index = np.flatnonzero(which)
    others = _run_model(canary, rows.take(index))
    if isinstance(others, HoldfastError):
        return others
    if not isinstance(outputs, HoldfastError):
        outputs[index] = others
    return outputs


def _both_by(live: Answerer, canary: Answerer, is_canary: list[bool]) -> Answered:
    versions = [canary.version if is_it else live.version for is_it in is_canary]
    return versions, ["canary" if is_it else "live" for is_it in is_canary]


def _retyped(lane: Lane, rows: Rows) -> Rows:
    """The rows, typed for the live version, as the signature of this one sees them."""
    columns = {name: values for name, values in rows.columns.items() if name in lane.names}
    return read_columns(lane.signature, columns)
