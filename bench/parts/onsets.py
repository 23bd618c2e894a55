"""When a change began: the product's own dating, by the distance of a column and by the daily loss, beside the first
day beyond what history knew."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from holdfast.core import kinds
from holdfast.core.blocks import block_bounds
from holdfast.core.evidence import Block, Grade, Reading, Verdict
from holdfast.core.records import Incident
from holdfast.core.signature import Signature
from holdfast.core.spec import Monitor
from holdfast.flow.case import Case
from holdfast.flow.dailies import Dailies
from holdfast.flow.dating import Dated, when_began
from holdfast.flow.monitors import Reference
from holdfast.stats.histogram import edges_of
from parts.changes import Change, changed, deviations, other_rule
from parts.costs import distance
from parts.explainsets import LOSS, answered, arrays, losses
from parts.streams import MONDAY, Pool, column_of, dated, days_from, draw
from parts.watched import DAY, NAME, VERSION, Simulated, spec_of

REFERENCE, STREAM = 28, 52
EARLIEST, LATEST = 20, 46
"""The change begins on one of these days of the stream, the last one not included."""
COLUMN_CHANGES = (
    Change(kind="shifted", strength=0.3),
    Change(kind="shifted", strength=1.0),
    Change(kind="scaled", strength=2.0),
    Change(kind="noise", strength=1.0),
    Change(kind="missing", strength=0.2),
)
RULES = (0.15, 0.4)
"""Shares of labels that are turned, or deviations that they grow by."""
SERIES = ("distance", "loss")
Found = dict[str, Any]


def trials(pool: Pool, seed: int) -> list[Found]:
    """One drawn stream dated without a change, with a column that changes and with labels that follow another rule."""
    random = np.random.default_rng([seed, 12])
    before, after = draw(pool.strata, REFERENCE, STREAM, random, pool.unit)
    reference, stream = [pool.days[k] for k in before], [pool.days[k] for k in after]
    numbers = [name for name in pool.columns if pool.days[0][name].dtype != pl.String]
    column = numbers[int(random.integers(len(numbers)))]
    onset = int(random.integers(EARLIEST, LATEST))
    change = COLUMN_CHANGES[seed % len(COLUMN_CHANGES)]
    usual = deviations(pl.concat(reference), [column])[column]
    broken = [
        answered(pool, day.with_columns(changed(day[column], change, usual, random))) if k >= onset else day
        for k, day in enumerate(stream)
    ]
    share = RULES[seed % len(RULES)]
    turned = [
        other_rule(pool, day, pl.repeat(True, day.height, eager=True), share, random) if k >= onset else day
        for k, day in enumerate(stream)
    ]
    found = []
    for what, days, series, truth in (
        ("nothing", stream, "distance", None),
        ("nothing", stream, "loss", None),
        (str(change), broken, "distance", onset),
        (f"labels {share:g}", turned, "loss", onset),
    ):
        told = _dated(pool, reference, days, column if series == "distance" else "")
        beyond = _first_beyond(pool, reference, days, column if series == "distance" else "")
        found.append({"series": series, "change": what, "onset": truth, "told": told, "beyond": beyond})
    return found


def together(found: Sequence[Found]) -> Found:
    """Figures of one series: how often a date is told where nothing changed and where something did, how far it is
    off, how often its interval holds the day, and the same of the first day beyond history."""
    still = [one for one in found if one["onset"] is None]
    moved = [one for one in found if one["onset"] is not None]
    told = [one for one in moved if one["told"] is not None]
    first = [one for one in moved if one["beyond"] is not None]
    held = [one["told"][1] <= one["onset"] <= one["told"][2] for one in told]
    return {
        "trials": len(moved),
        "told_of_nothing": _mean([one["told"] is not None for one in still]),
        "told": _mean([one["told"] is not None for one in moved]),
        "off_days": _mean([abs(one["told"][0] - one["onset"]) for one in told]),
        "on_the_day": _mean([one["told"][0] == one["onset"] for one in told]),
        "held": _mean(held),
        "intervals": len(held),
        "held_of_intervals": sum(held),
        "days_long": _mean([one["told"][2] - one["told"][1] + 1 for one in told]),
        "beyond_of_nothing": _mean([one["beyond"] is not None for one in still]),
        "beyond": _mean([one["beyond"] is not None for one in moved]),
        "beyond_off_days": _mean([abs(one["beyond"] - one["onset"]) for one in first]),
        "beyond_on_the_day": _mean([one["beyond"] == one["onset"] for one in first]),
    }


def _dated(
    pool: Pool, reference: Sequence[pl.DataFrame], stream: Sequence[pl.DataFrame], column: str
) -> tuple[int, int, int] | None:
    """Day, low and high of what an incident about a column, or about quality, says; days of the stream from 0."""
    check = "drift" if column else "quality"
    task = kinds.load("tasks", pool.task)()
    spec = spec_of(pool, [Monitor(check=check, options={} if column else {"metric": LOSS[pool.task]})])
    days = days_from(MONDAY, len(stream))
    live = Simulated(spec, pool.output, {on: dated(day, on, VERSION) for on, day in zip(days, stream, strict=True)})
    now = datetime.combine(MONDAY + (len(stream) + 1) * DAY, datetime.min.time(), tzinfo=UTC)
    reading = Reading(name="psi" if column else LOSS[pool.task], value=1.0, subject=column)
    bad = Verdict(grade=Grade.FAIL, check=check, reading=reading, why="it moved", monitor=check)
    incident = Incident(
        system=NAME,
        id="inc-1",
        cause=check,
        check=check,
        subject=column,
        opened_at=now,
        last_at=now,
        first=bad,
        last=bad,
    )
    version = _reference(pool, reference)
    case = Case(incident, spec, task, version, live, None, now)
    told: Dated | None = when_began(case, Dailies(task, version, live, LOSS[pool.task], now))
    return None if told is None else tuple((day - MONDAY).days for day in (told.at, told.low, told.high))  # type: ignore[return-value]


def _reference(pool: Pool, days: Sequence[pl.DataFrame]) -> Reference:
    rows = pl.concat(days)
    columns = tuple(column_of(name, rows[name]) for name in pool.columns)
    values = arrays(rows, pool.columns)
    facts = {
        "signature": Signature(columns=columns, task=pool.task, output=pool.output),
        "edges": {name: edges_of(v.tolist() if v.dtype.kind == "O" else v) for name, v in values.items()},
    }
    blocks = [
        Block(on, *block_bounds("UTC", on), partial(dated, day, on, VERSION))
        for on, day in zip(days_from(MONDAY - len(days) * DAY, len(days)), days, strict=True)
    ]
    return Reference(version=VERSION, blocks=tuple(blocks), facts=facts, promised={})


def _first_beyond(
    pool: Pool, reference: Sequence[pl.DataFrame], stream: Sequence[pl.DataFrame], column: str
) -> int | None:
    """The first day whose number is above all those of the reference's days."""
    if not column:
        history, values = ([float(losses(pool, day).mean()) for day in days] for days in (reference, stream))
    else:
        base = pl.concat(reference)[column].to_numpy()
        edges = edges_of(base)
        history, values = (
            [distance(edges, base, day[column].to_numpy()) for day in days] for days in (reference, stream)
        )
    return next((k for k, value in enumerate(values) if value > max(history)), None)


def _mean(values: Sequence[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None
