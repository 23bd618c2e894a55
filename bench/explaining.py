"""Whether an incident tells the right thing: which column matters and what it costs, when it began, which rows, what
came apart.

    python bench/explaining.py --json bench/results/explaining.json
    python bench/explaining.py --only elec2,adult --part segments

Nine data sets that no method was chosen on (`parts/explainsets.py`): a model is fitted on the early rows, the later
ones are days that are drawn in any order, and known changes are put into the last of them. What is told is compared
with what was done, beside plain rules. Methods were mended on the first four; the other five are looked at for the
figures only. One core, under 10 minutes. `docs/why/impact.md` says what the figures mean.
"""

import json
import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parts import costs, onsets, pairs, segments
from parts.explainsets import EVERY, KEPT, MENDED, pool_of
from parts.figures import machine, options, report
from parts.flights import NotAvailable
from parts.streams import Pool

Found = dict[str, Any]
SEEDS = {"costs": 24, "onsets": 48, "segments": 16, "pairs": 8}
"""Drawn stretches of days per data set."""
ORDERED = ("elec2", "bank_marketing", "california_housing")
"""Data sets whose rows came in this order."""
STRETCHES = 24
GROUPS: Mapping[str, Sequence[str]] = {"mended on": tuple(MENDED), "kept": tuple(KEPT)}


def costs_of(pool: Pool, seeds: int) -> list[Found]:
    """Trials of the ranking of columns."""
    return [costs.trial(pool, seed) for seed in range(seeds)]


def onsets_of(pool: Pool, seeds: int) -> list[Found]:
    """Trials of the dating."""
    return [one for seed in range(seeds) for one in onsets.trials(pool, seed)]


def segments_of(pool: Pool, seeds: int) -> list[Found]:
    """Trials of the search for segments."""
    return [one for seed in range(seeds) for one in segments.trials(pool, seed)]


def pairs_of(pool: Pool, seeds: int) -> list[Found]:
    """Trials of dependence."""
    return [one for seed in range(seeds) for one in pairs.trials(pool, seed)]


PARTS: Mapping[str, Callable[[Pool, int], list[Found]]] = {
    "costs": costs_of,
    "onsets": onsets_of,
    "segments": segments_of,
    "pairs": pairs_of,
}


def measured(pools: Sequence[Pool], part: str, seeds: int) -> list[Found]:
    """Figures of one part: a row per data set, then one for those that methods were mended on and one for the kept."""
    trials: dict[str, list[Found]] = {}
    for pool in pools:
        before = time.process_time()
        trials[pool.name] = PARTS[part](pool, seeds)
        print(f"{part} of {pool.name}: {time.process_time() - before:.0f} s", file=sys.stderr, flush=True)
    rows = [row for name, found in trials.items() for row in rows_of(part, name, found)]
    for group, names in GROUPS.items():
        present = [name for name in names if name in trials]
        if len(present) > 1:
            rows += group_of(part, group, [trials[name] for name in present])
    if part == "segments":
        rows += [row for pool in pools if pool.name in ORDERED for row in in_order(pool)]
    if part == "costs":
        rows += intervals_of(pools, trials, seeds)
    return rows


def intervals_of(pools: Sequence[Pool], trials: Mapping[str, Sequence[Found]], seeds: int) -> list[Found]:
    """Figures of the intervals of costs: by data set, of the groups, and on days as they came."""
    told = {name: list(found) for name, found in trials.items()}
    for pool in pools:
        if pool.name in ORDERED:
            came = [costs.trial(pool, seed, in_order=True) for seed in range(seeds)]
            told[f"{pool.name}, as it came"] = came
    rows = []
    for name, found in told.items():
        others = [each for other in MENDED if other in trials and not name.startswith(other) for each in trials[other]]
        rows.append({"data": name, "cost_intervals": costs.intervals(found, costs.usual_ends(others))})
    for group, names in GROUPS.items():
        every = [each for name in names if name in trials for each in trials[name]]
        others = [each for other in MENDED if other in trials and group == "kept" for each in trials[other]]
        if len([name for name in names if name in trials]) > 1:
            rows.append({"data": group, "cost_intervals": costs.intervals(every, costs.usual_ends(others))})
    return rows


def rows_of(part: str, name: str, found: Sequence[Found]) -> list[Found]:
    """Figures of trials that may be thrown together."""
    if part == "onsets":
        return [
            {"data": name, "series": each, **onsets.together([one for one in found if one["series"] == each])}
            for each in onsets.SERIES
        ]
    together = {"costs": costs.together, "segments": segments.together, "pairs": pairs.together}[part]
    return [{"data": name, **together(found)}]


def group_of(part: str, name: str, trials: Sequence[Sequence[Found]]) -> list[Found]:
    """Figures of several data sets: of all trials, or their mean where losses have different units."""
    if part != "costs":
        return rows_of(part, name, [one for found in trials for one in found])
    rows = [costs.together(found) for found in trials]
    return [{"data": name, **mean_of(rows)}]


def mean_of(rows: Sequence[Found]) -> Found:
    """Mean of each figure, nested ones too; a figure that some row lacks is the mean of the others."""
    found: Found = {}
    for key, value in rows[0].items():
        every = [row[key] for row in rows]
        if isinstance(value, dict):
            found[key] = mean_of(every)
        else:
            known = [each for each in every if each is not None]
            found[key] = float(np.mean(known)) if known else None
    return found


def in_order(pool: Pool) -> list[Found]:
    """How often the search finds something in days as they came, where it may well be true."""
    found = list(segments.in_order(pool, most=STRETCHES))
    shares = {
        f"search_{level:g}": np.mean([one[f"search_{level:g}"] is not None for one in found]) for level in (0.01, 0.05)
    }
    return [{"data": f"{pool.name}, as it came", "stretches": len(found), **{k: float(v) for k, v in shares.items()}}]


def table(part: str, rows: Sequence[Found]) -> list[str]:
    """Rows of the tables of `docs/why/impact.md`."""
    lines = []
    for row in rows:
        if "stretches" in row:
            lines.append([row["data"], row["stretches"], _of(row["search_0.01"]), _of(row["search_0.05"])])
        elif "cost_intervals" in row:
            lines.append(_of_intervals(row["data"], row["cost_intervals"]))
        elif part == "costs":
            each = [f"{_of(row[m]['moved'])}, {_of(row[m]['first'])}, {_of(row[m]['part'])}" for m in costs.METHODS]
            lines.append([row["data"], *each, _of(row["estimate"]["rank"])])
        elif part == "onsets":
            ours = [_of(row[k]) for k in ("told_of_nothing", "told", "on_the_day", "off_days", "held", "days_long")]
            plain = [_of(row[k]) for k in ("beyond_of_nothing", "beyond_on_the_day", "beyond_off_days")]
            lines.append([row["data"], row["series"], *ours, *plain])
        elif part == "segments":
            names = ("search_0.01", "search_0.05", "worst_value", "risen_value")
            each = [", ".join(_of(row[m][k]) for k in ("found", "astray", "of_nothing")) for m in names]
            lines.append([row["data"], *each])
        else:
            names = ("of_nothing", *pairs.BANDS)
            lines.append([row["data"], *(", ".join(_of(row[m][k]) for k in names) for m in pairs.METHODS)])
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def _of_intervals(name: str, found: Found) -> list[Any]:
    """Of each kind: held, width, score; of those told also how often above 0 where the column is costly or not."""
    each = [
        ", ".join(_of(found[kind][k]) for k in ("held", "width", "score")) if kind in found else "-"
        for kind in costs.INTERVALS
    ]
    above = ", ".join(_of(found["told"][k]) for k in ("of_costly", "of_little"))
    return [name, found["count"], *each, above]


def _of(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main() -> None:
    """Measure, print the tables and report."""
    given = options(__doc__ or "", only="", part="", seeds=0)
    parts = [name for name in given.part.split(",") if name] or list(PARTS)
    if unknown := [name for name in parts if name not in PARTS]:
        raise SystemExit(f"no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    pools = []
    for name in [name for name in given.only.split(",") if name] or list(EVERY):
        try:
            pools.append(pool_of(name))
        except NotAvailable as why:
            print(f"{name}: left out, {why}", file=sys.stderr)
    figures: dict[str, list[Found]] = {}
    for part in parts:
        figures[part] = measured(pools, part, given.seeds or SEEDS[part])
        print(f"\n{part}\n" + "\n".join(table(part, figures[part])), flush=True)
    write(figures, given.json)


def write(figures: Mapping[str, Any], file: Path | None) -> None:
    """Write the figures where asked."""
    report("explaining", {"parts": len(figures)}, None)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        about = {"benchmark": "explaining", "machine": machine(), "figures": figures}
        file.write_text(json.dumps(about, indent=2, allow_nan=False) + "\n")
        print(f"written: {file}")


if __name__ == "__main__":
    main()
