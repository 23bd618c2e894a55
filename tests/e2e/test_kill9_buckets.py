"""kill -9 while answers are rolled and counted: the counts that are found afterwards are those of the rows."""

import random
import signal
import subprocess
import sys
import textwrap
from datetime import timedelta

import numpy as np
import pytest

from holdfast.engines.files import FileLake
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.flow.buckets import Buckets
from holdfast.stats.counting import count_rows
from holdfast.stats.histogram import Edges
from holdfast.testing import START

from ..lines import next_line

EDGES = {"x": Edges(cuts=tuple(np.linspace(0, 1, 11).tolist()))}
CHILD = """
import sys
from datetime import timedelta
from pathlib import Path
import numpy as np
from holdfast.core.protocols import Field
from holdfast.engines.files import FileLake
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.flow.buckets import Buckets
from holdfast.stats.histogram import Edges
from holdfast.testing import START, micros

state, life = Path(sys.argv[1]), int(sys.argv[2])
catalog = SqliteCatalog(state / "catalog.db")
lake = FileLake(state / "lake", catalog.manifest)
buckets = Buckets("flights", lake, "UTC", lambda rows: rows, "all")
edges = {"x": Edges(cuts=tuple(np.linspace(0, 1, 11).tolist()))}
random = np.random.default_rng(life)
fields = (Field("event_at", "time"), Field("prediction_id", "text"), Field("in.x", "float"))
n = 0
while True:
    writer = lake.writer("predictions", "flights", fields)
    at = micros(START) + random.integers(0, 3 * 86_400_000_000, 50)
    ids = [f"{life}-{n + i}" for i in range(50)]
    writer.append({"event_at": at, "prediction_id": ids, "in.x": random.random(50)}, 50)
    writer.close()
    n += 50
    lake.roll()
    for _ in buckets.counting(edges):
        sys.stdout.write("counted\\n")
        sys.stdout.flush()
"""


@pytest.mark.slow
def test_counts_after_kill_9_are_those_of_the_rows(tmp_path):
    SqliteCatalog(tmp_path / "catalog.db").close()
    seed = random.Random(5)
    for life in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path), str(life)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(seed.randint(1, 12)):  # that many parts were counted, and it is somewhere after the last
            assert next_line(child, "a part that is counted") == "counted\n"
        child.send_signal(signal.SIGKILL)
        child.communicate()
        catalog = SqliteCatalog(tmp_path / "catalog.db")
        lake = FileLake(tmp_path / "lake", catalog.manifest)
        buckets = Buckets("flights", lake, "UTC", lambda rows: rows, "all")
        for day in range(3):
            start, end = START + timedelta(days=day), START + timedelta(days=day + 1)
            rows = lake.scan("predictions", "flights", since=start, until=end).rename({"in.x": "x"})
            expected = count_rows(rows, EDGES).histograms["x"].counted
            found = buckets.counts(start, end, EDGES)
            assert found is not None
            assert found["x"].tolist() == expected.tolist()
            assert expected.sum() > 0
        lake.close()
        catalog.close()
