"""What silence needs to know of a day, small enough to keep: per column how much, how varied, where it lies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.core.evidence import Block, Window

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

PROBS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""The quantiles that describe where a number column lies on a day."""
LARGEST = 1e150
"""Quantiles beyond it, infinities above all, have no distance from one another that could be counted with."""
LEAST_ROWS = 30
"""Values a day must have before it says something about a column."""


@dataclass(frozen=True, eq=False)
class Profile:
    """One stretch of rows, column by column in the order asked for."""

    rows: int
    present: IntArray
    """Values that are not missing, (columns,)."""
    distinct: IntArray
    """0 for none, 1 for one value only, 2 for two or more, (columns,)."""
    common: FloatArray
    """Share of the present values that are the most common one (of numbers: that are the median), (columns,)."""
    quantiles: FloatArray
    """(len(PROBS), columns); NaN for text, for fewer than LEAST_ROWS values and for all but infinite ones."""

    @property
    def missing(self) -> FloatArray:
        """Missing share, (columns,), in [0, 1]; NaN without rows."""
        return 1 - self.present / self.rows if self.rows else np.full(self.present.shape, np.nan)


def profile(rows: pl.DataFrame, columns: Sequence[str]) -> Profile:
    """The profile of some rows. A column that is absent counts as missing everywhere."""
    present = np.zeros(len(columns), dtype=np.int64)
    distinct = np.zeros(len(columns), dtype=np.int64)
    common = np.zeros(len(columns))
    quantiles = np.full((len(PROBS), len(columns)), np.nan)
    schema = rows.schema
    numbers = [k for k, name in enumerate(columns) if name in schema and _is_number(schema[name])]
    others = [k for k, name in enumerate(columns) if name in schema and not _is_number(schema[name])]
    if rows.height and numbers:
        found = _numbers(rows, [columns[k] for k in numbers])
        present[numbers], distinct[numbers], common[numbers], quantiles[:, numbers] = found
    if rows.height and others:
        names = [columns[k] for k in others]
        most = [pl.col(name).drop_nulls().unique_counts().max().fill_null(0).name.suffix("/most") for name in names]
        row = np.array(rows.select(*(pl.col(name).count() for name in names), *most).row(0), dtype=np.int64)
        counts, most_common = row[: len(names)], row[len(names) :]
        present[others] = counts
        distinct[others] = np.where(counts == 0, 0, np.where(most_common == counts, 1, 2))
        common[others] = most_common / np.maximum(counts, 1)
    return Profile(rows.height, present, distinct, common, quantiles)


def of_block(block: Block, columns: Sequence[str]) -> Profile:
    """The profile of a block, computed once."""
    return block.remember(("profile", tuple(columns)), lambda rows: profile(rows, columns))


def of_window(window: Window, columns: Sequence[str]) -> Profile:
    """The profile of all rows of a window together."""
    if len(window.blocks) == 1:
        return of_block(window.blocks[0], columns)
    frames = [block.rows().select(name for name in columns if name in block.rows().columns) for block in window.blocks]
    frames = [frame for frame in frames if frame.height]
    return profile(pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame(), columns)


def mixed(window: Window, columns: Sequence[str]) -> dict[str, str]:
    """Columns that hold numbers in one block of a window and something else in another, and what they hold."""
    found: dict[str, dict[bool, str]] = {}
    for block in window.blocks if len(window.blocks) > 1 else ():
        schema = block.rows().schema
        for name in columns:
            if name in schema and schema[name] != pl.Null and block.rows()[name].null_count() < block.rows().height:
                found.setdefault(name, {})[_is_number(schema[name])] = str(schema[name])
    return {name: " and ".join(kinds.values()) for name, kinds in found.items() if len(kinds) > 1}


def _is_number(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind == pl.Boolean


def _numbers(rows: pl.DataFrame, names: Sequence[str]) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    # One sort gives everything: missing values end up last, so the first `present` of each column are its values.
    values = np.stack([rows[name].cast(pl.Float64).to_numpy() for name in names])
    present = (values.shape[1] - np.isnan(values).sum(axis=1)).astype(np.int64)
    values.sort(axis=1)
    column = np.arange(len(names))
    last = np.maximum(present - 1, 0)
    distinct = np.where(present == 0, 0, np.where(values[:, 0] == values[column, last], 1, 2)).astype(np.int64)
    median = values[column, last // 2]
    common = (values == median[:, None]).sum(axis=1) / np.maximum(present, 1)
    at = np.floor(np.asarray(PROBS)[:, None] * last[None, :] + 0.5).astype(np.int64)
    quantiles = np.where(present >= LEAST_ROWS, values[column, at], np.nan)
    quantiles[:, (np.abs(quantiles) > LARGEST).any(axis=0)] = np.nan
    return present, distinct, common, quantiles
