import numpy as np
import polars as pl
import pytest

from holdfast.checks.latency import Latency
from holdfast.core.evidence import Grade


@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.99])
def test_the_quantile_is_an_observed_one_over_all_rows(window, day, quantile):
    days = [day(k) for k in range(3)]
    (reading,) = Latency(quantile=quantile).measure(window(days))
    took = np.sort(pl.concat(days)["latency_ms"].to_numpy())
    assert reading.value == took[int(np.ceil(quantile * took.size)) - 1]
    assert (reading.unit, reading.rows, reading.name) == ("ms", 900, f"latency_p{quantile * 100:g}")


def test_slow_answers_fail(window, day):
    (fast,) = Latency().measure(window([day()]))
    (slow,) = Latency().measure(window([day().with_columns(pl.col("latency_ms") + 200)]))
    assert [Latency().grade(reading)[0] for reading in (fast, slow)] == [Grade.PASS, Grade.FAIL]


def test_too_few_rows_for_the_quantile_are_unknown(window, day):
    for frames in ([], [day()[:99]], [day().drop("latency_ms")], [day().with_columns(latency_ms=pl.lit(None))]):
        (reading,) = Latency().measure(window(frames))
        assert reading.value is None
        assert Latency().grade(reading)[0] is Grade.UNKNOWN


def test_a_quantile_outside_zero_and_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        Latency(quantile=99)
