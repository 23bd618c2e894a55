"""The tasks that tables can be asked about, by name."""

from collections.abc import Mapping

from holdfast.tasks.classification import Classification
from holdfast.tasks.regression import Regression

TASKS: Mapping[str, Classification | Regression] = {"classification": Classification(), "regression": Regression()}
