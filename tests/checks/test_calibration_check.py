import polars as pl
import pytest

from holdfast.checks.calibration import Calibration
from holdfast.core.evidence import Grade
from holdfast.stats.calibration import calibration_error, reliability


def test_error_and_bias_are_those_of_all_rows_together(window, day):
    days = [day(k) for k in range(5)]
    error, bias = Calibration().measure(window(days))
    rows = pl.concat(days)
    y, p = rows["label"].to_numpy(), rows["probability"].to_numpy()
    assert error.value == pytest.approx(calibration_error(reliability(y, p)))
    assert bias.value == pytest.approx(abs(p.mean() - y.mean()))
    assert error.rows == 1500


def test_answers_that_are_too_low_fail_and_the_reading_says_which_way(window, day):
    wrong = [day(k).with_columns(pl.col("probability") * 0.4) for k in range(7)]
    error, bias = Calibration().measure(window(wrong))
    assert Calibration().grade(error)[0] is Grade.FAIL
    assert error.low > 0.1
    assert "too low" in bias.note


def test_calibrated_answers_pass(window, day):
    for reading in Calibration().measure(window([day(k) for k in range(7)])):
        assert Calibration().grade(reading)[0] is Grade.PASS


def test_no_labels_and_no_probabilities_are_unknown(window, day):
    unlabelled = day().with_columns(label=pl.lit(None, dtype=pl.Float64))
    minutes = day().with_columns(pl.col("probability") * 60)
    for frames in ([], [unlabelled], [minutes], [day()[:0]]):
        readings = Calibration().measure(window(frames))
        assert [reading.value for reading in readings] == [None, None]
        assert all(Calibration().grade(reading)[0] is Grade.UNKNOWN for reading in readings)


def test_one_bin_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        Calibration(bins=1)
