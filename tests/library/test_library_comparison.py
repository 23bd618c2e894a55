"""`hf.compare`: two models on the same rows, decided by days as a release is."""

import json
import math

import numpy as np
import polars as pl
import pytest

import holdfast as hf
from holdfast.errors import DataError, NotFound
from holdfast.library.segments import segments
from holdfast.stats import sequential
from holdfast.stats.confidence import StudentMixture


def scored(days: int = 40, *, noise: float = 0.3, seed: int = 0, rows: int = 100) -> pl.DataFrame:
    """Answers `old`, which come true, and `new`, which are off by noise."""
    random = np.random.default_rng(seed)
    n = days * rows
    p = random.random(n)
    new = np.clip(p + random.normal(0, noise, n), 0, 1)
    hour = np.arange(n) % 24
    return pl.DataFrame(
        {
            "id": np.arange(n),
            "day": np.repeat(np.arange(days), rows),
            "old": p,
            "new": new,
            "y": (random.random(n) < p).astype(int),
            "hour": hour,
        }
    )


def test_a_worse_model_is_found_worse_and_a_better_one_not():
    table = scored()
    worse = hf.compare(table, table, label="y", score=("old", "new"), day="day", margin=0.005)
    assert worse.decision == "worse"
    assert 0 < worse.low < worse.difference < worse.high
    better = hf.compare(table, table, label="y", score=("new", "old"), day="day", margin=0.005)
    assert better.decision == "not worse"
    assert better.difference == pytest.approx(-worse.difference)
    assert better.decided_on is not None


def test_evidence_interval_and_decision_are_those_of_a_release():
    table = scored(days=25, noise=0.1)
    found = hf.compare(table, table, label="y", score=("old", "new"), day="day", margin=0.01)
    y, a, b = (table[name].to_numpy().astype(float) for name in ("y", "old", "new"))
    folded, worse, interval, low, high = (), (), (), math.inf, -math.inf
    for day, seen in enumerate(found.days):
        of = table["day"].to_numpy() == day
        d = float(((b[of] - y[of]) ** 2 - (a[of] - y[of]) ** 2).mean())
        ends = np.stack([b[of] ** 2 - a[of] ** 2, (b[of] - 1) ** 2 - (a[of] - 1) ** 2])
        low, high = min(low, float(ends.min(axis=0).mean())), max(high, float(ends.max(axis=0).mean()))
        folded = sequential.fold_paired(folded, d, low, high, 0.01, "below")
        worse = sequential.fold_paired(worse, d, low, high, 0.0, "above")
        interval = StudentMixture().fold(interval, d)
        assert seen.difference == pytest.approx(d)
        assert math.log(seen.evidence_not_worse) == pytest.approx(sequential.log_evidence(folded))
        assert math.log(seen.evidence_worse) == pytest.approx(sequential.log_evidence(worse))
    assert (found.low, found.high) == pytest.approx([float(end) for end in StudentMixture().interval(interval)])


def test_equal_models_are_undecided_at_no_margin_and_not_worse_at_one():
    table = scored()
    assert hf.compare(table, table, label="y", score="old", day="day").decision == "undecided"
    assert hf.compare(table, table, label="y", score="old", day="day", margin=0.01).decision == "not worse"


def test_rows_are_matched_by_key_whatever_their_order():
    table = scored()
    a, b = table.drop("new"), table.select("id", score="new").sample(fraction=1.0, shuffle=True, seed=1)
    matched = hf.compare(a, b, label="y", score=("old", "score"), day="day", key="id")
    together = hf.compare(table, table, label="y", score=("old", "new"), day="day")
    assert matched.to_dict() == together.to_dict()
    fewer = hf.compare(a, b.head(3000), label="y", score=("old", "score"), day="day", key="id")
    assert (fewer.rows, fewer.notes) == (3000, ("1,000 rows are in one table only.",))


def test_another_order_without_a_key_is_refused_with_the_column_that_differs():
    table = scored()
    shuffled = table.drop("y").sample(fraction=1.0, shuffle=True, seed=1)
    asked = {"label": "y", "score": ("old", "new"), "day": "day"}
    with pytest.raises(DataError, match=r"differ in column 'id' in [34],\d{3} of 4,000 rows.*give key="):
        hf.compare(table, shuffled, **asked)
    with pytest.raises(DataError, match=r"differ in column 'day'"):
        hf.compare(table, shuffled.select("day", "new"), **asked)
    with pytest.raises(DataError, match=r"nothing says that rows are in the same order: give key="):
        hf.compare(table, shuffled.select("new"), **asked)
    with pytest.raises(DataError, match=r"column 'day' holds Int64 in a and String in b"):
        hf.compare(table, table.select("new", pl.col("day").cast(pl.String)), **asked)


def test_equal_columns_let_rows_be_paired_by_their_place_and_the_report_says_so():
    table = scored(days=20)
    asked = {"label": "y", "score": ("old", "new"), "day": "day"}
    placed = hf.compare(table, table.select("day", "hour", "new"), **asked)
    assert placed.difference == hf.compare(table, table, **asked).difference
    assert placed.assumes.endswith("paired by their place, where day, hour say the same: key= would be surer")


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        (lambda b: b.head(5), {}, r"a has 4,000 rows and b 5: give key="),
        (lambda b: b.with_columns(y=1 - pl.col("y")), {}, "the labels of a and b differ in some rows"),
        (lambda b: b, {"key": "day"}, "several rows of a have the same day"),
        (lambda b: b.with_columns(id=pl.col("id").cast(pl.String)), {"key": "id"}, "the key has another type in b"),
        (lambda b: b, {"day": None}, "name the unit of evidence"),
        (lambda b: b, {"time": "day"}, "name the unit of evidence"),
        (lambda b: b, {"score": ("old", "nwe")}, r"b has no column 'nwe'; did you mean 'new'\?"),
        (lambda b: b, {"margin": -0.1}, "a margin is 0 or more, not -0.1: by how much"),
        (lambda b: b, {"alpha": 1.5}, r"in \(0, 1\), not 1.5"),
        (lambda b: b, {"score": ("old", "new", "id")}, r"one name, or two: .* not 3 \(old, new, id\)"),
        (lambda b: b, {"timezone": "Asia/Tokyo"}, "timezone= counts days, which need time="),
        (lambda b: b, {"columns": "huor"}, "did you mean 'hour'"),
        (lambda b: b.with_columns(new=pl.col("new") * 9), {}, "answers of b reach from 0 to 9: no probabilities"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_would_be_right(change, asked, said):
    table = scored()
    given = {"label": "y", "score": ("old", "new"), "day": "day"} | asked
    with pytest.raises(DataError, match=said):
        hf.compare(table, change(table), **given)


def test_a_loss_that_is_not_known_is_named_with_its_near_miss():
    table = scored(days=3)
    with pytest.raises(NotFound, match="did you mean 'brier'"):
        hf.compare(table, table, label="y", score="old", day="day", loss="brir")
    with pytest.raises(NotFound, match="did you mean 'regression'"):
        hf.compare(table, table, label="y", score="old", day="day", task="regresion")


def test_squared_errors_have_an_interval_and_no_decision():
    table = scored()
    found = hf.compare(
        table, table, label="y", score=("old", "new"), day="day", task="regression", loss="squared_error"
    )
    assert found.decision == "unknown"
    assert "no bounds" in found.why
    assert found.low > 0
    assert found.days[0].evidence_worse is None


def test_no_label_yet_is_unknown():
    table = scored(days=3).with_columns(y=pl.lit(None, dtype=pl.Int64))
    found = hf.compare(table, table, label="y", score="old", day="day")
    assert (found.decision, found.rows, found.difference) == ("unknown", 0, None)
    assert found.notes == ("300 rows lack a label, an answer or a day.",)
    assert json.loads(found.to_json())["low"] is None
    assert found._repr_html_()
    with pytest.raises(DataError, match="no day to plot"):
        found.plot()


def test_a_few_days_have_no_interval():
    table = scored(days=2)
    found = hf.compare(table, table, label="y", score=("old", "new"), day="day")
    assert (found.low, found.decision) == (None, "undecided")
    assert "no interval yet" in str(found)


def test_the_segment_in_which_they_differ_is_found():
    table = scored(rows=96, noise=0.0).with_columns(
        new=pl.when(pl.col("hour") >= 21).then(1 - pl.col("old")).otherwise(pl.col("old"))
    )
    found = hf.compare(table, table, label="y", score=("old", "new"), day="day", columns=["hour", "id"])
    assert found.segments[0].name == "hour >= 21"
    assert found.segments[0].p_value == 0.001
    assert found.segments[0].elsewhere == pytest.approx(0, abs=1e-3)
    assert "where: hour >= 21" in str(found)


@pytest.mark.slow
def test_segments_are_seldom_significant_when_nothing_differs():
    """At 10 % in expectation; 100 searches are above 19 with probability below 1 %."""
    day, hits = np.repeat(np.arange(30), 50), 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        columns = pl.DataFrame({f"x{j}": random.random(1500) for j in range(4)})
        difference = random.normal(0, 1, 1500) + random.normal(0, 1, 30)[day]
        hits += segments(columns, difference, day, seed=seed)[0].p_value <= 0.1
    assert hits <= 19


def test_segments_of_texts_and_missing_values_are_searched_and_small_ones_left_out():
    table = scored().with_columns(
        name=pl.when(pl.col("hour") == 0)
        .then(None)
        .when(pl.col("hour") < 12)
        .then(pl.lit("am"))
        .otherwise(pl.lit("pm"))
    )
    found = segments(table.select("name"), table["new"].to_numpy() - table["old"].to_numpy(), table["day"].to_numpy())
    assert {one.name for one in found} == {"name missing", "name=am", "name=pm"}
    assert segments(table.head(20).select("name"), np.ones(20), np.zeros(20, dtype=np.int64)) == []


def test_the_order_of_rows_changes_nothing():
    table = scored(days=10)
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=2)
    one, other = (
        hf.compare(rows, rows, label="y", score=("old", "new"), day="day", columns="hour") for rows in (table, shuffled)
    )
    assert one.decision == other.decision
    assert other.difference == pytest.approx(one.difference, rel=1e-9)
    assert [segment.name for segment in one.segments] == [segment.name for segment in other.segments]
