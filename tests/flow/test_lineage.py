"""Lineage: one answer explained and computed again."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.evidence import Grade
from holdfast.core.inputs import read_json
from holdfast.core.model import Facts, Model
from holdfast.core.protocols import Transaction
from holdfast.core.records import Explanation, FileRef, Incident, Run, Version
from holdfast.core.signature import Column, Signature
from holdfast.core.transform import Encoding, Transform
from holdfast.engines.memory import MemoryLake
from holdfast.errors import NotFound, Tampered
from holdfast.flow import incidents, lineage, registry
from holdfast.testing import START, hours, one_of_each, refused

COLUMNS = tuple(Column(name=name, type="number") for name in ("x", "y"))
SIGNATURE = Signature(columns=COLUMNS, task="classification", output="probability")
NOON = START + hours(12)


class Weighted:
    """A runtime that adds its inputs up, x a hundred times as heavy; missing counts as 0."""

    def __init__(self, *, off: float = 0.0) -> None:
        self.off = off

    @classmethod
    def load(cls, directory: object) -> "Weighted":
        return cls()

    def run(self, x: np.ndarray) -> np.ndarray:
        return np.nan_to_num(x) @ np.array([0.1, 0.001]) + self.off


class Blind(Model):
    """A model that looks at nothing."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def predict_frame(self, frame: pl.DataFrame) -> np.ndarray:
        return np.full(frame.height, 0.5)


def a_model(signature: Signature = SIGNATURE, *, off: float = 0.0) -> Model:
    transform = Transform(columns=tuple(Encoding(name=column.name) for column in signature.columns))
    facts = Facts(
        system="orders",
        task="classification",
        trainer="linear",
        params={},
        seed=7,
        runtime="linear",
        parity="",
        rows=10,
        trained_from="",
        trained_until="",
    )
    return Model(signature, transform, Weighted(off=off), facts)


@pytest.fixture
def answered(tx: Transaction, a_run: Callable[..., Run], traffic, graded) -> Transaction:
    """One answer of version 1, with its run, snapshot, label, and an incident that was open then."""
    snapshot = next(record for record in one_of_each("orders") if type(record).__name__ == "Snapshot")
    tx.put(snapshot)
    run = a_run(snapshot=snapshot.id, trained_until=START)
    tx.put(run)
    registry.register(tx, run, bundle="b", signature_hash="s", signed_by="me", now=START)
    traffic.answer([NOON], [0.302], keys=["a"], x=[3.0], y=[2.0])
    traffic.label(["a"], [1.0], NOON + hours(3))
    incidents.observe(tx, "orders", "drift", [graded(Grade.FAIL, "x")], {}, START)
    incidents.observe(tx, "orders", "drift", [graded(Grade.FAIL, "y")], {}, NOON + hours(1))
    return tx


def load(version: Version) -> Model:
    return a_model()


def test_why_leads_from_an_answer_to_its_source_files(answered: Transaction, lake: MemoryLake) -> None:
    said = lineage.why(answered, lake, "orders", "r0:0", load)
    assert (said.output, said.key, said.label, said.label_known_at) == (0.302, "a", 1.0, NOON + hours(3))
    assert (said.version, said.run, said.trainer, said.trained_until) == ("1", "run-1", "linear", START)
    assert said.snapshot == "0123456789abcdef"
    assert said.files == (FileRef(feed="flights", name="flights-1.csv", sha256="cd" * 32, rows=12),)
    assert said.incidents == ("inc-1",)


def test_why_lists_what_was_found_later_and_had_begun_by_the_day_of_the_answer(
    answered: Transaction, lake: MemoryLake
) -> None:
    later = answered.get(Incident, "orders", "inc-2")
    assert later is not None
    for began, expected in ((NOON.date(), ("inc-1", "inc-2")), (NOON.date() + timedelta(days=1), ("inc-1",))):
        explained = Explanation(at=NOON + hours(1), began=began)
        answered.put(replace(later, explained=explained))
        assert lineage.why(answered, lake, "orders", "r0:0", load).incidents == expected


def test_a_request_id_finds_its_first_row(answered: Transaction, lake: MemoryLake) -> None:
    assert lineage.why(answered, lake, "orders", "r0", load).prediction_id == "r0:0"


def test_an_unknown_prediction_is_refused_with_the_near_miss(answered: Transaction, lake: MemoryLake) -> None:
    with refused(NotFound, "no prediction 'r0:00'", "did you mean 'r0:0'?"):
        lineage.why(answered, lake, "orders", "r0:00", load)
    with pytest.raises(NotFound, match=r"^no prediction 'nothing like it'$"):
        lineage.why(answered, lake, "orders", "nothing like it", load)
    with refused(NotFound, "no prediction 'r0:0'"):
        lineage.replay(answered, lake, "other", "r0:0", load)


def test_the_input_that_moved_the_answer_most_comes_first(answered: Transaction, lake: MemoryLake) -> None:
    first, second = lineage.why(answered, lake, "orders", "r0:0", load).influences
    assert (first.column, first.value, first.change) == ("x", 3.0, pytest.approx(-0.3))
    assert (second.column, second.value, second.change) == ("y", 2.0, pytest.approx(-0.002))


def test_an_input_that_may_not_be_missing_has_no_influence_to_tell(answered: Transaction, lake: MemoryLake) -> None:
    strict = replace(SIGNATURE, columns=(replace(COLUMNS[0], nullable=False), COLUMNS[1]))
    said = lineage.why(answered, lake, "orders", "r0:0", lambda version: a_model(strict))
    assert [(each.column, each.value, each.change) for each in said.influences] == [
        ("y", 2.0, pytest.approx(-0.002)),
        ("x", 3.0, None),
    ]


def test_every_input_is_listed_also_one_that_was_missing_or_moves_nothing(answered: Transaction, lake, traffic) -> None:
    names = ("x", "y", "never_sent")
    three = replace(SIGNATURE, columns=tuple(Column(name=name, type="number") for name in names))
    traffic.answer([NOON], [0.002], keys=["b"], x=[None], y=[2.0])
    said = lineage.why(answered, lake, "orders", "r1:0", lambda version: Blind(three))
    assert [(each.column, each.value, each.change) for each in said.influences] == [
        ("x", None, 0.0),
        ("y", 2.0, 0.0),
        ("never_sent", None, 0.0),
    ]


def test_an_influence_that_is_no_number_cannot_be_told(answered: Transaction, lake: MemoryLake) -> None:
    said = lineage.why(answered, lake, "orders", "r0:0", lambda version: a_model(off=math.nan))
    assert [each.change for each in said.influences] == [None, None]


@given(
    load=st.none() | st.floats(-20, 20),
    hour=st.none() | st.integers(-3, 30),
    carrier=st.none() | st.sampled_from(["AA", "UA", "ZZ", ""]),
    is_late=st.none() | st.booleans(),
)
def test_as_many_inputs_are_marked_as_were_counted_outside(load: Any, hour: Any, carrier: Any, is_late: Any) -> None:
    columns = (
        Column(name="load", type="number", low=-10, high=10),
        Column(name="hour", type="integer", low=0),
        Column(name="carrier", type="category", categories=("AA", "UA")),
        Column(name="is_late", type="boolean"),
        Column(name="unbounded", type="category"),
    )
    signature = replace(SIGNATURE, columns=columns)
    row = {"load": load, "hour": hour, "carrier": carrier, "is_late": is_late, "unbounded": "any"}
    counted = read_json(signature, [row]).outside[0]
    frame = pl.DataFrame(
        {
            name: pl.Series([value], dtype=pl.String if name in ("carrier", "unbounded") else pl.Float64, strict=False)
            for name, value in row.items()
        }
    )
    assert sum(each.is_outside for each in lineage.influences(Blind(signature), frame)) == counted


def test_a_time_is_shown_as_one(answered: Transaction, lake: MemoryLake, traffic) -> None:
    timed = replace(SIGNATURE, columns=(replace(COLUMNS[0], type="time"), COLUMNS[1]))
    traffic.answer([NOON], [0.302], keys=["b"], x=[NOON.timestamp() * 1e6], y=[2.0])
    first = lineage.why(answered, lake, "orders", "r1:0", lambda version: a_model(timed)).influences[0]
    assert (first.column, first.value) == ("x", "2013-04-01T12:00:00Z")


def test_replay_agrees_with_the_record(answered: Transaction, lake: MemoryLake) -> None:
    again = lineage.replay(answered, lake, "orders", "r0:0", load)
    assert again.agrees
    assert (again.recorded, again.replayed, again.version) == (0.302, pytest.approx(0.302), "1")


def test_replay_says_how_far_a_changed_answer_is_off(answered: Transaction, lake: MemoryLake) -> None:
    again = lineage.replay(answered, lake, "orders", "r0:0", lambda version: a_model(off=0.01))
    assert not again.agrees
    assert again.difference == pytest.approx(0.01, abs=1e-6)


def test_a_failed_answer_is_explained_and_replayed_as_failed(answered: Transaction, lake: MemoryLake, traffic) -> None:
    traffic.answer([NOON], [math.nan], keys=["b"], x=[3.0])
    assert math.isnan(lineage.why(answered, lake, "orders", "r1:0", load).output)
    again = lineage.replay(answered, lake, "orders", "r1:0", load)
    assert not again.agrees
    again = lineage.replay(answered, lake, "orders", "r1:0", lambda version: a_model(off=math.nan))
    assert (again.agrees, again.difference) == (True, 0.0)


def test_a_tampered_version_is_refused(answered: Transaction, lake: MemoryLake) -> None:
    def tampered(version: Version) -> Model:
        raise Tampered("model.json was changed")

    for ask in (lineage.why, lineage.replay):
        with refused(Tampered, "model.json was changed"):
            ask(answered, lake, "orders", "r0:0", tampered)


def test_a_version_that_is_gone_is_named_with_those_that_are_there(answered: Transaction, lake, traffic) -> None:
    traffic.answer([NOON], [0.3], version="9")
    for ask in (lineage.why, lineage.replay):
        with refused(NotFound, "no version '9'", "known: 1"):
            ask(answered, lake, "orders", "r1:0", load)


def test_an_answer_without_key_or_run_is_explained_as_far_as_it_goes(tx: Transaction, lake, traffic, a_run) -> None:
    registry.register(tx, a_run(), bundle="b", signature_hash="s", signed_by="me", now=START)
    traffic.answer([NOON + timedelta(days=1)], [0.0], keys=[None])
    said = lineage.why(tx, lake, "orders", "r0:0", load)
    assert (said.key, said.label, said.snapshot, said.files, said.incidents) == (None, None, "", (), ())
