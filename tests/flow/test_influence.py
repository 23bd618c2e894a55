"""Influence of many answers at once: the same as of one."""

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.model import Facts, Model
from holdfast.core.signature import Column, Signature
from holdfast.core.transform import Encoding, Transform
from holdfast.flow import lineage
from holdfast.flow.influence import influence_of

COLUMNS = tuple(Column(name=name, type="number") for name in ("x", "y"))
SIGNATURE = Signature(columns=COLUMNS, task="regression", output="value")


class Product:
    """A runtime whose inputs interact; missing counts as 2."""

    @classmethod
    def load(cls, directory: object) -> "Product":
        return cls()

    def run(self, x: np.ndarray) -> np.ndarray:
        return np.prod(np.where(np.isnan(x), 2.0, x), axis=1)


def a_model(signature: Signature = SIGNATURE) -> Model:
    transform = Transform(columns=tuple(Encoding(name=column.name) for column in signature.columns))
    facts = Facts(
        system="orders",
        task="regression",
        trainer="linear",
        params={},
        seed=0,
        runtime="linear",
        parity="equal",
        rows=2,
        trained_from="",
        trained_until="",
    )
    return Model(signature, transform, Product(), facts)


ROWS = pl.DataFrame({"x": [1.0, 3.0, None], "y": [4.0, 5.0, 6.0]})


def test_it_is_that_of_each_answer_alone() -> None:
    model = a_model()
    found = influence_of(model)(ROWS)
    for i in range(ROWS.height):
        alone = {each.column: each.change for each in lineage.influences(model, ROWS[i])}
        assert {name: float(values[i]) for name, values in found.items()} == pytest.approx(alone)
    assert found["x"].tolist() == [4.0, -5.0, 0.0]


def test_a_column_that_is_not_there_has_none_and_one_that_may_not_be_missing_cannot_be_told() -> None:
    assert influence_of(a_model())(ROWS.drop("x"))["x"].tolist() == [0.0] * 3
    needed = replace(SIGNATURE, columns=(COLUMNS[0], replace(COLUMNS[1], nullable=False)))
    assert np.isnan(influence_of(a_model(needed))(ROWS)["y"]).all()


def test_no_rows_have_no_influence() -> None:
    assert {values.size for values in influence_of(a_model())(ROWS.clear()).values()} == {0}
