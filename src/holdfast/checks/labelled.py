"""The labelled rows of a window, block by block: what quality and calibration are measured on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.core.evidence import Block, Role, Window
from holdfast.core.targets import listed
from holdfast.stats.ranks import RankSum, rank_sum

FloatArray = npt.NDArray[np.float64]
Pairs = tuple[FloatArray, FloatArray]

UNLIKE = 0.02
"""So far from a half the chance that a labelled row was answered higher than an unlabelled one must lie to be said."""
SURE = 4.0
"""And so many standard errors."""


@dataclass(frozen=True)
class _Counted:
    """What counts in one block, and how many labels do not."""

    pairs: Pairs
    early: int
    """Labels that were known before the answer was given: an answer cannot be judged by what it could have seen."""
    contradicting: int
    """Rows of keys that have two different labels."""


def labelled(window: Window) -> list[Pairs]:
    """Targets and answers, (n,) or (n, 2) and (n,) or (n, classes), of each block; computed once per block.

    Rows without either are left out, and those whose label contradicts another of the same key, was known before the
    answer, or is no finite number.
    """
    return [_counted(block, window).pairs for block in window.blocks]


def pairs(block: Block, output: str, label: str) -> Pairs:
    """Targets and answers of one block's labelled rows; empty where a column is absent or holds no numbers."""

    def compute(rows: pl.DataFrame) -> Pairs:
        known = takes(rows, output, label)
        return listed(numbers(rows, label), rows)[known], numbers(rows, output)[known]

    return block.remember(("labelled", output, label), compute)


def takes(rows: pl.DataFrame, output: str, label: str) -> npt.NDArray[np.bool_]:
    """Which rows (n,) `pairs` takes: those whose label and answer are finite numbers."""
    return np.isfinite(numbers(rows, label)) & are_finite(numbers(rows, output))


def are_finite(answers: FloatArray) -> npt.NDArray[np.bool_]:
    """Which answers (n,) or (n, classes) are finite numbers in all their parts, (n,)."""
    finite: npt.NDArray[np.bool_] = np.isfinite(answers if answers.ndim == 1 else answers.sum(axis=1))
    return finite


def likeliest(answers: FloatArray) -> FloatArray:
    """Answers (n,) as they are; of (n, classes) the probability of the likeliest class (n,)."""
    return answers if answers.ndim == 1 else answers.max(axis=1, initial=-np.inf)


def numbers(rows: pl.DataFrame, column: str) -> FloatArray:
    """A column as float64 (n,), or (n, classes) of arrays, NaN for missing; nothing but NaN where it is absent or holds
    no numbers."""
    if column in rows.columns and isinstance(rows[column].dtype, pl.Array):
        arrays: FloatArray = rows[column].to_numpy()
        return arrays.astype(np.float64, copy=False)
    if column not in rows.columns or not (rows[column].dtype.is_numeric() or rows[column].dtype == pl.Boolean):
        return np.full(rows.height, np.nan)
    values: FloatArray = rows[column].cast(pl.Float64).to_numpy()
    return values


def coverage(window: Window, blocks: Sequence[Pairs]) -> tuple[int, str]:
    """How many rows are labelled, and the same as a sentence: missing labels are counted, never imputed.

    The sentence also says which labels do not count, and whether the labelled rows are unlike the others.
    """
    rows = sum(block.rows().height for block in window.blocks)
    known = sum(len(y) for y, _ in blocks)
    share = f" ({known / rows:.1%})" if rows else ""
    counted = [_counted(block, window) for block in window.blocks]
    early, contradicting = sum(one.early for one in counted), sum(one.contradicting for one in counted)
    said = [f"{known:,} of {rows:,} rows are labelled{share}"]
    none = sum(int((y < 0).sum()) for y, p in blocks if p.ndim > 1)
    said += [f"{none:,} labels are none of the classes and count as wrong"] if none else []
    said += [f"{early:,} labels were known before the answer and do not count"] if early else []
    said += [f"{contradicting:,} rows have contradicting labels and do not count"] if contradicting else []
    said += [text] if known < rows and (text := unlike(window)) else []
    said += [text] if not known and (text := _no_numbers(window)) else []
    return known, "; ".join(said)


def unlike(window: Window) -> str:
    """How the answers to labelled rows differ from those to the other rows of the same blocks; empty when they do not.

    A rank-sum test within each block, added up over blocks, so that a day on which more labels came than on others does
    not count. It is said where the chance that a labelled row was answered higher than an unlabelled
    one is off a half by more than 0.02 and by more than four standard errors.
    """
    columns = _columns(window)
    found = [block.remember(("labelled ranks", *columns), _ranks(*columns)) for block in window.blocks]
    pairs_, wins = sum(one.pairs for one in found), sum(one.wins for one in found)
    error = math.sqrt(sum(one.variance for one in found))
    if not pairs_ or not error:
        return ""
    off = wins / pairs_ - 0.5
    if abs(off) <= UNLIKE or abs(off) * pairs_ <= SURE * error:
        return ""
    with_, without = (sum(getattr(one, name) for one in found) for name in ("sum_one", "sum_other"))
    ones, others = (sum(getattr(one, name) for one in found) for name in ("ones", "others"))
    return (
        f"labelled rows are unlike the others of the same days: answers to them are {with_ / ones:.3g} on average, to "
        f"the others {without / others:.3g}, so that this is not the quality of all rows"
    )


def _columns(window: Window) -> tuple[str, str]:
    return window.columns(Role.OUTPUT)[0], window.columns(Role.LABEL)[0]


def _ranks(output: str, label: str) -> Callable[[pl.DataFrame], RankSum]:
    def compute(rows: pl.DataFrame) -> RankSum:
        p, has_label = likeliest(numbers(rows, output)), np.isfinite(numbers(rows, label))
        known = np.isfinite(p)
        return rank_sum(p[known & has_label], p[known & ~has_label])

    return compute


def _counted(block: Block, window: Window) -> _Counted:
    output, label = _columns(window)
    keys = tuple(window.columns(Role.KEY)[:1])

    def compute(rows: pl.DataFrame) -> _Counted:
        y, p, known = numbers(rows, label), numbers(rows, output), takes(rows, output, label)
        early = known & _known_early(rows)
        known &= ~early
        twice = known & _contradicting(rows, label, keys)
        known &= ~twice
        return _Counted((listed(y, rows)[known], p[known]), int(early.sum()), int(twice.sum()))

    return block.remember(("labels that count", output, label, keys), compute)


def _known_early(rows: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows (n,) had their label before they were answered; none where the times are not there."""
    times = ("label_known_at", "predicted_at")
    if not all(name in rows.columns and rows[name].dtype.is_temporal() for name in times):
        return np.zeros(rows.height, dtype=np.bool_)
    return (rows["label_known_at"] < rows["predicted_at"]).fill_null(False).to_numpy()


def _contradicting(rows: pl.DataFrame, label: str, keys: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which rows (n,) share their key with a row that has another label."""
    if not keys or keys[0] not in rows.columns or rows[keys[0]].n_unique() == rows.height:
        return np.zeros(rows.height, dtype=np.bool_)
    differ = (pl.col(label).drop_nulls().n_unique().over(keys[0]) > 1) & pl.col(keys[0]).is_not_null()
    return rows.select(differ.alias("differ"))["differ"].to_numpy()


def _no_numbers(window: Window) -> str:
    """Which of the answers and labels come in a type that holds no numbers; empty when both are numbers."""
    for column in _columns(window):
        for block in window.blocks:
            rows = block.rows()
            if column not in rows.columns:
                return f"there is no column {column}"
            kind = rows[column].dtype
            if not (kind.is_numeric() or kind in (pl.Boolean, pl.Null) or isinstance(kind, pl.Array)):
                return f"{column} is {kind} where numbers are expected"
    return ""
