"""Starting is cheap: neither `import holdfast` nor `holdfast --help` loads what only some commands need."""

import json
import subprocess
import sys

import pytest

from holdfast.core.clock import stopwatch_s

HEAVY = (
    "numpy",
    "polars",
    "sklearn",
    "lightgbm",
    "scipy",
    "onnx",
    "onnxruntime",
    "sqlalchemy",
    "alembic",
    "litestar",
    "uvicorn",
    "httpx",
    "cryptography",
    "model_signing",
)
REPORT = "import json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
HELP = f"""
import sys
sys.argv = ["holdfast", "--help"]
from holdfast.cli import main
try:
    main()
except SystemExit:
    {REPORT}
"""


def loaded(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running the code."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_importing_holdfast_loads_nothing_heavy() -> None:
    assert not loaded(f"import holdfast; {REPORT}") & {*HEAVY, "msgspec", "yaml", "typer"}


def test_help_loads_nothing_heavy() -> None:
    assert not loaded(HELP) & {*HEAVY, "msgspec", "yaml"}


@pytest.mark.slow
def test_help_answers_at_once() -> None:
    took = []
    for _ in range(3):
        start = stopwatch_s()
        subprocess.run([sys.executable, "-m", "holdfast", "--help"], capture_output=True, check=True, timeout=60)
        took.append(stopwatch_s() - start)
    print(f"holdfast --help: best of three {min(took):.2f} s (goal 0.3 s)")
    assert min(took) < 1.0, "far above the goal of 0.3 s: something heavy is imported"
