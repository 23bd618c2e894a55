import math
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidInput
from holdfast.wire.tensors import column, floats, from_bytes, from_values, to_bytes, values

NUMPY = {
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8, "UINT16": np.uint16,
    "UINT32": np.uint32, "UINT64": np.uint64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
    "BF16": ml_dtypes.bfloat16, "BOOL": np.bool_,
}  # fmt: skip
WHOLE = [name for name in NUMPY if "INT" in name]
FLOATS = [name for name in NUMPY if name.startswith(("FP", "BF"))]


def some_bytes(datatype, n):
    size = np.dtype(NUMPY[datatype]).itemsize
    return st.binary(min_size=n * size, max_size=n * size)


def bytes_of(*texts):
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


# Bytes


@pytest.mark.parametrize("datatype", sorted(set(NUMPY) - {"BOOL"}))
@given(data=st.data())
def test_any_bytes_of_a_number_are_read_as_numpy_reads_them_and_written_back_the_same(datatype, data):
    rows, width = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 4))
    raw = data.draw(some_bytes(datatype, rows * width))
    tensor = from_bytes("x", datatype, (rows, width), raw)
    with np.errstate(invalid="ignore"):
        expected = np.frombuffer(raw, dtype=NUMPY[datatype]).astype(np.float64)
        found = np.asarray(tensor.data, dtype=np.float64)
    np.testing.assert_array_equal(found, expected)
    assert to_bytes(tensor) == raw


@given(st.lists(st.booleans(), max_size=9))
def test_booleans_are_one_byte_each(flags):
    raw = np.array(flags, dtype=np.bool_).tobytes()
    tensor = from_bytes("x", "BOOL", [len(flags)], raw)
    assert tensor.data.tolist() == flags
    assert to_bytes(tensor) == raw


def test_a_byte_that_is_neither_0_nor_1_is_no_boolean():
    with pytest.raises(InvalidInput, match="row 2, column 'late': the byte 2 is not BOOL") as refused:
        from_bytes("late", "BOOL", [3], b"\x00\x01\x02")
    assert (refused.value.row, refused.value.column) == (2, "late")


@given(st.lists(st.text(max_size=6), max_size=9))
def test_texts_come_back_from_their_bytes(texts):
    raw = bytes_of(*(text.encode() for text in texts))
    tensor = from_bytes("x", "BYTES", [len(texts), 1], raw)
    assert tensor.data == texts
    assert to_bytes(tensor) == raw


def test_bytes_that_are_not_utf8_are_refused_with_their_row_and_column():
    with pytest.raises(InvalidInput, match=r"row 1, column 'carrier': b'\\xff\\xfe' is not UTF-8") as refused:
        from_bytes("carrier", "BYTES", [2], bytes_of(b"AA", b"\xff\xfe"))
    assert (refused.value.row, refused.value.column, refused.value.expected) == (1, "carrier", "text in UTF-8")
    with pytest.raises(InvalidInput, match="row 1, column 'carrier'"):
        from_values("carrier", "BYTES", [2], [b"AA", b"\xff\xfe"])


@pytest.mark.parametrize(
    ("shape", "raw"),
    [
        ([2], bytes_of(b"AA")),
        ([1], bytes_of(b"AA", b"UA")),
        ([1], bytes_of(b"AA")[:-1]),
        ([1], b"\xff\xff\xff\xffAA"),
        ([2], bytes_of(b"AAAAAA") + b"\x01\x00"),
        ([0], b"x"),
        ([10**18], bytes_of(b"AA")),
    ],
)
def test_texts_whose_lengths_do_not_add_up_are_refused(shape, raw):
    with pytest.raises(InvalidInput, match=r"(input|column) 'x'"):
        from_bytes("x", "BYTES", shape, raw)


@given(st.binary(max_size=40), st.integers(0, 5))
def test_any_bytes_are_texts_or_refused(raw, n):
    try:
        tensor = from_bytes("x", "BYTES", [n], raw)
    except InvalidInput:
        return
    assert to_bytes(tensor) == raw


@pytest.mark.parametrize("shape", [[1], [3], [2, 2], [2**62, 2**62], [10**4000, 10**4000]])
def test_bytes_that_do_not_fill_the_shape_are_refused_and_nothing_is_allocated(shape):
    with pytest.raises(InvalidInput, match="has 8 bytes"):
        from_bytes("x", "FP32", shape, b"\0" * 8)


@pytest.mark.parametrize("shape", [[], [-1], [2, -1], [-2, -1], [1, 1, 2], [2, 0], [10**20, 0], [0, 10**20], [1] * 500])
def test_what_is_no_table_is_refused(shape):
    for read in (lambda: from_bytes("x", "FP32", shape, b"\0" * 8), lambda: from_values("x", "FP32", shape, [1, 2])):
        with pytest.raises(InvalidInput, match="give one of shape"):
            read()


def test_float32_is_not_read_as_its_decimal():
    raw = np.array([0.1], dtype=np.float32).tobytes()
    assert floats(from_bytes("x", "FP32", [1], raw)).tolist() == [float(np.float32(0.1))] != [0.1]


def test_bytes_at_an_odd_place_are_read():
    raw = memoryview(b"abc" + np.array([1.5, 2.5]).tobytes())[3:]
    tensor = from_bytes("x", "FP64", [2], raw)
    assert tensor.data.tolist() == [1.5, 2.5]
    assert tensor.data.flags.aligned


# Values


@pytest.mark.parametrize("datatype", FLOATS)
@given(numbers=st.lists(st.none() | st.floats(width=16, allow_infinity=False, allow_nan=False), max_size=9))
def test_numbers_are_read_and_null_is_missing(datatype, numbers):
    read = floats(from_values("x", datatype, [len(numbers)], numbers)).tolist()
    assert [None if math.isnan(number) else number for number in read] == numbers


@pytest.mark.parametrize("datatype", WHOLE)
@given(data=st.data())
def test_whole_numbers_within_their_datatype_are_kept_and_others_refused(datatype, data):
    limits = np.iinfo(NUMPY[datatype])
    inside = data.draw(st.lists(st.none() | st.integers(int(limits.min), int(limits.max)), min_size=1, max_size=5))
    assert values(from_values("x", datatype, [len(inside)], inside)) == inside
    outside = data.draw(st.integers(max_value=int(limits.min) - 1) | st.integers(min_value=int(limits.max) + 1))
    with pytest.raises(InvalidInput, match=f"row {len(inside)}, column 'x': .* is not {datatype}; expected a whole"):
        from_values("x", datatype, [len(inside) + 1], [*inside, outside])


def test_numbers_of_json_are_kept_as_they_are_written_however_narrow_their_datatype():
    for datatype in FLOATS:
        assert floats(from_values("x", datatype, [3], [0.1, 1e39, 65521])).tolist() == [0.1, 1e39, 65521.0]


def test_a_whole_number_may_be_written_as_a_float_and_a_boolean_as_a_number():
    assert from_values("x", "INT8", [2], [3.0, 4]).data.tolist() == [3, 4]
    assert from_values("x", "BOOL", [4], [True, 0, 1, None]).data == [True, False, True, None]


@pytest.mark.parametrize(
    ("datatype", "bad", "expected"),
    [
        ("FP64", "1.5", "a number or null"),
        ("FP64", 10**400, "a number or null"),
        ("FP32", True, "a number or null"),
        ("INT64", 1.5, "a whole number from -9223372036854775808 to 9223372036854775807 or null"),
        ("INT32", "3", "a whole number from -2147483648 to 2147483647 or null"),
        ("INT8", 128, "a whole number from -128 to 127 or null"),
        ("UINT8", -1, "a whole number from 0 to 255 or null"),
        ("UINT64", True, "a whole number from 0 to 18446744073709551615 or null"),
        ("INT8", 10**400, "a whole number from -128 to 127 or null"),
        ("BOOL", 2, "true or false or null"),
        ("BOOL", "true", "true or false or null"),
        ("BYTES", 7, "text or null"),
        ("BYTES", b"7", "text or null"),
        ("FP32", [1.0], "flat data, or nested as shape"),
        ("FP32", {}, "a number or null"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_of_its_datatype_is_named(datatype, bad, expected):
    with pytest.raises(InvalidInput) as refused:
        from_values("x", datatype, [3], [None, bad, None])
    assert (refused.value.column, refused.value.expected) == ("x", expected)
    assert refused.value.row == (0 if isinstance(bad, list) else 1)
    assert len(str(refused.value)) < 300


def test_a_value_of_a_packed_tensor_is_named_by_the_column_of_its_place():
    for read in (from_values, lambda *a: from_values(*a[:3], [[1, 2], [3, "x"]], a[4])):
        with pytest.raises(InvalidInput, match="row 1, column 'b': 'x' is not FP64") as refused:
            read("all", "FP64", [2, 2], [1, 2, 3, "x"], ["a", "b"])
        assert (refused.value.row, refused.value.column) == (1, "b")
    with pytest.raises(InvalidInput, match="row 1, value 1 of input 'all': 'x' is not FP64"):
        from_values("all", "FP64", [2, 2], [1, 2, 3, "x"], ["a", "b", "c"])


@given(rows=st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=3), max_size=4))
def test_nested_and_flat_data_say_the_same(rows):
    flat = [number for row in rows for number in row]
    nested, plain = (from_values("x", "FP64", [len(rows), 3], data) for data in (rows, flat))
    assert nested.data.tolist() == plain.data.tolist() == flat


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        ([3], [1.0], r"has 1 values, its shape \[3\] says 3"),
        ([2**62, 4], [1.0], "says 18446744073709551616"),
        ([10**300], [1.0], r"says more than 10\^20"),
        ([1], [[1.0]], "nested data"),
        ([2, 1], [[1.0], [2.0, 3.0]], "nested data"),
        ([2, 1], [[1.0], 2.0], "nested data"),
        ([1, 2], [[1.0], [2.0]], "nested data"),
        ([1, 1], [[[1.0]]], "is not FP64"),
    ],
)
def test_data_that_do_not_have_their_shape_are_refused(shape, data, message):
    with pytest.raises(InvalidInput, match=message):
        from_values("x", "FP64", shape, data)


# What a signature reads


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_is_read_exactly_or_refused(number):
    for data in ([number], [number, None]):
        tensor = from_values("x", "INT64", [len(data)], data)
        assert values(tensor) == data
        if int(float(number)) == number:
            assert int(floats(tensor)[0]) == number
            continue
        with pytest.raises(InvalidInput, match="would be rounded"):
            floats(tensor)


@pytest.mark.parametrize(("number", "is_exact"), [(2**53, True), (2**53 + 1, False), (2**60, True), (2**64 - 1, False)])
def test_integers_beyond_two_to_the_53_are_refused_where_they_would_become_others(number, is_exact):
    tensor = from_bytes("x", "UINT64", [2], np.array([1, number], dtype=np.uint64).tobytes())
    if is_exact:
        assert floats(tensor).tolist() == [1.0, float(number)]
        return
    with pytest.raises(InvalidInput, match=f"row 1, column 'x': {number} would be rounded to") as refused:
        floats(tensor)
    assert (refused.value.row, refused.value.expected) == (1, "a whole number that a float64 holds exactly")


def test_text_is_no_number():
    with pytest.raises(InvalidInput, match="is BYTES, which are no numbers"):
        floats(from_values("x", "BYTES", [1], ["1"]))


def test_a_tensor_of_several_columns_is_no_column():
    wide = from_values("x", "FP64", [1, 2], [1.0, 2.0])
    for read in (column, values):
        with pytest.raises(InvalidInput, match="all columns in one tensor"):
            read(wide)


def test_missing_values_cannot_be_said_in_bytes():
    for datatype in ("BYTES", "INT8", "BOOL"):
        with pytest.raises(InvalidInput, match="missing values") as refused:
            to_bytes(from_values("x", datatype, [2], [None, None]))
        assert refused.value.row == 0
    assert values(from_bytes("x", "FP64", [1], to_bytes(from_values("x", "FP64", [1], [None])))) == [None]
