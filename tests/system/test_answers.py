"""A system whose model is served elsewhere, on a clock by hand: told by log and over HTTP, watched as any other."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.changes import roll_back
from holdfast.cli.predict import scorer_of
from holdfast.cli.profile import chosen
from holdfast.core.clock import ManualClock
from holdfast.core.inputs import read_json
from holdfast.core.records import Incident, Mark, SystemFile
from holdfast.core.spec import Model, SystemSpec
from holdfast.core.specelsewhere import stated_signature
from holdfast.core.specfile import parse_spec
from holdfast.errors import StateError
from holdfast.flow import lineage
from holdfast.flow.elsewhere import UNNAMED
from holdfast.flow.predictions import LivePredictions
from holdfast.lookups import only_watched
from holdfast.serve.recording import Arrival, Recorder
from holdfast.state import State, memory_state
from holdfast.system import System
from holdfast.testing import a_verdict
from holdfast.views import SystemView, Views
from holdfast.web.page import status_page
from holdfast.world import LakeFeeds

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ROWS = 60
WELL = ("pass", "warn")
"""A stream of losses warns long before it alarms."""
FILE = """\
system: loans
data:
  feeds:
    answers: {from: log/*.parquet, event_at: at, key: id, fresh: 3d}
    repaid: {from: repaid.parquet, known_at: repaid_at}
  rows: answers
  key: loan
  label: {feed: repaid, column: repaid, known_at: repaid_at, mature_after: 1d}
  columns: {amount: number, kind: category, term: integer}
predictions: {task: classification, score: proba, version: model, reference: {first: 50d}}
monitors:
  - {check: drift, every: 1d, window: 1d}
  - {check: quality, metric: brier}
  - {check: calibration, window: 1d}
  - {check: silence}
  - {check: freshness}
false_alarms: 3 per month
responses:
  - {on: any, do: notify}
"""


def loans(days: int, *, seed: int = 3, model: str = "m1", first: int = 0) -> pl.DataFrame:
    """The log of some days: a calibrated model of three inputs, and whether each loan was repaid, two hours later."""
    rng = np.random.default_rng(seed)
    n = days * ROWS
    amount, kind, term = rng.normal(20_000, 5_000, n), rng.choice(["car", "boat"], n), rng.integers(12, 60, n)
    proba = 1 / (1 + np.exp(-(amount - 20_000) / 4_000 + (kind == "boat")))
    at = [START + first * DAY + timedelta(days=i // ROWS, minutes=20 * (i % ROWS)) for i in range(n)]
    frame = pl.DataFrame(
        {
            "id": [f"{model}-{i}" for i in range(n)], "loan": [f"loan {model} {i}" for i in range(n)], "at": at,
            "amount": amount, "kind": kind, "term": term, "model": [model] * n, "proba": proba,
            "repaid": (rng.random(n) < proba).astype(float), "repaid_at": [each + timedelta(hours=2) for each in at],
        }
    )  # fmt: skip
    return frame.with_columns(pl.col("at", "repaid_at").cast(pl.Datetime("us", "UTC")))


class Team:
    """A team with a server of its own: it writes a log and finds out later what was repaid."""

    def __init__(self, root: Path, file: str = FILE) -> None:
        self.root = root
        self.clock = ManualClock(START)
        self.spec: SystemSpec = parse_spec(file)
        self.state: State = memory_state(root / "state")
        self.told: list[str] = []
        self.begin()
        self.system.put_in_force(text=file)

    def begin(self) -> None:
        """A keeper that begins anew on the same state."""
        feeds = LakeFeeds(self.spec, self.root, self.state.lake, self.state.catalog, every=timedelta(0))
        self.system = System(self.spec, self.state, self.clock, feeds, tell=self.told.append)

    def log(self, rows: pl.DataFrame, name: str = "all") -> None:
        (self.root / "log").mkdir(exist_ok=True)
        rows.drop("repaid", "repaid_at").write_parquet(self.root / "log" / f"{name}.parquet")

    def repaid(self, rows: pl.DataFrame) -> None:
        rows.select("loan", "repaid", "repaid_at").write_parquet(self.root / "repaid.parquet")

    def post(self, rows: pl.DataFrame, part: Any = "whole", version: str = "m1") -> None:
        """Hand rows in as a worker does."""
        signature = stated_signature(self.spec, "probability")
        arrived = int(self.clock.now().timestamp() * 1_000_000)
        inputs = rows.select("amount", "kind", "term").to_dicts()
        Recorder(self.state.lake.writer).record_arrival(
            "loans",
            signature,
            Arrival(
                part=part, request_id=rows["id"].to_list(), row=np.zeros(rows.height, dtype=np.int64),
                key=rows["loan"].to_list(), predicted_at=rows["at"].dt.timestamp("us").to_numpy(),
                version=[version if part != "request" else ""] * rows.height, arrived_at=arrived,
                inputs=None if part == "response" else read_json(signature, inputs),
                outputs=None if part == "request" else rows["proba"].to_numpy(),
            ),
        )  # fmt: skip

    def until(self, day: int, every: timedelta = DAY) -> None:
        """Tick until noon of a day, from START."""
        end = START + day * DAY + DAY / 2
        while self.clock.now() < end:
            self.clock.move_to(min(end, self.clock.now() + every))
            self.system.tick()

    def at_noon(self, day: int) -> list[str]:
        """One look at noon of a day: what was told long ago is no longer coming in."""
        self.clock.move_to(START + day * DAY + DAY / 2)
        self.system.tick()
        self.clock.move_to(self.clock.now() + timedelta(minutes=1))
        return self.system.tick()

    def recorded(self) -> pl.DataFrame:
        return self.state.lake.scan("predictions", "loans")

    def incidents(self) -> list[Incident]:
        with self.state.catalog.read() as tx:
            return tx.find(Incident, "loans")

    def verdict(self, monitor: str) -> dict[str, Any]:
        with self.state.catalog.read() as tx:
            mark = tx.get(Mark, "loans", f"verdict/{monitor}")
        return mark.memory if mark else {}

    def view(self) -> SystemView:
        return Views(self.state, self.clock).status().systems[0]


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def before(rows: pl.DataFrame, day: int) -> pl.DataFrame:
    return rows.filter(pl.col("at") < START + day * DAY)


def broken(rows: pl.DataFrame, days: Sequence[int]) -> pl.DataFrame:
    """On these days amounts are in thousands."""
    day = (pl.col("at") - START).dt.total_days()
    return rows.with_columns(
        pl.when(day.is_in(list(days))).then(pl.col("amount") / 1000).otherwise("amount").alias("amount")
    )


def test_a_fault_in_the_log_opens_a_calibrated_incident(team: Team) -> None:
    rows = loans(61)
    team.log(broken(rows, [59]))
    team.repaid(rows)
    team.at_noon(60)
    drift = next(each for each in team.incidents() if each.check == "drift")
    assert drift.calibrated
    assert drift.first.reading.subject == "amount"
    assert any("amount" in text for text in team.told)
    assert team.verdict("quality.brier")["grade"] in WELL
    assert {row["version"] for row in team.recorded().to_dicts()} == {"m1"}
    assert set(team.recorded()["stage"]) == {"elsewhere"}


def test_without_a_fault_there_is_no_incident(team: Team) -> None:
    rows = loans(61)
    team.log(rows)
    team.repaid(rows)
    team.at_noon(60)
    assert team.incidents() == []
    for monitor in ("drift", "quality.brier", "calibration", "freshness"):
        assert team.verdict(monitor)["grade"] in WELL, monitor
    assert 0 < team.verdict("drift")["spent"] < 1, "the level that the look spent is remembered"
    view = team.view()
    assert (view.live, view.elsewhere, view.reference) == ("m1", True, "")
    assert view.promised is not None
    losses = [day.loss for day in view.days if day.loss is not None]
    assert losses
    assert max(losses) < view.promised + 0.1


def test_an_incident_of_a_monitor_that_left_the_file_is_closed(team: Team) -> None:
    first = replace(a_verdict(), monitor="by its old name")
    with team.state.catalog.begin() as tx:
        tx.put(
            Incident(
                system="loans",
                id="inc-1",
                cause="drift",
                check="drift",
                opened_at=START,
                last_at=START,
                first=first,
                last=first,
            )
        )
    assert team.system.tick() == ["inc-1 closed: by its old name, which found it, is no longer in the file"]
    assert [incident.state for incident in team.incidents()] == ["closed"]


def test_a_model_that_becomes_wrong_is_found_by_its_late_labels(team: Team) -> None:
    rows = loans(80)
    wrong = pl.when(pl.col("at") >= START + 60 * DAY).then(1 - pl.col("repaid")).otherwise("repaid")
    team.log(rows)
    team.repaid(rows.with_columns(wrong.alias("repaid")))
    team.at_noon(59)
    assert team.incidents() == []
    team.until(75)
    causes = {each.check for each in team.incidents()}
    assert "quality" in causes
    assert "drift" not in causes, "the inputs are as they were"


def test_before_the_reference_is_there_nothing_is_said_and_after_it_the_same_day_is_looked_at(team: Team) -> None:
    rows = loans(61, seed=4)
    team.log(rows)
    team.repaid(rows)
    team.at_noon(30)
    assert team.verdict("drift")["grade"] == "unknown"
    assert "history of version m1 is too short: 30 of 50 days" in team.verdict("drift")["why"]
    assert "too short" in team.view().reference
    assert team.verdict("freshness")["grade"] == "pass", "what needs no reference is measured"
    team.at_noon(50)
    assert team.verdict("drift")["grade"] == "pass"


def test_a_new_version_begins_a_reference_of_its_own(team: Team) -> None:
    old, new = loans(56), loans(60, model="m2", first=56, seed=8)
    rows = pl.concat([old, new])
    team.log(rows)
    team.repaid(rows)
    team.at_noon(56)
    assert team.verdict("drift")["grade"] == "pass"
    team.at_noon(58)
    assert "history of version m2 is too short: 2 of 50 days" in team.verdict("drift")["why"]
    assert team.view().live == "m2"
    team.until(107)
    assert team.verdict("drift")["grade"] == "pass"
    assert team.incidents() == []


def test_a_stretch_of_days_is_the_reference_whichever_version_answers(tmp_path: Path) -> None:
    file = FILE.replace("{first: 50d}", "{from: 2026-01-01, until: 2026-02-19}")
    team = Team(tmp_path, file)
    rows = pl.concat([loans(56), loans(5, model="m2", first=56, seed=8)])
    team.log(rows)
    team.repaid(rows)
    team.at_noon(59)
    assert team.verdict("drift")["grade"] == "pass"
    assert team.view().live == "m2"


def test_rows_of_the_log_that_come_late_are_taken_once_and_their_day_is_read_again(team: Team) -> None:
    rows = loans(40)
    early = (pl.col("at") - START).dt.total_days() == 20
    team.log(rows.filter(~early), "most")
    team.repaid(rows)
    team.at_noon(39)
    assert team.recorded().height == rows.filter(pl.col("at") <= team.clock.now()).height - ROWS
    team.log(rows.filter(early), "late")
    team.log(rows.filter(early), "late again")
    team.at_noon(41)
    recorded = team.recorded()
    assert recorded.height == rows.height
    assert recorded["prediction_id"].n_unique() == rows.height
    assert next(day.rows for day in team.view().days if day.day == (START + 20 * DAY).date()) == ROWS


def test_one_column_may_be_both_the_id_of_an_answer_and_the_key_of_its_label(tmp_path: Path) -> None:
    file = FILE.replace("event_at: at, key: id", "event_at: at, key: key").replace("key: loan", "key: key")
    team, rows = Team(tmp_path, file), loans(2).rename({"loan": "key"})
    team.log(rows)
    rows.select("key", "repaid", "repaid_at").write_parquet(tmp_path / "repaid.parquet")
    team.at_noon(2)
    recorded = team.recorded()
    assert recorded.height == rows.height
    assert recorded["key"].to_list() == recorded["request_id"].to_list()


def test_a_keeper_that_died_before_it_took_note_takes_everything_again_and_records_it_once(team: Team) -> None:
    rows = loans(5)
    team.log(rows)
    team.repaid(rows)
    team.at_noon(5)
    with team.state.catalog.begin() as tx:
        tx.put(Mark(system="loans", id="answers"))
    team.begin()
    team.at_noon(6)
    assert team.recorded().height == rows.height


def posted(tmp_path: Path) -> Team:
    """A team that has no files: everything comes over HTTP."""
    file = FILE.replace("from: log/*.parquet, ", "").replace("from: repaid.parquet, ", "")
    team = Team(tmp_path, file)
    return team


def test_answers_that_are_posted_become_predictions(tmp_path: Path) -> None:
    team, rows = posted(tmp_path), loans(3)
    team.post(before(rows, 2))
    team.at_noon(2)
    assert team.recorded().height == 2 * ROWS
    first = team.recorded().sort("event_at").row(0, named=True)
    assert (first["prediction_id"], first["key"], first["stage"]) == ("m1-0:0", "loan m1 0", "elsewhere")
    assert first["out.probability"] == pytest.approx(rows["proba"][0])
    assert first["event_at"] == first["predicted_at"] == rows["at"][0]
    team.post(rows)
    team.at_noon(3)
    assert team.recorded().height == 3 * ROWS, "those that came again count once"
    assert team.verdict("freshness")["grade"] == "pass"
    answers, repaid = team.view().feeds
    assert (answers.rows, answers.over_http, repaid.rows, repaid.over_http) == (3 * ROWS, True, None, True)
    assert f"{3 * ROWS} rows over HTTP on 3 days" in status_page(Views(team.state, team.clock).status(), [])


def test_halves_meet_across_keepers_and_unmet_ones_are_counted(tmp_path: Path) -> None:
    team, rows = posted(tmp_path), before(loans(3), 1)
    team.clock.move_to(START + DAY)
    team.post(rows, "request")
    team.system.tick()
    assert team.recorded().is_empty()
    team.begin()
    team.clock.move_to(team.clock.now() + timedelta(minutes=30))
    team.post(rows.head(10), "response", version="r3")
    team.system.tick()
    assert team.recorded().height == 10
    assert set(team.recorded()["version"]) == {"r3"}
    team.clock.move_to(team.clock.now() + timedelta(hours=2))
    team.system.tick()
    assert team.view().unpaired == ROWS - 10


def test_what_could_not_be_recorded_is_taken_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team, rows = posted(tmp_path), before(loans(3), 1)
    team.clock.move_to(START + DAY)
    team.post(rows, "request")
    team.post(rows, "response")
    with monkeypatch.context() as full:
        full.setattr(Recorder, "record_predictions", _no_space)
        with pytest.raises(StateError, match="no space"):
            team.system.tick()
    team.clock.move_to(team.clock.now() + timedelta(seconds=5))
    team.system.tick()
    assert team.recorded().height == ROWS


def _no_space(*_: Any, **__: Any) -> None:
    raise StateError("no space left")


def test_labels_of_a_feed_score_answers_that_were_posted(tmp_path: Path) -> None:
    team = Team(tmp_path, FILE.replace("from: log/*.parquet, ", ""))
    rows = loans(61)
    team.repaid(rows)
    team.clock.move_to(START + 60 * DAY)
    team.post(before(rows, 60), version="")
    team.at_noon(60)
    assert team.verdict("quality.brier")["grade"] in WELL
    assert team.view().live == UNNAMED


def test_labels_that_come_after_everything_else_are_found(tmp_path: Path) -> None:
    team, rows = posted(tmp_path), loans(61)
    team.clock.move_to(START + 60 * DAY)
    team.post(before(rows, 60))
    team.at_noon(60)
    assert team.verdict("drift")["grade"] == "pass"
    assert "no label has come" in team.verdict("quality.brier")["why"]
    Recorder(team.state.lake.writer).record_labels(
        "loans",
        output="probability",
        keys=rows["loan"].to_list(),
        values=rows["repaid"].to_numpy(),
        known_at=rows["repaid_at"].dt.timestamp("us").to_numpy(),
        ingested_at=rows["repaid_at"].dt.timestamp("us").to_numpy(),
    )
    team.clock.move_to(team.clock.now() + timedelta(seconds=30))
    team.system.tick()
    assert team.verdict("quality.brier")["grade"] in WELL


def test_evaluations_wait_while_answers_of_past_days_come_in(tmp_path: Path) -> None:
    team = Team(tmp_path, FILE.replace("from: log/*.parquet, ", ""))
    rows = loans(61)
    team.repaid(rows)
    team.clock.move_to(START + 60 * DAY)
    for day in range(60):
        team.post(before(rows, day + 1).tail(ROWS))
        team.clock.move_to(team.clock.now() + timedelta(seconds=3))
        team.system.tick()
    assert team.verdict("drift") == {}, "half a history is no reference"
    team.clock.move_to(team.clock.now() + timedelta(seconds=20))
    team.system.tick()
    assert team.verdict("drift")["grade"] == "pass"


def test_what_was_answered_elsewhere_is_never_taken_for_an_answer_of_ones_own(team: Team) -> None:
    rows = loans(3)
    team.log(rows)
    team.repaid(rows)
    team.at_noon(3)
    trained = replace(team.spec, predictions=None, model=Model(task=team.spec.task))
    own = LivePredictions(trained, team.state.lake, "probability")
    assert own.answered(START, START + 3 * DAY).is_empty()

    def load(version: Any) -> Any:
        raise AssertionError("there is no model")

    with team.state.catalog.read() as tx:
        found = lineage.why(tx, team.state.lake, "loans", "m1-5", load)
        assert (found.stage, found.version, found.run, found.key) == ("elsewhere", "m1", "", "loan m1 5")
        assert {each.change for each in found.influences} == {None}
        assert found.label == rows["repaid"][5]
        with pytest.raises(StateError, match="answered elsewhere, by version 'm1'"):
            lineage.replay(tx, team.state.lake, "loans", "m1-5", load)


def test_nothing_here_trains_or_goes_back(team: Team) -> None:
    with pytest.raises(StateError, match="served elsewhere"):
        team.system.submit_training("asked for")
    with pytest.raises(StateError, match="served elsewhere"):
        team.system.roll_back("to see", by="me")
    with pytest.raises(StateError, match="served elsewhere and only watched here: there is nothing to roll back here"):
        roll_back(team.state, "loans", team.clock, why="to see", by="me")
    with pytest.raises(StateError, match="served elsewhere and only watched here: score the file there"):
        scorer_of(team.state, "loans", "")
    with pytest.raises(StateError, match="served elsewhere and only watched here: no request is answered here"):
        chosen(team.state, "loans", "")
    with team.state.catalog.read() as tx:
        assert only_watched(team.state, tx).startswith("the model of loans is served elsewhere")


def test_a_log_that_does_not_fit_is_recorded_as_far_as_it_does(team: Team) -> None:
    rows = loans(2).with_columns(
        pl.when(pl.col("id") == "m1-1").then(float("inf")).otherwise("amount").alias("amount"),
        pl.when(pl.col("id") == "m1-2").then(None).otherwise("proba").alias("proba"),
        pl.when(pl.col("id") == "m1-3").then(None).otherwise("model").alias("model"),
        pl.when(pl.col("id") == "m1-4").then(None).otherwise("loan").alias("loan"),
    )
    team.log(rows)
    team.repaid(loans(2))
    team.at_noon(2)
    recorded = {row["request_id"]: row for row in team.recorded().to_dicts()}
    assert recorded["m1-1"]["in.amount"] is None
    assert (recorded["m1-2"]["status"], recorded["m1-2"]["out.probability"]) == ("failed", None)
    assert recorded["m1-3"]["version"] == UNNAMED
    assert "m1-4" not in recorded, "a row without a key is in quarantine: no label could ever reach it"
    assert len(recorded) == rows.height - 1


def test_the_console_says_that_it_is_served_elsewhere_and_what_is_missing(team: Team) -> None:
    team.log(loans(9))
    team.repaid(loans(9))
    team.at_noon(9)
    shown = status_page(Views(team.state, team.clock).status(), [])
    assert "version, served elsewhere" in shown
    assert "history of version m1 is too short: 9 of 50 days" in shown
    assert "training" not in shown


def test_its_routes_take_answers_and_give_none(team: Team) -> None:
    with team.state.catalog.read() as tx:
        assert tx.find(SystemFile)
        routed = team.state.routes(tx).systems["loans"]
    assert routed.live is None
    assert routed.elsewhere is not None
    assert routed.elsewhere.score == "proba"
    assert [column.name for column in routed.elsewhere.signature.columns] == ["amount", "kind", "term"]


def dated_back(at: datetime, name: str = "x") -> pl.DataFrame:
    """One answer with a time of its own."""
    time = pl.lit(at).cast(pl.Datetime("us", "UTC")).alias("at")
    return loans(1).head(1).with_columns(pl.lit(name).alias("id"), pl.lit(f"loan {name}").alias("loan"), time)


def answers_of(team: Team) -> dict[str, Any]:
    with team.state.catalog.read() as tx:
        mark = tx.get(Mark, "loans", "answers")
    return mark.memory if mark else {}


@pytest.mark.parametrize("back", [timedelta(days=20_000), timedelta(days=100), timedelta(days=3)])
def test_an_answer_dated_back_is_no_reference(team: Team, back: timedelta) -> None:
    rows = loans(60)
    team.log(rows)
    team.repaid(rows)
    team.clock.move_to(START + timedelta(hours=5))
    team.post(dated_back(START - back))
    team.at_noon(30)
    assert "too short" in team.verdict("drift")["why"]
    assert "begun" not in answers_of(team)
    team.at_noon(58)
    assert team.verdict("drift")["grade"] == "pass"
    assert answers_of(team)["begun"] == {"m1": "2026-01-01"}


def test_a_reference_that_was_made_is_not_moved_by_answers_that_come_later(team: Team) -> None:
    rows = loans(60)
    team.log(rows)
    team.repaid(rows)
    team.at_noon(55)
    assert team.verdict("drift")["grade"] == "pass"
    team.post(loans(40, first=-40, seed=9).with_columns(pl.format("early {}", "id").alias("id")))
    team.begin()
    team.at_noon(58)
    assert team.verdict("drift")["grade"] == "pass"
    with team.state.catalog.read() as tx:
        reference = team.system._answers.reference(tx, "m1", team.clock.now())  # type: ignore[union-attr]
    assert min(block.day for block in reference.blocks) == START.date()


def test_stated_days_without_answers_are_no_reference_and_nothing_fails(tmp_path: Path) -> None:
    team = Team(tmp_path, FILE.replace("{first: 50d}", "{from: 2026-01-01, until: 2026-01-10}"))
    rows = loans(20).with_columns(pl.when(pl.col("at") < START + 12 * DAY).then(None).otherwise("proba").alias("proba"))
    team.log(rows)
    team.repaid(rows)
    team.at_noon(19)
    assert "no answer lies in the days of the reference" in team.verdict("drift")["why"]


def test_restarts_and_repeated_deliveries_count_nothing_twice(tmp_path: Path) -> None:
    team, rows = posted(tmp_path), before(loans(3), 1).head(40)
    team.clock.move_to(START + DAY / 2)
    team.post(rows.head(5), "request")
    team.post(rows.head(5), "response")
    team.post(rows.slice(10, 4), "request")
    team.post(rows.slice(20, 10))
    team.system.tick()
    assert answers_of(team)["days"] == {"m1": {"2026-01-01": 15}}
    team.clock.move_to(team.clock.now() + timedelta(hours=2))
    team.system.tick()
    assert answers_of(team)["given_up"] == {"request": 4, "response": 0}
    for _ in range(3):
        team.begin()
        team.clock.move_to(team.clock.now() + timedelta(minutes=20))
        team.system.tick()
        team.post(rows.slice(20, 10))
        team.clock.move_to(team.clock.now() + timedelta(minutes=5))
        team.system.tick()
        assert answers_of(team)["days"] == {"m1": {"2026-01-01": 15}}
        assert answers_of(team)["given_up"] == {"request": 4, "response": 0}
    assert team.recorded().height == 15


def test_a_response_that_comes_again_is_not_given_up(tmp_path: Path) -> None:
    team, rows = posted(tmp_path), before(loans(3), 1).head(5)
    team.clock.move_to(START + DAY / 2)
    team.post(rows, "request")
    team.post(rows, "response")
    team.system.tick()
    team.clock.move_to(team.clock.now() + timedelta(minutes=5))
    team.post(rows, "response")
    team.system.tick()
    team.clock.move_to(team.clock.now() + timedelta(hours=2))
    team.system.tick()
    assert team.view().unpaired == 0


def test_a_keeper_that_died_before_it_took_note_counts_what_is_on_record(team: Team) -> None:
    rows = loans(5)
    team.log(rows)
    team.repaid(rows)
    team.at_noon(5)
    counted = answers_of(team)["days"]
    assert sum(counted["m1"].values()) == rows.height
    with team.state.catalog.begin() as tx:
        tx.put(Mark(system="loans", id="answers"))
    team.begin()
    team.at_noon(6)
    assert answers_of(team)["days"] == counted


def test_an_answer_that_came_twice_with_two_times_counts_once_when_its_day_is_over(tmp_path: Path) -> None:
    team, rows = posted(tmp_path), before(loans(3), 1).head(10)
    team.clock.move_to(START + DAY / 2)
    team.post(rows)
    team.system.tick()
    team.clock.move_to(team.clock.now() + timedelta(minutes=5))
    team.post(rows.with_columns(pl.col("at") + timedelta(hours=6)))
    team.system.tick()
    team.at_noon(1)
    assert answers_of(team)["days"] == {"m1": {"2026-01-01": 10}}
    assert team.recorded().height == 10
