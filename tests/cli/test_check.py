"""The commands that read a system file, called as a person calls them, in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import __version__
from holdfast.cli.app import COMMANDS, main

FILE = """\
system: flights
data:
  feeds:
    flights: {from: flights.csv, event_at: at, known_at: listed_at}
  rows: flights
  key: id
  label: {feed: flights, column: late, known_at: landed_at}
  columns: {hour: {integer: [0, 23]}}
model: {task: classification, trainer: linear}
gates:
  - {check: quality, metric: roc_auc, at_least: 0.65}
release:
  steps: [shadow 2d, live]
  decide: {loss: brier, margin: 0.01}
monitors:
  - {check: drift, window: 7d}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `holdfast ARGUMENTS` in an empty directory; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["holdfast", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def test_a_file_in_order_is_said_to_be(run: Run) -> None:
    Path("holdfast.yaml").write_text(FILE, encoding="utf-8")
    code, out, err = run("check")
    assert (code, err) == (0, "")
    assert "holdfast.yaml: system 'flights' is in order" in out
    assert "1 feed, 1 column, 1 gate, 1 monitor, 0 responses" in out


def test_check_says_how_the_budget_of_false_alarms_is_split(run: Run) -> None:
    text = FILE.replace(
        "  - {check: drift, window: 7d}\n", "  - {check: drift, every: 7d, window: 7d}\n  - {check: silence}\n"
    )
    Path("holdfast.yaml").write_text(text, encoding="utf-8")
    _, out, _ = run("check")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()[3:] if line.strip()}
    assert "of 1 false alarm a month, were history 180 days long" in out
    assert lines["drift"] == "4.29 0.23 1"
    assert lines["silence"] == "30 - - judged by its own limits"
    _, out, _ = run("check", "--json")
    found = json.loads(out)
    assert [share["monitor"] for share in found["budget"]] == ["drift", "silence"]
    assert found["false_alarms"] == 1.0


def test_check_as_json(run: Run) -> None:
    Path("other.yaml").write_text(FILE, encoding="utf-8")
    code, out, _ = run("check", "other.yaml", "--json")
    assert code == 0
    assert json.loads(out)["system"] == "flights"
    assert json.loads(out)["gates"] == 1


def test_every_problem_is_one_line_on_standard_error(run: Run) -> None:
    text = FILE.replace("quality", "qualty").replace("window: 7d", "window: 7 days")
    Path("holdfast.yaml").write_text(text, encoding="utf-8")
    code, out, err = run("check")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: holdfast.yaml:11 gates[0].check: no check of kind 'qualty'; did you mean 'quality'?",
        "error: holdfast.yaml:16 monitors[0].window: expected a duration such as 90s, 30m, 2h, 7d or 2w, got '7 days'",
    ]


def test_a_missing_file_is_one_clear_message(run: Run) -> None:
    code, _, err = run("check")
    assert code == 2
    assert err.startswith("error: holdfast.yaml")
    assert "no such file" in err
    assert len(err.splitlines()) == 1


def test_show_tells_where_each_value_came_from(run: Run) -> None:
    Path("holdfast.yaml").write_text(FILE, encoding="utf-8")
    _, out, _ = run("show")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert ["holdfast.yaml:8", "data.columns.hour: {integer: [0, 23]}"] in lines
    assert ["default", "model.seed: 7"] in lines
    assert ["default", "monitors[0].name: drift"] in lines


def test_show_as_json(run: Run) -> None:
    Path("holdfast.yaml").write_text(FILE, encoding="utf-8")
    found = {row["setting"]: row for row in json.loads(run("show", "--json")[1])}
    assert found["monitors[0].window"] == {
        "setting": "monitors[0].window",
        "value": "7d",
        "from": "holdfast.yaml:16",
    }
    assert found["serve.record"]["from"] == "default"


def test_schema_is_json(run: Run) -> None:
    assert json.loads(run("schema")[1])["title"] == "Holdfast system file"


def test_version_names_holdfast(run: Run) -> None:
    assert run("version")[1].startswith(f"holdfast {__version__} ")


def test_an_unknown_command_names_the_near_miss(run: Run) -> None:
    code, _, err = run("chek")
    assert code == 2
    assert "'check'" in err


def test_help_lists_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for name, (_, help) in COMMANDS.items():
        assert f"  {name} " in out
        assert help in " ".join(out.split())
