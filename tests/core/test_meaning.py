"""What an incident means, in words."""

from datetime import date, timedelta
from typing import Any

from msgspec.structs import replace

from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.meaning import IF_WRONG, MOST_NAMED, headline, judged_by, parts, percent, reason, standing, summary
from holdfast.core.records import ColumnCost, Explanation, Happening, Incident, Move
from holdfast.testing import START

FULL: dict[str, Any] = {
    "at": START,
    "column": "temp",
    "began": date(2013, 7, 18),
    "began_low": date(2013, 7, 17),
    "began_high": date(2013, 7, 19),
    "dated_by": "daily distance of temp",
    "slices": (Reading(name="slice_rise", value=0.2, subject="hour >= 18", note="0.1 before, 0.3 since"),),
    "loss": "brier",
    "cost": 0.0411,
    "cost_low": 0.03,
    "cost_high": 0.05,
    "basis": "estimate",
    "ranking": (ColumnCost(column="temp", cost=0.0411, low=0.03, high=0.05, usual=0.0002),),
    "changes": (
        Happening(at=START, what="version 2 live, by ann: better by far"),
        Happening(at=START + timedelta(hours=1), what="inc-1 opened: drift"),
    ),
    "note": "this failed; that too",
}


def an_incident(**changes: Any) -> Incident:
    bad = Verdict(grade=Grade.FAIL, check="drift", reading=Reading(name="psi", value=1.0), why="it moved")
    explained = Explanation(**(FULL | changes))
    return Incident(
        system="s", id="inc-2", cause="drift", check="drift", opened_at=START, last_at=START, first=bad, last=bad,
        explained=explained,
    )  # fmt: skip


def test_a_limit_that_is_stated_is_not_one_that_stood_in_for_history() -> None:
    incident = an_incident()
    by_limit = replace(incident.first, calibrated=False)
    stated = replace(incident, calibrated=False, first=by_limit)
    stood_in = replace(stated, first=replace(by_limit, stood_in=True))
    assert [judged_by(one) for one in (incident, stated, stood_in)] == ["calibrated", "stated limit", "not calibrated"]
    assert judged_by(replace(stood_in, calibrated=True)) == "calibrated"  # another monitor found it since


def test_the_line_says_since_when_what_it_costs_where_and_what_changed() -> None:
    assert headline(an_incident()) == (
        "since 2013-07-18 (07-17 to 07-19); temp costs an estimated 0.0411 brier (0.03 to 0.05); worst where "
        "hour >= 18; near it: version 2 live, by ann (04-01 00:00)"
    )


def test_a_measured_cost_says_which_part_of_it_the_column_is() -> None:
    assert "brier rose by 0.1, an estimated 0.0411 by temp" in headline(
        an_incident(basis="labels", cost=0.1, cost_low=None, cost_high=None)
    )
    assert "brier fell by 0.1 (-0.2 to 0)" in headline(
        an_incident(basis="labels", cost=-0.1, cost_low=-0.2, cost_high=0.0, column="")
    )


def test_what_is_not_known_is_left_out_of_the_line() -> None:
    nothing = {name: type(value)() for name, value in FULL.items() if isinstance(value, str | tuple)}
    incident = an_incident(**nothing, cost=None, began=None, began_low=None, began_high=None)
    assert headline(incident) == ""
    assert incident.explained is not None
    assert parts(incident.explained) == []


def test_every_part_has_its_heading_and_lines() -> None:
    explained = an_incident().explained
    assert explained is not None
    said = dict(parts(explained))
    assert list(said) == ["began", "costs", "worse where", "changed then", "not known"]
    assert said["costs"][1:] == ["temp: 0.0411 brier (0.03 to 0.05), usually 0.0002", IF_WRONG]
    assert said["not known"] == ["this failed", "that too"]


def test_a_cost_that_was_measured_alone_is_not_put_in_question() -> None:
    explained = an_incident(basis="labels", cost=0.1, column="", ranking=()).explained
    assert explained is not None
    assert dict(parts(explained))["costs"] == ["brier rose by 0.1 (0.03 to 0.05)"]


def test_years_are_said_where_they_differ() -> None:
    assert "since 2013-01-02 (2012-12-30 to 01-04)" in headline(
        an_incident(began=date(2013, 1, 2), began_low=date(2012, 12, 30), began_high=date(2013, 1, 4))
    )


def a_verdict(name: str, subject: str, grade: Grade = Grade.PASS, unit: str = "1", note: str = "") -> Verdict:
    reading = Reading(name=name, value=1.0, subject=subject, unit=unit, note=note)
    return Verdict(grade=grade, check="silence", reading=reading, why=f"{subject} {name} is 1")


def test_what_was_noted_is_said_once_beside_why() -> None:
    noted = a_verdict("psi", "kind", note="100.0% lie outside what the reference had")
    assert reason(noted) == "kind psi is 1; 100.0% lie outside what the reference had"
    assert reason(replace(noted, why=reason(noted))) == reason(noted)
    assert reason(a_verdict("psi", "kind")) == "kind psi is 1"


def test_a_closed_incident_says_why_it_was_closed_and_not_what_failed_before() -> None:
    incident = an_incident()
    assert standing(incident) == "it moved"
    moves = (
        Move(at=START, to="acknowledged", why="seen by a person", by="ann"),
        Move(at=START, to="closed", why="the check passes again"),
    )
    assert standing(replace(incident, state="closed", actions=moves)) == "closed: the check passes again"


def test_of_passes_that_cannot_be_compared_it_is_said_which_there_are_watches_last() -> None:
    found = summary([a_verdict("since_last_run", "monitor a", unit="s"), a_verdict("rows", "traffic", unit="rows")])
    assert found is not None
    assert (found.grade, found.why) == (Grade.PASS, "all is as it should be: traffic, monitor a")
    many = [a_verdict(name, f"{name}{k}") for k in range(MOST_NAMED) for name in ("missing_share", "unit_change")]
    found = summary(many)
    assert found is not None
    assert found.why.endswith(f", {MOST_NAMED} more")


def test_the_worst_stands_for_all_where_there_is_one() -> None:
    assert summary([]) is None
    bad, good, other = a_verdict("rows", "x", Grade.WARN), a_verdict("psi", "y"), a_verdict("psi", "z")
    assert summary([bad, good]) is bad
    assert summary([good, other]) is good


def test_nearly_all_is_never_said_to_be_all() -> None:
    assert [percent(share) for share in (23_988 / 24_000, 1 - 1e-9, 1.0, 0.5, 0.0)] == [
        "99.9%", "99.9%", "100.0%", "50.0%", "0.0%",
    ]  # fmt: skip
    assert (percent(0.9999, 0), percent(1.0, 0)) == ("99%", "100%")
