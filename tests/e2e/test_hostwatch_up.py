"""`holdfast up` tells what befell its own processes: a worker that was killed, a keeper that was replaced."""

import os
import signal

import pytest

from holdfast.core.records import Mark
from holdfast.flow import happenings

pytestmark = pytest.mark.slow


def test_a_killed_worker_and_a_killed_keeper_stand_in_the_audit_log(tools, deployed):
    up = tools.up(deployed / "state", deployed / "holdfast.yaml")
    up.answers()

    def told(action: str) -> list[str]:
        with tools.state(up.state).catalog.read() as tx:
            return [str(entry.detail["why"]) for entry in tx.audit_log("*") if entry.action == action]

    def is_known(worker: int) -> bool:
        """True once the keeper has seen this process: only then its end is one."""
        with tools.state(up.state).catalog.read() as tx:
            mark = tx.get(Mark, "*", "host")
        return mark is not None and mark.memory.get("pids", {}).get("worker-1") == worker

    tools.until(lambda: told(happenings.BROUGHT_UP), "the word that it is up")
    tools.until(lambda: is_known(up.pid("worker-1")), "a look at the worker")
    os.kill(up.pid("worker-1"), signal.SIGKILL)
    ended = "worker-1 ended with code -9 and was replaced"
    tools.until(lambda: any("code -9" in why for why in told(happenings.WORKER_REPLACED)), ended)
    assert ended in told(happenings.WORKER_REPLACED)
    up.kill_keeper()
    tools.until(lambda: told(happenings.KEEPER_REPLACED), "the word of the keeper's end")
    assert len(told(happenings.BROUGHT_UP)) == 1, "neither was a start of all"
    up.answers()
    tools.holdfast("audit", "verify", "--state", up.state)
    assert up.stop() == 0
