"""A live version and its canary answer rows of one tick together, as each would alone."""

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.clock import ManualClock
from holdfast.core.model import Model
from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes
from holdfast.core.signature import Column, Signature
from holdfast.core.transform import Encoding, Transform
from holdfast.engines.memory import MemoryLake
from holdfast.observe.metrics import Metrics
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.observing import Observing
from holdfast.serve.paths import Place
from holdfast.serve.quick import Known, Quick
from holdfast.serve.reading import Given
from holdfast.serve.recording import Recorder
from holdfast.serve.requests import PredictRequest
from holdfast.testing import START


def signature(high: float, outside="flag") -> Signature:
    columns = (
        Column(name="a", type="number", low=0, high=high, outside=outside),
        Column(name="b", type="integer", low=0, high=high),
    )
    return Signature(columns=columns, task="regression", output="minutes")


class Summing:
    """A runtime that answers a + b, and for the canary 1000 more; raises at a = 13."""

    def __init__(self, plus: float) -> None:
        self.plus = plus

    def run(self, x):
        if (x[:, 0] == 13).any():
            raise ArithmeticError("thirteen")
        return np.nansum(x, axis=1).astype(np.float64) + self.plus


class Joining(Summing):
    """One that runs beside another."""

    runs = 0

    def beside(self, other):
        return Two(self, other)


class Two:
    def __init__(self, first: Joining, second: Joining) -> None:
        self.both = first, second

    def run(self, x, which):
        Joining.runs += 1
        first, second = (each.run(x) for each in self.both)
        return np.where(which == 1, second, first)


def model(signature: Signature, runtime: Summing) -> Model:
    transform = Transform(columns=tuple(Encoding(name=column.name) for column in signature.columns))
    return Model(signature, transform, runtime, facts=None)  # type: ignore[arg-type]


class Origin:
    """Remembers what became of its calls; answers the general way when asked to."""

    def __init__(self, plane: DataPlane) -> None:
        self.plane, self.generally = plane, 0

    def answered(self, call):
        call.is_answered = True

    def unusual(self, call):
        self.generally += 1
        rows = [dict(zip("ab", pair, strict=True)) for pair in zip(*[iter(call.values)] * 2, strict=True)]
        try:
            answer = self.plane.predict(
                "sums", PredictRequest(request_id=call.request_id, rows=rows, units=call.units, keys=call.keys)
            )
            call.payload = json.dumps(
                {"predictions": [{"minutes": answer.outputs[0], "version": answer.versions[0],
                                  "stage": answer.stages[0], "outside": int(answer.outside[0])}]}
            ).encode()  # fmt: skip
        except Exception as error:
            call.error = error
        call.is_answered = True


class Split:
    def __init__(self, live: Signature, canary: Signature, share: float = 0.5, runtime=Joining) -> None:
        self.lake = MemoryLake()
        models = {"v1": model(live, runtime(0.0)), "v2": model(canary, runtime(1000.0))}
        self.plane = DataPlane(
            lambda version: models[version.artifact],
            Recorder(self.lake.writer),
            ManualClock(START),
        )
        one, two = (RoutedVersion(version=n, artifact=f"v{n}", directory="") for n in "12")
        routed = RoutedSystem(task="regression", output="minutes", live=one, canary=two, canary_share=share)
        self.plane.follow(Routes(generation=1, systems={"sums": routed}))
        self.origin = Origin(self.plane)

    def calls(self, rows, prefix="r"):
        lanes = self.plane.lanes("sums")
        known = Known(
            place=Place("predict", "sums"),
            lanes=lanes,
            length=0,
            caller="",
            headers=(),
            request_id="",
            is_readable=True,
        )
        return [
            Quick(self.origin, known, b"", Given(list(row), 1, "", None, [f"u{i}"]), f"{prefix}{i}", 0.0)
            for i, row in enumerate(rows)
        ]

    def run(self, rows, prefix="r"):
        calls = self.calls(rows, prefix)
        self.plane.run_quick(self.plane.lanes("sums"), calls)
        assert all(call.is_answered for call in calls)
        return calls


def said(call):
    if call.error is not None:
        return type(call.error).__name__
    (row,) = json.loads(call.payload)["predictions"]
    return row["minutes"], row["version"], row["stage"], row["outside"]


def alone(split: Split, row, unit, id):
    try:
        answer = split.plane.predict(
            "sums", PredictRequest(request_id=id, rows=[dict(zip("ab", row, strict=True))], units=[unit])
        )
    except Exception as error:
        return type(error).__name__
    return answer.outputs[0], answer.versions[0], answer.stages[0], int(answer.outside[0])


VALUES = st.tuples(
    st.none() | st.integers(-3, 12).map(float), st.none() | st.integers(-3, 12).map(float) | st.just(0.5)
)


@settings(deadline=None)
@given(
    rows=st.lists(VALUES, min_size=1, max_size=12),
    policies=st.sampled_from([("flag", "flag"), ("missing", "missing"), ("refuse", "refuse"), ("flag", "refuse")]),
    share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    runtime=st.sampled_from([Summing, Joining]),
)
def test_rows_answered_together_are_answered_as_alone(rows, policies, share, runtime):
    split = Split(signature(5, policies[0]), signature(9, policies[1]), share, runtime)
    together = [said(call) for call in split.run(rows)]
    assert together == [alone(split, row, f"u{i}", f"a{i}") for i, row in enumerate(rows)]


@pytest.mark.parametrize(("runtime", "runs"), [(Summing, 0), (Joining, 1)])
def test_rows_of_both_versions_are_recorded_once_each_with_who_answered(runtime, runs):
    split, before = Split(signature(5), signature(9), runtime=runtime), Joining.runs
    calls = split.run([(float(i), 1.0) for i in range(8)])
    assert Joining.runs == before + runs
    found = split.lake.scan("predictions", "sums").sort("request_id")
    assert split.origin.generally == 0
    assert found["version"].to_list() == [said(call)[1] for call in calls]
    assert set(found["version"]) == {"1", "2"}
    assert found["stage"].to_list() == [said(call)[2] for call in calls]
    assert found["out.minutes"].to_list() == [said(call)[0] for call in calls]
    assert found["in.a"].to_list() == [float(i) for i in range(8)]
    assert found["outside"].to_list() == [said(call)[3] for call in calls]


@pytest.mark.parametrize("runtime", [Summing, Joining])
def test_a_model_that_fails_on_one_row_harms_no_other(runtime):
    split = Split(signature(50), signature(50), runtime=runtime)
    calls = split.run([(13.0 if i == 3 else float(i), 0.0) for i in range(8)])
    assert [call.error is not None for call in calls] == [i == 3 for i in range(8)]
    assert split.lake.scan("predictions", "sums")["status"].value_counts().sort("status")["count"].to_list() == [1, 7]


def test_a_failure_of_a_joined_run_names_both_versions(caplog):
    split = Split(signature(50), signature(50), runtime=Joining)
    calls = split.run([(13.0 if i == 3 else float(i), 0.0) for i in range(8)])
    first, *others = [record.getMessage() for record in caplog.records]
    assert first == "version 1 or 2 of 'sums' failed"
    alone = split.lake.scan("predictions", "sums").filter(status="failed")["version"].to_list()
    assert f"version {alone[0]} of 'sums' failed" in others
    assert f"version {alone[0]} of 'sums'" in str(calls[3].error)


@pytest.mark.parametrize("runtime", [Summing, Joining])
def test_a_cache_is_asked_once_for_each_row(runtime):
    split = Split(signature(50), signature(50), runtime=runtime)
    routed = split.plane.routes.systems["sums"]
    routed = msgspec.structs.replace(routed, serve=msgspec.structs.replace(routed.serve, cache=1000))
    split.plane.follow(Routes(generation=2, systems={"sums": routed}))
    calls = split.run([(float(i % 7), 1.0) for i in range(100)])
    versions = [said(call)[1] for call in calls]
    looked_up = split.plane.in_force.caches()["sums"].versions
    assert {name: each.hits + each.misses for name, each in looked_up.items()} == {
        name: versions.count(name) for name in "12"
    }


PARTING = [
    (["u1", "u2"], None),
    (["u1", None], None),
    (["u1", None], ["k1", "k2"]),
    (None, ["k1", "k2"]),
]
TOGETHER = [
    (["u1", "u1"], None),
    (["u1", "u1"], ["k1", "k2"]),
    (None, ["k1", "k1"]),
    (None, None),
    ([None, None], None),
]


def of_two_rows(split, units, keys, id):
    (call,) = split.calls([(1.0, 2.0)])
    given = Given([1.0, 2.0, 3.0, 4.0], 2, "", keys and list(keys), units and list(units))
    return Quick(split.origin, call.known, b"", given, id, 0.0)


def in_lists(split):
    routed = msgspec.structs.replace(split.plane.routes.systems["sums"], is_listwise=True)
    split.plane.follow(Routes(generation=2, systems={"sums": routed}))
    return split


@pytest.mark.parametrize(("units", "keys"), PARTING)
def test_a_request_whose_rows_may_part_goes_the_general_way_and_no_other(units, keys):
    split = Split(signature(5), signature(9))
    calls = [of_two_rows(split, units, keys, "r1"), *split.calls([(1.0, 2.0)])]
    split.plane.run_quick(split.plane.lanes("sums"), calls)
    assert split.origin.generally == 1
    assert all(call.is_answered for call in calls)


@pytest.mark.parametrize("is_listwise", [False, True])
@pytest.mark.parametrize(("units", "keys"), TOGETHER)
def test_a_request_whose_rows_stick_together_goes_the_quick_way_and_ends_as_it_would_the_general(
    units, keys, is_listwise
):
    split = Split(signature(5), signature(9))
    split = in_lists(split) if is_listwise else split
    versions = set()
    for i in range(12):
        own = units and [unit and f"{unit}-{i}" for unit in units]
        named = keys and [f"{key}-{i}" for key in keys]
        call = of_two_rows(split, own, named, f"r{i}")
        split.plane.run_quick(split.plane.lanes("sums"), [call, *split.calls([(5.0, 6.0)], f"other{i}-")])
        rows = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]
        general = split.plane.predict("sums", PredictRequest(request_id=f"r{i}", rows=rows, units=own, keys=named))
        answered = json.loads(call.payload)["predictions"]
        assert [(row["minutes"], row["version"]) for row in answered] == list(
            zip(general.outputs.tolist(), general.versions, strict=True)
        )
        versions |= set(general.versions)
        assert len(set(general.versions)) == 1
    assert versions == {"1", "2"}
    assert split.origin.generally == 0


def test_rows_of_one_request_that_are_of_several_lists_go_the_general_way():
    split = in_lists(Split(signature(5), signature(9)))
    split.plane.run_quick(split.plane.lanes("sums"), [of_two_rows(split, ["l1", "l2"], None, "r1")])
    split.plane.run_quick(split.plane.lanes("sums"), [of_two_rows(split, None, ["k1", "k2"], "r2")])
    assert split.origin.generally == 1


def test_answers_of_both_versions_are_counted_for_each():
    split = Split(signature(5), signature(9))
    split.plane.observing = Observing(Metrics("worker-0", ManualClock(START)))
    calls = [call for tick in range(100) for call in split.run([(float(i), 1.0) for i in range(8)], f"t{tick}-")]
    metrics = split.plane.observing.metrics
    assert metrics is not None
    for version, stage in (("1", "live"), ("2", "canary")):
        own = sum(said(call)[1] == version for call in calls)
        [found] = [each for each in metrics.snapshot().answered if each.version == version]
        assert (found.stage, found.rows, found.request.count, found.queue.count) == (stage, own, own, own)
        assert found.run.count == sum(runs.count for runs in found.batches.values()) == 100
