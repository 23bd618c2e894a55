import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.inputs import read_columns, read_json, read_matrix
from holdfast.core.signature import Column, Signature
from holdfast.errors import InvalidInput, NotFound, StateError
from holdfast.serve.requests import PredictRequest
from holdfast.wire.protocol import (
    Inference,
    answer_parameters,
    answer_version,
    index_entries,
    model_metadata,
    output_tensors,
    predict_request,
)
from holdfast.wire.tensors import column, floats, from_bytes, from_values

NUMBERS = Signature(
    columns=(
        Column(name="hour", type="integer", low=0, high=23, outside="refuse", nullable=False),
        Column(name="distance", type="number"),
        Column(name="is_holiday", type="boolean"),
    ),
    task="classification",
    output="probability",
)


def distance(*data, datatype="FP64", name="distance"):
    return from_values(name, datatype, [len(data)], list(data))


def ask(world, *tensors, caller="", **more):
    return predict_request(
        Inference(tensors=tensors, **more), world.plane.lanes("flights"), request_id="generated", caller=caller
    )


@pytest.fixture
def world_of(world):
    """A world whose model has another signature."""

    def make(signature):
        world.load(world.version("v1")).signature = signature
        world.serve()
        return world

    return make


# What is asked


def test_each_tensor_is_the_column_of_its_name(served):
    request = ask(served, distance(1.5, None), distance("AA", None, datatype="BYTES", name="carrier"), caller="shop")
    np.testing.assert_array_equal(request.columns["distance"], [1.5, np.nan])
    assert request.columns["carrier"] == ["AA", None]
    assert (request.matrix, request.request_id, request.caller) == (None, "generated", "shop")


def test_a_lone_wide_tensor_is_all_columns_in_their_order(served):
    raw = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.float32)
    request = ask(served, from_bytes("anything", "FP32", [2, 4], raw.tobytes()))
    np.testing.assert_array_equal(request.matrix, raw.astype(np.float64))
    assert (request.columns, request.count) == (None, 2)
    assert ask(served, from_bytes("id", "FP32", [2, 4], raw.tobytes())).matrix.shape == (2, 4)


def test_a_wide_tensor_beside_another_input_is_refused(served):
    with pytest.raises(InvalidInput, match=r"'all' has shape \[1, 2\]; give one tensor of shape \[n\]"):
        ask(served, from_values("all", "FP64", [1, 2], [1, 2]), distance(1))


def test_a_tensor_of_one_column_is_named_or_the_only_one(world_of):
    one = world_of(Signature(columns=NUMBERS.columns[1:2], task="regression", output="probability"))
    assert ask(one, from_values("distance", "FP64", [2, 1], [1, 2])).columns["distance"].tolist() == [1, 2]
    assert ask(one, from_values("input-0", "FP64", [2, 1], [1, 2])).matrix.tolist() == [[1], [2]]
    assert "input-0" in ask(one, from_values("input-0", "FP64", [2], [1, 2])).columns


def test_keys_and_units_may_be_tensors_beside_the_inputs_and_are_not_rounded(served):
    large = 2**63 - 25
    packed = from_values("all", "FP64", [1, 4], [1, 2, 3, 4])
    request = ask(
        served, packed, distance(large, datatype="INT64", name="id"), distance("N1", datatype="BYTES", name="tailnum")
    )
    assert (request.keys, request.units, request.matrix.tolist()) == ([large], ["N1"], [[1, 2, 3, 4]])
    request = ask(served, distance(1.0), distance(7, datatype="INT64", name="id"), parameters={"key": "mine"})
    assert (request.keys, set(request.columns)) == (["mine"], {"distance"})


def test_a_column_that_is_key_and_input_is_both(world):
    world.follow(flights=msgspec.structs.replace(world.system("v1"), key="distance"))
    request = ask(world, distance(7.0, None))
    assert request.keys == [7.0, None]
    np.testing.assert_array_equal(request.columns["distance"], [7, np.nan])


def test_an_input_given_twice_is_refused(served):
    for name in ("distance", "id"):
        with pytest.raises(InvalidInput, match=f"'{name}' is given twice"):
            ask(served, distance(1, name=name), distance(1, name=name))


def test_a_request_without_inputs_says_which_there_are(served):
    for tensors in ([], [distance(7, datatype="INT64", name="id")]):
        with pytest.raises(InvalidInput, match="one tensor per column: dep_hour, distance, carrier, is_holiday"):
            ask(served, *tensors)


def test_an_output_that_there_is_not_is_refused(served):
    with pytest.raises(InvalidInput, match="no output 'probabilty'; did you mean 'probability'"):
        ask(served, distance(1), outputs=["probabilty"])
    with pytest.raises(InvalidInput, match="asked for twice"):
        ask(served, distance(1), outputs=["probability", "probability"])
    assert ask(served, distance(1), outputs=["probability"]).count == 1


def test_the_id_of_the_request_names_it(served):
    assert ask(served, distance(1), id="mine").request_id == "mine"
    for id in ("x" * 201, "two\nlines"):
        with pytest.raises(InvalidInput, match="is not usable"):
            ask(served, distance(1), id=id)


def test_a_version_that_does_not_answer_is_not_found(served, world):
    assert ask(served, distance(1), version="1").version == "1"
    with pytest.raises(NotFound, match="known: 1"):
        ask(served, distance(1), version="9")
    world.follow(flights=world.system())
    with pytest.raises(StateError, match="no version of 'flights' is live"):
        ask(world, distance(1))


def test_parameters_carry_key_unit_and_times(served):
    parameters = {"key": ["a", "b"], "unit": ["N1", "N1"], "event_at": ["2013-01-05T10:00:00Z", None], "other": 1}
    request = ask(served, distance(1, 2), parameters=parameters)
    assert (request.keys, request.units) == (["a", "b"], ["N1", "N1"])
    assert request.event_at[0].isoformat() == "2013-01-05T10:00:00+00:00"
    assert ask(served, distance(1), parameters={"key": "a"}).keys == ["a"]


def test_a_single_unit_or_time_holds_for_every_row_but_a_key_for_one(served):
    request = ask(served, distance(1, 2), parameters={"unit": "N1", "event_at": "2013-01-05T10:00:00Z", "key": "a"})
    assert (request.units, request.keys, len(request.event_at)) == (["N1", "N1"], ["a"], 2)


@pytest.mark.parametrize("time", ["2013-01-05T10:00:00", "yesterday", 7])
def test_a_time_without_an_offset_is_refused(served, time):
    with pytest.raises(InvalidInput, match=r"parameter 'event_at'.*with an offset"):
        ask(served, distance(1), parameters={"event_at": time})


def test_a_parameter_that_cannot_take_effect_is_refused(served):
    with pytest.raises(InvalidInput, match="'sequence_id' of the request cannot take effect: models here keep nothing"):
        ask(served, distance(1), parameters={"sequence_id": 7})
    assert ask(served, distance(1), parameters={"sequence_id": 0, "priority": 1}).count == 1


some_rows = st.tuples(
    st.integers(0, 23),
    st.none() | st.floats(width=32, allow_infinity=False, allow_nan=False),
    st.sampled_from([None, 0, 1]),
)
tables = st.lists(some_rows, min_size=1, max_size=4)


@given(table=tables)
def test_the_same_table_gives_the_same_rows_whichever_way_it_comes(table):
    n, flat = len(table), [value for row in table for value in row]
    raw = np.array(flat, dtype=np.float32)
    names = [column.name for column in NUMBERS.columns]
    columns = dict(zip(names, zip(*table, strict=True), strict=True))
    packed = [
        from_values("x", "FP64", [n, 3], flat),
        from_values("x", "FP32", [n, 3], [list(row) for row in table]),
        from_bytes("x", "FP32", [n, 3], raw.tobytes()),
        from_bytes("x", "FP64", [n, 3], raw.astype(np.float64).tobytes()),
    ]
    named = {name: column(from_values(name, "FP64", [n, 1], values)) for name, values in columns.items()}
    flags = [None if value is None else bool(value) for value in columns["is_holiday"]]
    typed = {
        "hour": column(from_values("hour", "INT8", [n], columns["hour"])),
        "distance": named["distance"],
        "is_holiday": column(from_values("is_holiday", "BOOL", [n], flags)),
    }
    read = [read_matrix(NUMBERS, floats(each).reshape(n, 3)) for each in packed]
    read += [read_columns(NUMBERS, named), read_columns(NUMBERS, typed)]
    as_json = [
        {**dict(zip(names, row, strict=True)), "is_holiday": flag} for row, flag in zip(table, flags, strict=True)
    ]
    expected = read_json(NUMBERS, as_json)
    for rows in read:
        np.testing.assert_array_equal(rows.numbers, expected.numbers)
        assert rows.names == expected.names


# What is answered


def test_an_answer_is_one_tensor(served, row):
    answer = served.plane.predict("flights", PredictRequest(request_id="q", rows=[row, row]))
    [tensor] = output_tensors(answer)
    assert (tensor.name, tensor.datatype, tensor.shape) == ("probability", "FP64", (2,))
    assert tensor.data.tolist() == [1.08, 1.08]
    assert (answer_version(answer), answer_parameters(answer)) == ("1", {"stage": "live", "outside": 0})


def test_an_answer_of_two_versions_says_which_row_is_whose(world, row):
    world.serve(canary="v2", share=0.5)
    rows = [row | {"tailnum": f"N{i}"} for i in range(20)]
    answer = world.plane.predict("flights", PredictRequest(request_id="q", rows=rows))
    parameters = answer_parameters(answer)
    assert (answer_version(answer), parameters["stage"]) == ("1", "split")
    assert [int(version) for version in parameters["versions"]] == [int(o) for o in output_tensors(answer)[0].data]


# What is told


def told(*arguments):
    return json.loads(msgspec.json.encode(model_metadata(*arguments)))


def test_metadata_types_every_column_and_say_what_it_accepts(signature):
    metadata = told("flights", ["1", "2"], signature)
    assert metadata["versions"] == ["1", "2"]
    assert [(i["name"], i["datatype"], i["shape"]) for i in metadata["inputs"]] == [
        ("dep_hour", "INT64", [-1]),
        ("distance", "FP64", [-1]),
        ("carrier", "BYTES", [-1]),
        ("is_holiday", "BOOL", [-1]),
    ]
    hour, _, carrier, _ = [each["parameters"] for each in metadata["inputs"]]
    assert hour == {"type": "integer", "nullable": False, "outside": "refuse", "low": 0, "high": 23}
    assert carrier["categories"] == ["AA", "UA", "DL"]
    assert metadata["outputs"] == [{"name": "probability", "datatype": "FP64", "shape": [-1]}]
    assert metadata["parameters"] == {}


def test_metadata_say_how_all_columns_fit_into_one_tensor():
    packed = told("flights", ["1"], NUMBERS)["parameters"]["packed_input"]
    assert (packed["shape"], packed["columns"]) == ([-1, 3], ["hour", "distance", "is_holiday"])
    assert "FP32" in packed["datatypes"]


def test_metadata_leave_out_a_long_list_of_categories():
    many = Column(name="city", type="category", categories=tuple(map(str, range(101))))
    [city] = told("x", [], Signature(columns=(many,), task="regression", output="value"))["inputs"]
    assert "categories" not in city["parameters"]


def entries(world, name="flights"):
    found = index_entries(world.plane.routes.systems[name], world.plane.lanes(name))
    return [(entry.version, entry.state) for entry in found], [entry.reason for entry in found]


def test_the_index_lists_the_versions_that_answer(world):
    world.serve(canary="v2", share=0.1)
    assert entries(world)[0] == [("1", "READY"), ("2", "READY")]


def test_the_index_says_that_no_version_is_live(world):
    world.follow(flights=world.system())
    states, [reason] = entries(world)
    assert (states, reason) == ([("", "UNAVAILABLE")], "no version is live; release one")


def test_the_index_lists_a_version_that_could_not_be_loaded_beside_the_one_that_answers_on(world):
    world.serve()
    world.serve("bad")
    states, reasons = entries(world)
    assert states == [("1", "READY"), ("bad", "UNAVAILABLE")]
    assert "could not be loaded" in reasons[1]
    assert "artifact" not in reasons[1]
