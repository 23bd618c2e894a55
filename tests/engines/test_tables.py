import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.protocols import FEEDS, PREDICTIONS, Field
from holdfast.engines.tables import WRITTEN, checked_schema, cut, merged
from holdfast.errors import StateError
from holdfast.testing import PREDICTION_FIELDS

bound = st.none() | st.integers(-5, 15)


@given(st.lists(st.integers(0, 10), max_size=12), bound, bound)
def test_a_cut_keeps_the_rows_of_the_range_in_their_order(times, since, until):
    frame = pl.DataFrame({"n": list(range(len(times)))}, schema={"n": pl.Int64})
    expected = [n for n, t in enumerate(times) if (since is None or t >= since) and (until is None or t < until)]
    assert cut(frame, np.array(times, dtype=np.int64), since, until)["n"].to_list() == expected


rows = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abcd")), max_size=12)


@settings(max_examples=40)
@given(rows, st.randoms(use_true_random=False), st.sampled_from([PREDICTIONS, FEEDS]))
def test_merging_in_any_order_gives_the_row_of_each_identity_that_the_table_keeps_by_time(rows, random, table):
    frames = [
        pl.DataFrame({table.time: [t], table.identity: [id], "n": [n], WRITTEN[0]: [n // 3], WRITTEN[1]: [n % 3]})
        for n, (t, id) in enumerate(rows)
    ]
    kept = {}
    for n, (t, id) in enumerate(rows):
        if table is FEEDS or id not in kept:
            kept[id] = (t, n)
    random.shuffle(frames)
    frame = merged(table, frames)
    found = [tuple(row) for row in frame.select(table.time, "n").rows()] if rows else []
    assert found == sorted(kept.values())
    assert bool(frame.width) == bool(rows)


def test_the_lakes_own_column_cannot_be_recorded():
    with pytest.raises(StateError, match="is the lake's own"):
        checked_schema("predictions", (*PREDICTION_FIELDS, Field(WRITTEN[1], "int")))
