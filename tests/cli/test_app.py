"""How commands are found and how errors end."""

import sys
from types import ModuleType
from typing import Any

import pytest
import typer

from holdfast.cli import app
from holdfast.errors import Overloaded


def verify(rows: int = 3) -> None:
    """Verify the log."""
    typer.echo(f"{rows} rows")


def refuse() -> None:
    """Refuse."""
    raise Overloaded("the queue is full\ntry again later")


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more commands: a group of its own, and one that raises."""
    module: Any = ModuleType("fake_commands")
    module.refuse = refuse
    module.audit = typer.Typer(add_completion=False, rich_markup_mode=None)
    module.audit.callback()(lambda: None)
    module.audit.command()(verify)
    monkeypatch.setitem(sys.modules, "fake_commands", module)
    monkeypatch.setitem(app.COMMANDS, "audit", ("fake_commands:audit", "Look at the log."))
    monkeypatch.setitem(app.COMMANDS, "refuse", ("fake_commands:refuse", "Refuse."))


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["holdfast", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code


def test_a_command_may_have_commands_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "audit", "verify", "--rows", "4") == 0
    assert capsys.readouterr().out == "4 rows\n"


def test_the_versions_are_told_by_an_option_as_by_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "version") == 0
    told = capsys.readouterr().out
    assert told.startswith("holdfast ")
    assert exit_code(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("command", [(), ("status",), ("audit",), ("audit", "verify")])
def test_help_is_shown_for_the_short_option_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    shown = []
    for option in ("-h", "--help"):
        assert exit_code(monkeypatch, *command, option) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "Usage: holdfast" in shown[0]


def test_an_error_ends_with_its_exit_code_and_a_line_per_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "refuse") == 9
    assert capsys.readouterr().err == "error: the queue is full\nerror: try again later\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/state"), "/state: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
    ],
)
def test_what_the_machine_refuses_is_one_line_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    def fail() -> None:
        raise error

    sys.modules["fake_commands"].fail = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(app.COMMANDS, "refuse", ("fake_commands:fail", "Fail."))
    monkeypatch.setattr(app, "app", typer.Typer(cls=app.Commands, pretty_exceptions_enable=False))
    app.app.callback()(app.root)
    assert exit_code(monkeypatch, "refuse") == 1
    assert capsys.readouterr().err == f"error: {said}; check the path, its permissions and the disk\n"
