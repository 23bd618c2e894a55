"""Counts by hour are equal to those of the rows that a scan gives, or say that they do not know."""

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.checks.drift import Drift
from holdfast.checks.schema import Schema
from holdfast.core.blocks import block_bounds
from holdfast.core.evidence import Block, Window
from holdfast.core.protocols import Field
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import SystemSpec
from holdfast.core.times import MISSING_TIME
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest
from holdfast.flow.buckets import Buckets, step_us
from holdfast.flow.predictions import LivePredictions
from holdfast.stats.histogram import Edges
from holdfast.testing import START, hours, micros

FIELDS = (
    *(Field(name, "text") for name in ("prediction_id", "request_id", "key", "version", "stage", "status")),
    *(Field(name, "time") for name in ("event_at", "predicted_at")),
    *(Field(name, "float") for name in ("queue_us", "run_us")),
    Field("in.c", "text"),
    *(Field(name, "float") for name in ("in.x", "out.probability")),
)
COLUMNS = {"x": Column(name="x", type="number"), "c": Column(name="c", type="category")}
EDGES = {
    "x": Edges(cuts=(0.0, 1.0, 2.0, 3.0)),
    "c": Edges(categories=("a", "b")),
    "probability": Edges(cuts=(0.0, 0.5, 1.0)),
    "absent": Edges(cuts=(0.0, 1.0)),
}
OTHERS = {**EDGES, "x": Edges(cuts=(0.0, 1.5, 3.0))}
FIRST = START.date()


class Answers:
    """Writes answers into a lake on files, and reads them back."""

    def __init__(self, lake: FileLake) -> None:
        self.lake = lake
        self.asked = 0
        self._writer: Any = None

    def write(self, *rows: dict[str, Any], fields: tuple[Field, ...] = FIELDS) -> None:
        """One append; a row has ``at`` and what differs from a plain answer."""
        plain = {"stage": "live", "status": "ok", "version": "1", "queue_us": 1.0, "run_us": 1.0}
        plain |= {"in.x": 1.0, "in.c": "a", "out.probability": 0.5, "request_id": "r", "key": None}
        filled = []
        for row in rows:
            self.asked += 1
            at = micros(row["at"])
            own = {"event_at": at, "predicted_at": at, "prediction_id": f"p{self.asked}"}
            filled.append({**plain, **own, **row})
        if self._writer is None or fields != FIELDS:
            self.seal()
            self._writer = self.lake.writer("predictions", "orders", fields)
        columns = {field.name: [row[field.name] for row in filled] for field in fields}
        as_numbers = {"float": np.float64, "time": np.int64, "int": np.int64}
        for field in fields:
            if field.type in as_numbers:
                columns[field.name] = np.array(columns[field.name], dtype=as_numbers[field.type])
        self._writer.append(columns, len(filled))

    def seal(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def roll(self) -> None:
        self.seal()
        self.lake.roll()

    def counted_files(self) -> list[str]:
        return sorted(path.name for path in self.lake._directory.rglob("*.counts-*"))


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    lake = FileLake(tmp_path, MemoryManifest())
    yield Answers(lake)
    lake.close()


@pytest.fixture
def live_of(a_spec: Callable[..., SystemSpec]) -> Callable[..., LivePredictions]:
    def make(lake: FileLake, timezone: str = "UTC") -> LivePredictions:
        return LivePredictions(a_spec(timezone=timezone, columns=COLUMNS), lake, "probability")

    return make


def plain(counts: dict[str, Any] | None) -> dict[str, list[int]] | None:
    return None if counts is None else {name: cells.tolist() for name, cells in sorted(counts.items())}


def by_rows(live: LivePredictions, start: datetime, end: datetime, edges: Any = EDGES) -> Any:
    return plain(live.buckets.of_rows(live.answered(start, end), edges))


def by_buckets(live: LivePredictions, start: datetime, end: datetime, edges: Any = EDGES) -> Any:
    return plain(live.buckets.counts(start, end, edges))


def count_all(live: LivePredictions, edges: Any = EDGES, **how: Any) -> int:
    return len(list(live.buckets.counting(edges, **how)))


ROWS = st.fixed_dictionaries(
    {
        "at": st.integers(0, 4 * 24 * 12).map(lambda n: START + timedelta(minutes=5 * n)),
        "status": st.sampled_from(["ok"] * 8 + ["failed"]),
        "stage": st.sampled_from(["live"] * 6 + ["canary", "batch"]),
        "in.x": st.sampled_from([np.nan, -np.inf, np.inf, -1.0, 0.0, 0.5, 1.0, 2.9, 3.0, 4.0]),
        "in.c": st.sampled_from([None, "a", "b", "Zürich"]),
    }
)
TWICE = st.builds(lambda row, id: {**row, "prediction_id": f"t{id}"}, ROWS, st.integers(0, 5))
STEPS = ["seal", "roll", "count", "roll and count"]


def follow(answers: Answers, live: LivePredictions, steps: list[Any]) -> None:
    for step in steps:
        if isinstance(step, list):
            answers.write(*step)
        elif step == "seal":
            answers.seal()
        else:
            if "roll" in step:
                answers.roll()
            if "count" in step:
                count_all(live)


def windows(timezone: str) -> Iterator[tuple[datetime, datetime]]:
    days = [block_bounds(timezone, FIRST + timedelta(days=n)) for n in range(-1, 6)]
    yield from days
    yield days[0][0], days[-1][1]
    yield days[2][0], days[3][1]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.one_of(st.lists(ROWS, min_size=1, max_size=12), st.sampled_from(STEPS)), max_size=12),
    timezone=st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
)
def test_buckets_equal_rows_however_they_were_rolled_merged_and_counted(live_of, steps, timezone) -> None:
    with TemporaryDirectory() as directory:
        lake = FileLake(Path(directory), MemoryManifest())
        answers, live = Answers(lake), live_of(lake, timezone)
        follow(answers, live, steps)
        for start, end in windows(timezone):
            rows, buckets = by_rows(live, start, end), by_buckets(live, start, end)
            has_parts = bool(lake.parts("predictions", "orders", since=start, until=end)[0])
            assert buckets == (rows if has_parts else None)
            # Another process, which has nothing in memory.
            assert by_buckets(live_of(lake, timezone), start, end) == buckets
        lake.close()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(st.lists(st.one_of(ROWS, TWICE), min_size=1, max_size=8), st.sampled_from(STEPS)), max_size=12
    ),
    timezone=st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu"]),
)
def test_where_ids_were_recorded_twice_buckets_equal_rows_or_leave_it_to_them(live_of, steps, timezone) -> None:
    with TemporaryDirectory() as directory:
        lake = FileLake(Path(directory), MemoryManifest())
        answers, live = Answers(lake), live_of(lake, timezone)
        follow(answers, live, steps)
        for start, end in list(windows(timezone))[:-2]:  # days are what a scan removes repeats in
            assert by_buckets(live, start, end) in (None, by_rows(live, start, end))
            assert by_buckets(live_of(lake, timezone), start, end) in (None, by_rows(live, start, end))
        lake.close()


def test_what_was_rolled_and_not_counted_is_counted_when_it_is_looked_at(answers: Answers, live_of) -> None:
    answers.write(*({"at": START + hours(n), "in.x": float(n % 4)} for n in range(20)))
    answers.roll()
    assert not answers.counted_files()  # as after a kill -9 between rolling and counting
    live = live_of(answers.lake)
    start, end = START, START + hours(24)
    assert by_buckets(live, start, end) == by_rows(live, start, end)
    assert len(answers.counted_files()) == 1
    assert count_all(live_of(answers.lake)) == 0


def test_counts_that_are_damaged_are_made_again(answers: Answers, live_of) -> None:
    answers.write({"at": START}, {"at": START + hours(1)})
    answers.roll()
    count_all(live_of(answers.lake))
    [path] = answers.lake._directory.rglob("*.counts-*")
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\x00" + whole[1:], whole.replace(b"\x02", b"\x03")):
        assert damaged != whole
        path.write_bytes(damaged)
        live = live_of(answers.lake)
        assert by_buckets(live, START, START + hours(24)) == by_rows(live, START, START + hours(24))
        assert path.read_bytes() == whole


def test_counts_go_with_the_file_that_was_rolled_into_another(answers: Answers, live_of) -> None:
    live = live_of(answers.lake)
    seen = set()
    for n in range(3):
        answers.write({"at": START + hours(n)})
        answers.roll()
        count_all(live)
        seen |= set(answers.counted_files())
    assert len(seen) > 1
    answers.lake.roll()
    assert len(answers.counted_files()) == len(answers.lake.parts("predictions", "orders")[0])
    assert by_buckets(live, START, START + hours(24)) == by_rows(live, START, START + hours(24))


def test_each_reference_has_counts_of_its_own(answers: Answers, live_of) -> None:
    answers.write(*({"at": START, "in.x": x} for x in (0.2, 1.2, 1.7, 9.0)))
    answers.roll()
    live = live_of(answers.lake)
    for edges in (EDGES, OTHERS, EDGES):
        assert by_buckets(live, START, START + hours(1), edges) == by_rows(live, START, START + hours(1), edges)
    assert len(answers.counted_files()) == 2
    in_another_order = dict(reversed(EDGES.items()))
    assert by_buckets(live, START, START + hours(1), in_another_order) == by_rows(live, START, START + hours(1))
    assert len(answers.counted_files()) == 2


def test_a_request_that_was_repeated_counts_once(answers: Answers, live_of) -> None:
    answers.write(*({"at": START + hours(n)} for n in range(10)), {"at": START + hours(1), "prediction_id": "twice"})
    answers.roll()
    live = live_of(answers.lake)
    count_all(live)
    answers.write({"at": START + hours(1), "prediction_id": "twice", "in.x": 2.5})
    assert by_buckets(live, START, START + hours(24)) is None  # not rolled yet
    answers.roll()
    assert len(answers.lake.parts("predictions", "orders")[0]) == 2  # the second is too small to take in the first
    assert by_buckets(live, START, START + hours(24)) is None
    assert by_buckets(live, START + hours(2), START + hours(24)) is not None  # only that hour is in doubt
    block = live.window(FIRST, FIRST, {"edges": EDGES}, START + hours(25)).blocks[0]
    before = Block(FIRST, START - hours(24), START, lambda: pl.DataFrame({"x": [1.0]}))
    facts = {"edges": EDGES}
    [reading, *_] = Drift(columns=("x",)).measure(Window([block], live.roles(), facts), Window([before], live.roles()))
    assert "11 values present" in reading.note


def test_a_column_whose_type_changed_has_no_counts_and_the_others_have(answers: Answers, live_of) -> None:
    fields = tuple(Field("in.c", "float") if field.name == "in.c" else field for field in FIELDS)
    answers.write({"at": START, "in.c": 5.0}, fields=fields)
    answers.roll()
    assert by_buckets(live_of(answers.lake), START, START + hours(1)).keys() == EDGES.keys() - {"c"}


def test_a_range_that_cuts_a_bucket_is_left_to_the_rows(answers: Answers, live_of) -> None:
    answers.write({"at": START})
    answers.roll()
    live = live_of(answers.lake)
    assert by_buckets(live, START, START + timedelta(minutes=30)) is None
    assert by_buckets(live, START, START + hours(1)) is not None


def test_a_window_of_the_drift_monitor_needs_no_row(tmp_path: Path, live_of) -> None:
    class Unread(FileLake):
        def scan(self, table: str, system: str, **bounds: Any) -> pl.DataFrame:
            raise AssertionError("the rows were read")

    manifest = MemoryManifest()
    answers = Answers(FileLake(tmp_path, manifest))
    values = np.random.default_rng(1).uniform(0, 3, 700)
    answers.write(*({"at": START + hours(n / 5), "in.x": float(x)} for n, x in enumerate(values[:600])))
    answers.roll()
    answers.write(*({"at": START + hours(n / 5), "in.x": float(x)} for n, x in enumerate(values[600:], 600)))
    answers.seal()
    unread, read = live_of(Unread(tmp_path, manifest)), live_of(answers.lake)
    now = START + timedelta(days=7)
    facts = {"edges": EDGES}
    check = Drift(columns=("x", "probability"))
    for live in (unread, read):
        days = live.window(FIRST, FIRST + timedelta(days=4), facts, now)
        if live is read:
            rows = [block.rows() for block in days.blocks]
            assert sum(frame.height for frame in rows) == 600
        found = check.measure(Window(days.blocks[2:], days.roles, facts), Window(days.blocks[:2], days.roles, facts))
        moved = [reading for reading in found if reading.name == check.distance]
        assert [(reading.value is not None, reading.rows) for reading in moved] == [(True, 360), (True, 360)]


def test_a_window_of_the_schema_monitor_needs_no_row(tmp_path: Path, live_of) -> None:
    class Unread(FileLake):
        def scan(self, table: str, system: str, **bounds: Any) -> pl.DataFrame:
            raise AssertionError("the rows were read")

    manifest = MemoryManifest()
    answers = Answers(FileLake(tmp_path, manifest))
    answers.write(*({"at": START + hours(n / 5), "in.x": float(n % 4), "in.c": "ab"[n % 2]} for n in range(300)))
    answers.roll()
    answers.write(*({"at": START + hours(n / 5), "in.x": 9.0} for n in range(300, 320)))
    answers.seal()
    columns = (
        Column(name="x", type="number", low=0.0, high=3.0),
        Column(name="c", type="category", categories=("a", "b")),
    )
    signature = Signature(columns=columns, task="classification", output="probability")
    facts = {"signature": signature, "edges": EDGES}
    found = []
    for live in (live_of(Unread(tmp_path, manifest)), live_of(answers.lake)):
        days = live.window(FIRST, FIRST + timedelta(days=2), facts, START + timedelta(days=7))
        found.append(Schema().measure(days if not found else Window(days.blocks, days.roles, {"signature": signature})))
    assert found[0] == found[1]
    assert [(reading.name, reading.value) for reading in found[0]] == [
        ("rows_outside", 1 / 16),
        ("outside", 1 / 16),
        ("outside", 0.0),
    ]


def test_a_labelled_day_counts_every_answer(answers: Answers, live_of) -> None:
    answers.write(*({"at": START + hours(n), "key": "same"} for n in range(5)))
    answers.roll()
    live = live_of(answers.lake)
    block = live.labelled_block(FIRST)
    assert block.rows().height == 1  # the last answer for its key
    counts = block.counts({**EDGES, "label": Edges(cuts=(0.0, 1.0))})
    assert counts is not None
    assert "label" not in counts
    assert counts["x"].sum() == 5


def test_only_parts_after_a_time_are_counted_and_again_means_all_of_them(answers: Answers, live_of) -> None:
    for n in range(3):
        answers.write({"at": START + timedelta(days=n)})
    answers.roll()
    live = live_of(answers.lake)
    assert count_all(live, since=START + timedelta(days=2)) == 1
    steps = list(live.buckets.counting(EDGES))
    assert [(step.done, step.of, step.rows) for step in steps] == [(1, 2, 1), (2, 2, 1)]
    assert count_all(live) == 0
    assert count_all(live, again=True) == 3


def test_a_lake_without_parts_leaves_it_to_the_rows(lake, traffic, a_spec) -> None:
    traffic.answer([START], [0.5])
    live = LivePredictions(a_spec(), lake, "probability")
    assert live.buckets.counts(START, START + hours(24), EDGES) is None
    assert list(live.buckets.counting(EDGES)) == []


def test_rows_of_a_year_that_no_calendar_has_are_counted(answers: Answers, live_of) -> None:
    answers.write({"at": START, "event_at": 2**62}, {"at": START, "event_at": MISSING_TIME + 1}, {"at": START})
    answers.roll()
    live = live_of(answers.lake)
    assert count_all(live) == 3
    assert by_buckets(live, START, START + hours(1)) == by_rows(live, START, START + hours(1))


def test_a_bucket_is_an_hour_or_a_quarter_where_the_clocks_need_it() -> None:
    zones = ("UTC", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe")
    assert [step_us(zone) // 60_000_000 for zone in zones] == [60, 60, 15, 15, 15]
    for zone in zones:
        for day in (date(2013, 4, 7), date(2024, 10, 6)):
            assert all(micros(bound) % step_us(zone) == 0 for bound in block_bounds(zone, day))


def test_no_columns_are_nothing_to_count(answers: Answers, live_of) -> None:
    answers.write({"at": START})
    answers.roll()
    buckets: Buckets = live_of(answers.lake).buckets
    assert buckets.counts(START, START + hours(1), {}) == {}
