"""How a benchmark tells what it measured: as lines for people, and as JSON with the machine it was measured on."""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

import holdfast


def options(about: str, **more: Any) -> argparse.Namespace:
    """``--json FILE`` and ``--repeats N``, and what `more` adds: names with defaults."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--repeats", type=int, default=3)
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


def median_of(repeats: int, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The median of each figure over some repeats."""
    found = [measure() for _ in range(repeats)]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def report(name: str, figures: dict[str, Any] | Sequence[dict[str, Any]], file: Path | None) -> None:
    """Print figures, and write them where asked."""
    for figure in [figures] if isinstance(figures, dict) else figures:
        print("  ".join(f"{key} {_shown(value)}" for key, value in figure.items()))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"benchmark": name, "machine": machine(), "figures": figures}, indent=2) + "\n")
        print(f"written: {file}")


def machine() -> dict[str, Any]:
    """What the figures depend on. `load` is how many processes were running over the last minute."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "system": platform.system(),
        "holdfast": holdfast.__version__,
        "load": round(os.getloadavg()[0], 2),
    }


def _shown(value: Any) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
