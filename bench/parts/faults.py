"""Faults that are put into days of a simulated stream: what arrives changes, and the model answers what arrives."""

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import polars as pl

from parts.streams import Pool

DECAY_DAYS = 60
"""After so many days slow decay is complete."""
DECAY_SHARE, DECAY_FACTOR = 0.2, 0.63
"""Complete decay: so many labels are flipped; counts grow by so much (bicycles were rented 63 % more often in 2012)."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What faults need to know of a pool: its columns, and how these lie over all its days."""

    task: str
    number: str
    other: str
    category: str
    deviation: float
    """Of `number`, over all rows."""
    median: float
    commonest: str
    """The most frequent value of `category`."""


Change = Callable[[Facts, pl.DataFrame, int, np.random.Generator], pl.DataFrame]
"""From a day, as the `since`-th (from 0) with the fault, to what arrives. It must not need what the day before was."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of fault."""

    about: str
    change: Change
    needs: str = ""
    """``category`` or ``faulty``: what a pool must have."""
    on_labels: bool = False
    """True when only labels change, so that answers stay."""


def facts_of(pool: Pool) -> Facts:
    """The facts of a pool."""
    rows = pl.concat(pool.days)
    values = rows[pool.numbers[0]].drop_nulls()
    common = rows[pool.category].drop_nulls().mode().sort()[0] if pool.category else ""
    return Facts(
        task=pool.task,
        number=pool.numbers[0],
        other=pool.numbers[1],
        category=pool.category,
        deviation=float(values.std()),  # type: ignore[arg-type]
        median=float(values.median()),  # type: ignore[arg-type]
        commonest=common,
    )


def faults_of(pool: Pool) -> dict[str, Fault]:
    """The faults that a pool can have, by name."""
    has = {"": True, "category": bool(pool.category), "faulty": bool(pool.faulty)}
    return {name: fault for name, fault in FAULTS.items() if has[fault.needs]}


def injected(
    pool: Pool, facts: Facts, fault: Fault, day: pl.DataFrame, since: int, random: np.random.Generator
) -> pl.DataFrame:
    """A day with a fault, answered anew by the model where its inputs changed."""
    if fault.needs == "faulty":
        return pool.faulty[int(random.integers(len(pool.faulty)))]
    changed = fault.change(facts, day, since, random)
    if fault.on_labels:
        return changed
    return changed.with_columns(pl.Series(pool.output, pool.score(changed)))


def scaled(factor: float, offset: float = 0.0) -> Change:
    """(x + offset) * factor on the number column."""

    def change(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
        return day.with_columns((pl.col(facts.number) + offset) * factor)

    return change


def shifted(deviations: float) -> Change:
    """The number column moved by so many of its standard deviations."""

    def change(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
        return day.with_columns(pl.col(facts.number) + deviations * facts.deviation)

    return change


def lost(share: float) -> Change:
    """A share of the number column's values missing at random, beside those that were."""

    def change(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
        gone = pl.Series(random.random(day.height) < share)
        return day.with_columns(pl.when(gone).then(None).otherwise(pl.col(facts.number)).alias(facts.number))

    return change


def swapped(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
    """Two number columns in each other's place."""
    return day.with_columns(pl.col(facts.number).alias(facts.other), pl.col(facts.other).alias(facts.number))


def dead(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
    """The number column stands still at its median."""
    return day.with_columns(pl.lit(facts.median).alias(facts.number))


def renamed(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
    """The commonest category comes under a name never seen."""
    new = pl.lit(f"{facts.commonest} (new)")
    return day.with_columns(
        pl.when(pl.col(facts.category) == facts.commonest)
        .then(new)
        .otherwise(pl.col(facts.category))
        .alias(facts.category)
    )


def flipped(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
    """Classes exchanged; numbers mixed up among the rows of a day."""
    if facts.task == "classification":
        return day.with_columns((1 - pl.col("label")).alias("label"))
    return day.with_columns(day["label"].gather(random.permutation(day.height)))


def decayed(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
    """Day by day more labels flipped, or counts that grow as the bicycles of 2012 did against 2011."""
    part = min(1.0, (since + 1) / DECAY_DAYS)
    if facts.task != "classification":
        return day.with_columns(pl.col("label") * (1 + DECAY_FACTOR * part))
    wrong = pl.Series(random.random(day.height) < DECAY_SHARE * part)
    return day.with_columns(pl.when(wrong).then(1 - pl.col("label")).otherwise(pl.col("label")).alias("label"))


def _as_it_is(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
    return day


FAULTS: Mapping[str, Fault] = {
    "unit x 0.4536": Fault(about="a number column comes in kilograms instead of pounds", change=scaled(0.4536)),
    "unit °F to °C": Fault(about="a number column less 32, over 1.8", change=scaled(1 / 1.8, -32.0)),
    "columns swapped": Fault(about="two number columns in each other's place", change=swapped),
    "dead feature": Fault(about="a number column stands still", change=dead),
    "missing +5 %": Fault(about="5 % of a number column missing", change=lost(0.05)),
    "missing +20 %": Fault(about="20 % of a number column missing", change=lost(0.2)),
    "missing +80 %": Fault(about="80 % of a number column missing", change=lost(0.8)),
    "category renamed": Fault(about="the commonest category has a new name", change=renamed, needs="category"),
    "labels flipped": Fault(about="classes exchanged, or numbers mixed up", change=flipped, on_labels=True),
    "shift 0.1 sd": Fault(about="a number column moved by 0.1 standard deviations", change=shifted(0.1)),
    "shift 0.3 sd": Fault(about="moved by 0.3", change=shifted(0.3)),
    "shift 1 sd": Fault(about="moved by 1", change=shifted(1.0)),
    "slow decay": Fault(
        about="over 60 days, 20 % of labels flipped or counts up by 63 %", change=decayed, on_labels=True
    ),
    "concept change": Fault(about="SEA's next concept", change=_as_it_is, needs="faulty", on_labels=True),
}
"""The grid of faults by name."""
