"""False alarms on streams without faults, and the delay until injected faults are found, beside the peers.

    python bench/alarms.py --json bench/results/alarms.json --docs docs/why/alarms.md
    python bench/alarms.py --part false --only flights,elec2 --peers none
    python bench/alarms.py --only elec2 --json elec2.json     # one data set at a time, then all of them together:
    python bench/alarms.py --join flights.json elec2.json --json bench/results/alarms.json --docs docs/why/alarms.md

Streams are days of real data in a drawn order (`parts/streams.py`); Holdfast is its own code driven day by day
(`parts/watched.py`); `docs/why/alarms.md` says what is measured, and what the figures mean.
"""

import argparse
import json
import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from parts import alarmtables
from parts.detectors import (
    PEERS,
    Case,
    Finding,
    ask,
    by_detector,
    delay,
    plain,
    rate,
    share_in_alarm,
    threshold_for,
)
from parts.faults import facts_of, faults_of, injected
from parts.figures import machine, report
from parts.flights import NotAvailable
from parts.streams import SETS, Pool, pools
from parts.watched import Watch, forked, opened

FALSE_SETS = tuple(SETS)
DELAY_SETS = ("flights", "bike_sharing", "elec2", "car_loan", "sea_concepts")
MONTH_DAYS = 30
BEGIN, HORIZON = 28, 42
"""A fault begins on one of the seven days from this one on, and is waited for so many days."""
TRIALS_FROM = 1000
"""Systems with faults are others than those without: their numbers begin here."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is simulated."""

    systems: int = 24
    """Systems without faults per data set that Holdfast watches; each is three to four months."""
    shared: int = 4
    """The first of them that the peers watch too."""
    trials: int = 7
    """Systems per fault that Holdfast watches."""
    compared: int = 3
    """The first of them that the peers watch too."""


QUICK = Size(systems=2, shared=1, trials=1, compared=1)


class Progress:
    """Says on standard error what is being done, and how long it has taken in all."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self.cpu_s: Counter[str] = Counter()

    def __call__(self, said: str) -> None:
        print(f"[{time.perf_counter() - self._begun:6.0f} s] {said}", file=sys.stderr, flush=True)

    def timed(self, name: str, do: Callable[[], Any]) -> Any:
        """The result of `do`, its processor time added to what `name` took."""
        before = os.times()
        result = do()
        after = os.times()
        self.cpu_s[name] += sum(after[:4]) - sum(before[:4])
        return result


def main() -> None:
    """Measure, print both tables, write the figures."""
    given = _options()
    figures = joined(given.join) if given.join else _measured(given)
    print_false(figures["false"])
    print_delay(alarmtables.at_equal_rates(figures["false"], figures["delay"]))
    report("alarms", {key: figures.get(key) for key in ("size", "cpu_s", "parts")}, None)
    if given.docs:
        alarmtables.write(given.docs, figures["false"], figures["delay"])
    if given.json:
        _write(figures, given.json)
        print(f"written: {given.json}")


def joined(files: Sequence[Path]) -> dict[str, Any]:
    """The figures of several runs as those of one; how much each of them simulated stands in `parts`."""
    found = [json.loads(file.read_text())["figures"] for file in files]
    parts = [
        {"data": sorted({row["data"] for row in one["false"]}), "size": one["size"], "cpu_s": one["cpu_s"]}
        for one in found
    ]
    places = {name: place for place, name in enumerate(SETS)}
    rows = {
        part: sorted((row for one in found for row in one[part]), key=lambda row: places[row["data"]])
        for part in ("false", "delay")
    }
    # What could not be told was written as null.
    false = [{key: np.nan if value is None else value for key, value in row.items()} for row in rows["false"]]
    return {"parts": parts, "false": false, "delay": rows["delay"]}


def _measured(given: argparse.Namespace) -> dict[str, Any]:
    size, tell = _size(given), Progress()
    names = given.only.split(",") if given.only else list(FALSE_SETS)
    peers = [] if given.peers == "none" else given.peers.split(",") if given.peers else list(PEERS)
    with TemporaryDirectory() as directory:
        figures: dict[str, Any] = {"size": msgspec.to_builtins(size), "false": [], "delay": []}
        for name in names:
            try:
                [pool] = pools([name])
            except NotAvailable as why:
                tell(f"{name}: left out, {why}")
                continue
            measured = measure(pool, size, peers, given.part, Path(directory) / name, tell)
            figures["false"] += measured["false"]
            figures["delay"] += measured["delay"]
            figures["cpu_s"] = {name: round(spent, 1) for name, spent in tell.cpu_s.items()}
            _write(figures, given.json)  # after every data set: what is measured is not lost when a later one fails
    return figures


def _write(figures: Mapping[str, Any], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        written = {"benchmark": "alarms", "machine": machine(), "figures": figures}
        file.write_text(json.dumps(_finite(written), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """The same without what JSON cannot hold: NaN and infinities become null."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


def _size(given: argparse.Namespace) -> Size:
    size = QUICK if given.quick else Size()
    stated = {name: getattr(given, name) for name in size.__struct_fields__ if getattr(given, name)}
    return msgspec.structs.replace(size, **stated)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--docs", type=Path, help="put the tables into this page")
    parser.add_argument("--join", type=Path, nargs="+", help="measure nothing: put the figures of these runs together")
    parser.add_argument("--quick", action="store_true", help="a few systems, to see that it runs")
    parser.add_argument("--part", choices=("false", "delay", "both"), default="both")
    parser.add_argument("--only", default="", help=f"some of {', '.join(SETS)}")
    parser.add_argument("--peers", default="", help=f"some of {', '.join(PEERS)}, or none")
    for name in Size.__struct_fields__:
        parser.add_argument(f"--{name}", type=int, default=0, help="how many systems; see Size")
    return parser.parse_args()


def measure(
    pool: Pool, size: Size, peers: Sequence[str], part: str, folder: Path, tell: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Both parts for one data set. The delay needs false-alarm rates, so these are measured either way."""
    tell(f"{pool.name}: {size.systems} systems without faults")
    compares = pool.name in DELAY_SETS and part != "false"
    watches, own = tell.timed("Holdfast", lambda: _watch_all(pool, size))
    wanted = own["total"]
    shared = dict(enumerate(watches))
    cases = [Case(system=number, name="none", days=dict(enumerate(watch.stream))) for number, watch in shared.items()]
    findings = tell.timed("plain", lambda: [one for case in cases for one in plain(shared[case.system], case)])
    for peer in peers:
        findings += _asked(peer, shared, cases, folder / "none", {}, {}, tell)
    months = len(shared) * pool.stream / MONTH_DAYS
    grouped = by_detector(findings)
    false = [own, *(_false_row(pool, name, found, months) for name, found in grouped.items())]
    if not compares:
        return {"false": false, "delay": []}
    thresholds = {name: threshold_for(found, wanted, months) for name, found in grouped.items()}
    for row in false[1:]:
        row["threshold"] = thresholds[row["detector"]]
        row["rate_at_threshold"] = rate(grouped[row["detector"]], row["threshold"], months)
    return {"false": false, "delay": _delays(pool, size, peers, thresholds, folder, tell)}


def _watch_all(pool: Pool, size: Size) -> tuple[list[Watch], dict[str, Any]]:
    """Holdfast on systems without faults: those that peers watch too; what opened, per month, by monitor."""
    watches, per_system, by_monitor, subjects = [], [], Counter[str](), Counter[str]()
    failed_days, systems = 0, size.systems
    for number in range(systems):
        watch = Watch(pool, number)
        alarms, catalog = watch.run(pool.stream)
        found = opened(catalog)
        watches += [watch] if number < size.shared else []  # each holds its days
        per_system.append([len(found), sum(one.calibrated for one in found)])
        by_monitor.update(f"{one.check}{'' if one.calibrated else ' (stated)'}" for one in found)
        subjects.update(f"{one.check} {one.first.reading.name} {one.subject}".strip() for one in found)
        failed_days += len({alarm.on for alarm in alarms})
    months = systems * pool.stream / MONTH_DAYS
    counts = np.array(per_system, dtype=np.float64)
    errors = counts.std(axis=0, ddof=1) * np.sqrt(systems) / months if systems > 1 else np.full(2, np.nan)
    return watches, {
        "data": pool.name,
        "detector": "Holdfast",
        "months": months,
        "total": float(counts[:, 0].sum() / months),
        "total_se": float(errors[0]),
        "calibrated": float(counts[:, 1].sum() / months),
        "calibrated_se": float(errors[1]),
        "monitors": {name: count / months for name, count in sorted(by_monitor.items())},
        "in_alarm": failed_days / (systems * pool.stream),
        "subjects": dict(subjects.most_common(8)),
    }


def _asked(
    peer: str,
    watches: Mapping[int, Watch],
    cases: Sequence[Case],
    folder: Path,
    onsets: Mapping[int, int],
    settings: Mapping[str, Any],
    tell: Progress,
) -> list[Finding]:
    pool = next(iter(watches.values())).pool
    tell(f"{pool.name}: {peer}, {len(cases)} streams")

    def do() -> list[Finding]:
        return ask(peer, watches, cases, folder / peer, onsets=onsets, settings=settings)

    try:
        found: list[Finding] = tell.timed(peer, do)
    except NotAvailable as why:
        tell(f"{pool.name}: {peer} left out: {why}")
        return []
    return found


def _false_row(pool: Pool, detector: str, found: Sequence[Finding], months: float) -> dict[str, Any]:
    per_system = np.array([rate([one], None, 1.0) for one in found])
    error = per_system.std(ddof=1) * np.sqrt(len(found)) / months if len(found) > 1 else np.nan
    return {
        "data": pool.name,
        "detector": detector,
        "months": months,
        "total": float(per_system.sum() / months),
        "total_se": float(error),
        "in_alarm": share_in_alarm(found, pool.stream),
    }


def _delays(
    pool: Pool,
    size: Size,
    peers: Sequence[str],
    thresholds: Mapping[str, float | str],
    folder: Path,
    tell: Progress,
) -> list[dict[str, Any]]:
    """One row per fault: median delay of Holdfast, and of each detector at an equal rate and by default."""
    tell(f"{pool.name}: {size.trials} systems with each of {len(faults_of(pool))} faults")
    watches, onsets, cases, own = tell.timed("Holdfast", lambda: _watch_faults(pool, size))
    compared = {number: watches[number] for number in list(watches)[: size.compared]}
    shown = [case for case in cases if case.system in compared]
    findings = tell.timed("plain", lambda: [one for case in shown for one in plain(compared[case.system], case)])
    for peer in peers:
        findings += _asked(peer, compared, shown, folder / "faults", onsets, thresholds, tell)
    grouped = by_detector(findings)
    rows = []
    for fault in faults_of(pool):
        mine = own[fault]
        row: dict[str, Any] = {
            "data": pool.name,
            "fault": fault,
            "holdfast": _median([each["delay"] for each in mine]),
            "holdfast_compared": _median([each["delay"] for each in mine if each["system"] in compared]),
            "found": float(np.mean([np.isfinite(each["delay"]) for each in mine])),
            "by": dict(Counter(monitor for each in mine for monitor in each["by"])),
            "equal_rate": {},
            "default": {},
        }
        for name, found in grouped.items():
            of_fault = [one for one in found if one.case == fault]
            for kind, threshold in (("equal_rate", thresholds.get(name, np.inf)), ("default", None)):
                delays = [delay(one.alarms(threshold), onsets[one.system]) for one in of_fault]
                row[kind][name] = _median(delays)
        rows.append(row)
    return rows


def _watch_faults(pool: Pool, size: Size) -> tuple[dict[int, Watch], dict[int, int], list[Case], dict[str, Any]]:
    """Holdfast on systems with faults, and the same streams for others, from the day `BEGIN` on."""
    facts, faults = facts_of(pool), faults_of(pool)
    watches, onsets, cases = {}, {}, []
    own: dict[str, list[dict[str, Any]]] = {name: [] for name in faults}
    for trial in range(size.trials):
        number, onset = TRIALS_FROM + trial, BEGIN + trial * 3 % 7
        end = min(onset + HORIZON, pool.stream)
        watch = Watch(pool, number)
        _, before = watch.run(onset)
        watches[number], onsets[number] = watch, onset
        for place, (name, fault) in enumerate(faults.items()):
            random = np.random.default_rng([number, place])
            days = {
                day: injected(pool, facts, fault, watch.stream[day], day - onset, random) for day in range(onset, end)
            }
            if trial < size.compared:
                whole = {day: days.get(day, watch.stream[day]) for day in range(BEGIN, end)}
                cases.append(Case(system=number, name=name, days=whole))
            watch.change(days)
            alarms, _ = watch.run(end, since=onset, catalog=forked(before), stop=True)
            found = delay([alarm.on for alarm in alarms], onset)
            own[name].append({"system": number, "delay": found, "by": [one.monitor for one in alarms]})
    return watches, onsets, cases, own


def _median(delays: Sequence[float]) -> float | None:
    """The median, None where the fault is not found in half of the trials."""
    middle = float(np.median(delays)) if len(delays) else np.inf
    return middle if np.isfinite(middle) else None


def print_false(rows: Sequence[Mapping[str, Any]]) -> None:
    """Alarms per month on streams without faults."""
    print("\nalarms opened per month without a fault (budget 1), and the share of evaluations in alarm")
    for row in rows:
        line = f"  {row['data']:<15} {row['detector']:<36} {row['months']:6.1f} months"
        line += f"  {row['total']:6.2f} ± {row['total_se']:.2f}  in alarm {row['in_alarm']:6.1%}"
        if "calibrated" in row:
            line += f"  calibrated {row['calibrated']:.2f} ± {row['calibrated_se']:.2f}  "
            line += ", ".join(f"{name} {value:.2f}" for name, value in row["monitors"].items())
        print(line)


def print_delay(rows: Sequence[Mapping[str, Any]]) -> None:
    """Median delay in days, beside the best of the others at the same rate of false alarms."""
    if not rows:
        return
    print("\nmedian delay in days until the first alarm; others at Holdfast's rate of false alarms")
    won = Counter[str]()
    for row in rows:
        best, name = alarmtables.best_of(row["equal_rate"], plain_rules=False)
        rule, _ = alarmtables.best_of(row["equal_rate"], plain_rules=True)
        if best is not None:
            won[alarmtables.beside(_number(row["holdfast_compared"]), best)] += 1
        line = f"  {row['data']:<13} {row['fault']:<17} Holdfast {_shown(row['holdfast']):>5}"
        line += f" (same trials {_shown(row['holdfast_compared']):>5}, found {row['found']:4.0%}"
        line += f"; by {', '.join(row['by'])})"
        line += f"  best peer {_shown(best):>5} {name}; best plain rule {_shown(rule)}"
        print(line)
    print(f"  against the best peer of each line: {dict(won)}")


def _number(value: float | None) -> float:
    return np.inf if value is None else value


def _shown(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.1f}"


if __name__ == "__main__":
    main()
