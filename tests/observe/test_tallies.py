import functools
from bisect import bisect_left

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.answerer import Answerer
from holdfast.core.clock import ManualClock
from holdfast.observe.metrics import Metrics
from holdfast.observe.tallies import CELLS, EDGES_US, Cached, LookUps, Snapshot, Tally, spent
from holdfast.testing.serving import NOW, SIGNATURE

TIMES = st.floats(0, 2e7, allow_nan=False)
VERSIONS = [
    Answerer(system=system, version=version, stage=stage, release="r1", signature=SIGNATURE, signature_hash="x")
    for system, version, stage in [("flights", "1", "live"), ("flights", "2", "canary"), ("weather", "1", "live")]
]


@st.composite
def batches(draw):
    times = draw(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=20))
    queue, total = ([pair[place] for pair in times] for place in (0, 1))
    if draw(st.booleans()):
        queue, total = np.array(queue), np.array(total)
    arguments = (draw(st.sampled_from(VERSIONS)), draw(st.integers(1, 20_000)), len(times), queue, draw(TIMES), total)
    return "ran", arguments


EVENTS = st.one_of(
    batches(),
    st.tuples(st.just("failed"), st.tuples(st.sampled_from(VERSIONS), st.integers(1, 9))),
    st.tuples(st.just("refused"), st.tuples(st.sampled_from(["flights", "weather"]), st.sampled_from([422, 429]))),
)


def counted(name, events):
    metrics = Metrics(name, ManualClock(NOW))
    for event, arguments in events:
        getattr(metrics, event)(*arguments)
    return metrics.snapshot()


def plain(snapshot):
    """Without who counted."""
    return msgspec.structs.replace(snapshot, workers=())


@pytest.mark.slow
@given(st.lists(st.lists(EVENTS, max_size=6), min_size=3, max_size=3))
def test_counts_of_workers_merge_to_what_one_worker_would_have_counted(work):
    one, two, three = (counted(f"worker-{place}", events) for place, events in enumerate(work))
    assert (one + two) + three == one + (two + three)
    assert one + two == two + one
    assert plain(one + two + three) == plain(counted("all", [event for events in work for event in events]))


@pytest.mark.slow
@given(st.lists(EVENTS, max_size=6))
def test_a_snapshot_comes_back_as_it_was_written(events):
    snapshot = counted("worker-0", events)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot) == snapshot


@pytest.mark.slow
@given(st.lists(TIMES | st.sampled_from(EDGES_US), min_size=1, max_size=60))
def test_every_time_is_counted_in_the_cell_that_ends_at_or_above_it(times):
    found = counted("w", [("ran", (VERSIONS[0], 1, len(times), times, 1.0, times))]).answered[0].queue
    expected = [0] * CELLS
    for time in times:
        expected[bisect_left(EDGES_US, time)] += 1
    assert found.counts == tuple(expected)
    assert found.total_ns == sum(round(time * 1000) for time in times)


def test_the_edges_grow_by_about_an_eighth_and_hit_round_numbers():
    ratios = np.array(EDGES_US[1:]) / np.array(EDGES_US[:-1])
    assert ratios.min() > 1.1
    assert ratios.max() < 1.15
    assert {1.0, 25.0, 500.0, 1e3, 2.5e3, 1e7} <= set(EDGES_US)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99])
def test_quantiles_are_right_to_within_a_cell(share):
    times = np.random.default_rng(7).lognormal(5.5, 1.2, 20_000)
    tally = counted("w", [("ran", (VERSIONS[0], 1, len(times), times, 1.0, times))]).answered[0].request
    assert tally.quantile_us(share) == pytest.approx(np.quantile(times, share), rel=0.14)
    assert tally.mean_us == pytest.approx(times.mean())


def test_nothing_measured_has_no_quantiles():
    assert (Tally().count, Tally().mean_us, Tally().quantile_us(0.99)) == (0, 0.0, 0.0)


def test_what_takes_longer_than_the_last_edge_is_reported_as_that_edge():
    tally = counted("w", [("ran", (VERSIONS[0], 1, 1, [5e7], 1.0, [5e7]))]).answered[0].queue
    assert tally.quantile_us(0.5) == EDGES_US[-1]


def test_parts_of_the_path_are_told_in_their_order_over_all_versions():
    snapshot = counted(
        "w",
        [
            ("ran", (VERSIONS[0], 2, 2, [10.0, 10.0], 200.0, [300.0, 300.0])),
            ("ran", (VERSIONS[1], 1, 1, [40.0], 400.0, [600.0])),
            ("ran", (VERSIONS[2], 1, 1, [9e6], 9e6, [9e6])),
        ],
    )
    found = {each.phase: each for each in spent(snapshot, "flights")}
    assert list(found) == ["queue", "run", "request"]
    assert (found["queue"].count, found["queue"].mean_us) == (3, 20.0)
    assert (found["run"].count, found["run"].mean_us) == (2, 300.0)
    assert 280 <= found["request"].p50_us <= 315
    assert 560 <= found["request"].p99_us <= 630


def test_look_ups_are_added_by_version():
    one = Snapshot(caches={"flights": Cached(versions={"1": LookUps(hits=3, misses=1)}, entries=1)})
    two = Snapshot(caches={"flights": Cached(versions={"1": LookUps(hits=1), "2": LookUps(misses=4)}, entries=4)})
    found = (one + two).caches["flights"]
    assert found.versions == {"1": LookUps(hits=4, misses=1), "2": LookUps(misses=4)}
    assert (found.hits, found.misses, found.entries) == (4, 5, 5)
    assert one + two == two + one


def test_several_snapshots_are_added_from_nothing():
    one = counted("w", [("refused", ("flights", 422))])
    assert functools.reduce(lambda a, b: a + b, [one], Snapshot()) == one
