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
from holdfast.flow.evaluation import (
    CALM,
    LEAST_BLOCKS,
    Usual,
    judge_limit,
    judge_stated,
    judge_stream,
    judge_uncalibrated,
    judge_window,
    measure,
    windows_of,
)
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


def reading(value: float | None, subject: str = "", rows: int = 0) -> Reading:
    return Reading(name="psi", value=value, subject=subject, rows=rows)


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
    history = {("psi", ""): [float(i) for i in range(99)]}
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


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (Limit(at_most=1.0), "is within its limit, at most 1"),
        (Limit(at_least=0.25), "is within its limit, at least 0.25"),
        (Limit(at_least=0.25, at_most=1.0), "is within its limit, at least 0.25 and at most 1"),
    ],
)
def test_a_verdict_that_passes_a_stated_limit_says_the_limit(limit: Limit, said: str) -> None:
    [verdict] = judge_limit("quality", [reading(0.5)], limit, name="q").verdicts
    assert verdict.why.endswith(said)


def test_verdicts_come_worst_first() -> None:
    values = [reading(0.1, "a"), reading(None, "b"), reading(0.9, "c"), reading(0.7, "d")]
    judged = judge_limit("fake", values, Limit(at_most=0.5), name="f").verdicts
    assert [verdict.reading.subject for verdict in judged] == ["c", "d", "b", "a"]


# Windows


@given(st.lists(st.integers(0, 20), min_size=9, max_size=40), st.integers(-5, 30))
def test_the_p_value_of_one_column_is_the_count_of_windows_at_least_as_far(past: list[int], now: int) -> None:
    history = {("psi", "x"): [float(value) for value in past]}
    judged = judge_window(Fake(), "drift", [reading(float(now), "x")], history, level=0.1, name="d")
    [verdict] = judged.verdicts
    at_least_as_far = 1 + sum(value >= now for value in past)
    if len(set(past)) > 1 or now != past[0]:
        assert verdict.p_value == pytest.approx(at_least_as_far / (len(past) + 1))
    assert verdict.grade is (Grade.FAIL if verdict.p_value <= 0.1 else Grade.PASS)
    assert verdict.calibrated


@pytest.mark.parametrize(
    ("history", "level", "said"),
    [
        (range(6), 0.15, "over 6 windows of history, level 0.150; none of these stood out as much, which 1 in 7 does"),
        ([*range(8), 99], 0.2, "; 1 of these stood out as much, which 1 in 5 does without a cause"),
        (range(99), 0.02, "level 0.020"),
    ],
)
def test_a_failure_on_a_coarse_level_says_how_common_it_is(history: Any, level: float, said: str) -> None:
    past = {("psi", "x"): [float(each) for each in history]}
    [verdict] = judge_window(Fake(), "drift", [reading(99.0, "x")], past, level=level, name="d").verdicts
    assert verdict.grade is Grade.FAIL
    assert said in verdict.why
    assert (level > 0.05) == ("without a cause" in verdict.why)
    [usual] = judge_window(Fake(), "drift", [reading(1.0, "x")], past, level=level, name="d").verdicts
    assert "without a cause" not in usual.why


def test_only_a_limit_that_stood_in_for_history_is_called_so() -> None:
    short, long = {("psi", "x"): [0.0, 1.0]}, {("psi", "x"): [float(each) for each in range(99)]}
    found = [reading(9.0, "x")]
    judged = {
        "stated": judge_stated(Fake(), "fake", found, name="f"),
        "file": judge_limit("fake", found, Limit(at_most=1.0), name="f"),
        "short": judge_window(Fake(), "fake", found, short, level=0.1, name="f"),
        "never": judge_uncalibrated(Fake(), "fake", found, "two windows", name="f"),
        "history": judge_window(Fake(), "fake", found, long, level=0.1, name="f"),
    }
    assert {name: each.verdicts[0].stood_in for name, each in judged.items()} == {
        "stated": False,
        "file": False,
        "short": True,
        "never": True,
        "history": False,
    }
    assert {name for name, each in judged.items() if each.verdicts[0].calibrated} == {"history"}


def test_columns_are_calibrated_together_on_the_largest_deviation() -> None:
    rng = np.random.default_rng(1)
    past, now = rng.normal(size=(60, 3)), np.array([4.0, 0.1, -0.5])
    rows = np.vstack([past, now])
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    highest = standard[:-1].max(axis=1)
    expected = {name: (1 + int((highest >= standard[-1, k]).sum())) / 61 for k, name in enumerate("abc")}
    history = {("psi", name): list(past[:, k]) for k, name in enumerate("abc")}
    readings = [reading(float(value), name) for name, value in zip("abc", now, strict=True)]
    judged = judge_window(Fake(), "drift", readings, history, level=0.05, name="d").verdicts
    assert {v.reading.subject: v.p_value for v in judged} == expected
    assert [(v.reading.subject, v.grade) for v in judged[:1]] == [("a", Grade.FAIL)]
    assert "over 60 windows of history" in judged[0].why


def test_a_history_that_is_too_short_takes_the_stated_limit_and_says_how_much_is_needed() -> None:
    history = {("psi", "x"): [0.0] * 18}
    for value, grade in ((9.0, Grade.FAIL), (1.0, Grade.PASS)):
        [verdict] = judge_window(Fake(), "drift", [reading(value, "x")], history, level=0.05, name="d").verdicts
        assert (verdict.grade, verdict.calibrated, verdict.p_value) == (grade, False, None)
        assert "history has 18 windows; level 0.05 needs 19" in verdict.why
    longer = {("psi", "x"): [0.0] * 19}
    [verdict] = judge_window(Fake(), "drift", [reading(9.0, "x")], longer, level=0.05, name="d").verdicts
    assert (verdict.grade, verdict.calibrated, verdict.p_value) == (Grade.FAIL, True, 0.05)


def test_what_history_never_measured_or_cannot_be_ranked_is_unknown_beside_what_can() -> None:
    history = {("psi", name): [float(i) for i in range(30)] for name in "xz"}
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
    assert history["psi", "x"] == [1.0, 2.0, 3.0]
    assert history["psi", "y"][0] == history["psi", "y"][2] == 7.0
    assert math.isnan(history["psi", "y"][1])


def an_answer_with_two_windows() -> dict[tuple[str, str], list[float]]:
    rng = np.random.default_rng(2)
    inputs = {("psi", name): list(rng.gamma(2, 0.01, 25)) for name in "abcdefgh"}
    return inputs | {("psi", "answer"): [*[math.nan] * 23, 0.02, 0.03]}


def test_a_column_that_history_hardly_measured_is_held_to_the_stated_limit_beside_those_that_are_calibrated() -> None:
    history = an_answer_with_two_windows()
    usual = [reading(0.02, name) for name in "abcdefgh"]
    judged = judge_window(Fake(), "drift", [*usual, reading(14.0, "answer")], history, level=0.117, name="d").verdicts
    assert (judged[0].reading.subject, judged[0].grade, judged[0].calibrated) == ("answer", Grade.FAIL, False)
    assert "history has 2 windows; level 0.12 needs 8" in judged[0].why
    alone = judge_window(Fake(), "drift", usual, history, level=0.117, name="d").verdicts
    assert [v.p_value for v in judged[1:]] == [v.p_value for v in alone]
    assert "over 25 windows" in judged[1].why


@given(st.integers(0, 2**20), st.floats(0.04, 0.5))
def test_only_windows_in_which_all_was_measured_are_ranked_and_enough_of_them(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    past = np.where(rng.random((40, 4)) < rng.random(4) * 0.6, np.nan, rng.normal(size=(40, 4)))
    history = {("psi", name): list(past[:, k]) for k, name in enumerate("abcd")}
    readings = [reading(1.0, name) for name in "abcd"]
    judged = judge_window(Fake(), "drift", readings, history, level=level, name="d").verdicts
    calibrated = [v for v in judged if v.calibrated]
    columns = ["abcd".index(v.reading.subject) for v in calibrated]
    whole = int((~np.isnan(past[:, columns])).all(axis=1).sum())
    assert len(judged) == 4
    for verdict in calibrated:
        assert f"over {whole} windows" in verdict.why
        assert verdict.p_value is not None
        assert verdict.p_value >= 1 / (whole + 1)
    assert not calibrated or 1 / (whole + 1) <= level + 1e-9


def test_the_windows_of_a_history_are_those_in_which_what_is_mostly_measured_was() -> None:
    assert windows_of(an_answer_with_two_windows()) == 25
    assert windows_of({("psi", "x"): [1.0, math.nan, 2.0], ("psi", "y"): [1.0, 2.0, 2.0]}) == 2
    assert windows_of({}) == 0


def test_what_takes_no_share_is_held_to_the_stated_limit_and_says_why() -> None:
    [verdict] = judge_uncalibrated(Fake(), "drift", [reading(9.0, "x")], "two windows only", name="d").verdicts
    assert (verdict.grade, verdict.calibrated, verdict.level) == (Grade.FAIL, False, None)
    assert verdict.why == "far (not calibrated: two windows only)"


# A window and its newest part


def both_of(whole: float | None, newest: float | None) -> evaluation.Evaluation:
    past = {("psi", "x"): [float(i) for i in range(30)], (f"{evaluation.NEWEST}psi", "x"): [2.0 * i for i in range(30)]}
    readings = [reading(whole, "x"), *evaluation.of_newest([reading(newest, "x")])]
    return evaluation.as_one(judge_window(Fake(), "drift", readings, past, level=0.1, name="d"))


def test_a_window_and_its_newest_part_are_one_ranking_and_one_verdict() -> None:
    [usual] = both_of(5.0, 10.0).verdicts
    assert (usual.grade, usual.reading.name, usual.reading.value) == (Grade.PASS, "psi", 5.0)
    [window] = both_of(90.0, 10.0).verdicts
    assert (window.grade, window.reading.value, window.p_value) == (Grade.FAIL, 90.0, pytest.approx(1 / 31))
    [newest] = both_of(5.0, 900.0).verdicts
    assert (newest.grade, newest.reading.name, newest.reading.value) == (Grade.FAIL, "psi", 900.0)
    assert "of the newest part of the window alone" in newest.reading.note
    assert "on the newest part of its window" in newest.why


def test_what_could_not_be_measured_on_one_of_both_is_told_by_the_other() -> None:
    [newest] = both_of(None, 10.0).verdicts
    assert (newest.grade, newest.reading.value) == (Grade.PASS, 10.0)
    [window] = both_of(5.0, None).verdicts
    assert (window.grade, window.reading.value) == (Grade.PASS, 5.0)
    [neither] = both_of(None, None).verdicts
    assert (neither.grade, neither.reading.name) == (Grade.UNKNOWN, "psi")


@given(st.floats(-10, 100), st.floats(-10, 100))
def test_one_verdict_of_both_fails_where_either_does(whole: float, newest: float) -> None:
    past = {("psi", "x"): [float(i) for i in range(30)], (f"{evaluation.NEWEST}psi", "x"): [2.0 * i for i in range(30)]}
    readings = [reading(whole, "x"), *evaluation.of_newest([reading(newest, "x")])]
    judged = judge_window(Fake(), "drift", readings, past, level=0.1, name="d")
    [verdict] = evaluation.as_one(judged).verdicts
    assert (verdict.grade is Grade.FAIL) == any(v.grade is Grade.FAIL for v in judged.verdicts)
    assert verdict.p_value in [v.p_value for v in judged.verdicts]


def test_the_column_that_stands_out_most_comes_first_whatever_the_unit_of_its_reading() -> None:
    rng = np.random.default_rng(3)
    history = {("psi", "large"): list(rng.normal(100, 1, 30)), ("psi", "small"): list(rng.normal(0, 0.001, 30))}
    readings = [reading(110.0, "large"), reading(0.1, "small")]
    judged = judge_window(Fake(), "drift", readings, history, level=0.1, name="d").verdicts
    assert [v.reading.subject for v in judged] == ["small", "large"]
    assert judged[0].p_value == judged[1].p_value


def test_what_holds_an_alarm_open_is_a_warning_and_a_failure_stays_one() -> None:
    passing = evaluation.holding(both_of(5.0, 10.0), "its window still has 2024-01-03, when it failed")
    assert passing.verdicts[0].grade is Grade.WARN
    assert passing.verdicts[0].why.endswith("its window still has 2024-01-03, when it failed")
    assert evaluation.holding(both_of(90.0, 10.0), "still").verdicts[0].grade is Grade.FAIL


# Streams


def usual_days(count: int = 60, seed: int = 5) -> Usual:
    means = np.random.default_rng(seed).normal(0.3, 0.03, count)
    return Usual(means=tuple(means.tolist()), rows=(100,) * count)


def test_what_a_day_hardly_falls_below_makes_a_rise_sooner_seen() -> None:
    usual, memory, days = usual_days(), dict[str, Any](), {}
    for name, known in (("without", None), ("with", usual)):
        memory = {}
        for day in range(1, 40):
            judged = judge_stream("q", reading(0.5), promised=0.34, level=0.01, memory=memory, name="q", usual=known)
            memory = judged.memory
            if judged.verdicts[0].grade is Grade.FAIL:
                days[name] = day
                break
    assert days["with"] <= days["without"] / 2
    assert usual_days(LEAST_BLOCKS - 1).low(0.34) == 0.0
    assert usual.low(0.1) == 0.0  # nothing of history is below: it says nothing
    below = judge_stream("q", reading(0.0), promised=0.34, level=0.01, memory={}, name="q", usual=usual)
    assert below.verdicts[0].grade is Grade.PASS


@pytest.mark.slow
def test_runs_with_a_lowest_day_under_the_promise_last_as_long_as_the_level_says_too() -> None:
    rng = np.random.default_rng(6)
    lengths = []
    for _ in range(200):
        past, stream = rng.normal(0.3, 0.03, 60), rng.normal(0.3, 0.03, 160)
        usual, memory = Usual(means=tuple(past.tolist()), rows=(100,) * 60), dict[str, Any]()
        grades = []
        for value in stream:
            judged = judge_stream("q", reading(value), promised=0.3, level=1 / 20, memory=memory, name="q", usual=usual)
            memory = judged.memory
            grades.append(judged.verdicts[0].grade)
        lengths.append(grades.index(Grade.FAIL) + 1 if Grade.FAIL in grades else len(grades))
    assert np.mean(lengths) >= 20


def test_one_day_worse_than_all_of_history_alarms_at_once_where_the_level_allows() -> None:
    usual = usual_days(105)  # 99 of them end a whole week

    def judged(value: float, look: float, rows: int = 100) -> Grade:
        day = Reading(name="log_loss", value=value, rows=rows)
        return (
            judge_stream("q", day, promised=0.34, level=1e-4, memory={}, name="q", usual=usual, look=look)
            .verdicts[0]
            .grade
        )

    assert judged(0.9, 0.01) is Grade.FAIL
    assert judged(0.9, 0.0) is Grade.PASS
    assert judged(0.9, 0.009) is Grade.PASS  # one in a hundred is the least that 99 looks can tell
    assert judged(0.9, 0.01, rows=99) is Grade.PASS  # a smaller day than any scatters more
    assert judged(sorted(usual.means)[-2] + 1e-9, 0.01) is Grade.PASS


def test_a_week_worse_than_all_of_history_alarms_though_none_of_its_days_would() -> None:
    past = np.tile([0.25, 0.35], 53)
    usual, memory = Usual(means=tuple(past.tolist()), rows=(100,) * 106), dict[str, Any]()
    grades = []
    for value in [0.3] * 7 + [0.349] * 7:
        judged = judge_stream(
            "q", reading(value, rows=100), promised=0.34, level=1e-6, memory=memory, name="q", usual=usual, look=0.01
        )
        memory = judged.memory
        grades.append(judged.verdicts[0].grade)
    assert grades[:7] == [Grade.PASS] * 7
    assert grades[-1] is Grade.FAIL
    assert max(past) > 0.349


def test_a_stream_that_failed_on_a_day_stays_in_doubt_for_the_week_that_has_it() -> None:
    usual, memory = usual_days(105), dict[str, Any]()
    grades = []
    for value in [0.9] + [0.3] * 8:
        judged = judge_stream(
            "q", reading(value, rows=100), promised=0.34, level=1e-9, memory=memory, name="q", usual=usual, look=0.01
        )
        memory = judged.memory
        grades.append(judged.verdicts[0].grade)
    assert grades[0] is Grade.FAIL
    assert Grade.PASS not in grades[:7]  # of which the last looks at a week with the bad day in it
    assert grades[7:] == [Grade.PASS, Grade.PASS]


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
