import json
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parts.detectors import Finding, delay, openings, rate, threshold_for
from parts.faults import FAULTS, Facts
from parts.streams import DATA, dated, draw, outages

BENCH = Path(__file__).parents[2] / "bench"
FACTS = Facts(
    task="classification", number="size", other="age", category="kind", deviation=2.0, median=5.0, commonest="a"
)
DAY = pl.DataFrame(
    {
        "second": range(100),
        "size": np.linspace(0.0, 9.9, 100),
        "age": np.linspace(50.0, 60.0, 100),
        "kind": ["a", "a", "b", None] * 25,
        "label": [0.0, 1.0] * 50,
    }
)


def changed(fault, since=0):
    return FAULTS[fault].change(FACTS, DAY, since, np.random.default_rng(0))


@given(st.integers(0, 2**32), st.integers(1, 80), st.integers(1, 60))
def test_no_day_is_drawn_twice_and_days_of_the_week_stay(seed, before, after):
    strata = [k % 7 for k in range(7 * 21)]
    earlier, later = draw(strata, before, after, np.random.default_rng(seed))
    assert max(Counter([*earlier, *later]).values()) == 1
    assert [strata[place] for place in later] == [k % 7 for k in range(after)]
    assert [strata[place] for place in earlier] == [k % 7 for k in range(-before, 0)]


def test_whole_weeks_are_drawn_as_they_were():
    earlier, later = draw([k % 7 for k in range(70)], 18, 21, np.random.default_rng(3), unit=7)
    assert (len(earlier), len(later)) == (18, 21)
    weeks = [later[k : k + 7] for k in (0, 7, 14)]
    assert all(week == list(range(week[0], week[0] + 7)) and week[0] % 7 == 0 for week in weeks)
    assert earlier[-1] % 7 == 6


def test_too_few_days_are_refused():
    with pytest.raises(ValueError, match="no day of stratum 0 is left"):
        draw([0, 0, 0], 2, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="do not make"):
        draw([k % 7 for k in range(14)], 7, 8, np.random.default_rng(0), unit=7)


def test_days_without_a_usual_column_are_outages_and_rare_columns_are_not():
    usual = pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "rare": [None, None, None, 1.0]})
    out = pl.DataFrame({"x": [1.0, None, None, None], "rare": [None, None, None, 1.0]})
    assert outages([usual, out, usual], ["x", "rare"]) == [1]


def test_a_dated_day_lies_on_its_date_with_keys_of_its_own():
    rows = dated(DAY, date(2018, 1, 3), "1")
    assert set(rows["event_at"].dt.date().to_list()) == {date(2018, 1, 3)}
    assert rows["key"].n_unique() == 100
    assert "second" not in rows.columns


def test_faults_change_what_they_name_and_nothing_else():
    touched = {
        name: {column for column in DAY.columns if not changed(name, 59)[column].equals(DAY[column])}
        for name, fault in FAULTS.items()
        if fault.needs != "faulty"
    }
    assert touched.pop("columns swapped") == {"size", "age"}
    assert touched.pop("category renamed") == {"kind"}
    assert touched.pop("labels flipped") == touched.pop("slow decay") == {"label"}
    assert all(columns == {"size"} for columns in touched.values())


def test_faults_have_the_size_that_they_state():
    assert changed("shift 0.3 sd")["size"].mean() == pytest.approx(DAY["size"].mean() + 0.6)
    assert changed("unit °F to °C")["size"][0] == pytest.approx(-32 / 1.8)
    assert changed("missing +80 %")["size"].null_count() == pytest.approx(80, abs=12)
    assert changed("dead feature")["size"].unique().to_list() == [5.0]
    assert (changed("labels flipped")["label"] + DAY["label"]).unique().to_list() == [1.0]
    assert changed("category renamed")["kind"].null_count() == 25


def test_decay_grows_to_its_full_size_and_stays_there():
    wrong = [int((changed("slow decay", since)["label"] != DAY["label"]).sum()) for since in (0, 59, 200)]
    assert wrong[0] < 5 < wrong[1] == wrong[2]


def test_an_alarm_that_goes_on_opens_once():
    assert openings([7, 14, 28], [7, 14, 21, 28]) == 2
    assert openings([], [1, 2]) == 0


def test_an_alarm_before_the_onset_is_no_detection():
    assert delay([3, 10], 8) == 3
    assert delay([3], 8) == np.inf


def test_the_threshold_is_the_most_eager_one_that_keeps_the_rate():
    scores = [(day, float(score)) for day, score in enumerate([1, 9, 1, 5, 1, 7, 1, 3, 1, *[1] * 20])]
    found = [Finding(detector="d", system=0, case="none", scores=scores)]
    assert threshold_for(found, 2.0, 1.0) == 7.0
    assert rate(found, 7.0, 1.0) == 2.0
    assert threshold_for(found, 0.5, 1.0) > 9.0


def test_a_detector_that_always_alarms_does_not_pass_as_a_quiet_one():
    """Lowered to where it never stops alarming a threshold opens one alarm only."""
    still = [Finding(detector="d", system=0, case="none", scores=[(day, 0.5) for day in range(20)])]
    assert rate(still, 0.5, 1.0) == 1.0
    assert threshold_for(still, 1.0, 1.0) > 0.5


def test_a_parameter_of_a_grid_is_chosen_by_its_rate():
    grid = {"0.1": [1, 3, 5], "0.01": [3], "0.001": []}
    found = [Finding(detector="d", system=0, case="none", grid=grid, default=[3])]
    assert threshold_for(found, 1.0, 1.0) == "0.01"
    assert threshold_for(found, 0.5, 1.0) == "0.001"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "sea_concepts").exists(), reason="the shared data is not here")
def test_the_benchmark_runs_on_one_small_data_set(tmp_path):
    command = [sys.executable, str(BENCH / "alarms.py"), "--quick", "--only", "sea_concepts", "--peers", "none"]
    subprocess.run([*command, "--json", str(tmp_path / "alarms.json")], check=True, capture_output=True)
    figures = json.loads((tmp_path / "alarms.json").read_text())["figures"]
    by_detector = {row["detector"]: row for row in figures["false"]}
    assert 0 <= by_detector["Holdfast"]["total"] < 3
    by_fault = {row["fault"]: row for row in figures["delay"]}
    assert by_fault["dead feature"]["holdfast"] == 1
    assert by_fault["shift 1 sd"]["by"]
