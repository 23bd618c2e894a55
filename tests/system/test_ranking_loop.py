"""Lists of rows, all the way: drafted, trained, served, recorded, labelled, watched, released again."""

import asyncio
import json
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
from holdfast.core.protocols import LABELS, PREDICTIONS
from holdfast.core.records import Incident, Release, Run
from holdfast.core.spec import Gate, Monitor
from holdfast.core.specdump import dump_spec
from holdfast.core.specfile import parse_spec
from holdfast.flow import lineage
from holdfast.flow.drafting import draft
from holdfast.flow.ingestion import feed_tables
from holdfast.opening import open_system
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder
from holdfast.state import State, memory_state, open_state, put_in_force
from holdfast.testing import START
from holdfast.wire.http import DataPlaneApp
from holdfast.world import LakeFeeds, make_world

from .lives import DAY, Life

pytestmark = pytest.mark.slow

LISTS, LENGTH = 14, 8
"""Lists a day, rows a list."""
ROWS = LISTS * LENGTH
IDS = count()


def worth(x: np.ndarray, y: np.ndarray, site: np.ndarray) -> np.ndarray:
    """What a row is worth to whoever asked; no line orders it."""
    return 2.0 * (x * y > 0) + 1.5 * (np.abs(x) > 1) + 1.0 * (site == "s")


def write_feeds(directory: Path, start: datetime, days: int, *, scrambled_from: int = 10_000) -> None:
    """Days of offers and, three hours later, how relevant each was in its list: 2 the best, 1 the next two. From a day
    on what is relevant has nothing to do with the rows any more."""
    random, n = np.random.default_rng(7), days * ROWS
    x, y, site = random.normal(size=n), random.normal(size=n), random.choice(["n", "s", "w"], n)
    gain = worth(x, y, site) + random.gumbel(scale=0.5, size=n)
    is_scrambled = np.arange(n) // ROWS >= scrambled_from
    gain[is_scrambled] = random.normal(size=is_scrambled.sum())
    place = (-gain.reshape(-1, LENGTH)).argsort(axis=1).argsort(axis=1).ravel()
    at = [start + timedelta(days=i // ROWS, minutes=90 * (i % ROWS // LENGTH)) for i in range(n)]
    ids = [f"o{i}" for i in range(n)]
    searches = [f"q{i // LENGTH}" for i in range(n)]
    listed = [each - timedelta(hours=2) for each in at]
    offers = {"id": ids, "search": searches, "at": at, "listed_at": listed, "x": x, "y": y, "site": site}
    pl.DataFrame(offers).write_parquet(directory / "offers.parquet")
    ends = [each + timedelta(hours=3) for each in at]
    clicks = {"id": ids, "ended_at": ends, "clicked": np.select([place == 0, place <= 2], [2, 1], 0)}
    pl.DataFrame(clicks).write_parquet(directory / "clicks.parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, State]]:
    """A folder of feeds, and a state in which the first version of what was drafted from it is live."""
    root = tmp_path_factory.mktemp("ranking")
    midnight = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    write_feeds(root, midnight - 50 * DAY, 50)
    text = dump_spec(draft(root, label="clicks.clicked", lists="search", system="offers").spec)
    (root / "holdfast.yaml").write_text(text)
    state = open_state(root / "state")
    put_in_force(state, parse_spec(text), path=root / "holdfast.yaml", text=text, now=SystemClock().now(), by="test")
    system = open_system(state, "offers", SystemClock(), waits=True)
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

    async def asked(path: str, body: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=served), base_url="http://h") as client:
            return await (client.get(path) if body is None else client.post(path, json=body))

    with asyncio.Runner() as runner:
        yield lambda path, body=None: runner.run(asked(path, body))
    recorder.close()


def a_list(name: str | None, *ids: str) -> list[dict[str, Any]]:
    """Rows of one list: the first is worth most, the last least."""
    values = [(1.5, 1.5, "s"), (0.5, 0.5, "n"), (0.5, -0.5, "n")]
    rows = [dict(zip(("x", "y", "site"), each, strict=True)) | {"id": id} for id, each in zip(ids, values, strict=True)]
    return [row | {"search": name} for row in rows] if name else rows


def recorded(state: State, *keys: str) -> pl.DataFrame:
    """What was answered to rows of these keys, in their order."""
    found = state.lake.scan(PREDICTIONS.name, "offers").filter(pl.col("key").is_in(keys))
    return found.sort(pl.col("key").cast(pl.Enum(keys)))


def test_lists_are_drafted_as_a_ranking_and_its_model_passes_every_gate(trained: tuple[Path, State]) -> None:
    root, state = trained
    spec = parse_spec((root / "holdfast.yaml").read_text())
    assert (spec.task, spec.data.unit, spec.release.decide.loss) == ("ranking", "search", "ndcg_10_loss")
    assert set(spec.data.columns) == {"x", "y", "site"}, "the list is no feature"
    with state.catalog.read() as tx:
        [run], [release] = tx.find(Run, "offers"), tx.find(Release, "offers")
    assert (run.state, release.state) == ("succeeded", "live"), release.why
    linear, trivial = ({each.name: each.metrics for each in run.baselines}[name] for name in ("linear", "trivial"))
    assert run.metrics["ndcg_10"] > 0.8 > linear["ndcg_10"] > trivial["ndcg_10"]
    assert run.metrics["irrelevant_lists"] == 0.0
    checks = [verdict.check for verdict in release.evidence if verdict.grade is Grade.PASS]
    assert checks == ["baseline", "baseline", "quality"]


def test_rows_of_a_request_name_their_list_and_it_is_recorded(
    ask: Callable[..., httpx.Response], trained: tuple[Path, State]
) -> None:
    rows = [*a_list("s1", "a1", "a2", "a3"), *a_list("s2", "b1", "b2", "b3")]
    answered = ask("/predict/offers", {"rows": rows}).json()["predictions"]
    scores = np.array([each["score"] for each in answered]).reshape(2, 3)
    assert (np.diff(scores, axis=1) < 0).all(), "the best row has the highest score"
    kept = recorded(trained[1], "a1", "a2", "a3", "b1", "b2", "b3")
    assert kept["unit"].to_list() == ["s1"] * 3 + ["s2"] * 3
    assert kept["out.score"].to_numpy() == pytest.approx(scores.ravel())


def test_the_protocol_takes_the_list_as_a_parameter(
    ask: Callable[..., httpx.Response], trained: tuple[Path, State]
) -> None:
    assert ask("/v2/models/offers").json()["outputs"] == [{"name": "score", "datatype": "FP64", "shape": [-1]}]
    inputs = [
        {"name": "x", "shape": [3], "datatype": "FP64", "data": [1.5, 0.5, 0.5]},
        {"name": "y", "shape": [3], "datatype": "FP64", "data": [1.5, 0.5, -0.5]},
        {"name": "site", "shape": [3], "datatype": "BYTES", "data": ["s", "n", "n"]},
    ]
    for keys, unit, expected in (
        (["c1", "c2", "c3"], "s3", ["s3"] * 3),
        (["d1", "d2", "d3"], ["s4", "s4", "s5"], ["s4", "s4", "s5"]),
    ):
        answered = ask("/v2/models/offers/infer", {"inputs": inputs, "parameters": {"unit": unit, "key": keys}})
        [score] = answered.json()["outputs"]
        assert score["data"] == sorted(score["data"], reverse=True)
        assert recorded(trained[1], *keys)["unit"].to_list() == expected


def test_rows_without_a_list_are_the_list_of_their_request(
    ask: Callable[..., httpx.Response], trained: tuple[Path, State]
) -> None:
    for id, keys in (("r1", ("e1", "e2", "e3")), ("r2", ("f1", "f2", "f3"))):
        assert ask("/predict/offers", {"id": id, "rows": a_list(None, *keys)}).status_code == 200
        kept = recorded(trained[1], *keys)
        assert kept.select(pl.coalesce("unit", "request_id")).to_series().n_unique() == 1
        assert kept["request_id"].to_list() == [id] * 3


def test_relevance_is_told_row_by_row_and_what_is_none_is_refused(
    ask: Callable[..., httpx.Response], trained: tuple[Path, State]
) -> None:
    told = [{"key": "o1", "label": 2}, {"key": "o2", "label": 0}, {"key": "o3", "label": 0.5}]
    assert ask("/labels/offers", {"labels": told}).json()["recorded"] == 3
    refused = ask("/labels/offers", {"labels": [{"key": "o4", "label": -1}]})
    assert (refused.status_code, refused.json()["expected"]) == (422, "a number of at least 0")
    labels = trained[1].lake.scan(LABELS.name, "offers").filter(pl.col("key").is_in(["o1", "o2", "o3", "o4"]))
    assert labels.sort("key").select("key", "value").rows() == [("o1", 2.0), ("o2", 0.0), ("o3", 0.5)]


def test_an_answer_is_explained_and_computed_again(
    ask: Callable[..., httpx.Response],
    trained: tuple[Path, State],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, state = trained
    [answer, *_] = ask("/predict/offers", {"rows": a_list("s6", "g1", "g2", "g3")}).json()["predictions"]
    ask("/labels/offers", {"labels": [{"key": "g1", "label": 2}]})
    with state.catalog.read() as tx:
        why = lineage.why(tx, state.lake, "offers", answer["prediction_id"], state.model)
        again = lineage.replay(tx, state.lake, "offers", answer["prediction_id"], state.model)
    assert (why.output, why.label) == (pytest.approx(answer["score"]), 2.0)
    assert {each.column for each in why.influences if each.change} >= {"x", "y", "site"}
    assert again.agrees
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as left:
        app(["why", answer["prediction_id"], "--json", "--state", "state"])
    said = capsys.readouterr()
    assert not left.value.code, said
    told = json.loads(said.out)
    assert (told["key"], told["label"]) == ("g1", 2.0)


def test_a_file_is_scored_and_orders_as_it_was_asked_to(
    trained: tuple[Path, State], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = trained
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as left:
        app(["predict", "--in", "offers.parquet", "--out", "scored.csv", "--state", "state"])
    assert not left.value.code, capsys.readouterr()
    scored = pl.read_csv(root / "scored.csv")
    assert scored.columns == ["row", "id", "score", "outside", "version"]
    offers = pl.read_parquet(root / "offers.parquet")
    assert scored["id"].to_list() == offers["id"].to_list()
    clicked = pl.read_parquet(root / "clicks.parquet")["clicked"].to_numpy().reshape(-1, LENGTH)
    first = scored["score"].to_numpy().reshape(-1, LENGTH).argmax(axis=1)
    assert clicked[np.arange(len(first)), first].mean() > 2 * clicked.mean()


@pytest.fixture
def life(tmp_path: Path, trains_here: None) -> Callable[..., Life]:
    """`life(days, **what the feeds do)`: a system that begins after 30 days of them."""

    def make(days: int, **feeds: int) -> Life:
        write_feeds(tmp_path, START, days, **feeds)
        drafted = draft(tmp_path, label="clicks.clicked", lists="search", system="offers", until=START + 30 * DAY)
        spec = drafted.spec
        gate = Gate(check="quality", options={"metric": "map"}, limit=Limit(at_least=0.5), name="good")
        least = Monitor(check="quality", options={"metric": "ndcg_10"}, limit=Limit(at_least=0.75), name="least")
        release = replace(spec.release, decide=replace(spec.release.decide, margin=0.05))
        model = replace(spec.model, validate=replace(spec.model.validate, holdout=7 * DAY, folds=2))
        changed = {"gates": (gate,), "monitors": (*spec.monitors, least), "responses": (), "release": release}
        spec = replace(spec, model=model, **changed)
        state = memory_state(tmp_path / "feeds")
        LakeFeeds(spec, tmp_path, state.lake, state.catalog).ingest(START + days * DAY)
        world = make_world(spec, feed_tables(spec, state.lake, state.catalog))
        lived = Life(memory_state(tmp_path / "state"), spec, world, ManualClock(START + 30 * DAY))
        lived.tick()
        return lived

    return make


def by_day(readings: pl.DataFrame) -> Mapping[int, float]:
    """Values by the day, counted from START, on which they were read."""
    return {(at - START).days: value for at, value in readings.select("at", "value").iter_rows() if value is not None}


def test_relevance_that_no_longer_follows_the_rows_is_an_incident_of_quality(life: Callable[..., Life]) -> None:
    lived = life(54, scrambled_from=42)
    lived.days(20)
    losses, ndcg = by_day(lived.readings("ndcg_10_loss")), by_day(lived.readings("ndcg_10"))
    assert {day: 1 - loss for day, loss in losses.items()} == pytest.approx(ndcg), "all lists are as long"
    assert min(value for day, value in ndcg.items() if day <= 43) > 0.8
    assert max(value for day, value in ndcg.items() if day > 43) < 0.7
    assert lived.readings("ndcg_10")["rows"].max() == ROWS
    found = {each.last.monitor: each for each in lived.all(Incident) if each.check == "quality"}
    assert set(found) == {"least", "quality.ndcg_10_loss"}
    for incident in found.values():
        assert 43 < (incident.opened_at - START).days <= 46
        assert incident.explained.began == (START + 42 * DAY).date()
        assert (incident.explained.loss, incident.explained.basis) == ("ndcg_10_loss", "labels")
        assert incident.explained.cost > 0.1
        assert incident.explained.ranking == ()
        assert "not told for answers that order lists" in incident.explained.note, "it says that columns are not priced"


def test_a_second_version_takes_whole_lists_and_is_decided_on_ndcg(life: Callable[..., Life]) -> None:
    lived = life(60)
    lived.days(3)
    lived.system.submit_training("a person")
    lived.days(25)
    release = lived.all(Release)[-1]
    assert release.state == "live", release.why
    assert [move.to for move in release.history] == ["candidate", "gated", "shadow", "canary", "live"]
    assert release.comparison.blocks >= 2
    assert release.comparison.rows == release.comparison.blocks * ROWS
    assert -1 <= release.comparison.lowest < release.comparison.mean < release.comparison.highest <= 1
    assert lived.live == "2"
    answered = lived.state.lake.scan(PREDICTIONS.name, "offers").filter(pl.col("stage").is_in(["live", "canary"]))
    assert {("1", "live"), ("2", "canary"), ("2", "live")} <= set(answered.select("version", "stage").rows())
    by_list = answered.group_by("unit").agg(pl.len(), pl.col("version").n_unique())
    assert by_list["version"].max() == 1
    assert by_list["len"].unique().to_list() == [LENGTH]
