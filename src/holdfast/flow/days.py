"""Rows cut into blocks. In: a frame with `event_at`. Out: one block a day of the system's time zone, oldest first."""

from datetime import date
from functools import partial

import polars as pl

from holdfast.core.blocks import block_bounds
from holdfast.core.evidence import Block


def day_expr(timezone: str) -> pl.Expr:
    """The day that a row's event falls on. It is never made a column: any name might be a feature's."""
    return pl.col("event_at").dt.convert_time_zone(timezone).dt.date()


def blocks_of(timezone: str, frame: pl.DataFrame) -> list[Block]:
    """The days of a frame that have rows; each block has the frame's own columns."""
    blocks = []
    for (day,), rows in frame.group_by(day_expr(timezone).alias("event_at"), maintain_order=True):
        assert isinstance(day, date)
        start, end = block_bounds(timezone, day)
        blocks.append(Block(day, start, end, partial(_as_it_is, rows)))
    return sorted(blocks, key=lambda block: block.start)


def _as_it_is(rows: pl.DataFrame) -> pl.DataFrame:
    return rows
