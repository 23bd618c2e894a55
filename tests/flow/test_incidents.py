"""Incidents: one per cause, opened by a failure, closed by a pass, moved by nothing in between."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.protocols import Transaction
from holdfast.core.records import Incident
from holdfast.engines.memory import MemoryCatalog
from holdfast.errors import NotFound
from holdfast.flow import incidents
from holdfast.flow.incidents import OPEN
from holdfast.testing import START, refused

GROUPS = {"temp": "weather", "wind": "weather", "weather": "weather", "load": "orders", "orders": "orders"}
PASS, WARN, FAIL, UNKNOWN = Grade.PASS, Grade.WARN, Grade.FAIL, Grade.UNKNOWN
Graded = Callable[..., Verdict]


def seen(tx: Transaction, verdicts: Sequence[Verdict], day: int = 0) -> list[Incident]:
    ordered = sorted(verdicts, key=lambda verdict: [FAIL, WARN, UNKNOWN, PASS].index(verdict.grade))
    return incidents.observe(tx, "orders", "drift", ordered, GROUPS, START + timedelta(days=day))


def open_now(tx: Transaction) -> list[Incident]:
    return tx.find(Incident, "orders", state=OPEN)


def test_a_failure_opens_an_incident_with_its_cause_and_verdict(tx: Transaction, graded: Graded) -> None:
    [incident] = seen(tx, [graded(FAIL, "temp")])
    assert (incident.id, incident.cause, incident.subject) == ("inc-1", "drift:weather", "temp")
    assert (incident.state, incident.opened_at, incident.last.why) == ("open", START, "temp fail")


def test_a_failure_about_the_whole_window_is_named_after_its_check(tx: Transaction, graded: Graded) -> None:
    [incident] = seen(tx, [graded(FAIL)])
    assert incident.cause == "drift"


def test_a_cause_that_lasts_stays_one_incident(tx: Transaction, graded: Graded) -> None:
    for day in range(3):
        [incident] = seen(tx, [graded(FAIL, "temp")], day)
    assert tx.find(Incident) == [incident]
    assert (incident.seen, incident.last_at) == (3, START + timedelta(days=2))


def test_several_columns_of_one_feed_are_one_incident(tx: Transaction, graded: Graded) -> None:
    seen(tx, [graded(FAIL, "temp"), graded(FAIL, "wind"), graded(PASS, "load")])
    [incident] = seen(tx, [graded(FAIL, "wind"), graded(PASS, "load"), graded(PASS, "temp")], 1)
    assert tx.find(Incident) == [incident]
    assert (incident.subject, incident.also, incident.last.why) == ("temp", ("wind",), "wind fail")


def test_an_alarm_on_two_feeds_opens_one_incident_named_after_the_worst(tx: Transaction, graded: Graded) -> None:
    both = [graded(FAIL, "temp"), graded(FAIL, "load")]
    [incident] = seen(tx, both)
    assert (incident.cause, incident.also) == ("drift:weather", ("load",))
    [same] = seen(tx, both, 1)
    assert same.id == incident.id
    [same] = seen(tx, [graded(FAIL, "load"), graded(PASS, "temp")], 2)
    assert same.id == incident.id
    assert seen(tx, [graded(PASS, "load"), graded(PASS, "temp")], 3) == []
    assert open_now(tx) == []


def test_what_fails_in_another_feed_while_one_is_open_is_a_cause_of_its_own(tx: Transaction, graded: Graded) -> None:
    seen(tx, [graded(FAIL, "temp"), graded(PASS, "load")])
    touched = seen(tx, [graded(FAIL, "temp"), graded(FAIL, "load")], 1)
    assert [incident.cause for incident in touched] == ["drift:weather", "drift:orders"]


def test_what_was_calibrated_together_is_one_alarm_while_any_of_it_lasts(tx: Transaction, graded: Graded) -> None:
    def judged(grade: Grade, subject: str) -> Verdict:
        return replace(graded(grade, subject), p_value=0.5)

    [first] = seen(tx, [judged(FAIL, "temp"), judged(PASS, "load")])
    for day, grades in enumerate([(FAIL, FAIL), (PASS, FAIL)], 1):
        [same] = seen(tx, [judged(grade, name) for grade, name in zip(grades, ("temp", "load"), strict=True)], day)
        assert same.id == first.id
    assert same.also == ("load",)
    assert seen(tx, [judged(PASS, "temp"), judged(PASS, "load")], 3) == []
    assert open_now(tx) == []


def test_one_more_column_of_a_joint_alarm_stands_in_one_incident_only(tx: Transaction, graded: Graded) -> None:
    seen(tx, [graded(FAIL, "temp")])
    seen(tx, [graded(WARN, "temp"), graded(FAIL, "load")], 1)
    seen(tx, [replace(graded(FAIL, "traffic"), p_value=0.001)], 2)
    assert [(each.subject, each.also) for each in open_now(tx)] == [("temp", ("traffic",)), ("load", ())]


def test_what_belongs_to_no_feed_is_a_cause_of_its_own(tx: Transaction, graded: Graded) -> None:
    seen(tx, [graded(FAIL, "traffic"), graded(PASS, "labels")])
    seen(tx, [graded(PASS, "traffic"), graded(FAIL, "labels")], 1)
    assert [(i.cause, i.state) for i in tx.find(Incident)] == [("drift:traffic", "closed"), ("drift:labels", "open")]


def test_the_whole_window_and_its_parts_are_one_cause(tx: Transaction, graded: Graded) -> None:
    [first] = seen(tx, [graded(FAIL, "bias"), graded(FAIL)])
    [second] = seen(tx, [graded(FAIL), graded(PASS, "bias")], 1)
    assert second.id == first.id
    assert seen(tx, [graded(PASS), graded(PASS, "bias")], 2) == []
    assert open_now(tx) == []


def test_a_warning_neither_opens_nor_closes(tx: Transaction, graded: Graded) -> None:
    assert seen(tx, [graded(WARN, "temp")]) == []
    seen(tx, [graded(FAIL, "temp")], 1)
    assert seen(tx, [graded(WARN, "temp"), graded(PASS, "wind")], 2) == []
    [incident] = open_now(tx)
    assert incident.last_at == START + timedelta(days=1)


def test_unknown_neither_opens_nor_closes(tx: Transaction, graded: Graded) -> None:
    assert seen(tx, [graded(UNKNOWN, "temp")]) == []
    seen(tx, [graded(FAIL, "temp")], 1)
    seen(tx, [graded(UNKNOWN, "temp")], 2)
    seen(tx, [graded(UNKNOWN, "temp"), graded(PASS, "load"), graded(PASS, "wind")], 3)
    seen(tx, [], 4)
    assert len(open_now(tx)) == 1


def test_it_closes_by_itself_when_its_check_passes_again(tx: Transaction, graded: Graded) -> None:
    seen(tx, [graded(FAIL, "temp")])
    assert seen(tx, [graded(PASS, "temp"), graded(UNKNOWN, "load")], 1) == []
    [incident] = tx.find(Incident)
    assert (incident.state, incident.closed_at) == ("closed", START + timedelta(days=1))
    assert incident.actions[-1].why == "the check passes again"
    [again] = seen(tx, [graded(FAIL, "temp")], 2)
    assert again.id == "inc-2"


def test_an_incident_about_what_is_no_longer_watched_closes(tx: Transaction, graded: Graded) -> None:
    seen(tx, [graded(FAIL, "monitor gone")])
    seen(tx, [graded(PASS, "load")], 1)
    assert open_now(tx) == []


def test_what_a_second_monitor_finds_of_the_same_cause_is_further_evidence(tx: Transaction, graded: Graded) -> None:
    [opened] = seen(tx, [graded(FAIL, "temp", monitor="daily")])
    assert seen(tx, [graded(PASS, "temp", monitor="weekly")], 1) == []
    assert open_now(tx) == [opened], "a monitor that never found it does not close it"
    [same] = seen(tx, [graded(FAIL, "wind", monitor="weekly"), graded(PASS, "temp", monitor="weekly")], 2)
    assert tx.find(Incident) == [same]
    assert (same.id, same.subject, same.also, same.seen) == (opened.id, "temp", ("wind",), 2)
    assert [(move.to, move.by, move.why) for move in same.actions] == [("further evidence", "weekly", "wind fail")]


def test_it_closes_when_each_monitor_that_found_it_passes(tx: Transaction, graded: Graded) -> None:
    def look(grade: Grade, monitor: str, day: int) -> None:
        seen(tx, [graded(grade, "temp", monitor=monitor)], day)

    look(FAIL, "daily", 0)
    look(FAIL, "weekly", 0)
    for day in (1, 2):
        look(PASS, "daily", day)
    [incident] = open_now(tx)
    assert incident.actions[-1].why == "daily passes again, weekly not yet"
    assert len(incident.actions) == 2, "a monitor that goes on passing is said once"
    look(FAIL, "daily", 3)
    look(PASS, "weekly", 4)
    assert len(open_now(tx)) == 1, "the other finds it again"
    look(PASS, "daily", 5)
    [closed] = tx.find(Incident)
    assert (closed.state, closed.actions[-1].why) == ("closed", "the check passes again")


def test_what_a_second_monitor_finds_of_another_cause_is_its_own_incident(tx: Transaction, graded: Graded) -> None:
    seen(tx, [graded(FAIL, "temp", monitor="daily")])
    both = [replace(graded(FAIL, name, monitor="weekly"), p_value=0.001) for name in ("load", "temp")]
    first, second = seen(tx, both, 1)
    assert (first.cause, second.cause, second.also) == ("drift:weather", "drift:orders", ())
    assert seen(tx, [replace(each, grade=PASS) for each in both], 2) == []
    assert [incident.cause for incident in open_now(tx)] == ["drift:weather"]


def test_another_number_about_the_whole_window_is_another_cause(tx: Transaction, graded: Graded) -> None:
    def about_all(monitor: str, name: str) -> Verdict:
        return replace(graded(FAIL, monitor=monitor), reading=Reading(name=name, value=1.0))

    seen(tx, [about_all("loss", "log_loss")])
    seen(tx, [about_all("rank", "roc_auc")])
    assert [incident.first.monitor for incident in open_now(tx)] == ["loss", "rank"]
    seen(tx, [about_all("loss of the week", "log_loss")])
    assert [incident.seen for incident in open_now(tx)] == [2, 1]


def test_a_better_founded_alarm_makes_the_incident_a_calibrated_one(tx: Transaction, graded: Graded) -> None:
    [opened] = seen(tx, [replace(graded(FAIL, "temp", monitor="daily"), calibrated=False)])
    assert not opened.calibrated
    [same] = seen(tx, [graded(FAIL, "temp", monitor="weekly")], 1)
    assert same.calibrated


def test_an_acknowledged_incident_goes_on_and_closes_as_an_open_one(tx: Transaction, graded: Graded) -> None:
    seen(tx, [graded(FAIL, "temp")])
    incidents.acknowledge(tx, "orders", "inc-1", "me", START)
    [incident] = seen(tx, [graded(FAIL, "temp")], 1)
    assert (incident.state, incident.seen, incident.actions[0].by) == ("acknowledged", 2, "me")
    seen(tx, [graded(PASS, "temp")], 2)
    with refused(NotFound, "no open incident 'inc-1'"):
        incidents.acknowledge(tx, "orders", "inc-1", "me", START)


def test_what_was_done_stands_in_the_record(tx: Transaction, graded: Graded) -> None:
    [incident] = seen(tx, [graded(FAIL, "temp")])
    incidents.note(tx, incident, "notify", "people were told", START)
    incidents.note(tx, incident, "retrain", "training submitted", START)
    [kept] = tx.find(Incident)
    assert [move.to for move in kept.actions] == ["notify", "retrain"]


SUBJECTS = ("temp", "wind", "load", "traffic", "")
EVALUATIONS = st.lists(
    st.dictionaries(st.sampled_from(SUBJECTS), st.sampled_from([PASS, WARN, FAIL, UNKNOWN]), max_size=5), max_size=12
)


def _causes_of(incident: Incident) -> set[str]:
    return {GROUPS.get(subject) or subject for subject in (incident.subject, *incident.also)}


@given(EVALUATIONS)
def test_whatever_comes_a_cause_has_at_most_one_open_incident_and_each_ends_after_it_began(
    evaluations: list[dict[str, Grade]],
) -> None:
    with MemoryCatalog().begin() as tx:
        for day, grades in enumerate(evaluations):
            before = {incident.id for incident in open_now(tx)}
            verdicts = [
                Verdict(grade=grade, check="drift", reading=Reading(name="psi", value=1.0, subject=subject), why="")
                for subject, grade in grades.items()
            ]
            seen(tx, verdicts, day)
            causes = [cause for incident in open_now(tx) for cause in _causes_of(incident)]
            assert len(causes) == len(set(causes))
            after = {incident.id for incident in open_now(tx)}
            assert len(after - before) <= (FAIL in grades.values())
            assert PASS in grades.values() or not before - after
        for incident in tx.find(Incident):
            if incident.state == "closed":
                assert incident.closed_at is not None
                assert incident.closed_at > incident.opened_at
            else:
                assert (incident.state, incident.closed_at) == ("open", None)


LOOKS = st.lists(
    st.tuples(
        st.sampled_from(["daily", "weekly", "monthly"]),
        st.dictionaries(st.sampled_from(SUBJECTS[:-1]), st.sampled_from([PASS, WARN, FAIL, UNKNOWN]), max_size=4),
        st.booleans(),
    ),
    max_size=16,
)


@given(LOOKS)
def test_however_many_monitors_look_no_alarm_of_another_cause_is_swallowed(
    looks: list[tuple[str, dict[str, Grade], bool]],
) -> None:
    with MemoryCatalog().begin() as tx:
        for day, (monitor, grades, is_joint) in enumerate(looks):
            before = {incident.id: incident for incident in open_now(tx)}
            reading = {subject: Reading(name="psi", value=1.0, subject=subject) for subject in grades}
            p = 0.5 if is_joint else None
            touched = seen(
                tx,
                [
                    Verdict(grade=g, check="drift", reading=reading[s], why="", monitor=monitor, p_value=p)
                    for s, g in grades.items()
                ],
                day,
            )
            failing = {subject for subject, grade in grades.items() if grade is FAIL}
            named = {each for incident in touched for each in (incident.subject, *incident.also)}
            assert failing <= named, "every alarm stands in an incident that it touched"
            for incident in touched:
                was = before.get(incident.id)
                if was is not None and was.first.monitor != monitor:
                    assert _causes_of(incident) == _causes_of(was), "another monitor adds no cause to an incident"
            causes = [cause for incident in open_now(tx) for cause in _causes_of(incident)]
            assert len(causes) == len(set(causes)), "a cause has at most one open incident"
            assert len({incident.id for incident in touched} - before.keys()) <= 1
            for gone in before.keys() - {incident.id for incident in open_now(tx)}:
                assert PASS in grades.values()
                assert not failing & {before[gone].subject, *before[gone].also}


def test_whichever_segment_a_search_finds_is_one_cause_under_another_name(tx: Transaction, graded: Graded) -> None:
    def look(verdicts: list[Verdict], day: int) -> list[Incident]:
        return incidents.observe(tx, "orders", "slices", verdicts, GROUPS, START + timedelta(days=day))

    [opened] = look([graded(FAIL, "hour >= 18", check="slices"), graded(FAIL, "dest=A", check="slices")], 0)
    assert (opened.cause, opened.subject, opened.also) == ("slices", "hour >= 18", ("dest=A",))
    [same] = look([graded(FAIL, "hour >= 17 & dest=B", check="slices")], 1)
    assert (same.id, same.seen, same.also) == (opened.id, 2, ("hour >= 17 & dest=B",))
    assert look([graded(UNKNOWN, check="slices")], 2) == []
    assert len(open_now(tx)) == 1
    assert look([graded(PASS, check="slices")], 3) == []
    assert open_now(tx) == []


def test_an_incident_closes_where_the_monitor_that_found_it_left_the_file(tx: Transaction, graded: Graded) -> None:
    [incident] = seen(tx, [graded(FAIL, "temp", monitor="old")])
    there, renamed = {"old": incident.check}, {"new": incident.check}
    assert incidents.close_orphaned(tx, incident.system, there, START) == []
    done = incidents.close_orphaned(tx, incident.system, renamed, START)
    assert done == ["inc-1 closed: old, which found it, is no longer in the file"]
    assert incidents.orphaned(tx, incident.system, renamed) == []


def test_a_monitor_of_that_name_with_another_check_can_not_pass_it(tx: Transaction, graded: Graded) -> None:
    seen(tx, [graded(FAIL, "temp", monitor="watch")])
    assert incidents.close_orphaned(tx, "orders", {"watch": "silence"}, START)


FILES = st.sets(st.sampled_from(["daily", "weekly", "monthly"]))


@pytest.mark.slow
@given(st.lists(st.tuples(FILES, LOOKS), max_size=6), FILES)
def test_whichever_monitors_come_and_go_what_is_open_can_close_and_swallows_no_later_alarm(
    story: list[tuple[set[str], list[tuple[str, dict[str, Grade], bool]]]], last: set[str]
) -> None:
    def look(monitor: str, grades: dict[str, Grade], p: float | None, day: int) -> list[Incident]:
        reading = {subject: Reading(name="psi", value=1.0, subject=subject) for subject in grades}
        return seen(
            tx,
            [
                Verdict(grade=g, check="drift", reading=reading[s], why="", monitor=monitor, p_value=p)
                for s, g in grades.items()
            ],
            day,
        )

    with MemoryCatalog().begin() as tx:
        day = 0
        for monitors, looks in [*story, (last, [])]:
            there = dict.fromkeys(monitors, "drift")
            incidents.close_orphaned(tx, "orders", there, START + timedelta(days=day))
            assert incidents.orphaned(tx, "orders", there) == []
            for monitor, grades, is_joint in looks:
                day += 1
                if monitor in monitors:
                    look(monitor, grades, 0.5 if is_joint else None, day)
        for monitor in sorted(last):
            look(monitor, dict.fromkeys(SUBJECTS[:-1], PASS), None, day + 1)
        assert open_now(tx) == [], "all pass that can"
        known = {incident.id for incident in tx.find(Incident)}
        for monitor in sorted(last)[:1]:
            [new] = look(monitor, {"temp": FAIL}, None, day + 2)
            assert new.id not in known


def test_of_several_that_found_it_the_one_that_left_the_file_need_not_pass(tx: Transaction, graded: Graded) -> None:
    for monitor in ("one", "two"):
        [incident] = seen(tx, [graded(FAIL, "temp", monitor=monitor)])
    assert incidents.close_orphaned(tx, incident.system, {"two": incident.check}, START) == []
    seen(tx, [graded(PASS, "temp", monitor="two")], 1)
    assert open_now(tx) == []
