"""`compare`: two models' answers to the same rows, decided by days as a release is."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.checks.labelled import are_finite
from holdfast.errors import DataError, NotFound
from holdfast.library.answered import Answered, Score, TableTask, TaskName, answered_by
from holdfast.library.pictures import Line, Picture, lines, page, table, text
from holdfast.library.segments import Segment, segments
from holdfast.library.tables import days_of, frame_of, has_columns, names_of
from holdfast.stats import sequential
from holdfast.stats.confidence import StudentMixture

FloatArray = npt.NDArray[np.float64]

ALPHA = 0.05
Decision = Literal["not worse", "worse", "undecided", "unknown"]


class ComparedDay(msgspec.Struct, frozen=True, kw_only=True):
    """One day, and what is known after it."""

    day: str
    rows: int
    difference: float
    """Mean loss of b less that of a: below 0 b is better."""
    low: float | None
    high: float | None
    """The interval of the mean difference over all days so far; None in the first few."""
    evidence_not_worse: float | None
    evidence_worse: float | None
    """Of the release test; it decides at 1 / alpha. None where differences have no bounds."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two models' answers to the same rows say. In a notebook it shows itself; `str` gives a few lines."""

    loss: str
    decision: Decision
    """Of b: `not worse` than a by the margin (a release would promote it), `worse` (it would be rolled back)."""
    why: str
    decided_on: str | None
    """The first day after which it was decided."""
    difference: float | None
    """Mean over days of the mean loss of b less that of a; below 0 b is better."""
    low: float | None
    high: float | None
    """Its interval, which holds after every day at once; None where days are too few."""
    loss_a: float | None
    loss_b: float | None
    """Mean losses over all rows."""
    margin: float
    alpha: float
    rows: int
    days: tuple[ComparedDay, ...]
    segments: tuple[Segment, ...]
    """Where b differs most from a beyond how it differs elsewhere, most certain first; those not significant too."""
    assumes: str
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pl.DataFrame:
        """One row per day, in order."""
        figures = ("difference", "low", "high", "evidence_not_worse", "evidence_worse")
        schema = {"day": pl.String(), "rows": pl.Int64()} | dict.fromkeys(figures, pl.Float64())
        return pl.DataFrame([msgspec.to_builtins(day) for day in self.days], schema=schema)

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain types, None for what is not known."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {name: msgspec.to_builtins(list(plain[name])) for name in ("days", "segments", "notes")}

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def plot(self) -> Picture:
        """Differences by day, and the interval of their mean after each. Raises DataError without a day."""
        if not self.days:
            raise DataError(f"there is no day to plot: {self.why}")
        low, high = (np.array([_nan(getattr(day, name)) for day in self.days]) for name in ("low", "high"))
        differences = np.array([day.difference for day in self.days])
        means = np.cumsum(differences) / np.arange(1, differences.size + 1)
        rules = [(0.0, "equal"), *([(self.margin, "margin")] if self.margin else [])]
        return lines(
            f"{self.loss} of b less that of a",
            f"{self.decision}: {self.why}",
            [day.day for day in self.days],
            [Line("a day", differences, "reference", dots=True), Line("mean so far", means, "current")],
            band=(low, high),
            rules=rules,
        )

    def __str__(self) -> str:
        said = [self._headline(), *(f"  {name}: {value}" for name, value in self._facts())]
        return "\n".join([*said, *(f"  where: {segment}" for segment in self.segments)])

    def _repr_html_(self) -> str:
        rows = [(text(name), text(value)) for name, value in self._facts()]
        parts = [table(self._headline(), (), rows)]
        if self.days:
            parts.append(self.plot().svg)
        if self.segments:
            head = ("segment", "rows", "b less a", "elsewhere", "p")
            found = [
                (text(s.name), f"{s.rows:,}", f"{s.difference:+.4g}", f"{s.elsewhere:+.4g}", f"{s.p_value:.2g}")
                for s in self.segments
            ]
            parts.append(table("Where they differ most beyond the rest", head, found))
        return page(f"Two models by {self.loss}", f"{self.decision}: {self.why}", parts, self.notes)

    def _headline(self) -> str:
        if self.difference is None:
            return f"{self.loss}: unknown, {self.why}"
        interval = "no interval yet" if self.low is None else f"{self.low:+.4g} to {self.high:+.4g}, always valid"
        return f"{self.loss} of b less that of a: {self.difference:+.4g} ({interval}), {self.decision}"

    def _facts(self) -> list[tuple[str, str]]:
        found = [("decision", f"{self.decision}, {self.why}")]
        if self.loss_a is not None and self.loss_b is not None:
            found.append((self.loss, f"a {self.loss_a:.4g}, b {self.loss_b:.4g}, on {self.rows:,} rows"))
        found.append(("days", f"{len(self.days)}, margin {self.margin:g}, level {self.alpha:g}"))
        return [*found, ("assumes", self.assumes), *(("left out", note) for note in self.notes)]


def compare(
    a: Any,
    b: Any,
    *,
    label: str,
    score: Score | tuple[Score, Score],
    time: str | None = None,
    day: str | None = None,
    key: str | Sequence[str] | None = None,
    task: TaskName = "classification",
    loss: str | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
    columns: str | Sequence[str] | None = None,
    timezone: str = "UTC",
    seed: int = 0,
) -> Comparison:
    """Is model b worse than model a? Their answers to the same n rows, paired, by day.

    `a` and `b` are tables that hold the answers in `score` (a pair of names where they differ; give one table twice if
    it holds both); of several classes `score` maps each to the column of its probability. Rows of two tables are
    matched by `key`; without it by their place, which is refused unless every other column that both have is equal in
    each row. `a` holds the labels too, and the unit of evidence: `time`, whose days in `timezone` count, or `day`, any
    column whose values are blocks in order. Rows of one day depend on each other, so there is no comparison without it.

    `loss` is that of a release: ``brier`` or ``log_loss``, ``absolute_error`` for a regression. The interval holds
    after every day at once (Student mixture: Wang and Ramdas 2024; days independent and nearly normal). The decision is
    that of `holdfast.stats.sequential`, at `margin` in units of the loss, wrong with probability at most `alpha` per
    side, however often one looks. It is `unknown` for ``squared_error``, whose differences have no bounds.

    `columns` are searched for segments where b differs from a beyond how it differs elsewhere; none when not given.
    Raises DataError for what cannot be matched.

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> p = random.random(4000)
    >>> rows = {"p": p, "y": (random.random(4000) < p).astype(int), "day": np.arange(4000) // 100}
    >>> rows["worse"] = np.clip(p + random.normal(0, 0.3, 4000), 0, 1)
    >>> found = compare(rows, rows, label="y", score=("p", "worse"), day="day", margin=0.01)
    >>> found.decision, found.low > 0
    ('worse', True)
    """
    of_a, of_b = _scores_of(score, task)
    if (time is None) == (day is None):
        raise DataError("name the unit of evidence: time=, a column of times, or day=, a column of blocks in order")
    if not 0 < alpha < 1:
        raise DataError(f"alpha is a share of wrong decisions, in (0, 1), not {alpha}")
    if not margin >= 0:
        raise DataError(
            f"a margin is 0 or more, not {margin:g}: by how much, in units of the loss, b may be worse and still pass"
        )
    if time is None and timezone != "UTC":
        raise DataError("timezone= counts days, which need time=, the column of the rows' times; day= has blocks as is")
    chosen = loss or of_a.task.losses[0]
    if chosen not in of_a.task.losses:
        raise NotFound("loss", chosen, of_a.task.losses)
    left, right = frame_of(a, "a"), frame_of(b, "b")
    has_columns(left, [*of_a.columns, label, time or day or "", *names_of(columns), *names_of(key)], "a")
    has_columns(right, [*of_b.columns, *names_of(key)], "b")
    placed_by: tuple[str, ...] = ()
    if a is not b and not key:
        answers = {*of_a.columns, *of_b.columns}
        placed_by = _same_places(left, right, [name for name in left.columns if name not in {label, *answers}], label)
    left, right, notes = _matched(left, right, names_of(key), label)
    live, candidate, y = of_a.answers(left, "a"), of_b.answers(right, "b"), of_a.labels(left, label)
    blocks = days_of(left, time, timezone, "a") if time else left[day or ""]
    kept = np.isfinite(y) & are_finite(live) & are_finite(candidate) & blocks.is_not_null().to_numpy()
    if not kept.all():
        notes.append(f"{int((~kept).sum()):,} rows lack a label, an answer or a day.")
    _refuse_answers(of_a.task.name, live[kept], candidate[kept])
    rows, blocks = left.filter(pl.Series(kept)), blocks.filter(pl.Series(kept))
    pair = _Pair(task=of_a.task, loss=chosen, y=y[kept], a=live[kept], b=candidate[kept])
    found = _compared(pair, rows, blocks, margin, alpha, names_of(columns), tuple(notes), seed)
    if not placed_by:
        return found
    said = f"; rows were paired by their place, where {', '.join(placed_by)} say the same: key= would be surer"
    return replace(found, assumes=found.assumes + said)


def _scores_of(score: Score | Sequence[Score], task: TaskName) -> tuple[Answered, Answered]:
    """Where a's answers are and where b's. Raises DataError for more or fewer than two, or of other classes."""
    both = [score, score] if isinstance(score, str | Mapping) else list(score)
    if len(both) != 2:
        said = ", ".join(map(str, both))
        raise DataError(f"score= is one name, or two: of a's answers and of b's; not {len(both)} ({said})")
    of_a, of_b = (answered_by(each, task) for each in both)
    if of_a.task.classes != of_b.task.classes:
        raise DataError("a and b answer different classes, so their losses cannot be compared")
    return of_a, of_b


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Labels and both answers of n rows."""

    task: TableTask
    loss: str
    y: FloatArray
    a: FloatArray
    b: FloatArray

    def losses(self) -> tuple[FloatArray, FloatArray]:
        """Losses of a and of b, (n,) each."""
        of = self.task.loss
        a, b = of(self.loss, self.y, self.a), of(self.loss, self.y, self.b)
        return np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """What the difference could have been before the label came, (n,) each."""
        low, high = self.task.loss_bounds(self.loss, self.b, self.a)
        return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)


def _compared(
    pair: _Pair,
    rows: pl.DataFrame,
    blocks: pl.Series,
    margin: float,
    alpha: float,
    columns: Sequence[str],
    notes: tuple[str, ...],
    seed: int,
) -> Comparison:
    of_a, of_b = pair.losses()
    names = [str(name) for name in blocks.unique().sort().to_list()]
    code = (blocks.rank("dense").to_numpy() - 1).astype(np.int64) if len(blocks) else np.empty(0, dtype=np.int64)
    days = _days(names, code, of_b - of_a, pair.bounds(), margin, alpha)
    decision, why, decided_on = _decided(days, margin, alpha)
    last = days[-1] if days else None
    found = segments(rows.select(columns), of_b - of_a, code, seed=seed) if columns and days else ()
    return Comparison(
        loss=pair.loss,
        decision=decision,
        why=why,
        decided_on=decided_on,
        difference=float(np.mean([one.difference for one in days])) if days else None,
        low=last.low if last else None,
        high=last.high if last else None,
        loss_a=float(of_a.mean()) if of_a.size else None,
        loss_b=float(of_b.mean()) if of_b.size else None,
        margin=margin,
        alpha=alpha,
        rows=of_a.size,
        days=tuple(days),
        segments=tuple(found),
        assumes="the interval takes days for independent and their means for nearly normal; the decision takes each "
        "day, given those before, for symmetric around its mean",
        notes=notes,
    )


def _days(
    names: Sequence[str],
    code: npt.NDArray[np.int64],
    difference: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    margin: float,
    alpha: float,
) -> list[ComparedDay]:
    """Each day's mean difference, the interval after it, and the evidence of the release test."""
    if not names:
        return []
    counts = np.bincount(code, minlength=len(names))
    mean, low, high = (np.bincount(code, weights=w, minlength=len(names)) / counts for w in (difference, *bounds))
    is_bounded = bool(np.isfinite(low).all() and np.isfinite(high).all())
    paths = [np.full(mean.size, np.nan)] * 2
    if is_bounded:
        paths = [
            sequential.evidence_path(mean, low, high, margin, "below"),
            sequential.evidence_path(mean, low, high, 0.0, "above"),
        ]
    interval, state, found = StudentMixture(alpha=alpha), StudentMixture(alpha=alpha).start(), []
    for i, name in enumerate(names):
        state = interval.fold(state, mean[i])
        lower, upper = (float(end) for end in interval.interval(state))
        evidence = [math.exp(min(float(path[i]), 700.0)) if is_bounded else None for path in paths]
        found.append(
            ComparedDay(
                day=name,
                rows=int(counts[i]),
                difference=float(mean[i]),
                low=lower if math.isfinite(lower) else None,
                high=upper if math.isfinite(upper) else None,
                evidence_not_worse=evidence[0],
                evidence_worse=evidence[1],
            )
        )
    return found


def _decided(days: Sequence[ComparedDay], margin: float, alpha: float) -> tuple[Decision, str, str | None]:
    """What a release that looked after every day would have decided, why, and when."""
    if not days:
        return "unknown", "no row has a label, both answers and a day", None
    if days[-1].evidence_worse is None:
        return "unknown", "differences of this loss have no bounds, so no release is decided on it", None
    for i, day in enumerate(days, start=1):
        worse, fine = day.evidence_worse or 0.0, day.evidence_not_worse or 0.0
        if max(worse, fine) >= 1 / alpha:
            says: Decision = "worse" if worse >= 1 / alpha else "not worse"
            by = "" if says == "worse" or not margin else f" by {margin:g} or more"
            why = f"evidence {max(worse, fine) if says == 'not worse' else worse:.3g} after {i} days ({day.day})"
            return says, f"b is {says}{by}: {why}", day.day
    most = max(max(day.evidence_worse or 0.0, day.evidence_not_worse or 0.0) for day in days)
    return "undecided", f"evidence {most:.3g} at most in {len(days)} days, {1 / alpha:g} decides", None


def _matched(
    left: pl.DataFrame, right: pl.DataFrame, key: list[str], label: str
) -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    """Both tables with the same rows in the same order."""
    notes = []
    if key:
        for rows, side in ((left, "a"), (right, "b")):
            if rows.select(key).is_duplicated().any():
                raise DataError(f"several rows of {side} have the same {', '.join(key)}: the key names a row once")
        try:
            places = left.select(key).with_row_index(_PLACE).join(right.select(key).with_row_index(_OTHER), on=key)
        except pl.exceptions.PolarsError as error:
            raise DataError(f"the key has another type in b than in a: {str(error).splitlines()[0]}") from error
        places = places.sort(_PLACE)
        if gone := left.height + right.height - 2 * places.height:
            notes.append(f"{gone:,} rows are in one table only.")
        left, right = left[places[_PLACE]], right[places[_OTHER]]
    elif left.height != right.height:
        raise DataError(f"a has {left.height:,} rows and b {right.height:,}: give key=, the columns that name a row")
    if label in right.columns and not left[label].eq_missing(right[label]).all():
        raise DataError(f"the labels of a and b differ in some rows: they are not the same rows{_by(key)}")
    return left, right, notes


def _same_places(left: pl.DataFrame, right: pl.DataFrame, others: list[str], label: str) -> tuple[str, ...]:
    """The columns of both tables, of `others`, that are equal row by row. Raises DataError for one that is not.

    A table in another order would give a verdict on pairs of strangers, and nothing in it would look wrong.
    """
    if left.height != right.height:
        return ()  # refused by how many rows they have
    shared = [name for name in others if name in right.columns]
    for name in shared:
        try:
            differs = left[name].ne_missing(right[name])
        except pl.exceptions.PolarsError:
            raise DataError(
                f"column '{name}' holds {left[name].dtype} in a and {right[name].dtype} in b, so rows cannot be paired "
                "by their place: give key=, the columns that name a row"
            ) from None
        if count := int(differs.sum()):
            raise DataError(
                f"a and b differ in column '{name}' in {count:,} of {left.height:,} rows: they are not in the same "
                "order, or not the same rows; give key=, the columns that name a row"
            )
    if not shared and label not in right.columns:
        raise DataError(
            "b has no column of a but its answers, so nothing says that rows are in the same order: give key=, the "
            "columns that name a row, or put both answers into one table and give that twice"
        )
    return tuple(shared or [label])


def _by(key: list[str]) -> str:
    return f", or {', '.join(key)} does not name them" if key else "; give key=, the columns that name a row"


def _refuse_answers(task: str, *answers: FloatArray) -> None:
    for side, values in zip("ab", answers, strict=True):
        if task != "regression" and values.size and (values.min() < 0 or values.max() > 1):
            raise DataError(f"answers of {side} reach from {values.min():g} to {values.max():g}: no probabilities")


_PLACE, _OTHER = "\0 place", "\0 other"
"""Names of columns that no table would have."""


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
