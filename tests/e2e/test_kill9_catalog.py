"""A catalog transaction is there whole or not at all, whoever is killed, and processes take turns."""

import random
import signal
import subprocess
import sys
import time

import pytest

from holdfast.core.records import Job, Mark
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.security import audit

from ..lines import next_line

WRITE = """
import sys
from pathlib import Path
from holdfast.core.records import Job, Mark
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.testing import START, a_job

catalog = SqliteCatalog(Path(sys.argv[1]))
rounds = int(sys.argv[2])
for _ in range(rounds) if rounds else iter(int, 1):
    with catalog.begin() as transaction:
        mark = transaction.get(Mark, "flights", "count")
        n = mark.memory["n"] + 1 if mark else 1
        for part in range(5):
            transaction.put(a_job(f"{n}-{part}"))
        transaction.put(Mark(system="flights", id="count", memory={"n": n}))
        transaction.audit(at=START, actor="me", action="count", system="flights", subject=str(n), detail={})
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
catalog.close()
"""


def start(path, rounds=0):
    return subprocess.Popen([sys.executable, "-c", WRITE, str(path), str(rounds)], stdout=subprocess.PIPE, text=True)


def counted(path):
    """How many transactions are in the catalog, each of them whole."""
    catalog = SqliteCatalog(path)
    with catalog.read() as view:
        mark = view.get(Mark, "flights", "count")
        n = mark.memory["n"] if mark else 0
        assert {job.id for job in view.find(Job, "flights")} == {f"{i}-{p}" for i in range(1, n + 1) for p in range(5)}
        log = view.audit_log()
    catalog.close()
    audit.verify(log)
    assert [entry.subject for entry in log] == [str(i) for i in range(1, n + 1)]
    return n


@pytest.mark.slow
def test_kill_9_leaves_whole_transactions_and_all_that_were_acknowledged(tmp_path):
    path = tmp_path / "catalog.db"
    seed = random.Random(3)
    for _ in range(4):
        child = start(path)
        said = next_line(child, "a transaction")
        end = time.monotonic() + seed.uniform(0, 0.05)
        while time.monotonic() < end:
            pass
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
        whole = [line for line in (said + rest).splitlines(keepends=True) if line.endswith("\n")]
        assert counted(path) >= int(whole[-1])


@pytest.mark.slow
def test_transactions_of_two_processes_follow_one_another(tmp_path):
    path = tmp_path / "catalog.db"
    SqliteCatalog(path).close()
    children = [start(path, rounds=15) for _ in range(2)]
    numbers = [int(line) for child in children for line in child.communicate(timeout=60)[0].splitlines()]
    assert sorted(numbers) == list(range(1, 31))
    assert counted(path) == 30
