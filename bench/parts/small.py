"""A small system with data of its own, trained, and `holdfast up` on it."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl

from holdfast.core.clock import SystemClock

FEATURES, DAYS, ROWS_A_DAY = 13, 60, 200
FILE = """\
system: small
data:
  feeds:
    rows: {{from: rows.parquet, event_at: at, known_at: at, key: id}}
    ends: {{from: ends.parquet, event_at: ended_at, known_at: ended_at, key: id}}
  rows: rows
  key: id
  label: {{feed: ends, column: late, known_at: ended_at, mature_after: 1d}}
  columns: {{{columns}}}
model:
  task: classification
  trainer: lightgbm
  params: {{trees: 200, leaves: 31, learning_rate: 0.01}}
  validate: {{folds: 1}}
gates:
  - {{check: quality, metric: roc_auc, at_least: 0.5}}
release:
  steps: [live]
  decide: {{loss: brier, margin: 0.01}}
serve: {{record: {record}}}
"""


def make(directory: Path, *, record: str = "process") -> Path:
    """Write data and system file, train, release; returns the system file."""
    rng = np.random.default_rng(7)
    n = DAYS * ROWS_A_DAY
    today = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    at = [today - timedelta(days=DAYS) + timedelta(days=i / ROWS_A_DAY) for i in range(n)]
    values = {f"x{k}": rng.normal(size=n) for k in range(FEATURES)}
    late = (values["x0"] * values["x1"] + values["x2"] + rng.normal(size=n) > 0.5).astype(int)
    ids = [f"r{i}" for i in range(n)]
    pl.DataFrame({"id": ids, "at": at, **values}).write_parquet(directory / "rows.parquet")
    ended = [each + timedelta(hours=3) for each in at]
    pl.DataFrame({"id": ids, "ended_at": ended, "late": late}).write_parquet(directory / "ends.parquet")
    write_file(directory, record)
    command = [sys.executable, "-m", "holdfast", "train", "holdfast.yaml", "--state", "state"]
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return directory / "holdfast.yaml"


def write_file(directory: Path, record: str) -> None:
    """The system file, recording as asked."""
    columns = ", ".join(f"x{k}: number" for k in range(FEATURES))
    (directory / "holdfast.yaml").write_text(FILE.format(columns=columns, record=record))


class Running:
    """One `holdfast up`: where it answers, with which token, and its processes."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, token: str, began_s: float) -> None:
        self.process, self.url, self.token, self.began_s = process, url, token, began_s

    def first_answer_s(self) -> float:
        """Seconds from the start of the command to the first answer with 200."""
        row = {f"x{k}": 0.5 for k in range(FEATURES)}
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}) as client:
            while time.perf_counter() - self.began_s < 60:
                try:
                    if client.post("/predict/small", json=row).status_code == 200:
                        return time.perf_counter() - self.began_s
                except httpx.TransportError:
                    pass
                time.sleep(0.005)
        raise SystemExit("no answer within a minute")


@contextmanager
def up(directory: Path, **changes: Any) -> Iterator[Running]:
    """`holdfast up` with one worker on free ports, stopped at the end. The admin token of the first start is kept."""
    began_s = time.perf_counter()
    options = {"workers": 1, "port": 0, "console-port": 0} | changes
    argv = [sys.executable, "-m", "holdfast", "up", "holdfast.yaml", "--state", "state"]
    argv += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with (directory / "up.log").open("w") as log:
        process = subprocess.Popen(argv, cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl+C" not in said:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"`holdfast up` ended:\n{said}{(directory / 'up.log').read_text()}")
            said += line
        kept = directory / "token"
        if found := re.search(r"admin token[^:]*: (\S+)", said):
            kept.write_text(found[1])
        url = re.search(r"POST (http://\S+)/predict/", said)
        assert url is not None
        yield Running(process, url[1], kept.read_text(), began_s)
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
