"""Acknowledged means recorded: kill -9 at any moment loses no row that was acknowledged, and doubles none."""

import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from holdfast.engines.files import FileLake
from holdfast.engines.sqlite import SqliteCatalog

from ..lines import next_line

HEAD = """
import sys
from datetime import timedelta
from pathlib import Path
from holdfast.engines.files import FileLake
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.testing import PREDICTION_FIELDS, START, predictions

state, life = Path(sys.argv[1]), sys.argv[2]
catalog = SqliteCatalog(state / "catalog.db")
lake = FileLake(state / "lake", catalog.manifest, record=sys.argv[3])

def say(*words):
    sys.stdout.write(" ".join(words) + "\\n")
    sys.stdout.flush()
"""

APPEND = """
writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
n = 0
while True:
    ids = [f"{life}-{n + i}" for i in range(1 + n % 5)]
    writer.append(predictions(ids, at=START + timedelta(minutes=n)), len(ids))
    say(*ids)
    n += len(ids)
    if n % 7 == 0:
        writer.close()
        writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
"""

ROLL = """
import polars
say("rolling")
while True:
    lake.roll()
"""


def start(code, state, life, record="process"):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HEAD + code), str(state), life, record],
        stdout=subprocess.PIPE,
        text=True,
    )


def killed(child, after_s):
    """What the child said before it was killed, `after_s` seconds after its first word."""
    said = next_line(child, "its first word")
    end = time.monotonic() + after_s
    while time.monotonic() < end:
        pass
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    # The last line may be torn; a whole line is an acknowledgement.
    return "".join((said + rest).splitlines(keepends=True)[: None if rest.endswith("\n") else -1]).split()


def scanned(state):
    catalog = SqliteCatalog(state / "catalog.db")
    lake = FileLake(state / "lake", catalog.manifest)
    try:
        frame = lake.scan("predictions", "flights")
        return frame["prediction_id"].to_list() if frame.width else []
    finally:
        lake.close()
        catalog.close()


def check(state, acknowledged):
    found = scanned(state)
    assert len(found) == len(set(found)), "a row is doubled"
    assert acknowledged <= set(found), "an acknowledged row is lost"


@pytest.mark.slow
@pytest.mark.parametrize("record", ["process", "disk"])
def test_rows_acknowledged_before_kill_9_are_all_there_once(tmp_path, record):
    SqliteCatalog(tmp_path / "catalog.db").close()
    seed = random.Random(7)
    acknowledged = set()
    for life in range(3):
        child = start(APPEND, tmp_path, str(life), record)
        acknowledged |= set(killed(child, seed.uniform(0, 0.1)))
        check(tmp_path, acknowledged)
    assert acknowledged


@pytest.mark.slow
def test_kill_9_during_a_roll_neither_loses_nor_doubles_a_row(tmp_path):
    SqliteCatalog(tmp_path / "catalog.db").close()
    seed = random.Random(11)
    acknowledged = set()
    for life in range(3):
        writer = start(APPEND, tmp_path, str(life))
        first = next_line(writer, "a row").split()  # so that there is something to roll
        roller = start(ROLL, tmp_path, "roller")
        killed(roller, seed.uniform(0.02, 0.15))
        acknowledged |= set(first) | set(killed(writer, 0))
        check(tmp_path, acknowledged)
    catalog = SqliteCatalog(tmp_path / "catalog.db")
    lake = FileLake(tmp_path / "lake", catalog.manifest)
    lake.roll()
    assert lake.stats().segments_open == lake.stats().segments_sealed == 0
    lake.close()
    catalog.close()
    check(tmp_path, acknowledged)
