"""Evidently's drift report of all columns, as it comes. Arguments: Parquet files of reference and current rows."""

import json
import sys
import time

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

reference, current = (pd.read_parquet(file) for file in sys.argv[1:3])
texts = [name for name in reference if not pd.api.types.is_numeric_dtype(reference[name])]
shape = DataDefinition(numerical_columns=[n for n in reference if n not in texts], categorical_columns=texts)
start, cpu = time.perf_counter(), time.process_time()
before, now = (Dataset.from_pandas(table, data_definition=shape) for table in (reference, current))
found = Report([DataDriftPreset()]).run(now, before).dict()
took = {"compute_s": time.perf_counter() - start, "compute_cpu_s": time.process_time() - cpu}
print(json.dumps({**took, "results": len(found["metrics"])}))
