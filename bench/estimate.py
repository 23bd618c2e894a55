"""How well quality is told without labels: estimates beside the truth that came later, NannyML, and trivial ones.

`error` is the mean absolute difference between estimate and truth over chunks; `as before` says that each chunk is as
good as the reference was, `average confidence` believes the scores as they are. `covered` is the share of chunks whose
truth lies in the 95 % interval. `parity` compares values with NannyML's under NannyML's own rule of calibration, and
processor time of fit and estimate, in one run on one core; `default_cpu_s` is that of our own default, with the choice
of a calibration and the intervals of all chunks. `given_up` counts the splits in which an estimate is no longer used.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm
import numpy as np
import polars as pl

from holdfast.stats import directloss
from holdfast.stats.calibration import FITS, choose_calibration
from holdfast.stats.estimate import count, estimate, noise, past_errors
from holdfast.stats.trust import Matured, trusted
from parts.estimatecases import BLOCKS, Case, FloatArray, cases
from parts.figures import options
from parts.flights import NotAvailable
from parts.nannyml import asked, tell
from parts.splitrule import calibrated_when_it_helps

BINARY = ("accuracy", "precision", "recall", "specificity", "f1", "roc_auc", "average_precision")
SHOWN = ("accuracy", "f1", "roc_auc", "brier")
REGRESSION = ("mae", "rmse")
PARITY_REGRESSION = ("mae", "mape", "mse", "rmse", "msle", "rmsle")
SPEED_ROWS, SPEED_CHUNKS = 1_000_000, 100
Peer = Mapping[str, dict[str, Any]]


def starts_of(case: Case) -> Sequence[int]:
    """Where each chunk begins."""
    return range(0, case.later.height, case.chunk)


def columns(rows: pl.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Labels and answers."""
    return rows["label"].to_numpy().astype(np.float64), rows["answer"].to_numpy().astype(np.float64)


def blocks_of(case: Case) -> list[tuple[FloatArray, FloatArray]]:
    """Labels and answers of each reference block."""
    y, s = columns(case.reference)
    return [(y[a : a + case.block], s[a : a + case.block]) for a in range(0, len(y), case.block)]


def classified(case: Case, theirs: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One row of figures per metric."""
    (y0, s0), (y, s), starts = columns(case.reference), columns(case.later), starts_of(case)
    counts = count(blocks_of(case))
    method = choose_calibration(counts.scores, counts.rows, counts.positives)
    p = FITS[method](counts.scores, counts.rows.sum(axis=0), counts.positives.sum(axis=0))(s)
    past = past_errors(counts, FITS[method], blocks=BLOCKS)
    truth, ours, plain = (estimate(s, weight, starts, metrics=SHOWN) for weight in (y, p, s))
    before = estimate(s0, y0, metrics=SHOWN)
    noisy = [noise(p[a : a + case.chunk]) for a in starts]
    rows = []
    for metric in SHOWN:
        ends = [past.interval(metric, v, w) for v, w in zip(ours[metric], noisy, strict=True)]
        peer = np.array(theirs["values"][metric], dtype=np.float64) if theirs and metric in theirs["values"] else None
        rows.append(
            row_of(case, metric, truth[metric], ours[metric], ends)
            | {
                "as_before": gap(before[metric][0], truth[metric]),
                "average_confidence": gap(plain[metric], truth[metric]),
                "nannyml": None if peer is None else gap(peer, truth[metric]),
                "calibration": method,
            }
        )
    return rows


def row_of(
    case: Case, metric: str, truth: FloatArray, value: FloatArray, ends: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """What the truth says of an estimate, and whether it would still be used."""
    low, high = np.array(ends).T
    known = np.isfinite(truth) & np.isfinite(low) & np.isfinite(value)
    inside = (low <= truth) & (truth <= high)
    past = [Matured(*map(float, one)) for one in zip(value[known], low[known], high[known], truth[known], strict=True)]
    first = next((i for i in range(1, len(past) + 1) if not trusted(past[:i]).usable), None)
    return {
        "case": case.name,
        "split": case.split,
        "origin": case.origin,
        "holds": case.holds,
        "metric": metric,
        "chunks": len(past),
        "error": gap(value, truth),
        "covered": float(inside[known].mean()) if known.any() else None,
        "width": float((high - low)[known].mean()) if known.any() else None,
        "given_up_at": first,
        "truth": float(np.nanmean(truth)),
    }


def gap(value: FloatArray | float, truth: FloatArray) -> float:
    """Mean absolute error over chunks in which both are known."""
    return float(np.nanmean(np.abs(value - truth)))


def learner(**given: Any) -> directloss.Learn:
    """LightGBM as NannyML fits it: its defaults."""

    def learn(x: FloatArray, target: FloatArray) -> directloss.Predict:
        model = lightgbm.LGBMRegressor(n_jobs=1, verbose=-1, **given).fit(x, target)
        return lambda rows: np.asarray(model.booster_.predict(rows, num_threads=1), dtype=np.float64)

    return learn


def features(case: Case, rows: pl.DataFrame) -> FloatArray:
    """What the learner sees: the features and the answer."""
    return rows.select(*case.features, "answer").to_numpy()


def regressed(case: Case, theirs: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One row of figures per metric."""
    (y0, s0), (y, s), starts = columns(case.reference), columns(case.later), starts_of(case)
    x0, x, learn = features(case, case.reference), features(case, case.later), learner()
    block = np.arange(len(y0)) // case.block
    rows = []
    for metric in REGRESSION:
        losses = directloss.row_losses(metric, y0, s0)
        guesses = learn(x0, losses)(x)
        past = directloss.past_loss_errors(
            metric, losses, directloss.held_out(learn, x0, losses, block), block, blocks=BLOCKS
        )
        truth = directloss.metric_of(metric, directloss.row_losses(metric, y, s), starts)
        ours = directloss.metric_of(metric, guesses, starts)
        ends = [
            past.interval(metric, v, directloss.loss_noise(metric, guesses[a : a + case.chunk]))
            for v, a in zip(ours, starts, strict=True)
        ]
        peer = np.array(theirs["values"][metric]) if theirs else None
        rows.append(
            row_of(case, metric, truth, ours, ends)
            | {
                "as_before": gap(float(directloss.metric_of(metric, losses)[0]), truth),
                "average_confidence": None,
                "nannyml": None if peer is None else gap(peer, truth),
                "calibration": "direct loss",
            }
        )
    return rows


def parity(case: Case, theirs: dict[str, Any]) -> dict[str, Any]:
    """The largest difference from NannyML's values under its own rule, and both processor times."""
    (y0, s0), (_, s), starts = columns(case.reference), columns(case.later), starts_of(case)
    before = time.process_time()
    if case.task == "regression":
        x0, x, learn = features(case, case.reference), features(case, case.later), learner()
        ours = {}
        for metric in PARITY_REGRESSION:
            predict = learn(x0, directloss.row_losses(metric, y0, s0))
            ours[metric] = directloss.metric_of(metric, predict(x), starts)
    else:
        curve = calibrated_when_it_helps(y0, s0)
        claimed = case.later["claimed"].to_numpy() == 1
        ours = estimate(s, curve(s), starts, metrics=BINARY, claimed=claimed, merge_ties=False)
    took = time.process_time() - before
    before = time.process_time()
    (regressed if case.task == "regression" else classified)(case, None)
    whole = time.process_time() - before
    # With nothing answered positive the precision is undefined here and 0 there.
    apart = {name: np.abs(np.nan_to_num(ours[name]) - np.array(theirs["values"][name])) for name in ours}
    if case.task == "regression":  # in the label's unit: compared as shares of the value
        apart = {name: far / np.array(theirs["values"][name]) for name, far in apart.items()}
    return {
        "case": case.name,
        "task": case.task,
        "rows": case.later.height,
        "chunks": len(starts),
        "undefined": int(sum(np.isnan(values).sum() for values in ours.values())),
        "largest_difference": max(float(far.max()) for far in apart.values()),
        "cpu_s": took,
        "nannyml_cpu_s": theirs["cpu_s"],
        "times_as_fast": theirs["cpu_s"] / took,
        "default_cpu_s": whole,
    }


def speed_case() -> Case:
    """A million rows in a hundred chunks, made up."""
    random = np.random.default_rng(3)

    def rows(n: int) -> pl.DataFrame:
        s = random.beta(2, 5, n)
        y = random.random(n) < s**1.2
        return pl.DataFrame({"label": y.astype(np.float64), "answer": s, "claimed": (s >= 0.5).astype(np.int64)})

    return Case(
        name="a million rows",
        task="binary",
        origin="made up",
        holds=True,
        reference=rows(100_000),
        later=rows(SPEED_ROWS),
        chunk=SPEED_ROWS // SPEED_CHUNKS,
        features=(),
    )


def asked_of_nannyml(every: Sequence[Case]) -> Peer:
    """NannyML's figures by case; empty, and why, where it cannot be installed."""
    with TemporaryDirectory() as name:
        place = Path(name)
        for i, case in enumerate(every):
            metrics = PARITY_REGRESSION if case.task == "regression" and "price" in case.name else REGRESSION
            about = {
                "name": case.key,
                "task": case.task,
                "chunk": case.chunk,
                "features": case.features,
                "metrics": BINARY if case.task == "binary" else metrics,
            }
            (place / f"{i:03d}.json").write_text(json.dumps(about))
            case.reference.write_parquet(place / f"{i:03d}.reference.parquet")
            case.later.write_parquet(place / f"{i:03d}.later.parquet")
        try:
            found = asked("estimate_nannyml.py", place)
        except NotAvailable as why:
            print(f"without NannyML: {why}")
            return {}
    return {one["case"]: one for one in found}


def together(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The splits of one set as one row: means over their chunks; `given_up` counts splits."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["case"], row["metric"]), []).append(row)
    found = []
    for group in groups.values():
        first, chunks = group[0], sum(row["chunks"] for row in group)
        means = {
            name: None
            if any(row[name] is None for row in group)
            else sum(row[name] * row["chunks"] for row in group) / max(chunks, 1)
            for name in ("error", "as_before", "average_confidence", "nannyml", "covered", "width", "truth")
        }
        given_up = [row["given_up_at"] for row in group if row["given_up_at"]]
        found.append(
            {name: first[name] for name in ("case", "origin", "holds", "metric")}
            | {"splits": len(group), "chunks": chunks}
            | means
            | {
                "given_up": len(given_up),
                "given_up_at": given_up[0] if len(group) == 1 and given_up else None,
                "calibration": max({row["calibration"] for row in group}, key=[r["calibration"] for r in group].count),
            }
        )
    return found


def coverage(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Share of truths inside their interval, per metric, where the concept holds by construction."""
    found = []
    for origin in ("mixed", "shifted"):
        for metric in (*SHOWN, *REGRESSION):
            held = [row for row in rows if row["origin"] == origin and row["metric"] == metric and row["chunks"]]
            chunks = sum(row["chunks"] for row in held)
            if chunks:
                inside = sum(row["covered"] * row["chunks"] for row in held)
                found.append(
                    {
                        "origin": origin,
                        "metric": metric,
                        "sets": len(held),
                        "chunks": chunks,
                        "covered": inside / chunks,
                    }
                )
    return found


def main() -> None:
    """Measure and report."""
    given = options(__doc__ or "", only="")
    every = list(cases([name for name in given.only.split(",") if name]))
    fast = speed_case()
    peer = asked_of_nannyml([*every, fast])
    rows = []
    for case in every:
        rows += (regressed if case.task == "regression" else classified)(case, peer.get(case.key))
    shipped = [one for one in every if one.origin == "shipped"]
    figures = {
        "estimates": together(rows),
        "coverage": coverage(together(rows)),
        "parity": [parity(one, peer[one.key]) for one in [*shipped, fast] if one.key in peer],
    }
    tell("estimate", figures, given.json)


if __name__ == "__main__":
    main()
