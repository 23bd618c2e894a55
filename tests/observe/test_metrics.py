from datetime import timedelta

import msgspec
import numpy as np
import pytest

from holdfast.core.answerer import Answerer
from holdfast.core.clock import ManualClock
from holdfast.observe.metrics import Metrics
from holdfast.observe.tallies import Cached, LookUps, Runs
from holdfast.testing.serving import NOW, SIGNATURE

CACHED = Cached(versions={"1": LookUps(hits=1), "2": LookUps(hits=2, misses=1)}, entries=2)


def answerer(version="1", system="flights", stage="live") -> Answerer:
    return Answerer(system=system, version=version, stage=stage, release="r1", signature=SIGNATURE, signature_hash="x")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("worker-0", ManualClock(NOW))


def ran(metrics, by, rows=1, times=1):
    for _ in range(times):
        metrics.ran(by, rows, 1, [10.0], 200.0, [300.0])


def test_a_batch_is_counted_by_requests_rows_and_runs(metrics):
    metrics.ran(answerer(), 33, 2, [10.0, 20.0], 200.0, [300.0, 400.0])
    [found] = metrics.snapshot().answered
    assert found.key == ("flights", "1", "live")
    assert (found.request.count, found.rows, found.run.count) == (2, 33, 1)
    assert (found.queue.total_ns, found.run.total_ns, found.request.total_ns) == (30_000, 200_000, 700_000)
    assert found.shared_run_ns == 400_000, "each request of the batch had to wait for the whole run"


def test_a_run_of_two_versions_counts_to_each_with_its_own_rows(metrics):
    first, second = answerer(), answerer(version="2", stage="canary")
    metrics.ran_both((first, second), np.array([False, True, False]), np.array([1.0, 2.0, 3.0]), 50.0, [10.0] * 3)
    metrics.ran_both((first, second), np.array([True]), np.array([4.0]), 60.0, [10.0])
    ran(metrics, first)
    one, two = metrics.snapshot().answered
    assert (one.rows, one.request.count, one.queue.total_ns, one.run.count) == (3, 3, 4_000 + 10_000, 2)
    assert (two.rows, two.request.count, two.queue.total_ns, two.run.count) == (2, 2, 6_000, 2)
    assert (two.batches, two.shared_run_ns) == ({1: Runs(count=2, ns=110_000)}, 110_000)
    assert two.last_ms == one.last_ms > 0
    assert metrics.snapshot().answered == (one, two), "and none twice"


def test_many_batches_are_counted_before_anyone_asks_and_none_twice(metrics):
    by = answerer()
    ran(metrics, by, times=5000)
    assert metrics.snapshot().answered[0].request.count == 5000
    ran(metrics, by, times=3)
    assert metrics.snapshot().answered[0].request.count == 5003


def test_the_same_version_after_a_change_of_routes_is_counted_on(metrics):
    ran(metrics, answerer())
    ran(metrics, answerer())
    assert [each.request.count for each in metrics.snapshot().answered] == [2]


def test_many_changes_of_routes_do_not_mix_versions(metrics):
    for place in range(2000):
        ran(metrics, answerer(version=str(place % 2)))
    assert [(each.version, each.request.count) for each in metrics.snapshot().answered] == [("0", 1000), ("1", 1000)]


def test_batch_sizes_are_exact_up_to_256_and_rounded_up_above(metrics):
    by = answerer()
    for rows in (1, 255, 256, 257, 512, 513, 16_384):
        ran(metrics, by, rows=rows)
    batches = metrics.snapshot().answered[0].batches
    assert {rows: runs.count for rows, runs in batches.items()} == {1: 1, 255: 1, 256: 1, 512: 2, 1024: 1, 16_384: 1}
    assert batches[512] == Runs(count=2, ns=400_000)


def test_the_versions_of_a_system_that_are_told_apart_are_bounded(metrics):
    other = answerer(system="weather")
    ran(metrics, other)
    for place in range(100):
        ran(metrics, answerer(version=str(place)))
    snapshot = metrics.snapshot()
    assert {each.version for each in snapshot.answered if each.system == "flights"} == {str(n) for n in range(84, 100)}
    assert [each.request.count for each in snapshot.answered if each.system == "weather"] == [1]


def test_a_version_that_was_forgotten_counts_from_nothing_again(metrics):
    first = answerer(version="first")
    ran(metrics, first, times=3)
    for place in range(20):
        ran(metrics, answerer(version=str(place)))
    ran(metrics, first)
    assert [each.request.count for each in metrics.snapshot().answered if each.version == "first"] == [1]


def test_failures_are_counted_by_status_and_refusals_by_system(metrics):
    metrics.failed(answerer(), 2, total_us=5.0)
    metrics.failed(answerer(), 1, status=503)
    metrics.refused("flights", 422)
    metrics.refused("flights", 422)
    snapshot = metrics.snapshot()
    assert snapshot.answered[0].failed == {500: 2, 503: 1}
    assert snapshot.answered[0].failed_ns == 5000
    assert snapshot.refused == {"flights": {422: 2}}


def test_names_that_callers_make_up_make_no_series(metrics):
    metrics.follows(generation=1, systems=["flights"])
    for place in range(50):
        metrics.refused(f"made-up-{place}", 404)
    assert metrics.snapshot().refused == {"": {404: 50}}


def test_how_things_stand_is_asked_for_with_every_snapshot():
    asked = []

    def refresh(metrics):
        asked.append(1)
        metrics.follows(generation=len(asked), systems=["flights"], held=["weather"], connections=7)
        metrics.waiting({"flights": 4, "weather": 0})
        metrics.recording(sent=10, written=8, shed=1, lost=1, lag_s=0.5)
        metrics.cached({"flights": CACHED})

    metrics = Metrics("worker-0", ManualClock(NOW), refresh)
    metrics.snapshot()
    found = metrics.snapshot()
    worker = found.workers[0]
    assert (worker.name, worker.generation, worker.held, worker.connections) == ("worker-0", 2, ("weather",), 7)
    assert found.waiting == {"flights": 4}
    assert msgspec.structs.astuple(found.recording) == (10, 8, 1, 1, 0.5)
    assert found.caches == {"flights": CACHED}
    assert (CACHED.hits, CACHED.misses) == (3, 1)


@pytest.mark.parametrize("times", [5, 6, 30])
def test_a_run_of_two_versions_dates_both_however_many_were_counted_before_anyone_asked(metrics, times):
    pair = answerer(), answerer(version="2", stage="canary")
    for _ in range(times):
        metrics.ran_both(pair, np.arange(171) % 3 > 0, np.zeros(171), 50.0, np.zeros(171))
    assert [each.last_ms for each in metrics.snapshot().answered] == [NOW.timestamp() * 1000] * 2


def test_the_last_answer_is_dated_by_the_snapshot_that_follows_it():
    clock = ManualClock(NOW)
    metrics = Metrics("worker-0", clock)
    ran(metrics, answerer())
    first = metrics.snapshot().answered[0].last_ms
    clock.advance(timedelta(seconds=9))
    assert metrics.snapshot().answered[0].last_ms == first == NOW.timestamp() * 1000
    ran(metrics, answerer())
    assert metrics.snapshot().answered[0].last_ms == first + 9000
