"""``holdfast predict`` in this process, on a small trained system."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from holdfast.cli.app import main
from holdfast.errors import AlreadyRunning
from holdfast.flow.registry import get_version
from holdfast.scoring.batch import FileScoring, Scored
from holdfast.scoring.partial import Plan, folder_of, partial
from holdfast.state import open_state
from holdfast.testing import refused

pytestmark = pytest.mark.slow

Call = Callable[..., tuple[int, str, str]]

INTERRUPTED_AGAIN = """
import os, signal
from holdfast.cli import predict
from holdfast.cli.app import main
from holdfast.scoring import batch, chunks

chunks.CHUNK_BYTES = 5_000
write, shutdown = batch.FileScoring._write, batch.ThreadPoolExecutor.shutdown

def interrupted(self, scored):
    write(self, scored)
    os.kill(os.getpid(), signal.SIGINT)

def interrupted_again(self, *arguments, **settings):
    os.kill(os.getpid(), signal.SIGINT)
    shutdown(self, *arguments, **settings)

batch.FileScoring._write, batch.ThreadPoolExecutor.shutdown = interrupted, interrupted_again
predict._Bar.stop = lambda bar: os.kill(os.getpid(), signal.SIGINT)
main()
"""
"""A program that is interrupted after its first chunk, again while its threads are waited for, and again before it
says so and as it ends."""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], deployed: Path) -> Call:
    """Runs `holdfast predict ARGUMENTS` where the feeds lie; gives exit code, standard output and standard error."""
    monkeypatch.chdir(deployed)

    def made(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["holdfast", "predict", *map(str, arguments), "--state", "state"])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return made


def test_the_result_holds_what_the_live_version_answers(call: Call, deployed: Path) -> None:
    code, out, err = call("--in", "orders.parquet", "--out", "scores.csv")
    assert code == 0, err
    assert "2,400 of 2,400 rows scored by version 2 of 'orders'" in out
    orders, scores = pl.read_parquet("orders.parquet"), pl.read_csv("scores.csv")
    assert scores.columns == ["row", "id", "probability", "outside", "version"]
    assert scores["id"].equals(orders["id"])
    state = open_state(deployed / "state")
    with state.catalog.read() as tx:
        model = state.model(get_version(tx, "orders", "2"))
    assert np.array_equal(scores["probability"].to_numpy(), model.predict_frame(orders))
    assert state.lake.scan("predictions", "orders").is_empty(), "recorded, though nobody asked for it"
    state.close()


def test_a_version_can_be_named_and_its_near_miss_is(call: Call) -> None:
    assert json.loads(call("--in", "orders.parquet", "--out", "s.csv", "--version", 1, "--json")[1])["version"] == "1"
    code, _, err = call("--in", "orders.parquet", "--out", "t.csv", "--version", 12)
    assert (code, "no version '12'; did you mean '" in err) == (1, True)


def test_recorded_rows_are_of_stage_batch_and_count_once_however_often(call: Call, deployed: Path) -> None:
    for out in ("a.ndjson", "b.ndjson"):
        code, said, err = call("--in", "orders.parquet", "--out", out, "--record", "--json")
        assert code == 0, err
    request_id = json.loads(said)["request_id"]
    shutil.copy("orders.parquet", "copy.parquet")
    assert (
        json.loads(call("--in", "copy.parquet", "--out", "c.csv", "--record", "--json")[1])["request_id"] == request_id
    )
    state = open_state(deployed / "state")
    found = state.lake.scan("predictions", "orders").sort("row")
    state.close()
    assert found["prediction_id"].to_list() == [f"{request_id}:{row}" for row in range(2400)]
    assert set(found["stage"]) == {"batch"}
    orders = pl.read_parquet("orders.parquet")
    assert found["event_at"].equals(orders["at"].cast(pl.Datetime("us", "UTC")).rename("event_at"))
    assert found["key"].equals(orders["id"].rename("key"))


def test_recording_needs_the_time_of_each_event(call: Call) -> None:
    orders = pl.read_parquet("orders.parquet")
    orders.drop("at").write_csv("rows.csv")
    code, _, err = call("--in", "rows.csv", "--out", "s.csv", "--record")
    assert (code, "no column 'at'" in err) == (4, True)
    assert call("--in", "rows.csv", "--out", "s.csv", "--record", "--event-at", "listed_at")[0] == 0


def test_a_row_that_does_not_fit_stops_the_run_and_names_itself(call: Call) -> None:
    orders = pl.read_parquet("orders.parquet").with_columns(pl.col("load").cast(pl.String))
    orders[1700, "load"] = "heavy"
    orders.write_csv("rows.csv")
    code, _, err = call("--in", "rows.csv", "--out", "s.csv")
    assert code == 4
    assert "rows.csv: row 1700 (from 0), column 'load': 'heavy' is not a number; expected a number or null" in err
    assert "--bad-rows FILE" in err
    assert not Path("s.csv").exists()
    code, out, err = call("--in", "rows.csv", "--out", "s.csv", "--bad-rows", "bad.ndjson")
    assert code == 0, err
    assert "1 row set aside as unfit in bad.ndjson" in out
    (bad,) = map(json.loads, Path("bad.ndjson").read_text().splitlines())
    assert (bad["row"], bad["column"], bad["values"]["load"]) == (1700, "load", "heavy")
    scores = pl.read_csv("s.csv")
    assert sorted([*scores["row"].to_list(), 1700]) == list(range(2400))


def test_a_file_that_lacks_an_input_column_is_refused_with_the_near_miss(call: Call) -> None:
    pl.read_parquet("orders.parquet").rename({"distance": "distanze"}).write_parquet("rows.parquet")
    code, _, err = call("--in", "rows.parquet", "--out", "s.csv")
    assert (code, "no column 'distance'" in err, "did you mean 'distanze'?" in err) == (4, True, True)


def test_a_file_without_a_near_miss_is_refused_with_all_of_its_columns(call: Call) -> None:
    orders = pl.read_parquet("orders.parquet").drop("distance")
    orders.write_csv("rows.csv")
    code, _, err = call("--in", "rows.csv", "--out", "s.csv")
    assert (code, f"; its columns: {', '.join(orders.columns)}" in err) == (4, True), err


def test_places_that_cannot_work_are_refused_before_anything_is_read(call: Call) -> None:
    for rows, out, words in (
        ("orders.parquet", "orders.parquet", "must be different files"),
        ("orders.parquet", "none/s.csv", "there is no folder"),
        ("orders.parquet", "s.xlsx", "ends in .parquet, .csv, .ndjson"),
    ):
        code, _, err = call("--in", rows, "--out", out)
        assert (code, words in err) == (8, True), err


def test_a_result_that_is_there_is_not_replaced_unasked(call: Call) -> None:
    Path("kept.csv").write_text("mine")
    for given in (("--out", "kept.csv"), ("--out", "s.csv", "--bad-rows", "kept.csv")):
        code, _, err = call("--in", "orders.parquet", *given)
        assert (code, "kept.csv is already there; name another file, or replace it with --restart" in err) == (8, True)
    assert Path("kept.csv").read_text() == "mine"
    assert call("--in", "orders.parquet", "--out", "kept.csv", "--restart")[0] == 0
    assert pl.read_csv("kept.csv").height == 2400


def test_an_input_that_is_not_there_cannot_be_read(call: Call) -> None:
    code, _, err = call("--in", "none.csv", "--out", "s.csv")
    assert (code, "there is no file none.csv" in err) == (3, True), err


def test_interrupts_again_and_again_stop_it_once_and_it_goes_on(deployed: Path) -> None:
    orders = pl.read_parquet(deployed / "orders.parquet")
    orders.write_csv(deployed / "rows.csv")
    argv = [sys.executable, "-c", INTERRUPTED_AGAIN, "predict", "--in", "rows.csv", "--out", "s.csv", "--threads", "2"]
    done = subprocess.run([*argv, "--state", "state"], cwd=deployed, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr.count("stopped after") == len(done.stderr.splitlines()) == 1, done.stderr
    again = [sys.executable, "-m", "holdfast", *argv[3:], "--state", "state"]
    done = subprocess.run(again, cwd=deployed, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "2,400 of 2,400 rows" in done.stdout


def test_whatever_stops_the_writing_no_generator_is_left_open(deployed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    scored = FileScoring._scored

    def watched(self: FileScoring, start: int) -> Generator[Scored]:
        try:
            yield from scored(self, start)
        finally:
            ended.append(start)

    def stop(self: FileScoring, scored: Scored) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(deployed)
    monkeypatch.setattr(FileScoring, "_scored", watched)
    monkeypatch.setattr(FileScoring, "_write", stop)
    argv = ["holdfast", "predict", "--in", "orders.parquet", "--out", "s.csv", "--state", "state"]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as left:
        main()
    assert (left.value.code, ended) == (130, [0])


def test_a_run_that_was_begun_otherwise_is_not_gone_on_with(call: Call, deployed: Path) -> None:
    given, stated = ("--in", "orders.parquet", "--out", "s.csv"), folder_of(deployed / "s.csv") / "run.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.cli.predict.FileScoring.run", interrupted)
        assert call(*given)[0] == 130
    begun = msgspec.json.decode(stated.read_bytes(), type=Plan)
    for changed, words in (
        (msgspec.structs.replace(begun, version="1"), "add --version 1"),
        (msgspec.structs.replace(begun, sha256="other"), "another content of the input"),
        (msgspec.structs.replace(begun, recorded=True), "begun with --record"),
        (msgspec.structs.replace(begun, output="parquet"), "other settings"),
    ):
        stated.write_bytes(msgspec.json.encode(changed))
        code, _, err = call(*given)
        assert (code, words in err) == (8, True), err
    assert call(*given, "--restart")[0] == 0
    assert not stated.exists()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_result_is_written_by_one_process_at_a_time(deployed: Path) -> None:
    plan = Plan(
        input="rows.csv",
        sha256="",
        size_bytes=0,
        system="orders",
        version="1",
        artifact="",
        output="csv",
        recorded=False,
    )
    with (
        partial(deployed / "s.csv", plan),
        refused(AlreadyRunning, "by another process"),
        partial(deployed / "s.csv", plan),
    ):
        pass


def test_a_run_killed_between_its_end_and_its_last_step_is_ended_by_the_next_call(call: Call, deployed: Path) -> None:
    """All is written and counted, and one of the two results moved, when it dies."""
    orders = pl.read_parquet("orders.parquet").with_columns(pl.col("load").cast(pl.String))
    orders[5, "load"] = "heavy"
    orders.write_csv("rows.csv")
    given = ("--in", "rows.csv", "--out", "s.csv", "--bad-rows", "bad.ndjson", "--json")
    assert call(*given)[0] == 0
    whole, bad = Path("s.csv").read_bytes(), Path("bad.ndjson").read_bytes()
    Path("s.csv").unlink()
    Path("bad.ndjson").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.scoring.partial.shutil.rmtree", interrupted)
        code, _, err = call(*given)
    assert (code, "the same command goes on there" in err) == (130, True)
    code, out, err = call(*given)
    assert code == 0, err
    assert json.loads(out)["bad"] == 1
    assert (Path("s.csv").read_bytes(), Path("bad.ndjson").read_bytes()) == (whole, bad)
    assert not folder_of(deployed / "s.csv").exists()


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_the_result_does_not_depend_on_how_many_chunks_are_scored_at_once(
    call: Call, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.scoring.chunks.CHUNK_BYTES", 20_000)
    monkeypatch.setattr("holdfast.scoring.chunks.CHUNK_VALUES", 1)
    orders = pl.read_parquet("orders.parquet").with_columns(pl.col("load").cast(pl.String))
    for row in (1, 700, 701, 2399):
        orders[row, "load"] = "heavy"
    frame = orders if kind != "parquet" else orders.with_columns(pl.col("load").cast(pl.Float64, strict=False))
    getattr(frame, f"write_{kind}")(f"rows.{kind}")
    results = []
    for threads in (1, 4):
        out, bad = f"s{threads}.{kind}", f"bad{threads}.ndjson"
        code, _, err = call("--in", f"rows.{kind}", "--out", out, "--bad-rows", bad, "--threads", threads)
        assert code == 0, err
        results.append((Path(out).read_bytes(), Path(bad).read_bytes() if Path(bad).exists() else b""))
    assert results[0] == results[1]
    assert results[0][1].count(b"heavy") in (0, 8)


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_a_file_without_rows_gives_a_result_without_rows(call: Call, kind: str) -> None:
    rows = pl.read_parquet("orders.parquet").head(0)
    getattr(rows, f"write_{kind}")(f"rows.{kind}")
    assert call("--in", f"rows.{kind}", "--out", f"s.{kind}")[0] == 0
    if kind != "ndjson":
        assert getattr(pl, f"read_{kind}")(f"s.{kind}").columns == ["row", "id", "probability", "outside", "version"]
    assert Path(f"s.{kind}").exists()
