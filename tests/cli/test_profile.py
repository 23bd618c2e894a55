"""``holdfast profile`` on a small trained state: nothing is asserted about how long anything takes."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from holdfast.cli.app import main
from holdfast.core.answerer import Answerer
from holdfast.core.clock import SystemClock
from holdfast.core.inputs import read_frame
from holdfast.core.protocols import PREDICTIONS
from holdfast.core.records import Version
from holdfast.core.signature import Signature
from holdfast.core.specfile import read_spec
from holdfast.core.times import microseconds
from holdfast.observe.metrics import Metrics
from holdfast.observe.metricsfiles import publish
from holdfast.presence import write_presence
from holdfast.profiling import measuring
from holdfast.serve.recording import Recorder, RowMeta
from holdfast.state import open_state, put_in_force

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Runs `holdfast profile ARGUMENTS`; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "REPEATS", 2)

    def made(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["holdfast", "profile", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return made


def record(directory: Path, rows: int) -> None:
    """Answers of the live version to orders, the same 100 again and again, in requests of one row."""
    state, now = open_state(directory / "state"), SystemClock().now()
    with state.catalog.read() as tx:
        (version,) = [found for found in tx.find(Version, "orders") if found.id == "2"]
    model = state.model(version)
    orders = pl.read_parquet(directory / "orders.parquet").head(100)
    chosen = np.arange(rows) % 100
    typed = read_frame(model.signature, orders).take(chosen)
    by = Answerer(
        system="orders", version="2", stage="live", release="", signature=model.signature,
        signature_hash=model.signature.hash(),
    )  # fmt: skip
    meta = RowMeta(
        request_id=[f"r{i}" for i in range(rows)],
        predicted_at=microseconds(now - timedelta(hours=1)) + np.arange(rows),
        key=[orders["id"][int(i)] for i in chosen],
    )
    recorder = Recorder(state.lake.writer)
    recorder.record_predictions(by, typed, model.predict(typed), meta, queue_us=np.zeros(rows), run_us=1.0)
    recorder.close()
    state.close()


@pytest.mark.slow
def test_the_hold_out_is_sent_where_nothing_was_recorded(call: Call, trained: Path) -> None:
    code, out, _ = call("orders", "--state", trained / "state")
    assert code == 0
    assert "orders version 2, live: linear, runtime" in out
    assert "of the hold-out, because too few were recorded" in out
    for part in ("head and body", "run the model", "record", "row of 32", "a tensor per column", "nothing is up"):
        assert part in out
    assert "Open Inference, one tensor," not in out, "the system has a category"
    assert max(map(len, out.splitlines())) <= 80
    assert "What to change" in out or "Nothing stands out" in out


@pytest.mark.slow
def test_recorded_rows_are_sent_and_looked_through(call: Call, deployed: Path) -> None:
    record(deployed, 600)
    state = deployed / "state"
    before = sorted(path.name for path in state.iterdir())
    code, out, _ = call("--json", "--state", state)
    assert code == 0
    found = json.loads(out)
    assert (found["inputs"]["origin"], found["inputs"]["rows"], found["inputs"]["single"]) == ("recorded", 600, 1.0)
    assert found["repeats"]["share"] == pytest.approx(500 / 600)
    assert found["live"] is None
    cases = {(case["form"], case["at_once"], case["rows"]): case for case in found["cases"]}
    assert {(form, n, 1) for form in ("object", "named") for n in (1, 16, 64)} < cases.keys()
    assert {("object", 1, 32), ("named", 1, 32), ("general", 16, 1)} < cases.keys()
    for key, case in cases.items():
        if key[0] != "general":
            assert sum(stage["us"] for stage in case["stages"]) == pytest.approx(case["cpu_us"])
    assert sorted(path.name for path in state.iterdir()) == before
    opened = open_state(state)
    assert opened.lake.scan(PREDICTIONS.name, "orders").height == 600, "measuring must not be recorded"
    opened.close()


@pytest.mark.slow
def test_rows_that_another_version_answered_will_do(call: Call, deployed: Path) -> None:
    record(deployed, 300)
    code, out, _ = call("--version", "1", "--json", "--state", deployed / "state")
    assert code == 0
    assert json.loads(out)["inputs"]["origin"] == "recorded"


@pytest.mark.slow
def test_what_running_workers_counted_stands_beside(call: Call, deployed: Path) -> None:
    run = deployed / "state" / "run"
    run.mkdir(exist_ok=True)
    write_presence(run, url="http://here", console="", workers=("worker-1",))
    metrics = Metrics("worker-1", SystemClock())
    signature = Signature(columns=(), task="classification", output="probability")
    by = Answerer(system="orders", version="2", stage="live", release="", signature=signature, signature_hash="")
    for _ in range(100):
        metrics.ran(by, 20, 20, np.full(20, 9_000.0), 50.0, np.full(20, 10_000.0))
    publish(run, metrics.snapshot())
    code, out, _ = call("--state", deployed / "state")
    assert code == 0
    assert "Measured live, by 1 worker since" in out
    assert "2,000 rows in 100 runs: 20.0 a run, at most 20" in out
    assert "What to change, by the figures for 16 a tick:" in out
    assert "a request waits 9,000 of 10,000 us for its run" in " ".join(out.split())


@pytest.mark.slow
def test_another_version_can_be_profiled(call: Call, trained: Path) -> None:
    code, out, _ = call("--version", "1", "--json", "--state", trained / "state")
    assert code == 0
    assert (json.loads(out)["version"], json.loads(out)["is_live"]) == ("1", False)


@pytest.mark.slow
def test_near_misses_are_told_before_anything_is_measured(call: Call, trained: Path) -> None:
    state = trained / "state"
    assert call("ordres", "--state", state) == (1, "", "error: no system 'ordres'; did you mean 'orders'?\n")
    assert call("--version", "9", "--state", state) == (1, "", "error: no version '9'; known: 1, 2\n")


def test_without_a_state_profile_says_how_to_begin(call: Call) -> None:
    code, out, err = call("orders")
    assert (code, out) == (8, "")
    assert err.startswith("error: there is no state in .holdfast; begin with `holdfast up FILE`")


@pytest.mark.slow
def test_a_system_without_a_live_version_has_nothing_to_profile(call: Call, small, tmp_path: Path) -> None:
    small.write_feeds(tmp_path)
    file = small.write_file(tmp_path)
    state = open_state(tmp_path / "state")
    from_file = file.read_text(encoding="utf-8")
    put(state, file, from_file)
    state.close()
    code, out, err = call("orders", "--state", tmp_path / "state")
    assert (code, out, err) == (1, "", "error: no live version of 'orders'\n")


@pytest.mark.slow
def test_an_artifact_that_was_changed_is_not_measured(call: Call, deployed: Path) -> None:
    state = deployed / "state"
    opened = open_state(state)
    with opened.catalog.read() as tx:
        (version,) = [found for found in tx.find(Version, "orders") if found.id == "2"]
    directory = Path(opened.unpacked(version).directory)
    opened.close()
    victim = next(directory.glob("model*"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    code, out, err = call("--state", state)
    assert (code, out) == (5, "")
    assert str(directory) in err
    shutil.rmtree(directory)


def put(state, file: Path, text: str) -> None:
    """Put a system file in force."""
    put_in_force(state, read_spec(file), path=file, text=text, now=SystemClock().now(), by="test")
