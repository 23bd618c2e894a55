"""A whole small system in memory on a clock by hand: trained, released, watched, put right."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.clock import ManualClock
from holdfast.core.evidence import Grade, Limit
from holdfast.core.protocols import LABELS, READINGS
from holdfast.core.records import Incident, Job, Release, Run, Snapshot, Version
from holdfast.core.signature import Column
from holdfast.core.spec import (
    Gate,
    Monitor,
    Response,
)
from holdfast.flow.training import TrainingRequest
from holdfast.security import audit
from holdfast.serve.recording import Recorder
from holdfast.state import memory_state
from holdfast.system import System
from holdfast.testing import START
from holdfast.world import FixedFeeds, World, microseconds

from .lives import BEGIN, DAY, LIVE, QUALITY, ROWS, Life, a_spec, a_world, assembled

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trains_here")]

DRIFT = Monitor(check="drift", name="drift", limit=Limit(at_most=3.0))


def orders(days: int, *, shifted_from: int | None = None, seed: int = 7, prefix: str = "o") -> pl.DataFrame:
    """Assembled rows whose label depends on x and, the other way, on y; from a day on x lies elsewhere."""
    rng = np.random.default_rng(seed)
    n = days * ROWS
    day = np.arange(n) // ROWS
    x, y = rng.normal(size=n), rng.normal(size=n) * 3
    late = rng.random(n) < 1 / (1 + np.exp(-2 * x + y))
    if shifted_from is not None:
        x = np.where(day >= shifted_from, x + 6, x)
    return assembled(x, y, late, prefix)


class Swapped:
    """Swaps the two columns in the data of trainings that were asked for with a cause."""

    def __init__(self, cause: str) -> None:
        self.cause = cause

    def __call__(self, request: TrainingRequest, cause: str) -> TrainingRequest:
        if cause != self.cause:
            return request
        path = Path(request.snapshot).with_name("swapped.parquet")
        pl.read_parquet(request.snapshot).with_columns(x="y", y="x").write_parquet(path)
        return replace(request, snapshot=path)


def is_closed(life: Life) -> bool:
    return life.newest.state not in ("candidate", "gated", "shadow", "canary")


@pytest.fixture
def live_system(tmp_path: Path) -> Callable[..., Life]:
    """`live_system(rows, **changes of the file)`: a system after its first release."""

    def make(rows: pl.DataFrame | None = None, *, prepare: Any = None, feeds: Any = None, **changes: Any) -> Life:
        world = a_world(orders(60) if rows is None else rows)
        clock = ManualClock(START + BEGIN * DAY)
        life = Life(memory_state(tmp_path), a_spec(**changes), world, clock, prepare=prepare, feeds=feeds)
        life.tick()
        return life

    return make


def test_a_new_system_trains_judges_signs_and_goes_live(live_system) -> None:
    life = live_system()
    [snapshot], [run], [release], [version] = (life.all(kind) for kind in (Snapshot, Run, Release, Version))
    assert (run.state, run.snapshot, run.job) == ("succeeded", snapshot.id, "job-1")
    assert (release.state, release.run, release.version, release.against) == ("live", run.id, "1", "")
    assert (version.state, life.live, len(version.signed_by)) == ("live", "1", 16)
    assert {verdict.grade for verdict in release.evidence} == {Grade.PASS}
    assert all(verdict.at == life.clock.now() for verdict in release.evidence)
    assert snapshot.labelled < snapshot.rows
    assert life.tick() == []
    with life.state.catalog.read() as tx:
        audit.verify(tx.audit_log())


def test_a_candidate_that_fails_a_gate_is_rejected_and_nothing_goes_live(live_system) -> None:
    life = live_system(gates=(replace(QUALITY, limit=Limit(at_least=0.999)),))
    assert (life.newest.state, life.live, life.all(Version)) == ("rejected", "", [])
    assert "below the least allowed 0.999" in life.newest.why
    assert life.days(3) == []


def test_a_training_that_fails_is_a_failed_job_with_a_message(live_system) -> None:
    life = live_system(orders(60).with_columns(label=pl.lit(None, pl.Float64)))
    [job], [run] = life.all(Job), life.all(Run)
    assert (job.state, run.state) == ("failed", "failed")
    assert "too few labelled rows" in job.message
    assert run.message == job.message
    assert life.live == ""


def test_drift_opens_an_incident_that_retrains_and_the_new_version_is_released(live_system) -> None:
    life = live_system(
        orders(60, shifted_from=BEGIN + 3),
        monitors=(DRIFT,),
        responses=(Response(on="drift", do="retrain", cooldown=8 * DAY), Response(on="any", do="notify")),
    )
    assert life.days(3) == []
    done = life.days(1)
    [incident] = life.all(Incident)
    assert (incident.cause, incident.subject, incident.opened_at) == ("drift:orders", "x", life.clock.now())
    [said] = life.said
    assert said.startswith(f"drift x: {incident.last.why}; 100.0% lie outside what the reference had. ")
    assert ". Since 2013-04-20; x costs an estimated " in said
    assert [move.why for move in incident.actions] == ["training submitted as job-2", "people were told"]
    assert "inc-1 opened: drift:orders" in done[0]
    life.until(lambda each: each.live != "1", 40)
    assert life.all(Version)[0].state == "retired"
    causes = {release.id: release.cause for release in life.all(Release)}
    assert causes["rel-2"] == "drift:orders"
    life.days(8)
    [incident] = life.all(Incident)
    assert (incident.state, incident.actions[-1].why) == ("closed", "the check passes again")


def test_a_bad_candidate_is_stopped_by_evidence_alone(live_system) -> None:
    life = live_system(prepare=Swapped("bad data"))
    life.days(2)
    life.system.submit_training("bad data")
    life.tick()
    assert (life.newest.state, life.newest.cause) == ("shadow", "bad data")
    assert {verdict.grade for verdict in life.newest.evidence} == {Grade.PASS}
    began = life.newest.at
    took = life.until(is_closed, 20)
    assert (life.newest.state, life.live) == ("rolled_back", "1")
    assert "worse than version 1" in life.newest.why
    comparison = life.newest.comparison
    # Only whole mature days that began after the release did are evidence.
    assert comparison.blocks == (comparison.through - began).days <= took - 1
    assert comparison.rows + comparison.unlabelled == comparison.blocks * ROWS


def test_a_bad_candidate_is_stopped_by_the_skew_gate_which_names_its_columns(live_system) -> None:
    gates = (QUALITY, Gate(check="drift", limit=Limit(at_most=0.2), name="skew"))
    life = live_system(prepare=Swapped("bad data"), gates=gates)
    assert [v.grade for v in life.newest.evidence if v.monitor == "skew"] == [Grade.NOT_APPLICABLE]
    life.days(5)
    life.system.submit_training("good data")
    life.tick()
    assert life.newest.state == "shadow"
    assert [v.grade for v in life.newest.evidence if v.monitor == "skew"] == [Grade.PASS] * 4
    life.system.roll_back("enough", by="me")
    life.system.submit_training("bad data")
    life.tick()
    assert (life.newest.state, life.live) == ("rejected", "1")
    assert sorted(v.reading.subject for v in life.newest.evidence if v.grade is Grade.FAIL) == ["x", "y"]


def test_an_equal_candidate_is_released_after_shadow_and_canary_within_two_weeks(live_system) -> None:
    life = live_system()
    life.days(2)
    life.system.submit_training("a person", by="me")
    life.tick()
    assert life.until(is_closed, 14) >= 2
    assert (life.newest.state, life.live) == ("live", "2")
    assert [move.to for move in life.newest.history] == ["candidate", "gated", "shadow", "canary", "live"]
    assert life.newest.comparison.blocks >= 1
    assert life.newest.comparison.mean == pytest.approx(0, abs=0.01)


def test_while_a_release_is_under_way_another_run_is_kept_but_not_released(live_system) -> None:
    life = live_system()
    life.days(1)
    for _ in range(2):
        life.system.submit_training("again")
        life.tick()
    assert [release.id for release in life.all(Release)] == ["rel-1", "rel-2"]
    assert life.done[-1] == "run-3 is kept, but not released: rel-2 is still in shadow"


def test_a_person_takes_back_the_open_release_then_the_live_version(live_system) -> None:
    life = live_system(release=replace(a_spec().release, steps=(LIVE,)))
    life.days(1)
    life.system.submit_training("again")
    life.tick()
    assert life.live == "2"
    assert life.system.roll_back("complaints", by="me") == "1"
    life.days(2)
    assert (life.live, [version.state for version in life.all(Version)]) == ("1", ["live", "rolled_back"])


class Growing:
    """Feeds whose label file comes in two parts: the second late, with times long past."""

    def __init__(self, rows: pl.DataFrame, late_keys: Sequence[str], comes: datetime) -> None:
        missing = [pl.when(~pl.col("key").is_in(late_keys)).then(pl.col(name)).alias(name) for name in LATE]
        self._before, self._after, self._comes = a_world(rows.with_columns(missing)), a_world(rows), comes

    def world(self, now: datetime) -> World:
        return self._before if now < self._comes else self._after


LATE = ("label", "label_known_at")


def test_labels_that_come_late_in_a_later_file_are_taken_up_once(live_system) -> None:
    rows = orders(60)
    late = rows["key"].to_list()[5 * ROWS : 5 * ROWS + 10]
    life = live_system(rows, feeds=Growing(rows, late, START + (BEGIN + 3) * DAY))

    def recorded() -> list[str]:
        keys: list[str] = life.state.lake.scan(LABELS.name, "orders")["key"].to_list()
        return keys

    life.days(2)
    assert not set(late) & set(recorded())
    life.days(1)
    assert set(late) <= set(recorded())
    for _ in range(2):
        life.days(1)
        known = life.world.labels_between(START - DAY, life.clock.now())["key"].to_list()
        assert sorted(recorded()) == sorted(known)


def test_a_missed_schedule_is_caught_up_once(live_system) -> None:
    life = live_system(responses=(Response(every=7 * DAY, do="retrain"),))
    life.days(6)
    assert len(life.all(Job)) == 1
    life.clock.advance(10 * DAY)
    life.tick()
    assert [job.payload.get("cause") for job in life.all(Job)] == ["first training", "schedule"]


def test_what_another_keeper_took_over_is_not_kept(live_system) -> None:
    life = live_system()
    life.days(1)
    workshop = life.system.workshop
    workshop._waits = False
    job = life.system.submit_training("again")
    assert "started" in life.system.push_on()[0]
    with life.state.catalog.begin() as tx:
        held = tx.get(Job, "orders", job.id)
        assert held is not None
        tx.put(replace(held, owner="another", attempts=2))
    assert life.system.push_on() == [f"{job.id} was taken over by another keeper; its process here was stopped"]
    [theirs] = [each for each in life.all(Job) if each.id == job.id]
    assert (theirs.state, theirs.owner, theirs.result) == ("running", "another", {})
    assert [release.id for release in life.all(Release)] == ["rel-1"]
    assert life.all(Run)[-1].state == "failed"


def test_a_job_that_is_given_up_leaves_no_run_behind(live_system) -> None:
    life = live_system()
    life.system.workshop._waits = False
    job = life.system.submit_training("again")
    for _ in range(4):
        system = System(life.spec, life.state, life.clock, FixedFeeds(life.world))
        system.push_on()
        life.clock.advance(timedelta(minutes=3))
    [given_up] = [each for each in life.all(Job) if each.id == job.id]
    assert (given_up.state, [run.state for run in life.all(Run)[1:]]) == ("failed", ["failed"] * 3)


def test_two_systems_in_one_state_do_not_touch_each_other(tmp_path: Path) -> None:
    state, clock = memory_state(tmp_path), ManualClock(START + BEGIN * DAY)
    one = Life(state, a_spec("one"), a_world(orders(40, seed=1, prefix="a")), clock)
    two = Life(state, a_spec("two"), a_world(orders(40, seed=2, prefix="b")), clock)
    assert one.tick() != []
    assert (one.live, two.live, two.all(Job)) == ("1", "", [])
    two.tick()
    one.days(2)
    before = two.all(Version), two.all(Release)
    one.system.submit_training("again")
    one.tick()
    one.system.roll_back("no", by="me")
    assert (two.all(Version), two.all(Release)) == before
    keys = [set(state.lake.scan(LABELS.name, name)["key"]) for name in ("one", "two")]
    assert {key[0] for key in keys[0]} == {"a"}
    assert {key[0] for key in keys[1]} == {"b"}
    with state.catalog.read() as tx:
        assert set(state.routes(tx).systems) == {"one", "two"}
        audit.verify(tx.audit_log())


def test_what_monitors_measured_is_on_record(live_system) -> None:
    life = live_system(monitors=(DRIFT,))
    life.days(3)
    found = life.state.lake.scan(READINGS.name, "orders")
    assert set(found["subject"]) >= {"x", "y"}
    assert set(found.select("monitor", "check", "version").unique().rows()) == {("drift", "drift", "1")}
    assert found["reading_id"].n_unique() == found.height
    assert found["at"].n_unique() >= 2


def test_a_label_that_was_delivered_is_in_the_next_snapshot(live_system) -> None:
    rows = orders(60)
    silent = rows.with_columns([pl.lit(None, rows[name].dtype).alias(name) for name in LATE])
    life = live_system(pl.concat([rows.head(BEGIN * ROWS), silent.slice(BEGIN * ROWS)]))
    life.days(2)
    known = microseconds(pl.Series([life.clock.now()]))
    Recorder(life.state.lake.writer).record_labels(
        "orders",
        output="probability",
        keys=[f"o{BEGIN * ROWS + 1}"],
        values=np.ones(1),
        known_at=known - 1,
        ingested_at=known,
    )
    before = life.all(Snapshot)[0].labelled
    life.system.submit_training("again")
    life.tick()
    assert life.all(Snapshot)[-1].labelled - before == 1 + _came_since(rows)


def _came_since(rows: pl.DataFrame) -> int:
    """Labels of the history that were not yet known when the system began."""
    begin = START + BEGIN * DAY
    return rows.head(BEGIN * ROWS).filter(pl.col("label_known_at") > begin).height


def test_a_candidate_with_a_column_that_live_does_not_take_is_rejected(live_system) -> None:
    life = live_system()
    life.days(1)
    spec = a_spec()
    wider = {**spec.data.columns, "z": Column(name="z", type="number")}
    world = a_world(life.world.assembled.with_columns(z=pl.col("x") + 1))
    grown = replace(spec, data=replace(spec.data, columns=wider))
    changed = Life(life.state, grown, world, life.clock)
    changed.system.submit_training("a new column")
    changed.tick()
    assert (changed.newest.state, changed.live) == ("rejected", "1")
    assert "z: what is live does not take it" in changed.newest.why
