"""Proves that the model that will be served answers what the trained model answers. In: a fitted model and real rows.
Out: the exported files, the runtime that serves them, and what was proved.

Conversion can be silently wrong, so nothing is believed: the export is loaded as it will be served and asked. What
does not agree is served in the library's own form instead, and that is asked too. Where another runtime runs the same
files faster, it is asked as well, and serves if it agrees.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from holdfast.core import kinds
from holdfast.core.protocols import Fitted, Runtime
from holdfast.errors import ArtifactError, HoldfastError, ParityFailed

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

TOLERANCE = 1e-5
"""Largest accepted difference of an answer, in proportion to it or to the mean size of all where that is above 1."""
REAL_ROWS = 5_000
"""How many real rows are asked, evenly spread over the training and hold-out rows."""
BLANKED_ROWS = 32
"""How many real rows are asked again per column with that column missing: training may never have seen it missing."""
SINGLE_ROWS = 32
"""How many real rows are asked one at a time too: a batch of one can take another path through a runtime."""

FASTER: Mapping[str, str] = {"onnx": "trees"}
"""Runtimes that read the files of another one and load just those models that they run faster. The shape of a model
decides that, and no timing: the same training must give the same artifact."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Which runtime serves the model, and the sentence that says why it may."""

    runtime: str
    text: str


def export_proved(fitted: Fitted, x: FloatArray, directory: Path, *, tolerance: float = TOLERANCE) -> Proof:
    """Export a fitted model into a directory, as ONNX if that is proved on rows of `x`, else natively; a proved export
    is served by the fastest runtime that is proved too.

    `x` is a float32 matrix (n, columns) of real rows. Raises ParityFailed when not even the native form agrees.
    """
    probes = _probes(x)
    expected = np.asarray(fitted.predict(probes), dtype=np.float64)
    before = set(directory.iterdir())
    try:
        kind = fitted.export(directory)
        worst = _worst(_load(kind, directory), probes, expected)
        why = f"{worst:.0e} apart on {len(probes):,} rows"
    except HoldfastError as error:
        kind, worst, why = "export", float("inf"), str(error)
    if worst <= tolerance:
        portable = Proof(runtime=kind, text=f"{kind}: {_said(probes, worst)}")
        return _fastest(portable, directory, probes, expected, tolerance=tolerance)
    for path in set(directory.iterdir()) - before:
        path.unlink()
    native = fitted.export_native(directory)
    apart = _worst(_load(native, directory), probes, expected)
    if not apart <= tolerance:
        raise ParityFailed(
            f"neither {kind} ({why}) nor {native} ({apart:.0e} apart) answers what the trained model does"
        )
    return Proof(runtime=native, text=f"native {native}: {_said(probes, apart)}; {kind} was not used: {why}")


def _fastest(portable: Proof, directory: Path, probes: FloatArray, expected: FloatArray, *, tolerance: float) -> Proof:
    """What is proved of the faster runtime for the same files, before what was proved already; or just that."""
    faster = FASTER.get(portable.runtime)
    if faster is None:
        return portable
    try:
        runtime = _load(faster, directory)
    except ArtifactError:  # a model that it does not run faster, or not at all
        return portable
    worst = _worst(runtime, probes, expected)
    if worst <= tolerance:
        return Proof(runtime=faster, text=f"{faster}: {_said(probes, worst)}; {portable.text}")
    return Proof(
        runtime=portable.runtime,
        text=f"{portable.text}; {faster} was not used: {worst:.0e} apart on {len(probes):,} rows",
    )


def _load(kind: str, directory: Path) -> Runtime:
    runtime: Runtime = kinds.load("runtimes", kind).load(directory)
    return runtime


def _said(probes: FloatArray, worst: float) -> str:
    """Rounded up to a power of ten: the last digits depend on the processor, and this goes into the artifact."""
    if worst == 0:
        return f"{len(probes):,} rows, equal"
    return f"{len(probes):,} rows, no difference above {10.0 ** np.ceil(np.log10(worst)):.0e}"


def _probes(x: FloatArray) -> FloatArray:
    """Real rows, the same rows with one column missing at a time, and one row with nothing known."""
    real = x[np.unique(np.linspace(0, len(x) - 1, REAL_ROWS).astype(np.int64))]
    some = real[:: max(1, len(real) // BLANKED_ROWS)][:BLANKED_ROWS]
    blanked = np.repeat(some[None], x.shape[1], axis=0)
    for j in range(x.shape[1]):
        blanked[j, :, j] = np.nan
    return np.concatenate([real, blanked.reshape(-1, x.shape[1]), np.full_like(real[:1], np.nan)])


def _worst(runtime: Runtime, probes: FloatArray, expected: FloatArray) -> float:
    """Largest relative difference, together and one at a time; infinity for an answer that is not a number."""
    together = runtime.run(probes)
    alone = np.concatenate([runtime.run(probes[i : i + 1]) for i in range(min(SINGLE_ROWS, len(probes)))])
    answered = np.concatenate([together, alone])
    wanted = np.concatenate([expected, expected[: len(alone)]])
    size = np.abs(wanted)
    apart = np.abs(answered - wanted) / np.maximum(max(1.0, float(size.mean())), size)
    return float(apart.max()) if np.isfinite(apart).all() else float("inf")
