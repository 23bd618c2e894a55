import msgspec
import numpy as np
import polars as pl
import pytest

from holdfast.core.signature import Column
from holdfast.core.times import microseconds
from holdfast.errors import HoldfastError, InvalidInput, NotFound, StateError
from holdfast.serve.recording import Recorder, RowMeta
from holdfast.serve.requests import PredictRequest
from holdfast.serve.traffic import takes_canary

US = 1_000_000


def ask(row, id="q1", **options):
    return PredictRequest(request_id=id, rows=[row], **options)


def meta(n, start=0, units=None):
    at = np.arange(start, start + n, dtype=np.int64) * US
    return RowMeta(
        request_id=[f"q{i}" for i in range(n)],
        row=np.zeros(n, dtype=np.int64),
        key=[f"k{i}" for i in range(n)],
        unit=units or [None] * n,
        event_at=at,
        features_known_at=at - 1,
        predicted_at=at,
    )


def test_an_answer_is_recorded_with_inputs_version_stage_and_release(served, row):
    answer = served.plane.predict("flights", ask(row | {"id": 77, "tailnum": "N1"}))
    assert answer.outputs.tolist() == [1.08]
    [recorded] = served.recorded().to_dicts()
    now = served.clock.now()
    assert recorded.pop("queue_us") > 0
    assert recorded.pop("run_us") > 0
    assert recorded == {
        "request_id": "q1",
        "prediction_id": "q1:0",
        "row": 0,
        "caller": "",
        "error": None,
        "key": "77",
        "unit": "N1",
        "event_at": now,
        "features_known_at": now,
        "predicted_at": now,
        "version": "1",
        "stage": "live",
        "release": "r1",
        "status": "ok",
        "outside": 0,
        "in.dep_hour": 8.0,
        "in.distance": 1000.0,
        "in.carrier": "AA",
        "in.is_holiday": 0.0,
        "out.probability": 1.08,
    }


def test_times_that_are_given_are_recorded_and_others_are_now(served, row):
    at = served.clock.now().replace(hour=3)
    request = PredictRequest(request_id="q", rows=[row, row], event_at=[at, None], features_known_at=[None, at])
    served.plane.predict("flights", request)
    now = served.clock.now()
    rows = {r["row"]: r for r in served.recorded().to_dicts()}
    assert (rows[0]["event_at"], rows[1]["event_at"]) == (at, now)
    assert (rows[0]["features_known_at"], rows[1]["features_known_at"]) == (now, at)


def test_a_retry_with_the_same_id_is_recorded_once(served, row):
    served.plane.predict("flights", ask(row))
    served.plane.predict("flights", ask(row))
    assert served.recorded()["prediction_id"].to_list() == ["q1:0"]


def test_values_outside_training_are_answered_and_counted(served, row):
    answer = served.plane.predict("flights", ask(row | {"distance": 9000, "carrier": "ZZ"}))
    assert answer.outside.tolist() == [2]
    assert served.recorded()["outside"].to_list() == [2]


def test_rows_and_columns_give_the_same_answer(served, row):
    by_rows = served.plane.predict("flights", PredictRequest(request_id="a", rows=[row | {"id": 1}, row | {"id": 2}]))
    columns = {name: [value, value] for name, value in row.items()} | {"id": [1, 2]}
    by_columns = served.plane.predict("flights", PredictRequest(request_id="b", columns=columns))
    assert by_rows.outputs.tolist() == by_columns.outputs.tolist()
    assert sorted(served.recorded()["key"].to_list()) == ["1", "1", "2", "2"]


def test_a_unit_column_that_is_a_feature_too_is_both(world, row):
    system = msgspec.structs.replace(world.system("v1"), unit="carrier")
    world.follow(flights=system)
    world.plane.predict("flights", ask(row))
    [recorded] = world.recorded().to_dicts()
    assert (recorded["unit"], recorded["in.carrier"]) == ("AA", "AA")


def test_two_systems_share_a_data_plane(world, row):
    world.follow(flights=world.system("v1"), trains=world.system("v2"))
    assert world.plane.predict("flights", ask(row)).outputs.tolist() == [1.08]
    assert world.plane.predict("trains", ask(row)).outputs.tolist() == [2.08]
    assert world.recorded("flights").height == world.recorded("trains").height == 1


# What is refused


def test_an_unknown_system_is_not_found_with_its_near_miss(served, row):
    with pytest.raises(NotFound, match="no model 'flight'; did you mean 'flights'"):
        served.plane.predict("flight", ask(row))


def test_a_system_without_a_live_version_says_so(world, row):
    world.follow(flights=world.system())
    with pytest.raises(StateError, match="no version of 'flights' is live"):
        world.plane.predict("flights", ask(row))


def test_a_request_without_rows_or_with_too_many_is_refused(world, row):
    world.serve(max_rows=2)
    with pytest.raises(InvalidInput, match="no rows"):
        world.plane.predict("flights", PredictRequest(request_id="q", rows=[]))
    with pytest.raises(InvalidInput, match="3 rows, 'flights' takes 2") as caught:
        world.plane.predict("flights", PredictRequest(request_id="q", rows=[row] * 3))
    assert caught.value.row == 2


def test_a_bad_value_names_row_and_column_and_nothing_is_recorded(served, row):
    with pytest.raises(InvalidInput) as caught:
        served.plane.predict("flights", PredictRequest(request_id="q", rows=[row, row | {"dep_hour": 24}]))
    assert (caught.value.row, caught.value.column) == (1, "dep_hour")
    assert served.recorded().is_empty()


def test_a_bad_value_in_a_split_request_is_named_by_its_place_in_the_request(world, row):
    world.serve(canary="v2", share=0.5)
    units = [f"N{i}" for i in range(20)]
    bad = takes_canary(units, "flights/r1", 0.5).tolist().index(True)
    rows = [row | {"tailnum": unit} for unit in units]
    rows[bad]["dep_hour"] = "late"
    with pytest.raises(InvalidInput, match=f"row {bad}, column 'dep_hour'") as caught:
        world.plane.predict("flights", PredictRequest(request_id="q", rows=rows))
    assert caught.value.row == bad


@pytest.mark.parametrize("key", [True, ["a"], {"b": 1}])
def test_a_key_that_identifies_nothing_is_refused(served, row, key):
    with pytest.raises(InvalidInput, match=r"row 0, column 'id'.*neither text nor a number"):
        served.plane.predict("flights", ask(row | {"id": key}))


def test_keys_of_another_length_are_refused(served, row):
    with pytest.raises(InvalidInput, match="'keys' has 2 values for 1 rows"):
        served.plane.predict("flights", ask(row, keys=["a", "b"]))


def test_what_cannot_be_recorded_is_not_answered(world, row, full_disk):
    world.plane.recorder = Recorder(full_disk.writer)
    world.serve()
    with pytest.raises(StateError, match=r"No space left.*send the request again with the same id"):
        world.plane.predict("flights", ask(row))
    assert (world.plane.recorder.counts.written, world.plane.recorder.counts.lost) == (0, 1)


def test_a_model_that_fails_is_recorded_as_failed(served, row):
    with pytest.raises(HoldfastError, match=r"version 1 of 'flights' failed \(ArithmeticError\)"):
        served.plane.predict("flights", ask(row | {"dep_hour": 13}))
    [recorded] = served.recorded().to_dicts()
    assert (recorded["status"], recorded["in.dep_hour"], recorded["out.probability"]) == ("failed", 13.0, None)


# The split


def test_a_unit_sticks_to_its_version_whatever_the_request(world, row):
    world.serve(canary="v2", share=0.3)
    units = [f"N{i}" for i in range(60)]
    expected = ["canary" if c else "live" for c in takes_canary(units, "flights/r1", 0.3)]
    one_by_one = [world.plane.predict("flights", ask(row | {"tailnum": unit}, id=unit)).stages[0] for unit in units]
    together = world.plane.predict(
        "flights", PredictRequest(request_id="all", rows=[row | {"tailnum": unit} for unit in units])
    )
    assert one_by_one == expected == list(together.stages)
    assert {(v, round(float(o), 2)) for v, o in zip(together.versions, together.outputs, strict=True)} == {
        ("1", 1.08),
        ("2", 2.08),
    }


def test_without_a_unit_the_key_decides_and_without_a_key_the_request(world, row):
    world.serve(canary="v2", share=0.5)
    names = [f"n{i}" for i in range(30)]
    by_key = [world.plane.predict("flights", ask(row | {"id": name}, id="same")).stages[0] for name in names]
    by_request = [world.plane.predict("flights", ask(row, id=name)).stages[0] for name in names]
    assert by_key == by_request
    assert {"live", "canary"} == set(by_key)


def test_a_version_can_be_asked_for_when_it_is_routed(world, row):
    world.serve(canary="v2", share=0.0)
    assert world.plane.predict("flights", ask(row, version="2")).stages == ["canary"]
    with pytest.raises(NotFound, match=r"no version of 'flights'.*'9'; known: 1, 2"):
        world.plane.predict("flights", ask(row, version="9"))


def test_what_a_caller_asked_a_version_for_is_recorded_as_of_no_release(world, row):
    world.serve(canary="v2", share=0.0)
    for id, version in (("q1", ""), ("q2", "1"), ("q3", "2")):
        world.plane.predict("flights", ask(row, id=id, version=version))
    found = {each["request_id"]: (each["version"], each["release"]) for each in world.recorded().to_dicts()}
    assert found == {"q1": ("1", "r1"), "q2": ("1", ""), "q3": ("2", "")}


# Following the routes


def test_a_new_version_is_loaded_before_the_switch_and_only_once(world, row):
    world.serve("v1")
    world.serve("v2", canary="v1", share=0.1)
    world.serve("v2")
    assert world.loads == ["v1", "v2"]
    assert world.plane.predict("flights", ask(row)).versions == ["2"]


def test_what_was_accepted_before_a_switch_is_answered_by_what_accepted_it(world, row):
    world.serve("v1")
    pending = world.plane.accept("flights", ask(row))
    world.serve("v2")
    world.plane.run([pending])
    assert pending.answer().versions == ["1"]


def test_a_tampered_artifact_leaves_the_old_version_serving(world, row):
    world.serve("v1")
    acknowledged = world.serve("bad", release="r2")
    assert acknowledged.held == {"flights": "Tampered: artifact of version bad is not what was signed"}
    answer = world.plane.predict("flights", ask(row))
    assert answer.versions == ["1"]
    assert world.recorded()["release"].to_list() == ["r1"]


def test_one_system_that_cannot_be_loaded_holds_up_no_other(world, row):
    world.follow(flights=world.system("v1"), trains=world.system("v1"))
    acknowledged = world.follow(flights=world.system("v2"), trains=world.system("bad"))
    assert (acknowledged.generation, list(acknowledged.held)) == (2, ["trains"])
    assert world.plane.predict("flights", ask(row)).versions == ["2"]
    assert world.plane.predict("trains", ask(row)).versions == ["1"]


def test_a_first_version_that_cannot_be_loaded_is_named_to_the_caller(world, row):
    world.serve("bad")
    with pytest.raises(StateError, match=r"'flights' cannot be served now; `holdfast status`"):
        world.plane.predict("flights", ask(row))


def test_a_version_that_can_be_loaded_again_ends_the_holding(world):
    world.serve("bad")
    assert world.serve("v1").held == {}


# Batches


def test_rows_of_several_requests_are_run_and_recorded_together(served, row):
    batch = [served.plane.accept("flights", ask(row | {"dep_hour": hour}, id=f"q{hour}")) for hour in range(5)]
    served.plane.run(batch)
    assert [pending.answer().outputs[0] for pending in batch] == [1 + hour / 100 for hour in range(5)]
    assert served.models["v1"].batches == [5]
    assert sorted(served.recorded()["request_id"].to_list()) == [f"q{hour}" for hour in range(5)]


def test_a_request_on_which_the_model_fails_fails_alone(served, row):
    batch = [served.plane.accept("flights", ask(row | {"dep_hour": hour}, id=f"q{hour}")) for hour in (12, 13, 14)]
    served.plane.run(batch)
    assert [pending.error is not None for pending in batch] == [False, True, False]
    assert sorted(served.recorded().select("request_id", "status").rows()) == [
        ("q12", "ok"),
        ("q13", "failed"),
        ("q14", "ok"),
    ]


def test_replayed_rows_carry_the_times_and_ids_they_are_given(served, rows_of):
    outputs = served.plane.predict_rows("flights", rows_of([1, 2, 3]), meta(3, start=100))
    assert outputs.tolist() == [1.01, 1.02, 1.03]
    recorded = served.recorded()
    assert recorded["prediction_id"].to_list() == ["q0:0", "q1:0", "q2:0"]
    assert [microseconds(t) for t in recorded["predicted_at"]] == [100 * US, 101 * US, 102 * US]
    assert [microseconds(t) for t in recorded["features_known_at"]] == [100 * US - 1, 101 * US - 1, 102 * US - 1]


def test_replayed_rows_are_split_like_live_requests(world, rows_of, row):
    world.serve(canary="v2", share=0.4)
    units = [f"N{i}" for i in range(50)]
    outputs = world.plane.predict_rows("flights", rows_of([8] * 50), meta(50, units=units))
    live = [world.plane.predict("flights", ask(row | {"tailnum": unit}, id=f"x{unit}")).outputs[0] for unit in units]
    assert outputs.tolist() == live
    recorded = world.recorded().filter(world.recorded()["request_id"].str.starts_with("q")).sort("event_at")
    assert recorded["unit"].to_list() == units
    assert recorded["out.probability"].to_list() == live


def test_a_canary_with_another_signature_types_its_rows_anew(world, rows_of, signature):
    columns = [msgspec.structs.replace(c, categories=("UA",)) if c.name == "carrier" else c for c in signature.columns]
    narrow = msgspec.structs.replace(signature, columns=(*columns, Column(name="new", type="number")))
    world.models["v2"] = type(world.models.setdefault("v1", world.load(world.version("v1"))))(2.0, narrow)
    world.serve(canary="v2", share=0.5)
    world.plane.predict_rows("flights", rows_of([8] * 40), meta(40, units=[f"N{i}" for i in range(40)]))
    outside = world.recorded().group_by("stage").agg(most=pl.col("outside").max()).to_dicts()
    assert {each["stage"]: each["most"] for each in outside} == {"live": 0, "canary": 1}
    assert "in.new" in world.recorded().columns
