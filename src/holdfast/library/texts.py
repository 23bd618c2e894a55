"""Text columns of two tables: cells that suit both sides alike, and what only the current one has."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from holdfast.library.tables import Frame
from holdfast.stats.batches import nature_of
from holdfast.stats.histogram import Edges

OWN = 0.9
"""Share of distinct values from which on a column is one of ids: nearly every value occurs once."""
_TEXT, _BEFORE, _NOW = "text", "before", "now"


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What is known of a column of text before it is counted."""

    edges: Edges
    """The commonest values of both tables together, ties in alphabetical order.

    Chosen so that exchanging rows between the sides cannot change them. Cells chosen by the reference alone hold what
    happened to be common there: the other side then has less in them even if nothing changed, and tests that take
    cells for given (chi-square, dealing blocks anew) give false alarms.
    """
    distinct_reference: int
    distinct_current: int
    unseen: int
    """Rows of the current table whose value the reference never has."""

    def are_own(self, values_reference: int, values_current: int) -> bool:
        """Almost every value of both sides is its own, as ids and free text are; counts of values present."""
        return (
            self.distinct_reference >= OWN * values_reference > OWN
            and self.distinct_current >= OWN * values_current > OWN
        )


def texts_of(reference: Frame, current: Frame, names: Iterable[str], *, most: int) -> dict[str, Texts]:
    """Of the columns among `names` that are text in the reference; `most` cells each. One pass over a column a side.

    >>> before, now = pl.DataFrame({"x": ["a", "a", "b", None]}), pl.DataFrame({"x": ["c", "c", "c", "a"]})
    >>> found = texts_of(before, now, ["x"], most=2)["x"]
    >>> found.edges.categories, found.distinct_reference, found.unseen
    (('a', 'c'), 2, 3)
    """
    schema = reference.collect_schema()
    return {
        name: _texts(_tally(reference, name), _tally(current, name), most)
        for name in names
        if name in schema and nature_of(schema[name]) == "text"
    }


def _texts(before: pl.DataFrame, now: pl.DataFrame, most: int) -> Texts:
    both = before.rename({"len": _BEFORE}).join(now.rename({"len": _NOW}), on=_TEXT, how="full", coalesce=True)
    both = both.with_columns(pl.col(_BEFORE, _NOW).fill_null(0))
    common = both.select(_TEXT, all=pl.col(_BEFORE) + pl.col(_NOW)).sort("all", _TEXT, descending=[True, False])
    return Texts(
        edges=Edges(categories=tuple(common[_TEXT].head(most).to_list())),
        distinct_reference=before.height,
        distinct_current=now.height,
        unseen=int(both.filter(pl.col(_BEFORE) == 0)[_NOW].sum()),
    )


def _tally(rows: Frame, name: str) -> pl.DataFrame:
    """How often each text occurs: text, len. Empty where the table lacks the column or holds no text in it."""
    schema = rows.collect_schema()
    if name not in schema or nature_of(schema[name]) != "text":
        return pl.DataFrame(schema={_TEXT: pl.String, "len": pl.Int64})
    counted = rows.lazy().select(pl.col(name).alias(_TEXT)).drop_nulls().group_by(_TEXT).len()
    return counted.collect(engine="streaming").cast({_TEXT: pl.String, "len": pl.Int64})
