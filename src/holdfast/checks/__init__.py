"""Checks: each measures one property of a window."""

KINDS = {
    "attribution": "holdfast.checks.attribution:Attribution",
    "calibration": "holdfast.checks.calibration:Calibration",
    "cost": "holdfast.checks.cost:Cost",
    "dependence": "holdfast.checks.dependence:Dependence",
    "drift": "holdfast.checks.drift:Drift",
    "errors": "holdfast.checks.errors:Errors",
    "estimated_quality": "holdfast.checks.estimated_quality:EstimatedQuality",
    "freshness": "holdfast.checks.freshness:Freshness",
    "latency": "holdfast.checks.latency:Latency",
    "quality": "holdfast.checks.quality:Quality",
    "schema": "holdfast.checks.schema:Schema",
    "silence": "holdfast.checks.silence:Silence",
    "slices": "holdfast.checks.slices:Slices",
    "volume": "holdfast.checks.volume:Volume",
}
