import os
import re
import shutil
import subprocess
from itertools import pairwise

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast.core.answerer import Answerer
from holdfast.core.clock import ManualClock
from holdfast.observe.metricfamilies import FAMILIES
from holdfast.observe.metrics import Metrics
from holdfast.observe.metricspage import metrics_page
from holdfast.observe.tallies import Cached, LookUps
from holdfast.testing.serving import NOW, SIGNATURE


def answerer(version="1", stage="live", system="flights") -> Answerer:
    return Answerer(system=system, version=version, stage=stage, release="r1", signature=SIGNATURE, signature_hash="x")


def busy() -> Metrics:
    """A worker that has done something of everything."""
    metrics = Metrics("worker-0", ManualClock(NOW))
    metrics.follows(generation=4, systems=["flights"], held=["weather"], connections=12)
    metrics.recording(sent=70, written=60, shed=6, lost=4, lag_s=0.25)
    metrics.cached({"flights": Cached(versions={"1": LookUps(hits=3, misses=9)}, entries=9)})
    metrics.waiting({"flights": 5})
    metrics.ran(answerer(), 33, 2, [20.0, 30.0], 200.0, [300.0, 400.0])
    metrics.ran(answerer("2", "canary"), 1, 1, [20.0], 100.0, [250.0])
    metrics.ran(answerer("2", "live"), 1, 1, [20.0], 100.0, [250.0])
    metrics.failed(answerer(), 2)
    metrics.refused("flights", 429)
    metrics.refused("flights", 422)
    metrics.refused("nothing", 404)
    return metrics


def samples(page: bytes) -> dict:
    """Name and labels (without the worker) to value. The parser ends the name of every counter in ``_total``."""
    names = {family.name + "_total": family.name for family in FAMILIES if family.kind == "counter"}
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = frozenset((k, v) for k, v in sample.labels.items() if k != "worker")
            assert sample.labels["worker"] == "worker-0", sample
            name = names.get(sample.name, sample.name)
            assert (name, labels) not in found, sample
            found[name, labels] = sample.value
    return found


@pytest.fixture(scope="module")
def page() -> bytes:
    return metrics_page(busy().snapshot(), None)


@pytest.fixture(scope="module")
def found(page):
    values = samples(page)
    return lambda name, **labels: values.get((name, frozenset(labels.items())))


ONE = {"system": "flights", "version": "1", "stage": "live"}


def test_every_family_is_on_the_page_with_its_kind_and_meaning(page):
    assert re.findall(r"^# TYPE (\S+ \S+)$", page.decode(), re.MULTILINE) == [f"{f.name} {f.kind}" for f in FAMILIES]
    assert page.decode().count("# HELP ") == len(FAMILIES)
    names = {re.sub("_bucket$", "", name) for name in re.findall(r"^(\w+)\{", page.decode(), re.MULTILINE)}
    assert {f.name for f in FAMILIES} <= names, "a family without a number cannot be seen to be right"


def test_requests_are_counted_by_version_stage_and_status(found):
    name = "holdfast_requests_total"
    assert found(name, **ONE, status="200") == 2
    assert found(name, **ONE, status="500") == 2
    assert found(name, system="flights", version="", stage="", status="429") == 1
    assert found(name, system="", version="", stage="", status="404") == 1


def test_times_are_histograms_in_seconds(found):
    name = "holdfast_request_seconds"
    assert [found(f"{name}_bucket", **ONE, le=le) for le in ("0.000025", "0.00025", "0.0005", "10", "+Inf")] == [
        0,
        0,
        2,
        2,
        2,
    ]
    assert found(f"{name}_count", **ONE) == 2
    assert found(f"{name}_sum", **ONE) == pytest.approx(700e-6)
    assert found("holdfast_run_seconds_bucket", **ONE, le="0.00025") == 1


def test_batches_are_a_histogram_of_rows(found):
    name = "holdfast_batch_rows"
    assert [found(f"{name}_bucket", **ONE, le=le) for le in ("1", "32", "64", "+Inf")] == [0, 0, 1, 1]
    assert found(f"{name}_sum", **ONE) == 33
    assert found("holdfast_rows_total", **ONE) == 33


def test_recording_cache_and_routes_are_told(found):
    assert found("holdfast_recorded_rows_total") == 60
    assert found("holdfast_shed_rows_total") == 6
    assert found("holdfast_lost_rows_total") == 4
    assert found("holdfast_record_lag_seconds") == 0.25
    assert found("holdfast_cache_hits_total", system="flights") == 3
    assert found("holdfast_cache_misses_total", system="flights") == 9
    assert found("nv_cache_num_hits_per_model", model="flights") == 3
    assert found("holdfast_routes_generation") == 4
    assert found("holdfast_held", system="weather") == 1
    assert found("holdfast_connections") == 12
    assert found("holdfast_queue_requests", system="flights") == 5


def test_tritons_names_count_by_version_whatever_the_stage(found):
    assert found("nv_inference_request_success", model="flights", version="2") == 2
    assert found("nv_inference_request_success", model="flights", version="1") == 2
    assert found("nv_inference_count", model="flights", version="1") == 33
    assert found("nv_inference_exec_count", model="flights", version="1") == 1
    assert found("nv_inference_request_duration_us", model="flights", version="1") == 700
    assert found("nv_inference_queue_duration_us", model="flights", version="1") == 50
    assert found("nv_inference_compute_infer_duration_us", model="flights", version="1") == 400
    assert found("nv_inference_pending_request_count", model="flights") == 5


def test_tritons_failures_carry_their_reason(found):
    name = "nv_inference_request_failure"
    assert found(name, model="flights", version="1", reason="BACKEND") == 2
    assert found(name, model="flights", version="1", reason="REJECTED") == 0
    assert found(name, model="flights", version="", reason="REJECTED") == 1
    assert found(name, model="flights", version="", reason="OTHER") == 1


def test_the_process_is_described(found):
    own = psutil.Process(os.getpid())
    assert found("process_start_time_seconds") == pytest.approx(own.create_time(), abs=2)
    assert 1e7 < found("process_resident_memory_bytes") < 1e11
    assert found("process_open_fds") >= 3
    assert found("process_cpu_seconds_total") > 0


def test_names_with_quotes_backslashes_and_line_breaks_come_back():
    metrics = Metrics("worker-0", ManualClock(NOW))
    system = 'a"b\\n\n\\c'
    metrics.ran(answerer(system=system), 1, 1, [1.0], 1.0, [1.0])
    values = samples(metrics_page(metrics.snapshot(), None))
    assert ("holdfast_rows_total", frozenset({"system": system, "version": "1", "stage": "live"}.items())) in values


def test_buckets_never_fall_with_the_edge(page):
    rows = re.findall(r'^(\S+_bucket\{.*),le="([^"]+)"\} (\d+)$', page.decode(), re.MULTILINE)
    assert len(rows) > 100
    for (name, edge, count), (after, next_edge, next_count) in pairwise(rows):
        if name == after:
            assert float(edge) < float(next_edge)
            assert int(count) <= int(next_count)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_fault_with_tritons_names_only(page):
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=20, check=False)
    said = (done.stdout + done.stderr).decode().splitlines()
    assert said, "it says at least that Triton's counters do not end in _total"
    assert [line for line in said if not line.startswith(("nv_inference_", "nv_cache_"))] == []
