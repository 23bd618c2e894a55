"""Labels that are classes, and answers of one number per class, as columns of frames; what drafting makes of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.spec import Data, Feed, Label, Model, SystemSpec
from holdfast.errors import DataError
from holdfast.flow.classes import answers, gathered, outputs_of, parted, places, valued
from holdfast.flow.drafting import draft
from holdfast.flow.joins import labels_of
from holdfast.flow.rows import sort_out, unstored

START = datetime(2024, 1, 1, tzinfo=UTC)


def a_spec(*classes: str) -> SystemSpec:
    feed = Feed(from_="orders.parquet", event_at="at", known_at="at", key=("id",))
    label = Label(feed="orders", column="kind", known_at="at", classes=classes)
    data = Data(feeds={"orders": feed}, rows="orders", key="id", label=label, columns={})
    return SystemSpec(system="orders", data=data, model=Model(task="multiclass"))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", None, "a", "z"], [1.0, None, 0.0, -1.0]),
        ([None, None], [None, None]),
        (pl.Series([], dtype=pl.String), []),
    ],
)
def test_labels_become_places_of_classes_in_their_order(labels: Any, expected: list[float | None]) -> None:
    assert places(pl.Series("kind", labels), ("c", "b", "a")).to_list() == expected


@pytest.mark.parametrize("labels", [[3, 10, 7, None], [3.0, 10.0, 7.0, float("nan")], ["3", "10.0", "7", None]])
def test_whole_numbers_are_the_same_class_however_they_are_stored(labels: list[Any]) -> None:
    assert places(pl.Series("kind", labels, strict=False), ("10", "3", "7")).to_list() == [0.0, 2.0, 1.0, None]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3) | st.none(), min_size=1, max_size=20))
def test_parting_answers_and_gathering_them_again_changes_nothing(rows: list[list[float] | None]) -> None:
    column = pl.Series("p", rows, dtype=pl.Array(pl.Float64, 3))
    apart = parted(column.to_frame(), "p", ("a", "b", "c"))
    assert apart.columns == ["p", "p.a", "p.b", "p.c"]
    again = gathered(apart.drop("p"), "p", ("c", "b", "a"))
    assert again["p"].to_list() == column.to_list()


def test_a_class_that_a_version_did_not_know_was_answered_0() -> None:
    found = gathered(pl.DataFrame({"p.a": [0.25, None], "p.c": [0.75, None]}), "p", ("a", "b", "c"))
    assert found["p"].to_list() == [[0.25, 0.0, 0.75], None]


@pytest.mark.parametrize("more", [{}, {"p": [0.5]}])
def test_without_any_part_there_is_no_answer_and_a_single_number_is_none(more: dict[str, Any]) -> None:
    found = gathered(pl.DataFrame({"x": [1], **more}), "p", ("a", "b", "c"))
    assert found["p"].dtype == pl.Array(pl.Float64, 3)
    assert found["p"].to_list() == [None]


def test_outputs_are_columns_and_columns_are_outputs() -> None:
    several, single = np.array([[0.1, 0.9], [0.5, 0.5]]), np.array([0.5, np.nan])
    assert (outputs_of(answers("p", several)) == several).all()
    assert np.array_equal(outputs_of(answers("p", single)), single, equal_nan=True)
    assert answers("p", np.empty((0, 3))).dtype == pl.Array(pl.Float64, 3)


def test_recorded_labels_count_by_their_name_and_not_by_their_place() -> None:
    recorded = pl.DataFrame({"value": [0.0, 1.0, -1.0], "class": ["a", "b", None]})
    assert valued(a_spec("a", "b", "c"), recorded)["value"].to_list() == [0.0, 1.0, -1.0]
    assert valued(a_spec("a", "aa", "b"), recorded)["value"].to_list() == [0.0, 2.0, -1.0]
    assert valued(a_spec(), recorded)["value"].to_list() == [0.0, 1.0, -1.0]


def test_numbers_in_one_file_and_texts_in_another_are_labels_of_one_column() -> None:
    data = a_spec("1", "2", "new").data
    first = pl.DataFrame({"id": ["a", "b"], "at": [START, START], "kind": [1, 2]})
    second = pl.DataFrame({"id": ["c", "d"], "at": [START, START], "kind": ["new", "9"]})
    kinds: Any = {}
    tables = []
    for frame in (first, second):
        sorted_out = sort_out(data, "orders", frame, kinds, file="orders.parquet")
        kinds = sorted_out.kinds
        assert sorted_out.bad.is_empty()
        tables.append(unstored(sorted_out.good, kinds))
    labels = labels_of(data, {"orders": pl.concat(tables)})
    assert dict(labels.select("key", "label").iter_rows()) == {"a": 0.0, "b": 1.0, "c": 2.0, "d": -1.0}


def drafted(directory: Path, labels: list[Any]) -> Any:
    n = len(labels)
    at = [START + timedelta(hours=i) for i in range(n)]
    frame = pl.DataFrame({"id": [f"o{i}" for i in range(n)], "at": at, "x": [i % 7 / 7 for i in range(n)]})
    frame.with_columns(pl.Series("label", labels, strict=False)).write_parquet(directory / "orders.parquet")
    return draft(directory, system="orders")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        (["calm", "rain", "storm", None] * 100, "multiclass", ("calm", "rain", "storm")),
        ([3, 4, 10] * 100, "multiclass", ("3", "4", "10")),
        ([3.0, 4.0, 10.0, None] * 100, "multiclass", ("3", "4", "10")),
        (["7", "8", "9"] * 100, "multiclass", ("7", "8", "9")),
        ([0, 1] * 150, "classification", ()),
        (["0", "1"] * 150, "classification", ()),
        ([0.5, 1.5, 2.5] * 100, "regression", ()),
        (list(range(300)), "regression", ()),
        ([1, 2] * 149 + [3], "regression", ()),
    ],
    ids=[
        "texts",
        "few numbers",
        "with a fraction of 0",
        "numbers in texts",
        "two numbers",
        "numbers as texts",
        "fractions",
        "many numbers",
        "a rare number",
    ],
)
def test_a_few_classes_are_drafted_and_why_is_said(
    tmp_path: Path, labels: list[Any], task: str, classes: tuple[str, ...]
) -> None:
    found = drafted(tmp_path, labels)
    assert (found.spec.task, found.spec.data.label.classes) == (task, classes)
    assert any(f"so the task is {task}" in note for note in found.notes)
    losses = {"regression": "absolute_error"}
    assert found.spec.release.decide.loss == losses.get(task, "brier")


def test_a_text_of_many_values_is_no_label(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="text with 300 distinct values; at most 20 classes are drafted"):
        drafted(tmp_path, [f"name {i}" for i in range(300)])
