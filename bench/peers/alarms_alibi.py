"""alibi-detect on simulated systems: TabularDrift (KS and chi-square, Bonferroni at 0.05), by days and by weeks."""

import numpy as np
from alarms_cases import finding, main

MOST = 10_000
"""Rows of a reference that are kept, drawn at random."""


def detect(job, system):
    """Every case of one system."""
    from alibi_detect.cd import TabularDrift

    kept = job.reference(system, MOST, seed=system)
    texts = [name for name in job.inputs if name in job.texts]
    codes = {name: {v: k for k, v in enumerate(sorted({*kept[name].to_pylist()} - {None}))} for name in texts}
    fill = {n: float(np.nanmedian(_numbers(kept, n))) for n in (*job.inputs, job.output) if n not in texts}
    reference = _matrix(job, kept, codes, fill)
    categories = {k: None for k, name in enumerate(job.inputs) if name in texts}
    detector = TabularDrift(reference, p_val=0.05, categories_per_feature=categories or None)
    found = []
    for case, rows in job.cases(system):
        for length, name in ((1, "days"), (7, "weeks")):
            if name not in job.facts["lengths"]:
                continue
            scores, default = [], []
            for day, window in job.windows(rows, length):
                said = detector.predict(_matrix(job, window, codes, fill), drift_type="batch")["data"]
                # The largest statistic orders windows where p-values are all 0.
                least = float(said["p_val"].min())
                scores.append((day, -np.log10(max(least, 1e-300)) + float(said["distance"].max()) * 1e-6))
                if said["is_drift"]:
                    default.append(day)
            found.append(finding(f"alibi-detect KS, {name}", system, case, scores=scores, default=default))
    return found


def _numbers(rows, name):
    return rows[name].to_numpy().astype(float)


def _matrix(job, rows, codes, fill):
    """Inputs and output (n, k); text as codes, unseen text as one more, missing numbers as the median."""
    columns = []
    for name in (*job.inputs, job.output):
        if name in codes:
            known = codes[name]
            columns.append(np.array([known.get(value, len(known)) for value in rows[name].to_pylist()], dtype=float))
        else:
            values = _numbers(rows, name)
            columns.append(np.where(np.isnan(values), fill[name], values))
    return np.column_stack(columns)


if __name__ == "__main__":
    main(detect)
