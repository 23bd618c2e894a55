"""`hf.estimate_quality`: estimates with interval and assumption, held against labels where they have come."""

import json
import math
import re
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

import holdfast as hf
from holdfast.errors import DataError, NotFound
from holdfast.stats.estimate import estimate

FIRST = date(2024, 1, 1)


def answered(n: int, *, seed: int = 0, days: int = 30, begin: int = 0, sharpness: float = 1.0) -> pl.DataFrame:
    """Answers that come true; below a sharpness of 1 they lie nearer to a half."""
    random = np.random.default_rng(seed)
    p = 0.5 + (random.random(n) - 0.5) * sharpness
    day = [FIRST + timedelta(days=begin + i * days // n) for i in range(n)]
    return pl.DataFrame({"p": p, "y": (random.random(n) < p).astype(int), "day": day})


def priced(n: int, *, seed: int = 0, days: int = 20, begin: int = 0, most: float = 1.0) -> pl.DataFrame:
    """A regression whose errors grow with the column `x`, up to `most`."""
    random = np.random.default_rng(seed)
    x = random.random(n) * most
    answer = 10 + x
    day = [FIRST + timedelta(days=begin + i * days // n) for i in range(n)]
    return pl.DataFrame({"x": x, "answer": answer, "y": answer + random.normal(0, 0.1 + x), "day": day})


@pytest.mark.parametrize("unit", [{}, {"time": "day"}])
@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "brier"])
def test_an_estimate_without_labels_is_near_the_truth(unit, metric):
    reference, current = answered(9000), answered(3000, seed=1, days=10, begin=30, sharpness=0.6)
    found = hf.estimate_quality(reference, current.drop("y"), score="p", label="y", metric=metric, **unit)
    truth = estimate(current["p"].to_numpy(), current["y"].to_numpy().astype(float), metrics=(metric,))[metric][0]
    assert found.low < truth < found.high
    assert found.value == pytest.approx(truth, abs=0.03)
    assert (found.realised, found.labelled, found.rows) == (None, 0, 3000)
    assert found.verdict == "worse"
    assert found.assumes.startswith("if the concept holds")


def test_the_interval_says_what_its_unit_is():
    reference, current = answered(3000), answered(600, seed=1, begin=30, days=6)
    assert "rows are independent" in hf.estimate_quality(reference, current, score="p", label="y").assumes
    by_day = hf.estimate_quality(reference, current, score="p", label="y", time="day")
    assert by_day.assumes == "if the concept holds; days are the unit of the interval"


def test_scores_that_are_off_are_calibrated_on_the_reference():
    reference, current = (answered(6000, seed=k).with_columns(p=pl.col("p") ** 3) for k in range(2))
    found = hf.estimate_quality(reference, current, score="p", label="y", metric="log_loss")
    assert found.value == pytest.approx(found.realised, abs=0.02)
    assert found.method in ("CBPE, calibration: sigmoid", "CBPE, calibration: isotonic")


@pytest.mark.slow
def test_labels_that_have_come_stand_beside_and_end_the_trust_in_a_wrong_estimate():
    reference = answered(6000, days=60)
    current = answered(4000, seed=1, days=40, begin=60).with_columns(y=1 - pl.col("y"))
    found = hf.estimate_quality(reference, current, score="p", label="y", time="day", metric="accuracy")
    assert found.realised < 0.4 < found.reference
    assert not found.is_usable
    assert "the concept does not hold" in found.trust
    assert found.verdict == "worse"
    assert re.match(r"the labels say otherwise: 0\.\d+ on 4,000 rows, outside 0\.\d+ to 0\.\d+, which", found.why)
    half = current.with_columns(y=pl.when(pl.int_range(4000) % 2 == 0).then(pl.col("y")))
    found = hf.estimate_quality(reference, half, score="p", label="y")
    assert (found.labelled, found.verdict) == (2000, "worse")
    assert "on 2,000 rows" in found.why


def test_labels_within_the_interval_and_a_handful_of_them_leave_the_verdict_to_the_estimate():
    reference, current = answered(6000), answered(2000, seed=1, sharpness=0.6)
    found = hf.estimate_quality(reference, current, score="p", label="y", metric="accuracy")
    assert found.low < found.realised < found.high
    assert (found.verdict, "labels" in found.why) == ("worse", False)
    few = current.with_columns(y=pl.when(pl.int_range(2000) < 20).then(1 - pl.col("y")))
    found = hf.estimate_quality(reference, few, score="p", label="y", metric="accuracy")
    assert (found.labelled, found.verdict, "labels" in found.why) == (20, "worse", False)


def test_labels_that_are_as_good_as_the_reference_overrule_an_estimate_that_is_worse():
    reference, current = answered(6000), answered(3000, seed=1)
    dulled = current.with_columns(p=0.5 + (pl.col("p") - 0.5) * 0.3)
    found = hf.estimate_quality(reference, dulled, score="p", label="y", metric="accuracy")
    assert found.high < found.reference
    assert found.verdict == "no evidence"
    assert "the labels say otherwise" in found.why


def test_the_series_has_what_labels_say_of_the_reference_and_estimates_of_the_rest():
    found = hf.estimate_quality(
        answered(6000, days=28), answered(3000, seed=1, days=14, begin=28).drop("y"), score="p", label="y", time="day"
    )
    frame = found.to_frame()
    assert frame["side"].to_list() == ["reference"] * 4 + ["current"] * 2
    assert frame["value"].is_null().to_list() == [True] * 4 + [False] * 2
    assert frame["realised"].is_null().to_list() == [False] * 4 + [True] * 2
    assert frame["last"].to_list()[-1] == "2024-02-11"
    assert "<svg" in found._repr_html_()


@pytest.mark.slow
def test_a_regression_is_estimated_from_features():
    reference, current = priced(6000), priced(2000, seed=1, days=5, begin=20, most=0.5)
    found = hf.estimate_quality(
        reference, current, score="answer", label="y", task="regression", features=["x"], time="day"
    )
    truth = float(np.abs(current["answer"] - current["y"]).mean())
    assert found.metric == "mae"
    assert found.low < truth < found.high
    assert found.value == pytest.approx(truth, rel=0.1)
    assert found.realised == pytest.approx(truth)
    assert found.verdict == "better"


@pytest.mark.parametrize(
    ("reference", "current", "why"),
    [
        (answered(300), answered(300).head(0), "the current table has 0 answers, 30 are needed"),
        (answered(300), answered(300).with_columns(p=0.5), "every current answer is 0.5"),
        (answered(300), answered(300).with_columns(p=pl.col("p") * 9), "they are no probabilities"),
        (answered(300).with_columns(y=None), answered(300), "no reference row has both a label and an answer"),
        (answered(300).with_columns(y=1), answered(300), "the other class never occurs"),
        (answered(300).with_columns(p=0.3), answered(300), "every answer of the reference is 0.3"),
        (answered(300).head(0), answered(300), "no reference row has both"),
    ],
)
@pytest.mark.parametrize("unit", [{}, {"time": "day"}])
def test_what_cannot_be_estimated_is_unknown_and_says_why(reference, current, why, unit):
    found = hf.estimate_quality(reference, current, score="p", label="y", **unit)
    assert (found.verdict, found.value, found.low) == ("unknown", None, None)
    assert why in found.why
    assert json.loads(found.to_json())["value"] is None
    assert why in str(found)
    assert found._repr_html_()


def test_a_reference_of_one_day_gives_an_estimate_and_no_interval():
    found = hf.estimate_quality(answered(900, days=1), answered(300, days=1), score="p", label="y", time="day")
    assert found.value is not None
    assert (found.low, found.verdict) == (None, "unknown")
    assert "too short to say how far" in found.why
    assert math.isfinite(found.reference)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"score": "pp"}, DataError, r"the reference has no column 'pp'; did you mean 'p'\?"),
        ({"label": "day"}, DataError, "label 'day' is Date"),
        ({"metric": "roc_acu"}, NotFound, r"no estimated metric 'roc_acu'; did you mean 'roc_auc'\?"),
        ({"task": "regresion"}, NotFound, "did you mean 'regression'"),
        ({"task": "regression"}, DataError, "name them with features="),
        ({"window": 7}, DataError, "window= counts days, which need time="),
        ({"features": ["day"]}, DataError, "features= are for task='regression'"),
        ({"time": "day", "window": 0}, DataError, "at least one day"),
        ({"score": "day"}, DataError, "column 'day' of the reference holds Date; numbers or booleans are needed"),
    ],
)
def test_what_is_asked_wrongly_is_told_with_what_would_be_right(asked, error, said):
    with pytest.raises(error, match=said):
        hf.estimate_quality(answered(100), answered(100), **({"score": "p", "label": "y"} | asked))
    with pytest.raises(DataError, match="give time="):
        hf.estimate_quality(answered(100), answered(100), score="p", label="y").plot()


@pytest.mark.slow
@pytest.mark.parametrize("unit", [{}, {"time": "day"}])
def test_the_order_of_rows_changes_nothing(unit):
    reference, current = answered(900), answered(300, seed=1, begin=30, days=5)
    before = hf.estimate_quality(reference, current, score="p", label="y", **unit)
    shuffled = [side.sample(fraction=1.0, shuffle=True, seed=5) for side in (reference, current)]
    after = hf.estimate_quality(*shuffled, score="p", label="y", **unit)
    assert after.value == pytest.approx(before.value, rel=1e-12)
    assert (after.low, after.high) == (pytest.approx(before.low, rel=1e-9), pytest.approx(before.high, rel=1e-9))


@pytest.mark.slow
def test_on_car_loan_the_truth_lies_in_the_interval(shared_data):
    folder = shared_data("nannyml_car_loan")
    parts = [
        pl.read_parquet(folder / f"synthetic_car_loan_{part}.parquet")
        for part in ("reference", "analysis", "analysis_target")
    ]
    current = parts[1].join(parts[2], on="id")
    found = hf.estimate_quality(parts[0], current, score="y_pred_proba", label="repaid", time="timestamp")
    assert found.low < found.realised < found.high
    assert found.is_usable
