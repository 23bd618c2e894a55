"""Rows that are ordered within lists: cut, trained, compared and judged by the list, and drafted when it is named."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import ndcg_score

from holdfast.checks.quality import Quality
from holdfast.core.evidence import Block, Role, Window
from holdfast.core.records import Release
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Data, Decide, Label, Model, ReleasePlan, Step, SystemSpec, Validate
from holdfast.core.specdump import dump_spec
from holdfast.core.specfile import parse_spec
from holdfast.core.targets import LIST, with_lists
from holdfast.engines.memory import MemoryLake
from holdfast.errors import DataError, SpecError
from holdfast.flow import gates, releases
from holdfast.flow.dailies import Dailies
from holdfast.flow.days import blocks_of
from holdfast.flow.drafting import draft
from holdfast.flow.monitors import Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.splits import folds_of, split_rows
from holdfast.flow.training import TrainingRequest, train
from holdfast.tasks.ranking import Ranking
from holdfast.tasks.regression import Regression

TASK = Ranking()
START = datetime(2013, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS, LISTS, SIZE = 30, 6, 5
NOW = START + (DAYS + 2) * DAY


def a_spec(folds: int = 2) -> SystemSpec:
    label = Label(feed="f", column="clicked", known_at="at", mature_after=DAY)
    columns = {"x": Column(name="x", type="number")}
    return SystemSpec(
        system="offers",
        data=Data(feeds={}, rows="f", key="id", unit="search", label=label, columns=columns),
        model=Model(task="ranking", params={"trees": 8}, validate=Validate(folds=folds, holdout=timedelta(days=6))),
        gates=(),
        release=ReleasePlan(steps=(Step(stage="live"),), decide=Decide(loss="ndcg_10_loss", margin=0.01)),
    )


def rows_of_lists(seed: int = 0) -> pl.DataFrame:
    """Assembled rows: lists of five, whose names come again in no other."""
    random, n = np.random.default_rng(seed), DAYS * LISTS * SIZE
    x = random.normal(size=n)
    place = (-(2 * x + random.gumbel(size=n)).reshape(-1, SIZE)).argsort(axis=1).argsort(axis=1).ravel()
    at = [START + timedelta(days=i // (LISTS * SIZE), hours=i % (LISTS * SIZE) // SIZE) for i in range(n)]
    frame = pl.DataFrame(
        {
            "key": [f"k{i:05d}" for i in random.permutation(n)],
            "unit": [f"s{i // SIZE}" for i in range(n)],
            "event_at": at,
            "known_at": [each - timedelta(hours=1) for each in at],
            "x": x,
            "label": np.maximum(0.0, 2.0 - place),
            "label_known_at": [each + timedelta(hours=3) for each in at],
        }
    )
    return frame.sample(fraction=1.0, shuffle=True, seed=1)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists") / "snapshot.parquet"
    rows_of_lists().write_parquet(path)
    return path


def losses(relevance: Any, scores: Any) -> float:
    """1 - NDCG at 10 of one list, by scikit-learn."""
    return 1.0 - float(ndcg_score([relevance], [scores], k=10))


def named(frame: pl.DataFrame) -> dict[str, str]:
    return dict(zip(frame["key"], frame[LIST], strict=True))


def test_every_part_of_a_split_carries_the_list_of_each_row(snapshot: Path) -> None:
    split = split_rows(a_spec(), snapshot, NOW)
    rows = pl.read_parquet(snapshot)
    lists = dict(zip(rows["key"], rows["unit"], strict=True))
    folds = folds_of(a_spec(), split, a_spec().model.window)
    parts = [split.history, split.fit, split.holdout, *(part for pair in folds for part in pair)]
    assert len(parts) == 7
    for part in parts:
        assert named(part).items() <= lists.items()
        assert part.group_by(LIST).len()["len"].unique().to_list() == [SIZE], "whole lists"


def test_a_row_without_a_unit_is_a_list_of_its_own(tmp_path: Path) -> None:
    # Some units are called as the rows without one are.
    unit = pl.when(pl.col("x") > 0.5).then(pl.col("key").shuffle(seed=2)).when(pl.col("x") < -1).then(pl.lit(""))
    some = rows_of_lists().with_columns(unit=unit)
    some.write_parquet(tmp_path / "snapshot.parquet")
    history = split_rows(a_spec(), tmp_path / "snapshot.parquet", NOW).history
    alone = history.filter(pl.col("unit").is_null() | (pl.col("unit") == ""))
    assert alone.height > 100
    assert set(alone["key"]) & set(history["unit"]), "some names collide"
    assert history[LIST].is_in(alone[LIST].implode()).sum() == alone[LIST].n_unique() == alone.height
    assert history.filter(pl.col("unit") != "").select((pl.col(LIST) == pl.col("unit")).all()).item()


def test_without_a_unit_rows_of_one_request_are_one_list_and_no_other() -> None:
    recorded = pl.DataFrame(
        {
            "unit": [None, "", "r1", "k1", None, "r2", "r2"],
            "request_id": ["r1", "r1", "r2", "r2", "k1", "r2", "r3"],
            "key": ["k1", "k2", "k3", "k4", None, "k5", None],
        }
    )
    one, two, by_name, other, alone, *stood_in = with_lists(TASK, recorded)[LIST]
    assert one == two
    assert stood_in == ["r2", "r2"], "serving records the request as unit"
    assert len({one, by_name, other, alone, "r2"}) == 5
    assert (by_name, other) == ("r1", "k1")
    assert None not in (one, alone)


@pytest.mark.slow
def test_a_run_is_scored_list_by_list(snapshot: Path, tmp_path: Path) -> None:
    result = train(TrainingRequest(spec=a_spec(), snapshot=snapshot, seed=7, now=NOW, out=tmp_path))
    rows = pl.read_parquet(snapshot)
    lists = dict(zip(rows["key"], rows["unit"], strict=True))
    for name in ("holdout.parquet", "validated.parquet"):
        kept = pl.read_parquet(tmp_path / name)
        assert named(kept).items() <= lists.items()
    each = [losses(*part) for part in of_lists(pl.read_parquet(tmp_path / "holdout.parquet"), "label", "candidate")]
    assert len(each) == 6 * LISTS
    assert result.metrics["ndcg_10"] == pytest.approx(1 - np.mean(each))
    trivial, linear = (baseline.metrics["ndcg_10"] for baseline in result.baselines)
    assert trivial < linear


def of_lists(frame: pl.DataFrame, *columns: str) -> list[tuple[np.ndarray, ...]]:
    parts = frame.partition_by(LIST, maintain_order=True)
    return [tuple(part[name].to_numpy() for name in columns) for part in parts]


def a_holdout(days: int = 4, seed: int = 2) -> pl.DataFrame:
    """Lists of one to seven rows that are called the same on every day; the candidate orders better."""
    random = np.random.default_rng(seed)
    sizes = [int(size) for size in random.integers(1, 8, size=days * 5)]
    of = [f"s{number % 5}" for number, size in enumerate(sizes) for _ in range(size)]
    day = [number // 5 for number, size in enumerate(sizes) for _ in range(size)]
    label = random.integers(0, 3, size=len(of)).astype(np.float64)
    return pl.DataFrame(
        {
            "key": [f"k{i}" for i in range(len(of))],
            LIST: of,
            "event_at": [START + each * DAY for each in day],
            "label": label,
            "candidate": label + random.normal(scale=0.5, size=len(of)),
            "live": label + random.normal(scale=2.0, size=len(of)),
        }
    )


def windowed(frame: pl.DataFrame) -> Window:
    roles = {"label": Role.LABEL, "candidate": Role.OUTPUT}
    return Window(blocks=tuple(blocks_of("UTC", frame)), roles=roles, facts={"task": TASK})


def differences(frame: pl.DataFrame) -> list[tuple[int, float]]:
    """By day and list: rows, and by how much more the live version loses than the candidate."""
    found = []
    for day in frame.partition_by("event_at", maintain_order=True):
        for label, candidate, live in of_lists(day, "label", "candidate", "live"):
            is_ordered = label.any() and len(label) > 1
            apart = losses(label, candidate) - losses(label, live) if is_ordered else 0.0
            found.append((len(label), apart if is_ordered else (0.0 if label.any() else np.nan)))
    return found


@pytest.mark.slow
def test_a_comparison_of_two_orders_is_that_of_their_lists() -> None:
    holdout = a_holdout()
    by_list = differences(holdout)
    worse, low, high, rows = gates.compare(TASK, windowed(holdout), "ndcg_10", "candidate", "live")
    assert worse == pytest.approx(np.nanmean([apart for _, apart in by_list])), "a list counts once"
    assert (low < worse < high, rows) == (True, holdout.height)
    worse, low, high, rows = gates.compare(TASK, windowed(holdout), "ndcg_10_loss", "candidate", "live")
    sizes, apart = (np.array(each) for each in zip(*by_list, strict=True))
    assert worse == pytest.approx(np.average(np.nan_to_num(apart), weights=sizes)), "a list counts by its rows"
    assert low < worse < high


@pytest.mark.slow
def test_rows_without_a_label_are_left_out_of_their_list() -> None:
    holdout = a_holdout().with_columns(label=pl.when(pl.int_range(pl.len()) % 3 > 0).then("label"))
    known = holdout.filter(pl.col("label").is_not_null())
    found = gates.compare(TASK, windowed(holdout), "ndcg_10", "candidate", "live")
    assert found == gates.compare(TASK, windowed(known), "ndcg_10", "candidate", "live")
    assert found[3] == known.height < holdout.height


def test_quality_of_days_whose_lists_are_called_the_same_mixes_none() -> None:
    holdout = a_holdout()
    [reading] = Quality(metric="ndcg_10").measure(windowed(holdout))
    each = []
    for day in holdout.partition_by("event_at"):
        each += [losses(y, p) for y, p in of_lists(day, "label", "candidate") if y.any() and len(y) > 1]
        each += [0.0 for y, _ in of_lists(day, "label", "candidate") if y.any() and len(y) == 1]
    assert reading.value == pytest.approx(1 - np.mean(each))
    assert reading.low < reading.value < reading.high
    assert reading.rows == holdout.height


@pytest.mark.slow
def test_days_that_are_alike_have_no_interval_but_a_point() -> None:
    one = a_holdout(1)
    alike = pl.concat([one.with_columns(event_at=START + day * DAY) for day in range(3)])
    [alone], [reading] = (Quality(metric="map").measure(windowed(frame)) for frame in (one, alike))
    assert reading.value == pytest.approx(alone.value)
    assert (reading.low, reading.high) == pytest.approx((alone.value, alone.value)), "also of a day drawn twice"


def day_of_answers(frame: pl.DataFrame) -> Block:
    """One day of recorded rows that the live version answered."""
    rows = frame.with_columns(version=pl.lit("1"), stage=pl.lit("live"), score="live")
    return Block(START.date(), START, START + DAY, lambda: rows)


def test_a_release_folds_the_losses_of_lists_within_their_bounds() -> None:
    day = a_holdout(1)
    release = Release(
        system="offers", id="rel-1", state="shadow", run="run-2", version="2", against="1", at=START, cause="a test"
    )
    score = {"1": "live", "2": "candidate"}
    folded = releases.fold(
        release, day_of_answers(day), TASK, a_spec().release, lambda version, rows: rows[score[version]], "score"
    )
    sizes, apart = (np.array(each) for each in zip(*differences(day), strict=True))
    judged = ~np.isnan(apart)
    sizes, apart = sizes[judged], apart[judged]
    found = folded.comparison
    assert found.mean == pytest.approx(np.average(apart, weights=sizes))
    assert found.lowest <= found.mean <= found.highest
    assert (found.blocks, found.rows) == (1, day.height)
    bounds = [
        TASK.loss_bounds("ndcg_10_loss", candidate, live)[0][0]
        for candidate, live in of_lists(day, "candidate", "live")
    ]
    lowest = np.average(np.array(bounds)[judged], weights=sizes)
    assert found.lowest == pytest.approx(lowest), "each list is bounded by itself"


def test_a_day_on_which_nothing_is_relevant_is_no_evidence() -> None:
    day = a_holdout(1).with_columns(label=pl.lit(0.0))
    release = Release(
        system="offers", id="rel-1", state="shadow", run="run-2", version="2", against="1", at=START, cause="a test"
    )
    score = {"1": "live", "2": "candidate"}
    folded = releases.fold(
        release, day_of_answers(day), TASK, a_spec().release, lambda version, rows: rows[score[version]], "score"
    )
    assert (folded.comparison.blocks, folded.comparison.not_worse) == (0, release.comparison.not_worse)


def test_a_version_that_gives_no_number_is_told() -> None:
    day = a_holdout(1)
    release = Release(
        system="offers", id="rel-1", state="shadow", run="run-2", version="2", against="1", at=START, cause="a test"
    )

    def score(version: str, rows: pl.DataFrame) -> np.ndarray:
        found = rows["live"].to_numpy().copy()
        found[0] = np.nan if version == "2" else found[0]
        return found

    with pytest.raises(releases.CannotAnswer, match="version 2 has no finite answer to 1 rows"):
        releases.fold(release, day_of_answers(day), TASK, a_spec().release, score, "score")


@pytest.fixture
def dailies(lake: MemoryLake) -> Callable[[pl.DataFrame], Dailies]:
    def make(frame: pl.DataFrame) -> Dailies:
        signature = Signature(columns=(Column(name="x", type="number"),), task="ranking", output="score")
        facts = {"edges": {}, "signature": signature}
        blocks = tuple(blocks_of("UTC", frame.with_columns(score="live", x=pl.col("live"))))
        reference = Reference(version="1", blocks=blocks, facts=facts, promised={})
        live = LivePredictions(a_spec(), lake, "score")
        return Dailies(TASK, reference, live, "ndcg_10_loss", START + 10 * DAY)

    return make


def test_a_sample_of_rows_has_the_losses_of_whole_lists(dailies: Callable[[pl.DataFrame], Dailies]) -> None:
    frame = a_holdout(6)
    made = dailies(frame)
    every, some = made.sample(made.days, most=10_000, seed=1), made.sample(made.days, most=25, seed=1)
    assert every.loss.size == frame.height
    assert 15 < some.loss.size < 35 < frame.height
    whole = dict(zip(zip(every.day, every.columns["x"], strict=True), every.loss, strict=True))
    assert [whole[each] for each in zip(some.day, some.columns["x"], strict=True)] == some.loss.tolist()
    assert len(set(every.loss)) > 5


def write_offers(folder: Path, clicked: Callable[[int], float], searches: Callable[[int], str | None]) -> Path:
    n = 400
    at = [START + timedelta(hours=i) for i in range(n)]
    offers = {
        "id": [f"o{i}" for i in range(n)],
        "search": [searches(i) for i in range(n)],
        "at": at,
        "x": [float(i % 13) for i in range(n)],
    }
    pl.DataFrame(offers).write_parquet(folder / "offers.parquet")
    ends = {"id": offers["id"], "ended_at": [each + timedelta(hours=3) for each in at]}
    pl.DataFrame(ends | {"clicked": [clicked(i) for i in range(n)]}).write_parquet(folder / "ends.parquet")
    return folder


def by_fours(i: int) -> str:
    return f"q{i // 4}"


def test_a_draft_with_lists_orders_rows_and_takes_none_of_what_asks_for_probabilities(tmp_path: Path) -> None:
    folder = write_offers(tmp_path, lambda i: i % 3, lambda i: by_fours(i) if i < 396 else f"r{i}")
    drafted = draft(folder, label="ends.clicked", lists="search")
    spec = drafted.spec
    assert (spec.task, spec.data.unit, set(spec.data.columns)) == ("ranking", "search", {"x"})
    assert spec.data.label.classes == ()
    assert (spec.release.decide.loss, spec.release.decide.margin) == ("ndcg_10_loss", 0.01)
    assert [gate.check for gate in spec.gates] == ["quality", "quality", "drift"]
    watched = {monitor.options["metric"] for monitor in spec.monitors if monitor.check == "quality"}
    assert watched == {"ndcg_10_loss"}, "of other metrics nothing is promised"
    assert any(
        "103 lists of 3.9 rows on average, 4 the longest, 4 of them with one row only" in note for note in drafted.notes
    )
    assert parse_spec(dump_spec(spec, drafted.comments)) == spec


def test_what_a_draft_of_lists_leaves_to_look_at_is_said(tmp_path: Path) -> None:
    folder = write_offers(tmp_path, lambda i: i % 3, lambda i: [None, "", by_fours(i)][min(i // 5, 2)])
    drafted = draft(folder, label="ends.clicked", lists="search")
    assert "10 of 400 rows have no search: each is a list of its own" in drafted.notes
    assert "one row only\n10 of 400 rows" in drafted.comments["data.unit"]
    assert drafted.warnings == ()


@pytest.mark.parametrize(("timezone", "warned"), [("UTC", False), ("America/New_York", True)])
def test_lists_that_come_on_several_days_are_users_rather_than_searches(
    tmp_path: Path, timezone: str, warned: bool
) -> None:
    folder = write_offers(tmp_path, lambda i: i % 3, lambda i: f"u{i // 24}")
    warnings = draft(folder, label="ends.clicked", lists="search", timezone=timezone).warnings
    said = "17 of 17 values of search come on more than one day: a list is one search, not one user"
    assert any(said in each for each in warnings) == warned, warnings


def test_a_label_that_is_never_zero_is_warned_of(tmp_path: Path) -> None:
    folder = write_offers(tmp_path, lambda i: i % 3 + 1, by_fours)
    [warning] = draft(folder, label="ends.clicked", lists="search").warnings
    assert "no clicked is 0" in warning
    assert "what was shown and not chosen needs a label of 0" in warning


def test_a_label_of_zero_and_one_is_relevance_too(tmp_path: Path) -> None:
    folder = write_offers(tmp_path, lambda i: i % 4 == 0, by_fours)
    assert draft(folder, label="ends.clicked", lists="search").spec.task == "ranking"
    assert draft(folder, label="ends.clicked").spec.task == "classification"


@pytest.mark.parametrize(
    ("clicked", "searches", "lists", "said"),
    [
        (lambda i: i % 3, by_fours, "serach", ["no column 'serach' of lists", "did you mean 'search'?"]),
        (lambda i: i % 3, by_fours, "id", ["no column 'id' of lists"]),
        (lambda i: i % 3, lambda i: f"q{i}", "search", ["'search' is another one in every row", "rows that share it"]),
        (lambda i: i % 3, lambda i: f"q{i}" if i % 2 else None, "search", ["'search' is another one in every row"]),
        (
            lambda i: 1,
            by_fours,
            "search",
            ["label 'clicked' does not vary; nothing can be ordered by it; what was shown"],
        ),
        (lambda i: ["no", "yes"][i % 2], by_fours, "search", ["is text ('no', 'yes')", "relevance is a number"]),
        (lambda i: f"class {i % 4}", by_fours, "search", ["is text ('class 0', ", "relevance is a number"]),
        (lambda i: i % 3 - 1, by_fours, "search", ["label 'clicked' is below 0", "0 (not relevant) or more"]),
    ],
)
def test_lists_that_cannot_be_are_refused_with_what_is_wrong(
    tmp_path: Path, clicked: Any, searches: Any, lists: str, said: Sequence[str]
) -> None:
    folder = write_offers(tmp_path, clicked, searches)
    with pytest.raises(DataError) as caught:
        draft(folder, label="ends.clicked", lists=lists)
    assert [words for words in said if words not in str(caught.value)] == [], str(caught.value)


FILE = """\
system: offers
data:
  feeds:
    offers: {from: offers.parquet, event_at: at, known_at: at, key: id}
    ends: {from: ends.parquet, known_at: ended_at, key: id}
  rows: offers
  key: id
  unit: search
  label: {feed: ends, column: clicked, known_at: ended_at}
  columns:
    x: number
model:
  task: ranking
gates:
  - {check: quality, metric: ndcg_10, at_least: 0.5}
release:
  steps: [live]
  decide: {loss: ndcg_10_loss, margin: 0.01}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "  unit: search\n",
            "",
            "data.unit: is required with 'ranking': the column that says which list a row is in",
        ),
        (
            "{check: quality, metric: ndcg_10, at_least: 0.5}",
            "{check: calibration, at_most: 0.1}",
            "gates[0].check: 'calibration' is about single answers; 'ranking' orders them",
        ),
        (
            "release:",
            "monitors: [{check: estimated_quality}]\nrelease:",
            "monitors[0].check: 'estimated_quality' is about single answers; 'ranking' orders them",
        ),
        (
            "release:",
            "monitors: [{check: freshness}, {check: calibration, window: 7d}]\nrelease:",
            "monitors[1].check: 'calibration' is about single answers",
        ),
        ("metric: ndcg_10,", "metric: ndcg_11,", "did you mean 'ndcg_1"),
        (
            "release:",
            "monitors: [{check: freshness}, {check: quality, metric: ndcg_10}]\nrelease:",
            "monitors[1].metric: a version promises nothing of 'ndcg_10', so without a limit this could never say "
            "whether it is good: state at_least, or watch what is promised: ndcg_loss, ndcg_10_loss, rr_loss",
        ),
        (
            "release:",
            "monitors: [{check: quality, metric: irrelevant_lists}]\nrelease:",
            "monitors[0].metric: a version promises nothing of 'irrelevant_lists', so without a limit this could never "
            "say whether it is good: state at_most, or",
        ),
        ("loss: ndcg_10_loss", "loss: ndcg_10", "ranking has no loss 'ndcg_10'; did you mean 'ndcg_10_loss'?"),
        ("known_at: ended_at}\n  col", "known_at: ended_at, classes: [a, b, c]}\n  col", "is not about classes"),
    ],
)
def test_what_lists_cannot_have_is_refused(old: str, new: str, said: str) -> None:
    assert FILE.count(old) == 1
    with pytest.raises(SpecError) as caught:
        parse_spec(FILE.replace(old, new))
    assert said in str(caught.value)


def test_answers_of_elsewhere_come_without_lists() -> None:
    elsewhere = FILE[: FILE.index("model:")].replace("  unit: search\n", "").replace("rows: offers", "rows: log")
    elsewhere = (
        elsewhere.replace("offers: {from", "log: {from") + "predictions: {task: ranking, reference: {first: 60d}}\n"
    )
    with pytest.raises(SpecError) as caught:
        parse_spec(elsewhere)
    [said] = str(caught.value).splitlines()[-1:]
    assert "predictions.task: answers of a model that is served elsewhere come row by row, without the list" in said
    assert "log what became of the first place as 'classification'" in said


@pytest.mark.parametrize("monitor", ["metric: ndcg_10, at_least: 0.5", "metric: map, at_least: 0", "metric: rr_loss"])
def test_a_monitor_with_a_limit_or_a_promise_is_accepted(monitor: str) -> None:
    spec = parse_spec(FILE.replace("release:", f"monitors: [{{check: quality, {monitor}}}]\nrelease:"))
    assert len(spec.monitors) == 1


@pytest.mark.parametrize("metric", Regression.errors)
def test_of_regressions_errors_are_promised(metric: str) -> None:
    file = FILE.replace("task: ranking", "task: regression").replace("ndcg_10_loss", "absolute_error")
    file = file.replace("ndcg_10,", "mae,")
    watched = parse_spec(file.replace("release:", f"monitors: [{{check: quality, metric: {metric}}}]\nrelease:"))
    assert watched.monitors[0].options == {"metric": metric}
    with pytest.raises(SpecError, match=r"promises nothing of 'r2', .* state at_least, or .* promised: mae, rmse"):
        parse_spec(file.replace("release:", "monitors: [{check: quality, metric: r2}]\nrelease:"))


def test_a_ranking_is_accepted_with_its_lists_losses_and_metrics() -> None:
    assert parse_spec(FILE).task == "ranking"
    assert (
        parse_spec(FILE.replace("ndcg_10_loss", "rr_loss").replace("ndcg_10", "map")).release.decide.loss == "rr_loss"
    )
