"""What recording costs beside the write itself: one frame of predictions, encoded and appended.

Two ways of giving the same rows: `columns` alone, and constants, a matrix and what varies beside them. `encode_us` is
the frame's bytes; `append_us` the whole append into ``/dev/null`` less the same system call alone; `write_us` is the
system call into a file. All are microseconds of processor time of this thread a frame.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from holdfast.core.protocols import Field
from holdfast.engines.files import FileLake
from holdfast.engines.frames import DATA, Encoder, encode
from holdfast.engines.manifest import MemoryManifest
from parts.figures import options, report

CONSTANTS = {f"constant_{i}": f"value-{i:06d}" for i in range(10)}
MATRIX = 14
SCHEMA = (
    Field("event_at", "time"),
    *(Field(f"time_{i}", "time") for i in range(2)),
    Field("row", "int"),
    Field("prediction_id", "text"),
    Field("request_id", "text"),
    *(Field(name, "text") for name in CONSTANTS),
    *(Field(f"measured_{i}", "float") for i in range(2)),
    *(Field(f"in.{i}", "float") for i in range(MATRIX)),
)
ROUNDS, FRAMES = 40, 500


def varying(rows: int) -> dict[str, Any]:
    """Columns of some rows that differ from row to row."""
    ids = [f"0123456789abcdef-{i:013d}" for i in range(rows)]
    now = np.arange(rows, dtype=np.int64) + 1_365_000_000_000_000
    return {
        "event_at": now,
        "time_0": now + 1,
        "time_1": now + 2,
        "row": np.arange(rows, dtype=np.int64),
        "prediction_id": [f"{id}:0" for id in ids],
        "request_id": ids,
        "measured_0": np.linspace(0.0, 1.0, rows),
        "measured_1": np.linspace(0.0, 2.0, rows),
    }


def ways(rows: int) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Columns and what goes beside them, by the name of the way."""
    columns, matrix = varying(rows), np.random.default_rng(7).random((rows, MATRIX))
    whole = {name: [value] * rows for name, value in CONSTANTS.items()}
    block = {f"in.{i}": np.ascontiguousarray(matrix[:, i]) for i in range(MATRIX)}
    return {
        "columns alone": ({**columns, **whole, **block}, {}),
        "constants and matrix": (columns, {"constants": CONSTANTS, "matrix": matrix}),
    }


def cpu_us(act: Callable[[], object], frames: int = FRAMES) -> float:
    """Processor time of one call in the quietest of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time()
        for _ in range(frames):
            act()
        best = min(best, time.thread_time() - began)
    return best / frames * 1e6


def measured(rows: int, way: str, columns: dict[str, Any], beside: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The figures of one way."""
    encoder = Encoder("predictions", SCHEMA)

    def one() -> tuple[bytes, bytes]:
        payload = encoder.payload(columns, rows, **beside)
        return encode(DATA, payload, schema=5, rows=rows, sequence=1, written=1_365_000_000_000_000)

    frame = one()
    lake = FileLake(directory, MemoryManifest())
    writer: Any = lake.writer("predictions", f"rows{rows}", SCHEMA)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    file = os.open(directory / "beside", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nowhere, writer._segment._fd)
    found = {
        "rows": rows,
        "way": way,
        "bytes": float(sum(map(len, frame))),
        "encode_us": cpu_us(one),
        "append_us": cpu_us(lambda: writer.append(columns, rows, **beside)) - cpu_us(lambda: os.writev(nowhere, frame)),
        "write_us": cpu_us(lambda: os.writev(file, frame)),
    }
    os.close(nowhere)
    os.close(file)
    return found


def main() -> None:
    """Measure and report."""
    given = options(__doc__)
    figures = []
    for rows in (1, 16, 256):
        for way, (columns, beside) in ways(rows).items():
            with TemporaryDirectory() as name:
                figures.append(measured(rows, way, columns, beside, Path(name)))
    report("lake", figures, given.json)


if __name__ == "__main__":
    main()
