"""Runtimes: each loads and runs one form of exported model."""

KINDS = {
    "onnx": "holdfast.runtimes.onnx:OnnxRuntime",
    "trees": "holdfast.runtimes.trees:TreesRuntime",
    "lightgbm": "holdfast.runtimes.lightgbm:LightGBMRuntime",
    "linear": "holdfast.runtimes.linear:LinearRuntime",
}
