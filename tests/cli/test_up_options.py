"""What `holdfast up` makes of its arguments, before anything is started."""

from pathlib import Path

import pytest

from holdfast import opening
from holdfast.cli.app import main
from holdfast.cli.up import WEBHOOK, files_of, unheard
from holdfast.core.routes import RoutedSystem, Routes, encode
from holdfast.state import open_state


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: object) -> str:
    """The error of `holdfast up OPTIONS`, which ends with 2."""
    monkeypatch.setattr("sys.argv", ["holdfast", "up", *map(str, options)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_the_file_of_the_folder_is_put_in_force_in_a_new_state(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "holdfast.yaml").write_text("system: orders")
    assert files_of([], here / ".holdfast") == (Path("holdfast.yaml"),)
    assert "holdfast.yaml is put in force: no file was named" in capsys.readouterr().out


def test_systems_in_force_go_on_beside_a_file_that_is_not_named(here: Path) -> None:
    (here / "holdfast.yaml").write_text("system: orders")
    (here / ".holdfast").mkdir()
    served = {"orders": RoutedSystem(task="regression", output="value")}
    (here / ".holdfast" / "routes.json").write_bytes(encode(Routes(generation=1, systems=served)))
    assert files_of([], here / ".holdfast") == ()


@pytest.mark.parametrize("damaged", ["", "{}", "[]", '{"routes": null}', '{"routes": {"systems": {"orders": '])
def test_damaged_routes_may_hold_systems(here: Path, damaged: str) -> None:
    (here / "holdfast.yaml").write_text("system: orders")
    (here / ".holdfast").mkdir()
    (here / ".holdfast" / "routes.json").write_text(damaged)
    assert files_of([], here / ".holdfast") == ()


@pytest.mark.slow
def test_the_file_of_the_folder_is_put_in_force_where_only_tokens_were_made(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_state(here / ".holdfast").close()  # as an `up` leaves it that was given no file
    (here / "holdfast.yaml").write_text("system: orders")
    monkeypatch.setattr("sys.argv", ["holdfast", "token", "new", "shop", "--state", ".holdfast"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code or 0, capsys.readouterr().err) == (0, "")
    assert (here / ".holdfast" / "routes.json").exists()
    assert files_of([], here / ".holdfast") == (Path("holdfast.yaml"),)


def test_files_that_are_named_are_taken_alone(here: Path) -> None:
    (here / "holdfast.yaml").write_text("system: orders")
    assert files_of([Path("other.yaml")], here / ".holdfast") == (Path("other.yaml"),)
    assert files_of([], here.parent / "no state") == (Path("holdfast.yaml"),)


def test_a_folder_without_a_file_names_none(here: Path) -> None:
    assert files_of([], here / ".holdfast") == ()


def test_a_certificate_without_its_key_is_a_wrong_use(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "one.pem").write_text("")
    assert "'--tls-cert': given without --tls-key" in refused(monkeypatch, capsys, "--tls-cert", "one.pem")
    assert "'--tls-key': given without --tls-cert" in refused(monkeypatch, capsys, "--tls-key", "one.pem")


@pytest.mark.parametrize(("missing", "there"), [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")])
def test_a_file_that_is_not_there_is_told_with_its_option(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str, there: str
) -> None:
    (here / "one.pem").write_text("")
    said = refused(monkeypatch, capsys, there, "one.pem", missing, "none.pem")
    assert f"'{missing}'" in said
    assert "none.pem" in said
    assert f"'{there}'" not in said


def test_notices_that_reach_the_log_alone_are_told_at_the_start() -> None:
    assert "nobody is told of incidents outside this log; set HOLDFAST_WEBHOOK" in unheard({})
    assert unheard({WEBHOOK: "https://example.org/hook"}) == ""
    assert WEBHOOK == opening.WEBHOOK
