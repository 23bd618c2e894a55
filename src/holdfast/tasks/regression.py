"""Regression: answers a number."""

from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.errors import DataError, UnknownKind

if TYPE_CHECKING:
    import polars as pl

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

METRICS = {
    "mae": False,
    "mse": False,
    "rmse": False,
    "median_absolute_error": False,
    "max_error": False,
    "mape": False,
    "msle": False,
    "rmsle": False,
    "pinball_10": False,
    "pinball_90": False,
    "r2": True,
    "explained_variance": True,
    "bias": False,
}
"""Metrics and whether higher is better. `bias` has no direction: a limit on it says what is meant."""


class Regression:
    """Any number; the output is a value in the unit of the label.

    Losses: `absolute_error`, smallest for the median, and `squared_error`, smallest for the mean, both in
    [0, infinity). Only differences of absolute errors are bounded before the label is known, so releases are
    decided on `absolute_error`.
    """

    name = "regression"
    output = "value"
    classes: tuple[str, ...] = ()
    losses = ("absolute_error", "squared_error")
    errors = ("mae", "rmse")
    is_listwise = False

    def target(self, label: "pl.Series") -> FloatArray:
        """Labels as float64 (n,), NaN where missing. Raises DataError for text and infinities."""
        if not (label.dtype.is_numeric() or str(label.dtype) in ("Boolean", "Null")):
            raise DataError(
                f"label '{label.name}' is {label.dtype}; regression takes numbers: convert the column at its source"
            )
        y: FloatArray = label.cast(float).to_numpy().astype(np.float64, copy=False)
        if np.isinf(y).any():
            raise DataError(f"label '{label.name}' is infinite in row {int(np.argmax(np.isinf(y)))}; leave it empty")
        return y

    def refuses_label(self, value: float | str) -> str:
        """Anything that is not finite is refused."""
        return "" if not isinstance(value, str) and np.isfinite(value) else "a finite number"

    def loss(self, name: str, y: FloatArray, output: FloatArray) -> FloatArray:
        """Loss per row (n,), NaN where the label is. Raises UnknownKind for a loss it has not."""
        if name == "absolute_error":
            return np.abs(output - y)
        if name == "squared_error":
            return np.square(output - y)
        raise UnknownKind("losses", name, self.losses)

    def loss_bounds(
        self, name: str, candidate: FloatArray, live: FloatArray, of: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest difference loss(candidate) - loss(live) per row (n,), whatever the label is.

        Absolute errors differ by at most the distance of the two answers, which is reached. Squared errors differ
        without bound unless the answers are equal: -infinity and infinity.
        """
        if name == "absolute_error":
            apart = np.abs(candidate - live)
        elif name == "squared_error":
            apart = np.where(candidate == live, 0.0, np.inf)
        else:
            raise UnknownKind("losses", name, self.losses)
        return -apart, apart

    def metrics(self, y: FloatArray, output: FloatArray) -> dict[str, float]:
        """Errors in the label's unit (`mse` in its square; `mape` relative, `msle` and `rmsle` of logarithms), R² and
        explained variance against the mean of these labels, bias (mean output - mean label).

        NaN where one is undefined: on no rows, R² and explained variance where the label does not vary, MAPE where a
        label is 0, errors of logarithms where a label or an answer is -1 or less.
        """
        if not len(y):
            return dict.fromkeys(METRICS, float("nan"))
        residual = output - y
        size, square = np.abs(residual), np.square(residual)
        spread = float(np.square(y - y.mean()).sum())
        mse, msle = float(square.mean()), _msle(y, output)
        mae, bias = float(size.mean()), float(residual.mean())
        return {
            "mae": mae,
            "mse": mse,
            "rmse": float(np.sqrt(mse)),
            "median_absolute_error": float(np.median(size)),
            "max_error": float(size.max()),
            "mape": _mape(y, size),
            "msle": msle,
            "rmsle": float(np.sqrt(msle)),
            "pinball_10": _pinball(mae, bias, 0.1),
            "pinball_90": _pinball(mae, bias, 0.9),
            "r2": 1 - float(square.sum()) / spread if spread else float("nan"),
            "explained_variance": 1 - float(np.var(residual)) * len(y) / spread if spread else float("nan"),
            "bias": bias,
        }

    def higher_is_better(self, metric: str) -> bool:
        """Direction of a metric. Raises UnknownKind with the near miss."""
        if metric not in METRICS:
            raise UnknownKind("metrics", metric, METRICS)
        return METRICS[metric]

    def trivial(self, y: FloatArray) -> float:
        """The median: the best constant under absolute error, the default loss."""
        return float(np.median(y))


def _mape(y: FloatArray, size: FloatArray) -> float:
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        value = float((size / np.abs(y)).mean())
    return value if (y != 0).all() and np.isfinite(value) else float("nan")


def _msle(y: FloatArray, output: FloatArray) -> float:
    if not (y.min() > -1 and output.min() > -1):
        return float("nan")
    return float(np.square(np.log1p(output) - np.log1p(y)).mean())


def _pinball(mae: float, bias: float, q: float) -> float:
    """Mean loss of an answer that should lie at quantile q: too low costs q, too high 1 - q (Koenker, Bassett 1978).

    How much is too high on average and how much too low are (mae + bias) / 2 and (mae - bias) / 2.
    """
    return ((1 - q) * (mae + bias) + q * (mae - bias)) / 2
