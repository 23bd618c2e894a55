"""Data sets that no method of explaining was chosen on, as days that may be drawn in any order.

`MENDED` are those that methods may be mended on; `KEPT` were not looked at before the figures that are reported, and
whoever mends a method by them has to find others. Flights and bike sharing, on which the methods were chosen, are in
neither.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from holdfast.core import kinds
from parts.flights import NotAvailable
from parts.shared import DATA
from parts.streams import SETS, Pool, fit

LOSS = {"classification": "brier", "regression": "absolute_error"}
"""The first loss of each task, which the product takes where none is named."""


def pool_of(name: str) -> Pool:
    """A data set by name. Raises SystemExit for one that there is not, NotAvailable for one that is not here."""
    if name not in EVERY:
        raise SystemExit(f"no data set '{name}'; there are {', '.join(EVERY)}")
    return EVERY[name]()


def as_pool(name: str, task: str, rows: pl.DataFrame, *, fitted: int, size: int, mixed: bool = False) -> Pool:
    """Rows with `label` as days of `size` rows after the first `fitted` ones, which fit the model.

    With `mixed` the rows are put in a random order first: a file that is sorted by what it tells has no days.
    """
    if mixed:
        rows = rows[np.random.default_rng(5).permutation(rows.height)]
    inputs = [column for column in rows.columns if column != "label"]
    rows = rows.with_columns(
        pl.col(c).cast(pl.String if rows[c].dtype in (pl.String, pl.Boolean) else pl.Float64) for c in rows.columns
    )
    score = fit(task, rows[:fitted], inputs)
    output = kinds.load("tasks", task)().output
    later = rows[fitted:].with_columns(pl.Series(output, score(rows[fitted:])))
    seconds = pl.Series("second", np.arange(size) * (86_400 // size))
    starts = range(0, later.height - size + 1, size)
    days = tuple(later[start : start + size].insert_column(0, seconds) for start in starts)
    return Pool(name=name, task=task, columns=tuple(inputs), days=days, strata=(0,) * len(days), score=score)


def arrays(rows: pl.DataFrame, columns: Sequence[str]) -> dict[str, "np.ndarray[Any, Any]"]:
    """Columns as methods take them: floats with NaN for missing, or objects of str and None."""
    return {
        name: np.array(rows[name].to_list(), dtype=object)
        if rows[name].dtype == pl.String
        else rows[name].cast(pl.Float64).to_numpy()
        for name in columns
    }


def frame(columns: Mapping[str, "np.ndarray[Any, Any]"]) -> pl.DataFrame:
    """The way back."""
    return pl.DataFrame(
        [
            pl.Series(name, values.tolist(), pl.String)
            if values.dtype.kind == "O"
            else pl.Series(name, values, nan_to_null=True)
            for name, values in columns.items()
        ]
    )


def losses(pool: Pool, rows: pl.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Loss of each row (n,) as it was answered."""
    apart = rows[pool.output].to_numpy() - rows["label"].to_numpy()
    return np.square(apart) if pool.task == "classification" else np.abs(apart)


def answered(pool: Pool, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows answered anew, after their inputs changed."""
    return rows.with_columns(pl.Series(pool.output, pool.score(rows)))


def _table(path: str) -> pl.DataFrame:
    if not (DATA / path).exists():
        raise NotAvailable(f"{path} is not among the shared data")
    return pl.read_parquet(DATA / path)


@lru_cache
def _housing() -> Pool:
    path = "nannyml_california_housing/california_housing"
    later = _table(f"{path}_analysis.parquet").join(
        _table(f"{path}_analysis_gt.parquet"), on="id", maintain_order="left"
    )
    inputs = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
    parts = [part.select(*inputs, label="clf_target") for part in (_table(f"{path}_reference.parquet"), later)]
    rows = pl.concat(parts, how="vertical_relaxed")
    return as_pool("california_housing", "classification", rows, fitted=4_000, size=100)


@lru_cache
def _telco() -> Pool:
    rows = _table("telco_churn/telco_churn.parquet").with_columns(
        pl.col("TotalCharges").str.strip_chars().cast(pl.Float64, strict=False), label=pl.col("Churn") == "Yes"
    )
    rows = rows.drop("customerID", "Churn").with_columns(pl.col("label").cast(pl.Float64))
    return as_pool("telco_churn", "classification", rows, fitted=2_100, size=60, mixed=True)


@lru_cache
def _machines() -> Pool:
    rows = _table("ai4i/ai4i2020.parquet")
    names = {name: name.split(" [")[0].replace(" ", "_").lower() for name in rows.columns[2:8]}
    rows = rows.select(pl.col(list(names)), label="Machine failure").rename(names)
    return as_pool("ai4i", "classification", rows, fitted=3_000, size=80)


@lru_cache
def _wine() -> Pool:
    rows = _table("wine_quality/wine_quality.parquet").rename({"quality": "label"})
    return as_pool("wine_quality", "regression", rows, fitted=2_000, size=55, mixed=True)


@lru_cache
def _cars() -> Pool:
    rows = _table("nannyml_car_price/regression_synthetic_reference.parquet")
    rows = rows.select(pl.exclude("id", "timestamp", "y_true", "y_pred"), label="y_true")
    return as_pool("car_price", "regression", rows, fitted=10_000, size=200)


MENDED: Mapping[str, Callable[[], Pool]] = {
    name: SETS[name] for name in ("elec2", "car_loan", "adult", "bank_marketing")
}
KEPT: Mapping[str, Callable[[], Pool]] = {
    "california_housing": _housing,
    "telco_churn": _telco,
    "ai4i": _machines,
    "wine_quality": _wine,
    "car_price": _cars,
}
EVERY = {**MENDED, **KEPT}
"""Data sets by name."""
