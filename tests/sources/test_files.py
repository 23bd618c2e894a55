"""Files: what is read, as which types, and what is said about files that are not what they should be."""

import gzip
import hashlib
import json
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from holdfast.core.protocols import Batch
from holdfast.errors import SourceError
from holdfast.sources.files import Files

FRAME = pl.DataFrame({"id": [1, 2], "name": ["x", "y"], "seen_at": ["2013-01-01T10:00:00Z", "2013-01-02T10:00:00Z"]})


def rows(directory: Path, path: str, **options: tuple[str, ...]) -> pl.DataFrame:
    source = Files(path=path, root=str(directory), **options)
    return pl.concat([source.read(batch) for batch in source.batches()])


def write(directory: Path, name: str, content: str | bytes) -> Path:
    file = directory / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_every_format_gives_the_same_rows(tmp_path):
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.write_csv(tmp_path / "b.csv.zst", compression="zstd")
    FRAME.write_csv(tmp_path / "c.csv.gz", compression="gzip")
    FRAME.write_ndjson(tmp_path / "d.jsonl")
    FRAME.write_ndjson(tmp_path / "e.ndjson.gz", compression="gzip")
    FRAME.write_ndjson(tmp_path / "f.jsonl.zst", compression="zstd")
    FRAME.write_parquet(tmp_path / "g.parquet")
    source = Files(path=".", root=str(tmp_path))
    found = [source.read(batch) for batch in source.batches()]
    assert len(found) == 7
    assert all(frame.equals(found[0]) for frame in found)
    assert found[0].schema == {"id": pl.Int64, "name": pl.String, "seen_at": pl.Datetime("us", "UTC")}


def test_batches_are_files_by_name_with_the_hash_of_their_bytes(tmp_path):
    for name in ("b.csv", "a.csv", "notes.txt", "c.parquet.bak"):
        write(tmp_path, name, "id\n1\n")
    first, second = Files(path="*.csv", root=str(tmp_path)).batches()
    assert (first.name, second.name, first.size_bytes) == ("a.csv", "b.csv", 5)
    assert first.sha256 == second.sha256 == hashlib.sha256(b"id\n1\n").hexdigest()


def test_a_folder_gives_the_data_files_in_it(tmp_path):
    (tmp_path / "flights").mkdir()
    write(tmp_path, "flights/2013-02.csv", "id\n2\n")
    write(tmp_path, "flights/2013-01.csv", "id\n1\n")
    write(tmp_path, "flights/README.md", "no data")
    assert rows(tmp_path, "flights")["id"].to_list() == [1, 2]


def test_an_absolute_path_needs_no_root(tmp_path):
    write(tmp_path, "a-1.csv", "id\n1\n")
    assert rows(Path("elsewhere"), str(tmp_path / "a-*.csv"))["id"].to_list() == [1]


def test_types_are_decided_over_the_whole_file(tmp_path):
    lines = ["n,x,flag,code"] + [f"{i},1,true,00{i}" for i in range(2000)] + ["2000,1.5,false,0x"]
    write(tmp_path, "a.csv", "\n".join(lines))
    assert rows(tmp_path, "a.csv").schema == {"n": pl.Int64, "x": pl.Float64, "flag": pl.Boolean, "code": pl.String}


def test_words_for_missing_are_missing_among_numbers_and_words_among_words(tmp_path):
    write(tmp_path, "a.csv", "x,country\nNA,NA\n2.5,DE\n,\n")
    assert rows(tmp_path, "a.csv").to_dict(as_series=False) == {"x": [None, 2.5], "country": ["NA", "DE"]}


def test_a_code_with_a_leading_zero_stays_text(tmp_path):
    write(tmp_path, "a.csv", "zip\n00501\n10001\n")
    assert rows(tmp_path, "a.csv")["zip"].to_list() == ["00501", "10001"]


def test_times_are_read_with_and_without_zone(tmp_path):
    texts = ["2013-01-01", "2013-01-01 10:00", "2013-01-01T10:00:00.25+02:00", "2013-01-01T10:00:00-0530", ""]
    write(tmp_path, "a.csv", "when,x\n" + "\n".join(f"{text},1" for text in texts))
    assert rows(tmp_path, "a.csv")["when"].to_list() == [
        datetime(2013, 1, 1, tzinfo=UTC),
        datetime(2013, 1, 1, 10, tzinfo=UTC),
        datetime(2013, 1, 1, 8, 0, 0, 250_000, tzinfo=UTC),
        datetime(2013, 1, 1, 15, 30, tzinfo=UTC),
        None,
    ]


def test_a_column_with_something_that_is_no_time_stays_text(tmp_path):
    write(tmp_path, "a.csv", "seen_at\n2013-01-01\nsoon\n2013-02-30\n")
    assert rows(tmp_path, "a.csv")["seen_at"].to_list() == ["2013-01-01", "soon", "2013-02-30"]


def test_times_of_typed_files_become_utc(tmp_path):
    naive = datetime(2013, 1, 1, 10)
    frame = pl.DataFrame({"naive": [naive], "day": [date(2013, 1, 1)], "local": [naive]})
    frame = frame.with_columns(
        pl.col("local").dt.replace_time_zone("America/New_York").dt.cast_time_unit("ms"),
        pl.col("naive").dt.cast_time_unit("ns"),
    )
    frame.write_parquet(tmp_path / "a.parquet")
    found = rows(tmp_path, "a.parquet")
    assert set(found.dtypes) == {pl.Datetime("us", "UTC")}
    assert [value.hour for value in found.row(0)] == [10, 0, 15]


def test_declared_times_of_json_are_read(tmp_path):
    write(tmp_path, "a.jsonl", json.dumps({"ts": "2013-01-01T00:00:00Z"}))
    assert rows(tmp_path, "a.jsonl").dtypes == [pl.String]
    assert rows(tmp_path, "a.jsonl", times=("ts",)).dtypes == [pl.Datetime("us", "UTC")]


def test_an_empty_line_is_no_row(tmp_path):
    write(tmp_path, "a.csv", "a,b\n1,2\n\n3,4\n")
    assert rows(tmp_path, "a.csv").height == 2


def test_json_lines_may_be_empty(tmp_path):
    write(tmp_path, "a.jsonl", "\n")
    assert rows(tmp_path, "a.jsonl").height == 0


def parquet_bytes(directory: Path) -> bytes:
    file = directory / "whole"
    pl.DataFrame({"a": range(1000)}).write_parquet(file)
    return file.read_bytes()


BAD = {
    "cut.parquet": lambda whole: whole[: len(whole) // 2],
    "text.parquet": lambda whole: b"a,b\n1,2\n",
    "empty.parquet": lambda whole: b"",
    "parquet.csv": lambda whole: whole,
    "latin.csv": lambda whole: b"name\nCaf\xe9\n",
    "ragged.csv": lambda whole: b"a,b\n1,2\n1,2,3\n",
    "quote.csv": lambda whole: b'a,b\n"x,1\n2,3\n',
    "empty.csv": lambda whole: b"",
    "twice.csv": lambda whole: b"a,a\n1,2\n",
    "cut.csv.gz": lambda whole: gzip.compress(b"a,b\n" + b"1,2\n" * 1000)[:-10],
    "plain.csv.gz": lambda whole: b"a,b\n1,2\n",
    "plain.csv.zst": lambda whole: b"a,b\n1,2\n",
    "cut.csv.zst": lambda whole: b"\x28\xb5\x2f\xfd\x04",
    "cut.jsonl": lambda whole: b'{"a":1}\n{"a":',
    "array.jsonl": lambda whole: b'[{"a":1}]\n',
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read_is_named_with_cause_and_what_to_do(tmp_path, name):
    write(tmp_path, name, BAD[name](parquet_bytes(tmp_path)))
    with pytest.raises(SourceError) as caught:
        rows(tmp_path, name)
    text = str(caught.value)
    assert name in text
    assert "\n" not in text
    assert any(word in text for word in ("cut off", "rename"))


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.99])
def test_a_cut_off_zst_is_never_taken_for_a_whole_one(tmp_path, cut):
    frame = pl.DataFrame({"a": range(20_000), "b": [str(i * 7919 % 10_007) for i in range(20_000)]})
    frame.write_csv(tmp_path / "a.csv.zst", compression="zstd")
    whole = (tmp_path / "a.csv.zst").read_bytes()
    write(tmp_path, "a.csv.zst", whole[: int(len(whole) * cut)])
    with pytest.raises(SourceError, match=r"a\.csv\.zst"):
        rows(tmp_path, "a.csv.zst")


def test_nothing_that_matches_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"flights-\*\.csv: no file of that name or pattern; put the data there"):
        rows(tmp_path, "flights-*.csv")


def test_a_file_of_an_unknown_kind_is_an_error(tmp_path):
    write(tmp_path, "a.xlsx", b"PK")
    with pytest.raises(SourceError, match=r"a\.xlsx: cannot tell what this is from its name; files end in \.csv"):
        rows(tmp_path, "*")


def test_a_file_that_changed_or_went_after_it_was_listed_is_an_error(tmp_path):
    file = write(tmp_path, "a.csv", "id\n1\n")
    source = Files(path="a.csv", root=str(tmp_path))
    (batch,) = source.batches()
    write(tmp_path, "a.csv", "id\n1\n2\n")
    with pytest.raises(SourceError, match=r"a\.csv: changed while it was being read"):
        source.read(batch)
    file.unlink()
    with pytest.raises(SourceError, match=r"a\.csv: cannot be read \(No such file"):
        source.read(Batch(name="a.csv", sha256=batch.sha256, size_bytes=0))
