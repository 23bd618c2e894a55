"""A system file from a folder: what is found, how it joins, what is pinned, and what is said where it cannot be."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from holdfast.core.signature import Column
from holdfast.core.spec import Feed
from holdfast.core.specdump import dump_spec
from holdfast.core.specfile import parse_spec
from holdfast.errors import DataError, SourceError
from holdfast.flow import reference
from holdfast.flow.drafting import FALSE_ALARMS, LEAST_UNITS, REFERENCE_DAYS, Draft, draft

HOUR = timedelta(hours=1)
START = datetime(2020, 1, 1, tzinfo=UTC)
COUNT = 400


def hours(every: float = 1, count: int = COUNT, after: float = 0) -> list[datetime]:
    return [START + (i * every + after) * HOUR for i in range(count)]


def trips() -> pl.DataFrame:
    places = range(COUNT)
    return pl.DataFrame(
        {
            "id": [f"t{i}" for i in places],
            "planned_at": hours(after=3),
            "listed_at": hours(),
            "bus": [f"bus{i % 40}" for i in places],
            "station": ["abc"[i % 3] for i in places],
            "line": ["north" if i % 2 else "south" for i in places],
            "length": [10 + i % 7 for i in places],
            "always": [1] * COUNT,
            "remark": [f"{i} {i}" for i in places],
            "is_night": [i % 24 < 6 for i in places],
        }
    )


def departures() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [f"t{i}" for i in range(COUNT)],
            "departed_at": hours(after=3.1),
            "station": ["abc"[i % 3] for i in range(COUNT)],
            "line": ["north" if i % 2 else "south" for i in range(COUNT)],
            "delay": [i % 11 for i in range(COUNT)],
        }
    )


def weather() -> pl.DataFrame:
    frame = pl.DataFrame({"observed_at": hours(), "temp": [20 - i / 40 for i in range(COUNT)]})
    every = [frame.with_columns(station=pl.lit(name), published_at=pl.col("observed_at") + HOUR) for name in "abc"]
    return pl.concat(every)


def ends() -> pl.DataFrame:
    kept = [i for i in range(COUNT) if i % 50]
    return pl.DataFrame(
        {
            "id": [f"t{i}" for i in kept],
            "ended_at": [START + (i + 5) * HOUR for i in kept],
            "late": [int(i % 11 > 7) for i in kept],
        }
    )


BUSES = pl.DataFrame({"bus": [f"bus{i}" for i in range(40)], "seats": [40 + i % 3 for i in range(40)]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("Night buses")
    trips().head(200).write_parquet(directory / "trips-2020-01.parquet")
    trips().tail(200).write_parquet(directory / "trips-2020-02.parquet")
    (directory / "weather").mkdir()
    weather().write_csv(directory / "weather" / "all.csv", datetime_format="%Y-%m-%dT%H:%M:%SZ")
    departures().write_parquet(directory / "departures.parquet")
    ends().write_parquet(directory / "ends.parquet")
    BUSES.write_csv(directory / "buses.csv")
    (directory / "README.md").write_text("not data")
    return directory


@pytest.fixture(scope="module")
def drafted(folder: Path) -> Draft:
    return draft(folder, label="ends.late", timezone="Europe/Berlin")


@pytest.mark.slow
def test_a_draft_is_a_system_file_that_reads_back(drafted):
    assert parse_spec(dump_spec(drafted.spec, drafted.comments)) == drafted.spec
    assert drafted.spec.system.startswith("Night-buses")


def test_files_of_one_name_and_folders_are_one_feed(drafted):
    feeds = drafted.spec.data.feeds
    assert feeds["trips"].from_ == "trips-*.parquet"
    assert feeds["weather"].from_ == "weather"
    assert drafted.notes[:2] == ("feed 'buses': 1 file, 40 rows", "feed 'departures': 1 file, 400 rows")


def test_the_rows_share_the_key_with_the_label(drafted):
    data = drafted.spec.data
    assert (data.rows, data.key, data.unit, data.timezone) == ("trips", "id", "bus", "Europe/Berlin")
    assert (data.label.feed, data.label.column, data.label.known_at) == ("ends", "late", "ended_at")


def test_the_rows_are_known_when_their_name_says(drafted):
    feed = drafted.spec.data.feeds["trips"]
    assert (feed.known_at, feed.event_at, feed.key) == ("listed_at", "planned_at", ("id",))
    assert "a row of trips is known at listed_at: its name says so" in drafted.notes


def test_a_feed_without_time_is_a_lookup(drafted):
    assert drafted.spec.data.feeds["buses"] == Feed(from_="buses.csv", key=("bus",), by=("bus",), take=("seats",))


def test_a_feed_with_one_row_per_group_and_time_is_a_state(drafted):
    feed = drafted.spec.data.feeds["weather"]
    assert (feed.by, feed.take, feed.within) == (("station",), ("temp",), 6 * HOUR)
    assert (feed.event_at, feed.known_at, feed.key) == ("observed_at", "published_at", ("station", "published_at"))


def test_events_are_aggregated_once_per_shared_column(drafted):
    feeds = drafted.spec.data.feeds
    for column in ("station", "line"):
        feed = feeds[f"departures_by_{column}"]
        assert feed.from_ == "departures.parquet"
        assert (feed.by, feed.aggregate, feed.key) == ((column,), {"delay": ("mean", "count")}, ("id",))
    assert "departures" not in feeds
    assert feeds["departures_by_line"].last == 24 * HOUR  # 12 events of a line a day, 3 in six hours


def test_columns_are_pinned_to_what_was_seen(drafted):
    columns = drafted.spec.data.columns
    assert columns["station"] == Column(name="station", type="category", categories=("a", "b", "c"))
    assert columns["length"] == Column(name="length", type="integer", low=10, high=16)
    assert columns["is_night"] == Column(name="is_night", type="boolean")
    assert columns["buses_seats"] == Column(name="buses_seats", type="integer", low=40, high=42)
    assert columns["weather_temp"].type == "number"
    assert columns["departures_by_line_delay_count"].type == "integer"
    assert columns["departures_by_line_delay_mean"].low >= 0


def test_what_cannot_be_a_feature_is_left_out_and_said(drafted):
    assert not {"id", "remark", "always", "late", "planned_at"} & set(drafted.spec.data.columns)
    assert "remark is no feature: 400 distinct values are too many for a category" in drafted.notes
    assert "always is no feature: it is always the same" in drafted.notes


def test_labels_are_mature_after_nearly_all_of_them_came(drafted):
    assert drafted.spec.data.label.mature_after == timedelta(days=1)
    assert drafted.spec.data.expect.unique == "id"
    assert drafted.spec.data.expect.complete["late"] == 0.93  # 98 % were seen
    assert drafted.spec.data.expect.complete["station"] == 0.99


def test_zero_and_one_is_classification(drafted):
    spec = drafted.spec
    assert (spec.model.task, spec.release.decide.loss) == ("classification", "brier")
    names = ["quality.log_loss.baseline", "quality.log_loss.live", "drift", "calibration"]
    assert [gate.name for gate in spec.gates] == names
    assert {monitor.check for monitor in spec.monitors} == {
        "quality",
        "drift",
        "silence",
        "freshness",
        "schema",
    }


def single(directory: Path, frame: pl.DataFrame, name: str = "readings") -> Path:
    frame.write_parquet(directory / f"{name}.parquet")
    return directory


TABLE = pl.DataFrame(
    {
        "reading_id": range(COUNT),
        "at": hours(),
        "heat": [i % 90 / 7 for i in range(COUNT)],
        "label": [i / 3 for i in range(COUNT)],
    }
)


def test_a_single_table_is_predicted_and_has_its_own_label(tmp_path):
    spec = draft(single(tmp_path, TABLE), system="ovens").spec
    assert (spec.data.rows, spec.data.key, spec.data.label.feed) == ("readings", "reading_id", "readings")
    assert list(spec.data.columns) == ["heat"]
    assert (spec.model.task, spec.release.decide.loss) == ("regression", "absolute_error")
    assert [gate.options.get("metric") for gate in spec.gates] == ["mae", "mae", None]
    assert parse_spec(dump_spec(spec)) == spec


def test_a_label_in_the_table_itself_is_known_at_the_latest_time(tmp_path):
    frame = TABLE.with_columns(cooled_at=pl.col("at") + 50 * HOUR)
    data = draft(single(tmp_path, frame)).spec.data
    feed = data.feeds["readings"]
    assert (feed.event_at, feed.known_at, data.label.known_at) == ("at", "at", "cooled_at")
    assert data.label.mature_after == timedelta(days=3)


def test_paths_are_relative_to_where_the_file_will_stand(tmp_path):
    (tmp_path / "data").mkdir()
    spec = draft(single(tmp_path / "data", TABLE), root=tmp_path).spec
    assert spec.data.feeds["readings"].from_ == "data/readings.parquet"
    (tmp_path / "system").mkdir()
    spec = draft(tmp_path / "data", root=tmp_path / "system").spec
    assert spec.data.feeds["readings"].from_ == "../data/readings.parquet"


def test_a_state_that_changes_at_any_time_is_taken_too(tmp_path):
    single(tmp_path, TABLE.with_columns(oven=pl.Series(["x", "y"] * (COUNT // 2))))
    dials = pl.DataFrame({"oven": ["x", "y", "x", "x"], "set_at": hours(7.3, 4), "dial": [1.0, 2.0, 1.5, 4.0]})
    feed = draft(single(tmp_path, dials, "dials")).spec.data.feeds["dials"]
    assert (feed.by, feed.take, feed.known_at) == (("oven",), ("dial",), "set_at")


@pytest.mark.parametrize(
    ("frame", "label", "message"),
    [
        (TABLE.rename({"label": "y"}), None, r"no feeds have a column 'label': say which column is the truth, as feed"),
        (TABLE, "reading.label", r"no feed 'reading'; did you mean 'readings'\?"),
        (TABLE, "readings.labl", r"feed 'readings' has no column 'labl'; did you mean 'label'\?"),
        (TABLE.drop("at"), None, r"feed 'readings' is predicted but has no time column; add one"),
        (TABLE.drop("reading_id"), None, r"feed 'readings' has no column that identifies a row"),
        (TABLE.with_columns(label=1), None, r"label 'label' is {1.0} in every row; nothing can be learned from it"),
        (TABLE.with_columns(label=pl.lit("yes")), None, r"label 'label' is text \('yes'\): two classes are 0 and 1"),
        (
            TABLE.with_columns(label=pl.when(pl.col("label") > 9).then(pl.lit("yes")).otherwise(pl.lit("no"))),
            None,
            r"label 'label' is text \('no', 'yes'\): two classes are 0 and 1, or false and true; write the column",
        ),
        (
            TABLE.drop("at").with_columns(timestamp=pl.lit("2013-01-01 05:00:00")),
            None,
            "no time column; column 'timestamp' is text that reads as a time: end its name with `_at`",
        ),
        (
            TABLE.drop("at").with_columns(called_at=1_357_000_000),
            None,
            "no time column; column 'called_at' holds numbers: write epochs as ISO 8601",
        ),
        (
            TABLE.drop("at").with_columns(day=pl.lit("01/02/2013 10:00")),
            None,
            "column 'day' holds text such as '01/02/2013 10:00': write times as ISO 8601",
        ),
        (TABLE.drop("heat"), None, r"have no column that can be a feature; add some"),
    ],
)
def test_what_the_data_does_not_show_is_said(tmp_path, frame, label, message):
    with pytest.raises(DataError, match=message):
        draft(single(tmp_path, frame), label=label)


def test_a_file_with_another_separator_is_said_to_be_one(tmp_path):
    TABLE.write_csv(tmp_path / "bank.csv", separator=";")
    with pytest.raises(SourceError, match=r"bank.csv: it seems to be separated by ';', .*; write it with commas"):
        draft(tmp_path, label="bank.label")


def test_labels_that_are_known_with_the_row_are_a_warning(tmp_path):
    (warning,) = draft(single(tmp_path, TABLE)).warnings
    assert warning.startswith("labels are known at at, with the row itself")


@pytest.mark.parametrize(
    ("years", "said"), [(8, "the newest row of readings is 8 years old (2020-01-17)"), (0.05, None)]
)
def test_data_that_ended_long_ago_is_told(tmp_path, years, said):
    now = max(TABLE["at"]) + years * timedelta(days=365.25)
    told = [note for note in draft(single(tmp_path, TABLE), now=now).notes if "newest row" in note]
    assert [note.partition(":")[0] for note in told] == [said] * (said is not None)


def test_a_folder_without_data_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"no data here; put \.csv, \.parquet or \.jsonl files"):
        draft(tmp_path)
    with pytest.raises(SourceError, match=r"there is no such folder"):
        draft(tmp_path / "nowhere")


def test_a_text_column_with_few_values_is_no_unit(tmp_path):
    few = TABLE.with_columns(oven=pl.Series([f"o{i % (LEAST_UNITS - 1)}" for i in range(COUNT)]))
    assert draft(single(tmp_path, few)).spec.data.unit is None
    enough = TABLE.with_columns(oven=pl.Series([f"o{i % LEAST_UNITS}" for i in range(COUNT)]))
    assert draft(single(tmp_path, enough)).spec.data.unit == "oven"


@pytest.mark.parametrize("values", [7, 40])
def test_a_column_named_as_holdfast_names_its_own_is_left_out_and_said(tmp_path, values):
    frame = TABLE.with_columns(version=pl.Series([f"v{i % values}" for i in range(COUNT)]), linear=pl.col("heat") * 2)
    made = draft(single(tmp_path, frame))
    assert list(made.spec.data.columns) == ["heat"]
    for column in ("linear", "version"):
        assert f"{column} is no feature: Holdfast uses that name itself; rename it in the feed to use it" in made.notes
    assert parse_spec(dump_spec(made.spec, made.comments)) == made.spec


@pytest.mark.parametrize("name", ["data", "Data", "feeds", "input"])
def test_a_folder_that_only_says_it_holds_data_names_the_system_after_its_parent(tmp_path, name):
    folder = tmp_path / "ovens" / name
    folder.mkdir(parents=True)
    assert draft(single(folder, TABLE)).spec.system == "ovens"
    assert draft(folder, system="stoves").spec.system == "stoves"


def test_until_is_the_same_time_in_any_zone(tmp_path):
    single(tmp_path, TABLE)
    at = START + 200 * HOUR
    seen = [draft(tmp_path, until=each) for each in (at, at.astimezone(ZoneInfo("America/New_York")))]
    assert seen[0].spec == seen[1].spec
    assert seen[0].spec.data.expect.rows == 20  # a tenth of the 201 rows known by then


def test_a_time_that_was_past_when_its_row_was_known_is_a_feature_and_no_other_is(tmp_path):
    places = range(COUNT)
    frame = trips().with_columns(
        booked_at=pl.Series([None if i % 9 == 0 else START + (i - 30) * HOUR for i in places]),
        arrived_at=pl.Series([START + (i + 4 if i % 3 else i - 4) * HOUR for i in places]),
    )
    frame.write_parquet(tmp_path / "trips.parquet")
    observed = weather().with_columns(calibrated_at=pl.col("observed_at") - 30 * HOUR)
    observed.write_csv(tmp_path / "weather.csv", datetime_format="%Y-%m-%dT%H:%M:%SZ")
    ends().write_parquet(tmp_path / "ends.parquet")
    made = draft(tmp_path, label="ends.late")
    times = [name for name, column in made.spec.data.columns.items() if column.type == "time"]
    assert times == ["booked_at", "weather_calibrated_at"]
    assert made.spec.data.columns["booked_at"] == Column(name="booked_at", type="time")
    assert any(
        note.startswith("arrived_at is no feature: in 66.5% of rows of trips it lies after listed_at")
        for note in made.notes
    )
    assert parse_spec(dump_spec(made.spec, made.comments)) == made.spec


def test_when_the_label_beside_the_rows_was_known_is_no_feature(tmp_path):
    frame = trips().join(ends().drop("ended_at"), on="id").with_columns(ended_at=pl.col("planned_at") + 2 * HOUR)
    frame.write_parquet(tmp_path / "trips.parquet")
    made = draft(tmp_path, label="trips.late")
    assert made.spec.data.label.known_at == "ended_at"
    assert not [name for name, column in made.spec.data.columns.items() if column.type == "time"]
    assert not any("ended_at is no feature" in note for note in made.notes)


def orders(since: list[datetime | None], **more: object) -> pl.DataFrame:
    columns = {"id": [f"t{i}" for i in range(COUNT)], "customer_since": since, "placed_at": hours(), **more}
    return pl.DataFrame({**columns, "load": [i % 7 for i in range(COUNT)]})


def feeds_of(directory: Path, frame: pl.DataFrame) -> Draft:
    frame.write_parquet(directory / "orders.parquet")
    ends().write_parquet(directory / "ends.parquet")
    return draft(directory, label="ends.late")


YEARS_BACK = [None if i % 9 == 0 else START - timedelta(days=i % 1500) for i in range(COUNT)]


def test_a_time_that_is_often_missing_is_no_event_time(tmp_path):
    made = feeds_of(tmp_path, orders(YEARS_BACK))
    feed = made.spec.data.feeds["orders"]
    assert (feed.known_at, feed.event_at) == ("placed_at", "placed_at")
    assert made.spec.data.label.mature_after == timedelta(days=1)
    assert "customer_since is no event time of orders: it is missing in 11.2% of rows" in made.notes
    told = "what a row of orders tells happened at placed_at: no other time can be it"
    assert told in made.notes
    assert told in made.comments["data.feeds.orders"]
    assert made.spec.data.columns["customer_since"].type == "time"
    assert made.warnings == ()


def test_a_time_long_before_its_row_was_known_is_no_event_time(tmp_path):
    long_ago = [START - timedelta(days=i % 1500 + 1) for i in range(COUNT)]
    made = feeds_of(tmp_path, orders(long_ago, listed_at=hours()))
    assert made.spec.data.feeds["orders"].event_at == "placed_at"
    assert any(note.startswith("customer_since is no event time of orders: it typically lies") for note in made.notes)


def test_of_several_times_the_one_closest_to_known_at_is_the_event(tmp_path):
    made = feeds_of(tmp_path, orders(hours(after=30), listed_at=hours(), leaves_at=hours(after=3)).drop("placed_at"))
    assert made.spec.data.feeds["orders"].event_at == "leaves_at"
    told = "what a row of orders tells happened at leaves_at: of the other times it lies closest to listed_at"
    assert told in made.notes


def test_an_event_time_found_by_its_name_is_told_and_changes_no_comment(drafted):
    told = "what a row of weather tells happened at observed_at: its name says so"
    assert told in drafted.notes
    assert told not in drafted.comments["data.feeds.weather"]


def test_labels_that_take_long_are_a_warning(tmp_path):
    frame = orders(hours(after=-24 * 400)).rename({"customer_since": "event_at", "placed_at": "listed_at"})
    made = feeds_of(tmp_path, frame)
    assert made.spec.data.feeds["orders"].event_at == "event_at"  # its name says so
    (warning,) = made.warnings
    assert warning.startswith("labels count as complete only 401 d after their day")
    assert "check event_at of orders (event_at)" in warning
    assert warning in made.comments["data.label"]
    assert parse_spec(dump_spec(made.spec, made.comments)) == made.spec


def test_rows_known_long_before_their_event_are_a_warning(tmp_path):
    made = feeds_of(tmp_path, orders([START - timedelta(days=i % 1500 + 1) for i in range(COUNT)]))
    assert any(
        "is typically known" in warning and "(customer_since, then placed_at)" in warning for warning in made.warnings
    )


@pytest.mark.parametrize(
    ("days", "rows", "every", "said"),
    [(200, 40, 1, "looked at every day"), (200, 20, 1, "looked at every day"), (40, 40, 7, "looked at once a week")],
)
def test_the_newest_week_is_looked_at_every_day_where_history_is_long(tmp_path, days, rows, every, said):
    n = days * rows
    at = [START + timedelta(days=i // rows, minutes=i % rows) for i in range(n)]
    frame = pl.DataFrame(
        {
            "id": [f"r{i}" for i in range(n)],
            "event_at": at,
            "known_at": at,
            "x": [i % 17 / 1.0 for i in range(n)],
            "late": [int(i % 3 == 0) for i in range(n)],
        }
    )
    frame.write_parquet(tmp_path / "rows.parquet")
    made = draft(tmp_path, label="rows.late", timezone="UTC")
    [drift] = [monitor for monitor in made.spec.monitors if monitor.check == "drift"]
    assert (drift.name, drift.every.days, drift.window.days) == ("drift", every, 7)
    assert sum(said in note for note in made.notes) == 1
    assert made.spec.false_alarms == FALSE_ALARMS
    assert REFERENCE_DAYS == reference.REFERENCE_DAYS


def labelled_days(directory: Path, days: int, rows: int, after: timedelta = HOUR) -> Draft:
    n = days * rows
    at = [START + timedelta(days=i // rows, minutes=i % rows) for i in range(n)]
    frame = pl.DataFrame(
        {
            "id": [f"r{i}" for i in range(n)],
            "event_at": at,
            "known_at": at,
            "ended_at": [each + after for each in at],
            "x": [i % 17 / 1.0 for i in range(n)],
            "late": [int(i % 3 == 0) for i in range(n)],
        }
    )
    frame.write_parquet(directory / "rows.parquet")
    return draft(directory, label="rows.late", timezone="UTC")


@pytest.mark.parametrize(("late", "is_told"), [(timedelta(days=3), False), (timedelta(days=20), True)])
def test_where_labels_come_late_it_is_told_why_quality_is_not_estimated(tmp_path, late, is_told):
    made = labelled_days(tmp_path, 40, 40, after=late)
    assert "estimated_quality" not in {monitor.check for monitor in made.spec.monitors}
    assert any("estimated_quality is not watched: on four data sets" in note for note in made.notes) == is_told
