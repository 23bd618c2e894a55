"""Every runtime: loads data only, answers float64 of shape (n,), the same from several threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core import kinds
from holdfast.errors import ArtifactError
from holdfast.tasks.classification import Classification
from holdfast.trainers.lightgbm import LightGBM
from holdfast.trainers.linear import Linear

FILES = {"onnx": "model.onnx", "trees": "model.onnx", "lightgbm": "model.txt", "linear": "model.json"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory with a model for each runtime."""
    directory = tmp_path_factory.mktemp("exported")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float64)
    options: Any = {"valid": None, "task": Classification(), "categories": [0, 0, 0], "seed": 7}
    boosted = LightGBM(trees=20).fit(x, y, **options)
    boosted.export(directory)
    boosted.export_native(directory)
    Linear().fit(x, y, **options).export_native(directory)
    return directory


@pytest.mark.parametrize("kind", FILES)
def test_answers_are_float64_one_per_row_and_need_no_company(exported: Path, kind: str) -> None:
    runtime = kinds.load("runtimes", kind).load(exported)
    x = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    together = runtime.run(x)
    assert together.shape == (64,)
    assert together.dtype == np.float64
    alone = np.concatenate([runtime.run(x[i : i + 1]) for i in range(64)])
    np.testing.assert_allclose(alone, together, atol=1e-7)


@pytest.mark.parametrize("kind", FILES)
def test_threads_may_share_it(exported: Path, kind: str) -> None:
    runtime = kinds.load("runtimes", kind).load(exported)
    x = np.random.default_rng(2).normal(size=(200, 3)).astype(np.float32)
    expected = runtime.run(x)
    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(runtime.run, [x] * 16):
            np.testing.assert_array_equal(answers, expected)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("damage", ["cut", "missing", "other"])
def test_a_damaged_file_is_an_artifact_error(exported: Path, tmp_path: Path, kind: str, damage: str) -> None:
    whole = (exported / FILES[kind]).read_bytes()
    if damage != "missing":
        (tmp_path / FILES[kind]).write_bytes(whole[: len(whole) // 2] if damage == "cut" else b'{"no": "model"}')
    with pytest.raises(ArtifactError, match=FILES[kind]):
        kinds.load("runtimes", kind).load(tmp_path)
