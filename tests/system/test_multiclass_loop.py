"""A label of three classes, all the way: drafted, trained, served, recorded, labelled, watched, released again."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.cli.app import app
from holdfast.core.clock import ManualClock, SystemClock
from holdfast.core.evidence import Grade, Limit
from holdfast.core.protocols import LABELS, PREDICTIONS, READINGS
from holdfast.core.records import Incident, Release, Run, Snapshot, Version
from holdfast.core.spec import Gate, Monitor
from holdfast.core.specdump import dump_spec
from holdfast.core.specfile import parse_spec
from holdfast.errors import StateError
from holdfast.flow import lineage
from holdfast.flow.drafting import draft
from holdfast.flow.ingestion import feed_tables
from holdfast.flow.registry import current_route
from holdfast.opening import open_system
from holdfast.profiling.profile import profiled
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder
from holdfast.state import State, memory_state, open_state, put_in_force
from holdfast.testing import START
from holdfast.wire.http import DataPlaneApp
from holdfast.world import LakeFeeds, make_world

from .lives import DAY, ROWS, Life

pytestmark = pytest.mark.slow

KINDS = np.array(["calm", "rain", "storm"])
IDS = count()


def kinds_of(x: np.ndarray, y: np.ndarray, site: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Places of classes; no line parts them."""
    each = [3.0 * (x * y > 0), 3.0 * (np.abs(x) > 1) + 2.0 * (site == "s"), 3.0 * (np.abs(y) < 0.5)]
    return (np.stack(each, axis=1) + random.gumbel(size=(len(x), 3))).argmax(axis=1)


def write_feeds(directory: Path, start: datetime, days: int, *, turned_from: int = 10_000, strange: int = -1) -> None:
    """Days of orders and, three hours later, what became of each. From a day on classes mean others; on the day
    `strange` one in five is of a class that is not known."""
    random, n = np.random.default_rng(7), days * ROWS
    day = np.arange(n) // ROWS
    at = [start + timedelta(days=i // ROWS, minutes=20 * (i % ROWS)) for i in range(n)]
    x, y, site = random.normal(size=n), random.normal(size=n), random.choice(["n", "s", "w"], n)
    place = kinds_of(x, y, site, random)
    kind = KINDS[np.where(day >= turned_from, (place + 1) % 3, place)].astype(object)
    kind[(day == strange) & (np.arange(n) % 5 == 0)] = "hail"
    ids = [f"o{i}" for i in range(n)]
    listed = [each - timedelta(hours=2) for each in at]
    orders = {"id": ids, "at": at, "listed_at": listed, "x": x, "y": y, "site": site}
    pl.DataFrame(orders).write_parquet(directory / "orders.parquet")
    ends = {"id": ids, "ended_at": [each + timedelta(hours=3) for each in at], "kind": kind.tolist()}
    pl.DataFrame(ends).write_parquet(directory / "ends.parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, State]]:
    """A folder of feeds, and a state in which the first version of what was drafted from it is live."""
    root = tmp_path_factory.mktemp("multiclass")
    midnight = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    write_feeds(root, midnight - 60 * DAY, 60)
    text = dump_spec(draft(root, label="ends.kind", system="weather").spec)
    (root / "holdfast.yaml").write_text(text)
    state = open_state(root / "state")
    put_in_force(state, parse_spec(text), path=root / "holdfast.yaml", text=text, now=SystemClock().now(), by="test")
    system = open_system(state, "weather", SystemClock(), waits=True)
    system.submit_training("a test")
    while system.push_on():
        pass
    yield root, state
    state.close()


@pytest.fixture
def ask(trained: tuple[Path, State]) -> Iterator[Callable[..., httpx.Response]]:
    """`ask(path, body)`: what a worker of that state answers."""
    _, state = trained
    clock = SystemClock()
    recorder = Recorder(state.lake.writer)
    plane = DataPlane(state.load_model, recorder, clock)
    with state.catalog.read() as tx:
        assert plane.follow(state.routes(tx)).held == {}
    served = DataPlaneApp(plane, clock, lambda: f"made-{next(IDS)}")

    async def asked(path: str, body: Any, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=served), base_url="http://h") as client:
            return await (client.get(path) if body is None else client.post(path, **{"json": body} | options))

    with asyncio.Runner() as runner:
        yield lambda path, body=None, **options: runner.run(asked(path, body, **options))
    recorder.close()


def test_a_label_of_texts_is_drafted_as_classes_and_its_model_passes_every_gate(trained: tuple[Path, State]) -> None:
    root, state = trained
    spec = parse_spec((root / "holdfast.yaml").read_text())
    assert (spec.task, spec.data.label.classes) == ("multiclass", ("calm", "rain", "storm"))
    with state.catalog.read() as tx:
        [run], [release] = tx.find(Run, "weather"), tx.find(Release, "weather")
        [snapshot] = tx.find(Snapshot, "weather")
    assert (run.state, release.state) == ("succeeded", "live"), release.why
    assert run.metrics["accuracy"] > 0.6 > 0.5 > run.baselines[1].metrics["accuracy"]
    assert run.baselines[0].metrics["roc_auc"] == 0.5
    checks = [verdict.check for verdict in release.evidence if verdict.grade is Grade.PASS]
    assert checks == ["baseline", "baseline", "quality", "calibration", "calibration"]
    assert "0 of 2400 labels" not in str(snapshot.verdicts)
    assert any("labels are none of calm, rain, storm" in v.why and v.grade is Grade.PASS for v in snapshot.verdicts)


def test_answers_name_the_class_and_the_probability_of_each(ask: Callable[..., httpx.Response]) -> None:
    rows = [{"id": "p1", "x": 0.5, "y": 0.9, "site": "n"}, {"id": "p2", "x": 0.5, "y": -0.1, "site": "n"}]
    answered = ask("/predict/weather", {"rows": rows}).json()["predictions"]
    for each in answered:
        assert list(each["probability"]) == ["calm", "rain", "storm"]
        assert sum(each["probability"].values()) == pytest.approx(1, abs=1e-6)
        assert each["class"] == max(each["probability"], key=each["probability"].get)
    assert [each["class"] for each in answered] == ["calm", "storm"]


def test_the_protocol_has_a_tensor_of_probabilities_and_one_of_classes(ask: Callable[..., httpx.Response]) -> None:
    about = ask("/v2/models/weather").json()["outputs"]
    classes = {"classes": ["calm", "rain", "storm"]}
    assert about == [
        {"name": "probability", "datatype": "FP64", "shape": [-1, 3], "parameters": classes},
        {"name": "class", "datatype": "BYTES", "shape": [-1], "parameters": classes},
    ]
    inputs = [
        {"name": name, "shape": [2], "datatype": kind, "data": data}
        for name, kind, data in (("x", "FP64", [2.0, -2.0]), ("y", "FP64", [0.0, -1.0]), ("site", "BYTES", ["n", "s"]))
    ]
    probability, named = ask("/v2/models/weather/infer", {"inputs": inputs}).json()["outputs"]
    assert probability["shape"] == [2, 3]
    places = np.reshape(probability["data"], (2, 3)).argmax(axis=1)
    assert named["data"] == [KINDS[place] for place in places]
    only = ask("/v2/models/weather/infer", {"inputs": inputs, "outputs": [{"name": "class"}]}).json()["outputs"]
    assert only == [named]
    binary = {"inputs": inputs, "parameters": {"binary_data_output": True}, "outputs": [{"name": "probability"}]}
    raw = ask("/v2/models/weather/infer", binary)
    size = int(raw.headers["inference-header-content-length"])
    assert np.frombuffer(raw.content[size:]).tolist() == probability["data"]
    refused = ask("/v2/models/weather/infer", {"inputs": inputs, "outputs": [{"name": "clas"}]})
    assert (refused.status_code, "did you mean 'class'" in refused.json()["error"]) == (422, True)


def test_labels_are_classes_and_one_that_is_not_known_is_told_and_kept(
    ask: Callable[..., httpx.Response], trained: tuple[Path, State]
) -> None:
    _, state = trained
    ask("/predict/weather", {"rows": [{"id": "q1", "x": 1.0, "y": 1.0, "site": "n"}]})
    told = [{"key": "q1", "label": "rain"}, {"key": "q2", "label": "hail"}]
    taken = ask("/labels/weather", {"labels": told}).json()
    assert (taken["recorded"], taken["unknown_classes"]) == (2, ["hail"])
    refused = ask("/labels/weather", {"labels": [{"key": "q1", "label": 0.5}]})
    assert (refused.status_code, refused.json()["expected"]) == (422, "a class: text or a whole number")
    labels = state.lake.scan(LABELS.name, "weather").filter(pl.col("key").is_in(["q1", "q2"])).sort("key")
    assert labels.select("class", "value").rows() == [("rain", 1.0), ("hail", -1.0)]


def test_names_and_answers_of_classes_survive_rolling(trained: tuple[Path, State]) -> None:
    _, state = trained
    recorder, at = Recorder(state.lake.writer), np.full(2, 10**15, dtype=np.int64)
    named = {"output": "probability", "known_at": at, "ingested_at": at, "classes": ["storm", None]}
    recorder.record_labels("weather", keys=["s1", "s2"], values=np.array([2.0, -1.0]), **named)
    recorder.close()
    before = state.lake.scan(PREDICTIONS.name, "weather").sort("prediction_id")
    assert state.lake.roll()
    rolled = state.lake.scan(LABELS.name, "weather").filter(pl.col("key").is_in(["s1", "s2"])).sort("key")
    assert rolled.select("class", "value").rows() == [("storm", 2.0), (None, -1.0)]
    assert state.lake.scan(PREDICTIONS.name, "weather").sort("prediction_id").equals(before)


def test_an_answer_is_recorded_explained_and_computed_again(
    ask: Callable[..., httpx.Response], trained: tuple[Path, State]
) -> None:
    _, state = trained
    body = ask("/predict/weather", {"rows": [{"id": "r1", "x": 0.5, "y": 1.5, "site": "w"}]}).json()
    ask("/labels/weather", {"labels": [{"key": "r1", "label": "storm"}]})
    [answer] = body["predictions"]
    recorded = state.lake.scan(PREDICTIONS.name, "weather").filter(pl.col("prediction_id") == answer["prediction_id"])
    assert recorded.select(f"out.probability.{name}" for name in KINDS).row(0) == tuple(answer["probability"].values())
    with state.catalog.read() as tx:
        why = lineage.why(tx, state.lake, "weather", answer["prediction_id"], state.model)
        again = lineage.replay(tx, state.lake, "weather", answer["prediction_id"], state.model)
    assert (why.answered, why.label_class, why.probabilities) == (answer["class"], "storm", answer["probability"])
    assert why.output == max(answer["probability"].values())
    assert {each.column for each in why.influences if each.change} >= {"x", "y"}
    assert again.agrees


def test_a_file_is_scored_with_a_column_per_class(
    trained: tuple[Path, State], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = trained
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as left:
        app(["predict", "--in", "orders.parquet", "--out", "scored.csv", "--state", "state"])
    assert not left.value.code, capsys.readouterr()
    scored = pl.read_csv(root / "scored.csv")
    parts = [f"probability.{name}" for name in KINDS]
    assert scored.columns == ["row", "id", "class", *parts, "outside", "version"]
    assert scored.height == 60 * ROWS
    assert (KINDS[scored.select(parts).to_numpy().argmax(axis=1)] == scored["class"].to_numpy()).all()


def test_a_profile_says_where_the_time_of_its_requests_goes(trained: tuple[Path, State]) -> None:
    root, state = trained
    with state.catalog.read() as tx:
        [version] = tx.find(Version, "weather")
    spec = parse_spec((root / "holdfast.yaml").read_text())
    found = profiled(state, spec, version, SystemClock(), is_live=True, whole_s=0.1)
    plain = found.case("object", 16)
    assert plain is not None
    assert {stage.stage for stage in plain.stages} >= {"check", "run", "record", "encode"}, "the fast lane takes them"
    assert found.recording.row_bytes > 8 * 5


def test_classes_stay_once_there_are_versions(trained: tuple[Path, State]) -> None:
    root, state = trained
    spec = parse_spec((root / "holdfast.yaml").read_text())
    label = replace(spec.data.label, classes=("storm", "rain", "calm"))
    turned = replace(spec, about="in another order", data=replace(spec.data, label=label))
    now = SystemClock().now()
    put_in_force(state, turned, path=root / "holdfast.yaml", text=dump_spec(turned), now=now, by="test")
    more = replace(spec, data=replace(spec.data, label=replace(label, classes=("calm", "hail", "rain", "storm"))))
    with pytest.raises(StateError, match="were calm, rain, storm and are calm, hail, rain, storm"):
        put_in_force(state, more, path=root / "holdfast.yaml", text=dump_spec(more), now=now, by="test")


@pytest.fixture
def life(tmp_path: Path, trains_here: None) -> Callable[..., Life]:
    """`life(days, **what the feeds do)`: a system that begins after 40 days of them."""

    def make(days: int, **feeds: int) -> Life:
        write_feeds(tmp_path, START, days, **feeds)
        spec = draft(tmp_path, label="ends.kind", system="weather", until=START + 40 * DAY).spec
        gate = Gate(check="quality", options={"metric": "accuracy"}, limit=Limit(at_least=0.5), name="good")
        estimated = Monitor(check="estimated_quality", window=3 * DAY, name="estimated")
        monitors = (*spec.monitors, estimated, Monitor(check="calibration", window=7 * DAY, name="calibrated"))
        release = replace(spec.release, decide=replace(spec.release.decide, margin=0.05))
        spec = replace(spec, gates=(gate,), monitors=monitors, responses=(), release=release)
        spec = replace(spec, model=replace(spec.model, validate=replace(spec.model.validate, holdout=7 * DAY)))
        state = memory_state(tmp_path / "feeds")
        LakeFeeds(spec, tmp_path, state.lake, state.catalog).ingest(START + days * DAY)
        world = make_world(spec, feed_tables(spec, state.lake, state.catalog))
        lived = Life(memory_state(tmp_path / "state"), spec, world, ManualClock(START + 40 * DAY))
        lived.tick()
        return lived

    return make


def by_day(readings: pl.DataFrame) -> Mapping[int, float]:
    """Values by the day, counted from START, on which they were read."""
    return {(at - START).days: value for at, value in readings.select("at", "value").iter_rows() if value is not None}


def test_classes_that_mean_others_are_an_incident_of_quality_that_no_estimate_sees(life: Callable[..., Life]) -> None:
    lived = life(60, turned_from=50)
    lived.days(18)
    assert lived.answered.shape == (ROWS, 3)
    losses = by_day(lived.readings("log_loss"))
    assert max(loss for day, loss in losses.items() if day < 51) < 1.2 < min(v for d, v in losses.items() if d > 53)
    [incident] = [each for each in lived.all(Incident) if each.check == "quality"]
    assert 50 < (incident.opened_at - START).days <= 56
    assert incident.explained.began == (START + 50 * DAY).date()
    assert incident.explained.cost > 0.5
    assert "not told for answers of one probability per class" in incident.explained.note
    calibrated = by_day(lived.readings("calibration_error"))
    assert calibrated[max(calibrated)] > 2 * calibrated[min(calibrated)]
    estimates = by_day(lived.readings("brier_worse"))
    assert estimates, "estimates were made"
    assert abs(estimates[53]) < 0.1, "labels that turn cannot be seen in answers"
    watched = set(lived.state.lake.scan(READINGS.name, "weather").filter(pl.col("check") == "silence")["subject"])
    assert {f"probability.{kind}" for kind in KINDS} <= watched


def test_a_class_that_was_never_seen_counts_as_wrong_and_stops_no_training(life: Callable[..., Life]) -> None:
    lived = life(56, strange=44)
    lived.days(12)
    block = lived.system.live.labelled_block((START + 44 * DAY).date()).rows()
    assert (block["label"] < 0).sum() == ROWS // 5
    losses = by_day(lived.readings("log_loss"))
    around = [losses[day] for day in (45, 47)]
    assert losses[46] > 2 * max(around), "the day is judged when its labels are complete"
    lived.system.submit_training("a person")
    lived.tick()
    newest, snapshot = lived.all(Run)[-1], lived.all(Snapshot)[-1]
    assert newest.state == "succeeded", newest.message
    [told] = [verdict for verdict in snapshot.verdicts if verdict.reading.name == "unknown_classes"]
    assert (told.grade, told.reading.value) == (Grade.WARN, ROWS // 5)
    assert newest.metrics["unknown_labels"] == pytest.approx(ROWS / 5 / (7 * ROWS)), "the hold-out counts them"


def test_a_second_version_is_compared_in_pairs_and_promoted(life: Callable[..., Life]) -> None:
    lived = life(80)
    lived.days(3)
    lived.system.submit_training("a person")
    lived.days(25)
    release = lived.all(Release)[-1]
    assert release.state == "live", release.why
    assert [move.to for move in release.history] == ["candidate", "gated", "shadow", "canary", "live"]
    assert release.comparison.blocks >= 2
    assert -2 <= release.comparison.lowest < release.comparison.mean < release.comparison.highest <= 2
    with lived.state.catalog.read() as tx:
        assert current_route(tx, "weather").live == "2"
    answered = lived.state.lake.scan(PREDICTIONS.name, "weather").group_by("version", "stage").len()
    assert {("1", "live"), ("2", "canary"), ("2", "live")} <= set(answered.select("version", "stage").rows())
