"""Tables of any kind as polars frames of bounded size, and columns as pieces of numbers."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Rows = pl.DataFrame | pl.LazyFrame | Iterable[Any]
"""A polars frame, a polars lazy frame (files larger than memory), or batches: each a polars frame or anything with the
Arrow stream interface (Arrow tables and batches, DuckDB results, pandas frames where pyarrow is installed). A single
such table will do as well."""
Nature = Literal["number", "text"]
FloatArray = npt.NDArray[np.float64]

BATCH_VALUES = 4_000_000
"""Values of a lazy frame in a batch: about 32 MB, several times that while a file is decoded."""
WIDE = 64
"""Columns of a lazy frame that are read together; of more, a file is read in several passes over its columns."""
PIECE = 131_072
"""Numbers of one column that are cast and handed on at once."""
SMALL = 8_192
"""In pieces up to this size nulls are handed on as NaN: to drop them takes longer than to count them."""


def nature_of(kind: pl.DataType) -> Nature | None:
    """How a type is counted: numbers and booleans, text (categoricals and enums too), or not at all (times, lists)."""
    if kind.is_numeric() or kind == pl.Boolean:
        return "number"
    return "text" if isinstance(kind, pl.String | pl.Categorical | pl.Enum) else None


def frames_of(rows: pl.DataFrame | Iterable[Any]) -> Iterator[pl.DataFrame]:
    """The frames of a table or of batches. Raises TypeError for a batch that is no table."""
    if isinstance(rows, pl.DataFrame):
        yield rows
    elif hasattr(rows, "__arrow_c_stream__"):
        yield pl.DataFrame(rows)
    else:
        for batch in rows:
            if not isinstance(batch, pl.DataFrame) and not (
                hasattr(batch, "__arrow_c_stream__") or hasattr(batch, "__arrow_c_array__")
            ):
                raise TypeError(f"a batch must be a polars frame or an Arrow table, not {type(batch).__name__}")
            yield batch if isinstance(batch, pl.DataFrame) else pl.DataFrame(batch)


def lazily(rows: pl.LazyFrame, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Some columns of a lazy frame in batches, in any order of rows."""
    size = max(BATCH_VALUES // max(len(columns), 1), 1024)
    yield from rows.select(columns).collect_batches(
        chunk_size=size, maintain_order=False, lazy=True, engine="streaming"
    )


def parts_of(columns: Sequence[str]) -> list[Sequence[str]]:
    """Columns in groups that are read together."""
    return [columns[at : at + WIDE] for at in range(0, len(columns), WIDE)]


def pieces_of(values: pl.Series) -> Iterator[FloatArray]:
    """The numbers of a column as float arrays of at most 131,072, its nulls left out or, in short ones, as NaN."""
    for at in range(0, len(values), PIECE):
        piece = values.slice(at, PIECE) if len(values) > PIECE else values
        if len(piece) > SMALL and piece.null_count():
            piece = piece.drop_nulls()
        yield (piece if piece.dtype == pl.Float64 else piece.cast(pl.Float64)).to_numpy()


def tally_of(values: pl.Series) -> Iterator[tuple[str | None, int]]:
    """How often each text of a column occurs, nulls as None."""
    names, times = values.value_counts(name="", sort=False).get_columns()
    names = names if names.dtype == pl.String else names.cast(pl.String)
    return zip(names.to_list(), times.to_list(), strict=True)
