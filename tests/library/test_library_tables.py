"""Tables of any kind come in as the same frame."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from holdfast.errors import DataError
from holdfast.library.tables import days_of, frame_of, has_columns

FRAME = pl.DataFrame({"x": [1.5, None, 3.0], "n": [1, 2, 3], "name": ["a", None, "c"], "on": [True, False, True]})


class Foreign:
    """A table of a library that Holdfast does not know, with nothing but the Arrow stream interface."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self._rows = rows

    def __arrow_c_stream__(self, requested_schema=None):
        return self._rows.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("table", [FRAME, FRAME.lazy(), Foreign(FRAME), FRAME.to_dict(as_series=False)], ids=type)
def test_any_kind_of_table_becomes_the_same_frame(table):
    assert_frame_equal(frame_of(table), FRAME)


def test_a_pyarrow_table_becomes_the_same_frame():
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    assert_frame_equal(frame_of(FRAME.to_arrow()), FRAME)


def test_a_pandas_frame_of_any_types_is_read_without_pyarrow():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    times = pd.to_datetime(["2024-01-01T23:30:00", None])
    table = pd.DataFrame(
        {
            "float": [1.5, np.nan],
            "int": np.array([1, 2], dtype="int32"),
            "nullable": pd.array([1, None], dtype="Int64"),
            "flag": pd.array([True, None], dtype="boolean"),
            "text": ["a", None],
            "category": pd.Categorical(["u", None]),
            "time": times,
            "zoned": times.tz_localize("America/New_York"),
        },
        index=["p", "q"],
    )
    found = frame_of(table)
    assert found.null_count().row(0) == (0, 0, 1, 1, 1, 1, 1, 1)
    assert np.isnan(found["float"][1])
    assert found.row(0)[:6] == (1.5, 1, 1.0, True, "a", "u")
    assert str(found["zoned"][0]) == "2024-01-02 04:30:00+00:00"


def test_a_pandas_column_of_mixed_types_is_refused_by_name():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    with pytest.raises(DataError, match="column 'odd' of the reference mixes types"):
        frame_of(pd.DataFrame({"odd": [{"a": 1}, 2]}), "the reference")
    with pytest.raises(DataError, match=r"is a Series, which is one column"):
        frame_of(pd.Series([1.0, 2.0]))
    with pytest.raises(DataError, match="'a' twice"):
        frame_of(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_what_is_no_table_is_refused_with_what_would_be_one():
    with pytest.raises(DataError, match="a is a int, which is no table: give a polars or pandas frame"):
        frame_of(3, "a")
    with pytest.raises(DataError, match=r"a is a Series, which is one column: .*to_frame\(\)"):
        frame_of(FRAME["x"], "a")
    with pytest.raises(DataError, match=r"single values, 'x' for one: give each column a list, {'x': \[...\]}"):
        frame_of({"x": 1, "name": "abc", "at": date(2024, 1, 1)}, "a")
    with pytest.raises(DataError, match="cannot be made a table"):
        frame_of({"x": [1, 2], "y": [1, 2, 3]})


def test_a_column_that_is_not_there_is_named_with_its_near_miss():
    with pytest.raises(DataError, match=r"the reference has no column 'nme'; did you mean 'name'\?"):
        has_columns(FRAME, ["nme"], "the reference")


@pytest.mark.parametrize(
    ("values", "zone", "expected"),
    [
        (["2024-03-31T23:30:00Z"], "Europe/Berlin", date(2024, 4, 1)),
        (["2024-03-31T23:30:00+02:00"], "UTC", date(2024, 3, 31)),
        (["2024-03-31 23:30:00"], "Europe/Berlin", date(2024, 3, 31)),
        (["2024-03-31"], "Europe/Berlin", date(2024, 3, 31)),
        ([date(2024, 3, 31)], "Asia/Tokyo", date(2024, 3, 31)),
    ],
)
def test_days_are_those_of_the_zone_where_times_have_an_offset(values, zone, expected):
    assert days_of(pl.DataFrame({"at": values}), "at", zone, "a").to_list() == [expected]


@pytest.mark.parametrize(
    ("values", "zone", "said"),
    [
        ([1], "UTC", "holds Int64, which is no time"),
        (["yesterday"], "UTC", "no ISO 8601 time"),
        (["2024-03-31T23:30:00Z"], "Europe/Nowhere", "no time zone is called 'Europe/Nowhere'"),
    ],
)
def test_what_is_no_time_is_refused(values, zone, said):
    with pytest.raises(DataError, match=said):
        days_of(pl.DataFrame({"at": values}), "at", zone, "a")
