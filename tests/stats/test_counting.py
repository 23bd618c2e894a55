import time
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.stats.batches import PIECE, SMALL
from holdfast.stats.counting import Counted, count_rows, count_series
from holdfast.stats.histogram import Edges, count, edges_of
from holdfast.stats.survey import edges_of_rows

odd = st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 5e-324, 1.7e308, -1.7e308])
numbers = st.lists(st.one_of(st.none(), st.floats(-50, 50), odd), max_size=40)
words = st.lists(st.sampled_from(["a", "b", "c", "d", "", None]), max_size=40)
EDGES = {
    "x": Edges(cuts=(-10.0, -1.0, 0.0, 2.5, 30.0)),
    "flag": Edges(cuts=(0.0, 1.0, float(np.nextafter(1.0, 2.0)))),
    "name": Edges(categories=("a", "b")),
}


@st.composite
def tables(draw):
    x, name = draw(numbers), draw(words)
    rows = min(len(x), len(name))
    flag = draw(st.lists(st.sampled_from([True, False, None]), min_size=rows, max_size=rows))
    data = {"x": x[:rows], "flag": flag, "name": name[:rows]}
    return pl.DataFrame(data, schema={"x": pl.Float64, "flag": pl.Boolean, "name": pl.String})


def cells(counted: Counted) -> dict[str, list[int]]:
    return {name: histogram.counted.tolist() for name, histogram in counted.histograms.items()}


@given(tables(), st.lists(st.integers(0, 40), max_size=3))
def test_counts_of_any_split_add_up_to_those_of_all_rows(table, at):
    ends = [0, *sorted(min(k, table.height) for k in at), table.height]
    parts = [table[a:b] for a, b in pairwise(ends)]
    whole = count_rows(table, EDGES)
    assert cells(count_rows(parts, EDGES)) == cells(whole)
    added = count_rows(parts[-1], EDGES)
    for part in parts[:-1]:
        added += count_rows(part, EDGES)
    assert (cells(added), added.rows) == (cells(whole), table.height)


@given(tables(), st.integers(0, 5))
def test_the_order_of_rows_changes_no_count(table, seed):
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=seed)
    assert cells(count_rows(shuffled, EDGES)) == cells(count_rows(table, EDGES))


@given(tables())
def test_a_row_of_nulls_changes_only_the_nulls(table):
    before = count_rows(table, EDGES)
    after = count_rows(pl.concat([table, pl.DataFrame({"x": [None]}, schema={"x": pl.Float64})], how="diagonal"), EDGES)
    for name, histogram in before.histograms.items():
        assert after.histograms[name].nulls == histogram.nulls + 1
        assert after.histograms[name].present.tolist() == histogram.present.tolist()


@given(tables())
def test_a_table_counts_as_its_columns_do_one_by_one(table):
    expected = {
        "x": count(table["x"].to_numpy(), EDGES["x"]),
        "flag": count(table["flag"].cast(pl.Float64).to_numpy(), EDGES["flag"]),
        "name": count(table["name"].to_list(), EDGES["name"]),
    }
    assert cells(count_rows(table, EDGES)) == {name: histogram.counted.tolist() for name, histogram in expected.items()}


@settings(max_examples=20)
@given(tables())
def test_lazy_frames_and_arrow_streams_count_as_frames_do(table):
    class Stream:
        def __arrow_c_stream__(self, requested_schema=None):
            return table.__arrow_c_stream__(requested_schema)

    whole = cells(count_rows(table, EDGES))
    assert cells(count_rows(table.lazy(), EDGES)) == whole
    assert cells(count_rows(Stream(), EDGES)) == whole
    assert cells(count_rows([Stream()], EDGES)) == whole


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["a", "b", "c"])])
def test_categoricals_count_as_their_text_does(kind):
    values = pl.Series("name", ["a", "c", None, "a"])
    assert count_series(values.cast(kind), EDGES["name"]).counted.tolist() == [0, 2, 0, 1, 1]


@pytest.mark.parametrize("kind", [pl.Int8, pl.UInt64, pl.Float32, pl.Decimal(10, 2)])
def test_every_type_of_number_is_counted(kind):
    assert count_series(pl.Series([0, 2, 3, None]).cast(kind), EDGES["x"]).counted.tolist() == [0, 0, 0, 2, 1, 0, 1]


def test_long_columns_are_counted_piece_by_piece():
    values = pl.Series(np.random.default_rng(0).normal(size=300_000)).set(pl.Series([True] + [False] * 299_999), None)
    edges = edges_of(values.drop_nulls().to_numpy())
    assert count_series(values, edges).counted.tolist() == count(values.to_numpy(), edges).counted.tolist()


@pytest.mark.parametrize("kind", [pl.Float64, pl.Float32, pl.Int64, pl.Boolean])
@pytest.mark.parametrize("rows", [SMALL - 1, SMALL, SMALL + 1, PIECE + 10])
def test_nulls_count_alike_in_short_columns_and_long_ones(kind, rows):
    values = pl.Series([None, 0, 1, 1]).cast(kind).gather(np.arange(rows) % 4)
    edges = Edges(cuts=(0.0, 1.0, 2.0))
    expected = [0, *(sum(n % 4 in kept for n in range(rows)) for kept in ({1}, {2, 3})), 0, values.null_count()]
    assert count_series(values, edges).counted.tolist() == expected
    assert sum(expected) == rows


def test_a_file_of_many_columns_is_read_in_parts(tmp_path):
    random = np.random.default_rng(1)
    table = pl.DataFrame({f"x{k}": random.normal(size=500) for k in range(150)})
    table.write_parquet(tmp_path / "wide.parquet")
    edges = edges_of_rows(table)
    lazily = count_rows(pl.scan_parquet(tmp_path / "wide.parquet"), {**edges, "gone": Edges()})
    assert lazily.histograms.pop("gone").nulls == lazily.rows == 500
    assert cells(lazily) == cells(count_rows(table, edges))


def test_a_file_that_lacks_all_columns_has_only_missing_ones():
    counted = count_rows(pl.LazyFrame({"other": [1, 2]}), EDGES)
    assert [histogram.nulls for histogram in counted.histograms.values()] == [2, 2, 2]


def test_a_column_that_changed_its_type_is_said_and_not_counted_at_all():
    fits, not_fits = pl.DataFrame({"x": [1.0]}), pl.DataFrame({"x": ["1"]})
    for counted in (
        count_rows([fits, not_fits, fits], EDGES),
        count_rows(fits, EDGES) + count_rows(not_fits, EDGES),
        count_rows(not_fits.lazy(), EDGES),
    ):
        assert set(counted.changed) == {"x"}
        assert counted.changed["x"] == "String where the reference had numbers"
        assert "x" not in counted.histograms
    assert count_rows(pl.DataFrame({"name": [1]}), EDGES).changed["name"] == "Int64 where the reference had text"
    times = pl.DataFrame({"x": [1]}).select(pl.col("x").cast(pl.Datetime))
    assert "Datetime" in count_rows(times, EDGES).changed["x"]


def test_nothing_but_nulls_fits_any_edges_and_any_type_fits_edges_of_nothing():
    nulls = pl.DataFrame({"x": [None, None], "name": [None, None], "flag": pl.Series([None, None], dtype=pl.Date)})
    assert [histogram.nulls for histogram in count_rows(nulls, EDGES).histograms.values()] == [2, 2, 2]
    for values in (pl.Series([1.0, None]), pl.Series(["a", None]), pl.Series([True, None])):
        assert count_series(values, Edges()).counted.tolist() == [0, 1, 1]


def test_empty_tables_count_nothing():
    for rows in (pl.DataFrame(), [], pl.LazyFrame(), pl.DataFrame({"x": []}, schema={"x": pl.Float64})):
        counted = count_rows(rows, EDGES)
        assert counted.rows == sum(histogram.rows for histogram in counted.histograms.values()) == 0


def test_ten_thousand_categories_keep_the_most_frequent_and_the_rest_together():
    names = pl.Series("name", [f"n{k:05}" for k in range(10_000)] + ["often"] * 50)
    edges = edges_of_rows(names.to_frame(), most=100)["name"]
    counted = count_series(names, edges)
    assert edges.categories[:2] == ("often", "n00000")
    assert counted.inner.tolist() == [50] + [1] * 99
    assert counted.above == 9_901


def test_what_is_no_table_is_refused():
    with pytest.raises(TypeError, match="not dict"):
        count_rows([{"x": 1}], EDGES)
    with pytest.raises(ValueError, match="only one side has counted"):
        _ = count_rows(pl.DataFrame(), EDGES) + count_rows(pl.DataFrame(), {"x": EDGES["x"]})


@pytest.mark.slow
def test_counting_costs_a_fraction_of_a_fifth_of_a_microsecond_a_value(processor_s):
    random = np.random.default_rng(0)
    table = pl.DataFrame(
        {f"x{k}": random.normal(size=60_000) for k in range(14)}
        | {f"c{k}": random.choice(["a", "b", "c", "d"], 60_000) for k in range(6)}
    )
    edges = edges_of_rows(table)
    assert processor_s(lambda: count_rows(table, edges)) / table.height / table.width < 0.2e-6  # about 0.008 alone


def test_a_small_table_costs_less_than_a_fifth_of_a_microsecond_a_value_too(processor_s):
    random = np.random.default_rng(0)
    table = pl.DataFrame({f"x{k}": random.normal(size=300) for k in range(20)})
    edges = edges_of_rows(table)
    assert processor_s(lambda: count_rows(table, edges)) / 6_000 < 0.2e-6  # about 0.09 alone


@pytest.fixture
def processor_s():
    def least(work):
        work()
        took = []
        for _ in range(7):
            start = time.process_time()
            work()
            took.append(time.process_time() - start)
        return min(took)

    return least
