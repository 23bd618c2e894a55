"""What each input does to many answers at once. In: a model, rows. Out: by column how each answer would change."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.core.model import Model

FloatArray = npt.NDArray[np.float64]


def influence_of(model: Model) -> Callable[[pl.DataFrame], Mapping[str, FloatArray]]:
    """A function from rows (n) to the influence of each input on each answer, (n,) per column of the signature.

    Influence is the answer without the input less the answer with it, of one probability per class that of the class
    that was answered (occlusion; Robnik-Šikonja and Kononenko 2008), as
    `lineage.influences` says of one answer. NaN where it cannot be told: an input that may not be missing. 0 for a
    column that the rows have not. Raises InvalidInput where a value does not fit the signature. Costs an answer per
    row and column.
    """

    def influence(rows: pl.DataFrame) -> Mapping[str, FloatArray]:
        answers = model.predict_frame(rows)
        # Of one number per class, the one of the class that was answered.
        chosen = answers.argmax(axis=1, keepdims=True) if answers.ndim > 1 else None
        found: dict[str, FloatArray] = {}
        for column in model.signature.columns:
            if column.name not in rows.columns:
                found[column.name] = np.zeros(rows.height)
            elif not column.nullable:
                found[column.name] = np.full(rows.height, np.nan)
            else:
                without = rows.with_columns(pl.lit(None, rows.schema[column.name]).alias(column.name))
                change = model.predict_frame(without) - answers
                found[column.name] = change if chosen is None else np.take_along_axis(change, chosen, axis=1)[:, 0]
        return found

    return influence
