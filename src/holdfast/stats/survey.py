"""Edges of whole tables: exact for a frame, from one pass and a sample for what is larger than memory."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import polars as pl

from holdfast.stats.batches import FloatArray, Nature, Rows, frames_of, lazily, nature_of, parts_of, pieces_of, tally_of
from holdfast.stats.histogram import Edges, category_edges, edges_of, number_edges

SAMPLE = 200_000
"""Rows of a stream from which its quantiles are taken."""
MOST_NAMES = 100_000
"""Different texts of one column that are told apart in a stream; the rarer half is forgotten when there are more."""
_KEY = "\0 key"
"""Name of the column of a sample that says which of its rows stay: none that a table would have."""


def edges_of_rows(
    rows: Rows,
    *,
    columns: Sequence[str] = (),
    quantiles: int = 64,
    uniform: int = 64,
    most: int = 64,
    sample: int = SAMPLE,
    seed: int = 0,
) -> dict[str, Edges]:
    """Edges of the columns named, or of all that hold numbers, booleans or text; `edges_of` says how they are cut.

    Those of one frame are exact. Those of a lazy frame or of batches are exact up to `sample` rows; above, quantiles
    come from a random sample of about so many rows: the share p below a cut has a standard error of
    sqrt(p (1 - p) / sample), 0.1 % of the rows at most for 200,000. Counts on such edges
    are as exact as on any. The least and the most, and columns of few distinct numbers, are exact either way; text
    with over 100,000 different values may miss one that is frequent only late in a stream.
    Raises ValueError for a named column that is not there or cannot be counted, and for one that changes its type.

    >>> edges_of_rows(pl.DataFrame({"x": [1.0, 2.0, None], "name": ["b", "a", "b"]}))["name"].categories
    ('b', 'a')
    """
    if isinstance(rows, pl.LazyFrame):
        names = _chosen(rows.collect_schema(), columns)
        parts = [(part, lazily(rows, part)) for part in parts_of(names)]
    else:
        frames = frames_of(rows)
        first = next(frames, pl.DataFrame())
        names = _chosen(first.schema, columns)
        if isinstance(rows, pl.DataFrame):
            return {
                name: _edges_of_series(rows[name], quantiles=quantiles, uniform=uniform, most=most) for name in names
            }
        parts = [(names, chain([first], frames))]
    found: dict[str, Edges] = {}
    for part, stream in parts:
        survey = Survey(part, quantiles=quantiles, uniform=uniform, sample=sample, seed=seed)
        for frame in stream:
            survey.add(frame)
        found |= survey.edges(most=most)
    return found


class Survey:
    """What is kept of a stream of frames to make edges of it; memory is that of the sample.

    Columns that only a later frame has may be named too; where a frame lacks a column, it is missing there.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        quantiles: int = 64,
        uniform: int = 64,
        sample: int = SAMPLE,
        seed: int = 0,
    ) -> None:
        self._columns, self._limit = columns, sample
        self._quantiles, self._uniform = quantiles, uniform
        self._random = np.random.default_rng(seed)
        self._sample = pl.DataFrame()
        self._natures: dict[str, Nature] = {}
        self._ends: dict[str, tuple[float, float]] = {}
        self._distinct: dict[str, FloatArray] = {}
        """All distinct numbers of a column in order, or as many as show that they are too many for a cell each."""
        self._tallies: dict[str, dict[str, int]] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Look at some more rows. Raises ValueError when a column changes its type."""
        numbers = []
        for values in frame.select(name for name in self._columns if name in frame.columns).get_columns():
            nature = self._nature(values)
            if nature == "number":
                self._see_numbers(values)
                numbers.append(values.name)
            elif nature == "text":
                self._see_text(values)
        self._keep(frame.select(numbers), frame.height)

    def edges(self, *, most: int = 64) -> dict[str, Edges]:
        """Edges by column; without anything in them for a column that had nothing but nulls."""
        return {name: self._edges(name, most) for name in self._columns}

    def _edges(self, name: str, most: int) -> Edges:
        nature = self._natures.get(name)
        if nature is None:
            return Edges()
        if nature == "text":
            return category_edges(self._tallies[name], most=most)
        distinct = self._distinct.get(name, np.zeros(0))
        if distinct.size <= self._quantiles + self._uniform:
            return edges_of(distinct, quantiles=self._quantiles, uniform=self._uniform)
        ordered = np.concatenate(list(pieces_of(self._sample[name])))
        ordered = np.sort(ordered[np.isfinite(ordered)])
        low, high = self._ends[name]
        # A column that is hardly ever there may have no value in the sample.
        ordered = ordered if ordered.size else distinct
        return number_edges(ordered, quantiles=self._quantiles, uniform=self._uniform, low=low, high=high)

    def _nature(self, values: pl.Series) -> Nature | None:
        if values.null_count() == len(values):
            return None
        nature = nature_of(values.dtype)
        if nature is None:
            raise ValueError(f"{values.name} cannot be counted: it holds {values.dtype}")
        known = self._natures.setdefault(values.name, nature)
        if known != nature:
            raise ValueError(f"the type of {values.name} changes within the rows: {values.dtype} where {known}s were")
        return nature

    def _see_numbers(self, values: pl.Series) -> None:
        name = values.name
        for piece in pieces_of(values):
            finite = piece[np.isfinite(piece)]
            if finite.size:
                low, high = self._ends.get(name, (np.inf, -np.inf))
                self._ends[name] = min(low, float(finite.min())), max(high, float(finite.max()))
                self._distinct[name] = _distinct(
                    self._distinct.get(name, finite[:0]), finite, self._quantiles + self._uniform
                )

    def _see_text(self, values: pl.Series) -> None:
        tally = self._tallies.setdefault(values.name, {})
        for name, times in tally_of(values):
            if name is not None:
                tally[name] = tally.get(name, 0) + times
        if len(tally) > MOST_NAMES:
            kept = sorted(tally.items(), key=lambda item: (-item[1], item[0]))[: MOST_NAMES // 2]
            self._tallies[values.name] = dict(kept)

    def _keep(self, numbers: pl.DataFrame, rows: int) -> None:
        # Every row draws a key, and those with the smallest keys stay: a sample without replacement of any stream.
        keys = self._random.random(rows)
        some = pl.DataFrame([pl.Series(_KEY, keys), *numbers.get_columns()])
        if rows + self._sample.height > self._limit:
            chosen = np.arange(rows)
            if self._sample.height >= self._limit:
                chosen = np.flatnonzero(keys < self._sample[_KEY].to_numpy().max())
            if chosen.size > self._limit:
                chosen = chosen[np.argpartition(keys[chosen], self._limit - 1)[: self._limit]]
            some = some[chosen]
        self._sample = pl.concat([self._sample, some.cast(pl.Float64)], how="diagonal")
        if self._sample.height > 2 * self._limit:
            self._sample = self._sample.bottom_k(self._limit, by=_KEY)


def _distinct(known: FloatArray, values: FloatArray, most: int) -> FloatArray:
    if known.size > most:
        return known
    several = np.unique(np.concatenate([known, values[: 4 * most]]))
    return several if several.size > most else np.unique(np.concatenate([several, values]))


def _edges_of_series(values: pl.Series, *, quantiles: int, uniform: int, most: int) -> Edges:
    if values.null_count() == len(values):
        return Edges()
    if nature_of(values.dtype) == "text":
        return category_edges({name: times for name, times in tally_of(values) if name is not None}, most=most)
    return edges_of(np.concatenate(list(pieces_of(values))), quantiles=quantiles, uniform=uniform)


def _chosen(schema: pl.Schema, columns: Sequence[str]) -> list[str]:
    for name in columns:
        if name not in schema:
            raise ValueError(f"no column {name}; there are {', '.join(schema)}")
        if nature_of(schema[name]) is None and schema[name] != pl.Null:
            raise ValueError(f"{name} cannot be counted: it holds {schema[name]}; number it, or leave it out")
    return list(columns) or [name for name, kind in schema.items() if nature_of(kind) is not None]
