"""What a folder of files shows of its feeds: which there are, their times, which is predicted, where the truth is."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl

from holdfast.core import kinds
from holdfast.core.protocols import Source
from holdfast.errors import DataError, SourceError, did_you_mean

DAY = timedelta(days=1)
KNOWN_NAMES = ("known_at", "published_at", "listed_at", "available_at", "recorded_at", "received_at", "ingested_at")
"""Time columns that say when a row could be known, the best first."""
EVENT_NAMES = ("event_at", "scheduled_at", "observed_at", "occurred_at", "happened_at", "departed_at")
DATA = re.compile(r"(?P<stem>.+?)\.(?P<kind>csv|parquet|jsonl|ndjson)(?:\.gz|\.zst)?")
MOST_MISSING = 0.01
"""A time that is missing in a larger share of rows is no event time: each such row would go to quarantine."""
LONG_BEFORE = timedelta(days=2)
"""A time that typically lies further than this before its row was known tells of something else, such as a customer."""
VERY_LONG = timedelta(days=90)
"""A row that is predicted this long before its event, or a label that takes so long, is rather a wrong column."""
TIMES_IN_NAMES = re.compile(r"(?:_at|time|stamp|date|day|ts)$", re.IGNORECASE)
ISO = r"^\s*\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?$"
OTHER_TIMES = r"^\s*\d{1,4}[/.]\d{1,2}[/.]\d{1,4}\b|^\s*\d{1,2}:\d{2}"
SEPARATORS = (";", "\t", "|")
PART = re.compile(r"(?P<name>.+?)-\d.*")


class Found:
    """What was inferred so far: notes for a person, what they must look at, comments by path of the system file."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.comments: dict[str, str] = {}

    def note(self, sentence: str, path: str = "") -> None:
        """Say what was inferred; with a path it also becomes a comment there."""
        self.notes.append(sentence)
        if path:
            self._comment(sentence, path)

    def warn(self, sentence: str, path: str) -> None:
        """Say what is probably wrong; it becomes a comment too."""
        self.warnings.append(sentence)
        self._comment(sentence, path)

    def _comment(self, sentence: str, path: str) -> None:
        self.comments[path] = f"{self.comments[path]}\n{sentence}" if path in self.comments else sentence


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One feed as it was found: where it is read from, its rows, and its times."""

    name: str
    path: str
    frame: pl.DataFrame
    event_at: str | None = None
    known_at: str | None = None

    @property
    def times(self) -> list[str]:
        return [name for name, dtype in self.frame.schema.items() if isinstance(dtype, pl.Datetime)]

    @property
    def features(self) -> list[str]:
        """Columns that are not times."""
        return [name for name in self.frame.columns if name not in self.times]

    def earlier_times(self, found: Found, *, truth_at: str | None = None) -> list[str]:
        """Times beside its own two that were past when their row was known, so that a prediction may know them.

        A later one is noted: it may be a plan, or tell what happened after the prediction. `truth_at`, when the label
        was known, is none of them.
        """
        earlier = []
        for name in self.times:
            if self.known_at is None or name in (self.event_at, self.known_at, truth_at):
                continue
            present = self.frame.filter(pl.col(name).is_not_null())
            late = present.filter(pl.col(name) > pl.col(self.known_at)).height
            if not late:
                earlier.append(name)
            else:
                found.note(
                    f"{name} is no feature: in {late / present.height:.1%} of rows of {self.name} it lies after "
                    f"{self.known_at}, so it may tell what happened later; if it is a plan that was known, declare it "
                    "a `time`"
                )
        return earlier


def find_tables(directory: Path, root: Path, found: Found) -> dict[str, Table]:
    """Every feed of a folder: a file, files ``name-<number>...`` of one kind, or a folder of files."""
    if not directory.is_dir():
        raise SourceError(f"{directory}: there is no such folder; name the folder that holds the data files")
    places: dict[str, str] = {}
    for entry in sorted(directory.iterdir()):
        match = DATA.fullmatch(entry.name)
        if entry.is_dir() and any(DATA.fullmatch(file.name) for file in entry.iterdir()):
            places[entry.name] = entry.name
        elif match and (part := PART.fullmatch(match["stem"])):
            places[part["name"]] = f"{part['name']}-*{entry.name[len(match['stem']) :]}"
        elif match:
            places[match["stem"]] = entry.name
    if not places:
        raise SourceError(f"{directory}: no data here; put .csv, .parquet or .jsonl files, or folders of them, into it")
    files = kinds.load("sources", "files")
    tables = {}
    for name, place in places.items():
        source: Source = files(path=place, root=str(directory))
        frames = [source.read(batch) for batch in source.batches()]
        frame = pl.concat(frames, how="diagonal_relaxed")
        _refuse_separator(directory / place, frame)
        path = Path(os.path.relpath(directory / place, root)).as_posix()
        tables[name] = Table(name=name, path=path, frame=frame)
        found.note(f"feed '{name}': {len(frames)} file{'s' * (len(frames) != 1)}, {frame.height} rows")
    return tables


def _refuse_separator(path: Path, frame: pl.DataFrame) -> None:
    """Raises SourceError for a CSV file whose one column holds all of them."""
    only = frame.columns[0] if frame.width == 1 and ".csv" in path.name else ""
    for separator in SEPARATORS:
        if separator in only:
            raise SourceError(
                f"{path}: it seems to be separated by {separator!r}, for its one column is called '{only[:40]}'; "
                "write it with commas"
            )


def near_times(table: Table) -> str:
    """What to do about the columns of a table without times that look like one; empty where none does."""
    said = []
    for name, series in table.frame.to_dict().items():
        known = series.drop_nulls().head(50)
        if known.is_empty():
            continue
        if series.dtype == pl.String and known.str.contains(ISO).all():
            said.append(f"column '{name}' is text that reads as a time: end its name with `_at`, or store it as a time")
        elif series.dtype == pl.String and known.str.contains(OTHER_TIMES).all():
            said.append(f"column '{name}' holds text such as '{known[0]}': write times as ISO 8601")
        elif series.dtype.is_numeric() and TIMES_IN_NAMES.search(name):
            said.append(f"column '{name}' holds numbers: write epochs as ISO 8601")
    return f"; {'; '.join(said)}" if said else ""


def pick_label(tables: Mapping[str, Table], label: str | None, found: Found) -> tuple[str, str]:
    """Feed and column of the truth."""
    feed, dot, column = (label or "label").rpartition(".")
    if dot and feed in tables:
        if column not in tables[feed].frame.columns:
            near = did_you_mean(column, tables[feed].frame.columns)
            raise DataError(f"feed '{feed}' has no column '{column}'{near}")
        return feed, column
    if dot:
        raise DataError(f"no feed '{feed}'{did_you_mean(feed, list(tables))}")
    having = [name for name, table in tables.items() if column in table.frame.columns]
    if len(having) != 1:
        every = [f"{name}.{column}" for name, table in tables.items() for column in table.features]
        raise DataError(
            f"{len(having) or 'no'} feeds have a column '{column}': say which column is the truth, as feed.column"
            f"{did_you_mean(column, every)}"
        )
    found.note(f"the label is {having[0]}.{column}: no other feed has a column of that name", "data.label")
    return having[0], column


def pick_rows(tables: Mapping[str, Table], label_feed: str, label_column: str, found: Found) -> tuple[str, str]:
    """The feed that is predicted and the column that identifies its rows.

    It has a time and shares a column with the label's feed that is unique in both. Of several, the one is taken that
    holds most of the label's keys, then the one that shares most columns with all other feeds. Where no feed shares
    such a column, the label stands beside the rows that are predicted.
    """
    truth = tables[label_feed]
    candidates = []
    for name, table in tables.items():
        if name == label_feed or not table.times:
            continue
        for column in truth.features:
            if column in table.features and is_unique(table.frame[column]) and is_unique(truth.frame[column]):
                held = truth.frame.join(table.frame, on=column, how="semi").height / max(1, truth.frame.height)
                others = [other for other in tables.values() if other.name != name]
                shared = sum(len(set(table.features) & set(other.features)) for other in others)
                candidates.append((round(held, 3), shared, len(table.features), name, column))
    if candidates:
        *_, name, key = max(candidates)
        found.note(f"{name} is predicted: it shares the unique column {key} with {label_feed}", "data.rows")
        return name, key
    unique = [name for name in truth.features if name != label_column and is_unique(truth.frame[name])]
    unique.sort(key=lambda name: (name != "id", not name.endswith("id"), truth.frame[name].dtype.is_float()))
    if not unique:
        raise DataError(
            f"feed '{label_feed}' has no column that identifies a row, alone or together with another feed; add an `id`"
        )
    found.note(f"{label_feed} is predicted: no other feed shares a column with it that is unique in both", "data.rows")
    return label_feed, unique[0]


def pick_times(table: Table, *, is_rows: bool, truth_at: str | None, found: Found) -> Table:
    """`table` with the columns that say when something happened and when it could be known.

    A column with a name of KNOWN_NAMES says when a row could be known. Without one it is, in the feed that is
    predicted, the earliest time of the row, because a prediction is made before what it is about; in all others the
    latest time, because a row is not known before it is complete. The event is what `_pick_event` finds among the
    others; never `truth_at`, when the label of a row was known, unless there is no other.
    """
    if not table.times:
        return table
    named = [name for name in KNOWN_NAMES if name in table.times]
    known = named[0] if named else earliest_time(table) if is_rows else latest_time(table)
    others = [name for name in table.times if name not in (known, truth_at)] or [known]
    if len(table.times) > 1:
        why = "its name says so" if named else f"it is the {'earliest' if is_rows else 'latest'} time"
        found.note(f"a row of {table.name} is known at {known}: {why}", f"data.feeds.{table.name}")
    event = _pick_event(table, others, known, is_rows=is_rows, found=found)
    after = _typically_after(table, event, known)
    if is_rows and not named and after > VERY_LONG:
        found.warn(
            f"a row of {table.name} is typically known {after // DAY} d before its event ({known}, then {event}): "
            "check that both columns are right",
            f"data.feeds.{table.name}",
        )
    return msgspec.structs.replace(table, known_at=known, event_at=event)


def _pick_event(table: Table, others: list[str], known: str, *, is_rows: bool, found: Found) -> str:
    """The time at which what a row tells happened: of `others`, or `known` itself where none of them can be it.

    None that is missing in more than MOST_MISSING of rows; and, in the feed that is predicted, none without a name of
    EVENT_NAMES that typically lies LONG_BEFORE `known`. A name decides first, then how close to `known` it lies.
    """
    usable = []
    for name in others:
        missing = table.frame[name].null_count() / max(1, table.frame.height)
        before = -_typically_after(table, name, known)
        if missing > MOST_MISSING:
            found.note(f"{name} is no event time of {table.name}: it is missing in {missing:.1%} of rows")
        elif is_rows and name not in EVENT_NAMES and before > LONG_BEFORE:
            found.note(f"{name} is no event time of {table.name}: it typically lies {before // DAY} d before {known}")
        else:
            usable.append(name)
    named = [name for name in EVENT_NAMES if name in usable]
    event = min(named[:1] or usable, key=lambda name: _apart(table, name, known), default=known)
    if len(table.times) < 2:
        return event
    if named:
        found.note(f"what a row of {table.name} tells happened at {event}: its name says so")
        return event
    whys = ("no other time can be it", "no time beside these two can be it")
    why = whys[len(usable)] if len(usable) < 2 else f"of the other times it lies closest to {known}"
    found.note(f"what a row of {table.name} tells happened at {event}: {why}", f"data.feeds.{table.name}")
    return event


def earliest_time(table: Table) -> str:
    """The time column that is always there, or most often, and of those the earliest by its median."""
    return min(table.times, key=lambda name: (table.frame[name].null_count(), _middle(table.frame[name])))


def latest_time(table: Table) -> str:
    """The latest time column by its median."""
    return max(table.times, key=lambda name: _middle(table.frame[name]))


def is_unique(series: pl.Series) -> bool:
    """True for a column that is always there and never repeats a value; numbers with fractions identify nothing."""
    return (
        len(series) > 0 and not series.dtype.is_float() and not series.null_count() and series.n_unique() == len(series)
    )


def _typically_after(table: Table, name: str, known: str) -> timedelta:
    """How long after `known` a time lies, by the median of the rows that have both; negative where before."""
    median = table.frame.select((pl.col(name) - pl.col(known)).median()).item()
    return median if isinstance(median, timedelta) else timedelta(0)


def _apart(table: Table, name: str, known: str) -> timedelta:
    median = table.frame.select((pl.col(name) - pl.col(known)).abs().median()).item()
    return median if isinstance(median, timedelta) else timedelta.max


def _middle(series: pl.Series) -> float:
    middle = series.dt.epoch("us").median()
    return float(middle) if isinstance(middle, int | float) else 0.0
