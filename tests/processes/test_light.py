"""What the long-lived processes hold in memory: neither the supervisor nor a worker loads what only others need."""

import json
import subprocess
import sys

import pytest

REPORT = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def loaded(module: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}; {REPORT}"], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


@pytest.mark.slow
def test_a_worker_loads_no_catalog_no_frames_and_no_trainer() -> None:
    heavy = {"sqlalchemy", "alembic", "polars", "model_signing", "sklearn", "scipy", "lightgbm", "onnx", "litestar"}
    assert not loaded("holdfast.processes.worker") & heavy


@pytest.mark.slow
def test_the_supervisor_loads_next_to_nothing() -> None:
    heavy = {"numpy", "yaml", "sqlalchemy", "polars", "uvicorn", "cryptography", "onnxruntime", "httpx"}
    assert not loaded("holdfast.cli.up") & heavy
