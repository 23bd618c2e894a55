"""What is served answers what was trained, or something else is served and says why."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from holdfast.errors import ParityFailed
from holdfast.flow.parity import export_proved
from holdfast.runtimes.trees import TreesRuntime
from holdfast.tasks.classification import Classification
from holdfast.trainers.lightgbm import Boosted, LightGBM

X = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)


class Sum:
    """A fitted model whose exports are linear models; each form may be wrong by as much as is asked for."""

    params: Mapping[str, Any] = {}
    curves: Mapping[str, list[float]] = {}

    def __init__(self, *, export_off: float = 0.0, native_off: float = 0.0, missing: float = -1.0) -> None:
        self.export_off = export_off
        self.native_off = native_off
        self.missing = missing

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(x), -1.0, x.astype(np.float64)).sum(axis=1)

    def export(self, directory: Path) -> str:
        (directory / "converted.bin").write_bytes(b"")
        return self._write(directory, self.export_off, self.missing)

    def export_native(self, directory: Path) -> str:
        return self._write(directory, self.native_off, -1.0)

    def _write(self, directory: Path, off: float, missing: float) -> str:
        column = {"type": "number", "mean": 0.0, "scale": 1.0, "limit": 1e9, "weight": 1.0, "missing": missing}
        model = {"intercept": off, "link": "identity", "columns": [column, column]}
        (directory / "model.json").write_bytes(msgspec.json.encode(model))
        return "linear"


class Inexpressible(Sum):
    def export(self, directory: Path) -> str:
        raise ParityFailed("it has no equal")


def test_an_export_that_agrees_is_used_and_says_how_well(tmp_path: Path) -> None:
    proof = export_proved(Sum(export_off=3e-7), X, tmp_path)
    assert proof.runtime == "linear"
    assert proof.text == "linear: 365 rows, no difference above 1e-06"  # 300 real, 2 x 32 blanked, 1 empty
    assert export_proved(Sum(), X, tmp_path).text == "linear: 365 rows, equal"


def test_an_export_that_differs_is_replaced_by_the_native_form(tmp_path: Path) -> None:
    proof = export_proved(Sum(export_off=0.41), X, tmp_path)
    assert proof.text.startswith("native linear: 365 rows, equal; linear was not used: 4e-01 apart on 365 rows")
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_a_difference_that_shows_only_where_a_value_is_missing_is_found(tmp_path: Path) -> None:
    assert export_proved(Sum(missing=0.0), X, tmp_path).text.startswith("native")


def test_answers_that_are_not_numbers_are_not_equal(tmp_path: Path) -> None:
    class Nan(Sum):
        def _write(self, directory: Path, off: float, missing: float) -> str:
            kind = super()._write(directory, off, missing)
            text = (directory / "model.json").read_bytes().replace(b'"scale":1.0', b'"scale":0.0')
            (directory / "model.json").write_bytes(text)
            return kind

    with np.errstate(all="ignore"), pytest.raises(ParityFailed, match="inf apart"):
        export_proved(Nan(), X, tmp_path)


def test_what_has_no_export_says_why(tmp_path: Path) -> None:
    proof = export_proved(Inexpressible(), X, tmp_path)
    assert proof.text == "native linear: 365 rows, equal; export was not used: it has no equal"


def test_when_nothing_agrees_nothing_is_served(tmp_path: Path) -> None:
    with pytest.raises(ParityFailed, match=r"neither linear \(.* apart on 365 rows\) nor linear \(.* apart\)"):
        export_proved(Sum(export_off=1.0, native_off=1.0), X, tmp_path)


def test_large_answers_may_differ_in_proportion(tmp_path: Path) -> None:
    assert export_proved(Sum(export_off=0.5), X * 1e6 + np.float32(1e6), tmp_path).text.startswith("linear: ")


def test_few_rows_are_enough_to_ask(tmp_path: Path) -> None:
    assert export_proved(Sum(), X[:1], tmp_path).text == "linear: 4 rows, equal"


def boosted(columns: int = 2) -> tuple[Boosted, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(300, columns)).astype(np.float32)
    y = (x.sum(axis=1) > 0).astype(np.float64)
    trainer = LightGBM(trees=20, leaves=7, early_stopping=0, feature_fraction=1.0)
    return trainer.fit(x, y, valid=None, task=Classification(), categories=[0] * columns, seed=7), x


def test_trees_are_served_by_tables_that_are_proved_like_the_file_that_they_are_read_from(tmp_path: Path) -> None:
    fitted, x = boosted()
    proof = export_proved(fitted, x, tmp_path)
    assert proof.runtime == "trees"
    asked, portable = proof.text.split("; ")
    assert asked.startswith("trees: 365 rows, ")
    assert portable.startswith("onnx: 365 rows, ")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_faster_runtime_that_answers_something_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, x = boosted()
    right = TreesRuntime.run
    monkeypatch.setattr(TreesRuntime, "run", lambda self, x: right(self, x) + 0.01)
    proof = export_proved(fitted, x, tmp_path)
    assert proof.runtime == "onnx"
    assert proof.text.endswith("; trees was not used: 1e-02 apart on 365 rows")


def test_a_model_that_no_runtime_makes_faster_is_served_as_it_was_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, x = boosted()
    monkeypatch.setattr("holdfast.runtimes.trees.MOST_WORDS_LOOKED_UP", 1)
    proof = export_proved(fitted, x, tmp_path)
    assert proof.runtime == "onnx"
    assert "trees" not in proof.text
