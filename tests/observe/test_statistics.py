import json

import msgspec
import pytest

from holdfast.core.answerer import Answerer
from holdfast.core.clock import ManualClock
from holdfast.observe.metrics import Metrics
from holdfast.observe.statistics import Duration, statistics
from holdfast.observe.tallies import Cached, LookUps
from holdfast.testing.serving import NOW, SIGNATURE

ROUTED = [("flights", "1"), ("flights", "2"), ("weather", "1")]


@pytest.fixture
def snapshots():
    """Two workers that answered one and two requests of version 1."""
    made = []
    for place in (1, 2):
        metrics = Metrics(f"worker-{place}", ManualClock(NOW))
        by = Answerer(
            system="flights",
            version="1",
            stage="live" if place == 1 else "canary",
            release="r1",
            signature=SIGNATURE,
            signature_hash="x",
        )
        metrics.ran(by, 8 * place, place, [10.0] * place, 200.0, [300.0] * place)
        metrics.failed(by, 1, total_us=50.0)
        metrics.cached({"flights": Cached(versions={"1": LookUps(hits=place, misses=5)}, entries=5)})
        made.append(metrics.snapshot())
    return made


def test_statistics_are_those_of_all_workers_and_stages(snapshots):
    found = statistics(snapshots, ROUTED, "flights", "1").model_stats[0]
    assert (found.name, found.version, found.inference_count, found.execution_count) == ("flights", "1", 24, 2)
    assert found.last_inference == NOW.timestamp() * 1000
    stats = found.inference_stats
    assert stats.success == Duration(count=3, ns=900_000)
    assert stats.fail == Duration(count=2, ns=100_000)
    assert stats.queue == Duration(count=3, ns=30_000)
    assert stats.compute_infer == Duration(count=3, ns=600_000)
    assert (stats.cache_hit, stats.cache_miss) == (Duration(count=3), Duration(count=10))
    assert [(each.batch_size, each.compute_infer.count, each.compute_infer.ns) for each in found.batch_stats] == [
        (8, 1, 200_000),
        (16, 1, 200_000),
    ]


@pytest.mark.parametrize(
    ("system", "version", "expected"),
    [("", "", ROUTED), ("flights", "", ROUTED[:2]), ("flights", "2", ROUTED[1:2]), ("weather", "", ROUTED[2:])],
)
def test_what_is_routed_is_listed_even_when_it_answered_nothing(snapshots, system, version, expected):
    found = statistics(snapshots, ROUTED, system, version).model_stats
    assert [(each.name, each.version) for each in found] == expected


def test_the_body_has_the_fields_of_tritons_extension(snapshots):
    [first, *_] = json.loads(msgspec.json.encode(statistics(snapshots, ROUTED)))["model_stats"]
    assert set(first) == {
        "name",
        "version",
        "last_inference",
        "inference_count",
        "execution_count",
        "inference_stats",
        "batch_stats",
    }
    parts = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}
    assert set(first["inference_stats"]) == parts
    assert set(first["batch_stats"][0]) == {"batch_size", "compute_input", "compute_infer", "compute_output"}
    assert first["inference_stats"]["queue"] == {"count": 3, "ns": 30_000}
