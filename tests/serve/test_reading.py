import json
import struct

import numpy as np
import pytest

from holdfast.core.signature import Column, Signature
from holdfast.serve.reading import Reading

NUMBERS = Signature(
    columns=(Column(name="a", type="number"), Column(name="b", type="number")), task="regression", output="minutes"
)


@pytest.fixture
def mixed(signature):
    return Reading(signature, "id", "tailnum")


@pytest.fixture
def numbers():
    return Reading(NUMBERS, "id", "")


def packed(data, shape, datatype="FP64", **more):
    return json.dumps({"inputs": [{"name": "i", "shape": shape, "datatype": datatype, "data": data}], **more}).encode()


def test_a_row_is_read_in_the_order_of_the_signature(mixed, row):
    given = mixed.rows(json.dumps({"tailnum": "N1", **row, "id": 7}).encode())
    assert (given.values, given.count, given.keys, given.units) == ([8.0, 1000.0, "AA", False], 1, ["7"], ["N1"])


def test_what_is_absent_is_missing(mixed):
    given = mixed.rows(b'{"dep_hour":8}')
    assert (given.values, given.keys, given.units) == ([8.0, None, None, None], [None], [None])


def test_rows_may_be_named_beside_them(mixed, row):
    body = {"rows": [row, row | {"id": 3}], "id": "r", "keys": [1, None], "units": ["u", "v"]}
    given = mixed.rows(json.dumps(body).encode())
    assert (given.count, given.request_id, given.keys, given.units) == (2, "r", ["1", None], ["u", "v"])


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"7", b'{"rows":[]}', b'{"rows":[{}],"keys":[]}',
        b'{"rows":[{}],"units":["a","b"]}',
        b'{"rows":[{}],"version":"1"}', b'{"rows":[{}],"id":"\\n"}', b'{"dep_hour":"8"}', b'{"dep_hour":true}',
        b'{"dep_hour":8,"unknown":1}', b'{"is_holiday":1}', b'{"carrier":7}', b'{"dep_hour":NaN}',
        b'{"dep_hour":1e999}',
        b'{"carrier":"\\ud800"}', b'{"dep_hour":8}x', b'\xef\xbb\xbf{"dep_hour":8}', b'{"carrier":"\xff"}',
        b'{"dep_hour":' * 5000, b'{"id":true}',
    ],
)  # fmt: skip
def test_an_odd_plain_body_goes_the_general_way(mixed, body):
    assert mixed.rows(body) is None


def test_a_packed_tensor_is_read_flat(numbers):
    given = numbers.tensors(packed([1, 2.5, None, 4], [2, 2], id="r"))
    assert (given.values, given.count, given.request_id) == ([1.0, 2.5, None, 4.0], 2, "r")


@pytest.mark.parametrize(
    "body",
    [
        packed([1, 2], [2]), packed([1, 2], [1, 1]), packed([1], [1, 2]), packed([[1, 2]], [1, 2]), packed([], [0, 2]),
        packed([1, 2], [-1, 2]), packed([1, 2], [1, 2], "INT64"), packed([1, "2"], [1, 2]), packed([1, True], [1, 2]),
        packed([1, 2], [1, 2], parameters={}), packed([1, 2], [1, 2], outputs=[]), packed([1, 3.5e38], [1, 2], "FP32"),
        packed([1, 2], [10**30, 2]), b"{}", b'{"inputs":[]}', b"",
    ],
)  # fmt: skip
def test_an_odd_tensor_goes_the_general_way(numbers, body):
    assert numbers.tensors(body) is None


def named(**columns):
    inputs = [
        {"name": name, "shape": [len(data)], "datatype": datatype, "data": data}
        for name, (datatype, data) in columns.items()
    ]
    return json.dumps({"inputs": inputs}).encode()


def test_named_tensors_become_rows(mixed):
    body = named(carrier=("BYTES", ["AA", None]), dep_hour=("INT64", [8, 9]), is_holiday=("BOOL", [True, False]))
    given = mixed.tensors(body)
    assert (given.values, given.count) == ([8.0, None, "AA", True, 9.0, None, None, False], 2)


@pytest.mark.parametrize(
    "columns",
    [
        {"dep_hour": ("INT64", [2**53 + 1])},
        {"dep_hour": ("INT64", [1e300])},
        {"dep_hour": ("INT32", [8])},
        {"dep_hour": ("INT64", [True])},
        {"dep_hour": ("INT64", [8]), "carrier": ("BYTES", ["AA", "UA"])},
        {"dep_hour": ("INT64", [])},
        {"dep_hour": ("INT64", [8]), "id": ("BYTES", ["k"])},
        {"is_holiday": ("BOOL", [1])},
        {"carrier": ("BYTES", [7])},
    ],
)
def test_odd_columns_go_the_general_way(mixed, columns):
    assert mixed.tensors(named(**columns)) is None


def with_bytes(raw, shape, datatype="FP64", size=None, **more):
    tensor = {"name": "i", "shape": shape, "datatype": datatype}
    tensor |= {"parameters": {"binary_data_size": len(raw) if size is None else size}}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + raw, len(head)


@pytest.mark.parametrize(("code", "datatype"), [("d", "FP64"), ("f", "FP32")])
def test_bytes_are_read_where_they_stand(numbers, code, datatype):
    raw = struct.pack(f"<4{code}", 1.5, float("nan"), -2.0, 4.0)
    for pad in ("", "x", "xyz"):  # numbers need not be aligned
        given = numbers.binary(*with_bytes(raw, [2, 2], datatype, id=f"r{pad}"))
        np.testing.assert_array_equal(given.values, [1.5, np.nan, -2.0, 4.0])
        assert (given.count, given.wants_bytes) == (2, False)


@pytest.mark.parametrize(("code", "datatype"), [("d", "FP64"), ("f", "FP32")])
def test_many_bytes_are_read_as_a_matrix(numbers, code, datatype):
    values = np.arange(600, dtype=code)
    given = numbers.binary(*with_bytes(values.tobytes(), [300, 2], datatype))
    np.testing.assert_array_equal(given.values, values.reshape(300, 2))
    assert (given.values.dtype, given.values.flags.writeable, given.count) == (np.float64, True, 300)


@pytest.mark.parametrize(("kind", "is_read"), [("integer", True), ("boolean", True), ("category", False)])
def test_bytes_of_columns_that_hold_whole_numbers_are_read_too(kind, is_read):
    columns = (Column(name="a", type="number"), Column(name="b", type=kind))
    reading = Reading(Signature(columns=columns, task="regression", output="minutes"), "id", "")
    given = reading.binary(*with_bytes(struct.pack("<2d", 1.5, 1.0), [1, 2]))
    assert (given is not None and given.values) == (is_read and [1.5, 1.0])


def test_a_head_that_comes_again_reads_the_bytes_behind_it_anew(numbers):
    for value in (1.0, 2.0):
        assert numbers.binary(*with_bytes(struct.pack("<2d", value, 5), [1, 2])).values == [value, 5]
    body, length = with_bytes(struct.pack("<2d", 1, 2), [1, 2])
    assert numbers.binary(body + b"x", length) is None
    assert numbers.binary(body[:-1], length) is None


def test_bytes_may_be_asked_for(numbers):
    raw = struct.pack("<2d", 1, 2)
    asked = [{"name": "minutes", "parameters": {"binary_data": True}}]
    assert numbers.binary(*with_bytes(raw, [1, 2], outputs=asked)).wants_bytes


@pytest.mark.parametrize(
    ("shape", "datatype", "size", "more"),
    [
        ([2], "FP64", None, {}),
        ([1, 3], "FP64", None, {}),
        ([-1, -2], "FP64", None, {}),
        ([1, 2], "INT64", None, {}),
        ([1, 2], "FP32", None, {}),
        ([1, 2], "FP64", 15, {}),
        ([1, 2], "FP64", None, {"outputs": [{"name": "other"}]}),
        ([1, 2], "FP64", None, {"outputs": [{"name": "minutes"}, {"name": "minutes"}]}),
        ([1, 2], "FP64", None, {"id": "\n"}),
        ([10**40, 2], "FP64", None, {}),
    ],
)
def test_odd_bytes_go_the_general_way(numbers, shape, datatype, size, more):
    assert numbers.binary(*with_bytes(struct.pack("<2d", 1, 2), shape, datatype, size, **more)) is None


def test_more_or_fewer_bytes_than_said_go_the_general_way(numbers):
    body, length = with_bytes(struct.pack("<2d", 1, 2), [1, 2])
    assert numbers.binary(body + b"\0", length) is None
    assert numbers.binary(body[:-1], length) is None
    assert numbers.binary(body, length + 1) is None
    assert numbers.binary(body, len(body) + 100) is None


def test_a_key_that_is_a_number_among_the_inputs_goes_the_general_way():
    reading = Reading(NUMBERS, "a", "")
    assert reading.rows(b'{"a":1,"b":2}') is None
    assert reading.tensors(packed([1, 2], [1, 2])) is None


def test_a_column_called_rows_goes_the_general_way():
    signature = Signature(columns=(Column(name="rows", type="number"),), task="regression", output="o")
    assert Reading(signature, "", "").rows(b'{"rows":1}') is None
