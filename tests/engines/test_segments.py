import errno
import itertools
import os
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.protocols import Field
from holdfast.engines import segments
from holdfast.engines.frames import HEADER_BYTES, VERSION
from holdfast.engines.segments import OPEN, SEALED, SegmentReader, SegmentWriter, recover
from holdfast.errors import CorruptSegment, OtherFormat, StateError
from holdfast.testing import PREDICTION_FIELDS, predictions


def ticking():
    count = iter(range(1, 10**9))
    return lambda: next(count)


def a_writer(directory, record="process"):
    return SegmentWriter(directory, "predictions", PREDICTION_FIELDS, record=record, now=ticking())


def append(writer, columns, rows):
    writer.append(columns, rows, at=writer._now())


def seal(writer):
    writer.end()
    writer.seal()


def ids_in(path, *, is_sealed=False):
    reader = SegmentReader("predictions")
    reader.read(path, is_sealed=is_sealed)
    frame = reader.frame()
    return frame["prediction_id"].to_list() if frame.width else []


def only(directory):
    (path,) = directory.iterdir()
    return path


@pytest.fixture
def whole(tmp_path):
    """Bytes of an open segment with three frames of 1, 2 and 1 rows, and where each frame ends."""
    writer = a_writer(tmp_path / "whole")
    ends = [writer.size_bytes]
    for ids in (["a"], ["b", "ü☃"], ["d"]):
        append(writer, predictions(ids), len(ids))
        ends.append(writer.size_bytes)
    writer.abandon()
    return only(tmp_path / "whole").read_bytes(), ends


def test_a_segment_cut_at_any_byte_gives_exactly_the_whole_frames_before(tmp_path, whole):
    data, ends = whole
    path = tmp_path / f"cut{OPEN}"
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        expected = [
            id for end, ids in zip(ends[1:], (["a"], ["b", "ü☃"], ["d"]), strict=True) if end <= length for id in ids
        ]
        assert ids_in(path) == expected, length


@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_changed_byte_before_whole_frames_is_reported_with_file_and_offset(tmp_path, whole, at, flip):
    data, ends = whole
    where = int(at * ends[-2])
    damaged = bytearray(data)
    damaged[where] ^= flip
    path = tmp_path / f"damaged{OPEN}"
    path.write_bytes(damaged)
    start = max(end for end in (0, *ends) if end <= where)
    with pytest.raises(CorruptSegment) as raised:
        ids_in(path)
    assert f"{path}: the frame at byte {start} is damaged" in str(raised.value)
    # What the message says to do gives the rows before the damage.
    os.truncate(path, start)
    assert ids_in(path) == ["a", "b", "ü☃", "d"][: {0: 0, ends[0]: 0, ends[1]: 1, ends[2]: 3}[start]]


def test_a_torn_last_frame_is_damage_in_a_sealed_segment(tmp_path, whole):
    data, ends = whole
    path = tmp_path / f"x{SEALED}"
    path.write_bytes(data[:-1])
    with pytest.raises(CorruptSegment, match=f"byte {ends[-2]} "):
        ids_in(path, is_sealed=True)


def test_a_sealed_segment_that_lost_its_end_is_reported(tmp_path):
    writer = a_writer(tmp_path)
    append(writer, predictions(["a"]), 1)
    size = writer.size_bytes
    seal(writer)
    path = only(tmp_path)
    assert path.name.endswith(SEALED)
    assert ids_in(path, is_sealed=True) == ["a"]
    os.truncate(path, size)
    with pytest.raises(CorruptSegment, match=f"byte {size} is damaged or missing"):
        ids_in(path, is_sealed=True)


def test_a_missing_frame_is_reported(tmp_path, whole):
    data, ends = whole
    path = tmp_path / f"x{OPEN}"
    path.write_bytes(data[: ends[1]] + data[ends[2] :])
    with pytest.raises(CorruptSegment, match=f"byte {ends[1]} "):
        ids_in(path)


def test_a_reader_takes_in_only_what_was_added(tmp_path):
    writer = a_writer(tmp_path)
    reader = SegmentReader("predictions")
    seen = []
    for id in "abc":
        append(writer, predictions([id]), 1)
        before = reader.offset
        reader.read(only(tmp_path), is_sealed=False)
        assert reader.offset == writer.size_bytes > before
        seen.append(id)
        assert reader.frame()["prediction_id"].to_list() == seen
    writer.abandon()


def test_the_segment_of_a_living_writer_is_not_recovered_and_that_of_a_dead_one_is_sealed_whole(tmp_path):
    writer = a_writer(tmp_path)
    append(writer, predictions(["a"]), 1)
    path = only(tmp_path)
    assert recover(path, "predictions") is None
    writer.abandon()
    with path.open("ab") as file:
        file.write(b"HFSG torn")
    sealed = recover(path, "predictions")
    assert sealed == only(tmp_path)
    assert ids_in(sealed, is_sealed=True) == ["a"]


def test_a_dead_writers_segment_without_a_schema_is_removed(tmp_path):
    path = tmp_path / f"x{OPEN}"
    path.write_bytes(b"HFSG")
    assert recover(path, "predictions") is None
    assert list(tmp_path.iterdir()) == []


class FullDisk:
    """Takes so many more bytes, then says that the disk is full."""

    def __init__(self, room):
        self.room = room

    def writev(self, fd, parts):
        return self.write(fd, b"".join(parts))

    def write(self, fd, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = bytes(data)[: self.room]
        self.room -= len(taken)
        return os.write(fd, taken)

    def __getattr__(self, name):
        return getattr(os, name)


@pytest.mark.parametrize("room", [0, 1, 39, 40, 60])
@pytest.mark.parametrize("record", ["process", "disk"])
def test_a_full_disk_is_said_and_leaves_the_last_whole_frame(tmp_path, monkeypatch, room, record):
    writer = a_writer(tmp_path, record)
    append(writer, predictions(["a"]), 1)
    with monkeypatch.context() as patched:
        patched.setattr(segments, "os", FullDisk(room))
        with pytest.raises(StateError, match=r"No space left.*free space on this disk.*Nothing of these rows"):
            append(writer, predictions(["b"]), 1)
    assert only(tmp_path).stat().st_size == writer.size_bytes
    append(writer, predictions(["c"]), 1)
    seal(writer)
    assert ids_in(only(tmp_path), is_sealed=True) == ["a", "c"]


def test_rows_that_wait_in_memory_survive_a_full_disk_and_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "MOST_WAITING_BYTES", 50)
    writer = a_writer(tmp_path, "memory")
    append(writer, predictions(["a"]), 1)
    with monkeypatch.context() as patched:
        patched.setattr(segments, "os", FullDisk(5))
        append(writer, predictions(["b"]), 1)
        with pytest.raises(StateError, match="free space"):
            append(writer, predictions(["c"]), 1)
    assert ids_in(only(tmp_path)) == []
    append(writer, predictions(["d"]), 1)
    seal(writer)
    assert ids_in(only(tmp_path), is_sealed=True) == ["a", "b", "d"]


def test_while_the_disk_takes_its_time_rows_in_memory_are_refused_rather_than_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "MOST_WAITING_BYTES", 50)
    writer = a_writer(tmp_path, "memory")
    with writer._writing:
        append(writer, predictions(["a"]), 1)
        append(writer, predictions(["b"]), 1)
        with pytest.raises(StateError, match="does not keep up") as raised:
            append(writer, predictions(["c"]), 1)
    assert isinstance(raised.value.__cause__, OSError)
    seal(writer)
    assert ids_in(only(tmp_path), is_sealed=True) == ["a", "b"]


def test_a_segment_that_cannot_be_begun_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "os", FullDisk(20))
    with pytest.raises(StateError, match="free space"):
        a_writer(tmp_path)
    assert list(tmp_path.iterdir()) == []


class BrokenDisk(FullDisk):
    def fdatasync(self, fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_after_a_failed_sync_the_segment_is_not_trusted_any_more(tmp_path, monkeypatch):
    writer = a_writer(tmp_path, "disk")
    append(writer, predictions(["a"]), 1)
    monkeypatch.setattr(segments, "os", BrokenDisk(10**6))
    with pytest.raises(StateError, match=r"Input/output error; check this disk"):
        append(writer, predictions(["b"]), 1)
    assert writer.is_broken
    writer.abandon()
    assert ids_in(only(tmp_path)) == ["a"]


@pytest.mark.parametrize("record", ["process", "memory"])
def test_a_sync_covers_what_was_appended_before_it(tmp_path, monkeypatch, record):
    synced = []

    class Watched(FullDisk):
        def fdatasync(self, fd):
            synced.append(os.fstat(fd).st_size)

    writer = a_writer(tmp_path, record)
    append(writer, predictions(["a"]), 1)
    monkeypatch.setattr(segments, "os", Watched(10**6))
    assert not writer.is_synced
    writer.sync()
    assert synced == [writer.size_bytes]
    assert writer.is_synced
    append(writer, predictions(["b"]), 1)
    assert not writer.is_synced
    writer.abandon()
    writer.sync()
    assert len(synced) == 1


def test_after_a_sync_that_was_asked_for_failed_every_later_one_fails_too(tmp_path, monkeypatch):
    writer = a_writer(tmp_path)
    append(writer, predictions(["a"]), 1)
    with monkeypatch.context() as patched:
        patched.setattr(segments, "os", BrokenDisk(10**6))
        with pytest.raises(StateError, match="may not survive a power cut"):
            writer.sync()
    assert writer.is_synced, "what it failed for was said"
    append(writer, predictions(["b"]), 1)
    assert writer.is_broken
    assert not writer.is_synced
    with pytest.raises(StateError, match="may not survive a power cut"):
        writer.sync()
    writer.abandon()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"cannot make a segment in .*file.*check that it is writable"):
        a_writer(tmp_path / "file" / "x")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(frames=st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.booleans()), min_size=1, max_size=4))
def test_a_power_cut_at_any_byte_of_the_last_frames_leaves_exactly_the_whole_frames(tmp_path, frames):
    for old in tmp_path.iterdir():
        old.unlink()
    schema = (*PREDICTION_FIELDS, Field("in.x", "float"), Field("in.y", "float"))
    writer = SegmentWriter(tmp_path, "predictions", schema, record="process", now=ticking())
    ends, ids = [writer.size_bytes], [[]]
    for n, (rows, has_constants, has_matrix) in enumerate(frames):
        named = [f"{n}{i}ü" for i in range(rows)]
        columns = predictions(named)
        beside = {}
        if has_constants:
            beside["constants"] = {"carrier": columns.pop("carrier")[0], "seats": 1}
            del columns["seats"]
        if has_matrix:
            beside["matrix"] = np.ones((rows, 2))
        else:
            columns |= {"in.x": np.zeros(rows), "in.y": np.zeros(rows)}
        writer.append(columns, rows, at=writer._now(), **beside)
        ends.append(writer.size_bytes)
        ids.append(ids[-1] + named)
    writer.abandon()
    data = only(tmp_path).read_bytes()
    path = only(tmp_path)
    for length in range(ends[max(0, len(ends) - 3)], len(data) + 1):
        path.write_bytes(data[:length])
        expected = next(ids[at] for at in reversed(range(len(ends))) if ends[at] <= length)
        assert ids_in(path) == expected, length
    sealed = recover(path, "predictions")
    assert ids_in(sealed, is_sealed=True) == ids[-1]


def of_format(data, ends, version):
    """A segment of the same frames with another version in each header, and checksums to match."""
    changed = bytearray(data)
    for start, end in itertools.pairwise((0, *ends)):
        changed[start + 4] = version
        head, payload = bytes(changed[start : start + HEADER_BYTES - 4]), bytes(changed[start + HEADER_BYTES : end])
        crc = zlib.crc32(payload, zlib.crc32(head))
        changed[start + HEADER_BYTES - 4 : start + HEADER_BYTES] = crc.to_bytes(4, "little")
    return bytes(changed)


@pytest.mark.parametrize("name", [f"other{OPEN}", f"other{SEALED}"])
@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_segment_of_another_format_is_said_to_be_whole_and_never_to_be_cut(tmp_path, whole, name, version):
    path = tmp_path / name
    path.write_bytes(of_format(*whole, version))
    with pytest.raises(OtherFormat) as raised:
        ids_in(path, is_sealed=name.endswith(SEALED))
    said = str(raised.value)
    assert f"written in segment format {version}, this program reads format {VERSION}" in said
    assert "start the version of Holdfast that wrote it" in said
    assert "truncate" not in said


def test_recovery_leaves_an_open_segment_of_another_format_as_it_is(tmp_path, whole):
    path = tmp_path / f"other{OPEN}"
    path.write_bytes(of_format(*whole, VERSION + 1))
    with pytest.raises(OtherFormat):
        recover(path, "predictions")
    assert path.read_bytes() == of_format(*whole, VERSION + 1)


def test_a_changed_version_before_frames_of_this_format_is_damage(tmp_path, whole):
    data, _ = whole
    path = tmp_path / f"damaged{OPEN}"
    path.write_bytes(data[:4] + bytes([VERSION + 1]) + data[5:])
    with pytest.raises(CorruptSegment, match="the frame at byte 0 is damaged") as raised:
        ids_in(path)
    assert not isinstance(raised.value, OtherFormat)
