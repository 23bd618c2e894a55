"""For tests of Holdfast and of kinds made for it: a clock by hand, builders, and the rules of each port of state.

A suite of rules is a plain class: inherit it in a test module that has a fixture of the port's name.

    class TestMyCatalog(CatalogRules): ...

    @pytest.fixture
    def catalog(): ...
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import numpy as np

from holdfast.core.clock import ManualClock
from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.protocols import Blobs, Catalog, Field, Lake
from holdfast.core.records import (
    Baseline,
    Comparison,
    FileRef,
    Incident,
    Job,
    Mark,
    Move,
    Record,
    Release,
    Route,
    Run,
    Snapshot,
    SystemFile,
    Token,
    Version,
)
from holdfast.errors import HoldfastError, NotFound, StateError
from holdfast.security import audit

START = datetime(2013, 4, 1, tzinfo=UTC)
"""When builders say that things happened."""


def manual_clock(start: datetime = START) -> ManualClock:
    """A clock that moves when told to."""
    return ManualClock(start)


@contextmanager
def refused(error: type[HoldfastError], *words: str) -> Iterator[None]:
    """The block must raise `error` with all `words` in its message."""
    try:
        yield
    except error as raised:
        said = str(raised)
    else:
        raise AssertionError(f"not refused with {error.__name__}")
    missing = [word for word in words if word not in said]
    assert not missing, f"{missing} not in: {said}"


def hours(count: float) -> timedelta:
    """A duration of `count` hours."""
    return timedelta(hours=count)


HOUR = hours(1)


def a_verdict(value: float | None = 0.5) -> Verdict:
    """A verdict of a quality check."""
    reading = Reading(name="log_loss", value=value, rows=900, low=0.4, high=0.6)
    return Verdict(grade=Grade.PASS, check="quality", reading=reading, why="0.5 is at most 0.6", at=START)


def a_job(id: str = "job1", system: str = "flights", **changes: Any) -> Job:
    """A queued training job."""
    return Job(system=system, id=id, kind="train", at=START, **changes)


def one_of_each(system: str = "flights") -> list[Record]:
    """A record of every kind, with every field that is hard to store: times, NaN, infinities, nesting, no value."""
    move = Move(at=START, to="live", why="not worse by the margin")
    day = hours(24)
    return [
        SystemFile(
            system=system, id="file", path="holdfast.yaml", text="system: flights\n", spec_hash="ef" * 32, at=START
        ),
        Snapshot(
            system=system,
            id="0123456789abcdef",
            sha256="0123456789abcdef" * 4,
            blob="ab" * 32,
            at=START,
            rows=10,
            rows_read=12,
            rows_dropped=1,
            rows_quarantined=1,
            labelled=9,
            since=START - day,
            until=None,
            files=(FileRef(feed="flights", name="flights-1.csv", sha256="cd" * 32, rows=12),),
            spec_hash="ef" * 32,
            code="0.1.0",
            verdicts=(a_verdict(), a_verdict(None)),
        ),
        Run(
            system=system,
            id="run1",
            state="succeeded",
            snapshot="0123456789abcdef",
            trainer="lightgbm",
            params={"leaves": 31, "rates": [0.1, float("inf")], "since": START, "deep": {"a": None}},
            seed=7,
            started_at=START,
            metrics={"log_loss": 0.4, "roc_auc": float("nan")},
            folds=({"log_loss": float("nan")},),
            curves={"train": [0.6, 0.5], "valid": [0.6, float("inf")]},
            baselines=(Baseline(name="trivial", metrics={"roc_auc": float("nan")}),),
            holdout=(START - day, START),
            message="über 10 µs, «done» \u2603 \U0001f6eb",
        ),
        Version(
            system=system,
            id="1",
            run="run1",
            artifact="ab" * 32,
            bundle="cd" * 32,
            signature_hash="0123",
            at=START,
            signed_by="me",
            history=(move,),
        ),
        Release(
            system=system,
            id="rel1",
            state="shadow",
            run="run1",
            version="1",
            at=START,
            evidence=(a_verdict(),),
            comparison=Comparison(blocks=2, through=START, log_wealth_worse=(0.0, float("-inf"))),
            history=(move, move),
        ),
        Route(system=system, id="route", generation=3, live="1", canary_share=0.1, at=START),
        Incident(
            system=system,
            id="inc1",
            cause="quality:",
            check="quality",
            opened_at=START,
            last_at=START,
            first=a_verdict(),
            last=a_verdict(),
            actions=(move,),
        ),
        a_job(system=system, payload={"run": "run1", "nothing": None}, lease_until=START),
        Mark(system=system, id="drift", last_at=START, memory={"wealth": float("-inf"), "seen": [1, 2.5], "at": START}),
        Token(system="*", id="tok1", name="first", sha256="ab" * 32, at=START),
    ]


class CatalogRules:
    """What every catalog promises. Needs a fixture `catalog`, empty."""

    def test_a_record_reads_back_as_it_was_put(self, catalog: Catalog) -> None:
        for record in one_of_each():
            with catalog.begin() as transaction:
                transaction.put(record)
            with catalog.read() as view:
                found = view.get(type(record), record.system, record.id)
            assert repr(found) == repr(record)  # NaN does not equal itself, but looks the same

    def test_what_was_never_put_is_none(self, catalog: Catalog) -> None:
        with catalog.read() as view:
            assert view.get(Job, "flights", "job1") is None
            assert view.find(Job, "flights") == []

    def test_records_are_found_in_the_order_they_were_first_put(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            for id in ("b", "a", "c"):
                transaction.put(a_job(id))
        with catalog.begin() as transaction:
            transaction.put(a_job("b", message="again"))
        with catalog.read() as view:
            assert [job.id for job in view.find(Job, "flights")] == ["b", "a", "c"]
            assert [job.id for job in view.find(Job, "flights", newest=2)] == ["a", "c"]
            assert view.find(Job, "flights", newest=0) == []

    def test_records_are_found_by_state(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            for id, state in (("1", "queued"), ("2", "running"), ("3", "queued"), ("4", "done")):
                transaction.put(a_job(id, state=state))
            transaction.put(a_job("1", state="done"))
        with catalog.read() as view:
            assert [job.id for job in view.find(Job, "flights", state=("queued", "running"))] == ["2", "3"]
            assert [job.id for job in view.find(Job, "flights", state=["done"], newest=1)] == ["4"]
            assert view.find(Job, "flights", state=()) == []

    def test_systems_and_kinds_are_kept_apart(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            transaction.put(a_job("1", "flights"))
            transaction.put(a_job("1", "disks"))
            transaction.put(Mark(system="flights", id="1"))
            transaction.put(a_job("2", "flights"))
        with catalog.read() as view:
            assert [job.id for job in view.find(Job, "disks")] == ["1"]
            assert [(job.system, job.id) for job in view.find(Job)] == [
                ("flights", "1"),
                ("disks", "1"),
                ("flights", "2"),
            ]
            assert [job.id for job in view.find(Job, newest=1)] == ["2"]

    def test_a_transaction_sees_its_own_writes(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            transaction.put(a_job("1"))
            transaction.put(a_job("1", state="running"))
            assert transaction.find(Job, "flights", state=["running"]) == [a_job("1", state="running")]
            assert transaction.find(Job, "flights", state=["queued"]) == []

    def test_a_transaction_that_raises_leaves_nothing(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            transaction.put(a_job("1"))
        try:
            with catalog.begin() as transaction:
                transaction.put(a_job("1", state="done"))
                transaction.put(a_job("2"))
                self._audited(transaction, "never")
                raise KeyError("on purpose")
        except KeyError:
            pass
        with catalog.begin() as transaction:
            assert transaction.find(Job, "flights") == [a_job("1")]
            assert transaction.audit_log() == []
            assert self._audited(transaction, "first").seq == 1

    def test_a_view_does_not_change_and_does_not_wait_for_a_writer(self, catalog: Catalog) -> None:
        with catalog.read() as before:
            with catalog.begin() as transaction:
                transaction.put(a_job("1"))
                with catalog.read() as during:
                    assert during.find(Job, "flights") == []
            assert before.find(Job, "flights") == []
            with catalog.read() as after:
                assert after.find(Job, "flights") == [a_job("1")]

    def test_a_view_cannot_write(self, catalog: Catalog) -> None:
        with catalog.read() as view, refused(StateError, "reading only", "begin()"):
            view.put(a_job("1"))
        with catalog.read() as view, refused(StateError, "reading only"):
            self._audited(view, "never")

    def test_a_transaction_inside_another_of_the_same_thread_is_refused(self, catalog: Catalog) -> None:
        with catalog.begin() as outer:
            outer.put(a_job("1"))
            with refused(StateError, "already open"), catalog.begin():
                pass
        with catalog.begin() as transaction:
            assert transaction.find(Job, "flights") == [a_job("1")]

    def test_transactions_of_threads_follow_one_another(self, catalog: Catalog) -> None:
        def count() -> None:
            for _ in range(10):
                with catalog.begin() as transaction:
                    mark = transaction.get(Mark, "flights", "count")
                    so_far = mark.memory["n"] if mark else 0
                    transaction.put(Mark(system="flights", id="count", memory={"n": so_far + 1}))

        threads = [Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with catalog.read() as view:
            assert view.get(Mark, "flights", "count") == Mark(system="flights", id="count", memory={"n": 40})

    def test_ids_count_up_per_system_kind_and_prefix(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            for expected in range(1, 12):
                id = transaction.next_id(Job, "flights", "job")
                assert id == f"job{expected}"
                assert transaction.next_id(Job, "flights", "job") == id  # not used yet
                transaction.put(a_job(id))
            assert transaction.next_id(Job, "flights") == "1"
            assert transaction.next_id(Job, "disks", "job") == "job1"
            assert transaction.next_id(Run, "flights", "job") == "job1"

    def test_audit_entries_are_chained_over_all_systems(self, catalog: Catalog) -> None:
        for subject, system in (("a", "flights"), ("b", "disks"), ("c", "flights")):
            with catalog.begin() as transaction:
                self._audited(transaction, subject, system)
        with catalog.begin() as transaction:
            self._audited(transaction, "d")
            self._audited(transaction, "e")
        with catalog.read() as view:
            log = view.audit_log()
            assert [entry.seq for entry in log] == [1, 2, 3, 4, 5]
            audit.verify(log, remembered=log[2].hash)
            assert [entry.subject for entry in view.audit_log("flights", newest=3)] == ["c", "d", "e"]

    def test_a_closed_catalog_can_be_told_apart_from_an_empty_one(self, catalog: Catalog) -> None:
        catalog.close()
        with refused(StateError, "closed"), catalog.read():
            pass
        with refused(StateError, "closed"), catalog.begin():
            pass

    @staticmethod
    def _audited(transaction: Any, subject: str, system: str = "flights") -> Any:
        detail = {"from": ("1", 2), "share": 0.1, "at": START, "none": None}
        return transaction.audit(at=START, actor="me", action="release", system=system, subject=subject, detail=detail)


PREDICTION_FIELDS = (
    Field("event_at", "time"),
    Field("prediction_id", "text"),
    Field("distance", "float"),
    Field("seats", "int"),
    Field("carrier", "text"),
)


def micros(time: datetime) -> int:
    """Microseconds since 1970, as lake columns hold times."""
    return round((time - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def predictions(ids: list[str], *, at: datetime = START, step: timedelta = HOUR, **changes: Any) -> dict[str, Any]:
    """Columns for `PREDICTION_FIELDS`, a row per id, `step` apart."""
    count = len(ids)
    return {
        "event_at": np.array([micros(at + step * i) for i in range(count)], dtype=np.int64),
        "prediction_id": ids,
        "distance": np.arange(count, dtype=np.float64),
        "seats": np.arange(count, dtype=np.int64),
        "carrier": ["AA"] * count,
    } | changes


class LakeRules:
    """What every lake promises. Needs a fixture `lake`, empty."""

    def test_rows_read_back_with_their_types(self, lake: Lake) -> None:
        extremes = np.array([-(2**63), 2**63 - 1, 0], dtype=np.int64)
        floats = np.array([np.nan, -np.inf, 1e-310])
        texts = ["", None, "Zürich \u2603 \U0001f6eb"]
        self._append(lake, predictions(["a", "b", "c"], seats=extremes, distance=floats, carrier=texts))
        frame = lake.scan("predictions", "flights")
        assert frame["event_at"].to_list() == [START, START + hours(1), START + hours(2)]
        assert str(frame["event_at"].dtype) == "Datetime(time_unit='us', time_zone='UTC')"
        assert frame["seats"].to_list() == extremes.tolist()
        assert frame["distance"].to_list() == [None, float("-inf"), 1e-310]
        assert frame["carrier"].to_list() == texts
        assert frame.columns == [field.name for field in PREDICTION_FIELDS]

    def test_numbers_that_convert_without_loss_are_taken(self, lake: Lake) -> None:
        columns = predictions(["a"], distance=np.array([0.5], np.float32), seats=np.array([True]))
        self._append(lake, columns)
        row = lake.scan("predictions", "flights").to_dicts()[0]
        assert (row["distance"], row["seats"]) == (0.5, 1)

    def test_a_range_includes_its_start_and_excludes_its_end(self, lake: Lake) -> None:
        self._append(lake, predictions(list("abcd")))
        assert self._ids(lake, since=START + hours(1), until=START + hours(3)) == ["b", "c"]
        assert self._ids(lake, since=START + hours(2)) == ["c", "d"]
        assert self._ids(lake, until=START) == []

    def test_nothing_there_is_a_frame_without_columns(self, lake: Lake) -> None:
        assert lake.scan("predictions", "flights").shape == (0, 0)
        self._append(lake, predictions(["a"]))
        assert lake.scan("predictions", "flights", since=START + hours(1)).shape == (0, 0)
        assert lake.scan("predictions", "disks").shape == (0, 0)
        assert lake.scan("feeds/weather", "flights").shape == (0, 0)

    def test_the_last_written_row_of_an_identity_wins_in_every_stage(self, lake: Lake) -> None:
        first = lake.writer("predictions", "flights", PREDICTION_FIELDS)
        second = lake.writer("predictions", "flights", PREDICTION_FIELDS)
        first.append(predictions(["a", "b"], carrier=["1", "1"]), 2)
        second.append(predictions(["b", "c"], at=START + hours(1), carrier=["2", "2"]), 2)
        first.append(predictions(["c", "c"], at=START + hours(2), step=hours(0), carrier=["3", "4"]), 2)
        expected = [("a", "1"), ("b", "2"), ("c", "4")]
        assert self._carriers(lake) == expected
        second.close()
        assert self._carriers(lake) == expected
        lake.roll()
        assert self._carriers(lake) == expected
        first.close()
        lake.roll()
        assert self._carriers(lake) == expected
        self._append(lake, predictions(["a"], carrier=["5"]))
        assert self._carriers(lake) == [("a", "5"), *expected[1:]]

    def test_rows_are_ordered_by_time_and_then_by_writing(self, lake: Lake) -> None:
        self._append(lake, predictions(["c", "d"], at=START + hours(30)))
        self._append(lake, predictions(["z", "b"], step=hours(0)))
        self._append(lake, predictions(["a"], at=START))
        expected = ["z", "b", "a", "c", "d"]
        assert self._ids(lake) == expected
        lake.roll()
        assert self._ids(lake) == expected

    def test_a_column_that_a_segment_lacks_is_null_there(self, lake: Lake) -> None:
        self._append(lake, predictions(["a"]))
        writer = lake.writer("predictions", "flights", (*PREDICTION_FIELDS[:2], Field("gate", "text")))
        writer.append({"event_at": [micros(START + hours(1))], "prediction_id": ["b"], "gate": ["B4"]}, 1)
        for _ in range(2):
            rows = lake.scan("predictions", "flights").to_dicts()
            assert [(row["carrier"], row["gate"]) for row in rows] == [("AA", None), (None, "B4")]
            writer.close()
            lake.roll()

    def test_missing_times_are_null(self, lake: Lake) -> None:
        writer = lake.writer("predictions", "flights", (*PREDICTION_FIELDS[:2], Field("known_at", "time")))
        known = np.array([micros(START), np.iinfo(np.int64).min])
        times = predictions(["a", "b"])["event_at"]
        writer.append({"event_at": times, "prediction_id": ["a", "b"], "known_at": known}, 2)
        assert lake.scan("predictions", "flights")["known_at"].to_list() == [START, None]

    def test_a_row_without_its_time_is_refused(self, lake: Lake) -> None:
        with refused(StateError, "event_at", "no scan would find it"):
            self._append(lake, predictions(["a"], event_at=np.array([np.iinfo(np.int64).min])))
        assert self._ids(lake) == []

    def test_systems_and_tables_are_kept_apart(self, lake: Lake) -> None:
        self._append(lake, predictions(["a"]))
        self._append(lake, predictions(["b"]), system="disks")
        fields = (Field("known_at", "time"), Field("row_id", "int"))
        for feed in ("weather", "traffic"):
            writer = lake.writer(f"feeds/{feed}", "flights", fields)
            writer.append({"known_at": [micros(START)], "row_id": [len(feed)]}, 1)
            writer.close()
        lake.roll()
        assert self._ids(lake) == ["a"]
        assert lake.scan("feeds/weather", "flights")["row_id"].to_list() == [7]

    def test_what_is_changed_after_append_is_not_changed_in_the_lake(self, lake: Lake) -> None:
        columns = predictions(["a"])
        self._append(lake, columns)
        columns["distance"][0] = 99.0
        columns["carrier"][0] = "ZZ"
        row = lake.scan("predictions", "flights").to_dicts()[0]
        assert (row["distance"], row["carrier"]) == (0.0, "AA")

    def test_appending_no_rows_records_nothing(self, lake: Lake) -> None:
        self._append(lake, predictions([]))
        assert self._ids(lake) == []

    def test_an_unknown_table_is_named_with_the_near_miss(self, lake: Lake) -> None:
        with refused(NotFound, "predictons", "did you mean 'predictions'"):
            lake.writer("predictons", "flights", PREDICTION_FIELDS)
        with refused(NotFound, "predictons"):
            lake.scan("predictons", "flights")

    def test_a_schema_needs_the_columns_of_its_table(self, lake: Lake) -> None:
        with refused(StateError, "event_at", "time"):
            lake.writer("predictions", "flights", PREDICTION_FIELDS[1:])
        with refused(StateError, "prediction_id", "text or int"):
            lake.writer("predictions", "flights", (PREDICTION_FIELDS[0], Field("prediction_id", "float")))
        with refused(StateError, "carrier", "twice"):
            lake.writer("predictions", "flights", (*PREDICTION_FIELDS, Field("carrier", "text")))

    def test_columns_that_do_not_fit_the_schema_are_refused_whole(self, lake: Lake) -> None:
        good = predictions(["a", "b"])
        wrong: list[tuple[Mapping[str, Any], str]] = [
            ({name: values for name, values in good.items() if name != "seats"}, "lack column 'seats'"),
            ({**good, "gate": ["a", "b"]}, "'gate' that is not in the schema"),
            ({**good, "seats": np.array([1.5, 2.0])}, "'seats'"),
            ({**good, "seats": np.array([2**63, 1], dtype=np.uint64)}, "'seats'"),
            ({**good, "distance": np.array([1.0])}, "'distance' of lake table 'predictions' has shape (1,)"),
            ({**good, "distance": np.array([[1.0], [1.0]])}, "'distance'"),
            ({**good, "carrier": ["a"]}, "'carrier'"),
            ({**good, "carrier": ["a", 5]}, "5 is neither valid text nor None"),
            ({**good, "carrier": [None, 5]}, "5 is neither valid text nor None"),
            ({**good, "carrier": ["a", "\ud800"]}, "neither valid text nor None"),
        ]
        writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
        for columns, message in wrong:
            with refused(StateError, message):
                writer.append(columns, 2)
        writer.append(good, 2)
        assert self._ids(lake) == ["a", "b"]

    def test_types_that_do_not_mix_are_named_and_the_rest_stays_readable(self, lake: Lake) -> None:
        self._append(lake, predictions(["a"]))
        fields = (*PREDICTION_FIELDS[:4], Field("carrier", "time"))
        later = START + hours(1)
        writer = lake.writer("predictions", "flights", fields)
        writer.append(predictions(["b"], at=later, carrier=[micros(START)]), 1)
        writer.close()
        for _ in range(2):
            with refused(StateError, "carrier", "text", "time", "do not mix"):
                lake.scan("predictions", "flights")
            assert self._ids(lake, until=later) == ["a"]
            assert self._ids(lake, since=later) == ["b"]
            lake.roll()

    def test_a_closed_writer_or_lake_refuses_rows(self, lake: Lake) -> None:
        writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
        writer.close()
        writer.close()
        with refused(StateError, "closed"):
            writer.append(predictions(["a"]), 1)
        other = lake.writer("predictions", "flights", PREDICTION_FIELDS)
        lake.close()
        with refused(StateError, "closed"):
            other.append(predictions(["a"]), 1)
        with refused(StateError, "closed"):
            lake.scan("predictions", "flights")

    def test_only_sealed_segments_are_rolled_and_only_once(self, lake: Lake) -> None:
        writers = [lake.writer("predictions", "flights", PREDICTION_FIELDS) for _ in range(3)]
        for writer, id in zip(writers, "abc", strict=True):
            writer.append(predictions([id]), 1)
        writers[0].close()
        writers[1].close()
        assert lake.roll() == 2
        assert lake.roll() == 0
        writers[2].append(predictions(["d"]), 1)
        assert sorted(self._ids(lake)) == ["a", "b", "c", "d"]

    def _append(self, lake: Lake, columns: dict[str, Any], system: str = "flights") -> None:
        writer = lake.writer("predictions", system, PREDICTION_FIELDS)
        try:
            writer.append(columns, len(columns["event_at"]))
        finally:
            writer.close()

    def _ids(self, lake: Lake, since: datetime | None = None, until: datetime | None = None) -> list[str]:
        frame = lake.scan("predictions", "flights", since=since, until=until)
        return frame["prediction_id"].to_list() if frame.width else []

    def _carriers(self, lake: Lake) -> list[tuple[str, str]]:
        frame = lake.scan("predictions", "flights")
        return list(zip(frame["prediction_id"].to_list(), frame["carrier"].to_list(), strict=True))


class BlobsRules:
    """What every blob store promises. Needs a fixture `blobs`, empty."""

    def test_bytes_read_back_under_the_hash_of_their_content(self, blobs: Blobs) -> None:
        key = blobs.put(b"abc")
        assert key == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
        assert blobs.get(key) == b"abc"
        assert blobs.has(key)

    def test_the_same_bytes_are_kept_once(self, blobs: Blobs) -> None:
        assert blobs.put(b"abc") == blobs.put(b"abc")
        other = blobs.put(b"")
        assert list(blobs.keys()) == sorted([blobs.put(b"abc"), other])

    def test_what_was_never_put_is_not_found(self, blobs: Blobs) -> None:
        for key in ("0" * 64, "short", "../../etc/passwd"):
            assert not blobs.has(key)
            with refused(NotFound, key):
                blobs.get(key)
        assert list(blobs.keys()) == []
