"""How fast a file is scored, against the model's runtime alone on the same rows: rows a second, by wall and by CPU.

LightGBM, 200 trees of 31 leaves, 13 numbers a row. `raw` is ONNX Runtime, one thread, on the ready float32 matrix in
memory, in pieces of as many rows as a chunk has; `runtime` is the same with the runtime that serves the version, which
may be a faster one. `predict` reads the file, checks every row against the signature,
answers, writes and syncs the result, and reads the whole file once more before that for its hash. They take turns
in one process, so that what else the machine does meets both.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from holdfast.cli.opened import opened
from holdfast.cli.predict import scorer_of
from holdfast.core.clock import SystemClock
from holdfast.core.inputs import read_frame
from holdfast.core.protocols import Runtime
from holdfast.runtimes.onnx import OnnxRuntime
from holdfast.scoring.batch import FileScoring, Scorer, open_rows, sha256_of
from holdfast.scoring.chunks import CHUNK_ROWS
from holdfast.scoring.partial import Plan, format_of, partial
from parts.figures import options, report
from parts.small import FEATURES, make

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
Case = tuple[str, str, int]
CASES: tuple[Case, ...] = (
    ("parquet", "parquet", 1),
    ("csv", "csv", 1),
    ("ndjson", "ndjson", 1),
    ("parquet", "parquet", 2),
    ("csv", "csv", 2),
)
"""Format of the input, format of the result, threads."""


def write_rows(directory: Path, rows: int) -> pl.DataFrame:
    """Rows to score, in every format."""
    rng = np.random.default_rng(3)
    frame = pl.DataFrame(
        {"id": [f"r{i}" for i in range(rows)], **{f"x{k}": rng.normal(size=rows) for k in range(FEATURES)}}
    )
    frame.write_parquet(directory / "rows.parquet")
    frame.write_csv(directory / "rows.csv")
    frame.write_ndjson(directory / "rows.ndjson")
    return frame


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the wall and by the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def scored(scorer: Scorer, rows: Path, out: Path, threads: int) -> None:
    """What `holdfast predict` does between its start and its end."""
    file = open_rows(rows, scorer)
    plan = Plan(
        input=str(rows),
        sha256=sha256_of(rows, lambda done: None),
        size_bytes=rows.stat().st_size,
        system=scorer.system,
        version=scorer.version,
        artifact=scorer.artifact,
        output=format_of(out),
        recorded=False,
    )
    with partial(out, plan) as into:
        FileScoring(file, scorer, into, SystemClock(), threads=threads).run(lambda done: None)


def in_pieces(runtime: Runtime, matrix: FloatArray) -> Callable[[], None]:
    """Runs a model over a matrix, in pieces of a chunk."""

    def run() -> None:
        for at in range(0, len(matrix), CHUNK_ROWS):
            runtime.run(matrix[at : at + CHUNK_ROWS])

    return run


def compared(
    scorer: Scorer, directory: Path, case: Case, raw: Runtime, matrix: FloatArray, repeats: int
) -> dict[str, Any]:
    """Medians of one case, each repeat right after those of the runtimes alone."""
    source, result, threads = case
    given, out, rows = directory / f"rows.{source}", directory / f"out.{result}", len(matrix)
    taken = [
        (
            timed(in_pieces(raw, matrix)),
            timed(in_pieces(scorer.model.runtime, matrix)),
            timed(lambda: scored(scorer, given, out, threads)),
        )
        for _ in range(repeats)
    ]
    return {
        "in": source,
        "out": result,
        "threads": threads,
        "raw_rows_per_s": rows / median(raw[0] for raw, _, _ in taken),
        "runtime_rows_per_s": rows / median(runtime[0] for _, runtime, _ in taken),
        "rows_per_s": rows / median(whole[0] for _, _, whole in taken),
        "share_of_raw_wall": median(raw[0] / whole[0] for raw, _, whole in taken),
        "share_of_raw_cpu": median(raw[1] / whole[1] for raw, _, whole in taken),
        "share_of_runtime_cpu": median(runtime[1] / whole[1] for _, runtime, whole in taken),
        "cpu_us_per_row": median(whole[1] for _, _, whole in taken) / rows * 1e6,
    }


def main() -> None:
    """Measure and report."""
    given = options(__doc__, rows=400_000)
    with TemporaryDirectory() as name:
        directory = Path(name)
        make(directory)
        frame = write_rows(directory, given.rows)
        with opened(directory / "state") as state:
            scorer = scorer_of(state, "", "")
            model = scorer.model
            matrix = model.transform.matrix(read_frame(model.signature, frame))
            raw = OnnxRuntime.load(next((directory / "state" / "models").glob("*/model.onnx")).parent)
            in_pieces(raw, matrix)()
            figures = [compared(scorer, directory, case, raw, matrix, given.repeats) for case in CASES]
    report("batch", figures, given.json)


if __name__ == "__main__":
    main()
