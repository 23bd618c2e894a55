"""Checks: each measures one property of a window."""

KINDS = {
    "calibration": "holdfast.checks.calibration:Calibration",
    "drift": "holdfast.checks.drift:Drift",
    "freshness": "holdfast.checks.freshness:Freshness",
    "latency": "holdfast.checks.latency:Latency",
    "quality": "holdfast.checks.quality:Quality",
    "schema": "holdfast.checks.schema:Schema",
    "silence": "holdfast.checks.silence:Silence",
}
