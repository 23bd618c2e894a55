"""NannyML on simulated systems: univariate drift (Jensen-Shannon), multivariate drift (reconstruction), CBPE, realised
performance; default thresholds."""

import warnings

import numpy as np
import pandas as pd
from alarms_cases import finding, main

warnings.filterwarnings("ignore")
import nannyml  # noqa: E402

START = pd.Timestamp("2018-01-01")
LABEL_LAG = 1
"""Days until the labels of a day are complete; estimates without labels need none."""


def detect(job, system):
    """Every case of one system, by chunks of days and of weeks."""
    reference = _frame(job, job.reference(system))
    before = job.facts["before"]
    place = np.arange(len(reference)) * before // len(reference)
    cases = [(case, _frame(job, rows)) for case, rows in job.cases(system)]
    found = []
    for length, name in ((1, "days"), (7, "weeks")):
        if name not in job.facts["lengths"]:
            continue
        # Disjoint chunks as columns of days: the reference counts back from the day the system went live.
        reference["at"] = START + pd.to_timedelta(((place - before) // length) * 7, unit="D")
        # Estimates and performance by days only: chunks of weeks find nothing sooner.
        for title, calculator, lag in [*_calculators(job)][: None if length == 1 else 2]:
            calculator.fit(reference)
            for case, frame in cases:
                first = int(frame["day"].min())
                frame["at"] = START + pd.to_timedelta(((frame["day"] - first) // length) * 7, unit="D")
                result = (calculator.estimate if hasattr(calculator, "estimate") else calculator.calculate)(frame)
                scores, default = _scores(result, first, length, lag)
                found.append(finding(f"NannyML {title}, {name}", system, case, scores=scores, default=default))
    return found


def _calculators(job):
    chunks = {"timestamp_column_name": "at", "chunk_period": "W"}
    texts = [name for name in job.inputs if name in job.texts]
    yield (
        "univariate drift",
        nannyml.UnivariateDriftCalculator(column_names=[*job.inputs, job.output], treat_as_categorical=texts, **chunks),
        0,
    )
    yield (
        "multivariate drift",
        nannyml.DataReconstructionDriftCalculator(column_names=[*job.inputs], **chunks),
        0,
    )
    if job.task == "classification":
        common = {"y_true": "label", "y_pred": "answer", "y_pred_proba": job.output, "metrics": ["roc_auc"]}
        common["problem_type"] = "classification_binary"
        yield "CBPE", nannyml.CBPE(**common, **chunks), 0
        yield "performance", nannyml.PerformanceCalculator(**common, **chunks), LABEL_LAG
    else:
        common = {"y_true": "label", "y_pred": job.output, "metrics": ["mae"], "problem_type": "regression"}
        yield "performance", nannyml.PerformanceCalculator(**common, **chunks), LABEL_LAG


def _frame(job, rows):
    frame = rows.select([*job.inputs, job.output, "label"]).to_pandas()
    frame["answer"] = (frame[job.output] >= 0.5).astype(int)
    frame["day"] = rows["day"].to_numpy() if "day" in rows.column_names else 0
    return frame[frame["label"].notna()].reset_index(drop=True)


def _scores(result, first, length, lag):
    """Per chunk the largest distance from the mean of the reference's chunks, in their standard deviations."""
    table = result.to_df()
    about = {name[-1]: table[name] for name in table.columns if name[0] == "chunk"}
    period, starts = about["period"].to_numpy(), pd.to_datetime(about["start_date"])
    worst = np.full(len(table), -np.inf)
    alert = np.zeros(len(table), dtype=bool)
    for column in [name for name in table.columns if name[-1] == "value"]:
        values = table[column].to_numpy(dtype=float)
        known = values[period == "reference"]
        known = known[np.isfinite(known)]
        if known.size > 1 and known.std() > 0:
            distance = np.abs(values - known.mean()) / known.std()
            worst = np.fmax(worst, distance)
        alert |= table[(*column[:-1], "alert")].to_numpy(dtype=bool)
    live = np.flatnonzero(period == "analysis")
    weeks = ((starts.iloc[live] - START).dt.days // 7).to_numpy()
    days = first + (weeks + 1) * length - 1 + lag
    scores = [(day, score) for day, score in zip(days, worst[live], strict=True) if np.isfinite(score)]
    return scores, [day for day, on in zip(days, alert[live], strict=True) if on]


if __name__ == "__main__":
    main(detect)
