"""Answers of a model that is served elsewhere: halves that find each other, and the days of a version."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.spec import Predictions, Stretch, SystemSpec
from holdfast.core.specfile import parse_spec
from holdfast.errors import DataError
from holdfast.flow import elsewhere
from holdfast.flow.elsewhere import (
    MOST_WAITING,
    UNNAMED,
    WAIT,
    Halves,
    answering,
    beginning,
    counted,
    logged,
    of_arrivals,
    of_log,
    recounted,
    scores_of,
    stretch_of,
)
from holdfast.flow.joins import assemble

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "arrival_id": pl.String(), "arrived_at": TIME, "part": pl.String(), "request_id": pl.String(), "row": pl.Int64(),
    "key": pl.String(), "predicted_at": TIME, "version": pl.String(), "caller": pl.String(),
    "in.x": pl.Float64(), "out.probability": pl.Float64(),
}  # fmt: skip


def part(kind: str, id: str, row: int = 0, at: datetime = NOW) -> dict[str, Any]:
    """One row of the arrivals table; its input and its output tell where it comes from."""
    number = float(sum(map(ord, id)) + 1000 * row)
    return {
        "arrival_id": f"{id}:{row}/{kind}", "arrived_at": at, "part": kind, "request_id": id, "row": row,
        "key": f"{id}:{row}", "predicted_at": at + timedelta(minutes=kind == "response"),
        "version": "v2" if kind == "response" else "", "caller": "kserve",
        "in.x": number if kind == "request" else None, "out.probability": number if kind == "response" else None,
    }  # fmt: skip


def table(*parts: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(parts), schema=SCHEMA)


@pytest.mark.parametrize("order", [("request", "response"), ("response", "request")])
def test_halves_become_whole_whichever_comes_first(order: tuple[str, str]) -> None:
    halves = Halves()
    assert halves.join(table(part(order[0], "a")), NOW).is_empty()
    assert halves.waits
    [whole] = halves.join(table(part(order[1], "a")), NOW).to_dicts()
    assert (whole["in.x"], whole["out.probability"], whole["version"]) == (97.0, 97.0, "v2")
    assert whole["predicted_at"] == NOW + timedelta(minutes=1), "it was answered when the response went"
    assert not halves.waits


def test_a_half_that_stays_alone_is_given_up_and_counted() -> None:
    halves = Halves()
    halves.join(table(part("request", "a"), part("request", "b"), part("response", "c")), NOW)
    assert halves.given_up == {"request": 0, "response": 0}
    assert halves.join(table(part("response", "b", at=NOW + WAIT)), NOW + WAIT).height == 1
    assert halves.given_up == {"request": 1, "response": 1}
    assert not halves.waits
    assert halves.join(table(part("response", "a", at=NOW + WAIT)), NOW + WAIT).is_empty()


def test_what_waits_is_bounded() -> None:
    halves = Halves()
    one = table(part("request", "a"))
    many = pl.concat([one] * (MOST_WAITING + 5)).with_columns(
        pl.int_range(pl.len()).cast(pl.String).alias("request_id"),
        pl.int_range(pl.len()).cast(pl.String).alias("arrival_id"),
    )
    halves.join(many, NOW)
    assert halves.given_up == {"request": 5, "response": 0}


def test_a_half_that_comes_twice_makes_one_answer() -> None:
    halves = Halves()
    whole = halves.join(table(part("request", "a"), part("response", "a"), part("request", "a")), NOW)
    assert whole.height == 1


@given(
    st.lists(st.tuples(st.sampled_from(["request", "response"]), st.sampled_from("abc"), st.integers(0, 2))), st.data()
)
def test_any_order_and_any_grouping_makes_the_same_answers(
    parts: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    rows = [part(kind, id, row) for kind, id, row in dict.fromkeys(parts)]
    asked = {(id, row) for kind, id, row in parts if kind == "request"}
    answered = {(id, row) for kind, id, row in parts if kind == "response"}
    halves, found = Halves(), []
    while rows:
        count = data.draw(st.integers(1, len(rows)))
        found += halves.join(table(*rows[:count]), NOW).to_dicts()
        rows = rows[count:]
    assert sorted((each["request_id"], each["row"]) for each in found) == sorted(asked & answered)
    assert all(each["in.x"] == each["out.probability"] for each in found), "no row has met another's half"


def test_answers_that_name_no_version_have_one_all_the_same() -> None:
    rows = table(part("response", "a") | {"version": ""}, part("response", "b"))
    told = of_arrivals(rows, "probability")
    assert told.meta["version"].to_list() == [UNNAMED, "v2"]
    assert told.meta["event_at"].to_list() == told.meta["predicted_at"].to_list()
    assert told.inputs.columns == ["x"]


CLASSES = ("rain", "calm", "storm")
FILE = """\
system: weather
data:
  feeds:
    answers: {from: log.csv, event_at: at, key: id}
    became: {from: became.csv, known_at: ended_at}
  rows: answers
  key: id
  label: {feed: became, column: kind, known_at: ended_at}
  columns: {x: number}
predictions: {task: classification, score: p, version: model, reference: {first: 9d}}
monitors: [{check: drift}]
"""


def several() -> SystemSpec:
    spec = parse_spec(FILE)
    assert spec.predictions is not None
    label = replace(spec.data.label, classes=CLASSES)
    predictions = replace(spec.predictions, task="multiclass")
    return replace(spec, data=replace(spec.data, label=label), predictions=predictions)


def test_a_log_has_a_column_for_each_class() -> None:
    spec = several()
    assert scores_of(spec) == ("p.calm", "p.rain", "p.storm")
    assert list(logged(spec).data.columns) == ["x", "model", "p.calm", "p.rain", "p.storm"]
    rows = pl.DataFrame(
        {
            "id": ["a", "b", "c", "d"], "key": ["a", "b", "c", "d"], "event_at": [NOW] * 4, "known_at": [NOW] * 4,
            "model": ["m"] * 4, "x": [1.0, 2.0, 3.0, 4.0], "p.storm": [0.7, 0.5, None, 0.6],
            "p.calm": [0.1, 0.5, None, None], "p.rain": [0.2, None, None, float("nan")],
        }
    )  # fmt: skip
    told = of_log(spec, rows)
    assert told.outputs.columns == ["p.calm", "p.rain", "p.storm"]
    assert told.inputs.columns == ["x"]
    assert told.outputs.rows() == [
        (0.1, 0.2, 0.7),
        (0.5, 0.0, 0.5),  # a version that did not know rain
        (None, None, None),
        (None, None, None),  # what is missing is not 0: the others do not add up
    ]
    fewer = of_log(
        spec,
        rows.drop("p.rain")
        .head(2)
        .with_columns(
            pl.lit(0.5).alias(
                "p.calm",
            ),
            pl.lit(0.5).alias("p.storm"),
        ),
    )
    assert fewer.outputs.rows() == [(0.5, 0.0, 0.5)] * 2


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ((0.9, 0.9, 0.9), None),
        ((2.0, -1.0, 0.0), None),
        ((INF, 0.0, 0.0), None),
        ((0.5, NAN, 0.5), None),  # the model failed; one that does not know the class says nothing of it
        ((NAN, NAN, NAN), None),
        ((None, None, None), None),
        ((-0.5, None, 1.5), None),
        ((0.3, 0.3, 0.38), None),
        ((0.5, None, 0.5), (0.5, 0.0, 0.5)),
        ((0.3, 0.3, 0.395), (0.3, 0.3, 0.395)),
        ((-1e-7, 1.0000001, None), (0.0, 1.0, 0.0)),
    ],
)
def test_a_row_of_a_log_is_an_answer_of_probabilities_or_none(given: Any, answer: Any) -> None:
    names = [f"out.probability.{name}" for name in ("calm", "rain", "storm")]
    parts = pl.DataFrame([given], schema=dict.fromkeys(names, pl.Float64), orient="row")
    rows = pl.concat([table(part("response", "a")).drop("out.probability"), parts], how="horizontal")
    assert of_arrivals(rows, "probability", CLASSES).outputs.row(0) == (answer or (None, None, None))


def test_a_log_that_lacks_the_column_of_a_class_is_told_which() -> None:
    spec = logged(several())
    rows = pl.DataFrame({"id": ["a"], "at": [NOW], "x": [1.0], "model": ["m"], "p.calm": [0.5], "p.rain": [0.5]})
    with pytest.raises(DataError, match=r"the log has no column 'p\.storm' for the class 'storm'; add it, empty if"):
        assemble(spec.data, {"answers": rows})
    with pytest.raises(DataError, match=r"data\.columns\.x: no feed gives this column"):
        assemble(spec.data, {"answers": rows.drop("x")})


def test_answers_of_classes_stand_in_their_order_whatever_the_order_of_the_table() -> None:
    parts = pl.DataFrame({"out.probability.storm": [0.7], "out.probability.calm": [0.1], "out.probability.rain": [0.2]})
    rows = pl.concat([table(part("response", "a")).drop("out.probability"), parts], how="horizontal")
    told = of_arrivals(rows, "probability", CLASSES)
    assert told.outputs.rows() == [(0.1, 0.2, 0.7)]


def meta(*answers: tuple[str, date]) -> pl.DataFrame:
    return pl.DataFrame(answers, schema={"version": pl.String(), "at": pl.Date()}, orient="row")


def test_days_are_counted_by_version() -> None:
    first, second = date(2026, 1, 1), date(2026, 1, 2)
    days = counted({}, meta(("a", first), ("a", first), ("b", second)), pl.col("at"))
    assert counted(days, meta(("a", second)), pl.col("at")) == {
        "a": {"2026-01-01": 2, "2026-01-02": 1}, "b": {"2026-01-02": 1},
    }  # fmt: skip


def test_the_version_that_answers_is_the_one_that_gave_most_on_the_newest_complete_day() -> None:
    days = {"a": {"2026-01-01": 9, "2026-01-02": 3}, "b": {"2026-01-02": 4, "2026-01-03": 1}}
    assert answering(days, date(2026, 1, 1)) == "a"
    assert answering(days, date(2026, 1, 2)) == "b"
    assert answering(days, date(2026, 2, 9)) == "b"
    assert answering(days, date(2025, 1, 1)) == ""
    tied = {"a": {"2026-01-01": 1, "2026-01-02": 4}, "b": {"2026-01-02": 4}}
    assert answering(tied, date(2026, 1, 2)) == "b", "the one that began later"


def told(stretch: Stretch) -> Predictions:
    return Predictions(task="classification", reference=stretch)


def test_the_first_days_of_each_version_are_its_own_reference() -> None:
    days = {"a": {"2026-01-01": 1, "2026-01-08": 1, "2026-01-20": 1}, "b": {"2026-01-18": 1}}
    first = told(Stretch(first=timedelta(days=10)))
    whole = stretch_of(first, days, "a", date(2026, 1, 20))
    assert (whole.start, whole.end, whole.short) == (date(2026, 1, 1), date(2026, 1, 10), "")
    short = stretch_of(first, days, "b", date(2026, 1, 20))
    assert short.short == "history of version b is too short: 3 of 10 days"


def test_stated_days_are_the_reference_of_every_version() -> None:
    days = {"a": {"2026-01-01": 1}, "b": {"2026-01-18": 1}}
    stated = told(Stretch(from_=date(2026, 1, 1), until=date(2026, 1, 9)))
    assert stretch_of(stated, days, "b", date(2026, 1, 20)).short == ""
    assert "not complete yet" in stretch_of(stated, days, "b", date(2026, 1, 5)).short
    before = told(Stretch(from_=date(2025, 1, 1), until=date(2025, 1, 9)))
    assert "no answer lies in the reference" in stretch_of(before, days, "b", date(2026, 1, 20)).short


@given(st.integers(1, 50), st.integers(0, 80))
def test_a_reference_is_short_until_its_last_day_is_complete(length: int, passed: int) -> None:
    start = date(2026, 1, 1)
    last = start + timedelta(days=passed)
    of = {(start + timedelta(days=n)).isoformat(): 1 for n in range(passed + 1)}
    found = stretch_of(told(Stretch(first=timedelta(days=length))), {"a": of}, "a", last)
    assert bool(found.short) == (passed + 1 < length)
    assert elsewhere.Promised(start=start, end=start + timedelta(days=length - 1), short=found.short) == found


START = date(2026, 1, 1)


def daily(first: int, count: int, rows: int = 60, step: int = 1) -> dict[str, int]:
    """So many rows on days from START on."""
    return {(START + timedelta(days=first + n)).isoformat(): rows for n in range(0, count, step)}


@given(st.integers(0, 60), st.integers(2, 50), st.integers(1, 30_000), st.integers(20, 1000))
def test_an_answer_that_is_dated_back_begins_no_reference(days: int, length: int, back: int, rows: int) -> None:
    early = {(START - timedelta(days=back)).isoformat(): 1}
    last = START + timedelta(days=days)
    plain = stretch_of(told(Stretch(first=timedelta(days=length))), {"a": daily(0, days + 1, rows)}, "a", last)
    found = stretch_of(told(Stretch(first=timedelta(days=length))), {"a": early | daily(0, days + 1, rows)}, "a", last)
    assert (found.start, found.end, bool(found.short)) == (plain.start, plain.end, bool(plain.short))


@pytest.mark.parametrize("step", [1, 3, 7])
def test_a_log_with_gaps_begins_on_its_first_day(step: int) -> None:
    assert beginning(daily(0, 90, step=step), 50, START + timedelta(days=90)) == START


def test_a_version_that_grows_begins_on_its_first_day_and_a_trial_of_it_does_not() -> None:
    last = START + timedelta(days=99)
    assert beginning(daily(0, 50, 100) | daily(50, 50, 400), 50, last) == START
    assert beginning(daily(0, 5, 1) | daily(5, 95, 400), 50, last) == START + timedelta(days=5)


def test_a_reference_that_was_made_stays_where_it_is() -> None:
    first = told(Stretch(first=timedelta(days=10)))
    more = {"a": daily(-40, 100)}
    held = stretch_of(first, more, "a", START + timedelta(days=60), {"a": START.isoformat()})
    assert (held.start, held.short) == (START, "")


def test_a_day_is_counted_again_as_it_is_on_record() -> None:
    days = {"a": {"2026-01-01": 9, "2026-01-02": 3}, "b": {"2026-01-01": 4}}
    recorded = pl.DataFrame({"version": ["a", "a", "c"]})
    assert recounted(days, recorded, START) == {"a": {"2026-01-01": 2, "2026-01-02": 3}, "c": {"2026-01-01": 1}}
    assert recounted(days, pl.DataFrame(), START) == {"a": {"2026-01-02": 3}}
