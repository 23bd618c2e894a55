"""One transform for training and serving: categories in the order of their labels, what is unseen is missing."""

import msgspec
import numpy as np
import pytest

from holdfast.core import transform
from holdfast.core.inputs import read_json
from holdfast.core.signature import Column, Rows, Signature
from holdfast.core.transform import Encoding, Transform

SIGNATURE = Signature(
    columns=(Column(name="x", type="number"), Column(name="c", type="category"), Column(name="b", type="boolean")),
    task="classification",
    output="probability",
)


def rows(*categories: str | None) -> Rows:
    return read_json(SIGNATURE, [{"x": float(i), "c": c, "b": True} for i, c in enumerate(categories)])


def test_categories_are_coded_in_the_order_of_their_mean_label() -> None:
    train = rows(*["a"] * 50, *["b"] * 50, *["c"] * 50)
    y = np.repeat([0.5, 1.0, 0.0], 50)
    assert transform.fit(SIGNATURE, train, y).columns[1].categories == ("c", "a", "b")


def test_rare_categories_stay_near_the_mean() -> None:
    train = rows(*["often good"] * 500, *["often bad"] * 500, "once good")
    y = np.array([0.2] * 500 + [0.1] * 500 + [1.0])
    coded = transform.fit(SIGNATURE, train, y).columns[1].categories
    assert coded == ("often bad", "once good", "often good")


def test_equal_means_are_ordered_by_name() -> None:
    made = transform.fit(SIGNATURE, rows("z", "m", "a"), np.zeros(3))
    assert made.columns[1].categories == ("a", "m", "z")


def test_the_matrix_has_the_columns_in_order_with_nan_for_unseen_and_missing() -> None:
    made = Transform(columns=(Encoding(name="c", categories=("p", "q")), Encoding(name="x"), Encoding(name="b")))
    matrix = made.matrix(rows("q", None, "unseen"))
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, [[1, 0, 1], [np.nan, 1, 1], [np.nan, 2, 1]])
    assert made.sizes == (2, 0, 0)


def test_values_beyond_float32_stay_finite() -> None:
    made = transform.fit(SIGNATURE, rows("a"), np.zeros(1))
    matrix = made.matrix(read_json(SIGNATURE, [{"x": 1e300}, {"x": -1e300}, {"x": None}]))
    assert np.isfinite(matrix[:2, 0]).all()
    assert np.isnan(matrix[2, 0])


def test_no_rows_give_an_empty_matrix() -> None:
    assert transform.fit(SIGNATURE, rows(), np.zeros(0)).matrix(rows()).shape == (0, 3)


def test_a_transform_survives_its_file() -> None:
    made = transform.fit(SIGNATURE, rows("a", "b"), np.array([0.0, 1.0]))
    again = msgspec.json.decode(msgspec.json.encode(made), type=Transform)
    assert again == made
    np.testing.assert_array_equal(again.matrix(rows("b", "x")), made.matrix(rows("b", "x")))


TIMED = Signature(
    columns=(Column(name="x", type="number"), Column(name="at", type="time"), Column(name="c", type="category")),
    task="classification",
    output="probability",
)


def test_a_time_becomes_hour_weekday_and_day_of_the_year_of_its_zone() -> None:
    asked = [{"x": 1, "at": "2013-01-06T03:30:00Z", "c": "a"}, {"x": 2, "at": None, "c": "b"}]
    made = transform.fit(TIMED, read_json(TIMED, asked), np.array([0.0, 1.0]), timezone="America/New_York")
    assert [(column.name, column.part, column.timezone) for column in made.columns[1:4]] == [
        ("at", part, "America/New_York") for part in ("hour", "weekday", "day_of_year")
    ]
    assert made.sizes == (0, 0, 0, 0, 2)
    np.testing.assert_array_equal(
        made.matrix(read_json(TIMED, asked)), [[1, 22.5, 5, 5, 0], [2, np.nan, np.nan, np.nan, 1]]
    )
    again = msgspec.json.decode(msgspec.json.encode(made), type=Transform)
    np.testing.assert_array_equal(again.matrix(read_json(TIMED, asked[:1])), [[1, 22.5, 5, 5, 0]])


def test_a_signature_of_one_time_alone_is_a_matrix_of_its_parts() -> None:
    only = Signature(columns=TIMED.columns[1:2], task="classification", output="probability")
    asked = read_json(only, [{"at": "2013-01-05T10:00:00Z"}])
    made = transform.fit(only, asked, np.zeros(1))
    np.testing.assert_array_equal(made.matrix(asked), [[10, 5, 5]])


def test_without_times_a_transform_is_written_as_before() -> None:
    made = transform.fit(SIGNATURE, rows("b", "a"), np.array([1.0, 0.0]), timezone="America/New_York")
    written = b'{"columns":[{"name":"x"},{"name":"c","categories":["a","b"]},{"name":"b"}]}'
    assert msgspec.json.encode(made) == written


@pytest.mark.parametrize(
    ("zone", "words"),
    [("Mars/Olympus", "knows no time zone 'Mars/Olympus'"), (None, "the hour of 'at' has no time zone")],
)
def test_a_transform_whose_zone_is_not_known_is_refused_when_it_is_read(zone: str | None, words: str) -> None:
    written = msgspec.json.encode({"columns": [{"name": "at", "part": "hour", "timezone": zone}]})
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.json.decode(written, type=Transform)
