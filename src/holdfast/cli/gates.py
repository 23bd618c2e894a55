"""What the verdicts of a release are called in a table."""

from collections.abc import Sequence

from holdfast.core.evidence import Verdict


def gate_names(verdicts: Sequence[Verdict]) -> list[str]:
    """What each verdict of a release is called: its gate, and what was read where one gate read several things."""
    names = [verdict.monitor or verdict.check for verdict in verdicts]
    told = [
        f"{name} {verdict.reading.subject or _within(verdict.reading.name, name)}" if names.count(name) > 1 else name
        for name, verdict in zip(names, verdicts, strict=True)
    ]
    return [
        f"{name} {verdict.reading.name}" if told.count(name) > 1 else name
        for name, verdict in zip(told, verdicts, strict=True)
    ]


def _within(reading: str, gate: str) -> str:
    """The name of a reading without that of its gate: ``error`` for ``calibration_error`` of ``calibration``."""
    return reading.removeprefix(f"{gate}_")
