"""What columns hold: frames in; types, ranges and categories as the data showed them out."""

from collections.abc import Mapping, Sequence

import msgspec
import polars as pl

from holdfast.core.signature import Column
from holdfast.core.spec import Data
from holdfast.flow.draftfeeds import Found, is_unique
from holdfast.flow.joins import assemble, joined_names

MOST_CATEGORIES = 300
"""A text column with more distinct values than this is not a feature."""


def describe(
    data: Data, frames: Mapping[str, pl.DataFrame], own: Sequence[str], label: str, found: Found
) -> dict[str, Column]:
    """Every column that can be a feature, pinned to what it held; those that cannot are noted with the reason.

    `own` are the columns of the predicted feed to look at; all that the other feeds join is looked at too.
    """
    columns = {}
    for name in own:
        if name != label and (column := _typed(name, frames[data.rows][name], found)):
            columns[name] = column
    for feed, spec in data.feeds.items():
        for name, source in joined_names(feed, spec).items():
            if source.function is not None:
                kind = "integer" if source.function == "count" else "number"
                columns[name] = Column(name=name, type=kind)  # type: ignore[arg-type]
            elif column := _typed(name, frames[feed][source.column], found):
                columns[name] = column
    # Ranges are those of the assembled rows: what a model sees, not what a feed holds.
    assembled = assemble(msgspec.structs.replace(data, columns=columns), frames)
    pinned = (_pinned(column, assembled[name], found) for name, column in columns.items())
    return {column.name: column for column in pinned if column is not None}


def _typed(name: str, series: pl.Series, found: Found) -> Column | None:
    """The column's type by what it is stored as; None, with a note, where it cannot be a feature."""
    dtype = series.dtype
    if dtype == pl.Boolean:
        return Column(name=name, type="boolean")
    if isinstance(dtype, pl.Datetime):
        return Column(name=name, type="time")
    if dtype.is_integer() and is_unique(series) and len(series) > MOST_CATEGORIES and series.name.endswith("id"):
        found.note(f"{name} is no feature: it identifies a row")
        return None
    if dtype.is_numeric():
        return Column(name=name, type="integer" if dtype.is_integer() else "number")
    if dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum):
        return Column(name=name, type="category")
    found.note(f"{name} is no feature: it is {'empty' if dtype == pl.Null else dtype}")
    return None


def _pinned(column: Column, series: pl.Series, found: Found) -> Column | None:
    """`column` with the range or categories that were seen; None, with a note, where it tells nothing."""
    values = series.drop_nulls().unique()
    if column.type == "category" and len(values) > MOST_CATEGORIES:
        found.note(f"{column.name} is no feature: {len(values)} distinct values are too many for a category")
        return None
    if len(values) < 2:
        found.note(f"{column.name} is no feature: it is {'always the same' if len(values) else 'always missing'}")
        return None
    if column.type == "category":
        return msgspec.structs.replace(column, categories=tuple(sorted(values.to_list())))
    if column.type in ("boolean", "time"):
        return column
    finite = values.filter(values.is_finite())
    if not len(finite):
        found.note(f"{column.name} is no feature: it has no finite value")
        return None
    return msgspec.structs.replace(column, low=float(finite.min()), high=float(finite.max()))  # type: ignore[arg-type]
