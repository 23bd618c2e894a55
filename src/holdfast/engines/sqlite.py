"""A catalog in one SQLite file: write-ahead log, synced at every commit, readers that never wait."""

import sqlite3
from pathlib import Path
from time import sleep
from typing import Any

import sqlalchemy as sa

from holdfast.core.clock import Clock, SystemClock, stopwatch_s
from holdfast.engines.schema import prepare
from holdfast.engines.sql import SqlCatalog
from holdfast.errors import StateError

WAIT_S = 30.0
"""How long a transaction waits for one of another process, in seconds."""


class SqliteCatalog(SqlCatalog):
    """What was decided, in the SQLite file `path`, made or migrated where needed. Not for network file systems.

    Raises StateError for a file that is not a catalog, or was made by a newer version.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        engine = _engine(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            prepare(engine, str(path))
        except sa.exc.DBAPIError as failure:
            engine.dispose()
            raise _unusable(path, failure) from failure
        except OSError as failure:
            raise StateError(
                f"cannot make {path.parent}: {failure.strerror}; name another state directory"
            ) from failure
        except BaseException:
            engine.dispose()
            raise
        super().__init__(engine, str(path), clock or SystemClock())


def _engine(path: Path) -> sa.Engine:
    url = sa.URL.create("sqlite", database=str(path))
    engine = sa.create_engine(url, connect_args={"timeout": WAIT_S}, max_overflow=-1)

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = FULL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("is_writing"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")
            # A snapshot is taken at the first read, so that there is one from the start.
            connection.exec_driver_sql("SELECT 1 FROM sqlite_master").first()

    return engine


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # SQLite does not wait by itself where two processes switch a new file at the same moment.
    end = stopwatch_s() + WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as failure:
            if "locked" not in str(failure) or stopwatch_s() > end:
                raise
            sleep(0.01)


def _unusable(path: Path, failure: sa.exc.DBAPIError) -> StateError:
    said = str(failure.orig)
    if "not a database" in said or "malformed" in said:
        return StateError(
            f"{path} is not a database ({said}); restore it from a backup, "
            "or move it away and start with an empty state directory"
        )
    if "locked" in said:
        return StateError(f"{path} is held by another process for more than {WAIT_S:.0f} s; end it if it hangs")
    return StateError(f"cannot open the catalog {path}: {said}; check that the file and its directory are writable")
