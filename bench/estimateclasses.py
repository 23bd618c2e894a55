"""Multi-class estimates without labels beside NannyML's, on its own multi-class set, in one run on one core.

`largest_difference` is that of any value of any chunk, under NannyML's own rule of calibration; `error` the mean
absolute difference between our own default (each class calibrated by what does best on blocks that were held out) and
the truth that came later, beside NannyML's and that of the scores as they are; `covered` the share of chunks whose
truth lies in the 95 % interval. In the second half of the set the concept changes, which no such estimate sees.
Processor time is that of fit and estimate.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from holdfast.stats.calibration import Calibrator
from holdfast.stats.estimateclasses import (
    ClassCalibrators,
    calibrate_classes,
    class_noise,
    confusion,
    estimate_classes,
    one_hot,
    past_class_errors,
)
from parts.figures import options
from parts.flights import NotAvailable
from parts.nannyml import asked, tell
from parts.splitrule import FloatArray, calibrated_when_it_helps

NAMES = {
    "accuracy": "accuracy",
    "f1": "f1_macro",
    "precision": "precision_macro",
    "recall": "recall_macro",
    "roc_auc": "roc_auc",
}
"""What each metric is called there and here."""
BLOCK = 1000
"""Rows of a reference block: the set has no days."""


def asked_of_nannyml() -> tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]:
    """NannyML's figures, and the two halves of its set. Raises NotAvailable where there are none."""
    with TemporaryDirectory() as name:
        found = asked("estimate_classes_nannyml.py", Path(name))
        if not found:
            raise NotAvailable("it gave no figures")
        reference, later = (pl.read_parquet(Path(name) / f"{half}.parquet") for half in ("reference", "later"))
    return found[0], reference, later


def columns(rows: pl.DataFrame, classes: list[str]) -> tuple[FloatArray, FloatArray, Any]:
    """Places of the labels (n,), answers (n, classes), and places of what was answered (n,)."""
    place = {name: i for i, name in enumerate(classes)}
    label, claimed = (
        rows[name].replace_strict(place, return_dtype=pl.Int64).to_numpy() for name in ("label", "claimed")
    )
    return label.astype(np.float64), rows.select(classes).to_numpy().astype(np.float64), claimed


def parity(theirs: dict[str, Any], reference: pl.DataFrame, later: pl.DataFrame) -> dict[str, Any]:
    """The largest difference from NannyML's values under its own rule, and both processor times."""
    classes = theirs["classes"]
    y, scores, _ = columns(reference, classes)
    _, given, claimed = columns(later, classes)
    starts = range(0, len(given), theirs["chunk"])
    before = time.process_time()
    curves: list[Calibrator] = [
        calibrated_when_it_helps((y == c).astype(np.float64), scores[:, c]) for c in range(len(classes))
    ]
    truth = ClassCalibrators(tuple(curves))(given)
    found = estimate_classes(given, truth, starts, metrics=tuple(NAMES.values()), answered=claimed, merge_ties=False)
    tables = [confusion(truth[a : a + theirs["chunk"]], claimed[a : a + theirs["chunk"]]) for a in starts]
    took = time.process_time() - before
    apart = {name: np.abs(found[ours] - np.array(theirs["values"][name])).max() for name, ours in NAMES.items()}
    rows = np.array([len(given[a : a + theirs["chunk"]]) for a in starts])
    for i, true in enumerate(classes):
        for j, said in enumerate(classes):
            cells = np.array(theirs["values"][f"true_{true}_pred_{said}"])
            ours = np.array([table[i, j] for table in tables])
            # Cells are told as they were asked for, in rows; compared as shares of the chunk.
            apart[f"{true} as {said}"] = np.abs(ours - cells).max() / rows.max()
    return {
        "rows": later.height,
        "classes": len(classes),
        "chunks": len(starts),
        "calibrated": ", ".join(curve.method for curve in curves),
        "largest_difference": float(max(apart.values())),
        "cpu_s": took,
        "nannyml_cpu_s": theirs["cpu_s"],
        "times_as_fast": theirs["cpu_s"] / took,
    }


def errors(theirs: dict[str, Any], reference: pl.DataFrame, later: pl.DataFrame) -> list[dict[str, Any]]:
    """One row of figures per metric: who is how far from the truth that came later."""
    classes, chunk = theirs["classes"], theirs["chunk"]
    (y0, s0, _), (y, s, claimed) = columns(reference, classes), columns(later, classes)
    starts, metrics = range(0, len(s), chunk), tuple(NAMES.values())
    blocks = [(y0[a : a + BLOCK], s0[a : a + BLOCK]) for a in range(0, len(y0), BLOCK)]
    before = time.process_time()
    truth = calibrate_classes(blocks)(s)
    past = past_class_errors(blocks, window=chunk // BLOCK, metrics=metrics)
    ours = estimate_classes(s, truth, starts, metrics=metrics, answered=claimed)
    took = time.process_time() - before
    came = estimate_classes(s, one_hot(y, len(classes)), starts, metrics=metrics, answered=claimed)
    plain = estimate_classes(s, s, starts, metrics=metrics, answered=claimed)
    rows = []
    for there, here in NAMES.items():
        ends = np.array(
            [
                past.interval(here, value, class_noise(s[a : a + chunk], truth[a : a + chunk]))
                for value, a in zip(ours[here], starts, strict=True)
            ]
        )
        inside = (ends[:, 0] <= came[here]) & (came[here] <= ends[:, 1])
        rows.append(
            {
                "metric": here,
                "error": float(np.abs(ours[here] - came[here]).mean()),
                "nannyml": float(np.abs(np.array(theirs["values"][there]) - came[here]).mean()),
                "as_answered": float(np.abs(plain[here] - came[here]).mean()),
                "covered": float(inside.mean()),
                "default_cpu_s": took,
            }
        )
    return rows


def main() -> None:
    """Measure and report."""
    given = options(__doc__ or "")
    try:
        theirs, reference, later = asked_of_nannyml()
    except NotAvailable as why:
        print(f"without NannyML there is nothing to compare with: {why}")
        return
    figures = {"parity": [parity(theirs, reference, later)], "estimates": errors(theirs, reference, later)}
    tell("estimateclasses", figures, given.json)


if __name__ == "__main__":
    main()
