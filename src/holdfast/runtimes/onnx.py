"""Runs a model in ONNX form with ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from holdfast.errors import ArtifactError

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

FILE = "model.onnx"
THREADS = 1
"""Threads inside one run. One is repeatable to the last bit; with more, sums depend on how rows were dealt out."""


class OnnxRuntime:
    """One session, on one thread that does not spin while it waits. Safe to call from several threads."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        shape = session.get_outputs()[0].shape
        self._is_single = len(shape) < 2 or shape[1] == 1

    @classmethod
    def load(cls, directory: Path) -> "OnnxRuntime":
        """Load ``model.onnx``. Raises ArtifactError when ONNX Runtime cannot read it."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = directory / FILE
        try:
            return cls(ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"]))
        except Exception as error:  # what it raises shares no base class
            raise ArtifactError(f"{path}: ONNX Runtime cannot load it: {error}; train the version again") from error

    def run(self, x: FloatArray) -> FloatArray:
        """Outputs for a matrix (n, columns) of float32: shape (n,), or (n, classes), float64."""
        output: Any = self._session.run(None, {self._input: x})[0]
        values: FloatArray = np.asarray(output, dtype=np.float64)
        return values.reshape(-1) if self._is_single else values
