import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.protocols import LABELS, PREDICTIONS
from holdfast.engines.memory import MemoryLake
from holdfast.errors import StateError
from holdfast.serve.recording import Recorder, label_fields, prediction_fields


class Disk:
    """A lake whose writers fail while it is full, and that counts what is open."""

    def __init__(self) -> None:
        self.lake = MemoryLake()
        self.is_full = False
        self.opened = 0
        self.sealed = 0

    def writer(self, table, system, schema):
        self.opened += 1
        return Pen(self, self.lake.writer(table, system, schema))


class Pen:
    def __init__(self, disk, writer):
        self.disk, self.writer = disk, writer

    def append(self, columns, rows, **options):
        if self.disk.is_full:
            raise StateError("the disk is full")
        self.writer.append(columns, rows, **options)

    def close(self):
        self.disk.sealed += 1
        if self.disk.is_full:
            raise OSError("the disk is full")
        self.writer.close()


def record_labels(recorder, keys=("a", "b"), values=(0.0, 1.0), at=5, **options):
    n = len(keys)
    return recorder.record_labels(
        "flights",
        output="probability",
        keys=list(keys),
        values=np.array(values),
        known_at=np.full(n, at, dtype=np.int64),
        ingested_at=np.full(n, 9, dtype=np.int64),
        **options,
    )


def test_both_tables_have_their_time_and_identity_columns(signature):
    for table, fields in ((PREDICTIONS, prediction_fields(signature)), (LABELS, label_fields())):
        types = {field.name: field.type for field in fields}
        assert (types[table.time], types[table.identity]) == ("time", "text")


def test_inputs_and_output_are_columns_of_their_own(signature):
    types = {field.name: field.type for field in prediction_fields(signature)}
    assert {name: types[name] for name in types if "." in name} == {
        "in.dep_hour": "float",
        "in.distance": "float",
        "in.carrier": "text",
        "in.is_holiday": "float",
        "out.probability": "float",
    }


def test_a_label_delivered_twice_counts_once():
    disk = Disk()
    recorder = Recorder(disk.writer)
    assert record_labels(recorder) == record_labels(recorder)
    assert disk.lake.scan("labels", "flights").height == 2


def test_a_corrected_label_does_not_replace_what_was_known_before():
    disk = Disk()
    recorder = Recorder(disk.writer)
    record_labels(recorder, ["a"], [0.0])
    record_labels(recorder, ["a"], [1.0], revisions=np.array([1]), source="office")
    found = disk.lake.scan("labels", "flights").sort("revision")
    assert found.select("key", "value", "revision", "source").rows() == [("a", 0.0, 0, ""), ("a", 1.0, 1, "office")]


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from([0.0, 1.0]), st.integers(0, 2)), max_size=20))
def test_labels_have_the_same_id_exactly_when_they_are_the_same(labels):
    recorder = Recorder(Disk().writer)
    ids = [
        record_labels(recorder, [key], [value], revisions=np.array([revision]))[0] for key, value, revision in labels
    ]
    assert len(set(ids)) == len(set(labels))


def test_one_segment_is_open_per_table_system_and_signature():
    disk = Disk()
    recorder = Recorder(disk.writer)
    for _ in range(3):
        record_labels(recorder)
    assert disk.opened == 1


def test_after_a_failed_write_recording_goes_on_and_nothing_is_counted_twice():
    disk = Disk()
    recorder = Recorder(disk.writer)
    record_labels(recorder)
    disk.is_full = True
    with pytest.raises(StateError, match="2 rows could not be recorded"):
        record_labels(recorder, at=6)
    disk.is_full = False
    record_labels(recorder, at=7)
    assert (disk.opened, recorder.counts.written, recorder.counts.lost) == (1, 4, 2)
    known_at = disk.lake.scan("labels", "flights")["label_known_at"]
    assert known_at.dt.epoch("us").to_list() == [5, 5, 7, 7]


def test_old_segments_are_sealed_and_young_ones_left_open():
    disk = Disk()
    recorder = Recorder(disk.writer)
    record_labels(recorder)
    recorder.rotate(older_than_s=3600)
    assert disk.sealed == 0
    recorder.rotate(older_than_s=0)
    assert disk.sealed == 1
    record_labels(recorder)
    recorder.close()
    assert (disk.opened, disk.sealed) == (2, 2)


def test_a_segment_that_cannot_be_sealed_stops_nothing(caplog):
    disk = Disk()
    recorder = Recorder(disk.writer)
    record_labels(recorder)
    disk.is_full = True
    recorder.close()
    assert "could not be sealed" in caplog.text
    assert disk.lake.scan("labels", "flights").height == 2
