"""What `slices` and `estimated_quality` would cost and find beside the monitors that `holdfast init` writes.

    python bench/drafted.py --json bench/results/drafted.json
    python bench/drafted.py --part false --only bike_sharing,car_loan --systems 8
    python bench/drafted.py --part faults --late 14 --systems 4

Streams, faults and the watching are those of `alarms.py`. `docs/why/alarms.md` says what came out.
"""

import argparse
import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from msgspec.structs import replace

from holdfast.core.spec import Monitor, SystemSpec
from holdfast.flow.budget import planned
from parts import watched
from parts.faults import Change, Facts, facts_of, faults_of, injected
from parts.figures import machine
from parts.flights import NotAvailable
from parts.streams import Pool, pools
from parts.watched import FOLDS, HOLDOUT, WEEK, Alarm, Watch, default_monitors, forked, opened

SETS = ("flights", "bike_sharing", "car_loan", "elec2")
MONTH_DAYS, BEGIN, HORIZON, TRIALS_FROM = 30, 28, 42, 1000
TOP = 0.85
"""The segment that gets worse: rows whose number column lies above this quantile."""
SIZES = {"false": (8, 1), "faults": (4, 14), "segments": (5, 1)}
"""Of each part: systems without faults, or with each of them; days until labels of a day count as complete."""
SLICES = Monitor(check="slices", every=WEEK, window=WEEK)
ESTIMATED = Monitor(check="estimated_quality", every=WEEK, window=WEEK)
Variants = Mapping[str, Sequence[Monitor]]


def main() -> None:
    """Measure, and print one line per data set and variant or fault."""
    given = _options()
    figures: list[dict[str, Any]] = []
    for part in [given.part] if given.part else list(SIZES):
        systems, late = (asked or usual for asked, usual in zip((given.systems, given.late), SIZES[part], strict=True))
        for name in given.only.split(","):
            try:
                [pool] = pools([name])
            except NotAvailable as why:
                print(f"{name}: left out, {why}")
                continue
            base = default_monitors(pool)
            variants = {"as drafted": base, "with slices": [*base, SLICES], "with estimates": [*base, ESTIMATED]}
            if part == "false":
                figures += false_alarms(pool, variants, systems, late)
            else:
                figures += delays(pool, variants, systems, late, segments=part == "segments")
            _write(figures, given.json)  # after every data set: what is measured is not lost when a later one fails


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--part", choices=tuple(SIZES), help="one of them alone")
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--systems", type=int, help="systems without faults, or with each of them; see SIZES")
    parser.add_argument("--late", type=int, help="days until labels of a day count as complete; see SIZES")
    return parser.parse_args()


def _write(figures: Sequence[Mapping[str, Any]], file: Path | None) -> None:
    if file is not None:
        whole = {"benchmark": "drafted", "machine": machine(), "figures": figures}
        file.write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n")


def watch_of(pool: Pool, number: int, monitors: Sequence[Monitor], late: int) -> Watch:
    """A simulated system whose labels are complete so many days after their day."""

    def spec_of(pool: Pool, monitors: Sequence[Monitor]) -> SystemSpec:
        made = known(pool, monitors)
        label = replace(made.data.label, mature_after=timedelta(days=late))
        return replace(made, data=replace(made.data, label=label))

    known = watched.spec_of
    watched.spec_of = spec_of
    try:
        return Watch(pool, number, monitors=monitors)
    finally:
        watched.spec_of = known


def false_alarms(pool: Pool, variants: Variants, systems: int, late: int) -> Iterator[dict[str, Any]]:
    """Incidents a month on streams without faults, by check, and the processor time of watching."""
    months = systems * pool.stream / MONTH_DAYS
    for variant, monitors in variants.items():
        began, counts = time.process_time(), Counter[str]()
        for number in range(systems):
            watch = watch_of(pool, number, monitors, late)
            _, catalog = watch.run(pool.stream)
            counts.update(incident.check for incident in opened(catalog))
        by = ", ".join(f"{check} {count / months:.2f}" for check, count in sorted(counts.items()))
        took = time.process_time() - began
        print(
            f"{pool.name:<13} {variant:<15} {sum(counts.values()) / months:.2f} a month ({by}), {took:.0f} s",
            flush=True,
        )
        yield {
            "part": "false",
            "data": pool.name,
            "variant": variant,
            "months": months,
            "late": late,
            "a_month": sum(counts.values()) / months,
            "opened": dict(sorted(counts.items())),
            "levels": levels_of(watch),
            "cpu_s": took,
        }


def levels_of(watch: Watch) -> dict[str, float]:
    """What each calibrated monitor may spend on one look. History is the reference without what is only fitted on."""
    reference = watch.pool.reference
    history = reference - math.ceil((reference - HOLDOUT) / (FOLDS + 1))
    return {share.monitor: share.level for share in planned(watch.spec, history) if share.level}


def delays(pool: Pool, variants: Variants, systems: int, late: int, *, segments: bool) -> Iterator[dict[str, Any]]:
    """Days until the first alarm of each trial, and which monitors gave it."""
    facts = facts_of(pool)
    rows = pl.concat(pool.days)
    cut = rows[facts.number].quantile(TOP)
    assert cut is not None
    changes: dict[str, Any] = {f"{share:.0%} of a segment": _worse(cut, share) for share in (1.0, 0.35)}
    changes = changes if segments else dict(faults_of(pool))
    first: dict[str, dict[str, list[tuple[float, list[str]]]]] = {
        name: {variant: [] for variant in variants} for name in changes
    }
    for trial in range(systems):
        number, onset = TRIALS_FROM + trial, BEGIN + trial * 3 % 7
        end = min(onset + HORIZON, pool.stream)
        watches = {variant: watch_of(pool, number, monitors, late) for variant, monitors in variants.items()}
        begun = {variant: watch.run(onset)[1] for variant, watch in watches.items()}
        stream = watches["as drafted"].stream
        for place, (name, fault) in enumerate(changes.items()):
            random = np.random.default_rng([number, place])
            days = {
                on: fault(facts, stream[on], on - onset, random)
                if segments
                else injected(pool, facts, fault, stream[on], on - onset, random)
                for on in range(onset, end)
            }
            for variant, watch in watches.items():
                watch.change(days)
                alarms, _ = watch.run(end, since=onset, catalog=forked(begun[variant]), stop=True)
                first[name][variant].append(_first(alarms, onset))
    for name, found in first.items():
        medians = {variant: float(np.median([delay for delay, _ in each])) for variant, each in found.items()}
        said = "; ".join(
            f"{variant} {medians[variant]:g} {[delay for delay, _ in each]}" for variant, each in found.items()
        )
        print(f"{pool.name:<13} {name:<20} {said}", flush=True)
        for variant, each in found.items():
            yield {
                "part": "segments" if segments else "faults",
                "data": pool.name,
                "change": name,
                "variant": variant,
                "late": late,
                "median": _finite(medians[variant]),
                "delays": [_finite(delay) for delay, _ in each],
                "by": [monitors for _, monitors in each],
            }


def _first(alarms: Sequence[Alarm], onset: int) -> tuple[float, list[str]]:
    """Days until the first alarm, infinite where there is none, and the monitors that gave it that day."""
    if not alarms:
        return np.inf, []
    on = alarms[0].on
    return on - onset + 1, [alarm.monitor for alarm in alarms if alarm.on == on]


def _finite(delay: float) -> float | None:
    """None for what JSON cannot hold: never."""
    return float(delay) if np.isfinite(delay) else None


def _worse(cut: float, share: float) -> Change:
    """Labels of a share of the rows above a cut of the number column flipped; counts there 60 % higher."""

    def change(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
        inside = (pl.col(facts.number) >= cut) & pl.Series(random.random(day.height) < share)
        wrong = 1 - pl.col("label") if facts.task == "classification" else 1.6 * pl.col("label")
        return day.with_columns(pl.when(inside).then(wrong).otherwise(pl.col("label")).alias("label"))

    return change


if __name__ == "__main__":
    main()
