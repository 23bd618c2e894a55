"""The rule is NannyML's: the figures are those of NannyML 0.13.1 on its own sets, where these are at hand."""

import numpy as np
import polars as pl
import pytest

from holdfast.stats.estimate import estimate
from parts.splitrule import calibrated_when_it_helps


def test_scores_that_come_true_stay_as_they_are_and_others_are_put_right():
    random = np.random.default_rng(0)
    s = random.integers(1, 100, 20_000) / 100
    true, bent = ((random.random(s.size) < p).astype(float) for p in (s, s**3))
    assert calibrated_when_it_helps(bent, s).method == "isotonic"
    assert calibrated_when_it_helps(true, s)(np.array([0.5]))[0] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("y", [np.zeros(100), (np.arange(100) > 50).astype(float)])
def test_one_class_and_separated_classes_stay_as_they_are(y):
    assert calibrated_when_it_helps(y, np.arange(100) / 100).method == "as answered"


PLACES = {
    "car_loan": ("nannyml_car_loan/synthetic_car_loan", "repaid"),
    "housing": ("nannyml_california_housing/california_housing", "clf_target"),
}
CHUNKS = {"car_loan": 5000, "housing": 1000}
THEIRS = {
    "car_loan": {
        "accuracy": [0.9417918815681862, 0.9433212063264171, 0.945491564102071],
        "precision": [0.9577859639734007, 0.9579555501211214, 0.9582754860576947],
        "recall": [0.9287226714391587, 0.9252610402036829, 0.9293172147607569],
        "specificity": [0.9558789524616284, 0.9607685275517928, 0.9610577693833253],
        "f1": [0.9430304451628215, 0.9413244905845768, 0.9435742205302156],
        "roc_auc": [0.97074363630015, 0.9710106327368981, 0.9714067155511361],
        "average_precision": [0.9639571716287229, 0.9624355545496974, 0.9627637624228476],
    },
    "housing": {  # nothing is answered positive in the last two chunks: their precision is 0, ours undefined
        "accuracy": [0.6591769492807428, 0.6099930274328812, 0.6718050963629295],
        "recall": [0.07795623919480832, 0.0, 0.0],
        "specificity": [0.9979521801680203, 1.0, 1.0],
        "f1": [0.14416723339100615, 0.0, 0.0],
        "roc_auc": [0.8497786570530483, 0.7296331000284161, 0.6647376355351173],
        "average_precision": [0.7750669997347164, 0.6210152287966975, 0.48709937077993115],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", THEIRS)
def test_estimates_under_the_rule_are_those_of_nannyml(shared_data, name):
    path, label = PLACES[name]
    reference = pl.read_parquet(shared_data(f"{path}_reference.parquet"))
    later = pl.read_parquet(shared_data(f"{path}_analysis.parquet"))[: 3 * CHUNKS[name]]
    y, s0 = (reference[column].to_numpy().astype(float) for column in (label, "y_pred_proba"))
    s = later["y_pred_proba"].to_numpy()
    found = estimate(
        s,
        calibrated_when_it_helps(y, s0)(s),
        range(0, s.size, CHUNKS[name]),
        claimed=later["y_pred"].to_numpy() == 1,
        merge_ties=False,
    )
    for metric, expected in THEIRS[name].items():
        assert found[metric] == pytest.approx(expected, abs=1e-6), metric
