"""Where training jobs are done: each in its own process, its outcome stored by content, its artifact signed."""

import hashlib
import os
import shutil
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import psutil
from msgspec.structs import replace

from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.model import Model
from holdfast.core.protocols import Transaction
from holdfast.core.records import Job, Run, Version
from holdfast.core.spans import ALL, Span
from holdfast.core.spec import SystemSpec
from holdfast.core.specfile import spec_hash
from holdfast.core.specwords import read_span
from holdfast.errors import HoldfastError, JobFailed
from holdfast.flow import child, datasets, jobs, registry
from holdfast.flow.jobs import LEASE
from holdfast.flow.predictions import with_delivered_labels
from holdfast.flow.training import HOLDOUT, VALIDATED, TrainingRequest, TrainingResult
from holdfast.provenance import code_version
from holdfast.security import artifacts, signing, verifying
from holdfast.state import State
from holdfast.world import Feeds

Prepare = Callable[[TrainingRequest, str], TrainingRequest]
"""May change a request before it is run, given what caused it: how a backtest breaks a training."""

Begin = Callable[[Transaction, Run, str], str]
"""Begins the release of a finished run, given what caused it; returns one sentence on it."""

SAME_START_S = 2.0
"""Start times of one process, read at different times, differ by less than this: they follow the machine's clock."""
RENEW_S = LEASE.total_seconds() / 4
"""How often the lease is renewed while a job is waited for."""
LATENCY_ROWS = 300
"""How many single-row answers the latency of a candidate is measured on."""


class Workshop:
    """Runs one training at a time for one system.

    With `waits`, `work` returns only when the job is done: a replayed clock stands still meanwhile. Without, it
    returns at once and a later call picks the outcome up.
    """

    def __init__(
        self, spec: SystemSpec, state: State, clock: Clock, feeds: Feeds, *, waits: bool, prepare: Prepare | None
    ) -> None:
        self._spec = spec
        self._state = state
        self._clock = clock
        self._feeds = feeds
        self._directory = state.directory / "work" / spec.system
        self._waits = waits
        self._prepare = prepare or (lambda request, cause: request)
        self._owner = _me()
        self.waited_s = 0.0
        """Wall time spent waiting for jobs."""
        self._job: Job | None = None
        self._run: Run | None = None
        self._child: child.Child | None = None

    def work(self, begin: Begin) -> list[str]:
        """Look after the job under way, or claim one; returns what happened. What a run that succeeded leads to is
        `begin`'s to say, in the transaction that closes the job."""
        if self._child is None:
            return self._claim(begin)
        try:
            result = self._waited() if self._waits else self._child.poll()
        except JobFailed as error:
            return self._failed(str(error))
        if result is None:
            return [] if self._renewed() else self._lost()
        return self._finished(result, begin)

    def _waited(self) -> TrainingResult | None:
        """The result, waited for; the lease is renewed meanwhile. None when another keeper has taken the job."""
        assert self._child is not None
        before = stopwatch_s()
        try:
            while (result := self._child.wait(RENEW_S)) is None:
                if not self._renewed():
                    return None
            return result
        finally:
            self.waited_s += stopwatch_s() - before

    def close(self) -> None:
        """Kill the job under way and give it back, so that another keeper takes it up at once."""
        if self._child is not None and self._job is not None:
            self._child.kill()
            with self._state.catalog.begin() as tx:
                jobs.give_back(tx, self._job)
                self._end_run(tx, self._of(), "stopped with the process that ran it; it is tried again")
            self._forget()

    def candidate_model(self, run: Run) -> Model:
        """The model of a finished run, not yet signed."""
        directory = self._state.directory / "models" / run.artifact
        artifacts.unpack(self._state.blobs.get(run.artifact), directory)
        return artifacts.open_model(directory)

    def sign(self, run: Run) -> tuple[str, str]:
        """Sign a run's artifact; returns the blob key of the bundle and the fingerprint of the key."""
        directory = self._state.directory / "models" / run.artifact
        keys = signing.create_keys(self._state.keys_directory)
        bundle = signing.sign(directory, keys.private)
        return self._state.blobs.put(bundle), hashlib.sha256(keys.public.read_bytes()).hexdigest()[:16]

    def _claim(self, begin: Begin) -> list[str]:
        now = self._clock.now()
        with self._state.catalog.read() as tx:
            if not tx.find(Job, self._spec.system, state=("queued", "running")):
                return []
        with self._state.catalog.begin() as tx:
            for held in tx.find(Job, self._spec.system, state=("running",)):
                if _is_gone(held.owner):
                    jobs.expire(tx, held, now)
            job = jobs.claim(tx, self._spec.system, self._owner, now)
            self._end_runs_of_failed(tx)
        if job is None:
            return []
        self._job = job
        try:
            self._start(job, now)
        except HoldfastError as error:
            return self._failed(str(error))
        return self.work(begin) if self._waits else [f"{job.id} started: training on {self._of().snapshot}"]

    def _start(self, job: Job, now: datetime) -> None:
        spec, state = self._spec, self._state
        world = self._feeds.world(now)
        origin = datasets.Origin(
            files=world.files, rows_quarantined=world.quarantined, spec_hash=spec_hash(spec), code=code_version()
        )
        rows = with_delivered_labels(spec, state.lake, world.rows(now), now)
        snapshot, _ = datasets.take_snapshot(spec, rows, now=now, blobs=state.blobs, lake=state.lake, origin=origin)
        out = self._out(job)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        path = out / "snapshot.parquet"
        path.write_bytes(state.blobs.get(snapshot.blob))
        with state.catalog.begin() as tx:
            present = _window_of_live(tx, spec.system)
            tx.put(snapshot)
            for left in tx.find(Run, spec.system, state=("running",)):
                if left.job == job.id:
                    self._end_run(tx, left, "the process that ran it died; it is tried again")
            self._run = Run(
                system=spec.system,
                id=tx.next_id(Run, spec.system, "run-"),
                snapshot=snapshot.id,
                job=job.id,
                trainer=spec.model.trainer,
                seed=spec.model.seed,
                started_at=now,
                commit=origin.code,
            )
            tx.put(self._run)
        before = stopwatch_s()
        request = TrainingRequest(spec=spec, snapshot=path, seed=spec.model.seed, now=now, out=out, present=present)
        self._child = child.start(self._prepare(request, str(job.payload.get("cause", ""))))
        self.waited_s += stopwatch_s() - before

    def _end_runs_of_failed(self, tx: Transaction) -> None:
        """A job that was given up leaves the run of its last attempt behind."""
        for run in tx.find(Run, self._spec.system, state=("running",)):
            job = tx.get(Job, self._spec.system, run.job)
            if job is not None and job.state == "failed":
                self._end_run(tx, run, job.message)

    def _end_run(self, tx: Transaction, run: Run, message: str) -> None:
        tx.put(replace(run, state="failed", ended_at=self._clock.now(), message=message))

    def _renewed(self) -> bool:
        """Extend the lease; False when the job is another keeper's by now."""
        assert self._job is not None
        with self._state.catalog.begin() as tx:
            renewed = jobs.renew(tx, self._job, self._clock.now())
        self._job = renewed or self._job
        return renewed is not None

    def _lost(self) -> list[str]:
        """End the process of a job that another keeper has taken over; what it gave is not kept."""
        assert self._job is not None
        said = f"{self._job.id} was taken over by another keeper; its process here was stopped"
        self.close()
        return [said]

    def _failed(self, message: str) -> list[str]:
        now, job = self._clock.now(), self._job
        assert job is not None
        with self._state.catalog.begin() as tx:
            held = jobs.renew(tx, job, now)
            if held is not None:
                jobs.fail(tx, held, message, now)
                if self._run is not None:
                    self._end_run(tx, self._run, message)
        if held is None:
            return self._lost()
        self._forget()
        return [f"{job.id} failed: {message}"]

    def _finished(self, result: TrainingResult, begin: Begin) -> list[str]:
        """Store what came out, then close job and run and begin the release in one transaction."""
        job, now, state = self._job, self._clock.now(), self._state
        assert job is not None
        out = self._out(job)
        files = verifying.read_files(out / "artifact")
        artifact = state.blobs.put(artifacts.pack(files))
        holdout = state.blobs.put((out / HOLDOUT).read_bytes())
        validated = state.blobs.put((out / VALIDATED).read_bytes())
        run = finished_run(
            self._of(), result, artifact=artifact, holdout_rows=holdout, validated_rows=validated, now=now
        )
        with state.catalog.begin() as tx:
            held = jobs.renew(tx, job, now)
            if held is not None:
                tx.put(run)
                jobs.complete(tx, held, {"run": run.id, "artifact": artifact}, now)
                event = begin(tx, run, str(job.payload.get("cause", "")))
        if held is None:
            return self._lost()
        self._forget()
        return [event]

    def _out(self, job: Job) -> Path:
        """The directory of one attempt: whoever lost a job must not clear away what its next owner is making."""
        return self._directory / f"{job.id}.{job.attempts}"

    def _of(self) -> Run:
        assert self._run is not None
        return self._run

    def _forget(self) -> None:
        if self._job is not None:
            shutil.rmtree(self._out(self._job), ignore_errors=True)
        self._job = self._run = self._child = None


def _me() -> str:
    """This process as the owner of a job: machine, process id, and when it started, since ids are used again."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def _is_gone(owner: str) -> bool:
    """True when the owner was a process of this machine that is no more; one elsewhere keeps its lease."""
    host, _, process = owner.partition(":")
    pid, _, started = process.partition(":")
    if host != socket.gethostname() or not (pid.isdigit() and started.isdigit()):
        return False
    try:
        began: float = psutil.Process(int(pid)).create_time()
    except psutil.NoSuchProcess:
        return True
    return abs(began - float(started)) > SAME_START_S


def finished_run(
    run: Run, result: TrainingResult, *, artifact: str, holdout_rows: str, validated_rows: str, now: datetime
) -> Run:
    """The record of a run that succeeded."""
    return replace(
        run,
        state="succeeded",
        params=result.params,
        ended_at=now,
        took_s=result.took_s,
        cpu_s=result.cpu_s,
        cost=result.cpu_s / 3600,
        metrics=result.metrics,
        folds=result.folds,
        curves=result.curves,
        baselines=result.baselines,
        environment=result.environment,
        artifact=artifact,
        runtime=result.runtime,
        parity=result.parity,
        holdout=result.holdout,
        holdout_rows=holdout_rows,
        validated_rows=validated_rows,
        trained_until=result.trained_until,
        window=result.window,
    )


def _window_of_live(tx: Transaction, system: str) -> Span:
    """What the live version was fitted on; all of the history where nothing is live."""
    version = tx.get(Version, system, registry.current_route(tx, system).live)
    run = tx.get(Run, system, version.run) if version is not None else None
    return ALL if run is None or run.window is None else read_span(run.window.window)


def measured_latency_ms(model: Model, rows: pl.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Time in ms that single rows take the model, NaN for rows beyond the first few hundred (n,)."""
    took = np.full(rows.height, np.nan)
    for i in range(min(rows.height, LATENCY_ROWS)):
        before = stopwatch_s()
        model.predict_frame(rows[i : i + 1])
        took[i] = (stopwatch_s() - before) * 1e3
    return took
