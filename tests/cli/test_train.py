"""``holdfast train`` and ``holdfast ingest`` in this process, on a small system."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.cli.app import main
from holdfast.cli.train import _refusal
from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.records import Release, Run
from holdfast.testing import START

pytestmark = pytest.mark.slow

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Runs `holdfast ARGUMENTS` on a state of its own; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def made(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["holdfast", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return made


def test_a_training_prints_the_candidate_beside_its_baselines(call: Call, small, tmp_path: Path) -> None:
    small.write_feeds(tmp_path)
    small.write_file(tmp_path)
    code, out, err = call("train")
    assert code == 0, err
    lines = [line.split() for line in out.splitlines() if line]
    assert lines[0][-3:] == ["candidate", "trivial", "linear"]
    losses = next(line[1:] for line in lines if line[0] == "log_loss")
    assert all(0 < float(loss) < 1 for loss in losses)
    assert len(losses) == 3
    assert "rel-1: version 1 live: first release: nothing is live to compare with" in out
    code, out, _ = call("train", "--json")
    assert json.loads(out)["release"]["state"] == "live"


def test_a_refused_candidate_ends_with_6(call: Call, small, tmp_path: Path) -> None:
    small.write_feeds(tmp_path)
    small.write_file(tmp_path, least=0.99)
    code, out, err = call("train")
    assert code == 6
    assert err.splitlines()[-1] == "error: run-1 was not released: it did not pass quality.roc_auc"
    assert "rejected" not in err
    (verdict,) = [line for line in out.splitlines() if " fail " in line]
    assert (out + err).count(verdict.split(" fail ")[1].strip()) == 1
    assert "no versions" in call("models")[1]


def test_a_failed_training_ends_with_7_and_why(call: Call, small, tmp_path: Path) -> None:
    small.write_feeds(tmp_path)
    small.write_file(tmp_path)
    few = pl.read_parquet(tmp_path / "ends.parquet").head(30)
    few.write_parquet(tmp_path / "ends.parquet")
    code, _, err = call("train")
    assert code == 7
    assert err.count("too few labelled rows") == 1


def test_a_model_that_does_not_beat_the_linear_one_is_told_what_to_try(call: Call, small, tmp_path: Path) -> None:
    small.write_feeds(tmp_path)
    path = small.write_file(tmp_path)
    text = path.read_text().replace("trainer: linear, params: {l2: 1.0}", "trainer: lightgbm, params: {trees: 1}")
    path.write_text(text)
    code, _, err = call("train")
    assert code == 6
    assert "it did not pass linear" in err
    assert "try `trainer: linear` in holdfast.yaml" in err


def test_a_broken_expectation_is_told_once_with_the_reasons_and_is_gone_once_corrected(
    call: Call, small, tmp_path: Path
) -> None:
    small.write_feeds(tmp_path)
    path = small.write_file(tmp_path)
    orders = pl.read_parquet(tmp_path / "orders.parquet")
    since = pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.col("at") - pl.duration(days=900)).alias("customer_since")
    orders.with_columns(since).write_parquet(tmp_path / "orders.parquet")
    right = path.read_text()
    path.write_text(right.replace("event_at: at,", "event_at: customer_since,"))
    code, out, err = call("train")
    assert code == 7
    assert (out + err).count("800 of 2400 rows (33.3%) are in quarantine") == 1
    assert "error:   quarantine of orders: 800 rows: customer_since is missing" in err
    assert "pass:" not in err
    _, out, _ = call("ingest")
    assert "quarantine of orders, so far: 800 rows: customer_since is missing" in out
    path.write_text(right)
    assert call("train")[0] == 0
    assert "quarantine" not in call("ingest")[1].partition("\n")[2]


def test_ingest_says_what_was_set_aside_and_why(call: Call, small, tmp_path: Path) -> None:
    small.write_feeds(tmp_path)
    small.write_file(tmp_path)
    orders = pl.read_parquet(tmp_path / "orders.parquet")
    orders.with_columns(pl.when(pl.int_range(pl.len()) > 2).then("id").alias("id")).write_parquet(
        tmp_path / "orders.parquet"
    )
    code, out, _ = call("ingest")
    assert code == 0
    assert "orders  1          2,400      2,397  3" in out
    assert "quarantine of orders, so far: 3 rows:" in out
    _, out, _ = call("ingest", "--json")
    assert json.loads(out)["feeds"]["orders"]["rows_read"] == 0
    assert json.loads(out)["quarantine"] == {"orders": {"id is missing": 3}}


def test_a_candidate_that_is_worse_by_chance_is_told_of_the_margin() -> None:
    from_live = Reading(name="log_loss_worse_than_live", value=0.0001, low=-0.001, high=0.001, rows=2_100)
    hair = Verdict(grade=Grade.FAIL, check="quality", reading=from_live, why="worse", monitor="quality.log_loss.live")
    release = Release(
        system="orders", id="rel-2", run="run-2", state="rejected", cause="asked", at=START, evidence=(hair,)
    )
    run = Run(system="orders", id="run-2", snapshot="s", trainer="linear", seed=0, started_at=START)
    said = _refusal(release, run, Path("holdfast.yaml"))
    assert "by quality.log_loss.live it is worse by no more than chance explains: `margin` of that gate" in said
    sure = replace(hair, reading=replace(from_live, low=0.00005))
    assert "margin" not in _refusal(replace(release, evidence=(sure,)), run, Path("holdfast.yaml"))
