"""Drafting: a folder of data files in; a system file with what was inferred, and why, out.

Everything pinned here (types, ranges, categories, joins) is what the data showed. A person reads the notes and
corrects the file; nothing is inferred again later.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl

from holdfast.core.evidence import Limit
from holdfast.core.meaning import percent
from holdfast.core.spec import (
    Data,
    Decide,
    Expect,
    Gate,
    Label,
    Model,
    Monitor,
    ReleasePlan,
    Response,
    Step,
    SystemSpec,
    Validate,
)
from holdfast.core.speclinks import RESERVED
from holdfast.core.specwords import fill_names
from holdfast.errors import DataError
from holdfast.flow.columns import describe
from holdfast.flow.days import day_expr
from holdfast.flow.draftfeeds import (
    DAY,
    VERY_LONG,
    Found,
    Table,
    find_tables,
    latest_time,
    near_times,
    pick_label,
    pick_rows,
    pick_times,
)
from holdfast.flow.draftjoins import join_feeds
from holdfast.flow.drafttasks import RANKING, Task, check_relevance, pick_lists, pick_task, with_classes
from holdfast.flow.evaluation import looks_in
from holdfast.flow.joins import assemble
from holdfast.flow.monitors import windows_in
from holdfast.stats.conformal import Look, split_levels

LEAST_UNITS = 30
"""What sticks to a version in a split needs so many values at least."""
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
VALIDATE = Validate()
REFERENCE_DAYS = 180
"""How many of the newest days a version is held to (`flow.reference`)."""
MONTH = timedelta(days=30)
LONG_ENDED = 30 * DAY
"""Data whose newest row is older is no stream that goes on."""
YEAR = timedelta(days=365.25)
LATE_LABELS = 7 * DAY
"""Labels that take longer come so late that an estimate might tell of quality sooner."""
FALSE_ALARMS = 1.0
"""The budget a month of a file that states none."""
MATURE_QUANTILE = 0.995
"""Labels of a day count as complete once this share of all labels has come after such a time."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A system file that was inferred: the system, one sentence per decision, and comments for its YAML by path."""

    spec: SystemSpec
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What is probably wrong, and must be looked at before the file is used; comments too."""
    comments: Mapping[str, str]


def draft(
    directory: Path,
    *,
    label: str | None = None,
    lists: str | None = None,
    system: str | None = None,
    timezone: str | None = None,
    root: Path | None = None,
    until: datetime | None = None,
    now: datetime | None = None,
) -> Draft:
    """Infer a system from a folder of files.

    `label` is ``feed.column``, or a column that only one feed has; None takes the only column named ``label``. With
    `lists`, a column of the predicted feed, rows are ordered within its values: the task is then `ranking`. The
    system is named after the folder unless `system` says otherwise. Paths in the file are relative to `root`, where
    it will stand (the folder itself by default). With `until`, only what was known by then is looked at, so that a
    backtest after it pins nothing that it could not have seen. With `now`, data that ended long ago is told. Reads
    every file once. Raises DataError or SourceError, saying what is missing, where the data does not show a system: no
    label, no time, nothing that identifies a row.
    """
    found = Found()
    tables = find_tables(directory, root or directory, found)
    label_feed, label_column = pick_label(tables, label, found)
    rows_feed, key = pick_rows(tables, label_feed, label_column, found)
    own_truth_at = latest_time(tables[rows_feed]) if label_feed == rows_feed and tables[rows_feed].times else None
    for name, table in tables.items():
        is_rows = name == rows_feed
        tables[name] = pick_times(table, is_rows=is_rows, truth_at=own_truth_at if is_rows else None, found=found)
    if until is not None:
        tables = {name: _known_by(table, until) for name, table in tables.items()}
        found.note(f"types, ranges and categories are those of what was known by {until:%Y-%m-%d}", "data.columns")
    rows = tables[rows_feed]
    if rows.event_at is None:
        near = near_times(rows)
        raise DataError(
            f"feed '{rows_feed}' is predicted but has no time column{near or '; add one such as `event_at`, ISO 8601'}"
        )
    truth_at = own_truth_at or tables[label_feed].known_at
    if truth_at is None:
        near = near_times(tables[label_feed])
        said = near or "; add `known_at`, when each was known"
        raise DataError(f"feed '{label_feed}' has the label but no time column{said}")
    if truth_at == rows.event_at and label_feed == rows_feed:
        found.warn(
            f"labels are known at {truth_at}, with the row itself, because no other time says when: then there is "
            "nothing left to predict; add a column with the time at which each label came",
            "data.label",
        )
    if now is not None and until is None:
        _say_age(rows, rows.known_at or rows.event_at, now, found)
    unit = _unit(rows, key, found) if lists is None else pick_lists(rows, key, lists, timezone or "UTC", found)
    feeds = join_feeds(tables, rows_feed, label_feed, key, found)
    data = Data(
        feeds={name: feed for name, (feed, _) in feeds.items()},
        rows=rows_feed,
        key=key,
        unit=unit,
        timezone=timezone or "UTC",
        label=Label(feed=label_feed, column=label_column, known_at=truth_at),
        columns={},
    )
    if lists is None:
        data = msgspec.structs.replace(data, label=with_classes(data.label, tables[label_feed].frame, found))
    else:
        check_relevance(data.label, tables[label_feed].frame)
    if timezone is None:
        found.note(
            "days are those of UTC, because no time zone was given; a day is the unit of evidence", "data.timezone"
        )
    frames = {name: tables[origin].frame for name, (_, origin) in feeds.items()}
    attributes = [*rows.features, *rows.earlier_times(found, truth_at=own_truth_at)]
    own = [column for column in attributes if column not in (key, unit, *RESERVED)]
    for column in sorted(RESERVED.intersection(attributes) - {key, label_column, lists}):
        found.note(f"{column} is no feature: Holdfast uses that name itself; rename it in the feed to use it")
    own += [unit] if unit and unit not in RESERVED and lists is None else []
    columns = describe(data, frames, own, label_column, found)
    data = msgspec.structs.replace(data, columns=columns)
    if not columns:
        raise DataError(f"feed '{rows_feed}' and what joins it have no column that can be a feature; add some")
    assembled = assemble(data, frames)
    data = msgspec.structs.replace(data, label=_label(data, assembled, found), expect=_expect(data, assembled, found))
    task = pick_task(data.label, assembled["label"], lists, found)
    monitors = _drift_monitors(data, assembled, found)
    if task.name != RANKING:
        _say_estimates(data.label, found)
    spec = _system(data, system or _name_of(directory), task, monitors)
    return Draft(spec=spec, notes=tuple(found.notes), warnings=tuple(found.warnings), comments=found.comments)


def _name_of(directory: Path) -> str:
    """The folder's name, or its parent's where it only says that it holds data."""
    folder = directory.resolve()
    return folder.parent.name if folder.name.lower() in ("data", "feeds", "input") else folder.name


def _known_by(table: Table, until: datetime) -> Table:
    if table.known_at is None:
        return table
    known = table.frame.filter(pl.col(table.known_at) <= until.astimezone(UTC))
    if known.is_empty():
        raise DataError(f"feed '{table.name}' has no row that was known by {until:%Y-%m-%d}; choose a later day")
    return msgspec.structs.replace(table, frame=known)


def _say_age(rows: Table, time: str, now: datetime, found: Found) -> None:
    """That data ended long ago, where it did, by its column of times."""
    newest = rows.frame[time].max()
    if not isinstance(newest, datetime) or now - newest <= LONG_ENDED:
        return
    age = now - newest
    said = f"{age / YEAR:.0f} years" if age >= 2 * YEAR else f"{age // DAY} days"
    found.note(
        f"the newest row of {rows.name} is {said} old ({newest:%Y-%m-%d}): freshness will alarm until newer ones come; "
        "`holdfast backtest` plays what is there",
        "monitors",
    )


def _unit(rows: Table, key: str, found: Found) -> str | None:
    """The text column with the most distinct values that repeat; with few, a canary's share could not be cut."""
    texts = [name for name in rows.features if name != key and rows.frame[name].dtype == pl.String]
    distinct = {name: rows.frame[name].n_unique() for name in texts}
    repeating = [name for name in texts if LEAST_UNITS <= distinct[name] <= rows.frame.height / 2]
    if not repeating:
        return None
    unit = max(repeating, key=lambda name: distinct[name])
    found.note(f"a split keeps each {unit} on one version: it has the most values that repeat", "data.unit")
    return unit


def _label(data: Data, assembled: pl.DataFrame, found: Found) -> Label:
    """The label with the time after which a day's labels count as complete."""
    delay = (assembled["label_known_at"] - assembled["event_at"]).drop_nulls().quantile(MATURE_QUANTILE, "higher")
    days = 1 if not isinstance(delay, timedelta) else max(1, -(-delay // DAY))
    found.note(
        f"labels count as complete {days} d after their day: {MATURE_QUANTILE:.1%} of them were known within that",
        "data.label",
    )
    if days * DAY > VERY_LONG:
        rows = data.feeds[data.rows]
        found.warn(
            f"labels count as complete only {days} d after their day, so nothing is judged, compared or noticed before "
            f"that; check event_at of {data.rows} ({rows.event_at}) and known_at of the label ({data.label.known_at})",
            "data.label",
        )
    return msgspec.structs.replace(data.label, mature_after=days * DAY)


def _expect(data: Data, assembled: pl.DataFrame, found: Found) -> Expect:
    """What the data showed, with room: columns that are always there, the share of labels, the number of rows."""
    height = assembled.height
    own = [name for name in data.columns if not any(name.startswith(f"{feed}_") for feed in data.feeds)]
    complete = {name: 0.99 for name in own if assembled[name].null_count() <= height / 1000}
    labelled = 1 - assembled["label"].null_count() / height if height else 0.0
    found.note(f"{percent(labelled)} of rows have a label", "data.expect")
    complete[data.label.column] = max(0.0, int(labelled * 95) / 100)
    return Expect(unique=data.key, complete=complete, rows=max(1, min(1000, height // 10)))


def _drift_monitors(data: Data, assembled: pl.DataFrame, found: Found) -> list[Monitor]:
    """Drift of the newest week, looked at every day, which sees on its first day what is large and what is small once
    the week is full of it, where history has windows enough for what a look a day may spend; else once a week."""
    daily, weekly = Monitor(check="drift", window=7 * DAY), Monitor(check="drift", every=7 * DAY, window=7 * DAY)
    days = assembled.group_by(day_expr(data.timezone).alias("day")).len().height
    # The oldest part is only fitted on: nothing was answered there that could be compared.
    history = min(REFERENCE_DAYS, days * VALIDATE.folds // (VALIDATE.folds + 1))
    windows = windows_in(daily, history)
    of_losses = Look(MONTH / DAY, looks_in(history), is_second=True)
    level = split_levels(FALSE_ALARMS, [Look(MONTH / daily.every, windows), Look(MONTH / DAY, None), of_losses])[0]
    if not level:
        least = f"one false alarm in {windows + 1} of its 30 looks a month is the least it could promise"
        found.note(f"drift is looked at once a week: {history} days of history; every day, {least}", "monitors")
        return [weekly]
    found.note(
        f"drift of the newest week is looked at every day, and that of the newest day: {history} days of history are "
        f"enough for a level of {level:.2g} a look",
        "monitors",
    )
    return [daily]


def _say_estimates(label: Label, found: Found) -> None:
    """Why quality is not estimated where labels come late: measured, it cost more false alarms than it found faults."""
    if label.mature_after > LATE_LABELS:
        found.note(
            f"labels take {label.mature_after // DAY} d, but estimated_quality is not watched: on four data sets it "
            "opened 0.16 false incidents a month, and of 51 faults 20 were found later with it and 4 sooner; add it by "
            "hand to see an estimate",
            "monitors",
        )


def _system(data: Data, name: str, task: Task, drift: list[Monitor]) -> SystemSpec:
    """Defaults that are right for a first system: every gate and monitor that its task allows."""
    metric = task.metric
    gates = [
        Gate(check="quality", options={"metric": metric}, limit=Limit(no_worse_than="baseline")),
        Gate(check="quality", options={"metric": metric}, limit=Limit(no_worse_than="live")),
        Gate(check="drift", limit=Limit(at_most=0.25)),
    ]
    monitors = [
        Monitor(check="quality", options={"metric": metric}),
        *drift,
        Monitor(check="silence"),
        Monitor(check="freshness"),
        Monitor(check="schema"),
    ]
    if task.is_probability:
        gates.append(Gate(check="calibration", limit=Limit(at_most=0.15)))
    steps = (
        Step(stage="shadow", least=2 * DAY),
        Step(stage="canary", share=0.1, least=3 * DAY),
        Step(stage="live"),
    )
    return SystemSpec(
        system=NOT_IN_NAMES.sub("-", name).strip("-_")[:64] or "system",
        data=data,
        model=Model(task=task.name),
        gates=fill_names(gates),
        release=ReleasePlan(steps=steps, decide=Decide(loss=task.loss, margin=task.margin)),
        monitors=fill_names(monitors),
        responses=(
            Response(on="quality", do="retrain", cooldown=14 * DAY),
            Response(on="drift", do="retrain", cooldown=28 * DAY),
            Response(on="any", do="notify"),
        ),
    )
