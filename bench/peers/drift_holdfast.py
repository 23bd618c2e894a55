"""Holdfast's drift of all columns: edges from the reference, both counted, five distances of each from the counts.

Arguments: Parquet files of reference and current rows (patterns allowed); ``lazy`` as a third one to read them in
batches, ``again`` as a fourth to take the current rows 1 % larger, where both are the same files.
"""

import json
import sys
import time

import polars as pl
import polars.selectors as cs

from holdfast.stats.counting import count_rows
from holdfast.stats.distance import (
    chi_square,
    coarsen,
    hellinger,
    jensen_shannon,
    ks,
    psi,
    total_variation,
    wasserstein,
)
from holdfast.stats.survey import edges_of_rows


def distances(before, now, edges):
    """All of one column, by name."""
    found = {"jensen_shannon": jensen_shannon(before, now), "hellinger": hellinger(before, now)}
    if edges.is_category:
        return (
            found
            | {"psi": psi(before, now), "total_variation": total_variation(before, now)}
            | {"chi_square": chi_square(before, now).p_value}
        )
    return found | {
        "psi": psi(*coarsen(before, now)),
        "ks": ks(before, now),
        "wasserstein": wasserstein(before, now, edges),
    }


reference, current = (pl.scan_parquet(file) for file in sys.argv[1:3])
if "again" in sys.argv:
    current = current.with_columns(cs.float() * 1.01)
if "lazy" not in sys.argv:
    reference, current = reference.collect(), current.collect()
start, cpu = time.perf_counter(), time.process_time()
edges = edges_of_rows(reference)
surveyed = time.process_time()
before, now = count_rows(reference, edges), count_rows(current, edges)
counted = time.process_time()
found = {
    name: distances(before.histograms[name].present, now.histograms[name].present, edge) for name, edge in edges.items()
}
took = {"compute_s": time.perf_counter() - start, "compute_cpu_s": time.process_time() - cpu}
parts = {"edges_cpu_s": surveyed - cpu, "counts_cpu_s": counted - surveyed}
values = (before.rows + now.rows) * len(edges)
print(json.dumps({**took, **parts, "count_ns_a_value": parts["counts_cpu_s"] / values * 1e9, "results": len(found)}))
