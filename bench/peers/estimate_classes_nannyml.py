"""NannyML's estimates of its own multi-class set: `python estimate_classes_nannyml.py DIRECTORY`.

Writes ``reference.parquet`` and ``later.parquet`` (`label` and `claimed` as texts, a column of answers per class) into
the directory, and prints one line of JSON: the classes, the values by metric and chunk, the processor seconds of fit
and estimate together.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import nannyml

warnings.filterwarnings("ignore")

METRICS = ["accuracy", "f1", "precision", "recall", "roc_auc", "confusion_matrix"]
CHUNK = 6000
SCORES = {
    "prepaid_card": "y_pred_proba_prepaid_card",
    "highstreet_card": "y_pred_proba_highstreet_card",
    "upmarket_card": "y_pred_proba_upmarket_card",
}


def main() -> None:
    place = Path(sys.argv[1])
    reference, later, truth = nannyml.load_synthetic_multiclass_classification_dataset()
    estimator = nannyml.CBPE(
        y_pred_proba=SCORES,
        y_pred="y_pred",
        y_true="y_true",
        problem_type="classification_multiclass",
        metrics=METRICS,
        chunk_size=CHUNK,
    )
    cpu = time.process_time()
    found = estimator.fit(reference).estimate(later)
    cpu = time.process_time() - cpu
    table = found.filter(period="analysis").to_df()
    classes = sorted(SCORES)
    names = METRICS[:-1] + [f"true_{a}_pred_{b}" for a in classes for b in classes]
    values = {name: table[(name, "value")].tolist() for name in names}
    whole = later.merge(truth, on="id") if "y_true" not in later else later
    for name, rows in (("reference", reference), ("later", whole)):
        kept = rows[["y_true", "y_pred", *(SCORES[one] for one in classes)]].rename(
            columns={"y_true": "label", "y_pred": "claimed"} | {SCORES[one]: one for one in classes}
        )
        kept.to_parquet(place / f"{name}.parquet")
    print(json.dumps({"classes": classes, "chunk": CHUNK, "cpu_s": cpu, "values": values}), flush=True)


if __name__ == "__main__":
    main()
