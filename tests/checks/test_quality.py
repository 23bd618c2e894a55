import polars as pl
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from holdfast.checks.quality import Quality
from holdfast.core.evidence import Grade
from holdfast.core.kinds import load
from holdfast.errors import HoldfastError

FACTS = {"task": load("tasks", "classification")()}


def joined(days):
    rows = pl.concat(days)
    return rows["label"].to_numpy(), rows["probability"].to_numpy()


@pytest.mark.parametrize(
    ("metric", "independent"),
    [("brier", brier_score_loss), ("log_loss", log_loss), ("roc_auc", roc_auc_score)],
)
def test_a_metric_is_that_of_scikit_learn_over_all_rows(window, day, metric, independent):
    days = [day(k, rows) for k, rows in enumerate((300, 100, 200))]
    (reading,) = Quality(metric=metric).measure(window(days, FACTS))
    assert reading.value == pytest.approx(independent(*joined(days)))
    assert reading.low < reading.value < reading.high
    assert (reading.name, reading.rows) == (metric, 600)


def test_rows_without_labels_are_counted_and_not_imputed(window, day):
    whole = day()
    some = whole.with_columns(label=pl.when(pl.int_range(pl.len()) < 60).then(None).otherwise(pl.col("label")))
    (reading,) = Quality(metric="brier").measure(window([some], FACTS))
    (labelled,) = Quality(metric="brier").measure(window([whole[60:]], FACTS))
    assert reading.value == labelled.value
    assert reading.rows == 240
    assert "240 of 300 rows are labelled (80.0%)" in reading.note


def test_one_block_has_a_value_and_no_interval(window, day):
    (reading,) = Quality(metric="brier").measure(window([day()], FACTS))
    assert reading.value is not None
    assert reading.low is reading.high is None


@pytest.mark.parametrize("rows", [0, 300])
def test_without_any_label_quality_is_unknown(window, day, rows):
    unlabelled = day(0, 300)[:rows].with_columns(label=pl.lit(None, dtype=pl.Float64))
    (reading,) = Quality(metric="brier").measure(window([unlabelled], FACTS))
    assert reading.value is None
    assert "no labelled row" in reading.note
    assert Quality(metric="brier").grade(reading)[0] is Grade.UNKNOWN


def test_one_row_and_one_class_are_never_a_wrong_number(window, day):
    (brier,) = Quality(metric="brier").measure(window([day()[:1]], FACTS))
    assert brier.rows == 1
    (auc,) = Quality(metric="roc_auc").measure(window([day().with_columns(label=pl.lit(1.0))], FACTS))
    assert auc.value is None
    assert "undefined" in auc.note


def test_a_metric_the_task_has_not_names_the_near_miss(window, day):
    with pytest.raises(HoldfastError, match="roc_auc"):
        Quality(metric="roc_acu").measure(window([day()], FACTS))


def test_the_order_of_rows_changes_nothing(window, day):
    (one,) = Quality(metric="log_loss").measure(window([day()], FACTS))
    (other,) = Quality(metric="log_loss").measure(window([day().sample(fraction=1.0, shuffle=True, seed=1)], FACTS))
    assert one.value == pytest.approx(other.value, rel=1e-12)
