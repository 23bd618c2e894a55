"""What running 200 trees costs: our tables beside ONNX Runtime, LightGBM, and tree compilers where they are installed.

LightGBM's model of 200 trees of 31 leaves, fitted on the flights of 2013, 13 numbers a row; 8,192 different rows in
rotation, or the processor would learn them by heart. Microseconds of processor time of this thread a call, all ways in
turn, one thread each. No compiler belongs to Holdfast; to measure them too, install lleaves, "llvmlite<0.45" (lleaves
1.3 does not run with newer ones), treelite and tl2cgen (with gcc) beside it.
"""

import ctypes
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl

from holdfast.demo.flights import write_feeds
from holdfast.runtimes.onnx import OnnxRuntime
from holdfast.runtimes.trees import TreesRuntime
from holdfast.tasks.classification import Classification
from holdfast.trainers.lightgbm import LightGBM
from parts.figures import options, report

Matrix = np.ndarray[Any, np.dtype[np.float32]]
Way = Callable[[Matrix], Any]

COLUMNS = (
    *("distance", "dep_hour", "arr_hour", "weekday", "duration_min", "seats", "built"),
    *("temp", "dewp", "humid", "wind_dir", "wind_speed", "pressure"),
)
ASKED = 8192
BATCHES = (1, 4, 16, 64, 1024)
CALLS, ROWS = 4000, 40_000
"""A turn makes so many calls, or so many that these rows are asked."""
FLOAT32, ROW_MAJOR, NORMAL = 0, 1, 0
"""LightGBM's C_API_DTYPE_FLOAT32, its matrices row by row, and C_API_PREDICT_NORMAL."""


def flights(directory: Path) -> tuple[Matrix, Any]:
    """All flights that have a label, in the order of time, as a matrix with NaN for missing; whether each was late."""
    write_feeds(directory)
    read = {
        name: pl.read_parquet(directory / f"{name}.parquet") for name in ("flights", "weather", "planes", "landings")
    }
    rows = (
        read["flights"]
        .sort("listed_at")
        .join_asof(
            read["weather"].sort("published_at"),
            left_on="listed_at",
            right_on="published_at",
            by="origin",
            check_sortedness=False,
        )
        .join(read["planes"], on="tailnum", how="left")
        .join(read["landings"], on="id")
        .sort("scheduled_at", "id")
    )
    matrix = rows.select(pl.col(COLUMNS).cast(pl.Float32).fill_null(float("nan"))).to_numpy(order="c")
    return matrix, rows["late"].cast(pl.Float64).to_numpy()


def in_process(directory: Path) -> dict[str, Way]:
    """Ways that need nothing but what Holdfast is installed with."""
    booster = lgb.Booster(model_file=str(directory / "model.txt"))
    return {
        "onnx": OnnxRuntime.load(directory).run,
        "trees": TreesRuntime.load(directory).run,
        "lightgbm": lambda x: booster.predict(x, num_threads=1),
        "lightgbm_c": lightgbm_c(booster),
        "lightgbm_c_fast": lightgbm_fast(booster),
    }


def lightgbm_c(booster: lgb.Booster) -> Way:
    """LightGBM's C function for a matrix, by pointers."""
    predict, size, answers = lgb.basic._LIB.LGBM_BoosterPredictForMat, ctypes.c_int64(), np.empty(ASKED)

    def run(x: Matrix) -> Any:
        at = (ctypes.c_void_p(x.ctypes.data), FLOAT32, len(x), x.shape[1], ROW_MAJOR, NORMAL, 0, -1, b"num_threads=1")
        predict(booster._handle, *at, ctypes.byref(size), ctypes.c_void_p(answers.ctypes.data))
        return answers[: len(x)]

    return run


def lightgbm_fast(booster: lgb.Booster) -> Way:
    """LightGBM's C function for one row after another, prepared once."""
    library, size, answers, prepared = lgb.basic._LIB, ctypes.c_int64(), np.empty(ASKED), ctypes.c_void_p()
    options = (NORMAL, 0, -1, FLOAT32, len(COLUMNS), b"num_threads=1")
    library.LGBM_BoosterPredictForMatSingleRowFastInit(booster._handle, *options, ctypes.byref(prepared))
    predict, counted, at = library.LGBM_BoosterPredictForMatSingleRowFast, ctypes.byref(size), answers.ctypes.data

    def run(x: Matrix) -> Any:
        start = x.ctypes.data
        for i in range(len(x)):
            predict(prepared, ctypes.c_void_p(start + i * x.strides[0]), counted, ctypes.c_void_p(at + 8 * i))
        return answers[: len(x)]

    return run


def lleaves(directory: Path) -> dict[str, Way]:
    """Compiled by LLVM: as lleaves calls it, and its function by pointers, laid out for few rows."""
    model = import_module("lleaves").Model(str(directory / "model.txt"))
    model.compile()
    single = import_module("lleaves").Model(str(directory / "model.txt"))
    single.compile(fblocksize=single.num_trees())
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)
    predict = kind(single._execution_engine.get_function_address("forest_root"))

    def run(x: Matrix, owner: Any = single) -> Any:  # the code lives as long as its model
        wide, answers = x.astype(np.float64), np.empty(len(x))
        predict(wide.ctypes.data, answers.ctypes.data, 0, len(x))
        return answers

    return {"lleaves": lambda x: model.predict(x, n_jobs=1), "lleaves_c": run}


def treelite(directory: Path) -> dict[str, Way]:
    """Treelite's own walker, and C made of the trees by tl2cgen, compiled by gcc."""
    walker, compiler = import_module("treelite"), import_module("tl2cgen")
    model = walker.frontend.load_lightgbm_model(str(directory / "model.txt"))
    library = str(directory / "trees.so")
    compiler.export_lib(model, toolchain="gcc", libpath=library, params={"quantize": 1, "parallel_comp": 2})
    compiled = compiler.Predictor(library, nthread=1)
    return {
        "treelite": lambda x: walker.gtil.predict(model, x, nthread=1),
        "tl2cgen": lambda x: compiled.predict(compiler.DMatrix(x, dtype="float32")),
    }


def with_compilers(directory: Path) -> dict[str, Way]:
    """All ways that can be had here."""
    ways = in_process(directory)
    for make in (lleaves, treelite):
        began_s = time.perf_counter()
        try:
            ways |= make(directory)
        except (ImportError, AttributeError, OSError) as error:  # not installed, or not for the libraries beside it
            print(f"{make.__name__}: not measured: {error}")
        else:
            print(f"{make.__name__}: ready after {time.perf_counter() - began_s:.1f} s")
    return ways


def measured(ways: dict[str, Way], asked: Matrix, batch: int, repeats: int) -> dict[str, Any]:
    """Microseconds a call of each way: the median of some turns."""
    batches = [np.ascontiguousarray(asked[i : i + batch]) for i in range(0, len(asked), batch)]
    calls = max(len(batches) if batch > 64 else 1, min(CALLS, ROWS // batch))
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name, way in ways.items():
            before = time.thread_time()
            for i in range(calls):
                way(batches[(turn * calls + i) % len(batches)])
            took[name].append((time.thread_time() - before) / calls * 1e6)
    return {"batch": batch} | {f"{name}_us": statistics.median(turns) for name, turns in took.items()}


def main() -> None:
    """Fit, prove all ways equal, measure, report."""
    given = options(__doc__)
    with TemporaryDirectory() as name:
        directory = Path(name)
        x, y = flights(directory)
        trainer = LightGBM(trees=200, leaves=31, early_stopping=0)
        fitted = trainer.fit(x, y, valid=None, task=Classification(), categories=[0] * len(COLUMNS), seed=7)
        fitted.export(directory)
        fitted.export_native(directory)
        drawn = np.random.default_rng(3).permutation(np.unique(x, axis=0))
        asked = np.ascontiguousarray(drawn[:ASKED])
        expected, ways = fitted.predict(asked), with_compilers(directory)
        for way, run in ways.items():
            apart = float(np.abs(np.asarray(run(asked)).reshape(-1) - expected).max())
            if not apart < 1e-6:
                raise SystemExit(f"{way} answers something else: {apart:.0e} apart")
        report("trees", [measured(ways, asked, batch, given.repeats) for batch in BATCHES], given.json)


if __name__ == "__main__":
    main()
