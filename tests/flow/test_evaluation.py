"""Evaluation: what cannot be measured is unknown, limits hold on both sides, calibration counts, streams keep time."""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.evidence import Block, Grade, Limit, Reading, Role, Window
from holdfast.flow import evaluation
from holdfast.flow.evaluation import CALM, judge_limit, judge_stated, judge_stream, judge_window, measure
from holdfast.testing import START


class Fake:
    """A check that answers what it was given, or raises it."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.LABEL})
    facts: ClassVar[frozenset[str]] = frozenset({"task"})

    def __init__(self, answer: Any = ()) -> None:
        self.answer = answer
        self.calls = 0

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        if isinstance(self.answer, Exception):
            raise self.answer
        assert reading.value is not None
        return (Grade.FAIL, "far") if reading.value > 5 else (Grade.PASS, "near")


def a_window(roles: Mapping[str, Role] | None = None, facts: Mapping[str, Any] | None = None, days: int = 1) -> Window:
    blocks = [
        Block(start.date(), start, start + timedelta(days=1), lambda: pl.DataFrame({"label": [1.0]}))
        for start in (START + timedelta(days=day) for day in range(days))
    ]
    return Window(blocks, roles or {"label": Role.LABEL}, {"task": None} if facts is None else facts)


def reading(value: float | None, subject: str = "") -> Reading:
    return Reading(name="psi", value=value, subject=subject)


# Measuring


def test_a_missing_role_is_unknown_and_the_check_is_not_called() -> None:
    check = Fake([reading(1.0)])
    [found] = measure(check, a_window({"x": Role.INPUT}), None)
    assert (found.value, found.note, check.calls) == (None, "the window has no label", 0)


def test_a_missing_fact_is_unknown_and_the_check_is_not_called() -> None:
    check = Fake([reading(1.0)])
    [found] = measure(check, a_window(facts={"now": START}), None)
    assert (found.value, found.note, check.calls) == (None, "the window has no task", 0)


def test_an_empty_window_is_unknown() -> None:
    [found] = measure(Fake(), a_window(days=0), None)
    assert (found.value, found.note) == (None, "the window is empty")


def test_a_check_that_raises_is_unknown_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    readings = measure(Fake(ValueError("no bins")), a_window(), None)
    [verdict] = judge_stated(Fake(), "fake", readings, name="f").verdicts
    assert (verdict.grade, verdict.why) == (Grade.UNKNOWN, "the check itself failed: ValueError: no bins")
    assert "check fake failed" in caplog.text


def test_a_check_that_cannot_grade_is_unknown_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    [verdict] = judge_stated(Fake(KeyError("x")), "fake", [reading(1.0)], name="f").verdicts
    assert (verdict.grade, verdict.why) == (Grade.UNKNOWN, "the check itself failed: KeyError: 'x'")
    assert "could not grade" in caplog.text


def test_nan_is_unknown_however_it_is_judged() -> None:
    readings = measure(Fake([reading(math.nan)]), a_window(), None)
    history = {"": [float(i) for i in range(99)]}
    judged = [
        judge_limit("fake", readings, Limit(at_most=1.0), name="f"),
        judge_stated(Fake(), "fake", readings, name="f"),
        judge_window(Fake(), "fake", readings, history, level=0.1, name="f"),
        judge_stream("fake", readings[0], promised=0.5, level=0.1, memory={}, name="f"),
    ]
    assert {verdict.grade for each in judged for verdict in each.verdicts} == {Grade.UNKNOWN}
    assert {verdict.why for each in judged for verdict in each.verdicts} == {"psi is undefined here"}


# Stated limits


@pytest.mark.parametrize(
    ("limit", "value", "grade"),
    [
        (Limit(at_least=0.6), 0.6, Grade.PASS),
        (Limit(at_least=0.6), 0.59, Grade.FAIL),
        (Limit(at_most=0.6), 0.6, Grade.PASS),
        (Limit(at_most=0.6), 0.61, Grade.FAIL),
        (Limit(at_least=-1.0, at_most=1.0), 0.0, Grade.PASS),
        (Limit(at_least=-1.0, at_most=1.0), -1.1, Grade.FAIL),
        (Limit(at_least=-1.0, at_most=1.0), 1.1, Grade.FAIL),
        (Limit(at_most=1.0), math.inf, Grade.FAIL),
        (Limit(at_most=1.0), math.nan, Grade.UNKNOWN),
        (Limit(at_most=1.0), None, Grade.UNKNOWN),
    ],
)
def test_a_stated_limit_holds_on_both_sides_and_includes_its_ends(
    limit: Limit, value: float | None, grade: Grade
) -> None:
    [verdict] = judge_limit("quality", [reading(value)], limit, name="q").verdicts
    assert (verdict.grade, verdict.monitor, verdict.check) == (grade, "q", "quality")


def test_verdicts_come_worst_first() -> None:
    values = [reading(0.1, "a"), reading(None, "b"), reading(0.9, "c"), reading(0.7, "d")]
    judged = judge_limit("fake", values, Limit(at_most=0.5), name="f").verdicts
    assert [verdict.reading.subject for verdict in judged] == ["c", "d", "b", "a"]


# Windows


@given(st.lists(st.integers(0, 20), min_size=9, max_size=40), st.integers(-5, 30))
def test_the_p_value_of_one_column_is_the_count_of_windows_at_least_as_far(past: list[int], now: int) -> None:
    history = {"x": [float(value) for value in past]}
    judged = judge_window(Fake(), "drift", [reading(float(now), "x")], history, level=0.1, name="d")
    [verdict] = judged.verdicts
    at_least_as_far = 1 + sum(value >= now for value in past)
    if len(set(past)) > 1 or now != past[0]:
        assert verdict.p_value == pytest.approx(at_least_as_far / (len(past) + 1))
    assert verdict.grade is (Grade.FAIL if verdict.p_value <= 0.1 else Grade.PASS)
    assert verdict.calibrated


def test_columns_are_calibrated_together_on_the_largest_deviation() -> None:
    rng = np.random.default_rng(1)
    past, now = rng.normal(size=(60, 3)), np.array([4.0, 0.1, -0.5])
    rows = np.vstack([past, now])
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    highest = standard[:-1].max(axis=1)
    expected = {name: (1 + int((highest >= standard[-1, k]).sum())) / 61 for k, name in enumerate("abc")}
    history = {name: list(past[:, k]) for k, name in enumerate("abc")}
    readings = [reading(float(value), name) for name, value in zip("abc", now, strict=True)]
    judged = judge_window(Fake(), "drift", readings, history, level=0.05, name="d").verdicts
    assert {v.reading.subject: v.p_value for v in judged} == expected
    assert [(v.reading.subject, v.grade) for v in judged[:1]] == [("a", Grade.FAIL)]
    assert "over 60 windows of history" in judged[0].why


def test_a_history_that_is_too_short_takes_the_stated_limit_and_says_how_much_is_needed() -> None:
    history = {"x": [0.0] * 18}
    for value, grade in ((9.0, Grade.FAIL), (1.0, Grade.PASS)):
        [verdict] = judge_window(Fake(), "drift", [reading(value, "x")], history, level=0.05, name="d").verdicts
        assert (verdict.grade, verdict.calibrated, verdict.p_value) == (grade, False, None)
        assert "history has 18 disjoint windows; level 0.05 needs 19" in verdict.why
    [verdict] = judge_window(Fake(), "drift", [reading(9.0, "x")], {"x": [0.0] * 19}, level=0.05, name="d").verdicts
    assert (verdict.grade, verdict.calibrated, verdict.p_value) == (Grade.FAIL, True, 0.05)


def test_what_history_never_measured_or_cannot_be_ranked_is_unknown_beside_what_can() -> None:
    history = {"x": [float(i) for i in range(30)], "z": [float(i) for i in range(30)]}
    readings = [reading(1.0, "x"), reading(1.0, "new"), reading(None, "gone"), reading(math.inf, "z")]
    judged = judge_window(Fake(), "drift", readings, history, level=0.1, name="d").verdicts
    assert {v.reading.subject: v.grade for v in judged} == {
        "x": Grade.PASS,
        "new": Grade.UNKNOWN,
        "gone": Grade.UNKNOWN,
        "z": Grade.UNKNOWN,
    }


def test_history_is_each_window_measured_alike_with_nan_where_it_could_not_be() -> None:
    class Counting(Fake):
        def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
            day = window.blocks[0].start.day
            return [reading(float(day), "x"), reading(None if day == 2 else 7.0, "y")]

    windows = [Window([block], {"label": Role.LABEL}, {"task": None}) for block in a_window(days=3).blocks]
    history = evaluation.history_of(Counting(), windows, a_window(days=3))
    assert history["x"] == [1.0, 2.0, 3.0]
    assert history["y"][0] == history["y"][2] == 7.0
    assert math.isnan(history["y"][1])


# Streams


def run_of(values: Sequence[float], *, promised: float, level: float) -> list[Grade]:
    memory: Mapping[str, Any] = {}
    grades = []
    for value in values:
        judged = judge_stream("quality", reading(value), promised=promised, level=level, memory=memory, name="q")
        memory = judged.memory
        grades.append(judged.verdicts[0].grade)
    return grades


def until_alarm(values: Sequence[float], *, promised: float, level: float) -> int:
    """Blocks until the first alarm; all of them where there is none."""
    grades = run_of(values, promised=promised, level=level)
    return grades.index(Grade.FAIL) + 1 if Grade.FAIL in grades else len(grades)


@pytest.mark.slow
def test_runs_under_the_promise_last_at_least_as_long_as_the_level_says() -> None:
    rng = np.random.default_rng(3)
    level, runs = 1 / 20, 400
    lengths = [until_alarm(rng.binomial(30, 0.2, 160) / 30, promised=0.2, level=level) for _ in range(runs)]
    # Runs are cut at 160 blocks, which only shortens the mean.
    assert np.mean(lengths) >= 1 / level


def test_a_rise_above_the_promise_alarms_soon() -> None:
    rng = np.random.default_rng(4)
    calm, risen = rng.normal(0.15, 0.02, 60), rng.normal(0.30, 0.02, 30)
    grades = run_of([*calm, *risen], promised=0.18, level=1 / 150)
    assert Grade.FAIL not in grades[:60]
    assert grades.index(Grade.FAIL) - 60 < 10


def test_evidence_is_kept_within_bounds_so_that_an_alarm_ends_soon_after_its_cause() -> None:
    promised, level = 0.2, 1 / 50
    bad_for_long = [0.9] * 400
    grades = run_of([*bad_for_long, *[0.1] * 40], promised=promised, level=level)
    assert grades[400 - 1] is Grade.FAIL
    after = grades[400:]
    assert after.index(Grade.PASS) < 25
    assert Grade.FAIL not in after[after.index(Grade.PASS) :]


def test_between_alarm_and_calm_a_stream_is_doubtful() -> None:
    level = 1 / 50
    judged = judge_stream("quality", reading(0.2), promised=0.2, level=level, memory={"state": [9.0] * 3}, name="q")
    assert judged.verdicts[0].grade is Grade.WARN
    judged = judge_stream(
        "quality", reading(0.2), promised=0.2, level=level, memory={"state": [CALM * 50 - 2] * 3}, name="q"
    )
    assert judged.verdicts[0].grade is Grade.PASS


def test_a_block_without_a_value_keeps_the_memory_and_is_unknown() -> None:
    memory = {"state": [3.0, 4.0, 5.0]}
    judged = judge_stream("quality", reading(None), promised=0.2, level=0.1, memory=memory, name="q")
    assert (judged.verdicts[0].grade, judged.memory) == (Grade.UNKNOWN, memory)
    judged = judge_stream("quality", reading(0.2), promised=math.nan, level=0.1, memory=memory, name="q")
    assert (judged.verdicts[0].grade, judged.memory) == (Grade.UNKNOWN, memory)
