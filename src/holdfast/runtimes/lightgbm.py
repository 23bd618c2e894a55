"""Runs a LightGBM model from LightGBM's own text form: the native fallback where ONNX was not proved equal."""

import re
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
        """Load ``model.txt``. Raises ArtifactError when it is not a whole model."""
        path = directory / FILE
        try:
            text = path.read_bytes()
            if not _is_whole(text):
                raise ArtifactError(f"{path}: not a whole LightGBM model; train the version again")
            return cls(lgb.Booster(model_str=text.decode()))
        except (lgb.basic.LightGBMError, OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path}: LightGBM cannot load it: {error}; train the version again") from error

    def run(self, x: FloatArray) -> FloatArray:
        """Outputs for a matrix (n, columns) of float32: shape (n,), or (n, classes), float64."""
        return np.asarray(self._booster.predict(x, num_threads=1), dtype=np.float64)


def _is_whole(text: bytes) -> bool:
    """True when the trees fill the bytes that the header says: LightGBM ends the process on a text that is cut."""
    sizes = re.search(rb"\ntree_sizes=([0-9 ]+)\n+", text)
    if not text.startswith(b"tree\n") or sizes is None:
        return False
    return text[sizes.end() + sum(map(int, sizes[1].split())) :].startswith(b"end of trees\n")
