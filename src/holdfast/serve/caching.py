"""Answers that were given before, kept for rows that come again. A wrapper with the shape of a model."""

from typing import Any

import numpy as np

from holdfast.core.model import Model
from holdfast.core.signature import Rows, Signature

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class CachedModel:
    """Answers rows from the last `size` different ones, and asks `model` for the others. Owned by one thread.

    Rows are the same when the model sees the same: after its transform, to the last bit. Holds one version, so
    another version never answers from it. Only for models that answer the same rows with the same outputs.
    """

    def __init__(self, model: Model, size: int) -> None:
        self.model = model
        self.size = size
        self.hits = 0
        """Rows answered without running the model."""
        self.misses = 0
        self._outputs: dict[bytes, float] = {}

    @property
    def signature(self) -> Signature:
        """What the version takes."""
        return self.model.signature

    @property
    def entries(self) -> int:
        """How many answers are kept now."""
        return len(self._outputs)

    def predict(self, rows: Rows) -> FloatArray:
        """Outputs (n,) as float64."""
        x = self.model.transform.matrix(rows)
        known = self._outputs
        keys = [row.tobytes() for row in x]
        outputs = np.empty(rows.count)
        missing: list[int] = []
        for i, key in enumerate(keys):
            found = known.pop(key, None)
            if found is None:
                missing.append(i)
            else:
                outputs[i] = known[key] = found  # put back as the one that was used last
        self.hits += rows.count - len(missing)
        self.misses += len(missing)
        if missing:
            fresh = self.model.runtime.run(x if len(missing) == rows.count else x[missing])
            outputs[missing] = fresh
            for i, output in zip(missing, outputs[missing].tolist(), strict=True):
                known[keys[i]] = output
            while len(known) > self.size:
                del known[next(iter(known))]
        return outputs
