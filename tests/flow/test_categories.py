"""Categories that came and went are named with their shares; what is merely rare is not called gone."""

from collections import Counter
from datetime import timedelta
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.evidence import Block
from holdfast.core.protocols import Transaction
from holdfast.core.records import Incident
from holdfast.core.signature import Column
from holdfast.flow import explanations
from holdfast.flow.categories import counted, told
from holdfast.testing import START

DAY = timedelta(days=1)
NAMES = st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 1000), max_size=7)


def a_block(values: Any, day: int = 0) -> Block:
    start = START + day * DAY
    return Block(start.date(), start, start + DAY, lambda: pl.DataFrame({"carrier": values}))


def test_the_most_frequent_are_named_and_the_rest_is_counted() -> None:
    now = {"a": 10, "new 1": 40, "new 2": 30, "new 3": 10, "new 4": 6, "new 5": 4}
    said = told("carrier", {"a": 50, "b": 50}, now)
    assert said == (
        "carrier has 'new 1' (40.0%), 'new 2' (30.0%), 'new 3' (10.0%) and 2 more, which the reference had not; "
        "it lacks 'b' (50.0% there)"
    )


def test_a_rare_category_that_did_not_come_is_not_called_gone() -> None:
    assert told("carrier", {"a": 990, "b": 10}, {"a": 500}) == ""
    assert told("carrier", {"a": 900, "b": 100}, {"a": 500}) == "carrier lacks 'b' (10.0% there)"


def test_nothing_is_said_without_values_on_either_side() -> None:
    assert told("carrier", {}, {"a": 5}) == ""
    assert told("carrier", {"a": 5}, {}) == ""


def test_a_long_name_is_cut() -> None:
    assert f"'{'x' * 39}…'" in told("carrier", {"a": 5}, {"x" * 500: 5})


def test_missing_values_other_types_and_absent_columns_do_not_count() -> None:
    blocks = [a_block(["a", None, "a"]), a_block([1, 2, 3], 1), a_block([["a"], ["b"], []], 2)]
    assert counted(blocks, "carrier") == Counter({"a": 2})
    assert counted(blocks, "plane") == Counter()


@given(before=NAMES, now=NAMES)
def test_only_what_is_on_one_side_alone_is_named(before: dict[str, int], now: dict[str, int]) -> None:
    said = told("carrier", before, now)
    for name in set(before) & set(now):
        assert f"'{name}'" not in said
    assert not (set(now) - set(before) and before) or "which the reference had not" in said


def test_the_note_of_an_incident_names_them(watched: Any, tx: Transaction) -> None:
    signature = watched.reference.facts["signature"]
    columns = (*signature.columns, Column(name="carrier", type="category"))
    watched.reference = replace(
        watched.reference,
        blocks=tuple(_with(block, "UA") for block in watched.reference.blocks),
        facts={**watched.reference.facts, "signature": replace(signature, columns=columns)},
    )
    for block in watched.live.window(START.date(), watched.broken_on + 3 * DAY, {}, watched.now).blocks:
        block._rows = block.rows().with_columns(carrier=pl.lit("UA" if block.day < watched.broken_on else "United"))
    incident = watched.of("drift", "carrier", also=("x",))
    args = (watched.task, watched.reference, watched.live, watched.answer, watched.now)
    noted = explanations.take_up(tx, watched.spec, incident, *args)
    names = "carrier has 'United' (100.0%), which the reference had not; it lacks 'UA' (100.0% there)"
    assert noted.last.reading.note == names
    assert noted.first == noted.last
    assert tx.find(Incident) == [noted]
    outside = replace(noted.last, reading=replace(noted.last.reading, note="80.0% lie outside what the reference had"))
    again = explanations.take_up(tx, watched.spec, replace(noted, last=outside), *args)
    assert again.last.reading.note == f"80.0% lie outside what the reference had; {names}"
    assert again.first == noted.first


def _with(block: Block, name: str) -> Block:
    rows = block.rows().with_columns(carrier=pl.lit(name))
    return Block(block.day, block.start, block.end, lambda: rows)
