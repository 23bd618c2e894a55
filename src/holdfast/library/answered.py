"""What a table's answers and labels are: a number per row, or a probability per class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.core.classes import class_name, in_order
from holdfast.errors import DataError, NotFound
from holdfast.flow.classes import places
from holdfast.library.tables import numbers_of
from holdfast.library.tasks import TASKS
from holdfast.tasks.classification import Classification
from holdfast.tasks.multiclass import Multiclass
from holdfast.tasks.regression import Regression

FloatArray = npt.NDArray[np.float64]
TaskName = Literal["classification", "multiclass", "regression"]
TableTask = Classification | Multiclass | Regression
Score = str | Mapping[str, str]
"""The column of the answers, or each class and the column of its probability."""

MULTICLASS: Literal["multiclass"] = "multiclass"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The columns of answers, and the task that they are of."""

    task: TableTask
    columns: tuple[str, ...]
    """One, or one per class in order."""

    def answers(self, rows: pl.DataFrame, side: str) -> FloatArray:
        """Answers (n,), or (n, classes); NaN where one is missing."""
        each = [numbers_of(rows, name, side) for name in self.columns]
        return np.column_stack(each) if self.task.classes else each[0]

    def labels(self, rows: pl.DataFrame, label: str) -> FloatArray:
        """Labels (n,), places of classes where there are some; NaN where there is none."""
        if label not in rows.columns:
            return np.full(rows.height, np.nan)
        if self.task.classes:
            return places(rows[label], self.task.classes).to_numpy()
        return np.asarray(self.task.target(rows[label]), dtype=np.float64)


def answered_by(score: Score, task: TaskName) -> Answered:
    """What `score` names, for a task. Raises NotFound for no task, DataError for what does not fit it."""
    if task not in (*TASKS, MULTICLASS):
        raise NotFound("task", task, (*TASKS, MULTICLASS))
    if isinstance(score, str):
        if task == MULTICLASS:
            raise DataError("score= of several classes maps each to the column of its probability: {'a': 'p_a', ...}")
        return Answered(task=TASKS[task], columns=(score,))
    least = Multiclass.least_classes
    if task == "regression" or len(score) < least:
        raise DataError(f"score= maps classes to columns where there are {least} or more; else name one column")
    columns = {class_name(name): column for name, column in score.items()}
    classes = in_order(columns)
    return Answered(task=Multiclass(classes), columns=tuple(columns[name] for name in classes))
