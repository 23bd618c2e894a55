"""The least that any drift can cost: polars reads both tables and adds up every column. Arguments as for Holdfast."""

import json
import sys
import time

import polars as pl
import polars.selectors as cs

reference, current = (pl.scan_parquet(file) for file in sys.argv[1:3])
if "lazy" not in sys.argv:
    reference, current = (table.collect().lazy() for table in (reference, current))
start, cpu = time.perf_counter(), time.process_time()
for table in (reference, current):
    table.select(cs.numeric().sum(), cs.string().str.len_bytes().sum()).collect(engine="streaming")
print(json.dumps({"compute_s": time.perf_counter() - start, "compute_cpu_s": time.process_time() - cpu}))
