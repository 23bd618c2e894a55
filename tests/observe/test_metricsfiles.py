import asyncio
import subprocess
import sys

import msgspec
import pytest

from holdfast.core.answerer import Answerer
from holdfast.core.clock import ManualClock
from holdfast.observe.metrics import Metrics
from holdfast.observe.metricsboard import MetricsBoard
from holdfast.observe.metricsfiles import publish, published, withdraw
from holdfast.observe.metricspage import metrics_page
from holdfast.observe.tallies import Snapshot
from holdfast.testing.serving import NOW, SIGNATURE

BY = Answerer(system="flights", version="1", stage="live", release="r1", signature=SIGNATURE, signature_hash="x")


def worker(name, answered=0) -> Metrics:
    metrics = Metrics(name, ManualClock(NOW))
    for _ in range(answered):
        metrics.ran(BY, 1, 1, [1.0], 1.0, [1.0])
    return metrics


def test_whichever_worker_is_asked_answers_for_all(tmp_path):
    one, two = worker("worker-0", 3), worker("worker-1", 5)
    publish(tmp_path, one.snapshot())
    publish(tmp_path, two.snapshot())
    pages = [metrics_page(asked.snapshot(), tmp_path).decode().splitlines() for asked in (one, two)]
    for page in pages:
        rows = [line for line in page if line.startswith("holdfast_rows_total{")]
        assert [line.partition("worker=")[2] for line in rows] == ['"worker-0"} 3', '"worker-1"} 5']
    counted = [[line for line in page if not line.startswith("process_cpu")] for page in pages]
    assert [line.split(" ")[0] for line in counted[0]] == [line.split(" ")[0] for line in counted[1]]


def test_a_worker_shows_itself_as_it_is_now(tmp_path):
    metrics = worker("worker-0", 3)
    publish(tmp_path, metrics.snapshot())
    metrics.ran(BY, 1, 1, [1.0], 1.0, [1.0])
    assert (
        'holdfast_rows_total{system="flights",version="1",stage="live",worker="worker-0"} 4'
        in metrics_page(metrics.snapshot(), tmp_path).decode().splitlines()
    )


def test_a_published_snapshot_comes_back_and_leaves_no_other_file(tmp_path):
    snapshot = worker("worker-0", 3).snapshot()
    publish(tmp_path, snapshot)
    assert list(published(tmp_path)) == [snapshot]
    assert [path.name for path in tmp_path.iterdir()] == ["worker-0.metrics"]


def test_a_worker_that_is_dead_is_not_shown(tmp_path):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait(20)
    snapshot = worker("worker-0", 3).snapshot()
    [one] = snapshot.workers
    for gone in (
        msgspec.structs.replace(one, pid=done.pid),
        msgspec.structs.replace(one, started_s=one.started_s - 60),  # its id was given to another process
    ):
        publish(tmp_path, msgspec.structs.replace(snapshot, workers=(gone,)))
        assert list(published(tmp_path)) == []


def test_a_worker_that_starts_forgets_what_one_of_its_name_left(tmp_path):
    withdraw(tmp_path, "worker-0")
    publish(tmp_path, worker("worker-0", 3).snapshot())
    publish(tmp_path, worker("worker-1", 3).snapshot())
    withdraw(tmp_path, "worker-0")
    assert [path.name for path in tmp_path.iterdir()] == ["worker-1.metrics"]


@pytest.mark.parametrize("damage", [b"", b"\x81", b"\x93\x01\x02\x03", b'{"workers": []}'])
def test_a_file_that_cannot_be_read_is_left_out(tmp_path, damage):
    publish(tmp_path, worker("worker-1", 3).snapshot())
    (tmp_path / "worker-0.metrics").write_bytes(damage)
    assert [snapshot.workers[0].name for snapshot in published(tmp_path)] == ["worker-1"]


def test_a_directory_that_cannot_be_written_stops_nothing(tmp_path):
    assert "No such file" in publish(tmp_path / "gone", worker("worker-0", 3).snapshot())
    assert b"holdfast_rows_total{" in metrics_page(worker("worker-0", 3).snapshot(), tmp_path / "gone")


def test_what_can_no_longer_be_replaced_is_taken_away(tmp_path):
    # Otherwise other workers would show smaller numbers than this one has shown: a reset to Prometheus.
    snapshot = worker("worker-0", 3).snapshot()
    publish(tmp_path, snapshot)
    (tmp_path / f"worker-0.{snapshot.workers[0].pid}.tmp").mkdir()
    publish(tmp_path, worker("worker-0", 4).snapshot())
    assert list(published(tmp_path)) == []


def test_a_board_publishes_what_it_shows_and_forgets_what_its_name_left(tmp_path):
    publish(tmp_path, worker("worker-0", 9).snapshot())
    metrics = worker("worker-0", 3)
    board = MetricsBoard(metrics, tmp_path)
    assert list(published(tmp_path)) == []
    page = asyncio.run(board.page()).decode()
    assert 'holdfast_rows_total{system="flights",version="1",stage="live",worker="worker-0"} 3' in page.splitlines()
    assert list(published(tmp_path)) == [metrics.snapshot()]


def test_a_board_says_once_that_it_cannot_write_and_once_that_it_can_again(tmp_path, caplog):
    board = MetricsBoard(worker("worker-0", 3), tmp_path / "run")
    for _ in range(3):
        board.publish()
    assert [record.message.partition(":")[0] for record in caplog.records] == ["worker-0 cannot write its metrics"]
    (tmp_path / "run").mkdir()
    for _ in range(3):
        board.publish()
    assert [record.message for record in caplog.records[1:]] == ["worker-0 writes its metrics again"]


def test_a_board_gives_the_statistics_of_all_workers(tmp_path):
    board = MetricsBoard(worker("worker-0", 3), tmp_path)
    publish(tmp_path, worker("worker-1", 5).snapshot())
    [found] = board.statistics([("flights", "1")]).model_stats
    assert found.inference_count == 8
    assert sum(board.snapshots(), Snapshot()).answered[0].rows == 8
