"""What a version runs on, and why on nothing faster, is read from its files."""

from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from holdfast.core import kinds
from holdfast.core.model import Facts, Model
from holdfast.core.signature import Column, Signature
from holdfast.core.transform import Encoding, Transform
from holdfast.profiling.models import facts_of
from holdfast.trainers.lightgbm import to_onnx

COLUMNS = ("a", "b", "c")
SIGNATURE = Signature(
    columns=tuple(Column(name=name, type="number") for name in COLUMNS), task="classification", output="probability"
)


def model(directory: Path, *, trees: int, runtime: str = "onnx", parity: str = "onnx: equal", leaves: int = 7) -> Model:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, len(COLUMNS)))
    y = (x.sum(axis=1) > 0).astype(float)
    options: dict[str, Any] = {"objective": "binary", "num_leaves": leaves, "verbosity": -1, "num_threads": 1}
    text = lgb.train(options, lgb.Dataset(x, y), num_boost_round=trees).model_to_string()
    (directory / "model.onnx").write_bytes(to_onnx(text))
    facts = Facts(
        system="s", task="classification", trainer="lightgbm", params={}, seed=0, runtime=runtime, parity=parity,
        rows=400, trained_from="", trained_until="",
    )  # fmt: skip
    encodings = tuple(Encoding(name=name) for name in COLUMNS)
    return Model(SIGNATURE, Transform(columns=encodings), kinds.load("runtimes", runtime).load(directory), facts)


def test_trees_and_their_leaves_are_counted(tmp_path: Path) -> None:
    found = facts_of(model(tmp_path, trees=25, runtime="trees"), tmp_path)
    assert (found.runtime, found.trees, found.most_leaves) == ("trees", 25, 7)
    assert (found.faster, found.why_not) == ("", "")
    assert (found.columns, found.texts) == (3, 0)


def test_a_runtime_that_refuses_the_model_says_why_itself(tmp_path: Path) -> None:
    found = facts_of(model(tmp_path, trees=12), tmp_path)
    assert (found.faster, found.why_not) == ("trees", "it holds 12 trees, fewer than 20")


def test_a_runtime_that_would_take_the_model_has_no_reason_against_it(tmp_path: Path) -> None:
    found = facts_of(model(tmp_path, trees=25), tmp_path)
    assert (found.faster, found.why_not) == ("trees", "")


def test_a_runtime_that_was_not_proved_is_known_by_its_proof(tmp_path: Path) -> None:
    said = "onnx: 9 rows, equal; trees was not used: 3e-02 apart on 9 rows"
    found = facts_of(model(tmp_path, trees=25, parity=said), tmp_path)
    assert found.why_not == "its answers differ: 3e-02 apart on 9 rows"


def test_a_file_that_is_no_trees_has_none(tmp_path: Path) -> None:
    made = model(tmp_path, trees=25)
    (tmp_path / "model.onnx").write_bytes(b"something else")
    found = facts_of(made, tmp_path)
    assert (found.trees, found.most_leaves) == (None, None)
    assert found.why_not
