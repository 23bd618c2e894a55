"""Snapshots: the same rows are the same bytes, bad rows are told, broken expectations stop everything."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.evidence import Grade
from holdfast.core.signature import Column
from holdfast.core.spec import Data, Decide, Expect, Feed, Gate, Label, Model, ReleasePlan, Step, SystemSpec
from holdfast.engines.memory import MemoryBlobs, MemoryLake
from holdfast.errors import ExpectationFailed
from holdfast.flow.datasets import ASSEMBLED, Origin, as_known, read_snapshot, take_snapshot
from holdfast.flow.rows import quarantine

NOW = datetime(2020, 2, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def day(count: float) -> datetime:
    return datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=count)


SPEC = SystemSpec(
    system="trips",
    data=Data(
        feeds={
            "trips": Feed(from_="trips.csv", event_at="planned_at", key=("id",)),
            "ends": Feed(from_="ends.csv", known_at="ended_at"),
        },
        rows="trips",
        key="id",
        unit="bus",
        label=Label(feed="ends", column="late", known_at="ended_at", mature_after=timedelta(days=2)),
        columns={
            "length": Column(name="length", type="number", low=0, high=10),
            "line": Column(name="line", type="category", categories=("n", "s")),
        },
        expect=Expect(unique="id", rows=2, bad_rows=0.5),
    ),
    model=Model(task="classification"),
    gates=(Gate(check="schema"),),
    release=ReleasePlan(steps=(Step(stage="live"),), decide=Decide(loss="brier", margin=0.01)),
)


def rows(count: int = 10, **columns: list) -> pl.DataFrame:
    """Assembled rows, one a day, each with its label half a day later."""
    values = {
        "key": [str(i) for i in range(count)],
        "unit": [f"bus{i % 3}" for i in range(count)],
        "event_at": [day(i) for i in range(count)],
        "known_at": [day(i) for i in range(count)],
        "length": [float(i) for i in range(count)],
        "line": ["n", "s"] * (count // 2),
        "label": [float(i % 2) for i in range(count)],
        "label_known_at": [day(i + 0.5) for i in range(count)],
    }
    times = dict.fromkeys(("event_at", "known_at", "label_known_at"), TIME)
    return pl.DataFrame(values | columns, schema_overrides=times | {"label": pl.Float64})


def spec(**expect: object) -> SystemSpec:
    return replace(SPEC, data=replace(SPEC.data, expect=replace(SPEC.data.expect, **expect)))


class Place:
    def __init__(self) -> None:
        self.blobs = MemoryBlobs()
        self.lake = MemoryLake()

    def take(self, frame: pl.DataFrame, *, of: SystemSpec = SPEC, now: datetime = NOW, origin: Origin | None = None):
        return take_snapshot(of, frame, now=now, blobs=self.blobs, lake=self.lake, origin=origin or Origin())


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_snapshot_is_its_content(place):
    snapshot, frame = place.take(rows())
    data = place.blobs.get(snapshot.blob)
    assert snapshot.sha256 == snapshot.blob == hashlib.sha256(data).hexdigest()
    assert snapshot.id == snapshot.sha256[:16]
    assert read_snapshot(snapshot, place.blobs).equals(frame)
    assert (snapshot.rows, snapshot.labelled, snapshot.since, snapshot.until) == (10, 10, day(0), day(9))


def test_the_same_rows_are_the_same_bytes_however_they_lie_in_memory(place):
    whole = rows()
    parts = pl.concat([whole.head(3), whole.tail(7)], rechunk=False)
    assert place.take(whole)[0].sha256 == place.take(parts)[0].sha256
    assert place.take(whole, now=NOW + timedelta(days=1))[0].sha256 == place.take(whole)[0].sha256


def test_other_rows_are_other_bytes(place):
    other = rows(length=[float(i) for i in range(9)] + [9.5])
    assert place.take(rows())[0].sha256 != place.take(other)[0].sha256


def test_only_what_was_known_is_in_it(place):
    snapshot, frame = place.take(rows(), now=day(4.2))
    assert snapshot.rows == 5
    assert frame["label"].to_list() == [0.0, 1.0, 0.0, 1.0, None]
    assert frame["label_known_at"][4] is None
    assert as_known(rows(), day(4.5))["label"][4] == 0.0


def test_bad_rows_are_left_out_and_told_with_their_reason(place):
    bad = rows(
        key=["0", "1", "1", None, *map(str, range(4, 10))],
        length=[0.0, 1.0, 2.0, 3.0, float("inf"), *map(float, range(5, 10))],
    )
    snapshot, frame = place.take(bad)
    assert frame["key"].to_list() == ["0", "1", *map(str, range(5, 10))]
    assert frame["known_at"][1] == day(1)  # of two rows with one key the earlier stays
    assert (snapshot.rows_read, snapshot.rows, snapshot.rows_quarantined, snapshot.rows_dropped) == (10, 7, 3, 0)
    told = place.lake.scan("quarantine/trips", "trips")
    reasons = {"an earlier row has the same key", "the key is missing", "length is infinite"}
    assert set(told["reason"]) == reasons
    assert set(told["file"]) == {ASSEMBLED}
    assert json.loads(told["raw"][0])["event_at"].startswith("2020-01")
    place.take(bad)
    assert place.lake.scan("quarantine/trips", "trips").height == 3


def broken(place: Place, frame: pl.DataFrame, of: SystemSpec, **options: Origin) -> str:
    with pytest.raises(ExpectationFailed) as caught:
        place.take(frame, of=of, **options)
    assert list(place.blobs.keys()) == []
    return str(caught.value)


def test_too_few_rows_stop_the_snapshot_and_only_what_is_broken_is_told(place):
    text = broken(place, rows(), spec(rows=11))
    assert "system 'trips': 1 of 3 expectations of the data do not hold" in text
    assert text.splitlines()[1] == "  fail: 10 rows; expected at least 11"
    assert len(text.splitlines()) == 2


def test_too_many_bad_rows_stop_the_snapshot_those_of_ingestion_too(place):
    origin = Origin(rows_read=20, rows_quarantined=5)
    place.take(rows(), of=spec(bad_rows=0.25), origin=origin)
    place = Place()
    text = broken(place, rows(), spec(bad_rows=0.24), origin=origin)
    assert "fail: 5 of 20 rows (25.0%) are in quarantine; expected at most 24.0%" in text


def test_a_broken_expectation_says_why_rows_are_in_quarantine(place):
    held = {
        "row_id": ["a/0", "a/1"],
        "file": ["a"] * 2,
        "row": [0, 1],
        "reason": ["at is missing"] * 2,
        "raw": [""] * 2,
    }
    quarantine(place.lake, "trips", "trips", pl.DataFrame(held), now=NOW)
    text = broken(place, rows(length=[float("inf")] + [1.0] * 9), spec(rows=11))
    assert text.splitlines()[2:] == [
        "  quarantine of trips: 2 rows: at is missing",
        "  quarantine of trips: 1 rows: length is infinite",
    ]


def test_a_repeated_value_stops_the_snapshot(place):
    assert "fail: unit: 7 rows repeat a value" in broken(place, rows(), spec(unique="unit"))


def test_missing_values_stop_the_snapshot(place):
    text = broken(place, rows(line=["n", None] * 5), spec(complete={"line": 0.6}))
    assert "fail: line: 50.0% of 10 values are there; expected at least 60.0%" in text


def test_labels_are_counted_where_they_are_mature(place):
    frame = rows(label=[0.0, 1.0] * 3 + [None] * 4)
    place.take(frame, of=spec(complete={"late": 1.0}), now=day(8.5))  # days up to the sixth are mature
    place = Place()
    assert "late: 60.0% of 10 values" in broken(place, frame, spec(complete={"late": 0.61}))


def test_values_outside_range_and_categories_are_told_and_stop_nothing(place):
    frame = rows(length=[11.0, *map(float, range(9))], line=["x", *["n", "s"] * 4, "n"])
    verdicts = [v for v in place.take(frame)[0].verdicts if v.reading.name == "outside"]
    assert [(v.reading.subject, v.reading.value, v.grade) for v in verdicts] == [
        ("length", pytest.approx(0.1), Grade.WARN),
        ("line", pytest.approx(0.1), Grade.WARN),
    ]


def test_labels_that_the_task_cannot_take_are_told_and_too_many_stop_the_snapshot(place):
    frame = rows(label=[0.0, 1.0, 2.0, 0.5, *[0.0, 1.0] * 3])
    told = [v for v in place.take(frame)[0].verdicts if v.reading.name == "labels_not_taken"]
    assert [(v.reading.value, v.grade) for v in told] == [(pytest.approx(0.2), Grade.WARN)]
    assert "2 of 10 labels (20.0%) count as missing, such as 2: the task classification takes" in told[0].why
    place = Place()
    assert "fail: 2 of 10 labels" in broken(place, frame, spec(bad_rows=0.19))


def test_rows_read_are_kept_dropped_or_quarantined(place):
    origin = Origin(rows_read=20, rows_quarantined=2, spec_hash="abc", code="1.0+deadbeef")
    snapshot, _ = place.take(rows(), origin=origin)
    assert snapshot.rows_read == snapshot.rows + snapshot.rows_dropped + snapshot.rows_quarantined
    assert snapshot.rows_dropped == 8
    assert (snapshot.spec_hash, snapshot.code) == ("abc", "1.0+deadbeef")


def test_rows_that_ingestion_set_aside_count_as_read_and_as_bad(place):
    snapshot, _ = place.take(rows(), origin=Origin())
    with pytest.raises(ExpectationFailed, match="are in quarantine"):
        place.take(rows(), origin=Origin(rows_quarantined=2 * snapshot.rows))
