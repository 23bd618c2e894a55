"""Where the real data sets lie that benchmarks measure on: beside the project, never in it."""

from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
