"""Answers that were given before, kept for rows that come again, in a wrapper with the shape of a model."""

from typing import Any

import numpy as np

from holdfast.core.model import Model
from holdfast.core.signature import Rows, Signature
from holdfast.observe.tallies import LookUps

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class LookUpCount:
    """Rows of one version that were looked up."""

    __slots__ = ("hits", "misses")

    def __init__(self) -> None:
        self.hits = 0
        """Rows answered without running the model."""
        self.misses = 0


class CacheCounts:
    """What the versions of one system looked up since the worker started, also those that answer no more.

    Outlives caches and lanes, so that no count falls. Versions are added by the thread that prepares lanes and counted
    in by the thread of the event loop.
    """

    def __init__(self) -> None:
        self._versions: dict[str, LookUpCount] = {}

    def of(self, version: str) -> LookUpCount:
        """Where look-ups of this version are counted."""
        return self._versions.setdefault(version, LookUpCount())

    def by_version(self) -> dict[str, LookUps]:
        """The counts so far."""
        versions = sorted(self._versions.copy().items())
        return {version: LookUps(hits=count.hits, misses=count.misses) for version, count in versions}


class CachedModel:
    """Answers rows from the last `size` different ones, and asks `model` for the others. Owned by one thread.

    Rows are the same when the model sees the same: after its transform, to the last bit. Holds one version, so
    another artifact never answers from it. Only for models that answer the same rows with the same outputs.
    """

    def __init__(self, model: Model, size: int, count: LookUpCount | None = None) -> None:
        self.model = model
        self.size = size
        self.count = count or LookUpCount()
        self._outputs: dict[bytes, float | list[float]] = {}

    def counted_in(self, count: LookUpCount) -> "CachedModel":
        """The same cache for a version whose look-ups are counted there: what one keeps answers the other too."""
        if count is self.count:
            return self
        other = CachedModel(self.model, self.size, count)
        other._outputs = self._outputs
        return other

    @property
    def hits(self) -> int:
        """Rows answered without running the model."""
        return self.count.hits

    @property
    def misses(self) -> int:
        """Rows that the model was run for."""
        return self.count.misses

    @property
    def signature(self) -> Signature:
        """What the version takes."""
        return self.model.signature

    @property
    def entries(self) -> int:
        """How many answers are kept now."""
        return len(self._outputs)

    def shares_answers(self, other: "CachedModel") -> bool:
        """Whether both answer from the same cache."""
        return self._outputs is other._outputs

    def predict(self, rows: Rows) -> FloatArray:
        """Outputs (n,), or (n, classes), as float64. Raises ValueError where the model gives another shape."""
        x = self.model.transform.matrix(rows)
        known = self._outputs
        keys = [row.tobytes() for row in x]
        signature = self.model.signature
        outputs = np.empty(signature.shape(rows.count))
        missing: list[int] = []
        for i, key in enumerate(keys):
            found = known.pop(key, None)
            if found is None:
                missing.append(i)
            else:
                outputs[i] = known[key] = found  # put back as the one that was used last
        self.count.hits += rows.count - len(missing)
        self.count.misses += len(missing)
        if missing:
            fresh = self.model.runtime.run(x if len(missing) == rows.count else x[missing])
            if fresh.shape != signature.shape(len(missing)):  # numpy would repeat one number for each class
                raise ValueError(f"outputs of shape {fresh.shape} for {len(missing)} rows")
            outputs[missing] = fresh
            for i, output in zip(missing, outputs[missing].tolist(), strict=True):
                known[keys[i]] = output
            while len(known) > self.size:
                del known[next(iter(known))]
        return outputs
