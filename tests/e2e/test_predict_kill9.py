"""``holdfast predict`` in processes of its own: killed anywhere, stopped with Ctrl+C, and in bounded memory."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from holdfast.scoring.partial import Progress, folder_of
from holdfast.state import open_state

pytestmark = pytest.mark.slow

DEADLINE_S = 60.0


def write_rows(path: Path, count: int, *, wide: int = 0) -> None:
    """Rows of the small system; `wide` more columns make a file large without making it slow to score."""
    rng = np.random.default_rng(3)
    columns = {
        "id": [f"n{i}" for i in range(count)],
        "at": pl.datetime_range(
            pl.datetime(2026, 1, 1, time_zone="UTC"),
            pl.datetime(2026, 1, 1, time_zone="UTC") + pl.duration(seconds=count - 1),
            "1s",
            eager=True,
        ),
        "load": rng.normal(size=count),
        "distance": rng.normal(size=count),
        "kind": rng.choice(["a", "b", "c"], size=count),
        **{f"more{k}": rng.normal(size=count) for k in range(wide)},
    }
    frame = pl.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.write_parquet(path, row_group_size=50_000)
    else:
        getattr(frame.with_columns(pl.col("at").dt.strftime("%+")), f"write_{path.suffix[1:]}")(path)


def command(state: Path, rows: Path, out: Path, *more: str) -> list[str]:
    argv = [sys.executable, "-m", "holdfast", "predict", "--in", str(rows), "--out", str(out), "--json"]
    return [*argv, "--state", str(state), "--threads", "1", *more]


def whole(state: Path, rows: Path, out: Path, *more: str) -> dict[str, int]:
    done = subprocess.run(
        command(state, rows, out, *more), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, int] = json.loads(done.stdout)
    return said


def progress_of(out: Path) -> Progress:
    try:
        data = (folder_of(out) / "progress.json").read_bytes()
    except FileNotFoundError:
        return Progress()
    return msgspec.json.decode(data, type=Progress)


def stop_after(state: Path, rows: Path, out: Path, parts: int, how: signal.Signals, *more: str) -> tuple[int, str]:
    """Start, and send a signal once so many rows are durable; gives exit code and standard error."""
    with subprocess.Popen(
        command(state, rows, out, *more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + DEADLINE_S
        while progress_of(out).rows < parts:
            assert process.poll() is None, f"it ended before it could be stopped: {process.stderr.read()}"  # type: ignore[union-attr]
            assert time.monotonic() < end, "too slow to be stopped"
            time.sleep(0.002)
        os.kill(process.pid, how)
        _, said = process.communicate(timeout=DEADLINE_S)
    return process.returncode, said


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_a_killed_run_goes_on_and_gives_the_same_file(deployed: Path, kind: str) -> None:
    state, rows = deployed / "state", deployed / f"rows.{kind}"
    count = 400_000
    write_rows(rows, count)
    out, other = deployed / f"scores.{kind}", deployed / f"other.{kind}"
    for at in (1, 150_000):
        code, _ = stop_after(state, rows, out, at, signal.SIGKILL, "--record")
        assert code == -signal.SIGKILL
        assert not out.exists()
    said = whole(state, rows, out, "--record")
    assert said["went_on_at"] >= 150_000
    assert (said["rows"], said["scored"]) == (count, count)
    assert not folder_of(out).exists()
    whole(state, rows, other, "--record")
    assert out.read_bytes() == other.read_bytes()
    scores = pl.read_parquet(out) if kind == "parquet" else getattr(pl, f"read_{kind}")(out)
    assert scores["row"].to_list() == list(range(count))
    assert_recorded_once(state, scores)


def assert_recorded_once(state: Path, scores: pl.DataFrame) -> None:
    here = open_state(state)
    try:
        found = here.lake.scan("predictions", "orders")
    finally:
        here.close()
    assert found.height == scores.height
    assert set(found["stage"]) == {"batch"}
    joined = scores.join(found, on="prediction_id", how="left", validate="1:1")
    assert joined["out.probability"].equals(joined["probability"].rename("out.probability"))
    assert joined["key"].equals(joined["id"].rename("key"))


def test_ctrl_c_leaves_a_run_that_can_be_taken_up_and_says_so(deployed: Path) -> None:
    state, rows, out = deployed / "state", deployed / "rows.csv", deployed / "scores.csv"
    write_rows(rows, 400_000)
    code, said = stop_after(state, rows, out, 1, signal.SIGINT)
    assert code == 130
    assert "the same command goes on there" in said
    assert not out.exists()
    assert whole(state, rows, out)["went_on_at"] > 0
    assert out.exists()


PEAK = """
import re, sys
from holdfast.cli.app import main
try:
    main()
finally:  # of this program alone; what getrusage says begins with the process that it was forked from
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def peak_bytes(state: Path, rows: Path, out: Path) -> int:
    """Most memory that scoring takes."""
    argv = [sys.executable, "-c", PEAK, *command(state, rows, out)[3:]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert out.exists(), done.stderr
    return int(done.stdout.splitlines()[-1]) * 1024


@pytest.mark.parametrize(
    ("kind", "few", "many", "wide"), [("parquet", 200_000, 3_000_000, 0), ("csv", 150_000, 600_000, 40)]
)
def test_memory_does_not_grow_with_the_file(deployed: Path, kind: str, few: int, many: int, wide: int) -> None:
    """What more is to be read would take over 100 MiB as a frame. Both files hold several chunks."""
    peaks = []
    for count in (few, many):
        rows = deployed / f"rows{count}.{kind}"
        write_rows(rows, count, wide=wide)
        peaks.append(peak_bytes(deployed / "state", rows, deployed / f"scores{count}.csv") / 2**20)
    print(f"{kind}: peaks of {peaks[0]:.0f} and {peaks[1]:.0f} MiB")
    assert peaks[1] < peaks[0] + 50
