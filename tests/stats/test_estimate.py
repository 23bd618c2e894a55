import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from holdfast.stats.calibration import FITS, isotonic
from holdfast.stats.estimate import (
    HIGHER_IS_BETTER,
    PastErrors,
    average_confidence,
    count,
    draw_runs,
    estimate,
    from_counts,
    noise,
    past_errors,
)

scored = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.05, 0.2, 0.5, 0.7, 0.95])), min_size=3, max_size=60)


def calibrated(seed, rows=4000):
    random = np.random.default_rng(seed)
    s = random.beta(2, 4, rows)
    return (random.random(rows) < s).astype(float), s


def days(seed, blocks, rows=200, wander=0.0):
    """Days whose labels are those of the scores, up to a day's own push of the log odds."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(blocks):
        s = random.beta(2, 4, rows)
        odds = np.log(s / (1 - s)) + random.normal(0, wander)
        made.append(((random.random(rows) < 1 / (1 + np.exp(-odds))).astype(float), s))
    return made


def test_with_labels_in_place_of_probabilities_metrics_are_those_of_scikit_learn():
    y, s = calibrated(0)
    s = s.round(2)
    said = s >= 0.5
    expected = {
        "accuracy": accuracy_score(y, said),
        "precision": precision_score(y, said),
        "recall": recall_score(y, said),
        "specificity": recall_score(1 - y, ~said),
        "f1": f1_score(y, said),
        "roc_auc": roc_auc_score(y, s),
        "average_precision": average_precision_score(y, s),
        "brier": brier_score_loss(y, s),
        "log_loss": log_loss(y, np.clip(s, 1e-6, 1 - 1e-6)),
    }
    found = {name: float(values[0]) for name, values in estimate(s, y).items()}
    assert found == pytest.approx(expected, abs=1e-12)


def test_estimates_are_what_drawn_labels_come_to_on_average():
    _, s = calibrated(1, rows=400)
    random = np.random.default_rng(2)
    drawn = [estimate(s, (random.random(s.size) < s).astype(float)) for _ in range(400)]
    expected = estimate(s, s)
    for name in HIGHER_IS_BETTER:
        values = np.array([one[name][0] for one in drawn])
        assert abs(values.mean() - expected[name][0]) < 4 * values.std() / 20 + 0.005, name


@settings(max_examples=40)
@given(scored, scored)
def test_chunks_are_estimated_as_if_each_stood_alone(one, other):
    (y0, s0), (y1, s1) = (map(np.array, zip(*[(float(y), s) for y, s in rows], strict=True)) for rows in (one, other))
    both = estimate(np.concatenate([s0, s1]), np.concatenate([y0, y1]), [0, s0.size])
    alone = estimate(s0, y0), estimate(s1, y1)
    for name, values in both.items():
        assert values == pytest.approx([alone[0][name][0], alone[1][name][0]], nan_ok=True)


@settings(max_examples=40)
@given(scored, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows, random):
    mixed = random.sample(rows, len(rows))
    first, second = (
        estimate(np.array([s for _, s in part]), np.array([float(y) for y, _ in part])) for part in (rows, mixed)
    )
    for name in HIGHER_IS_BETTER:
        assert first[name] == pytest.approx(second[name], nan_ok=True)


@settings(max_examples=40)
@given(scored)
def test_tables_of_counts_say_what_rows_say(rows):
    y, s = np.array([float(label) for label, _ in rows]), np.array([score for _, score in rows])
    counts = count([(y, s)])
    found = from_counts(counts.rows, counts.positives, counts.scores)
    for name, values in estimate(s, y).items():
        assert found[name] == pytest.approx(values, nan_ok=True)


def test_what_a_window_cannot_say_is_undefined_and_never_a_number():
    found = estimate(np.array([0.2, 0.3]), np.array([0.0, 0.0]))
    undefined = {name for name, values in found.items() if np.isnan(values[0])}
    assert undefined == {"precision", "recall", "f1", "roc_auc", "average_precision"}
    with pytest.raises(ValueError, match="needs a row"):
        estimate(np.array([0.2]), np.array([0.0]), [0, 1])
    with pytest.raises(ValueError, match="there are accuracy"):
        estimate(np.array([0.2]), np.array([0.0]), metrics=("acuracy",))
    assert np.isnan(average_confidence(np.empty(0)))
    assert noise(np.empty(0)) == 0.0


def test_rows_answered_positive_may_be_given():
    y, s = calibrated(3)
    found = estimate(s, y, metrics=("accuracy",), claimed=s >= 0.3)
    assert found["accuracy"][0] == pytest.approx(accuracy_score(y, s >= 0.3))


def test_average_confidence_is_the_estimated_accuracy_of_scores_that_are_believed():
    _, s = calibrated(4)
    assert average_confidence(s) == pytest.approx(float(estimate(s, s)["accuracy"][0]))


def test_many_scores_are_counted_in_cells_that_part_at_one_half():
    y, s = calibrated(5, rows=20_000)
    counts = count([(y[:10_000], s[:10_000]), (y[10_000:], s[10_000:])], cells=50)
    assert counts.rows.sum() == 20_000
    assert counts.positives.sum() == y.sum()
    assert counts.rows[:, counts.scores >= 0.5].sum() == (s >= 0.5).sum()
    found = from_counts(counts.rows.sum(axis=0)[None], counts.positives.sum(axis=0)[None], counts.scores)
    assert found["roc_auc"][0] == pytest.approx(roc_auc_score(y, s), abs=1e-3)
    with pytest.raises(ValueError, match="no reference row"):
        count([])


@pytest.mark.slow
@pytest.mark.parametrize("wander", [0.0, 0.5])
def test_intervals_hold_the_truth_at_their_rate_also_when_labels_cluster_by_day(wander):
    inside = {name: [] for name in ("accuracy", "roc_auc", "brier", "f1")}
    for seed in range(60):
        every = days(seed, 67, wander=wander)
        reference, window = every[:60], every[60:]
        counts = count(reference, cells=100)
        past = past_errors(counts, isotonic, blocks=7, seed=seed, replicates=150)
        curve = isotonic(counts.scores, counts.rows.sum(axis=0), counts.positives.sum(axis=0))
        y, s = (np.concatenate(part) for part in zip(*window, strict=True))
        p = curve(s)
        for name, hits in inside.items():
            low, high = past.interval(name, float(estimate(s, p)[name][0]), noise(p))
            hits.append(low <= float(estimate(s, y)[name][0]) <= high)
    # 60 trials at 95 %: below 52 has a probability under 1 %
    assert {name: sum(hits) >= 52 for name, hits in inside.items()} == dict.fromkeys(inside, True)


def test_intervals_are_wider_where_labels_cluster_and_where_rows_are_fewer():
    def width(wander, weight):
        counts = count(days(1, 60, wander=wander), cells=100)
        low, high = past_errors(counts, FITS["sigmoid"], blocks=7).interval("brier", 0.2, weight)
        return high - low

    assert width(0.6, 0.01) > 1.5 * width(0.0, 0.01)
    assert width(0.0, 0.05) > 1.5 * width(0.0, 0.01)


def test_a_short_reference_gives_no_interval():
    past = past_errors(count(days(1, 3)), isotonic, blocks=7)
    assert np.isnan(past.interval("brier", 0.2, 0.01)).all()
    assert np.isnan(PastErrors({"f1": np.full(300, np.nan)}, np.ones(300), 9.0).interval("f1", 0.5, 1.0)).all()
    known = past_errors(count(days(1, 20)), isotonic, blocks=7)
    assert np.isnan(known.interval("f1", float("nan"), 0.01)).all()


def test_the_same_seed_gives_the_same_errors():
    counts = count(days(2, 20))
    first, second = (past_errors(counts, isotonic, blocks=5, seed=9).by_metric["roc_auc"] for _ in range(2))
    assert np.array_equal(first, second)


@given(st.integers(1, 40), st.integers(1, 10), st.integers(1, 30))
def test_runs_are_neighbours_and_wrap(n, length, wanted):
    drawn = draw_runs(np.random.default_rng(0), n, length, wanted, 3)
    assert drawn.shape == (3, wanted)
    assert drawn.min() >= 0
    assert drawn.max() < n
    inside = np.arange(1, wanted) % length != 0
    assert ((drawn[:, 1:] - drawn[:, :-1] - 1) % n == 0)[:, inside].all()
