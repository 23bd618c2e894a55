"""The catalog's tables, and bringing a database to the revision that this version works on."""

from pathlib import Path

import sqlalchemy as sa

from holdfast import __version__
from holdfast.core.records import RECORDS, Record
from holdfast.engines.migrations import REVISIONS
from holdfast.errors import StateError

METADATA = sa.MetaData()


def _kind(name: str) -> sa.Table:
    return sa.Table(
        name,
        METADATA,
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
    )


TABLES: dict[type[Record], sa.Table] = {kind: _kind(kind.table) for kind in RECORDS}

AUDIT = sa.Table(
    "audit",
    METADATA,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("system", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

LAKE_FILES = sa.Table(
    "lake_files",
    METADATA,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True),
    sa.Column("system", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("low", sa.BigInteger, nullable=False),
    sa.Column("high", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
)

LAKE_ROLLED = sa.Table(
    "lake_rolled",
    METADATA,
    sa.Column("system", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("segment", sa.Text, primary_key=True),
)

LAKE_TABLES = sa.Table(
    "lake_tables",
    METADATA,
    sa.Column("system", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
)

ABOUT = sa.Table(
    "about",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

_REVISION = sa.text("SELECT version_num FROM alembic_version")


def prepare(engine: sa.Engine, where: str) -> None:
    """Make or migrate the tables where they are not as this version needs them, in one transaction.

    Raises StateError for a database made by a newer version, or one that holds something else.
    """
    with engine.connect() as connection:
        if _revision(connection) == REVISIONS[-1]:
            return
    with engine.connect().execution_options(is_writing=True) as connection, connection.begin():
        tables = sa.inspect(connection).get_table_names()
        found = _revision(connection) if "alembic_version" in tables else ""
        if found == REVISIONS[-1]:  # another process was faster
            return
        if found and found not in REVISIONS:
            raise _newer(connection, where, found)
        if not found and tables:
            raise StateError(
                f"{where} is a database, but not a catalog of Holdfast: its tables are not ours; "
                "move it away or name another state directory"
            )
        _migrate(connection)


def _revision(connection: sa.Connection) -> str:
    try:
        return connection.execute(_REVISION).scalar() or ""
    except (sa.exc.OperationalError, sa.exc.ProgrammingError) as failure:
        if "alembic_version" in str(failure.orig):
            return ""
        raise


def _newer(connection: sa.Connection, where: str, revision: str) -> StateError:
    made_by = connection.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == "migrated_by")).scalar()
    return StateError(
        f"{where} was made by a newer Holdfast ({made_by}, schema {revision}) than this one ({__version__}, "
        f"schema {REVISIONS[-1]}); install holdfast {made_by} or newer"
    )


def _migrate(connection: sa.Connection) -> None:
    # A third of a second that only a first start or an upgrade has to pay.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.execute(sa.delete(ABOUT).where(ABOUT.c.name == "migrated_by"))
    connection.execute(sa.insert(ABOUT).values(name="migrated_by", value=__version__))
