"""`hf.drift`: true distances, p-values that say what they rest on, and no verdict on what cannot be judged."""

import json
import math
import re
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from scipy.spatial.distance import jensenshannon

import holdfast as hf
from holdfast.errors import DataError
from holdfast.library import surprise
from holdfast.library.drift import DriftReport

FIRST = date(2024, 1, 1)


def rows(n: int, *, seed: int = 0, shift: float = 0.0, days: int = 0, begin: int = 0) -> pl.DataFrame:
    """A number, a text, a flag, and a day where asked; as many rows on each day."""
    random = np.random.default_rng(seed)
    found = pl.DataFrame(
        {
            "x": random.normal(shift, 1.0, n),
            "name": random.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2]),
            "on": random.random(n) < 0.4,
        }
    )
    if days:
        found = found.with_columns(day=pl.Series([FIRST + timedelta(days=begin + i * days // n) for i in range(n)]))
    return found


def test_numbers_are_those_of_scipy():
    reference, current = rows(20_000), rows(5_000, seed=1, shift=0.2)
    report = hf.drift(reference, current)
    exact = scipy_stats.ks_2samp(reference["x"], current["x"])
    x = report["x"]
    # Seen at 1,024 cuts, so never above the raw statistic and at most a cell's share below it (1 / 512).
    assert exact.statistic - 0.002 <= x.gap <= exact.statistic + 1e-12
    assert math.log10(x.p_alone) == pytest.approx(math.log10(exact.pvalue), rel=0.03)
    distance = scipy_stats.wasserstein_distance(reference["x"], current["x"])
    assert x.wasserstein == pytest.approx(distance, rel=0.01)
    counts = [np.array([(side["name"] == name).sum() for name in "abc"]) for side in (reference, current)]
    name = report["name"]
    chi = scipy_stats.chi2_contingency(np.stack(counts), correction=False)
    shares = [one / one.sum() for one in counts]
    assert name.p_alone == pytest.approx(chi.pvalue)
    assert name.jensen_shannon == pytest.approx(jensenshannon(*shares, base=2))
    assert name.gap == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    assert name.psi == pytest.approx(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def test_without_a_unit_the_most_that_is_said_is_maybe():
    report = hf.drift(rows(3000), rows(3000, seed=1, shift=1.0))
    assert report["x"].verdict == "maybe"
    assert report["name"].verdict == "no evidence"
    assert "every row was taken for an observation of its own" in report.assumes
    assert report["x"].why.endswith("unusual only if rows are independent")


def test_rows_that_cluster_by_day_are_evidence_only_until_days_are_named():
    random = np.random.default_rng(3)
    pushes = random.normal(0, 1, 60)

    def of(days: range) -> pl.DataFrame:
        day = np.repeat(np.array(days), 100)
        values = pushes[day] + random.normal(0, 0.3, day.size)
        return pl.DataFrame({"x": values, "day": [FIRST + timedelta(days=int(k)) for k in day]})

    reference, current = of(range(50)), of(range(50, 60))
    assert hf.drift(reference, current, columns="x")["x"].verdict == "maybe"
    assert hf.drift(reference, current, time="day")["x"].verdict == "no evidence"
    assert hf.drift(reference, current, block="day")["x"].verdict == "no evidence"


def test_the_newest_window_is_judged_among_disjoint_windows_of_the_reference():
    reference = rows(6000, days=60)
    report = hf.drift(reference, rows(500, seed=1, shift=0.8, days=5, begin=60), time="day")
    assert report["x"].verdict == "moved"
    assert report["x"].p_value == report.joint_p_value == report.least_p_value == 1 / 61
    assert report["name"].verdict == "no evidence"
    assert "newest day (2024-03-05) among 60 disjoint windows" in report.assumes
    weekly = hf.drift(reference, rows(700, seed=1, shift=0.8, days=7, begin=60), time="day", window=7)
    assert weekly.least_p_value == 1 / 9
    assert weekly["x"].verdict == "unknown"
    assert "level 0.05 needs 19" in weekly["x"].why


def test_a_week_is_the_window_where_both_sides_are_long_enough():
    report = hf.drift(rows(7000, days=140), rows(700, seed=1, days=14, begin=140), time="day")
    assert report.least_p_value == 1 / 21
    assert "7 days" in report.assumes


@pytest.mark.slow
def test_the_joint_p_value_is_seldom_small_when_nothing_changed():
    """At most a share alpha in expectation; 200 looks at 10 % are above 30 with probability 1 %."""
    small = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        day = np.repeat(np.arange(20), 40)
        push = random.normal(0, 1, (20, 3))[day]
        values = push + random.normal(0, 1, push.shape)
        found = pl.DataFrame(
            {"day": [FIRST + timedelta(days=int(k)) for k in day], **{f"x{j}": values[:, j] for j in range(3)}}
        )
        report = hf.drift(found.filter(day < 19), found.filter(day >= 19), time="day")
        small += report.joint_p_value <= 0.1
    assert small <= 30


@pytest.mark.slow
def test_blocks_are_dealt_anew_and_many_are_joined_alike_on_both_sides():
    reference = rows(4000).with_columns(user=pl.Series([f"u{i // 2}" for i in range(4000)]))
    current = rows(1000, seed=1, shift=0.5).with_columns(user=pl.Series([f"v{i // 2}" for i in range(1000)]))
    report = hf.drift(reference, current, block="user")
    assert report["x"].verdict == "moved"
    assert report["x"].p_value == 1 / 500
    assert "2,500 blocks were joined to groups of 3" in report.notes[0]
    few = hf.drift(reference, current.head(2), block="user", columns="on")
    assert few["on"].verdict == "unknown"


def test_missing_values_move_no_distance_and_count_by_themselves():
    reference = rows(2000)
    current = rows(2000, seed=1).with_columns(x=pl.when(pl.int_range(2000) % 5 == 0).then(None).otherwise(pl.col("x")))
    found = hf.drift(reference, current)["x"]
    assert found.gap < 0.05
    assert (found.missing_reference, found.missing_current) == (0.0, 0.2)
    assert found.verdict == "maybe"
    assert "missing 0% before, 20.0% now" in found.why
    floats = hf.drift(reference, current.with_columns(pl.col("x").fill_null(math.nan)))["x"]
    assert floats == found


@pytest.mark.parametrize(
    ("reference", "current", "why"),
    [
        ([], [1.0] * 50, "the reference has no row"),
        ([1.0, 2.0] * 50, [], "the current table has no row"),
        ([1.0, 2.0] * 50, [1.0], "the current table has 1 values, 30 are needed"),
        ([None] * 50, [1.0] * 50, "every value of the reference is missing"),
        ([1.0, 2.0] * 50, [None] * 50, r"every value is missing now \(0.0% were in the reference\)"),
        ([3.0] * 50, [3.0] * 50, "every value of both tables is 3: a constant cannot move"),
        (["z"] * 50, ["z"] * 50, "every value of both tables is z"),
        ([1.0, 2.0] * 50, ["one"] * 50, "its type changed: String where the reference had numbers"),
        ([date(2024, 1, 1)] * 50, [date(2024, 1, 2)] * 50, r"it holds Date, which is not counted \(times move on"),
        ([[1]] * 50, [[2]] * 50, r"it holds List\(Int64\), which is not counted"),
    ],
)
@pytest.mark.parametrize("unit", ["rows", "day", "block"])
def test_what_cannot_be_judged_says_why_and_is_broken_only_where_it_was_something_else(reference, current, why, unit):
    def table(values, day):
        return pl.DataFrame(
            {"x": values, "day": [date(2024, 1, day)] * len(values)}, schema_overrides={"day": pl.Date}, strict=False
        )

    keys = {"rows": {}, "day": {"time": "day"}, "block": {"block": "day"}}[unit]
    report = hf.drift(table(reference, 1), table(current, 2), columns="x", **keys)
    found = report["x"]
    is_broken = "missing now" in why or "type changed" in why
    assert found.verdict == ("broken" if is_broken else "unknown")
    assert report.broken() == report.moved() == ["x"] * is_broken
    assert re.search(why, found.why)
    assert (found.gap, found.p_value, report.joint_p_value) == (None, None, None)
    json.dumps(report.to_dict(), allow_nan=False)
    assert report._repr_html_()
    with pytest.raises(DataError, match="was not measured"):
        report.plot("x")


def test_columns_that_vanish_or_change_stand_first_and_new_ones_are_named():
    reference = rows(300).with_columns(gone=1.0, text=pl.col("x"))
    current = rows(300, seed=1).with_columns(new=1.0, text=pl.lit("a"))
    report = hf.drift(reference, current)
    assert [one.column for one in report.columns][:2] == ["gone", "text"]
    assert report["new"].why == "new: the reference has no such column"
    assert report.moved() == report.broken() == ["gone", "text"]
    assert "6 columns: 2 broken" in str(report)


@pytest.mark.parametrize(("before", "now"), [(3.0, 4.0), ("Male", "M"), (False, True)])
def test_a_column_with_no_value_that_the_reference_had_is_broken_and_measured_still(before, now):
    found = hf.drift({"x": [before] * 100}, {"x": [now] * 100})["x"]
    assert (found.gap, found.outside, found.verdict) == (1.0, 1.0, "broken")
    assert found.why.startswith("every value is one that the reference never had")


def test_a_few_missing_values_are_no_broken_column_where_most_were_missing_before():
    sparse = [1.0, 2.0] * 20 + [None] * 960
    assert hf.drift({"x": sparse}, {"x": [None] * 50})["x"].verdict == "unknown"
    assert hf.drift({"x": sparse}, {"x": [None] * 500})["x"].verdict == "broken"


def named(values: np.ndarray, **more: object) -> pl.DataFrame:
    """A column `zip` of texts."""
    return pl.DataFrame({"zip": [f"z{value}" for value in values], **more})


@pytest.mark.slow
@pytest.mark.parametrize("values", [700, 2000])
@pytest.mark.parametrize("unit", ["rows", "block", "time"])
def test_texts_of_many_values_move_seldom_when_nothing_changed(values, unit):
    """At 5 % in expectation; of 20 looks more than 5 alarm with probability below 0.1 %."""
    random, alarms = np.random.default_rng(7), 0
    share = random.permutation(1 / np.arange(1, values + 1))
    for _ in range(20):
        sides = [random.choice(values, n, p=share / share.sum()) for n in (4000, 1000)]
        days = [np.arange(4000) // 100, 40 + np.arange(1000) // 100]
        tables = [
            named(side, day=[FIRST + timedelta(days=int(k)) for k in day])
            for side, day in zip(sides, days, strict=True)
        ]
        keys = {} if unit == "rows" else {unit: "day"}
        alarms += hf.drift(*tables, columns="zip", **keys)["zip"].verdict in ("moved", "maybe", "broken")
    assert alarms <= 5


def test_texts_of_many_values_that_shift_are_found_and_new_ones_have_a_share_of_their_own():
    random = np.random.default_rng(8)
    before, now = np.append(np.arange(1000), random.integers(0, 1000, 7000)), random.integers(0, 500, 4000)
    shifted = hf.drift(named(before), named(now))["zip"]
    assert (shifted.verdict, shifted.outside) == ("maybe", 0.0)
    new = hf.drift(named(before), named(np.append(now[:3000], np.arange(5000, 6000))))["zip"]
    assert new.outside == 0.25


def test_a_text_whose_every_value_is_its_own_is_unknown_unless_one_side_is_not_so():
    ids, others = named(np.arange(500)), named(np.arange(500, 900))
    found = hf.drift(ids, others)["zip"]
    assert (found.verdict, found.why[:34]) == ("unknown", "almost every value is its own, as ")
    assert hf.drift(ids, named(np.zeros(400, dtype=int)))["zip"].verdict == "maybe"


def seasons(days: int, *, begin: int = 0, columns: int = 4) -> pl.DataFrame:
    """Numbers with a year's season and days of storm: windows of the reference differ from each other a lot."""
    random = np.random.default_rng(begin)
    day = np.repeat(np.arange(begin, begin + days), 24)
    season = np.sin(day / 365 * 2 * np.pi)[:, None]
    storm = (random.random(begin + days) < 0.03)[day][:, None] * random.normal(0, 4, (begin + days, columns))[day]
    values = season + storm + random.normal(0, 0.3, (day.size, columns))
    return pl.DataFrame(
        {"day": [FIRST + timedelta(days=int(k)) for k in day], **{f"x{j}": values[:, j] for j in range(columns)}}
    )


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 4, 12])
def test_a_unit_change_in_the_newest_week_is_found_however_many_harmless_columns_stand_beside(columns):
    reference, current = seasons(364, columns=columns), seasons(364, begin=364, columns=columns)
    newest = pl.col("day") > FIRST + timedelta(days=720)
    scaled = current.with_columns(x0=pl.when(newest).then(pl.col("x0") * 41).otherwise(pl.col("x0")))
    found = hf.drift(reference, scaled, time="day")["x0"]
    assert found.verdict == "moved"
    assert "of the values of the newest 7 days are unlike all of the reference" in found.why
    lost = current.with_columns(x0=pl.when(newest).then(99.0).otherwise(pl.col("x0")))
    report = hf.drift(reference, lost, time="day")
    assert report.broken() == ["x0"]
    assert "every value of the newest 7 days is one that the reference never had" in report["x0"].why
    gone = current.with_columns(x0=pl.when(newest).then(None).otherwise(pl.col("x0")))
    assert "every value of the newest 7 days is missing" in hf.drift(reference, gone, time="day")["x0"].why


def test_a_verdict_against_the_ranks_of_its_own_column_says_what_stands_out_elsewhere():
    scores = np.zeros((20, 3, 1))
    scores[3, 0], scores[4, 1], scores[-1, 2] = 0.9, 0.8, 0.1
    unusual = surprise.standing(scores.reshape(20, 3))
    corrected, joint, crowd = surprise._corrected(scores, ["a", "b", "c"], unusual)
    assert (joint, corrected["c"], crowd["c"]) == (3 / 20, 3 / 20, 2)
    said = surprise._seen_of(np.array([[0.1, 0.0, 0.0], [0.2, 0.0, 0.0]]), "the newest day", 2)
    assert said == (
        "the newest day 0.2 apart, those of the reference 0.1 at most, "
        "yet 2 of 1 windows of the reference stand out as much in some column"
    )


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=12), st.randoms())
def test_standing_is_the_same_whatever_the_order_of_the_units(scores, random):
    found = surprise.standing(np.array(scores))
    order = random.sample(range(len(scores)), len(scores))
    assert (surprise.standing(np.array(scores)[order]) == found[order]).all()


def test_a_report_is_a_mapping_of_columns():
    report = hf.drift(rows(100), rows(60, seed=1))
    assert "x" in report
    assert "z" not in report
    assert set(report) == {"x", "name", "on"} == set(dict(report))
    assert len(report) == 3
    with pytest.raises(DataError, match=r"name the column to plot: '\w+', '\w+', '\w+'"):
        report.plot()


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["rows", "time", "block"]))
def test_the_order_of_rows_changes_nothing(seed, unit):
    reference, current = rows(300, days=20), rows(60, seed=1, shift=0.3, days=3, begin=20)
    keys = {} if unit == "rows" else {unit: "day"}
    before = hf.drift(reference, current, **keys)
    shuffled = [side.sample(fraction=1.0, shuffle=True, seed=seed) for side in (reference, current)]
    assert hf.drift(*shuffled, **keys).to_dict() == before.to_dict()


@pytest.mark.slow
def test_lazy_and_foreign_tables_give_the_same_report():
    reference, current = rows(500), rows(400, seed=1, shift=0.5)
    expected = hf.drift(reference, current).to_dict()
    assert hf.drift(reference.lazy(), current.lazy()).to_dict() == expected
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frames = [pd.DataFrame({name: side[name].to_list() for name in side.columns}) for side in (reference, current)]
    assert hf.drift(*frames).to_dict() == expected


def test_outputs_are_told_apart_and_columns_chosen():
    report = hf.drift(rows(200), rows(200, seed=1), columns=["name"], outputs="x")
    assert {one.column: one.role for one in report.columns} == {"name": "input", "x": "output"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"columns": ["nme"]}, r"neither table has a column 'nme'; did you mean 'name'\?"),
        ({"outputs": "score"}, "neither table has a column 'score'"),
        ({"time": "dya"}, r"the reference has no column 'dya'; did you mean 'day'\?"),
        ({"time": "day", "block": "name"}, "not both"),
        ({"time": "day", "window": 9}, "a window of 9 days is longer than the current table, which has rows on 2"),
        ({"time": "day", "window": 0}, "at least one day"),
        ({"window": 7}, "window= counts days, which need time="),
        ({"timezone": "Europe/Berlin"}, "timezone= counts days, which need time="),
        ({"alpha": 1.0}, r"in \(0, 1\), not 1.0"),
    ],
)
def test_what_is_asked_wrongly_is_told_with_what_would_be_right(asked, said):
    with pytest.raises(DataError, match=said):
        hf.drift(rows(100, days=5), rows(60, days=2, begin=5), **asked)
    with pytest.raises(DataError, match="did you mean 'name'"):
        hf.drift(rows(100), rows(60))["nam"]


def test_rows_without_a_time_and_tables_that_overlap_are_noted():
    reference = rows(100, days=5).with_columns(day=pl.when(pl.int_range(100) < 3).then(None).otherwise(pl.col("day")))
    report = hf.drift(reference, rows(60, days=2, begin=4), time="day")
    assert report.notes[0] == "3 rows of the reference have no time and are left out."
    assert "begins on 2024-01-05, before the reference ends (2024-01-05)" in report.notes[1]


def test_the_report_is_a_frame_a_dictionary_json_and_text():
    report = hf.drift(rows(300, days=20), rows(60, seed=1, days=3, begin=20), time="day")
    frame = report.to_frame()
    assert frame["column"].to_list() == [one.column for one in report.columns]
    assert frame.schema["p_value"] == pl.Float64
    assert json.loads(report.to_json()) == report.to_dict()
    assert str(report).splitlines()[1].split() == ["column", "verdict", "gap", "psi", "p", "missing", "why"]
    series = report.series("x")
    assert series["side"].to_list() == ["reference"] * 20 + ["current"] * 3
    assert hf.drift(rows(90), rows(90)).series("x").is_empty()


def test_an_empty_choice_of_columns_gives_a_report_without_any():
    report = hf.drift({"day": ["2024-01-01"]}, {"day": ["2024-01-02"]}, time="day")
    assert report.columns == ()
    assert isinstance(report, DriftReport)
    assert report.to_frame().is_empty()


@pytest.mark.slow
def test_the_designed_shift_of_car_loan_is_found_and_nothing_else(shared_data):
    """SOURCE.md: from row 25,000 of the analysis on the car value, the loan length and others are shifted."""
    folder = shared_data("nannyml_car_loan")
    parts = [pl.read_parquet(folder / f"synthetic_car_loan_{part}.parquet") for part in ("reference", "analysis")]
    columns = [name for name in parts[1].columns if name not in ("id", "timestamp")]
    report = hf.drift(*parts, columns=columns, time="timestamp")
    moved = {"car_value", "salary_range", "loan_length", "repaid_loan_on_prev_car", "y_pred_proba"}
    assert set(report.moved()) == moved
