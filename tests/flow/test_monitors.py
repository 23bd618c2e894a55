"""Monitors: when they are due, how they share the budget, what they remember, and which days they see."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import msgspec
import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core import kinds
from holdfast.core.evidence import Block, Grade, Limit, Reading, Role, Window
from holdfast.core.protocols import Transaction
from holdfast.core.records import Mark
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Monitor, SystemSpec
from holdfast.engines.memory import MemoryLake
from holdfast.flow.monitors import RECENT_DAYS, Monitoring, Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.stats.histogram import edges_of
from holdfast.tasks.classification import Classification
from holdfast.tasks.regression import Regression
from holdfast.testing import START

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FIRST = START.date()
MakeSpec = Callable[..., SystemSpec]


class Mean(msgspec.Struct, frozen=True, kw_only=True):
    """The mean answer; fails above 0.5, or where the recent days are far from it."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.OUTPUT})
    facts: ClassVar[frozenset[str]] = frozenset()
    evidence: ClassVar[str] = "stated"
    against: ClassVar[str] = "nothing"

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        days = ",".join(str((block.day - FIRST).days) for block in window.blocks)
        mean = window.rows()["probability"].mean() if window.rows().height else None
        return [Reading(name="mean", value=mean, rows=window.rows().height, note=days)]  # type: ignore[arg-type]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        return (Grade.FAIL, "") if (reading.value or 0) > 0.5 else (Grade.PASS, "")


class Jump(Mean, frozen=True, kw_only=True):
    """How far the mean answer is from that of the recent days."""

    against: ClassVar[str] = "recent"

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        assert baseline is not None
        assert not set(window.blocks) & set(baseline.blocks)
        days = [block.rows()["probability"].mean() for block in baseline.blocks if block.rows().height]
        if len(days) < 3:
            return [Reading(name="jump", value=None, note=f"{len(days)} days are too few")]
        usual = sum(days) / len(days)  # type: ignore[arg-type]
        return [Reading(name="jump", value=abs(window.rows()["probability"].mean() - usual) + 0.4)]  # type: ignore


class Compared(Mean, frozen=True, kw_only=True):
    """Judged among windows of history."""

    evidence: ClassVar[str] = "window"
    against: ClassVar[str] = "reference"

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        assert baseline is not None
        return [Reading(name="mean", value=window.rows()["probability"].mean(), subject="x")]  # type: ignore[arg-type]


class Counted(Compared, frozen=True, kw_only=True):
    """The same of what is counted, so that the newest part of a window is looked at too; notes its days."""

    facts: ClassVar[frozenset[str]] = frozenset({"edges"})

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        [found] = super().measure(window, baseline)
        return [msgspec.structs.replace(found, note=str([(block.day - FIRST).days for block in window.blocks]))]


class Loss(Mean, frozen=True, kw_only=True):
    """The Brier score as a stream; `seen` are the days it was asked about, in order."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.OUTPUT, Role.LABEL})
    evidence: ClassVar[str] = "stream"
    seen: ClassVar[list[int]] = []

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        self.seen.extend((block.day - FIRST).days for block in window.blocks)
        rows = window.rows().drop_nulls("label")
        if rows.is_empty():
            return [Reading(name="brier", value=None, note="no labelled row")]
        return [Reading(name="brier", value=float(((rows["probability"] - rows["label"]) ** 2).mean()))]  # type: ignore


class Seeing(Mean, frozen=True, kw_only=True):
    """Says which earlier windows it was shown."""

    facts: ClassVar[frozenset[str]] = frozenset({"earlier"})

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        days = [[(block.day - FIRST).days for block in earlier.blocks] for earlier in window.facts["earlier"]]
        return [Reading(name="mean", value=0.0, note=str(days))]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        return Grade.PASS, reading.note


class Lately(Jump, frozen=True, kw_only=True):
    """Says how many days before its window it was shown, good or bad."""

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        return [Reading(name="mean", value=0.0, note=str(len(window.facts["lately"])))]


FAKES = {
    "lately": Lately,
    "seeing": Seeing,
    "mean": Mean,
    "jump": Jump,
    "compared": Compared,
    "counted": Counted,
    "loss": Loss,
}


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    load = kinds.load
    monkeypatch.setattr(kinds, "load", lambda group, name: FAKES.get(name) or load(group, name))
    Loss.seen.clear()


def a_reference(version: str = "1", promised: float = 0.2, days: int = 0, lake: LivePredictions | None = None) -> Any:
    blocks: tuple[Block, ...] = ()
    if lake is not None:
        blocks = tuple(lake.labelled_block(FIRST + day * DAY) for day in range(days))
    return Reference(version=version, blocks=blocks, facts={"edges": {}}, promised={"brier": promised})


class Watch:
    """A monitoring over a lake, evaluated at the end of days."""

    def __init__(self, spec: SystemSpec, lake: MemoryLake, tx: Transaction) -> None:
        self.spec, self.tx = spec, tx
        self.live = LivePredictions(spec, lake, "probability")
        self.monitoring = Monitoring(spec, Classification(), self.live)

    def at(self, day: int, reference: Reference | None = None, monitor: int = 0) -> list[Any]:
        """Verdicts of one monitor at the very end of a day, `day` days after START."""
        now = START + (day + 1) * DAY
        return list(self.monitoring.run(self.tx, self.spec.monitors[monitor], reference or a_reference(), {}, now))

    def memory(self, monitor: int = 0) -> Mapping[str, Any]:
        mark = self.tx.get(Mark, "orders", f"monitor/{self.spec.monitors[monitor].name}")
        assert mark is not None
        return mark.memory


@pytest.fixture
def watch(a_spec: MakeSpec, lake: MemoryLake, tx: Transaction) -> Callable[..., Watch]:
    def make(*monitors: Monitor, **changes: Any) -> Watch:
        return Watch(a_spec(monitors=monitors, **changes), lake, tx)

    return make


MEAN = Monitor(check="mean", name="mean")
LOSS = Monitor(check="loss", name="loss")
JUMP = Monitor(check="jump", name="jump")


# When


def test_a_monitor_is_due_first_after_its_time_since_going_live_then_since_its_last_run(watch) -> None:
    daily, weekly = Monitor(check="mean", name="daily"), Monitor(check="mean", name="weekly", every=7 * DAY)
    watching = watch(daily, weekly)

    def due(days: float) -> list[str]:
        return [m.name for m in watching.monitoring.due(watching.tx, START + days * DAY, START)]

    assert (due(0.9), due(1), due(7)) == ([], ["daily"], ["daily", "weekly"])
    watching.at(6, monitor=0)
    watching.at(6, monitor=1)
    assert (due(7.9), due(8), due(14)) == ([], ["daily"], ["daily", "weekly"])


def test_what_ran_last_can_be_told(watch) -> None:
    watching = watch(MEAN, Monitor(check="mean", name="never", every=7 * DAY))
    watching.at(0)
    runs = watching.monitoring.last_runs(watching.tx)
    assert runs == {"mean": (START + DAY, DAY), "never": (None, 7 * DAY)}


# The budget


@pytest.mark.parametrize("false_alarms", [0.5, 1.0, 4.0])
def test_the_calibrated_monitors_together_stay_within_the_budget(watch, traffic, false_alarms: float) -> None:
    monitors = [
        Monitor(check="compared", name="daily"),
        Monitor(check="compared", name="weekly", every=7 * DAY, window=7 * DAY),
        Monitor(check="loss", name="rarely", every=7 * DAY),
        Monitor(check="loss", name="stated", limit=Limit(at_most=1.0)),
        Monitor(check="mean", name="mean"),
    ]
    watching = watch(*monitors, false_alarms=false_alarms)
    for day in range(70):
        traffic.day(day, [0.3, 0.2], [0.0, 1.0])
    found = watching.monitoring.levels(a_reference(days=70, lake=watching.live), {})
    assert set(found) == {"daily", "weekly", "rarely"}
    looks = {"daily": 30, "weekly": 30 / 7, "rarely": 30}  # a stream is judged on every day, whenever it runs
    spent = sum(looks[name] * (share.level + share.look) for name, share in found.items())
    assert 0.9 * false_alarms <= spent <= false_alarms + 1e-9
    assert found["rarely"].level > 0


def test_what_can_never_be_calibrated_takes_nothing_from_the_others_and_says_so(watch, traffic) -> None:
    weekly = Monitor(check="compared", name="weekly", every=7 * DAY, window=7 * DAY)
    daily = Monitor(check="compared", name="daily")
    for day in range(50):
        traffic.day(day, [0.3 + 0.001 * (day % 10), 0.3], [0.0, 1.0])
    alone, both = watch(weekly), watch(weekly, daily)
    reference = a_reference(days=40, lake=alone.live)
    assert both.monitoring.levels(reference, {})["daily"].level == 0
    before, after = (each.monitoring.levels(reference, {})["weekly"].level for each in (alone, both))
    assert after == before
    assert [v.calibrated for v in both.at(41, reference)] == [True]
    [verdict] = both.at(42, reference, monitor=1)
    assert not verdict.calibrated
    assert "history has 40 disjoint windows, so one false alarm in 41 of its 30 looks a month" in verdict.why


def a_week_looked_at_daily(watch: Callable[..., Any], traffic: Any) -> Any:
    """A monitor over 60 days of reference, and traffic that begins ten days after it and is bad on day 80."""
    watching = watch(Monitor(check="counted", name="c", window=7 * DAY), false_alarms=2.0)
    for day in (*range(60), *range(70, 110)):
        traffic.day(day, [0.9 if day == 80 else 0.3 + 0.01 * (day % 5), 0.3], [0.0, 1.0])
    return watching, a_reference(days=60, lake=watching.live)


def test_a_window_looked_at_before_it_has_passed_is_ranked_among_windows_that_follow_as_closely(watch, traffic) -> None:
    watching, reference = a_week_looked_at_daily(watch, traffic)
    assert 3 / 55 <= watching.monitoring.levels(reference, {})["c"].level < 4 / 55
    [verdict] = watching.at(77, reference)
    assert (verdict.grade, verdict.calibrated) == (Grade.PASS, True)
    assert "over 54 windows of history" in verdict.why


def test_a_jump_is_found_in_the_newest_day_and_held_while_the_window_has_it(watch, traffic) -> None:
    watching, reference = a_week_looked_at_daily(watch, traffic)
    grades = {}
    for day in range(70, 92):
        [verdict] = watching.at(day, reference)
        grades[day] = verdict.grade
        if day == 80:
            assert verdict.reading.note == "[80]; of the newest part of the window alone"
    assert next(day for day, grade in grades.items() if grade is Grade.FAIL) == 80
    assert Grade.PASS not in [grades[day] for day in range(80, 87)]
    assert {grades[day] for day in (*range(70, 80), *range(87, 92))} == {Grade.PASS}


def test_a_window_that_reaches_to_before_the_first_answer_is_not_judged_but_its_newest_day_is(watch, traffic) -> None:
    watching, reference = a_week_looked_at_daily(watch, traffic)
    for day in range(70, 76):
        [verdict] = watching.at(day, reference)
        assert verdict.reading.note == f"[{day}]; of the newest part of the window alone"
    [verdict] = watching.at(76, reference)
    assert verdict.reading.note == str(list(range(70, 77)))


def test_a_monitor_that_is_new_to_a_system_with_answers_judges_whole_windows_at_once(watch, traffic) -> None:
    watching, reference = a_week_looked_at_daily(watch, traffic)
    [verdict] = watching.at(77, reference)
    assert verdict.reading.note == str(list(range(71, 78)))


def test_a_window_with_a_stated_limit_is_held_to_it_alone(watch, traffic) -> None:
    _, reference = a_week_looked_at_daily(watch, traffic)
    watching = watch(Monitor(check="counted", name="c", window=7 * DAY, limit=Limit(at_most=0.5)))
    [verdict] = watching.at(80, reference)
    assert (verdict.grade, verdict.reading.note) == (Grade.PASS, str(list(range(74, 81))))


def test_no_level_is_above_a_half(watch, traffic) -> None:
    watching = watch(Monitor(check="compared", name="c", every=30 * DAY), false_alarms=50.0)
    for day in range(20):
        traffic.day(day, [0.3], [0.0])
    assert watching.monitoring.levels(a_reference(days=20, lake=watching.live), {})["c"].level <= 0.5


def test_a_day_worse_than_every_day_of_the_reference_is_told_on_its_first_mature_day(watch, traffic) -> None:
    watching = watch(Monitor(check="loss", name="l"))
    for day in range(80):
        traffic.day(day, [0.4 + 0.002 * (day % 9), 0.4], [0.0, 1.0])
    traffic.day(80, [0.9, 0.1], [0.0, 1.0])
    reference = a_reference(days=79, lake=watching.live, promised=0.3)
    assert watching.at(80, reference)[0].grade is Grade.PASS
    [verdict] = watching.at(81, reference)
    assert verdict.grade is Grade.FAIL
    assert "p = 0.014 among 73 days of history" in verdict.why


def test_a_check_of_the_recent_past_is_shown_more_days_where_these_have_few_rows(watch, traffic) -> None:
    watching = watch(Monitor(check="lately", name="l"))
    for day in range(60):
        traffic.day(day, [0.3] * 10, [0.0] * 10)
    assert watching.at(59)[0].reading.note == "42"
    assert watching.at(70)[0].reading.note == "42"  # days without rows are not days with few


def test_answers_that_failed_are_told_to_the_checks_that_ask(watch, traffic) -> None:
    watching = watch(Monitor(check="errors", name="e"))
    traffic.day(0, [0.3] * 50, [0.0] * 50)
    [verdict] = watching.at(0)
    assert (verdict.grade, verdict.reading.value) == (Grade.PASS, 0.0)


def test_a_window_is_judged_among_the_disjoint_windows_of_its_version(watch, traffic) -> None:
    watching = watch(Monitor(check="compared", name="c"), false_alarms=3.0)
    for day in range(21):
        traffic.day(day, [0.3 + 0.001 * (day % 10), 0.3], [0.0, 1.0])
    reference = a_reference(days=20, lake=watching.live)
    [usual] = watching.at(20, reference)
    assert (usual.grade, usual.calibrated) == (Grade.PASS, True)
    traffic.day(21, [0.9, 0.9], [0.0, 1.0])
    [unusual] = watching.at(21, reference)
    assert (unusual.grade, unusual.p_value) == (Grade.FAIL, pytest.approx(1 / 21))


def test_a_stated_limit_takes_the_place_of_calibration(watch, traffic) -> None:
    watching = watch(
        Monitor(check="compared", name="c", limit=Limit(at_most=0.4)),
        Monitor(check="loss", name="l", limit=Limit(at_most=0.1)),
    )
    traffic.day(0, [0.9], [0.0])
    traffic.day(1, [0.9], [0.0])
    assert [watching.at(1, monitor=i)[0].grade for i in (0, 1)] == [Grade.FAIL, Grade.FAIL]


# Which days


def test_a_window_ends_with_the_newest_complete_day_and_a_labelled_one_with_the_newest_mature(watch, traffic) -> None:
    watching = watch(
        Monitor(check="mean", name="mean", window=3 * DAY),
        Monitor(check="loss", name="loss", window=2 * DAY, limit=Limit(at_most=1.0)),
    )
    for day in range(6):
        traffic.day(day, [0.3], [0.0])
    assert watching.at(5)[0].reading.note == "3,4,5"
    watching.at(5, monitor=1)
    assert Loss.seen == [3, 4]


@pytest.mark.parametrize("stray", ["kept", "superseded"])
@pytest.mark.parametrize("known", [("signature", "edges"), ("signature",)], ids=["counted", "read"])
def test_schema_says_of_a_mature_day_what_it_said_before_and_of_rows_what_it_says_of_counts(
    watch, traffic, stray: str, known: tuple[str, ...]
) -> None:
    watching = watch(Monitor(check="schema", name="schema"), mature_after=2 * HOUR)
    noon, keys = START + timedelta(hours=12), [f"k{n}" for n in range(40)]
    for k in range(5):
        x, y = [9.0 if k < 4 else 1.0] * 40, [9.0 * (stray == "kept" and k == 4)] + [0.0] * 39
        traffic.answer([noon] * 40, [0.5] * 40, keys=keys, predicted_at=[noon - (6 - k) * HOUR] * 40, x=x, y=y)
    traffic.recorder.close()
    columns = tuple(Column(name=name, type="number", low=0.0, high=3.0) for name in "xy")
    facts = {
        "signature": Signature(columns=columns, task="classification", output="probability"),
        "edges": {name: edges_of(np.array([0.0, 1.0, 2.0, 3.0])) for name in "xy"},
    }
    reference = Reference(version="1", blocks=(), facts={name: facts[name] for name in known}, promised={})
    for now in (START + DAY + HOUR, START + DAY + 3 * HOUR):
        verdicts = watching.monitoring.run(watching.tx, watching.spec.monitors[0], reference, {}, now)
        found = {verdict.reading.subject: verdict.reading.value for verdict in verdicts}
        assert found["x"] == pytest.approx(160 / 200)
        assert found["y"] == pytest.approx((stray == "kept") / 200)
    assert watching.live.window(FIRST, FIRST, {}, now).rows().height == 40  # with its labels it is another day


def test_days_on_which_a_check_failed_are_left_out_of_its_recent_days(watch, traffic) -> None:
    watching = watch(JUMP)
    answers = [0.2] * 8 + [0.9] * 4
    for day, answer in enumerate(answers):
        traffic.day(day, [answer] * 2, [0.0, 1.0])
    grades = [watching.at(day)[0].grade for day in range(len(answers))]
    assert grades == [Grade.UNKNOWN] * 3 + [Grade.PASS] * 5 + [Grade.FAIL] * 4
    assert watching.memory()["bad_days"] == [(FIRST + day * DAY).isoformat() for day in range(8, 12)]


def test_a_change_that_lasts_becomes_normal(watch, traffic) -> None:
    watching = watch(JUMP)
    grades = []
    for day in range(40):
        traffic.day(day, [0.2 if day < 6 else 0.9] * 2, [0.0, 1.0])
        grades.append(watching.at(day)[0].grade)
    lasted = [day for day, grade in enumerate(grades) if grade is Grade.FAIL]
    assert lasted[0] == 6
    assert len(lasted) <= RECENT_DAYS
    assert set(grades[6 + RECENT_DAYS + 4 :]) == {Grade.PASS}


# Streams


def test_a_stream_folds_every_mature_day_once_in_order_even_after_a_pause(watch, traffic) -> None:
    watching = watch(LOSS)
    for day in range(12):
        traffic.day(day, [0.3, 0.3], [0.0, 1.0])
    for day in (3, 4, 4, 9, 11):
        watching.at(day)
    assert Loss.seen == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert watching.memory()["through"] == (FIRST + 10 * DAY).isoformat()


def test_pauses_change_nothing_in_what_is_remembered(watch, traffic, a_spec: MakeSpec, lake: MemoryLake) -> None:
    daily = watch(LOSS, Monitor(check="loss", name="seldom"))
    for day in range(12):
        traffic.day(day, [0.1 * (day % 9)], [1.0])
        daily.at(day)
        if day in (1, 11):
            daily.at(day, monitor=1)
    assert daily.memory(1)["state"] == daily.memory(0)["state"]


def test_an_alarm_within_a_pause_is_not_lost(watch, traffic) -> None:
    watching = watch(LOSS, false_alarms=15.0)
    for day in range(20):
        traffic.day(day, [0.99 if 2 <= day < 8 else 0.01], [0.0])
    watching.at(1)
    [verdict] = watching.at(19)
    assert verdict.grade is Grade.FAIL
    assert watching.at(20)[0].grade is not Grade.FAIL


def test_a_check_is_shown_the_mature_windows_since_its_version_was_watched(watch, traffic) -> None:
    watching = watch(Monitor(check="seeing", name="seeing", window=2 * DAY))
    for day in range(9):
        traffic.day(day, [0.5], [0.0])
    assert watching.at(2)[0].why == "[]"
    assert watching.at(8)[0].why == "[[2, 3], [4, 5], [6, 7]]"


def test_a_new_version_begins_without_memory_and_answers_for_itself_only(watch, traffic) -> None:
    watching = watch(LOSS)
    for day in range(6):
        traffic.day(day, [0.9, 0.9], [0.0, 0.0], version="1")
        watching.at(day, a_reference("1"))
    assert max(watching.memory()["state"]) > 1
    [verdict] = watching.at(5, a_reference("2"))
    assert (verdict.grade, verdict.why) == (Grade.UNKNOWN, "the window is empty")
    through, since = ((FIRST + days * DAY).isoformat() for days in (4, 5))
    first = FIRST.isoformat()  # another version answered days before, on inputs like these
    assert watching.memory() == {"version": "2", "through": through, "since": since, "first": first}
    traffic.day(6, [0.9], [0.0], version="1")
    traffic.day(6, [0.1], [0.0], version="2")
    [verdict] = watching.at(7, a_reference("2"))
    assert (verdict.grade, verdict.reading.value) == (Grade.PASS, pytest.approx(0.01))


def test_a_loss_that_was_never_promised_is_unknown(watch, traffic) -> None:
    watching = watch(LOSS)
    traffic.day(0, [0.9], [0.0])
    reference = Reference(version="1", blocks=(), facts={}, promised={})
    assert watching.at(1, reference)[0].grade is Grade.UNKNOWN


def test_verdicts_carry_the_time_of_their_evaluation(watch, traffic) -> None:
    traffic.day(0, [0.3], [0.0])
    assert watch(MEAN).at(0)[0].at == START + DAY


@pytest.mark.parametrize("metric", Regression.errors)
def test_a_regressions_error_above_what_was_promised_alarms(a_spec: MakeSpec, lake, tx, traffic, metric: str) -> None:
    monitor = Monitor(check="quality", name="quality", options={"metric": metric})
    spec = a_spec(monitors=[monitor])
    spec = replace(spec, model=replace(spec.model, task="regression"))
    live, task = LivePredictions(spec, lake, "probability"), Regression()
    monitoring = Monitoring(spec, task, live)
    reference = Reference(version="1", blocks=(), facts={}, promised={metric: 1.0})
    grades = []
    for day in range(8):
        error = 0.5 if day < 3 else 5.0
        traffic.day(day, [2.0] * 20, [2.0 + error] * 20)
        now = START + (day + 2) * DAY
        [verdict] = monitoring.run(tx, monitor, reference, {"task": task}, now)
        grades.append(verdict.grade)
    assert grades[:3] == [Grade.PASS] * 3
    assert grades[-1] is Grade.FAIL


def test_a_window_of_history_that_was_answered_on_some_of_its_days_only_says_nothing_about_answers(
    watch, traffic
) -> None:
    weekly = Monitor(check="compared", name="c", every=7 * DAY, window=7 * DAY)
    watching = watch(weekly, false_alarms=1.0)
    for day in range(75):
        traffic.day(day, [0.3, 0.2], [0.0, 1.0])
    reference = a_reference(days=70, lake=watching.live)
    bare = reference.blocks[3].rows().with_columns(probability=pl.lit(None, pl.Float64))
    unanswered = [Block(b.day, b.start, b.end, lambda: bare) for b in reference.blocks[:10]]
    partly = msgspec.structs.replace(reference, version="2", blocks=(*unanswered, *reference.blocks[10:]))
    assert [verdict.why.split("over ")[1][:2] for verdict in watching.at(74, reference)] == ["10"]
    assert [verdict.why.split("over ")[1][:2] for verdict in watching.at(74, partly)] == ["8 "]
