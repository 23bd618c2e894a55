"""NannyML's univariate drift of all columns, the current rows as one chunk. Arguments: Parquet files of both."""

import json
import sys
import time

import nannyml as nml
import pandas as pd

reference, current = (pd.read_parquet(file) for file in sys.argv[1:3])
start, cpu = time.perf_counter(), time.process_time()
calculator = nml.UnivariateDriftCalculator(column_names=list(reference), chunk_size=len(current))
found = calculator.fit(reference).calculate(current).to_df()
took = {"compute_s": time.perf_counter() - start, "compute_cpu_s": time.process_time() - cpu}
print(json.dumps({**took, "results": found.shape[1]}))
