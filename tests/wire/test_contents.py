import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidInput
from holdfast.wire.contents import decoded
from holdfast.wire.tensors import from_values


def texts(*data):
    return from_values("carrier", "BYTES", [len(data), 1], list(data))


@given(st.lists(st.none() | st.text(max_size=5), max_size=5))
def test_what_the_codecs_encoded_is_undone(data):
    as_json = texts(*map(json.dumps, data))
    assert decoded(as_json, "pd_json").data == data
    as_base64 = texts(*(None if text is None else base64.b64encode(text.encode()).decode() for text in data))
    assert decoded(as_base64, "base64").data == data


@pytest.mark.parametrize("content_type", [None, "str", "np", "pd", "datetime", "mine", 7, ["base64"]])
def test_other_content_types_are_left_alone(content_type):
    tensor = texts("QUE=", '"AA"')
    assert decoded(tensor, content_type) is tensor


def test_numbers_are_left_alone():
    tensor = from_values("hour", "INT8", [1], [3])
    assert decoded(tensor, "base64") is tensor


@pytest.mark.parametrize(
    ("content_type", "bad"),
    [("base64", "QUE"), ("base64", "\u00e4"), ("base64", "/w=="), ("pd_json", "AA"), ("pd_json", "3"),
     ("pd_json", '{"a": 1}')],
)  # fmt: skip
def test_what_is_not_of_its_content_type_is_named(content_type, bad):
    with pytest.raises(InvalidInput, match=f"row 1, column 'carrier': .* content type '{content_type}'") as refused:
        decoded(texts(None, bad), content_type)
    assert (refused.value.row, refused.value.column) == (1, "carrier")
