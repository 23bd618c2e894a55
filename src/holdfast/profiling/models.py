"""What a version runs on, and why on nothing faster: read from its files."""

from pathlib import Path

import numpy as np

from holdfast.core import kinds
from holdfast.core.model import Model
from holdfast.errors import ArtifactError
from holdfast.flow.parity import FASTER
from holdfast.profiling.measured import ModelFacts
from holdfast.runtimes.ensemble import Ensemble, read_ensemble

_FILE = "model.onnx"


def facts_of(model: Model, directory: Path) -> ModelFacts:
    """What is known about a loaded model whose artifact lies in `directory`."""
    facts = model.facts
    faster = FASTER.get(facts.runtime, "")
    ensemble = _ensemble(directory)
    return ModelFacts(
        runtime=facts.runtime,
        trainer=facts.trainer,
        parity=facts.parity,
        columns=len(model.signature.columns),
        texts=sum(column.type == "category" for column in model.signature.columns),
        trees=None if ensemble is None else len(ensemble.roots),
        most_leaves=None if ensemble is None else _most_leaves(ensemble),
        faster=faster,
        why_not=_why_not(faster, facts.parity, directory) if faster else "",
    )


def _ensemble(directory: Path) -> Ensemble | None:
    try:
        return read_ensemble((directory / _FILE).read_bytes())
    except (OSError, ArtifactError):
        return None


def _most_leaves(ensemble: Ensemble) -> int:
    """Node numbers grow from tree to tree, so the leaves between two roots are those of one tree."""
    leaves = (ensemble.true < 0).astype(np.int64)
    return int(np.add.reduceat(leaves, np.asarray(ensemble.roots)).max())


def _why_not(faster: str, parity: str, directory: Path) -> str:
    """Why a faster runtime was not chosen: what it says about the file, or what its proof said."""
    said = f"{faster} was not used: "
    if said in parity:
        return f"its answers differ: {parity.partition(said)[2]}"
    try:
        kinds.load("runtimes", faster).load(directory)
    except ArtifactError as error:
        return str(error.__cause__ or error)
    return ""
