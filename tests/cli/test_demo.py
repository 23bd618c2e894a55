"""``holdfast demo``: which parts of the story run, and where its report goes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.cli import demo as command
from holdfast.cli.app import main

Call = Callable[..., int]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The parts of the story that were told, instead of telling them."""
    parts: list[tuple] = []

    class Story:
        def __init__(self, directory, say) -> None:
            parts.append(("in", directory))

        def __getattr__(self, name):
            return lambda *a, **k: parts.append((name, *a, *k.values()))

    monkeypatch.setattr(command, "Story", Story)
    return parts


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Runs `holdfast demo ARGUMENTS` in an empty folder; gives the exit code."""
    monkeypatch.chdir(tmp_path)

    def made(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["holdfast", "demo", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return made


def test_all_of_it_in_order(call: Call, told: list[tuple], tmp_path: Path) -> None:
    assert call() == 0
    assert told == [
        ("in", tmp_path / "holdfast-demo"),
        ("init",),
        ("train",),
        ("backtest", None),
        ("live", False),
        ("end",),
    ]


def test_backtest_only_stops_after_the_backtest_and_writes_the_report_where_it_was_asked(
    call: Call, told: list[tuple], tmp_path: Path
) -> None:
    assert call("--backtest-only", "--json", "out.json", "--directory", "elsewhere") == 0
    assert told[0] == ("in", tmp_path / "elsewhere")
    assert told[3] == ("backtest", tmp_path / "out.json")
    assert [name for name, *_ in told] == ["in", "init", "train", "backtest", "end"]


def test_keep_leaves_it_up(call: Call, told: list[tuple]) -> None:
    assert call("--keep") == 0
    assert ("live", True) in told


def test_a_taken_name_gets_a_number(call: Call, told: list[tuple], tmp_path: Path) -> None:
    (tmp_path / "holdfast-demo").mkdir()
    assert call() == 0
    assert told[0] == ("in", tmp_path / "holdfast-demo-2")


def test_a_report_that_could_not_be_written_is_refused_before_minutes_of_work(
    call: Call, told: list[tuple], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--json", "nowhere/out.json") != 0
    assert "there is no folder" in capsys.readouterr().err
    assert told == []
