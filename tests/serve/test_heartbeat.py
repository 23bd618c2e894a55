from holdfast.serve.heartbeat import (
    End,
    Heartbeat,
    ends_of,
    note_end,
    path_of,
    read_ends,
    read_heartbeat,
    write_heartbeat,
)


def test_a_heartbeat_comes_back_as_it_was_written(tmp_path):
    beat = Heartbeat(pid=7, generation=3, at="2013-05-01T12:00:00+00:00", held={"flights": "Tampered"}, recorded=9)
    write_heartbeat(tmp_path, "worker-1", beat)
    assert read_heartbeat(tmp_path, "worker-1") == beat
    assert [path.name for path in tmp_path.iterdir()] == ["worker-1.json"]


def test_what_cannot_be_read_is_no_heartbeat(tmp_path):
    assert read_heartbeat(tmp_path, "worker-1") is None
    path_of(tmp_path, "worker-1").write_bytes(b'{"pid": ')
    assert read_heartbeat(tmp_path, "worker-1") is None


def test_ends_stand_in_their_order_and_what_cannot_be_read_is_left_out(tmp_path):
    beat = path_of(tmp_path, "worker-1")
    assert read_ends(tmp_path, "worker-1") == []
    ends = [End(pid=pid, at="2013-05-01T12:00:00+00:00", how="ended with code -9") for pid in (7, 8, 9)]
    for end in ends[:2]:
        note_end(beat, end)
    with ends_of(beat).open("ab") as file:
        file.write(b'{"pid": 4\n')
    note_end(beat, ends[2])
    assert read_ends(tmp_path, "worker-1") == ends
    assert read_ends(tmp_path, "worker-2") == []


def test_a_worker_that_dies_for_ever_does_not_fill_the_disk(tmp_path):
    beat = path_of(tmp_path, "worker-1")
    for pid in range(2000):
        note_end(beat, End(pid=pid, at="2013-05-01T12:00:00+00:00", how="ended with code 1"))
    assert ends_of(beat).stat().st_size < 70_000
    ends = read_ends(tmp_path, "worker-1")
    assert ends[-1].pid == 1999, "the newest are kept"
    assert [end.pid for end in ends] == list(range(ends[0].pid, 2000))
    assert [path.name for path in tmp_path.iterdir()] == ["worker-1.ends"]
