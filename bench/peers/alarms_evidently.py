"""Evidently on simulated systems: the drift of every column by its own default measure and limit, by days and weeks.

What DataDriftPreset answers, asked of the functions that it calls: the report around them takes a second a window.
"""

import warnings

import numpy as np
from alarms_cases import finding, main

warnings.filterwarnings("ignore")
from evidently.legacy.calculations.stattests import get_stattest  # noqa: E402

MOST = 10_000
"""Rows of a reference that are kept, drawn at random. Above 1,000 the measures are distances with the limit 0.1."""
SHARE = 0.5
"""Its default for a data set: so many of the columns drift."""


def detect(job, system):
    """Every case of one system."""
    reference = _columns(job, job.reference(system, MOST, seed=system))
    found = []
    for case, rows in job.cases(system):
        for length, name in ((1, "days"), (7, "weeks")):
            if name not in job.facts["lengths"]:
                continue
            shares, worst = [], []
            for day, window in job.windows(rows, length):
                results = _drift(reference, _columns(job, window))
                shares.append((day, float(np.mean([result.drifted for result in results]))))
                worst.append((day, max(float(r.drift_score / r.actual_threshold) for r in results)))
            found.append(
                finding(
                    f"Evidently share of columns, {name}",
                    system,
                    case,
                    scores=shares,
                    default=[day for day, share in shares if share >= SHARE],
                )
            )
            found.append(
                finding(
                    f"Evidently any column, {name}",
                    system,
                    case,
                    scores=worst,
                    default=[day for day, score in worst if score >= 1],
                )
            )
    return found


def _columns(job, rows):
    """(type, values without missing ones) by column."""
    return {
        name: (
            "cat" if name in job.texts else "num",
            rows[name].to_pandas().replace([np.inf, -np.inf], np.nan).dropna(),
        )
        for name in (*job.inputs, job.output)
    }


def _drift(reference, current):
    """What Evidently says of each column that has values in the window."""
    results = []
    for name, (kind, before) in reference.items():
        now = current[name][1]
        if len(before) and len(now):
            results.append(get_stattest(before, now, kind, None)(before, now, kind, None))
    return results


if __name__ == "__main__":
    main(detect)
