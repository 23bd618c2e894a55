"""Runtimes: each loads and runs one form of exported model."""

KINDS = {
    "onnx": "holdfast.runtimes.onnx:OnnxRuntime",
    "lightgbm": "holdfast.runtimes.lightgbm:LightGBMRuntime",
    "linear": "holdfast.runtimes.linear:LinearRuntime",
}
