"""Files in chunks: the same rows whatever the format and wherever the cuts fall."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.signature import Column, Signature
from holdfast.errors import InvalidInput, SourceError
from holdfast.scoring import chunks
from holdfast.scoring.chunks import Chunk, ParquetFile, RowFile, Sorted, first_misfit, last_record_end
from holdfast.scoring.csvchunks import CsvFile, records_of
from holdfast.scoring.jsonchunks import JsonLinesFile
from holdfast.testing import refused

SIGNATURE = Signature(
    columns=(
        Column(name="hour", type="integer", low=0, high=23, outside="refuse", nullable=False),
        Column(name="load", type="number", low=-5, high=5),
        Column(name="kind", type="category", categories=("a", "b")),
        Column(name="is_late", type="boolean"),
    ),
    task="classification",
    output="probability",
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=6)


def opened(path: Path) -> RowFile:
    if path.suffix == ".parquet":
        return ParquetFile(path, ("hour", "load", "kind", "is_late", "id"))
    return CsvFile(path, SIGNATURE) if path.suffix == ".csv" else JsonLinesFile(path, SIGNATURE, ("id",))


def all_chunks(path: Path, start: int = 0) -> list[Chunk]:
    return [read() for read in opened(path).chunks(start)]


def values(typed: Any) -> dict[str, list[Any]]:
    return {name: [None if v != v else v for v in list(column)] for name, column in typed.columns.items()}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pl.DataFrame(rows)
    getattr(frame, {".parquet": "write_parquet", ".csv": "write_csv", ".ndjson": "write_ndjson"}[path.suffix])(path)
    return path


ROWS = [
    {"id": "r1", "hour": 8, "load": 1.5, "kind": "a", "is_late": True},
    {"id": "r,2", "hour": 9, "load": None, "kind": "new", "is_late": None},
    {"id": 'r"3\n', "hour": 23, "load": 7.25, "kind": None, "is_late": False},
]


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_every_format_gives_the_same_typed_rows(tmp_path: Path, kind: str) -> None:
    (chunk,) = all_chunks(write(tmp_path / f"rows.{kind}", ROWS))
    everything = np.arange(3)
    typed = chunk.typed(SIGNATURE, everything)
    assert values(typed) == {
        "hour": [8, 9, 23],
        "load": [1.5, None, 7.25],
        "kind": ["a", "new", None],
        "is_late": [1, None, 0],
    }
    assert typed.outside.tolist() == [0, 1, 1]
    assert chunk.column("id", everything).to_list() == ["r1", "r,2", 'r"3\n']
    assert chunk.column("nothing", everything).to_list() == [None] * 3
    assert chunk.column("id", np.array([0, 2])).to_list() == ["r1", 'r"3\n']


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_chunks_from_any_place_on_are_those_of_the_whole(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 100)
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 1)  # the least rows of a slice
    path = write(tmp_path / f"rows.{kind}", ROWS * 500)
    whole = all_chunks(path)
    assert len(whole) > 1
    assert sum(len(chunk) for chunk in whole) == 1500
    for number, chunk in enumerate(whole[:5]):
        rest = all_chunks(path, chunk.end)
        assert [each.end for each in rest] == [each.end for each in whole[number + 1 :]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12), size=st.integers(1, 40))
def test_csv_is_never_cut_inside_a_record(tmp_path: Path, rows: list[tuple[str, str]], size: int) -> None:
    """Whatever stands in quotes: line ends, commas, quotes. The standard library wrote it and says what is in it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "more"), *rows])
    path = tmp_path / "rows.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", size)
        found = [
            chunk.column(name, np.arange(len(chunk))).to_list() for name in ("id", "more") for chunk in all_chunks(path)
        ]
    assert [value or "" for part in found for value in part] == [row[i] for i in (0, 1) for row in rows]


@given(data=st.binary(max_size=30).map(lambda data: data.replace(b"\x00", b"\n").replace(b"\x01", b'"')))
def test_a_block_ends_where_a_record_ends(data: bytes) -> None:
    end = last_record_end(data, quoted=True)
    assert end == 0 or (data[end - 1 : end] == b"\n" and data.count(b'"', 0, end) % 2 == 0)
    later = [at + 1 for at in range(end, len(data)) if data[at : at + 1] == b"\n"]
    assert all(data.count(b'"', 0, at) % 2 for at in later)
    assert b"".join(records_of(data)) == data


def test_an_empty_line_is_no_row_and_a_line_of_commas_is_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,hour,load,kind,is_late\nr1,1,2,a,true\n\n,,,,\n\r\nr2,2,NA,b,FALSE")
    (chunk,) = all_chunks(path)
    assert chunk.column("id", np.arange(3)).to_list() == ["r1", None, "r2"]
    fitting = Sorted(chunk, SIGNATURE)
    assert values(fitting.rows)["load"] == [2.0, None]
    assert list(fitting.bad) == [1]
    assert "row 0, column 'hour': is missing" in str(fitting.bad[1])


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_rows_that_do_not_fit_are_found_one_by_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    bad = {3: {"hour": 24}, 4: {"hour": 1.5}, 7: {"load": "x"}}
    rows: list[dict[str, Any]] = [{"hour": 1, "load": 0.5, "kind": "a"} | bad.get(i, {}) for i in range(9)]
    if kind == "csv":
        lines = [
            "hour,load,kind,is_late",
            *(f"{row['hour']},{row['load']},a," for row in rows),
            "1,2,a,,more than that",
        ]
    else:
        lines = [*map(json.dumps, rows), '{"hour": 1, ']
    path.write_text("\n".join(lines) + "\n")
    (chunk,) = all_chunks(path)
    fitting = Sorted(chunk, SIGNATURE)
    assert values(fitting.rows)["load"] == [0.5] * 6
    assert {place: error.column for place, error in fitting.bad.items()} == {3: "hour", 4: "hour", 7: "load", 9: ""}
    assert fitting.good.tolist() == [0, 1, 2, 5, 6, 8]
    place, error = first_misfit(chunk, SIGNATURE)
    assert (place, error.column) == (3, "hour")
    assert chunk.values(7)["load"] == "x"


def test_a_json_value_of_another_type_is_refused_as_in_a_request(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_text(
        '{"hour": 1, "kind": 5}\n[1]\n{"hour": "1"}\n{"hour": true}\n{"hour": 1, "is_late": 1}\n{"hour": 2}\n'
    )
    (chunk,) = all_chunks(path)
    fitting = Sorted(chunk, SIGNATURE)
    assert values(fitting.rows)["hour"] == [2]
    assert [error.column for error in fitting.bad.values()] == ["kind", "", "hour", "hour", "is_late"]


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for data, words in (
        (b"", ("is empty",)),
        (b"PAR1....", ("Parquet",)),
        (b"a,a\n1,2\n", ("'a' twice",)),
        (b"\xff\xfe,b\n", ("UTF-8",)),
    ):
        path.write_bytes(data)
        with refused(SourceError, *words):
            opened(path)
    path.write_bytes(b'hour,load\n1,"2\n3,4\n')
    with refused(SourceError, "never closes"):
        all_chunks(path)
    whole = write(tmp_path / "rows.parquet", ROWS).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    with refused(SourceError, "cut off, damaged"):
        opened(tmp_path / "cut.parquet")


def test_a_chunk_without_rows_that_fit_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_text("7\n8\n")
    fitting = Sorted(all_chunks(path)[0], SIGNATURE)
    assert fitting.rows.count == 0
    assert all(isinstance(error, InvalidInput) for error in fitting.bad.values())


TIMED = Signature(columns=(Column(name="at", type="time"),), task="classification", output="probability")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("csv", "id,at\na,2013-01-05T10:00:00Z\nb,2013-01-05 12:00+02:00\nc,\nd,2013-01-05 10:00:00\ne,NA\n"),
        (
            "ndjson",
            '{"id":"a","at":"2013-01-05T10:00:00Z"}\n{"id":"b","at":"2013-01-05T12:00:00+02:00"}\n{"id":"c"}\n'
            '{"id":"d","at":"2013-01-05T10:00:00Z"}\n{"id":"e","at":null}\n',
        ),
    ],
)
def test_times_are_read_as_ingestion_and_requests_read_them(tmp_path: Path, kind: str, text: str) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_text(text)
    file = CsvFile(path, TIMED) if kind == "csv" else JsonLinesFile(path, TIMED, ("id",))
    [chunk] = [read() for read in file.chunks(0)]
    at = 1_357_380_000_000_000
    assert values(chunk.typed(TIMED, np.arange(5))) == {"at": [at, at, None, at, None]}


@pytest.mark.parametrize(("kind", "text"), [("csv", "id,at\na,\nb,soon\n"), ("ndjson", '{}\n{"at":"soon"}\n')])
def test_what_is_no_time_is_named_with_its_row(tmp_path: Path, kind: str, text: str) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_text(text)
    file = CsvFile(path, TIMED) if kind == "csv" else JsonLinesFile(path, TIMED, ("id",))
    [chunk] = [read() for read in file.chunks(0)]
    with refused(InvalidInput, "row 1, column 'at': 'soon' is not a time"):
        chunk.typed(TIMED, np.arange(2))
