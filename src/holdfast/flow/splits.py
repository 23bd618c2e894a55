"""Cuts a snapshot by time. In: labelled rows and the file's plan. Out: what is fitted, what is held out, the folds.

No model is scored on rows from before the end of what it was fitted on, and none is fitted on a label that was not
yet known when the first row it is scored on took place.
"""

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from holdfast.core.blocks import block_bounds, day_of, mature_until
from holdfast.core.spec import SystemSpec
from holdfast.errors import DataError

LEAST_FITTED = 50
LEAST_HELD_OUT = 20
"""Fewer labelled rows than this and there is no training, or no such fold."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled rows by time, as frames sorted by event_at and key; the hold-out's events lie in [start, end)."""

    fit: Any
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
    fit, holdout = known_before(frame, start), frame.filter(pl.col("event_at") >= start)
    if spec.model.window is not None:
        fit = fit.filter(pl.col("event_at") >= start - spec.model.window)
    if len(fit) < LEAST_FITTED or len(holdout) < LEAST_HELD_OUT:
        raise DataError(
            f"too few labelled rows to train at {now:%Y-%m-%d %H:%M}: {len(fit)} before {start:%Y-%m-%d} to fit on "
            f"(at least {LEAST_FITTED}), {len(holdout)} from there to {end:%Y-%m-%d} to hold out (at least "
            f"{LEAST_HELD_OUT}); wait for labels, or change model.window, model.validate.holdout or label.mature_after"
        )
    first: Any = fit["event_at"][0]
    fit_from, _ = block_bounds(timezone, day_of(timezone, first))
    return Split(fit=fit, holdout=holdout, fit_from=fit_from, start=start, end=end)


def known_before(frame: pl.DataFrame, cut: datetime) -> pl.DataFrame:
    """Rows from before a time whose label was known by then."""
    return frame.filter(pl.col("event_at") < cut, pl.col("label_known_at") <= cut)


def folds_of(spec: SystemSpec, split: Split) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    """Expanding windows: the days that are fitted, cut into folds + 1 equal parts, each scored by all before it.

    A fold with too few rows on either side is left out.
    """
    timezone, count = spec.data.timezone, spec.model.validate.folds
    first = day_of(timezone, split.fit_from)
    days = (day_of(timezone, split.start) - first).days
    places = [first + timedelta(days=round(days * k / (count + 1))) for k in range(1, count + 2)]
    cuts = [block_bounds(timezone, day)[0] for day in places]
    pairs = [
        (known_before(split.fit, cut), split.fit.filter(pl.col("event_at") >= cut, pl.col("event_at") < end))
        for cut, end in pairwise(cuts)
    ]
    return [(fit, test) for fit, test in pairs if len(fit) >= LEAST_FITTED and len(test) >= LEAST_HELD_OUT]


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
    return frame.select(columns).with_columns(labels).sort("event_at", "key")
