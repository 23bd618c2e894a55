"""How benchmarks run NannyML, in its own environment and on one thread, and tell what they measured beside it."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts.figures import machine, report
from parts.peers import HERE, install, python_of


def asked(script: str, folder: Path) -> list[dict[str, Any]]:
    """What a script beside the peers says of a folder, a dictionary a line. One that fails leaves less, and says why.

    Raises NotAvailable where NannyML cannot be installed.
    """
    install("nannyml")
    done = subprocess.run(
        [str(python_of("nannyml")), str(HERE / script), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NML_DISABLE_USAGE_LOGGING": "1"},
    )
    if done.returncode:
        print(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def tell(benchmark: str, figures: Mapping[str, Sequence[dict[str, Any]]], file: Path | None) -> None:
    """Print tables by their names, and write them where asked."""
    for name, shown in figures.items():
        print(f"\n{name}")
        report(benchmark, shown, None)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        about = {"benchmark": benchmark, "machine": machine(), "figures": figures}
        file.write_text(json.dumps(about, indent=2) + "\n")
        print(f"written: {file}")
