"""What trainings are forked from must be safe to fork: no library may have started its thread pool on import."""

import subprocess
import sys

from holdfast.flow.child import PRELOADED

SCRIPT = """
import importlib, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*(open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")))
"""


def test_imports_before_a_fork_start_no_thread_pool() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *PRELOADED], capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name.startswith(("polars-0", "polars-1", "rayon"))] == []
