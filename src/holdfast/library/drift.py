"""`drift`: how far each column of one table is from another, how unusual that is, and what that rests on."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.errors import DataError, did_you_mean
from holdfast.library import surprise
from holdfast.library.columns import ColumnDrift, described, measured
from holdfast.library.distributions import distribution, sketch
from holdfast.library.pictures import Line, Picture, lines, page, share, stacked, table, text
from holdfast.library.surprise import Counted, Surprise
from holdfast.library.tables import Frame, days_of, has_columns, names_of, rows_of
from holdfast.library.texts import texts_of
from holdfast.stats.batches import nature_of
from holdfast.stats.conformal import windows_needed
from holdfast.stats.counting import count_rows
from holdfast.stats.histogram import Edges
from holdfast.stats.survey import edges_of_rows

IntArray = npt.NDArray[np.int64]

ALPHA = 0.05
FINE, COARSE = 512, 64
"""Quantile and even cells of a number: coarse where many units would hold many of them."""
MOST_COUNTS = 20_000
"""Columns times units from which on cells are coarse: 160 MB of fine ones."""
MOST_BLOCKS = 1000
"""Blocks that are dealt; where there are more, groups of as many blocks on both sides."""
WEEK = 7
DRAWN = 40
"""Rows of the HTML report that have a picture."""


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """How far each column moved. In a notebook it shows itself; `str` gives a plain table.

    It is a mapping of names of columns to `ColumnDrift` in the report's order: ``report["x"]``, ``"x" in report``,
    ``for name in report``, ``len(report)``, ``dict(report)``.
    """

    columns: tuple[ColumnDrift, ...]
    """Broken columns first, then those that moved, by their gap; unknown ones last."""
    rows_reference: int
    rows_current: int
    joint_p_value: float | None
    """That the most unusual of all columns is so unusual when nothing changed: one number for the whole table."""
    least_p_value: float
    """The smallest p-value that so many windows or blocks can give; 0 for rows."""
    alpha: float
    assumes: str
    """What the p-values assume, as a sentence."""
    notes: tuple[str, ...] = ()
    """What was left out."""
    counted: Counted = field(repr=False)
    """The counts that all was computed from."""
    unit: str = ""
    """``day``, the block's column, or empty for rows."""

    def __getitem__(self, column: str) -> ColumnDrift:
        """One column. Raises DataError with the near miss."""
        for one in self.columns:
            if one.column == column:
                return one
        raise DataError(f"the report has no column '{column}'{did_you_mean(column, [c.column for c in self.columns])}")

    def __contains__(self, column: object) -> bool:
        return any(one.column == column for one in self.columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.columns)

    def keys(self) -> list[str]:
        """Names of the columns."""
        return [one.column for one in self.columns]

    def moved(self) -> list[str]:
        """Names of the columns found to have moved, `maybe` ones among them, and of those that are broken."""
        return [one.column for one in self.columns if one.verdict in ("broken", "moved", "maybe")]

    def broken(self) -> list[str]:
        """Names of the columns that are not what they were, whatever the unit: see `ColumnDrift.verdict`."""
        return [one.column for one in self.columns if one.is_broken]

    def to_frame(self) -> pl.DataFrame:
        """One row per column, in the report's order."""
        schema: dict[str, pl.DataType] = {name: pl.String() for name in ("column", "role", "kind", "verdict", "why")}
        schema |= {name: pl.Float64() for name in FIGURES}
        schema |= {name: pl.Int64() for name in ("values_reference", "values_current")}
        schema |= {name: pl.String() for name in ("type_reference", "type_current")}
        return pl.DataFrame([msgspec.to_builtins(one) for one in self.columns], schema=schema)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the counts in plain types, None for what is not known."""
        return {
            "rows_reference": self.rows_reference,
            "rows_current": self.rows_current,
            "joint_p_value": self.joint_p_value,
            "least_p_value": self.least_p_value,
            "alpha": self.alpha,
            "assumes": self.assumes,
            "notes": list(self.notes),
            "columns": [msgspec.to_builtins(one) for one in self.columns],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def series(self, column: str) -> pl.DataFrame:
        """The gap of each day or block of both sides from the reference without it: unit, side, gap.

        Empty where no unit was named. Raises DataError for a column that was not measured.
        """
        of = self._measured(column)
        if not self.unit:
            return pl.DataFrame(schema={"unit": pl.String, "side": pl.String, "gap": pl.Float64})
        values = surprise.series(self.counted, of.column)
        sides = np.where(np.arange(values.size) < self.counted.split, "reference", "current")
        return pl.DataFrame({"unit": list(self.counted.labels), "side": sides, "gap": values}, nan_to_null=True)

    def plot(self, column: str | None = None) -> Picture:
        """Both distributions of a column, and below them its gap by day where days are known.

        Raises DataError for no column, one that is not there, or one that could not be counted.
        """
        if column is None:
            drawn = [one.column for one in self.columns if one.gap is not None]
            raise DataError(f"name the column to plot: {', '.join(map(repr, drawn)) or 'none could be measured'}")
        of = self._measured(column)
        above = distribution(column, self.counted.edges[column], *self.counted.sides(column), subtitle=_headline(of))
        if self.unit != "day":
            return above
        series = self.series(column)
        before = series["side"] == "reference"
        gaps = series["gap"].to_numpy()
        below = lines(
            f"gap of {column} by day",
            "the largest gap between the distribution of a day and that of the reference without it",
            series["unit"].to_list(),
            [
                Line("a day of the reference", np.where(before, gaps, np.nan), "reference", dots=True),
                Line("a day of the current table", np.where(before, np.nan, gaps), "current", dots=True),
            ],
            least=0.0,
        )
        return stacked([above, below])

    def __str__(self) -> str:
        lines_ = [f"drift of {self.rows_current:,} rows from {self.rows_reference:,}, {self._summary()}"]
        head = ("column", "verdict", "gap", "psi", "p", "missing", "why")
        body = [(*_cells(one), one.why) for one in self.columns]
        widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head) - 1)]
        for row in (head, *body):
            placed = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
            lines_.append("  ".join([*placed, row[-1]]).rstrip())
        return "\n".join([*lines_, f"p-values: {self.assumes}.", *self.notes])

    def _repr_html_(self) -> str:
        head = ("column", "verdict", "distribution", "gap", "PSI", "p", "missing", "why")
        rows = []
        for k, one in enumerate(self.columns):
            name, verdict, *figures = _cells(one)
            counted = k < DRAWN and one.gap is not None
            picture = sketch(self.counted.edges[name], *self.counted.sides(name)) if counted else text("")
            rows.append((text(name), text(verdict, mark=verdict), picture, *map(text, figures), text(one.why)))
        foot = [f"p-values: {self.assumes}.", *self.notes]
        if len(self.columns) > DRAWN:
            foot.append(f"Pictures are drawn for the first {DRAWN} columns; plot(column) draws any.")
        title = f"Drift of {self.rows_current:,} rows from {self.rows_reference:,}"
        return page(title, self._summary(), [table("Columns, the most unusual first", head, rows)], foot)

    def _summary(self) -> str:
        tally = {verdict: sum(one.verdict == verdict for one in self.columns) for verdict in VERDICTS}
        said = ", ".join(f"{count} {verdict}" for verdict, count in tally.items() if count) or "no column"
        joint = "" if self.joint_p_value is None else f"; joint p {_p(self.joint_p_value)}"
        return f"{len(self.columns)} columns: {said}{joint}"

    def _measured(self, column: str) -> ColumnDrift:
        of = self[column]
        if of.gap is None:
            raise DataError(f"'{column}' was not measured: {of.why}")
        return of


VERDICTS = ("broken", "moved", "maybe", "no evidence", "unknown")
FIGURES = (
    "p_value",
    "p_alone",
    "gap",
    "psi",
    "jensen_shannon",
    "hellinger",
    "wasserstein",
    "missing_reference",
    "missing_current",
    "outside",
)


def drift(
    reference: Any,
    current: Any,
    *,
    columns: str | Sequence[str] | None = None,
    outputs: str | Sequence[str] = (),
    time: str | None = None,
    block: str | None = None,
    timezone: str = "UTC",
    window: int | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
) -> DriftReport:
    """How far each column of `current` (m rows) is from `reference` (n rows), and how unusual that is.

    Tables of any kind (`holdfast.library.tables`). Numbers and booleans are counted on 512 quantile and 512 even cells
    of the reference, text on the 512 commonest values of both tables together, so that distances are within 0.001 of
    those of the raw values in 95 % of windows (docs/why/drift-speed.md). `columns` are those to look at, all when not
    given; `outputs` name the model's answers among them. A column that cannot be judged has the verdict `unknown`, and
    why; one that is gone, has another type, no value left or none that the reference had is `broken`, whatever the
    unit.

    What a p-value rests on is up to you, and the report says it:

    - `time`: a column of datetimes, dates or ISO 8601 text. The unit is the day in `timezone`. The newest `window`
      days of the current table are judged among disjoint windows of the reference as long (conformal p-value:
      Chernozhukov, Wüthrich, Zhu 2018), all columns jointly by their ranks, equal ranks by how far a window exceeds
      all others. When not given, `window` is seven days
      where both tables are long enough for that (20 weeks and a week), else a day.
    - `block`: a column that names what rows belong to (a user, a batch). Blocks are dealt anew to the two sides, 499
      times; valid where blocks are exchangeable. A value on both sides counts as two blocks.
    - neither: every row counts as an observation of its own. Then the most that is said is `maybe`, because rows of
      one day or user are not, and with a million of them any difference is significant.

    A column has `moved` where its p-value, corrected for all columns, is at most `alpha`. Distances are of all current
    rows whatever the window. Raises DataError for names that are not there. 1M + 1M rows of 20 columns take about a
    second of one core; without `time` and `block`, lazy frames may be larger than memory.

    >>> reference = {"x": [i % 100 for i in range(3000)], "day": [f"2024-01-{1 + i // 100:02}" for i in range(3000)]}
    >>> current = {"x": [50 + i % 50 for i in range(300)], "day": ["2024-02-01"] * 300}
    >>> report = drift(reference, current, time="day")
    >>> report["x"].verdict, report["x"].gap, round(report["x"].p_value, 4)
    ('moved', 0.5, 0.0323)
    >>> drift(reference, current)["x"].verdict
    'maybe'
    """
    if not 0 < alpha < 1:
        raise DataError(f"alpha is a share of false alarms, in (0, 1), not {alpha}")
    if time is not None and block is not None:
        raise DataError("the unit of evidence is the day (time=) or the block (block=), not both: name one")
    if time is None and (window is not None or timezone != "UTC"):
        what = "window" if window is not None else "timezone"
        raise DataError(f"{what}= counts days, which need time=, the column of the rows' times")
    sides = rows_of(reference, "the reference"), rows_of(current, "the current table")
    key = time or block
    names = _chosen(sides, names_of(columns), names_of(outputs), key)
    if time is not None:
        counted, notes = _by_day(sides, names, time, timezone)
    elif block is not None:
        counted, notes = _by_block(sides, names, block)
    else:
        counted, notes = _count([[sides[0]], [sides[1]]], names, (), sides), []
    found = _measure(sides, names, counted, set(names_of(outputs)))
    usable = [one.column for one in found if one.gap is not None]
    if not usable:
        why = surprise.of_nothing()
    elif time is not None:
        why = surprise.of_windows(counted, usable, _window(counted, window))
    elif block is not None:
        why = surprise.of_blocks(counted, usable, f"'{block}'", seed)
    else:
        why = surprise.of_rows(counted, usable)
    judged = [_verdict(one, why, alpha) for one in found]
    rows = [int(side.select(pl.len()).lazy().collect().item()) for side in sides]
    return DriftReport(
        columns=tuple(sorted(judged, key=_rank)),
        rows_reference=rows[0],
        rows_current=rows[1],
        joint_p_value=why.joint,
        least_p_value=why.least,
        alpha=alpha,
        assumes=why.assumes,
        notes=tuple(notes),
        counted=counted,
        unit="day" if time is not None else block or "",
    )


def _chosen(sides: tuple[Frame, Frame], columns: list[str], outputs: list[str], key: str | None) -> list[str]:
    """Columns to look at, in the reference's order; new ones after them."""
    labels = ("the reference", "the current table")
    for side, label in zip(sides, labels, strict=True):
        has_columns(side, [key] if key else [], label)
    schemas = [side.collect_schema().names() for side in sides]
    every = list(dict.fromkeys([*schemas[0], *schemas[1]]))
    for name in (*columns, *outputs):
        if name not in every:
            raise DataError(f"neither table has a column '{name}'{did_you_mean(name, every)}")
    chosen = [*columns, *(name for name in outputs if columns and name not in columns)] or every
    return [name for name in dict.fromkeys(chosen) if name != key]


def _count(
    units: Sequence[Sequence[Frame]], names: Sequence[str], labels: Sequence[str], whole: Sequence[Frame]
) -> Counted:
    """Counts of the units of both sides. `whole` are both tables: numbers are cut as the first has them."""
    before, now = units
    reference, current = whole
    schema = reference.collect_schema()
    usable = [name for name in names if name in schema and (nature_of(schema[name]) or schema[name] == pl.Null)]
    fine = FINE if len(usable) * (len(before) + len(now)) <= MOST_COUNTS else COARSE
    texts = texts_of(reference, current, usable, most=fine)
    others = [name for name in usable if name not in texts]
    cut = edges_of_rows(reference, columns=others, quantiles=fine, uniform=fine) if others else {}
    edges: dict[str, Edges] = {name: texts[name].edges if name in texts else cut[name] for name in usable}
    counts = [count_rows(unit, edges) for unit in (*before, *now)]
    changed = {name: why for one in counts for name, why in one.changed.items()}
    nothing = {name: np.zeros(edges[name].cells + 3, dtype=np.int64) for name in edges}
    cells = {
        name: np.stack([one.histograms[name].counted if name in one.histograms else nothing[name] for one in counts])
        if counts
        else nothing[name][None, :][:0]
        for name in edges
    }
    return Counted(edges=edges, cells=cells, changed=changed, split=len(before), labels=tuple(labels), texts=texts)


def _by_day(sides: tuple[Frame, Frame], names: Sequence[str], time: str, timezone: str) -> tuple[Counted, list[str]]:
    """Counts by day, days in order; rows without a time are left out."""
    units, labels, notes = [], [], []
    whole: list[pl.DataFrame] = []
    ends = []
    for side, label in zip(sides, ("the reference", "the current table"), strict=True):
        rows = side.lazy().collect()
        days = days_of(rows, time, timezone, label)
        if days.null_count():
            notes.append(f"{days.null_count():,} rows of {label} have no time and are left out.")
            rows, days = rows.filter(days.is_not_null()), days.drop_nulls()
        ordered, parts = _parts(rows, days)
        whole.append(ordered)
        units.append([part for _, part in parts])
        labels += [str(day) for day, _ in parts]
        ends.append((parts[0][0], parts[-1][0]) if parts else None)
    if ends[0] and ends[1] and ends[1][0] <= ends[0][1]:
        notes.append(f"The current table begins on {ends[1][0]}, before the reference ends ({ends[0][1]}).")
    return _count(units, names, labels, whole), notes


def _by_block(sides: tuple[Frame, Frame], names: Sequence[str], block: str) -> tuple[Counted, list[str]]:
    """Counts by block. Many blocks are joined to groups: every k-th of them, in the order of their values."""
    tables, notes = [], []
    for side, label in zip(sides, ("the reference", "the current table"), strict=True):
        rows = side.lazy().collect()
        if missing := rows[block].null_count():
            notes.append(f"{missing:,} rows of {label} have no '{block}' and are left out.")
            rows = rows.filter(rows[block].is_not_null())
        tables.append(rows)
    several = [rows[block].n_unique() for rows in tables]
    size = max(1, min(-(-sum(several) // MOST_BLOCKS), *several))
    if size > 1:
        notes.append(f"{sum(several):,} blocks were joined to groups of {size}, in the order of their values.")
    units, labels, whole = [], [], []
    for rows, blocks in zip(tables, several, strict=True):
        values = rows[block]
        ordinal = values.cast(pl.String) if values.dtype in (pl.Categorical, pl.Enum) else values
        codes = (ordinal.rank("dense").cast(pl.Int64) - 1) % max(1, blocks // size)
        ordered, parts = _parts(rows, codes)
        whole.append(ordered)
        units.append([part for _, part in parts])
        labels += [str(part[block][0] if size == 1 else code) for code, part in parts]
    return _count(units, names, labels, whole), notes


def _parts(rows: pl.DataFrame, keys: pl.Series) -> tuple[pl.DataFrame, list[tuple[Any, pl.DataFrame]]]:
    """Rows in the order of their keys, and the part of each key."""
    order = keys.arg_sort()
    ordered, sorted_keys = rows[order], keys[order]
    found = sorted_keys.rle().struct.unnest()
    parts, start = [], 0
    for length, key in found.iter_rows():
        parts.append((key, ordered.slice(start, length)))
        start += length
    return ordered, parts


def _measure(
    sides: tuple[Frame, Frame], names: Sequence[str], counted: Counted, outputs: set[str]
) -> list[ColumnDrift]:
    schemas = [side.collect_schema() for side in sides]
    found = []
    for name in names:
        of = described(name, (schemas[0].get(name), schemas[1].get(name)), counted.edges, name in outputs)
        if name in counted.edges:
            before, now = counted.sides(name)
            if not of.is_broken and name not in counted.changed:
                of = measured(of, counted.edges[name], before, now, counted.texts.get(name))
            else:
                of = msgspec.structs.replace(of, values_reference=int(before.present.sum()))
            if name in counted.changed and not of.is_broken:
                of = msgspec.structs.replace(of, verdict="broken", why=f"its type changed: {counted.changed[name]}")
        found.append(of)
    return found


def _window(counted: Counted, window: int | None) -> int:
    now = len(counted.labels) - counted.split
    if window is None:
        return WEEK if counted.split >= 20 * WEEK and now >= WEEK else 1
    if window < 1:
        raise DataError(f"a window has at least one day, not {window}")
    if window > now:
        raise DataError(f"a window of {window} days is longer than the current table, which has rows on {now}")
    return window


def _verdict(of: ColumnDrift, why: Surprise, alpha: float) -> ColumnDrift:
    if of.gap is None:
        return of
    p = why.by_column.get(of.column, math.nan)
    if math.isnan(p):
        return (
            of
            if of.is_broken
            else msgspec.structs.replace(of, why="the newest window has too few values of it to be judged")
        )
    known = msgspec.structs.replace(of, p_value=p, p_alone=_or_none(why.alone.get(of.column, math.nan)))
    if of.is_broken:
        return known
    if of.column in why.broken:
        return msgspec.structs.replace(known, verdict="broken", why=why.broken[of.column])
    said = _said(known, why.seen.get(of.column, ""))
    if why.least > alpha:
        needed = windows_needed(alpha)
        reason = f"{said}; {round(1 / why.least) - 1} windows or deals cannot show less than p {why.least:.2g}"
        return msgspec.structs.replace(known, why=f"{reason}, level {alpha:g} needs {needed}")
    if p > alpha:
        return msgspec.structs.replace(known, verdict="no evidence", why=said)
    if why.is_calibrated:
        return msgspec.structs.replace(known, verdict="moved", why=said)
    return msgspec.structs.replace(known, verdict="maybe", why=f"{said}; unusual only if rows are independent")


def _said(of: ColumnDrift, seen: str = "") -> str:
    """What is seen of a column that was measured."""
    parts = [seen or f"gap {of.gap:.3g}"]
    before, now = of.missing_reference or 0.0, of.missing_current or 0.0
    if abs(now - before) >= 0.001:
        parts.append(f"missing {share(before)} before, {share(now)} now")
    if of.outside is not None and of.outside >= 0.001:
        parts.append(f"{share(of.outside)} outside what the reference had")
    return ", ".join(parts)


def _rank(of: ColumnDrift) -> tuple[int, float, str]:
    return VERDICTS.index(of.verdict), -(of.gap or 0.0), of.column


def _headline(of: ColumnDrift) -> str:
    p = "" if of.p_value is None else f", p {_p(of.p_value)}"
    return f"{of.verdict}: {_said(of)}{p}"


def _cells(of: ColumnDrift) -> tuple[str, ...]:
    missing = ""
    if of.missing_reference is not None and of.missing_current is not None:
        both = share(of.missing_reference), share(of.missing_current)
        missing = both[0] if both[0] == both[1] else " → ".join(both)
    return (
        of.column,
        of.verdict,
        "" if of.gap is None else f"{of.gap:.3f}",
        "" if of.psi is None else f"{of.psi:.3f}",
        "" if of.p_value is None else _p(of.p_value),
        missing,
    )


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
