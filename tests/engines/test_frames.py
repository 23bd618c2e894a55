import struct
import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from holdfast.core.protocols import Field, Same
from holdfast.engines.frames import (
    DATA,
    HEADER_BYTES,
    Encoder,
    decode,
    decode_schema,
    encode,
    encode_schema,
    frame_at,
    has_frame_after,
)

FIELDS = (
    Field("event_at", "time"),
    Field("x", "float"),
    Field("text", "text"),
    Field("n", "int"),
    Field("prediction_id", "text"),
)
int64 = st.integers(-(2**63), 2**63 - 1)
text = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def columns(draw, max_rows=6):
    rows = draw(st.integers(1, max_rows))

    def numbers(dtype, elements):
        return draw(some.arrays(dtype, rows, elements=elements))

    return {
        "event_at": numbers(np.int64, st.integers(-(2**63) + 1, 2**63 - 1)),
        "x": numbers(np.float64, st.floats()),
        "text": draw(st.lists(text, min_size=rows, max_size=rows)),
        "n": numbers(np.int64, int64),
        "prediction_id": draw(st.lists(text, min_size=rows, max_size=rows)),
    }


def encoded(columns, sequence=1, encoder=None, **beside):
    payload = (encoder or Encoder("predictions", FIELDS)).payload(columns, len(columns["n"]), **beside)
    return b"".join(encode(DATA, payload, schema=5, rows=len(columns["n"]), sequence=sequence, written=9))


@settings(max_examples=50)
@given(st.lists(columns(), min_size=1, max_size=4))
def test_any_columns_come_back_bit_for_bit(appends):
    data = memoryview(b"".join(encoded(each, sequence) for sequence, each in enumerate(appends)))
    frames, at = [], 0
    while at < len(data):
        frames.append(frame_at(data, at))
        at = frames[-1].end
    assert [frame.sequence for frame in frames] == list(range(len(appends)))
    back = decode(FIELDS, frames)
    for name in ("event_at", "x", "n"):
        assert back[name].tobytes() == np.concatenate([each[name] for each in appends]).tobytes()
    for name in ("text", "prediction_id"):
        assert back[name] == [value for each in appends for value in each[name]]


WIDE = (*FIELDS, Field("in.a", "float"), Field("in.b", "float"))
GIVEN = ("text", "n", "x")


@st.composite
def ways(draw):
    """Columns of `WIDE`, and the names of those that are given as constants."""
    given = draw(columns())
    rows = len(given["n"])
    given |= {name: draw(some.arrays(np.float64, rows, elements=st.floats())) for name in ("in.a", "in.b")}
    constant = draw(st.sets(st.sampled_from(GIVEN)))
    for name in constant:
        given[name] = [given[name][0]] * rows if name == "text" else np.repeat(given[name][:1], rows)
    same = {}
    if "text" not in constant and None not in given["text"] and draw(st.booleans()):
        same["prediction_id"] = Same("text", draw(st.text(st.characters(codec="utf-8"), max_size=3)))
        given["prediction_id"] = [value + same["prediction_id"].suffix for value in given["text"]]
    return given, constant, draw(st.booleans()), same


@settings(max_examples=50)
@given(st.lists(ways(), min_size=1, max_size=5), st.data())
def test_constants_and_a_matrix_give_the_same_rows_as_columns_alone(appends, data):
    encoder = Encoder("predictions", WIDE)
    remembered = {}
    frames = []
    for columns, constant, has_matrix, same in appends:
        held = {name: columns[name][0] if name == "text" else columns[name][0].item() for name in sorted(constant)}
        held |= same
        constants = remembered.setdefault(repr(held), held)
        in_matrix = ("in.a", "in.b") if has_matrix else ()
        beside = {"constants": constants}
        if has_matrix:
            beside["matrix"] = np.column_stack([columns[name] for name in in_matrix])
        varying = {name: values for name, values in columns.items() if name not in held and name not in in_matrix}
        rows = len(columns["event_at"])
        payload = encoder.payload(varying, rows, **beside)
        frames.append(
            frame_at(memoryview(b"".join(encode(DATA, payload, schema=5, rows=rows, sequence=1, written=9))), 0)
        )
    back = decode(WIDE, frames)
    for field in WIDE:
        expected = [columns[field.name] for columns, *_ in appends]
        if field.type == "text":
            assert back[field.name] == [value for each in expected for value in each]
        else:
            assert back[field.name].tobytes() == np.concatenate(expected).tobytes()


def test_many_rows_are_encoded_like_few():
    rows = 300
    columns = {
        "event_at": np.arange(rows),
        "x": np.arange(rows) / 3,
        "text": [None if n % 7 == 0 else "ü" * (n % 5) for n in range(rows)],
        "n": np.arange(rows),
        "prediction_id": [f"{n}" for n in range(rows)],
    }
    back = decode(FIELDS, [frame_at(memoryview(encoded(columns)), 0)])
    assert back["text"] == columns["text"]
    assert back["prediction_id"] == columns["prediction_id"]
    assert back["x"].tolist() == columns["x"].tolist()


def test_constants_are_encoded_once_for_a_mapping_and_never_taken_for_those_of_another():
    encoder = Encoder("predictions", FIELDS)
    varying = {"event_at": np.array([1]), "text": ["t"], "n": np.array([2]), "prediction_id": ["p"]}
    first = {"x": 0.5}
    head = frame_at(memoryview(encoded(varying, encoder=encoder, constants=first)), 0).payload
    first["x"] = 7.5  # which no caller may do: it shows that the mapping is not looked at again
    assert frame_at(memoryview(encoded(varying, encoder=encoder, constants=first)), 0).payload == head
    for n in range(200):  # mappings that die leave their id to others
        constants = {"x": float(n)}
        frame = frame_at(memoryview(encoded(varying, encoder=encoder, constants=constants)), 0)
        assert decode(FIELDS, [frame])["x"].tolist() == [n]
        del constants


def test_columns_that_are_not_contiguous_are_taken_as_they_read():
    wide = np.arange(12, dtype=np.int64).reshape(3, 4)
    columns = {
        "event_at": wide[:, 0],
        "x": wide[:, 1] / 2,
        "text": ["a"] * 3,
        "n": wide[::-1, 2],
        "prediction_id": list("abc"),
    }
    back = decode(FIELDS, [frame_at(memoryview(encoded(columns)), 0)])
    assert back["event_at"].tolist() == [0, 4, 8]
    assert back["n"].tolist() == [10, 6, 2]


def test_the_header_is_laid_out_as_the_format_says():
    header, payload = encode(DATA, b"abc", schema=7, rows=2, sequence=3, written=-4)
    fields = struct.unpack("<4sBBHIIIQqI", header)
    assert fields[:9] == (b"HFSG", 2, DATA, 0, 7, 2, 3, 3, -4)
    assert fields[9] == zlib.crc32(header[:36] + payload)
    assert len(header) == HEADER_BYTES == 40


@given(columns(max_rows=2), st.data())
def test_a_change_to_any_byte_is_noticed(columns, data):
    raw = bytearray(encoded(columns))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    assert frame_at(memoryview(raw), 0) is None


@given(columns(max_rows=2), st.binary(max_size=30))
def test_a_whole_frame_after_damage_is_found_and_damage_alone_is_not(columns, damage):
    whole = encoded(columns)
    assert has_frame_after(memoryview(b"HFSG" + damage + whole), 0)
    assert not has_frame_after(memoryview(b"HFSG" + damage + whole[:-1]), 0)


def test_a_schema_comes_back():
    assert decode_schema(memoryview(encode_schema(FIELDS))) == FIELDS
