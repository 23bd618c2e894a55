"""Runs a tree ensemble in ONNX form with numpy alone: every tree at once, and no branch for the processor to guess.

Walking 200 trees takes a thousand branches a row, and at every fifth the row goes the way that fewer go. The processor
guesses; its wrong guesses, not the comparing, are what a row costs in other runtimes, compiled ones too. Here each leaf
is a bit. A column's thresholds cut its values into intervals, and each interval has a row in a table: for every tree,
the leaves that a value in there leaves possible. A row's answer is found by looking up one table row per column and
combining them with AND; in every tree one bit is left, the leaf.

Lucchese et al. 2015, QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees;
here with one table row per interval instead of a list of thresholds, and so without any loop.
"""

import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from holdfast.errors import ArtifactError
from holdfast.runtimes.ensemble import Ensemble, read_ensemble

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint32]]

FILE = "model.onnx"
LEAVES = 31
"""Leaves in a word, from bit 31 down. Bit 0 always stays and is worth nothing: the leaf of a larger tree may lie in
another of its words."""
FEWEST_TREES = 20
"""Fewer are walked faster than numpy can be called. Only ever lower it: what was trained above it must load."""
MOST_WORDS_LOOKED_UP = 80
"""Words that a row reads per tree: columns that are used, times the words of a tree. With more, walking is faster."""
LARGEST_TABLE_BYTES = 16 << 20
"""A larger table does not fit the processor's cache. Only ever raise these two: what was trained below them must load.
"""
ALL_LEAVES = 0xFFFFFFFF
LARGEST_SUM = 700.0
"""exp() of more would overflow; a probability is 0 or 1 long before."""
SCRATCH_BYTES = 1 << 19
MOST_AT_ONCE = 64
"""Rows that are looked up together: their table rows stay in the cache, as many as fit `SCRATCH_BYTES`."""
LOW = 0 if sys.byteorder == "little" else 1
"""Which half of 64 bits holds the low ones."""
NAN, MINUS_ZERO, MINUS_NAN = 0x7F800001, 0x80000000, 0xFF800001
"""Bits of the first float32 that is not a number, of -0.0, and of the first negative one that is not a number."""
MANTISSA_BITS, EXPONENT_BIAS, ONE = np.array(52), 1023, np.array(1.0)
"""As arrays, because numpy takes longer to make one of a number than to compute with it."""


class TreesRuntime:
    """Tables of leaves. Safe to call from several threads; a row's answer does not depend on the rows beside it."""

    def __init__(self, ensemble: Ensemble) -> None:
        """Raises ArtifactError where the tables would be too large to be fast, or the sums too large for exp()."""
        self._tables = _tables(ensemble)
        self._look_up = _LookUp(self._tables)

    @classmethod
    def load(cls, directory: Path) -> "TreesRuntime":
        """Load ``model.onnx``. Raises ArtifactError when it does not hold trees alone, or is not run faster here."""
        path = directory / FILE
        try:
            ensemble = read_ensemble(path.read_bytes())
            if len(ensemble.roots) < FEWEST_TREES:
                raise ArtifactError(f"it holds {len(ensemble.roots)} trees, fewer than {FEWEST_TREES}")
            return cls(ensemble)
        except (OSError, ArtifactError) as error:
            raise ArtifactError(f"{path}: {error}; train the version again") from error

    @property
    def columns(self) -> int:
        """Columns of the matrix that it takes."""
        return self._tables.columns

    def run(self, x: FloatArray) -> FloatArray:
        """Outputs for a matrix (n, columns) of float32: (n,), or (n, classes), float64. Raises ValueError for other
        columns."""
        return self._look_up.run(x)

    def beside(self, other: object) -> "TwoTrees | None":
        """Both in one, for rows of which each goes to one of them; None where that cannot be, or would not be fast."""
        if not isinstance(other, TreesRuntime):
            return None
        first, second = self._tables, other._tables
        if (first.columns, first.logistic) != (second.columns, second.logistic):
            return None
        if first.sums is not None or second.sums is not None:
            return None
        both = _joined(first, second)
        return None if both.table.nbytes > LARGEST_TABLE_BYTES else TwoTrees(both)


class TwoTrees:
    """The tables of two models in one: a row looks its values up among those of its own model."""

    def __init__(self, both: "_Tables") -> None:
        self._look_up = _LookUp(both)

    def run(self, x: FloatArray, which: Words) -> FloatArray:
        """Outputs (n,), of the first model where `which` (n,), uint32, is 0 and of the second where it is 1.

        They are those of the model alone; where the models differ in size, up to the last bits of their sums.
        """
        return self._look_up.run(x, which)


class _Tables(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What leaves each interval of each column leaves possible. Of two models: the second one's after the first one's,
    in `starts` as columns of their own."""

    starts: Any
    """Where each interval begins, as column and bits of a float32 in one number (intervals,)."""
    table: Words
    """Leaves of each interval (intervals + 1, words)."""
    leaves: FloatArray
    """Values of the leaves by word and bit, (32 * words,) a model."""
    used: Ints
    """The columns that are used."""
    columns: int
    logistic: bool
    sums: Ints | None = None
    """Where there are classes: the first word of each; those of a class stand in a row (classes,)."""


class _LookUp:
    """Runs tables."""

    def __init__(self, tables: _Tables) -> None:
        words, columns = tables.table.shape[1], len(tables.used)
        self._columns = tables.columns
        self._used = None if columns == tables.columns else tables.used
        self._logistic, self._sums = tables.logistic, tables.sums
        self._starts, self._table, self._leaves = tables.starts, tables.table, tables.leaves
        self._model_leaves = np.array(32 * words)
        self._model_columns = np.array(columns, dtype=np.uint32)
        self._most = min(MOST_AT_ONCE, max(1, SCRATCH_BYTES // max(1, columns * tables.table.itemsize * words)))
        self._scratch = _Scratch(self._most, columns, words)

    def run(self, x: FloatArray, which: Words | None = None) -> FloatArray:
        rows, columns = x.shape
        if columns != self._columns:
            raise ValueError(f"{columns} columns instead of {self._columns}")
        if self._used is not None:
            x = x[:, self._used]
        if rows <= self._most:
            return self._answers(x, rows, which)
        parts = [slice(i, i + self._most) for i in range(0, rows, self._most)]
        some = [None] * len(parts) if which is None else [which[part] for part in parts]
        return np.concatenate([self._answers(x[at], len(x[at]), of) for at, of in zip(parts, some, strict=True)])

    def _answers(self, x: FloatArray, rows: int, which: Words | None) -> FloatArray:
        values, keys, places, found, left, exact, exponent, leaf, first = self._scratch.of(rows)
        values[...] = x.T
        if which is not None:
            np.add(self._scratch.places, which * self._model_columns, places)
        self._table.take(self._starts.searchsorted(keys, "right"), 0, found, "clip")
        np.bitwise_and.reduce(found, 0, None, left)
        # The exponent of a float64 is the place of the highest bit of the whole number in it.
        exact[...] = left
        np.right_shift(exponent, MANTISSA_BITS, leaf)
        np.add(leaf, first, leaf)
        if which is not None:
            second = which.nonzero()[0]
            moved = leaf.take(second, 0)
            moved += self._model_leaves
            leaf[second] = moved
        self._leaves.take(leaf, None, exact, "clip")
        if self._sums is not None:
            return _softmax(np.add.reduceat(exact, self._sums, 1))
        total: FloatArray = np.add.reduce(exact, 1)
        if self._logistic:
            np.exp(total, total)
            np.add(total, ONE, total)
            np.reciprocal(total, total)
        return total


def _softmax(sums: FloatArray) -> FloatArray:
    """Shares of the classes (n, classes) from their sums."""
    powers = np.exp(sums - sums.max(1, keepdims=True))
    shares: FloatArray = powers / np.add.reduce(powers, 1, keepdims=True)
    return shares


class _Scratch(threading.local):
    """Memory of one thread, cut to so many rows: making it anew would take a third of the time of one row."""

    def __init__(self, most: int, columns: int, words: int) -> None:
        self.places = np.arange(columns, dtype=np.uint32)[:, None]
        """The column that each row of keys is of (columns, 1)."""
        keys = np.zeros((columns, most, 2), dtype=np.uint32)
        keys[:, :, 1 - LOW] = self.places
        self._keys, self._columns, self._words = keys, columns, words
        self._found = np.empty(columns * most * words, dtype=np.uint32)
        self._left = np.empty((most, words), dtype=np.uint32)
        self._exact = np.empty((most, words), dtype=np.float64)
        self._leaf = np.empty((most, words), dtype=np.int64)
        self._first = np.tile(np.arange(words) * 32 - EXPONENT_BIAS, (most, 1))
        self._cut: dict[int, tuple[Any, ...]] = {}

    def of(self, rows: int) -> tuple[Any, ...]:
        """Views for so many rows."""
        if (cut := self._cut.get(rows)) is None:
            keys, exact = self._keys[:, :rows], self._exact[:rows]
            found = self._found[: self._columns * rows * self._words].reshape(self._columns, rows, self._words)
            cut = self._cut[rows] = (
                keys.view(np.float32)[:, :, LOW],
                keys.view(np.uint64)[:, :, 0],
                keys[:, :, 1 - LOW],
                found,
                self._left[:rows],
                exact,
                exact.view(np.int64),
                self._leaf[:rows],
                self._first[:rows],
            )
        return cut


def _tables(ensemble: Ensemble) -> _Tables:
    inner = np.flatnonzero(ensemble.true >= 0)
    begin, end = _leaf_ranges(ensemble)
    sizes = end[ensemble.roots]
    words = -(-sizes // LEAVES)
    word_of_root, sums = np.cumsum(words) - words, None
    if ensemble.classes:
        order = np.argsort(ensemble.sum_of_root, kind="stable")
        word_of_root[order] = np.cumsum(words[order]) - words[order]
        sums = word_of_root[order][np.searchsorted(ensemble.sum_of_root[order], np.arange(ensemble.classes))]
    # Node numbers grow from root to root: the tree of a node is that of the last root before it.
    first_word = word_of_root[np.searchsorted(ensemble.roots, np.arange(len(ensemble.feature)), "right") - 1]
    columns = np.unique(ensemble.feature[inner])
    cuts = [_interval_starts(ensemble.threshold[inner[ensemble.feature[inner] == column]]) for column in columns]
    _check_pays(trees=len(words), words=int(words.sum()), columns=len(columns), intervals=sum(map(len, cuts)))
    table = np.full((1 + sum(map(len, cuts)), int(words.sum())), ALL_LEAVES, dtype=np.uint32)
    row = 1
    for column, starts in zip(columns, cuts, strict=True):
        nodes = inner[ensemble.feature[inner] == column]
        _fill(table[row : row + len(starts)], starts, ensemble, nodes, (begin, end, first_word))
        row += len(starts)
    at = [starts + (np.uint64(place) << np.uint64(32)) for place, starts in enumerate(cuts)]
    leaves = np.zeros(32 * int(words.sum()))
    ends = np.flatnonzero(ensemble.true < 0)
    place = begin[ends]
    leaves[32 * (first_word[ends] + place // LEAVES) + 31 - place % LEAVES] = ensemble.value[ends]
    if ensemble.logistic:
        largest = np.maximum.reduceat(np.abs(ensemble.value), ensemble.roots).sum()
        if largest > LARGEST_SUM:
            raise ArtifactError(f"its sums may reach {largest:.0f}, more than {LARGEST_SUM:.0f}")
        leaves = -leaves
    return _Tables(
        starts=np.concatenate([np.empty(0, dtype=np.uint64), *at]),
        table=table,
        leaves=leaves,
        used=columns,
        columns=ensemble.columns,
        logistic=ensemble.logistic,
        sums=sums,
    )


def _joined(first: _Tables, second: _Tables) -> _Tables:
    """Two models' tables in one. Of a column that only one of them uses, the other has a single interval."""
    used = np.union1d(first.used, second.used)
    words = max(first.table.shape[1], second.table.shape[1])
    starts: list[Any] = [np.empty(0, dtype=np.uint64)]
    blocks = [_widened(first.table[:1], words)]
    for model, tables in enumerate((first, second)):
        column_of = (tables.starts >> np.uint64(32)).astype(np.int64)
        for place, column in enumerate(used):
            prefix = np.uint64(model * len(used) + place) << np.uint64(32)
            [own] = np.nonzero(tables.used == column)
            chosen = np.flatnonzero(column_of == own[0]) if len(own) else np.empty(0, dtype=np.int64)
            bits = tables.starts[chosen] & np.uint64(0xFFFFFFFF) if len(own) else np.zeros(1, dtype=np.uint64)
            rows = tables.table[1 + chosen] if len(own) else np.full((1, words), ALL_LEAVES, dtype=np.uint32)
            starts.append(bits | prefix)
            blocks.append(_widened(rows, words))
    leaves = [np.append(each.leaves, np.zeros(32 * words - len(each.leaves))) for each in (first, second)]
    return _Tables(
        starts=np.concatenate(starts),
        table=np.concatenate(blocks),
        leaves=np.concatenate(leaves),
        used=used,
        columns=first.columns,
        logistic=first.logistic,
    )


def _widened(rows: Words, words: int) -> Words:
    """Rows of a table with words that are worth nothing after their own."""
    more = np.full((len(rows), words - rows.shape[1]), ALL_LEAVES, dtype=np.uint32)
    return np.concatenate([rows, more], axis=1)


def _check_pays(*, trees: int, words: int, columns: int, intervals: int) -> None:
    """Raises ArtifactError for an ensemble that tables would not run faster."""
    if columns * words > MOST_WORDS_LOOKED_UP * trees:
        raise ArtifactError(f"a row would read {columns * words // trees} words a tree, above {MOST_WORDS_LOOKED_UP}")
    size_bytes = 4 * words * (1 + intervals)
    if size_bytes > LARGEST_TABLE_BYTES:
        raise ArtifactError(f"its tables would take {size_bytes >> 20} MB, more than {LARGEST_TABLE_BYTES >> 20}")


def _leaf_ranges(ensemble: Ensemble) -> tuple[Ints, Ints]:
    """The leaves below each node, numbered from left to right in each tree: the first, and the one after the last."""
    levels = [ensemble.roots]
    while len(level := levels[-1][ensemble.true[levels[-1]] >= 0]):
        levels.append(np.concatenate([ensemble.true[level], ensemble.false[level]]))
    if sum(map(len, levels)) != len(ensemble.true):
        raise ArtifactError("its nodes do not form trees")
    count, begin = np.ones(len(ensemble.true), dtype=np.int64), np.zeros(len(ensemble.true), dtype=np.int64)
    branches = [level[ensemble.true[level] >= 0] for level in levels]
    for level in reversed(branches):
        count[level] = count[ensemble.true[level]] + count[ensemble.false[level]]
    for level in branches:
        begin[ensemble.true[level]] = begin[level]
        begin[ensemble.false[level]] = begin[level] + count[ensemble.true[level]]
    return begin, begin + count


def _interval_starts(thresholds: FloatArray) -> Any:
    """Where the intervals of a column begin, as the bits of a float32, in the order of the bits: from 0 up, NaN, from
    -0 down, NaN. Within an interval every value takes the same branch at every threshold."""
    bits = thresholds.astype(np.float32).view(np.uint32).astype(np.uint64)
    below = np.signbit(thresholds)
    # x <= t: for t of 0 or more, the bits of x are at most those of t; below 0, at least.
    found = [bits[~below] + np.uint64(1), bits[below], np.array([0, NAN, MINUS_ZERO, MINUS_NAN], dtype=np.uint64)]
    return np.unique(np.concatenate(found))


def _fill(table: Words, starts: Any, ensemble: Ensemble, nodes: Ints, ranges: tuple[Ints, Ints, Ints]) -> None:
    """Take from each interval's row, at each split of its column, the leaves on the other side."""
    begin, end, first_word = ranges
    values = starts.astype(np.uint32).view(np.float32)
    missing = np.isnan(values)[:, None]
    goes_true = np.where(missing, ensemble.missing_true[nodes], values[:, None] <= ensemble.threshold[nodes])
    # A split of a tree of several words touches each word that holds leaves below it.
    low, high = begin[nodes] // LEAVES, (end[nodes] - 1) // LEAVES
    many = high - low + 1
    which = np.repeat(np.arange(len(nodes)), many)
    inside = np.arange(len(which)) - np.repeat(np.cumsum(many) - many, many) + low[which]
    kept = [
        ~_bits(begin[child[nodes]][which] - LEAVES * inside, end[child[nodes]][which] - LEAVES * inside)
        for child in (ensemble.false, ensemble.true)
    ]
    words = first_word[nodes][which] + inside
    order = np.argsort(words, kind="stable")
    firsts = np.flatnonzero(np.diff(words[order], prepend=-1))
    masks = np.where(goes_true[:, which[order]], kept[0][order], kept[1][order])
    table[:, words[order][firsts]] = np.bitwise_and.reduceat(masks, firsts, axis=1)


def _bits(begin: Ints, end: Ints) -> Words:
    """The bits of the leaves from `begin` to before `end`, as far as they lie in a word: leaf 0 is bit 31."""
    begin, end = np.clip(begin, 0, LEAVES), np.clip(end, 0, LEAVES)
    full = np.uint64(1 << 32)
    return ((full >> begin.astype(np.uint64)) - (full >> end.astype(np.uint64))).astype(np.uint32)
