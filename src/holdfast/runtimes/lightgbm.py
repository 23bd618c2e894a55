"""Runs a LightGBM model from LightGBM's own text form: the native fallback where ONNX was not proved equal."""

from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from holdfast.errors import ArtifactError

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

FILE = "model.txt"


class LightGBMRuntime:
    """A booster on one thread. Safe to call from several threads."""

    def __init__(self, booster: lgb.Booster) -> None:
        self._booster = booster

    @classmethod
    def load(cls, directory: Path) -> "LightGBMRuntime":
        """Load ``model.txt``. Raises ArtifactError when LightGBM cannot read it."""
        path = directory / FILE
        try:
            return cls(lgb.Booster(model_str=path.read_text(encoding="utf-8")))
        except (lgb.basic.LightGBMError, OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path}: LightGBM cannot load it: {error}; train the version again") from error

    def run(self, x: FloatArray) -> FloatArray:
        """Outputs for a matrix (n, columns) of float32: shape (n,), float64."""
        return np.asarray(self._booster.predict(x, num_threads=1), dtype=np.float64)
