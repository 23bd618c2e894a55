"""Answers of several classes that are given elsewhere: taken from a log and over HTTP, held to a reference, watched."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from holdfast.core.clock import ManualClock
from holdfast.core.protocols import READINGS
from holdfast.core.records import Incident, SystemFile
from holdfast.core.spec import SystemSpec
from holdfast.core.specfile import parse_spec
from holdfast.errors import StateError
from holdfast.flow import lineage
from holdfast.flow.predictions import LivePredictions
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder
from holdfast.state import State, memory_state, put_in_force
from holdfast.system import System
from holdfast.wire.http import DataPlaneApp
from holdfast.world import LakeFeeds

pytestmark = pytest.mark.slow

START, DAY, ROWS = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1), 60
KINDS = ("calm", "rain", "storm")
PARTS = [f"probability.{kind}" for kind in KINDS]
FILE = """\
system: weather
data:
  feeds:
    answers: {from: log/*.parquet, event_at: at, key: id, fresh: 3d}
    became: {from: became.parquet, known_at: ended_at}
  rows: answers
  key: id
  label: {feed: became, column: kind, known_at: ended_at, mature_after: 1d, classes: [storm, rain, calm]}
  columns: {x: number, site: category}
predictions: {task: multiclass, version: model, reference: {first: 30d}}
monitors:
  - {check: drift, every: 1d, window: 1d}
  - {check: quality, metric: log_loss}
  - {check: calibration, window: 7d}
  - {check: estimated_quality, window: 3d}
  - {check: silence}
false_alarms: 3 per month
responses:
  - {on: any, do: notify}
"""
RESPONSE, REQUEST = (f"org.kubeflow.serving.inference.{part}" for part in ("response", "request"))


def weather(days: int, *, turned_from: int = 10_000) -> pl.DataFrame:
    """The log of some days, of a model that knows the true shares, and what became of each row three hours later.
    From a day on classes mean others."""
    rng, n = np.random.default_rng(5), days * ROWS
    x, site = rng.normal(size=n), rng.choice(["n", "s"], n)
    scores = np.stack([2 * x, -x + (site == "s"), np.zeros(n)], axis=1)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    place = (shares.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1)
    place = np.where(np.arange(n) // ROWS >= turned_from, (place + 1) % 3, place)
    at = [START + timedelta(days=i // ROWS, minutes=20 * (i % ROWS)) for i in range(n)]
    frame = pl.DataFrame({"id": [f"w{i}" for i in range(n)], "at": at, "x": x, "site": site, "model": ["m1"] * n})
    frame = frame.with_columns(pl.Series(name, shares[:, j]) for j, name in enumerate(PARTS))
    truth = pl.DataFrame({"kind": [KINDS[each] for each in place], "ended_at": [each + DAY / 8 for each in at]})
    return pl.concat([frame, truth], how="horizontal").with_columns(
        pl.col("at", "ended_at").cast(pl.Datetime("us", "UTC"))
    )


class Team:
    """A team with a server of its own."""

    def __init__(self, root: Path) -> None:
        (root / "log").mkdir()
        self.root, self.clock = root, ManualClock(START)
        self.spec, self.state = parse_spec(FILE), memory_state(root / "state")
        feeds = LakeFeeds(self.spec, root, self.state.lake, self.state.catalog, every=timedelta(0))
        self.system = System(self.spec, self.state, self.clock, feeds, tell=lambda text: None)
        self.system.put_in_force(text=FILE)

    def log(self, rows: pl.DataFrame) -> None:
        rows.drop("kind", "ended_at").write_parquet(self.root / "log" / "all.parquet")
        rows.select("id", "kind", "ended_at").write_parquet(self.root / "became.parquet")

    def until(self, day: int) -> None:
        end = START + day * DAY + DAY / 2
        while self.clock.now() < end:
            self.clock.move_to(min(end, self.clock.now() + DAY))
            while self.system.tick():
                pass

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        recorder = Recorder(self.state.lake.writer)
        plane = DataPlane(self.state.load_model, recorder, self.clock)
        with self.state.catalog.read() as tx:
            assert plane.follow(self.state.routes(tx)).held == {}

        async def sent() -> httpx.Response:
            app = DataPlaneApp(plane, self.clock, lambda: "made")
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://h") as client:
                return await client.post(path, json=body, headers=headers)

        answer = asyncio.run(sent())
        recorder.close()
        return answer

    def recorded(self) -> pl.DataFrame:
        return self.state.lake.scan("predictions", "weather")

    def readings(self, name: str) -> dict[int, float]:
        """Values by the day, counted from START, on which they were read."""
        found = self.state.lake.scan(READINGS.name, "weather").filter(pl.col("name") == name)
        return {(at - START).days: value for at, value in found.select("at", "value").iter_rows() if value is not None}

    def incidents(self) -> list[Incident]:
        with self.state.catalog.read() as tx:
            return tx.find(Incident, "weather")


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    made = Team(tmp_path)
    yield made
    made.state.close()


def test_a_log_with_a_column_for_each_class_is_recorded_and_watched(team: Team) -> None:
    rows = weather(60, turned_from=50)
    team.log(rows)
    team.until(59)
    recorded = team.recorded()
    assert recorded.height == (rows["at"] <= START + 59.5 * DAY).sum()
    assert recorded["stage"].unique().to_list() == ["elsewhere"]
    both = rows.join(recorded, left_on="id", right_on="request_id", how="inner")
    for name in PARTS:
        assert both[name].to_numpy() == pytest.approx(both[f"out.{name}"].to_numpy())
    losses = team.readings("log_loss")
    assert max(loss for day, loss in losses.items() if day < 51) < 1.2
    assert min(loss for day, loss in losses.items() if day > 53) > 1.2, "classes that mean others"
    assert any(each.check == "quality" for each in team.incidents())
    assert all(each.check == "quality" for each in team.incidents() if (each.opened_at - START).days < 50)
    watched = team.state.lake.scan(READINGS.name, "weather").filter(pl.col("check") == "silence")["subject"].unique()
    assert set(PARTS) <= set(watched)
    assert {"estimated_quality", "calibration"} <= set(
        team.state.lake.scan(READINGS.name, "weather").filter(pl.col("value").is_not_null())["check"].unique()
    )


def test_what_is_told_of_an_answer_names_its_class(team: Team) -> None:
    team.log(weather(3))
    team.until(3)
    shares = dict(zip(KINDS, team.recorded().filter(pl.col("request_id") == "w7").select(
        f"out.{name}" for name in PARTS
    ).row(0), strict=True))  # fmt: skip
    team.post("/labels/weather", {"labels": [{"key": "w7", "label": "rain"}]})
    with team.state.catalog.read() as tx:
        why = lineage.why(tx, team.state.lake, "weather", "w7:0", team.state.model)
    assert (why.probabilities, why.label_class) == (shares, "rain")
    assert (why.answered, why.output) == (max(shares, key=shares.__getitem__), max(shares.values()))


def test_answers_that_are_posted_and_logged_by_a_server_become_predictions(team: Team) -> None:
    team.until(1)
    at = team.clock.now().isoformat()
    told = {"id": "p1", "key": "k1", "version": "m1", "score": {"storm": 0.5, "calm": 0.2, "rain": 0.3}, "at": at}
    answer = team.post("/predictions/weather", {"predictions": [told | {"inputs": {"x": 1.0, "site": "n"}}]})
    assert answer.status_code == 200, answer.text
    inputs = [
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]},
        {"name": "site", "shape": [2], "datatype": "BYTES", "data": ["n", "s"]},
    ]
    output = {"name": "probability", "shape": [2, 3], "datatype": "FP64", "data": [0.1, 0.2, 0.7, 1.0, 0.0, 0.0]}
    for kind, body in ((REQUEST, {"inputs": inputs}), (RESPONSE, {"outputs": [output], "model_version": "m1"})):
        attributes = {"specversion": "1.0", "id": "e1", "type": kind, "source": "/", "time": at}
        sent = team.post("/events/weather", body, **{f"ce-{name}": text for name, text in attributes.items()})
        assert sent.status_code == 200, sent.text
    team.until(2)
    found = team.recorded().sort("prediction_id")
    assert found["prediction_id"].to_list() == ["e1:0", "e1:1", "p1:0"]
    assert found.select(f"out.{name}" for name in PARTS).rows() == [(0.1, 0.2, 0.7), (1.0, 0.0, 0.0), (0.2, 0.3, 0.5)]
    assert found["version"].unique().to_list() == ["m1"]


def put(team: Team, old: str, new: str) -> SystemSpec:
    """Put the file in force with a part of it changed."""
    assert FILE.count(old) == 1
    text = FILE.replace(old, new)
    spec = parse_spec(text)
    put_in_force(team.state, spec, path=Path("weather.yaml"), text=text, now=team.clock.now(), by="test")
    return spec


LISTED, TASK = ", classes: [storm, rain, calm]", "task: multiclass"


def one_number(team: Team) -> None:
    """The file in force with a task of one number."""
    text = FILE.replace(LISTED, "").replace(TASK, "task: classification, score: p").replace("log_loss", "brier")
    put_in_force(team.state, parse_spec(text), path=Path("w.yaml"), text=text, now=team.clock.now(), by="test")


def test_before_any_answer_is_on_record_task_and_classes_may_change(team: Team) -> None:
    put(team, LISTED, ", classes: [hail, rain, calm]")
    one_number(team)
    put(team, "30d", "40d")


@pytest.mark.parametrize("told_by", ["log", "http"])
def test_answers_on_record_keep_their_task_and_their_classes(team: Team, told_by: str) -> None:
    if told_by == "log":
        team.log(weather(2))
        team.until(3)
        assert team.state.lake.scan("arrivals", "weather").is_empty()
    else:
        each = {"id": "p1", "score": {"storm": 1.0}, "inputs": {"x": 1.0, "site": "n"}}
        assert team.post("/predictions/weather", {"predictions": [each]}).status_code == 200
    with pytest.raises(StateError, match=r"predictions\.task of 'weather' was multiclass and is classification;"):
        one_number(team)
    for classes in ("[storm, hail, calm]", "[storm, hail, calm, sun]"):
        with pytest.raises(StateError, match=r"no longer have rain; .* none removed or renamed\. Give"):
            put(team, LISTED, f", classes: {classes}")
    with team.state.catalog.read() as tx:
        assert tx.get(SystemFile, "weather", "file").text == FILE
    put(team, "30d", "40d")
    put(team, LISTED, ", classes: [calm, storm, hail, rain]")


def test_a_class_that_is_added_was_answered_0_before(team: Team) -> None:
    rows = weather(50)
    team.log(rows.filter(pl.col("at") < START + 40 * DAY))
    team.until(40)
    spec = put(team, LISTED, LISTED.replace("calm", "calm, hail"))
    rows.filter(pl.col("at") >= START + 40 * DAY).with_columns(pl.lit(0.0).alias("probability.hail")).drop(
        "kind", "ended_at"
    ).write_parquet(team.root / "log" / "more.parquet")
    rows.select("id", "kind", "ended_at").write_parquet(team.root / "became.parquet")
    feeds = LakeFeeds(spec, team.root, team.state.lake, team.state.catalog, every=timedelta(0))
    team.system = System(spec, team.state, team.clock, feeds, tell=lambda text: None)
    team.until(50)
    assert feeds.problem == ""
    losses = team.readings("log_loss")
    assert max(losses) >= 48
    assert max(losses.values()) < 1.2
    live = LivePredictions(spec, team.state.lake, "probability").answered(START, START + 50 * DAY)
    shares = np.array(live["probability"].to_list())
    assert shares.shape == (live.height, 4)
    assert shares.sum(axis=1) == pytest.approx(np.ones(live.height))


def test_a_version_that_does_not_know_a_class_answered_0_to_it(team: Team) -> None:
    rows = weather(2)
    two = rows["probability.calm"] + rows["probability.rain"]
    fewer = rows.with_columns(
        (pl.col("probability.calm") / two).alias("probability.calm"),
        (pl.col("probability.rain") / two).alias("probability.rain"),
        pl.lit(None, pl.Float64).alias("probability.storm"),
    )
    team.log(fewer)
    team.until(3)
    recorded = team.recorded()
    assert recorded.height == rows.height
    assert recorded["status"].unique().to_list() == ["ok"]
    assert recorded["out.probability.storm"].unique().to_list() == [0.0]


def test_a_state_that_is_routed_tells_workers_the_classes(team: Team) -> None:
    state: State = team.state
    with state.catalog.read() as tx:
        routed = state.routes(tx).systems["weather"]
    assert routed.classes == KINDS
    assert routed.elsewhere is not None
    assert routed.elsewhere.signature.classes == KINDS
