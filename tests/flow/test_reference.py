"""The reference of a version: what it was made from, answered only where it had not been fitted."""

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.core.evidence import Grade, Verdict
from holdfast.core.protocols import Transaction
from holdfast.core.signature import Signature
from holdfast.core.spec import Monitor, SystemSpec
from holdfast.engines.memory import MemoryLake
from holdfast.flow.monitors import Monitoring, Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.reference import REFERENCE_DAYS, make_reference, promised_losses
from holdfast.stats.bootstrap import block_bootstrap_mean
from holdfast.tasks.classification import Classification
from holdfast.tasks.regression import Regression
from holdfast.testing import START

MakeSpec = Callable[..., SystemSpec]
TASK = Classification()


def rows_of(days: int, first: int = 0, rows: int = 20, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    n = days * rows
    return pl.DataFrame(
        {
            "key": [f"k{first * rows + i}" for i in range(n)],
            "event_at": [START + timedelta(days=first + i // rows, hours=i % rows) for i in range(n)],
            "x": rng.normal(size=n),
            "y": rng.normal(size=n),
            "label": (rng.random(n) < 0.4).astype(np.float64),
        }
    )


def scored(days: int, first: int = 0, answer: float = 0.4) -> pl.DataFrame:
    return rows_of(days, first).with_columns(candidate=pl.lit(answer))


def a_reference(spec: SystemSpec, rows: pl.DataFrame, holdout: pl.DataFrame) -> Reference:
    signature = Signature(columns=tuple(spec.data.columns.values()), task="classification", output="probability")
    return make_reference(spec, TASK, "3", signature, rows, holdout, ())


def test_rows_that_were_fitted_carry_no_answer(a_spec: MakeSpec) -> None:
    made = a_reference(a_spec(), pl.concat([rows_of(6), rows_of(4, 6)]), scored(4, 6))
    assert [block.rows()["probability"].count() for block in made.blocks] == [0] * 6 + [20] * 4
    assert made.version == "3"


def test_what_validation_folds_answered_is_part_of_it_and_the_holdout_counts_where_both_answered(a_spec) -> None:
    spec, rows, holdout = a_spec(), rows_of(10), scored(4, 6)
    validated = scored(5, 2, answer=0.7).select("key", "candidate")
    signature = Signature(columns=tuple(spec.data.columns.values()), task="classification", output="probability")
    made = make_reference(
        spec, TASK, "3", signature, rows, holdout, (), validated=validated, facts={"influence": len, "edges": {}}
    )
    means = [block.rows()["probability"].mean() for block in made.blocks]
    assert means == pytest.approx([None, None, *[0.7] * 4, *[0.4] * 4])
    assert (made.facts["influence"], set(made.facts["edges"])) == (len, {"x", "y", "probability", "label"})


def test_its_days_are_those_of_the_time_zone_in_order(a_spec: MakeSpec) -> None:
    shuffled = rows_of(5).sample(fraction=1.0, shuffle=True, seed=1)
    made = a_reference(a_spec(timezone="America/New_York"), shuffled, scored(2, 3))
    days = [block.day for block in made.blocks]
    assert days == sorted(days)
    assert (len(days), days[0]) == (6, (START - timedelta(days=1)).date())


def test_only_the_newest_days_are_kept(a_spec: MakeSpec) -> None:
    made = a_reference(a_spec(), rows_of(REFERENCE_DAYS + 9, rows=1), scored(3, REFERENCE_DAYS + 6))
    assert len(made.blocks) == REFERENCE_DAYS


def test_every_column_and_the_answer_have_edges(a_spec: MakeSpec) -> None:
    made = a_reference(a_spec(), rows_of(8), scored(4, 4))
    assert set(made.facts["edges"]) == {"x", "y", "probability", "label"}
    assert made.facts["signature"].output == "probability"


def test_a_loss_is_promised_up_to_the_end_of_its_interval_over_the_holdout(a_spec: MakeSpec) -> None:
    holdout = scored(14)
    daily = [((block["label"] - 0.4) ** 2).mean() for _, block in holdout.group_by("event_at", maintain_order=True)]
    by_day = np.array(daily).reshape(14, 20).mean(axis=1)
    _, high = block_bootstrap_mean(by_day, np.full(14, 20.0), confidence=0.9, seed=0)
    promised = promised_losses(a_spec(), TASK, holdout)
    assert promised["brier"] == pytest.approx(high)
    assert promised["brier"] > by_day.mean()
    assert set(promised) == set(TASK.losses)


def test_the_worst_fold_is_promised_where_that_is_higher(a_spec: MakeSpec) -> None:
    holdout = scored(14)
    alone = promised_losses(a_spec(), TASK, holdout)["brier"]
    folds = ({"brier": alone + 0.1, "log_loss": math.nan}, {"brier": 0.01})
    promised = promised_losses(a_spec(), TASK, holdout, folds)
    assert promised["brier"] == alone + 0.1
    assert promised["log_loss"] == promised_losses(a_spec(), TASK, holdout)["log_loss"]
    assert promised_losses(a_spec(), TASK, holdout, ({"brier": 0.01},))["brier"] == alone


def test_a_holdout_of_one_day_promises_what_the_folds_show_or_nothing(a_spec: MakeSpec) -> None:
    assert promised_losses(a_spec(), TASK, scored(1), ({"brier": 0.3},))["brier"] == 0.3
    assert math.isnan(promised_losses(a_spec(), TASK, scored(1))["brier"])


def test_rows_without_a_label_promise_nothing(a_spec: MakeSpec) -> None:
    holdout = scored(14)
    cut = pl.int_range(pl.len()) % 2 == 0
    half = holdout.with_columns(label=pl.when(cut).then("label"))
    assert promised_losses(a_spec(), TASK, half) == promised_losses(a_spec(), TASK, holdout.filter(cut))


def test_errors_of_a_regression_are_promised_too(a_spec: MakeSpec) -> None:
    task = Regression()
    holdout = scored(14)
    promised = promised_losses(a_spec(), task, holdout)
    assert set(promised) == {"absolute_error", "squared_error", "mae", "rmse"}
    assert promised["mae"] == pytest.approx(promised["absolute_error"])
    rmse = math.sqrt(((holdout["label"] - 0.4) ** 2).mean())  # type: ignore[arg-type]
    assert rmse < promised["rmse"] < 1.2 * rmse
    assert promised_losses(a_spec(), task, holdout, ({"mae": 3.0},))["mae"] == 3.0


def answered(days: int, first: int = 0, seed: int = 0) -> pl.DataFrame:
    """Rows with calibrated answers and labels, 60 a day."""
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 5, days * 60)
    rows = rows_of(days, first, rows=60, seed=seed)
    at = [START + timedelta(days=first + i // 60, minutes=i % 60) for i in range(days * 60)]
    return rows.with_columns(event_at=pl.Series(at), candidate=p, label=(rng.random(days * 60) < p).astype(np.float64))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_stuck_answers_are_found_with_the_answers_of_validation_folds_and_without_it_says_it_cannot_tell(
    a_spec: MakeSpec, lake: MemoryLake, tx: Transaction, traffic: Any, kept: bool
) -> None:
    every = timedelta(days=7)
    drift = Monitor(check="drift", name="drift", every=every, window=every)
    calibration = Monitor(check="calibration", name="calibration", every=every, window=every)
    spec = a_spec(monitors=(drift, calibration), timezone="UTC", false_alarms=1.0)
    rows = answered(REFERENCE_DAYS)
    hold, folds = rows.tail(14 * 60), rows.slice(40 * 60, 126 * 60)
    signature = Signature(columns=tuple(spec.data.columns.values()), task="classification", output="probability")
    validated = folds if kept else None
    made = make_reference(spec, TASK, "1", signature, rows.drop("candidate"), hold, (), validated=validated)
    monitoring = Monitoring(spec, TASK, LivePredictions(spec, lake, "probability"))

    def verdicts(monitor: Monitor, week: int, stuck: bool) -> Mapping[tuple[str, str], Verdict]:
        live = answered(8, REFERENCE_DAYS + 10 * week, seed=9 + week)
        outputs = [0.999] * live.height if stuck else live["candidate"].to_list()
        x, y = (live[name].to_numpy() for name in "xy")
        keys = traffic.answer(live["event_at"].to_list(), outputs, x=x, y=y)
        for day in range(8):
            part = slice(day * 60, day * 60 + 60)
            traffic.label(keys[part], live["label"].to_list()[part], live["event_at"][day * 60 + 59])
        now = START + timedelta(days=REFERENCE_DAYS + 10 * week + 8)
        facts = {"now": now, "mature_until": now - timedelta(days=1)}
        found = monitoring.run(tx, monitor, made, facts, now)
        return {(v.reading.name, v.reading.subject): v for v in found}

    usual, stuck = (verdicts(drift, week, stuck=bool(week)) for week in (0, 1))
    assert usual["psi", "probability"].grade is Grade.PASS
    assert stuck["psi", "probability"].calibrated is kept
    if kept:
        assert stuck["psi", "probability"].grade is Grade.FAIL
    else:
        assert "history has 2 windows; level" in stuck["psi", "probability"].why
    assert verdicts(calibration, 2, stuck=False)["calibration_error", ""].calibrated is kept
