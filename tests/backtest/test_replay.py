"""A replay is the real loop on a replayed clock: policies differ in responses only, nothing is known too early."""

from datetime import timedelta

import msgspec
import polars as pl
import pytest

from holdfast.backtest import replay as module
from holdfast.backtest.faults import Fault
from holdfast.backtest.replay import POLICIES, with_policy
from holdfast.core.protocols import PREDICTIONS
from holdfast.errors import HoldfastError, NotFound
from holdfast.testing import refused

pytestmark = pytest.mark.slow
DAY = timedelta(days=1)


@pytest.fixture
def answers(monkeypatch, parcels):
    """`answers(world, **how)`: the outcome, and every recorded answer."""

    def played(world=None, **how):
        kept = []
        score = module.score_replay

        def keeping(system, *args, **kwargs):
            kept.append(system.state.lake.scan(PREDICTIONS.name, system.spec.system))
            return score(system, *args, **kwargs)

        monkeypatch.setattr(module, "score_replay", keeping)
        return parcels.play(world, **how), kept[0]

    return played


def comparable(answers: pl.DataFrame) -> pl.DataFrame:
    return answers.drop("queue_us", "run_us")


def test_a_policy_changes_only_what_is_done_about_findings(parcels):
    spec = parcels.spec()
    for policy in POLICIES:
        changed = with_policy(spec, policy)
        assert msgspec.structs.replace(changed, responses=spec.responses) == spec
    retrains = {p: [r for r in with_policy(spec, p).responses if r.do == "retrain"] for p in POLICIES}
    assert retrains["never"] == []
    assert [r.every for r in retrains["monthly"]] == [30 * DAY]
    assert retrains["evidence"] == list(spec.responses)


def test_an_unknown_policy_is_named_with_its_near_miss(parcels):
    with refused(NotFound, "no policy 'montly'", "monthly"):
        with_policy(parcels.spec(), "montly")


def test_never_never_trains_again(never):
    assert never.retrains == 0
    assert len(never.releases) == 1


def test_monthly_retrains_every_thirty_days(parcels):
    end = parcels.first + 58 * DAY
    outcome = parcels.play(parcels.world(parcels.feeds(days=100)), policy="monthly", end=parcels.start + 65 * DAY)
    assert outcome.retrains == 2
    began = [release.began - parcels.start for release in outcome.releases]
    assert began[0] == 0 * DAY
    assert began[1:] == [30 * DAY, 60 * DAY]
    assert parcels.play(policy="monthly", end=end).retrains == 0


def test_every_listed_row_is_answered_once(parcels, never):
    listed = parcels.feeds()["parcels"]["listed_at"]
    assert never.predictions == ((listed > parcels.start) & (listed <= parcels.end)).sum()
    assert never.labelled == never.predictions


def test_the_same_inputs_give_the_same_outcome(parcels, never):
    assert parcels.without_times(parcels.play()) == parcels.without_times(never)


def test_what_comes_after_the_end_changes_nothing(parcels, never):
    """All that is after the end is garbage in one world and missing in the other; the truth of the last rows aside."""
    horizon = parcels.end + DAY
    cut, garbled = {}, {}
    for name, rows in parcels.feeds().items():
        known = parcels.spec().data.feeds[name].known_at
        cut[name] = rows.filter(pl.col(known) <= horizon)
        garbled[name] = rows.with_columns(
            pl.when(pl.col(known) > horizon).then(-1000 * pl.col(c)).otherwise(c).cast(rows.schema[c]).alias(c)
            for c in ("load", "distance", "temp")
            if c in rows.columns
        )
    for feeds in (cut, garbled):
        outcome = parcels.play(parcels.world(feeds))
        assert parcels.without_times(outcome) == parcels.without_times(never)


def test_a_shorter_run_is_the_beginning_of_a_longer_one(answers, parcels):
    _, whole = answers()
    _, part = answers(end=parcels.end - 8 * DAY)
    assert 0 < part.height < whole.height
    beginning = whole.filter(pl.col("predicted_at") <= parcels.end - 8 * DAY)
    assert comparable(part).equals(comparable(beginning))


def test_an_answer_is_dated_when_its_row_was_listed(answers, parcels):
    _, answered = answers(end=parcels.start + 3 * DAY)
    listed = parcels.feeds()["parcels"].select("id", "listed_at")
    joined = answered.join(listed, left_on="key", right_on="id")
    assert (joined["predicted_at"] == joined["listed_at"]).all()
    assert (joined["features_known_at"] == joined["listed_at"]).all()


def test_an_answer_uses_the_weather_that_was_told_by_then(answers, parcels):
    _, answered = answers(end=parcels.start + 3 * DAY)
    weather = parcels.feeds()["weather"]
    for row in answered.sample(12, seed=1).iter_rows(named=True):
        told = weather.filter(pl.col("depot") == row["in.depot"], pl.col("told_at") <= row["predicted_at"])
        assert row["in.weather_temp"] == told.sort("told_at")["temp"][-1]


def test_a_first_training_that_fails_ends_the_run_with_why(parcels):
    with refused(HoldfastError, "no live version", "too few labelled rows"):
        parcels.play(parcels.world(parcels.feeds(rows_a_day=2)))


def test_a_first_candidate_that_is_refused_ends_the_run_with_why(parcels):
    spec = parcels.spec(gate="{check: quality, metric: roc_auc, at_least: 0.999}")
    with refused(HoldfastError, "no live version", "roc_auc"):
        parcels.play(spec=spec)


def test_rows_that_do_not_fit_the_signature_are_counted_and_the_rest_is_answered(parcels, never):
    spec = parcels.spec()
    strict = msgspec.structs.replace(spec.data.columns["load"], nullable=False)
    data = msgspec.structs.replace(spec.data, columns={**spec.data.columns, "load": strict})
    feeds = parcels.feeds()
    bad = pl.col("id").is_in(["p1500", "p1501", "p1600"])
    feeds["parcels"] = feeds["parcels"].with_columns(pl.when(~bad).then("load").alias("load"))
    outcome = parcels.play(parcels.world(feeds), msgspec.structs.replace(spec, data=data))
    assert outcome.refused == 3
    assert outcome.predictions == never.predictions - 3


def test_a_bad_release_is_forced_once_and_only_its_training_is_broken(parcels):
    fault = Fault(
        name="swap",
        fault="swapped_columns",
        columns=("load", "distance"),
        start=parcels.start + 3 * DAY,
        end=parcels.end,
    )
    outcome = parcels.play(faults=[fault])
    forced = [release for release in outcome.releases if release.cause == "fault: swap"]
    assert len(forced) == 1
    assert forced[0].state in ("rejected", "rolled_back")
    (found,) = outcome.detections
    assert found.injected_at == forced[0].began
    assert found.detected_at is not None
    assert found.check in ("gate", "release in shadow")


def test_progress_is_told_day_by_day(parcels, seen):
    parcels.play(end=parcels.start + 2 * DAY, progress=seen)
    times = [at for at, _ in seen.kept]
    assert times == sorted(times)
    assert {parcels.start, parcels.start + DAY, parcels.start + 2 * DAY} <= set(times)
    assert any("live" in what for _, what in seen.kept)


def test_two_adjoining_stretches_play_every_row_once(parcels, answers):
    middle = parcels.start + 10 * DAY
    stretches = (parcels.start, middle), (middle, parcels.end)
    kept = [answers(start=start, end=end)[1]["key"].to_list() for start, end in stretches]
    rows = parcels.world().rows_between(parcels.start, parcels.end)["key"].to_list()
    assert sorted(kept[0] + kept[1]) == sorted(rows)
    assert len(rows) == len(set(rows)) > 0
