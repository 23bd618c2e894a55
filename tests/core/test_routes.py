import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes, TokenHash, decode, encode
from holdfast.core.spec import Serve
from holdfast.errors import StateError

versions = st.none() | st.builds(
    RoutedVersion, version=st.text(), artifact=st.text(), directory=st.text(), bundle=st.text()
)
systems = st.builds(
    RoutedSystem,
    task=st.text(),
    output=st.text(),
    live=versions,
    canary=versions,
    canary_share=st.floats(0, 1),
    serve=st.builds(Serve, record=st.sampled_from(["process", "disk", "memory"]), max_rows=st.integers(1, 9)),
    key=st.text(),
    unit=st.text(),
    release=st.text(),
)
tokens = st.builds(TokenHash, sha256=st.text(), role=st.sampled_from(["admin", "client"]), name=st.text())
routes = st.builds(
    Routes,
    generation=st.integers(0, 2**60),
    systems=st.dictionaries(st.text(), systems, max_size=3),
    tokens=st.lists(tokens, max_size=3).map(tuple),
)


def one() -> Routes:
    live = RoutedVersion(version="3", artifact="ab", directory="/a")
    canary = RoutedVersion(version="4", artifact="cd", directory="/c")
    system = RoutedSystem(task="classification", output="probability", live=live, canary=canary, canary_share=0.1)
    return Routes(generation=7, systems={"flights": system})


@given(routes)
def test_routes_come_back_as_they_were_written(routes):
    assert decode(encode(routes)) == routes


def test_the_same_routes_give_the_same_bytes():
    assert encode(one()) == encode(one())


@given(data=st.data())
def test_a_changed_byte_or_a_missing_end_is_refused(data):
    good = encode(one())
    place = data.draw(st.integers(0, len(good) - 1))
    changed = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    for damaged in (changed, good[:place]):
        try:
            found = decode(damaged)
        except StateError:
            continue
        # What is not covered by the checksum may only be white space or the case of a digit in the checksum.
        assert found == one()


@given(st.binary(max_size=60))
def test_anything_else_is_refused(data):
    with pytest.raises(StateError, match="damaged"):
        decode(data)


def test_another_format_says_what_to_do():
    sealed = json.loads(encode(one())) | {"format": 2}
    with pytest.raises(StateError, match=r"format 2.*restart the workers"):
        decode(json.dumps(sealed).encode())
