"""Detectors beside Holdfast on the same simulated systems: the peers, each in its environment, and two plain rules.

Each answers a score or alarms by day. An alarm opens where the evaluation before it did not alarm. The threshold that
makes a detector's false-alarm rate equal to Holdfast's comes from streams without faults, never from faulty ones.
"""

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from holdfast.checks.drift import Drift
from parts.flights import NotAvailable
from parts.peers import HERE, install, python_of
from parts.watched import LOSS, Watch

PEERS = ("evidently", "nannyml", "alibi", "river")
"""The peers, each in the environment of its name."""
LENGTHS = {1: "days", 7: "weeks"}
LABEL_LAG = 1
MOST_IN_ALARM = 0.1
"""Share of evaluations without a fault at which a threshold may alarm, however few alarms open."""
PSI, DEVIATIONS = 0.2, 3.0
"""What the two plain rules state."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one detector said of one case of one system."""

    detector: str
    system: int
    case: str
    scores: list[tuple[int, float]] = []
    """By evaluation: day and score, higher is worse."""
    default: list[int] = []
    """Days on which it alarms with its default."""
    grid: dict[str, list[int]] = {}
    """Days by parameter, from the most to the least eager, for detectors that start anew after an alarm."""

    def alarms(self, threshold: float | str | None) -> list[int]:
        """Days on which it alarms at a threshold, or with a parameter; None is its default."""
        if threshold is None:
            return self.default
        if isinstance(threshold, str):
            return self.grid.get(threshold, [])
        return [day for day, score in self.scores if score >= threshold]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of one system: days by their number, going from the first to the last without a gap."""

    system: int
    name: str
    days: Mapping[int, pl.DataFrame]


def ask(
    peer: str,
    watches: Mapping[int, Watch],
    cases: Sequence[Case],
    folder: Path,
    *,
    onsets: Mapping[int, int],
    settings: Mapping[str, Any],
) -> list[Finding]:
    """What a peer finds in some cases. Raises NotAvailable where it cannot be installed or fails."""
    pool = next(iter(watches.values())).pool
    install(peer)
    folder.mkdir(parents=True, exist_ok=True)
    names = [*pool.columns, pool.output, "label"]
    pl.concat(
        [
            day.select(pl.lit(system).alias("system"), *names)
            for system, watch in watches.items()
            for day in watch.reference_days
        ]
    ).write_parquet(folder / "reference.parquet")
    pl.concat(
        [
            rows.select(
                pl.lit(case.system).alias("system"), pl.lit(case.name).alias("case"), pl.lit(day).alias("day"), *names
            )
            for case in cases
            for day, rows in case.days.items()
        ]
    ).write_parquet(folder / "stream.parquet")
    job = {
        "inputs": list(pool.columns),
        "output": pool.output,
        "texts": [name for name in pool.columns if pool.days[0][name].dtype == pl.String],
        "task": pool.task,
        "before": pool.reference,
        "onsets": {str(system): onset for system, onset in onsets.items()},
        "settings": dict(settings),
        "lengths": list(LENGTHS.values()),
    }
    (folder / "job.json").write_text(json.dumps(job))
    argv = [str(python_of(peer)), str(HERE / f"alarms_{peer}.py"), str(folder)]
    with (folder / f"{peer}.log").open("w") as log:
        done = subprocess.run(argv, stdout=log, stderr=log, check=False)
    if done.returncode:
        lines = (folder / f"{peer}.log").read_text().strip().splitlines() or ["it said nothing"]
        raise NotAvailable(f"{peer} failed: {lines[-1][:200]}")
    return msgspec.json.decode((folder / "answer.json").read_bytes(), type=list[Finding])


def plain(watch: Watch, case: Case) -> list[Finding]:
    """Two rules anybody can write: a PSI of 0.2 on any column, and a day's mean loss three deviations above usual."""
    return [*_psi(watch, case), _mean_loss(watch, case)]


def _psi(watch: Watch, case: Case) -> Iterable[Finding]:
    first, last = min(case.days), max(case.days)
    for length, name in LENGTHS.items():
        scores = []
        for start in range(first, last - length + 2, length):
            rows = [case.days[day] for day in range(start, start + length)]
            readings = Drift().measure(*watch.windows(rows))
            known = [one.value for one in readings if one.name == "psi" and one.value is not None]
            if known:
                scores.append((start + length - 1, max(known)))
        yield Finding(
            detector=f"plain PSI 0.2, {name}",
            system=case.system,
            case=case.name,
            scores=scores,
            default=[day for day, score in scores if score > PSI],
        )


def _mean_loss(watch: Watch, case: Case) -> Finding:
    usual = np.array([_loss(watch, day) for day in watch.reference_days])
    mean, deviation = np.nanmean(usual), np.nanstd(usual)
    scores = [(day + LABEL_LAG, float((_loss(watch, rows) - mean) / deviation)) for day, rows in case.days.items()]
    known = [(day, score) for day, score in scores if np.isfinite(score)]
    return Finding(
        detector="plain mean loss + 3 sd",
        system=case.system,
        case=case.name,
        scores=known,
        default=[day for day, score in known if score > DEVIATIONS],
    )


def _loss(watch: Watch, rows: pl.DataFrame) -> float:
    loss = watch.task.loss(LOSS[watch.pool.task], rows["label"].to_numpy(), rows[watch.pool.output].to_numpy())
    return float(np.nanmean(loss)) if np.isfinite(loss).any() else np.nan


def openings(alarms: Sequence[int], evaluated: Sequence[int]) -> int:
    """How many alarms open: an evaluation that alarms where the one before it did not.

    >>> openings([3, 4, 6], [1, 2, 3, 4, 5, 6])
    2
    """
    alarmed = set(alarms)
    ordered = sorted({*evaluated, *alarmed})
    before = [False, *(day in alarmed for day in ordered)]
    return sum(now and not then for then, now in pairwise(before))


def rate(findings: Sequence[Finding], threshold: float | str | None, months: float) -> float:
    """Openings per month over the streams of some findings of one detector."""
    return sum(_opened(one, threshold) for one in findings) / months


def _opened(one: Finding, threshold: float | str | None) -> int:
    if one.grid:  # it looks at every row: each day is an evaluation
        alarms = one.alarms(threshold)
        return openings(alarms, range(max(alarms, default=0) + 1))
    return openings(one.alarms(threshold), [day for day, _ in one.scores])


def threshold_for(findings: Sequence[Finding], wanted: float, months: float) -> float | str:
    """The most eager threshold at which a detector, and every less eager one, opens at most `wanted` a month.

    One that is in alarm at more than a tenth of its evaluations is not taken: what always alarms opens only once.
    `findings` are those of one detector on streams without faults. Where even the least eager parameter of a grid
    opens more often, it is that one.
    """
    if findings[0].grid:
        best = list(findings[0].grid)[-1]
        for parameter in reversed(findings[0].grid):
            if rate(findings, parameter, months) > wanted:
                break
            best = parameter
        return best
    chosen, every = np.inf, sorted((score for one in findings for _, score in one.scores), reverse=True)
    for score in dict.fromkeys(every):
        alarming = sum(each >= score for each in every)
        if rate(findings, score, months) > wanted or alarming > MOST_IN_ALARM * len(every):
            break
        chosen = score
    # Just above the next score down would do as well; on the far side of all scores none was seen to alarm.
    return float(chosen) if np.isfinite(chosen) else float(np.nextafter(max(every, default=np.inf), np.inf))


def share_in_alarm(findings: Sequence[Finding], days: int) -> float:
    """Share of evaluations that alarm by default; for detectors on rows, of days."""
    evaluations = sum(len(one.scores) or days for one in findings)
    return sum(len(one.default) for one in findings) / max(evaluations, 1)


def delay(alarms: Sequence[int], onset: int) -> float:
    """Days from the onset until the first alarm, counting both ends; infinite without one.

    >>> delay([3, 9], 8), delay([3], 8)
    (2.0, inf)
    """
    return float(min((day - onset + 1 for day in alarms if day >= onset), default=np.inf))


def by_detector(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings grouped by detector, in the order in which detectors come."""
    grouped: dict[str, list[Finding]] = {}
    for one in findings:
        grouped.setdefault(one.detector, []).append(one)
    return grouped
