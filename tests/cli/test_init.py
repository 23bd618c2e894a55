"""``holdfast init`` in this process: a system file that holds, its reasons, and what is refused."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from holdfast.cli.app import main
from holdfast.core.specfile import read_spec, spec_hash

pytestmark = pytest.mark.slow

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, small) -> Call:
    """Runs `holdfast init ARGUMENTS` beside a folder of feeds; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    small.write_feeds(tmp_path / "data")

    def made(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["holdfast", "init", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return made


def test_a_file_is_written_that_holds_and_says_why(call: Call, tmp_path: Path) -> None:
    code, out, err = call("data", "--label", "ends.late", "--system", "orders")
    assert code == 0, err
    spec = read_spec(tmp_path / "holdfast.yaml")
    assert (spec.system, spec.data.rows, spec.data.label.column) == ("orders", "orders", "late")
    assert set(spec.data.columns) == {"load", "distance", "kind"}
    assert spec.model.task == "classification"
    assert f"system 'orders' with {len(spec.data.columns)} features" in out
    assert "a row of orders is known at listed_at" in out
    assert "# a row of orders is known at listed_at" in (tmp_path / "holdfast.yaml").read_text(encoding="utf-8")


def test_paths_in_the_file_start_from_where_it_stands(call: Call, tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    assert call("data", "--label", "ends.late", "--out", "deeper/system.yaml")[0] == 0
    spec = read_spec(tmp_path / "deeper" / "system.yaml")
    assert (tmp_path / "deeper" / spec.data.feeds["orders"].from_).exists()


def test_json_names_file_hash_and_reasons(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("data", "--label", "ends.late", "--json")
    found = json.loads(out)
    assert (code, found["file"]) == (0, "holdfast.yaml")
    assert found["hash"] == spec_hash(read_spec(tmp_path / "holdfast.yaml"))
    assert found["notes"]


def test_until_looks_only_at_what_was_known_by_the_day_in_the_time_zone(call: Call, tmp_path: Path) -> None:
    rows = pl.read_parquet(tmp_path / "data" / "orders.parquet")
    middle = rows["listed_at"][rows.height // 2]
    day = datetime(middle.year, middle.month, middle.day, tzinfo=UTC)
    rare = pl.when(pl.col("listed_at") > day).then(pl.lit("new")).otherwise("kind").alias("kind")
    rows.with_columns(rare).write_parquet(tmp_path / "data" / "orders.parquet")
    assert call("data", "--label", "ends.late", "--until", f"{day:%Y-%m-%d}")[0] == 0
    assert read_spec(tmp_path / "holdfast.yaml").data.columns["kind"].categories == ("a", "b")
    assert call("data", "--label", "ends.late", "--force")[0] == 0
    assert "new" in read_spec(tmp_path / "holdfast.yaml").data.columns["kind"].categories


def test_until_may_be_given_in_a_time_zone(call: Call, tmp_path: Path) -> None:
    day = f"{pl.read_parquet(tmp_path / 'data' / 'orders.parquet')['listed_at'][-1]:%Y-%m-%d}"
    zone = "America/New_York"
    assert call("data", "--label", "ends.late", "--until", day, "--timezone", zone)[0] == 0
    assert read_spec(tmp_path / "holdfast.yaml").data.timezone == zone


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("data", "--label", "ends.lat"), "late"),
        (("data", "--label", "end.late"), "ends"),
        (("nowhere", "--label", "ends.late"), "nowhere"),
        (("data", "--label", "ends.late", "--timezone", "America/New_Yrok"), "did you mean 'America/New_York'?"),
        (("data", "--label", "ends.late", "--timezone", "123456789"), "no time zone '123456789'\n"),
        (("data", "--label", "ends.late", "--until", "2001-01-01"), "2001"),
        (("data", "--label", "ends.late", "--out", "nowhere/x.yaml"), "there is no folder"),
    ],
)
def test_what_cannot_be_is_one_message_and_no_file(call: Call, tmp_path: Path, arguments, said) -> None:
    code, out, err = call(*arguments)
    assert code != 0
    assert said in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.glob("*.yaml"))


def test_a_file_that_is_there_is_kept_unless_forced(call: Call, tmp_path: Path) -> None:
    (tmp_path / "holdfast.yaml").write_text("mine")
    code, _, err = call("data", "--label", "ends.late")
    assert code != 0
    assert "--force" in err
    assert (tmp_path / "holdfast.yaml").read_text() == "mine"
    assert call("data", "--label", "ends.late", "--force")[0] == 0


def test_a_label_that_takes_long_is_a_loud_warning(call: Call, tmp_path: Path) -> None:
    ends = pl.read_parquet(tmp_path / "data" / "ends.parquet")
    ends.with_columns(pl.col("ended_at") + pl.duration(days=100)).write_parquet(tmp_path / "data" / "ends.parquet")
    code, out, err = call("data", "--label", "ends.late")
    assert code == 0
    assert "what a row of orders tells happened at at: no time beside these two can be it" in out
    assert err.startswith("WARNING: labels count as complete only 101 d after their day")
    _, out, _ = call("data", "--label", "ends.late", "--force", "--json")
    assert json.loads(out)["warnings"][0].startswith("labels count as complete only 101 d")
