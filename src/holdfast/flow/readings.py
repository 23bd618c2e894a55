"""What monitors measured, kept in the lake. In: verdicts. Out: one row per reading, once per evaluation."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from holdfast.core.evidence import Verdict
from holdfast.core.protocols import READINGS, Field, Lake

FIELDS = (
    Field("reading_id", "text"),
    Field("at", "time"),
    Field("monitor", "text"),
    Field("check", "text"),
    Field("name", "text"),
    Field("subject", "text"),
    Field("value", "float"),
    Field("low", "float"),
    Field("high", "float"),
    Field("rows", "int"),
    Field("grade", "text"),
    Field("p_value", "float"),
    Field("version", "text"),
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def record_readings(lake: Lake, system: str, verdicts: Sequence[Verdict], *, version: str, at: datetime) -> None:
    """Append the readings of one evaluation; the same evaluation recorded again stays one."""
    if not verdicts:
        return
    readings, n = [verdict.reading for verdict in verdicts], len(verdicts)
    us = (at - _EPOCH) // timedelta(microseconds=1)
    columns = {
        "reading_id": [f"{v.monitor}:{v.reading.name}:{v.reading.subject}:{us}" for v in verdicts],
        "at": np.full(n, us, dtype=np.int64),
        "monitor": [verdict.monitor for verdict in verdicts],
        "check": [verdict.check for verdict in verdicts],
        "name": [reading.name for reading in readings],
        "subject": [reading.subject for reading in readings],
        "value": _floats(reading.value for reading in readings),
        "low": _floats(reading.low for reading in readings),
        "high": _floats(reading.high for reading in readings),
        "rows": np.array([reading.rows for reading in readings], dtype=np.int64),
        "grade": [verdict.grade.value for verdict in verdicts],
        "p_value": _floats(verdict.p_value for verdict in verdicts),
        "version": [version] * n,
    }
    writer = lake.writer(READINGS.name, system, FIELDS)
    try:
        writer.append(columns, n)
    finally:
        writer.close()


def _floats(values: Iterable[float | None]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
