import struct
import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from holdfast.core.protocols import Field
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


def encoded(columns, sequence=1):
    payload = Encoder("predictions", FIELDS).payload(columns, len(columns["n"]))
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
    assert fields[:9] == (b"HFSG", 1, DATA, 0, 7, 2, 3, 3, -4)
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
