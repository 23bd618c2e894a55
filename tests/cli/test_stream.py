"""``holdfast stream`` before it begins: what it refuses."""

from pathlib import Path

import pytest

from holdfast.cli.app import main

pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--from", "rows", "--to", "rows"), 8, "send answers to another topic"),
        (("--from", "rows", "--dead", "rows"), 8, "send answers to another topic"),
        (("--from", "rows"), 8, "there is no state in"),
    ],
)
@pytest.mark.slow
def test_what_cannot_work_is_refused_before_a_broker_is_asked(
    arguments: tuple[str, ...], code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    argv = ["holdfast", "stream", "--brokers", "127.0.0.1:1", *arguments, "--state", str(tmp_path / "none")]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, words in capsys.readouterr().err) == (code, True)


@pytest.mark.slow
def test_a_settings_file_names_the_line_that_is_wrong_and_shows_no_value(
    deployed: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    file = deployed / "kafka.properties"
    file.write_text("# ours\nsasl.username=me\nsasl.password secret\n")
    argv = ["holdfast", "stream", "--brokers", "127.0.0.1:1", "--from", "rows", "--settings", str(file)]
    monkeypatch.setattr("sys.argv", [*argv, "--state", str(deployed / "state")])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert (ended.value.code, "kafka.properties:3 has no '='" in said, "secret" in said) == (3, True, False)
