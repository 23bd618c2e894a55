import numpy as np
import polars as pl
import pytest

from holdfast.checks.estimated_quality import EstimatedQuality
from holdfast.checks.labelled import labelled
from holdfast.core.evidence import Grade, Role
from holdfast.core.kinds import load
from holdfast.errors import HoldfastError

FACTS = {"task": load("tasks", "classification")()}
NUMBERS = {"task": load("tasks", "regression")()}
NUMBER_ROLES = {
    "temp": Role.INPUT,
    "carrier": Role.INPUT,
    "seen_at": Role.INPUT,
    "value": Role.OUTPUT,
    "label": Role.LABEL,
}
NO_LABEL = pl.lit(None, dtype=pl.Float64).alias("label")


def numbered(seed, rows=150, warm=0.0):
    """A day of a regression whose errors grow with the temperature, and are larger for one carrier."""
    random = np.random.default_rng(seed)
    temp = random.normal(warm, 1, rows)
    carrier = random.choice(["AA", "B6"], rows)
    value = 10 + random.normal(0, 1, rows)
    spread = np.exp(0.5 * temp) * np.where(carrier == "AA", 2.0, 1.0)
    return pl.DataFrame(
        {
            "temp": temp,
            "carrier": carrier,
            "seen_at": pl.Series([0] * rows).cast(pl.Datetime("us", "UTC")),
            "value": value,
            "label": value + random.normal(0, spread),
        }
    )


@pytest.fixture
def reference(window, day):
    return window([day(k) for k in range(30)], FACTS)


@pytest.fixture
def week(window, day):
    """A week without labels, right after the reference, and the same with labels."""
    with_labels = [day(100 + k) for k in range(7)]
    return window([one.with_columns(NO_LABEL) for one in with_labels], FACTS, first=30), window(with_labels, FACTS)


def measured(check, now, before):
    (reading,) = check.measure(now, before)
    return reading


@pytest.mark.parametrize("metric", ["roc_auc", "brier", "log_loss", "accuracy"])
def test_the_truth_that_comes_lies_in_the_interval(reference, week, metric):
    blind, seen = week
    reading = measured(EstimatedQuality(metric=metric), blind, reference)
    y, p = (np.concatenate(part) for part in zip(*labelled(seen), strict=True))
    truth = FACTS["task"].metrics(y, p)[metric]
    assert reading.low < truth < reading.high
    assert reading.low < reading.value < reading.high
    assert (reading.name, reading.rows) == (metric, 2100)
    assert "if the concept holds" in reading.note
    assert "on windows of the reference it was off by" in reading.note


def test_answers_that_become_less_certain_are_estimated_worse_without_a_label(reference, window, day):
    doubtful = [day(k).with_columns(pl.col("probability") * 0.3 + 0.35, NO_LABEL) for k in range(7)]
    reading = measured(EstimatedQuality(), window(doubtful, FACTS, first=30), reference)
    assert reading.name == "brier_worse"
    assert EstimatedQuality().grade(reading)[0] is Grade.FAIL
    auc = measured(EstimatedQuality(metric="roc_auc", worse=True), window(doubtful, FACTS, first=30), reference)
    assert auc.value > 0
    assert auc.low < auc.value < auc.high


def test_a_week_like_the_reference_is_no_worse(reference, week):
    reading = measured(EstimatedQuality(), week[0], reference)
    assert reading.low < 0 < reading.high
    assert EstimatedQuality().grade(reading)[0] is Grade.PASS


def test_a_level_without_a_promise_is_unknown_and_says_what_to_state(reference, week):
    check = EstimatedQuality(metric="roc_auc")
    grade, why = check.grade(measured(check, week[0], reference))
    assert grade is Grade.UNKNOWN
    assert "at_least" in why
    assert "worse: true" in why


def test_matured_labels_of_the_window_are_shown_beside_the_estimate(reference, week):
    _, seen = week
    reading = measured(EstimatedQuality(metric="brier"), seen, reference)
    assert "2,100 rows have their label by now, and on them it is 0.1" in reading.note


def test_an_estimate_that_missed_the_truth_of_earlier_weeks_is_not_given(reference, window, day):
    def weeks(change, n):
        return [window([change(day(200 + 7 * w + k)) for k in range(7)], FACTS, first=30 + 7 * w) for w in range(n)]

    def now(earlier):
        facts = {**FACTS, "earlier": earlier}
        return window([day(k).with_columns(NO_LABEL) for k in range(7)], facts, first=90)

    held = weeks(lambda one: one, 4)
    flipped = weeks(lambda one: one.with_columns(label=1 - pl.col("label")), 3)
    assert "0 of 4 earlier estimates missed" in measured(EstimatedQuality(), now(held), reference).note
    reading = measured(EstimatedQuality(), now([*held, *flipped]), reference)
    assert reading.value is None
    assert "not used for decisions" in reading.note
    assert "3 of 7" in reading.note
    assert EstimatedQuality().grade(reading)[0] is Grade.UNKNOWN
    unlabelled = weeks(lambda one: one.with_columns(NO_LABEL), 3)
    assert measured(EstimatedQuality(), now(unlabelled), reference).value is not None


def test_blocks_of_the_window_are_left_out_of_the_reference(reference, window, day):
    inside = window([day(3)], FACTS)
    inside.blocks = reference.blocks[3:10]
    own = measured(EstimatedQuality(), inside, reference)
    rest = window([day(k) for k in (*range(3), *range(10, 30))], FACTS)
    assert own.value == pytest.approx(measured(EstimatedQuality(), inside, rest).value)


def test_a_fall_is_not_calibrated_on_history_in_the_wrong_direction(reference):
    history = type(reference)(reference.blocks[:7], reference.roles, FACTS)
    reading = measured(EstimatedQuality(metric="roc_auc"), history, reference)
    assert reading.value is None
    assert "worse: true" in reading.note
    assert measured(EstimatedQuality(metric="roc_auc", worse=True), history, reference).value is not None


def altered(name):
    """How a bad week or a bad reference comes about, and the word that its reading must hold."""
    return {
        "no rows": (lambda day: day[:0], "answers in the window"),
        "one row": (lambda day: day[:1], "1 answer in the window"),
        "all null": (lambda day: day.with_columns(probability=pl.lit(None, pl.Float64)), "answers in the window"),
        "constant": (lambda day: day.with_columns(probability=pl.lit(0.3)), "every answer in the window is 0.3"),
        "no column": (lambda day: day.drop("probability"), "answers in the window"),
        "minutes": (lambda day: day.with_columns(pl.col("probability") * 60), "outside [0, 1]"),
    }[name]


@pytest.mark.parametrize("name", ["no rows", "one row", "all null", "constant", "no column", "minutes"])
def test_a_week_that_says_nothing_is_unknown(reference, window, day, name):
    change, why = altered(name)
    days = 1 if name == "one row" else 7
    now = window([change(day(k)) for k in range(days)], FACTS, first=30)
    reading = measured(EstimatedQuality(), now, reference)
    assert reading.value is None
    assert why in reading.note
    assert EstimatedQuality().grade(reading)[0] is Grade.UNKNOWN


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda day: day.with_columns(NO_LABEL), "no reference row has both"),
        (lambda day: day.drop("label"), "no reference row has both"),
        (lambda day: day.with_columns(probability=pl.lit(None, pl.Float64)), "no reference row has both"),
        (lambda day: day.with_columns(label=pl.lit(0.0)), "the other class never occurs"),
        (lambda day: day.with_columns(probability=pl.lit(0.3)), "every answer of the reference is 0.3"),
        (lambda day: day.with_columns(pl.col("probability") * 60), "outside [0, 1]"),
    ],
)
def test_a_reference_that_teaches_nothing_is_unknown(window, day, week, change, why):
    reading = measured(EstimatedQuality(), week[0], window([change(day(k)) for k in range(30)], FACTS))
    assert reading.value is None
    assert why in reading.note


def test_no_reference_at_all_is_unknown(week):
    assert measured(EstimatedQuality(), week[0], None).value is None


def test_a_short_reference_gives_an_estimate_without_an_interval(window, day, week):
    reading = measured(EstimatedQuality(), week[0], window([day(k) for k in range(3)], FACTS))
    assert reading.value is not None
    assert reading.low is reading.high is None
    assert EstimatedQuality().grade(reading)[0] is Grade.UNKNOWN


def test_a_metric_that_cannot_be_estimated_names_the_near_miss(reference, week):
    with pytest.raises(HoldfastError, match="roc_auc"):
        EstimatedQuality(metric="roc_acu").measure(week[0], reference)


def test_the_order_of_rows_changes_nothing(reference, window, day):
    one = window([day(50)], FACTS, first=30)
    other = window([day(50).sample(fraction=1.0, shuffle=True, seed=1)], FACTS, first=30)
    first, second = (measured(EstimatedQuality(metric="roc_auc"), now, reference) for now in (one, other))
    assert first.value == pytest.approx(second.value, rel=1e-12)
    assert first.low == pytest.approx(second.low, rel=1e-9)


def test_a_row_without_an_answer_changes_nothing_in_the_estimate(reference, window, day):
    null = day(50)[:1].with_columns(probability=pl.lit(None, pl.Float64))
    one, other = (window([rows], FACTS, first=30) for rows in (day(50), pl.concat([day(50), null])))
    assert measured(EstimatedQuality(), one, reference).value == measured(EstimatedQuality(), other, reference).value


@pytest.mark.slow
def test_the_error_of_a_regression_is_estimated_from_its_features(window):
    reference = window([numbered(k) for k in range(30)], NUMBERS, roles=NUMBER_ROLES)
    warm = [numbered(50 + k, warm=1.0) for k in range(7)]
    blind = window([one.with_columns(NO_LABEL) for one in warm], NUMBERS, first=30, roles=NUMBER_ROLES)
    rows = pl.concat(warm)
    truth = float((rows["value"] - rows["label"]).abs().mean())
    reading = measured(EstimatedQuality(metric="mae"), blind, reference)
    assert reading.low < truth < reading.high
    worse = measured(EstimatedQuality(), blind, reference)
    assert worse.name == "absolute_error_worse"
    assert EstimatedQuality().grade(worse)[0] is Grade.FAIL


@pytest.mark.slow
def test_a_regression_that_lost_a_column_and_met_a_new_category_is_still_estimated(window):
    reference = window([numbered(k) for k in range(10)], NUMBERS, roles=NUMBER_ROLES)
    strange = numbered(60).drop("temp").with_columns(carrier=pl.lit("ZZ"))
    now = window([strange], NUMBERS, first=30, roles=NUMBER_ROLES)
    assert measured(EstimatedQuality(metric="rmse"), now, reference).value > 0


def test_labels_below_zero_have_no_logarithmic_error(window):
    reference = window([numbered(k).with_columns(pl.col("label") - 40) for k in range(6)], NUMBERS, roles=NUMBER_ROLES)
    now = window([numbered(60)], NUMBERS, first=30, roles=NUMBER_ROLES)
    reading = measured(EstimatedQuality(metric="rmsle"), now, reference)
    assert reading.value is None
    assert "at least 0" in reading.note
