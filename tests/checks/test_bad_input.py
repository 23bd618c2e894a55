"""Bad input for every registered check: a clear `unknown`, never an exception and never a number that is wrong."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.checks.volume import UNLABELLED
from holdfast.core import kinds
from holdfast.core.evidence import Block, Grade, Reading, Role, Window
from holdfast.core.signature import Column, Signature
from holdfast.stats.histogram import edges_of

START = datetime(2013, 4, 1, tzinfo=UTC)
DAYS = 21
"""Reference days; the window is the day after them, and `recent` the fourteen last ones."""
OPTIONS: dict[str, dict[str, Any]] = {"quality": {"metric": "brier"}}
ROLES = {
    "temp": Role.INPUT,
    "wind": Role.INPUT,
    "carrier": Role.INPUT,
    "probability": Role.OUTPUT,
    "label": Role.LABEL,
    "key": Role.KEY,
    "event_at": Role.TIME,
    "predicted_at": Role.TIME,
    "latency_ms": Role.META,
    "status": Role.META,
    "run_us": Role.META,
}
SIGNATURE = Signature(
    columns=(
        Column(name="temp", type="number", low=0.0, high=150.0),
        Column(name="wind", type="number", low=0.0, high=150.0),
        Column(name="carrier", type="category", categories=("AA", "B6", "UA")),
    ),
    task="classification",
    output="probability",
)
CHECKS = sorted(kinds.registered("checks"))
Change = Callable[[pl.DataFrame], pl.DataFrame]


def a_day(k: int, rows: int = 200) -> pl.DataFrame:
    """A day as the lake gives it: answered at its event, labelled some hours later."""
    random = np.random.default_rng(k)
    p = random.beta(2, 5, rows)
    at = START + timedelta(days=k)
    event_at = [at + timedelta(seconds=float(s)) for s in np.sort(random.uniform(0, 86_000, rows))]
    waited = random.gamma(2, 2, rows)
    return pl.DataFrame(
        {
            "temp": random.normal(60, 5, rows),
            "wind": random.gamma(3, 3, rows),
            "carrier": random.choice(["AA", "B6", "UA"], rows),
            "probability": p,
            "label": (random.random(rows) < p).astype(float),
            "key": [f"{k}-{i}" for i in range(rows)],
            "event_at": event_at,
            "predicted_at": event_at,
            "label_known_at": [t + timedelta(hours=float(h)) for t, h in zip(event_at, waited, strict=True)],
            "latency_ms": random.gamma(4, 1, rows),
            "status": ["ok"] * rows,
            "run_us": random.gamma(4, 50, rows),
            "version": ["1"] * rows,
        },
        schema_overrides=dict.fromkeys(("event_at", "predicted_at", "label_known_at"), pl.Datetime("us", "UTC")),
    )


def block(k: int, rows: pl.DataFrame) -> Block:
    start = START + timedelta(days=k)
    return Block(start.date(), start, start + timedelta(days=1), lambda: rows)


def influence(rows: pl.DataFrame) -> dict[str, np.ndarray]:
    """Numbers move the answer by their size, texts by a constant."""
    return {
        name: rows[name].cast(pl.Float64).to_numpy() / 100 if rows[name].dtype.is_numeric() else np.full(len(rows), 0.1)
        for name in rows.columns
    }


def facts(reference: Sequence[pl.DataFrame]) -> dict[str, Any]:
    whole = pl.concat(reference)
    now = START + timedelta(days=DAYS + 2)
    named = ("temp", "wind", "carrier", "probability", "label")
    return {
        "edges": {n: edges_of(whole[n].to_list() if n == "carrier" else whole[n].to_numpy()) for n in named},
        "signature": SIGNATURE,
        "task": kinds.load("tasks", "classification")(),
        "now": now,
        "mature_until": now - timedelta(days=1),
        "mature_after": timedelta(days=1),
        "feeds": {"weather": now - timedelta(hours=1), "planes": None},
        "fresh": {"weather": timedelta(hours=2), "planes": timedelta(hours=2)},
        "monitors": {"drift": (None, timedelta(days=1))},
        "failures": lambda block: 0,
        "influence": influence,
    }


REFERENCE = [a_day(k) for k in range(DAYS)]
FACTS = facts(REFERENCE)
BLOCKS = [block(k, rows) for k, rows in enumerate(REFERENCE)]


def made(kind: str) -> Any:
    return kinds.load("checks", kind)(**OPTIONS.get(kind, {}))


def baseline_of(check: Any, blocks: Sequence[Block] | None = None) -> Window | None:
    blocks = BLOCKS if blocks is None else blocks
    if check.against == "nothing":
        return None
    return Window(blocks if check.against == "reference" else blocks[-14:], ROLES, FACTS)


def read(kind: str, frames: Sequence[pl.DataFrame], *, before: Sequence[Block] | None = None) -> list[Reading]:
    """The readings of a window of some days, each of which must be a number or say why not, and be graded."""
    check = made(kind)
    window = Window([block(DAYS + k, rows) for k, rows in enumerate(frames)], ROLES, FACTS)
    return in_order(check, check.measure(window, baseline_of(check, before)))


def in_order(check: Any, readings: Sequence[Reading]) -> list[Reading]:
    for reading in readings:
        grade, why = check.grade(reading)
        assert why
        if reading.value is None:
            assert reading.note, f"{reading.name} of {reading.subject} does not say why"
            assert grade is Grade.UNKNOWN
        else:
            assert math.isfinite(reading.value), reading
    assert len({(r.name, r.subject) for r in readings}) == len(readings)
    return list(readings)


def same(readings: Sequence[Reading], others: Sequence[Reading]) -> None:
    """Both are of the same things and have the same values, to rounding."""
    assert [(r.name, r.subject) for r in readings] == [(r.name, r.subject) for r in others]
    values, expected = ([math.nan if r.value is None else r.value for r in each] for each in (readings, others))
    np.testing.assert_allclose(values, expected, rtol=1e-9)


def all_of(value: Any, *columns: str) -> Change:
    names = columns or ("temp", "wind", "probability", "label", "latency_ms", "run_us")
    return lambda rows: rows.with_columns(pl.lit(value, rows.schema[name]).alias(name) for name in names)


def some(value: float, column: str) -> Change:
    """The value in every tenth row."""
    return lambda rows: rows.with_columns(
        pl.when(pl.int_range(pl.len()) % 10 == 0).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)
    )


def retyped(column: str, dtype: Any) -> Change:
    return lambda rows: rows.with_columns(pl.col(column).cast(dtype))


def nothing_but_null(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.lit(None).alias(name) for name in rows.columns)


def ten_thousand_categories(rows: pl.DataFrame) -> pl.DataFrame:
    whole = pl.concat([rows] * 50)
    return whole.with_columns(
        carrier=pl.format("c{}", pl.int_range(pl.len()) % 10_000), key=pl.format("k{}", pl.int_range(pl.len()))
    )


def labelled_before(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(label_known_at=pl.col("predicted_at") - timedelta(hours=1))


def labelled_twice(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows, rows.with_columns(label=1 - pl.col("label"))])


def clock_put_back(rows: pl.DataFrame) -> pl.DataFrame:
    """Answered in 1970, for negative times."""
    moment = datetime(1970, 1, 1, tzinfo=UTC)
    return rows.with_columns(
        *(pl.lit(moment, rows.schema[name]).alias(name) for name in ("event_at", "predicted_at", "label_known_at")),
        latency_ms=-pl.col("latency_ms"),
        run_us=-pl.col("run_us"),
    )


CASES: dict[str, Change] = {
    "as it should be": lambda rows: rows,
    "no row": lambda rows: rows.clear(),
    "no row and no column": lambda rows: pl.DataFrame(),
    "one row": lambda rows: rows[:1],
    "all null": lambda rows: rows.with_columns(pl.lit(None, rows.schema[n]).alias(n) for n in rows.columns),
    "all null, without a type": nothing_but_null,
    "all NaN": all_of(math.nan),
    "all equal": all_of(0.5, "temp", "wind", "probability", "latency_ms", "run_us"),
    "all zero": all_of(0.0),
    "an input vanished": lambda rows: rows.drop("temp", "carrier"),
    "the answer vanished": lambda rows: rows.drop("probability"),
    "the label vanished": lambda rows: rows.drop("label", "label_known_at"),
    "what was measured vanished": lambda rows: rows.drop("latency_ms", "run_us", "status", "key"),
    "a column appeared": lambda rows: rows.with_columns(pl.lit(3.0).alias("new")),
    "numbers became text": lambda rows: retyped("temp", pl.String)(retyped("latency_ms", pl.String)(rows)),
    "text became numbers": lambda rows: rows.with_columns(carrier=pl.int_range(pl.len())),
    "answers became text": retyped("probability", pl.String),
    "labels became text": lambda rows: rows.with_columns(label=pl.lit("yes")),
    "numbers became lists": lambda rows: rows.with_columns(temp=pl.concat_list("temp", "wind")),
    "labels became times": lambda rows: rows.with_columns(label=pl.col("event_at")),
    "running times became text": retyped("run_us", pl.String),
    "labels before predictions": labelled_before,
    "labels twice and contradicting": labelled_twice,
    "labels of no class": all_of(7.0, "label"),
    "a clock put back": clock_put_back,
    "ten thousand categories": ten_thousand_categories,
    "constant scores": all_of(0.3, "probability"),
    "a class that never occurs": all_of(0.0, "label"),
    "answers that are no probabilities": all_of(7.0, "probability"),
    "infinite inputs": some(math.inf, "temp"),
    "negative infinite inputs": lambda rows: some(-math.inf, "temp")(some(math.inf, "wind")(rows)),
    "nothing but infinities": all_of(math.inf),
    "infinite answers": some(math.inf, "probability"),
    "infinite labels": some(math.inf, "label"),
    "the largest numbers": all_of(1.7e308, "temp", "wind", "latency_ms", "run_us"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", CHECKS)
def test_a_bad_day_is_a_number_or_says_why_not(kind: str, case: str) -> None:
    read(kind, [CASES[case](a_day(DAYS))])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", CHECKS)
def test_a_bad_day_after_a_good_one_is_a_number_or_says_why_not(kind: str, case: str) -> None:
    read(kind, [a_day(DAYS), CASES[case](a_day(DAYS + 1))])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", CHECKS)
def test_bad_history_is_a_number_or_says_why_not(kind: str, case: str) -> None:
    read(kind, [a_day(DAYS)], before=[block(k, CASES[case](rows)) for k, rows in enumerate(REFERENCE)])


ROWS = {"freshness"}
"""Checks that look at no row."""
NOTHING = ("no row", "no row and no column")


@pytest.mark.parametrize("case", NOTHING)
@pytest.mark.parametrize("kind", sorted(set(CHECKS) - ROWS - {"silence", "volume"}))
def test_without_rows_everything_is_unknown(kind: str, case: str) -> None:
    assert {reading.value for reading in read(kind, [CASES[case](a_day(DAYS))])} <= {None}


@pytest.mark.parametrize("kind", ["silence", "volume"])
def test_without_rows_only_the_traffic_and_the_labels_before_are_known(kind: str) -> None:
    known = {r.subject for r in read(kind, [a_day(DAYS).clear()]) if r.value is not None}
    assert known <= {"traffic", "rows", "labels", "label delay"}


@pytest.mark.parametrize("kind", sorted(set(CHECKS) - ROWS))
def test_no_block_at_all_is_unknown_or_nothing(kind: str) -> None:
    check = made(kind)
    readings = in_order(check, check.measure(Window([], ROLES, FACTS), baseline_of(check)))
    assert {r.value for r in readings if r.subject not in ("labels", "traffic")} <= {None}


@pytest.mark.parametrize("kind", sorted(set(CHECKS) - ROWS))
def test_a_day_that_is_there_twice_is_unknown(kind: str) -> None:
    check = made(kind)
    for twice in ([block(DAYS, a_day(DAYS))] * 2, [block(DAYS, a_day(DAYS)), block(DAYS, a_day(DAYS + 1))]):
        readings = in_order(check, check.measure(Window(twice, ROLES, FACTS), baseline_of(check)))
        assert readings
        assert {r.value for r in readings if r.subject != "monitor drift"} == {None}
        assert all("twice" in reading.note for reading in readings if reading.subject != "monitor drift")


@pytest.mark.parametrize("kind", CHECKS)
def test_the_order_in_which_blocks_stand_changes_no_value(kind: str) -> None:
    check = made(kind)
    days = [block(DAYS + k, a_day(DAYS + k)) for k in range(4)]
    before = baseline_of(check)
    mixed = Window(tuple(reversed(before.blocks)), ROLES, FACTS) if before else None
    ordered = check.measure(Window(days, ROLES, FACTS), before)
    shuffled = check.measure(Window([days[k] for k in (2, 0, 3, 1)], ROLES, FACTS), mixed)
    same(shuffled, ordered)


@pytest.mark.parametrize("kind", CHECKS)
def test_the_order_of_rows_changes_no_value(kind: str) -> None:
    whole = a_day(DAYS)
    shuffled = whole.sample(fraction=1.0, shuffle=True, seed=3)
    same(read(kind, [shuffled]), read(kind, [whole]))


def value(kind: str, change: Change, subject: str = "") -> Reading:
    [found] = [reading for reading in read(kind, [change(a_day(DAYS))]) if not subject or reading.subject == subject]
    return found


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("labels became text", "label is String"),
        ("labels became times", "label is Datetime"),
        ("answers became text", "probability is String"),
        ("the answer vanished", "no column probability"),
        ("the label vanished", "no column label"),
        ("labels before predictions", "200 labels were known before the answer"),
        ("labels twice and contradicting", "400 rows have contradicting labels"),
        ("labels of no class", "has the value 7"),
    ],
)
def test_quality_says_which_labels_it_cannot_use(case: str, why: str) -> None:
    found = value("quality", CASES[case])
    assert found.value is None
    assert why in found.note


@pytest.mark.parametrize("case", ["infinite answers", "infinite labels"])
def test_infinities_are_no_labelled_rows(case: str) -> None:
    found = value("quality", CASES[case])
    kept = a_day(DAYS).filter(pl.int_range(pl.len()) % 10 != 0)
    assert found.rows == kept.height == 180
    assert found.value == pytest.approx(float(((kept["probability"] - kept["label"]) ** 2).mean()))


def test_rows_that_contradict_leave_the_others_as_they_are() -> None:
    whole = a_day(DAYS)
    some_twice = pl.concat([whole, whole[:20].with_columns(label=1 - pl.col("label"))])
    found = value("quality", lambda _: some_twice)
    assert found.rows == 180
    assert found.value == pytest.approx(float(((whole["probability"] - whole["label"])[20:] ** 2).mean()))


def test_calibration_refuses_labels_that_are_no_outcomes_and_answers_that_are_no_probabilities() -> None:
    for case in ("labels of no class", "answers that are no probabilities"):
        assert [r.value for r in read("calibration", [CASES[case](a_day(DAYS))])] == [None, None]


@pytest.mark.parametrize("case", ["numbers became text", "numbers became lists"])
def test_a_changed_type_is_said(case: str) -> None:
    assert "type of temp changed" in value("drift", CASES[case], "temp").note
    assert value("schema", CASES[case], "temp").name == "wrong_type"


def test_a_time_before_the_request_is_not_measured() -> None:
    assert value("latency", clock_put_back).value is None
    assert value("cost", clock_put_back).value is None


def test_a_label_that_never_comes_is_a_rise_and_no_delay() -> None:
    gone = CASES["the label vanished"]
    assert value("volume", gone, "labels").name == UNLABELLED
    assert value("volume", gone, "labels").value == pytest.approx(1.0)
    assert value("volume", gone, "label delay").value is None
