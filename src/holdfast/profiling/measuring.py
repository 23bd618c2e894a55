"""Measures the path: requests of each form, so many in a tick, over and over in turns."""

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import uvloop

from holdfast.core.answerer import Answerer
from holdfast.core.clock import Clock, cpu_s
from holdfast.core.model import Model
from holdfast.core.routes import RoutedSystem, TokenHash
from holdfast.core.signature import Rows, Signature
from holdfast.core.spec import Serve
from holdfast.profiling.inputs import Inputs
from holdfast.profiling.measured import AT_ONCE, BATCH_ROWS, USUAL_AT_ONCE, Case, Form, RecordingFacts, Repeats
from holdfast.profiling.path import Lakes, ServingPath
from holdfast.profiling.requests import Requests
from holdfast.profiling.stages import Plain, Stopwatches, Taken, stages_of, whole_us
from holdfast.security.identity import new_token
from holdfast.serve.caching import CachedModel
from holdfast.serve.recording import Recorder, RowMeta

REPEATS = 7
WHOLE_S = 2.0
"""How long measuring takes, about: slow models take longer, because each case is measured in each repeat."""
CACHE = 10_000
"""Answers that the cache which is tried keeps."""
_BATCH = 16
_FEW = 3
"""Repeats of a model so slow that one tick is longer than its turn."""

OnProgress = Callable[[float], None]
"""Told which share in [0, 1] of measuring is done."""


class _Turn:
    """One case: its requests in rotation, and what was measured so far."""

    def __init__(self, form: Form, at_once: int, rows: int, requests: Sequence[bytes], *, is_usual: bool) -> None:
        self.form, self.at_once, self.rows = form, at_once, rows
        self._is_usual = is_usual
        self.ticks = 1
        self.plain: list[Plain] = []
        self.timed: list[Taken] = []
        self._rotation = cycle(requests)

    def next(self, ticks: int) -> list[list[bytes]]:
        return [list(islice(self._rotation, self.at_once)) for _ in range(ticks)]

    def case(self) -> Case:
        each_us = [one.cpu_s / one.requests * 1e6 for one in self.plain]
        return Case(
            form=self.form,
            at_once=self.at_once,
            rows=self.rows,
            cpu_us=whole_us(self.plain),
            low_us=min(each_us),
            high_us=max(each_us),
            wall_us=median(one.wall_s / one.requests for one in self.plain) * 1e6,
            # An unusual request passes other code, in a task of its own, which the stopwatches do not know.
            stages=stages_of(self.plain, self.timed) if self._is_usual else (),
        )


def measured_cases(
    system: str,
    routed: RoutedSystem,
    model: Model,
    inputs: Inputs,
    lakes: Lakes,
    clock: Clock,
    *,
    on_progress: OnProgress = lambda share: None,
    whole_s: float = WHOLE_S,
) -> list[Case]:
    """Every case that this system can be asked in. Raises StateError where a request is refused."""
    secret, sha256 = new_token()
    made = Requests(system, model.signature, inputs, key=routed.key, unit=routed.unit, token=secret)
    turns = _turns(made)
    token = TokenHash(sha256=sha256, role="client", name="profile")

    async def measure() -> None:
        watches = Stopwatches()
        plain = ServingPath(system, routed, model, lakes, clock, token)
        timed = ServingPath(system, routed, model, lakes, clock, token, watches)
        try:
            await _measure(turns, plain, timed, on_progress, whole_s)
        finally:
            plain.close()
            timed.close()

    with _as_in_a_worker():
        uvloop.run(measure())
    return [turn.case() for turn in turns]


def _turns(made: Requests) -> list[_Turn]:
    """Plain rows and one form of tensors by all numbers in a tick and in large requests, every other form by one."""
    usual = [form for form in made.forms if made.is_usual(form)]
    whole: list[Form] = ["object", *[form for form in usual if form != "object"][:1]]
    cases = [(form, at_once, 1) for form in whole for at_once in AT_ONCE]
    cases += [(form, 1, BATCH_ROWS) for form in whole]
    cases += [(form, USUAL_AT_ONCE, 1) for form in made.forms if form not in whole]
    requests = {key: made.of(*key) for key in {(form, rows) for form, _, rows in cases}}
    return [
        _Turn(form, at_once, rows, requests[form, rows], is_usual=form in usual) for form, at_once, rows in cases
    ]  # fmt: skip


async def _measure(
    turns: Sequence[_Turn], plain: ServingPath, timed: ServingPath, on_progress: OnProgress, whole_s: float
) -> None:
    """In turns, so that a machine that grows slower does not favour any of them."""
    turn_s = whole_s / len(turns) / (2 * REPEATS + 1)
    for turn in turns:
        turn.ticks = await _ticks(turn, plain, timed, turn_s)
    repeats = REPEATS if any(turn.ticks > 1 for turn in turns) else _FEW
    for repeat in range(repeats):
        for place, turn in enumerate(turns):
            turn.plain.append(await plain.plain(turn.next(turn.ticks)))
            turn.timed.append(await timed.timed(turn.next(turn.ticks)))
            on_progress((repeat * len(turns) + place + 1) / (repeats * len(turns)))


async def _ticks(turn: _Turn, plain: ServingPath, timed: ServingPath, turn_s: float) -> int:
    """How many ticks fill a turn; both paths are warm then, and their segments open."""
    await timed.timed(turn.next(2))
    await plain.plain(turn.next(2))
    took = await plain.plain(turn.next(3))
    return max(1, int(turn_s / max(took.wall_s / 3, 1e-6)))


@contextmanager
def _as_in_a_worker() -> Iterator[None]:
    """The collector and the switches between threads as a worker has them."""
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(switch_s)


def measured_recording(system: str, record: str, model: Model, inputs: Inputs, lakes: Lakes) -> RecordingFacts:
    """What recording 16 rows at a time is made of, per row."""
    count = min(inputs.rows.count, _BATCH)
    rows = inputs.rows.take(np.arange(inputs.rows.count - count, inputs.rows.count))
    signature = model.signature
    numbers = Signature(
        columns=tuple(column for column in signature.columns if column.type != "category"),
        task=signature.task,
        output=signature.output,
        classes=signature.classes,
    )
    bare = Rows(names=rows.names, numbers=rows.numbers, texts={}, outside=rows.outside)
    recorder = Recorder(lakes.opener("process"), lambda _: Serve())
    meta = RowMeta(
        request_id=[f"{i:034x}" for i in range(count)],
        predicted_at=np.zeros(count, dtype=np.int64),
        key=inputs.keys[-count:] if any(inputs.keys) else None,
    )
    outputs, queue_us = np.zeros(signature.shape(count)), np.zeros(count)

    def recording(of: Signature, what: Rows) -> Callable[[], None]:
        by = Answerer(system=system, version="0", stage="live", release="", signature=of, signature_hash=of.hash())
        return lambda: recorder.record_predictions(by, what, outputs, meta, queue_us=queue_us, run_us=1.0)

    whole = recording(signature, rows)
    whole()  # opens the segment
    before_bytes = _bytes_below(lakes.directory)
    whole()
    row_bytes = (_bytes_below(lakes.directory) - before_bytes) / count
    with _scratch_file(lakes.directory) as fd:
        frame = bytes(max(1, round(row_bytes * count)))
        whole_us, bare_us, write_us = _interleaved(
            [whole, recording(numbers, bare), lambda: os.write(fd, frame)], times=200
        )
    recorder.close()
    return RecordingFacts(
        record=record,
        row_bytes=row_bytes,
        whole_us=whole_us / count,
        without_texts_us=min(bare_us, whole_us) / count,
        write_us=min(write_us, whole_us) / count,
        sync_us=median(lakes.syncs_s) * 1e6 if lakes.syncs_s else None,
    )


def _interleaved(works: Sequence[Callable[[], object]], times: int) -> list[float]:
    """Processor microseconds of one call of each: medians of seven repeats in turns."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for work, each in zip(works, taken, strict=True):
            began_s = cpu_s()
            for _ in range(times):
                work()
            each.append((cpu_s() - began_s) / times * 1e6)
    return [median(each) for each in taken]


def measured_repeats(model: Model, rows: Rows, size: int = CACHE) -> Repeats:
    """How many rows came again while a cache of this size would have kept their answers, and what it costs a row."""
    # A runtime that takes no time, so that what stands around it can be measured.
    idle: Any = SimpleNamespace(run=lambda x: np.zeros(model.signature.shape(len(x))))
    nothing = Model(model.signature, model.transform, idle, model.facts)
    batches = [rows.take(np.arange(i, min(i + _BATCH, rows.count))) for i in range(0, rows.count, _BATCH)]
    cached = CachedModel(nothing, size)
    began_s = cpu_s()
    for batch in batches:
        cached.predict(batch)
    with_cache_s, began_s = cpu_s() - began_s, cpu_s()
    for batch in batches:
        nothing.predict(batch)
    lookup_s = max(0.0, with_cache_s - (cpu_s() - began_s))
    return Repeats(rows=rows.count, size=size, share=cached.hits / rows.count, lookup_us=lookup_s / rows.count * 1e6)


def _bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@contextmanager
def _scratch_file(directory: Path) -> Iterator[int]:
    fd = os.open(directory / "scratch", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
