"""The catalog of version 0.1: a table per kind of record, the audit log, and the manifest of the lake."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KINDS = ("system_files", "snapshots", "runs", "versions", "releases", "routes", "incidents", "jobs", "marks", "tokens")

# SQLite counts up only in a column declared INTEGER; elsewhere the numbers may outgrow 32 bits.
_COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make all tables."""
    for kind in KINDS:
        op.create_table(
            kind,
            sa.Column("seq", _COUNT, sa.Identity(), primary_key=True),
            sa.Column("system", sa.Text, nullable=False),
            sa.Column("id", sa.Text, nullable=False),
            sa.Column("state", sa.Text, nullable=False),
            sa.Column("body", sa.Text, nullable=False),
            sa.Column("updated_at", sa.Text, nullable=False),
            sa.UniqueConstraint("system", "id", name=f"{kind}_key"),
        )
        op.create_index(f"{kind}_by_state", kind, ["system", "state"])
    op.create_table(
        "audit",
        sa.Column("seq", _COUNT, primary_key=True, autoincrement=False),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("audit_by_system", "audit", ["system", "seq"])
    op.create_table(
        "lake_files",
        sa.Column("seq", _COUNT, sa.Identity(), primary_key=True),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False, unique=True),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("low", sa.BigInteger, nullable=False),
        sa.Column("high", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
    op.create_index("lake_files_by_table", "lake_files", ["system", "name"])
    op.create_table(
        "lake_rolled",
        sa.Column("system", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("segment", sa.Text, primary_key=True),
    )
    op.create_table(
        "lake_tables",
        sa.Column("system", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "about",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
