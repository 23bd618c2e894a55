import threading

import pytest

from holdfast.core.records import Job
from holdfast.engines.memory import MemoryBlobs, MemoryCatalog, MemoryLake
from holdfast.engines.memorylake import SMALL_ROWS
from holdfast.errors import Tampered
from holdfast.testing import PREDICTION_FIELDS, START, a_job, hours, predictions


def test_a_scan_builds_only_the_chunks_of_its_range():
    lake = MemoryLake()
    writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
    for day in range(4):
        ids = [f"{day}-{i}" for i in range(SMALL_ROWS)]
        writer.append(predictions(ids, at=START + hours(24 * day), step=hours(0)), len(ids))
    assert lake.scan("predictions", "flights", since=START + hours(24), until=START + hours(48)).height == SMALL_ROWS
    built = [chunk._frame is not None for chunk in lake._chunks["flights", "predictions"]]
    assert built == [False, True, False, False]


def test_small_appends_share_a_chunk_until_it_is_read():
    lake = MemoryLake()
    writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
    for i in range(5):
        writer.append(predictions([f"{i}"], at=START + hours(i)), 1)
    assert len(lake._chunks["flights", "predictions"]) == 1
    assert lake.scan("predictions", "flights")["prediction_id"].to_list() == list("01234")
    writer.append(predictions(["5"], at=START + hours(5)), 1)
    assert len(lake._chunks["flights", "predictions"]) == 2
    assert lake.scan("predictions", "flights")["prediction_id"].to_list() == list("012345")


def test_stats_count_rows_and_segments():
    lake = MemoryLake()
    for _ in range(2):
        lake.writer("predictions", "flights", PREDICTION_FIELDS).close()
    writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
    writer.append(predictions(["a", "b"]), 2)
    assert lake.roll() == 2
    stats = lake.stats()
    assert (stats.rows_written, stats.segments_open, stats.segments_sealed, stats.segments_rolled) == (2, 1, 0, 2)


def test_a_transaction_waits_for_that_of_another_thread():
    catalog = MemoryCatalog()
    began = threading.Event()

    def write():
        began.set()
        with catalog.begin() as transaction:
            transaction.put(a_job("2", message=str(len(transaction.find(Job)))))

    thread = threading.Thread(target=write)
    with catalog.begin() as transaction:
        thread.start()
        began.wait()
        transaction.put(a_job("1"))
    thread.join()
    with catalog.read() as view:
        assert view.find(Job) == [a_job("1"), a_job("2", message="1")]


def test_changed_bytes_are_noticed():
    blobs = MemoryBlobs()
    key = blobs.put(b"abc")
    blobs._held[key] = b"abd"
    with pytest.raises(Tampered, match=key):
        blobs.get(key)
