import errno
import os
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.core.protocols import TABLES, Field
from holdfast.engines import files, rolling, segments
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest
from holdfast.engines.memory import MemoryLake
from holdfast.engines.segments import OPEN, SEALED
from holdfast.errors import CorruptSegment, StateError
from holdfast.testing import HOUR, PREDICTION_FIELDS, START, hours, manual_clock, micros, predictions


def a_lake(directory, **options):
    return FileLake(directory, MemoryManifest(), **options)


def append(lake, ids, **changes):
    writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
    writer.append(predictions(ids, **changes), len(ids))
    writer.close()


def ids(lake, **bounds):
    frame = lake.scan("predictions", "flights", **bounds)
    return frame["prediction_id"].to_list() if frame.width else []


def named(directory, ending):
    return sorted(path for path in directory.rglob("*") if path.name.endswith(ending))


class LakeAgainstPlainList(RuleBasedStateMachine):
    """Any interleaving of appends, syncs, seals, rolls, crashes and reopenings reads like a plain list."""

    directory = None
    table = "predictions"

    def renamed(self, columns):
        rules = TABLES[self.table.partition("/")[0]]
        return {{"event_at": rules.time, "prediction_id": rules.identity}.get(n, n): v for n, v in columns.items()}

    def a_writer(self, lake):
        names = self.renamed({field.name: field for field in PREDICTION_FIELDS})
        return lake.writer(self.table, "flights", [Field(name, field.type) for name, field in names.items()])

    @initialize()
    def start(self):
        self.manifest = MemoryManifest()
        self.count = getattr(type(self), "count", 0) + 1
        type(self).count = self.count
        self.place = self.directory / str(self.count)
        self.lake = FileLake(self.place, self.manifest)
        self.writers = []
        self.appended = []
        self.memory = MemoryLake()
        self.memory_writer = self.a_writer(self.memory)

    @rule()
    def open_writer(self):
        self.writers.append(self.a_writer(self.lake))

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), rows=st.lists(st.tuples(st.integers(0, 72), st.sampled_from("abcdef")), max_size=4))
    def append(self, data, rows):
        writer = data.draw(st.sampled_from(self.writers))
        columns = predictions([id for _, id in rows], seats=[len(self.appended) + i for i in range(len(rows))])
        columns["seats"] = np.array(columns["seats"], dtype=np.int64)
        columns["event_at"] = np.array([micros(START + hours(hour)) for hour, _ in rows], dtype=np.int64)
        carrier = columns.pop("carrier")[0] if rows and data.draw(st.booleans()) else None
        beside = {"constants": {"carrier": carrier}} if carrier else {}
        for each in (writer, self.memory_writer):
            each.append(self.renamed(columns), len(rows), **beside)
        self.appended += [(hour, len(self.appended) + i, id) for i, (hour, id) in enumerate(rows)]

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def sync(self, data):
        data.draw(st.sampled_from(self.writers)).sync()

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def seal(self, data):
        writer = data.draw(st.sampled_from(self.writers))
        self.writers.remove(writer)
        writer.close()

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), torn=st.binary(max_size=50))
    def die(self, data, torn):
        writer = data.draw(st.sampled_from(self.writers))
        self.writers.remove(writer)
        with writer._segment._path.open("ab") as file:
            file.write(torn)
        writer._segment.abandon()
        self.lake._writers.discard(writer)

    @rule()
    def roll(self):
        self.lake.roll()

    @rule()
    def reopen(self):
        self.lake.close()
        self.writers = []
        self.lake = FileLake(self.place, self.manifest)

    @rule(since=st.integers(-1, 73), length=st.integers(0, 40))
    def scan_a_range(self, since, length):
        bounds = {"since": START + hours(since), "until": START + hours(since + length)}
        rows = [row for row in self.appended if since <= row[0] < since + length]
        for lake in (self.lake, self.memory):
            self.compare(lake.scan(self.table, "flights", **bounds), rows)

    @invariant()
    def scan_all(self):
        for lake in (self.lake, self.memory):
            self.compare(lake.scan(self.table, "flights"), self.appended)

    def compare(self, frame, rows):
        kept = {}
        for hour, n, id in rows:
            if self.table != "predictions" or id not in kept:
                kept[id] = (hour, n)
        expected = sorted(kept.values())
        if not expected:
            assert frame.shape == (0, 0)
            return
        times = frame[TABLES[self.table.partition("/")[0]].time]
        found = [((at - START) // HOUR, n) for at, n in zip(times, frame["seats"], strict=True)]
        assert found == expected

    def teardown(self):
        self.lake.close()


class FeedAgainstPlainList(LakeAgainstPlainList):
    """A table that keeps the last row of an identity, not the first."""

    table = "feeds/weather"


@pytest.mark.slow
@pytest.mark.parametrize("machine", [LakeAgainstPlainList, FeedAgainstPlainList])
def test_any_history_reads_like_the_plain_list_of_what_was_appended(tmp_path, machine):
    machine.directory = tmp_path
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))


def test_files_and_memory_give_equal_frames(tmp_path):
    lakes = [a_lake(tmp_path), MemoryLake()]
    for lake in lakes:
        append(lake, ["a", "b", "c"], distance=[float("nan"), float("inf"), 0.1])
        append(lake, ["b", "d"], at=START + hours(26), carrier=[None, ""])
        lake.roll()
        append(lake, ["e"])
    one, other = (lake.scan("predictions", "flights") for lake in lakes)
    assert one.equals(other)
    assert one.schema == other.schema


def test_a_day_becomes_one_file_and_small_files_are_taken_in(tmp_path):
    lake = a_lake(tmp_path)
    for i in range(5):
        append(lake, [f"{i}a", f"{i}b"], at=START + hours(i), step=hours(24))
        assert lake.roll() == 1
    lake.roll()
    days = {path.parent.name for path in named(tmp_path, ".parquet")}
    assert days == {"day=2013-04-01", "day=2013-04-02"}
    assert len(named(tmp_path, ".parquet")) <= 4
    assert lake.stats().files == len(named(tmp_path, ".parquet"))
    assert len(ids(lake)) == 10


def test_rolled_segments_are_deleted_at_the_next_roll_and_read_from_one_place_meanwhile(tmp_path):
    lake = a_lake(tmp_path)
    append(lake, ["a"])
    lake.roll()
    assert len(named(tmp_path, SEALED)) == 1
    assert ids(lake) == ["a"]
    lake.roll()
    assert named(tmp_path, SEALED) == []
    assert ids(lake) == ["a"]


def test_files_outside_the_range_are_not_opened(tmp_path):
    lake = a_lake(tmp_path)
    append(lake, ["a", "b"], step=hours(24))
    lake.roll()
    (first, second) = named(tmp_path, ".parquet")
    second.write_bytes(b"damaged")
    assert ids(lake, until=START + hours(24)) == ["a"]
    with pytest.raises(CorruptSegment, match=r"day=2013-04-02.*cannot be read as Parquet.*restore it from a backup"):
        ids(lake)
    first.unlink()
    with pytest.raises(StateError, match="is not there"):
        ids(lake)


def test_what_a_crashed_roll_left_behind_is_removed(tmp_path):
    lake = a_lake(tmp_path)
    append(lake, ["a"])
    lake.roll()
    (file,) = named(tmp_path, ".parquet")
    for name in ("0.tmp", "0.parquet"):
        (file.parent / name).write_bytes(b"half")
    assert ids(lake) == ["a"]
    lake.roll()
    assert list(file.parent.iterdir()) == [file]


def test_a_damaged_segment_stops_its_table_only_and_the_rest_is_rolled(tmp_path):
    lake = a_lake(tmp_path)
    append(lake, ["a"])
    (damaged,) = named(tmp_path, SEALED)
    damaged.write_bytes(damaged.read_bytes()[:-3])
    append(lake, ["b"])
    writer = lake.writer("predictions", "disks", PREDICTION_FIELDS)
    writer.append(predictions(["c"]), 1)
    writer.close()
    with pytest.raises(CorruptSegment, match=damaged.name):
        lake.roll()
    with pytest.raises(CorruptSegment, match=damaged.name):
        ids(lake)
    assert lake.scan("predictions", "disks").height == 1
    # What the message says to do: cut the file where it is damaged and give it the name of an open one.
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size - 37])
    damaged.rename(damaged.with_name(damaged.name + ".open"))
    assert sorted(ids(lake)) == ["a", "b"]
    lake.roll()
    assert sorted(ids(lake)) == ["a", "b"]


class DiedError(BaseException):
    """Stands for the death of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_roll_that_dies_at_any_step_loses_and_doubles_nothing(tmp_path, monkeypatch, when):
    steps = 0
    for dies_at in range(1, 100):
        manifest = MemoryManifest()
        lake = FileLake(tmp_path / f"{dies_at}", manifest)
        append(lake, ["a", "b"], step=hours(24))
        lake.roll()
        append(lake, ["b", "c"], step=hours(24))
        lake.writer("predictions", "flights", PREDICTION_FIELDS).append(predictions(["d"]), 1)
        for writer in lake._writers:
            writer._segment.abandon()
        lake._writers.clear()
        expected = lake.scan("predictions", "flights")
        steps = 0

        def dying(function, dies_at=dies_at):
            def call(*arguments, **options):
                nonlocal steps
                steps += 1
                if steps == dies_at and when == "before":
                    raise DiedError
                result = function(*arguments, **options)
                if steps == dies_at and when == "after":
                    raise DiedError
                return result

            return call

        with monkeypatch.context() as patched:
            for owner, name in (
                (Path, "rename"),
                (Path, "unlink"),
                (os, "rename"),
                (os, "fsync"),
                (os, "ftruncate"),
                (os, "write"),
                (pl.DataFrame, "write_parquet"),
                (manifest, "swap"),
            ):
                patched.setattr(owner, name, dying(getattr(owner, name)))
            try:
                lake.roll()
            except DiedError:
                died = True
            else:
                died = False
        for _ in range(3):
            assert lake.scan("predictions", "flights").equals(expected)
            lake.roll()
        assert named(tmp_path / f"{dies_at}", SEALED) == named(tmp_path / f"{dies_at}", OPEN) == []
        if not died:
            break
    assert steps >= 12


def test_one_roll_at_a_time(tmp_path):
    lake = a_lake(tmp_path)
    append(lake, ["a"])
    with rolling._alone(tmp_path) as is_alone:
        assert is_alone
        assert lake.roll() == 0
    assert lake.roll() == 1


def test_a_backlog_is_rolled_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(rolling, "BATCH_BYTES", 1)
    lake = a_lake(tmp_path)
    for id in "abc":
        append(lake, [id])
    assert lake.roll() == 3
    assert sorted(ids(lake)) == ["a", "b", "c"]


def test_a_segment_is_sealed_when_it_is_large_or_old(tmp_path, monkeypatch):
    clock = manual_clock()
    lake = a_lake(tmp_path, clock=clock)
    writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
    writer.append(predictions(["a"]), 1)
    clock.advance(hours(files.SEGMENT_S / 3600))
    writer.append(predictions(["b"]), 1)
    assert (len(named(tmp_path, SEALED)), len(named(tmp_path, OPEN))) == (1, 1)
    monkeypatch.setattr(files, "SEGMENT_BYTES", 1)
    writer.append(predictions(["c"]), 1)
    assert (len(named(tmp_path, SEALED)), len(named(tmp_path, OPEN))) == (2, 1)
    assert ids(lake) == ["a", "b", "c"]


def test_under_memory_recording_rows_are_written_within_a_second_or_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FLUSH_S", 0.01)
    lake = a_lake(tmp_path, record="memory")
    writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
    (path,) = named(tmp_path, OPEN)
    empty = path.stat().st_size
    writer.append(predictions(["a"]), 1)
    deadline = threading.Event()
    for _ in range(500):
        if path.stat().st_size > empty:
            break
        deadline.wait(0.01)
    assert path.stat().st_size == writer._segment.size_bytes
    lake.close()


class Disk:
    """The calls that make a file survive a power cut, noted; a sync fails while `is_broken`."""

    def __init__(self):
        self.is_broken = False
        self.synced = {}
        self.directories = set()
        self.renamed = []

    def fdatasync(self, fd):
        if self.is_broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.synced[os.fstat(fd).st_ino] = os.fstat(fd).st_size
        return os.fdatasync(fd)

    def fsync(self, fd):
        self.directories.add(os.readlink(f"/proc/self/fd/{fd}"))
        return os.fsync(fd)

    def rename(self, old, new):
        assert self.synced.get(os.stat(old).st_ino) == os.stat(old).st_size, "sealed before it was synced"
        self.renamed.append(new)
        return os.rename(old, new)

    def __getattr__(self, name):
        return getattr(os, name)

    def has_all_of(self, directory):
        return all(
            self.synced.get(p.stat().st_ino) == p.stat().st_size
            for p in (*named(directory, SEALED), *named(directory, OPEN))
        )


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    monkeypatch.setattr(segments, "os", disk)
    monkeypatch.setattr(files, "os", disk)
    return disk


def test_a_sync_covers_every_segment_that_was_begun_since_the_last(tmp_path, disk, monkeypatch):
    writer = a_lake(tmp_path).writer("predictions", "flights", PREDICTION_FIELDS)
    monkeypatch.setattr(files, "SEGMENT_BYTES", 1)
    writer.sync()
    for n in range(3):
        writer.append(predictions([f"{n}a"]), 1)
        writer.append(predictions([f"{n}b"]), 1)
        assert not disk.has_all_of(tmp_path)
        writer.sync()
        assert disk.has_all_of(tmp_path)
    assert str(tmp_path / "flights" / "predictions") in disk.directories
    assert str(tmp_path) in disk.directories
    writer.close()
    assert disk.has_all_of(tmp_path)
    assert len(disk.renamed) == len(named(tmp_path, SEALED)) == 6
    assert named(tmp_path, OPEN) == []


def test_the_first_sync_covers_segments_that_were_sealed_before_it(tmp_path, monkeypatch):
    writer = a_lake(tmp_path).writer("predictions", "flights", PREDICTION_FIELDS)
    monkeypatch.setattr(files, "SEGMENT_BYTES", 1)
    for id in "abc":
        writer.append(predictions([id]), 1)
    assert len(named(tmp_path, SEALED)) == 2
    disk = Disk()
    monkeypatch.setattr(segments, "os", disk)
    monkeypatch.setattr(files, "os", disk)
    gone = named(tmp_path, SEALED)[0]
    gone.unlink()  # rolled meanwhile, and deleted
    writer.sync()
    assert disk.has_all_of(tmp_path)


def test_after_a_failed_sync_the_rows_since_are_said_to_be_lost_once_and_a_new_segment_is_begun(tmp_path, disk):
    writer = a_lake(tmp_path).writer("predictions", "flights", PREDICTION_FIELDS)
    writer.append(predictions(["a"]), 1)
    writer.sync()
    writer.append(predictions(["b"]), 1)
    disk.is_broken = True
    with pytest.raises(StateError, match="may not survive a power cut"):
        writer.sync()
    disk.is_broken = False
    writer.append(predictions(["c"]), 1)
    writer.sync()
    assert len(named(tmp_path, OPEN)) == 2
    writer.close()


def test_rows_appended_to_a_segment_while_its_sync_fails_are_said_to_be_lost_too(tmp_path, disk, monkeypatch):
    writer = a_lake(tmp_path).writer("predictions", "flights", PREDICTION_FIELDS)
    writer.append(predictions(["a"]), 1)

    def failing_while_another_row_comes(fd):
        writer.append(predictions(["b"]), 1)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(disk, "fdatasync", failing_while_another_row_comes)
        with pytest.raises(StateError, match="may not survive"):
            writer.sync()
    writer.append(predictions(["c"]), 1)  # begins another segment
    with pytest.raises(StateError, match="may not survive"):
        writer.sync()
    writer.append(predictions(["d"]), 1)
    writer.sync()
    writer.close()


@pytest.mark.slow
def test_syncs_from_another_thread_do_no_harm_while_segments_come_and_go(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SEGMENT_BYTES", 2000)
    lake = a_lake(tmp_path)
    writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
    stop = threading.Event()
    failures = []

    def sync():
        while not stop.is_set():
            try:
                writer.sync()
            except BaseException as error:
                failures.append(error)
                return

    thread = threading.Thread(target=sync)
    thread.start()
    for n in range(600):
        writer.append(predictions([f"{n}"], at=START + hours(n)), 1)
    stop.set()
    thread.join()
    writer.close()
    assert failures == []
    assert ids(lake) == [f"{n}" for n in range(600)]
    assert named(tmp_path, OPEN) == []


def test_an_unused_writer_leaves_no_file(tmp_path):
    lake = a_lake(tmp_path)
    lake.writer("predictions", "flights", PREDICTION_FIELDS).close()
    assert named(tmp_path, SEALED) == named(tmp_path, OPEN) == []


def test_closing_the_lake_seals_what_is_open(tmp_path):
    lake = a_lake(tmp_path)
    lake.writer("predictions", "flights", PREDICTION_FIELDS).append(predictions(["a"]), 1)
    lake.close()
    assert len(named(tmp_path, SEALED)) == 1


def test_names_that_are_not_safe_in_a_path_are_refused(tmp_path):
    lake = a_lake(tmp_path)
    for table, system in (("predictions", "../x"), ("feeds/..", "flights"), ("feeds/day=1", "x"), ("feeds/", "x")):
        with pytest.raises(StateError, match="cannot name a system or lake table"):
            lake.scan(table, system)


def test_stats_count_rows_segments_and_files(tmp_path):
    lake = a_lake(tmp_path)
    append(lake, ["a", "b"])
    lake.roll()
    append(lake, ["c"])
    lake.writer("predictions", "flights", PREDICTION_FIELDS).append(predictions(["d"]), 1)
    stats = lake.stats()
    assert (stats.rows_written, stats.segments_open, stats.segments_sealed) == (4, 1, 1)
    assert (stats.segments_rolled, stats.files) == (1, 1)


@pytest.mark.slow
def test_readers_never_miss_or_double_a_row_while_others_append_seal_and_roll(tmp_path):
    manifest = MemoryManifest()
    lake = FileLake(tmp_path, manifest)
    acknowledged = []
    stop = threading.Event()
    failures = []

    def write():
        for i in range(60):
            append(lake, [f"{i}"], at=START + hours(i))
            acknowledged.append(f"{i}")
        stop.set()

    def rolling():
        while not stop.is_set():
            lake.roll()

    def read():
        reader = FileLake(tmp_path, manifest)
        while not stop.is_set():
            before = set(acknowledged)
            found = ids(reader)
            if not before <= set(found) or len(found) != len(set(found)):
                failures.append((before, found))

    threads = [threading.Thread(target=each) for each in (write, rolling, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ids(lake) == acknowledged


def test_a_segment_whose_end_cannot_be_written_is_sealed_as_that_of_a_dead_writer(tmp_path, monkeypatch) -> None:
    lake = FileLake(tmp_path, MemoryManifest())
    writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
    writer.append(predictions(["a", "b", "c"]), 3)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", full)
        patched.setattr(os, "write", full)
        with pytest.raises(StateError, match="No space left"):
            writer.close()
    assert lake.roll() == 1
    assert lake.scan("predictions", "flights").height == 3
    lake.close()
