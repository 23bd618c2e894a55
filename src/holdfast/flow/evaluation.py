"""The only caller of a Check. In: windows and a limit. Out: verdicts, and what a detector with memory remembers."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from holdfast.core.evidence import Grade, Limit, Reading, Role, Verdict, Window
from holdfast.core.protocols import Check
from holdfast.stats import conformal
from holdfast.stats.sequential import EDetector

log = logging.getLogger(__name__)

CALM = 0.1
"""Below this part of the alarm threshold a stream is calm again; in between it is doubtful, so that an incident does
not close and open with every day."""
MEMORY_CAP = 4.0
"""Evidence is kept below this multiple of the alarm threshold, so that an alarm ends soon after its cause does."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of a check: its verdicts, worst first, and the memory for the next one."""

    verdicts: tuple[Verdict, ...]
    memory: dict[str, Any] = {}


def measure(check: Check, window: Window, baseline: Window | None) -> list[Reading]:
    """Readings of a check; what stops it is a reading without a value that says so."""
    kind = type(check).__name__.lower()
    lacking = [role.value for role in check.needs if not window.columns(Role(role))]
    lacking += [fact for fact in check.facts if fact not in window.facts]
    if lacking:
        return [Reading(name=kind, value=None, note=f"the window has no {', '.join(sorted(lacking))}")]
    if not window.blocks:
        return [Reading(name=kind, value=None, note="the window is empty")]
    try:
        return [_known(reading) for reading in check.measure(window, baseline)]
    except Exception as error:
        log.exception("check %s failed", kind)
        return [Reading(name=kind, value=None, note=f"the check itself failed: {type(error).__name__}: {error}")]


def _known(reading: Reading) -> Reading:
    """A reading that is NaN was not measured, whatever its check says: no comparison with it would ever fail."""
    if reading.value is None or not math.isnan(reading.value):
        return reading
    return msgspec.structs.replace(reading, value=None, note=reading.note or f"{reading.name} is undefined here")


def judge_limit(check: str, readings: Sequence[Reading], limit: Limit, *, name: str) -> Evaluation:
    """Grade readings against the numbers that the file states."""
    return _worst_first([_against_limit(check, reading, limit, name) for reading in readings])


def judge_stated(check: Check, kind: str, readings: Sequence[Reading], *, name: str) -> Evaluation:
    """Grade readings against the check's own stated limit."""
    verdicts = []
    for reading in readings:
        grade, why = (Grade.UNKNOWN, reading.note) if reading.value is None else _graded(check, kind, reading)
        verdicts.append(
            Verdict(grade=grade, check=kind, reading=reading, why=why or reading.note, monitor=name, calibrated=False)
        )
    return _worst_first(verdicts)


def _graded(check: Check, kind: str, reading: Reading) -> tuple[Grade, str]:
    try:
        return check.grade(reading)
    except Exception as error:
        log.exception("check %s could not grade a reading", kind)
        return Grade.UNKNOWN, f"the check itself failed: {type(error).__name__}: {error}"


def judge_window(
    check: Check,
    kind: str,
    readings: Sequence[Reading],
    history: Mapping[str, Sequence[float]],
    *,
    level: float,
    name: str,
) -> Evaluation:
    """Grade readings jointly against the same readings of disjoint windows of history.

    The columns of one monitor are calibrated on their maximum, so that a monitor with many columns spends its level
    once. Where history is too short for the level, the check's stated limit is used and the verdict says so.
    """
    if all(reading.value is None for reading in readings):
        return _worst_first([unknown(kind, reading, name) for reading in readings])
    known = [r for r in readings if r.value is not None and math.isfinite(r.value) and r.subject in history]
    past = np.array([history[r.subject] for r in known], dtype=np.float64).T
    windows = int((~np.isnan(past)).any(axis=1).sum()) if known else 0
    short = conformal.shortfall(windows, level)
    if short:
        stated = judge_stated(check, kind, readings, name=name)
        verdicts = [
            msgspec.structs.replace(v, why=f"{v.why} (not calibrated: {short})", level=level) for v in stated.verdicts
        ]
        return _worst_first(verdicts)
    unknowns = [unknown(kind, r, name) for r in readings if r.value is None]
    unknowns += [_without_history(kind, r, name) for r in readings if r.value is not None and r not in known]
    now = np.array([r.value for r in known], dtype=np.float64)
    rows = np.vstack([past, now])
    highest, standard = conformal.joint_scores(rows)[:-1], conformal.standardised(rows)[-1]
    p_values = [conformal.p_value(float(each), highest) for each in standard]
    judged = [_calibrated(kind, r, p, windows, level, name) for r, p in zip(known, p_values, strict=True)]
    return _worst_first(judged + unknowns)


def judge_stream(
    kind: str, reading: Reading, *, promised: float, level: float, memory: Mapping[str, Any], name: str
) -> Evaluation:
    """Fold one block's mean into an e-detector against the promised level (Shin, Ramdas and Rinaldo 2024).

    `level` is the rate of false alarms per block, so the average run without one is at least 1 / level blocks.
    """
    if reading.value is None or not math.isfinite(promised):
        return Evaluation(verdicts=(unknown(kind, reading, name),), memory=dict(memory))
    detector, threshold = EDetector(), 1 / level
    state = detector.fold(tuple(memory.get("state", ())), reading.value, promised, high=math.inf)
    evidence = detector.evidence(state)
    if evidence > MEMORY_CAP * threshold:
        state = tuple(value * MEMORY_CAP * threshold / evidence for value in state)
    why = (
        f"{reading.name} {reading.value:.4f} on the newest block against {promised:.4f} promised; evidence "
        f"{min(evidence, MEMORY_CAP * threshold):.1f}, an alarm needs {threshold:.0f}"
    )
    grade = Grade.FAIL if evidence >= threshold else Grade.WARN if evidence >= threshold * CALM else Grade.PASS
    verdict = Verdict(grade=grade, check=kind, reading=reading, why=why, monitor=name, level=level)
    return Evaluation(verdicts=(verdict,), memory={"state": list(state)})


def history_of(check: Check, windows: Sequence[Window], baseline: Window) -> dict[str, list[float]]:
    """Readings of disjoint windows of history by subject, NaN where one could not be measured.

    Each is measured against the whole history; a check leaves the window's own blocks out of its baseline.
    """
    history: dict[str, list[float]] = {}
    for i, window in enumerate(windows):
        for reading in measure(check, window, baseline):
            if reading.value is not None:
                history.setdefault(reading.subject, [math.nan] * len(windows))[i] = reading.value
    return history


def _against_limit(check: str, reading: Reading, limit: Limit, name: str) -> Verdict:
    if reading.value is None or np.isnan(reading.value):
        return unknown(check, reading, name)
    bad = ""
    if limit.at_least is not None and reading.value < limit.at_least:
        bad = f"below the least allowed {limit.at_least:g}"
    if limit.at_most is not None and reading.value > limit.at_most:
        bad = f"above the most allowed {limit.at_most:g}"
    grade = Grade.FAIL if bad else Grade.PASS
    about = f"{reading.subject} " if reading.subject else ""
    why = f"{about}{reading.name} {reading.value:.4g} is {bad or 'within its limit'}"
    return Verdict(grade=grade, check=check, reading=reading, why=why, monitor=name, calibrated=False)


def unknown(check: str, reading: Reading, name: str) -> Verdict:
    why = reading.note or f"{reading.name} could not be measured"
    return Verdict(grade=Grade.UNKNOWN, check=check, reading=reading, why=why, monitor=name)


def _without_history(check: str, reading: Reading, name: str) -> Verdict:
    why = f"{reading.subject} {reading.name} was never measured in the history, so nothing says what is usual"
    return Verdict(grade=Grade.UNKNOWN, check=check, reading=reading, why=why, monitor=name)


def _calibrated(kind: str, reading: Reading, p: float, windows: int, level: float, name: str) -> Verdict:
    grade = Grade.FAIL if p <= level else Grade.PASS
    about = reading.subject or kind
    why = (
        f"{about} {reading.name} {reading.value:.4g}: p = {p:.3f} over {windows} windows of history, level {level:.3f}"
    )
    return Verdict(grade=grade, check=kind, reading=reading, why=why, monitor=name, p_value=p, level=level)


_ORDER = {Grade.FAIL: 0, Grade.WARN: 1, Grade.UNKNOWN: 2, Grade.PASS: 3, Grade.NOT_APPLICABLE: 4}


def _worst_first(verdicts: Sequence[Verdict]) -> Evaluation:
    def badness(verdict: Verdict) -> tuple[int, float, float]:
        value = verdict.reading.value
        p = 1.0 if verdict.p_value is None else verdict.p_value
        return _ORDER[verdict.grade], p, -(value if value is not None else 0.0)

    return Evaluation(verdicts=tuple(sorted(verdicts, key=badness)))
