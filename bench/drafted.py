"""What `slices` and `estimated_quality` would cost and find beside the monitors that `holdfast init` writes.

    python bench/drafted.py --only bike_sharing,car_loan --systems 8
    python bench/drafted.py --part faults --late 14 --systems 4
    python bench/drafted.py --part segments --systems 5

Streams, faults and the watching are those of `alarms.py`. `docs/why/alarms.md` says what came out.
"""

import argparse
import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from msgspec.structs import replace

from holdfast.core.spec import Monitor, SystemSpec
from parts import watched
from parts.faults import Change, Facts, facts_of, faults_of, injected
from parts.flights import NotAvailable
from parts.streams import Pool, pools
from parts.watched import WEEK, Watch, default_monitors, forked, opened

SETS = ("flights", "bike_sharing", "car_loan", "elec2")
MONTH_DAYS, BEGIN, HORIZON, TRIALS_FROM = 30, 28, 42, 1000
TOP = 0.85
"""The segment that gets worse: rows whose number column lies above this quantile."""
SLICES = Monitor(check="slices", every=WEEK, window=WEEK)
ESTIMATED = Monitor(check="estimated_quality", every=WEEK, window=WEEK)
Variants = Mapping[str, Sequence[Monitor]]


def main() -> None:
    """Measure, and print one line per data set and variant or fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("false", "faults", "segments"), default="false")
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--systems", type=int, default=4, help="systems without faults, or with each of them")
    parser.add_argument("--late", type=int, default=1, help="days until labels of a day count as complete")
    given = parser.parse_args()
    for name in given.only.split(","):
        try:
            [pool] = pools([name])
        except NotAvailable as why:
            print(f"{name}: left out, {why}")
            continue
        base = default_monitors(pool)
        variants = {"as drafted": base, "with slices": [*base, SLICES], "with estimates": [*base, ESTIMATED]}
        if given.part == "false":
            print_false(pool, variants, given.systems, given.late)
        else:
            print_delays(pool, variants, given.systems, given.late, segments=given.part == "segments")


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


def print_false(pool: Pool, variants: Variants, systems: int, late: int) -> None:
    """Incidents a month on streams without faults, by check, and the processor time of watching."""
    months = systems * pool.stream / MONTH_DAYS
    for variant, monitors in variants.items():
        began, counts = time.process_time(), Counter[str]()
        for number in range(systems):
            _, catalog = watch_of(pool, number, monitors, late).run(pool.stream)
            counts.update(incident.check for incident in opened(catalog))
        by = ", ".join(f"{check} {count / months:.2f}" for check, count in sorted(counts.items()))
        took = time.process_time() - began
        print(
            f"{pool.name:<13} {variant:<15} {sum(counts.values()) / months:.2f} a month ({by}), {took:.0f} s",
            flush=True,
        )


def print_delays(pool: Pool, variants: Variants, systems: int, late: int, *, segments: bool) -> None:
    """Days until the first alarm of each trial."""
    facts = facts_of(pool)
    rows = pl.concat(pool.days)
    cut = rows[facts.number].quantile(TOP)
    assert cut is not None
    changes: dict[str, Any] = {f"{share:.0%} of a segment": _worse(cut, share) for share in (1.0, 0.35)}
    changes = changes if segments else dict(faults_of(pool))
    delays: dict[tuple[str, str], list[float]] = {(name, variant): [] for name in changes for variant in variants}
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
                delays[name, variant].append(alarms[0].on - onset + 1 if alarms else np.inf)
    for name in changes:
        said = "; ".join(
            f"{variant} {np.median(delays[name, variant]):g} {delays[name, variant]}" for variant in variants
        )
        print(f"{pool.name:<13} {name:<20} {said}", flush=True)


def _worse(cut: float, share: float) -> Change:
    """Labels of a share of the rows above a cut of the number column flipped; counts there 60 % higher."""

    def change(facts: Facts, day: pl.DataFrame, since: int, random: np.random.Generator) -> pl.DataFrame:
        inside = (pl.col(facts.number) >= cut) & pl.Series(random.random(day.height) < share)
        wrong = 1 - pl.col("label") if facts.task == "classification" else 1.6 * pl.col("label")
        return day.with_columns(pl.when(inside).then(wrong).otherwise(pl.col("label")).alias("label"))

    return change


if __name__ == "__main__":
    main()
