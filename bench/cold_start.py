"""How long `holdfast up` takes to its first answer on a small trained system, and what memory its processes take.

Resident memory counts shared pages in every process; unique memory is what would be free if the process ended.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from parts.figures import median_of, options, report
from parts.small import make, up

ROLES = {"prepare": "prepare", "worker": "processes.worker", "keeper": "processes.keeper"}
SETTLED_S = 3.0
"""Memory is looked at this long after the first answer, when the keeper has had its first tick."""


def once(directory: Path) -> dict[str, float]:
    """One start."""
    with up(directory) as running:
        found = {"first_answer_s": running.first_answer_s()}
        time.sleep(SETTLED_S)
        supervisor = psutil.Process(running.process.pid)
        for process in [supervisor, *supervisor.children(recursive=True)]:
            line = " ".join(process.cmdline())
            role = next((role for role, words in ROLES.items() if words in line), "supervisor")
            if process.pid != supervisor.pid and role == "supervisor":
                role = "trainer"  # the server that trainings are forked from
            memory = process.memory_full_info()
            for name, value in (("rss", memory.rss), ("uss", memory.uss)):
                key = f"{role}_{name}_mb"
                found[key] = found.get(key, 0.0) + value / 1e6
    return found


def main() -> None:
    """Measure and report."""
    given = options(__doc__)
    with TemporaryDirectory() as name:
        directory = Path(name)
        make(directory)
        once(directory)  # the first start makes tokens and reads everything from disk
        report("cold_start", median_of(given.repeats, lambda: once(directory)), given.json)


if __name__ == "__main__":
    main()
