"""``holdfast backtest`` in this process: what it prints, what it writes, what it refuses before it begins."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from holdfast.backtest import report as reports
from holdfast.backtest.runner import Event, Report
from holdfast.backtest.scoring import Outcome
from holdfast.cli import backtest as command
from holdfast.cli.app import main
from holdfast.cli.progress import BacktestProgress
from holdfast.testing import START

Call = Callable[..., tuple[int, str, str]]
OUTCOME = Outcome(
    metrics={"log_loss": 0.5},
    by_month=(),
    predictions=1000,
    labelled=900,
    retrains=0,
    alarms=(),
    releases=(),
    detections=(),
    false_alarms_per_month=0.0,
    took_s=2.0,
    training_s=1.0,
)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, small) -> Call:
    """Runs `holdfast backtest ARGUMENTS` beside a system file; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    small.write_file(tmp_path)

    def made(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["holdfast", "backtest", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the command asks for, instead of running it."""
    kept: list[dict] = []

    def run(spec, root, **how):
        kept.append({"system": spec.system, "root": root, **how})
        how["on_event"](Event(run=how["policies"][0], at=START, share=0.5, what="something happened"))
        policies = dict.fromkeys(how["policies"], OUTCOME)
        return Report(system=spec.system, start=START, end=START, policies=policies, faulted=None, took_s=1.0)

    monkeypatch.setattr(command, "run_backtest", run)
    return kept


def test_without_options_all_policies_run_over_the_whole_history(call: Call, asked: list[dict], tmp_path: Path) -> None:
    code, out, _ = call()
    assert code == 0
    (how,) = asked
    assert how["policies"] == ["never", "monthly", "evidence"]
    assert (how["start"], how["end"], how["faults"], how["processes"]) == (None, None, (), 2)
    assert how["root"] == tmp_path
    assert "Policies" in out


def test_days_are_those_of_the_time_zone(call: Call, asked: list[dict], tmp_path: Path) -> None:
    text = (tmp_path / "holdfast.yaml").read_text()
    (tmp_path / "holdfast.yaml").write_text(text.replace("  key: id\n", "  key: id\n  timezone: America/New_York\n", 1))
    assert call("--start", "2013-04-01", "--end", "2013-12-01")[0] == 0
    (how,) = asked
    assert how["start"].isoformat() == "2013-04-01T04:00:00+00:00"
    assert how["end"].isoformat() == "2013-12-01T05:00:00+00:00"


def test_a_report_is_written_as_json(call: Call, asked: list[dict], tmp_path: Path) -> None:
    code, out, _ = call("--policies", "never, evidence,never", "--json", "out.json", "--processes", "1")
    assert code == 0
    assert "written: out.json" in out
    assert list(json.loads((tmp_path / "out.json").read_text())["policies"]) == ["never", "evidence"]


def test_faults_are_read_from_their_file(call: Call, asked: list[dict], tmp_path: Path) -> None:
    at = {"start": "2013-05-01T00:00:00Z", "end": "2013-05-02T00:00:00Z"}
    (tmp_path / "faults.yaml").write_bytes(
        msgspec.yaml.encode([{"name": "x", "fault": "stale", "feed": "orders"} | at])
    )
    assert call("--faults", "faults.yaml")[0] == 0
    assert asked[0]["faults"][0].feed == "orders"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policies", "nevr"), "did you mean 'never'"),
        (("--policies", ""), "no policy ''"),
        (("--json", "nowhere/out.json"), "there is no folder"),
        (("--json", "."), "it is a folder"),
        (("--faults", "nowhere.yaml"), "nowhere.yaml"),
        (("--start", "April"), "April"),
        (("--processes", "0"), "greater than or equal to 1"),
        (("nowhere.yaml",), "nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(call: Call, asked: list[dict], arguments, said) -> None:
    code, out, err = call(*arguments)
    assert code != 0
    assert said in err
    assert not asked
    assert "Traceback" not in out + err


def test_a_faults_file_that_is_wrong_is_named(call: Call, asked: list[dict], tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_text("faults: none")
    code, _, err = call("--faults", "faults.yaml")
    assert (code, len(err.splitlines())) == (3, 1)
    assert err.startswith("error: faults.yaml is not a list of faults")
    assert not asked


def test_progress_without_a_terminal_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with BacktestProgress(["never"]) as progress:
        progress.on_event(Event(run="never", at=START, share=0.5, what="x"))
    said = capsys.readouterr()
    assert (said.out, said.err.strip()) == ("", "")


@pytest.mark.slow
def test_a_small_system_is_backtested_whole(call: Call, small, tmp_path: Path) -> None:
    small.write_feeds(tmp_path)
    code, out, err = call("--policies", "never", "--processes", 1, "--json", "out.json")
    assert code == 0, err
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["policies"]["never"]["predictions"] > 1000
    assert found["policies"]["never"]["roc_auc"] > 0.7
    assert found["predictions_per_s"] > 0
    assert set(reports.METRICS["classification"]) <= set(found["policies"]["never"])
    assert "predictions through the whole loop" in out
