"""What the benchmark of explanations does to its data, and what it makes of the answers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats.slices import Part
from parts import costs, onsets, pairs, segments
from parts.changes import OF_NUMBERS, OF_TEXTS, Change, changed, deviations, other_rule
from parts.explainsets import EVERY, KEPT, MENDED, answered, arrays, as_pool, frame, losses
from parts.segments import Segment, drawn_segment, jaccard, within
from parts.shared import DATA

BENCH = Path(__file__).parents[2] / "bench"
SIZES = pl.Series("size", np.linspace(0.0, 10.0, 400))
KINDS = pl.Series("kind", ["a", "a", "b", None] * 100)


def made_pool():
    """Fifty days of forty rows: the label is decided by `x`, a little by `kind`, never by `noise`."""
    random = np.random.default_rng(0)
    n = 1000 + 50 * 40
    x, kind = random.normal(size=n), random.choice(["a", "b", "c"], n)
    label = (x + 0.5 * (kind == "b") + random.normal(0, 0.3, n) > 0).astype(float)
    rows = pl.DataFrame({"x": x, "kind": kind, "noise": random.normal(size=n), "tied": x + random.normal(0, 0.1, n)})
    rows = rows.with_columns(label=pl.Series(label))
    return as_pool("made", "classification", rows, fitted=1000, size=40)


@pytest.fixture(scope="module")
def pool():
    return made_pool()


def after(values, kind, strength):
    return changed(values, Change(kind=kind, strength=strength), float(SIZES.std()), np.random.default_rng(0))


def test_no_data_set_that_methods_were_chosen_on_is_measured():
    assert not {"flights", "flights_weeks", "bike_sharing"} & set(EVERY)
    assert not set(MENDED) & set(KEPT)
    assert len(KEPT) >= 5


def test_changes_have_the_strength_that_they_state():
    assert after(SIZES, "shifted", 0.3).mean() == pytest.approx(5.0 + 0.3 * SIZES.std())
    assert after(SIZES, "scaled", 2.0).max() == 20.0
    assert (after(SIZES, "noise", 2.0) - SIZES).std() == pytest.approx(2.0 * SIZES.std(), rel=0.1)
    assert after(SIZES, "missing", 0.2).null_count() == pytest.approx(80, abs=25)
    assert after(KINDS, "renamed", 1.0).drop_nulls().unique().sort().to_list() == ["b", "renamed"]


@pytest.mark.parametrize("values", [SIZES, KINDS])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_permuted_values_are_the_same_values_in_other_rows(values, share):
    dealt = after(values, "permuted", share)
    assert dealt.sort().to_list() == values.sort().to_list()
    assert (
        dealt.fill_null("-" if values.dtype == pl.String else -1.0)
        != values.fill_null("-" if values.dtype == pl.String else -1.0)
    ).any()


def test_every_change_suits_its_type_and_others_are_refused():
    assert {str(each) for each in OF_NUMBERS} > {"shifted 0.3", "scaled 2", "noise 2", "permuted 1", "missing 0.8"}
    for each in OF_NUMBERS:
        assert after(SIZES, each.kind, each.strength).dtype == pl.Float64
    for each in OF_TEXTS:
        assert after(KINDS, each.kind, each.strength).dtype == pl.String
    with pytest.raises(ValueError, match="texts cannot be shifted"):
        after(KINDS, "shifted", 1.0)
    with pytest.raises(ValueError, match="no change is called melted"):
        after(SIZES, "melted", 1.0)


def test_a_column_that_stands_still_is_shifted_by_one():
    rows = pl.DataFrame({"still": [3.0, 3.0], "kind": ["a", "b"]})
    assert deviations(rows, rows.columns) == {"still": 1.0, "kind": 1.0}


def test_another_rule_holds_inside_the_segment_only(pool):
    rows = pl.concat(pool.days)
    inside = rows["x"] > 1.0
    turned = other_rule(pool, rows, inside, 0.6, np.random.default_rng(0))
    differs = turned["label"] != rows["label"]
    assert not (differs & ~inside).any()
    assert (differs & inside).sum() / inside.sum() == pytest.approx(0.6, abs=0.1)


def test_columns_come_back_from_arrays_as_they_were():
    rows = pl.DataFrame({"size": [1.0, None, 3.0], "kind": ["a", None, "b"]})
    assert frame(arrays(rows, rows.columns)).equals(rows)


@pytest.mark.slow
def test_a_column_costs_what_the_model_loses_by_it(pool):
    found = [costs.trial(pool, seed) for seed in range(4)]
    assert all(one["truth"]["noise"] == pytest.approx(0.0, abs=0.02) for one in found)
    broken = [one for one in found if "x" in one["changes"] and "missing" not in one["changes"]["x"]]
    assert all(set(one["scores"]) == set(costs.METHODS) for one in found)
    assert max(one["truth"]["x"] for one in broken) > 0.02


def cost_trial(truth, scores):
    return {
        "changes": dict.fromkeys(truth, "shifted 1"),
        "loss": 0.2,
        "truth": {**truth, "sound": 0.0},
        "scores": {method: {**scores, "sound": 0.0} for method in costs.METHODS},
        "usual_loss": 0.1,
        "ends": {name: (cost, cost - 0.01, cost + 0.005) for name, cost in scores.items()},
    }


def test_a_ranking_that_is_right_is_counted_as_right():
    right = costs.together([cost_trial({"a": 0.1, "b": 0.02, "c": 0.0}, {"a": 9.0, "b": 3.0, "c": 0.5})])
    assert right["estimate"] == {"rank": 1.0, "moved": 1.0, "first": 1.0, "part": 1.0}
    wrong = costs.together([cost_trial({"a": 0.1, "b": 0.02, "c": 0.0}, {"a": 1.0, "b": 3.0, "c": 0.5})])
    assert wrong["psi"]["first"] == 0.0
    assert wrong["psi"]["part"] == pytest.approx(0.2)


def test_trials_in_which_nothing_costs_anything_name_no_worst_column():
    found = costs.together([cost_trial({"a": 0.001, "b": 0.0}, {"a": 1.0, "b": 0.0})])
    assert found["costly"] == 0
    assert found["estimate"]["first"] is None
    assert found["estimate"]["part"] is None


def test_intervals_are_judged_by_what_they_hold_and_how_wide_they_are():
    trials = [cost_trial({"a": 0.1, "b": 0.0}, {"a": 0.1, "b": 0.02})]
    found = costs.intervals(trials, (0.0, 2.0))
    assert (found["count"], found["costly"]) == (2, 1)
    assert found["told"] == {
        "held": 0.5,
        "width": pytest.approx(0.15),
        "score": pytest.approx(0.15 + 40 * 0.1 / 2),  # b lies 0.01 of a loss of 0.1 below its interval
        "of_costly": 1.0,
        "of_little": 1.0,
    }
    assert found["half_to_double"]["held"] == 0.5
    assert (found["as_elsewhere"]["held"], found["as_elsewhere"]["width"]) == (1.0, 2.0)
    assert found["held_by_change"] == {"shifted 1": 0.5}
    assert costs.usual_ends(trials) == pytest.approx((0.025, 0.975))
    assert "as_elsewhere" not in costs.intervals(trials, costs.usual_ends([]))


@pytest.mark.slow
def test_days_may_be_priced_as_they_came(pool):
    found = costs.trial(pool, 0, in_order=True)
    assert set(found["ends"]) <= set(found["changes"])


def test_dates_are_judged_by_day_and_by_interval():
    def one(onset, told, beyond=None):
        return {"series": "loss", "change": "", "onset": onset, "told": told, "beyond": beyond}

    found = onsets.together([one(None, None), one(None, (3, 1, 5)), one(20, (20, 19, 22), 2), one(30, (33, 32, 35))])
    assert (found["told_of_nothing"], found["told"], found["beyond"]) == (0.5, 1.0, 0.5)
    assert (found["held"], found["off_days"], found["on_the_day"]) == (0.5, 1.5, 0.5)
    assert found["beyond_off_days"] == 18.0


@pytest.mark.slow
def test_a_grave_change_is_dated_on_its_day(pool):
    long = as_pool(
        "long", "classification", pl.concat(pool.days * 3).select(*pool.columns, "label"), fitted=800, size=40
    )
    found = [one for one in onsets.trials(long, 1) if one["change"] == "shifted 1"]
    assert [one["told"][0] - one["onset"] for one in found] == [0]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_what_two_segments_have_in_common_is_a_share(rows):
    one, other = (np.array(each, dtype=bool) for each in zip(*rows, strict=True))
    assert 0.0 <= jaccard(one, other) == jaccard(other, one) <= 1.0
    assert jaccard(one, one) == float(one.any())


@pytest.mark.parametrize("columns", [1, 2])
def test_a_drawn_segment_holds_a_part_of_the_rows(pool, columns):
    rows = pl.concat(pool.days)
    for seed in range(5):
        segment = drawn_segment(pool, rows, columns, np.random.default_rng(seed))
        assert len(segment.parts) == columns
        assert 0.08 <= within(segment, rows).mean() <= 0.5


def test_missing_values_belong_to_no_range_and_no_category():
    rows = pl.DataFrame({"size": [1.0, None, 3.0], "kind": ["a", None, "b"]})
    assert within(Segment(parts=(Part(column="size", low=0.0, high=2.0),)), rows).tolist() == [True, False, False]
    assert within(Segment(parts=(Part(column="kind", values=("b",)),)), rows).tolist() == [False, False, True]
    assert within(Segment(parts=(Part(column="kind", is_missing=True),)), rows).tolist() == [False, True, False]


def test_a_segment_counts_as_found_beyond_half_in_common():
    def one(columns, common):
        names = ("search_0.01", "search_0.05", "worst_value", "risen_value")
        return {"columns": columns, "share": 0.6, "astray": dict.fromkeys(names, 1), **dict.fromkeys(names, common)}

    found = segments.together([one(1, 0.9), one(2, 0.5), one(2, None), one(0, None), one(0, 0.0)])["search_0.01"]
    assert found["found"] == pytest.approx(1 / 3)
    assert found["named"] == pytest.approx(2 / 3)
    assert found["of_nothing"] == 0.5
    assert (found["found_1_0.6"], found["found_2_0.6"], found["found_1_0.3"]) == (1.0, 0.0, None)


@pytest.mark.slow
def test_a_pair_that_comes_apart_is_found_by_every_method_that_looks_at_pairs(pool):
    long = as_pool(
        "long", "classification", pl.concat(pool.days * 3).select(*pool.columns, "label"), fitted=800, size=40
    )
    figure = pairs.together(pairs.trials(long, 0))
    assert figure["dependence"]["strong"] == 1.0
    assert figure["moved_0.2"]["strong"] == 1.0
    assert figure["dependence"]["of_nothing"] < 0.5


def test_answers_change_with_the_inputs_and_losses_follow(pool):
    day = pool.days[0]
    again = answered(pool, day)
    assert again[pool.output].to_numpy() == pytest.approx(day[pool.output].to_numpy())
    wrong = answered(pool, day.with_columns(-pl.col("x"), -pl.col("tied")))
    assert losses(pool, wrong).mean() > losses(pool, day).mean() + 0.1


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "elec2").exists(), reason="the shared data is not here")
def test_the_explaining_benchmark_runs_on_one_data_set(tmp_path):
    command = [sys.executable, str(BENCH / "explaining.py"), "--only", "elec2", "--seeds", "1"]
    command += ["--part", "costs,onsets,pairs", "--json", str(tmp_path / "explaining.json")]
    subprocess.run(command, check=True, capture_output=True)
    figures = json.loads((tmp_path / "explaining.json").read_text())["figures"]
    assert [row["data"] for row in figures["costs"]] == ["elec2", "elec2", "elec2, as it came"]
    assert [row["data"] for row in figures["costs"] if "cost_intervals" not in row] == ["elec2"]
    assert [row["series"] for row in figures["onsets"]] == ["distance", "loss"]
    assert set(figures["pairs"][0]) == {"data", "windows", *pairs.METHODS}
