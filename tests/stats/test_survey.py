import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats.counting import count_rows
from holdfast.stats.distance import ks
from holdfast.stats.histogram import Edges, count, edges_of
from holdfast.stats.survey import Survey, edges_of_rows

numbers = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("inf"))), min_size=1, max_size=300)


def frame(values, kind=pl.Float64):
    return pl.DataFrame({"x": values}, schema={"x": kind})


@given(numbers, st.integers(1, 50))
def test_edges_of_a_short_stream_are_those_of_its_rows(values, size):
    table = frame(values)
    expected = edges_of(table["x"].to_numpy()) if table["x"].count() else Edges()
    assert edges_of_rows(table)["x"] == expected
    assert edges_of_rows(table.lazy())["x"] == expected
    assert edges_of_rows(list(table.iter_slices(size)))["x"] == expected


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=50), st.integers(1, 20))
def test_categories_of_a_stream_are_those_of_its_rows(values, size):
    table = frame(values, pl.String)
    expected = edges_of(values, most=2)
    assert edges_of_rows(table, most=2)["x"] == expected
    assert edges_of_rows(list(table.iter_slices(size)), most=2)["x"] == expected


@pytest.mark.slow
def test_a_sample_moves_no_cut_by_more_than_it_says_and_the_ends_not_at_all():
    values = np.random.default_rng(0).lognormal(size=400_000)
    table = frame(values)
    sampled = edges_of_rows(list(table.iter_slices(30_000)), sample=20_000, uniform=0, seed=3)["x"]
    exact = edges_of_rows(table, uniform=0)["x"]
    assert (sampled.cuts[0], sampled.cuts[-1]) == (exact.cuts[0], exact.cuts[-1])
    below = np.searchsorted(np.sort(values), sampled.cuts) / values.size
    wanted = np.searchsorted(np.sort(values), exact.cuts) / values.size
    assert len(sampled.cuts) == len(exact.cuts)
    assert np.abs(below - wanted).max() < 4 * np.sqrt(0.25 / 20_000)


def test_a_sample_holds_every_part_of_a_stream_alike():
    survey = Survey(["x"], sample=1_000, seed=1)
    for part in range(50):
        survey.add(frame(np.arange(part * 1_000, (part + 1) * 1_000, dtype=np.float64)))
    edges = survey.edges()["x"]
    tenths = np.quantile(edges.cuts, [0.25, 0.5, 0.75]) / 50_000
    assert tenths == pytest.approx([0.25, 0.5, 0.75], abs=0.05)


def test_counts_on_sampled_edges_are_exact():
    random = np.random.default_rng(2)
    before, now = frame(random.normal(size=50_000)), frame(random.normal(0.1, 1, 20_000))
    edges = edges_of_rows(list(before.iter_slices(5_000)), sample=5_000)
    p, q = (count_rows(table, edges).histograms["x"] for table in (before, now))
    assert p.below == p.above == 0
    fine = edges_of(before["x"].to_numpy(), quantiles=4096)
    exact = ks(count(before["x"].to_numpy(), fine).present, count(now["x"].to_numpy(), fine).present)
    assert ks(p.present, q.present) == pytest.approx(exact, abs=0.005)


def test_rare_numbers_of_few_keep_their_cells_however_small_the_sample():
    values = [0.0] * 50_000 + [7.0] + [1.0] * 50_000
    edges = edges_of_rows(list(frame(values).iter_slices(9_000)), sample=100)["x"]
    assert edges.is_discrete
    assert edges.cuts[:3] == (0.0, 1.0, 7.0)


def test_a_column_hardly_ever_there_has_edges_from_what_was_seen_of_it():
    values = [None] * 99_000 + [float(k) for k in range(1_000)]
    edges = edges_of_rows(list(frame(values).iter_slices(9_000)), sample=50)["x"]
    assert (edges.cuts[0], edges.cuts[-1]) == (0.0, 999.0)


def test_columns_that_come_later_and_go_are_surveyed_where_they_are():
    survey = Survey(["x", "y"], sample=10)
    for part in (pl.DataFrame({"x": [1.0] * 30}), pl.DataFrame({"y": ["a"] * 30}), pl.DataFrame({"z": [1] * 30})):
        survey.add(part)
    assert survey.edges() == {"x": edges_of(np.ones(1)), "y": Edges(categories=("a",))}


def test_what_cannot_be_counted_is_left_out_or_refused_by_name():
    table = pl.DataFrame({"x": [1.0], "at": [0], "list": [[1]]}).with_columns(pl.col("at").cast(pl.Datetime))
    assert list(edges_of_rows(table)) == ["x"]
    with pytest.raises(ValueError, match="at cannot be counted: it holds Datetime"):
        edges_of_rows(table, columns=["at"])
    with pytest.raises(ValueError, match="no column nope; there are x, at, list"):
        edges_of_rows(table.lazy(), columns=["nope"])


def test_a_reference_that_changes_its_type_is_refused():
    with pytest.raises(ValueError, match="the type of x changes within the rows"):
        edges_of_rows([frame([1.0]), frame(["a"], pl.String)])


def test_nothing_has_no_edges_and_nulls_have_empty_ones():
    assert edges_of_rows([]) == edges_of_rows(pl.DataFrame()) == edges_of_rows(pl.LazyFrame()) == {}
    for table in (frame([None]), frame([None], pl.String), frame([None], pl.Null)):
        assert edges_of_rows(table, columns=["x"]) == edges_of_rows([table], columns=["x"]) == {"x": Edges()}


def test_ten_thousand_categories_in_a_stream_keep_the_most_frequent():
    names = [f"n{k:05}" for k in range(10_000)] * 2 + ["often"] * 5
    assert edges_of_rows(list(frame(names, pl.String).iter_slices(3_000)), most=2)["x"].categories == (
        "often",
        "n00000",
    )
