"""What the verdicts of a release are called, and tables that are not printed to a terminal."""

import pytest
from msgspec.structs import replace

from holdfast.cli.gates import gate_names
from holdfast.cli.output import say_table
from holdfast.cli.why import shown
from holdfast.core.evidence import Grade, Reading, Verdict


def verdict(check: str, reading: str, subject: str = "", monitor: str = "") -> Verdict:
    return Verdict(
        grade=Grade.PASS,
        check=check,
        reading=Reading(name=reading, value=0.1, subject=subject),
        why="",
        monitor=monitor,
    )


def test_a_gate_with_several_readings_names_each() -> None:
    both = [verdict("calibration", "calibration_error"), verdict("calibration", "absolute_bias", "bias")]
    assert gate_names(both) == ["calibration error", "calibration bias"]


def test_a_gate_with_one_reading_has_its_own_name() -> None:
    quality = verdict("quality", "roc_auc", monitor="quality.roc_auc")
    assert gate_names([quality, replace(quality, monitor="", check="linear")]) == ["quality.roc_auc", "linear"]


def test_two_readings_of_one_subject_are_told_apart() -> None:
    both = [verdict("drift", "psi", "km"), verdict("drift", "missing", "km"), verdict("drift", "psi", "kg")]
    assert gate_names(both) == ["drift km psi", "drift km missing", "drift kg"]


def test_nothing_is_cut_where_nobody_looks_at_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"a_metric_with_a_long_name_{number}" for number in range(12)]
    say_table(("", *names), [("hold-out", *("0.5" for _ in names)), ("a" * 200, "b")])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == names
    assert first.split() == ["hold-out", *("0.5" for _ in names)]
    assert second.split() == ["a" * 200, "b"]


def test_a_sentence_goes_on_in_the_next_line_where_nobody_looks_at_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    why = "it is as it should be " * 20
    say_table(("gate", "why"), [("a_gate_with_a_name_of_its_own", why)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 160
    assert " ".join(" ".join(lines).split()) == f"gate why a_gate_with_a_name_of_its_own {why}".strip()


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.0, "0"), (-7.0, "-7"), (0.25, "0.25"), (1e300, "1e+300"), ("UA", "UA"), (None, "-")],
)
def test_a_whole_number_among_inputs_has_no_decimals(value: object, text: str) -> None:
    assert shown(value) == text
