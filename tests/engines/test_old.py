"""What every released version recorded can still be read."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from holdfast.core.records import RECORDS
from holdfast.engines import bodies
from holdfast.engines.blobs import FileBlobs
from holdfast.engines.files import FileLake
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.security import audit

OLD = sorted(path for path in (Path(__file__).parents[1] / "data" / "old").iterdir() if path.is_dir())


@pytest.fixture(params=OLD, ids=lambda path: path.name)
def state(request, tmp_path):
    """A copy of what an old version left, because opening may migrate it."""
    return Path(shutil.copytree(request.param, tmp_path / "state"))


def test_every_record_of_an_old_catalog_keeps_what_it_said(state):
    connection = sqlite3.connect(state / "catalog.db")
    before = {
        kind: [json.loads(body) for (body,) in connection.execute(f"SELECT body FROM {kind.table} ORDER BY seq")]
        for kind in RECORDS
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [kind.table]).fetchone()
    }
    connection.close()
    catalog = SqliteCatalog(state / "catalog.db")
    assert before
    with catalog.read() as view:
        for kind, old in before.items():
            now = [json.loads(bodies.encode(record)) for record in view.find(kind)]
            assert len(now) == len(old) > 0
            assert _kept(old, now)
        audit.verify(view.audit_log())
    catalog.close()


def _kept(was, is_):
    """Every value that was written is still there; new fields may stand beside it."""
    if isinstance(was, dict) and isinstance(is_, dict):
        return all(name in is_ and _kept(value, is_[name]) for name, value in was.items())
    if isinstance(was, list) and isinstance(is_, list):
        return len(was) == len(is_) and all(map(_kept, was, is_))
    return was == is_


def test_every_row_of_an_old_lake_is_read_whether_rolled_sealed_or_torn(state):
    catalog = SqliteCatalog(state / "catalog.db")
    lake = FileLake(state / "lake", catalog.manifest)
    for _ in range(2):
        frame = lake.scan("predictions", "flights")
        assert frame["prediction_id"].to_list() == ["a", "b", "c"]
        assert frame["carrier"].to_list() == [None, "Zürich", "Zürich"]
        lake.roll()
    lake.close()
    catalog.close()


def test_every_blob_of_an_old_store_is_read(state):
    blobs = FileBlobs(state / "blobs")
    assert [blobs.get(key) for key in blobs.keys()] == [b"model"]  # noqa: SIM118 - a method of the port, not a dict
