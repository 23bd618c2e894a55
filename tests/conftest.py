"""A small system with real files and a small trained state, for tests of commands, console and the whole.

Properties are checked without a deadline everywhere: machines that are busy are slow.
"""

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import settings

from holdfast.core.clock import SystemClock
from holdfast.core.specfile import read_spec
from holdfast.flow.registry import current_route
from holdfast.opening import open_system
from holdfast.state import open_state, put_in_force

pytest_plugins = ["holdfast.testing.serving"]

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

SHARED = Path(os.environ.get("HOLDFAST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Where real data sets lie, each with its SOURCE.md: beside the checkout, never in it."""
DAYS, ROWS_A_DAY = 60, 40
FILE = """\
system: {name}
about: Will it be late?
data:
  feeds:
    orders: {{from: "orders*.parquet", event_at: at, known_at: listed_at, key: id, fresh: 2d}}
    ends: {{from: ends.parquet, event_at: ended_at, known_at: ended_at, key: id}}
  rows: orders
  key: id
  label: {{feed: ends, column: late, known_at: ended_at, mature_after: 1d}}
  columns: {{load: number, distance: number, kind: category}}
model: {{task: classification, trainer: linear, params: {{l2: {l2}}}, validate: {{folds: 1, holdout: 7d}}}}
gates:
  - {{check: quality, metric: roc_auc, at_least: {least}}}
release:
  steps: [{steps}]
  decide: {{loss: brier, margin: 0.01}}
monitors:
  - {{check: freshness, every: 1d}}
"""


def write_feeds(directory: Path, seed: int = 7) -> None:
    """Orders of the last two months, one in three of which ends late; the newest have no end yet."""
    rng = np.random.default_rng(seed)
    n = DAYS * ROWS_A_DAY
    today = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    start = today - timedelta(days=DAYS)
    at = [start + timedelta(days=i // ROWS_A_DAY, minutes=20 * (i % ROWS_A_DAY)) for i in range(n)]
    load, distance, kind = rng.normal(size=n), rng.normal(size=n), rng.choice(["a", "b"], size=n)
    late = rng.random(n) < 1 / (1 + np.exp(-(1.5 * load - distance + (kind == "b") - 1.2)))
    ids = [f"o{i}" for i in range(n)]
    listed = [each - timedelta(hours=2) for each in at]
    directory.mkdir(parents=True, exist_ok=True)
    columns = {"id": ids, "at": at, "listed_at": listed, "load": load, "distance": distance, "kind": kind}
    pl.DataFrame(columns).write_parquet(directory / "orders.parquet")
    ended = [each + timedelta(hours=3) for each in at]
    pl.DataFrame({"id": ids, "ended_at": ended, "late": late.astype(int)}).write_parquet(directory / "ends.parquet")


def write_file(
    directory: Path, name: str = "orders", *, l2: float = 1.0, least: float = 0.6, steps: str = "live"
) -> Path:
    """The system file beside its feeds."""
    path = directory / "holdfast.yaml"
    path.write_text(FILE.format(name=name, l2=l2, least=least, steps=steps), encoding="utf-8")
    return path


class Small:
    """Feeds and system files of a small system."""

    write_feeds, write_file = staticmethod(write_feeds), staticmethod(write_file)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Where a data set or a file of one lies; a test whose data are not here is skipped."""

    def found(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"data absent: {name}; set HOLDFAST_TEST_DATA to the folder of the data sets")
        return SHARED / name

    return found


@pytest.fixture(scope="session")
def small() -> Small:
    return Small()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with feeds, a system file, and a state in which version 2 is live and version 1 was before."""
    root = tmp_path_factory.mktemp("trained")
    write_feeds(root)
    state, clock = open_state(root / "state"), SystemClock()
    for number, l2 in enumerate((10.0, 1.0), 1):
        file = write_file(root, l2=l2)
        text = file.read_text(encoding="utf-8")
        put_in_force(state, read_spec(file), path=file, text=text, now=clock.now(), by="test")
        system = open_system(state, "orders", clock, waits=True)
        system.submit_training("a test")
        while system.push_on():
            pass
        with state.catalog.read() as tx:
            assert current_route(tx, "orders").live == str(number)
    state.close()
    return root


@pytest.fixture
def deployed(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained` of one's own."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"
