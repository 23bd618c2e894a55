"""Tasks: what is answered and how it is scored."""

KINDS = {
    "classification": "holdfast.tasks.classification:Classification",
    "regression": "holdfast.tasks.regression:Regression",
}
