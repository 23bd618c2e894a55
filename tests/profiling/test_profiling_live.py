"""What workers counted, as a profile shows it."""

from pathlib import Path

import numpy as np

from holdfast.core.answerer import Answerer
from holdfast.core.clock import SystemClock
from holdfast.core.signature import Column, Signature
from holdfast.observe.metrics import Metrics
from holdfast.observe.metricsfiles import publish
from holdfast.observe.tallies import Cached, LookUps
from holdfast.profiling.live import counts_of, live_of
from holdfast.state import memory_state

SIGNATURE = Signature(columns=(Column(name="a", type="number"),), task="regression", output="value")


def answerer(system: str, version: str) -> Answerer:
    return Answerer(system=system, version=version, stage="live", release="", signature=SIGNATURE, signature_hash="h")


def counted(worker: str) -> Metrics:
    metrics = Metrics(worker, SystemClock())
    for version, rows in (("1", 4), ("2", 8)):
        metrics.ran(answerer("late", version), rows, 4, np.full(4, 30.0), 100.0, np.full(4, 200.0))
    metrics.ran(answerer("other", "1"), 500, 1, np.full(1, 9e5), 9e5, np.full(1, 9e5))
    metrics.refused("late", 429)
    metrics.general({"late": 3, "other": 1})
    metrics.cached({"late": Cached(versions={"1": LookUps(hits=3, misses=1)})})
    metrics.recording(sent=12, written=12, shed=0, lost=0, lag_s=0.2)
    return metrics


def test_workers_and_versions_of_one_system_are_taken_together() -> None:
    found = counts_of(counted("worker-1").snapshot() + counted("worker-2").snapshot(), "late")
    assert (found.workers, found.requests, found.rows, found.runs) == (2, 16, 24, 4)
    assert (found.rows_per_run, found.requests_per_run, found.largest_run) == (6.0, 4.0, 8)
    assert (found.refused, found.failed, found.general) == ({429: 2}, 0, 6)
    assert (found.cache_hits, found.cache_misses) == (6, 2)
    assert (found.written, found.lag_s) == (24, 0.2)
    queue = found.part("queue")
    assert queue is not None
    assert (queue.count, queue.mean_us) == (16, 30.0)
    assert [part.phase for part in found.parts] == ["queue", "run", "request"]


def test_a_system_that_was_not_asked_yet_has_no_counts() -> None:
    found = counts_of(counted("worker-1").snapshot(), "new")
    assert (found.requests, found.rows_per_run, found.requests_per_run, found.parts) == (0, 0.0, 0.0, [])


def test_figures_of_workers_are_not_shown_where_nothing_is_up(tmp_path: Path) -> None:
    state = memory_state(tmp_path)
    state.run_directory.mkdir()
    publish(state.run_directory, counted("worker-1").snapshot())
    assert live_of(state, "late") is None
