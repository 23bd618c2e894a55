"""Trainers: each fits one family of models."""

KINDS = {
    "lightgbm": "holdfast.trainers.lightgbm:LightGBM",
    "linear": "holdfast.trainers.linear:Linear",
}
