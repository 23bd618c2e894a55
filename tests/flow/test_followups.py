"""Trainings once more: an incident is answered by a model that was fitted on its days, and by nothing else."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.evidence import Grade, Limit, Reading, Verdict
from holdfast.core.protocols import Transaction
from holdfast.core.records import OPEN_STATES, Incident, Job, Move, Release, ReleaseState, Run
from holdfast.core.spec import Data, Decide, Gate, Label, Model, ReleasePlan, Response, Step, SystemSpec
from holdfast.engines.memory import MemoryCatalog
from holdfast.flow import followups, gates, incidents, jobs, releases
from holdfast.testing import START, a_verdict

DAY = timedelta(days=1)
HOLDOUT = 14
"""Days, as the file has it by default; labels are complete a day after theirs."""
RETRAIN = Response(on="quality", do="retrain", cooldown=5 * DAY)
SPEC = SystemSpec(
    system="orders",
    data=Data(
        feeds={},
        rows="orders",
        key="id",
        label=Label(feed="orders", column="late", known_at="ended_at", mature_after=DAY),
        columns={},
    ),
    model=Model(task="classification", trainer="linear"),
    gates=(Gate(check="quality", limit=Limit(at_most=0.5)),),
    release=ReleasePlan(steps=(Step(stage="live"),), decide=Decide(loss="brier", margin=0.01)),
    responses=(RETRAIN,),
)


def responding(*responses: Response) -> SystemSpec:
    return replace(SPEC, responses=responses)


class Asks:
    """Controls that submit to the catalog, as a tick does."""

    def __init__(self, tx: Transaction, day: float) -> None:
        self.tx, self.day = tx, day

    def notify(self, text: str) -> None:
        raise AssertionError(text)

    def submit(self, kind: str, payload: object) -> str:
        assert isinstance(payload, dict)
        return jobs.submit(self.tx, "orders", kind, payload, START + self.day * DAY).id

    def rollback(self, why: str) -> str:
        raise AssertionError(why)


def a_run(name: str, day: float) -> Run:
    """Trained on a day, on what lies before its hold-out."""
    fitted = START + (day - 1 - HOLDOUT) * DAY
    return Run(
        system="orders",
        id=name,
        snapshot="s",
        trainer="linear",
        seed=1,
        started_at=START + day * DAY,
        trained_until=fitted,
        state="succeeded",
    )


class Past:
    """What was asked for and what became of it; days are counted from START."""

    def __init__(self, tx: Transaction, spec: SystemSpec) -> None:
        self.tx, self.spec = tx, spec

    def alarm(self, day: float, check: str = "quality") -> str:
        at = START + day * DAY
        name = self.tx.next_id(Incident, "orders", "inc-")
        first = a_verdict()
        self.tx.put(
            Incident(
                system="orders", id=name, cause=check, check=check, opened_at=at, last_at=at, first=first, last=first
            )
        )
        return name

    def training(self, day: float, incident: str, ended: ReleaseState | None, **payload: object) -> None:
        """A training on a day, fitted on what lies before its hold-out, and how its release ended; None: had none."""
        at = START + day * DAY
        n = len(self.tx.find(Job, "orders")) + 1
        asked = {"cause": "quality", "incident": incident, **payload}
        self.tx.put(
            Job(
                system="orders",
                id=f"job-{n}",
                kind="train",
                payload=asked,
                at=at,
                state="done",
                result={"run": f"run-{n}"},
            )
        )
        self.tx.put(a_run(f"run-{n}", day))
        if ended is not None:
            self.tx.put(Release(system="orders", id=f"rel-{n}", run=f"run-{n}", at=at, state=ended))

    def asked(self, day: float, labelled_until: float = 1e5) -> list[str]:
        def is_labelled(since: datetime) -> bool:
            return since <= START + labelled_until * DAY

        return followups.ask(self.tx, self.spec, Asks(self.tx, day), START + day * DAY, is_labelled)


@pytest.fixture
def past(tx: Transaction) -> Past:
    return Past(tx, SPEC)


@pytest.mark.parametrize("ended", followups.DECIDED)
def test_what_alarmed_is_trained_on_once_its_days_can_be_fitted(past: Past, ended: ReleaseState) -> None:
    incident = past.alarm(30)
    past.training(30, incident, ended)
    known = 30 + HOLDOUT + 1
    assert [past.asked(day) for day in (31, 40, known - 1)] == [[], [], []]
    why = f"the days up to {START + 30 * DAY:%Y-%m-%d} can be fitted now"
    assert past.asked(known) == [f"inc-1: training submitted as job-2 once more: {why}"]


def test_a_model_that_was_fitted_on_its_days_answers_it(past: Past) -> None:
    incident = past.alarm(30)
    past.training(30, incident, "live")
    past.training(60, incident, "rejected")
    assert [past.asked(day) for day in (66, 100, 1000)] == [[], [], []]


def test_it_does_not_matter_who_asked_for_the_model_that_answers(past: Past) -> None:
    past.training(30, past.alarm(30), "live")
    past.training(60, "schedule", "live")
    assert past.asked(70) == []


def test_a_release_that_ended_undecided_is_tried_again_at_once(past: Past, tx: Transaction) -> None:
    incident = past.alarm(30)
    past.training(30, incident, "expired")
    assert past.asked(40) == ["inc-1: training submitted as job-2 once more: rel-1 ended undecided"]
    kept = tx.get(Incident, "orders", incident)
    assert kept is not None
    assert [move.to for move in kept.actions] == ["retrain"]


def test_a_model_that_was_kept_and_not_released_answers_nothing(past: Past) -> None:
    past.training(30, past.alarm(30), None)
    assert past.asked(40) == ["inc-1: training submitted as job-2 once more: what job-1 made was not released"]


def test_it_is_asked_for_on_the_terms_of_the_incident(past: Past, tx: Transaction) -> None:
    incident = past.alarm(30)
    past.training(30, incident, "expired", **{"if": "better", "cost": 0.01})
    past.asked(40)
    assert tx.find(Job, "orders")[-1].payload == {
        "cause": "quality",
        "incident": incident,
        "if": "better",
        "cost": 0.01,
    }


def test_the_cooldown_holds_here_too(past: Past) -> None:
    past.training(30, past.alarm(30), "expired")
    assert past.asked(34.9) == []
    assert past.asked(35)


def test_without_a_cooldown_as_long_as_the_holdout_passes_between_two(tx: Transaction) -> None:
    past = Past(tx, responding(Response(on="any", do="retrain")))
    past.training(30, past.alarm(30), "expired")
    assert past.asked(30 + HOLDOUT - 0.1) == []
    assert past.asked(30 + HOLDOUT)


def test_a_training_that_was_not_released_does_not_put_the_next_one_off(past: Past) -> None:
    past.training(30, past.alarm(30), "expired")
    past.training(37, past.alarm(37), None)
    assert past.asked(38) == ["inc-2: training submitted as job-3 once more: what job-2 made was not released"]


@pytest.mark.parametrize("state", OPEN_STATES)
def test_nothing_is_asked_for_while_a_release_is_under_way(past: Past, state: ReleaseState) -> None:
    past.training(30, past.alarm(30), state)
    assert past.asked(90) == []


def test_while_a_training_is_open_nor_after_one_that_failed(past: Past, tx: Transaction) -> None:
    past.training(30, past.alarm(30), "expired")
    assert past.asked(40)
    assert past.asked(60) == []
    jobs.fail(tx, tx.find(Job, "orders")[-1], "too few rows", START + 61 * DAY)
    assert past.asked(60.9 + HOLDOUT) == [], "it would fail again"
    assert past.asked(61 + HOLDOUT), "other rows are held out by then"


def test_days_without_labels_are_not_waited_for_by_training_again_and_again(past: Past) -> None:
    past.training(30, past.alarm(30), "live")
    assert [past.asked(day, labelled_until=33) for day in (60, 100, 1000)] == [[], [], []]
    assert past.asked(1000, labelled_until=30 + HOLDOUT)


def test_an_incident_is_trained_for_three_times_more_and_no_oftener(past: Past, tx: Transaction) -> None:
    incident = past.alarm(30)
    past.training(30, incident, "expired")
    said = []
    for again in range(6):
        day = 60 + 30 * again
        said += past.asked(day)
        for job in tx.find(Job, "orders"):
            if job.state != "done":
                tx.put(replace(job, state="done", result={"run": f"lost-{job.id}"}))
                tx.put(
                    Release(
                        system="orders", id=f"rel-{job.id}", run=f"lost-{job.id}", at=START + day * DAY, state="expired"
                    )
                )
    assert len(said) == followups.MOST
    assert [f"the last of {followups.MOST}" in each for each in said] == [False, False, True]


def test_a_closed_incident_is_owed_its_days_once_and_nothing_else(past: Past, tx: Transaction) -> None:
    incident = past.alarm(30)
    past.training(30, incident, "expired")
    kept = tx.get(Incident, "orders", incident)
    assert kept is not None
    incidents.close(tx, kept, START + 31 * DAY)
    assert past.asked(40) == [], "its release ended undecided, but nothing is wrong any more"
    assert past.asked(30 + HOLDOUT + 1)


def test_a_closed_incident_whose_days_were_tried_already_is_owed_nothing(past: Past, tx: Transaction) -> None:
    incident = past.alarm(30)
    past.training(30, incident, "expired")
    assert past.asked(50)
    finish(tx, 50, "expired")
    kept = tx.get(Incident, "orders", incident)
    assert kept is not None
    incidents.close(tx, kept, START + 51 * DAY)
    assert [past.asked(day) for day in (56, 100, 1000)] == [[], [], []]


def test_what_a_cooldown_asks_for_is_not_one_of_the_three(past: Past, tx: Transaction) -> None:
    incident = past.alarm(30)
    past.training(30, incident, "expired")
    kept = tx.get(Incident, "orders", incident)
    assert kept is not None
    moves = tuple(Move(at=START + day * DAY, to="retrain", why="training submitted as job-1") for day in range(30, 36))
    tx.put(replace(kept, actions=moves))
    assert past.asked(40)


def test_what_a_person_asked_for_and_failed_does_not_silence_an_incident(past: Past, tx: Transaction) -> None:
    past.training(30, past.alarm(30), "live")
    job = jobs.submit(tx, "orders", "train", {"cause": "by a person"}, START + 31 * DAY)
    jobs.fail(tx, job, "given up", START + 32 * DAY)
    assert past.asked(31.9 + HOLDOUT) == []
    assert past.asked(32 + HOLDOUT)


def test_a_release_that_could_not_compare_its_versions_answers_nothing(past: Past, tx: Transaction) -> None:
    incident = past.alarm(30)
    past.training(30, incident, "live")
    past.training(60, incident, "rolled_back")
    assert past.asked(65) == []
    tx.put(replace(tx.find(Release, "orders")[-1], why=f"{releases.MISMATCH}: 9,000 to 1,000"))
    assert past.asked(65) == ["inc-1: training submitted as job-3 once more: rel-2 ended undecided"]


def a_gate(check: str, value: float | None, grade: Grade = Grade.FAIL) -> Verdict:
    return Verdict(grade=grade, check=check, reading=Reading(name="brier", value=value), why="")


@pytest.mark.parametrize(
    ("evidence", "is_answered"),
    [
        ((a_gate(gates.BETTER, None),), False),
        ((a_gate(gates.BETTER, None), a_gate("baseline", -0.1, Grade.PASS)), False),
        ((a_gate("quality", None, Grade.UNKNOWN),), False),
        ((a_gate(gates.BETTER, None), a_gate("baseline", 0.1)), True),
        ((a_gate(gates.BETTER, 0.001),), True),
    ],
    ids=["no level is left", "no level, the rest passes", "not measured", "no level, and worse", "too small a gain"],
)
def test_a_refusal_answers_only_where_something_was_compared(
    past: Past, tx: Transaction, evidence: tuple[Verdict, ...], is_answered: bool
) -> None:
    incident = past.alarm(30)
    past.training(30, incident, "live")
    past.training(60, incident, "rejected")
    tx.put(replace(tx.find(Release, "orders")[-1], evidence=evidence))
    assert bool(past.asked(65)) is not is_answered


@pytest.mark.parametrize(
    "responses", [[], [Response(every=DAY, do="retrain")], [Response(on="drift", do="retrain")]], ids=str
)
def test_what_the_file_no_longer_asks_for_is_not_asked_for(tx: Transaction, responses: list[Response]) -> None:
    past = Past(tx, responding(*responses))
    past.training(30, past.alarm(30), "expired")
    assert past.asked(90) == []


def test_a_training_that_a_person_or_the_clock_asked_for_is_owed_nothing(past: Past) -> None:
    past.training(30, "schedule", "expired")
    past.training(40, "", "expired")
    assert past.asked(90) == []


ENDS = st.sampled_from(["live", "rejected", "rolled_back", "expired", None])


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans(), ENDS), min_size=1, max_size=8))
def test_it_always_comes_to_an_end_and_keeps_the_cooldown(story: list[tuple[int, bool, ReleaseState | None]]) -> None:
    """Alarms and releases of any kind, then only releases that are decided: in the end nothing is owed."""
    with MemoryCatalog().begin() as tx:
        past, day, trained, released = Past(tx, SPEC), 30, [0], [0]
        for wait, alarmed, ended in story:
            day += wait
            if alarmed:
                past.training(day, past.alarm(day), ended)
                trained.append(day)
                released += [day] if ended else []
        for later in range(day, day + 120):
            if past.asked(later):
                assert later - released[-1] >= 5
                released.append(later)
                trained.append(later)
                finish(tx, later)
        assert past.asked(day + 1000) == []
        assert len(trained) <= 2 + 2 * len(story)


def finish(tx: Transaction, day: float, ended: ReleaseState = "live") -> None:
    """The open training ends with a model whose release ends so."""
    [job] = tx.find(Job, "orders", state=("queued",))
    run = f"run-{job.id}"
    jobs.complete(tx, job, {"run": run}, START + day * DAY)
    tx.put(a_run(run, day))
    tx.put(Release(system="orders", id=f"rel-{job.id}", run=run, at=START + day * DAY, state=ended))
