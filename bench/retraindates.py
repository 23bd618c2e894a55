"""How much of a retrain policy's loss is the luck of its dates? The same year, its trainings asked for on other days.

A candidate is trained each week by the real training, and scored on all days. With these, a year is played many times
in a simplified loop: each training takes the newest candidate; the gate compares it with live on the hold-out; the
release test decides on the days that follow, one release at a time. What is left out: monitors (alarms come at random
days), the other gates, and serving. One core, some 10 minutes; `--thin 3` keeps every third flight.
"""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from msgspec.structs import replace

from holdfast.core import kinds
from holdfast.core.inputs import read_frame
from holdfast.core.protocols import Task
from holdfast.core.spec import SystemSpec
from holdfast.flow.datasets import as_known, write_parquet
from holdfast.flow.days import day_expr
from holdfast.flow.training import ARTIFACT, TrainingRequest, train
from holdfast.security.artifacts import open_model
from holdfast.stats import sequential
from parts.figures import options, report
from retraining import bikes, flights

Array = np.ndarray[Any, np.dtype[np.float64]]
DAY = timedelta(days=1)
HELD_OUT, MATURE = 14, 1
"""Days, as both systems have them: the newest that judge a candidate, and until labels are complete."""
LEAST, WITHIN, LONGER = 5, 28, 42
"""Days that the steps of a release take at least, and within which it is decided: by default, and tried beside it."""
EVERY, STARTS, DRAWS = 30, 15, 40
"""Days between scheduled trainings; on how many days the schedule begins; how many times alarms are drawn."""
GAPS = (45, 90)
"""Mean days between alarms."""
AGES = (3, 4, 6, 8)
"""Weeks by which live is older than the candidate that its hold-out is looked at with."""
SEED = 20131


class Year:
    """Days of one data set, from the first training on, and the weekly candidates' losses on them."""

    def __init__(self, name: str, spec: SystemSpec, rows: pl.DataFrame, start: datetime, end: datetime) -> None:
        self.name, self.margin = name, spec.release.decide.margin
        self._task: Task = kinds.load("tasks", spec.task)()
        self._decided_by = spec.release.decide.loss
        metric = str(spec.gates[0].options["metric"])
        self.metric = metric if metric in self._task.losses else self._decided_by
        day = rows.filter(pl.col("label").is_not_null()).sort("event_at")
        scored = day.filter(pl.col("event_at") >= start - (HELD_OUT + MATURE) * DAY)
        days = scored.select(day_expr(spec.data.timezone).alias("day"))["day"].to_numpy()
        known, self._of = np.unique(days, return_inverse=True)
        self.rows = np.bincount(self._of).astype(np.float64)
        self.first = int(np.searchsorted(known, np.datetime64(start.date())))
        self.last = int(np.searchsorted(known, np.datetime64(end.date())))
        self.y = scored["label"].to_numpy().astype(np.float64)
        self.answers, self.trained = [], []
        for n in range(self.first, self.last - 7, 7):
            self.trained.append(n)
            self.answers.append(_answers(spec, rows, start + (n - self.first) * DAY, scored))
            sys.stderr.write(f"{name}: trained on day {n - self.first}\n")
        self.loss = [self._daily(self._task.loss(self.metric, self.y, each)) for each in self.answers]
        self._pairs: dict[tuple[int, int], tuple[Array, Array, Array]] = {}

    def _daily(self, rows: Any) -> Array:
        """Mean of a column (n,) over each day's rows: (days,)."""
        return np.bincount(self._of, rows) / self.rows

    def newest(self, day: int) -> int:
        """The candidate that a training on a day gives."""
        return int(np.searchsorted(self.trained, day, side="right")) - 1

    def passes(self, candidate: int, live: int, day: int) -> bool:
        """Whether it is no worse than live on the hold-out."""
        held = slice(day - MATURE - HELD_OUT, day - MATURE)
        return bool(np.average((self.loss[candidate] - self.loss[live])[held], weights=self.rows[held]) <= 0)

    def paired(self, candidate: int, live: int) -> tuple[Array, Array, Array]:
        """How much more a candidate loses than live, a day, and its bounds before labels: (days,) each."""
        if (candidate, live) not in self._pairs:
            one, other = self.answers[candidate], self.answers[live]
            d = self._task.loss(self._decided_by, self.y, one) - self._task.loss(self._decided_by, self.y, other)
            low, high = self._task.loss_bounds(self._decided_by, one, other)
            self._pairs[candidate, live] = self._daily(d), self._daily(low), self._daily(high)
        return self._pairs[candidate, live]

    def released(self, candidate: int, live: int, day: int, within: int) -> tuple[str, int]:
        """How a release that begins on a day ends, and when."""
        d, low, high = (each[day : day + within - MATURE] for each in self.paired(candidate, live))
        is_good = sequential.evidence_path(d, low, high, self.margin, "below") >= np.log(20)
        is_bad = sequential.evidence_path(d, low, high, 0.0, "above") >= np.log(20)
        for n in range(d.size):
            if is_bad[n]:
                return "worse", day + n + 1 + MATURE
            if is_good[n] and n + 1 + MATURE >= LEAST:
                return "live", day + n + 1 + MATURE
        return "expired", day + within


def held_out(year: Year) -> dict[str, Any]:
    """How far what a candidate shows on the hold-out, which chooses it, is from what it shows afterwards."""
    found = []
    for weeks in AGES:
        for live in range(len(year.trained) - weeks):
            candidate, day = live + weeks, year.trained[live + weeks]
            if day + WITHIN <= year.last:
                d = year.paired(candidate, live)[0]
                before, after = d[day - MATURE - HELD_OUT : day - MATURE].mean(), d[day : day + WITHIN - MATURE].mean()
                found.append((year.passes(candidate, live, day), before, after))
    passed = [each for each in found if each[0]]
    refused = [each for each in found if not each[0]]
    return {
        "data": year.name,
        "policy": "hold-out and after",
        "pairs": len(found),
        "passed": len(passed),
        "passed_on_holdout": float(np.mean([before for _, before, _ in passed])),
        "passed_after": float(np.mean([after for _, _, after in passed])),
        "refused_after": float(np.mean([after for _, _, after in refused])) if refused else None,
        "worse_by_the_margin_after": sum(after > year.margin for _, _, after in found),
    }


def _answers(spec: SystemSpec, rows: pl.DataFrame, at: datetime, scored: pl.DataFrame) -> Array:
    """What a model answers that is trained on what is known at a time."""
    known = as_known(rows.filter(pl.col("known_at") <= at), at)
    with TemporaryDirectory() as directory:
        out = Path(directory)
        (out / "rows.parquet").write_bytes(write_parquet(known))
        train(TrainingRequest(spec=spec, snapshot=out / "rows.parquet", seed=spec.model.seed, now=at, out=out))
        model = open_model(out / ARTIFACT)
        return model.predict(read_frame(model.signature, scored))


def played(year: Year, asked: Sequence[int], *, until_answered: bool, within: int) -> dict[str, float]:
    """One year with trainings asked for on some days. With `until_answered`, as `flow.followups` does: again until a
    candidate that was fitted on the days up to it is released or refused; else once, lost while a release is open."""
    live, path = 0, np.zeros(year.last, dtype=np.int64)
    owed: list[int] = []
    candidate, ended, free, trainings, releases = 0, "", 0, 0, 0
    for day in range(year.first, year.last):
        path[day] = live
        owed += [day] if day in asked else []
        if day < free:
            trainings += day in asked and not until_answered
            continue
        again = ended == "expired"
        if ended == "live":
            live, path[day], releases = candidate, candidate, releases + 1
        if ended in ("live", "worse"):
            owed = _left(owed, year.trained[candidate])
        ended = ""
        may_follow = until_answered and owed and (again or len(_left(owed, year.trained[year.newest(day)])) < len(owed))
        if day not in asked and not may_follow:
            continue
        candidate, trainings = year.newest(day), trainings + 1
        if candidate == live or not year.passes(candidate, live, day):
            owed = _left(owed, year.trained[candidate])
        else:
            ended, free = year.released(candidate, live, day, within)
    span = range(year.first, year.last)
    loss = np.average([year.loss[path[day]][day] for day in span], weights=year.rows[year.first : year.last])
    return {"loss": float(loss), "trainings": trainings, "released": releases}


def _left(owed: Sequence[int], trained: int) -> list[int]:
    """Alarms that a candidate trained on a day was not fitted up to."""
    return [alarm for alarm in owed if alarm > trained - HELD_OUT - MATURE]


def _alarms(year: Year, gap: int) -> Iterator[list[int]]:
    random = np.random.default_rng([SEED, gap])
    for _ in range(DRAWS):
        days = year.first + 5 + np.cumsum(1 + random.exponential(gap, size=200).astype(int))
        yield [int(day) for day in days if day < year.last]


def figures(year: Year) -> Iterator[dict[str, Any]]:
    """A line per policy: the mean loss over all its dates, its range, and how often it is lower than without."""
    schedules = [list(range(year.first + 1 + 2 * n, year.last, EVERY)) for n in range(STARTS)]
    policies: dict[str, tuple[list[list[int]], tuple[bool, ...]]] = {f"every {EVERY} days": (schedules, (False,))}
    policies |= {f"alarms each {gap} days": (list(_alarms(year, gap)), (False, True)) for gap in GAPS}
    never = played(year, [], until_answered=False, within=WITHIN)["loss"]
    yield {"data": year.name, "policy": "never", "mean": never, "low": never, "high": never}
    for policy, (dates, rules) in policies.items():
        first = None
        for rule in rules:
            for within in (WITHIN, LONGER):
                runs = [played(year, asked, until_answered=rule, within=within) for asked in dates]
                loss = np.array([run["loss"] for run in runs])
                first = loss if first is None else first
                yield {
                    "data": year.name,
                    "policy": policy,
                    "asked": "until answered" if rule else "once",
                    "within": within,
                    "mean": float(loss.mean()),
                    "low": float(loss.min()),
                    "high": float(loss.max()),
                    "better_than_first": int((loss < first - 1e-9).sum()),
                    "worse_than_first": int((loss > first + 1e-9).sum()),
                    "of": len(dates),
                    "trainings": float(np.mean([run["trainings"] for run in runs])),
                    "released": float(np.mean([run["released"] for run in runs])),
                }


def main() -> None:
    """Measure, print, and write where asked."""
    given = options(__doc__, thin=3, only="")
    found: list[dict[str, Any]] = []
    for name in [given.only] if given.only else ["flights", "bikes"]:
        spec, world, start, end = flights(1) if name == "flights" else bikes()
        rows = world.assembled.gather_every(given.thin) if name == "flights" else world.assembled
        year = Year(name, replace(spec, system=name), rows, start, end)
        found += [*figures(year), held_out(year)]
    report("retraindates", found, given.json)


if __name__ == "__main__":
    main()
