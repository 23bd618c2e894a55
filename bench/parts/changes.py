"""Known changes of one column at several strengths, and of what the label has to do with the inputs."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from parts.streams import Pool

RENAMED = "renamed"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to a column. `strength`: deviations, a factor, or a share of the rows."""

    kind: str
    strength: float

    def __str__(self) -> str:
        return f"{self.kind} {self.strength:g}"


def _all(kind: str, *strengths: float) -> tuple[Change, ...]:
    return tuple(Change(kind=kind, strength=strength) for strength in strengths)


OF_NUMBERS = (
    *_all("shifted", 0.3, 1.0, 3.0),
    *_all("scaled", 0.5, 2.0),
    *_all("noise", 0.5, 2.0),
    *_all("permuted", 0.5, 1.0),
    *_all("missing", 0.2, 0.8),
)
OF_TEXTS = (*_all("permuted", 0.5, 1.0), *_all("renamed", 1.0), *_all("missing", 0.2, 0.8))


def changed(values: pl.Series, change: Change, deviation: float, random: np.random.Generator) -> pl.Series:
    """A column (n,) after a change; `deviation` is its usual standard deviation, which texts do not need.

    Permuted values are dealt out anew among the rows that are hit; the commonest text is the one that is renamed.
    Raises ValueError for a change that the type cannot have.
    """
    hit = random.random(values.len()) < change.strength
    if change.kind == "missing":
        return pl.select(pl.when(pl.Series(hit)).then(None).otherwise(values)).to_series().alias(values.name)
    if change.kind == "permuted":
        places = np.arange(values.len())
        chosen = np.flatnonzero(hit)
        places[chosen] = random.permutation(chosen)
        return values.gather(places)
    if change.kind == "renamed" and values.dtype == pl.String:
        common = values.drop_nulls().mode().sort()[0]
        return values.replace(common, RENAMED)
    if values.dtype == pl.String:
        raise ValueError(f"texts cannot be {change.kind}")
    if change.kind == "shifted":
        return values + change.strength * deviation
    if change.kind == "scaled":
        return values * change.strength
    if change.kind == "noise":
        return values + pl.Series(change.strength * deviation * random.normal(size=values.len()))
    raise ValueError(f"no change is called {change.kind}")


def drawn_change(pool: Pool, column: str, random: np.random.Generator) -> Change:
    """One of the changes that suit a column."""
    every = OF_TEXTS if pool.days[0][column].dtype == pl.String else OF_NUMBERS
    return every[int(random.integers(len(every)))]


def deviations(rows: pl.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """Standard deviation of each number column, 1 where it has none."""
    found: dict[str, Any] = {name: rows[name].std() for name in columns if rows[name].dtype != pl.String}
    return {name: float(value) if value else 1.0 for name, value in found.items()} | {
        name: 1.0 for name in columns if name not in found
    }


def other_rule(
    pool: Pool, rows: pl.DataFrame, inside: pl.Series, share: float, random: np.random.Generator
) -> pl.DataFrame:
    """Rows whose labels follow another rule inside a segment: classes are turned in that share of its rows, numbers
    grow by that many deviations of the label."""
    label = rows["label"].to_numpy().copy()
    within = inside.to_numpy()
    if pool.task == "classification":
        hit = within & (random.random(rows.height) < share)
        label[hit] = 1.0 - label[hit]
    else:
        label[within] += share * float(np.nanstd(label))
    return rows.with_columns(pl.Series("label", label))
