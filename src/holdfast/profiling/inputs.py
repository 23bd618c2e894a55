"""Real rows to measure with: the newest that were answered, or the hold-out of the version's run."""

from collections.abc import Iterator
from datetime import timedelta

import msgspec
import polars as pl

from holdfast.core.clock import Clock
from holdfast.core.inputs import read_frame
from holdfast.core.protocols import PREDICTIONS
from holdfast.core.records import Run, Version
from holdfast.core.signature import Rows, Signature
from holdfast.errors import InvalidInput, StateError
from holdfast.flow.reference import read_holdout
from holdfast.profiling.measured import InputFacts
from holdfast.state import State

MOST = 20_000
"""Newest recorded rows that are looked at."""
FEW = 256
"""With fewer recorded rows the hold-out is taken where it has more: a processor learns a few rows by heart."""
_BACK = (timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=30), None)
"""How far back is looked, one after the other, until there are enough rows: a lake may be large."""


class Inputs(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Rows that fit a version's signature, oldest first, with what names them."""

    facts: InputFacts
    rows: Rows
    keys: list[str | None]
    units: list[str | None]


def inputs_of(state: State, version: Version, signature: Signature, clock: Clock) -> Inputs:
    """The newest recorded rows of the version's system that the signature takes, or the hold-out rows of its run.

    Raises StateError where there are neither.
    """
    recorded = _recorded(state, version, signature, clock)
    if recorded is not None and recorded.rows.count >= FEW:
        return recorded
    held = _held_out(state, version, signature)
    found = [each for each in (held, recorded) if each is not None and each.rows.count]
    if not found:
        raise StateError(
            f"'{version.system}' has neither recorded predictions nor hold-out rows of version {version.id} to measure "
            "with; send it requests, then profile it again"
        )
    return max(found, key=lambda each: each.rows.count)


def _recorded(state: State, version: Version, signature: Signature, clock: Clock) -> Inputs | None:
    """Rows that were answered for callers: those of this version, else of any whose rows it takes."""
    found = _newest(state, version.system, clock)
    if not found.width or not found.height:
        return None
    found = found.filter(pl.col("stage") != "batch").sort("predicted_at", maintain_order=True).tail(MOST)
    for rows in (found.filter(pl.col("version") == version.id), found):
        if rows.height >= min(FEW, found.height) and rows.height:
            typed = _typed(rows, signature, prefix="in.")
            if typed is not None:
                requests = rows.group_by("request_id").len()["len"]
                facts = InputFacts(
                    origin="recorded",
                    rows=rows.height,
                    newest=rows["predicted_at"][-1],
                    single=float((requests == 1).sum()) / len(requests),
                )
                return Inputs(facts=facts, rows=typed, keys=rows["key"].to_list(), units=rows["unit"].to_list())
    return None


def _newest(state: State, system: str, clock: Clock) -> pl.DataFrame:
    now = clock.now()
    found = pl.DataFrame()
    for back in _BACK:
        found = state.lake.scan(PREDICTIONS.name, system, since=None if back is None else now - back)
        if found.height >= MOST:
            break
    return found


def _held_out(state: State, version: Version, signature: Signature) -> Inputs | None:
    with state.catalog.read() as tx:
        run = tx.get(Run, version.system, version.run)
    if run is None or not run.holdout_rows:
        return None
    held = read_holdout(state.blobs.get(run.holdout_rows)).tail(MOST)
    typed = _typed(held, signature, prefix="")
    if typed is None:
        return None
    keys = held["key"].cast(pl.String).to_list() if "key" in held.columns else [None] * held.height
    facts = InputFacts(origin="hold-out", rows=held.height)
    return Inputs(facts=facts, rows=typed, keys=keys, units=[None] * held.height)


def _typed(frame: pl.DataFrame, signature: Signature, *, prefix: str) -> Rows | None:
    """The rows as the signature types them; None where it does not take them."""
    if not all(f"{prefix}{column.name}" in frame.columns for column in signature.columns):
        return None
    try:
        return read_frame(signature, frame.select(_columns(signature, prefix)))
    except InvalidInput:
        return None


def _columns(signature: Signature, prefix: str) -> Iterator[pl.Expr]:
    for column in signature.columns:
        yield pl.col(f"{prefix}{column.name}").alias(column.name)
