"""alibi-detect's TabularDrift of all columns. It takes one matrix without gaps, so text is numbered and nulls are 0.

Arguments: Parquet files of reference and current rows.
"""

import json
import sys
import time

import numpy as np
import pandas as pd
from alibi_detect.cd import TabularDrift

reference, current = (pd.read_parquet(file) for file in sys.argv[1:3])
texts = [k for k, name in enumerate(reference) if not pd.api.types.is_numeric_dtype(reference[name])]
for k in texts:
    name = reference.columns[k]
    kinds = sorted({*reference[name].dropna().unique(), *current[name].dropna().unique()})
    for table in (reference, current):
        table[name] = pd.Categorical(table[name], categories=kinds).codes + 1
before, now = (table.fillna(0).to_numpy(dtype=np.float64) for table in (reference, current))
start, cpu = time.perf_counter(), time.process_time()
found = TabularDrift(before, categories_per_feature=dict.fromkeys(texts)).predict(now, drift_type="feature")
took = {"compute_s": time.perf_counter() - start, "compute_cpu_s": time.process_time() - cpu}
print(json.dumps({**took, "results": len(found["data"]["distance"])}))
