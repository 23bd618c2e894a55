"""Labels that are classes, and answers of one number per class, as columns of frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from holdfast.core.classes import UNKNOWN, class_name, in_order
from holdfast.core.spec import SystemSpec


def places(labels: pl.Series, classes: Sequence[str]) -> pl.Series:
    """The place of each label among the classes in order, as Float64; -1 for one that is none of them."""
    labels = labels.fill_nan(None) if labels.dtype.is_float() else labels
    values = labels.unique().drop_nulls().to_list()
    if not values:
        return pl.Series(labels.name, [None], dtype=pl.Float64).new_from_index(0, len(labels))
    ordered = in_order(classes)
    known = {name: float(place) for place, name in enumerate(ordered)}
    found = {value: known.get(class_name(value), float(UNKNOWN)) for value in values}
    return labels.replace_strict(found, default=None, return_dtype=pl.Float64)


def valued(spec: SystemSpec, found: pl.DataFrame) -> pl.DataFrame:
    """Recorded labels with their `value` by the classes of the file: a class is recorded by its name."""
    if not spec.data.label.classes or "class" not in found.columns:
        return found
    return found.with_columns(
        pl.when(pl.col("class").is_not_null())
        .then(places(found["class"], spec.data.label.classes))
        .otherwise("value")
        .alias("value")
    )


def answers(name: str, outputs: Any) -> pl.Series:
    """Outputs (n,) as a column of Float64, or (n, classes) as one of arrays; a NaN stays one."""
    values = np.asarray(outputs, dtype=np.float64)
    return pl.Series(name, values, dtype=pl.Float64) if values.ndim == 1 else pl.Series(name, values)


def outputs_of(series: pl.Series) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """A column of answers as outputs: (n,), or (n, classes) of arrays; NaN where missing."""
    values = series if isinstance(series.dtype, pl.Array) else series.cast(pl.Float64)
    outputs: np.ndarray[Any, np.dtype[np.float64]] = values.to_numpy()
    return outputs


def part_names(output: str, classes: Sequence[str]) -> list[str]:
    """What the numbers of an answer are called, in order; none where it is a single one."""
    return [f"{output}.{name}" for name in in_order(classes)]


def gathered(frame: pl.DataFrame, output: str, classes: Sequence[str]) -> pl.DataFrame:
    """The frame with the parts of its answers as one column of arrays, too; null where there is none of them.

    A class that a version did not know yet was answered 0. A single number that is there is no such answer.
    """
    names = part_names(output, classes)
    there = [name for name in names if name in frame.columns]
    if not there:
        return frame.with_columns(pl.lit(None, pl.Array(pl.Float64, len(names))).alias(output))
    answered = pl.any_horizontal(pl.col(name).is_not_null() for name in there)
    parts = [pl.col(name).fill_null(0.0) if name in there else pl.lit(0.0, pl.Float64) for name in names]
    return frame.with_columns(pl.when(answered).then(pl.concat_arr(parts)).alias(output))


def parted(frame: pl.DataFrame, output: str, classes: Sequence[str]) -> pl.DataFrame:
    """The frame with the numbers of its answers as columns of their own, too."""
    names = part_names(output, classes)
    if not names or output not in frame.columns:
        return frame
    return frame.with_columns(pl.col(output).arr.get(i).alias(name) for i, name in enumerate(names))


def kind_of(output: str, classes: Sequence[str]) -> dict[str, Any]:
    """The types of the columns of an answer, parts too."""
    if not classes:
        return {output: pl.Float64}
    return {output: pl.Array(pl.Float64, len(classes))} | dict.fromkeys(part_names(output, classes), pl.Float64)
