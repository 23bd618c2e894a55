"""How much of a retrain policy's loss is the luck of its dates? The same year, its trainings asked for on other days.

A candidate is trained each week by the real training, and scored on all days. With these, a year is played many times
in a simplified loop: each training takes the newest candidate; the gate compares it with live on the hold-out; the
release test decides on the days that follow, one release at a time. What is left out: monitors (alarms come at random
days), the other gates, and serving. One core, some 5 minutes; `--thin 3` keeps every third flight.
"""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import sys
from collections import Counter
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
from holdfast.flow.followups import MOST
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
RULES: dict[str, dict[str, bool]] = {
    "once": {"until_answered": False},
    "once more on its days": {"until_answered": True, "closes": True},
    "until answered": {"until_answered": True},
}
"""How an alarm is trained for: `flow.followups` does the second for incidents that closed by themselves, the third for
those that stay open."""
ENDS = ("live", "worse", "expired", "refused")
"""How trainings end that were not made in vain: as releases, or refused by the gate."""
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
    found, spread = [], []
    for weeks in AGES:
        for live in range(len(year.trained) - weeks):
            candidate, day = live + weeks, year.trained[live + weeks]
            if day + WITHIN <= year.last:
                d = year.paired(candidate, live)[0]
                before, after = d[day - MATURE - HELD_OUT : day - MATURE].mean(), d[day : day + WITHIN - MATURE]
                found.append((year.passes(candidate, live, day), before, after.mean()))
                spread.append(after.std())
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
        "spread_of_days": float(np.median(spread)),
        "margin": year.margin,
        "worse_by_the_margin_after": int(sum(after > year.margin for _, _, after in found)),
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


class Followed:
    """What alarms are owed, as `flow.followups` has it: trainings more, `MOST` at most, until a candidate that was
    fitted on the days up to the alarm is released or refused. For an incident that closed by itself: one, on its days.
    """

    def __init__(self, *, closes: bool) -> None:
        self._closes, self._most = closes, 1 if closes else MOST
        self._more: dict[int, int] = {}
        self._learnt = -1
        self.is_undecided = False
        """Whether what was trained last was neither released nor refused."""

    def alarm(self, day: int) -> None:
        """An incident opened."""
        self._more[day] = 0

    def decided(self, trained: int) -> None:
        """The candidate of a day was released or refused."""
        self._learnt, self.is_undecided = max(self._learnt, _fitted(trained)), False

    def ask(self, trained: int) -> bool:
        """Whether a training is owed that gives the candidate of a day; it counts as asked for."""
        for alarm, more in reversed(self._more.items()):
            if alarm <= self._learnt or more >= self._most:
                continue
            if _fitted(trained) >= alarm or (self.is_undecided and not self._closes):
                del self._more[alarm]
                self._more[alarm] = more + 1
                return True
        return False


def _fitted(trained: int) -> int:
    """Up to which day the candidate of a day is fitted."""
    return trained - HELD_OUT - MATURE


def played(
    year: Year, asked: Sequence[int], *, until_answered: bool, within: int, closes: bool = False
) -> dict[str, float]:
    """One year with trainings asked for on some days: once, or with what `Followed` adds where `until_answered`.

    What is trained while a release is open is not released. What is asked for once more waits for the end of the
    release, and as long as a hold-out after it began.
    """
    live, path, followed = 0, np.zeros(year.last, dtype=np.int64), Followed(closes=closes)
    candidate, ended, free, began, trainings = 0, "", 0, 0, 0
    ends = Counter[str]()
    for day in range(year.first, year.last):
        if ended and day >= free:
            ends[ended] += 1
            live = candidate if ended == "live" else live
            if ended == "expired":
                followed.is_undecided = True
            else:
                followed.decided(year.trained[candidate])
            ended = ""
        path[day] = live
        newest = year.newest(day)
        if day in asked:
            followed.alarm(day)
        elif not until_answered or ended or day - began < HELD_OUT or not followed.ask(year.trained[newest]):
            continue
        trainings += 1
        if ended:
            followed.is_undecided = True
            continue
        candidate, began = newest, day
        if candidate == live or not year.passes(candidate, live, day):
            ends["refused"] += 1
            followed.decided(year.trained[candidate])
        else:
            ended, free = year.released(candidate, live, day, within)
    span = range(year.first, year.last)
    loss = np.average([year.loss[path[day]][day] for day in span], weights=year.rows[year.first : year.last])
    return {"loss": float(loss), "trainings": trainings, **{end: float(ends[end]) for end in ENDS}}


def _alarms(year: Year, gap: int) -> Iterator[list[int]]:
    random = np.random.default_rng([SEED, gap])
    for _ in range(DRAWS):
        days = year.first + 5 + np.cumsum(1 + random.exponential(gap, size=200).astype(int))
        yield [int(day) for day in days if day < year.last]


def figures(year: Year) -> Iterator[dict[str, Any]]:
    """A line per policy: the mean loss over all its dates, its range, and how often it is lower than without."""
    schedules = [list(range(year.first + 1 + 2 * n, year.last, EVERY)) for n in range(STARTS)]
    policies: dict[str, tuple[list[list[int]], tuple[str, ...]]] = {f"every {EVERY} days": (schedules, ("once",))}
    policies |= {f"alarms each {gap} days": (list(_alarms(year, gap)), tuple(RULES)) for gap in GAPS}
    never = played(year, [], until_answered=False, within=WITHIN)["loss"]
    yield {"data": year.name, "policy": "never", "mean": never, "low": never, "high": never}
    for policy, (dates, rules) in policies.items():
        first = None
        for rule in rules:
            for within in (WITHIN, LONGER):
                runs = [played(year, asked, within=within, **RULES[rule]) for asked in dates]
                loss = np.array([run["loss"] for run in runs])
                first = loss if first is None else first
                yield {
                    "data": year.name,
                    "policy": policy,
                    "asked": rule,
                    "within": within,
                    "mean": float(loss.mean()),
                    "low": float(loss.min()),
                    "high": float(loss.max()),
                    "better_than_first": int((loss < first - 1e-9).sum()),
                    "worse_than_first": int((loss > first + 1e-9).sum()),
                    "of": len(dates),
                    **{name: float(np.mean([run[name] for run in runs])) for name in ("trainings", *ENDS)},
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
