"""Cuts a snapshot by time. In: labelled rows and the file's plan. Out: what is fitted, what is held out, the folds.

No model is scored on rows from before the end of what it was fitted on, and none is fitted on a label that was not
yet known when the first row it is scored on took place.
"""

from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from holdfast.core.blocks import block_bounds, day_of, mature_until
from holdfast.core.classes import task_of
from holdfast.core.spans import Span
from holdfast.core.spec import SystemSpec
from holdfast.core.targets import taken, with_lists
from holdfast.errors import DataError

LEAST_FITTED = 50
LEAST_HELD_OUT = 20
"""Fewer labelled rows than this and there is no training, or no such fold."""
HALF_LIVES = 6
"""Rows older than this many half-lives, which would count for less than a sixtieth, are left out."""

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled rows by time, as frames sorted by event_at and key; the hold-out's events lie in [start, end)."""

    history: Any
    """All rows from before the hold-out whose label was known when it began."""
    fit: Any
    """Those of them that the window lets in."""
    holdout: Any
    fit_from: datetime
    """Start of the day of the first fitted row."""
    start: datetime
    end: datetime


def split_rows(spec: SystemSpec, snapshot: Path, now: datetime) -> Split:
    """The labelled rows of a snapshot's mature days: the newest are held out, those before are fitted.

    A row is labelled when its label was known at `now`. `model.window` cuts what is fitted, counted from the start of
    the hold-out. Raises DataError when the snapshot cannot be read or holds too few such rows.
    """
    timezone, validate = spec.data.timezone, spec.model.validate
    mature = mature_until(spec.data, now)
    frame = _read(spec, snapshot).filter(
        pl.col("label").is_not_null(), pl.col("label_known_at") <= now, pl.col("event_at") < mature
    )
    # The newest mature days that have labels: where data ended years ago, or labels stopped, those lie further back.
    newest: Any = frame["event_at"].max()
    last = day_of(timezone, mature - timedelta(seconds=1) if newest is None else newest)
    days = max(1, round(validate.holdout / timedelta(days=1)))
    start, _ = block_bounds(timezone, last - timedelta(days=days - 1))
    _, end = block_bounds(timezone, last)
    history, holdout = known_before(frame, start), frame.filter(pl.col("event_at") >= start)
    if spec.data.label.classes:  # what is none of them cannot be learned; the hold-out counts it as wrong
        history = history.filter(pl.col("label") >= 0)
    fit = within(history, spec.model.window, start)
    _must_suffice(fit, holdout, start, end, f" at {now:%Y-%m-%d %H:%M}")
    fit_from = first_day(timezone, fit)
    return Split(history=history, fit=fit, holdout=holdout, fit_from=fit_from, start=start, end=end)


def narrowed(spec: SystemSpec, split: Split, span: Span) -> Split:
    """The split with what is fitted cut by a window that was chosen since. Raises DataError when too little is left."""
    fit = within(split.history, span, split.start)
    _must_suffice(fit, split.holdout, split.start, split.end, "")
    return msgspec.structs.replace(split, fit=fit, fit_from=first_day(spec.data.timezone, fit))


def _must_suffice(fit: pl.DataFrame, holdout: pl.DataFrame, start: datetime, end: datetime, when: str) -> None:
    if len(fit) < LEAST_FITTED or len(holdout) < LEAST_HELD_OUT:
        raise DataError(
            f"too few labelled rows to train{when}: {len(fit)} before {start:%Y-%m-%d} to fit on "
            f"(at least {LEAST_FITTED}), {len(holdout)} from there to {end:%Y-%m-%d} to hold out (at least "
            f"{LEAST_HELD_OUT}); wait for labels, or change model.window, model.validate.holdout or label.mature_after"
        )


def within(frame: pl.DataFrame, span: Span, end: datetime) -> pl.DataFrame:
    """The rows that a window lets in, counted back from its end. ``auto`` lets in all: nothing is chosen yet."""
    oldest: Any = frame["event_at"].min()
    if oldest is None:
        return frame
    # Divided, not multiplied: a long half-life times six is longer than any calendar.
    if span.recent is not None and end - oldest > span.recent:
        return frame.filter(pl.col("event_at") >= end - span.recent)
    if span.half_life is not None and (end - oldest) / HALF_LIVES > span.half_life:
        return frame.filter(pl.col("event_at") >= end - span.half_life * HALF_LIVES)
    return frame


def weights_of(frame: pl.DataFrame, span: Span) -> FloatArray | None:
    """How much each row counts, (n,) in (0, 1]: 1 for the newest, half as much a half-life before. None: all alike."""
    if span.half_life is None or frame.is_empty():
        return None
    newest: Any = frame["event_at"].max()
    age_us = frame.select((newest - pl.col("event_at")).dt.total_microseconds()).to_series().to_numpy()
    return np.asarray(np.exp2(-age_us / (span.half_life / timedelta(microseconds=1))))


def first_day(timezone: str, frame: pl.DataFrame) -> datetime:
    """When the day of the first row began."""
    first: Any = frame["event_at"][0]
    return block_bounds(timezone, day_of(timezone, first))[0]


def known_before(frame: pl.DataFrame, cut: datetime) -> pl.DataFrame:
    """Rows from before a time whose label was known by then."""
    return frame.filter(pl.col("event_at") < cut, pl.col("label_known_at") <= cut)


def folds_of(spec: SystemSpec, split: Split, span: Span) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    """The days before the hold-out, cut into folds + 1 equal parts, each scored by what the window lets in of all
    before it: so a fold is fitted as the model that is deployed.

    A fold with too few rows on either side is left out.
    """
    timezone, count = spec.data.timezone, spec.model.validate.folds
    since = day_of(timezone, first_day(timezone, split.history))
    cuts = equal_parts(timezone, since, day_of(timezone, split.start), count + 1)[1:]
    pairs = [
        (within(known_before(split.history, cut), span, cut), between(split.history, cut, end))
        for cut, end in pairwise(cuts)
    ]
    return [(fit, test) for fit, test in pairs if len(fit) >= LEAST_FITTED and len(test) >= LEAST_HELD_OUT]


def equal_parts(timezone: str, first: date, end: date, count: int) -> list[datetime]:
    """Starts of days that cut the days from `first` to `end`, exclusive, into `count` parts; count + 1 times."""
    days = (end - first).days
    return [block_bounds(timezone, first + timedelta(days=round(days * k / count)))[0] for k in range(count + 1)]


def between(frame: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    """Rows whose events lie in [start, end)."""
    return frame.filter(pl.col("event_at") >= start, pl.col("event_at") < end)


def _read(spec: SystemSpec, snapshot: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(snapshot)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"snapshot {snapshot} cannot be read: {error}; make it again") from error
    missing = sorted({"key", "event_at", "label", "label_known_at", *spec.data.columns} - set(frame.columns))
    if missing:
        raise DataError(f"snapshot {snapshot} of system {spec.system} has no column {', '.join(missing)}")
    carried = [name for name in ("unit", "known_at") if name in frame.columns]
    columns = ["key", *carried, "event_at", "label", "label_known_at", *spec.data.columns]
    labels = pl.col("label").cast(pl.Float64).fill_nan(None)
    rows = frame.select(columns).with_columns(labels).sort("event_at", "key")
    task = task_of(spec)
    return with_lists(task, rows.with_columns(taken(task, rows["label"])))
