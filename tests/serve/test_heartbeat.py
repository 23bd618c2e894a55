from holdfast.serve.heartbeat import Heartbeat, path_of, read_heartbeat, write_heartbeat


def test_a_heartbeat_comes_back_as_it_was_written(tmp_path):
    beat = Heartbeat(pid=7, generation=3, at="2013-05-01T12:00:00+00:00", held={"flights": "Tampered"}, recorded=9)
    write_heartbeat(tmp_path, "worker-1", beat)
    assert read_heartbeat(tmp_path, "worker-1") == beat
    assert [path.name for path in tmp_path.iterdir()] == ["worker-1.json"]


def test_what_cannot_be_read_is_no_heartbeat(tmp_path):
    assert read_heartbeat(tmp_path, "worker-1") is None
    path_of(tmp_path, "worker-1").write_bytes(b'{"pid": ')
    assert read_heartbeat(tmp_path, "worker-1") is None
