"""Attribution: does the model rest on the same columns as on the rows it was trained on?"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np
import polars as pl

from holdfast.checks.labelled import FloatArray
from holdfast.checks.sequence import overlap
from holdfast.checks.stated import at_most
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.core.meaning import many
from holdfast.errors import InvalidInput
from holdfast.stats.distance import jensen_shannon
from holdfast.stats.ranking import lists, ndcg

Influence = Callable[[pl.DataFrame], Mapping[str, FloatArray]]
"""Rows to the influence of each input on each answer, (n,) per column in the output's unit; NaN where it cannot be
told. Pure, and one object for all blocks and evaluations of a version: what it says is remembered on the blocks."""

MOVED, SHARE = "attribution_shift", "share_change"
LEAST_ROWS = 30
SCALE = 10_000_000
"""Shares are handed to a distance of counts: so many parts make a whole."""
STATED: Mapping[str, float] = {MOVED: 0.5, SHARE: 0.5}
"""Limits while history is too short: half of all influence has gone elsewhere."""


class Attribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the shares of the columns in what moves the answers are from those on the reference."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.INPUT})
    facts: ClassVar[frozenset[str]] = frozenset({"influence"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "window"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "reference"

    distance: Literal["jensen_shannon", "rank"] = "jensen_shannon"
    """Jensen-Shannon distance (base 2) of the shares, or 1 less the rank agreement (NDCG with the shares on the
    reference as gains)."""
    rows: Annotated[int, msgspec.Meta(ge=30)] = 200
    """How many rows of each day are explained at most; each costs an answer per column."""

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        """`attribution_shift` of all columns together, then `share_change` per column, in [0, 1].

        Blocks of the window are left out of the baseline.
        """
        columns = window.columns(Role.INPUT)
        if why := overlap(window, baseline):
            return [_unknown(why)]
        inside = set(window.blocks)
        rest = [block for block in baseline.blocks if block not in inside] if baseline else []
        influence: Influence = window.facts["influence"]
        try:
            now, explained = self._shares(window.blocks, columns, influence)
            before, known = self._shares(rest, columns, influence)
        except InvalidInput as refused:
            return [_unknown(f"the model does not take these rows: {refused}")]
        if explained < LEAST_ROWS:
            return [_unknown(f"{many(explained, 'row')} to explain, {LEAST_ROWS} are needed", explained)]
        if known < LEAST_ROWS:
            return [_unknown(f"the reference has {many(known, 'row')} to explain, {LEAST_ROWS} are needed", explained)]
        for shares, where in ((now, "the window"), (before, "the reference")):
            if not shares.sum() > 0:
                return [_unknown(f"no column moves any answer in {where}: nothing to share out", explained)]
        return self._readings(columns, now / now.sum(), before / before.sum(), explained)

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails where half of all influence has gone elsewhere."""
        grade, why = at_most(reading, STATED[reading.name])
        return grade, why if reading.value is None else f"{why}; {reading.note}"

    def _shares(self, blocks: Sequence[Block], columns: Sequence[str], influence: Influence) -> tuple[FloatArray, int]:
        """Mean |influence| per column (columns,), in parts of the largest, and how many rows were explained."""
        key = ("influence", tuple(columns), self.rows, influence)
        explain = partial(_explain, columns=tuple(columns), most=self.rows, influence=influence)
        found = [block.remember(key, explain) for block in blocks]
        explained = sum(count for _, _, count in found)
        rows = sum(height for _, height, _ in found)
        total = sum((means * (height / max(rows, 1)) for means, height, _ in found), np.zeros(len(columns)))
        return total / max(float(total.max(initial=0.0)), 1e-300), explained

    def _readings(self, columns: Sequence[str], now: FloatArray, before: FloatArray, rows: int) -> list[Reading]:
        if self.distance == "rank":
            value = 1.0 - float(ndcg(lists(before, now, np.zeros(now.size)))[0])
        else:
            value = jensen_shannon(*((shares * SCALE).round().astype(np.int64) for shares in (before, now)))
        places, were = (_places(shares) for shares in (now, before))
        said = [
            f"{share:.0%} of what moves the answers, usually {was:.0%}; rank {place} instead of {old}"
            if place != old
            else f"{share:.0%} of what moves the answers, usually {was:.0%}"
            for share, was, place, old in zip(now, before, places, were, strict=True)
        ]
        change = np.abs(now - before)
        most = int(change.argmax())
        whole = Reading(
            name=MOVED, value=max(0.0, value), rows=rows, subject="all columns", note=f"{columns[most]} is {said[most]}"
        )
        return [
            whole,
            *(
                Reading(name=SHARE, value=float(moved), rows=rows, subject=column, note=f"{column} is {text}")
                for column, moved, text in zip(columns, change, said, strict=True)
            ),
        ]


def _explain(
    rows: pl.DataFrame, *, columns: Sequence[str], most: int, influence: Influence
) -> tuple[FloatArray, int, int]:
    """Mean |influence| per column (columns,) over some rows of a block, its rows, and how many were explained."""
    there = [column for column in columns if column in rows.columns]
    nothing = np.zeros(len(columns))
    if not rows.height or not there:
        return nothing, 0, 0
    inputs = rows.select(there)
    if rows.height > most:  # by content, not by place: the order of the rows changes nothing
        chosen = inputs.hash_rows(seed=0).arg_sort()[:most]
        inputs = inputs[chosen]
    found = influence(inputs)
    sizes = [np.abs(np.asarray(found[column], dtype=np.float64)) if column in found else nothing for column in columns]
    finite = [size[np.isfinite(size)] for size in sizes]
    means = np.array([float((size / max(size.size, 1)).sum()) for size in finite])  # a sum may be too large, parts not
    return means, rows.height, inputs.height


def _places(shares: FloatArray) -> list[int]:
    """The rank of each column (columns,) from 1, the largest share first."""
    places = np.empty(shares.size, dtype=np.int64)
    places[np.argsort(-shares, kind="stable")] = np.arange(1, shares.size + 1)
    return places.tolist()


def _unknown(why: str, rows: int = 0) -> Reading:
    return Reading(name=MOVED, value=None, rows=rows, subject="all columns", note=why)
