"""The labelled rows of a window, block by block: what quality and calibration are measured on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.core.evidence import Block, Role, Window

FloatArray = npt.NDArray[np.float64]
Pairs = tuple[FloatArray, FloatArray]


def labelled(window: Window) -> list[Pairs]:
    """Labels and answers (n,), (n,) of each block, rows without either left out; computed once per block."""
    output, label = window.columns(Role.OUTPUT)[0], window.columns(Role.LABEL)[0]
    return [pairs(block, output, label) for block in window.blocks]


def pairs(block: Block, output: str, label: str) -> Pairs:
    """Labels and answers of one block's labelled rows; empty where a column is absent."""

    def compute(rows: pl.DataFrame) -> Pairs:
        if output not in rows.columns or label not in rows.columns:
            return np.empty(0), np.empty(0)
        y = rows[label].cast(pl.Float64).to_numpy()
        p = rows[output].cast(pl.Float64).to_numpy()
        known = ~(np.isnan(y) | np.isnan(p))
        return y[known], p[known]

    return block.remember(("labelled", output, label), compute)


def coverage(window: Window, blocks: Sequence[Pairs]) -> tuple[int, str]:
    """How many rows are labelled, and the same as a sentence: missing labels are counted, never imputed."""
    rows = sum(block.rows().height for block in window.blocks)
    known = sum(y.size for y, _ in blocks)
    share = f" ({known / rows:.1%})" if rows else ""
    return known, f"{known:,} of {rows:,} rows are labelled{share}"
