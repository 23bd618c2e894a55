"""Gates: a candidate must beat the plain models, be measured, and have been trained on what is served."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.evidence import Grade, Limit, Reading, Verdict, Window
from holdfast.core.protocols import Transaction
from holdfast.core.records import Job, Release, Run, Version
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Data, Decide, Gate, Label, Model, ReleasePlan, SystemSpec
from holdfast.engines.memory import MemoryCatalog
from holdfast.errors import GateRefused
from holdfast.flow import gates
from holdfast.flow.days import blocks_of
from holdfast.tasks.classification import Classification, roc_auc
from holdfast.testing import START, refused

TASK = Classification()
NOTHING = pl.DataFrame()
SPEC = SystemSpec(
    system="orders",
    data=Data(feeds={}, rows="f", key="id", label=Label(feed="f", column="y", known_at="at"), columns={}),
    model=Model(task="classification"),
    gates=(),
    release=ReleasePlan(steps=(), decide=Decide(loss="brier", margin=0.01)),
)
MakeSpec = Callable[..., SystemSpec]


def a_holdout(days: int = 8, rows: int = 60, seed: int = 0, noise: float = 0.1, **outputs: Any) -> pl.DataFrame:
    """Rows whose candidate answers near the true probability; the trivial model answers the mean."""
    rng = np.random.default_rng(seed)
    n = days * rows
    x, y = rng.normal(size=n), rng.normal(5, 2, size=n)
    true = 1 / (1 + np.exp(-2 * x))
    columns = {
        "key": [f"k{i}" for i in range(n)],
        "event_at": [START + timedelta(days=i // rows, hours=i % rows % 24) for i in range(n)],
        "x": x,
        "y": y,
        "label": (rng.random(n) < true).astype(np.float64),
        "candidate": true,
        "linear": np.clip(true + rng.normal(0, noise, n), 0.01, 0.99),
        "trivial": np.full(n, 0.5),
    }
    return pl.DataFrame({**columns, **outputs})


def a_window(spec: SystemSpec, holdout: pl.DataFrame) -> Window:
    return gates.holdout_window(spec, TASK, holdout, {"task": TASK})


def judged(spec: SystemSpec, holdout: pl.DataFrame, served: pl.DataFrame = NOTHING) -> dict[str, Verdict]:
    return {verdict.monitor: verdict for verdict in gates.judge(spec, TASK, a_window(spec, holdout), served)}


def test_a_candidate_that_beats_the_plain_models_and_passes_is_not_refused(a_spec: MakeSpec) -> None:
    verdicts = judged(a_spec(), a_holdout())
    assert [verdict.grade for verdict in verdicts.values()] == [Grade.PASS] * 3
    assert gates.refusal(tuple(verdicts.values())) == ""


@pytest.mark.parametrize("name", ["trivial", "linear"])
def test_a_candidate_that_does_not_beat_a_plain_model_is_refused(a_spec: MakeSpec, name: str) -> None:
    holdout = a_holdout()
    better = holdout.with_columns(pl.col("candidate").alias(name), (pl.col("candidate") * 0.5).alias("candidate"))
    verdicts = judged(a_spec(), better)
    assert verdicts[name].grade is Grade.FAIL
    assert f"does not beat the {name} model" in gates.refusal(tuple(verdicts.values()))


def test_an_equal_candidate_does_not_beat_a_plain_model(a_spec: MakeSpec) -> None:
    holdout = a_holdout()
    assert judged(a_spec(), holdout.with_columns(linear="candidate"))["linear"].grade is Grade.FAIL


def test_a_linear_candidate_need_not_beat_itself(a_spec: MakeSpec) -> None:
    spec = a_spec()
    spec = replace(spec, model=replace(spec.model, trainer="linear"))
    assert "linear" not in judged(spec, a_holdout().with_columns(linear="candidate"))


def test_no_gates_are_a_refusal(a_spec: MakeSpec) -> None:
    spec = a_spec(gates=())
    with refused(GateRefused, "no gates are stated"):
        gates.judge(spec, TASK, a_window(spec, a_holdout()), NOTHING)


def test_unknown_refuses_as_failing_does(a_spec: MakeSpec, graded: Callable[..., Verdict]) -> None:
    assert gates.refusal([graded(Grade.PASS, "a"), graded(Grade.UNKNOWN, "b")]) == "b unknown"
    assert gates.refusal([graded(Grade.FAIL, "a"), graded(Grade.UNKNOWN, "b")]) == "a fail; b unknown"
    assert gates.refusal([graded(Grade.WARN, "a"), graded(Grade.NOT_APPLICABLE, "b")]) == ""
    one_class = a_holdout().with_columns(label=pl.lit(1.0), candidate=pl.lit(0.9))
    spec = a_spec(gates=[Gate(check="quality", options={"metric": "roc_auc"}, limit=Limit(at_least=0.5), name="auc")])
    assert judged(spec, one_class)["auc"].grade is Grade.UNKNOWN


def no_worse(metric: str, margin: float = 0.0) -> Gate:
    return Gate(
        check="quality", options={"metric": metric}, limit=Limit(no_worse_than="live", margin=margin), name="gate"
    )


def test_a_comparison_with_live_is_not_applicable_at_a_first_release(a_spec: MakeSpec) -> None:
    verdicts = judged(a_spec(gates=[no_worse("brier")]), a_holdout())
    assert verdicts["gate"].grade is Grade.NOT_APPLICABLE
    assert gates.refusal(tuple(verdicts.values())) == ""


@pytest.mark.parametrize("metric", ["brier", "log_loss", "roc_auc", "accuracy"])
def test_a_candidate_worse_than_live_is_refused_whatever_way_the_metric_runs(a_spec: MakeSpec, metric: str) -> None:
    holdout = a_holdout(noise=0.9)
    spec = a_spec(gates=[no_worse(metric)])
    better = judged(spec, holdout.with_columns(live="linear"))["gate"]
    worse = judged(spec, holdout.with_columns(live="candidate", candidate="linear"))["gate"]
    assert (better.grade, worse.grade) == (Grade.PASS, Grade.FAIL)
    assert better.reading.value == pytest.approx(-(worse.reading.value or 0.0))
    assert (worse.reading.value or 0.0) > 0


def test_up_to_the_margin_worse_is_accepted(a_spec: MakeSpec) -> None:
    holdout = a_holdout().with_columns(live="candidate", candidate="linear", linear=pl.lit(0.5))
    worse = judged(a_spec(gates=[no_worse("brier")]), holdout)["gate"].reading.value
    assert worse is not None
    assert judged(a_spec(gates=[no_worse("brier", worse + 1e-6)]), holdout)["gate"].grade is Grade.PASS
    assert judged(a_spec(gates=[no_worse("brier", worse - 1e-6)]), holdout)["gate"].grade is Grade.FAIL


def test_the_comparison_is_the_difference_on_the_same_labelled_rows(a_spec: MakeSpec) -> None:
    holdout = a_holdout().with_columns(label=pl.when(pl.int_range(pl.len()) % 3 > 0).then("label"))
    window = a_window(a_spec(), holdout)
    rows = holdout.filter(pl.col("label").is_not_null())
    y, a, b = (rows[name].to_numpy() for name in ("label", "candidate", "linear"))
    worse, low, high, count = gates.compare(TASK, window, "brier", "probability", "linear")
    assert (worse, count) == (pytest.approx(((a - y) ** 2).mean() - ((b - y) ** 2).mean()), rows.height)
    assert low < worse < high
    worse, low, high, _ = gates.compare(TASK, window, "roc_auc", "probability", "linear")
    assert worse == pytest.approx(roc_auc(y, b) - roc_auc(y, a))
    assert low < worse < high


def test_without_labels_nothing_is_compared_and_the_candidate_is_refused(a_spec: MakeSpec) -> None:
    holdout = a_holdout().with_columns(label=pl.lit(None, pl.Float64), live="linear")
    verdicts = judged(a_spec(gates=[no_worse("brier")]), holdout)
    assert verdicts["gate"].grade is Grade.UNKNOWN
    assert gates.refusal(tuple(verdicts.values())) != ""


def test_the_holdout_is_cut_into_days_of_the_systems_time_zone(a_spec: MakeSpec) -> None:
    window = a_window(a_spec(timezone="America/New_York"), a_holdout(days=2))
    assert [block.day.isoformat() for block in window.blocks] == ["2013-03-31", "2013-04-01", "2013-04-02"]
    assert sum(block.rows().height for block in window.blocks) == 120


# Train-serve skew


def skewed(spec: MakeSpec, trained: pl.DataFrame, served: pl.DataFrame) -> list[Verdict]:
    gate = Gate(check="drift", limit=Limit(at_most=0.2), name="skew")
    with_gate = spec(gates=[gate])
    judged = gates.judge(with_gate, TASK, a_window(with_gate, trained), served)
    return [v for v in judged if v.monitor == "skew" and v.reading.name != "missing"]


def served_rows(holdout: pl.DataFrame) -> pl.DataFrame:
    return holdout.select("key", "x", "y")


def test_rows_trained_on_as_they_were_served_are_at_no_distance(a_spec: MakeSpec) -> None:
    verdicts = skewed(a_spec, a_holdout(), served_rows(a_holdout()))
    assert {v.reading.subject: v.grade for v in verdicts} == {"x": Grade.PASS, "y": Grade.PASS}
    assert all(abs(v.reading.value or 0.0) < 1e-9 for v in verdicts)


def test_columns_that_were_swapped_on_the_way_to_training_refuse_and_are_both_named(a_spec: MakeSpec) -> None:
    swapped = a_holdout().with_columns(x="y", y="x")
    verdicts = skewed(a_spec, swapped, served_rows(a_holdout()))
    assert {v.reading.subject: v.grade for v in verdicts} == {"x": Grade.FAIL, "y": Grade.FAIL}
    said = gates.refusal(verdicts)
    assert "x psi" in said
    assert "y psi" in said


def test_only_rows_that_were_answered_are_compared(a_spec: MakeSpec) -> None:
    holdout = a_holdout()
    later = holdout.with_columns(x=pl.when(pl.int_range(pl.len()) < 240).then("x").otherwise(99.0))
    verdicts = skewed(a_spec, later, served_rows(holdout.head(240)))
    assert {v.grade for v in verdicts} == {Grade.PASS}


def test_without_answers_to_these_rows_skew_is_not_applicable(a_spec: MakeSpec) -> None:
    others = served_rows(a_holdout()).with_columns(key=pl.lit("other"))
    for served in (NOTHING, others, served_rows(a_holdout()).clear()):
        [verdict] = skewed(a_spec, a_holdout(), served)
        assert verdict.grade is Grade.NOT_APPLICABLE


def test_a_column_that_is_missing_on_both_sides_is_skipped(a_spec: MakeSpec) -> None:
    empty = a_holdout().with_columns(y=pl.lit(None, pl.Float64))
    [verdict] = skewed(a_spec, empty, served_rows(empty))
    assert (verdict.reading.subject, verdict.grade) == ("x", Grade.PASS)


def test_a_column_that_is_missing_on_one_side_refuses(a_spec: MakeSpec) -> None:
    empty = a_holdout().with_columns(y=pl.lit(None, pl.Float64))
    for trained, served in ((empty, a_holdout()), (a_holdout(), empty)):
        verdicts = skewed(a_spec, trained, served_rows(served))
        assert gates.refusal(verdicts) != ""


def test_a_column_that_is_new_in_the_file_was_never_answered_with_and_is_not_compared(a_spec: MakeSpec) -> None:
    [verdict] = skewed(a_spec, a_holdout(), served_rows(a_holdout()).drop("y"))
    assert (verdict.reading.subject, verdict.grade) == ("x", Grade.PASS)


def test_skew_is_not_judged_on_fewer_answers_than_it_needs(a_spec: MakeSpec) -> None:
    least, holdout = gates.LEAST_ANSWERED, a_holdout()
    [verdict] = skewed(a_spec, holdout, served_rows(holdout.head(least - 1)))
    assert (verdict.grade, verdict.reading.rows) == (Grade.NOT_APPLICABLE, least - 1)
    assert f"{least - 1} answers are on record" in verdict.why
    assert {v.grade for v in skewed(a_spec, holdout, served_rows(holdout.head(least)))} != {Grade.NOT_APPLICABLE}


def test_a_column_that_is_hardly_ever_there_on_either_side_is_skipped(a_spec: MakeSpec) -> None:
    rare = pl.when(pl.int_range(pl.len()) < gates.LEAST_ANSWERED - 1).then("y")
    [verdict] = skewed(a_spec, a_holdout().with_columns(y=rare), served_rows(a_holdout().with_columns(y=rare)))
    assert (verdict.reading.subject, verdict.grade) == ("x", Grade.PASS)


# Comparable with what is live


def a_signature(*names: str) -> Signature:
    columns = tuple(Column(name=name, type="number") for name in names)
    return Signature(columns=columns, task="classification", output="probability")


def test_a_candidate_with_a_column_that_live_does_not_take_is_refused_and_the_column_named() -> None:
    verdict = gates.comparable(a_signature("x", "wind", "gust"), a_signature("x", "y"))
    assert (verdict.grade, verdict.reading.value, verdict.reading.unit) == (Grade.FAIL, 2.0, "columns")
    assert verdict.why.startswith("gust, wind: what is live does not take it")
    assert gates.refusal([verdict]) == verdict.why


def test_a_candidate_with_the_columns_of_live_or_fewer_is_comparable() -> None:
    for names in (("x", "y"), ("y",)):
        verdict = gates.comparable(a_signature(*names), a_signature("x", "y"))
        assert (verdict.grade, verdict.reading.value) == (Grade.PASS, 0.0)


# Words


def test_better_and_worse_are_said_with_the_interval_in_the_same_direction(a_spec: MakeSpec) -> None:
    holdout = a_holdout(noise=0.9)
    spec = a_spec(gates=[no_worse("brier")])
    better = judged(spec, holdout.with_columns(live="linear"))["gate"]
    worse = judged(spec, holdout.with_columns(live="candidate", candidate="linear"))["gate"]
    for verdict, word, sign in ((better, "better", -1.0), (worse, "worse", 1.0)):
        found = verdict.reading
        value = sign * (found.value or 0.0)
        low, high = sorted((sign * (found.low or 0.0), sign * (found.high or 0.0)))
        assert 0 < low <= value <= high
        assert f"brier is {word} by {value:.4f} [{low:.4f}, {high:.4f}] than that of live" in verdict.why


def test_no_difference_has_no_sign_and_is_no_improvement(a_spec: MakeSpec) -> None:
    equal = a_holdout().with_columns(linear="candidate", live="candidate")
    verdicts = judged(a_spec(gates=[no_worse("brier")]), equal)
    assert "does not beat the linear model: brier is worse by 0.0000 [0.0000, 0.0000]" in verdicts["linear"].why
    assert "worse by 0.0000 [0.0000, 0.0000] than that of live" in verdicts["gate"].why


def test_a_comparison_with_a_plain_model_that_cannot_be_made_is_unknown(a_spec: MakeSpec) -> None:
    verdict = judged(a_spec(), a_holdout().with_columns(label=pl.lit(None, pl.Float64)))["linear"]
    assert (verdict.grade, verdict.why) == (Grade.UNKNOWN, "brier could not be compared with that of the linear model")


def test_a_candidate_that_differs_by_rounding_only_is_no_worse(a_spec: MakeSpec) -> None:
    wide = a_holdout()
    narrow = pl.col("candidate").cast(pl.Float32).cast(pl.Float64)
    for metric in ("log_loss", "brier", "roc_auc"):
        spec = a_spec(gates=[no_worse(metric)])
        for candidate in (narrow, pl.col("candidate") * (1 - 1e-8)):
            rounded = wide.with_columns(live="candidate", candidate=candidate)
            assert judged(spec, rounded)["gate"].grade is Grade.PASS
    spec = a_spec(gates=[no_worse("brier")])
    less = wide.with_columns(live="candidate", candidate=pl.col("candidate") * 0.99)
    assert judged(spec, less)["gate"].grade is Grade.FAIL


def test_a_feature_that_is_called_day_keeps_its_values():
    """Cutting rows into days must not write over a column, whatever it is called."""
    at = [datetime(2013, 3, 1 + i // 2, 12, tzinfo=UTC) for i in range(4)]
    frame = pl.DataFrame({"event_at": at, "day": [1.0, 2.0, 3.0, 4.0]})
    blocks = blocks_of("UTC", frame)
    assert [block.rows()["day"].to_list() for block in blocks] == [[1.0, 2.0], [3.0, 4.0]]
    assert [block.day.isoformat() for block in blocks] == ["2013-03-01", "2013-03-02"]


def better(*, cost: float = 0.0, level: float = 0.025, attempts: int = 0) -> dict[str, Any]:
    return {"task": TASK, "terms": gates.Terms(cost=cost, level=level, attempts=attempts)}


def worth(spec: SystemSpec, holdout: pl.DataFrame, facts: dict[str, Any]) -> Verdict:
    window = gates.holdout_window(spec, TASK, holdout, facts)
    [found] = [v for v in gates.judge(spec, TASK, window, NOTHING) if v.check == gates.BETTER]
    return found


def test_a_candidate_on_terms_must_beat_live_by_more_than_its_cost(a_spec: MakeSpec) -> None:
    holdout = a_holdout(days=14, noise=0.3).with_columns(live="linear")
    verdict = worth(a_spec(), holdout, better())
    low, gain = verdict.reading.low, verdict.reading.value
    assert low is not None
    assert gain is not None
    assert 0 < low < gain
    assert (verdict.grade, verdict.level) == (Grade.PASS, 0.025)
    assert worth(a_spec(), holdout, better(cost=low - 1e-9)).grade is Grade.PASS
    refused_ = worth(a_spec(), holdout, better(cost=low + 1e-9))
    assert refused_.grade is Grade.FAIL
    assert refused_.why.startswith("a new version does not cover its cost: its gain over live in brier is +0.0")
    assert "attempt 1 of these 30 days, at a level of 0.025" in refused_.why


def test_an_equal_candidate_on_terms_is_not_worth_having(a_spec: MakeSpec) -> None:
    verdict = worth(a_spec(), a_holdout().with_columns(live="candidate"), better())
    assert verdict.grade is Grade.FAIL
    assert gates.refusal([verdict]) == verdict.why


def test_the_less_level_is_left_the_more_a_candidate_must_show(a_spec: MakeSpec) -> None:
    holdout = a_holdout(days=14, noise=0.3).with_columns(live="linear")
    lows = [worth(a_spec(), holdout, better(level=level)).reading.low for level in (0.05, 0.025, 0.005, 0.0005)]
    assert lows == sorted(lows, reverse=True)  # type: ignore[type-var]
    assert len(set(lows)) == 4
    none_left = worth(a_spec(), holdout, better(level=0.0, attempts=8))
    assert none_left.grade is Grade.FAIL
    assert none_left.why == "8 candidates of these 30 days were tried for being better; wait, or retrain less often"


def test_days_that_live_was_fitted_on_do_not_count(a_spec: MakeSpec) -> None:
    holdout = a_holdout(days=14, noise=0.3)
    fitted = pl.col("event_at") < START + timedelta(days=4)
    fooled = holdout.with_columns(live=pl.when(fitted).then("label").otherwise("linear"))
    facts = better()
    facts["terms"] = replace(facts["terms"], unseen_from=START + timedelta(days=4))
    counted = worth(a_spec(), fooled, facts)
    assert (counted.grade, counted.reading.rows) == (Grade.PASS, 600)
    assert "of 10 days" in counted.why
    assert worth(a_spec(), fooled, better()).grade is Grade.FAIL
    facts["terms"] = replace(facts["terms"], unseen_from=START + timedelta(days=14))
    assert worth(a_spec(), fooled, facts).grade is Grade.UNKNOWN


def test_one_day_does_not_say_what_is_better(a_spec: MakeSpec) -> None:
    holdout = a_holdout(days=1, noise=0.5).with_columns(live="linear")
    assert worth(a_spec(), holdout, better()).grade is Grade.UNKNOWN


def test_a_candidate_without_terms_is_judged_as_ever(a_spec: MakeSpec) -> None:
    holdout = a_holdout().with_columns(live="candidate")
    window = gates.holdout_window(a_spec(), TASK, holdout, {"task": TASK, "terms": None})
    assert not [v for v in gates.judge(a_spec(), TASK, window, NOTHING) if v.check == gates.BETTER]


@pytest.mark.slow
def test_candidates_no_better_than_live_pass_no_more_often_than_the_level(a_spec: MakeSpec) -> None:
    """Days differ by more than their rows do; each resample of days is another hold-out of two equal models."""
    spec, level, passed, tries = a_spec(), 0.05, 0, 300
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        shift = np.repeat(rng.normal(0, 0.05, 14), 30)
        holdout = a_holdout(days=14, rows=30, seed=seed, noise=0.0)
        moved = (holdout["candidate"].to_numpy() + side * shift for side in (1, -1))
        candidate, live = (np.clip(p, 0.01, 0.99) for p in moved)
        passed += (
            worth(spec, holdout.with_columns(candidate=candidate, live=live), better(level=level)).grade is Grade.PASS
        )
    assert passed / tries <= level + 2 * (level * (1 - level) / tries) ** 0.5


@pytest.fixture
def a_release(tx: Transaction, a_run: Callable[..., Run]) -> Callable[..., Release]:
    """`a_release("rel-1", day=3, level=0.02)`: a release of a run whose training was asked for on terms."""

    def make(id: str, *, day: float = 0, level: float | None = None, against: str = "1", **payload: Any) -> Release:
        tx.put(Job(system="orders", id=f"job of {id}", kind="train", at=START, payload=payload))
        tx.put(a_run(f"run of {id}", job=f"job of {id}"))
        reading = Reading(name="brier_gain", value=0.0)
        verdict = Verdict(grade=Grade.FAIL, check=gates.BETTER, reading=reading, why="no", level=level)
        at = START + timedelta(days=day)
        evidence = () if level is None else (verdict,)
        release = Release(system="orders", id=id, run=f"run of {id}", against=against, at=at, evidence=evidence)
        tx.put(release)
        return release

    return make


ON_TERMS = {"if": "better", "cost": 0.003}


def test_terms_are_those_that_the_training_was_asked_for_on(tx, a_spec: MakeSpec, a_release) -> None:
    assert gates.terms(tx, a_spec(), a_release("rel-1")) is None
    assert gates.terms(tx, a_spec(), a_release("rel-2", against="", **ON_TERMS)) is None  # nothing to compare with
    assert gates.terms(tx, a_spec(), a_release("rel-3", **ON_TERMS)) == gates.Terms(
        cost=0.003, level=pytest.approx(0.025)
    )


def test_the_days_that_count_are_those_after_what_live_was_fitted_on(tx, a_spec: MakeSpec, a_release, a_run) -> None:
    tx.put(a_run("run-of-live", trained_until=START))
    live = {"artifact": "a", "bundle": "b", "signature_hash": "s", "signed_by": "k"}
    tx.put(Version(system="orders", id="1", run="run-of-live", at=START, **live))
    assert gates.terms(tx, a_spec(), a_release("rel-1", **ON_TERMS)).unseen_from == START


def test_a_release_of_a_run_without_a_job_has_no_terms(tx, a_spec: MakeSpec, a_run: Callable[..., Run]) -> None:
    tx.put(a_run("run-1"))
    assert gates.terms(tx, a_spec(), Release(system="orders", id="rel-1", run="run-1", against="1", at=START)) is None


@given(gaps=st.lists(st.floats(0.1, 60), min_size=1, max_size=40))
@settings(max_examples=30)
def test_attempts_of_any_30_days_together_spend_no_more_than_the_level(gaps: list[float]) -> None:
    spent: list[tuple[float, float]] = []
    day = 0.0
    with MemoryCatalog().begin() as tx:
        for number, gap in enumerate(gaps):
            day += gap
            facts = {"snapshot": "s", "trainer": "linear", "seed": 7, "started_at": START}
            tx.put(Job(system="orders", id=f"job-{number}", kind="train", at=START, payload=ON_TERMS))
            tx.put(Run(system="orders", id=f"run-{number}", job=f"job-{number}", **facts))
            at = START + timedelta(days=day)
            release = Release(system="orders", id=f"rel-{number}", run=f"run-{number}", against="1", at=at)
            tx.put(release)
            asked = gates.terms(tx, SPEC, release)
            assert asked is not None
            assert asked.attempts == sum(1 for when, _ in spent if when > day - 30 + 1e-6)
            reading = Reading(name="gain", value=0.0)
            verdict = Verdict(grade=Grade.FAIL, check=gates.BETTER, reading=reading, why="", level=asked.level)
            tx.put(replace(release, evidence=(verdict,)))
            spent.append((day, asked.level))
    for begin, _ in spent:
        assert sum(level for when, level in spent if begin <= when < begin + 29.99) <= 0.05
