"""A model as it is used everywhere: signature, transform and runtime in one piece."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from holdfast.core.inputs import read_frame
from holdfast.core.protocols import Joining, Runtime, TwoRuntime
from holdfast.core.signature import Rows, Signature
from holdfast.core.transform import Transform

if TYPE_CHECKING:
    import polars as pl

    FloatArray = np.ndarray[Any, np.dtype[np.float64]]
    Words = np.ndarray[Any, np.dtype[np.uint32]]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What an artifact says about itself. Nothing in it depends on when or where it was made."""

    format: int = 1
    system: str
    task: str
    trainer: str
    params: Mapping[str, Any]
    seed: int
    runtime: str
    """Kind of the runtime that serves it."""
    parity: str
    """How it was proved equal to the trained model, or why it is served natively."""
    rows: int
    """How many rows it was fitted on."""
    trained_from: str
    trained_until: str
    """Times between which those rows lie, ISO 8601 in UTC; the end exclusive."""


class Model:
    """Answers rows. Safe to share between threads; the same rows give the same answers, whoever else is in the batch,
    up to the last bits of a float32 sum."""

    def __init__(self, signature: Signature, transform: Transform, runtime: Runtime, facts: Facts) -> None:
        self.signature = signature
        self.transform = transform
        self.runtime = runtime
        self.facts = facts

    def predict(self, rows: Rows) -> "FloatArray":
        """Outputs (n,) as float64: a probability in [0, 1] or a value; or (n, classes), probabilities."""
        if not rows.count:
            return np.empty(self.signature.shape(0), dtype=np.float64)
        return self.runtime.run(self.transform.matrix(rows)).astype(np.float64, copy=False)

    def predict_frame(self, frame: "pl.DataFrame") -> "FloatArray":
        """Outputs (n,), or (n, classes), for a frame that has the signature's columns; others are left alone.

        Raises InvalidInput where a value does not fit the signature.
        """
        return self.predict(read_frame(self.signature, frame))


class TwoModels:
    """Two models in one run, for rows of which each goes to one of them."""

    def __init__(self, transform: Transform, runtime: TwoRuntime) -> None:
        self._transform = transform
        self._runtime = runtime

    def predict(self, rows: Rows, which: "Words") -> "FloatArray":
        """Outputs (n,), of the first model where `which` (n,), uint32, is 0 and of the second where it is 1."""
        return self._runtime.run(self._transform.matrix(rows), which).astype(np.float64, copy=False)


def two_in_one(first: Model, second: Model) -> TwoModels | None:
    """Both models in one; None where they transform rows differently or their runtimes cannot be joined."""
    if first.transform != second.transform or not isinstance(first.runtime, Joining):
        return None
    runtime = first.runtime.beside(second.runtime)
    return None if runtime is None else TwoModels(first.transform, runtime)
