"""The rules of a lake."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from holdfast.core.protocols import TABLES, Field, Lake, Part, Same
from holdfast.core.times import MISSING_TIME
from holdfast.errors import NotFound, StateError
from holdfast.testing.builders import PREDICTION_FIELDS, START, hours, micros, predictions, refused

FEED_FIELDS = (Field("known_at", "time"), Field("row_id", "text"), *PREDICTION_FIELDS[2:])
FLOATS = (Field("in.x", "float"), Field("in.y", "float"))


def renamed(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of predictions as those of a feed."""
    return {{"event_at": "known_at", "prediction_id": "row_id"}.get(name, name): of for name, of in columns.items()}


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

    def test_the_last_written_row_of_an_identity_counts_in_every_stage(self, lake: Lake) -> None:
        expected = [("a", "1"), ("b", "2"), ("c", "4")]
        self._written_over_and_over(lake, "feeds/weather", expected)
        self._append(lake, renamed(predictions(["a"], carrier=["5"])), table="feeds/weather", schema=FEED_FIELDS)
        assert self._carriers(lake, "feeds/weather") == [("a", "5"), *expected[1:]]

    def test_of_predictions_the_first_written_row_of_an_identity_counts_in_every_stage(self, lake: Lake) -> None:
        expected = [("a", "1"), ("b", "1"), ("c", "2")]
        self._written_over_and_over(lake, "predictions", expected)
        self._append(lake, predictions(["a"], carrier=["5"]))
        assert self._carriers(lake) == expected
        lake.roll()
        assert self._carriers(lake) == expected

    def _written_over_and_over(self, lake: Lake, table: str, expected: list[tuple[str, str]]) -> None:
        """Rows a, b, c, again and again, from two writers; `expected` must be read at every stage of the segments."""
        is_feed = table != "predictions"
        schema = FEED_FIELDS if is_feed else PREDICTION_FIELDS
        named: Callable[[Mapping[str, Any]], dict[str, Any]] = renamed if is_feed else dict
        first, second = (lake.writer(table, "flights", schema) for _ in range(2))
        first.append(named(predictions(["a", "b"], carrier=["1", "1"])), 2)
        second.append(named(predictions(["b", "c"], at=START + hours(1), carrier=["2", "2"])), 2)
        first.append(named(predictions(["c", "c"], at=START + hours(2), step=hours(0), carrier=["3", "4"])), 2)
        assert self._carriers(lake, table) == expected
        second.close()
        assert self._carriers(lake, table) == expected
        lake.roll()
        assert self._carriers(lake, table) == expected
        first.close()
        lake.roll()
        assert self._carriers(lake, table) == expected

    def test_constants_and_a_matrix_read_like_columns(self, lake: Lake) -> None:
        schema = (*PREDICTION_FIELDS, *FLOATS)
        writer = lake.writer("predictions", "flights", schema)
        every: dict[str, Any] = {"carrier": "Zürich", "seats": 5, "distance": None}
        for n, constants in enumerate((every, {"carrier": None}, every)):
            columns = predictions([f"{n}a", f"{n}b"], at=START + hours(2 * n))
            varying = {name: values for name, values in columns.items() if name not in constants}
            writer.append(varying, 2, constants=constants, matrix=np.array([[n, 1.0], [n, np.nan]]))
        for _ in range(3):
            rows = lake.scan("predictions", "flights").to_dicts()
            assert [row["prediction_id"] for row in rows] == ["0a", "0b", "1a", "1b", "2a", "2b"]
            assert [row["carrier"] for row in rows] == ["Zürich", "Zürich", None, None, "Zürich", "Zürich"]
            assert [row["seats"] for row in rows] == [5, 5, 0, 1, 5, 5]
            assert [row["distance"] for row in rows] == [None, None, 0.0, 1.0, None, None]
            assert [(row["in.x"], row["in.y"]) for row in rows] == [(n, y) for n in (0, 1, 2) for y in (1.0, None)]
            writer.close()
            lake.roll()

    def test_a_column_that_is_the_same_as_another_reads_like_one_of_its_own(self, lake: Lake) -> None:
        more = (Field("seen_at", "time"), Field("places", "int"), Field("request", "text"))
        writer = lake.writer("predictions", "flights", (*PREDICTION_FIELDS, *more))
        columns = predictions(["a", "b"], carrier=["Zürich", None])
        del columns["event_at"], columns["prediction_id"]
        columns["request"] = ["a", "b"]
        same = {"event_at": Same("seen_at"), "prediction_id": Same("request", ":0é"), "places": Same("seats")}
        times = [micros(START), micros(START + hours(1))]
        writer.append({**columns, "seen_at": times}, 2, constants=same)
        for _ in range(3):
            rows = lake.scan("predictions", "flights").to_dicts()
            assert [row["prediction_id"] for row in rows] == ["a:0é", "b:0é"]
            assert [row["event_at"] for row in rows] == [START, START + hours(1)]
            assert [row["places"] for row in rows] == [row["seats"] for row in rows]
            writer.close()
            lake.roll()

    def test_a_column_is_the_same_only_as_one_of_its_type_that_is_given_row_by_row(self, lake: Lake) -> None:
        writer = lake.writer("predictions", "flights", (*PREDICTION_FIELDS, Field("seen_at", "time")))
        columns = predictions(["a"])
        del columns["event_at"]
        for same, message in (
            (Same("seen"), "did you mean 'seen_at'?"),
            (Same("event_at"), "not among the columns that are given row by row"),
            (Same("seats"), "of type time: it cannot be the same as 'seats', of type int"),
            (Same("seen_at", "x"), "and a suffix of 'x'"),
        ):
            with refused(StateError, message):
                writer.append({**columns, "seen_at": [micros(START)]}, 1, constants={"event_at": same})
        with refused(StateError, "no 'event_at'"):
            writer.append({**columns, "seen_at": [MISSING_TIME]}, 1, constants={"event_at": Same("seen_at")})

    def test_a_matrix_that_is_changed_after_append_is_not_changed_in_the_lake(self, lake: Lake) -> None:
        writer = lake.writer("predictions", "flights", (*PREDICTION_FIELDS, *FLOATS))
        matrix = np.ones((1, 2))
        writer.append(predictions(["a"]), 1, matrix=matrix)
        matrix[:] = 9.0
        row = lake.scan("predictions", "flights").to_dicts()[0]
        assert (row["in.x"], row["in.y"]) == (1.0, 1.0)

    def test_constants_and_a_matrix_that_do_not_fit_are_refused_whole(self, lake: Lake) -> None:
        good = predictions(["a", "b"])
        floats = np.ones((2, 2))
        wrong: list[tuple[dict[str, Any], Any, str]] = [
            ({"carrier": "a"}, floats, "'carrier' of lake table 'predictions' is given twice"),
            ({"carier": "a"}, floats, "'carier' that is not in the schema; did you mean 'carrier'?"),
            ({"in.x": 1.0}, floats, "'in.x' of lake table 'predictions' is given as a constant and in the matrix"),
            ({}, None, "lack column 'in.x'"),
            ({}, np.ones((2, 1)), "lack column 'in.x'"),
            ({}, np.ones((2, 3)), "matrix of 3 columns"),
            ({}, np.ones((3, 2)), "shape (3, 2)"),
            ({}, np.ones(2), "shape (2,)"),
            ({}, np.full((2, 2), "a"), "of float64"),
        ]
        writer = lake.writer("predictions", "flights", (*PREDICTION_FIELDS, *FLOATS))
        for constants, matrix, message in wrong:
            with refused(StateError, message):
                writer.append(good, 2, constants=constants, matrix=matrix)
        without = {name: values for name, values in good.items() if name not in ("carrier", "seats")}
        for constants, message in (
            ({"carrier": 5, "seats": 1}, "5 is neither valid text nor None"),
            ({"carrier": "\ud800", "seats": 1}, "neither valid text nor None"),
            ({"carrier": "a", "seats": 1.5}, "'seats'"),
            ({"carrier": "a", "seats": None}, "'seats'"),
            ({"carrier": "a", "seats": 1, "event_at": None}, "no 'event_at'"),
        ):
            with refused(StateError, message):
                writer.append(without, 2, constants=constants, matrix=floats)
        writer.append(good, 2, matrix=floats)
        assert self._ids(lake) == ["a", "b"]

    def test_after_a_sync_rows_are_still_there_whatever_happens_to_the_segment(self, lake: Lake) -> None:
        writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
        writer.sync()
        writer.append(predictions(["a"]), 1)
        writer.sync()
        writer.append(predictions(["b"], at=START + hours(1)), 1)
        writer.close()
        writer.sync()
        for _ in range(3):
            assert self._ids(lake) == ["a", "b"]
            lake.roll()

    def test_parts_and_the_rest_have_every_row_of_a_scan(self, lake: Lake) -> None:
        writers = [lake.writer("predictions", "flights", PREDICTION_FIELDS) for _ in range(3)]
        for n, writer in enumerate(writers):
            for _ in range(2):
                assert self._in_parts(lake) == self._in_scan(lake)
                writer.append(predictions([f"{n}a", f"{n}b", "z"], at=START + hours(9 * n), step=hours(20)), 3)
                assert self._in_parts(lake) == self._in_scan(lake)
            writer.close()
            lake.roll()
        since, until = START + hours(9), START + hours(40)
        assert self._in_parts(lake, since=since, until=until) == self._in_scan(lake, since=since, until=until)

    def test_a_part_never_changes_and_ends_when_others_take_its_place(self, lake: Lake) -> None:
        held: dict[str, tuple[Part, list[dict[str, Any]]]] = {}
        for n in range(6):
            self._append(lake, predictions([f"{n}a", f"{n}b"], at=START + hours(n), step=hours(20)))
            lake.roll()
            parts, _ = lake.parts("predictions", "flights")
            for name, (part, rows) in held.items():
                if name in {each.name for each in parts}:
                    assert self._read(lake, part) == rows
            held |= {each.name: (each, self._read(lake, each)) for each in parts}
        lake.roll()
        gone = held.keys() - {each.name for each in lake.parts("predictions", "flights")[0]}
        for name in gone:
            with refused(NotFound, name):
                self._read(lake, held[name][0])

    def test_a_part_says_what_it_holds_and_gives_the_columns_that_it_has(self, lake: Lake) -> None:
        self._append(lake, predictions(list("abc"), step=hours(1)))
        lake.roll()
        for part in lake.parts("predictions", "flights")[0]:
            rows = self._read(lake, part)
            times = [micros(row["event_at"]) for row in rows]
            assert (part.rows, part.low, part.high) == (len(rows), times[0], times[-1])
            [frame] = lake.read_part(part, ("gate", "seats"))
            assert frame.columns == ["seats"]

    def test_what_is_kept_with_a_part_is_there_until_the_part_is_gone(self, lake: Lake) -> None:
        self._append(lake, predictions(["a"]))
        lake.roll()
        parts, _ = lake.parts("predictions", "flights")
        for part in parts:
            assert lake.kept(part, "counts-1") is None
            lake.keep(part, "counts-1", b"one")
            lake.keep(part, "counts-2", b"two")
            lake.keep(part, "counts-1", b"three")
            lake.roll()
            assert (lake.kept(part, "counts-1"), lake.kept(part, "counts-2")) == (b"three", b"two")
        self._append(lake, predictions(["b"]))
        for _ in range(2):
            lake.roll()
        for part in parts:
            lake.keep(part, "counts-1", b"four")
            assert lake.kept(part, "counts-1") is None
            assert lake.kept(part, "counts-2") is None

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

    def _append(
        self,
        lake: Lake,
        columns: dict[str, Any],
        system: str = "flights",
        table: str = "predictions",
        schema: Sequence[Field] = PREDICTION_FIELDS,
    ) -> None:
        writer = lake.writer(table, system, schema)
        try:
            writer.append(columns, len(columns["distance"]))
        finally:
            writer.close()

    def _ids(self, lake: Lake, since: datetime | None = None, until: datetime | None = None) -> list[str]:
        frame = lake.scan("predictions", "flights", since=since, until=until)
        return frame["prediction_id"].to_list() if frame.width else []

    def _in_scan(self, lake: Lake, **bounds: Any) -> set[tuple[Any, ...]]:
        frame = lake.scan("predictions", "flights", **bounds)
        return set(frame.select("event_at", "prediction_id").rows()) if frame.width else set()

    def _in_parts(self, lake: Lake, **bounds: Any) -> set[tuple[Any, ...]]:
        """Time and identity of rows in parts and the rest, of each identity the one that a scan of the range gives."""
        parts, rest = lake.parts("predictions", "flights", **bounds)
        left = rest()
        rows = {(row["event_at"], row["prediction_id"]) for part in parts for row in self._read(lake, part)}
        rows |= set(left.select("event_at", "prediction_id").rows()) if left.width else set()
        low, high = bounds.get("since", START), bounds.get("until", START + hours(1000))
        inside = {row for row in rows if low <= row[0] < high}
        scanned = self._in_scan(lake, **bounds)
        assert {id for _, id in inside} == {id for _, id in scanned}
        return {row for row in inside if row in scanned}

    def _read(self, lake: Lake, part: Part) -> list[dict[str, Any]]:
        columns = [field.name for field in PREDICTION_FIELDS]
        return [row for frame in lake.read_part(part, columns) for row in frame.to_dicts()]

    def _carriers(self, lake: Lake, table: str = "predictions") -> list[tuple[str, str]]:
        frame = lake.scan(table, "flights")
        identity = TABLES[table.partition("/")[0]].identity
        return list(zip(frame[identity].to_list(), frame["carrier"].to_list(), strict=True))
