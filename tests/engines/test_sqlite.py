import sqlite3
import subprocess
import sys

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from holdfast import __version__
from holdfast.core.records import RECORDS, Job
from holdfast.engines import migrations, sqlite
from holdfast.engines.schema import METADATA
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.errors import StateError
from holdfast.testing import START, a_job


@pytest.fixture
def path(tmp_path):
    """A catalog file with one job in it."""
    path = tmp_path / "state" / "catalog.db"
    catalog = SqliteCatalog(path)
    with catalog.begin() as transaction:
        transaction.put(a_job())
    catalog.close()
    return path


def run_sql(path, *statements):
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_catalog_opens_again_with_what_was_put(path):
    catalog = SqliteCatalog(path)
    with catalog.read() as view:
        assert view.find(Job, "flights") == [a_job()]
    catalog.close()


@pytest.mark.slow
def test_opening_a_migrated_catalog_does_not_import_the_migration_tool(path):
    code = f"""
import sys
from pathlib import Path
from holdfast.engines.sqlite import SqliteCatalog
SqliteCatalog(Path({str(path)!r})).close()
sys.exit("alembic" in sys.modules or "polars" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commits_are_synced_and_readers_do_not_wait(path):
    catalog = SqliteCatalog(path)
    with catalog.connection(is_writing=False) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == sqlite.WAIT_S * 1000
    catalog.close()


def test_the_migrations_make_the_tables_that_the_code_uses(path):
    connection = sqlite3.connect(path)
    for table in METADATA.tables.values():
        found = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
        assert found == [column.name for column in table.columns], table.name
    connection.close()
    assert {kind.table for kind in RECORDS} <= METADATA.tables.keys()


def test_every_migration_is_known_to_the_code_in_order():
    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    config.set_main_option("path_separator", "os")
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == migrations.REVISIONS


def test_a_catalog_of_a_newer_version_is_refused_with_the_version_to_install(path):
    run_sql(path, "UPDATE alembic_version SET version_num = '0099'", "UPDATE about SET value = '9.4.0'")
    with pytest.raises(
        StateError, match=rf"made by a newer Holdfast \(9\.4\.0.*{__version__}.*install holdfast 9\.4\.0"
    ):
        SqliteCatalog(path)


def test_a_file_that_is_not_a_database_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "catalog.db"
    path.write_text("not a database at all, but long enough to have a header " * 4)
    with pytest.raises(StateError, match=r"catalog\.db is not a database.*restore it from a backup, or move it away"):
        SqliteCatalog(path)
    assert path.read_text().startswith("not a database")


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    run_sql(path, "CREATE TABLE songs (title)")
    with pytest.raises(StateError, match="not a catalog of Holdfast"):
        SqliteCatalog(path)


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="name another state directory"):
        SqliteCatalog(tmp_path / "file" / "catalog.db")


def test_a_record_that_cannot_be_read_is_named(path):
    run_sql(path, "UPDATE jobs SET body = '{\"system\": 5}'")
    catalog = SqliteCatalog(path)
    with pytest.raises(StateError, match=r"table 'jobs'.*restore"), catalog.read() as view:
        view.get(Job, "flights", "job1")
    catalog.close()


def test_a_writer_that_waits_too_long_says_who_is_in_the_way(path, monkeypatch):
    monkeypatch.setattr(sqlite, "WAIT_S", 0.01)
    one, other = SqliteCatalog(path), SqliteCatalog(path)
    with one.begin() as transaction:
        transaction.put(a_job("2"))
        with pytest.raises(StateError, match="another process holds it for writing"), other.begin():
            pass
        with other.read() as view:
            assert view.find(Job) == [a_job()]
    one.close()
    other.close()


@pytest.mark.slow
def test_two_openings_at_once_migrate_once(tmp_path):
    code = f"""
from pathlib import Path
from holdfast.engines.sqlite import SqliteCatalog
SqliteCatalog(Path({str(tmp_path / "catalog.db")!r})).close()
"""
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    SqliteCatalog(tmp_path / "catalog.db").close()


def test_an_entry_whose_column_was_changed_is_still_in_its_systems_log(path):
    catalog = SqliteCatalog(path)
    for subject, system in (("1", "flights"), ("2", "disks"), ("3", "flights")):
        with catalog.begin() as tx:
            tx.audit(at=START, actor="me", action="release", system=system, subject=subject, detail={})
    catalog.close()
    # As someone would who wants to hide an entry, and had found a way around the trigger that forbids it.
    connection = sqlite3.connect(path)
    triggers = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
    connection.close()
    run_sql(path, *(f"DROP TRIGGER {name}" for name in triggers), "UPDATE audit SET system = 'disks' WHERE seq = 3")
    catalog = SqliteCatalog(path)
    with catalog.read() as view:
        assert [entry.subject for entry in view.audit_log("flights")] == ["1", "3"]
        assert [entry.subject for entry in view.audit_log("flights", newest=1)] == ["3"]
        assert [entry.subject for entry in view.audit_log("disks")] == ["2"]
        assert [entry.subject for entry in view.audit_log(newest=2)] == ["2", "3"]
    catalog.close()
