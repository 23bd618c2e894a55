"""The only caller of a Check. In: windows and a limit. Out: verdicts, and what a detector with memory remembers."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from holdfast.core.evidence import Grade, Limit, Reading, Role, Verdict, Window
from holdfast.core.protocols import Check
from holdfast.stats import conformal
from holdfast.stats.sequential import EDetector

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

log = logging.getLogger(__name__)

CALM = 0.1
"""Below this part of the alarm threshold a stream is calm again; in between it is doubtful, so that an incident does
not close and open with every day."""
MEMORY_CAP = 4.0
"""Evidence is kept below this multiple of the alarm threshold, so that an alarm ends soon after its cause does."""
MOSTLY = 0.5
"""What was measured in less than this share of a monitor's windows of history is not calibrated with the others: only
windows in which all of them were measured can be ranked, and it would cost the others too many."""
COARSE = 0.05
"""A failure on a level above this is common, and says how common: few windows of history can tell no better."""

LEAST_BLOCKS = 30
"""So many blocks of history say what a block mean hardly falls below."""
WEEK = 7
"""So many days of a stream are looked at together, beside the newest one alone."""
NEWEST = "newest "
"""Before the name of what was read on the newest part of a window alone."""

Subject = tuple[str, str]
"""What a reading is about: its name and its subject."""
History = Mapping[Subject, Sequence[float]]
"""Readings of windows of history, all in the same order; NaN where one could not be measured."""


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """Means of the blocks that a version was promised on, and how many rows each rests on; at least one block."""

    means: tuple[float, ...]
    rows: tuple[int, ...]

    def looks(self) -> FloatArray:
        """What was looked at on each day, (looks, 2): its mean, and that of the week up to it by rows. Only days that
        end a whole week; with a short history one column, the means alone."""
        means, rows = np.array(self.means, dtype=np.float64), np.array(self.rows, dtype=np.float64)
        if means.size < LEAST_BLOCKS:
            return means[:, None]
        summed, counted = (np.convolve(each, np.ones(WEEK), "valid") for each in (means * rows, rows))
        of_weeks = np.divide(summed, counted, out=np.full(summed.shape, np.nan), where=counted > 0)
        return np.column_stack([means[WEEK - 1 :], of_weeks])

    def low(self, promised: float) -> float:
        """What a block mean hardly falls below; 0 where history is too short to tell, or where all of it does."""
        lowest = min(self.means)
        return lowest if len(self.means) >= LEAST_BLOCKS and 0 < lowest < promised else 0.0


def looks_in(days: int) -> int:
    """How many looks at history a stream is ranked among that was measured on so many days of it."""
    return days if days < LEAST_BLOCKS else days - WEEK + 1


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
        return check.grade(_plain(reading))
    except Exception as error:
        log.exception("check %s could not grade a reading", kind)
        return Grade.UNKNOWN, f"the check itself failed: {type(error).__name__}: {error}"


def judge_window(
    check: Check,
    kind: str,
    readings: Sequence[Reading],
    history: History,
    *,
    level: float,
    name: str,
) -> Evaluation:
    """Grade readings jointly against the same readings of windows of history.

    Windows of history follow each other as those under test do: disjoint, or each a day on where a longer one is looked
    at every day. Then neighbours are alike, in history as under test: what stands out does so for some looks in a row,
    which is one alarm (`holding`), and so many looks of history stand out no oftener than their level says.

    What one monitor reads is calibrated on its maximum, so that a monitor with many columns spends its level once.
    The ranking is over the windows in which all that is calibrated was measured: these and the window under test are
    alike, others would have had fewer chances to stand out. What history measured too seldom for the level is left
    out of it and graded by the check's stated limit, and the verdict says so.
    """
    if all(reading.value is None for reading in readings):
        return _worst_first([unknown(kind, reading, name) for reading in readings])
    rankable = [r for r in readings if r.value is not None and math.isfinite(r.value) and _about(r) in history]
    past = _table(rankable, history)
    columns, windows = _ranked(past, conformal.windows_needed(level))
    known = [rankable[column] for column in columns]
    judged = [unknown(kind, r, name) for r in readings if r.value is None]
    judged += [_without_history(kind, r, name) for r in readings if r.value is not None and r not in rankable]
    seldom = [(r, counted) for r, counted in zip(rankable, _counts(past), strict=True) if r not in known]
    judged += [_too_seldom(check, kind, r, counted, level, name) for r, counted in seldom]
    if known:
        rows = np.vstack([past[windows][:, columns], np.array([r.value for r in known], dtype=np.float64)])
        highest, standard = conformal.joint_scores(rows)[:-1], conformal.standardised(rows)[-1]
        p_values = [conformal.p_value(float(each), highest) for each in standard]
        counted = int(windows.sum())
        # What stands out most comes first among equals: how far it stands out has no unit, unlike the readings.
        ranked = sorted(zip(standard.tolist(), known, p_values, strict=True), key=lambda each: -each[0])
        judged = [_calibrated(kind, r, p, counted, level, name) for _, r, p in ranked] + judged
    elif not rankable:
        judged = [_too_seldom(check, kind, r, 0, level, name) for r in readings]
    return _worst_first(judged)


def of_newest(readings: Sequence[Reading]) -> list[Reading]:
    """The same, marked as readings of the newest part of a window alone."""
    return [msgspec.structs.replace(reading, name=f"{NEWEST}{reading.name}") for reading in readings]


def as_one(judged: Evaluation) -> Evaluation:
    """One verdict for each reading and subject, of the whole window or of its newest part: that which fails, by the
    smaller p-value; else that of the window, or where this could not be measured, of the newest part."""
    found: dict[Subject, list[Verdict]] = {}
    for verdict in judged.verdicts:
        found.setdefault(_about(_plain(verdict.reading)), []).append(verdict)
    return _worst_first([_told(_chosen(verdicts)) for verdicts in found.values()])


def _chosen(verdicts: Sequence[Verdict]) -> Verdict:
    """Of verdicts on one subject, worst first, the one that speaks for all."""
    measured = [verdict for verdict in verdicts if verdict.reading.value is not None]
    failing = [verdict for verdict in measured if verdict.grade is Grade.FAIL]
    of_whole = [verdict for verdict in measured if not verdict.reading.name.startswith(NEWEST)]
    return [*failing, *of_whole, *measured, *verdicts][0]


def _told(verdict: Verdict) -> Verdict:
    reading = _plain(verdict.reading)
    if reading is not verdict.reading and reading.value is not None:
        note = "; ".join(said for said in (reading.note, "of the newest part of the window alone") if said)
        reading = msgspec.structs.replace(reading, note=note)
    return msgspec.structs.replace(verdict, reading=reading)


def holding(judged: Evaluation, why: str) -> Evaluation:
    """The same with a warning where it passes: what it looked at still has a part that failed."""
    verdicts = list(judged.verdicts)
    for k, verdict in enumerate(verdicts):
        if verdict.calibrated and verdict.grade is Grade.PASS:
            verdicts[k] = msgspec.structs.replace(verdict, grade=Grade.WARN, why=f"{verdict.why}; {why}")
            break
    return Evaluation(verdicts=_worst_first(verdicts).verdicts, memory=judged.memory)


def judge_uncalibrated(check: Check, kind: str, readings: Sequence[Reading], why: str, *, name: str) -> Evaluation:
    """Grade readings by the check's stated limit, saying why they could not be calibrated."""
    stated = judge_stated(check, kind, readings, name=name).verdicts
    said = [(verdict, f"{verdict.why} (not calibrated: {why})") for verdict in stated]
    return _worst_first([msgspec.structs.replace(verdict, why=text, stood_in=True) for verdict, text in said])


def windows_of(history: History) -> int:
    """How many windows of history what is mostly measured can be ranked among."""
    past = np.array(list(history.values()), dtype=np.float64).T if history else np.empty((0, 0))
    return int(_ranked(past, 0)[1].sum())


def _ranked(past: FloatArray, needed: int) -> tuple[list[int], BoolArray]:
    """Which columns of `past` (windows, columns) are calibrated together, and which windows have all of them.

    What was measured seldom is left out, the most seldom first, until `needed` windows have all of the rest.
    """
    counts = _counts(past)
    most = max(counts, default=0)
    columns = [k for k, count in enumerate(counts) if count >= max(needed, MOSTLY * most, 1)]
    while columns:
        whole: BoolArray = np.logical_not(np.isnan(past[:, columns]).any(axis=1))
        if whole.sum() >= max(needed, MOSTLY * most):
            return columns, whole
        least = min(counts[k] for k in columns)
        columns = [k for k in columns if counts[k] > least]
    return [], np.zeros(past.shape[0], dtype=np.bool_)


def _counts(past: FloatArray) -> list[int]:
    counted: list[int] = (~np.isnan(past)).sum(axis=0).tolist()
    return counted


def _table(readings: Sequence[Reading], history: History) -> FloatArray:
    return np.array([history[_about(r)] for r in readings], dtype=np.float64).T if readings else np.empty((0, 0))


def _about(reading: Reading) -> Subject:
    return reading.name, reading.subject


def _plain(reading: Reading) -> Reading:
    if not reading.name.startswith(NEWEST):
        return reading
    return msgspec.structs.replace(reading, name=reading.name.removeprefix(NEWEST))


def judge_stream(
    kind: str,
    reading: Reading,
    *,
    promised: float,
    level: float,
    memory: Mapping[str, Any],
    name: str,
    usual: Usual | None = None,
    look: float = 0.0,
) -> Evaluation:
    """Fold one block's mean into an e-detector against the promised level (Shin, Ramdas and Rinaldo 2024).

    `level` is the rate of false alarms per block, so the average run without one is at least 1 / level blocks. Where
    there is a history of blocks, a mean below the lowest of it counts as that, so that a rise is seen sooner: what is
    held to the promise is then the mean of what is counted. With `look`, a level of its own, a block or a week above
    the promise alarms too where so few days of history, or weeks up to one, are as bad.
    """
    if reading.value is None or not math.isfinite(promised):
        return Evaluation(verdicts=(unknown(kind, reading, name),), memory=dict(memory))
    detector, threshold = EDetector(), 1 / level
    low = usual.low(promised) if usual is not None else 0.0
    state = detector.fold(tuple(memory.get("state", ())), max(low, reading.value), promised, low=low, high=math.inf)
    evidence = detector.evidence(state)
    if evidence > MEMORY_CAP * threshold:
        state = tuple(value * MEMORY_CAP * threshold / evidence for value in state)
    why = (
        f"{reading.name} {reading.value:.4f} on the newest block against {promised:.4f} promised; evidence "
        f"{min(evidence, MEMORY_CAP * threshold):.1f}, an alarm needs {threshold:.0f}"
    )
    grade = Grade.FAIL if evidence >= threshold else Grade.WARN if evidence >= threshold * CALM else Grade.PASS
    lately = [*memory.get("lately", ()), [reading.value, reading.rows]][-WEEK:]
    held = max(0, int(memory.get("held", 0)) - 1)
    if usual is not None and look and reading.rows >= min(usual.rows):
        p, looks = _among_days(usual, lately, promised)
        why += f"; p = {p:.3f} among {looks} days of history, level {look:.3f}"
        if p <= look:
            grade, held = Grade.FAIL, held or WEEK
        elif held and grade is Grade.PASS:
            grade, why = Grade.WARN, f"{why}; it failed on a day of this week"
    verdict = Verdict(grade=grade, check=kind, reading=reading, why=why, monitor=name, level=level + look)
    return Evaluation(verdicts=(verdict,), memory={"state": list(state), "lately": lately, "held": held})


def _among_days(usual: Usual, lately: Sequence[Sequence[float]], promised: float) -> tuple[float, int]:
    """The p-value of the newest day and of the week up to it, jointly, and among how many looks at history; what is not
    above the promise does not count."""
    looks = usual.looks()
    means, rows = np.array(lately, dtype=np.float64).T
    now = np.full(looks.shape[1], np.nan)
    now[0] = means[-1]
    if now.size > 1 and means.size == WEEK:
        now[1] = np.average(means, weights=rows) if rows.sum() else np.nan
    now = np.where(now > promised, now, np.nan)
    return (1.0 if np.isnan(now).all() else conformal.joint_p_value(now, looks)), len(looks)


def history_of(check: Check, windows: Sequence[Window], baseline: Window) -> dict[Subject, list[float]]:
    """Readings of windows of history by name and subject, NaN where one could not be measured.

    Each is measured against the whole history; a check leaves the window's own blocks out of its baseline.
    """
    history: dict[Subject, list[float]] = {}
    for i, window in enumerate(windows):
        for reading in measure(check, window, baseline):
            if reading.value is not None:
                history.setdefault(_about(reading), [math.nan] * len(windows))[i] = reading.value
    return history


def history_of_newest(check: Check, windows: Sequence[Window], baseline: Window) -> dict[Subject, list[float]]:
    """The same of the newest part of each window, under the names that `of_newest` gives."""
    found = history_of(check, windows, baseline)
    return {(f"{NEWEST}{name}", subject): values for (name, subject), values in found.items()}


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
    bounds = (("at least", limit.at_least), ("at most", limit.at_most))
    stated = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    why = f"{about}{reading.name} {reading.value:.4g} is {bad or f'within its limit, {stated}'}"
    return Verdict(grade=grade, check=check, reading=reading, why=why, monitor=name, calibrated=False)


def unknown(check: str, reading: Reading, name: str) -> Verdict:
    why = reading.note or f"{reading.name} could not be measured"
    return Verdict(grade=Grade.UNKNOWN, check=check, reading=reading, why=why, monitor=name)


def _without_history(check: str, reading: Reading, name: str) -> Verdict:
    why = f"{reading.subject} {reading.name} was never measured in the history, so nothing says what is usual"
    return Verdict(grade=Grade.UNKNOWN, check=check, reading=reading, why=why, monitor=name)


def _too_seldom(check: Check, kind: str, reading: Reading, windows: int, level: float, name: str) -> Verdict:
    """The check's stated limit, for want of windows in which this was measured."""
    if reading.value is None:
        return unknown(kind, reading, name)
    grade, why = _graded(check, kind, reading)
    short = conformal.shortfall(windows, level) or "in too few of its windows of history all was measured together"
    said = f"{why or reading.note} (not calibrated: {short})"
    return Verdict(
        grade=grade,
        check=kind,
        reading=reading,
        why=said,
        monitor=name,
        calibrated=False,
        stood_in=True,
        level=level,
    )


def _calibrated(kind: str, reading: Reading, p: float, windows: int, level: float, name: str) -> Verdict:
    grade = Grade.FAIL if p <= level else Grade.PASS
    about, read = reading.subject or kind, _plain(reading)
    part = " on the newest part of its window" if read is not reading else ""
    why = f"{about} {read.name} {reading.value:.4g}{part}: p = {p:.3f} over {windows} windows of history"
    why += f", level {level:.3f}"
    if grade is Grade.FAIL and level > COARSE:
        as_much = round(p * (windows + 1)) - 1
        why += f"; {as_much or 'none'} of these stood out as much, which 1 in {round(1 / p)} does without a cause"
    return Verdict(grade=grade, check=kind, reading=reading, why=why, monitor=name, p_value=p, level=level)


_ORDER = {Grade.FAIL: 0, Grade.WARN: 1, Grade.UNKNOWN: 2, Grade.PASS: 3, Grade.NOT_APPLICABLE: 4}


def _worst_first(verdicts: Sequence[Verdict]) -> Evaluation:
    def badness(verdict: Verdict) -> tuple[int, float, float]:
        value = verdict.reading.value
        if verdict.p_value is not None:
            return _ORDER[verdict.grade], verdict.p_value, 0.0  # they come in the order in which they stand out
        return _ORDER[verdict.grade], 1.0, -(value if value is not None else 0.0)

    return Evaluation(verdicts=tuple(sorted(verdicts, key=badness)))
