"""Chooses how much of the history is fitted. In: the rows before the hold-out. Out: a window, and the evidence for it.

Windows are compared as they would have been used: at a few times in the past, each is fitted on the labels known
then and scored on the days that followed. Nothing that judges the candidate is looked at. The window in use stays
unless another one is better beyond what the scatter of days explains: without that, noise would choose, and change
its mind at every training (Giacomini and White 2006 for the comparison of methods, windows included, out of sample;
Künsch 1989 for the bootstrap of dependent blocks).
"""

import inspect
import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl
import polars.selectors as cs

from holdfast.core.blocks import day_of
from holdfast.core.protocols import Task, Trainer
from holdfast.core.spans import ALL, Choice, Contender, Span
from holdfast.core.spec import SystemSpec
from holdfast.core.specwords import write_span
from holdfast.core.targets import LIST, mean_loss, target_of
from holdfast.flow.days import blocks_of
from holdfast.flow.splits import (
    LEAST_FITTED,
    LEAST_HELD_OUT,
    FloatArray,
    between,
    equal_parts,
    first_day,
    known_before,
    within,
)
from holdfast.stats.bootstrap import block_bootstrap_mean

DAY = timedelta(days=1)
RECENT = (30 * DAY, 90 * DAY, 180 * DAY, 365 * DAY)
HALF_LIVES = (30 * DAY, 90 * DAY)
"""What is tried beside all of the history; only what is at most half of it, or it would hardly differ."""
ORIGINS = 4
"""Times in the past at which each window is fitted."""
LONGEST_SCORED = 120 * DAY
LEAST_SCORED = 28
"""The newest half of the history is scored, at most so much; with fewer days than this nothing is chosen."""
REPLICATES = 4000
PREDICTIONS = "answers"

Settle = Callable[[pl.DataFrame, Span], Trainer]
"""The trainer with what the rows settle about it, such as after how many rounds to stop."""
Answer = Callable[[Trainer, pl.DataFrame, Span, pl.DataFrame], FloatArray]
"""Outputs (n,) on the rows of the last frame of a model fitted on the first as a window says."""
Tell = Callable[[float], None]
"""Told the share of the fits that are done, in [0, 1]."""


class _Daily(msgspec.Struct, frozen=True, kw_only=True):
    """Mean loss per scored day of one window (blocks,), and the rows of each day."""

    span: Span
    losses: Any
    rows: Any

    @property
    def mean(self) -> float:
        return float(np.average(self.losses, weights=self.rows))


def stated(span: Span) -> Choice:
    """The record of a window that was not chosen: the file states it, or it is the default."""
    return Choice(window=write_span(span), why="the default" if span == ALL else "stated in the file")


def contenders(days: int, *, weighted: bool) -> tuple[Span, ...]:
    """The windows that are tried on so many days of history: all first, then the recent, then the weighted.

    >>> [write_span(span) for span in contenders(200, weighted=True)]
    ['all', '30d', '90d', 'half-life 30d', 'half-life 90d']
    """
    longest = days / 2 * DAY
    recent = [Span(recent=length) for length in RECENT if length <= longest]
    by_age = [Span(half_life=length) for length in HALF_LIVES if length <= longest] if weighted else []
    return (ALL, *recent, *by_age)


def can_weigh(trainer: Trainer) -> bool:
    """Whether a trainer takes weights."""
    return "weights" in inspect.signature(trainer.fit).parameters


def choose(
    spec: SystemSpec,
    task: Task,
    history: pl.DataFrame,
    end: datetime,
    settle: Settle,
    answer: Answer,
    *,
    present: Span,
    weighted: bool,
    tell: Tell,
) -> tuple[Span, Choice]:
    """The window to fit on, counted back from `end`, where the hold-out begins; `history` are the rows before it.

    At most 7 windows are tried at 4 times; each is settled once, at the first of them: at most 35 fits. Deterministic.
    `present` is what is in use; where it is not among what can be tried here, all of the history stands for it.
    """
    loss, timezone = spec.release.decide.loss, spec.data.timezone
    first = first_day(timezone, history)
    days = (day_of(timezone, end) - day_of(timezone, first)).days
    spans = contenders(days, weighted=weighted)
    scored_days = min(days // 2, LONGEST_SCORED.days)
    if len(spans) == 1 or scored_days < LEAST_SCORED:
        why = f"{days} days of history are too few to compare windows on; at least {2 * RECENT[0].days} are needed"
        return ALL, Choice(window=write_span(ALL), why=why)
    in_use = present if present in spans else ALL
    spans = (in_use, *(span for span in spans if span != in_use))
    until = day_of(timezone, end)
    cuts = equal_parts(timezone, until - timedelta(days=scored_days), until, ORIGINS)
    tried = _scored(spec, task, history, cuts, spans, settle, answer, tell)
    if not tried or tried[0].span != in_use:
        why = f"{write_span(in_use)} could not be scored on the days before {end:%Y-%m-%d}: too few rows"
        span, why = _enough(history, in_use, end, why)
        return span, Choice(window=write_span(span), why=why)
    confidence = 1 - (1 - spec.release.decide.confidence) / max(1, len(tried) - 1)
    listed = [_compared(each, tried[0], confidence, spec.model.seed) for each in tried]
    best, why = _best(tried, listed, loss)
    span, why = _enough(history, best, end, why)
    return span, Choice(
        window=write_span(span),
        why=why,
        loss=loss,
        confidence=confidence,
        since=cuts[0],
        until=cuts[-1],
        blocks=len(tried[0].losses),
        rows=int(tried[0].rows.sum()),
        fits=len(tried) * (ORIGINS + 1),
        contenders=tuple(listed),
    )


def _enough(history: pl.DataFrame, span: Span, end: datetime, why: str) -> tuple[Span, str]:
    """The window, or all of the history where it lets in too few rows to fit on, and why."""
    rows = len(within(history, span, end))
    if rows >= LEAST_FITTED or span == ALL:
        return span, why
    chosen = write_span(span)
    return (
        ALL,
        f"{chosen} before {end:%Y-%m-%d} holds {rows} rows, at least {LEAST_FITTED} are fitted; but for that: {why}",
    )


def _best(tried: Sequence[_Daily], listed: Sequence[Contender], loss: str) -> tuple[Span, str]:
    """The window with the lowest loss of those that are better than the one in use for sure; else that one."""
    sure = [i for i, each in enumerate(listed) if each.low is not None and each.low > 0]
    in_use = listed[0].window
    if sure:
        best = min(sure, key=lambda i: listed[i].loss)
        gain, low = listed[best].gain, listed[best].low
        why = f"{loss} is lower by {gain:.4g} than with {in_use}, by {low:.4g} at least"
        return tried[best].span, why
    near = min(range(len(listed)), key=lambda i: listed[i].loss)
    if near == 0:
        return tried[0].span, f"no other window has a lower {loss} than {in_use}"
    gain = listed[near].gain
    why = f"{in_use} stays: with {listed[near].window} {loss} is lower by {gain:.4g}, which may be chance"
    return tried[0].span, why


def _compared(other: _Daily, used: _Daily, confidence: float, seed: int) -> Contender:
    """How much lower the loss of a window is than that of the one in use, on the same days."""
    if other.span == used.span:
        return Contender(window=write_span(used.span), loss=used.mean)
    gains = used.losses - other.losses
    # Only the lower end is looked at, so it has the whole of the doubt.
    low, _ = block_bootstrap_mean(gains, used.rows, 2 * confidence - 1, seed=seed, replicates=REPLICATES)
    return Contender(
        window=write_span(other.span),
        loss=other.mean,
        gain=float(np.average(gains, weights=used.rows)),
        low=None if math.isnan(low) else low,
    )


def _scored(
    spec: SystemSpec,
    task: Task,
    history: pl.DataFrame,
    cuts: Sequence[datetime],
    spans: Sequence[Span],
    settle: Settle,
    answer: Answer,
    tell: Tell,
) -> list[_Daily]:
    """Daily losses of each window that has enough rows at every cut at which there is something to score."""
    parts = [
        (cut, known_before(history, cut), test)
        for cut, end in pairwise(cuts)
        if len(test := between(history, cut, end)) >= LEAST_HELD_OUT
    ]
    tried = []
    for number, span in enumerate(spans):
        windowed = [(within(known, span, cut), test) for cut, known, test in parts]
        if not windowed or min(len(fitted) for fitted, _ in windowed) < LEAST_FITTED:
            continue
        tell(number / len(spans))
        trainer, scored = settle(windowed[0][0], span), []
        for done, (fitted, test) in enumerate(windowed, 1):
            tell((number + done / (len(windowed) + 1)) / len(spans))
            answered = pl.Series(PREDICTIONS, answer(trainer, fitted, span, test))
            scored.append(test.select("event_at", "label", cs.by_name(LIST, require_all=False)).with_columns(answered))
        tried.append(_daily(spec, task, span, pl.concat(scored)))
    return tried


def _daily(spec: SystemSpec, task: Task, span: Span, scored: pl.DataFrame) -> _Daily:
    loss = spec.release.decide.loss
    days = [block.rows() for block in blocks_of(spec.data.timezone, scored)]
    losses = np.array(
        [mean_loss(task.loss(loss, target_of(task, rows), rows[PREDICTIONS].to_numpy())) for rows in days]
    )
    known = ~np.isnan(losses)  # the same days for every window: labels alone decide
    counts = np.array([rows.height for rows in days], dtype=np.float64)
    return _Daily(span=span, losses=losses[known], rows=counts[known])
