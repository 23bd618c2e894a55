"""Answers of a model that is served elsewhere. In: rows of its log, and what came over HTTP. Out: answers, whole.

A log is a feed like any other, so its rows are known by an id, quarantined and joined as those of any feed are. Over
HTTP an answer comes whole, or as a request and a response that find each other by their id, whichever comes first.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import accumulate
from statistics import median

import msgspec
import polars as pl
from msgspec.structs import replace

from holdfast.core import kinds
from holdfast.core.classes import in_order
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Predictions, SystemSpec
from holdfast.core.specelsewhere import ROUNDING, TOLERANCE, answer_columns
from holdfast.flow.rows import row_ids

UNNAMED = "unnamed"
"""The version of answers that name none."""
WAIT = timedelta(hours=1)
"""How long a request or a response waits for the other one."""
MOST_WAITING = 200_000
"""Rows that wait at most; beyond it those that have waited longest are given up."""

ENOUGH = 0.1
"""A version begins on a day with this share of the answers of a usual day that follows, in days that together have
this share of its fullest days: an answer that is dated back long before the others is no beginning."""

_META = ("request_id", "row", "key", "event_at", "predicted_at", "version", "caller")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that were given elsewhere, three frames of the same height."""

    meta: pl.DataFrame
    """``request_id``, ``row``, ``key``, ``event_at``, ``predicted_at``, ``version``, ``caller``."""
    inputs: pl.DataFrame
    """The columns of the system file that came."""
    outputs: pl.Series | pl.DataFrame
    """Float64; null where there is no answer. Where an answer is one number per class, a column for each in order."""


def recorded_signature(signature: Signature) -> Signature:
    """The same columns, as a log may hold them: what the model took is on record whether or not it fits."""
    return replace(signature, columns=tuple(_lenient(column) for column in signature.columns))


def _lenient(column: Column) -> Column:
    kind = "number" if column.type in ("integer", "boolean") else column.type
    return replace(column, type=kind, nullable=True, outside="flag")


def logged(spec: SystemSpec) -> SystemSpec:
    """The system with what its log holds beside the features as columns too: answer, version and what identifies it.
    An answer is known when it is given."""
    if spec.predictions is None:
        return spec
    known = spec.data.columns
    beside = {name: Column(name=name, type="category") for name in spec.data.feeds[spec.data.rows].key}
    if spec.predictions.version:
        beside[spec.predictions.version] = Column(name=spec.predictions.version, type="category")
    beside |= {name: Column(name=name, type="number") for name in scores_of(spec)}
    beside = {name: column for name, column in beside.items() if name not in (*known, spec.data.key)}
    rows = spec.data.feeds[spec.data.rows]
    feeds = {**spec.data.feeds, spec.data.rows: replace(rows, known_at=rows.known_at or rows.event_at)}
    return replace(spec, data=replace(spec.data, feeds=feeds, columns={**known, **beside}))


def scores_of(spec: SystemSpec) -> tuple[str, ...]:
    """Names of the columns of the log that hold the answer: one, or one for each class in order."""
    assert spec.predictions is not None
    return answer_columns(spec.predictions.score or str(kinds.load("tasks", spec.task).output), spec)


def of_log(spec: SystemSpec, rows: pl.DataFrame) -> Told:
    """Assembled rows of the log as answers; they were assembled for the `logged` system."""
    assert spec.predictions is not None
    key = spec.data.feeds[spec.data.rows].key
    if spec.data.key in key and spec.data.key not in rows.columns:
        rows = rows.with_columns(pl.col("key").alias(spec.data.key))
    version = pl.col(spec.predictions.version).cast(pl.String) if spec.predictions.version else pl.lit(None, pl.String)
    meta = rows.select(
        row_ids(rows, key).alias("request_id"),
        pl.lit(0, pl.Int64).alias("row"),
        pl.col("key"),
        pl.col("event_at"),
        pl.col("known_at").alias("predicted_at"),
        version.fill_null(UNNAMED).alias("version"),
        pl.lit("").alias("caller"),
    )
    inputs = rows.select(pl.col(name) for name in spec.data.columns if name in rows.columns)
    return Told(meta=meta, inputs=inputs, outputs=_outputs(rows, scores_of(spec), bool(spec.data.label.classes)))


def _outputs(rows: pl.DataFrame, names: Sequence[str], is_of_classes: bool) -> pl.Series | pl.DataFrame:
    """Answers by the columns that hold them.

    Of several classes one that is missing was answered 0, by a version that does not know it. There is no answer where
    one that is given is no probability, or where they do not add up to 1.
    """
    if not is_of_classes:
        return rows[names[0]].cast(pl.Float64)
    given = [pl.col(name).cast(pl.Float64) if name in rows.columns else pl.lit(None, pl.Float64) for name in names]
    parts = rows.select(part.alias(name) for part, name in zip(given, names, strict=True))
    are_probabilities = pl.all_horizontal(
        pl.col(name).is_between(-TOLERANCE, 1 + TOLERANCE).fill_null(True) for name in names
    )
    is_answer = are_probabilities & ((pl.sum_horizontal(names) - 1).abs() <= ROUNDING)
    return parts.select(
        pl.when(is_answer).then(pl.col(name).fill_null(0.0).clip(0.0, 1.0)).alias(name) for name in names
    )


def of_arrivals(rows: pl.DataFrame, output: str, classes: Sequence[str] = ()) -> Told:
    """Whole rows of the arrivals table as answers; of several classes, whatever their order, as `of_log` has them."""
    named = rows.with_columns(
        pl.col("predicted_at").alias("event_at"),
        pl.when(pl.col("version") == "").then(pl.lit(UNNAMED)).otherwise("version").alias("version"),
    )
    inputs = named.select(pl.col(name).alias(name.removeprefix("in.")) for name in rows.columns if name[:3] == "in.")
    names = [f"out.{output}.{name}" for name in in_order(classes)] or [f"out.{output}"]
    return Told(meta=named.select(_META), inputs=inputs, outputs=_outputs(named, names, bool(classes)))


class Halves:
    """Requests and responses that wait for one another.

    Bounded by `WAIT` and `MOST_WAITING`; they are on record, so a process that begins anew reads them again.
    """

    def __init__(self) -> None:
        self._waiting = pl.DataFrame()
        self.given_up: dict[str, int] = {"request": 0, "response": 0}
        """How many rows of each kind were never met by the other, since this was last taken."""

    @property
    def waits(self) -> bool:
        """Whether there is anything that waits."""
        return bool(self._waiting.height)

    def take_given_up(self) -> dict[str, int]:
        """How many rows were given up since this was asked last."""
        given_up, self.given_up = self.given_up, {"request": 0, "response": 0}
        return given_up

    def join(self, arrived: pl.DataFrame, now: datetime, counted: datetime | None = None) -> pl.DataFrame:
        """The rows of the arrivals table that became whole: inputs, key and caller of the request, the rest of the
        response. Of rows that came up to `counted` those that are too many were given up by somebody else before.
        """
        every = pl.concat([self._waiting, arrived], how="diagonal_relaxed") if self._waiting.width else arrived
        if every.is_empty():
            return every
        every = every.unique("arrival_id", keep="first", maintain_order=True)
        requests, responses = (every.filter(pl.col("part") == part) for part in ("request", "response"))
        place = ["request_id", "row"]
        theirs = [name for name in every.columns if name[:4] == "out." or name in ("predicted_at", "version")]
        whole = requests.drop(theirs).join(
            responses.select(*place, *theirs), on=place, how="inner", maintain_order="right"
        )
        self._keep(every.join(whole.select(place), on=place, how="anti", maintain_order="left"), now, counted)
        return whole

    def _keep(self, rest: pl.DataFrame, now: datetime, counted: datetime | None) -> None:
        """Wait on with what is young enough, and count the rest."""
        is_young = pl.col("arrived_at") > now - WAIT
        kept = rest.filter(is_young).tail(MOST_WAITING)
        gone = rest.join(kept.select("arrival_id"), on="arrival_id", how="anti")
        if counted is not None:
            gone = gone.filter(~is_young | (pl.col("arrived_at") > counted))
        for part, count in gone.group_by("part").len().iter_rows():
            self.given_up[part] += count
        self._waiting = kept


def added(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Both counts together."""
    return {name: counts.get(name, 0) + more.get(name, 0) for name in {**counts, **more}}


Days = Mapping[str, Mapping[str, int]]
"""Version -> day (ISO) -> how many answers it gave."""


def counted(days: Days, told: pl.DataFrame, day: pl.Expr) -> dict[str, dict[str, int]]:
    """The days of each version with these answers added."""
    counts: dict[str, dict[str, int]] = {version: dict(of) for version, of in days.items()}
    for version, at, rows in told.group_by("version", day.alias("day")).len().sort("version", "day").iter_rows():
        of = counts.setdefault(version, {})
        of[at.isoformat()] = of.get(at.isoformat(), 0) + rows
    return counts


def recounted(days: Days, recorded: pl.DataFrame, day: date) -> dict[str, dict[str, int]]:
    """The days of each version with this one as it is on record: one row for each answer of it, with ``version``."""
    name = day.isoformat()
    counts = {version: {at: n for at, n in of.items() if at != name} for version, of in days.items()}
    if recorded.height:
        for version, rows in recorded.group_by("version").len().sort("version").iter_rows():
            counts.setdefault(version, {})[name] = rows
    return {version: of for version, of in counts.items() if of}


def answering(days: Days, last: date) -> str:
    """The version that gave most answers on the newest day, up to `last`, that has any; of two, the one that began
    later. Empty where there is none."""
    newest = max((day for of in days.values() for day in of if day <= last.isoformat()), default="")
    if not newest:
        return ""
    return max((of[newest], min(of), version) for version, of in days.items() if newest in of)[-1]


class Promised(msgspec.Struct, frozen=True, kw_only=True):
    """The days that are the reference of a version; `short` says why they cannot be one yet, or is empty."""

    start: date
    end: date
    short: str = ""


def beginning(of: Mapping[str, int], length: int, last: date) -> date | None:
    """The first day that may begin a reference of `length` days of a version with these answers by day, up to `last`.

    See `ENOUGH`; and of more than one day at least two must have answers. None where there is no such day yet.
    """
    days = sorted(date.fromisoformat(day) for day in of if day <= last.isoformat())
    counts = [of[day.isoformat()] for day in days]
    through = [0, *accumulate(counts)]
    ends = [bisect_left(days, day + timedelta(days=length)) for day in days]
    totals = [through[end] - through[at] for at, end in enumerate(ends)]
    fullest = max(totals, default=0)
    for at, end in enumerate(ends):
        is_usual = counts[at] >= ENOUGH * median(counts[at:end])
        if totals[at] >= ENOUGH * fullest and is_usual and (length == 1 or end - at > 1):
            return days[at]
    return None


def stretch_of(
    predictions: Predictions, days: Days, version: str, last: date, begun: Mapping[str, str] | None = None
) -> Promised:
    """The reference days of a version, given the newest day whose answers are complete.

    `begun` are the first days of the versions whose reference was made: it stays what it is.
    """
    stretch = predictions.reference
    if stretch.first is None:
        assert stretch.from_ is not None
        assert stretch.until is not None
        start, end = stretch.from_, stretch.until
        some = any(start.isoformat() <= day <= end.isoformat() for each in days.values() for day in each)
        short = "" if some else f"no answer lies in the reference, {start} to {end}"
        if end > last:
            short = f"the reference lasts until {end}, which is not complete yet"
        return Promised(start=start, end=end, short=short)
    start = first_day(days.get(version, {}), stretch.first.days, last, (begun or {}).get(version))
    end = start + stretch.first - timedelta(days=1)
    had = max(0, (last - start).days + 1)
    short = f"history of version {version} is too short: {had} of {stretch.first.days} days" if end > last else ""
    if (
        not short
        and not (begun or {}).get(version)
        and beginning(days.get(version, {}), stretch.first.days, last) is None
    ):
        short = f"history of version {version} is too short: it has answers of one day, {start}"
    return Promised(start=start, end=end, short=short)


def first_day(of: Mapping[str, int], length: int, last: date, begun: str | None = None) -> date:
    """The day on which a version began, as far as is known by `last`: `begun`, where its reference was made."""
    if begun:
        return date.fromisoformat(begun)
    newest = max((day for day in of if day <= last.isoformat()), default=None)
    alone = date.fromisoformat(newest) if newest else last + timedelta(days=1)
    return beginning(of, length, last) or alone
