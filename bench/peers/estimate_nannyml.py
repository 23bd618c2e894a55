"""NannyML's estimates of the cases in a directory: `python estimate_nannyml.py DIRECTORY`, one line of JSON a case.

A case is ``NAME.json`` beside ``NAME.reference.parquet`` and ``NAME.later.parquet``. Processor seconds are those of
fit and estimate together, without reading and imports.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import nannyml
import pandas as pd

warnings.filterwarnings("ignore")


def estimator(case: dict) -> "nannyml.base.AbstractEstimator":
    if case["task"] == "regression":
        return nannyml.DLE(
            feature_column_names=case["features"],
            y_pred="answer",
            y_true="label",
            chunk_size=case["chunk"],
            metrics=case["metrics"],
            hyperparameters={"n_jobs": 1, "verbose": -1},  # its defaults, without threads that wait by spinning
        )
    return nannyml.CBPE(
        y_pred_proba="answer",
        y_pred="claimed",
        y_true="label",
        problem_type="classification_binary",
        metrics=case["metrics"],
        chunk_size=case["chunk"],
    )


def main() -> None:
    for file in sorted(Path(sys.argv[1]).glob("*.json")):
        case = json.loads(file.read_text())
        reference, later = (pd.read_parquet(file.with_suffix(f".{part}.parquet")) for part in ("reference", "later"))
        cpu, wall = time.process_time(), time.perf_counter()
        found = estimator(case).fit(reference).estimate(later)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        table = found.filter(period="analysis").to_df()
        values = {metric: table[(metric, "value")].tolist() for metric in case["metrics"]}
        print(json.dumps({"case": case["name"], "cpu_s": cpu, "wall_s": wall, "values": values}), flush=True)


if __name__ == "__main__":
    main()
